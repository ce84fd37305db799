package main

import (
	"errors"
	"slices"
	"testing"
)

func TestLink(t *testing.T) {
	for _, tc := range []struct {
		link            link
		subject, wanter string
	}{
		{link{unitDir + "/timers.target.wants/a.timer", unitDir + "/a.timer"}, "a.timer", "timers.target"},
		{link{unitDir + "/x.target.requires/a.service", "../a.service"}, "a.service", "x.target"},
		{link{unitDir + "/multi-user.target.wants/w@one.service", unitDir + "/w@.service"}, "w@one.service", "multi-user.target"},
		{link{unitDir + "/dev-x@y.device.wants/w@one.service", unitDir + "/w@.service"}, "w@one.service", "dev-x@y.device"},
		{link{unitDir + "/alias.service", unitDir + "/a.service"}, "a.service", ""},
		{link{unitDir + "/alias@one.service", unitDir + "/w@.service"}, "w@one.service", ""},
		{link{unitDir + "/alias@.service", unitDir + "/w@.service"}, "w@.service", ""},
		{link{unitDir + "/a.target.upholds/a.service", unitDir + "/a.service"}, "a.service", "a.target"},
	} {
		if s, w := tc.link.subject(), tc.link.wanter(); s != tc.subject || w != tc.wanter {
			t.Errorf("%v: subject %s, wanter %s; want %s, %s", tc.link, s, w, tc.subject, tc.wanter)
		}
	}
}

func TestLinksOf(t *testing.T) {
	all := links("timers.target.wants/a.timer", "multi-user.target.wants/w@one.service -> "+unitDir+"/w@.service", "b.service -> "+unitDir+"/a.service",
		"linked.service -> /opt/linked.service", "masked.service -> /dev/null", "default.target -> /usr/lib/systemd/system/multi-user.target")
	for name, want := range map[string]enablement{
		"a.timer": all[:1], "w@.service": all[1:2], "w@one.service": all[1:2], "w@two.service": nil, "a.service": all[2:3], "b.service": nil,
		"linked.service": nil, "masked.service": nil, "multi-user.target": all[5:],
	} {
		if got := all.of(name); !slices.Equal(got, want) {
			t.Errorf("of(%s) = %v; want %v", name, got, want)
		}
	}
}

// Links are made, read, restored and removed on disk.
func TestLinksOnDisk(t *testing.T) {
	w := newWorld(t)
	h := host{w.root}
	was := links("multi-user.target.wants/a.service", "b.service -> "+unitDir+"/a.service")
	if err := was.make(h); err != nil {
		t.Fatal(err)
	}
	if err := was.make(h); err != nil {
		t.Fatalf("again: %v", err)
	}
	w.onHost(unitDir+"/README", "x", 0o644)
	w.onHost(unitDir+"/a.service.d/x.conf", "-> /x", 0)
	w.onHost(unitDir+"/multi-user.target.wants/file", "x", 0o644)
	now, err := readEnablement(h)
	if err != nil || len(now) != 2 || len(now.without(was)) != 0 {
		t.Fatalf("read: %v, %v", now, err)
	}
	more := links("graphical.target.wants/a.service", "b.service -> /usr/lib/a.service")
	if err := more.make(h); err != nil {
		t.Fatal(err)
	}
	if got := w.hostFile(unitDir + "/b.service"); got != "-> /usr/lib/a.service" {
		t.Errorf("the replaced link is %q", got)
	}
	if err := was.restore(h, []string{"a.service"}); err != nil {
		t.Fatal(err)
	}
	if now, err = readEnablement(h); err != nil || len(now) != 2 || !slices.Contains(now, was[1]) {
		t.Errorf("restored: %v, %v", now, err)
	}
	if got := w.hostFile(unitDir + "/graphical.target.wants"); got != "" {
		t.Errorf("%q", got)
	}
	w.onHost(unitDir+"/b.service", "", 0)
	w.onHost(unitDir+"/b.service", "a file", 0o644)
	w.onHost(unitDir+"/multi-user.target.wants/file", "", 0)
	if err := was.remove(h); err != nil {
		t.Fatal(err)
	}
	if got := w.hostFile(unitDir + "/b.service"); got != "a file" {
		t.Errorf("a file in the place of a link: %q", got)
	}
}

// An alias does not replace another unit. A link in a .wants directory is replaced.
func TestMakeLinks(t *testing.T) {
	for _, tc := range []struct {
		name, there string
		links       enablement
		ok          bool
	}{
		{"b.service", "", links("b.service -> " + unitDir + "/a.service"), true},
		{"b.service", "-> " + unitDir + "/a.service", links("b.service -> " + unitDir + "/a.service"), true},
		{"b.service", "-> /usr/lib/systemd/system/a.service", links("b.service -> " + unitDir + "/a.service"), true},
		{"b.service", "-> " + unitDir + "/c.service", links("b.service -> " + unitDir + "/a.service"), false},
		{"b.service", "[Service]\n", links("b.service -> " + unitDir + "/a.service"), false},
		{"x.target.wants/a.service", "-> /elsewhere", links("x.target.wants/a.service"), true},
	} {
		w := newWorld(t)
		if tc.there != "" {
			w.onHost(unitDir+"/"+tc.name, tc.there, 0o644)
		}
		err := tc.links.make(host{w.root})
		var bad *unhealthy
		if (err == nil) != tc.ok || err != nil && !errors.As(err, &bad) {
			t.Errorf("%s where %q is: %v", tc.name, tc.there, err)
		}
		want := "-> " + tc.links[0].Target
		if !tc.ok {
			want = tc.there
		}
		if got := w.hostFile(unitDir + "/" + tc.name); got != want {
			t.Errorf("%s where %q is: %q; want %q", tc.name, tc.there, got, want)
		}
	}
}
