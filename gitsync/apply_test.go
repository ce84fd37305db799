package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

const (
	service = "[Unit]\nDescription=A\n[Service]\nType=oneshot\nExecStart=/usr/bin/true\n[Install]\nWantedBy=multi-user.target\n"
	timer   = "[Unit]\nDescription=A\n[Timer]\nOnCalendar=daily\n[Install]\nWantedBy=timers.target\n"
	presets = "enable *.timer\ndisable *\n"
)

// A first commit on an empty root, drift, a second commit, a rollback, and plan,
// status, hold and resume between them.
func TestApplyOnAnotherRoot(t *testing.T) {
	w := newWorld(t)
	first := w.commit(map[string]string{
		"systemd/a.service": service, "systemd/a.timer": timer, "systemd/hub.preset": presets, "systemd/README.md": "x",
		"systemd/a.service.d/x.conf": "[Service]\nNice=1\n", "systemd/q.container": "[Container]\nImage=x\n",
		"systemd/gone.service": strings.Replace(service, "true", "not-here", 1), "systemd/gone.timer": timer,
		"scripts/job": "#!/bin/sh\n", "docs/x": "x",
	})
	o := w.sync(0)
	same(t, "first sync", o.lines("action"), []string{
		"install /usr/local/bin/job new", "install a.service new", "install /etc/systemd/system/a.service.d/x.conf new", "install a.timer new",
		"install /usr/local/lib/systemd/system-preset/hub.preset new", "enable a.timer new",
		"skip systemd/README.md not-deployed", "skip q.container no-quadlet-generator", "skip gone.service not-installed-here", "skip gone.timer not-installed-here",
	})
	if got := w.hostFile(unitDir + "/timers.target.wants/a.timer"); got != "-> /etc/systemd/system/a.timer" {
		t.Errorf("the timer's link is %q", got)
	}
	same(t, "second sync", w.sync(0).lines("action"), nil)
	same(t, "plan", w.on("plan").lines("planned"), nil)

	w.onHost(unitDir+"/a.service", "edited", 0o644)
	w.onHost(unitDir+"/a.timer", "", 0)
	w.onHost(unitDir+"/timers.target.wants/a.timer", "", 0)
	if o := w.ask("status"); o.status != 0 || !strings.Contains(o.stdout, `"drifted":["/etc/systemd/system/a.service","/etc/systemd/system/a.timer"]`) {
		t.Errorf("status: %+v", o)
	}
	drift := []string{"update a.service drift", "install a.timer drift", "enable a.timer drift"}
	plan := w.on("plan")
	same(t, "plan of drift", plan.lines("planned"), drift)
	if o := w.ask("hold"); o.status != 0 {
		t.Errorf("hold: %+v", o)
	}
	same(t, "held", w.sync(0).lines("action"), nil)
	if o := w.ask("resume"); o.status != 0 {
		t.Errorf("resume: %+v", o)
	}
	o = w.run(strings.Split(plan.stdout, "\n")[0]+"\n", "apply", "-", "--root", w.root, "--state-dir", w.state)
	same(t, "one line of the plan", o.lines("action"), drift[:1])
	same(t, "the rest", w.sync(0).lines("action"), drift[1:])

	second := w.commit(map[string]string{
		"systemd/a.service": service + "# 2\n", "systemd/a.timer": "", "systemd/a.service.d/x.conf": "", "systemd/b.timer": timer, "systemd/b.service": service,
	})
	same(t, "second commit", w.sync(0).lines("action"), []string{
		"update a.service changed", "install b.service new", "install b.timer new",
		"remove /etc/systemd/system/a.service.d/x.conf pruned", "remove a.timer pruned", "enable b.timer new",
	})
	if got := w.hostFile(unitDir+"/timers.target.wants/a.timer") + w.hostFile(unitDir+"/a.timer"); got != "" {
		t.Errorf("removed files still exist: %q", got)
	}
	if _, err := os.Stat(filepath.Join(w.root, unitDir, "a.service.d")); err == nil {
		t.Error("the directory of the removed drop-in still exists")
	}

	o = w.on("rollback")
	same(t, "rollback", o.lines("action"), []string{
		"update a.service changed", "install /etc/systemd/system/a.service.d/x.conf new", "install a.timer new",
		"remove b.service pruned", "remove b.timer pruned", "enable a.timer new",
	})
	if l, err := readLedger(w.state); err != nil || l.Commit != first || len(l.Previous) != 0 {
		t.Errorf("ledger after the rollback: %+v, %v", l, err)
	}
	if q, err := readQuarantine(w.state); err != nil || q.Commit != second {
		t.Errorf("quarantine: %+v, %v", q, err)
	}
	if o := w.sync(0); !strings.Contains(o.stderr, `"quarantined"`) || len(o.lines("action")) > 0 {
		t.Errorf("sync of a quarantined commit: %+v", o)
	}
	if o := w.on("rollback"); o.status != int(sysexits.Failed) {
		t.Errorf("rollback without an earlier commit: %+v", o)
	}
}

