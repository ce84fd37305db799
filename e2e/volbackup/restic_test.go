package volbackup

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"observability-hub/e2e/dependent"
	"observability-hub/e2e/link"
)

// restServer implements the REST backend of restic (doc/REST_backend.rst, version 2) on
// a directory, with faults.
type restServer struct {
	dir      string
	requests atomic.Int64
	breaks   atomic.Int64 // the connection breaks at every breaks-th request; 0: never
	dead     atomic.Bool  // the server answers no request
	full     atomic.Bool  // the connection breaks whenever data is stored
}

func (s *restServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.dead.Load() {
		<-r.Context().Done()
		return
	}
	n, every := s.requests.Add(1), s.breaks.Load()
	if every > 0 && n%every == 0 || s.full.Load() && r.Method == http.MethodPost && strings.Contains(r.URL.Path, "/data/") {
		panic(http.ErrAbortHandler)
	}
	path := filepath.Join(s.dir, filepath.Clean("/"+r.URL.Path))
	listing := strings.HasSuffix(r.URL.Path, "/") && r.URL.Path != "/"
	var err error
	switch {
	case r.Method == http.MethodPost && r.URL.Query().Get("create") == "true":
		err = os.MkdirAll(path, 0o755)
	case r.Method == http.MethodPost:
		var content []byte
		if content, err = io.ReadAll(r.Body); err == nil {
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = os.WriteFile(path, content, 0o644)
			}
		}
	case r.Method == http.MethodDelete:
		err = os.Remove(path)
	case listing:
		type file struct {
			Name string `json:"name"`
			Size int64  `json:"size"`
		}
		list := []file{}
		entries, _ := os.ReadDir(path) // a missing directory counts as empty
		for _, e := range entries {
			if info, err := e.Info(); err == nil && !e.IsDir() {
				list = append(list, file{e.Name(), info.Size()})
			}
		}
		w.Header().Set("Content-Type", "application/vnd.x.restic.rest.v2")
		err = json.NewEncoder(w).Encode(list)
	default:
		http.ServeFile(w, r, path)
		return
	}
	if os.IsNotExist(err) {
		http.NotFound(w, r)
	} else if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}

// If the connection to a restic repository breaks, the run exits with status 69, so that
// the unit retries it. If the server does not answer, the run fails when its timeout has
// passed. Neither prevents the next run.
func TestResticBehindFaults(t *testing.T) {
	w := newWorld(t)
	rest := &restServer{dir: filepath.Join(w.dir, "rest")}
	server := httptest.NewServer(rest)
	defer server.Close()
	w.env = append(w.env, "RESTIC_REPOSITORY=rest:"+server.URL+"/hub", "RESTIC_PASSWORD=secret", "RESTIC_CACHE_DIR="+filepath.Join(w.dir, "cache"), "VOLBACKUP_ENGINE=restic")
	if got := w.finish(w.command("restic", "init", "--quiet")); got.status != 0 {
		t.Fatal(got.stderr)
	}
	w.fill("v", 100_000, 1)
	failed := 0
	for _, every := range []int64{2, 7, 1000} {
		rest.breaks.Store(every)
		got := w.try("run")
		if got.status == 69 && strings.Contains(got.stderr, `"msg":"restic_failed"`) {
			failed++
		} else if got.status != 0 {
			t.Errorf("each %dth request breaks: status %d: %s", every, got.status, got.stderr)
		}
	}
	if failed == 0 || failed == 3 {
		t.Errorf("%d of 3 runs failed", failed)
	}
	rest.dead.Store(true)
	if got := w.want(69, "run", "--timeout", "3s"); !strings.Contains(got.stderr, "not done within 3s") {
		t.Error(got.stderr)
	}
	rest.dead.Store(false)
	rest.breaks.Store(0)
	w.fill("v", 100_000, 2)
	w.want(0, "run")
	w.want(0, "verify", "--deep")
	w.want(0, "status", "--max-age", "1h")
	before, err := os.ReadFile(filepath.Join(w.volumes, "v", "file"))
	if err != nil {
		t.Fatal(err)
	}
	w.fill("v", 5, 3)
	w.want(0, "restore", "v")
	if after, err := os.ReadFile(filepath.Join(w.volumes, "v", "file")); err != nil || string(after) != string(before) {
		t.Errorf("%d bytes restored, %v", len(after), err)
	}
}

