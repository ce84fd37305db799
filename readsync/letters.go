package main

import (
	"context"
	"fmt"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/statedir"
	"observability-hub/readsync/internal/deadletter"
	"observability-hub/readsync/internal/extjson"
)

// lettersFile is the file of dead letters in the state directory.
const lettersFile = "dead-letters.jsonl"

// letterFlags are the flags for documents that cannot become rows or that differ from
// their rows.
type letterFlags struct {
	StateDir    string `placeholder:"DIR"`
	DeadLetters string `placeholder:"FILE"`
	MaxRejects  int64  `default:"0" placeholder:"N"`
	NUL         string `name:"nul" enum:"reject,replace" default:"reject"`
	Differing   string `enum:"keep,replace" default:"keep"`
}

func (f letterFlags) Validate() error {
	if f.MaxRejects < 0 {
		return fmt.Errorf("--max-rejects must be 0 or more, got %d", f.MaxRejects)
	}
	return nil
}

func (f letterFlags) nul() extjson.NULPolicy {
	if f.NUL == "replace" {
		return extjson.ReplaceNUL
	}
	return extjson.RejectNUL
}

// mode returns how rows are written.
func (f letterFlags) mode() writeMode { return writeMode{replace: f.Differing == "replace"} }

// path returns the path of the dead letter file.
func (f letterFlags) path(dir *statedir.Dir) string {
	if f.DeadLetters != "" {
		return f.DeadLetters
	}
	return dir.Join(lettersFile)
}

// lock locks the state directory.
func (f letterFlags) lock(ctx context.Context, service string, wait time.Duration) (*statedir.Dir, error) {
	path, err := statedir.Resolve(f.StateDir, service)
	if err != nil {
		return nil, err
	}
	return statedir.Open(ctx, path, wait)
}

// letters is the dead letter file. It is opened when the first letter is written.
type letters struct {
	letterFlags
	env    *cli.Env
	dir    *statedir.Dir // nil until the first letter, if the caller has not locked it
	locked *statedir.Dir // dir, if put has locked it
	file   *deadletter.File
}

// name returns the path of the file. It is complete after the first letter.
func (l *letters) name() string {
	if l.dir == nil {
		return l.DeadLetters
	}
	return l.path(l.dir)
}

// put appends letters for the refused rows and waits until they are on disk.
func (l *letters) put(ctx context.Context, refused []*row) (err error) {
	if l.dir == nil {
		if l.locked, err = l.lock(ctx, l.env.Service, deadletter.Wait); err != nil {
			return err
		}
		l.dir = l.locked
	}
	if l.file == nil {
		if l.file, err = deadletter.Open(l.env.Diag, l.path(l.dir)); err != nil {
			return err
		}
	}
	all := make([]deadletter.Letter, len(refused))
	for i, r := range refused {
		all[i] = r.letter()
	}
	return l.file.Append(l.env.Service, all)
}

func (l *letters) close() {
	if l.file != nil {
		_ = l.file.Close() // put has synced it
	}
	if l.locked != nil {
		_ = l.locked.Close()
	}
}
