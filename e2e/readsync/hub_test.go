// Package readsync tests the built readsync with package mongowire as MongoDB and with a real PostgreSQL.
package readsync

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

func TestMain(m *testing.M) {
	os.Exit(workspace.Run(m))
}

// Exit statuses that the tests expect: those of sysexits(3), and those that the toolkit adds.
const (
	exitPartial     = 11
	exitDataErr     = 65
	exitUnavailable = 69
	exitTryLater    = 75
	exitConfig      = 78
	killed          = 128 + int(syscall.SIGKILL)
)

const database, collection = "hub", "readings"

// hub has the two databases of a host, and the tool.
type hub struct {
	testing.TB
	mongo *mongowire.Server
	pg    *postgres.Cluster
	path  string // path of the binary
	state string
	env   []string // additional environment of the tool
}

// newHub starts both databases.
func newHub(tb testing.TB, config mongowire.Config) *hub {
	tb.Helper()
	path, err := workspace.Binary("readsync")
	if err != nil {
		tb.Fatal(err)
	}
	return &hub{TB: tb, mongo: mongowire.Run(tb, config), pg: postgres.Run(tb, postgres.Config{}), path: path, state: filepath.Join(tb.TempDir(), "state")}
}

// environment returns the complete environment of a run of the tool.
func (h *hub) environment() []string {
	return append([]string{
		"PATH=" + filepath.Dir(h.path) + ":/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=" + h.TempDir(),
		"READSYNC_STATE_DIR=" + h.state,
		"MONGO_URI=" + h.mongo.URI(),
		"MONGO_DB_NAME=" + database,
		"MONGO_COLLECTION=" + collection,
		"DATABASE_URL=" + h.pg.URL(),
	}, h.env...)
}

// command prepares one run of the tool without starting it.
func (h *hub) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.path, args...)
	cmd.Env = h.environment()
	return cmd
}

// shell prepares a pipe. The pipe fails if any stage fails.
func (h *hub) shell(script string) *exec.Cmd {
	cmd := exec.Command("bash", "-c", "set -o pipefail; "+script)
	cmd.Env = h.environment()
	return cmd
}

// outcome is the result of a run.
type outcome struct {
	status         int // 128 + n if signal n ended the run, as in a shell
	stdout, stderr string
}

func finish(tb testing.TB, cmd *exec.Cmd) outcome {
	tb.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exited := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exited) {
		tb.Fatal(err)
	}
	return outcome{exitStatus(cmd.ProcessState), stdout.String(), stderr.String()}
}

func exitStatus(state *os.ProcessState) int {
	if ws, ok := state.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return state.ExitCode()
}

// want runs a command and fails the test if the exit status differs from status.
func (h *hub) want(status int, cmd *exec.Cmd) outcome {
	h.Helper()
	got := finish(h, cmd)
	if got.status != status {
		h.Fatalf("%s: exit status %d; want %d\nstdout: %s\nstderr: %s", strings.Join(cmd.Args, " "), got.status, status, clip(got.stdout), clip(got.stderr))
	}
	return got
}

func clip(s string) string {
	if len(s) > 3000 {
		return s[:3000] + "…"
	}
	return s
}

// put stores documents in MongoDB.
func (h *hub) put(documents ...[]byte) {
	h.Helper()
	if err := h.mongo.Put(database, collection, documents...); err != nil {
		h.Fatal(err)
	}
}

// documents returns all documents in MongoDB.
func (h *hub) documents() []bson.Raw {
	var all []bson.Raw
	for _, raw := range h.mongo.Documents(database, collection) {
		all = append(all, raw)
	}
	return all
}

// statuses returns the number of documents of each status.
func (h *hub) statuses() map[string]int {
	counts := map[string]int{}
	for _, doc := range h.documents() {
		counts[doc.Lookup("status").StringValue()]++
	}
	return counts
}

// rows runs a query and fails the test if the query fails.
func (h *hub) rows(query string) [][]string {
	h.Helper()
	rows, err := h.pg.Query(query)
	if err != nil {
		h.Fatalf("%s: %v", query, err)
	}
	return rows
}

// count returns the number of rows.
func (h *hub) count() int {
	h.Helper()
	n, err := strconv.Atoi(h.rows("SELECT count(*) FROM reading_analytics")[0][0])
	if err != nil {
		h.Fatal(err)
	}
	return n
}

// account is the last record of a run.
type account struct {
	Msg                                            string
	Read, Inserted, Identical, Differing, Rejected int
	Marked, Unmarked, Filtered, Bad                int
}

// account decodes the last record of stdout. A stage's stream may have a trailer after it.
func (o outcome) account(tb testing.TB) (a account) {
	tb.Helper()
	for line := range strings.Lines(o.stdout) {
		if strings.HasPrefix(line, `{"_eof"`) {
			continue
		}
		a = account{}
		if err := json.Unmarshal([]byte(line), &a); err != nil {
			tb.Fatalf("%v: %s", err, clip(line))
		}
	}
	if sum := a.Inserted + a.Identical + a.Differing + a.Rejected; a.Msg == "synced" && a.Read != sum {
		tb.Errorf("the account does not balance: %+v", a)
	}
	return a
}

// document returns a document that every hub accepts, with the given fields changed or added.
func document(tb testing.TB, id any, fields ...bson.E) []byte {
	tb.Helper()
	d := bson.D{{Key: "_id", Value: id}, {Key: "status", Value: "ingested"}}
	given := map[string]bool{}
	for _, f := range fields {
		given[f.Key] = true
	}
	for _, f := range (bson.D{
		{Key: "timestamp", Value: bson.NewDateTimeFromTime(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC))},
		{Key: "source", Value: "sensor"},
		{Key: "event_type", Value: "reading"},
		{Key: "payload", Value: bson.D{{Key: "value", Value: 21.5}, {Key: "unit", Value: "°C"}}},
		{Key: "meta", Value: bson.D{{Key: "v", Value: int32(1)}}},
	}) {
		if !given[f.Key] {
			d = append(d, f)
		}
	}
	raw, err := bson.Marshal(append(d, fields...))
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}

// objectID returns the n-th id of a test's documents.
func objectID(n int) (id bson.ObjectID) {
	copy(id[:], fmt.Sprintf("%012d", n))
	return id
}
