package main

import (
	"context"
	"errors"
	"fmt"
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
	"observability-hub/readsync/internal/mongopeer"
)

// collection is a collection of MongoDB. Tests replace it.
type collection interface {
	find(context.Context, question) ([]bson.Raw, error)
	update(ctx context.Context, command bson.Raw) (reply bson.Raw, err error)
	list(ctx context.Context, filter bson.D) ([]mongo.CollectionSpecification, error)
	count(ctx context.Context, filter bson.D) (int64, error)
	close()
}

// question is a query that one answer of the server completes.
type question struct {
	filter bson.D
	only   string // the field to return in addition to _id; "" means all
	sorted bool   // by _id
	limit  int
}

// dialed is a collection that the driver reaches.
type dialed struct {
	client *mongo.Client
	docs   *mongo.Collection
}

// dialCollection prepares connections to a collection.
func dialCollection(opts *options.ClientOptions, database, name string) (collection, error) {
	client, err := mongo.Connect(opts)
	if err != nil {
		return nil, err
	}
	return &dialed{client, client.Database(database).Collection(name)}, nil
}

// find gets one answer. Its negative limit makes the server close the cursor.
func (d *dialed) find(ctx context.Context, q question) ([]bson.Raw, error) {
	find := options.Find().SetBatchSize(int32(q.limit)).SetLimit(-int64(q.limit))
	if q.sorted {
		find.SetSort(bson.D{{Key: "_id", Value: 1}})
	}
	if q.only != "" {
		find.SetProjection(bson.D{{Key: q.only, Value: 1}})
	}
	cursor, err := d.docs.Find(ctx, q.filter, find)
	if err != nil {
		return nil, err
	}
	defer cursor.Close(ctx)
	found := make([]bson.Raw, 0, q.limit)
	for cursor.Next(ctx) {
		found = append(found, cursor.Current)
	}
	return found, cursor.Err()
}

func (d *dialed) update(ctx context.Context, command bson.Raw) (bson.Raw, error) {
	return d.docs.Database().RunCommand(ctx, command).Raw()
}

func (d *dialed) list(ctx context.Context, filter bson.D) ([]mongo.CollectionSpecification, error) {
	return d.docs.Database().ListCollectionSpecifications(ctx, filter, options.ListCollections().SetNameOnly(true).SetAuthorizedCollections(true))
}

func (d *dialed) count(ctx context.Context, filter bson.D) (int64, error) {
	return d.docs.CountDocuments(ctx, filter)
}

func (d *dialed) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = d.client.Disconnect(ctx) // ends the sessions; the server drops them anyway
}

// openSource connects to the collection that mongo_uri, $MONGO_DB_NAME and
// $MONGO_COLLECTION name.
func openSource(ctx context.Context, env *cli.Env, f peerFlags) (*source, error) {
	uri, ok, err := credential.Lookup("mongo_uri")
	if err != nil {
		return nil, mongopeer.BadConfiguration(err)
	}
	if !ok {
		return nil, mongopeer.BadConfiguration(errors.New("no mongo_uri: neither the credential nor $MONGO_URI is set"))
	}
	database, collection := os.Getenv("MONGO_DB_NAME"), os.Getenv("MONGO_COLLECTION")
	if database == "" || collection == "" {
		return nil, mongopeer.BadConfiguration(errors.New("no collection: $MONGO_DB_NAME or $MONGO_COLLECTION is not set"))
	}
	if strings.ContainsAny(database, "/\\. \"$*<>:|?\x00") || strings.ContainsRune(collection, 0) || strings.HasPrefix(collection, "$") {
		return nil, mongopeer.BadConfiguration(fmt.Errorf("$MONGO_DB_NAME %q, $MONGO_COLLECTION %q: not valid names of a database and a collection", database, collection))
	}
	opts, err := mongopeer.ParseURI(uri)
	if err != nil {
		return nil, err
	}
	if opts.AppName == nil {
		opts.SetAppName(name)
	}
	opts.SetTimeout(f.Timeout).SetServerSelectionTimeout(min(f.Timeout, 15*time.Second)).
		SetConnectTimeout(min(f.Timeout, 10*time.Second)).SetMaxPoolSize(4).
		// A secondary may return documents that are already marked. Marks that only a
		// minority has written may be rolled back.
		SetReadPreference(readpref.Primary()).SetWriteConcern(writeconcern.Majority())
	dialed, err := f.peers.collection(opts, database, collection)
	if err != nil {
		return nil, mongopeer.BadConfiguration(errors.New("mongo_uri: the MongoDB driver does not accept it"))
	}
	s := &source{collection: dialed, name: collection, timeout: f.Timeout,
		peer: mongopeer.Peer{Collection: database + "." + collection, Hosts: opts.Hosts, TLS: opts.TLSConfig != nil, Timeout: f.Timeout}}
	if err := s.inspect(ctx, env); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

// inspect returns an error if the documents of the collection cannot be marked, or if
// the database has only other collections. If the server refuses to list its
// collections, inspect returns nil: reading the documents will show what is wrong.
func (s *source) inspect(ctx context.Context, env *cli.Env) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	found, err := s.list(ctx, bson.D{{Key: "name", Value: s.name}})
	if err != nil {
		if _, answered := errors.AsType[mongo.CommandError](err); answered && !mongopeer.TimedOut(err) {
			return nil
		}
		return s.peer.Fault("look for the collection", err)
	}
	found = slices.DeleteFunc(found, func(c mongo.CollectionSpecification) bool { return c.Name != s.name })
	if len(found) == 0 {
		others, _ := s.list(ctx, bson.D{})
		others = slices.DeleteFunc(others, func(c mongo.CollectionSpecification) bool { return strings.HasPrefix(c.Name, "system.") })
		if len(others) == 0 { // a new hub, before the first document is written
			env.Diag.Warn("collection_missing", "the collection "+s.peer.Collection+" does not exist, and its database has no other collections")
			return nil
		}
		return sysexits.New(sysexits.Config, "collection_missing", fmt.Errorf("the collection %s does not exist", s.peer.Collection)).
			WithHint("check MONGO_DB_NAME and MONGO_COLLECTION; if no document was written yet, create the collection")
	}
	switch kind := found[0].Type; kind {
	case "view", "timeseries":
		return sysexits.New(sysexits.Config, "source_refused", fmt.Errorf("%s is a %s, whose documents cannot be marked", s.peer.Collection, kind)).
			WithHint("MONGO_COLLECTION must name the collection that documents are written to")
	}
	return nil
}
