package main

import (
	"strings"
	"testing"
	"time"
)

func TestReport(t *testing.T) {
	var b strings.Builder
	r := newReport(&b)
	r.follow(strings.NewReader(`{"Action":"run","Package":"observability-hub/e2e","Test":"TestA"}
{"Action":"output","Package":"observability-hub/e2e","Test":"TestA","Output":"not to be seen\n"}
{"Action":"output","Package":"observability-hub/e2e","Test":"TestA","Output":"    a_test.go:1: HUB_SEED=7\n"}
{"Action":"pass","Package":"observability-hub/e2e","Test":"TestA","Elapsed":1.5}
{"Action":"run","Package":"observability-hub/e2e","Test":"TestB"}
{"Action":"run","Package":"observability-hub/e2e","Test":"TestB/sub"}
{"Action":"output","Package":"observability-hub/e2e","Test":"TestB/sub","Output":"    b_test.go:2: wrong\n"}
{"Action":"fail","Package":"observability-hub/e2e","Test":"TestB/sub","Elapsed":0}
{"ImportPath":"observability-hub/lib","Action":"build-output","Output":"lib.go:1: syntax error\n"}
panic: not JSON
{"Action":"skip","Package":"observability-hub/lib"}
`), nil)
	const want = `    e2e TestA: a_test.go:1: HUB_SEED=7
--- PASS: e2e TestA (1.50s)
    b_test.go:2: wrong
--- FAIL: e2e TestB/sub (0.00s)
lib.go:1: syntax error
panic: not JSON
1 tests passed, 1 failed, 0 skipped
failed: e2e TestB/sub
`
	if b.String() != want {
		t.Errorf("report:\n%s\nwant:\n%s", b.String(), want)
	}
}

func TestRunning(t *testing.T) {
	var b strings.Builder
	r := newReport(&b)
	r.running(time.Now())
	now := time.Now()
	r.add(event{Action: "run", Package: "observability-hub/lib", Test: "TestPaused"})
	r.add(event{Action: "pause", Package: "observability-hub/lib", Test: "TestPaused"})
	r.started["e2e TestB"], r.started["e2e TestB/sub"], r.started["lib TestA"] = now, now, now
	r.running(now.Add(90 * time.Second))
	if want := "    running: e2e TestB/sub (90 s), lib TestA (90 s)\n"; b.String() != want {
		t.Errorf("running: %q; want %q", b.String(), want)
	}
}
