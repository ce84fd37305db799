package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// deadLetters is the file of documents that cannot become rows: a line each, with
// the reason and the whole document in canonical Extended JSON. Where that cannot
// hold the document, its BSON is there too.
type deadLetters struct {
	env  *cli.Env
	path string
	f    *os.File
	seen map[[sha256.Size]byte]bool // what the file holds
}

// openDeadLetters opens the file for appending, and cuts off half a line that a
// killed run left.
func openDeadLetters(env *cli.Env, path string) (*deadLetters, error) {
	_, err := os.Stat(path)
	isNew := errors.Is(err, os.ErrNotExist)
	f, err := lockLetters(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		if _, ok := errors.AsType[*sysexits.Error](err); !ok {
			err = statedir.Unwritable(err)
		}
		return nil, err
	}
	d := &deadLetters{env: env, path: path, f: f, seen: map[[sha256.Size]byte]bool{}}
	if err := d.load(isNew); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// errNotRegular is a file of dead letters that is none: a device has no end to read
// up to, and keeps nothing.
var errNotRegular = errors.New("not a regular file")

// lockLetters opens a file of dead letters for one process alone. The lock of the
// state directory is not enough: root's retry of the service's file has another
// one.
func lockLetters(path string, flag int) (*os.File, error) {
	deadline := time.Now().Add(lockWait)
	for {
		f, err := statedir.OpenFile(path, flag)
		if err != nil {
			return nil, err
		}
		info, err := f.Stat()
		if err == nil && !info.Mode().IsRegular() {
			err = &os.PathError{Op: "open", Path: path, Err: errNotRegular}
		}
		if err == nil {
			err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		}
		if err == nil {
			// Who held it may have put another file into its place.
			if now, err := os.Stat(path); err == nil && os.SameFile(now, info) {
				return f, nil
			}
		}
		f.Close()
		switch {
		case err != nil && !errors.Is(err, syscall.EWOULDBLOCK):
			return nil, err
		case time.Now().After(deadline):
			return nil, sysexits.New(sysexits.TempFail, "locked", fmt.Errorf("lock %s: another run holds it", path)).
				WithHint("wait for the other run to end; fuser -v shows who holds it")
		}
		time.Sleep(20 * time.Millisecond) // flock(2) has no time-out of its own
	}
}

func (d *deadLetters) load(isNew bool) error {
	if isNew {
		if err := syncFolder(filepath.Dir(d.path)); err != nil {
			return err
		}
	}
	r := newLines(d.f)
	var whole int64
	for {
		line, err := r.next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, errTooLong) {
			return fmt.Errorf("read %s: %w", d.path, err)
		}
		if !r.complete {
			d.env.Diag.Warn("dead_letters_torn", fmt.Sprintf("%s: cut off half a line, which a killed run left", d.path))
			break
		}
		whole = r.read
		if l, err := parseLetter(line); err == nil {
			d.seen[l.key()] = true
		}
	}
	if err := d.f.Truncate(whole); err != nil {
		return statedir.Unwritable(err)
	}
	_, err := d.f.Seek(whole, io.SeekStart)
	return err
}

// append writes the letters of refused rows and waits until they are on disk.
// One that is there already, from a run that was killed before it could mark the
// document, is not written again.
func (d *deadLetters) append(rows []*row) error {
	w := bufio.NewWriterSize(d.f, 64<<10)
	for _, r := range rows {
		l := r.deadLetter()
		if key := l.key(); !d.seen[key] {
			d.seen[key] = true
			if _, err := w.Write(l.line(d.env.Service)); err != nil {
				return statedir.Unwritable(err)
			}
		}
	}
	if err := w.Flush(); err != nil {
		return statedir.Unwritable(err)
	}
	if err := d.f.Sync(); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

func (d *deadLetters) close() error { return d.f.Close() }

func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return statedir.Unwritable(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		return statedir.Unwritable(fmt.Errorf("fsync %s: %w", path, err))
	}
	return nil
}

// letter is one dead letter.
type letter struct {
	id, reason, detail string
	document           []byte // canonical Extended JSON, or null
	bson               []byte // only if that is not the whole truth
	guard              string // the digest of the document's fields
}

// key identifies what a letter is about: the document of that id, as long as the
// fields that become columns are the same.
func (l letter) key() [sha256.Size]byte {
	content := []byte(l.guard)
	if len(content) == 0 {
		content = append(append(content, l.document...), l.bson...)
	}
	// Ids that are not UTF-8 may have the same text.
	return sha256.Sum256(fmt.Appendf(nil, "%d %s %x %s", len(l.id), l.id, lookup(l.bson, "_id").data, content))
}

// line is how a letter stands in the file.
func (l letter) line(service string) []byte {
	line := record.New(time.Now(), record.Warn, "dead_letter", service)
	l.fill(line)
	return line.End()
}

func (l letter) fill(line *record.Line) {
	line.String("mongo_id", l.id)
	line.String("reason", l.reason)
	line.String("detail", l.detail)
	fillDocument(line, l.document, l.bson)
	if l.guard != "" {
		line.String("guard", l.guard)
	}
}

func fillDocument(line *record.Line, text, raw []byte) {
	line.Raw("document", text)
	if raw != nil {
		line.String("bson", base64.StdEncoding.EncodeToString(raw))
	}
}

