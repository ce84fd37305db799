package mongowire

import (
	"errors"
	"slices"
	"time"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// execute runs a command and returns the answer, which may be an error.
func (s *Server) execute(call *Call, m *message) bsoncore.Document {
	key := ""
	if v := call.Body.Lookup("txnNumber"); v.Type != 0 {
		if s.config.ReplicaSet == "" {
			return (&Failure{Code: 20, Name: "IllegalOperation", Message: "Transaction numbers are only allowed on a replica set member or mongos"}).answer()
		}
		// A write that the driver repeats gets its first answer and is not executed again.
		key = call.Body.Lookup("lsid").String() + v.String()
		s.data.RLock()
		answer := s.retried[key]
		s.data.RUnlock()
		if answer != nil {
			return answer
		}
	}
	answer, err := s.dispatch(call, m)
	if err != nil {
		failure := &Failure{Code: 8, Name: "UnknownError", Message: err.Error()}
		var ce *commandError
		if errors.As(err, &ce) {
			failure = &Failure{Code: ce.code, Name: ce.name, Message: ce.text}
		}
		return failure.answer()
	}
	if key != "" {
		s.data.Lock()
		s.retried[key] = answer
		s.data.Unlock()
	}
	return answer
}

func (s *Server) dispatch(call *Call, m *message) (bsoncore.Document, error) {
	switch call.Command {
	case "hello", "isMaster", "ismaster":
		return s.hello(), nil
	case "find":
		return s.find(call)
	case "getMore":
		return s.getMore(call)
	case "killCursors":
		return s.killCursors(call), nil
	case "insert":
		return s.insert(call, m)
	case "update":
		return s.update(call, m)
	case "delete":
		return s.delete(call, m)
	case "count":
		return s.count(call)
	case "aggregate":
		return s.aggregate(call)
	case "drop":
		s.Drop(call.Database, call.Collection)
	case "listCollections":
		return s.listCollections(call), nil
	case "listIndexes":
		return cursorAnswer(0, call.Database+"."+call.Collection, "firstBatch", []bsoncore.Document{
			bsoncore.NewDocumentBuilder().AppendInt32("v", 2).AppendDocument("key", bsoncore.NewDocumentBuilder().AppendInt32("_id", 1).Build()).AppendString("name", "_id_").Build(),
		}), nil
	case "buildInfo":
		return bsoncore.NewDocumentBuilder().AppendString("version", "7.0.0").AppendDouble("ok", 1).Build(), nil
	case "saslStart", "authenticate":
		return nil, &commandError{18, "AuthenticationFailed", "Authentication failed."}
	case "ping", "endSessions", "createIndexes", "create":
	default:
		return nil, &commandError{59, "CommandNotFound", "no such command: '" + call.Command + "'"}
	}
	return bsoncore.NewDocumentBuilder().AppendDouble("ok", 1).Build(), nil
}

func (s *Server) hello() bsoncore.Document {
	version := s.config.WireVersion
	if version == 0 {
		version = 21 // MongoDB 7.0
	}
	b := bsoncore.NewDocumentBuilder().
		AppendBoolean("helloOk", true).
		AppendBoolean("ismaster", true).
		AppendBoolean("isWritablePrimary", true)
	if name := s.config.ReplicaSet; name != "" {
		hosts := s.config.Hosts
		if hosts == nil {
			hosts = []string{s.Address()}
		}
		members := bsoncore.NewArrayBuilder()
		for _, host := range hosts {
			members.AppendString(host)
		}
		b.AppendString("setName", name).
			AppendInt32("setVersion", 1).
			AppendArray("hosts", members.Build()).
			AppendString("primary", hosts[0]).
			AppendString("me", hosts[0]).
			AppendBoolean("secondary", false)
	}
	return b.AppendInt32("maxBsonObjectSize", maxDocument).
		AppendInt32("maxMessageSizeBytes", maxMessage).
		AppendInt32("maxWriteBatchSize", maxBatch).
		AppendDateTime("localTime", time.Now().UnixMilli()).
		AppendInt32("logicalSessionTimeoutMinutes", 30).
		AppendInt32("connectionId", 1).
		AppendInt32("minWireVersion", 0).
		AppendInt32("maxWireVersion", version).
		AppendBoolean("readOnly", false).
		AppendDouble("ok", 1).
		Build()
}

// all returns the documents that match a filter.
func (s *Server) all(call *Call, filter bsoncore.Document) ([]bsoncore.Document, error) {
	s.data.RLock()
	defer s.data.RUnlock()
	c := s.collection(call.Database, call.Collection, false)
	if c == nil {
		c = &collection{}
	}
	found, err := c.matching(filter, true)
	if err != nil {
		return nil, err
	}
	docs := make([]bsoncore.Document, 0, len(found))
	for _, e := range found {
		docs = append(docs, e.raw)
	}
	return docs, nil
}

func (s *Server) count(call *Call) (bsoncore.Document, error) {
	filter, _ := call.Body.Lookup("query").DocumentOK()
	docs, err := s.all(call, filter)
	if err != nil {
		return nil, err
	}
	n := len(docs)
	if limit := number(call.Body, "limit"); limit > 0 {
		n = min(n, int(limit))
	}
	return bsoncore.NewDocumentBuilder().AppendInt32("n", int32(n)).AppendDouble("ok", 1).Build(), nil
}

// aggregate supports the stages for counting: $match, $sort, $skip, $limit, $count, $project, and $group by a constant or a field
// with {$sum: 1}.
func (s *Server) aggregate(call *Call) (bsoncore.Document, error) {
	array, _ := call.Body.Lookup("pipeline").ArrayOK()
	docs, err := s.all(call, nil)
	if err != nil {
		return nil, err
	}
	for _, v := range values(array) {
		stage, ok := v.DocumentOK()
		if !ok {
			return nil, badValue("Each element of the 'pipeline' array must be an object")
		}
		for e := range elements(stage) {
			if docs, err = runStage(docs, e.Key(), e.Value()); err != nil {
				return nil, err
			}
		}
	}
	return cursorAnswer(0, call.Database+"."+call.Collection, "firstBatch", docs), nil
}

func runStage(docs []bsoncore.Document, name string, v bsoncore.Value) ([]bsoncore.Document, error) {
	doc, _ := v.DocumentOK()
	n, _ := v.AsInt64OK()
	switch name {
	case "$match":
		match, err := parseFilter(doc)
		if err != nil {
			return nil, err
		}
		return slices.DeleteFunc(docs, func(d bsoncore.Document) bool { return !match(d) }), nil
	case "$sort":
		names := slices.Collect(elements(doc))
		slices.SortStableFunc(docs, func(a, b bsoncore.Document) int { return compareBy(names, a, b) })
		return docs, nil
	case "$skip":
		return docs[min(len(docs), int(n)):], nil
	case "$limit":
		return docs[:min(len(docs), int(n))], nil
	case "$count":
		if len(docs) == 0 {
			return nil, nil
		}
		name, _ := v.StringValueOK()
		return []bsoncore.Document{bsoncore.NewDocumentBuilder().AppendInt32(name, int32(len(docs))).Build()}, nil
	case "$project":
		project, err := parseProjection(doc)
		if err != nil {
			return nil, err
		}
		for i := range docs {
			docs[i] = project(docs[i])
		}
		return docs, nil
	case "$group":
		return group(docs, doc)
	}
	return nil, &commandError{40324, "Location40324", "Unrecognized pipeline stage name: '" + name + "'"}
}

// group counts documents by the value of its _id expression.
func group(docs []bsoncore.Document, spec bsoncore.Document) ([]bsoncore.Document, error) {
	by := operand(get(spec, "_id"))
	var sum string
	for e := range elements(spec) {
		if e.Key() == "_id" {
			continue
		}
		accumulator, _ := e.Value().DocumentOK()
		if n, ok := get(accumulator, "$sum").AsInt64OK(); !ok || n != 1 || sum != "" {
			return nil, badValue("$group: only one {$sum: 1} is supported here")
		}
		sum = e.Key()
	}
	var keys []bsoncore.Value
	counts := map[int]int32{}
	for _, doc := range docs {
		key := by(doc)
		i := slices.IndexFunc(keys, func(k bsoncore.Value) bool { return compare(k, key) == 0 })
		if i < 0 {
			i = len(keys)
			keys = append(keys, key)
		}
		counts[i]++
	}
	var groups []bsoncore.Document
	for i, key := range keys {
		if key.Type == 0 {
			key.Type = bsoncore.TypeNull
		}
		b := bsoncore.NewDocumentBuilder().AppendValue("_id", key)
		if sum != "" {
			b.AppendInt32(sum, counts[i])
		}
		groups = append(groups, b.Build())
	}
	return groups, nil
}

func (s *Server) listCollections(call *Call) bsoncore.Document {
	s.data.RLock()
	defer s.data.RUnlock()
	var docs []bsoncore.Document
	for name := range s.databases[call.Database] {
		kind := "collection"
		if other := s.kinds[name]; other != "" {
			kind = other
		}
		docs = append(docs, bsoncore.NewDocumentBuilder().AppendString("name", name).AppendString("type", kind).Build())
	}
	return cursorAnswer(0, call.Database+".$cmd.listCollections", "firstBatch", docs)
}

// number returns a field that is a number, or 0.
func number(doc bsoncore.Document, name string) int64 {
	n, _ := get(doc, name).AsInt64OK()
	return n
}
