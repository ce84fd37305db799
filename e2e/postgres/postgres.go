// Package postgres runs temporary PostgreSQL clusters for tests. Each cluster has its own directory and port.
//
// A cluster has a superuser "postgres" and a plain role "hub" that owns a database "hub". The tools under test connect
// as "hub". Tests inspect the data through DB. If the test runs as root, the server runs as the system user "postgres",
// because PostgreSQL refuses to run as root. Otherwise it runs as the user of the test.
//
// A cluster is a real server with real faults: Stop, Kill9, Freeze, Fill and, for a standby, Promote. Close removes it. If
// the process that started it dies, the kernel stops the server, and the next process that uses this package removes the
// directory.
package postgres

import (
	"bytes"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Config configures a cluster. The zero value is a server that listens only on a unix socket and trusts every client.
type Config struct {
	// TCP makes the server also listen on 127.0.0.1, with SCRAM-SHA-256 passwords.
	TCP bool
	// TLS makes the server require encrypted TCP connections, with a certificate of the cluster's own authority. It implies TCP.
	TLS bool
	// Peer makes the unix socket accept a role only for the system user of that name. root may use every role.
	Peer bool
	// Disk, if not 0, is the size in bytes of a tmpfs for the data, which Fill can fill. It needs root. 64 MiB are enough for a
	// few thousand rows.
	Disk int64
	// OnDisk keeps the cluster out of memory file systems, for time measurements.
	OnDisk bool
	// SlowSync makes each fdatasync, and therefore each commit, take that much longer, as on a disk without a cache. It needs strace.
	SlowSync time.Duration
	// Conf has lines for postgresql.conf. They override those of this package.
	Conf []string
}

// Cluster is one server with its data. Only one goroutine at a time may call its methods, except DB and the URLs.
type Cluster struct {
	// Dir is the directory of the cluster, with data/, socket/, tls/ and log.
	Dir string
	// Port is the port of TCP connections. The name of the socket contains it too.
	Port int
	// Password is the password of the roles hub and postgres.
	Password string

	config Config
	bin    string
	user   *syscall.Credential // nil means the user of this process
	lock   *os.File
	server *server // nil before the first start
	frozen []int   // the processes that Freeze stopped
	db     *sql.DB
}

// Run starts a cluster and closes it at the end of the test.
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

// New starts a cluster. The caller must call Close.
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

// prepare returns a cluster with its directories and port. It does not start a server.
func prepare(config Config) (_ *Cluster, err error) {
	bin, err := binDir()
	if err != nil {
		return nil, err
	}
	user, err := serverUser()
	if err != nil {
		return nil, err
	}
	sweepOnce.Do(sweep)
	c := &Cluster{config: config, bin: bin, user: user, Password: rand.Text()}
	if c.Dir, c.lock, err = ownedDir(config.OnDisk); err != nil {
		return nil, err
	}
	register(c)
	if err := c.makeDirs(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	if c.Port, err = freePort(); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) makeDirs() error {
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
		// Set the mode independently of the umask, because tools under test may run as another user and must reach the socket
		// and the certificates.
		if err := os.Chmod(path, 0o755); err != nil {
			return err
		}
	}
	return os.Chmod(c.data(), 0o700) // the server requires this mode
}

// init fills the data directory and starts the server for the first time.
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

// configure writes the configuration files of this cluster.
func (c *Cluster) configure() error {
	conf := []string{
		fmt.Sprintf("port = %d", c.Port),
		fmt.Sprintf("unix_socket_directories = '%s'", c.socket()),
		"listen_addresses = ''",
		"password_encryption = 'scram-sha-256'",
		// The faults of this package kill processes, not the kernel. The page cache survives them, so fsync would only cost time.
		"fsync = off",
		"shared_buffers = '16MB'",
		"max_connections = 40",
		"wal_level = replica",
		"max_wal_senders = 4",
		// Use files, because a killed server does not remove its shared memory.
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

func (c *Cluster) data() string   { return filepath.Join(c.Dir, "data") }
func (c *Cluster) socket() string { return filepath.Join(c.Dir, "socket") }

// own makes the server's user the owner of a path.
func (c *Cluster) own(path string) error {
	if c.user == nil {
		return nil
	}
	return os.Chown(path, int(c.user.Uid), int(c.user.Gid))
}

// command returns a command that runs one of PostgreSQL's programs as the server's user, without the caller's PG* variables.
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

// logTail returns the end of the server's log, for the message of a failed test.
func (c *Cluster) logTail() string {
	log, err := os.ReadFile(filepath.Join(c.Dir, "log"))
	if err != nil {
		return err.Error()
	}
	lines := bytes.SplitAfter(log, []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-40):], nil))
}
