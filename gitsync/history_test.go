package main

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// randomCommit returns units, templates and presets with odd [Install] sections.
func randomCommit(r *rand.Rand) map[string]string {
	pick := func(all ...string) string { return all[r.IntN(len(all))] }
	install := func(names ...string) string {
		var b strings.Builder
		b.WriteString("[Install]\n")
		for range r.IntN(3) {
			b.WriteString(pick(names...) + "\n")
		}
		return b.String()
	}
	const run = "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n"
	files := map[string]string{unitDir + "/keep.service": run}
	for _, name := range []string{"a", "b", "c"} {
		if r.IntN(4) > 0 {
			files[unitDir+"/"+name+".service"] = run + install("WantedBy=multi-user.target", "WantedBy=graphical.target basic.target", "Alias=other-"+name+".service", "Also="+pick("a", "b", "c")+".timer", "RequiredBy=%p.target", "UpheldBy=x.target")
		}
		if r.IntN(2) > 0 && files[unitDir+"/"+name+".service"] != "" {
			files[unitDir+"/"+name+".timer"] = "[Timer]\nOnCalendar=daily\n" + install("WantedBy=timers.target", "WantedBy=basic.target")
		}
		if r.IntN(3) == 0 {
			files[unitDir+"/"+name+".service.d/x.conf"] = install("WantedBy=rescue.target", "WantedBy=", "Alias=drop-"+name+".service")
		}
	}
	if r.IntN(3) > 0 {
		files[unitDir+"/w@.service"] = run + install("WantedBy=multi-user.target", "WantedBy=dev-%i.device", "DefaultInstance="+pick("one", "zero"), "Alias=v@.service")
	}
	var presets strings.Builder
	for range r.IntN(4) {
		presets.WriteString(pick("enable", "disable", "enable", "disable") + " " + pick("a.service", "b.*", "*.timer", "c.service", "w@.service", "w@.service one two", "w@one.service") + "\n")
	}
	if r.IntN(2) > 0 {
		presets.WriteString("disable *\n")
	}
	files[presetDir+"/hub.preset"] = presets.String() + "\n"
	// The commit would be refused if Also= named a unit that does not exist.
	for p, content := range files {
		for _, name := range []string{"a", "b", "c"} {
			if files[unitDir+"/"+name+".timer"] == "" {
				content = strings.ReplaceAll(content, "Also="+name+".timer\n", "")
			}
		}
		files[p] = content
	}
	return files
}

// After an apply there is nothing to do, and the host has the links of the commit,
// whatever commits came before. An apply that is undone leaves the host unchanged.
func TestHistoryDoesNotMatter(t *testing.T) {
	const seed = 7
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, seed))
	change := func(x *execution) {
		t.Helper()
		for _, do := range []func(context.Context) error{x.writeFiles, x.install, x.retire, x.link} {
			if err := do(t.Context()); err != nil {
				t.Fatalf("%v, after %q", err, summary(x.actions))
			}
		}
	}
	apply := func(root string, l *ledger, files map[string]string) *ledger {
		t.Helper()
		p := planOn(t, root, l, wantOf(files), nil)
		before := tree(t, root)
		for range 2 {
			x, _ := liveExecution(t, p)
			x.todo = p.actions
			j, err := newJournal(p.view, p.want.commit, p.actions)
			if err != nil {
				t.Fatal(err)
			}
			change(x)
			if before == nil {
				if err := x.forget(j); err != nil {
					t.Fatal(err)
				}
				break
			}
			if err := x.undo(t.Context(), j); err != nil {
				t.Fatal(err)
			}
			same(t, "the host after an undo of "+show(files), tree(t, root), before)
			before = nil
		}
		n := l.next(p, p.actions, time.Now(), "1")
		if again := planOn(t, root, n, wantOf(files), nil); len(again.actions) > 0 {
			t.Errorf("a second plan is not empty: %q, for %s", summary(again.actions), show(files))
		}
		return n
	}
	w := newWorld(t)
	l := &ledger{Files: map[string]owned{}}
	var was map[string]string
	for i := range 12 {
		files := randomCommit(r)
		l = apply(w.root, l, files)
		fresh := t.TempDir()
		w.write(fresh, "usr/bin/true", "x", 0o755)
		w.write(fresh, unitDir+"/x", "x", 0o644)
		w.write(fresh, unitDir+"/x", "", 0)
		apply(fresh, &ledger{Files: map[string]owned{}}, files)
		same(t, fmt.Sprintf("commit %d, %s\nafter %s\nand on a new host", i, show(files), show(was)), tree(t, filepath.Join(w.root, "etc")), tree(t, filepath.Join(fresh, "etc")))
		was = files
	}
}

// tree returns everything below a directory, with types, targets and contents.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	all := []string{}
	err := filepath.WalkDir(dir, func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		text := strings.TrimPrefix(p, dir) + " " + e.Type().String()
		switch {
		case e.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			all = append(all, text+" -> "+target)
			return err
		case e.Type().IsRegular():
			b, err := os.ReadFile(p)
			all = append(all, text+" "+string(b))
			return err
		}
		all = append(all, text)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func show(files map[string]string) string {
	var all []string
	for p, content := range files {
		all = append(all, fmt.Sprintf("%s: %q", p, content))
	}
	slices.Sort(all)
	return strings.Join(all, "\n  ")
}
