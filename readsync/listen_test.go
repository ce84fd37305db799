package main

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// unreachable is a configuration whose databases are not there.
func unreachable(cmd *exec.Cmd) {
	cmd.Env = append(cmd.Env, "MONGO_URI=mongodb://127.0.0.1:1", "MONGO_DB_NAME=hub", "MONGO_COLLECTION=readings",
		"DATABASE_URL=postgres://hub:hunter2@127.0.0.1:1/hub")
}

// passed gives the tool a descriptor as systemd does. LISTEN_PID is the shell's own number, which exec keeps.
func passed(t *testing.T, f *os.File, pid string) func(*exec.Cmd) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		unreachable(cmd)
		cmd.Path = "/bin/sh"
		cmd.Args = append([]string{"sh", "-c", "LISTEN_PID=" + pid + ` LISTEN_FDS=1 LISTEN_FDNAMES=x exec "$0" "$@"`, self}, cmd.Args[1:]...)
		cmd.ExtraFiles = []*os.File{f}
	}
}

func TestServeSocketActivation(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for range 2 { // the second one takes over the same socket
		p := startTool(t, passed(t, file, "$$"), "serve", "--idle", "200ms")
		a := post(t, "http://"+l.Addr().String()+syncPath)
		if a.status != 503 || strings.Contains(a.body, "hunter2") {
			t.Errorf("status %d, %s", a.status, a.body)
		}
		if status := p.wait(); status != 0 || !strings.Contains(p.stdout(), `"addresses":["`+l.Addr().String()+`"]`) {
			t.Errorf("it ended with %d\n%s%s", status, p.stdout(), p.stderr())
		}
	}
}

func TestServeUnixSocketActivation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	file, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := startTool(t, passed(t, file, "$$"), "serve", "--idle", "200ms")
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	resp, err := client.Post("http://localhost"+syncPath, "", nil)
	if err != nil || resp.StatusCode != 503 {
		t.Errorf("%v, %v", resp, err)
	}
	if status := p.wait(); status != 0 {
		t.Errorf("it ended with %d\n%s%s", status, p.stdout(), p.stderr())
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("systemd's socket is gone: %v", err)
	}
}

// What was not passed to this process, or is no listening socket, is not used.
func TestServeWrongDescriptors(t *testing.T) {
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	p := startTool(t, passed(t, file, "$$"), "serve")
	if status := p.wait(); status != 78 || !strings.Contains(p.stderr(), `"msg":"cannot_listen"`) {
		t.Errorf("with /dev/null it ended with %d\n%s", status, p.stderr())
	}
	p = startTool(t, passed(t, file, "1"), "serve", "--listen", "127.0.0.1:0")
	p.awaitAddress()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 {
		t.Errorf("with another process's descriptors it ended with %d\n%s", status, p.stderr())
	}
}

// awaitAddress waits until the tool listens, and returns where.
func (p *process) awaitAddress() string {
	p.Helper()
	var rec struct{ Addresses []string }
	await(p.T, "the listening record", func() bool {
		line, _, ended := strings.Cut(p.stdout(), "\n")
		return ended && json.Unmarshal([]byte(line), &rec) == nil && len(rec.Addresses) == 1
	})
	return rec.Addresses[0]
}

func TestServeListens(t *testing.T) {
	p := startTool(t, unreachable, "serve", "--listen", "127.0.0.1:0")
	address := p.awaitAddress()
	if a := post(t, "http://"+address+syncPath); a.status != 503 {
		t.Errorf("status %d, %s", a.status, a.body)
	}
	// The lock of the state directory, as another process holds it.
	dir, err := os.Open(filepath.Join(p.dir, ".local/state/reading-sync"))
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if a := post(t, "http://"+address+syncPath); a.status != 409 {
		t.Errorf("beside another run: status %d, %s", a.status, a.body)
	}
	second := startTool(t, unreachable, "serve", "--listen", address)
	if status := second.wait(); status != 78 || !strings.Contains(second.stderr(), `"msg":"cannot_listen"`) {
		t.Errorf("a second one at the same address ended with %d\n%s", status, second.stderr())
	}
	began := time.Now()
	p.signal(syscall.SIGTERM)
	if status := p.wait(); status != 0 || time.Since(began) > 5*time.Second {
		t.Errorf("SIGTERM: it ended with %d after %v\n%s", status, time.Since(began), p.stderr())
	}
}