func parseLetter(b []byte) (l letter, err error) {
	err = objectFields(b, func(key string, raw []byte) (err error) {
		switch key {
		case "mongo_id":
			l.id, err = jsonString(raw)
		case "reason":
			l.reason, err = jsonString(raw)
		case "detail":
			l.detail, err = jsonString(raw)
		case "guard":
			l.guard, err = jsonString(raw)
		case "document":
			l.document = raw
		case "bson":
			var text string
			if text, err = jsonString(raw); err == nil {
				l.bson, err = base64.StdEncoding.DecodeString(text)
			}
		}
		return err
	})
	if err == nil && l.document == nil && l.bson == nil {
		err = errors.New("no dead letter: neither document nor bson is there")
	}
	return l, err
}

// doc returns the document of a letter.
func (l letter) doc() ([]byte, error) {
	if l.bson != nil {
		return l.bson, nil
	}
	return parseExtended(l.document)
}

// deadLetter is what a refused row leaves.
func (r *row) deadLetter() letter {
	l := letter{id: r.id, reason: r.refused.reason, detail: r.refused.Error(), document: []byte("null"), guard: r.guard}
	if r.doc != nil {
		l.guard = r.digest()
	}
	switch {
	case r.letter != nil: // extract has written the document too
		if other, err := parseLetter(r.letter); err == nil {
			l.document, l.bson = other.document, other.bson
		}
		return l
	case r.doc == nil:
		l.document = r.assembled()
		return l
	}
	l.document, l.bson = r.document()
	return l
}

// document returns the document in canonical Extended JSON, and its BSON where that
// cannot hold it: text that is not UTF-8, double keys, deep nesting.
func (r *row) document() (text, raw []byte) {
	c := converter{dialect: canonical}
	text, err := c.append(nil, value{objectKind, r.doc})
	switch {
	case err != nil:
		return []byte("null"), r.doc
	case r.refused != nil && (r.refused.reason == "invalid_utf8" || r.refused.reason == "duplicate_key") || !exact(text, r.doc):
		return text, r.doc
	}
	return text, nil
}

// exact reports whether a document can be made again of its canonical text.
func exact(text, doc []byte) bool {
	again, err := parseExtended(text)
	return err == nil && bytes.Equal(again, doc)
}

// assembled is the document of a row of which only the record is known.
func (r *row) assembled() []byte {
	b := append([]byte(nil), `{"_id":`...)
	if len(r.id) == 24 && r.id[0] != '"' && r.id[0] != '{' {
		b = append(append(append(b, `{"$oid":"`...), r.id...), `"}`...)
	} else {
		b = append(b, r.id...)
	}
	for i, c := range r.columns {
		if c == nil {
			continue
		}
		b = append(append(append(b, ',', '"'), synced[i]...), '"', ':')
		if i == atPayload || i == atMeta {
			b = append(b, c...)
		} else {
			b = record.AppendString(b, string(c))
		}
	}
	b = append(b, '}')
	// In canonical form, if it is Extended JSON at all.
	if doc, err := parseExtended(b); err == nil {
		c := converter{dialect: canonical}
		if text, err := c.append(nil, value{objectKind, doc}); err == nil {
			return text
		}
	}
	return record.AppendString(nil, string(b))
}

// deadLetterFlags say where dead letters go, and how many a run may write.
type deadLetterFlags struct {
	StateDir    string `placeholder:"DIR"`
	DeadLetters string `placeholder:"FILE"`
	MaxRejects  int64  `default:"0" placeholder:"N"`
	NUL         string `name:"nul" enum:"reject,replace" default:"reject"`
	Differing   string `enum:"keep,replace" default:"keep"`
}

// replace reports whether rows are replaced by documents that differ.
func (f deadLetterFlags) replace() bool { return f.Differing == "replace" }

func (f deadLetterFlags) Validate() error {
	if f.MaxRejects < 0 {
		return fmt.Errorf("--max-rejects %d: less than 0", f.MaxRejects)
	}
	return nil
}

func (f deadLetterFlags) nul() nulPolicy {
	if f.NUL == "replace" {
		return nulReplace
	}
	return nulReject
}

// path returns the file of dead letters.
func (f deadLetterFlags) path(dir *statedir.Dir) string {
	if f.DeadLetters != "" {
		return f.DeadLetters
	}
	return dir.Join("dead-letters.jsonl")
}

// lock locks the state directory.
func (f deadLetterFlags) lock(ctx context.Context, service string, wait time.Duration) (*statedir.Dir, error) {
	path, err := statedir.Resolve(f.StateDir, service)
	if err != nil {
		return nil, err
	}
	return statedir.Open(ctx, path, wait)
}

// tooMany is the end of a run that set more aside than it was allowed to.
func tooMany(n, allowed int64, path string) error {
	return sysexits.New(sysexits.DataErr, "too_many_rejects",
		fmt.Errorf("stopped: %s cannot become rows, more than --max-rejects %d; they are set aside in %s, and what was written before is kept", plural(n, "document"), allowed, path)).
		WithHint("look at the reasons there; a further run goes on with the others; mend the cause, or give --nul=replace, then: readsync retry " + path)
}
