package volbackup

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"observability-hub/e2e/workspace"
)

// world is volbackup with a directory of volumes, a stand-in for manage_volume.sh and a
// repository.
type world struct {
	tb      testing.TB
	dir     string // volumes/ and repo/
	repo    string
	volumes string
	binary  string
	env     []string
}

func newWorld(tb testing.TB) *world {
	tb.Helper()
	binary, err := workspace.Binary("volbackup")
	if err != nil {
		tb.Fatal(err)
	}
	bin, err := filepath.Abs(filepath.Join("testdata", "bin"))
	if err != nil {
		tb.Fatal(err)
	}
	w := &world{tb: tb, dir: tb.TempDir(), binary: binary}
	w.repo, w.volumes = filepath.Join(w.dir, "repo"), filepath.Join(w.dir, "volumes")
	w.env = []string{"PATH=" + bin + ":" + filepath.Dir(binary) + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + w.dir, "VOLUMES=" + w.volumes, "VOLBACKUP_REPO=" + w.repo}
	return w
}

// fill writes one file of n random bytes to a volume.
func (w *world) fill(volume string, n int, seed uint64) {
	w.tb.Helper()
	if err := os.MkdirAll(filepath.Join(w.volumes, volume), 0o755); err != nil {
		w.tb.Fatal(err)
	}
	content := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(content)
	if err := os.WriteFile(filepath.Join(w.volumes, volume, "file"), content, 0o644); err != nil {
		w.tb.Fatal(err)
	}
}

// result is the exit status and the output of a program.
type result struct {
	status         int // 128 and more for a signal
	stdout, stderr string
}

func (w *world) command(args ...string) *exec.Cmd {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env, cmd.Dir = w.env, w.dir
	return cmd
}

// try runs volbackup.
func (w *world) try(args ...string) result {
	w.tb.Helper()
	return w.finish(w.command(append([]string{w.binary}, args...)...))
}

func (w *world) finish(cmd *exec.Cmd) result {
	w.tb.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		w.tb.Fatal(err)
	}
	status := cmd.ProcessState.ExitCode()
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	return result{status, out.String(), errs.String()}
}

// want runs volbackup, and fails the test unless it exits with that status.
func (w *world) want(status int, args ...string) result {
	w.tb.Helper()
	got := w.try(args...)
	if got.status != status {
		w.tb.Fatalf("volbackup %s: status %d; want %d\n%s\n%s", strings.Join(args, " "), got.status, status, got.stdout, got.stderr)
	}
	return got
}

// archives returns the published archive files of a volume.
func (w *world) archives(volume string) []string {
	w.tb.Helper()
	found, err := filepath.Glob(filepath.Join(w.repo, volume, "[0-9]*.tar.zst"))
	if err != nil {
		w.tb.Fatal(err)
	}
	return found
}

// whole fails the test unless every published file is a complete archive for zstd and
// tar.
func (w *world) whole(when string) {
	w.tb.Helper()
	for _, path := range w.archives("*") {
		got := w.finish(w.command("sh", "-c", `zstd -dc "$0" >archive.tar && tar -tf archive.tar >list && tail -c 1024 archive.tar | tr -d '\0' | wc -c`, path))
		if got.status != 0 || strings.TrimSpace(got.stdout) != "0" {
			w.tb.Fatalf("%s: %s is not a complete archive: %s%s", when, path, got.stdout, got.stderr)
		}
	}
}

// leftovers returns the temporary files in the repository.
func (w *world) leftovers() []string {
	w.tb.Helper()
	var left []string
	for _, pattern := range []string{".*", "*/.tmp-*"} {
		found, err := filepath.Glob(filepath.Join(w.repo, pattern))
		if err != nil {
			w.tb.Fatal(err)
		}
		left = append(left, found...)
	}
	// The inventory is not a temporary file.
	return slices.DeleteFunc(left, func(path string) bool { return filepath.Base(path) == ".volumes.json" })
}
