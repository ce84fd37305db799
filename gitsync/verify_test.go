package main

import (
	"strings"
	"testing"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/sysexits"
)

func verifyPlan(t *testing.T, w *world, l *ledger, files map[string]string) *plan {
	t.Helper()
	want := wantOf(files)
	s := &stage{dir: "/state/stage"}
	return &plan{view: view{host: host{w.root}, ledger: l}, want: want, after: newAfter(host{w.root}, want, nil), stage: s, declared: &declared{}, foreign: map[string]bool{}}
}

func TestJudgeComplaint(t *testing.T) {
	const template = "[Unit]\nDescription=x\n[Timer]\nOnCalendar=%i\nOnCalender=x\n"
	old := "[Service]\nExecStrat=x\n"
	w := newWorld(t)
	l := &ledger{Files: map[string]owned{unitDir + "/old.service": {Unit: "old.service", Sum: sum([]byte(old))}}}
	p := verifyPlan(t, w, l, map[string]string{
		unitDir + "/a.service": service, unitDir + "/old.service": old, unitDir + "/w@.timer": template, unitDir + "/host.service.d/x.conf": "[Service]\nNice=x\n", "/usr/local/bin/job": "x",
	})
	staged := "/state/stage" + unitDir + "/"
	const ignoring = "Unknown key name 'X' in section 'Service', ignoring."
	for _, tc := range []struct {
		name    string
		c       unit.Complaint
		before  []unit.Complaint
		foreign bool
		want    int
	}{
		{"a fault in a new file", unit.Complaint{File: staged + "a.service", Line: 1, Unit: "a.service", Text: ignoring}, nil, false, refuses},
		{"a remark on a new file", unit.Complaint{File: staged + "a.service", Line: 1, Unit: "a.service", Text: "Support for option X has been removed, and it is ignored"}, nil, false, warns},
		{"a fault that was deployed before", unit.Complaint{File: staged + "old.service", Line: 2, Unit: "old.service", Text: ignoring}, nil, false, warns},
		{"a fault of a file that is not the commit's", unit.Complaint{File: "/etc/systemd/system/a.service.d/admin.conf", Line: 2, Unit: "a.service", Text: ignoring}, nil, false, warns},
		{"a fault in a drop-in", unit.Complaint{File: staged + "host.service.d/x.conf", Line: 2, Unit: "host.service", Text: ignoring}, nil, true, refuses},
		{"a unit that cannot be loaded", unit.Complaint{Unit: "a.service", Text: "Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing."}, nil, false, refuses},
		{"a unit that could not be loaded before either", unit.Complaint{Unit: "a.service", Text: "Refusing."}, []unit.Complaint{{Unit: "a.service", Text: "Refusing."}}, false, warns},
		{"a foreign unit that cannot be loaded", unit.Complaint{Unit: "host.service", Text: "Refusing."}, nil, true, warns},
		{"a unit that does not change", unit.Complaint{Unit: "old.service", Text: "Refusing."}, nil, false, warns},
		{"no unit at all", unit.Complaint{Text: "Failed to load a unit: Invalid argument"}, nil, false, refuses},
		{"a program that is in the commit", unit.Complaint{Unit: "a.service", Text: "Command /usr/local/bin/job is not executable: No such file or directory"}, nil, false, isNothing},
		{"a program that does not exist", unit.Complaint{Unit: "a.service", Text: "Command /opt/x is not executable: No such file or directory"}, nil, false, refuses},
		{"a fault that depends on the instance", unit.Complaint{File: staged + "w@.timer", Line: 4, Unit: "w@instance.timer", Text: "Failed to parse calendar specification, ignoring: instance"}, nil, false, isNothing},
		{"a fault that does not depend on the instance", unit.Complaint{File: staged + "w@.timer", Line: 5, Unit: "w@instance.timer", Text: ignoring}, nil, false, refuses},
		{"a real instance", unit.Complaint{File: staged + "w@.timer", Line: 4, Unit: "w@daily.timer", Text: ignoring}, nil, false, refuses},
	} {
		if got := p.judgeComplaint(tc.c, tc.before, tc.foreign); got != tc.want {
			t.Errorf("%s: %d; want %d", tc.name, got, tc.want)
		}
	}
	for _, tc := range []struct {
		c    unit.Complaint
		want string
	}{
		{unit.Complaint{File: staged + "a.service", Line: 3, Text: "x"}, "systemd/a.service:3: x"},
		{unit.Complaint{File: "/etc/x.conf", Line: 3, Text: "x"}, "/etc/x.conf:3: x"},
		{unit.Complaint{Unit: "a.service", Text: "x"}, "a.service: x"},
		{unit.Complaint{Unit: "a.service", Text: "a.service has x"}, "a.service has x"},
		{unit.Complaint{Text: "x"}, "x"},
	} {
		if got := p.hostText(tc.c); got != tc.want {
			t.Errorf("hostText(%+v) = %q; want %q", tc.c, got, tc.want)
		}
	}
	for name, want := range map[string]bool{"a.service": true, "old.service": false, "host.service": true, "w@x.timer": true, "other.service": false, "": true} {
		if got := p.unitChanges(name); got != want {
			t.Errorf("unitChanges(%q) = %v", name, got)
		}
	}
	if got := line([]byte("a\nb"), 2) + line([]byte("a"), 0) + line(nil, 9); got != "b" {
		t.Errorf("line: %q", got)
	}
}

