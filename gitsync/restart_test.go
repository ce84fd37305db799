package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"observability-hub/gitsync/internal/unit"
)

func TestReadDetail(t *testing.T) {
	tried := map[string]string{"ConditionTimestampMonotonic": "5", "ConditionResult": "yes", "AssertResult": "yes", "CanStart": "yes", "CanStop": "yes", "Result": "success"}
	with := func(changes ...string) map[string]string {
		p := maps.Clone(tried)
		for _, c := range changes {
			name, value, _ := strings.Cut(c, "=")
			p[name] = value
		}
		return p
	}
	ok := detail{result: "success", conditionMet: true, canStart: true, canStop: true}
	but := func(change func(*detail)) detail {
		d := ok
		change(&d)
		return d
	}
	for _, tc := range []struct {
		name string
		p    map[string]string
		want detail
	}{
		{"started before", tried, ok},
		{"never started", with("ConditionTimestampMonotonic=0", "ConditionResult=no"), ok},
		{"condition unmet", with("ConditionResult=no"), but(func(d *detail) { d.conditionMet = false })},
		{"assertion unmet", with("AssertResult=no", "AssertTimestampMonotonic=5"), but(func(d *detail) { d.conditionMet = false })},
		{"assertion never looked at", with("AssertResult=no", "AssertTimestampMonotonic=0"), ok},
		{"cannot start", with("CanStart=no"), but(func(d *detail) { d.canStart = false })},
		{"refuses to be started", with("RefuseManualStart=yes"), but(func(d *detail) { d.canStart = false })},
		{"refuses to be stopped", with("RefuseManualStop=yes"), but(func(d *detail) { d.canStop = false })},
		{"stopped by systemctl", with("ExecMainExitTimestampMonotonic=20", "ActiveExitTimestampMonotonic=10"), ok},
		{"ended by itself", with("ExecMainExitTimestampMonotonic=10", "ActiveExitTimestampMonotonic=10"), but(func(d *detail) { d.endedItself = true })},
		{"ended never", with("ExecMainExitTimestampMonotonic=0", "ActiveExitTimestampMonotonic=10"), ok},
		{"nothing known", nil, detail{conditionMet: true, canStart: true, canStop: true}},
	} {
		if got := readDetail(tc.p); got != tc.want {
			t.Errorf("%s: %+v; want %+v", tc.name, got, tc.want)
		}
	}
}

func TestHeal(t *testing.T) {
	loaded := func(active string) unitState { return unitState{"loaded", active, ""} }
	able := detail{conditionMet: true, canStart: true, canStop: true}
	ended := able
	ended.result, ended.endedItself = "success", true
	crashed := ended
	crashed.result = "signal"
	never := able
	never.canStart = false
	for _, tc := range []struct {
		name string
		r    role
		s    unitState
		d    detail
		want string
	}{
		{"a timer that was stopped", role{}, loaded("inactive"), able, "inactive"},
		{"a service that was stopped", role{ends: true}, loaded("inactive"), able, "inactive"},
		{"a service that did its work", role{ends: true}, loaded("inactive"), ended, ""},
		{"a service that crashed", role{ends: true}, loaded("inactive"), crashed, "inactive"},
		{"a service that failed", role{ends: true}, loaded("failed"), crashed, "failed"},
		{"a mount that ended", role{}, loaded("inactive"), ended, "inactive"},
		{"a unit that cannot be started", role{}, loaded("failed"), never, ""},
		{"a container whose service remains", role{}, loaded("inactive"), ended, "inactive"},
	} {
		if got := tc.r.heal(tc.s, tc.d); got != tc.want {
			t.Errorf("%s: %q; want %q", tc.name, got, tc.want)
		}
	}
}

