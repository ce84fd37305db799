package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/cli"
	"observability-hub/sysmetrics/internal/statfs"
)

// TestMain keeps variables that configure the tool from the tests. As a fleet,
// the test binary runs no test.
func TestMain(m *testing.M) {
	if os.Getenv(fleetVariable) != "" {
		if err := runFleet(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
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

// statfsFunc answers for one mount in a test.
type statfsFunc func(point string) (statfs.Usage, error)

// asks converts a statfsFunc to the type that collect uses. A mount below /hangs never answers.
func (f statfsFunc) asks() func(context.Context, []string) []statfs.Answer {
	if f == nil {
		return nil
	}
	return func(_ context.Context, points []string) []statfs.Answer {
		answers := make([]statfs.Answer, len(points))
		for i, point := range points {
			if strings.HasPrefix(point, "/hangs") {
				answers[i].Err = statfs.ErrHung
			} else {
				answers[i].Usage, answers[i].Err = f(point)
			}
		}
		return answers
	}
}

var errNoFixture = errors.New("the fixture does not say")

// fixtureStatfs answers from the file statfs of a fixture: a line for each
// mount, its point escaped as in mountinfo, then the numbers, or ! and an error.
func fixtureStatfs(fixture string) statfsFunc {
	return func(point string) (statfs.Usage, error) {
		data, err := os.ReadFile(filepath.Join(fixture, "statfs"))
		if err != nil {
			return statfs.Usage{}, err
		}
		for line := range strings.Lines(string(data)) {
			name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			if unescape([]byte(name)) != point {
				continue
			}
			if reason, ok := strings.CutPrefix(rest, "! "); ok {
				return statfs.Usage{}, errors.New(reason)
			}
			var u statfs.Usage
			if _, err := fmt.Sscan(rest, &u.Total, &u.Free, &u.Available, &u.Inodes, &u.InodesFree, &u.Magic); err != nil {
				return statfs.Usage{}, fmt.Errorf("%s: line %q: %w", fixture, line, err)
			}
			return u, nil
		}
		return statfs.Usage{}, fmt.Errorf("%s: %s: %w", fixture, point, errNoFixture)
	}
}

// result is the result of a run of the tool.
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
			c.ask = ask.asks()
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

// writeTree writes files below dir, and creates the directories that they need.
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

// wantKept checks that the state file can hold the counters that a parser
// accepted. The next run could not read a file with a name that breaks a line.
func wantKept(t *testing.T, c counters) {
	t.Helper()
	s := &snapshot{bootID: "b", counters: c}
	got, err := decodeState(s.encode())
	if err != nil || !maps.Equal(got.counters, c) {
		t.Fatalf("decodeState(encode(%v)) = %+v, %v; want the same", c, got, err)
	}
}

// deny makes a path that even root cannot read, by creating a directory in place
// of the file. Reading it fails with EISDIR, which is an error like EACCES.
func deny(t testing.TB, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
}
