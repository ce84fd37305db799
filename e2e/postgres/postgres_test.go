package postgres

import (
	"bufio"
	"database/sql"
	"errors"
	"io"
	"iter"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/await"

	"github.com/lib/pq"
)

// connect opens one connection to the address and returns the role of the session.
func connect(t *testing.T, address string) (string, error) {
	t.Helper()
	db, err := sql.Open("postgres", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var role string
	err = db.QueryRow("SELECT current_user").Scan(&role)
	return role, err
}

func mustExec(t *testing.T, c *Cluster, statements string) {
	t.Helper()
	if err := c.Exec(statements); err != nil {
		t.Fatal(err)
	}
}

func TestSocketWithTrust(t *testing.T) {
	c := Run(t, Config{})
	role, err := connect(t, c.URL()+"&sslmode=disable")
	if err != nil || role != "hub" {
		t.Errorf("over the socket: role %q, %v; want hub", role, err)
	}
	if _, err := connect(t, c.TCPURL()+"?sslmode=disable&connect_timeout=2"); err == nil {
		t.Error("a cluster without TCP accepted a TCP connection")
	}
	if _, err := os.Stat(c.Socket()); err != nil {
		t.Error(err)
	}
	// The role hub may create its own tables and nothing else.
	if _, err := c.PSQL("SET ROLE hub; CREATE TABLE t (n int); INSERT INTO t VALUES (1), (NULL)"); err != nil {
		t.Error(err)
	}
	rows, err := c.Query("SELECT n FROM t ORDER BY n")
	if err != nil || len(rows) != 2 || rows[0][0] != "1" || rows[1][0] != "NULL" {
		t.Errorf("Query() = %v, %v; want 1 and NULL", rows, err)
	}
}

func TestSocketWithPeer(t *testing.T) {
	c := Run(t, Config{Peer: true})
	if os.Geteuid() != 0 {
		t.Fatal("only root can test peer logins of two users: run the tests as root")
	}
	cmd := exec.Command(filepath.Join(c.bin, "psql"), "-XAt", "-h", c.socket(), "-p", strconv.Itoa(c.Port), "-U", "hub", "-d", "hub", "-c", "SELECT 1")
	cmd.SysProcAttr = c.command("true").SysProcAttr // as the user postgres, who is not hub
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "eer authentication failed") {
		t.Errorf("postgres as hub over a peer socket: %v, %s; want an error", err, out)
	}
	if role, err := connect(t, c.URL()+"&sslmode=disable"); err != nil || role != "hub" {
		t.Errorf("root as hub: role %q, %v; want hub", role, err)
	}
}

func TestPasswordOverTCP(t *testing.T) {
	c := Run(t, Config{TCP: true})
	if role, err := connect(t, c.TCPURL()+"?sslmode=disable"); err != nil || role != "hub" {
		t.Errorf("role %q, %v; want hub", role, err)
	}
	wrong := strings.Replace(c.TCPURL(), c.Password, "wrong", 1)
	_, err := connect(t, wrong+"?sslmode=disable")
	var refused *pq.Error
	if !errors.As(err, &refused) || refused.Code != "28P01" {
		t.Errorf("with a wrong password: %v; want invalid_password", err)
	}
	rows, err := c.Query("SELECT rolpassword LIKE 'SCRAM-SHA-256$%' FROM pg_authid WHERE rolname = 'hub'")
	if err != nil || rows[0][0] != "true" {
		t.Errorf("the password is stored as %v, %v; want SCRAM-SHA-256", rows, err)
	}
}

func TestTLS(t *testing.T) {
	c := Run(t, Config{TLS: true})
	for _, host := range []string{"127.0.0.1", "localhost"} {
		address := strings.Replace(c.TLSURL(), "127.0.0.1", host, 1)
		if role, err := connect(t, address); err != nil || role != "hub" {
			t.Errorf("%s: role %q, %v; want hub", host, role, err)
		}
	}
	if _, err := connect(t, c.TCPURL()+"?sslmode=disable"); err == nil {
		t.Error("the server accepted an unencrypted connection")
	}
	other := filepath.Join(t.TempDir(), "other.pem")
	if _, _, err := WriteAuthority(other); err != nil {
		t.Fatal(err)
	}
	wrong := strings.Replace(c.TLSURL(), url.QueryEscape(c.CACert()), url.QueryEscape(other), 1)
	if _, err := connect(t, wrong); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("with another authority: %v; want a certificate error", err)
	}
}

func TestCommittedRowsOutliveEveryStop(t *testing.T) {
	c := Run(t, Config{})
	mustExec(t, c, "CREATE TABLE t (n int)")
	stops := []struct {
		name string
		stop func() error
	}{{"Stop", c.Stop}, {"Crash", c.Crash}, {"Kill9", c.Kill9}}
	for i, s := range stops {
		mustExec(t, c, "INSERT INTO t VALUES (1)")
		if err := s.stop(); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
		if c.Running() {
			t.Errorf("Running() after %s", s.name)
		}
		if _, err := connect(t, c.URL()+"&sslmode=disable"); err == nil {
			t.Errorf("the server accepted a connection after %s", s.name)
		}
		if err := c.Start(); err != nil {
			t.Fatalf("start after %s: %v", s.name, err)
		}
		if rows, err := c.Query("SELECT count(*) FROM t"); err != nil || rows[0][0] != string(rune('1'+i)) {
			t.Errorf("after %s: %v rows, %v; want %d", s.name, rows, err, i+1)
		}
	}
}

