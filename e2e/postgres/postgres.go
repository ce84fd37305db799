// Package postgres runs throw-away PostgreSQL clusters for tests, each on a folder and a port of its own.
//
// A cluster has a superuser "postgres" and a plain role "hub" that owns a database "hub": the tools under test
// connect as "hub", the test looks inside through DB. As root the server runs as the system's user "postgres",
// because it refuses to run as root; as anybody else it runs as that user.
//
// A cluster is a real server with real faults: Stop, Kill9, Freeze, Fill and, for a standby, Promote. It is gone after Close,
// and also when the process that started it dies: the kernel then stops the server, and the next process that
// uses this package removes the folder.
package postgres

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/lib/pq" // registers the driver that DB uses
)

// startTimeout bounds the wait for a server to accept connections, crash recovery included.
const startTimeout = 60 * time.Second

// Config says how a cluster is set up. The zero value is a server on a unix socket alone that trusts who connects.
type Config struct {
	// TCP makes the server listen on 127.0.0.1 too, with SCRAM-SHA-256 passwords.
	TCP bool
	// TLS makes the TCP connections be encrypted, with a certificate of the cluster's own authority, and refuses others.
	TLS bool
	// Peer lets the unix socket accept a role only for the system user of that name; root may be anybody.
	Peer bool
	// Disk, if not 0, is the size in bytes of a tmpfs that the data lies on, so that it can be filled. It needs root.
	// 64 MiB leave room for a few thousand rows.
	Disk int64
	// OnDisk keeps the cluster out of memory file systems, for measurements of time.
	OnDisk bool
	// Conf holds lines for postgresql.conf; they win over those of this package.
	Conf []string
}

// Cluster is one server with its data. Its methods are for one goroutine at a time, except DB and the URLs.
type Cluster struct {
	// Dir holds everything: data/, socket/, tls/ and log.
	Dir string
	// Port is that of TCP connections and part of the socket's name.
	Port int
	// Password is that of the roles hub and postgres.
	Password string

	config Config
	bin    string
	user   *syscall.Credential // nil: as this process
	lock   *os.File
	server *server // nil before the first start
	frozen []int   // the processes that Freeze stopped
	db     *sql.DB
}

// server is one life of the postmaster.
type server struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has exited
}

// Run starts a cluster that lives as long as the test.
func Run(tb testing.TB, config Config) *Cluster {
	tb.Helper()
	c, err := New(config)
	if err != nil {
		tb.Fatalf("start PostgreSQL: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("PostgreSQL's log:\n%s", c.logTail())
		}
		if err := c.Close(); err != nil {
			tb.Errorf("remove PostgreSQL: %v", err)
		}
	})
	return c
}

