package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"observability-hub/e2e/workspace"
)

// gitBench compares gitsync with the git that it calls, on repositories of a git daemon on the loopback interface.
type gitBench struct {
	work   string
	tool   string
	rounds int

	sizes       []*gitSize
	plan, apply *candidate // with nothing to do, on a root with gitUnits units
}

// gitSize is a repository with many or few files, and the candidates that are compared on it.
type gitSize struct {
	files               int
	server              string // the bare repository
	commits             int
	fetch, pull         *candidate // with nothing new
	fetchPath, pullPath *candidate // the same without a network: git starts the other side itself
	fetchNext, pullNext *candidate // of a commit that changes one file
}

// gitUnits is how many units the host has for plan and apply: half of them services, half their timers.
const gitUnits = 200

// benchGitsync measures and prints the figures, and returns how many targets are missed.
func benchGitsync(work string, rounds int, w io.Writer) (missed int, err error) {
	tool, err := workspace.Binary("gitsync")
	if err != nil {
		return 0, err
	}
	b := &gitBench{work: filepath.Join(work, "gitsync"), tool: tool, rounds: max(1, rounds/4)}
	served := filepath.Join(b.work, "served")
	if err := os.MkdirAll(served, 0o755); err != nil {
		return 0, err
	}
	address, stop, err := startGitDaemon(served)
	if err != nil {
		return 0, err
	}
	defer stop()
	for _, files := range []int{100, 100_000} {
		progress("making a repository of %d files", files)
		size, err := b.makeSize(served, address, files)
		if err != nil {
			return 0, err
		}
		b.sizes = append(b.sizes, size)
	}
	if err := b.makeHost(served, address); err != nil {
		return 0, err
	}
	if err := b.measureAll(); err != nil {
		return 0, err
	}
	return b.report(w), nil
}

// env is the environment of every git and gitsync: no configuration of this host.
func (b *gitBench) env() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "HOME=" + b.work, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL=/dev/null",
		"GIT_AUTHOR_NAME=bench", "GIT_AUTHOR_EMAIL=bench@example.org", "GIT_COMMITTER_NAME=bench", "GIT_COMMITTER_EMAIL=bench@example.org"}
}

func (b *gitBench) candidate(name string, argv ...string) *candidate {
	return &candidate{name: name, shown: strings.Join(argv, " "), command: command{Argv: argv, Env: b.env()}}
}

// startGitDaemon serves the directory. The daemon ends when stop is called or when this process ends.
func startGitDaemon(dir string) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address = l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("git", "daemon", "--export-all", "--reuseaddr", "--base-path="+dir, "--listen=127.0.0.1", "--port="+port)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) // git daemon is a child of git
		_ = cmd.Wait()                                      // it ended by that signal
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", address)
		if err == nil {
			return address, stop, c.Close()
		}
		if time.Now().After(deadline) {
			stop()
			return "", nil, fmt.Errorf("git daemon does not answer: %w", err)
		}
	}
}

// makeSize makes a repository of that many files, a bare clone for git fetch and a state directory for gitsync pull.
func (b *gitBench) makeSize(served, address string, files int) (*gitSize, error) {
	name := fmt.Sprint(files)
	s := &gitSize{files: files, server: filepath.Join(served, name)}
	units := map[string]string{"systemd/job.service": "[Service]\nType=oneshot\nExecStart=true\n", "systemd/job.timer": "[Timer]\nOnCalendar=daily\n"}
	if err := b.importFiles(s.server, units, files); err != nil {
		return nil, err
	}
	url := "git://" + address + "/" + name
	clients := func(url, state string) (fetch, pull *candidate, err error) {
		clone, state := filepath.Join(b.work, state+".git"), filepath.Join(b.work, state+".state")
		fetch = b.candidate("git fetch", "git", "--git-dir="+clone, "fetch", "--quiet", url, "+main:refs/heads/main")
		pull = b.candidate("gitsync pull", b.tool, "pull", "--repo", url, "--state-dir", state)
		for _, argv := range [][]string{{"git", "clone", "--quiet", "--bare", url, clone}, pull.command.Argv} {
			if _, err := measure(command{Argv: argv, Env: b.env()}); err != nil {
				return nil, nil, err
			}
		}
		return fetch, pull, nil
	}
	var err error
	if s.fetch, s.pull, err = clients(url, name); err != nil {
		return nil, err
	}
	if s.fetchNext, s.pullNext, err = clients(url, name+".next"); err != nil {
		return nil, err
	}
	s.fetchPath, s.pullPath, err = clients(s.server, name+".path")
	return s, err
}

