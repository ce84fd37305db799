// Command mongo is a client of MongoDB for the demo and the test scripts.
//
//	mongo insert URI DATABASE.COLLECTION         insert the documents on stdin, one per line in Extended JSON
//	mongo find URI DATABASE.COLLECTION [FILTER]  print documents in the order of their _id, one per line
//	mongo count URI DATABASE.COLLECTION [FILTER]
//	mongo set URI DATABASE.COLLECTION FILTER FIELDS
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"go.mongodb.org/mongo-driver/v2/bson"
	"go.mongodb.org/mongo-driver/v2/mongo"
	"go.mongodb.org/mongo-driver/v2/mongo/options"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "mongo: error: %v\n", err)
		os.Exit(1)
	}
}

var errUsage = errors.New("usage: mongo insert|find|count|set URI DATABASE.COLLECTION [FILTER [FIELDS]]")

func run(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	if len(args) < 3 {
		return errUsage
	}
	database, name, _ := strings.Cut(args[2], ".")
	client, err := mongo.Connect(options.Client().ApplyURI(args[1]))
	if err != nil {
		return err
	}
	defer client.Disconnect(context.Background())
	c := client.Database(database).Collection(name)
	documents := make([]bson.D, 2) // the filter and the fields
	for i, text := range args[3:] {
		if i == len(documents) {
			return errUsage
		}
		if err := bson.UnmarshalExtJSON([]byte(text), false, &documents[i]); err != nil {
			return fmt.Errorf("%s: %w", text, err)
		}
	}
	filter, fields := documents[0], documents[1]
	if filter == nil {
		filter = bson.D{}
	}
	switch {
	case args[0] == "insert":
		return insert(ctx, c, stdin)
	case args[0] == "find":
		return find(ctx, c, filter, stdout)
	case args[0] == "count":
		n, err := c.CountDocuments(ctx, filter)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(stdout, n)
		return err
	case args[0] == "set" && fields != nil:
		_, err := c.UpdateMany(ctx, filter, bson.D{{Key: "$set", Value: fields}})
		return err
	}
	return errUsage
}

func insert(ctx context.Context, c *mongo.Collection, in io.Reader) error {
	lines := bufio.NewReader(in)
	var batch []any
	for {
		line, err := lines.ReadBytes('\n')
		if text := strings.TrimSpace(string(line)); text != "" {
			var doc bson.D
			if err := bson.UnmarshalExtJSON([]byte(text), false, &doc); err != nil {
				return fmt.Errorf("%s: %w", text, err)
			}
			batch = append(batch, doc)
		}
		if len(batch) > 0 && (err != nil || len(batch) == 1000) {
			if _, err := c.InsertMany(ctx, batch); err != nil {
				return err
			}
			batch = nil
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func find(ctx context.Context, c *mongo.Collection, filter bson.D, out io.Writer) error {
	cur, err := c.Find(ctx, filter, options.Find().SetSort(bson.D{{Key: "_id", Value: 1}}))
	if err != nil {
		return err
	}
	defer cur.Close(context.Background())
	for cur.Next(ctx) {
		text, err := bson.MarshalExtJSON(cur.Current, false, false)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(out, "%s\n", text); err != nil {
			return err
		}
	}
	return cur.Err()
}
