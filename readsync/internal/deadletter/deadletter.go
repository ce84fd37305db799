// Package deadletter stores documents that cannot become rows in a file. Each line has
// a reason and the whole document. Several processes may use the file, and it stays
// readable after a crash.
package deadletter

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"observability-hub/lib/diag"
	"observability-hub/lib/durable"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
	"observability-hub/readsync/internal/stage"
)

// File is a dead letter file. Each line has a reason and the whole document in
// canonical Extended JSON. If Extended JSON cannot represent the document, the line
// also has its BSON.
type File struct {
	diag *diag.Logger
	path string
	f    *os.File
	seen map[[sha256.Size]byte]bool // keys of the letters in the file
}

// Open opens the file for appending. It removes an incomplete last line, which a killed
// run may have left.
func Open(log *diag.Logger, path string) (*File, error) {
	_, err := os.Stat(path)
	isNew := errors.Is(err, os.ErrNotExist)
	f, err := Lock(path, os.O_RDWR|os.O_CREATE)
	if err != nil {
		if _, ok := errors.AsType[*sysexits.Error](err); !ok {
			err = statedir.Unwritable(err)
		}
		return nil, err
	}
	d := &File{diag: log, path: path, f: f, seen: map[[sha256.Size]byte]bool{}}
	if err := d.load(isNew); err != nil {
		f.Close()
		return nil, err
	}
	return d, nil
}

// Wait is the maximum time to wait until another run releases the file.
const Wait = 10 * time.Second

// errNotRegular is the error of a path that is not a regular file. A device has no end,
// and does not store letters.
var errNotRegular = errors.New("not a regular file")

// Lock opens a dead letter file and locks it. The lock of the state directory is not
// enough: if root retries the service's file, it may lock another state directory.
func Lock(path string, flag int) (*os.File, error) {
	for deadline := time.Now().Add(Wait); ; {
		f, info, err := open(path, flag)
		if err != nil {
			return nil, err
		}
		err = await(f, deadline)
		if err == nil {
			// The previous holder may have replaced the file.
			if now, err := os.Stat(path); err == nil && os.SameFile(now, info) {
				return f, nil
			}
		}
		f.Close()
		if err != nil {
			return nil, err
		}
	}
}

// open opens a regular file.
func open(path string, flag int) (*os.File, os.FileInfo, error) {
	f, err := statedir.OpenFile(path, flag)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = &os.PathError{Op: "open", Path: path, Err: errNotRegular}
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

// await locks a file. It waits for the lock until the deadline.
func await(f *os.File, deadline time.Time) error {
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if !errors.Is(err, syscall.EWOULDBLOCK) {
			return err
		}
		if time.Now().After(deadline) {
			return sysexits.New(sysexits.TempFail, "locked", fmt.Errorf("lock %s: another run holds it", f.Name())).
				WithHint("wait for the other run to end; fuser -v " + f.Name() + " shows which process holds it")
		}
		time.Sleep(20 * time.Millisecond) // flock(2) has no timeout
	}
}

func (d *File) load(isNew bool) error {
	if isNew {
		if err := durable.SyncDir(filepath.Dir(d.path)); err != nil {
			return statedir.Unwritable(err)
		}
	}
	r := stage.NewLines(d.f)
	var whole int64
	for {
		line, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, stage.ErrTooLong) {
			return fmt.Errorf("read %s: %w", d.path, err)
		}
		if !r.Complete {
			d.diag.Warn("dead_letters_torn", fmt.Sprintf("%s: removed an incomplete last line, which a killed run left", d.path))
			break
		}
		whole = r.Read
		if l, err := Parse(line); err == nil {
			d.seen[l.key()] = true
		}
	}
	if err := d.f.Truncate(whole); err != nil {
		return statedir.Unwritable(err)
	}
	_, err := d.f.Seek(whole, io.SeekStart)
	return err
}

// Append writes letters and waits until they are on disk. service is the service in
// their records. Append does not write a letter that the file has already, because a
// run was killed before it could mark the document.
func (d *File) Append(service string, letters []Letter) error {
	w := bufio.NewWriterSize(d.f, 64<<10)
	for _, l := range letters {
		if key := l.key(); !d.seen[key] {
			d.seen[key] = true
			if _, err := w.Write(l.line(service)); err != nil {
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

// Close closes the file and releases its lock.
func (d *File) Close() error { return d.f.Close() }

// Letter is one dead letter.
type Letter struct {
	ID, Reason, Detail string
	Document           []byte // canonical Extended JSON, or null
	BSON               []byte // only if Document does not represent the document exactly
	Guard              string // the digest of the document's fields
}

// key identifies the document of a letter by its id and its synced fields.
func (l Letter) key() [sha256.Size]byte {
	content := []byte(l.Guard)
	if len(content) == 0 {
		content = append(append(content, l.Document...), l.BSON...)
	}
	// Add the bytes of the _id, because ids that are not UTF-8 may have the same text.
	return sha256.Sum256(fmt.Appendf(nil, "%d %s %x %s", len(l.ID), l.ID, rawbson.Lookup(l.BSON, "_id").Data, content))
}

// line returns the line of a letter in the file.
func (l Letter) line(service string) []byte {
	line := record.New(time.Now(), record.Warn, "dead_letter", service)
	l.Fill(line)
	return line.End()
}

// Fill adds the letter to a record.
func (l Letter) Fill(line *record.Line) {
	line.String("mongo_id", l.ID)
	line.String("reason", l.Reason)
	line.String("detail", l.Detail)
	FillDocument(line, l.Document, l.BSON)
	if l.Guard != "" {
		line.String("guard", l.Guard)
	}
}

// FillDocument adds a document to a record. [Encode] returns its arguments.
func FillDocument(line *record.Line, text, raw []byte) {
	line.Raw("document", text)
	if raw != nil {
		line.String("bson", base64.StdEncoding.EncodeToString(raw))
	}
}

// Parse parses a line.
func Parse(b []byte) (l Letter, err error) {
	err = extjson.Fields(b, func(key string, raw []byte) (err error) {
		switch key {
		case "mongo_id":
			l.ID, err = extjson.String(raw)
		case "reason":
			l.Reason, err = extjson.String(raw)
		case "detail":
			l.Detail, err = extjson.String(raw)
		case "guard":
			l.Guard, err = extjson.String(raw)
		case "document":
			l.Document = raw
		case "bson":
			var text string
			if text, err = extjson.String(raw); err == nil {
				l.BSON, err = base64.StdEncoding.DecodeString(text)
			}
		}
		return err
	})
	if err == nil && l.Document == nil && l.BSON == nil {
		err = errors.New("not a dead letter: it has neither document nor bson")
	}
	return l, err
}

// Doc returns the document of a letter.
func (l Letter) Doc() ([]byte, error) {
	if l.BSON != nil {
		return l.BSON, nil
	}
	return extjson.Parse(l.Document)
}

// Encode returns a document in canonical Extended JSON. If Extended JSON cannot
// represent the document (text that is not UTF-8, duplicate keys, deep nesting), Encode
// also returns its BSON. lossy means that the caller knows this already.
func Encode(doc []byte, lossy bool) (text, raw []byte) {
	c := extjson.Converter{Dialect: extjson.Canonical}
	text, err := c.Append(nil, rawbson.Document(doc))
	if err != nil {
		return []byte("null"), doc
	}
	if again, err := extjson.Parse(text); lossy || err != nil || !bytes.Equal(again, doc) {
		return text, doc
	}
	return text, nil
}
