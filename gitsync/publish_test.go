package main

import (
	"os"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

func (w *commands) current() string {
	w.t.Helper()
	target, err := os.Readlink(w.path("trees/current"))
	if err != nil {
		w.t.Fatal(err)
	}
	return target
}

func TestPublish(t *testing.T) {
	w := newCommands(t)
	w.write("hub/conf/app.ini", "one")
	first := w.push()
	publish := func(text string) {
		t.Helper()
		w.want(0, text, "pull", "--publish", w.path("trees"), "--keep-trees", "1")
	}
	publish(`"tree":`)
	if w.current() != first || w.read("trees/current/conf/app.ini") != "one" {
		t.Error("the tree is not published")
	}
	// Files that a crash left are removed, and the old tree too.
	w.write("trees/.gitsync-tree123/half", "")
	if err := os.Symlink("nowhere", w.path("trees/.gitsync-current")); err != nil {
		t.Fatal(err)
	}
	second := w.push()
	publish("")
	if w.exists("trees/"+first) || w.exists("trees/.gitsync-tree123") || w.current() != second {
		t.Error("the old tree or a file that a crash left still exists")
	}
	// An interrupted removal is finished.
	if err := os.Rename(w.path("trees/"+second), w.path("trees/.gitsync-old-"+second)); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(w.path("trees/.gitsync-old-" + second + "/conf/app.ini")); err != nil {
		t.Fatal(err)
	}
	third := w.push()
	publish("")
	if w.exists("trees/.gitsync-old-"+second) || w.current() != third {
		t.Error("the interrupted removal was not finished")
	}
	// A tree with other data is kept.
	w.write("trees/"+third+"/conf/data", "precious")
	w.push()
	publish("tree_kept")
	if w.read("trees/"+third+"/conf/data") != "precious" || w.read("trees/"+third+"/conf/app.ini") != "one" {
		t.Error("a tree with other data was not kept whole")
	}
	// A read-only directory can be removed.
	fourth := w.current()
	if err := os.Chmod(w.path("trees/"+fourth+"/conf"), 0o500); err != nil {
		t.Fatal(err)
	}
	w.push()
	publish("")
	if w.exists("trees/" + fourth) {
		t.Error("a tree with a read-only directory still exists")
	}
}

// A tree is kept if the repository does not have its commit.
func TestPublishKeepsUnknownTree(t *testing.T) {
	w := newCommands(t)
	w.write("trees/"+someHash+"/file", "")
	w.want(0, "tree_kept", "pull", "--publish", w.path("trees"), "--keep-trees", "1")
	if !w.exists("trees/" + someHash + "/file") {
		t.Error("the tree of an unknown commit was removed")
	}
}

func TestPublishPathTaken(t *testing.T) {
	w := newCommands(t)
	w.write("trees/current/file", "")
	w.want(sysexits.CantCreate, "not a link", "pull", "--publish", w.path("trees"))
	if err := os.RemoveAll(w.path("trees")); err != nil {
		t.Fatal(err)
	}
	w.write("trees/"+w.git("rev-parse", "HEAD"), "")
	w.want(sysexits.CantCreate, "not a directory", "pull", "--publish", w.path("trees"))
	w.want(sysexits.CantCreate, "publish_failed", "pull", "--publish", "/proc/nowhere")
}

func TestPublishRefuses(t *testing.T) {
	w := newCommands(t)
	if err := os.Symlink("/etc/passwd", w.path("hub/link")); err != nil {
		t.Fatal(err)
	}
	w.push()
	w.want(sysexits.DataErr, "symbolic link", "pull", "--publish", w.path("trees"))
	if w.exists("trees/current") {
		t.Error("a part of a tree is published")
	}
}

func TestPublishWithPath(t *testing.T) {
	w := newCommands(t)
	w.write("hub/hosts/web/file", "web")
	w.write("hub/hosts/db/file", "db")
	w.push()
	for _, host := range []string{"web", "db", "web"} {
		w.want(0, `"path":"hosts/`+host+`"`, "pull", "--path", "hosts/"+host, "--publish", w.path("trees"))
		if got := w.read("trees/current/file"); got != host {
			t.Errorf("the tree of %s contains %q", host, got)
		}
	}
	if entries, err := os.ReadDir(w.path("trees")); err != nil || len(entries) != 2 {
		t.Errorf("there are %v, %v; want one tree and current", entries, err)
	}
}

func TestEscapeGlob(t *testing.T) {
	if got := escapeGlob(`/a*b?c[d\e`); got != `/a\*b\?c\[d\\e` {
		t.Errorf("escapeGlob = %s", got)
	}
}

func TestBadFileName(t *testing.T) {
	for _, bad := range []string{"", ".", "..", ".git", ".GIT", "a/b", "a\n", "\x7f", strings.Repeat("x", 256)} {
		if badFileName(bad) == "" {
			t.Errorf("badFileName(%q) accepts the name", bad)
		}
	}
	if reason := badFileName("Übung mit Leerzeichen.txt"); reason != "" {
		t.Errorf("badFileName refuses a name with spaces and accents: %s", reason)
	}
}
