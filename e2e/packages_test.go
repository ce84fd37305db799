package e2e

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

var updatePackages = flag.Bool("packages", false, "write packaging/files.md again")

//go:embed testdata/packages.sh
var packagesScript string

const packageVersion = "0.0.1"

// packageNames are the packages, without the hub- of their names.
var packageNames = []string{"common", "gitsync", "readsync", "sysmetrics", "volbackup"}

// TestPackages builds the packages in one directory, and some of them in another one. It checks that these are the same, what
// lintian and rpm say, and the life of the packages in a Debian machine.
func TestPackages(t *testing.T) {
	t.Parallel()
	dist := buildPackages(t, "gitsync readsync sysmetrics volbackup", "TZ=UTC")
	debs := packageFiles(t, dist, ".deb")
	rpms := packageFiles(t, dist, ".rpm")

	t.Run("reproducible", func(t *testing.T) {
		t.Parallel()
		again := buildPackages(t, "sysmetrics", "TZ=Pacific/Auckland")
		names, err := filepath.Glob(again + "/hub-*")
		if err != nil || len(names) != 5 { // two .debs, two .rpms, and a bill of materials
			t.Fatalf("the second build made %q, %v", names, err)
		}
		for _, name := range names {
			one, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if other, err := os.ReadFile(filepath.Join(dist, filepath.Base(name))); err != nil || !bytes.Equal(one, other) {
				t.Errorf("%s differs between two directories: %v", filepath.Base(name), err)
			}
		}
	})
	t.Run("sums", func(t *testing.T) {
		cmd := exec.Command("sha256sum", "--check", "--strict", "SHA256SUMS")
		cmd.Dir = dist
		if out, err := cmd.CombinedOutput(); err != nil || strings.Count(string(out), ": OK\n") != 14 {
			t.Errorf("want 5 .debs, 5 .rpms and 4 bills of materials: %v\n%s", err, out)
		}
		for _, tool := range packageNames[1:] {
			checkBill(t, dist, tool)
		}
	})
	t.Run("lintian", func(t *testing.T) {
		t.Parallel()
		out, err := exec.Command("lintian", append([]string{"--allow-root", "--fail-on", "error,warning", "--tag-display-limit", "0"}, debs...)...).CombinedOutput()
		if err != nil || len(out) > 0 {
			t.Errorf("lintian: %v\n%s", err, out)
		}
	})
	t.Run("rpm", func(t *testing.T) {
		t.Parallel()
		checkRPMs(t, debs, rpms)
	})
	t.Run("files", func(t *testing.T) { checkFileList(t, debs) })
	for suite, packages := range map[string][]string{
		nspawn.Bookworm: {"git", "jq", "rpm"},
		nspawn.Trixie:   {"git", "jq"}, // the packages of a root that another test creates
	} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			result := nspawn.Run(t, nspawn.Config{
				Suite:    suite,
				Packages: packages,
				Binds:    []nspawn.Bind{{From: dist, To: "/packages", ReadOnly: true}, {From: raise(t, debs), To: "/higher", ReadOnly: true}},
				Script:   "VERSION=" + packageVersion + "\n" + packagesScript,
				Timeout:  3 * time.Minute,
			})
			if result.Status != 0 {
				t.Fatalf("exit status %d\n%s\n%s", result.Status, result.Stdout, result.Stderr)
			}
			left := result.Left(t, "after-purge")
			// What purge keeps: backups wherever they are, dead letters, and trees with the data of programs.
			want := `/var/lib/gitops-sync-web
/var/lib/gitops-sync-web/trees
/var/lib/gitops-sync-web/trees/current
/var/lib/gitops-sync-web/trees/current/data
/var/lib/reading-sync
/var/lib/reading-sync/dead-letters.jsonl
/var/lib/volume-backup
/var/lib/volume-backup/elsewhere
/var/lib/volume-backup/elsewhere/db
/var/lib/volume-backup/elsewhere/db/20260101T010000Z.tar.zst
/var/lib/volume-backup/repository
/var/lib/volume-backup/repository/db
/var/lib/volume-backup/repository/db/20260101T010000Z.tar.zst
`
			if left != want {
				t.Errorf("after the purge the machine has\n%s\nwant\n%s\n%s", left, want, result.Stdout)
			}
		})
	}
}