// A commit with something that cannot be deployed is refused, and nothing is
// written.
func TestRefusedCommits(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"link":                                   {"systemd/b.service": "-> /etc/shadow"},
		"link among scripts":                     {"scripts/x": "-> /etc/shadow"},
		"link for a directory":                   {"systemd": "", "scripts": "-> /etc"},
		"space in a name":                        {"systemd/b c.service": service},
		"two dots in a unit":                     {"systemd/@.service": service},
		"a device":                               {"systemd/dev-x.device": "[Unit]\n"},
		"a directory for a unit":                 {"systemd/b.service/x": "x"},
		"a directory of a directory of drop-ins": {"systemd/b.service.d/x.conf/y": "x"},
		"NUL":                                    {"systemd/b.service": service + "\x00"},
		"LFS pointer":                            {"scripts/x": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12\n"},
		"too long":                               {"scripts/x": strings.Repeat("x", maxFile+1)},
		"timer without a service":                {"systemd/b.timer": timer},
		"alias of another type":                  {"systemd/b.service": service + "Alias=b.timer\n"},
		"two sources of one file":                {"systemd/b.service": service, "scripts/b.service": "x"},
		"rules that are not JSON":                {rulesFile: "x"},
		"misspelt key":                           {"systemd/b.service": strings.Replace(service, "ExecStart", "ExceStart", 1)},
		"nothing left":                           {"systemd": ""},
		"most removed":                           {"systemd/a.service": "", "systemd/a.timer": "", "systemd/hub.preset": ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.commit(map[string]string{"systemd/a.service": service, "systemd/a.timer": timer, "systemd/hub.preset": presets})
			w.sync(0)
			before := w.hostFile(unitDir+"/a.service") + w.hostFile(unitDir+"/a.timer")
			w.commit(files)
			var more []string
			if name == "two sources of one file" {
				more = []string{"--scripts-dir", unitDir}
			}
			o := w.sync(int(sysexits.DataErr), more...)
			if o := append(o.lines("action"), w.on("apply", more...).lines("action")...); len(o) > 0 {
				t.Errorf("it did these actions: %q", o)
			}
			if w.hostFile(unitDir+"/a.service")+w.hostFile(unitDir+"/a.timer") != before || w.hostFile(unitDir+"/b.service") != "" {
				t.Error("the host has changed")
			}
		})
	}
}

// --allow-prune disables the guard against a repository that lost its files.
func TestAllowPrune(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service, "systemd/a.timer": timer, "systemd/hub.preset": presets})
	w.sync(0)
	w.commit(map[string]string{"systemd": ""})
	if o := w.sync(int(sysexits.DataErr)); !strings.Contains(o.stderr, "prune_refused") {
		t.Errorf("stderr: %s", o.stderr)
	}
	if o := w.on("plan"); !strings.Contains(o.stderr, "prune_ahead") {
		t.Errorf("plan: %s", o.stderr)
	}
	w.sync(0, "--allow-prune")
	if got, err := os.ReadDir(filepath.Join(w.root, unitDir)); err != nil || len(got) != 1 { // only .gitsync
		t.Errorf("left: %v, %v", got, err)
	}
}

