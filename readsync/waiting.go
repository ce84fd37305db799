package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/table"
)

type statusCmd struct {
	table.Flag
	StateDir    string `placeholder:"DIR"`
	DeadLetters string `placeholder:"FILE"`
}

// Viewer implements [cli.Viewable].
func (c *statusCmd) Viewer(w io.Writer) cli.Viewer {
	return c.Show(w, table.Columns{"dead_letter_status": {"dead_letters", "bytes"}})
}

// Immediate is cli's question whether a signal may end the run at any point.
func (c *statusCmd) Immediate() bool { return true }

// Run prints how many documents wait in the dead letters. It takes no lock and
// connects to no database.
func (c *statusCmd) Run(ctx context.Context, env *cli.Env) error {
	path := c.DeadLetters
	if path == "" {
		dir, err := statedir.Existing(c.StateDir, family, family)
		if err != nil {
			return err
		}
		path = filepath.Join(dir, lettersFile)
	}
	n, size, err := countLines(path)
	if err != nil {
		return statedir.Unreadable(err)
	}
	l := record.New(time.Now(), record.Info, "dead_letter_status", env.Service)
	l.Int("dead_letters", n)
	l.Int("bytes", size)
	return env.Stdout.Record(record.Info, l.End())
}

// countLines counts the complete lines of a file, and its bytes. A missing file has
// none.
func countLines(path string) (lines, size int64, err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	return record.Count(f)
}
