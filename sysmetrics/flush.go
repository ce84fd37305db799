package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// flushCmd inserts records from stdin.
type flushCmd struct {
	stateFlags
	databaseFlags
}

func (f *flushCmd) Validate() error { return validate(f.stateFlags, f.databaseFlags) }

const (
	// maxRecord is the maximum length of a line of stdin, in bytes. The toolkit's
	// own records are far shorter.
	maxRecord = 1 << 20
	// lockWait is how long a batch waits for another run to release the lock.
	lockWait = 10 * time.Second
	// idle is how long a batch waits for more lines after its first line.
	idle = time.Second
)

// input is one line of stdin: a record, or the reason why it is not one.
type input struct {
	number int
	entry  entry
	err    error
}

// Run inserts the records in batches. It holds the lock only while it delivers a
// batch, so that a long stream from another host does not block this host's
// timer.
func (f *flushCmd) Run(ctx context.Context, env *cli.Env) error {
	return f.run(ctx, env)
}

func (f *flushCmd) run(ctx context.Context, env *cli.Env) error {
	path, err := statedir.Resolve(f.StateDir, env.Service)
	if err != nil {
		return err
	}
	d := &delivery{env: env, stateFlags: f.stateFlags, databaseFlags: f.databaseFlags}
	lines := make(chan input)
	go readRecords(env.Stdin, lines, ctx.Done())

	var failures error
	refused := 0
	for more := true; more; {
		var batch []entry
		var bad []input
		batch, bad, more = nextBatch(ctx, lines)
		for _, b := range bad {
			refused++
			env.Diag.Warn("bad_record", fmt.Sprintf("stdin line %d: %v; skipped", b.number, b.err), diag.Field{Key: "line", Value: b.number})
		}
		// An empty last batch is delivered too: this inserts the records in the
		// spool. After a signal, the records that were already read are spooled.
		before := d.lost
		if ctx.Err() == nil || len(batch) > 0 {
			failures = errors.Join(failures, f.batch(ctx, d, path, batch))
		}
		if ctx.Err() != nil {
			failures = errors.Join(failures, context.Cause(ctx))
			break
		}
		if d.lost > before {
			break // further records would be lost too
		}
	}
	if refused > 0 {
		failures = errors.Join(failures, sysexits.New(sysexits.DataErr, "bad_input", fmt.Errorf("skipped %s of stdin; the other lines were processed", plural(refused, "line"))).
			WithHint("a record is a JSON object with time (RFC 3339), host, metric_type and payload, as printed by sysmetrics"))
	}
	return d.finish(failures)
}

// batch delivers one batch under the lock.
func (f *flushCmd) batch(ctx context.Context, d *delivery, path string, batch []entry) error {
	dir, err := statedir.Open(ctx, path, lockWait)
	if sysexits.Code(err) == sysexits.CantCreate {
		// There is no spool, but the database may still accept the records.
		return errors.Join(d.deliver(ctx, nil, batch, nothing), err)
	}
	if err != nil {
		d.lost += int64(len(batch))
		return err
	}
	defer dir.Close()
	return d.deliver(ctx, dir, batch, nothing)
}

// nothing is the keep function of records from stdin, which have no state to keep.
func nothing() error { return nil }

// nextBatch returns the lines up to a full batch, the end of stdin, a pause or a
// signal. more is false if this batch is the last one.
func nextBatch(ctx context.Context, lines <-chan input) (batch []entry, bad []input, more bool) {
	size := 0
	var pause <-chan time.Time
	done := ctx.Done()
	for len(batch) < batchRecords && size < batchBytes && len(bad) < batchRecords {
		select {
		case in, ok := <-lines:
			if !ok {
				return batch, bad, false
			}
			if in.err != nil {
				bad = append(bad, in)
			} else {
				batch, size = append(batch, in.entry), size+len(in.entry.line)
			}
			if pause == nil {
				pause = time.After(idle) // counted from the first line, so that a slow stream is not held back
			}
		case <-pause:
			return batch, bad, ctx.Err() == nil
		case <-done:
			// Lines that were already read from the pipe exist nowhere else.
			done, pause = nil, time.After(lastLines)
		}
	}
	return batch, bad, ctx.Err() == nil
}

// lastLines is how long a run waits after a signal for the lines that it has
// already read.
const lastLines = 100 * time.Millisecond

// readRecords sends the lines of r to lines, without the empty ones. It ends at
// the end of r or, after stop is closed, when no receiver takes a line in time.
func readRecords(r io.Reader, lines chan<- input, stop <-chan struct{}) {
	defer close(lines)
	buf := bufio.NewReaderSize(r, 64<<10)
	for number := 1; ; number++ {
		line, _, err := readLine(buf)
		in := input{number: number}
		switch {
		case err == io.EOF && len(line) == 0:
			return
		case err != nil && err != io.EOF:
			in.err = err
		case len(bytes.TrimSpace(line)) == 0:
			continue
		default:
			in.entry, in.err = parseRecord(line)
		}
		select {
		case lines <- in:
		case <-stop:
			select {
			case lines <- in:
			case <-time.After(lastLines):
				return
			}
		}
		if err != nil && !errors.Is(err, errTooLong) {
			return
		}
	}
}

var errTooLong = fmt.Errorf("longer than %d bytes", maxRecord)

// readLine returns the next line and its length in the stream. It skips a line
// that is longer than maxRecord and returns errTooLong.
func readLine(r *bufio.Reader) (line []byte, n int64, err error) {
	long := false
	for {
		part, err := r.ReadSlice('\n')
		n += int64(len(part))
		if long = long || len(line)+len(part) > maxRecord; !long {
			line = append(line, part...)
		}
		if err == bufio.ErrBufferFull {
			continue
		}
		if long {
			return nil, n, errTooLong
		}
		return line, n, err
	}
}

// parseRecord checks one line of stdin and returns it as an entry, without the
// white space around it.
func parseRecord(line []byte) (entry, error) {
	r, err := decodeRecord(line)
	if err != nil {
		return entry{}, fmt.Errorf("not a record: %w", err)
	}
	switch {
	case r.time.IsZero():
		return entry{}, errors.New("no time")
	case r.host == "":
		return entry{}, errors.New("no host")
	case r.metricType == "":
		return entry{}, errors.New("no metric_type")
	case !bytes.HasPrefix(r.payload, []byte("{")):
		return entry{}, errors.New("payload is not an object")
	}
	return entry{line: append(bytes.TrimSpace(line), '\n'), host: r.host, time: r.time}, nil
}