// Files are sent before a container is stopped, and again while it is stopped. So if the repository does not take the
// files, no container is stopped. The first snapshot is no backup, and is removed.
func TestResticSendsFirst(t *testing.T) {
	w := newWorld(t)
	rest := &restServer{dir: filepath.Join(w.dir, "rest")}
	server := httptest.NewServer(rest)
	defer server.Close()
	log := filepath.Join(w.dir, "log")
	w.env = append(w.env, "RESTIC_REPOSITORY=rest:"+server.URL+"/hub", "RESTIC_PASSWORD=secret", "RESTIC_CACHE_DIR="+filepath.Join(w.dir, "cache"), "VOLBACKUP_ENGINE=restic", "LOG="+log)
	if got := w.finish(w.command("restic", "init", "--quiet")); got.status != 0 {
		t.Fatal(got.stderr)
	}
	w.fill("v", 100_000, 1)
	if err := os.WriteFile(filepath.Join(w.volumes, "v.containers"), []byte(`["db"]`), 0o644); err != nil {
		t.Fatal(err)
	}
	rest.full.Store(true)
	if got := w.want(69, "run", "--timeout", "5s"); !strings.Contains(got.stderr, "not done within 5s") {
		t.Error(got.stderr)
	}
	if calls, err := os.ReadFile(log); err != nil || strings.Contains(string(calls), "with v") {
		t.Errorf("containers were stopped although the repository does not take data: %s, %v", calls, err)
	}
	rest.full.Store(false)
	// A run that was killed between the two leaves the first.
	if got := w.finish(w.command("restic", "backup", "--quiet", "--tag", "volume-backup-ahead", filepath.Join(w.volumes, "v"))); got.status != 0 {
		t.Fatal(got.stderr)
	}
	w.fill("v", 100_000, 2)
	ran := w.want(0, "run")
	var record struct {
		Stored int64 `json:"stored_bytes"`
	}
	first, _, _ := strings.Cut(ran.stdout, "\n")
	if err := json.Unmarshal([]byte(first), &record); err != nil || record.Stored < 100_000 {
		t.Errorf("stored_bytes lacks what was sent ahead: %s", first)
	}
	got := w.finish(w.command("restic", "snapshots", "--json"))
	var snapshots []struct{ Tags []string }
	if err := json.Unmarshal([]byte(got.stdout), &snapshots); err != nil || len(snapshots) != 1 || !slices.Contains(snapshots[0].Tags, "volume=v") {
		t.Errorf("snapshots after a run: %s%s", got.stdout, got.stderr)
	}
	if calls, err := os.ReadFile(log); err != nil || !strings.Contains(string(calls), "with v") {
		t.Errorf("the volume was not read while its container was stopped: %s, %v", calls, err)
	}
}

// A sample of make bench-elsewhere: a network that cuts, dies or stalls at a random byte. A run that reports a backup has
// one that is whole, and the next run succeeds.
func TestResticThroughBadNetwork(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	w := newWorld(t)
	rest := &restServer{dir: filepath.Join(w.dir, "rest")}
	server := httptest.NewServer(rest)
	defer server.Close()
	network, err := link.New(server.Listener.Addr().String(), seed)
	if err != nil {
		t.Fatal(err)
	}
	defer network.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w.env = append(w.env, "RESTIC_REPOSITORY=rest:http://"+network.Addr+"/hub", "RESTIC_PASSWORD=secret", "RESTIC_CACHE_DIR="+filepath.Join(w.dir, "cache"), "VOLBACKUP_ENGINE=restic")
	if got := w.finish(w.command("restic", "init", "--quiet")); got.status != 0 {
		t.Fatal(got.stderr)
	}
	const size = 600_000 // bytes of the volume; a run sends about as much
	w.fill("v", size, 0)
	if err := os.WriteFile(filepath.Join(w.volumes, "v.containers"), []byte(`["db"]`), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, fault := range []link.Fault{
		{CutAfter: size/2 + random.Int64N(size)},
		{DeadAfter: 1 + random.Int64N(size)},
		{StallAfter: 1 + random.Int64N(size)},
	} {
		w.fill("v", size, uint64(i+1))
		network.Set(fault)
		got := w.finish(w.command(self, dependent.ReapArgument, w.binary, "run", "--timeout", "4s"))
		passed, struck := network.Set(link.Fault{})
		t.Logf("%+v: status %d, %d bytes, struck %d times", fault, got.status, passed, struck)
		if got.status != 0 && (got.status != 69 || !strings.Contains(got.stderr, `"level":"ERROR"`)) {
			t.Errorf("%+v: status %d: %s", fault, got.status, got.stderr)
		}
		if strings.Contains(got.stdout, `"outcome":"stored"`) {
			w.holds("v", fault)
		}
		w.want(0, "run")
	}
	w.want(0, "verify", "--deep")
	w.holds("v", "at the end")
}

// holds fails the test unless the newest backup of a volume has the content of the volume.
func (w *world) holds(volume string, when any) {
	w.tb.Helper()
	want, err := os.ReadFile(filepath.Join(w.volumes, volume, "file"))
	if err != nil {
		w.tb.Fatal(err)
	}
	got := w.finish(w.command("sh", "-c", `"$0" cat "$1" | tar -xO ./file`, w.binary, volume))
	if got.status != 0 || got.stdout != string(want) {
		w.tb.Errorf("%+v: the newest backup has %d bytes, not the content of the volume: %s", when, len(got.stdout), got.stderr)
	}
}
