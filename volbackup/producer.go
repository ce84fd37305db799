package main

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// stopAfter is the time that a program has to end after SIGTERM, before SIGKILL. It
// is enough for manage_volume.sh to start containers again, and less than the five
// seconds in which volbackup must end.
const stopAfter = 3 * time.Second

// producer is a program that writes a tar stream, or reads one.
type producer struct {
	args  []string
	tar   bool       // exit status 1 has GNU tar's meaning: a file changed while it was read
	holds bool       // containers may be down while it runs
	dir   string     // the directory that it reads, "" if that is not known
	trees bool       // it supports UNLESS_TREE
	fd3   *os.File   // the read end of the pipe at its descriptor 3
	extra []*os.File // its descriptors from 4 on
	env   []string
	cmd   *exec.Cmd
	said  said
	out   *os.File
	done  chan error
}

// standard is the source that reads volbackup's own stdin. It has no exit status.
type standard struct{ r io.Reader }

func (s standard) open(ctx context.Context, _ string, spool *os.File) (io.Reader, error) {
	if f, ok := s.r.(*os.File); ok {
		widen(f)
	}
	if spool == nil {
		return s.r, nil
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{spool}, s.r, make([]byte, 1<<20))
		done <- err
	}()
	select {
	case err := <-done:
		return nil, err
	case <-ctx.Done(): // a read of stdin cannot be interrupted
		return nil, context.Cause(ctx)
	}
}
func (s standard) finish() (ending, error) {
	return ending{consistency: repository.Consistent}, nil
}
func (s standard) running() bool { return true }
func (s standard) waited() bool  { return false }
func (s standard) reads() string { return "" }

func (p *producer) running() bool { return false }
func (p *producer) waited() bool  { return p.holds }
func (p *producer) reads() string { return p.dir }

// open starts the program. Its stdout is the spool, or the returned reader if spool
// is nil. When ctx is done, the program's process group gets SIGTERM, and later
// SIGKILL. If the program supports trees, it gets the digest of the stored tree in
// UNLESS_TREE, and writes the digest of the current tree to descriptor 3.
func (p *producer) open(ctx context.Context, tree string, spool *os.File) (io.Reader, error) {
	r, w := (*os.File)(nil), spool
	var err error
	if spool == nil {
		if r, w, err = os.Pipe(); err != nil {
			return nil, err
		}
		defer w.Close() // the program has its own copy
		widen(w)
	}
	p.out = r
	if !p.trees {
		return r, p.start(ctx, nil, w)
	}
	p.env = append(p.env, "UNLESS_TREE="+cmp.Or(tree, "-"))
	return r, p.startWithFD3(ctx, w)
}

// startWithFD3 starts the program with a pipe as its descriptor 3, before p.extra.
func (p *producer) startWithFD3(ctx context.Context, stdout *os.File) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer w.Close()
	p.fd3, p.extra = r, append([]*os.File{w}, p.extra...)
	return p.start(ctx, nil, stdout)
}

// close discards output of the program that the caller has not read.
func (p *producer) close() {
	if p.out != nil {
		p.out.Close()
	}
	if p.fd3 != nil {
		p.fd3.Close()
	}
}

// widen enlarges the buffer of f if f is a pipe. Larger reads and writes are faster.
func widen(f *os.File) {
	const setPipeSize = 1031                                                 // F_SETPIPE_SZ of fcntl(2)
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), setPipeSize, 1<<20) // not required, so errors are ignored
}