// importFiles makes a bare repository with one commit: some files, and others to fill it, a hundred in each directory.
func (b *gitBench) importFiles(dir string, some map[string]string, fill int) error {
	if _, err := measure(command{Argv: []string{"git", "init", "--quiet", "--bare", "--initial-branch=main", dir}, Env: b.env()}); err != nil {
		return err
	}
	cmd := exec.Command("git", "--git-dir="+dir, "fast-import", "--quiet")
	cmd.Env, cmd.Stderr = b.env(), os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stream := bufio.NewWriter(in)
	fmt.Fprintf(stream, "commit refs/heads/main\ncommitter bench <bench@example.org> 1700000000 +0000\ndata 5\nfirst\n")
	file := func(name, content string) {
		fmt.Fprintf(stream, "M 100644 inline %s\ndata %d\n%s\n", name, len(content), content)
	}
	for name, content := range some {
		file(name, content)
	}
	for i := range fill - len(some) {
		file(fmt.Sprintf("files/%03d/%02d", i/100, i%100), fmt.Sprintf("file %d\n", i))
	}
	if err := stream.Flush(); err != nil {
		return err
	}
	if err := in.Close(); err != nil {
		return err
	}
	return cmd.Wait()
}

// commit changes one file of the repository.
func (s *gitSize) commit(b *gitBench) error {
	s.commits++
	cmd := exec.Command("git", "--git-dir="+s.server, "fast-import", "--quiet")
	content := fmt.Sprintf("change %d\n", s.commits)
	cmd.Stdin = strings.NewReader(fmt.Sprintf("commit refs/heads/main\ncommitter bench <bench@example.org> %d +0000\ndata 4\nnext\nfrom refs/heads/main^0\nM 100644 inline files/000/00\ndata %d\n%s\n",
		1700000000+s.commits, len(content), content))
	cmd.Env = b.env()
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("git fast-import: %w\n%s", err, out)
	}
	return nil
}

// settle pulls the newest commit for the candidates that are measured with nothing new.
func (s *gitSize) settle() error {
	for _, c := range []*candidate{s.fetch, s.pull, s.fetchPath, s.pullPath} {
		if _, err := measure(c.command); err != nil {
			return err
		}
	}
	return nil
}

// makeHost makes a repository of units and a root that matches it.
func (b *gitBench) makeHost(served, address string) error {
	progress("making a host with %d units", gitUnits)
	units := map[string]string{}
	for i := range gitUnits / 2 {
		units[fmt.Sprintf("systemd/job-%d.service", i)] = "[Service]\nType=oneshot\nExecStart=true\n"
		units[fmt.Sprintf("systemd/job-%d.timer", i)] = "[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n"
	}
	if err := b.importFiles(filepath.Join(served, "units"), units, 0); err != nil {
		return err
	}
	root, state := filepath.Join(b.work, "root"), filepath.Join(b.work, "units.state")
	for _, dir := range []string{"etc/systemd/system", "usr/bin"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/true"), nil, 0o755); err != nil {
		return err
	}
	b.plan = b.candidate("gitsync plan", b.tool, "plan", "--state-dir", state, "--root", root)
	b.apply = b.candidate("gitsync apply", b.tool, "apply", "--state-dir", state, "--root", root)
	for _, argv := range [][]string{{b.tool, "pull", "--repo", "git://" + address + "/units", "--state-dir", state}, b.apply.command.Argv} {
		if _, err := measure(command{Argv: argv, Env: b.env()}); err != nil {
			return err
		}
	}
	left, err := output(b.plan.command)
	if err == nil && left != "" {
		err = fmt.Errorf("a plan after an apply is not empty: %s", left)
	}
	return err
}

// measureAll lets the candidates take turns, git first in one round and gitsync in the next.
func (b *gitBench) measureAll() error {
	const warmUp = 2
	for round := -warmUp; round < b.rounds; round++ {
		progress("gitsync, round %d of %d", round+1, b.rounds)
		turn := func(all ...*candidate) error {
			for i := range all {
				c := all[(i+round+warmUp)%len(all)]
				cost, err := measure(c.command)
				if err != nil {
					return err
				}
				if round >= 0 {
					c.figures.add(cost)
				}
			}
			return nil
		}
		for _, s := range b.sizes {
			if err := s.settle(); err != nil {
				return err
			}
			if err := errors.Join(turn(s.fetch, s.pull), turn(s.fetchPath, s.pullPath)); err != nil {
				return err
			}
		}
		for _, s := range b.sizes {
			if err := s.commit(b); err != nil {
				return err
			}
			if err := turn(s.fetchNext, s.pullNext); err != nil {
				return err
			}
		}
		if err := turn(b.plan, b.apply); err != nil {
			return err
		}
	}
	for range observed {
		for _, s := range b.sizes {
			if err := s.settle(); err != nil {
				return err
			}
			if err := b.observe(s.fetch, s.pull, s.fetchPath, s.pullPath); err != nil {
				return err
			}
			// Each run pulls another commit.
			for _, c := range []*candidate{s.fetchNext, s.pullNext} {
				c.before = func() error { return s.commit(b) }
			}
			if err := b.observe(s.fetchNext, s.pullNext); err != nil {
				return err
			}
		}
		if err := b.observe(b.plan, b.apply); err != nil {
			return err
		}
	}
	progress("")
	return nil
}

