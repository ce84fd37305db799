package readsync

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/await"
	"observability-hub/e2e/mongowire"
)

// pooler starts pgbouncer in front of the hub's PostgreSQL, and makes the tool connect to it.
func (h *hub) pooler(mode string) {
	h.Helper()
	dir := h.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			h.Fatal(err)
		}
	}
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.Fatal(err)
	}
	port := free.Addr().(*net.TCPAddr).Port
	free.Close()
	config := filepath.Join(dir, "pgbouncer.ini")
	content := fmt.Sprintf("[databases]\nhub = host=%s port=%d user=hub password=hunter2\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %d\nunix_socket_dir =\nauth_type = any\npool_mode = %s\ndefault_pool_size = 3\nserver_round_robin = 1\n",
		filepath.Dir(h.pg.Socket()), h.pg.Port, port, mode)
	if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
		h.Fatal(err)
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		h.Fatal(err)
	}
	uid, err := strconv.Atoi(nobody.Uid)
	if err != nil {
		h.Fatal(err)
	}
	cmd := exec.Command("pgbouncer", config)
	var log strings.Builder
	cmd.Stderr = &log
	// pgbouncer refuses to run as root.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(uid)}}
	if err := cmd.Start(); err != nil {
		h.Fatal(err)
	}
	h.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if h.Failed() {
			h.Log(log.String())
		}
	})
	await.Until(h, "pgbouncer answers", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	h.env = append(h.env, fmt.Sprintf("DATABASE_URL=postgres://hub@127.0.0.1:%d/hub?sslmode=disable", port))
}

// TestPooler syncs through pgbouncer, which may give each transaction another session of the server, and reuses sessions for other
// clients.
func TestPooler(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"session", "transaction"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			h := newHub(t, mongowire.Config{})
			h.pooler(mode)
			h.fill(1500)
			h.put(document(t, "odd time", bson.E{Key: "timestamp", Value: "Sun Jan 04 10:00:00 2026 UTC"}), document(t, "poison", bson.E{Key: "timestamp", Value: "04/01/2026"}))
			h.want(0, h.shell("readsync run --max-rejects 5; test $? = 11"))
			// A second run finds the rows and uses the staging table.
			for _, doc := range h.documents()[2:702] {
				h.put(reingested(t, doc))
			}
			if a := h.want(0, h.command("run")).account(t); a.Identical != 700 {
				t.Errorf("%+v; want 700 identical", a)
			}
			h.put(document(t, "late"))
			h.want(0, h.shell("readsync extract | readsync load | readsync mark"))
			if rows, aside := h.settled(mode); rows != 1502 || aside != 1 {
				t.Errorf("%d rows, %d dead letters", rows, aside)
			}
			h.want(0, h.command("verify"))
			if left := h.rows("SELECT count(*) FROM pg_class WHERE relname = 'readsync_staging'")[0][0]; left != "0" {
				t.Errorf("%s staging tables still exist in pooled sessions", left)
			}
		})
	}
	t.Run("statement", func(t *testing.T) {
		t.Parallel()
		h := newHub(t, mongowire.Config{})
		h.pooler("statement")
		h.fill(3)
		if got := finish(t, h.command("run")); got.status == 0 || h.statuses()["ingested"] != 3 {
			t.Errorf("status %d: %v", got.status, h.statuses())
		}
	})
}

// reingested returns a document with the status that it had before it was marked.
func reingested(tb testing.TB, doc bson.Raw) []byte {
	tb.Helper()
	var d bson.D
	if err := bson.Unmarshal(doc, &d); err != nil {
		tb.Fatal(err)
	}
	for i := range d {
		if d[i].Key == "status" {
			d[i].Value = "ingested"
		}
	}
	raw, err := bson.Marshal(d)
	if err != nil {
		tb.Fatal(err)
	}
	return raw
}
