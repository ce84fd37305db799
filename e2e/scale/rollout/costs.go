package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cgi"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// transport is a way to reach the server.
type transport struct {
	name, url string
	env       []string
}

// costs prints what the Git server spends on pulls and verdicts, and what a host spends on a pull.
func (f *fleet) costs(out io.Writer, rounds int) error {
	ways := []transport{{"git", f.server.url(), nil}}
	http, stop, err := f.server.http()
	if err != nil {
		return err
	}
	defer stop()
	ways = append(ways, http)
	if ssh, err := f.server.ssh(); err == nil {
		ways = append(ways, ssh)
	} else {
		fmt.Fprintf(out, "\nssh is not measured: %v\n", err)
	}
	if err := f.remake(); err != nil {
		return err
	}
	fmt.Fprintf(out, "\nCPU time of a pull that finds nothing new (mean of %d):\n\n| transport | refs of the repository | server | host |\n|---|---|---|---|\n", rounds)
	for _, many := range []int{0, 1000} {
		if err := f.server.addRefs("refs/heads/other/%d", many); err != nil {
			return err
		}
		if err := f.server.addRefs("refs/tags/v%d", many); err != nil {
			return err
		}
		for _, way := range ways {
			server, host, err := f.noop(way, rounds)
			if err != nil {
				return fmt.Errorf("%s: %w", way.name, err)
			}
			fmt.Fprintf(out, "| %s | %d branches, %d tags | %s | %s |\n", way.name, many+1, many, millis(server), millis(host))
		}
	}
	if err := f.server.dropRefs("refs/heads/other", "refs/tags"); err != nil {
		return err
	}

	before, err := f.server.used()
	if err != nil {
		return err
	}
	if err := f.server.reset(f.bad); err != nil {
		return err
	}
	for i := range f.hosts {
		if r, err := f.pull(f.host(i)); err != nil || !r.Changed {
			return fmt.Errorf("pull: %+v, %v", r, err)
		}
	}
	after, err := f.server.used()
	if err != nil {
		return err
	}
	each := (after - before) / time.Duration(f.hosts)
	fmt.Fprintf(out, "\nA push to all %d hosts costs the server %.1f s of CPU time over git, %s for each host (ls-remote, then fetch).\n", f.hosts, (after - before).Seconds(), millis(each))

	if err := f.apply(f.host(0), 10); err != nil {
		return err
	}
	if before, err = f.server.used(); err != nil {
		return err
	}
	if err := f.verdict(f.host(0)); err != nil {
		return err
	}
	if after, err = f.server.used(); err != nil {
		return err
	}
	fmt.Fprintf(out, "Publishing a verdict costs the server %s.\n", millis(after-before))

	fmt.Fprintln(out, "\nCPU time of the server for the question which hosts rolled a commit back, over git:\n\n| verdicts | packed | server | answer |\n|---|---|---|---|")
	for _, verdicts := range []int{1, 100, 10_000} {
		if err := f.server.dropRefs("refs/hosts"); err != nil {
			return err
		}
		if err := f.server.addRefs("refs/hosts/web%d.example.org/bad", verdicts); err != nil {
			return err
		}
		for _, packed := range []string{"no", "yes"} {
			if packed == "yes" {
				if _, err := f.server.git("pack-refs", "--all"); err != nil {
					return err
				}
			}
			if before, err = f.server.used(); err != nil {
				return err
			}
			size := 0
			const times = 10
			for range times {
				answer, err := f.run(f.host(0), nil, "git", "ls-remote", "--refs", f.server.url(), "refs/hosts/*/bad")
				if err != nil {
					return err
				}
				size = len(answer)
			}
			if after, err = f.server.used(); err != nil {
				return err
			}
			fmt.Fprintf(out, "| %d | %s | %s | %.1f kB |\n", verdicts, packed, millis((after-before)/times), float64(size)/1000)
		}
	}
	return f.server.dropRefs("refs/hosts")
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

// noop returns the mean CPU time of the server and of the host for a pull with nothing new.
func (f *fleet) noop(way transport, rounds int) (server, host time.Duration, err error) {
	state := filepath.Join(f.dir, "noop-"+way.name)
	var clients time.Duration
	pull := func() error {
		cmd := exec.Command(f.gitsync, "pull", "--repo", way.url, "--state-dir", state)
		cmd.Env = append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + f.dir, "GIT_CONFIG_GLOBAL=/dev/null"}, way.env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("pull: %w: %s", err, out)
		}
		clients += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		return nil
	}
	if err := pull(); err != nil {
		return 0, 0, err
	}
	if _, err := f.server.used(); err != nil {
		return 0, 0, err
	}
	clients = 0
	before := children()
	for range rounds {
		if err := pull(); err != nil {
			return 0, 0, err
		}
	}
	if _, err := f.server.used(); err != nil { // waits for the server's last process
		return 0, 0, err
	}
	// All processes that this one has started meanwhile are the clients' and the server's.
	all := children() - before
	return (all - clients) / time.Duration(rounds), clients / time.Duration(rounds), nil
}

