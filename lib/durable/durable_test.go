package durable

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func owned(f *os.File) error { return f.Chmod(0o640) }

// files returns the names in a directory.
func files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func want(t *testing.T, path, content string) {
	t.Helper()
	if got, err := os.ReadFile(path); string(got) != content || err != nil {
		t.Errorf("%s = %.40q, %v; want %.40q", path, got, err, content)
	}
}

func put(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// limit sets a resource limit of this process until the returned function runs.
func limit(t *testing.T, resource int, n uint64) (restore func()) {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(resource, &was); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Setrlimit(resource, &syscall.Rlimit{Cur: n, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := syscall.Setrlimit(resource, &was); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "f"), filepath.Join(dir, ".new")
	put(t, temp, "a killed run left more than the next run writes")
	for _, content := range []string{"one", "two"} {
		if err := Replace(path, temp, []byte(content), owned); err != nil {
			t.Fatal(err)
		}
		want(t, path, content)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o640 {
		t.Errorf("mode %v, %v; want what own has set", info.Mode(), err)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("files %q; want no temporary file", got)
	}
}

// Another user may have planted a link under a name that can be guessed.
func TestCreateFollowsNoLink(t *testing.T) {
	for name, link := range map[string]func(string, string) error{"symbolic": os.Symlink, "hard": os.Link} {
		dir := t.TempDir()
		theirs, temp := filepath.Join(dir, "theirs"), filepath.Join(dir, ".new")
		put(t, theirs, "theirs")
		if err := link(theirs, temp); err != nil {
			t.Fatal(err)
		}
		f, err := Create(temp)
		if err != nil {
			t.Fatalf("%s link: %v", name, err)
		}
		if _, err := f.WriteString("ours"); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		want(t, theirs, "theirs")
		want(t, temp, "ours")
	}
}

// Each error names a path, leaves the old file and no temporary file.
func TestReplaceFails(t *testing.T) {
	signal.Ignore(syscall.SIGXFSZ) // write(2) then returns EFBIG
	defer signal.Reset(syscall.SIGXFSZ)
	denied := errors.New("denied")
	for name, tc := range map[string]struct {
		prepare func(path, temp string) (restore func())
		own     func(*os.File) error
		want    error
		left    []string
	}{
		"no room for all of it": {func(_, _ string) func() { return limit(t, syscall.RLIMIT_FSIZE, 1000) }, owned, syscall.EFBIG, []string{"f"}},
		"no fsync": {nil, func(f *os.File) error {
			// The kernel cannot fsync /dev/null.
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			return errors.Join(syscall.Dup3(int(null.Fd()), int(f.Fd()), 0), null.Close())
		}, syscall.EINVAL, []string{"f"}},
		"no owner": {nil, func(*os.File) error { return denied }, denied, []string{"f"}},
		"a directory has the temporary name": {func(_, temp string) func() {
			if err := os.MkdirAll(filepath.Join(temp, "below"), 0o700); err != nil {
				t.Fatal(err)
			}
			return func() {}
		}, owned, syscall.ENOTEMPTY, []string{".new", "f"}},
		"no directory": {func(path, _ string) func() {
			dir := filepath.Dir(path)
			if err := os.Rename(dir, dir+".moved"); err != nil {
				t.Fatal(err)
			}
			return func() {
				if err := os.Rename(dir+".moved", dir); err != nil {
					t.Fatal(err)
				}
			}
		}, owned, fs.ErrNotExist, []string{"f"}},
	} {
		dir := filepath.Join(t.TempDir(), "dir")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		path, temp := filepath.Join(dir, "f"), filepath.Join(dir, ".new")
		put(t, path, "old")
		restore := func() {}
		if tc.prepare != nil {
			restore = tc.prepare(path, temp)
		}
		err := Replace(path, temp, bytes.Repeat([]byte("new"), 1000), tc.own)
		restore()
		if !errors.Is(err, tc.want) || tc.want != denied && !strings.Contains(fmt.Sprint(err), dir) {
			t.Errorf("%s: Replace = %v; want %v and a path", name, err, tc.want)
		}
		want(t, path, "old")
		if got := files(t, dir); !slices.Equal(got, tc.left) {
			t.Errorf("%s: files %q; want %q", name, got, tc.left)
		}
	}
}

func TestReplaceOverADirectory(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, filepath.Join(dir, ".new"), nil, owned); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("Replace = %v; want an error that names %s", err, path)
	}
	if got := files(t, dir); !slices.Equal(got, []string{"f"}) {
		t.Errorf("files %q; want no temporary file", got)
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	put(t, path, "x")
	for _, is := range []string{"there", "missing"} {
		if err := Remove(path); err != nil {
			t.Errorf("Remove of a file that is %s: %v", is, err)
		}
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("files %q; want none", got)
	}
	put(t, filepath.Join(dir, "below"), "x")
	if err := Remove(dir); !errors.Is(err, syscall.ENOTEMPTY) {
		t.Errorf("Remove of a directory with a file = %v; want ENOTEMPTY", err)
	}
}

// A directory that cannot be opened cannot be synced: the change is made, but the
// caller learns that it may not survive a power loss.
func TestUnsyncable(t *testing.T) {
	dir := t.TempDir()
	temp, path, renamed := filepath.Join(dir, ".new"), filepath.Join(dir, "f"), filepath.Join(dir, "renamed")
	restore := func() {}
	replace := Replace(path, temp, nil, func(*os.File) error {
		restore = limit(t, syscall.RLIMIT_NOFILE, 0)
		return nil
	})
	rename, remove := Rename(path, renamed), Remove(renamed)
	restore()
	for name, err := range map[string]error{"Replace": replace, "Rename": rename, "Remove": remove} {
		if e, ok := errors.AsType[*os.PathError](err); !ok || e.Path != dir || e.Err != syscall.EMFILE {
			t.Errorf("%s = %v; want EMFILE and the path %s", name, err, dir)
		}
	}
	if got := files(t, dir); len(got) > 0 {
		t.Errorf("files %q; want none", got)
	}
}

func TestSyncDir(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	if err := SyncDir(missing); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), missing) {
		t.Errorf("SyncDir = %v; want that %s does not exist", err, missing)
	}
	// fsync of a directory in /proc returns EINVAL, as on some network file systems.
	if err := SyncDir("/proc/self"); err != nil {
		t.Errorf("SyncDir on a file system without fsync = %v; want nil", err)
	}
}