func TestUnitsToVerify(t *testing.T) {
	w := newWorld(t)
	w.onHost(unitDir+"/masked.service", "-> /dev/null", 0)
	w.onHost("/usr/lib/systemd/system/host.service", service, 0o644)
	p := verifyPlan(t, w, &ledger{}, map[string]string{
		unitDir + "/a.service": service, unitDir + "/a.service.d/x.conf": "", unitDir + "/w@.service": service, unitDir + "/v@.service": service, unitDir + "/foreign.service": service,
		unitDir + "/host.service.d/x.conf": "", unitDir + "/masked.service.d/x.conf": "", quadletDir + "/q.container": "", "/usr/local/bin/x": "", presetDir + "/x.preset": "", unitDir + "/r@.service": service,
		unitDir + "/service.d/x.conf": "",
	})
	p.foreign["foreign.service"] = true
	p.declared.Preset = map[string]enablement{"w@two.service": nil, "w@one.service": nil}
	p.declared.Links = map[string]enablement{"w@one.service": nil, "a.service": nil}
	p.running = parseUnits("r@now.service loaded active running x\nv@dead.service loaded inactive dead x\n")
	units, others := p.unitsToVerify()
	same(t, "units", units, []string{"a.service", "r@now.service", "v@instance.service", "w@one.service", "w@two.service"})
	same(t, "others", others, []string{"host.service"})
}

// The real systemd-analyze on a stage. A fault that was deployed before, or that is
// not the commit's, is only a warning.
func TestVerify(t *testing.T) {
	newFakeSystemd(t) // the real systemd-analyze, and no service manager
	w := newWorld(t)
	env, said := testEnv(t)
	bad := service + "Bogus=1\n"
	w.onHost(unitDir+"/old.service", bad, 0o644)
	w.onHost(unitDir+"/a.service.d/admin.conf", "[Service]\nBogus=1\n", 0o644)
	l := &ledger{Files: map[string]owned{unitDir + "/old.service": {Unit: "old.service", Sum: sum([]byte(bad))}}}
	files := map[string]string{unitDir + "/old.service": bad, unitDir + "/a.service": service, unitDir + "/a:b.service": service, unitDir + "/c:d@.service": service, presetDir + "/x.preset": "disable *\n"}
	p := planOn(t, w.root, l, wantOf(files), nil)
	if err := p.verify(t.Context(), env.Diag); err != nil {
		t.Fatal(err)
	}
	if text := said(); !strings.Contains(text, `"unit_warning"`) || !strings.Contains(text, "systemd/old.service:") {
		t.Errorf("output: %s", text)
	}
	files[unitDir+"/new.service"] = bad
	p = planOn(t, w.root, l, wantOf(files), nil)
	if err := p.verify(t.Context(), env.Diag); sysexits.Code(err) != sysexits.DataErr || !strings.Contains(err.Error(), "systemd/new.service:") || strings.Contains(err.Error(), "old.service") {
		t.Errorf("verify = %v", err)
	}
}

// If systemd-analyze does not work, the commit is not refused.
func TestCannotVerify(t *testing.T) {
	for name, script := range map[string]string{
		"names no unit":            "echo 'Failed to initialize manager: No such file or directory' >&2; exit 1",
		"prints nothing":           "exit 1",
		"killed":                   "kill -KILL $$",
		"refuses all staged units": `case $SYSTEMD_UNIT_PATH in :*) exit 0 ;; esac; for u; do case $u in *.service) echo "$u: Failed to create $u/start: Unit $u is bad-setting, ignoring" >&2 ;; esac; done; exit 1`,
	} {
		t.Run(name, func(t *testing.T) {
			f := newFakeSystemd(t)
			w := newWorld(t)
			env, _ := testEnv(t)
			p := planOn(t, w.root, &ledger{}, wantOf(map[string]string{unitDir + "/a.service": service}), nil)
			f.put("systemd-analyze", "#!/bin/sh\n"+script+"\n")
			if err := p.verify(t.Context(), env.Diag); sysexits.Code(err) != sysexits.Unavailable {
				t.Errorf("verify = %v", err)
			}
		})
	}
}
