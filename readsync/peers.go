package main

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
)

// peerFlags bound the conversation with the databases. Which they are comes from
// credentials and the environment.
type peerFlags struct {
	Timeout time.Duration `default:"1m"`
	peers   peers         `kong:"-"`
}

// peers are the two sides: the databases, but for tests.
type peers struct {
	collection func(opts *options.ClientOptions, database, name string) (collection, error)
	database   func(ctx context.Context, timeout time.Duration) (database, error)
}

func (p peerFlags) Validate() error {
	if p.Timeout < time.Second {
		return fmt.Errorf("--timeout must be at least 1s, got %v", p.Timeout)
	}
	return nil
}

// datesFlag says how dates and ObjectIDs inside of a payload are stored.
type datesFlag struct {
	Dates string `enum:"extended,text" default:"extended"`
}

func (d datesFlag) builder(nul extjson.NULPolicy) *reading.Builder {
	return reading.NewBuilder(nul, d.Dates == "text")
}
