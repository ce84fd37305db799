package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/command"
)

// usage is the space and the inodes of a file system, as statfs(2) has them.
type usage struct {
	total, free, available uint64 // bytes; free counts what only root may use
	inodes, inodesFree     uint64 // both 0 where there are no fixed inodes
	magic                  int64
}

// statfsFunc asks the file system that is mounted at point.
type statfsFunc func(point string) (usage, error)

func statfs(path string) (usage, error) {
	var st syscall.Statfs_t
	for {
		err := syscall.Statfs(path, &st)
		if err == nil {
			break
		}
		if err != syscall.EINTR {
			return usage{}, fmt.Errorf("statfs: %w", err)
		}
	}
	size := uint64(st.Frsize)
	if size == 0 {
		size = uint64(st.Bsize)
	}
	return usage{
		total: st.Blocks * size, free: st.Bfree * size, available: st.Bavail * size,
		inodes: st.Files, inodesFree: st.Ffree, magic: int64(st.Type),
	}, nil
}

// statfsCmd is the disposable process that asks the mounts which may never
// answer: the process that waits for them can then still exit. It prints a
// line for each mount as its answer comes.
type statfsCmd struct {
	Points []string `arg:""`

	statfs statfsFunc `kong:"-"` // in tests: what the mounts say
}

func (s *statfsCmd) Run(_ context.Context, env *cli.Env) error {
	ask := s.statfs
	if ask == nil {
		ask = statfs
	}
	answers := make(chan string)
	for i, point := range s.Points {
		go func() { // a hung statfs holds its thread, so each has its own
			u, err := ask(point)
			text := ""
			if err != nil {
				text = err.Error()
			}
			answers <- fmt.Sprintf("%d %d %d %d %d %d %d %s\n",
				i, u.total, u.free, u.available, u.inodes, u.inodesFree, u.magic, text)
		}()
	}
	for range s.Points {
		if _, err := io.WriteString(env.Stdout, <-answers); err != nil {
			return err
		}
	}
	return nil
}

// errHung says that a mount did not answer in time.
var errHung = errors.New("statfs: no answer")

// statfsDeadline is how long all doubtful mounts together may take.
const statfsDeadline = 2 * time.Second

// statfsApart asks mounts in a process of its own and returns what came within
// the deadline. The result has an answer or an error for each of points; one
// that did not answer has errHung.
func statfsApart(ctx context.Context, points []string) ([]usage, []error) {
	usages, errs := make([]usage, len(points)), make([]error, len(points))
	ctx, cancel := context.WithTimeout(ctx, statfsDeadline)
	defer cancel()
	out, err := command.Cmd{
		Args: append([]string{command.Self(), "statfs", "--"}, points...),
		Env:  []string{},
	}.Output(ctx)
	fallback := errHung
	if ctx.Err() == nil && err != nil {
		fallback = fmt.Errorf("statfs: %w", err)
	}
	for i := range errs {
		errs[i] = fallback
	}
	for line := range strings.Lines(string(out)) {
		var i int
		var u usage
		_, err := fmt.Sscan(line, &i, &u.total, &u.free, &u.available, &u.inodes, &u.inodesFree, &u.magic)
		if err != nil || i < 0 || i >= len(points) {
			continue
		}
		usages[i], errs[i] = u, nil
		if parts := strings.SplitN(strings.TrimSuffix(line, "\n"), " ", 8); len(parts) == 8 && parts[7] != "" {
			errs[i] = errors.New(parts[7])
		}
	}
	return usages, errs
}
