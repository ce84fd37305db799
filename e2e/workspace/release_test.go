package workspace

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tree is a small repository with the scripts of this one that make a version and a release.
type tree struct {
	t   *testing.T
	dir string
}

func newTree(t *testing.T) tree {
	t.Helper()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	w := tree{t, t.TempDir()}
	for _, name := range []string{"packaging/version", "packaging/release"} {
		b, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			t.Fatal(err)
		}
		w.write(name, string(b))
	}
	w.write("CHANGELOG.md", "# Changelog\n\nWords.\n\n## 0.1.0 - unreleased\n\n### Added\n\n- A tool.\n\n## 0.0.9 - 2026-01-01\n\n- Older.\n")
	w.write("scripts/manage_volume.sh", "readonly version=0.1.0-dev\n")
	w.write(".gitignore", "/dist/\n")
	w.write("Makefile", "check:\n\t$(CHECK)\ndist:\n\trm -rf dist && mkdir dist && echo tool >dist/tool-$(VERSION)-linux-amd64 && echo stale >dist/SHA256SUMS\n")
	w.write("packaging/build", "#!/bin/sh\nfor kind; do echo package >dist/hub-tool_${VERSION}_$ARCH.$kind; done\n")
	return w
}

func (w tree) write(name, content string) {
	w.t.Helper()
	path := filepath.Join(w.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		w.t.Fatal(err)
	}
}

