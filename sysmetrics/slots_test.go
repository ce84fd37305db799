package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/sysmetrics/internal/statfs"
)

func TestSlots(t *testing.T) {
	s := slots{10 * time.Minute, 3 * time.Minute}
	for _, tc := range []struct{ at, begin string }{
		{"2026-01-02T03:02:59.999Z", "2026-01-02T02:53:00Z"},
		{"2026-01-02T03:03:00Z", "2026-01-02T03:03:00Z"},
		{"2026-01-02T03:12:59Z", "2026-01-02T03:03:00Z"},
		{"2026-01-02T03:13:00Z", "2026-01-02T03:13:00Z"},
		{"1969-12-31T23:59:00Z", "1969-12-31T23:53:00Z"},
	} {
		if got := s.begin(at(tc.at)); !got.Equal(at(tc.begin)) {
			t.Errorf("begin(%s) = %v; want %s", tc.at, got, tc.begin)
		}
		if got := s.next(at(tc.at)); !got.Equal(at(tc.begin).Add(s.length)) {
			t.Errorf("next(%s) = %v; want 10 minutes after %s", tc.at, got, tc.begin)
		}
	}
}

// The hosts of a fleet are spread evenly, also if their names are numbered, or if
// all machines have one machine id.
func TestSlotsSpread(t *testing.T) {
	const hosts, minutes = 10_000, 10
	for name, id := range map[string]func(i int) string{
		"one machine id":            func(int) string { return "" },
		"machine ids in a sequence": func(i int) string { return fmt.Sprintf("%032x", i) },
	} {
		var perMinute [minutes]int
		for i := range hosts {
			s := newSlots(minutes*time.Minute, id(i), fmt.Sprintf("web%d", i))
			if s.phase < 0 || s.phase >= s.length {
				t.Fatalf("phase %v of %v", s.phase, s.length)
			}
			perMinute[s.phase/time.Minute]++
		}
		for i, n := range perMinute {
			if n < hosts/minutes*9/10 || n > hosts/minutes*11/10 { // 3.3 standard deviations
				t.Errorf("%s: %d of %d hosts in minute %d: %v", name, n, hosts, i, perMinute)
			}
		}
	}
	if a, b := newSlots(time.Hour, "a", "b"), newSlots(time.Hour, "a", "c"); a == b {
		t.Errorf("two hosts with one machine id have the same slots: %v", a)
	}
}

// With --flush-every the first run of each slot sends, whatever becomes of it.
// The others add to the spool.
func TestFlushEvery(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	writeTree(t, root, minimalProc)
	ask := func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }
	start := at("2026-01-02T03:00:17.25Z")
	flush := func(minute int, more ...string) (sent bool) {
		t.Helper()
		r := run(t, ask, "", append([]string{"--flush", "--flush-every=10m", "--procfs=" + root, "--sysfs=" + root, "--state-dir=" + state,
			"--now=" + start.Add(time.Duration(minute)*time.Minute).Format(time.RFC3339Nano)}, more...)...)
		if r.status != 0 || r.stderr != "" || !strings.Contains(r.stdout, `"spooled":4,`) {
			t.Fatalf("minute %d: %+v", minute, r)
		}
		sent = strings.Contains(r.stdout, `"msg":"flushed"`) // without a database, both keep the records
		if sent == strings.Contains(r.stdout, `"msg":"spooled"`) || !sent && !strings.Contains(r.stdout, `"next_flush":"2026-01-02T0`) {
			t.Fatalf("minute %d: %s", minute, r.stdout)
		}
		return sent
	}
	var sent []int
	for minute := range 40 {
		if flush(minute) {
			sent = append(sent, minute)
		}
	}
	if len(sent) < 4 || sent[0] != 0 || sent[1] < 1 || sent[1] > 10 || sent[2] != sent[1]+10 || sent[3] != sent[1]+20 {
		t.Fatalf("sent in the minutes %v; want 0, one of 1 to 10, and every 10 minutes from there", sent)
	}
	slot := sent[1]

	// A run that is missing, as of a host that is off, is made up for by the next run.
	if !flush(slot+43) || flush(slot+44) || flush(slot+49) || !flush(slot+50) {
		t.Error("a slot whose first run was missed was not used, or used twice")
	}
	// A clock that is set back does not silence the host until it is right again.
	if !flush(slot+5) || flush(slot+6) {
		t.Error("after the clock was set back the host did not send once")
	}
	// A lost state makes one run send early.
	if err := os.Remove(filepath.Join(state, stateFile)); err != nil {
		t.Fatal(err)
	}
	if !flush(slot+7) || flush(slot+8) {
		t.Error("after the state was lost the host did not send once")
	}
	// Without the flag every run sends, and the spool is the same.
	for range 2 {
		if !flush(slot+8, "--flush-every=0") {
			t.Error("without --flush-every a run did not send")
		}
	}
	if spool, err := countRecords(filepath.Join(state, spoolFile)); err != nil || spool.records%4 != 0 || spool.records < 4*50 {
		t.Errorf("%d records in the spool, %v; want 4 of every run", spool.records, err)
	}
}

// Records never wait so long that the spool drops some of them.
func TestFlushEveryHalfFullSpool(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	writeTree(t, root, minimalProc)
	ask := func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }
	args := []string{"--flush", "--flush-every=30m", "--spool-max=1", "--procfs=" + root, "--sysfs=" + root, "--state-dir=" + state, "--now=2026-01-02T03:00:00Z"}
	run(t, ask, "", args...)
	if r := run(t, ask, "", args...); !strings.Contains(r.stdout, `"msg":"spooled"`) {
		t.Fatalf("the second run of a slot: %+v", r)
	}
	full := strings.Repeat(`{"time":"2026-01-02T03:00:00Z","host":"web2","metric_type":"jobs","payload":{}}`+"\n", (1<<19)/80)
	if err := os.WriteFile(filepath.Join(state, spoolFile), []byte(full), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := run(t, ask, "", args...); !strings.Contains(r.stdout, `"msg":"flushed"`) {
		t.Errorf("with a spool that is half full: %+v; want the run to send", r)
	}
}

func TestFlushEveryRange(t *testing.T) {
	for value, status := range map[string]int{"0": 0, "1m": 0, "30m": 0, "59s": 64, "31m": 64, "-1m": 64} {
		if r := run(t, nil, "", "--flush-every="+value, "--state-dir="+t.TempDir()); r.status != status {
			t.Errorf("--flush-every=%s: status %d, %s; want %d", value, r.status, r.stderr, status)
		}
	}
	// Without --flush it has no effect: the unit's environment file may set it.
	if r := run(t, nil, "", "--flush-every=10m", "--state-dir="+t.TempDir()); strings.Count(r.stdout, `"msg":"sample"`) != 4 {
		t.Errorf("without --flush: %s; want four records", r.stdout)
	}
}
