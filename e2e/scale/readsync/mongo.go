package main

import (
	"fmt"
	"math"
	"runtime/debug"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/mongowire"
)

// serveMongo fills the collections, prints the URI, and serves until it is killed.
func serveMongo(collections string, size int) error {
	s, err := mongowire.New(mongowire.Config{})
	if err != nil {
		return err
	}
	for one := range strings.SplitSeq(collections, ",") {
		name, numbers, _ := strings.Cut(one, "=")
		var first, end int
		if _, err := fmt.Sscanf(numbers, "%d-%d", &first, &end); err != nil {
			return fmt.Errorf("collection %q: %w", one, err)
		}
		docs := make([][]byte, 0, 1000)
		for i := first; i < end; i++ {
			doc, err := reading(i, size)
			if err != nil {
				return err
			}
			if docs = append(docs, doc); len(docs) == cap(docs) || i == end-1 {
				if err := s.Put("hub", name, docs...); err != nil {
					return err
				}
				docs = make([][]byte, 0, 1000)
			}
		}
	}
	debug.FreeOSMemory() // not while a run is measured
	fmt.Println(s.URI())
	select {}
}

// reading makes document n as a hub's Proxy Service stores it.
func reading(n, size int) ([]byte, error) {
	var id bson.ObjectID
	copy(id[:], fmt.Sprintf("%012d", n))
	values := bson.A{}
	for i := range 16 {
		values = append(values, math.Round(float64((n+i)%1000)*100/7)/100)
	}
	payload := bson.D{{Key: "n", Value: int64(n)}, {Key: "values", Value: values}, {Key: "note", Value: ""}}
	doc := bson.D{
		{Key: "_id", Value: id}, {Key: "status", Value: "ingested"},
		{Key: "timestamp", Value: bson.DateTime(1772366400000 + int64(n))},
		{Key: "source", Value: fmt.Sprint("sensor-", n%50)}, {Key: "event_type", Value: "reading"},
		{Key: "payload", Value: payload},
		{Key: "meta", Value: bson.D{{Key: "version", Value: int32(3)}, {Key: "host", Value: "web1"}}},
	}
	raw, err := bson.Marshal(doc)
	if err != nil || len(raw) >= size {
		return raw, err
	}
	payload[2].Value = strings.Repeat("x", size-len(raw))
	return bson.Marshal(doc)
}