// Identical files are adopted. Other files, and the files of another gitsync, are
// foreign.
func TestForeignFiles(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service, "systemd/b.service": service, "systemd/c.service": service, "systemd/d.service": service, "scripts/x": "new\n", "systemd/hub.preset": presets})
	w.onHost(unitDir+"/a.service", service, 0o644)
	w.onHost(unitDir+"/b.service", service, 0o600)
	w.onHost(unitDir+"/c.service", service+"# another\n", 0o644)
	w.onHost(unitDir+"/d.service", "-> /dev/null", 0)
	w.onHost("/usr/local/bin/x", "-> /usr/bin/true", 0)
	o := w.sync(int(sysexits.Partial))
	same(t, "actions", o.lines("action"), []string{
		"install a.service adopted", "install b.service adopted", "install /usr/local/lib/systemd/system-preset/hub.preset new",
		"skip /usr/local/bin/x foreign", "skip c.service foreign", "skip d.service masked",
	})
	if got := w.hostFile("/usr/local/bin/x"); got != "-> /usr/bin/true" {
		t.Errorf("the foreign link is %q", got)
	}
	other := *w
	other.state += "2"
	same(t, "of another state", other.sync(int(sysexits.Partial)).lines("action"), []string{
		"skip /usr/local/bin/x foreign", "skip a.service foreign", "skip b.service foreign", "skip c.service foreign", "skip /usr/local/lib/systemd/system-preset/hub.preset foreign", "skip d.service masked",
	})
}

// If a run is killed after its changes, the next run undoes them.
func TestRecover(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service, "systemd/a.timer": timer, "systemd/hub.preset": presets})
	w.sync(0)
	w.commit(map[string]string{"systemd/a.service": service + "# 2\n", "systemd/a.timer": "", "systemd/b.timer": timer, "systemd/b.service": service, "systemd/b.service.d/x.conf": "[Unit]\n"})
	if o := w.on("pull"); o.status != int(sysexits.Usage) { // pull has no --root
		t.Fatalf("pull: %+v", o)
	}
	if o := w.run("", "pull", "--repo", w.repo, "--state-dir", w.state); o.status != 0 {
		t.Fatalf("pull: %+v", o)
	}
	a := w.begin()
	p, err := a.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := &execution{apply: a, plan: p, actions: p.actions, touched: map[string]bool{}}
	if err := x.adoptIdentical(); err != nil {
		t.Fatal(err)
	}
	if err := x.change(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.hostFile(unitDir+"/b.timer") != timer || w.hostFile(unitDir+"/a.timer") != "" {
		t.Fatal("change did not change the host")
	}
	if o := w.ask("status"); !strings.Contains(o.stdout, `"interrupted":true`) {
		t.Errorf("status: %s", o.stdout)
	}
	if err := a.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.hostFile(unitDir+"/b.timer") != "" || w.hostFile(unitDir+"/a.timer") != timer || w.hostFile(unitDir+"/timers.target.wants/a.timer") == "" || w.hostFile(unitDir+"/a.service") != service {
		t.Error("recover did not restore the host")
	}
	if _, err := os.Stat(filepath.Join(w.root, unitDir, "b.service.d")); err == nil {
		t.Error("the new directory still exists")
	}

	// After the ledger is written, nothing is undone.
	p, err = a.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x = &execution{apply: a, plan: p, actions: p.actions, todo: p.actions, touched: map[string]bool{}}
	if err := x.change(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := writeState(a.dir, ledgerFile, a.ledger.next(p, p.actions, a.began, x.journal.Run)); err != nil {
		t.Fatal(err)
	}
	if err := a.prepare(); err != nil {
		t.Fatal(err)
	}
	if err := a.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if j, err := readJournal(w.state); j != nil || err != nil || w.hostFile(unitDir+"/b.timer") != timer {
		t.Errorf("a committed run was undone: %v, %v", j, err)
	}
}

// If the ledger cannot be written, the commit is undone.
func TestUncommitted(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service})
	if o := w.run("", "pull", "--repo", w.repo, "--state-dir", w.state); o.status != 0 {
		t.Fatalf("pull: %+v", o)
	}
	a := w.begin()
	p, err := a.plan(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	x := &execution{apply: a, plan: p, actions: p.actions, todo: p.actions, touched: map[string]bool{}}
	if err := x.change(t.Context()); err != nil {
		t.Fatal(err)
	}
	why := sysexits.New(sysexits.CantCreate, "state_unwritable", os.ErrPermission)
	if err := x.uncommitted(why); sysexits.Code(err) != sysexits.CantCreate {
		t.Errorf("uncommitted = %v", err)
	}
	if j, err := readJournal(w.state); j != nil || err != nil || w.hostFile(unitDir+"/a.service") != "" {
		t.Errorf("not undone: %v, %v", j, err)
	}
	// Without a journal nothing was changed, so there is nothing to undo.
	x.journal = nil
	if err := x.uncommitted(why); err != why {
		t.Errorf("uncommitted without a journal = %v", err)
	}
}