// New starts a cluster; the caller owes it a Close.
func New(config Config) (*Cluster, error) {
	c, err := prepare(config)
	if err != nil {
		return nil, err
	}
	if err := c.init(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// prepare makes the folders that a cluster and a standby have in common.
func prepare(config Config) (_ *Cluster, err error) {
	bin, err := binFolder()
	if err != nil {
		return nil, err
	}
	user, err := serverUser()
	if err != nil {
		return nil, err
	}
	sweepOnce.Do(sweep)
	c := &Cluster{config: config, bin: bin, user: user, Password: rand.Text()}
	if c.Dir, c.lock, err = ownedFolder(config.OnDisk); err != nil {
		return nil, err
	}
	register(c)
	if err := c.makeFolders(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if c.Port, err = freePort(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) makeFolders() error {
	for _, path := range []string{c.data(), c.socket(), filepath.Join(c.Dir, "tls")} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	}
	if c.config.Disk != 0 {
		if err := mountDisk(c.data(), c.config.Disk); err != nil {
			return err
		}
	}
	for _, path := range []string{c.Dir, c.data(), c.socket(), filepath.Join(c.Dir, "tls")} {
		if err := c.own(path); err != nil {
			return err
		}
		// Whatever the umask: the tools under test may run as yet another user and have to reach the socket and the certificates.
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(c.data(), 0o700) // the server insists
}

// init fills the data folder and starts the server for the first time.
func (c *Cluster) init() error {
	if err := c.copyTemplate(); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	return c.Exec(fmt.Sprintf("ALTER ROLE hub PASSWORD '%s'; ALTER ROLE postgres PASSWORD '%s'", c.Password, c.Password))
}

// configure writes the files that make this cluster differ from the template.
func (c *Cluster) configure() error {
	conf := []string{
		fmt.Sprintf("port = %d", c.Port),
		fmt.Sprintf("unix_socket_directories = '%s'", c.socket()),
		"listen_addresses = ''",
		"password_encryption = 'scram-sha-256'",
		// The faults here kill processes, not the kernel: the page cache survives them, so that waiting for a disk would only cost time.
		"fsync = off",
		"shared_buffers = '16MB'",
		"max_connections = 40",
		"wal_level = replica",
		"max_wal_senders = 4",
		// Files, because a killed server leaves its shared memory behind.
		"dynamic_shared_memory_type = mmap",
		"autovacuum = off",
		"log_line_prefix = '%m [%p] %q%u@%d '",
		"timezone = 'UTC'",
	}
	method := "trust"
	if c.config.Peer {
		method = "peer map=hub"
	}
	hba := []string{"local all all " + method, "local replication all " + method}
	ident := []string{`hub /^(.*)$ \1`, "hub root postgres", "hub root hub"}
	if c.config.TCP || c.config.TLS {
		conf = append(conf, "listen_addresses = '127.0.0.1'")
		kind := "host"
		if c.config.TLS {
			kind = "hostssl"
			files, err := c.writeCertificates()
			if err != nil {
				return err
			}
			conf = append(conf, "ssl = on", "ssl_cert_file = '"+files.cert+"'", "ssl_key_file = '"+files.key+"'")
		}
		hba = append(hba, kind+" all all 127.0.0.1/32 scram-sha-256")
	}
	if c.config.Disk != 0 {
		conf = append(conf, "max_wal_size = '16MB'", "min_wal_size = '4MB'")
	}
	conf = append(conf, c.config.Conf...)
	for name, lines := range map[string][]string{"postgresql.conf": conf, "pg_hba.conf": hba, "pg_ident.conf": ident} {
		path := filepath.Join(c.data(), name)
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			return err
		}
		if err := c.own(path); err != nil {
			return err
		}
	}
	return nil
}

// Start starts the stopped or crashed server and returns once it accepts connections. It is no error if it runs already.
func (c *Cluster) Start() error {
	if c.Running() {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(c.Dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.command("postgres", "-D", c.data())
	cmd.Stdout, cmd.Stderr = log, log
	// SIGQUIT is PostgreSQL's immediate shutdown: the server does not outlive the test, however that ends.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := startFromLastingThread(cmd); err != nil {
		return err
	}
	s := &server{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = cmd.Wait() // a server that was told to stop or was killed is not an error of Wait's caller
	}()
	c.server = s
	if err := c.awaitReady(); err != nil {
		return fmt.Errorf("%w\n%s", err, c.logTail())
	}
	return nil
}

func (c *Cluster) awaitReady() error {
	deadline := time.After(startTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.DB().Ping()
		if err == nil {
			return nil
		}
		select {
		case <-c.server.done:
			return fmt.Errorf("postgres ended with %s", c.server.cmd.ProcessState)
		case <-deadline:
			return fmt.Errorf("postgres accepts no connection after %s: %w", startTimeout, err)
		case <-tick.C:
		}
	}
}

// Running tells whether the postmaster lives. One that crashes by itself, on a full disk for example, is found out here.
func (c *Cluster) Running() bool {
	if c.server == nil {
		return false
	}
	select {
	case <-c.server.done:
		return false
	default:
		return true
	}
}

// Stop shuts the server down in order, ending the connections that are open.
func (c *Cluster) Stop() error { return c.shutDown(syscall.SIGINT) }

// Crash is PostgreSQL's immediate shutdown: no checkpoint, recovery at the next start, but an orderly goodbye to the clients.
func (c *Cluster) Crash() error { return c.shutDown(syscall.SIGQUIT) }

func (c *Cluster) shutDown(signal syscall.Signal) error {
	if !c.Running() {
		return nil
	}
	if err := c.server.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-c.server.done:
		return nil
	case <-time.After(startTimeout):
		return fmt.Errorf("postgres still runs %s after %s\n%s", startTimeout, signal, c.logTail())
	}
}

// Kill9 kills the postmaster and all its children with SIGKILL, like a power cut that the kernel survives.
func (c *Cluster) Kill9() error {
	if !c.Running() {
		return nil
	}
	postmaster := c.server.cmd.Process.Pid
	// Stopped, it forks no further child while its children are being counted.
	if err := c.server.cmd.Process.Signal(syscall.SIGSTOP); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	children, err := childrenOf(postmaster)
	if err != nil {
		return err
	}
	_ = c.server.cmd.Process.Kill()
	for _, pid := range children {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	<-c.server.done
	for _, pid := range children {
		if err := awaitDeath(pid); err != nil {
			return err
		}
	}
	return c.removeRemains()
}

// removeRemains undoes what a killed server leaves outside of its data: its System V shared memory, a few bytes that the kernel would
// keep until the next boot. The process number in postmaster.pid may be another's by the time of the restart, which the
// server would then refuse, so the file goes too.
func (c *Cluster) removeRemains() error {
	path := filepath.Join(c.data(), "postmaster.pid")
	content, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	const shmemLine, ipcRemove = 6, 0 // src/include/utils/pidfile.h counts from 1; IPC_RMID of shmctl(2)
	lines := strings.Split(string(content), "\n")
	if len(lines) > shmemLine {
		var key, id uintptr
		if _, err := fmt.Sscan(lines[shmemLine], &key, &id); err == nil {
			if _, _, errno := syscall.Syscall(syscall.SYS_SHMCTL, id, ipcRemove, 0); errno != 0 && errno != syscall.EINVAL {
				return fmt.Errorf("remove shared memory %d: %w", id, errno)
			}
		}
	}
	return removeIfThere(path)
}

// Freeze stops every process of the server without ending it, until Thaw: the kernel accepts connections, and nobody answers.
func (c *Cluster) Freeze() error {
	if !c.Running() {
		return errors.New("the server does not run")
	}
	postmaster := c.server.cmd.Process.Pid
	c.frozen = append(c.frozen, postmaster)
	if err := syscall.Kill(postmaster, syscall.SIGSTOP); err != nil {
		return err
	}
	children, err := childrenOf(postmaster)
	if err != nil {
		return err
	}
	for _, pid := range children {
		c.frozen = append(c.frozen, pid)
		_ = syscall.Kill(pid, syscall.SIGSTOP) // a client's process may have ended by now
	}
	return nil
}

// Thaw undoes Freeze.
func (c *Cluster) Thaw() error {
	pids := c.frozen
	c.frozen = nil
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil && !errors.Is(err, syscall.ESRCH) {
			return err
		}
	}
	return nil
}

// Close stops the server and removes everything. Closing twice is no error.
func (c *Cluster) Close() error {
	unregister(c)
	if c.db != nil {
		_ = c.db.Close()
	}
	errs := []error{c.Thaw(), c.Crash()}
	if c.config.Disk != 0 {
		errs = append(errs, unmountDisk(c.data()))
	}
	errs = append(errs, os.RemoveAll(c.Dir))
	if c.lock != nil {
		errs = append(errs, removeIfThere(c.lock.Name()), c.lock.Close())
		c.lock = nil
	}
	return errors.Join(errs...)
}

// DB is a pool of superuser connections over the unix socket to the database hub. It outlives restarts of the server.
func (c *Cluster) DB() *sql.DB {
	if c.db == nil {
		db, err := sql.Open("postgres", c.SocketURL("postgres", "hub")+"&sslmode=disable&connect_timeout=5")
		if err != nil {
			panic(err) // the address is of our own making
		}
		// A test's own connection must not stand in the way of what it does to the server.
		db.SetMaxIdleConns(1)
		c.db = db
	}
	return c.db
}

// Exec runs statements as the superuser.
func (c *Cluster) Exec(statements string) error {
	_, err := c.DB().Exec(statements)
	return err
}

// Query runs one query as the superuser and gives the rows as text; NULL is "NULL".
func (c *Cluster) Query(query string, args ...any) ([][]string, error) {
	rows, err := c.DB().Query(query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	var all [][]string
	for rows.Next() {
		values := make([]sql.NullString, len(columns))
		targets := make([]any, len(columns))
		for i := range values {
			targets[i] = &values[i]
		}
		if err := rows.Scan(targets...); err != nil {
			return nil, err
		}
		row := make([]string, len(columns))
		for i, v := range values {
			row[i] = "NULL"
			if v.Valid {
				row[i] = v.String
			}
		}
		all = append(all, row)
	}
	return all, rows.Err()
}

// URL is what a tool under test is given for the unix socket: role hub, database hub, no TLS mode said.
func (c *Cluster) URL() string { return c.SocketURL("hub", "hub") }

// SocketURL is the same for another role and database.
func (c *Cluster) SocketURL(role, database string) string {
	q := url.Values{"host": {c.socket()}, "port": {strconv.Itoa(c.Port)}}
	return "postgres://" + role + "@/" + database + "?" + q.Encode()
}

// TCPURL is for 127.0.0.1 with role hub and its password, no TLS mode said.
func (c *Cluster) TCPURL() string {
	return fmt.Sprintf("postgres://hub:%s@%s/hub", c.Password, c.Address())
}

// TLSURL is TCPURL with sslmode=verify-full and the cluster's authority.
func (c *Cluster) TLSURL() string {
	return c.TCPURL() + "?" + url.Values{"sslmode": {"verify-full"}, "sslrootcert": {c.CACert()}}.Encode()
}

// Address is host:port of TCP connections.
func (c *Cluster) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port)) }

// Socket is the path of the unix socket.
func (c *Cluster) Socket() string {
	return filepath.Join(c.socket(), fmt.Sprintf(".s.PGSQL.%d", c.Port))
}

// CACert is the path of the certificate that verifies the server's.
func (c *Cluster) CACert() string { return filepath.Join(c.Dir, "tls", "ca.pem") }

// PSQL runs psql as the superuser with the input on its stdin and returns its output.
func (c *Cluster) PSQL(input string, args ...string) (string, error) {
	cmd := c.command("psql", append([]string{"-X", "-v", "ON_ERROR_STOP=1", "-h", c.socket(), "-p", strconv.Itoa(c.Port), "-U", "postgres", "-d", "hub"}, args...)...)
	cmd.Stdin = strings.NewReader(input)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("psql: %w\n%s", err, out)
	}
	return string(out), nil
}