func TestFreeze(t *testing.T) {
	c := Run(t, Config{})
	if err := c.Freeze(); err != nil {
		t.Fatal(err)
	}
	answered := make(chan error, 1)
	go func() {
		_, err := connect(t, c.URL()+"&sslmode=disable")
		answered <- err
	}()
	select {
	case err := <-answered:
		t.Errorf("a frozen server answered: %v", err)
	case <-time.After(200 * time.Millisecond): // that there is no answer can only be tested by waiting
	}
	if err := c.Thaw(); err != nil {
		t.Fatal(err)
	}
	if err := <-answered; err != nil {
		t.Errorf("after Thaw: %v", err)
	}
}

func TestFullDisk(t *testing.T) {
	c := Run(t, Config{Disk: 64 << 20})
	mustExec(t, c, "CREATE TABLE t (n int, filler text); INSERT INTO t VALUES (0, 'before')")
	if err := c.Fill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Exec("INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 10000) AS n"); err == nil {
		t.Error("10 MB were written to a full disk")
	}
	if err := c.Empty(); err != nil {
		t.Fatal(err)
	}
	if rows, err := c.Query("SELECT count(*) FROM t"); err != nil || rows[0][0] != "1" {
		t.Errorf("after Empty(): %v rows, %v; want the row from before", rows, err)
	}
	mustExec(t, c, "INSERT INTO t SELECT n, repeat('x', 1000) FROM generate_series(1, 10000) AS n")
}

func TestStandby(t *testing.T) {
	primary := Run(t, Config{TCP: true})
	mustExec(t, primary, "CREATE TABLE t (n int); GRANT ALL ON t TO hub")
	standby := RunStandby(t, primary)
	mustExec(t, primary, "INSERT INTO t VALUES (1)")
	if err := standby.AwaitReplay(primary); err != nil {
		t.Fatal(err)
	}
	if rows, err := standby.Query("SELECT count(*) FROM t"); err != nil || rows[0][0] != "1" {
		t.Errorf("the standby shows %v rows, %v; want 1", rows, err)
	}
	var refused *pq.Error
	if err := standby.Exec("INSERT INTO t VALUES (2)"); !errors.As(err, &refused) || refused.Code != "25006" {
		t.Errorf("a write to the standby: %v; want read_only_sql_transaction", err)
	}
	if err := primary.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := standby.Promote(); err != nil {
		t.Fatal(err)
	}
	mustExec(t, standby, "INSERT INTO t VALUES (2)")
	if _, err := connect(t, standby.TCPURL()+"?sslmode=disable"); err != nil {
		t.Errorf("over TCP after the promotion: %v", err)
	}
}

func TestCloseLeavesNothing(t *testing.T) {
	c, err := New(Config{Disk: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	postmaster := c.server.cmd.Process.Pid
	if !ownsSharedMemory(t, postmaster) {
		t.Error("the running server has no shared memory: the test below tests nothing")
	}
	if err := c.Kill9(); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(c.Dir + "*"); left != nil {
		t.Errorf("not removed: %v", left)
	}
	if ownsSharedMemory(t, postmaster) {
		t.Error("the killed server's shared memory still exists")
	}
	if err := c.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

// ownsSharedMemory reports whether the process has created System V shared memory. The columns are key shmid perms size cpid ….
func ownsSharedMemory(t *testing.T, pid int) bool {
	t.Helper()
	list, err := os.ReadFile("/proc/sysvipc/shm")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(list)) {
		if fields := strings.Fields(line); len(fields) > 4 && fields[4] == strconv.Itoa(pid) {
			return true
		}
	}
	return false
}

// TestDeathOfTheOwner runs itself as a process that starts a cluster and is killed. The server must end, and the next
// sweep must remove its directory.
func TestDeathOfTheOwner(t *testing.T) {
	const asOwner = "HUB_POSTGRES_TEST_OWNER"
	if os.Getenv(asOwner) != "" {
		c, err := New(Config{Disk: 64 << 20})
		if err != nil {
			t.Fatal(err)
		}
		_, _ = os.Stdout.WriteString("\n" + c.Dir + "\n")
		select {}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	owner := exec.Command(self, "-test.run=^TestDeathOfTheOwner$")
	owner.Env = append(os.Environ(), asOwner+"=1")
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	var dir string
	for line := range lines(out) {
		if strings.Contains(line, dirPrefix) {
			dir = line
			break
		}
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // it was killed
	if dir == "" {
		t.Fatal("the process started no cluster")
	}
	pidFile := filepath.Join(dir, "data", "postmaster.pid")
	await.Until(t, "the abandoned server's end", func() bool {
		_, err := os.Stat(pidFile)
		return os.IsNotExist(err)
	})
	sweep()
	if left, _ := filepath.Glob(dir + "*"); left != nil {
		t.Errorf("not removed: %v", left)
	}
}

func lines(r io.Reader) iter.Seq[string] {
	return func(yield func(string) bool) {
		for s := bufio.NewScanner(r); s.Scan(); {
			if !yield(s.Text()) {
				return
			}
		}
	}
}

func TestSlowSync(t *testing.T) {
	const delay = 50 * time.Millisecond
	c := Run(t, Config{SlowSync: delay, Conf: []string{"fsync = on", "wal_sync_method = fdatasync"}})
	mustExec(t, c, "CREATE TABLE t (n int)")
	began := time.Now()
	mustExec(t, c, "INSERT INTO t VALUES (1)")
	if took := time.Since(began); took < delay {
		t.Errorf("a commit took %s, want at least %s", took, delay)
	}
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
}
