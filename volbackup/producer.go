package main

import (
	"bufio"
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
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
)

// stopAfter is how long a program may take to end after SIGTERM: enough for
// manage_volume.sh to start containers again, less than our own five seconds.
const stopAfter = 3 * time.Second

// producer is a program that makes a tar stream, or takes one.
type producer struct {
	args   []string
	tar    bool     // its exit status 1 is GNU tar's: a file changed while it was read
	holds  bool     // containers may be down as long as it runs
	folder string   // what it reads, if that is known
	trees  bool     // it knows what a tree is
	told   *os.File // where it tells
	extra  []*os.File
	env    []string
	cmd    *exec.Cmd
	said   said
	out    *os.File
	done   chan error
}

// standard is our own stdin as a source: it has no exit status.
type standard struct{ r io.Reader }

func (s standard) open(context.Context, string) (io.Reader, error) {
	if f, ok := s.r.(*os.File); ok {
		widen(f)
	}
	return s.r, nil
}
func (s standard) finish() (ending, error) { return ending{consistency: consistent}, nil }
func (s standard) running() bool           { return true }
func (s standard) waited() bool            { return false }
func (s standard) reads() string           { return "" }

func (p *producer) running() bool { return false }
func (p *producer) waited() bool  { return p.holds }
func (p *producer) reads() string { return p.folder }

// open starts the program with its stdout as the stream. When ctx is done it
// gets SIGTERM, with all that it started, and later SIGKILL. If it knows trees,
// it is told the one that is stored, and tells on descriptor 3 what there is now.
func (p *producer) open(ctx context.Context, tree string) (io.Reader, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	widen(w)
	var tells *os.File
	if p.trees {
		if p.told, tells, err = os.Pipe(); err != nil {
			r.Close()
			w.Close()
			return nil, err
		}
		defer tells.Close()
		p.extra, p.env = []*os.File{tells}, []string{"UNLESS_TREE=" + cmp.Or(tree, "-")}
	}
	err = p.start(ctx, nil, w)
	w.Close() // the program has its own
	if err != nil {
		r.Close()
		return nil, err
	}
	p.out = r
	return r, nil
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
	// A group of its own, to be ended as a whole; and if we are killed, it is told.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		return sysexits.New(sysexits.Unavailable, "command_missing", fmt.Errorf("start: %w", err)).
			WithHint("see whether it is installed and in PATH")
	}
	p.done = make(chan error, 1)
	ended := make(chan struct{})
	go func() {
		err := p.cmd.Wait()
		close(ended)
		p.done <- err
	}()
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
	p.out.Close()
	if p.told != nil {
		defer p.told.Close()
	}
	if err == nil {
		p.said.passOn()
		return ending{consistent, p.tree()}, nil
	}
	base := filepath.Base(p.args[0])
	if command.Status(err) == 1 && (p.tar || base == "tar" || base == "manage_volume.sh") {
		p.said.passOn()
		return ending{consistency: changed}, nil
	}
	return ending{}, p.failed(err)
}

// tree returns what the program, which has ended, told of what it read.
func (p *producer) tree() string {
	if p.told == nil {
		return ""
	}
	_ = p.told.SetReadDeadline(time.Now().Add(time.Second)) // something that it left behind may hold the other end
	line, err := bufio.NewReader(p.told).ReadString('\n')
	sum, bad := hex.DecodeString(strings.TrimSuffix(line, "\n"))
	if err != nil || bad != nil || len(sum) != sha256.Size {
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
	return sysexits.New(passedOn(command.Status(err)), "command_failed", errors.New(text)).WithHint(hint)
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