// observe measures the memory of the largest process, and how many programs each candidate starts.
func (b *gitBench) observe(all ...*candidate) error {
	report := filepath.Join(b.work, "report")
	for _, c := range all {
		rss, err := largestRSS(c, report)
		if err != nil {
			return err
		}
		text, err := around(c, report, "/usr/bin/strace", "-f", "-qq", "-z", "-e", "trace=execve", "-e", "signal=none", "-o", report, "--")
		if err != nil {
			return err
		}
		c.figures.rss = append(c.figures.rss, rss)
		c.figures.started = append(c.figures.started, int64(strings.Count(text, "execve(")-1))
	}
	return nil
}

func (b *gitBench) report(w io.Writer) (missed int) {
	fmt.Fprintf(w, "gitsync: medians of %d runs each, in turns; %s, %d CPUs, Linux %s, %s, a git daemon on the loopback.\n",
		b.rounds, runtime.GOARCH, runtime.NumCPU(), release(), gitVersion(b.env()))
	fmt.Fprintf(w, "CPU is that of the client and its children; memory is the largest process's peak, git's included; programs are those that it starts, itself not counted.\n\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tCPU ms\t× git\twall ms\t× git\tRSS MB\tprograms\t")
	row := func(name string, c, git *candidate) {
		cpu, wall := "-", "-"
		if git != nil {
			cpu, wall = fmt.Sprintf("%.2f", ratio(c.figures.cpu, git.figures.cpu)), fmt.Sprintf("%.2f", ratio(c.figures.wall, git.figures.wall))
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", name, ms(c.figures.cpu), cpu, ms(c.figures.wall), wall, mb(median(c.figures.rss)), count(c.figures.started))
	}
	for _, s := range b.sizes {
		row(fmt.Sprintf("git fetch, nothing new, %d files", s.files), s.fetch, s.fetch)
		row(fmt.Sprintf("gitsync pull, nothing new, %d files", s.files), s.pull, s.fetch)
	}
	for _, s := range b.sizes {
		row(fmt.Sprintf("git fetch from a directory, nothing new, %d files", s.files), s.fetchPath, s.fetchPath)
		row(fmt.Sprintf("gitsync pull from a directory, nothing new, %d files", s.files), s.pullPath, s.fetchPath)
	}
	for _, s := range b.sizes {
		row(fmt.Sprintf("git fetch, one file changed, %d files", s.files), s.fetchNext, s.fetchNext)
		row(fmt.Sprintf("gitsync pull, one file changed, %d files", s.files), s.pullNext, s.fetchNext)
	}
	row(fmt.Sprintf("gitsync plan, nothing to do, %d units", gitUnits), b.plan, nil)
	row(fmt.Sprintf("gitsync apply, nothing to do, %d units", gitUnits), b.apply, nil)
	t.Flush()

	fmt.Fprintf(w, "\nTargets:\n\n")
	v := newVerdicts(w)
	small, large := b.sizes[0], b.sizes[len(b.sizes)-1]
	for _, s := range b.sizes {
		v.target(fmt.Sprintf("pull with nothing new, wall × git fetch, %d files", s.files), ratio(s.pull.figures.wall, s.fetch.figures.wall), 1.2, "%.2f")
	}
	v.target(fmt.Sprintf("pull with nothing new, wall of %d files × %d files", large.files, small.files), ratio(large.pull.figures.wall, small.pull.figures.wall), 1.2, "%.2f")
	v.target("plan + apply with nothing to do, wall ms", float64(median(b.plan.figures.wall)+median(b.apply.figures.wall))/float64(time.Millisecond), 150, "%.1f")
	v.target("plan + apply with nothing to do, programs", float64(median(b.plan.figures.started)+median(b.apply.figures.started)), 3, "%.0f")
	v.t.Flush()

	fmt.Fprintf(w, "\nCommands:\n\n")
	for _, c := range []*candidate{large.fetch, large.pull, b.plan, b.apply} {
		fmt.Fprintf(w, "  %s:\n    %s\n", c.name, strings.ReplaceAll(strings.ReplaceAll(c.shown, b.work, "$TMPDIR"), b.tool, "gitsync"))
	}
	return v.missed
}

// gitVersion returns the version that git prints.
func gitVersion(env []string) string {
	out, err := output(command{Argv: []string{"git", "version"}, Env: env})
	if err != nil {
		return "git"
	}
	return strings.TrimSpace(out)
}
