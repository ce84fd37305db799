package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
	"observability-hub/sysmetrics/internal/statfs"
)

// newQueue returns an empty queue that holds at most max bytes.
func newQueue(t *testing.T, max int64) queue {
	t.Helper()
	dir, err := statedir.Open(context.Background(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return queue{dir, spoolFile, max}
}

// lines returns entries of ten bytes each, numbered from first to last.
func lines(first, last int) (entries []entry) {
	for i := first; i <= last; i++ {
		entries = append(entries, entry{line: fmt.Appendf(nil, "{\"n\":%3d}\n", i)})
	}
	return entries
}

// add repairs the queue and then appends, as deliver does.
func (q queue) add(t *testing.T, entries []entry) (dropped int) {
	t.Helper()
	size, _, err := q.repair()
	if err != nil {
		t.Fatal(err)
	}
	dropped, err = q.append(size, entries)
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// numbers returns the numbers in the queue, as "1-5" or "1,7".
func (q queue) numbers(t *testing.T) string {
	t.Helper()
	var all []int
	var last int64
	if err := q.batches(func(batch []entry, end int64, _ int) bool {
		for _, e := range batch {
			var n int
			if _, err := fmt.Sscanf(string(e.line), `{"n":%d}`, &n); err != nil {
				t.Fatalf("%q: %v", e.line, err)
			}
			all = append(all, n)
			last += int64(len(e.line))
		}
		if last != end {
			t.Fatalf("the batch ends at %d; want %d", end, last)
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return ""
	}
	for i, n := range all {
		if n != all[0]+i {
			return strings.Trim(strings.ReplaceAll(fmt.Sprint(all), " ", ","), "[]")
		}
	}
	return fmt.Sprintf("%d-%d", all[0], all[len(all)-1])
}

func TestQueue(t *testing.T) {
	q := newQueue(t, 1<<20)
	if size, torn, err := q.repair(); size != 0 || torn != 0 || err != nil {
		t.Errorf("repair of none = %d, %d, %v", size, torn, err)
	}
	if got := q.numbers(t); got != "" {
		t.Errorf("numbers of none = %s", got)
	}
	if err := q.forget(0); err != nil {
		t.Errorf("forget(0) of none = %v", err)
	}
	q.add(t, nil)
	if _, err := os.Stat(q.dir.Join(q.name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an append of nothing made a file: %v", err)
	}
	q.add(t, lines(1, 3))
	q.add(t, lines(4, 5))
	if got := q.numbers(t); got != "1-5" {
		t.Errorf("numbers = %s; want 1-5", got)
	}
	if err := q.forget(20); err != nil || q.numbers(t) != "3-5" {
		t.Errorf("forget(20) = %v, numbers %s; want 3-5", err, q.numbers(t))
	}
	hashes, err := q.hashes()
	if found := hashes[hashOf(lines(4, 4)[0].line)]; !found || err != nil {
		t.Errorf("has(4) = %v, %v", found, err)
	}
	if found := hashes[hashOf(lines(2, 2)[0].line)]; found {
		t.Errorf("has(2) = %v, %v", found, err)
	}
	if err := q.forget(1 << 40); err != nil || q.numbers(t) != "" {
		t.Errorf("forget of all = %v, numbers %s", err, q.numbers(t))
	}
	info, err := os.Stat(q.dir.Join(q.name))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file %v, %v; want mode 0600", info.Mode(), err)
	}
}

// A killed run can leave an incomplete record after the last line break.
func TestQueueTornTail(t *testing.T) {
	for _, tail := range []string{"{", `{"n":  9`, strings.Repeat("x", 4095), strings.Repeat("x", 4096), strings.Repeat("x", 10_000), "\x00\x00\x00"} {
		for _, whole := range []int{0, 3, 900} {
			q := newQueue(t, 1<<20)
			q.add(t, lines(1, whole))
			f, err := os.OpenFile(q.dir.Join(q.name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(tail); err != nil {
				t.Fatal(err)
			}
			f.Close()
			size, torn, err := q.repair()
			if size != int64(10*whole) || torn != int64(len(tail)) || err != nil {
				t.Errorf("repair after %d records and %d bytes = %d, %d, %v", whole, len(tail), size, torn, err)
			}
			if info, err := os.Stat(q.dir.Join(q.name)); err != nil || info.Size() != size {
				t.Errorf("after repair the file has %d bytes, %v; want %d", info.Size(), err, size)
			}
			q.add(t, lines(whole+1, whole+1))
			if got, want := q.numbers(t), fmt.Sprintf("1-%d", whole+1); got != want {
				t.Errorf("numbers = %s; want %s", got, want)
			}
		}
	}
}

// When the queue is full, it drops its oldest records and returns their number.
func TestQueueBound(t *testing.T) {
	for _, tc := range []struct {
		max, before, add int
		want             string
		dropped          int
	}{
		{100, 9, 1, "1-10", 0},     // full to the last byte
		{100, 10, 1, "3-11", 2},    // down to nine tenths
		{100, 10, 5, "7-15", 6},    //
		{100, 10, 9, "11-19", 10},  //
		{100, 10, 20, "11-30", 10}, // more than fits: only the new records are kept
		{100, 0, 20, "1-20", 0},
		{1000, 100, 1, "12-101", 11},
	} {
		q := newQueue(t, int64(tc.max))
		q.add(t, lines(1, tc.before))
		dropped := q.add(t, lines(tc.before+1, tc.before+tc.add))
		if got := q.numbers(t); got != tc.want || dropped != tc.dropped {
			t.Errorf("%d records and %d more in %d bytes = %s, dropped %d; want %s, %d", tc.before, tc.add, tc.max, got, dropped, tc.want, tc.dropped)
		}
	}
	// Without a database for a long time, every record is in the queue or counted as dropped.
	q := newQueue(t, 1000)
	dropped := 0
	for i := 1; i <= 900; i += 4 {
		dropped += q.add(t, lines(i, i+3))
	}
	if got, want := q.numbers(t), fmt.Sprintf("%d-900", dropped+1); got != want {
		t.Errorf("numbers = %s with %d dropped; want %s", got, dropped, want)
	}
	if size, _, _ := q.repair(); size > 1000 {
		t.Errorf("size = %d; want at most 1000", size)
	}
}

func TestQueueBatches(t *testing.T) {
	q := newQueue(t, 1<<30)
	q.add(t, lines(1, 2*batchRecords+5))
	var sizes []int
	if err := q.batches(func(batch []entry, _ int64, _ int) bool {
		sizes = append(sizes, len(batch))
		return true
	}); err != nil || fmt.Sprint(sizes) != fmt.Sprint([]int{batchRecords, batchRecords, 5}) {
		t.Errorf("batches of %v, %v", sizes, err)
	}
	// Long records make smaller batches, so that a statement does not become too long.
	q = newQueue(t, 1<<30)
	long := []byte(`{"host":"web1","time":"2026-01-02T03:04:05Z","x":"` + strings.Repeat("x", batchBytes/4) + "\"}\n")
	for range 6 {
		q.add(t, []entry{{line: long}})
	}
	sizes = nil
	if err := q.batches(func(batch []entry, _ int64, _ int) bool {
		sizes = append(sizes, len(batch))
		for _, e := range batch {
			if e.host != "web1" || !e.time.Equal(at("2026-01-02T03:04:05Z")) {
				t.Errorf("host %q, time %v", e.host, e.time)
			}
		}
		return true
	}); err != nil || fmt.Sprint(sizes) != "[4 2]" {
		t.Errorf("batches of %v, %v; want [4 2]", sizes, err)
	}
	// batches ends when yield returns false.
	calls := 0
	if err := q.batches(func([]entry, int64, int) bool { calls++; return false }); calls != 1 || err != nil {
		t.Errorf("%d calls, %v; want 1", calls, err)
	}
}

// After a kill at any byte of an append, the previous records are complete and
// the next run appends its records after them.
func TestQueueKilledAnywhere(t *testing.T) {
	for n := range 31 {
		q := newQueue(t, 1<<20)
		q.add(t, lines(1, 5))
		q.add(t, lines(6, 8))
		if err := os.Truncate(q.dir.Join(q.name), int64(50+n)); err != nil {
			t.Fatal(err)
		}
		q.add(t, lines(900, 900))
		want := "1,2,3,4,5"
		for i := range n / 10 {
			want += fmt.Sprintf(",%d", 6+i)
		}
		if got := q.numbers(t); got != want+",900" {
			t.Errorf("after a kill %d bytes into it: %s; want %s,900", n, got, want)
		}
	}
}

// An append that fails leaves none of its records in the file.
func TestQueueAppendFails(t *testing.T) {
	q := newQueue(t, 1<<20)
	if err := os.Symlink("/dev/full", q.dir.Join(q.name)); err != nil {
		t.Fatal(err)
	}
	if _, err := q.append(0, lines(1, 1)); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("append to a full disk = %v; want status 73", err)
	}
	os.Remove(q.dir.Join(q.name))
	if err := os.Mkdir(q.dir.Join(q.name), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, _, err := q.repair(); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("repair of a directory = %v; want status 73", err)
	}
	if _, err := q.append(0, lines(1, 1)); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("append to a directory = %v; want status 73", err)
	}
}

func TestDescribe(t *testing.T) {
	host, when := describe([]byte(`{"time":"2026-01-02T03:04:05.678+01:00","host":"web1","payload":{}}`))
	if host != "web1" || !when.Equal(at("2026-01-02T02:04:05.678Z")) {
		t.Errorf("describe = %q, %v", host, when)
	}
	for _, damaged := range []string{"", "x", "{", `{"time":5}`, "\x00"} {
		if _, when := describe([]byte(damaged)); !when.IsZero() {
			t.Errorf("describe(%q) = %v; want no time", damaged, when)
		}
	}
}

// Without a database every sample is in the spool, in order, as it would have been printed.
func TestSpoolWithoutDatabase(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	writeTree(t, root, minimalProc)
	ask := func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }
	for i := range 3 {
		r := run(t, ask, "", "--flush", "--procfs="+root, "--sysfs="+root, "--state-dir="+state, fmt.Sprintf("--now=2026-01-02T03:%02d:00Z", i))
		if r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, `"spooled":4,`) {
			t.Fatalf("run %d: %+v", i, r)
		}
	}
	data, err := os.ReadFile(state + "/" + spoolFile)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(data)) {
		e, err := parseRecord([]byte(line))
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.time.Format("15:04"))
	}
	if want := "[03:00 03:00 03:00 03:00 03:01 03:01 03:01 03:01 03:02 03:02 03:02 03:02]"; fmt.Sprint(got) != want {
		t.Errorf("spool = %v; want %s", got, want)
	}
}

// If the directory of a new file cannot be synced, append fails although the file exists. The file must not hold the
// records that the caller was told are not kept.
func TestAppendUnsyncedDirectory(t *testing.T) {
	q := newQueue(t, 1000)
	if err := q.dir.Close(); err != nil { // now the directory cannot be fsynced
		t.Fatal(err)
	}
	if _, err := q.append(0, lines(1, 3)); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("append = %v; want status 73", err)
	}
	if got := q.numbers(t); got != "" {
		t.Errorf("after an append that failed the queue holds %s; want nothing", got)
	}
}

// A record that could not be set aside is set aside when the same run tries to insert it again.
func TestSetAsideAgainAfterAFailure(t *testing.T) {
	q := newQueue(t, 1<<20)
	q.name = rejectedFile
	elsewhere := q.dir.Join("elsewhere")
	if err := os.Symlink(elsewhere+"/file", q.dir.Join(rejectedFile)); err != nil {
		t.Fatal(err)
	}
	d := &delivery{env: &cli.Env{Diag: &diag.Logger{W: io.Discard, Now: time.Now}}}
	d.SpoolMax = 1
	e, cause := lines(7, 7)[0], errors.New("refused")
	if err := d.setAside(q.dir, e, cause); err == nil {
		t.Fatal("setAside succeeded although no file can be made")
	}
	if err := os.Mkdir(elsewhere, 0o700); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := d.setAside(q.dir, e, cause); err != nil {
			t.Fatal(err)
		}
	}
	if got := q.numbers(t); got != "7-7" {
		t.Errorf("set aside: %q; want record 7 once", got)
	}
}
