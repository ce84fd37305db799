package e2e

import (
	"crypto/rand"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/await"
	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

// badNetwork forwards TCP connections to a server, with a fault.
type badNetwork struct {
	listener net.Listener
	to       string
	fault    atomic.Value // of string
}

// Faults of a connection.
const (
	passes  = "passes"
	hangs   = "hangs"   // accepts the connection and sends nothing
	cuts    = "cuts"    // closes the connection in the middle of a pack
	trickle = "trickle" // a few bytes a second
	resets  = "resets"  // closes the connection at once
)

func newBadNetwork(t *testing.T, to string) *badNetwork {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &badNetwork{listener: l, to: to}
	n.fault.Store(passes)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go n.serve(c)
		}
	}()
	return n
}

func (n *badNetwork) serve(client net.Conn) {
	defer client.Close()
	fault := n.fault.Load().(string)
	switch fault {
	case resets:
		return
	case hangs:
		_, _ = io.Copy(io.Discard, client) // until the client gives up
		return
	}
	server, err := net.Dial("tcp", n.to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client) // ends when either side closes its connection
		if half, ok := server.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
	}()
	switch fault {
	case cuts:
		_, _ = io.CopyN(client, server, 200_000)
	case trickle:
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := io.CopyN(client, server, 50); err != nil {
				return
			}
		}
	default:
		_, _ = io.Copy(client, server)
	}
}

// gitServer is a Git server with the repository hub.
type gitServer struct {
	address string // of its TCP port
	url     string // of the repository; it contains the address
	// env returns the variables that gitsync needs to reach the server at another address.
	env func(address string) []string
}

// TestGitsyncNetwork pulls through a network with faults, from a git daemon, an HTTP server and an SSH server. Each pull must fail
// with a clear error and status 69 in limited time, and the next run must succeed.
func TestGitsyncNetwork(t *testing.T) {
	t.Parallel()
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	for _, server := range []struct {
		name  string
		start func(*testing.T, string) gitServer
	}{{"git", startGitDaemon}, {"http", startGitHTTP}, {"ssh", startGitSSH}} {
		t.Run(server.name, func(t *testing.T) {
			w := newGitsyncWorld(t, binary)
			noise := make([]byte, 2<<20) // makes the pack large enough to be cut
			served := server.start(t, w.dir)
			network := newBadNetwork(t, served.address)
			way := network.listener.Addr().String()
			url := strings.Replace(served.url, served.address, way, 1)
			state := filepath.Join(w.dir, "state")
			env := served.env(way)
			pull := func(timeout time.Duration) outcome {
				return finish(t, w.command(env, "pull", "--repo", url, "--state-dir", state, "--timeout", timeout.String()))
			}
			for _, first := range []bool{true, false} {
				for _, fault := range []string{resets, hangs, cuts, trickle} {
					_, _ = rand.Read(noise) // never fails
					w.commits[0]["compose/noise"], w.commits[1]["compose/noise"] = string(noise), string(noise)
					w.push()
					if first {
						if err := os.RemoveAll(state); err != nil {
							t.Fatal(err)
						}
					}
					network.fault.Store(fault)
					got := pull(3 * time.Second)
					when := fmt.Sprintf("%s, first %v", fault, first)
					if got.status != exitUnavailable || got.stdout != "" || !strings.Contains(got.stderr, "remote_unavailable") {
						t.Errorf("%s: exit status %d\nstdout: %s\nstderr: %s", when, got.status, got.stdout, got.stderr)
					}
					if got.took > 8*time.Second {
						t.Errorf("%s: took %v with a time-out of 3 s", when, got.took)
					}
					await.Until(t, "the end of all processes of a pull that "+fault, func() bool { return len(atWork(t, state)) == 0 })
					network.fault.Store(passes)
					if got := pull(time.Minute); got.status != 0 || !strings.Contains(got.stdout, `"changed":true`) {
						t.Errorf("after %s: exit status %d\nstdout: %s\nstderr: %s", when, got.status, got.stdout, got.stderr)
					}
					if left := unfinished(t, state); len(left) > 0 {
						t.Errorf("after %s and a good pull there is still %q", when, left)
					}
				}
			}
			// No process listens any more.
			network.listener.Close()
			if got := pull(10 * time.Second); got.status != exitUnavailable || got.took > 8*time.Second {
				t.Errorf("refused: exit status %d after %v: %s", got.status, got.took, got.stderr)
			}
		})
	}
}

