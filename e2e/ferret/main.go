// Command ferret runs FerretDB, a server of MongoDB's protocol, with SQLite in a temporary directory. The demo uses it, and so do tests
// that need a server of other authors. It prints its URI and serves until SIGTERM, SIGINT or the end of its standard input.
//
// It is a separate module because FerretDB has a hundred dependencies that nothing else needs.
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
	// The process that started this one has the other end of stdin. If it is killed, stdin ends.
	go func() {
		_, _ = io.Copy(io.Discard, stdin)
		stop()
	}()
	if _, err := fmt.Fprintln(stdout, f.MongoDBURI()); err != nil {
		return err
	}
	return f.Run(ctx)
}