// If a file cannot be written, the host is restored.
func TestUnwritableHost(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service, "scripts/x": "#!/bin/sh\n"})
	w.onHost("/usr/local", "a file", 0o644)
	o := w.sync(int(sysexits.CantCreate))
	if !strings.Contains(o.stderr, "host_unwritable") || w.hostFile(unitDir+"/a.service") != "" {
		t.Errorf("stderr: %s", o.stderr)
	}
	if j, err := readJournal(w.state); j != nil || err != nil {
		t.Errorf("journal: %v, %v", j, err)
	}
}

// A state directory belongs to one root.
func TestOtherRoot(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{"systemd/a.service": service})
	w.sync(0)
	other := *w
	other.root = filepath.Join(t.TempDir(), "x")
	if err := os.Mkdir(other.root, 0o755); err != nil {
		t.Fatal(err)
	}
	if o := other.on("apply"); o.status != int(sysexits.Config) || !strings.Contains(o.stderr, "other_root") {
		t.Errorf("apply: %+v", o)
	}
	if o := other.on("apply", "x"); o.status != int(sysexits.Usage) {
		t.Errorf("apply x: %+v", o)
	}
	a := w.begin()
	if err := writeState(a.dir, journalFile, &journal{Version: journalVersion, Root: "/elsewhere"}); err != nil {
		t.Fatal(err)
	}
	if err := a.recover(t.Context()); sysexits.Code(err) != sysexits.Config {
		t.Errorf("recover of another root = %v", err)
	}
}

// apply fails without a pull, for another repository, without objects, and with
// damaged state files.
func TestReadCommit(t *testing.T) {
	w := newWorld(t)
	if o := w.on("apply"); o.status != int(sysexits.Config) {
		t.Errorf("apply without a pull: %+v", o)
	}
	commit := w.commit(map[string]string{"systemd/a.service": service})
	w.sync(0)
	if o := w.on("apply", "--repo", "/another"); o.status == 0 {
		t.Errorf("apply of another repository: %+v", o)
	}
	objects := filepath.Join(w.state, repoDir, "objects")
	if err := os.Rename(objects, objects+"-away"); err != nil {
		t.Fatal(err)
	}
	if o := w.on("apply"); o.status != int(sysexits.Unavailable) || !strings.Contains(o.stderr, "repository_corrupt") {
		t.Errorf("apply without objects: %+v", o)
	}
	if err := os.Rename(objects+"-away", objects); err != nil {
		t.Fatal(err)
	}
	w.write(w.state, pulledFile, `{"commit":"x"}`, 0o644)
	if o := w.on("apply"); o.status != int(sysexits.DataErr) {
		t.Errorf("apply of a commit that is not a hash: %+v", o)
	}
	w.write(w.state, ledgerFile, "{", 0o644)
	if o := w.on("apply"); !strings.Contains(o.stderr, "state_damaged") {
		t.Errorf("apply with a damaged ledger: %+v, commit %s", o, commit)
	}
	w.write(w.state, ledgerFile, `{"version":9}`, 0o644)
	if o := w.on("apply"); o.status != int(sysexits.Config) {
		t.Errorf("apply with the ledger of another version: %+v", o)
	}
}