// run runs a command in the tree and returns its output.
func (w tree) run(name string, args ...string) (string, error) {
	w.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir = w.dir
	// Not the make that runs this test, and no configuration of the user.
	cmd.Env = append(os.Environ(), "MAKEFLAGS=", "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@example.org",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@example.org")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (w tree) must(name string, args ...string) string {
	w.t.Helper()
	out, err := w.run(name, args...)
	if err != nil {
		w.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

func (w tree) commit() {
	w.t.Helper()
	w.must("git", "add", "-A")
	w.must("git", "commit", "-q", "--allow-empty", "-m", "a commit")
}

// replace replaces text in a file.
func (w tree) replace(name, old, new string) {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(w.dir, name))
	if err != nil {
		w.t.Fatal(err)
	}
	if !bytes.Contains(b, []byte(old)) {
		w.t.Fatalf("%s does not contain %q", name, old)
	}
	w.write(name, strings.Replace(string(b), old, new, 1))
}

func TestVersion(t *testing.T) {
	w := newTree(t)
	want := func(pattern string) {
		t.Helper()
		if got := w.must("packaging/version"); !regexp.MustCompile("^" + pattern + "\n$").MatchString(got) {
			t.Errorf("version %q; want %s", got, pattern)
		}
	}
	want(`0\.1\.0-dev`)
	w.must("git", "init", "-q")
	w.commit()
	w.must("git", "tag", "other")
	want(`0\.1\.0-dev\+g[0-9a-f]{10}`)
	w.replace("CHANGELOG.md", "unreleased", "2026-02-03")
	want(`0\.1\.0\+g[0-9a-f]{10}\.dirty`)
	w.commit()
	w.must("git", "tag", "v0.1.0")
	want(`0\.1\.0`)
	w.write("scripts/manage_volume.sh", "changed")
	want(`0\.1\.0\+dirty`)
	w.commit()
	w.commit()
	want(`0\.1\.0\+2\.g[0-9a-f]{10}`)
	w.write("scripts/manage_volume.sh", "again")
	want(`0\.1\.0\+2\.g[0-9a-f]{10}\.dirty`)
	w.commit()
	w.must("git", "tag", "v0.2.0-rc1")
	want(`0\.2\.0-rc1`)

	// A source archive that is unpacked within another repository.
	w.must("git", "init", "-q", "outer")
	w.must("cp", "-R", "packaging", "CHANGELOG.md", "outer")
	w.must("mkdir", "outer/inner")
	w.must("mv", "outer/packaging", "outer/CHANGELOG.md", "outer/inner")
	if got := w.must("outer/inner/packaging/version"); got != "0.1.0\n" {
		t.Errorf("version of a source archive %q; want 0.1.0", got)
	}
}

// The script manage_volume.sh is deployed from the repository, too, so that its version is part of the commit.
func TestVersionOfTheScript(t *testing.T) {
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	w := newTree(t)
	w.must("cp", filepath.Join(root, "CHANGELOG.md"), ".")
	version := strings.TrimSuffix(w.must("packaging/version"), "\n")
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-dev)?$`).MatchString(version) {
		t.Errorf("the first heading of CHANGELOG.md names the version %q", version)
	}
	script, err := os.ReadFile(filepath.Join(root, "scripts", "manage_volume.sh"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "\nreadonly version=" + version + "\n"; !bytes.Contains(script, []byte(want)) {
		t.Errorf("scripts/manage_volume.sh has no line %q: its version is that of CHANGELOG.md", want[1:])
	}
}

func TestReleaseChecks(t *testing.T) {
	w := newTree(t)
	w.must("git", "init", "-q")
	w.commit()
	refused := func(version, reason string) {
		t.Helper()
		out, err := w.run("packaging/release", version)
		if err == nil || !strings.Contains(out, reason) {
			t.Errorf("release %s: %v, %q; want %q", version, err, out, reason)
		}
		if _, err := os.Stat(filepath.Join(w.dir, "dist")); err == nil {
			t.Fatalf("release %s made dist, although %s", version, reason)
		}
	}
	refused("v0.1.0", "usage: make release VERSION=X.Y.Z")
	refused("0.1.0", "the first heading of CHANGELOG.md is not")
	w.replace("CHANGELOG.md", "unreleased", "2026-02-03")
	refused("0.1.0", "not committed")
	w.commit()
	refused("0.0.9", "the first heading of CHANGELOG.md is not")
	refused("0.1.0", "manage_volume.sh does not have the line")
	w.replace("scripts/manage_volume.sh", "-dev", "")
	w.commit()
	w.write("new", "not committed, and not ignored")
	refused("0.1.0", "not committed")
	w.must("rm", "new")
	t.Setenv("CHECK", "false")
	refused("0.1.0", "[Makefile:2: check] Error 1")
	t.Setenv("CHECK", "true")
	w.must("git", "tag", "v0.1.0")
	refused("0.1.0", "the tag v0.1.0 exists")
	w.must("git", "tag", "-d", "v0.1.0")
	w.replace("CHANGELOG.md", "### Added\n\n- A tool.\n", "")
	w.commit()
	refused("0.1.0", "CHANGELOG.md has no entries for 0.1.0")
}

func TestRelease(t *testing.T) {
	t.Setenv("CHECK", "true")
	w := newTree(t)
	w.replace("CHANGELOG.md", "unreleased", "2026-02-03")
	w.replace("scripts/manage_volume.sh", "-dev", "")
	w.must("git", "init", "-q")
	w.commit()
	out := w.must("packaging/release", "0.1.0")
	if tags := w.must("git", "tag"); tags != "" {
		t.Errorf("release made the tags %q", tags)
	}
	if got, want := w.must("ls", "dist"), "SHA256SUMS\nTAG_MESSAGE\nhub-tool_0.1.0_amd64.deb\nhub-tool_0.1.0_amd64.rpm\nhub-tool_0.1.0_arm64.deb\nhub-tool_0.1.0_arm64.rpm\nobservability-hub-0.1.0.tar.gz\ntool-0.1.0-linux-amd64\n"; got != want {
		t.Errorf("dist holds %q; want %q", got, want)
	}
	if got := w.must("sh", "-c", "cd dist && sha256sum --check --strict SHA256SUMS"); strings.Count(got, ": OK\n") != 6 {
		t.Errorf("SHA256SUMS: %q; want 6 files", got)
	}

	// The command that it prints makes the tag, with the words of the CHANGELOG, headings included.
	command := regexp.MustCompile(`(?m)^ {4}(git tag .*)$`).FindStringSubmatch(out)
	if command == nil {
		t.Fatalf("no command for the tag in %q", out)
	}
	w.must("sh", "-c", command[1])
	if got, want := w.must("git", "tag", "--list", "v0.1.0", "--format=%(contents)"), "Observability Hub host tools 0.1.0\n\n### Added\n\n- A tool.\n\n"; got != want {
		t.Errorf("the tag says %q; want %q", got, want)
	}
	if got := w.must("packaging/version"); got != "0.1.0\n" {
		t.Errorf("with the tag the version is %q; want 0.1.0", got)
	}
	w.must("mkdir", "unpacked")
	w.must("tar", "-xzf", "dist/observability-hub-0.1.0.tar.gz", "-C", "unpacked")
	if got := w.must("unpacked/observability-hub-0.1.0/packaging/version"); got != "0.1.0\n" {
		t.Errorf("the source archive has the version %q; want 0.1.0", got)
	}
}