// atWork returns the command lines of the processes that have a text in their command line.
func atWork(t *testing.T, state string) []string {
	t.Helper()
	var found []string
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range paths {
		b, _ := os.ReadFile(path) // the process may have ended
		if args := strings.ReplaceAll(string(b), "\x00", " "); strings.Contains(args, state) {
			found = append(found, args)
		}
	}
	return found
}

// unfinished returns the lock files and half-written packs below a state directory.
func unfinished(t *testing.T, state string) []string {
	t.Helper()
	var found []string
	err := filepath.WalkDir(state, func(path string, d fs.DirEntry, err error) error {
		if err == nil && (strings.HasSuffix(path, ".lock") || strings.HasPrefix(d.Name(), "tmp_")) {
			found = append(found, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestGitsyncPassword pulls from a server that rejects the password. gitsync must fail at once and must not prompt.
func TestGitsyncPassword(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
	}))
	defer server.Close()
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	// script(1) gives gitsync a terminal on which git could prompt.
	cmd := w.command(nil, "pull", "--repo", strings.Replace(server.URL, "//", "//user:secret@", 1)+"/hub", "--timeout", "20s")
	cmd.Args = []string{"script", "--quiet", "--return", "--command", strings.Join(cmd.Args, " "), "/dev/null"}
	if cmd.Path, err = exec.LookPath("script"); err != nil {
		t.Fatal(err)
	}
	got := finish(t, cmd)
	if got.status != exitUnavailable || got.took > 10*time.Second {
		t.Errorf("exit status %d after %v: %s%s", got.status, got.took, got.stdout, got.stderr)
	}
	if strings.Contains(got.stdout, "secret") || !strings.Contains(got.stdout, "hint: provide a token") {
		t.Errorf("gitsync prints %q", got.stdout)
	}
}

// TestGitsyncToken pulls from a server that requires a password, with the password in each place where users keep one. During a
// request no process of the host may have it in its arguments. Afterwards no file of the state may contain it.
func TestGitsyncToken(t *testing.T) {
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	const user, token = "oauth2", "t0p-s3cret/%@x"
	w := newGitsyncWorld(t, binary)
	w.push()
	git := startGitHTTP(t, w.dir)
	var seen atomic.Value
	inner := httputil.NewSingleHostReverseProxy(must(url.Parse(strings.TrimSuffix(git.url, "/hub"))))
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		for _, secret := range []string{token, url.QueryEscape(token), "t0p-s3cret"} {
			if found := atWork(t, secret); len(found) > 0 {
				seen.Store(strings.Join(found, "; "))
			}
		}
		if u, p, ok := r.BasicAuth(); !ok || u != user || p != token {
			rw.Header().Set("WWW-Authenticate", `Basic realm="git"`)
			http.Error(rw, "no", http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(rw, r)
	}))
	defer server.Close()
	address := strings.TrimPrefix(server.URL, "http://")
	plain := server.URL + "/hub"
	encoded := url.UserPassword(user, token).String()
	withBoth := "http://" + encoded + "@" + address + "/hub"
	home := func(files map[string]string) []string {
		dir := t.TempDir()
		for name, content := range files {
			write(t, filepath.Join(dir, name), content)
		}
		return []string{"HOME=" + dir, "GIT_CONFIG_GLOBAL=" + filepath.Join(dir, ".gitconfig"), "CREDENTIALS_DIRECTORY=" + dir}
	}
	for _, tc := range []struct {
		name, repo string
		env        []string
		status     int
	}{
		{"in the URL", withBoth, home(nil), 0},
		{"in the URL, and a helper that is wrong", withBoth, home(map[string]string{".gitconfig": "[credential]\n\thelper = \"!printf 'username=x\\\\npassword=y\\\\n' #\"\n"}), 0},
		{"in a helper of the user", plain, home(map[string]string{".gitconfig": "[credential]\n\thelper = store\n", ".git-credentials": "http://" + encoded + "@" + address + "\n"}), 0},
		{"the user in the URL, the rest in a helper", "http://" + user + "@" + address + "/hub", home(map[string]string{".gitconfig": "[credential]\n\thelper = store\n", ".git-credentials": "http://" + encoded + "@" + address + "\n"}), 0},
		{"in netrc", plain, home(map[string]string{".netrc": "machine 127.0.0.1 login " + user + " password " + token + "\n"}), 0},
		{"in a credential of the unit", plain, home(map[string]string{"git_credentials": "http://" + encoded + "@" + address + "\n"}), 0},
		{"in insteadOf of the user", plain, home(map[string]string{".gitconfig": "[url \"http://" + encoded + "@" + address + "/\"]\n\tinsteadOf = " + server.URL + "/\n"}), 0},
		{"refused in a credential of the unit", plain, home(map[string]string{"git_credentials": "http://" + user + ":old@" + address + "\n"}), exitUnavailable},
		{"nowhere", plain, home(nil), exitUnavailable},
		{"wrong", "http://" + user + ":wrong@" + address + "/hub", home(nil), exitUnavailable},
	} {
		state := filepath.Join(t.TempDir(), "state")
		// Set the variable, as the units do, because all users can read gitsync's own command line.
		got := finish(t, w.command(append(tc.env, "GITSYNC_REPO="+tc.repo), "pull", "--state-dir", state, "--timeout", "20s"))
		if got.status != tc.status {
			t.Errorf("%s: exit status %d: %s", tc.name, got.status, got.stderr)
		}
		if tc.status == exitUnavailable && !strings.Contains(got.stderr, `"hint":"provide a token`) {
			t.Errorf("%s: the hint does not mention a token: %s", tc.name, got.stderr)
		}
		if dir, ok := strings.CutPrefix(tc.env[2], "CREDENTIALS_DIRECTORY="); ok && tc.status == exitUnavailable {
			// git asks its helpers to erase credentials that a server rejected, but this file belongs to the administrator.
			if b, err := os.ReadFile(filepath.Join(dir, "git_credentials")); err == nil && len(b) == 0 {
				t.Errorf("%s: the credential was erased", tc.name)
			}
		}
		if found := seen.Swap(""); found != nil && found != "" {
			t.Errorf("%s: the password is in the arguments of %s", tc.name, found)
		}
		for _, where := range append([]string{got.stdout, got.stderr}, contents(t, state)...) {
			if strings.Contains(where, "t0p-s3cret") {
				t.Errorf("%s: the password is in %q", tc.name, where)
			}
		}
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// contents returns the contents of all files below a directory.
func contents(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			all = append(all, readFile(t, path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestGitsyncDumbHTTP pulls from a web server that only serves files (git's dumb protocol).
func TestGitsyncDumbHTTP(t *testing.T) {
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	server := httptest.NewServer(http.FileServer(http.Dir(filepath.Join(w.dir, "hub", ".git"))))
	defer server.Close()
	pull := func(changed bool) {
		t.Helper()
		got := finish(t, w.command(nil, "pull", "--repo", server.URL, "--state-dir", filepath.Join(w.dir, "state")))
		if got.status != 0 || !strings.Contains(got.stdout, fmt.Sprintf(`"changed":%v`, changed)) {
			t.Errorf("exit status %d, stdout %s, stderr %s; want changed %v", got.status, got.stdout, got.stderr, changed)
		}
	}
	for range 2 {
		w.push()
		w.git("update-server-info")
		pull(true)
		pull(false)
	}
	// Between a push and git update-server-info the server still announces the old commit.
	w.push()
	pull(false)
}

// TestGitsyncRemoteLies pulls from a server that announces another commit than it sends.
func TestGitsyncRemoteLies(t *testing.T) {
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	w.push()
	w.git("update-server-info")
	dir := http.FileServer(http.Dir(filepath.Join(w.dir, "hub", ".git")))
	var lie atomic.Value
	lie.Store("")
	server := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if refs := lie.Load().(string); refs != "" && strings.HasSuffix(r.URL.Path, "/info/refs") {
			_, _ = io.WriteString(rw, refs)
			return
		}
		dir.ServeHTTP(rw, r)
	}))
	defer server.Close()
	state := filepath.Join(w.dir, "state")
	pull := func() outcome {
		return finish(t, w.command(nil, "pull", "--repo", server.URL, "--state-dir", state))
	}
	if got := pull(); got.status != 0 {
		t.Fatalf("exit status %d: %s", got.status, got.stderr)
	}
	before := readFile(t, filepath.Join(state, "pulled.json"))
	for _, refs := range []string{
		strings.Repeat("1", 40) + "\trefs/heads/main\n", // the server has no such object
		"nonsense\n", strings.Repeat("z", 40) + "\trefs/heads/main\n",
	} {
		lie.Store(refs)
		if got := pull(); got.status == 0 || got.stdout != "" {
			t.Errorf("%q: exit status %d: %s", refs, got.status, got.stdout)
		}
		if after := readFile(t, filepath.Join(state, "pulled.json")); after != before {
			t.Errorf("%q: pulled.json became %s", refs, after)
		}
	}
	lie.Store("")
	if got := pull(); got.status != 0 || !strings.Contains(got.stdout, `"changed":false`) {
		t.Errorf("afterwards: exit status %d: %s%s", got.status, got.stdout, got.stderr)
	}
}

// startGitDaemon serves dir with git's own protocol.
func startGitDaemon(t *testing.T, dir string) gitServer {
	t.Helper()
	address, port := freeAddress(t)
	cmd := exec.Command("git", "daemon", "--export-all", "--reuseaddr", "--base-path="+dir, "--listen=127.0.0.1", "--port="+port)
	// git runs the daemon as a child process, which would outlive git.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait()
	})
	awaitPort(t, address)
	return gitServer{address, "git://" + address + "/hub", noEnv}
}

func noEnv(string) []string { return nil }

// freeAddress returns a loopback address on which no process listens.
func freeAddress(t *testing.T) (address, port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	address = l.Addr().String()
	_, port, _ = net.SplitHostPort(address)
	return address, port
}

// startGitHTTP serves dir with git's smart HTTP protocol.
func startGitHTTP(t *testing.T, dir string) gitServer {
	t.Helper()
	out, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(&cgi.Handler{
		Path:   filepath.Join(strings.TrimSpace(string(out)), "git-http-backend"),
		Env:    []string{"GIT_PROJECT_ROOT=" + dir, "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=test"},
		Stderr: io.Discard,
	})
	t.Cleanup(server.Close)
	address := server.Listener.Addr().String()
	return gitServer{address, "http://" + address + "/hub", noEnv}
}

// startGitSSH serves dir with OpenSSH's server in its own machine. The client's key and the server's key are credentials of gitsync,
// in the directory that systemd would pass.
func startGitSSH(t *testing.T, dir string) gitServer {
	t.Helper()
	credentials := t.TempDir()
	key := func(name string) (private, public string) {
		path := filepath.Join(credentials, name)
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path).CombinedOutput(); err != nil {
			t.Fatalf("ssh-keygen: %v: %s", err, out)
		}
		public = readFile(t, path+".pub")
		if err := os.Remove(path + ".pub"); err != nil { // a unit does not have this file
			t.Fatal(err)
		}
		return readFile(t, path), public
	}
	_, client := key("deploy_key")
	private, public := key("host_key")
	machine := nspawn.Start(t, nspawn.Config{
		Packages: []string{"git", "openssh-server"},
		Files: []nspawn.File{
			{Path: "/etc/ssh/sshd_config", Content: "HostKey /etc/ssh/host_key\nAuthorizedKeysFile /etc/ssh/authorized_keys\n" +
				"PermitRootLogin prohibit-password\nPasswordAuthentication no\nMaxStartups 100\n"},
			{Path: "/etc/ssh/host_key", Content: private, Mode: 0o600},
			{Path: "/etc/ssh/authorized_keys", Content: client},
		},
		Binds: []nspawn.Bind{{From: filepath.Join(dir, "hub"), To: "/srv/hub", ReadOnly: true}},
	})
	await.Until(t, "sshd", func() bool { return machine.Command("systemctl", "is-active", "ssh.service").Run() == nil })

	// The machine has its own network. Each connection to this listener starts an sshd in the machine, as inetd does.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var served sync.WaitGroup
	t.Cleanup(func() { l.Close(); served.Wait() })
	served.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // the test is over
			}
			served.Go(func() {
				socket, err := c.(*net.TCPConn).File()
				c.Close()
				if err != nil {
					t.Error(err)
					return
				}
				defer socket.Close()
				sshd := machine.Command("/usr/sbin/sshd", "-i")
				sshd.Stdin, sshd.Stdout = socket, socket
				_ = sshd.Run() // clients may close the connection at any time
			})
		}
	})
	address := l.Addr().String()
	return gitServer{address, "ssh://root@" + address + "/srv/hub", func(way string) []string {
		_, port, _ := net.SplitHostPort(way)
		write(t, filepath.Join(credentials, "known_hosts"), fmt.Sprintf("[127.0.0.1]:%s %s", port, public))
		return []string{"CREDENTIALS_DIRECTORY=" + credentials}
	}}
}

