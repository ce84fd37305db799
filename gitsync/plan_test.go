package main

import (
	"path"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

// links parses links of the form "DIR/NAME" or "NAME -> TARGET".
func links(all ...string) enablement {
	var e enablement
	for _, text := range all {
		p, target, ok := strings.Cut(text, " -> ")
		if !ok {
			target = unitDir + "/" + path.Base(p)
		}
		e = append(e, link{path.Join(unitDir, p), target})
	}
	return e
}

func TestCompareFile(t *testing.T) {
	content := []byte("new")
	f := &wantedFile{path: "/x", mode: 0o644, content: content, sum: sum(content)}
	file := func(text string) fileState {
		return fileState{kind: "file", mode: 0o644, sum: sum([]byte(text)), data: []byte(text)}
	}
	wide := file("new")
	wide.mode = 0o666
	of := func(text string) owned { return owned{Sum: sum([]byte(text)), Mode: "0644"} }
	program := of("new")
	program.Mode = "0755"
	executable := file("new")
	executable.mode = 0o755
	for _, tc := range []struct {
		name         string
		is           fileState
		was          owned
		ours, others bool
		do, reason   string
	}{
		{"no file", fileState{}, owned{}, false, false, doInstall, "new"},
		{"removed by hand", fileState{}, of("new"), true, false, doInstall, "drift"},
		{"as wanted", file("new"), of("new"), true, false, "", ""},
		{"as wanted, the ledger has the commit before", file("new"), of("old"), true, false, "", ""},
		{"identical and not ours", file("new"), owned{}, false, false, doInstall, "adopted"},
		{"identical except for its mode and not ours", wide, owned{}, false, false, doInstall, "adopted"},
		{"different and not ours", file("x"), owned{}, false, false, doSkip, "foreign"},
		{"of the commit before", file("old"), of("old"), true, false, doUpdate, "changed"},
		{"edited by hand", file("x"), of("new"), true, false, doUpdate, "drift"},
		{"edited by hand, and another commit", file("x"), of("old"), true, false, doUpdate, "drift"},
		{"another mode", wide, of("new"), true, false, doUpdate, "drift"},
		{"of the commit before except for its mode", executable, program, true, false, doUpdate, "changed"},
		{"of the commit before except for its mode, changed by hand", wide, program, true, false, doUpdate, "drift"},
		{"of another gitsync", file("x"), owned{}, false, true, doSkip, "foreign"},
		{"identical, of another gitsync", file("new"), owned{}, false, true, doSkip, "foreign"},
		{"masked", fileState{kind: "link", link: "/dev/null"}, of("new"), true, false, doSkip, masked},
		{"a link", fileState{kind: "link", link: "/x"}, of("new"), true, false, doSkip, "foreign"},
		{"a directory", fileState{kind: "other"}, owned{}, false, false, doSkip, "foreign"},
	} {
		if do, reason := compareFile(f, tc.is, tc.was, tc.ours, tc.others); do != tc.do || reason != tc.reason {
			t.Errorf("%s: %s, %s; want %s, %s", tc.name, do, reason, tc.do, tc.reason)
		}
	}
}

func TestDecideLinks(t *testing.T) {
	multi, graphical, alias := links("multi-user.target.wants/a.service"), links("graphical.target.wants/a.service"), links("b.service -> "+unitDir+"/a.service")
	byHand := links("rescue.target.wants/a.service")
	join := func(all ...enablement) enablement { return slices.Concat(all...) }
	for _, tc := range []struct {
		name       string
		s          subjectLinks
		do, reason string
		add, drop  enablement
	}{
		{"nothing at all", subjectLinks{}, "", "", nil, nil},
		{"new", subjectLinks{preset: multi, declared: multi}, doEnable, "new", multi, nil},
		{"as the presets want", subjectLinks{is: multi, was: multi, preset: multi, declared: multi, known: true, enabledBefore: true}, "", "", nil, nil},
		{"disabled by hand", subjectLinks{was: multi, preset: multi, declared: multi, known: true, enabledBefore: true}, doEnable, "drift", multi, nil},
		{"the presets enable it now", subjectLinks{was: multi, preset: multi, declared: multi, known: true}, doEnable, "preset", multi, nil},
		{"another target", subjectLinks{is: multi, was: multi, preset: graphical, declared: graphical, known: true, enabledBefore: true}, doEnable, "changed", graphical, multi},
		{"one alias fewer", subjectLinks{is: join(multi, alias), was: join(multi, alias), preset: multi, declared: multi, known: true, enabledBefore: true}, doEnable, "changed", nil, alias},
		{"the administrator's link stays", subjectLinks{is: join(multi, byHand), was: multi, preset: multi, declared: multi, known: true, enabledBefore: true}, "", "", nil, nil},
		{"of a ledger without links", subjectLinks{preset: multi, declared: multi, known: true, enabledBefore: true}, doEnable, "drift", multi, nil},
		{"disabled by presets, never enabled", subjectLinks{declared: multi, off: true, known: true}, "", "", nil, nil},
		{"enabled by hand", subjectLinks{is: multi, was: multi, declared: multi, off: true, known: true}, "", "", nil, nil},
		{"enabled by hand, another target", subjectLinks{is: multi, was: multi, declared: graphical, off: true, known: true}, doEnable, "changed", graphical, multi},
		{"enabled by hand, one more target", subjectLinks{is: multi, was: multi, declared: join(multi, graphical), off: true, known: true}, doEnable, "changed", graphical, nil},
		{"enabled by hand, no [Install] any more", subjectLinks{is: multi, was: multi, known: true}, doDisable, "changed", nil, multi},
		{"presets disable it now", subjectLinks{is: multi, was: multi, declared: multi, off: true, known: true, enabledBefore: true}, doDisable, "preset", nil, multi},
		{"presets disable it, and it is disabled", subjectLinks{was: multi, declared: multi, off: true, known: true, enabledBefore: true}, "", "", nil, nil},
		{"an instance that presets no longer name", subjectLinks{is: join(multi, byHand), was: multi, declared: multi, known: true, enabledBefore: true, instance: true}, doDisable, "preset", nil, multi},
		{"an instance enabled by hand alone", subjectLinks{is: byHand, known: true, enabledBefore: true, instance: true}, "", "", nil, nil},
		{"presets ignore it now", subjectLinks{is: multi, was: multi, declared: multi, known: true, enabledBefore: true}, "", "", nil, nil},
	} {
		do, reason, add, drop := tc.s.decide()
		if do != tc.do || reason != tc.reason || !slices.Equal(add, tc.add) || !slices.Equal(drop, tc.drop) {
			t.Errorf("%s: %s, %s, add %v, drop %v; want %s, %s, add %v, drop %v", tc.name, do, reason, add, drop, tc.do, tc.reason, tc.add, tc.drop)
		}
	}
}

func TestGuard(t *testing.T) {
	ledgerOf := func(names ...string) *ledger {
		l := &ledger{Files: map[string]owned{}}
		for _, n := range names {
			l.Files["/"+n] = owned{}
		}
		return l
	}
	wantOfNames := func(names ...string) *want {
		w := &want{commit: someHash}
		for _, n := range names {
			w.files = append(w.files, &wantedFile{path: "/" + n})
		}
		return w
	}
	for _, tc := range []struct {
		name    string
		l       *ledger
		w       *want
		allow   bool
		refused bool
	}{
		{"first commit", ledgerOf(), wantOfNames("a"), false, false},
		{"first commit, empty", ledgerOf(), wantOfNames(), false, true},
		{"first commit, nothing for this host", ledgerOf(), &want{skipped: []skippedFile{{"a.service", "/a", notInstalledHere}}}, false, false},
		{"first commit, only documentation", ledgerOf(), &want{skipped: []skippedFile{{"", "systemd/README", "not-deployed"}}}, false, true},
		{"only rules", ledgerOf(), &want{rules: []rule{{}}}, false, false},
		{"only rules, where files were", ledgerOf("a"), &want{rules: []rule{{}}}, false, false},
		{"one of one", ledgerOf("a"), wantOfNames("b"), false, false},
		{"two of three", ledgerOf("a", "b", "c"), wantOfNames("c"), false, false},
		{"three of four", ledgerOf("a", "b", "c", "d"), wantOfNames("d"), false, true},
		{"three of six", ledgerOf("a", "b", "c", "d", "e", "f"), wantOfNames("d", "e", "f"), false, false},
		{"all", ledgerOf("a", "b", "c"), wantOfNames(), false, true},
		{"all, with --allow-prune", ledgerOf("a", "b", "c"), wantOfNames(), true, false},
	} {
		if err := guard(tc.l, tc.w, tc.allow); (err != nil) != tc.refused || err != nil && sysexits.Code(err) != sysexits.DataErr {
			t.Errorf("%s: %v; refused %v", tc.name, err, tc.refused)
		}
	}
}

func TestStartOrder(t *testing.T) {
	names := []string{"gitops-sync.timer", "z.service", "gitops-apply@x.service", "gitops-sync@x.timer", "a.timer", "gitops-synchrotron.timer"}
	slices.SortFunc(names, startOrder)
	same(t, "order", names, []string{"a.timer", "gitops-synchrotron.timer", "z.service", "gitops-apply@x.service", "gitops-sync.timer", "gitops-sync@x.timer"})
}

// A file that the commit no longer has is removed. A unit loses its links, unless a
// package installed the unit too.
func TestRemovals(t *testing.T) {
	w := newWorld(t)
	l := &ledger{Files: map[string]owned{}}
	for name, content := range map[string]string{
		"a.service": service, "vendor.service": service, "a.service.d/x.conf": "[Service]\n", "w@.service": service, "hidden.service": service,
	} {
		w.onHost(unitDir+"/"+name, content, 0o644)
	}
	w.onHost("/usr/local/bin/job", "#!/bin/sh\n", 0o755)
	w.onHost("/usr/lib/systemd/system/vendor.service", service, 0o644)
	w.onHost(quadletDir+"/q.container", "[Container]\nImage=x\nServiceName=other\n", 0o644)
	w.onHost(unitDir+"/multi-user.target.wants/a.service", "-> "+unitDir+"/a.service", 0)
	w.onHost(unitDir+"/multi-user.target.wants/vendor.service", "-> "+unitDir+"/vendor.service", 0)
	w.onHost(unitDir+"/multi-user.target.wants/w@one.service", "-> "+unitDir+"/w@.service", 0)
	w.onHost(unitDir+"/hidden.service", "-> /elsewhere", 0)
	for p, unit := range map[string]string{
		unitDir + "/a.service": "a.service", unitDir + "/vendor.service": "vendor.service", unitDir + "/a.service.d/x.conf": "a.service",
		unitDir + "/w@.service": "w@.service", unitDir + "/hidden.service": "hidden.service", unitDir + "/not-there.service": "not-there.service",
		unitDir + "/others.service": "others.service", quadletDir + "/q.container": "q.container", "/usr/local/bin/job": "",
	} {
		l.Files[p] = owned{Unit: unit}
	}
	w.onHost(unitDir+"/others.service", service, 0o644)
	want := &want{commit: someHash, skipped: []skippedFile{{"a.service", unitDir + "/a.service", notInstalledHere}}}
	p := &plan{view: view{host: host{w.root}, ledger: l, owners: map[string]string{unitDir + "/others.service": "/another"}}, want: want, changed: map[string]string{}}
	var err error
	if p.links, err = readEnablement(p.host); err != nil {
		t.Fatal(err)
	}
	p.after = newAfter(p.host, want, l.gone(want))
	if err := p.removals(); err != nil {
		t.Fatal(err)
	}
	same(t, "removals", summary(p.actions), []string{
		"remove q.container pruned", "remove a.service not-installed-here", "remove /etc/systemd/system/a.service.d/x.conf not-installed-here",
		"remove vendor.service pruned", "remove w@.service pruned", "remove /usr/local/bin/job pruned",
	})
	for _, a := range p.actions {
		var stop bool
		var add, drop enablement
		service := ""
		switch a.Path {
		case unitDir + "/a.service":
			stop, drop = true, links("multi-user.target.wants/a.service")
		case unitDir + "/w@.service":
			stop, drop = true, links("multi-user.target.wants/w@one.service -> "+unitDir+"/w@.service")
		case unitDir + "/vendor.service":
			add = links("multi-user.target.wants/vendor.service -> /usr/lib/systemd/system/vendor.service")
		case quadletDir + "/q.container":
			stop, service = true, "other.service"
		}
		if a.stop != stop || !slices.Equal(a.add, add) || !slices.Equal(a.drop, drop) || a.service != service {
			t.Errorf("%s: stop %v, add %v, drop %v, service %q", a.Path, a.stop, a.add, a.drop, a.service)
		}
	}
	if len(p.changed) != 2 || p.changed["vendor.service"] != "pruned" || p.changed["a.service"] == "" {
		t.Errorf("changed: %v", p.changed)
	}
}

// The links of templates, of units with Also=, and of units that a preset of the
// administrator decides on.
func TestEnablements(t *testing.T) {
	w := newWorld(t)
	template := strings.Replace(service, "[Install]\n", "[Install]\nDefaultInstance=one\n", 1)
	files := map[string]string{
		unitDir + "/w@.service": service, unitDir + "/d@.service": template, unitDir + "/a.service": service + "Also=b.timer\n", unitDir + "/b.timer": timer,
		unitDir + "/b.service": service, unitDir + "/off.service": service, unitDir + "/c.service": service, unitDir + "/plain.service.d/install.conf": "[Install]\nWantedBy=basic.target\n",
		presetDir + "/hub.preset": "enable w@.service one two\nenable d@.service\nenable a.service\nenable plain.service\nenable off.service\ndisable *\n",
	}
	w.onHost("/usr/lib/systemd/system/plain.service", "[Service]\nType=oneshot\nExecStart=/usr/bin/true\n", 0o644)
	w.onHost("/etc/systemd/system-preset/00-admin.preset", "disable off.service\n", 0o644)
	l := &ledger{Files: map[string]owned{}}
	p := planOn(t, w.root, l, wantOf(files), nil)
	var got []string
	for _, a := range p.actions {
		if a.Action == doEnable || a.Action == doDisable {
			for _, l := range a.add {
				got = append(got, a.Action+" "+a.Unit+" "+a.Reason+" "+strings.TrimPrefix(l.Path, unitDir+"/")+" "+path.Base(l.Target))
			}
		}
	}
	same(t, "links", got, []string{
		"enable a.service new multi-user.target.wants/a.service a.service",
		"enable b.timer new timers.target.wants/b.timer b.timer",
		"enable d@one.service new multi-user.target.wants/d@one.service d@.service",
		"enable plain.service new basic.target.wants/plain.service plain.service",
		"enable w@one.service new multi-user.target.wants/w@one.service w@.service",
		"enable w@two.service new multi-user.target.wants/w@two.service w@.service",
	})

	// Then the preset names one instance fewer.
	for _, a := range p.actions {
		if err := a.add.make(p.host); err != nil {
			t.Fatal(err)
		}
	}
	n := l.next(p, p.actions, time.Now(), "1")
	for path, content := range files {
		w.onHost(path, content, 0o644)
	}
	files[presetDir+"/hub.preset"] = strings.Replace(files[presetDir+"/hub.preset"], "one two", "one", 1)
	p = planOn(t, w.root, n, wantOf(files), nil)
	same(t, "one instance fewer", summary(p.actions), []string{"update /usr/local/lib/systemd/system-preset/hub.preset changed", "disable w@two.service preset"})
	if a := p.actions[len(p.actions)-1]; !a.stop || !slices.Equal(a.drop, links("multi-user.target.wants/w@two.service -> "+unitDir+"/w@.service")) {
		t.Errorf("disable: %+v", a)
	}
	p.foreign["w@.service"] = true
	p.actions = nil
	p.enablements()
	same(t, "of a foreign unit", summary(p.actions), nil)
}

// On-change commands are planned if their state has changed.
func TestRuns(t *testing.T) {
	known, changed, fresh := rule{Run: []string{"a"}, state: "1"}, rule{Run: []string{"b"}, state: "2"}, rule{Run: []string{"c"}, state: "3"}
	l := &ledger{OnChange: map[string]string{known.key(): "1", changed.key(): "1"}}
	p := &plan{view: view{host: host{"/"}, ledger: l}, want: &want{rules: []rule{known, changed, fresh}}}
	p.runs()
	var got []string
	for _, a := range p.actions {
		got = append(got, a.Unit+" "+a.Reason)
	}
	same(t, "runs", got, []string{changed.unit() + " changed", fresh.unit() + " new"})
	p.host.root, p.actions = "/x", nil
	if p.runs(); len(p.actions) > 0 {
		t.Errorf("runs on another root: %v", p.actions)
	}
}