func TestRoleOf(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		role       role
		ok         bool
	}{
		{"a.service", daemon, role{ends: true}, true},
		{"a.service", service, role{ends: true}, false},
		{"a.service", service + "[Service]\nRemainAfterExit=yes\n", role{}, true},
		{"a.service", daemon + "[Service]\nRemainAfterExit=yes\n", role{}, true},
		{"a.timer", timer, role{}, true},
		{"a.timer", timer + "[Timer]\nRemainAfterElapse=no\n", role{once: true}, true},
		{"a.target", "[Unit]\n", role{}, true},
		{"a.mount", "[Mount]\n", role{}, true},
		{"a.slice", "[Slice]\n", role{}, false},
		{"a.swap", "[Swap]\n", role{}, false},
	} {
		if r, ok := roleOf(unit.Parse(tc.name, []byte(tc.text))); r != tc.role || ok != tc.ok {
			t.Errorf("roleOf(%s: %q) = %+v, %v", tc.name, tc.text, r, ok)
		}
	}
	if _, ok := roleOf(nil); ok {
		t.Error("a unit that does not exist has a role")
	}
}

func TestTouches(t *testing.T) {
	w := newWorld(t)
	want := wantOf(map[string]string{quadletDir + "/q.container": "[Container]\nServiceName=other\n"})
	p := &plan{want: want, after: newAfter(host{w.root}, want, nil)}
	for _, tc := range []struct {
		changed, name string
		want          bool
	}{
		{"a.service", "a.service", true},
		{"a.service", "b.service", false},
		{"w@.service", "w@one.service", true},
		{"w@one.service", "w@two.service", false},
		{"service", "a.service", true},
		{"service", "a.timer", false},
		{"a-.service", "a-b.service", true},
		{"q.container", "other.service", true},
		{"q.container", "q.service", false},
	} {
		if got := p.touches(tc.changed, tc.name); got != tc.want {
			t.Errorf("touches(%s, %s) = %v", tc.changed, tc.name, got)
		}
	}
}

func TestUsesScript(t *testing.T) {
	scripts := map[string]bool{"/usr/local/bin/job": true, "scripts/job": true, "/opt/x": true}
	for text, want := range map[string]bool{
		"[Service]\nExecStart=/usr/local/bin/job\n": true, "[Service]\nExecStart=job x\n": true, "[Service]\nExecStart=/usr/bin/job\n": false, "[Service]\nExecStart=other\n": false,
		"[Service]\nExecStart=-/usr/local/bin/job\n": true, "[Service]\nExecSearchPath=/usr/local/bin\nExecStart=-job\n": true, "[Service]\nExecSearchPath=/opt/bin\nExecStart=job\n": false,
		"[Service]\nExecStart=/bin/sh -c job\n": false, "[Service]\nExecStart=/bin/sh\n[X-Gitsync]\nRestartOnChange=scripts/job\n": true,
		"[X-Gitsync]\nRestartOnChange=/opt//x\n": true, "[X-Gitsync]\nRestartOnChange=/opt/y\n": false, "[Service]\nExecStart=/usr/local/bin/%N\n": true,
	} {
		if got := usesScript(unit.Parse("job.service", []byte(text)), scripts); got != want {
			t.Errorf("usesScript(%q) = %v", text, got)
		}
	}
}

const daemon = "[Service]\nExecStart=/usr/local/bin/job\n[Install]\nWantedBy=multi-user.target\n"

// Units that are running, waiting to be restarted or failed take up a change.
func TestChangedUnits(t *testing.T) {
	w := newWorld(t)
	files := map[string]string{"/usr/local/bin/job": "new"}
	for _, name := range []string{"runs.service", "failed.service", "retries.service", "stopped.service", "work.slice", "disk.swap", "other.service", "w@.service", "own.service", "masked.service"} {
		files[unitDir+"/"+name] = daemon
	}
	files[unitDir+"/stays.service"] = daemon + "[X-Gitsync]\nRestart=no\n"
	want := wantOf(files)
	p := &plan{want: want, after: newAfter(host{w.root}, want, nil), changed: map[string]string{}}
	p.own = "own.service"
	p.running = parseUnits(strings.Join([]string{
		"runs.service loaded active running x", "failed.service loaded failed failed x", "retries.service loaded activating auto-restart x", "stopped.service loaded inactive dead x",
		"work.slice loaded active active x", "disk.swap loaded active active x", "w@one.service loaded active running x", "w@gone.service loaded active running x", "stays.service loaded active running x",
		"own.service loaded active running x", "masked.service masked active running x", "other.service loaded active running x", "dev-x.device loaded active plugged x",
	}, "\n"))
	for name := range files {
		if u := want.file(name).unit; u != "" && u != "other.service" {
			p.changed[u] = "changed"
		}
	}
	p.actions = []action{{Action: doDisable, Unit: "w@gone.service", stop: true}}
	wantReasons := map[string]string{"runs.service": "changed", "failed.service": "changed", "retries.service": "changed", "w@one.service": "changed"}
	if got := p.changedUnits(); !maps.Equal(got, wantReasons) {
		t.Errorf("changedUnits = %v; want %v", got, wantReasons)
	}
	// A failed unit is started again in spite of Restart=no.
	p.running["stays.service"] = unitState{"loaded", "failed", "failed"}
	wantReasons["stays.service"] = "changed"
	p.actions = append(p.actions, action{Action: doUpdate, Path: "/usr/local/bin/job", Reason: "changed"})
	wantReasons["other.service"] = "script"
	if got := p.changedUnits(); !maps.Equal(got, wantReasons) {
		t.Errorf("with a script: %v; want %v", got, wantReasons)
	}
}