// TestGitsyncKeys pulls from a server that is not in known_hosts, and from a server that rejects the key. The errors must be clear.
func TestGitsyncKeys(t *testing.T) {
	binary, err := workspace.Binary("gitsync")
	if err != nil {
		t.Fatal(err)
	}
	w := newGitsyncWorld(t, binary)
	w.push()
	served := startGitSSH(t, w.dir)
	env := served.env(served.address)
	credentials := strings.TrimPrefix(env[0], "CREDENTIALS_DIRECTORY=")
	pull := func() outcome {
		return finish(t, w.command(env, "pull", "--repo", served.url, "--state-dir", filepath.Join(w.dir, "state"), "--timeout", "20s"))
	}
	if got := pull(); got.status != 0 {
		t.Fatalf("exit status %d: %s", got.status, got.stderr)
	}
	known := readFile(t, filepath.Join(credentials, "known_hosts"))
	mine := readFile(t, filepath.Join(credentials, "deploy_key"))
	for _, tc := range []struct{ name, file, content, says string }{
		{"another host key", "known_hosts", anotherKey(t, known), "REMOTE HOST IDENTIFICATION HAS CHANGED"},
		{"an unknown host", "known_hosts", "", "Host key verification failed"},
		{"a key that the server does not know", "deploy_key", readFile(t, filepath.Join(credentials, "host_key")), "Permission denied"},
		{"no key at all", "deploy_key", "nonsense\n", "Load key"},
	} {
		write(t, filepath.Join(credentials, "known_hosts"), known)
		write(t, filepath.Join(credentials, "deploy_key"), mine)
		write(t, filepath.Join(credentials, tc.file), tc.content)
		got := pull()
		if got.status != exitUnavailable || got.took > 15*time.Second || !strings.Contains(got.stderr, tc.says) || !strings.Contains(got.stderr, `"hint":"`) {
			t.Errorf("%s: exit status %d after %v: %s", tc.name, got.status, got.took, got.stderr)
		}
		if strings.Contains(got.stderr, "PRIVATE KEY") {
			t.Errorf("%s: the key is in %s", tc.name, got.stderr)
		}
	}
}

// anotherKey returns a line of known_hosts with another key.
func anotherKey(t *testing.T, line string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v: %s", err, out)
	}
	host, _, _ := strings.Cut(line, " ")
	return host + " " + readFile(t, path+".pub")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// write writes a file that only its owner may read, as ssh requires for keys.
func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitPort waits until a process listens.
func awaitPort(t *testing.T, address string) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("tcp", address)
		if err == nil {
			c.Close()
			return
		}
		select {
		case <-deadline:
			t.Fatalf("no process listens on %s: %v", address, err)
		case <-tick.C:
		}
	}
}
