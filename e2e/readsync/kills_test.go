package readsync

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/torture"
)

// feed supplies each round with new documents. Some of them cannot become rows.
type feed struct {
	h                      *hub
	next                   int // number of documents since the last settle
	documents, rows, aside int // totals of all earlier settles
}

func (f *feed) put(n int) {
	f.h.Helper()
	var docs [][]byte
	for range n {
		f.next++
		payload := bson.E{Key: "payload", Value: bson.D{{Key: "n", Value: int32(f.next)}, {Key: "text", Value: strings.Repeat("y", f.next%700)}}}
		if f.next%97 == 0 {
			payload.Value = "a\x00b"
		}
		var id any = objectID(f.next)
		switch f.next % 11 {
		case 3:
			id = "text " + strconv.Itoa(f.next)
		case 5:
			id = float64(f.next) + 0.5
		}
		docs = append(docs, document(f.h, id, payload))
	}
	f.h.put(docs...)
}

// settle runs a command without faults and tests the final state. Then it removes all documents, rows and letters, because the time of
// further checks grows with their number.
func (f *feed) settle(event string, cmd *exec.Cmd) {
	f.h.Helper()
	f.h.mongo.Intercept(nil)
	got := finish(f.h, cmd)
	if got.status != 0 && got.status != exitPartial {
		f.h.Fatalf("%s: the run without faults exited with status %d\n%s", event, got.status, clip(got.stderr))
	}
	rows, aside := f.h.settled(event)
	if rows+aside != f.next || aside != f.next/97 {
		f.h.Errorf("%s: %d rows and %d dead letters of %d documents; want %d dead letters", event, rows, aside, f.next, f.next/97)
	}
	f.documents, f.rows, f.aside, f.next = f.documents+f.next, f.rows+rows, f.aside+aside, 0
	f.h.mongo.Drop(database, collection)
	if err := f.h.pg.Exec("TRUNCATE reading_analytics"); err != nil {
		f.h.Fatal(err)
	}
	if err := os.RemoveAll(f.h.state); err != nil {
		f.h.Fatal(err)
	}
	if f.h.Failed() {
		f.h.FailNow()
	}
}

// String returns the totals for the log. settle fails if a document is lost or duplicated.
func (f *feed) String() string {
	return fmt.Sprintf("%d documents, %d rows, %d dead letters, 0 lost, 0 twice", f.documents, f.rows, f.aside)
}

// between settles in some of the rounds.
func (f *feed) between(round int, start func() *exec.Cmd) {
	f.h.Helper()
	if round%15 == 14 {
		f.settle(fmt.Sprintf("round %d", round), start())
		f.h.mongo.Intercept(slowly)
	}
}

// slowly delays each command of MongoDB. This makes a kill between two commands likely.
func slowly(call *mongowire.Call) mongowire.Action {
	return mongowire.Action{Delay: 4 * time.Millisecond}
}

// sampleOf returns the number of faults of a test: few normally, many with HUB_TORTURE.
func sampleOf(few, many int) int {
	if torture.Full {
		return many
	}
	return few
}

// whole returns the duration of a run without faults.
func whole(f *feed, start func() *exec.Cmd) time.Duration {
	f.put(2500)
	began := time.Now()
	finish(f.h, start())
	return time.Since(began)
}

// TestKillsOfRun kills run at random moments.
func TestKillsOfRun(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	random, f := torture.Random(t, 0), &feed{h: h}
	h.mongo.Intercept(slowly)
	start := func() *exec.Cmd { return h.command("run", "--max-rejects", "1000000") }
	kills := torture.NewKills(random, whole(f, start))
	for kills.More(sampleOf(14, 220)) {
		i := kills.Tried()
		f.put(1000 + random.IntN(2000))
		cmd := start()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(kills.After())
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // the status is checked below
		kills.Add(exitStatus(cmd.ProcessState) == killed)
		h.check(fmt.Sprintf("kill %d", i))
		f.between(i, start)
	}
	f.settle("kills of run", start())
	kills.Check(t)
	t.Logf("%d kills, %d runs that ended before the kill: %v", kills.Hit(), kills.Tried()-kills.Hit(), f)
}

