package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
	"go.mongodb.org/mongo-driver/v2/mongo/readpref"
	"go.mongodb.org/mongo-driver/v2/mongo/writeconcern"

	"observability-hub/lib/cli"
	"observability-hub/lib/credential"
	"observability-hub/lib/sysexits"
)

// Values of a document's status.
const (
	statusIngested  = "ingested"
	statusProcessed = "processed"
	statusRejected  = "rejected"
)

// source is the collection that documents come from.
type source struct {
	client  *mongo.Client
	hosts   []string // of mongo_uri
	tls     bool     // is spoken
	docs    *mongo.Collection
	timeout time.Duration // of one command
	command []byte        // memory for the next one that marks

	fewTypes bool // the server does not know the $type codes of all types
}

// openSource connects to the collection that mongo_uri, $MONGO_DB_NAME and
// $MONGO_COLLECTION name.
func openSource(ctx context.Context, env *cli.Env, timeout time.Duration) (*source, error) {
	uri, ok, err := credential.Lookup("mongo_uri")
	if err != nil {
		return nil, sourceConfig(err)
	}
	if !ok {
		return nil, sourceConfig(errors.New("no mongo_uri: neither the credential nor $MONGO_URI is there"))
	}
	database, collection := os.Getenv("MONGO_DB_NAME"), os.Getenv("MONGO_COLLECTION")
	if database == "" || collection == "" {
		return nil, sourceConfig(errors.New("no collection: $MONGO_DB_NAME or $MONGO_COLLECTION is not set"))
	}
	if strings.ContainsAny(database, "/\\. \"$*<>:|?\x00") || strings.ContainsRune(collection, 0) || strings.HasPrefix(collection, "$") {
		return nil, sourceConfig(fmt.Errorf("$MONGO_DB_NAME %q, $MONGO_COLLECTION %q: no names of a database and a collection", database, collection))
	}
	opts, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	if opts.AppName == nil {
		opts.SetAppName(name)
	}
	opts.SetTimeout(timeout).SetServerSelectionTimeout(min(timeout, 15*time.Second)).
		SetConnectTimeout(min(timeout, 10*time.Second)).SetMaxPoolSize(4).
		// What a stale secondary says was read before is read again, and what a
		// minority took may be forgotten.
		SetReadPreference(readpref.Primary()).SetWriteConcern(writeconcern.Majority())
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, sourceConfig(errors.New("mongo_uri: the MongoDB driver does not take it"))
	}
	s := &source{client: client, docs: client.Database(database).Collection(collection), timeout: timeout, hosts: opts.Hosts, tls: opts.TLSConfig != nil}
	if err := s.inspect(ctx, env); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// inspect refuses what is not a collection whose documents can be marked. A server
// that does not list its collections, or not to this user, is not asked twice: what
// matters shows when documents are read.
func (s *source) inspect(ctx context.Context, env *cli.Env) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	list := func(filter bson.D) ([]mongo.CollectionSpecification, error) {
		return s.docs.Database().ListCollectionSpecifications(ctx, filter, options.ListCollections().SetNameOnly(true).SetAuthorizedCollections(true))
	}
	name := s.docs.Database().Name() + "." + s.docs.Name()
	found, err := list(bson.D{{Key: "name", Value: s.docs.Name()}})
	if err != nil {
		if _, answered := errors.AsType[mongo.CommandError](err); answered && !timedOut(err) {
			return nil
		}
		return s.fault("look for the collection", err)
	}
	found = slices.DeleteFunc(found, func(c mongo.CollectionSpecification) bool { return c.Name != s.docs.Name() })
	if len(found) == 0 {
		others, _ := list(bson.D{})
		others = slices.DeleteFunc(others, func(c mongo.CollectionSpecification) bool { return strings.HasPrefix(c.Name, "system.") })
		if len(others) == 0 { // on a new hub, until the first document comes
			env.Diag.Warn("collection_missing", "the collection "+name+" does not exist, nor does another one of that database")
			return nil
		}
		return sysexits.New(sysexits.Config, "collection_missing", fmt.Errorf("the collection %s does not exist", name)).
			WithHint("check MONGO_DB_NAME and MONGO_COLLECTION; if nothing was written there yet, create the collection")
	}
	switch kind := found[0].Type; kind {
	case "view", "timeseries":
		return sysexits.New(sysexits.Config, "source_refused", fmt.Errorf("%s is a %s, in which no document can be marked", name, kind)).
			WithHint("MONGO_COLLECTION must name the collection that documents are written to")
	}
	return nil
}

func sourceConfig(err error) error {
	return sysexits.New(sysexits.Config, "bad_configuration", err).
		WithHint("mongo_uri reads mongodb://user:password@host/?tls=true; MONGO_DB_NAME and MONGO_COLLECTION name the collection")
}

func (s *source) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.client.Disconnect(ctx) // ends the sessions; the server drops them anyway
}