const (
	killedDir = "DURABLE_TEST_DIR"
	size      = 256 << 10
)

// TestKilled kills a process that replaces a file again and again. The file always
// holds all of one content, and what the process leaves does not hinder the next.
func TestKilled(t *testing.T) {
	if dir := os.Getenv(killedDir); dir != "" {
		replaceUntilKilled(dir)
	}
	const rounds = 20
	dir := t.TempDir()
	path, temp := filepath.Join(dir, "f"), filepath.Join(dir, ".new")
	halves := 0
	for round := range rounds {
		cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), killedDir+"="+dir)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
			t.Fatalf("the process that replaces the file says %q, %v", line, err)
		}
		// Kill it at another moment in each round, while a temporary file exists.
		for deadline := time.Now().Add(time.Minute); ; {
			if _, err := os.Lstat(temp); err == nil {
				break
			}
			if time.Now().After(deadline) {
				_ = cmd.Process.Kill()
				t.Fatal("the process has made no temporary file for a minute")
			}
		}
		time.Sleep(time.Duration(round) * 200 * time.Microsecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // its status is that of the signal
		if _, err := os.Lstat(temp); err == nil {
			halves++
		}
		got, err := os.ReadFile(path)
		if err != nil || len(got) != size || len(bytes.Trim(got, string(got[:1]))) > 0 {
			t.Fatalf("round %d: the file is torn: %d bytes, %v", round, len(got), err)
		}
	}
	t.Logf("%d of %d kills left a temporary file", halves, rounds)
	if halves < rounds/4 {
		t.Errorf("only %d of %d kills hit a replacement", halves, rounds)
	}
}

func replaceUntilKilled(dir string) {
	for i := 0; ; i++ {
		content := bytes.Repeat([]byte{'a' + byte(i%26)}, size)
		if err := Replace(filepath.Join(dir, "f"), filepath.Join(dir, ".new"), content, owned); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		if i == 1 {
			fmt.Println("ready")
		}
	}
}
