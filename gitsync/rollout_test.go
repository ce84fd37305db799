package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// age makes the waiting commit of a state directory older, as if that much time had
// passed since it was first seen.
func (w *commands) age(by time.Duration) {
	w.t.Helper()
	p, err := readPulled(w.state)
	if err != nil || p.Waiting == nil {
		w.t.Fatalf("nothing waits: %+v, %v", p, err)
	}
	p.Waiting.First, p.Waiting.Since = p.Waiting.First.Add(-by), p.Waiting.Since.Add(-by)
	dir, err := statedir.Open(w.t.Context(), w.state, 0)
	if err == nil {
		err = errors.Join(writeState(dir, pulledFile, p), dir.Close())
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *commands) waiting() waiting {
	w.t.Helper()
	p, err := readPulled(w.state)
	if err != nil {
		w.t.Fatal(err)
	}
	if p.Waiting == nil {
		return waiting{}
	}
	return *p.Waiting
}

// The host waits for its turn, and applies the commit before in the meantime.
func TestStagger(t *testing.T) {
	w := newCommands(t)
	t.Setenv("GITSYNC_STAGGER", "30m")
	t.Setenv("GITSYNC_TURN", "0.5")
	w.want(0, `"changed":true`, "sync") // the first commit does not wait
	first := w.git("rev-parse", "HEAD")
	w.write("hub/systemd/b.service", "[Service]\nExecStart=true\n")
	second := w.push()
	out := w.want(0, `"changed":false`, "pull")
	if w.field(out, "commit") != first || w.field(out, "waiting") != second {
		t.Errorf("the second commit does not wait: %s", out)
	}
	left := time.Until(w.waiting().Until)
	if left < 14*time.Minute || left > 15*time.Minute {
		t.Errorf("the turn is in %v; want 15m", left)
	}
	w.write("root/etc/systemd/system/a.service", "edited")
	w.want(0, `"reason":"drift"`, "sync")
	if w.exists("root/etc/systemd/system/b.service") {
		t.Error("the commit was applied before the turn of the host")
	}
	status := w.want(0, "", "status")
	if w.field(status, "waiting") != second || w.field(status, "fetched") != first || w.field(status, "waiting_until") == nil {
		t.Errorf("status: %s", status)
	}
	w.want(0, "commit_waits", "plan")
	w.age(14 * time.Minute)
	w.want(0, `"changed":false`, "pull")
	w.age(time.Minute)
	w.want(0, `"changed":true`, "sync")
	if !w.exists("root/etc/systemd/system/b.service") || w.waiting().Commit != "" {
		t.Error("the commit was not applied at the turn of the host")
	}
	if got := w.field(w.want(0, "", "status"), "waiting"); got != nil {
		t.Errorf("waiting = %v after the turn", got)
	}
	// --stagger 0 takes a commit at once, also one that waits.
	third := w.push()
	w.want(0, `"waiting":"`+third, "pull")
	w.want(0, `"changed":true`, "pull", "--stagger", "0")
	// The canary does not wait, and neither does a commit that says so.
	w.push()
	w.want(0, `"changed":true`, "pull", "--turn", "0")
	w.git("commit", "-q", "--allow-empty", "-m", "urgent\n\nGitsync-Rollout: now")
	w.want(0, `"changed":true`, "pull")
	// A branch that is set back to the accepted commit has nothing that waits.
	accepted := w.git("rev-parse", "HEAD")
	w.push()
	w.want(0, `"waiting":"`, "pull")
	w.git("reset", "-q", "--hard", accepted)
	w.want(0, `"changed":false`, "pull")
	if w.waiting().Commit != "" {
		t.Error("a commit waits that the branch no longer has")
	}
	// Another path is not part of a roll-out.
	w.write("hub/hosts/systemd/a.service", "[Service]\nExecStart=true\n")
	w.push()
	w.want(0, `"changed":true`, "pull", "--path", "hosts")
}

// A commit that cannot be accepted is refused when it is first seen.
func TestStaggerRefusesAtOnce(t *testing.T) {
	w := newCommands(t)
	t.Setenv("GITSYNC_STAGGER", "30m")
	t.Setenv("GITSYNC_TURN", "1")
	w.want(0, "", "pull")
	good := w.git("rev-parse", "HEAD")
	w.write("hub/systemd/a b.service", "x")
	w.push()
	w.want(sysexits.DataErr, "commit_refused", "pull")
	w.git("reset", "-q", "--hard", good)
	w.push()
	w.want(0, `"waiting":"`, "pull")
	w.git("reset", "-q", "--hard", good)
	w.git("commit", "-q", "--amend", "--allow-empty", "-m", "rewritten")
	w.want(sysexits.DataErr, "rewind_refused", "pull")
}

// While a commit waits, the accepted one stays published.
func TestStaggerPublishes(t *testing.T) {
	w := newCommands(t)
	t.Setenv("GITSYNC_PUBLISH", w.path("trees"))
	t.Setenv("GITSYNC_TURN", "1")
	w.want(0, "", "pull", "--stagger", "30m")
	first := w.git("rev-parse", "HEAD")
	w.push()
	w.want(0, `"waiting":"`, "pull", "--stagger", "30m")
	if err := os.RemoveAll(w.path("trees/" + first)); err != nil {
		t.Fatal(err)
	}
	w.want(0, `"waiting":"`, "pull", "--stagger", "30m")
	if target, err := os.Readlink(w.path("trees/current")); err != nil || target != first || !w.exists("trees/"+first) {
		t.Errorf("current is %s, %v; want the tree of %s", target, err, first)
	}
	// A damaged repository is cloned again, and the commit still waits.
	since := w.waiting().Since
	packs, err := os.ReadDir(w.path("state/repo.git/objects/pack"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		name := w.path("state/repo.git/objects/pack/" + p.Name())
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.RemoveAll(w.path("trees/" + first)); err != nil { // so that objects are read
		t.Fatal(err)
	}
	w.want(0, "repository_replaced", "pull", "--stagger", "30m")
	if got := w.waiting(); got.Since != since || got.Commit == "" {
		t.Errorf("after the repository was replaced %+v waits; want it since %v", got, since)
	}
}

// The correction of a commit that was stopped is rolled out like any other, however long the stop was: otherwise all hosts
// would take it at once.
func TestStaggerAfterStop(t *testing.T) {
	w := newCommands(t)
	t.Setenv("GITSYNC_STAGGER", "30m")
	t.Setenv("GITSYNC_TURN", "0.5")
	t.Setenv("GITSYNC_STOP_AFTER", "1")
	w.want(0, "", "pull")
	w.git("update-ref", "refs/hosts/web9/bad", w.push())
	w.want(0, `"waiting_until":"`, "pull")
	w.age(3 * time.Hour)
	w.want(0, "rollout_stopped", "pull")
	correction := w.push()
	w.want(0, `"waiting":"`+correction+`","waiting_until":"`, "pull")
	w.age(14 * time.Minute)
	w.want(0, `"changed":false`, "pull")
	w.age(time.Minute)
	w.want(0, `"changed":true`, "pull")
}

// So is a commit after a time without pulls that succeeded, but one that waits has its turn as before.
func TestStaggerAfterFailedPulls(t *testing.T) {
	w := newCommands(t)
	t.Setenv("GITSYNC_STAGGER", "30m")
	t.Setenv("GITSYNC_TURN", "0.5")
	failed := func() {
		t.Helper()
		w.age(3 * time.Hour)
		if err := os.Chtimes(w.path("state/pulled.json"), time.Time{}, time.Now().Add(-3*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	w.want(0, "", "pull")
	w.push()
	w.want(0, `"waiting":"`, "pull")
	failed()
	next := w.push()
	w.want(0, `"waiting":"`+next+`","waiting_until":"`, "pull")
	failed()
	w.want(0, `"changed":true`, "pull")
}

// A host cannot wait at a commit that its new clone does not have, because the branch was rewritten.
func TestStaggerWithoutTheAcceptedCommit(t *testing.T) {
	w := newCommands(t)
	w.push()
	w.want(0, "", "pull")
	w.git("reset", "-q", "--hard", "HEAD^")
	w.git("commit", "-q", "--allow-empty", "-m", "rewritten")
	w.git("reflog", "expire", "--expire=now", "--all")
	w.git("gc", "-q", "--prune=now")
	if err := os.RemoveAll(w.path("state/repo.git/objects/pack")); err != nil {
		t.Fatal(err)
	}
	w.want(0, `"changed":true`, "pull", "--allow-rewind", "--stagger", "1h", "--turn", "1")
}

func TestTurn(t *testing.T) {
	at := func(minutes int) time.Time {
		return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(minutes) * time.Minute)
	}
	const delay, stagger = 20 * time.Minute, 30 * time.Minute
	var w waiting
	for _, tc := range []struct {
		name       string
		tip        string
		now, until int
	}{
		{"first seen", "a", 0, 20},
		{"seen again", "a", 15, 20},
		{"a newer commit starts the delay again", "b", 15, 35},
		{"once more", "c", 30, 50},
		{"but not for longer than one stagger", "d", 45, 50},
		{"the same", "d", 49, 50},
		{"the clock was set back", "d", -100, -80},
		{"and goes on", "d", -90, -80},
	} {
		w = w.see(tc.tip, at(tc.now))
		if got := w.turn(delay, stagger); got != at(tc.until) {
			t.Errorf("%s: the turn is at %v; want %v", tc.name, got, at(tc.until))
		}
	}
	var none *waiting
	if got := none.see("x", at(7)); got.Since != at(7) || got.First != at(7) {
		t.Errorf("see = %+v", got)
	}
}

// The turns of hosts are spread evenly, whatever their names are.
func TestTurnsAreSpread(t *testing.T) {
	for _, form := range []string{"web%d", "host-%04d.example.org", "%d"} {
		var tenth [10]int
		for i := range 10_000 {
			tenth[int(turnOf(fmt.Sprintf(form, i))*10)]++
		}
		for i, n := range tenth {
			if math.Abs(float64(n-1000)) > 150 {
				t.Errorf("%s: %d of 10,000 hosts have their turn in part %d of 10", form, n, i)
			}
		}
	}
	if turnOf("web1") != turnOf("web1") || turnOf("web1") == turnOf("web2") {
		t.Error("the turn is not that of the name")
	}
}

func TestRolloutFlags(t *testing.T) {
	w := newCommands(t)
	for _, args := range [][]string{{"--stagger", "-1s"}, {"--turn", "1.1"}, {"--turn", "-0.1"}, {"--turn", "nan"}, {"--stop-after", "-1"},
		{"--host", "a/b"}, {"--host", "../x"}, {"--host", "a..b"}, {"--host", "-a"}, {"--host", "a.lock"}, {"--host", "a b"}, {"--host", "*"}, {"--host", strings.Repeat("a", 101)}} {
		w.want(sysexits.Usage, args[0], append([]string{"pull"}, args...)...)
	}
	w.want(sysexits.Usage, "--host", "verdict", "--host", "a/b")
	for turn, want := range map[string]time.Duration{"0": 0, "1": time.Hour, "0.25": 15 * time.Minute} {
		var f float64
		fmt.Sscan(turn, &f)
		if got, err := (rolloutFlags{Stagger: time.Hour, Turn: &f}).delay(); got != want || err != nil {
			t.Errorf("delay with --turn %s = %v, %v; want %v", turn, got, err, want)
		}
	}
	if got, err := (rolloutFlags{Stagger: time.Hour, Host: "web1"}).delay(); err != nil || got != time.Duration(turnOf("web1")*float64(time.Hour)) {
		t.Errorf("delay of web1 = %v, %v", got, err)
	}
	if got, err := (rolloutFlags{Host: "web1"}).delay(); got != 0 || err != nil {
		t.Errorf("delay without --stagger = %v, %v", got, err)
	}
}

func TestParseBad(t *testing.T) {
	other := strings.Repeat("2", 40)
	out := someHash + "\trefs/hosts/web1/bad\n" + other + "\trefs/hosts/web2/bad\n" + someHash + "\trefs/hosts/web3.example.org/bad\n" +
		someHash + "\trefs/hosts/a/b/bad\n" + someHash + "\trefs/hosts//bad\n" + someHash + "\trefs/heads/refs/hosts/x/bad\n" +
		someHash + "\trefs/hosts/x/good\n" + someHash + "\n" + "\trefs/hosts/y/bad\n" + someHash + "\trefs/hosts/../bad\n" + someHash
	same(t, "hosts", parseBad(out, someHash), []string{"web1", "web3.example.org"})
}

// A host that rolled a commit back keeps the others from taking it, until the branch
// moves or the verdict is withdrawn.
func TestVerdict(t *testing.T) {
	w := newCommands(t)
	w.want(sysexits.Config, "nothing_pulled", "verdict")
	w.want(0, "", "sync")
	t.Setenv("GITSYNC_HOST", "web1")
	w.want(0, `"bad":null,"changed":true`, "verdict") // deletes what a host of that name may have left
	w.want(0, `"bad":null,"changed":false`, "verdict")
	w.write("hub/systemd/b.service", "[Service]\nExecStart=true\n")
	second := w.push()
	w.want(0, "", "sync")
	w.want(0, "", "rollback")
	w.want(0, `"bad":"`+second+`","changed":true`, "verdict")
	w.want(0, `"bad":"`+second+`","changed":false`, "verdict")
	same(t, "refs", strings.Fields(w.git("for-each-ref", "--format=%(objectname) %(refname)", "refs/hosts")), []string{second, "refs/hosts/web1/bad"})

	other := func(status int, text string, args ...string) {
		t.Helper()
		w.want(status, text, append(args, "--state-dir", w.path("other"), "--host", "web2")...)
	}
	w.git("reset", "-q", "--hard", "HEAD^")
	other(0, `"changed":true`, "pull")
	w.git("reset", "-q", "--hard", second)
	other(0, "rollout_stopped", "pull", "--stop-after", "1")
	other(0, `"waiting":"`+second+`","waiting_until":null,"bad_on":["web1"]`, "pull", "--stop-after", "1")
	w.want(0, `"waiting":"`+second+`","waiting_until":null,"bad_on":["web1"]`, "status", "--state-dir", w.path("other"))
	other(0, `"waiting_until":"2`, "pull", "--stop-after", "1", "--stagger", "1h", "--turn", "1")
	w.want(0, `"changed":true`, "pull", "--state-dir", w.path("fresh"), "--stop-after", "1") // a new host has no commit to stay at

	third := w.push() // the correction
	w.want(0, `"commit":"`+third, "sync")
	other(0, `"changed":true`, "pull", "--stop-after", "1")
	w.want(0, `"bad":null,"changed":true`, "verdict")
	if refs := w.git("for-each-ref", "refs/hosts"); refs != "" {
		t.Errorf("the verdict was not withdrawn: %s", refs)
	}
	// One host does not stop the roll-out with --stop-after 2.
	fourth := w.push()
	w.git("update-ref", "refs/hosts/a/bad", fourth)
	other(0, `"changed":true`, "pull", "--stop-after", "2")
	fifth := w.push()
	w.git("update-ref", "refs/hosts/a/bad", fifth)
	w.git("update-ref", "refs/hosts/b/bad", fifth)
	other(0, "rolled back on a, b", "pull", "--stop-after", "2")
	w.git("update-ref", "-d", "refs/hosts/b/bad")
	other(0, `"changed":true`, "pull", "--stop-after", "2")

	// Errors.
	w.write("state/quarantine.json", `{"commit":"`+third+`"}`)
	w.write("hub/.git/hooks/update", "#!/bin/sh\necho only your own ref >&2\nexit 1\n")
	if err := os.Chmod(w.path("hub/.git/hooks/update"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.want(sysexits.Config, "only your own ref", "verdict")
	w.git("config", "transfer.hideRefs", "refs/hosts")
	w.want(sysexits.Config, "[remote rejected]", "verdict")
	w.git("config", "--unset", "transfer.hideRefs")
	w.want(sysexits.Unavailable, "remote_unavailable", "verdict", "--repo", "/nowhere")
	w.write("state/verdict.json", "damaged")
	w.want(sysexits.Config, "state_unreadable", "verdict")
	if err := os.Remove(w.path("hub/.git/hooks/update")); err != nil {
		t.Fatal(err)
	}
	w.want(0, `"changed":true`, "verdict")
}

func TestNamed(t *testing.T) {
	hosts := []string{"a", "b", "c", "d", "e", "f", "g"}
	if got := named(hosts); got != "a, b, c, d, e and 2 more" {
		t.Errorf("named = %q", got)
	}
	if got := named(hosts[:5]); got != "a, b, c, d, e" || slices.Contains(hosts[:5], "f") {
		t.Errorf("named = %q", got)
	}
}