// Limits of a batch.
const (
	batchDocuments = 1000
	batchBytes     = 8 << 20
)

// keyset walks through the documents of a status in the order of their ids,
// one batch a query. No cursor stays open: the server would drop one while rows
// are written, after ten minutes of idling.
type keyset struct {
	source *source
	status string // "" is any
	brief  bool   // only _id and status
	last   value  // the last id that was read
	above  bool   // the type of last has no further ids
	done   bool
}

// next returns the next documents, at least one unless all have been read. A
// server's answer ends at 16 MiB, so fewer than asked for are not the end.
func (k *keyset) next(ctx context.Context, limit int) ([]bson.Raw, error) {
	for !k.done {
		docs, err := k.find(ctx, limit)
		if err != nil {
			return nil, k.source.fault("read documents", err)
		}
		for _, doc := range docs {
			if lookup(doc, "_id").missing() {
				return nil, sysexits.New(sysexits.Config, "source_refused", fmt.Errorf("%s holds a document without _id, which can neither be told apart nor marked", k.source.docs.Name())).
					WithHint("MONGO_COLLECTION must name the collection that documents are written to, not a view")
			}
		}
		switch {
		case len(docs) > 0:
			id := lookup(docs[len(docs)-1], "_id")
			if id.kind == k.last.kind && string(id.data) == string(k.last.data) {
				return nil, sysexits.New(sysexits.Failed, "read_stuck", errors.New("read documents: the server gave the last one again"))
			}
			k.last, k.above = value{id.kind, append([]byte(nil), id.data...)}, false
			return docs, nil
		case k.last.missing() || k.above:
			k.done = true
		default:
			k.above = true
		}
	}
	return nil, nil
}

func (k *keyset) find(ctx context.Context, limit int) ([]bson.Raw, error) {
	filter := bson.D{}
	if k.status != "" {
		filter = bson.D{{Key: "status", Value: k.status}}
	}
	if !k.last.missing() {
		bound := bson.D{{Key: "$gt", Value: bson.RawValue{Type: k.last.kind, Value: k.last.data}}}
		if k.above = k.above || !comparable(k.last); k.above {
			types := typesAbove(k.last.kind)
			if k.source.fewTypes {
				types = slices.DeleteFunc(types, func(t int32) bool { return !slices.Contains(commonTypes, t) })
			}
			if len(types) == 0 {
				return nil, nil
			}
			bound = bson.D{{Key: "$type", Value: types}}
		} else if isNaN(k.last) { // the lowest number, but nothing is greater
			bound = bson.D{{Key: "$gte", Value: math.Inf(-1)}}
		}
		filter = append(filter, bson.E{Key: "_id", Value: bound})
	}
	find := options.Find().SetSort(bson.D{{Key: "_id", Value: 1}})
	if k.brief {
		find.SetProjection(bson.D{{Key: "status", Value: 1}})
	}
	docs, err := k.source.query(ctx, filter, find, limit)
	if e, ok := errors.AsType[mongo.CommandError](err); ok && k.above && !k.source.fewTypes && (e.Code == 2 || e.Code == 238) {
		k.source.fewTypes = true
		return k.find(ctx, limit)
	}
	return docs, err
}

// typeOrder is MongoDB's order of values of different types: first those of the first
// group. $gt compares within a group only.
var typeOrder = [][]int32{
	{-1},            // MinKey
	{6},             // undefined
	{10},            // null
	{1, 16, 18, 19}, // numbers
	{2, 14},         // string, symbol
	{3},             // object
	{4},             // array
	{5},             // binary
	{7},             // ObjectID
	{8},             // boolean
	{9},             // date
	{17},            // timestamp
	{11},            // regular expression
	{12},            // DBPointer
	{13},            // code
	{15},            // code with scope
	{127},           // MaxKey
}

// commonTypes are the $type codes that every server knows. FerretDB answers
// BadValue (2) or NotImplemented (238) to the others, which it cannot store.
var commonTypes = []int32{1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 16, 17, 18}

// typesAbove returns the $type codes of all types that sort behind that of kind.
func typesAbove(kind bson.Type) (types []int32) {
	found := false
	for _, group := range typeOrder {
		if found {
			types = append(types, group...)
		}
		for _, t := range group {
			found = found || byte(t) == byte(kind)
		}
	}
	return types
}

func isNaN(v value) bool {
	switch v.kind {
	case bson.TypeDouble:
		return math.IsNaN(math.Float64frombits(binary.LittleEndian.Uint64(v.data)))
	case bson.TypeDecimal128:
		return decimal(v).IsNaN()
	}
	return false
}

// comparable reports whether $gt finds what comes behind a value within its
// type. Of the others there is at most one, except of those that no server takes
// for an _id.
func comparable(v value) bool {
	switch v.kind {
	case bson.TypeMinKey, bson.TypeMaxKey, bson.TypeNull, bson.TypeUndefined, bson.TypeRegex:
		return false
	}
	return true
}
