package postgres

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// startTimeout limits the wait until a server accepts connections, including crash recovery.
const startTimeout = 60 * time.Second

// server is one postmaster process.
type server struct {
	cmd  *exec.Cmd
	done chan struct{} // closed when it has exited
}

// Start starts the stopped or crashed server and returns after it accepts connections. It does nothing if the server runs already.
func (c *Cluster) Start() error { return c.start() }

// StartAlone starts the server without TCP: only DB can reach it. So a test can read the data of a primary that was replaced.
func (c *Cluster) StartAlone() error { return c.start("-c", "listen_addresses=") }

func (c *Cluster) start(args ...string) error {
	if c.Running() {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(c.Dir, "log"), os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := c.command("postgres", append([]string{"-D", c.data()}, args...)...)
	if delay := c.config.SlowSync; delay > 0 {
		if err := slowSync(cmd, delay); err != nil {
			return err
		}
	}
	cmd.Stdout, cmd.Stderr = log, log
	// SIGQUIT is PostgreSQL's immediate shutdown. The server then ends with the test, even if the test is killed.
	cmd.SysProcAttr.Pdeathsig = syscall.SIGQUIT
	if err := startFromLastingThread(cmd); err != nil {
		return err
	}
	s := &server{cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		_ = cmd.Wait() // a stopped or killed server is not an error here
	}()
	c.server = s
	if err := c.awaitReady(); err != nil {
		return fmt.Errorf("%w\n%s", err, c.logTail())
	}
	return nil
}

// slowSync makes strace delay each fdatasync of a command. The command stays a child of this process. Other system calls are not
// delayed.
func slowSync(cmd *exec.Cmd, delay time.Duration) error {
	strace, err := exec.LookPath("strace")
	if err != nil {
		return fmt.Errorf("%w: install the package strace", err)
	}
	inject := fmt.Sprintf("inject=fdatasync:delay_exit=%d", delay.Microseconds())
	cmd.Args = append([]string{strace, "-D", "-f", "--seccomp-bpf", "-qq", "-e", "signal=none", "-e", "trace=fdatasync", "-e", inject, "-o", "/dev/null", "--", cmd.Path}, cmd.Args[1:]...)
	cmd.Path = strace
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

// Running reports whether the postmaster runs. It also detects a server that crashed by itself, for example on a full disk.
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

// Stop shuts the server down cleanly (fast shutdown) and closes open connections.
func (c *Cluster) Stop() error { return c.shutDown(syscall.SIGINT) }

// Crash is PostgreSQL's immediate shutdown: no checkpoint and a recovery at the next start. Clients still get an error message.
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

// Kill9 kills the postmaster and all its children with SIGKILL, like a power failure that the kernel survives.
func (c *Cluster) Kill9() error {
	if !c.Running() {
		return nil
	}
	postmaster := c.server.cmd.Process.Pid
	// Stop the postmaster first: it must not fork while its children are listed.
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
	c.frozen = nil
	for _, pid := range children {
		if err := awaitDeath(pid); err != nil {
			return err
		}
	}
	return c.removeRemains()
}

// removeRemains removes the System V shared memory of a killed server, which the kernel would keep until the next boot. It also removes
// postmaster.pid: another process may have the PID in it by the next start, and the server would then refuse to start.
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
	return removeIfExists(path)
}

// Freeze stops every process of the server with SIGSTOP until Thaw is called. The kernel accepts connections, but they get no answer.
func (c *Cluster) Freeze() error {
	if !c.Running() {
		return errors.New("the server is not running")
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
		_ = syscall.Kill(pid, syscall.SIGSTOP) // the backend of a client may have ended
	}
	return nil
}

// Thaw continues the processes that Freeze stopped.
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

// Close stops the server and removes its directory. Calling it twice is not an error.
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
		errs = append(errs, removeIfExists(c.lock.Name()), c.lock.Close())
		c.lock = nil
	}
	return errors.Join(errs...)
}
