package statedir

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func open(t *testing.T, path string) *Dir {
	t.Helper()
	d, err := Open(context.Background(), path, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func TestResolve(t *testing.T) {
	varLib := t.TempDir()
	for _, name := range []string{"reading-sync", "gitops-apply"} {
		if err := os.Mkdir(filepath.Join(varLib, name), 0o750); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(varLib, "system-metrics"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	mine := os.Geteuid()
	for _, tc := range []struct {
		euid                                   int
		flag, unit, family, systemd, xdg, home string
		want                                   string
	}{
		{0, "/flag", "reading-sync", "reading-sync", "/systemd", "/xdg", "/home/u", "/flag"},
		{0, "", "reading-sync", "reading-sync", "/systemd", "/xdg", "/home/u", "/systemd"},
		{0, "", "reading-sync", "reading-sync", "/systemd:/second", "/xdg", "/home/u", "/systemd"},
		// By hand: the unit's state, for root and for the user of the unit.
		{0, "", "reading-sync", "reading-sync", "", "/xdg", "/root", varLib + "/reading-sync"},
		{mine, "", "reading-sync", "reading-sync", "", "/xdg", "/home/u", varLib + "/reading-sync"},
		{mine + 1, "", "reading-sync", "reading-sync", "", "/xdg", "/home/u", "/xdg/reading-sync"},
		{mine + 1, "", "reading-sync", "reading-sync", "", "", "/home/u", "/home/u/.local/state/reading-sync"},
		// A command whose unit has another state directory than its family.
		{0, "", "gitops-apply", "gitops-sync", "", "", "/root", varLib + "/gitops-apply"},
		{0, "", "gitops-sync", "gitops-sync", "", "", "/root", "/root/.local/state/gitops-sync"},
		{mine + 1, "", "gitops-apply", "gitops-sync", "", "", "/home/u", "/home/u/.local/state/gitops-sync"},
		// The unit never ran, and a file is not a state directory.
		{0, "", "volume-backup", "volume-backup", "", "", "/root", "/root/.local/state/volume-backup"},
		{0, "", "system-metrics", "system-metrics", "", "/xdg", "/root", "/xdg/system-metrics"},
	} {
		t.Setenv("STATE_DIRECTORY", tc.systemd)
		t.Setenv("XDG_STATE_HOME", tc.xdg)
		t.Setenv("HOME", tc.home)
		if got, err := resolve(varLib, tc.euid, tc.flag, tc.unit, tc.family); got != tc.want || err != nil {
			t.Errorf("resolve(%+v) = %q, %v; want %q", tc, got, err, tc.want)
		}
	}
	t.Setenv("HOME", "")
	t.Setenv("XDG_STATE_HOME", "")
	if _, err := resolve(varLib, mine+1, "", "x", "x"); sysexits.Code(err) != sysexits.Config {
		t.Errorf("resolve without a home: %v; want status 78", err)
	}
}

// A command that only asks takes the state of the unit if the user has none and names none.
func TestExisting(t *testing.T) {
	varLib, home := t.TempDir(), t.TempDir()
	for _, dir := range []string{filepath.Join(varLib, "both"), filepath.Join(varLib, "unit"), filepath.Join(home, "both")} {
		if err := os.Mkdir(dir, 0o750); err != nil {
			t.Fatal(err)
		}
	}
	other := os.Geteuid() + 1
	for _, tc := range []struct {
		flag, systemd, unit, want string
	}{
		{"", "", "both", home + "/both"},
		{"", "", "unit", varLib + "/unit"},
		{"", "", "none", home + "/none"},
		{"/flag", "", "unit", "/flag"},
		{"", "/systemd", "unit", "/systemd"},
	} {
		t.Setenv("STATE_DIRECTORY", tc.systemd)
		t.Setenv("XDG_STATE_HOME", home)
		if got, err := existing(varLib, other, tc.flag, tc.unit, tc.unit); got != tc.want || err != nil {
			t.Errorf("existing(%+v) = %q, %v", tc, got, err)
		}
	}
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	if got, err := existing(varLib, other, "", "unit", "unit"); got != varLib+"/unit" || err != nil {
		t.Errorf("existing without a home = %q, %v", got, err)
	}
}

// State that cannot be read is not damaged: no hint proposes to replace it.
func TestUnreadable(t *testing.T) {
	failure := func(errno error) error {
		return fmt.Errorf("ledger: %w", &os.PathError{Op: "open", Path: "/state/file", Err: errno})
	}
	for name, tc := range map[string]struct {
		err         error
		code        int
		event, hint string
	}{
		"no permission":   {failure(syscall.EACCES), sysexits.Failed, "permission_denied", "as root, or as a user or in a group that may read it: namei -l /state/file"},
		"not permitted":   {failure(syscall.EPERM), sysexits.Failed, "permission_denied", "namei -l /state/file"},
		"bad disk":        {failure(syscall.EIO), sysexits.Failed, "failed", "keep it: journalctl -k -p err shows errors of the disk; findmnt -T /state"},
		"not a directory": {failure(syscall.ENOTDIR), sysexits.CantCreate, "state_unwritable", "move it away"},
	} {
		err := Unreadable(tc.err)
		e, ok := errors.AsType[*sysexits.Error](err)
		if !ok || e.Code != tc.code || e.Event != tc.event || !strings.Contains(e.Hint, tc.hint) || !strings.Contains(err.Error(), "/state/file") {
			t.Errorf("%s: %#v", name, err)
		}
	}
	for _, err := range []error{failure(syscall.ENOENT), errors.New("x"), sysexits.New(sysexits.DataErr, "x", failure(syscall.EIO))} {
		if got := Unreadable(err); got != err {
			t.Errorf("Unreadable(%v) = %#v", err, got)
		}
	}
}

// The mode of the directory, not that of a file without secrets, decides who can read it.
func TestWriteReadable(t *testing.T) {
	d := open(t, t.TempDir())
	if err := errors.Join(d.WriteReadable("status", []byte("x")), d.WriteFile("secret", []byte("x"))); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"status": 0o644, "secret": 0o600} {
		if info, err := os.Stat(d.Join(name)); err != nil || info.Mode() != want {
			t.Errorf("%s: %v, %v; want mode %v", name, info.Mode(), err, want)
		}
	}
}

func TestRequire(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]int{dir: sysexits.OK, filepath.Join(dir, "none"): sysexits.Config, file: sysexits.CantCreate, filepath.Join(file, "below"): sysexits.CantCreate} {
		if err := Require(path); sysexits.Code(err) != want || err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("Require(%s) = %v; want status %d and the path", path, err, want)
		}
	}
}

// Two units that start at once may create the same directories.
func TestMkdirAllAtOnce(t *testing.T) {
	for range 100 {
		path := filepath.Join(t.TempDir(), "a/b/c")
		errs := make(chan error, 8)
		start := make(chan struct{})
		for range cap(errs) {
			go func() {
				<-start
				errs <- MkdirAll(path, 0o700)
			}()
		}
		close(start)
		for range cap(errs) {
			if err := <-errs; err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A hint names the directory and a command or a flag, so that it can be followed.
func TestHintsName(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "")
	t.Setenv("XDG_STATE_HOME", "")
	t.Setenv("HOME", "")
	_, homeless := resolve(t.TempDir(), os.Geteuid()+1, "", "x", "x")
	failure := func(errno error) error {
		return Unwritable(fmt.Errorf("replace: %w", &os.PathError{Op: "open", Path: "/state/file", Err: errno}))
	}
	for name, tc := range map[string]struct {
		err  error
		want []string
	}{
		"no home":         {homeless, []string{"--state-dir DIR"}},
		"another owner":   {failure(syscall.EACCES), []string{"ls -ld /state shows", "run as that user", "--state-dir DIR"}},
		"read-only":       {failure(syscall.EROFS), []string{"findmnt -T /state shows", "sandbox", "--state-dir DIR"}},
		"full":            {failure(syscall.ENOSPC), []string{"df -h /state; df -i /state show", "unchanged"}},
		"quota exceeded":  {failure(syscall.EDQUOT), []string{"unchanged"}},
		"not a directory": {failure(syscall.ENOTDIR), []string{"move it away", "--state-dir DIR"}},
		"rename":          {Unwritable(&os.LinkError{Op: "rename", Old: "/state/.x", New: "/state/x", Err: syscall.EPERM}), []string{"ls -ld /state shows"}},
		"no path":         {Unwritable(syscall.EACCES), []string{"run as that user", "--state-dir DIR"}},
	} {
		e, ok := errors.AsType[*sysexits.Error](tc.err)
		if !ok {
			t.Fatalf("%s: %v carries no hint", name, tc.err)
		}
		for _, want := range tc.want {
			if !strings.Contains(e.Hint, want) {
				t.Errorf("%s: hint %q; want %q in it", name, e.Hint, want)
			}
		}
	}
}

// What root writes by hand into the state of a service belongs to the service,
// which could not replace it otherwise.
func TestFilesBelongToTheOwnerOfTheDirectory(t *testing.T) {
	const uid, gid = 4711, 4712
	if os.Geteuid() != 0 {
		t.Skip("needs root: make test runs it")
	}
	path := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(path, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(path, uid, gid); err != nil {
		t.Fatal(err)
	}
	d := open(t, path)
	if u, g, ok := d.Owner(); u != uid || g != gid || !ok {
		t.Errorf("Owner = %d, %d, %v; want %d, %d, true", u, g, ok, uid, gid)
	}
	if err := d.WriteFile("replaced", nil); err != nil {
		t.Fatal(err)
	}
	for range 2 { // created, then opened
		f, err := d.OpenFile("appended", os.O_CREATE|os.O_APPEND|os.O_WRONLY)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString("x"); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if b, err := os.ReadFile(d.Join("appended")); string(b) != "xx" || err != nil {
		t.Errorf("appended = %q, %v", b, err)
	}
	below := open(t, d.Join("repository/volume"))
	if err := below.WriteFile("archive", nil); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"replaced", "appended", "repository", "repository/volume", "repository/volume/archive"} {
		info, err := os.Stat(d.Join(name))
		if err != nil {
			t.Fatal(err)
		}
		if u, g := owner(info); u != uid || g != gid {
			t.Errorf("%s belongs to %d:%d; want %d:%d", name, u, g, uid, gid)
		}
	}

	// The service may plant links. Root must not write through them, and must not
	// change the owner of files that it did not create.
	outside := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, d.Join("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(outside, d.Join("hard")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]error{"link": syscall.ELOOP, "hard": nil} {
		f, err := d.OpenFile(name, os.O_CREATE|os.O_WRONLY)
		if !errors.Is(err, want) {
			t.Errorf("OpenFile(%s) = %v; want %v", name, err, want)
		}
		f.Close()
	}
	info, err := os.Stat(outside)
	if err != nil {
		t.Fatal(err)
	}
	if u, _ := owner(info); u != 0 {
		t.Errorf("a file that was there before belongs to %d now", u)
	}
}

func TestOneRunAtATime(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	first := open(t, path)
	if _, err := Open(context.Background(), path, 0); sysexits.Code(err) != sysexits.TempFail {
		t.Fatalf("second Open = %v; want status 75", err)
	}
	waited := make(chan error)
	go func() {
		d, err := Open(context.Background(), path, time.Minute)
		if err == nil {
			err = d.Close()
		}
		waited <- err
	}()
	first.Close()
	if err := <-waited; err != nil {
		t.Errorf("Open that waits = %v; want the lock once it is free", err)
	}
}

func TestWriteFileReplaces(t *testing.T) {
	d := open(t, t.TempDir())
	for _, content := range []string{"one", "two"} {
		if err := d.WriteFile("f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(d.Join("f")); string(got) != content || err != nil {
			t.Errorf("file = %q, %v; want %q", got, err, content)
		}
	}
	if names, _ := filepath.Glob(d.Join(".*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

func TestReplaceVolatile(t *testing.T) {
	d := open(t, t.TempDir())
	// A killed write left a longer file than the next write.
	if err := os.WriteFile(d.Join(".f.new"), []byte("half of a longer file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, content := range []string{"one", "two"} {
		if err := d.ReplaceVolatile("f", []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(d.Join("f")); string(got) != content || err != nil {
			t.Errorf("file = %q, %v; want %q", got, err, content)
		}
	}
	if err := os.Mkdir(d.Join("dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.ReplaceVolatile("dir", nil); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("ReplaceVolatile over a directory = %v; want status 73", err)
	}
	if names, _ := filepath.Glob(d.Join(".*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}

// Open removes the files of a killed write. Other files that begin with a dot may belong to the user.
func TestOpenClearsInterruptedWrites(t *testing.T) {
	path := t.TempDir()
	files := map[string]bool{ // name and whether Open keeps it
		".counters5077205623554730037": false, ".spool.jsonl807205623554730": false,
		"counters": true, ".bashrc": true, ".pgpass": true, ".X0-lock": true, ".env2024": true,
		"5077205623554730037": true,
	}
	for name := range files {
		if err := os.WriteFile(filepath.Join(path, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(path, ".folder5077205623554730037"), 0o700); err != nil {
		t.Fatal(err)
	}
	files[".folder5077205623554730037"] = true
	d := open(t, path)
	for name, stays := range files {
		if _, err := os.Lstat(d.Join(name)); (err == nil) != stays {
			t.Errorf("%s is there: %v; want %v", name, err == nil, stays)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Join(file, "below")} {
		if _, err := Open(context.Background(), path, 0); sysexits.Code(err) != sysexits.CantCreate {
			t.Errorf("Open(%s) = %v; want status 73", path, err)
		}
	}
}

func TestReadFile(t *testing.T) {
	d, err := Open(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.ReadFile("missing"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
	if err := os.WriteFile(d.Join("file"), []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := d.ReadFile("file"); string(b) != "content" || err != nil {
		t.Errorf("ReadFile = %q, %v", b, err)
	}
}

// What root writes into the directory of another user belongs to that user, a link too.
func TestInherit(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: make test runs it")
	}
	dir := t.TempDir()
	theirs := filepath.Join(dir, "theirs")
	if err := errors.Join(os.Mkdir(theirs, 0o700), os.Chown(theirs, 12345, 12346), os.Mkdir(filepath.Join(theirs, "below"), 0o700)); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(theirs, "below", "link")
	if err := os.Symlink("/etc/hostname", link); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Inherit(link, theirs), Inherit(theirs, dir)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][2]int{link: {12345, 12346}, theirs: {12345, 12346}} {
		info, err := os.Lstat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid, gid := owner(info); uid != want[0] || gid != want[1] {
			t.Errorf("%s belongs to %d:%d; want %v", path, uid, gid, want)
		}
	}
	if err := Inherit(filepath.Join(theirs, "none"), theirs); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Inherit of a missing file: %v", err)
	}
}
