// Command ferret runs FerretDB, which speaks MongoDB's protocol, with SQLite in a temporary folder: the server of the demo, and for
// tests one that somebody else wrote. It prints its URI and serves until SIGTERM, SIGINT or the end of its standard input.
//
// It is a module of its own because FerretDB has a hundred dependencies that nothing else needs.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/FerretDB/FerretDB/ferretdb"
)

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintf(os.Stderr, "ferret: error: %v\n", err)
		os.Exit(1)
	}
}

func run(stdin io.Reader, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "hub-ferret-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	f, err := ferretdb.New(&ferretdb.Config{
		Listener:  ferretdb.ListenerConfig{TCP: "127.0.0.1:0"},
		Logger:    slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
		Handler:   "sqlite",
		SQLiteURL: "file:" + filepath.ToSlash(dir) + "/",
	})
	if err != nil {
		return err
	}
	// Whoever started this holds the other end of stdin, and may be killed.
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		stop()
	}()
	if _, err := fmt.Fprintln(stdout, f.MongoDBURI()); err != nil {
		return err
	}
	return f.Run(ctx)
}