// TestKillsOfStages kills one stage of the pipe at random moments.
func TestKillsOfStages(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	random, f := torture.Random(t, 0), &feed{h: h}
	h.mongo.Intercept(slowly)
	start := func() *exec.Cmd {
		return h.shell("readsync extract | readsync load --max-rejects 1000000 | readsync mark")
	}
	kills := torture.NewKills(random, whole(f, start))
	died := [3]int{}
	noticed := 0
	for kills.More(sampleOf(9, 220)) {
		i := kills.Tried()
		f.put(1000 + random.IntN(2000))
		victim := random.IntN(3)
		stages, output := h.pipeline()
		time.Sleep(kills.After())
		_ = stages[victim].Process.Kill()
		for _, cmd := range stages {
			_ = cmd.Wait()
		}
		event := fmt.Sprintf("kill %d, of %s", i, stages[victim].Args[1])
		kills.Add(exitStatus(stages[victim].ProcessState) == killed)
		if exitStatus(stages[victim].ProcessState) == killed {
			died[victim]++
			// A later stage reports that its input is incomplete, unless the stage was killed after its trailer.
			for next := victim + 1; next < 3; next++ {
				if exitStatus(stages[next].ProcessState) == exitDataErr {
					noticed++
					break
				}
			}
		}
		if status := exitStatus(stages[2].ProcessState); victim < 2 && exitStatus(stages[victim].ProcessState) == killed && status == 0 && h.statuses()["ingested"] > 0 {
			t.Errorf("%s: mark exited with status 0, but documents are left\n%s", event, output)
		}
		h.check(event)
		f.between(i, start)
	}
	f.settle("kills of stages", start())
	kills.Check(t)
	if early := died[0] + died[1]; early >= 4 && noticed == 0 {
		t.Errorf("%d kills of extract and load, none of which the next stage noticed", early)
	}
	t.Logf("kills of extract %d, load %d, mark %d, noticed by the next stage %d: %v", died[0], died[1], died[2], noticed, f)
}

// pipeline starts the three stages as children of the test.
func (h *hub) pipeline() (stages [3]*exec.Cmd, output *bytes.Buffer) {
	h.Helper()
	stages = [3]*exec.Cmd{h.command("extract"), h.command("load", "--max-rejects", "1000000"), h.command("mark")}
	output = &bytes.Buffer{}
	var pipes []*os.File
	for i := range 2 {
		r, w, err := os.Pipe()
		if err != nil {
			h.Fatal(err)
		}
		stages[i].Stdout, stages[i+1].Stdin = w, r
		pipes = append(pipes, r, w)
	}
	stages[2].Stderr = output
	for _, cmd := range stages {
		if err := cmd.Start(); err != nil {
			h.Fatal(err)
		}
	}
	for _, f := range pipes {
		if err := f.Close(); err != nil {
			h.Fatal(err)
		}
	}
	return stages, output
}

// TestKillsOfPostgres kills all processes of PostgreSQL at random moments of a run, and starts it again.
func TestKillsOfPostgres(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	random, f := torture.Random(t, 0), &feed{h: h}
	h.mongo.Intercept(slowly)
	start := func() *exec.Cmd { return h.command("run", "--max-rejects", "1000000") }
	kills := torture.NewKills(random, whole(f, start))
	for kills.More(sampleOf(7, 60)) {
		i := kills.Tried()
		f.put(1000 + random.IntN(2000))
		cmd := start()
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(kills.After())
		if err := h.pg.Kill9(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		status := exitStatus(cmd.ProcessState)
		kills.Add(status == exitUnavailable)
		switch status {
		case exitUnavailable, 0, exitPartial:
		default:
			t.Errorf("PostgreSQL's death %d: exit status %d; want 69\n%s", i, status, &stderr)
		}
		if err := h.pg.Start(); err != nil {
			t.Fatal(err)
		}
		h.check(fmt.Sprintf("PostgreSQL's death %d", i))
		f.between(i, start)
	}
	f.settle("PostgreSQL's deaths", start())
	kills.Check(t)
	t.Logf("%d deaths, %d runs failed by them: %v", kills.Tried(), kills.Hit(), f)
}

// TestMongoCutAtEveryMessage drops the connection before each command of a run, after it, and during its answer.
func TestMongoCutAtEveryMessage(t *testing.T) {
	t.Parallel()
	for _, set := range []string{"", "rs0"} {
		t.Run("replica set "+set, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{ReplicaSet: set})
			f := &feed{h: h}
			cuts, failed := 0, 0
			for _, kind := range []string{"before", "after", "truncated"} {
				for at := 1; ; at++ {
					f.put(1100) // two batches
					reached := false
					base := h.mongo.Calls("")
					h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
						if call.N != base+at {
							return mongowire.Action{}
						}
						reached = true
						switch kind {
						case "before":
							return mongowire.Action{DropBefore: true}
						case "after":
							return mongowire.Action{DropAfter: true}
						}
						return mongowire.Action{Truncate: 30}
					})
					got := finish(t, h.command("run", "--max-rejects", "1000000"))
					h.mongo.Intercept(nil)
					if !reached {
						break // the run has no more messages
					}
					cuts++
					event := fmt.Sprintf("cut %s message %d", kind, at)
					switch got.status {
					case exitUnavailable:
						failed++
					case 0, exitPartial: // the driver has retried
					default:
						t.Errorf("%s: exit status %d; want 69\n%s", event, got.status, clip(got.stderr))
					}
					h.check(event)
					if at > 100 {
						t.Fatal("a run sends more than 100 messages")
					}
				}
			}
			f.settle("cuts", h.command("run", "--max-rejects", "1000000"))
			t.Logf("%d cuts, %d runs failed by them: %v", cuts, failed, f)
			if cuts < 15 {
				t.Errorf("%d cuts; want at least 15", cuts)
			}
		})
	}
}

