package postgres

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Pooler is a PgBouncer that pools transactions in front of a cluster: each transaction may get another session, and each session
// serves many clients. The database hub is the cluster's.
type Pooler struct {
	Port int

	cluster *Cluster
	server  *server
}

// RunPooler starts a pooler and closes it at the end of the test.
func RunPooler(tb testing.TB, c *Cluster, conf ...string) *Pooler {
	tb.Helper()
	p, err := NewPooler(c, conf...)
	if err != nil {
		tb.Fatalf("start PgBouncer: %v", err)
	}
	tb.Cleanup(p.Close)
	return p
}

// NewPooler starts a pooler. conf has lines for its section [pgbouncer], which override those of this function. If the cluster
// listens on TCP, clients and pooler authenticate by SCRAM; else every client may be the role hub. The caller must call Close.
func NewPooler(c *Cluster, conf ...string) (*Pooler, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, fmt.Sprintf("pooler-%d", port))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	host, user, auth := c.socket(), " user=hub", []string{"auth_type = any"}
	if c.config.TCP {
		// The file holds the same secret as the server, not the password. So PgBouncer need not derive the secret from the
		// password, which takes thousands of hashes, at each login.
		rows, err := c.Query("SELECT rolpassword FROM pg_authid WHERE rolname = 'hub'")
		if err != nil {
			return nil, err
		}
		path := filepath.Join(dir, "userlist.txt")
		if err := os.WriteFile(path, fmt.Appendf(nil, "%q %q\n", "hub", rows[0][0]), 0o600); err != nil {
			return nil, err
		}
		if err := c.own(path); err != nil {
			return nil, err
		}
		host, user, auth = "127.0.0.1", "", []string{"auth_type = scram-sha-256", "auth_file = " + path}
	}
	lines := []string{"[databases]", fmt.Sprintf("hub = host=%s port=%d dbname=hub%s", host, c.Port, user), "[pgbouncer]",
		"listen_addr = 127.0.0.1", fmt.Sprintf("listen_port = %d", port), "unix_socket_dir =", "pool_mode = transaction"}
	lines = append(append(lines, auth...), conf...)
	ini := filepath.Join(dir, "pgbouncer.ini")
	if err := os.WriteFile(ini, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	// The soft limit is mostly 1024 descriptors, which is too low for many clients.
	cmd := exec.Command("sh", "-c", `ulimit -Sn "$(ulimit -Hn)"; exec pgbouncer "$1"`, "sh", ini)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user, Pdeathsig: syscall.SIGKILL}
	if err := startFromLastingThread(cmd); err != nil {
		return nil, err
	}
	p := &Pooler{Port: port, cluster: c, server: &server{cmd: cmd, done: make(chan struct{})}}
	go func() {
		defer close(p.server.done)
		_ = cmd.Wait() // Close kills it
	}()
	return p, p.awaitReady()
}

func (p *Pooler) address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(p.Port)) }

func (p *Pooler) awaitReady() error {
	for deadline := time.Now().Add(startTimeout); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.address())
		if err == nil {
			return conn.Close()
		}
		select {
		case <-p.server.done:
			log, _ := os.ReadFile(filepath.Join(p.cluster.Dir, fmt.Sprintf("pooler-%d", p.Port), "log"))
			return fmt.Errorf("pgbouncer ended with %s\n%s", p.server.cmd.ProcessState, log)
		default:
		}
		if time.Now().After(deadline) {
			p.Close()
			return errors.New("pgbouncer accepts no connection")
		}
	}
}

// URL returns the connection string of the role hub for the database hub, through the pooler.
func (p *Pooler) URL() string {
	if p.cluster.config.TCP {
		return "postgres://hub:" + p.cluster.Password + "@" + p.address() + "/hub"
	}
	return "postgres://hub@" + p.address() + "/hub"
}

// CPU returns the CPU time that the pooler has used.
func (p *Pooler) CPU() (time.Duration, error) {
	own, _, err := cpuOf(p.server.cmd.Process.Pid)
	return own, err
}

// Close kills the pooler.
func (p *Pooler) Close() {
	_ = p.server.cmd.Process.Kill()
	<-p.server.done
}

// CPU returns the CPU time that the server has used since it started: that of the postmaster, of its children, and of the children
// that have ended.
func (c *Cluster) CPU() (time.Duration, error) {
	postmaster := c.server.cmd.Process.Pid
	own, ended, err := cpuOf(postmaster)
	if err != nil {
		return 0, err
	}
	children, err := childrenOf(postmaster)
	if err != nil {
		return 0, err
	}
	total := own + ended
	for _, pid := range children {
		if own, ended, err := cpuOf(pid); err == nil { // a backend may have ended meanwhile
			total += own + ended
		}
	}
	return total, nil
}

// cpuOf reads /proc/PID/stat: the CPU time of a process, and of its children that have ended. The clock has 100 ticks a second on
// every architecture of Debian.
func cpuOf(pid int) (own, ended time.Duration, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the name of the program may contain spaces
	fields := strings.Fields(rest)
	if len(fields) < 15 {
		return 0, 0, fmt.Errorf("/proc/%d/stat: %q", pid, data)
	}
	var ticks [4]int64
	for i := range ticks {
		if ticks[i], err = strconv.ParseInt(fields[11+i], 10, 64); err != nil {
			return 0, 0, err
		}
	}
	const tick = 10 * time.Millisecond
	return time.Duration(ticks[0]+ticks[1]) * tick, time.Duration(ticks[2]+ticks[3]) * tick, nil
}
