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

// binEnv names a folder of binaries to test instead of freshly built ones, for example those of an installed package.
const binEnv = "HUB_BIN_DIR"

// Root is the folder that holds go.work, found upwards from the working directory: a test runs in its package's folder,
// and -trimpath leaves no source path in the binary to start from.
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

// Cache is a folder for what is slow to make and the same in every run. It is ignored by git and safe to delete.
func Cache() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, ".cache")
	return dir, os.MkdirAll(dir, 0o755)
}

// built is what this process has built, in dir; mu guards both.
var (
	mu    sync.Mutex
	built = map[string]string{}
	dir   string
)

// Given reports whether the environment names the binaries to test.
func Given() bool { return os.Getenv(binEnv) != "" }

// Binary gives the path of the tool's binary, built at most once in this process the way that `make build` builds it.
// With HUB_BIN_DIR in the environment it is the one in that folder.
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

// Build compiles the package in src into this process's temporary folder under the given name.
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
		// Some tests run the tool as another user than the one who built it.
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

// Clean removes what Binary and Build made. TestMain calls it after the tests.
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
