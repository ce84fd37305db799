package readsync

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/mongowire"
)

// proxy is a Proxy Service as hubs have it: 100 documents a call.
func (h *hub) proxy() *httptest.Server {
	h.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || r.URL.Path != "/api/sync/reading" {
			http.NotFound(w, r)
			return
		}
		var out bytes.Buffer
		cmd := h.shell("readsync extract --limit 100 | readsync load | readsync mark")
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(w, `{"service":"reading-sync","status":"success","processed_count":%d,"timestamp":%q}`+"\n",
			outcome{stdout: out.String()}.account(h).Marked, time.Now().Format(time.RFC3339))
	}))
	h.Cleanup(server.Close)
	return server
}

// triggered is the record of a trigger.
type triggered struct {
	Msg            string
	ProcessedCount int `json:"processed_count"`
	Calls          int
}

func (o outcome) triggered(h *hub) (r triggered) {
	h.Helper()
	if err := json.Unmarshal([]byte(o.stdout), &r); err != nil || r.Msg != "triggered" {
		h.Fatalf("%v: no triggered record: %s\n%s", err, o.stdout, o.stderr)
	}
	return r
}

// TestTriggerDrains calls a Proxy Service that takes 100 documents a call, until it takes none.
func TestTriggerDrains(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(730)
	url := h.proxy().URL + "/api/sync/reading"
	got := h.want(0, h.command("trigger", "--url", url)).triggered(h)
	if got.ProcessedCount != 730 || got.Calls != 9 {
		t.Errorf("%+v; want 730 documents by 9 calls", got)
	}
	h.settled("drained")
}

// serve starts the endpoint on a free port, and gives its URL and what stops it.
func (h *hub) serve(args ...string) (url string, stop func() outcome) {
	h.Helper()
	return h.serveBy(h.command(append([]string{"serve", "--listen", "127.0.0.1:0"}, args...)...))
}

func (h *hub) serveBy(cmd *exec.Cmd) (url string, stop func() outcome) {
	h.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		h.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var listening struct{ Addresses []string }
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &listening)
	}
	if err != nil || len(listening.Addresses) != 1 {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		h.Fatalf("serve does not say where it listens: %v: %s\n%s", err, line, &stderr)
	}
	rest := make(chan string, 1)
	go func() {
		var all bytes.Buffer
		_, _ = all.ReadFrom(lines)
		rest <- all.String()
	}()
	return "http://" + listening.Addresses[0] + "/api/sync/reading", func() outcome {
		_ = cmd.Process.Signal(syscall.SIGTERM) // or it has ended
		stdout := <-rest
		_ = cmd.Wait()
		return outcome{exitStatus(cmd.ProcessState), string(line) + stdout, stderr.String()}
	}
}

// TestServe lets trigger call serve, in between with a database that is down.
func TestServe(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(2300)
	url, stop := h.serve()
	if got := h.want(0, h.command("trigger", "--url", url)).triggered(h); got.ProcessedCount != 2300 {
		t.Errorf("%+v; want 2300 documents", got)
	}
	h.settled("served")
	// Down: no success. Up again: the same service goes on.
	if err := h.pg.Stop(); err != nil {
		t.Fatal(err)
	}
	h.put(document(t, "late"))
	if got := finish(t, h.command("trigger", "--url", url, "--deadline", "2s")); got.status != exitUnavailable {
		t.Errorf("with the database down: exit status %d\n%s%s", got.status, got.stdout, got.stderr)
	}
	if err := h.pg.Start(); err != nil {
		t.Fatal(err)
	}
	h.want(0, h.command("trigger", "--url", url))
	h.settled("served again")
	if got := stop(); got.status != 0 {
		t.Errorf("serve ended with %d\n%s", got.status, got.stderr)
	}
}

// TestCallerGone hangs up in the middle of a sync: the sync is finished, or is left so that the next call finishes it.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(3000)
	url, stop := h.serve()
	var updates atomic.Int64
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "update" {
			updates.Add(1)
			return mongowire.Action{Delay: 300 * time.Millisecond}
		}
		return mongowire.Action{}
	})
	client := http.Client{Timeout: 400 * time.Millisecond}
	if answer, err := client.Post(url, "", nil); err == nil {
		t.Errorf("an answer in time: %s", answer.Status)
	}
	h.mongo.Intercept(nil)
	h.want(0, h.command("trigger", "--url", url))
	h.settled("caller gone")
	if got := stop(); got.status != 0 {
		t.Errorf("serve ended with %d\n%s", got.status, got.stderr)
	}
}

// TestServeTerminated stops the service in the middle of a sync: within five seconds, with nothing half done.
func TestServeTerminated(t *testing.T) {
	t.Parallel()
	h := newHub(t, mongowire.Config{})
	h.fill(5000)
	url, stop := h.serve()
	reached := make(chan struct{}, 100)
	h.mongo.Intercept(func(call *mongowire.Call) mongowire.Action {
		if call.Command == "update" {
			reached <- struct{}{}
			return mongowire.Action{Delay: 200 * time.Millisecond}
		}
		return mongowire.Action{}
	})
	answered := make(chan string, 1)
	go func() {
		answer, err := http.Post(url, "", nil)
		if err != nil {
			answered <- err.Error()
			return
		}
		_ = answer.Body.Close()
		answered <- strconv.Itoa(answer.StatusCode)
	}()
	<-reached
	began := time.Now()
	got := stop()
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("it took %v to end", d)
	}
	if caller := <-answered; got.status != 0 || caller != "503" {
		t.Errorf("serve ended with %d, the caller got %s; want 0 and 503\n%s", got.status, caller, got.stderr)
	}
	h.mongo.Intercept(nil)
	h.check("terminated")
	if rows, marked := h.count(), h.statuses()["processed"]; rows != marked {
		t.Errorf("%d rows, %d marked: a batch was cut off", rows, marked)
	}
	h.want(0, h.command("run"))
	h.settled("terminated")
}
