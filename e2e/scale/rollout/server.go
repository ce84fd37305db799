package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// server serves one bare repository. Each connection is a process of its own, as inetd would start it, so that the CPU time of
// all programs of a connection can be counted.
type server struct {
	dir, bare, work string
	listener        net.Listener
	serving         sync.WaitGroup

	mu       sync.Mutex
	program  func() *exec.Cmd // serves the connection on its stdin and stdout
	cpu      time.Duration    // of all connections that have ended
	failures error
}

func newServer(dir string) (*server, error) {
	s := &server{dir: dir, bare: filepath.Join(dir, "hub.git"), work: filepath.Join(dir, "work")}
	s.program = s.daemon
	for _, args := range [][]string{{"init", "-q", "--bare", "-b", "main", s.bare}, {"clone", "-q", s.bare, s.work}} {
		if out, err := exec.Command("git", args...).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
		}
	}
	var err error
	if s.listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, err
	}
	go s.accept()
	return s, nil
}

func (s *server) url() string { return "git://" + s.listener.Addr().String() + "/hub.git" }

// daemon is git's own server, for the protocol git.
func (s *server) daemon() *exec.Cmd {
	return exec.Command("git", "daemon", "--inetd", "--export-all", "--enable=receive-pack", "--base-path="+s.dir)
}

// accept serves connections until the listener is closed.
func (s *server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return
		}
		s.serving.Go(func() { s.serve(c.(*net.TCPConn)) })
	}
}

func (s *server) serve(c *net.TCPConn) {
	socket, err := c.File()
	c.Close()
	if err == nil {
		defer socket.Close()
		s.mu.Lock()
		cmd := s.program()
		s.mu.Unlock()
		cmd.Stdin, cmd.Stdout = socket, socket
		err = cmd.Run()
		if cmd.ProcessState != nil { // the time of a process is that of its children, too
			s.mu.Lock()
			s.cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			s.mu.Unlock()
		}
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited { // a client may close its connection at any time
		s.mu.Lock()
		s.failures = errors.Join(s.failures, err)
		s.mu.Unlock()
	}
}

// used returns the CPU time of all connections so far. No client may be connected.
func (s *server) used() (time.Duration, error) {
	s.serving.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cpu, s.failures
}

// git runs git on the server's repository.
func (s *server) git(args ...string) (string, error) { return git(s.bare, args...) }

func git(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=test", "-c", "user.email=test@example.org"}, args...)...)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null")
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), err
}

// commit pushes a commit with changed files, and returns it.
func (s *server) commit(files map[string]string) (string, error) {
	for name, content := range files {
		path := filepath.Join(s.work, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o755)); err != nil {
			return "", err
		}
	}
	for _, args := range [][]string{{"add", "-A"}, {"commit", "-q", "--allow-empty", "-m", "change"}, {"push", "-q", "origin", "HEAD:main"}} {
		if _, err := git(s.work, args...); err != nil {
			return "", err
		}
	}
	return git(s.work, "rev-parse", "HEAD")
}

// reset sets the branch to a commit, and deletes all verdicts.
func (s *server) reset(commit string) error {
	if err := s.dropRefs("refs/hosts"); err != nil {
		return err
	}
	_, err := s.git("update-ref", "refs/heads/main", commit)
	return err
}
