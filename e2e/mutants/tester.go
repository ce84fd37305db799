package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// What became of a mutant.
const (
	killed     = "killed"
	survived   = "survived"
	uncompiled = "did not compile"
)

// users is the first user of a mutant's namespace.
const users = 100000

// limits keeps a mutant from the machine's memory and disk: 8 GiB of addresses, 1 GiB a file.
const limits = `ulimit -v 8388608; ulimit -f 1048576; exec "$@"`

type tester struct {
	root, tool, scratch string
	timeout             time.Duration // of one package's tests: a mutant that loops is killed by it
}

// baseline reports an error if the tests fail without a mutant.
func (t *tester) baseline(ctx context.Context, all []mutant) error {
	packages, err := t.packages(all[0])
	if err != nil {
		return err
	}
	t.timeout = 10 * time.Minute
	began, longest := time.Now(), time.Duration(0)
	for _, pkg := range packages {
		switch result, by, err := t.run(ctx, pkg, "{}"); {
		case err != nil:
			return err
		case result != survived:
			return fmt.Errorf("%s without a mutant: %s %s", pkg, result, by)
		}
		longest = max(longest, time.Since(began))
		began = time.Now()
	}
	// A machine that becomes busy must not kill mutants.
	t.timeout = time.Minute + 10*longest
	return nil
}

// packages returns the directories of the module's tests: first the mutant's
// own, which kill most, then the tool's, then the rest.
func (t *tester) packages(m mutant) ([]string, error) {
	found := []string{filepath.Dir(m.file)}
	if m.file != filepath.Join(t.tool, filepath.Base(m.file)) {
		found = append(found, t.tool)
	}
	for _, pattern := range []string{"*_test.go", "*/*_test.go", "internal/*/*_test.go"} {
		tests, err := filepath.Glob(filepath.Join(t.root, t.tool, pattern))
		if err != nil {
			return nil, err
		}
		for _, path := range tests {
			pkg, err := filepath.Rel(t.root, filepath.Dir(path))
			if err != nil {
				return nil, err
			}
			// Another module has tests of its own.
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), "go.mod")); err == nil && pkg != t.tool {
				continue
			}
			found = append(found, pkg)
		}
	}
	var packages []string
	for _, pkg := range found {
		if tests, err := filepath.Glob(filepath.Join(t.root, pkg, "*_test.go")); err != nil {
			return nil, err
		} else if len(tests) > 0 && !slices.Contains(packages, pkg) {
			packages = append(packages, pkg)
		}
	}
	return packages, nil
}

// test returns what became of a mutant, and the test that killed it.
func (t *tester) test(ctx context.Context, m mutant) (result, by string, err error) {
	path := filepath.Join(t.root, m.file)
	src, err := os.ReadFile(path)
	if err != nil {
		return "", "", err
	}
	dir, err := os.MkdirTemp(t.scratch, "")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	mutated := filepath.Join(dir, "mutant.go")
	if err := os.WriteFile(mutated, m.apply(src), 0o600); err != nil {
		return "", "", err
	}
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{path: mutated}})
	if err != nil {
		return "", "", err
	}
	packages, err := t.packages(m)
	if err != nil {
		return "", "", err
	}
	for _, pkg := range packages {
		if result, by, err = t.run(ctx, pkg, string(overlay)); result != survived || err != nil {
			return result, by, err
		}
	}
	return result, "", nil
}

var failure = regexp.MustCompile(`(?m)--- FAIL: (\S+)|^(panic: .*|fatal error: .*)`)

// run compiles and runs the short tests of a package.
func (t *tester) run(ctx context.Context, pkg, overlay string) (result, by string, err error) {
	dir, err := os.MkdirTemp(t.scratch, "")
	if err != nil {
		return "", "", err
	}
	defer os.RemoveAll(dir)
	replaced, binary, tmp := filepath.Join(dir, "overlay.json"), filepath.Join(dir, "tests"), filepath.Join(dir, "tmp")
	if err := errors.Join(os.WriteFile(replaced, []byte(overlay), 0o600), os.Chmod(dir, 0o755), os.Mkdir(tmp, 0o755)); err != nil {
		return "", "", err
	}
	build := exec.CommandContext(ctx, "go", "test", "-c", "-overlay", replaced, "-o", binary, ".")
	build.Dir = filepath.Join(t.root, pkg)
	if out, err := build.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		if _, ok := errors.AsType[*exec.ExitError](err); !ok || overlay == "{}" {
			return "", "", fmt.Errorf("%s: %w: %s", pkg, err, out)
		}
		return uncompiled, "", nil
	}

	bounded, cancel := context.WithTimeout(ctx, t.timeout+10*time.Second)
	defer cancel()
	cmd := exec.CommandContext(bounded, "bash", "-c", limits, "bash", binary, "-test.short", "-test.failfast", "-test.timeout", t.timeout.String())
	cmd.Dir = build.Dir
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second // a child of the mutant may hold its output
	if os.Geteuid() == 0 {
		if err := os.Chown(tmp, users, users); err != nil {
			return "", "", err
		}
		ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: users, Size: 1 << 16}}
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = ids, ids
		cmd.SysProcAttr.Credential = &syscall.Credential{}
		cmd.SysProcAttr.GidMappingsEnableSetgroups = true
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process != nil { // what the tests left running
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	if ctx.Err() != nil {
		return "", "", ctx.Err()
	}
	if err == nil || errors.Is(err, exec.ErrWaitDelay) {
		return survived, "", nil
	}
	if _, ok := errors.AsType[*exec.ExitError](err); !ok {
		return "", "", fmt.Errorf("%s: %w", pkg, err)
	}
	if bounded.Err() != nil {
		return killed, "by the timeout", nil
	}
	found := failure.FindSubmatch(out)
	if found == nil {
		return killed, fmt.Sprintf("(%v)", err), nil
	}
	return killed, "by " + string(found[1]) + string(found[2]), nil
}
