package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestOwners(t *testing.T) {
	w := newWorld(t)
	h := host{w.root}
	env, said := testEnv(t)
	state := func(name, content string) string {
		p := filepath.Join(filepath.Dir(w.state), name)
		w.write(p, ledgerFile, content, 0o644)
		if err := register(h, p); err != nil {
			t.Fatal(err)
		}
		return p
	}
	mine := state("m", `{"version":1,"root":"`+w.root+`","files":{"/mine":{}}}`)
	a := state("a", `{"version":1,"root":"`+w.root+`","files":{"/a":{},"/both":{}}}`)
	z := state("z", `{"version":1,"root":"`+w.root+`","files":{"/z":{},"/both-z":{}}}`)
	state("elsewhere", `{"version":1,"root":"/elsewhere","files":{"/e":{}}}`)
	state("damaged", `{`)
	empty := filepath.Join(filepath.Dir(w.state), "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := register(h, empty); err != nil {
			t.Fatal(err)
		}
	}
	w.onHost(ownersDir+"/nonsense", "not a path\n", 0o644)
	w.onHost(ownersDir+"/.gitsync-new-x~", "/torn", 0o644)
	got, err := readOwners(h, mine, map[string]owned{"/both": {}, "/both-z": {}}, env.Diag)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got["/a"] != a || got["/z"] != z || got["/both"] != a {
		t.Errorf("owners: %v", got)
	}
	if text := said(); strings.Count(text, "state_unreadable") != 1 || !strings.Contains(text, "damaged") {
		t.Errorf("output: %s", text)
	}
	// A host without owners.
	if none, err := readOwners(host{t.TempDir()}, mine, nil, env.Diag); err != nil || len(none) != 0 {
		t.Errorf("no owners: %v, %v", none, err)
	}
	w.onHost(ownersDir+"/dir/x", "x", 0o644)
	if _, err := readOwners(h, mine, nil, env.Diag); err == nil {
		t.Error("readOwners accepts a directory in the place of a file")
	}
	// A state directory with two names is one owner.
	alias := filepath.Join(filepath.Dir(w.state), "alias")
	if err := os.Symlink(mine, alias); err != nil {
		t.Fatal(err)
	}
	if realState(alias) != realState(mine) || realState("/not/there") != "/not/there" {
		t.Error("realState does not resolve the link, or changes a path that does not exist")
	}
}

// A directory of owners that cannot be read is an error: without it, files of others would count as ours.
func TestOwnersUnreadable(t *testing.T) {
	w := newWorld(t)
	env, _ := testEnv(t)
	w.onHost(ownersDir, "-> .gitsync", 0)
	if all, err := readOwners(host{w.root}, w.state, nil, env.Diag); err == nil {
		t.Errorf("readOwners = %v without an error", all)
	}
}
