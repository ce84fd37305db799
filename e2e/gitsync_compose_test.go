package e2e

import (
	_ "embed"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/nspawn"
)

//go:embed testdata/gitsync-machine/compose.sh
var gitsyncCompose string

// TestGitsyncCompose runs the real docker compose as an on-change command, in a booted machine against a real daemon.
func TestGitsyncCompose(t *testing.T) {
	t.Parallel()
	daemon := docker.Run(t)
	if err := os.Chmod(filepath.Join(daemon.Dir, "d.sock"), 0o666); err != nil {
		t.Fatal(err)
	}
	compose := filepath.Join(t.TempDir(), "docker-compose")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", compose, "github.com/docker/compose/v2/cmd")
	build.Dir = "compose"
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build docker compose: %v\n%s", err, out)
	}
	client, err := exec.LookPath("docker")
	if err != nil {
		t.Fatal(err)
	}
	// The daemon mounts the trees that the machine publishes, so the directory must have the same path for both.
	app, err := os.MkdirTemp("/srv", "hub-app-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(app) })
	if err := os.Chmod(app, 0o755); err != nil {
		t.Fatal(err)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: []string{"git", "jq"},
		Tools:    []string{"gitsync"},
		Binds: []nspawn.Bind{{From: daemon.Dir, To: "/docker"}, {From: client, To: "/opt/docker", ReadOnly: true},
			{From: compose, To: "/opt/docker-compose", ReadOnly: true}, {From: app, To: app}},
		Script:  "export APP=" + app + "\n" + gitsyncCompose,
		Timeout: 5 * time.Minute,
	})
	for line := range strings.Lines(result.Stdout) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "ok "); ok {
			t.Log(name)
		}
	}
	if result.Status != 0 {
		t.Errorf("exit status %d\nstdout: %s\nstderr: %s", result.Status, result.Stdout, result.Stderr)
	}
}
