package mongowire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"slices"

	"go.mongodb.org/mongo-driver/v2/x/bsonx/bsoncore"
)

// Limits that the server announces.
const (
	maxDocument = 16 << 20
	maxMessage  = 48000000
	maxBatch    = 100000
)

// Numbers of the wire protocol.
const (
	opReply = 1
	opQuery = 2004
	opMsg   = 2013

	headerSize     = 16
	checksumFlag   = 1
	moreToCome     = 2
	bodySection    = 0
	sequenceOfDocs = 1
)

// message is one request.
type message struct {
	id          int32
	legacy      bool // an OP_QUERY, which drivers use for the first hello
	wantsAnswer bool
	body        bsoncore.Document
	sequences   map[string][]bsoncore.Document
}

func readMessage(in io.Reader) (*message, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(in, header[:]); err != nil {
		return nil, err
	}
	size := int32(binary.LittleEndian.Uint32(header[0:]))
	if size < headerSize || size > maxMessage {
		return nil, fmt.Errorf("message of %d bytes", size)
	}
	content := make([]byte, size-headerSize)
	if _, err := io.ReadFull(in, content); err != nil {
		return nil, err
	}
	m := &message{id: int32(binary.LittleEndian.Uint32(header[4:])), wantsAnswer: true}
	switch op := binary.LittleEndian.Uint32(header[12:]); op {
	case opMsg:
		return m, m.parse(content)
	case opQuery:
		m.legacy = true
		return m, m.parseQuery(content)
	default:
		return nil, fmt.Errorf("unknown operation %d", op)
	}
}

var errMalformed = errors.New("malformed message")

// parse parses the sections of an OP_MSG.
func (m *message) parse(content []byte) error {
	if len(content) < 5 {
		return errMalformed
	}
	flags := binary.LittleEndian.Uint32(content)
	m.wantsAnswer = flags&moreToCome == 0
	content = content[4:]
	if flags&checksumFlag != 0 && len(content) >= 4 {
		content = content[:len(content)-4]
	}
	for len(content) > 0 {
		kind := content[0]
		content = content[1:]
		switch kind {
		case bodySection:
			doc, rest, ok := bsoncore.ReadDocument(content)
			if !ok {
				return errMalformed
			}
			m.body, content = doc, rest
		case sequenceOfDocs:
			size, _, ok := bsoncore.ReadLength(content)
			if !ok || size < 4 || int(size) > len(content) {
				return errMalformed
			}
			section := content[4:size]
			content = content[size:]
			end := slices.Index(section, 0)
			if end < 0 {
				return errMalformed
			}
			name := string(section[:end])
			section = section[end+1:]
			if m.sequences == nil {
				m.sequences = map[string][]bsoncore.Document{}
			}
			for len(section) > 0 {
				doc, rest, ok := bsoncore.ReadDocument(section)
				if !ok {
					return errMalformed
				}
				m.sequences[name] = append(m.sequences[name], doc)
				section = rest
			}
		default:
			return errMalformed
		}
	}
	if m.body == nil {
		return errMalformed
	}
	return nil
}

// parseQuery parses an OP_QUERY: flags, name of the collection, skip, limit, document.
func (m *message) parseQuery(content []byte) error {
	if len(content) < 4 {
		return errMalformed
	}
	content = content[4:]
	end := slices.Index(content, 0)
	if end < 0 || len(content) < end+9 {
		return errMalformed
	}
	doc, _, ok := bsoncore.ReadDocument(content[end+9:])
	if !ok {
		return errMalformed
	}
	m.body = doc
	return nil
}

// command returns the name of the command, which is the first field.
func (m *message) command() string {
	for e := range elements(m.body) {
		return e.Key()
	}
	return ""
}

// documents returns the documents of a field, which can be a document sequence or an array.
func (m *message) documents(field string) []bsoncore.Document {
	if docs, ok := m.sequences[field]; ok {
		return docs
	}
	array, ok := m.body.Lookup(field).ArrayOK()
	if !ok {
		return nil
	}
	var docs []bsoncore.Document
	for e := range elements(bsoncore.Document(array)) {
		if doc, ok := e.Value().DocumentOK(); ok {
			docs = append(docs, doc)
		}
	}
	return docs
}

// appendAnswer appends the answer to m.
func (m *message) appendAnswer(out []byte, doc bsoncore.Document) []byte {
	size := headerSize + 5 + len(doc)
	op := uint32(opMsg)
	if m.legacy {
		size, op = headerSize+20+len(doc), opReply
	}
	out = binary.LittleEndian.AppendUint32(out, uint32(size))
	out = binary.LittleEndian.AppendUint32(out, 0) // request ID, which the driver does not check
	out = binary.LittleEndian.AppendUint32(out, uint32(m.id))
	out = binary.LittleEndian.AppendUint32(out, op)
	if m.legacy {
		out = append(out, make([]byte, 16)...)         // flags, cursor, start
		out = binary.LittleEndian.AppendUint32(out, 1) // one document
		return append(out, doc...)
	}
	out = append(out, 0, 0, 0, 0, bodySection)
	return append(out, doc...)
}

// elements yields the elements of a document or an array, up to the first damaged one.
func elements(doc bsoncore.Document) iter.Seq[bsoncore.Element] {
	return func(yield func(bsoncore.Element) bool) {
		if len(doc) < 5 {
			return
		}
		rest := doc[4 : len(doc)-1]
		for len(rest) > 0 {
			e, after, ok := bsoncore.ReadElement(rest)
			if !ok || !yield(e) {
				return
			}
			rest = after
		}
	}
}
