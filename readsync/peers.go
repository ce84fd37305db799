package main

import (
	"context"
	"fmt"
	"time"

	"go.mongodb.org/mongo-driver/v2/mongo/options"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/reading"
)

// peerFlags are the flags of all commands that use the databases. Credentials and the
// environment name the databases.
type peerFlags struct {
	Timeout time.Duration `default:"1m"`
	peers   peers         `kong:"-"`
}

// peers connect to the two databases. Tests replace them.
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

// datesFlag is the flag for the form of dates and ObjectIDs inside payload and meta.
type datesFlag struct {
	Dates string `enum:"extended,text" default:"extended"`
}

func (d datesFlag) builder(nul extjson.NULPolicy) *reading.Builder {
	return reading.NewBuilder(nul, d.Dates == "text")
}