// buildPackages copies the sources into a new directory, builds there, and returns the directory of the packages.
func buildPackages(t *testing.T, tools, zone string) string {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, command := range []string{
		"git -C '" + root + "' ls-files -z --cached --others --exclude-standard | tar -C '" + root + "' --null --files-from=- --ignore-failed-read -c | tar -x",
		"packaging/build deb rpm",
	} {
		cmd := exec.Command("bash", "-o", "pipefail", "-c", command)
		cmd.Dir = dir
		// Not the make that runs this test.
		cmd.Env = append(os.Environ(), "MAKEFLAGS=", "MAKELEVEL=", "TOOLS="+tools, "VERSION="+packageVersion, "SOURCE_DATE_EPOCH=1780000000",
			"MAINTAINER=Packages of a test <packages@debian.org>", zone)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	return filepath.Join(dir, "dist")
}

// packageFiles returns the paths of all packages of a kind.
func packageFiles(t *testing.T, dist, kind string) []string {
	t.Helper()
	paths, err := filepath.Glob(dist + "/*" + kind)
	if err != nil || len(paths) != len(packageNames) {
		t.Fatalf("%s: %q, %v; want one of each of %q", kind, paths, err, packageNames)
	}
	return paths
}

// raise packs the .debs again with a higher version, and other timers.
func raise(t *testing.T, debs []string) string {
	t.Helper()
	higher := t.TempDir()
	for _, deb := range debs {
		dir := t.TempDir()
		script := `set -e
dpkg-deb -R "$1" "$2"
sed -i 's/^Version: .*/&.higher/' "$2/DEBIAN/control"
find "$2" -name '*.timer' -exec sed -i 's/^Description=.*/& (higher)/' {} +
(cd "$2" && find usr -type f -exec md5sum {} + >DEBIAN/md5sums)
dpkg-deb -Zgzip -z1 -b "$2" "$3"`
		if out, err := exec.Command("sh", "-c", script, "sh", deb, dir, filepath.Join(higher, filepath.Base(deb))).CombinedOutput(); err != nil {
			t.Fatalf("pack %s again: %v\n%s", deb, err, out)
		}
	}
	return higher
}

// checkBill checks that a bill of materials names the modules that are in the binary.
func checkBill(t *testing.T, dist, tool string) {
	t.Helper()
	paths, err := filepath.Glob(dist + "/hub-" + tool + "_*.cdx.json")
	if err != nil || len(paths) != 1 {
		t.Fatalf("bills of %s: %q, %v", tool, paths, err)
	}
	b, err := os.ReadFile(paths[0])
	if err != nil {
		t.Fatal(err)
	}
	var bill struct {
		BomFormat string
		Metadata  struct {
			Component struct{ Name, Version string }
		}
		Components []struct{ Name, Version string }
	}
	if err := json.Unmarshal(b, &bill); err != nil {
		t.Fatal(err)
	}
	if c := bill.Metadata.Component; bill.BomFormat != "CycloneDX" || c.Name != "observability-hub/"+tool || c.Version != packageVersion {
		t.Errorf("the bill of %s is of %+v", tool, bill.Metadata)
	}
	var got []string
	for _, c := range bill.Components {
		if !strings.HasPrefix(c.Name, "observability-hub/") {
			got = append(got, c.Name+" "+c.Version)
		}
	}
	version, err := exec.Command("go", "version", "-m", filepath.Join(dist, "..", "bin", tool)).Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, m := range regexp.MustCompile(`(?m)^\tdep\t(\S+)\t(\S+)`).FindAllStringSubmatch(string(version), -1) {
		if !strings.HasPrefix(m[1], "observability-hub/") {
			want = append(want, m[1]+" "+m[2])
		}
	}
	want = append(want, "std "+regexp.MustCompile(`go1\S*`).FindString(string(version)))
	slices.Sort(got)
	slices.Sort(want)
	if len(want) < 2 || !slices.Equal(got, want) {
		t.Errorf("the bill of %s has %q; want %q", tool, got, want)
	}
}

// files lists the files of a .deb that are not directories.
func files(t *testing.T, deb string) []string {
	t.Helper()
	out, err := exec.Command("sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -t`, "sh", deb).Output()
	if err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, path := range strings.Fields(string(out)) {
		if !strings.HasSuffix(path, "/") {
			paths = append(paths, strings.TrimPrefix(path, "."))
		}
	}
	slices.Sort(paths)
	return paths
}

// checkRPMs checks that the .rpms are whole, have the files of the .debs, can be installed together, and have scripts that a
// shell can parse.
func checkRPMs(t *testing.T, debs, rpms []string) {
	root := t.TempDir()
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("rpm", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm %q: %v\n%s", args, err, out)
		}
		return string(out)
	}
	if out := run(append([]string{"-K"}, rpms...)...); strings.Count(out, "digests OK\n") != len(rpms) {
		t.Errorf("rpm -K: %s", out)
	}
	for i, rpm := range rpms {
		want := files(t, debs[i])
		for i := range want {
			want[i] = strings.Replace(want[i], "/zsh/vendor-completions/", "/zsh/site-functions/", 1)
		}
		want = slices.DeleteFunc(want, func(path string) bool {
			return strings.HasSuffix(path, "/changelog.Debian.gz") || strings.Contains(path, "/lintian/")
		})
		var got []string
		for line := range strings.Lines(run("-qp", "--queryformat", `[%{FILEMODES:perms} %{FILENAMES}\n]`, rpm)) {
			if mode, path, _ := strings.Cut(strings.TrimSpace(line), " "); !strings.HasPrefix(mode, "d") {
				got = append(got, path)
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("%s has %q; want %q", rpm, got, want)
		}
		for _, tag := range []string{"%{POSTIN}", "%{PREUN}", "%{POSTUN}"} {
			script := run("-qp", "--queryformat", tag, rpm)
			if out, err := exec.Command("sh", "-n", "-c", script).CombinedOutput(); err != nil || strings.Contains(script, "@UNITS@") {
				t.Errorf("%s %s: %v\n%s\n%s", rpm, tag, err, out, script)
			}
		}
	}
	run(append([]string{"--root", root, "--install", "--nodeps", "--noscripts"}, rpms...)...)
	for _, tool := range packageNames[1:] {
		if out, err := exec.Command(filepath.Join(root, "usr/bin", tool), "--version").Output(); err != nil || string(out) != tool+" "+packageVersion+"\n" {
			t.Errorf("%s --version: %q, %v", tool, out, err)
		}
	}
}

// checkFileList compares the files of the .debs with the list in packaging/files.md.
func checkFileList(t *testing.T, debs []string) {
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	list.WriteString("# Files of the packages\n\n`go test -count=1 -run TestPackages ./e2e -packages` writes this list.\n")
	for i, name := range packageNames {
		paths := files(t, debs[i])
		fmt.Fprintf(&list, "\n## hub-%s: %d files\n\n", name, len(paths))
		for _, path := range paths {
			fmt.Fprintf(&list, "    %s\n", path)
		}
	}
	path := filepath.Join(root, "packaging/files.md")
	if *updatePackages {
		if err := os.WriteFile(path, []byte(list.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != list.String() {
		t.Errorf("packaging/files.md: %v; -packages writes it again; want\n%s", err, list.String())
	}
}
