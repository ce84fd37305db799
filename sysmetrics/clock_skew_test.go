package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

func TestGuarded(t *testing.T) {
	// A German server uses other quotation marks.
	for _, quotes := range []string{`"%s"`, "»%s«", "« %s »"} {
		message := fmt.Sprintf("invalid input syntax for type integer: "+quotes, fmt.Sprintf("%s%d.25", guardClock, time.Now().Add(-time.Hour).Unix()))
		err := guarded(&pq.Error{Code: "22P02", Message: message})
		differs, ok := errors.AsType[errClock](err)
		if !ok || (differs.ahead-time.Hour).Abs() > time.Minute {
			t.Errorf("guarded(%s) = %v; want an hour ahead", message, err)
		}
	}
	if err := guarded(&pq.Error{Code: "22P02", Message: `"` + guardTemporary + `2026"`}); sysexits.Code(err) != sysexits.Config {
		t.Errorf("a temporary table: %v; want status 78", err)
	}
	for _, err := range []error{nil, errors.New("x"), &pq.Error{Code: "22P02", Message: `"abc"`}, &pq.Error{Code: "22003", Message: guardClock}} {
		if got := guarded(err); got != nil {
			t.Errorf("guarded(%v) = %v; want nil", err, got)
		}
	}
	if err := guarded(&pq.Error{Code: "22P02", Message: guardClock + "soon"}); err == nil {
		t.Error("guarded accepted an invalid time")
	}
}

func TestCompareClocks(t *testing.T) {
	now := time.Now()
	for off, want := range map[time.Duration]string{0: "", 4 * time.Minute: "", -4 * time.Minute: "", 6 * time.Minute: "6m0s ahead of", -2400 * time.Hour: "2400h0m0s behind"} {
		err := compareClocks(now.Add(off), now)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("compareClocks(%v) = %v; want %q", off, err, want)
		}
	}
}

// mark changes a spooled batch. The older records before it stay unchanged.
func TestMark(t *testing.T) {
	dir, err := statedir.Open(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	q := queue{dir, spoolFile, 1 << 20}
	old := rec("web1", "2026-01-02T03:04:05Z", `{"_meta":{"window_s":1}}`)
	batch := []entry{rec("web1", "2026-01-02T03:05:05Z", `{"\"_meta\":{":1,"_meta":{"window_s":1}}`), rec("web1", "2026-01-02T03:05:05Z", `{}`)}
	if _, err := q.append(0, append([]entry{old}, batch...)); err != nil {
		t.Fatal(err)
	}
	stderr := tempFile(t)
	d := &delivery{env: &cli.Env{Diag: diag.New("sysmetrics", "system-metrics", stderr)}}
	if err := d.mark(q, batch, true, errClock{-time.Hour}); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(dir.Join(spoolFile))
	if err != nil {
		t.Fatal(err)
	}
	want := string(old.line) + strings.Replace(string(rec("web1", "2026-01-02T03:05:05Z", `{"\"_meta\":{":1,"_meta":{"window_s":1}}`).line), `"_meta":{"window`, `"_meta":{"clock_skew_s":-3600,"window`, 1) + string(batch[1].line)
	if string(data) != want {
		t.Errorf("the spool holds\n%swant\n%s", data, want)
	}
	if !strings.Contains(content(t, stderr), "clock_differs") {
		t.Error("there is no clock_differs warning")
	}
	if err := (queue{dir, "absent", 1}).replaceTail(1, nil); err == nil {
		t.Error("replaceTail of a missing file succeeded; want an error")
	}
}

func TestMissingSQLQuotes(t *testing.T) {
	batch := []entry{rec("web'1\\", "2026-01-02T03:04:05Z", hostile[0])}
	value, _ := literal(t, missingSQL(batch))
	if want := "[" + strings.TrimSpace(string(batch[0].line)); !strings.HasPrefix(value, want) {
		t.Errorf("the literal is %s; want %s", value, want)
	}
}
