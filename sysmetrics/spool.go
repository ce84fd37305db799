package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"observability-hub/lib/statedir"
)

// The queues in the state directory. Both hold records in the form in which
// collect prints them.
const (
	spoolFile    = "spool.jsonl"    // waiting for the database
	rejectedFile = "rejected.jsonl" // refused by the database because of their content; "sysmetrics flush" can insert them later
)

// entry is one record on its way to the database.
type entry struct {
	line []byte // with its line break
	host string
	time time.Time
}

// A batch is at most this many records and about this many bytes.
const (
	batchRecords = 1000
	batchBytes   = 1 << 20
)

// queue is a file of JSON lines with a maximum size. Records are appended at its
// end and removed from its start. The caller holds the lock of the state
// directory.
type queue struct {
	dir  *statedir.Dir
	name string
	max  int64 // bytes
}

// repair removes an incomplete line at the end of the file, which an interrupted
// append left. It returns the size and the number of bytes removed. A missing
// file has size 0.
func (q queue) repair() (size, torn int64, err error) {
	f, err := os.OpenFile(q.dir.Join(q.name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, statedir.Unwritable(err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, 0, err
	}
	size = end
	buf := make([]byte, 4096)
	for size > 0 {
		from := max(size-int64(len(buf)), 0)
		part := buf[:size-from]
		if _, err := f.ReadAt(part, from); err != nil {
			return 0, 0, err
		}
		if i := bytes.LastIndexByte(part, '\n'); i >= 0 {
			size = from + int64(i) + 1
			break
		}
		size = from
	}
	if size == end {
		return size, 0, nil
	}
	if err := f.Truncate(size); err != nil {
		return 0, 0, statedir.Unwritable(err)
	}
	return size, end - size, nil
}

// append writes entries at size, which repair returned, and syncs the file. If
// the queue would exceed its maximum size, append first removes the oldest
// records, so that the queue ends at nine tenths of the maximum, and returns
// their number. After an error none of entries is in the queue.
func (q queue) append(size int64, entries []entry) (dropped int, err error) {
	var data []byte
	for _, e := range entries {
		data = append(data, e.line...)
	}
	if len(data) == 0 {
		return 0, nil
	}
	if size > 0 && size+int64(len(data)) > q.max {
		excess := size + int64(len(data)) - q.max/10*9
		if size, dropped, err = q.shorten(size, excess); err != nil {
			return dropped, err
		}
	}
	f, err := os.OpenFile(q.dir.Join(q.name), os.O_WRONLY, 0)
	fresh := errors.Is(err, fs.ErrNotExist)
	if fresh {
		f, err = q.dir.OpenFile(q.name, os.O_WRONLY|os.O_CREATE)
	}
	if err != nil {
		return dropped, statedir.Unwritable(err)
	}
	defer f.Close()
	if _, err = f.WriteAt(data, size); err == nil {
		err = syscall.Fdatasync(int(f.Fd()))
	}
	if err != nil {
		return dropped, statedir.Unwritable(errors.Join(err, f.Truncate(size)))
	}
	if fresh {
		if err := q.dir.Sync(); err != nil {
			// The caller reports the records as lost, so they must not be found later.
			return dropped, errors.Join(err, f.Truncate(size))
		}
	}
	return dropped, nil
}

// replaceTail replaces the last n bytes of the file by entries, atomically.
func (q queue) replaceTail(n int64, entries []entry) error {
	f, err := os.Open(q.dir.Join(q.name))
	if err != nil {
		return statedir.Unwritable(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	parts := []io.Reader{io.NewSectionReader(f, 0, max(info.Size()-n, 0))}
	for _, e := range entries {
		parts = append(parts, bytes.NewReader(e.line))
	}
	return q.dir.ReplaceFrom(q.name, io.MultiReader(parts...))
}

// shorten removes whole records from the start of the queue: at least excess
// bytes, or all records.
func (q queue) shorten(size, excess int64) (rest int64, dropped int, err error) {
	f, err := os.Open(q.dir.Join(q.name))
	if err != nil {
		return size, 0, err
	}
	defer f.Close()
	var offset int64
	for r := bufio.NewReaderSize(f, 64<<10); offset < min(excess, size); {
		part, err := r.ReadSlice('\n')
		offset += int64(len(part))
		if err == nil {
			dropped++
		} else if err != bufio.ErrBufferFull {
			return size, 0, err
		}
	}
	if err := q.forget(offset); err != nil {
		return size, 0, err
	}
	return size - offset, dropped, nil
}

// batches calls yield for each batch of records, oldest first. end is the offset
// after the batch. damaged is the number of lines in it that were skipped because
// they are too long to be records. batches ends when yield returns false.
func (q queue) batches(yield func(batch []entry, end int64, damaged int) bool) error {
	f, err := os.Open(q.dir.Join(q.name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	var batch []entry
	var size, end int64
	damaged := 0
	for r := bufio.NewReaderSize(f, 64<<10); ; {
		line, n, err := readLine(r)
		if err != nil && err != io.EOF && err != errTooLong {
			return err
		}
		switch err {
		case nil:
			e := entry{line: line}
			e.host, e.time = describe(line)
			batch, size, end = append(batch, e), size+n, end+n
		case errTooLong:
			damaged, end = damaged+1, end+n
		}
		if len(batch)+damaged > 0 && (err == io.EOF || len(batch) >= batchRecords || size >= batchBytes) {
			if !yield(batch, end, damaged) {
				return nil
			}
			batch, size, damaged = nil, 0, 0
		}
		if err == io.EOF {
			return nil
		}
	}
}

// describe returns the host and time of a record. They are zero if the record is
// damaged, in which case the database refuses it later.
func describe(line []byte) (host string, t time.Time) {
	r, _ := decodeRecord(line)
	return r.host, r.time
}

// rowFields are the fields of a record that are checked before it is inserted.
type rowFields struct {
	time             time.Time
	host, metricType string
	payload          json.RawMessage
}

// decodeRecord reads these fields as the database does: it accepts their names in
// lower case only, and uses the last of several fields with one name.
// encoding/json also accepts other cases when it decodes into a struct.
func decodeRecord(line []byte) (r rowFields, err error) {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(line, &all); err != nil {
		return r, err
	}
	for name, dst := range map[string]any{"time": &r.time, "host": &r.host, "metric_type": &r.metricType} {
		if value, ok := all[name]; ok {
			if err := json.Unmarshal(value, dst); err != nil {
				return r, fmt.Errorf("%s: %w", name, err)
			}
		}
	}
	r.payload = all["payload"]
	return r, nil
}

// forget removes the first n bytes. After a crash the queue is complete or lacks
// exactly these bytes.
func (q queue) forget(n int64) error {
	if n == 0 {
		return nil
	}
	f, err := os.OpenFile(q.dir.Join(q.name), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return statedir.Unwritable(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if n >= info.Size() {
		if err := f.Truncate(0); err != nil {
			return statedir.Unwritable(err)
		}
		return nil
	}
	if err := q.dir.ReplaceFrom(q.name, io.NewSectionReader(f, n, info.Size()-n)); err != nil {
		return fmt.Errorf("shorten %s: %w", q.name, err)
	}
	return nil
}

// hashes returns the set of the hashes of all lines.
func (q queue) hashes() (map[uint64]bool, error) {
	all := make(map[uint64]bool)
	err := q.batches(func(batch []entry, _ int64, _ int) bool {
		for _, e := range batch {
			all[hashOf(e.line)] = true
		}
		return true
	})
	return all, err
}

func hashOf(line []byte) uint64 {
	h := fnv.New64a()
	h.Write(line)
	return h.Sum64()
}
