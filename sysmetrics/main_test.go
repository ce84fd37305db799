package main

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"observability-hub/lib/cli"
)

// TestMain makes the test binary its own disposable child: asked for statfs as
// the tool asks itself, it answers with what the fixtures say. Variables that
// configure the tool do not reach the tests.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "statfs" {
		a := app()
		a.Commands = []cli.Command{{Name: "statfs", Grammar: &statfsCmd{statfs: childStatfs}}}
		os.Exit(cli.Main(a, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "SYSMETRICS_") || strings.HasPrefix(name, "PG") ||
			name == "DATABASE_URL" || name == "CREDENTIALS_DIRECTORY" || name == "STATE_DIRECTORY" || name == "JOURNAL_STREAM" {
			os.Unsetenv(name)
		}
	}
	os.Exit(m.Run())
}

// childStatfs answers for the mounts of all fixtures. A mount below /hangs has
// a server that does not answer: the call holds its thread in the kernel, and
// only the end of the process ends it.
func childStatfs(point string) (usage, error) {
	if strings.HasPrefix(point, "/hangs") {
		var ends [2]int
		if err := syscall.Pipe(ends[:]); err != nil {
			return usage{}, err
		}
		_, err := syscall.Read(ends[0], make([]byte, 1))
		return usage{}, err
	}
	kinds, err := filepath.Glob("testdata/*/statfs")
	if err != nil {
		return usage{}, err
	}
	for _, path := range kinds {
		if u, err := fixtureStatfs(filepath.Dir(path))(point); !errors.Is(err, errNoFixture) {
			return u, err
		}
	}
	return statfs(point)
}

var errNoFixture = errors.New("the fixture does not say")

// fixtureStatfs answers from the file statfs of a fixture: a line for each
// mount, its point escaped as in mountinfo, then the numbers, or ! and an error.
func fixtureStatfs(fixture string) statfsFunc {
	return func(point string) (usage, error) {
		data, err := os.ReadFile(filepath.Join(fixture, "statfs"))
		if err != nil {
			return usage{}, err
		}
		for line := range strings.Lines(string(data)) {
			name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			if unescape([]byte(name)) != point {
				continue
			}
			if reason, ok := strings.CutPrefix(rest, "! "); ok {
				return usage{}, errors.New(reason)
			}
			var u usage
			if _, err := fmt.Sscan(rest, &u.total, &u.free, &u.available, &u.inodes, &u.inodesFree, &u.magic); err != nil {
				return usage{}, fmt.Errorf("%s: line %q: %w", fixture, line, err)
			}
			return u, nil
		}
		return usage{}, fmt.Errorf("%s: %s: %w", fixture, point, errNoFixture)
	}
}

// result is what a run of the tool left behind.
type result struct {
	stdout, stderr string
	status         int
}

// run runs the tool as its main function does, with statfs answered by ask.
func run(t testing.TB, ask statfsFunc, stdin string, args ...string) result {
	t.Helper()
	a := app()
	for i := range a.Commands {
		if c, ok := a.Commands[i].Grammar.(*collectCmd); ok {
			c.statfs = ask
		}
	}
	stdout, stderr := tempFile(t), tempFile(t)
	status := cli.Main(a, args, strings.NewReader(stdin), stdout, stderr)
	return result{content(t, stdout), content(t, stderr), status}
}

func tempFile(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "stream")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t testing.TB, f *os.File) string {
	t.Helper()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// writeTree writes files below dir, making the folders that they need.
func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// fixtures returns the content of a file in every copied /proc, as seeds.
func fixtures(t testing.TB, name string) [][]byte {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join("testdata/*/proc/1", name))
	if err != nil || len(paths) == 0 {
		t.Fatalf("no fixture has %s: %v", name, err)
	}
	var all [][]byte
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, data)
	}
	return all
}

// wantKept checks that the state file can hold what a parser accepted: counters
// whose names would break its lines would make the next run begin anew.
func wantKept(t *testing.T, c counters) {
	t.Helper()
	s := &snapshot{bootID: "b", counters: c}
	got, err := decodeState(s.encode())
	if err != nil || !maps.Equal(got.counters, c) {
		t.Fatalf("decodeState(encode(%v)) = %+v, %v; want the same", c, got, err)
	}
}
