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

// stopAfter is how long a program may take to end after SIGTERM: enough for
// manage_volume.sh to start containers again, less than our own five seconds.
const stopAfter = 3 * time.Second

// producer is a program that makes a tar stream, or takes one.
type producer struct {
	args  []string
	tar   bool       // its exit status 1 is GNU tar's: a file changed while it was read
	holds bool       // containers may be down as long as it runs
	dir   string     // what it reads, if that is known
	trees bool       // it knows what a tree is
	told  *os.File   // the other end of its descriptor 3
	extra []*os.File // descriptors from 4 on
	env   []string
	cmd   *exec.Cmd
	said  said
	out   *os.File
	done  chan error
}

// standard is our own stdin as a source: it has no exit status.
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

// open starts the program with its stdout as the stream or, if there is a spool,
// with the spool as its stdout. When ctx is done the program gets SIGTERM, with all
// that it started, and later SIGKILL. If it knows trees, it is told the one that is
// stored, and answers on descriptor 3 with the one that it finds.
func (p *producer) open(ctx context.Context, tree string, spool *os.File) (io.Reader, error) {
	r, w := (*os.File)(nil), spool
	var err error
	if spool == nil {
		if r, w, err = os.Pipe(); err != nil {
			return nil, err
		}
		defer w.Close() // the program has its own
		widen(w)
	}
	p.out = r
	if !p.trees {
		return r, p.start(ctx, nil, w)
	}
	p.env = append(p.env, "UNLESS_TREE="+cmp.Or(tree, "-"))
	return r, p.startTelling(ctx, w)
}

// startTelling starts the program with a pipe as its descriptor 3, before p.extra.
func (p *producer) startTelling(ctx context.Context, stdout *os.File) error {
	told, tells, err := os.Pipe()
	if err != nil {
		return err
	}
	defer tells.Close()
	p.told, p.extra = told, append([]*os.File{tells}, p.extra...)
	return p.start(ctx, nil, stdout)
}

// close gives up what the program wrote and the caller did not read.
func (p *producer) close() {
	if p.out != nil {
		p.out.Close()
	}
	if p.told != nil {
		p.told.Close()
	}
}

// widen gives a pipe the room for fewer, longer turns, if it is one.
func widen(f *os.File) {
	const setPipeSize = 1031                                                 // F_SETPIPE_SZ of fcntl(2)
	_, _, _ = syscall.Syscall(syscall.SYS_FCNTL, f.Fd(), setPipeSize, 1<<20) // it is only faster
}

func (p *producer) start(ctx context.Context, stdin, stdout *os.File) error {
	p.cmd = exec.Command(p.args[0], p.args[1:]...)
	if stdin != nil {
		p.cmd.Stdin = stdin
	}
	if stdout != nil { // a nil file is no nil writer
		p.cmd.Stdout = stdout
	}
	p.cmd.ExtraFiles = p.extra
	if len(p.env) > 0 {
		p.cmd.Env = append(os.Environ(), p.env...)
	}
	p.cmd.Stderr = &p.said
	p.cmd.WaitDelay = stopAfter
	// A process group, to be ended as a whole. If we are killed, the kernel sends it SIGTERM.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.done = make(chan error, 1)
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// The kernel sends Pdeathsig when the thread ends that started the program.
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
			WithHint("see whether it is installed and in PATH")
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

// wait returns how the program ended.
func (p *producer) wait() error {
	if p.done == nil {
		return nil
	}
	err := <-p.done
	p.done <- err
	return err
}

// finish binds the program's exit status. 1 of GNU tar, which manage_volume.sh
// export hands on, says that a file changed while it was read.
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
		end.tree = tree(p.tells())
	}
	return end, nil
}

// consistency returns how far what was read is of one moment, when it changed or
// did not change while it was read.
func (p *producer) consistency(changed bool) string {
	switch {
	case p.said.saw("container_killed", "killed_by_docker"):
		return repository.Killed
	case changed:
		return repository.Changed
	}
	return repository.Consistent
}

// tells returns what the program, which has ended, wrote to descriptor 3.
func (p *producer) tells() []byte {
	_ = p.told.SetReadDeadline(time.Now().Add(time.Second)) // a process that it left behind may hold the other end
	text, _ := io.ReadAll(io.LimitReader(p.told, 1<<16))    // what is missing is not believed
	return text
}

// tree returns the digest that manage_volume.sh export tells, empty if it tells none.
func tree(told []byte) string {
	line, _, ok := strings.Cut(string(told), "\n")
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
		hint = "run the command by hand to see what it says"
	}
	failed := sysexits.New(passedOn(command.Status(err)), "command_failed", errors.New(text)).WithHint(hint)
	return &scriptError{failed, p.said.event}
}

// passedOn returns our exit status for that of a program which has the
// toolkit's: a peer that is away, a full disk, a lock, bad configuration.
func passedOn(status int) int {
	switch status {
	case sysexits.DataErr, sysexits.Unavailable, sysexits.CantCreate, sysexits.TempFail, sysexits.Config:
		return status
	}
	return sysexits.Failed
}