func (c *Cluster) data() string   { return filepath.Join(c.Dir, "data") }
func (c *Cluster) socket() string { return filepath.Join(c.Dir, "socket") }

// own gives a path to the server's user.
func (c *Cluster) own(path string) error {
	if c.user == nil {
		return nil
	}
	return os.Chown(path, int(c.user.Uid), int(c.user.Gid))
}

// command is one of PostgreSQL's programs, run as the server's user and without the caller's PG* variables.
func (c *Cluster) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.bin, program), args...)
	cmd.Dir = c.Dir
	cmd.Env = []string{"PATH=" + c.bin + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + c.Dir}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.user}
	return cmd
}

func (c *Cluster) run(program string, args ...string) error {
	if out, err := c.command(program, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, out)
	}
	return nil
}

// logTail is the end of the server's log, for the message of a failed test.
func (c *Cluster) logTail() string {
	log, err := os.ReadFile(filepath.Join(c.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(log, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], nil))
}

// freePort finds a TCP port below the kernel's range for outgoing connections: those could otherwise take it while the server is stopped.
func freePort() (int, error) {
	for range 1000 {
		var b [2]byte
		_, _ = rand.Read(b[:]) // never fails
		port := 20000 + (int(b[0])<<8|int(b[1]))%12000
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			return port, l.Close()
		}
	}
	return 0, errors.New("no free TCP port between 20000 and 32000")
}