func (p *producer) start(ctx context.Context, stdin, stdout *os.File) error {
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	if stdout != nil { // a nil *os.File in an io.Writer is not nil
		p.cmd.Stdout = stdout
	}
	p.cmd.ExtraFiles = p.extra
	p.cmd.Env = append(append(os.Environ(), "SAY_DOWNTIME=yes"), p.env...)
	p.cmd.Stderr = &p.said
	p.cmd.WaitDelay = stopAfter
	// The program gets its own process group, which is signalled as a whole. If volbackup is killed, the kernel sends
	// SIGTERM to the program.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.done = make(chan error, 1)
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The kernel sends Pdeathsig when the thread that started the program ends. Keep the thread until then.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			err = p.cmd.Wait()
			close(ended)
			p.done <- err
		}
	}()
	if err := <-started; err != nil {
		p.done = nil
		return sysexits.New(sysexits.Unavailable, "command_missing", fmt.Errorf("start: %w", err)).
			WithHint("install the program, or put it in PATH")
	}
	go func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(stopAfter):
			_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
		}
	}()
	return nil
}

// wait waits for the program and returns its error.
func (p *producer) wait() error {
	if p.done == nil {
		return nil
	}
	err := <-p.done
	p.done <- err
	return err
}

// finish waits for the program and checks its exit status. GNU tar exits with
// status 1 if a file changed while it was read, and manage_volume.sh export passes
// that status on.
func (p *producer) finish() (ending, error) {
	err := p.wait()
	defer p.close()
	base := filepath.Base(p.args[0])
	status := command.Status(err)
	if status != 0 && (status != 1 || !p.tar && base != "tar" && base != "manage_volume.sh") {
		return ending{}, p.failed(err)
	}
	p.said.passOn()
	end := ending{consistency: p.consistency(status == 1)}
	if status == 0 && p.trees {
		end.tree = tree(p.readFD3())
	}
	return end, nil
}

// consistency returns the consistency of the archive. changed says whether a file
// changed while it was read.
func (p *producer) consistency(changed bool) string {
	switch {
	case p.said.saw("container_killed", "killed_by_docker"):
		return repository.Killed
	case changed:
		return repository.Changed
	}
	return repository.Consistent
}

// downtime waits for the program, and returns for how many seconds containers were down.
// known is false if some of them may still be down, or if the program was killed before
// it printed the time.
func (p *producer) downtime() (seconds float64, known bool) {
	ended := p.wait()
	if p.said.saw("not_resumed", "still_resuming") {
		return 0, false
	}
	killed := false
	if exit, ok := errors.AsType[*exec.ExitError](ended); ok {
		killed = !exit.Exited() && !p.said.saw(containersUp)
	}
	p.said.mu.Lock()
	defer p.said.mu.Unlock()
	return p.said.down, !killed
}

// readFD3 returns what the program wrote to descriptor 3. The program has ended.
func (p *producer) readFD3() []byte {
	_ = p.fd3.SetReadDeadline(time.Now().Add(time.Second)) // a background process of the program may keep the pipe open
	text, _ := io.ReadAll(io.LimitReader(p.fd3, 1<<16))    // an incomplete digest is ignored
	return text
}

// tree returns the digest that manage_volume.sh export wrote, empty if it wrote none.
func tree(output []byte) string {
	line, _, ok := strings.Cut(string(output), "\n")
	sum, err := hex.DecodeString(line)
	if !ok || err != nil || len(sum) != sha256.Size {
		return ""
	}
	return hex.EncodeToString(sum)
}

func (p *producer) failed(err error) error {
	text := fmt.Sprintf("%s: %v", p.args[0], err) // its arguments may hold secrets
	last, hint := p.said.last()
	if last != "" {
		text += ": " + last
	}
	if hint == "" {
		hint = "run the command by hand to see its messages"
	}
	failed := sysexits.New(passedOn(command.Status(err)), "command_failed", errors.New(text)).WithHint(hint)
	return &scriptError{failed, p.said.event}
}

// passedOn returns the exit status of volbackup for that of a program. Some statuses
// have the same meaning in all tools of the toolkit: bad data, an unavailable peer, a
// full disk, a lock, bad configuration. Any other becomes 1.
func passedOn(status int) int {
	switch status {
	case sysexits.DataErr, sysexits.Unavailable, sysexits.CantCreate, sysexits.TempFail, sysexits.Config:
		return status
	}
	return sysexits.Failed
}
