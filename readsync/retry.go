package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/google/renameio/v2"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// retryCmd loads dead letters again.
type retryCmd struct {
	peerFlags
	datesFlag
	StateDir string `placeholder:"DIR"`
	NUL      string `name:"nul" enum:"reject,replace" default:"reject"`
	File     string `arg:"" name:"deadletter" help:"The file of dead letters."`
}

func (r *retryCmd) Validate() error { return r.peerFlags.Validate() }

// Run is what kong calls.
func (r *retryCmd) Run(ctx context.Context, env *cli.Env) error {
	return r.run(ctx, env)
}

// retrying is the state of a retry.
type retrying struct {
	retryCmd
	writing
	source *source
	keep   *bufio.Writer // the letters that stay
	bad    int64
}

// run loads what the file holds. Letters whose documents are rows now are taken
// out: the file is replaced as a whole, at the end. Until then all are there, and
// what was loaded of them is found as identical by the next retry.
func (r *retryCmd) run(ctx context.Context, env *cli.Env) error {
	flags := deadLetterFlags{StateDir: r.StateDir, NUL: r.NUL}
	dir, err := flags.lock(ctx, env.Service, lockWait) // a run that writes the file
	if err != nil {
		return err
	}
	defer dir.Close()
	try := &retrying{retryCmd: *r, writing: writing{env: env}}
	in, err := try.open()
	if err != nil {
		return err
	}
	defer in.Close()
	if try.source, err = openSource(ctx, env, r.Timeout); err != nil {
		return err
	}
	defer try.source.close()
	if try.target, err = openTarget(ctx, r.Timeout, false); err != nil {
		return err
	}
	defer try.target.close()
	out, err := renameio.NewPendingFile(try.File, renameio.WithTempDir(filepath.Dir(try.File)), renameio.WithPermissions(0o600), renameio.WithExistingPermissions())
	if err != nil {
		return statedir.Unwritable(err)
	}
	defer out.Cleanup()
	if err := sameOwner(in, out.File); err != nil {
		return err
	}
	try.keep = bufio.NewWriterSize(out, 64<<10)
	err = try.letters(ctx, in, flags.nul())
	if err == nil {
		err = try.keep.Flush()
		if err == nil {
			err = out.CloseAtomicallyReplace()
		}
		if err == nil {
			err = syncFolder(filepath.Dir(try.File))
		}
		if err != nil {
			err = statedir.Unwritable(err)
		}
	}
	return try.finish(err)
}

// open opens the dead letters, of which a symbolic link is followed: it is the file
// that will be replaced, not the link.
func (r *retrying) open() (*os.File, error) {
	in, err := lockLetters(r.File, os.O_RDONLY)
	if err == nil {
		r.File, err = filepath.EvalSymlinks(in.Name())
	}
	if _, ok := errors.AsType[*sysexits.Error](err); err != nil && !ok {
		err = sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("open the dead letters: %w", err)).
			WithHint("name the file that a run has set documents aside in")
	}
	return in, err
}

// sameOwner gives a file the owner of another: retried by root, the dead letters
// stay those of the service.
func sameOwner(of, f *os.File) error {
	info, err := of.Stat()
	if err != nil {
		return fmt.Errorf("stat %s: %w", of.Name(), err)
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok || int(st.Uid) == os.Geteuid() && int(st.Gid) == os.Getegid() {
		return nil
	}
	if err := f.Chown(int(st.Uid), int(st.Gid)); err != nil {
		return sysexits.New(sysexits.CantCreate, "state_unwritable", fmt.Errorf("give the new dead letters their owner: %w", err)).
			WithHint("run it as the owner of " + of.Name() + ", or as root")
	}
	return nil
}

// letters loads the letters that in holds, in batches.
func (r *retrying) letters(ctx context.Context, in io.Reader, nul nulPolicy) error {
	src := newLines(in)
	b := newBuilder(nul, r.datesFlag)
	var rows []*row
	var texts [][]byte
	size := 0
	for {
		text, err := src.next()
		if err == io.EOF || ctx.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("read %s: %w", r.File, err)
		}
		if len(text) == 0 {
			continue
		}
		row, err := letterRow(b, text)
		if err != nil {
			r.bad++
			r.env.Diag.Warn("bad_record", fmt.Sprintf("%s line %d: %v; it stays there", r.File, src.number, err), diag.Field{Key: "line", Value: src.number})
			if err := r.stay(text); err != nil {
				return err
			}
			continue
		}
		rows, texts, size = append(rows, row), append(texts, text), size+len(text)
		if len(rows) == batchDocuments || size >= batchBytes {
			if err := r.batch(ctx, rows, texts); err != nil {
				return err
			}
			b, rows, texts, size = newBuilder(nul, r.datesFlag), nil, nil, 0
		}
	}
	if err := r.batch(ctx, rows, texts); err != nil {
		return err
	}
	return context.Cause(ctx)
}

func letterRow(b *builder, text []byte) (*row, error) {
	l, err := parseLetter(text)
	if err != nil {
		return nil, err
	}
	doc, err := l.doc()
	if err != nil {
		return nil, err
	}
	r := b.row(doc)
	r.guard = l.guard
	return &r, nil
}

func (r *retrying) stay(text []byte) error {
	if _, err := r.keep.Write(append(text, '\n')); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

// batch loads and marks rows, and keeps the letters of those that are none.
func (r *retrying) batch(ctx context.Context, rows []*row, texts [][]byte) error {
	for len(rows) > 0 {
		n := distinct(rows)
		if err := r.write(rows[:n]); err != nil {
			return err
		}
		var marks []toMark
		for i, row := range rows[:n] {
			if row.outcome == differing || row.outcome == rejected {
				if err := r.stay(texts[i]); err != nil {
					return err
				}
				continue
			}
			marks = append(marks, toMark{id: row.id, key: row.key, guard: row.guard, outcome: row.outcome})
		}
		if err := r.source.settle(ctx, marks, statusRejected, &r.account); err != nil {
			return err
		}
		rows, texts = rows[n:], texts[n:]
	}
	return nil
}

func (r *retrying) finish(err error) error {
	if r.bad > 0 {
		err = errors.Join(err, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("%s of %s are no dead letters; the others are taken", plural(r.bad, "line"), r.File)).
			WithHint("a dead letter is a line of JSON with document or bson, as readsync writes it"))
	}
	if err == nil {
		err = r.account.verdict(r.File, r.account.rejected)
	}
	err = errors.Join(err, r.account.check())
	level := r.account.level(err)
	l := record.New(time.Now(), level, "retried", r.env.Service)
	r.account.fill(l)
	l.Int("marked", r.account.marked)
	l.Int("unmarked", r.account.unmarked)
	l.Int("bad", r.bad)
	return errors.Join(err, r.env.Stdout.Record(level, l.End()))
}