// childrenOf lists the processes whose parent is pid.
func childrenOf(pid int) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var children []int
	for _, e := range entries {
		child, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if _, parent, ok := processState(child); ok && parent == pid {
			children = append(children, child)
		}
	}
	return children, nil
}

// processState gives the state letter and parent of a process, from proc(5)'s stat; the command in it may hold anything.
func processState(pid int) (state string, parent int, ok bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, false
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return "", 0, false
	}
	parent, err = strconv.Atoi(fields[1])
	return fields[0], parent, err == nil
}

// awaitDeath waits for a process that is not our child and so cannot be waited for. A zombie holds nothing any more.
func awaitDeath(pid int) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if state, _, ok := processState(pid); !ok || state == "Z" || state == "X" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("process %d still lives %s after SIGKILL", pid, startTimeout)
		case <-tick.C:
		}
	}
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// lasting runs functions on a thread that lives as long as the process: the kernel sends Pdeathsig when the *thread* that
// started a child ends (prctl(2)), and Go ends threads as it sees fit.
var lasting = sync.OnceValue(func() chan<- func() {
	work := make(chan func())
	go func() {
		runtime.LockOSThread()
		for f := range work {
			f()
		}
	}()
	return work
})

func startFromLastingThread(cmd *exec.Cmd) error {
	result := make(chan error, 1)
	lasting() <- func() { result <- cmd.Start() }
	return <-result
}
