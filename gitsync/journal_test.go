package main

import (
	"slices"
	"testing"
)

// The journal records what its actions will change, and nothing else.
func TestNewJournal(t *testing.T) {
	w := newWorld(t)
	w.onHost(unitDir+"/a.service", service, 0o640)
	w.onHost(unitDir+"/dir.service/x", "x", 0o644)
	v := view{host: host{w.root}, links: links("multi-user.target.wants/a.service")}
	v.running = parseUnits("a.service loaded active running x\nw@one.service loaded activating auto-restart x\nbroken.service loaded failed failed x\nother.service loaded active running x\nhangs.service loaded activating start-pre x\nwork.service loaded activating start x\nq.service loaded active running x\n")
	actions := []action{
		{Action: doUpdate, Unit: "a.service", Path: unitDir + "/a.service"},
		{Action: doInstall, Unit: "n.service", Path: unitDir + "/n.service.d/x/y.conf"},
		{Action: doRemove, Unit: "q.container", Path: quadletDir + "/q.container", service: "q.service"},
		{Action: doEnable, Unit: "t.timer", add: links("multi-user.target.wants/w@two.service -> " + unitDir + "/w@.service"), start: []string{"t.timer"}},
		{Action: doRestart, Unit: "w@one.service"},
		{Action: doRestart, Unit: "broken.service"},
		{Action: doRestart, Unit: "hangs.service"},
		{Action: doUpdate, Unit: "work.service", Path: unitDir + "/work.service"},
		{Action: doSkip, Unit: "s.service", Path: "/s"},
		{Action: doRun, Unit: "r.service", Path: "/r"},
	}
	j, err := newJournal(v, "c", actions)
	if err != nil {
		t.Fatal(err)
	}
	same(t, "units", j.Units, []string{"a.service", "broken.service", "hangs.service", "n.service", "q.container", "q.service", "t.timer", "w@one.service", "w@two.service", "work.service"})
	same(t, "active", j.Active, []string{"a.service", "q.service"})
	same(t, "retrying", j.Retrying, []string{"hangs.service", "w@one.service"})
	same(t, "starting", j.Starting, []string{"work.service"})
	same(t, "directories", j.Dirs, []string{"/etc/containers", quadletDir, unitDir + "/n.service.d", unitDir + "/n.service.d/x"})
	if len(j.Files) != 4 || string(j.Files[0].Content) != service || j.Files[0].Mode != 0o640 || j.Files[1].Kind != "" || !j.Running || !slices.Equal(j.Links, v.links) {
		t.Errorf("journal: %+v", j)
	}
	if _, err := newJournal(v, "c", []action{{Action: doUpdate, Unit: "dir.service", Path: unitDir + "/dir.service"}}); err == nil {
		t.Error("newJournal accepts a directory in the place of a file")
	}
	w.write(w.state, journalFile, `{"version":9}`, 0o644)
	if _, err := readJournal(w.state); err == nil {
		t.Error("readJournal accepts a journal of another version")
	}
}

// Units that systemd stops together with a unit of the change are recorded. They
// are started again if they are not running after a rollback.
func TestBoundUnits(t *testing.T) {
	f := newFakeSystemd(t)
	f.put("show-a.service", "RequiredBy=b.service stopped.service\nBoundBy=c.service\nConsistsOf=\n")
	f.put("show-b.service", "RequiredBy=multi-user.target\nConsistsOf=d.service a.service\n")
	j := &journal{Active: []string{"a.service"}}
	running := f.units("a.service active running", "b.service active running", "c.service active running", "d.service active running", "stopped.service inactive dead")
	if err := j.bind(t.Context(), running); err != nil {
		t.Fatal(err)
	}
	same(t, "bound", j.Bound, []string{"b.service", "c.service", "d.service"})
	f.calls()
	f.units("a.service active running", "b.service active running", "c.service inactive dead", "d.service failed failed")
	started, err := j.reviveBound(t.Context(), "")
	if err != nil {
		t.Error(err)
	}
	same(t, "started", started, []string{"c.service", "d.service"})
	same(t, "calls", f.calls(), []string{"--no-block start c.service", "reset-failed d.service", "--no-block start d.service"})
}