// The restarts of a plan follow from systemd's answers.
func TestRestarts(t *testing.T) {
	never := "LoadState=loaded\nActiveState=inactive\nConditionTimestampMonotonic=0\nCanStart=yes\nCanStop=yes\n"
	unmet := strings.Replace(never, "Monotonic=0", "Monotonic=7", 1) + "ConditionResult=no\n"
	for _, tc := range []struct {
		name    string
		files   map[string]string // names in capitals have changed; those with FRESH are new
		running []string
		show    map[string]string
		unmet   bool
		want    []string // all lines except those of files
		healing bool
	}{
		{"nothing to do", map[string]string{"a.timer": timer, "a.service": service}, []string{"timers.target active active", "a.timer active waiting"}, nil, false, nil, false},
		{"an enabled timer was stopped", map[string]string{"a.timer": timer, "a.service": service}, []string{"timers.target active active", "a.timer inactive dead"},
			map[string]string{"a.timer": never}, false, []string{"restart a.timer inactive"}, true},
		{"a timer with an unmet condition", map[string]string{"a.timer": timer, "a.service": service}, []string{"timers.target active active", "a.timer inactive dead"},
			map[string]string{"a.timer": unmet}, true, nil, false},
		{"a timer with a condition that is met again", map[string]string{"a.timer": timer, "a.service": service}, []string{"timers.target active active", "a.timer inactive dead"},
			map[string]string{"a.timer": unmet}, false, []string{"restart a.timer inactive"}, true},
		{"a timer that is unloaded when it has elapsed", map[string]string{"a.timer": timer + "[Timer]\nRemainAfterElapse=no\n", "a.service": service}, []string{"timers.target active active", "a.timer inactive dead"},
			map[string]string{"a.timer": never}, false, nil, false},
		{"nothing that wants it is active", map[string]string{"a.timer": timer, "a.service": service}, []string{"timers.target inactive dead"}, nil, false, nil, false},
		{"a oneshot that ended", map[string]string{"on.service": service}, []string{"multi-user.target active active", "on.service inactive dead"}, map[string]string{"on.service": never}, false, nil, false},
		{"a oneshot that remains", map[string]string{"on.service": strings.Replace(service, "oneshot\n", "oneshot\nRemainAfterExit=yes\n", 1)}, []string{"multi-user.target active active", "on.service inactive dead"},
			map[string]string{"on.service": never}, false, []string{"restart on.service inactive"}, true},
		{"changed and running", map[string]string{"NEW.service": service}, []string{"new.service active running"}, nil, false, []string{"restart new.service changed"}, false},
		{"changed, and hangs while it starts", map[string]string{"NEW.service": service}, []string{"new.service activating start-pre"}, nil, false, []string{"restart new.service changed"}, false},
		{"a running oneshot", map[string]string{"NEW.service": service}, []string{"new.service activating start"},
			map[string]string{"new.service": "LoadState=loaded\nCanStop=yes\nType=oneshot\n"}, false, nil, false},
		{"changed, runs, and cannot be stopped", map[string]string{"NEW.service": service}, []string{"new.service active running"},
			map[string]string{"new.service": "LoadState=loaded\nCanStop=yes\nRefuseManualStop=yes\n"}, false, nil, false},
		{"masked at run time", map[string]string{"NEW.service": service}, []string{"new.service active running"}, map[string]string{"new.service": "LoadState=masked\n"}, false, nil, false},
		{"enabled by this commit", map[string]string{"FRESH.timer": timer, "FRESH.service": service}, []string{"timers.target active active"}, map[string]string{"fresh.timer": "LoadState=not-found\n"}, false,
			[]string{"enable fresh.timer new"}, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeSystemd(t)
			w := newWorld(t)
			l := &ledger{Files: map[string]owned{}, Enabled: map[string]bool{}, Links: map[string]enablement{}}
			files := map[string]string{presetDir + "/hub.preset": "enable *.timer\nenable on.service\ndisable *\n"}
			for name, content := range tc.files {
				p, old := unitDir+"/"+strings.ToLower(name), content
				files[p] = content
				switch {
				case strings.HasPrefix(name, "FRESH"):
					continue
				case name != strings.ToLower(name):
					old += "# old\n"
				}
				w.onHost(p, old, 0o644)
				l.Files[p] = owned{Unit: name, Sum: sum([]byte(old))}
				if u := unit.Parse(name, []byte(content)); strings.HasSuffix(name, ".timer") || strings.HasPrefix(name, "on") {
					on := links(u.Last("Install", "WantedBy") + ".wants/" + name)
					if err := on.make(host{w.root}); err != nil {
						t.Fatal(err)
					}
					l.Enabled[name], l.Links[name] = true, on
				}
			}
			for name, content := range tc.show {
				f.put("show-"+name, content)
			}
			if tc.unmet {
				f.put("unmet", "")
			}
			p := planOn(t, w.root, l, wantOf(files), f.units(tc.running...))
			actions := slices.DeleteFunc(p.actions, func(a action) bool { return a.isFile() })
			same(t, "actions", summary(actions), tc.want)
			for _, a := range actions {
				if a.healing != tc.healing {
					t.Errorf("%s: healing %v", a.Unit, a.healing)
				}
				if a.Action == doEnable && !slices.Equal(a.start, []string{a.Unit}) {
					t.Errorf("%s starts %v", a.Unit, a.start)
				}
			}
		})
	}
}

