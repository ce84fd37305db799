// Package workspace finds the project's root and builds its tools for the tests that drive them.
package workspace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// binEnv names a directory of binaries to test instead of newly built ones, for example those of an installed package.
const binEnv = "HUB_BIN_DIR"

// Root returns the directory that contains go.work. It searches upwards from the working directory, because a test runs in
// the directory of its package, and with -trimpath the binary contains no source path.
func Root() (string, error) {
	start, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := start; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir, nil
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.work in %s or above it", start)
		}
	}
}

// Cache returns a directory for files that are slow to make and the same in every run. Git ignores it, and it can be deleted.
func Cache() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache")
	return dir, os.MkdirAll(dir, 0o755)
}

// built holds the binaries that this process has built in dir. mu guards both.
var (
	mu    sync.Mutex
	built = map[string]string{}
	dir   string
)

// Given reports whether the environment names the binaries to test.
func Given() bool { return os.Getenv(binEnv) != "" }

// Binary returns the path of a tool's binary. It builds the binary as `make build` does, at most once in this process. If
// HUB_BIN_DIR is set, it is the binary in that directory.
func Binary(tool string) (string, error) {
	mu.Lock()
	defer mu.Unlock()
	if path := built[tool]; path != "" {
		return path, nil
	}
	if given := os.Getenv(binEnv); given != "" {
		path, err := filepath.Abs(filepath.Join(given, tool))
		if err != nil {
			return "", err
		}
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s=%s: %w", binEnv, given, err)
		}
		built[tool] = path
		return path, nil
	}
	root, err := Root()
	if err != nil {
		return "", err
	}
	path, err := compile(filepath.Join(root, tool), tool)
	if err != nil {
		return "", err
	}
	built[tool] = path
	return path, nil
}

// Build compiles the package in src into the temporary directory of this process, with the given name.
func Build(src, name string) (string, error) {
	mu.Lock()
	defer mu.Unlock()
	return compile(src, name)
}

func compile(src, name string) (string, error) {
	if dir == "" {
		made, err := os.MkdirTemp("", "hub-bin-")
		if err != nil {
			return "", err
		}
		// Some tests run the tool as a user other than the one that built it.
		if err := os.Chmod(made, 0o755); err != nil {
			return "", err
		}
		dir = made
	}
	path := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", path, ".")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", src, err, out)
	}
	return path, nil
}

// Run runs the tests of m, which is a *testing.M, and removes the files of Binary and
// Build. It returns the exit status for TestMain.
func Run(m interface{ Run() int }) int {
	status := m.Run()
	if err := Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return status
}

// Clean removes the files of Binary and Build.
func Clean() error {
	mu.Lock()
	defer mu.Unlock()
	if dir == "" {
		return nil
	}
	gone := dir
	dir, built = "", map[string]string{}
	return os.RemoveAll(gone)
}
