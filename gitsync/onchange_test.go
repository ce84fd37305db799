package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/gitsync/internal/gitobj"
)

func TestParseRules(t *testing.T) {
	rules, err := parseRules([]byte(`{"on_change":[{"paths":["a/","b/*.yml"],"run":["docker","compose","up","-d"]}]}`))
	if err != nil || len(rules) != 1 || rules[0].Run[0] != "docker" {
		t.Fatalf("parseRules = %+v, %v", rules, err)
	}
	for _, bad := range []string{
		"", "null", "[]", `{"on_change":[]} x`, `{"onchange":[]}`,
		`{"on_change":[{"paths":[],"run":["x"]}]}`, `{"on_change":[{"paths":["a"],"run":[]}]}`, `{"on_change":[{"paths":["a"],"run":[""]}]}`,
		`{"on_change":[{"paths":["../a"],"run":["x"]}]}`, `{"on_change":[{"paths":["/a"],"run":["x"]}]}`, `{"on_change":[{"paths":["a/./b"],"run":["x"]}]}`,
		`{"on_change":[{"paths":["["],"run":["x"]}]}`, `{"on_change":[{"paths":["a\u0000"],"run":["x"]}]}`,
		`{"on_change":[{"paths":["a"],"run":["x"]},{"paths":["a"],"run":["x"]}]}`,
		`{"on_change":[` + strings.Repeat(`{"paths":["a"],"run":["x"]},`, 100) + `{"paths":["a"],"run":["y"]}]}`,
	} {
		if rules, err := parseRules([]byte(bad)); err == nil {
			t.Errorf("parseRules(%s) = %+v; want an error", bad, rules)
		}
	}
}

// A rule's state changes only with the files that its paths name.
func TestRuleState(t *testing.T) {
	w := newCommands(t)
	w.write("hub/.gitsync.json", `{"on_change":[{"paths":["compose.yml","conf/*.ini"],"run":["true"]},{"paths":["."],"run":["true"]}]}`)
	w.write("hub/compose.yml", "1")
	w.write("hub/conf/a.ini", "1")
	states, whole := map[string]bool{}, map[string]bool{}
	for _, change := range []struct{ file, content string }{{"compose.yml", "2"}, {"conf/a.ini", "2"}, {"conf/b.txt", "not named"}, {"other", "x"}} {
		w.write("hub/"+change.file, change.content)
		commit := w.push()
		reader, err := gitobj.NewReader(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		o, err := reader.Open(t.Context(), w.path("hub/.git/objects"))
		if err != nil {
			t.Fatal(err)
		}
		c, err := o.Commit(commit)
		if err != nil {
			t.Fatal(err)
		}
		d, err := readWant(o, c, "/usr/local/bin")
		o.Close()
		if err != nil {
			t.Fatal(err)
		}
		states[d.rules[0].state] = true
		whole[d.rules[1].state] = true
	}
	if len(states) != 2 {
		t.Errorf("4 commits, of which 2 change files that the rule names, have %d states", len(states))
	}
	if len(whole) != 4 {
		t.Errorf("4 commits have %d states of the whole tree", len(whole))
	}
	w.write("hub/.gitsync.json", `{"on_change":[{"paths":["x"],"ran":["true"]}]}`)
	w.push()
	w.want(65, ".gitsync.json", "pull")
}

// The command gets the same working directory each time, also after a rollback.
func TestRuleCommand(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, someHash)
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(someHash, filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	r := rule{Paths: []string{"a"}, Run: []string{"true"}}
	mark := `--property=ExecStartPre=-"/bin/ln" "-sfn" "` + someHash + `" "` + dir + `/.gitsync-ran-` + r.key() + `"`
	args := r.command(tree, "server", time.Minute)
	for _, want := range []string{"--uid=server", "--working-directory=" + dir + "/current", "--setenv=PWD=" + dir + "/current", "--unit=gitops-on-change-" + r.key() + ".service", mark} {
		if !slices.Contains(args, want) {
			t.Errorf("the command lacks %s: %q", want, args)
		}
	}
	if slices.ContainsFunc(args, func(a string) bool { return strings.Contains(a, "/bin/mv") }) {
		t.Errorf("current is moved: %q", args)
	}
	other := filepath.Join(dir, strings.Repeat("a", 40))
	args = r.command(other, "server", time.Minute)
	if !slices.Contains(args, `--property=ExecStartPre="/bin/mv" "-fT" "`+dir+`/.gitsync-current" "`+dir+`/current"`) {
		t.Errorf("current is not set to the commit: %q", args)
	}
	if err := runRule(t.Context(), r, other, "server", time.Minute); err == nil || !strings.Contains(err.Error(), "published tree") {
		t.Errorf("runRule without a tree = %v", err)
	}
}

// If systemd-run fails, the error contains its first message.
func TestRunRuleFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemd-run"), []byte("#!/bin/sh\necho no bus >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	err := runRule(context.Background(), rule{Run: []string{"docker", "compose"}}, dir, "server", time.Second)
	if err == nil || !strings.Contains(err.Error(), "docker compose") || !strings.Contains(err.Error(), "no bus") {
		t.Errorf("runRule = %v", err)
	}
}

// The words of a rule reach the command unchanged, although systemd expands variables.
func TestRunRuleWords(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "systemd-run"), []byte("#!/bin/sh\nwhile [ \"$1\" != -- ]; do shift; done\necho \"$*\" >&2\nexit 1\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir+":/usr/bin:/bin")
	err := runRule(t.Context(), rule{Run: []string{"sh", "-c", "echo ${X} $Y"}}, dir, "server", time.Second)
	if want := "-- sh -c echo $${X} $$Y"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("systemd-run says %v; want %s", err, want)
	}
}

func TestExecQuote(t *testing.T) {
	if got := execQuote(`/srv/a "b"\$c`); got != `"/srv/a \"b\"\\$$c"` {
		t.Errorf("execQuote = %s", got)
	}
}

func TestCheckRunAs(t *testing.T) {
	for _, bad := range []string{"", "root", "0", "000"} {
		if checkRunAs(bad) == nil {
			t.Errorf("checkRunAs(%q) accepts the user", bad)
		}
	}
	if err := checkRunAs("server"); err != nil {
		t.Error(err)
	}
}