// TestMongoErrors answers commands with the errors of a server that steps down, shuts down, or is overloaded.
func TestMongoErrors(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{ReplicaSet: "rs0"})
	f := &feed{h: h}
	for _, failure := range []*mongowire.Failure{mongowire.NotWritablePrimary, mongowire.ShutdownInProgress, mongowire.PrimarySteppedDown, mongowire.InterruptedAtShut, mongowire.WriteConcernFailed} {
		for _, command := range []string{"find", "update"} {
			for _, always := range []bool{false, true} {
				if always && failure != mongowire.PrimarySteppedDown && failure != mongowire.WriteConcernFailed {
					continue // each takes the full timeout
				}
				f.put(1200)
				first := true
				h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
					if call.Command != command || !always && !first {
						return mongowire.Action{}
					}
					first = false
					if failure == mongowire.WriteConcernFailed && command == "update" {
						return mongowire.Action{WriteConcernError: failure}
					}
					return mongowire.Action{Fail: failure}
				})
				got := finish(t, h.command("run", "--max-rejects", "1000000", "--timeout", "1s"))
				event := fmt.Sprintf("%s answers %s, always %v", command, failure.Name, always)
				if ok := got.status == exitUnavailable || !always && (got.status == 0 || got.status == exitPartial); !ok {
					t.Errorf("%s: exit status %d\n%s", event, got.status, clip(got.stderr))
				}
				h.check(event)
			}
		}
	}
	f.settle("errors", h.command("run", "--max-rejects", "1000000"))
	// An error that waiting does not resolve has status 78.
	f.put(10)
	h.mongo.Intercept(func(*mongowire.Call) mongowire.Action { return mongowire.Action{Fail: mongowire.Unauthorized} })
	h.want(exitConfig, h.command("run"))
}

// TestMongoSlow uses a slow server. A run waits for its answers, up to --timeout.
func TestMongoSlow(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(50)
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		return mongowire.Action{Delay: 200 * time.Millisecond, Trickle: 200 * time.Millisecond}
	})
	h.want(0, h.command("run"))
	h.settled("slow")
	h.put(document(t, "late"))
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action { return mongowire.Action{Delay: 3 * time.Second} })
	h.want(exitUnavailable, h.command("run", "--timeout", "1s"))
	h.mongo.Intercept(nil)
	h.want(0, h.command("run"))
	h.settled("slow")
}

// TestMongoNonsense uses a server that sends invalid answers.
func TestMongoNonsense(t *testing.T) {
	t.Parallel()
	for name, action := range map[string]mongowire.Action{
		"oversize": {Oversize: true},
		"HTTP":     {Raw: []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")},
		"nothing":  {Raw: []byte{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			h.fill(10)
			for _, command := range []string{"find", "update"} {
				h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
					if call.Command == command {
						return action
					}
					return mongowire.Action{}
				})
				h.want(exitUnavailable, h.command("run", "--timeout", "2s"))
				h.check(command + " " + name)
			}
			h.mongo.Intercept(nil)
			h.want(0, h.command("run"))
			h.settled(name)
		})
	}
}

// TestKillsByTerm sends SIGTERM at random moments. A run ends within five seconds after a complete batch.
func TestKillsByTerm(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	random, f := torture.Random(t, 0), &feed{h: h}
	h.mongo.Intercept(slowly)
	start := func() *exec.Cmd { return h.command("run", "--max-rejects", "1000000") }
	kills := torture.NewKills(random, whole(f, start))
	for kills.More(sampleOf(5, 40)) {
		i := kills.Tried()
		f.put(2000)
		if i == 0 { // in the first round the server does not answer
			h.mongo.Intercept(func(*mongowire.Call) mongowire.Action { return mongowire.Action{Delay: time.Minute} })
		}
		cmd := start()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(kills.After())
		began := time.Now()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if d := time.Since(began); d > 5*time.Second {
			t.Errorf("the run took %v to end", d)
		}
		status := exitStatus(cmd.ProcessState)
		kills.Add(status == 128+int(syscall.SIGTERM))
		if status != 128+int(syscall.SIGTERM) && (i == 0 || status != 0 && status != exitPartial) {
			t.Errorf("SIGTERM %d: exit status %d; want 143", i, status)
		}
		h.mongo.Intercept(slowly)
		h.check(fmt.Sprintf("SIGTERM %d", i))
		// Every row is marked, because the batch was finished.
		if n, s := h.count(), h.statuses()["processed"]; n != s {
			t.Errorf("SIGTERM %d: %d rows, %d marked", i, n, s)
		}
	}
	f.settle("SIGTERM", start())
	kills.Check(t)
	t.Logf("%d of %d runs ended by SIGTERM: %v", kills.Hit(), kills.Tried(), f)
}