// children returns the CPU time of all child processes that have ended.
func children() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_CHILDREN, &u) // fails only for invalid arguments
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// http serves the repository with git-http-backend. The time of the web server itself does not count.
func (s *server) http() (transport, func(), error) {
	path, err := exec.Command("git", "--exec-path").Output()
	if err != nil {
		return transport{}, nil, err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return transport{}, nil, err
	}
	web := &http.Server{Handler: &cgi.Handler{
		Path:       filepath.Join(strings.TrimSpace(string(path)), "git-http-backend"),
		Env:        []string{"GIT_PROJECT_ROOT=" + s.dir, "GIT_HTTP_EXPORT_ALL=1"},
		InheritEnv: []string{"PATH"},
		Stderr:     io.Discard,
	}}
	go func() { _ = web.Serve(l) }() // returns when it is closed
	return transport{"http", "http://" + l.Addr().String() + "/hub.git", nil}, func() { web.Close() }, nil
}

// ssh serves the repository with OpenSSH on a second port, and returns how a host reaches it.
func (s *server) ssh() (transport, error) {
	sshd, err := exec.LookPath("/usr/sbin/sshd")
	if err != nil {
		return transport{}, err
	}
	dir := filepath.Join(s.dir, "ssh")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.MkdirAll("/run/sshd", 0o755)); err != nil {
		return transport{}, err
	}
	for _, key := range []string{"deploy_key", "host_key"} {
		if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, key)).CombinedOutput(); err != nil {
			return transport{}, fmt.Errorf("ssh-keygen: %w: %s", err, out)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return transport{}, err
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	public, err := os.ReadFile(filepath.Join(dir, "host_key.pub"))
	if err != nil {
		return transport{}, err
	}
	config := "HostKey " + dir + "/host_key\nAuthorizedKeysFile " + dir + "/deploy_key.pub\nPermitRootLogin prohibit-password\n" +
		"PasswordAuthentication no\nUsePAM no\nStrictModes no\nAcceptEnv GIT_PROTOCOL\nPidFile none\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "config"), []byte(config), 0o600),
		os.WriteFile(filepath.Join(dir, "known_hosts"), []byte("[127.0.0.1]:"+port+" "+string(public)), 0o600)); err != nil {
		return transport{}, err
	}
	other := &server{listener: l, program: func() *exec.Cmd { return exec.Command(sshd, "-i", "-f", filepath.Join(dir, "config")) }}
	go other.accept()
	return transport{"ssh", "ssh://root@127.0.0.1:" + port + s.bare, []string{"CREDENTIALS_DIRECTORY=" + dir}}, nil
}

// addRefs makes refs that point to the tip of the branch.
func (s *server) addRefs(form string, n int) error {
	tip, err := s.git("rev-parse", "main")
	if err != nil {
		return err
	}
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "create "+form+" %s\n", i, tip)
	}
	cmd := exec.Command("git", "-C", s.bare, "update-ref", "--stdin")
	cmd.Stdin = strings.NewReader(b.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git update-ref: %w: %s", err, out)
	}
	return nil
}

// dropRefs deletes all refs below the given names.
func (s *server) dropRefs(names ...string) error {
	refs, err := s.git(append([]string{"for-each-ref", "--format=delete %(refname)"}, names...)...)
	if err != nil || refs == "" {
		return err
	}
	cmd := exec.Command("git", "-C", s.bare, "update-ref", "--stdin")
	cmd.Stdin = strings.NewReader(refs + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git update-ref: %w: %s", err, out)
	}
	return nil
}