// The line that installs a quadlet starts its service. The service is restarted if
// the quadlet changes. The settings of the quadlet count for the service.
func TestQuadlets(t *testing.T) {
	const quadlet = "[Container]\nImage=x\n[Install]\nWantedBy=multi-user.target\n"
	for _, tc := range []struct {
		name, was, is string
		state         string
		want, start   []string
	}{
		{"new", "", quadlet, "", []string{"install q.container new"}, []string{"q.service"}},
		{"new, wanted by nothing", "", "[Container]\nImage=x\n", "", []string{"install q.container new"}, nil},
		{"new, ends by itself", "", quadlet + "[Service]\nType=oneshot\n", "", []string{"install q.container new"}, nil},
		{"changed", quadlet, quadlet + "# 2\n", "active running", []string{"update q.container changed", "restart q.service changed"}, nil},
		{"changed, with Restart=no", quadlet, quadlet + "[X-Gitsync]\nRestart=no\n", "active running", []string{"update q.container changed"}, nil},
		{"stopped", quadlet, quadlet, "inactive dead", []string{"restart q.service inactive"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFakeSystemd(t)
			w := newWorld(t)
			w.onHost("/usr/lib/systemd/system-generators/podman-system-generator", "x", 0o755)
			running := []string{"multi-user.target active active"}
			l := &ledger{Files: map[string]owned{}}
			f.put("show-q.service", "LoadState=not-found\n")
			if tc.was != "" {
				w.onHost(quadletDir+"/q.container", tc.was, 0o644)
				w.onHost("/run/systemd/generator/q.service", tc.was+"[Service]\nExecStart=/usr/bin/podman\n", 0o644)
				l.Files[quadletDir+"/q.container"] = owned{Unit: "q.container", Sum: sum([]byte(tc.was))}
				running = append(running, "q.service "+tc.state)
				f.put("show-q.service", "LoadState=loaded\n")
			}
			p := planOn(t, w.root, l, wantOf(map[string]string{quadletDir + "/q.container": tc.is}), f.units(running...))
			same(t, "actions", summary(p.actions), tc.want)
			if len(p.actions) > 0 {
				same(t, "it starts", p.actions[0].start, tc.start)
			}
		})
	}
}
