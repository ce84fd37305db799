package main

import (
	"observability-hub/gitsync/internal/unit"
	"path"
	"slices"
	"testing"

	"observability-hub/lib/sysexits"
)

// The drop-ins of its aliases also apply to a unit.
func TestNamesOfUnits(t *testing.T) {
	w := newWorld(t)
	w.onHost("/usr/lib/systemd/system/ssh.service", service, 0o644)
	w.onHost("/usr/lib/systemd/system/w@.service", service, 0o644)
	for name, target := range map[string]string{
		"sshd.service": "/usr/lib/systemd/system/ssh.service", "old.service": "sshd.service", "v@.service": "w@.service", "u@one.service": "w@.service",
		"masked.service": "/dev/null", "linked.service": "/opt/linked.service", "ssh.socket": "/x.service",
	} {
		w.onHost(unitDir+"/"+name, "-> "+target, 0)
	}
	w.onHost("/usr/lib/systemd/system/old.service", "-> other.service", 0) // hidden by the link in /etc
	w.onHost("/usr/lib/systemd/system/sshd.service.d/10.conf", "[Service]\nNice=1\n", 0o644)
	a := newAfter(host{w.root}, wantOf(map[string]string{unitDir + "/old.service.d/20.conf": "[Service]\nNice=2\n", unitDir + "/ssh.service.d/10.conf": "[Service]\nNice=3\n"}), nil)
	for name, id := range map[string]string{"ssh.service": "ssh.service", "sshd.service": "ssh.service", "old.service": "ssh.service", "v@x.service": "w@x.service",
		"u@one.service": "w@one.service", "masked.service": "masked.service", "linked.service": "linked.service", "ssh.socket": "ssh.socket"} {
		if got := a.id(name); got != id {
			t.Errorf("id(%s) = %s; want %s", name, got, id)
		}
	}
	same(t, "names of ssh.service", a.namesOf("ssh.service"), []string{"ssh.service", "old.service", "sshd.service"})
	same(t, "names of w@one.service", a.namesOf("w@one.service"), []string{"w@one.service", "u@one.service", "v@one.service"})
	for _, name := range []string{"ssh.service", "sshd.service"} {
		same(t, "drop-ins of "+name, a.dropIns(name), []string{unitDir + "/ssh.service.d/10.conf", unitDir + "/old.service.d/20.conf"})
	}
	p := &plan{after: a}
	if !p.touches("old.service", "ssh.service") || p.touches("other.service", "ssh.service") {
		t.Error("the drop-ins of an alias must count, and those of another unit must not")
	}
}

func TestFind(t *testing.T) {
	w := newWorld(t)
	w.onHost(unitDir+"/etc.service", service, 0o644)
	w.onHost("/usr/lib/systemd/system/etc.service", service, 0o644)
	w.onHost("/usr/lib/systemd/system/gone.service", service, 0o644)
	w.onHost("/run/systemd/generator/made.service", service, 0o644)
	w.onHost(unitDir+"/gone.service", service, 0o644)
	w.onHost(unitDir+"/gone-too.service", service, 0o644)
	w.onHost(unitDir+"/dead.service", "-> /dev/null", 0)
	w.onHost(unitDir+"/relative.service", "-> ../../../dev/null", 0) // a mask that another tool made
	w.onHost(unitDir+"/alias.service", "-> "+unitDir+"/etc.service", 0)
	w.onHost("/usr/lib/systemd/system/w@.service", service, 0o644)
	w.onHost("/run/systemd/system/now.service", "-> /dev/null", 0)
	w.write(w.root, unitDir+"/empty.service", "x", 0o644)
	w.onHost(unitDir+"/empty2.service/x", "x", 0o644)
	a := newAfter(host{w.root}, wantOf(map[string]string{unitDir + "/a.service": service, unitDir + "/dead2.service": service}), map[string]bool{unitDir + "/gone.service": true, unitDir + "/gone-too.service": true})
	for name, want := range map[string]string{
		"a.service": unitDir + "/a.service", "etc.service": unitDir + "/etc.service", "gone.service": "/usr/lib/systemd/system/gone.service",
		"gone-too.service": "", "made.service": "/run/systemd/generator/made.service", "dead.service": unitDir + "/dead.service",
		"relative.service": unitDir + "/relative.service", "alias.service": unitDir + "/alias.service", "w@x.service": "/usr/lib/systemd/system/w@.service", "not.service": "",
	} {
		p, isMasked := a.find(name)
		if p != want || isMasked != (name == "dead.service" || name == "relative.service") {
			t.Errorf("find(%s) = %q, %v; want %q", name, p, isMasked, want)
		}
		if u := a.unit(name); (u == nil) != (want == "" || isMasked) {
			t.Errorf("unit(%s) = %v", name, u)
		}
	}
	if u := a.unit("alias.service"); !u.Oneshot() {
		t.Error("the unit that a link points to is not read")
	}
	w.onHost(unitDir+"/empty.service", " ", 0o644)
	for name, want := range map[string]bool{"dead.service": true, "relative.service": true, "now.service": true, "etc.service": false, "alias.service": false, "not.service": false, "empty2.service": false} {
		if got := a.maskedByAdmin(name); got != want {
			t.Errorf("maskedByAdmin(%s) = %v", name, got)
		}
	}
}

func TestIsMask(t *testing.T) {
	for _, tc := range []struct {
		s    fileState
		want bool
	}{
		{fileState{kind: "link", link: "/dev/null"}, true},
		{fileState{kind: "link", link: "/x"}, false},
		{fileState{kind: "file", sum: sum(nil)}, true},
		{fileState{kind: "file", sum: "9000000 bytes"}, false}, // its content was not read
		{fileState{kind: "file", sum: sum([]byte("x")), data: []byte("x")}, false},
		{fileState{kind: "other"}, false},
		{fileState{}, false},
	} {
		if got := isMask(tc.s); got != tc.want {
			t.Errorf("isMask(%+v) = %v", tc.s, got)
		}
	}
}

func TestDropInsAfterPlan(t *testing.T) {
	w := newWorld(t)
	for _, p := range []string{unitDir + "/a.service.d/10.conf", unitDir + "/a.service.d/gone.conf", unitDir + "/a.service.d/README", "/usr/lib/systemd/system/service.d/05.conf", "/usr/lib/systemd/system/a.service.d/10.conf"} {
		w.onHost(p, "[Service]\nNice=2\n", 0o644)
	}
	a := newAfter(host{w.root}, wantOf(map[string]string{unitDir + "/a.service": service, unitDir + "/a.service.d/20.conf": "[Service]\nNice=3\n", quadletDir + "/q.container": "[Container]\n", quadletDir + "/q.container.d/x.conf": "[Container]\nServiceName=name\n"}),
		map[string]bool{unitDir + "/a.service.d/gone.conf": true})
	same(t, "drop-ins", a.dropIns("a.service"), []string{"/usr/lib/systemd/system/service.d/05.conf", unitDir + "/a.service.d/10.conf", unitDir + "/a.service.d/20.conf"})
	if got := a.unit("a.service").Last("Service", "Nice"); got != "3" {
		t.Errorf("Nice=%s", got)
	}
	if got := a.service("q.container"); got != "name.service" {
		t.Errorf("service of the quadlet: %s", got)
	}
	if got := a.service("a.timer"); got != "a.timer" {
		t.Errorf("service of a timer: %s", got)
	}
	if u := a.unit("q.container"); u == nil || u.Last("Container", "ServiceName") != "name" {
		t.Errorf("the quadlet: %v", u)
	}
}

func TestExecutable(t *testing.T) {
	w := newWorld(t)
	w.onHost("/usr/local/bin/gone", "x", 0o755)
	w.onHost("/usr/bin/plain", "x", 0o644)
	w.onHost("/opt/link", "-> /usr/bin/true", 0)
	w.onHost("/opt/dir/x", "x", 0o644)
	a := newAfter(host{w.root}, wantOf(map[string]string{"/usr/local/bin/job": "x"}), map[string]bool{"/usr/local/bin/gone": true})
	for name, want := range map[string]bool{
		"/usr/local/bin/job": true, "job": true, "true": true, "/usr/bin/true": true, "/usr//bin/../bin/true": true, "/opt/link": true,
		"/usr/local/bin/gone": false, "gone": false, "plain": false, "/opt/dir": false, "/not/there": false, "not": false,
	} {
		if got := a.executable(unit.Parse("x.service", nil), name); got != want {
			t.Errorf("executable(%s) = %v", name, got)
		}
	}
	// On the running host a missing program counts as missing, unless a sandbox may hide it.
	if h := (host{"/"}); !h.executable("/bin/sh") || h.executable("/etc/passwd") || h.executable("/usr/bin/no-such-program") {
		t.Error("executable is wrong about programs of this host")
	}
	if (host{w.root}).hasQuadletGenerator() {
		t.Error("hasQuadletGenerator finds a generator that does not exist")
	}
	w.onHost("/usr/lib/systemd/system-generators/podman-system-generator", "x", 0o755)
	if !(host{w.root}).hasQuadletGenerator() {
		t.Error("hasQuadletGenerator does not find the generator")
	}
}

// The first lines are those of a unit on Debian 12 with ProtectHome=tmpfs, InaccessiblePaths= and PrivateTmp=.
func TestMountLine(t *testing.T) {
	for _, tc := range []struct {
		line, root, point, kind string
		ok                      bool
	}{
		{"501 480 0:45 / /home ro,nosuid,nodev,noexec shared:9 master:1 - tmpfs tmpfs ro,mode=755", "/", "/home", "tmpfs", true},
		{"502 480 0:24 /systemd/inaccessible/dir /root ro,nosuid - tmpfs tmpfs rw", "/systemd/inaccessible/dir", "/root", "tmpfs", true},
		{"503 480 8:1 /tmp/systemd-private-x/tmp /tmp rw - ext4 /dev/sda1 rw", "/tmp/systemd-private-x/tmp", "/tmp", "ext4", true},
		{"21 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw", "/", "/", "ext4", true},
		{"21 1 8:1 / / rw", "", "", "", false},
		{"21 1 8:1 - ext4", "", "", "", false},
		{"", "", "", "", false},
	} {
		if root, point, kind, ok := mountLine(tc.line); root != tc.root || point != tc.point || kind != tc.kind || ok != tc.ok {
			t.Errorf("mountLine(%q) = %s, %s, %s, %v", tc.line, root, point, kind, ok)
		}
	}
	for point, want := range map[string]bool{"/run": true, "/tmp": true, "/run/lock": true, "/dev": true, "/dev/shm": true, "/home": false, "/root": false, "/device": false} {
		if got := isRuntime(point); got != want {
			t.Errorf("isRuntime(%s) = %v", point, got)
		}
	}
	if hidden("/etc/passwd") || hidden("/no/such/file") {
		t.Error("a file on the root file system counts as hidden")
	}
}

func TestForHost(t *testing.T) {
	socket, automount := "[Socket]\nListenStream=/run/x\n", "[Automount]\nWhere=/mnt\n"
	for _, tc := range []struct {
		name    string
		files   map[string]string // in the unit directory
		host    map[string]string
		loaded  string
		skipped []string // UNIT REASON
		refused bool
	}{
		{"everything exists", map[string]string{"a.service": service, "a.timer": timer}, nil, "", nil, false},
		{"no program", map[string]string{"a.service": "[Service]\nExecStart=/opt/x\n", "a.timer": timer, "a.socket": socket, "b.timer": timer + "[Timer]\nUnit=a.timer\n", "a.service.d/x.conf": "[Service]\nNice=1\n"},
			nil, "", []string{"a.service not-installed-here", "a.socket not-installed-here", "a.timer not-installed-here", "b.timer not-installed-here"}, false},
		{"the program in a drop-in", map[string]string{"a.service": service, "a.service.d/x.conf": "[Service]\nExecStart=\nExecStart=/opt/x\n"}, nil, "", []string{"a.service not-installed-here"}, false},
		{"no program, which may be missing", map[string]string{"a.service": "[Service]\nExecStart=-/opt/x\n"}, nil, "", nil, false},
		{"masked", map[string]string{"a.service": service, "a.timer": timer}, map[string]string{unitDir + "/a.service": "-> /dev/null"}, "", []string{"a.service masked", "a.timer masked"}, false},
		{"the masked unit is not in the commit", map[string]string{"a.timer": timer}, map[string]string{"/etc/systemd/system/a.service": "-> /dev/null"}, "", []string{"a.timer masked"}, false},
		{"an instance of a template without a program", map[string]string{"w@.service": "[Service]\nExecStart=/opt/x\n", "a.timer": timer + "[Timer]\nUnit=w@one.service\n"}, nil, "",
			[]string{"a.timer not-installed-here", "w@.service not-installed-here"}, false},
		{"a unit of the host", map[string]string{"a.timer": timer}, map[string]string{"/usr/lib/systemd/system/a.service": service}, "", nil, false},
		{"loaded without a file", map[string]string{"a.timer": timer}, nil, "a.service active running", nil, false},
		{"a slice", map[string]string{"a.timer": timer + "[Timer]\nUnit=x.slice\n"}, nil, "", nil, false},
		{"an init script", map[string]string{"a.timer": timer}, map[string]string{"/etc/init.d/a": "#!/bin/sh\n"}, "", nil, false},
		{"a timer without a service", map[string]string{"a.timer": timer}, nil, "", nil, true},
		{"an automount without a mount", map[string]string{"mnt.automount": automount}, nil, "", nil, true},
		{"an automount of fstab's mount", map[string]string{"mnt.automount": automount}, map[string]string{"/etc/fstab": "# local\n/dev/sda1 / ext4 rw 0 1\n/dev/sdb1 /mnt ext4\n"}, "", nil, false},
		{"an automount of a line of fstab that is a comment", map[string]string{"mnt.automount": automount}, map[string]string{"/etc/fstab": "#/dev/sdb1 /mnt ext4\n"}, "", nil, true},
		{"an automount", map[string]string{"mnt.automount": automount, "mnt.mount": "[Mount]\nWhat=/x\nWhere=/mnt\n"}, nil, "", nil, false},
		{"a quadlet without its generator", map[string]string{"q.timer": timer}, map[string]string{"quadlet": "x"}, "", []string{"q.container no-quadlet-generator", "q.timer no-quadlet-generator"}, false},
		{"a quadlet", map[string]string{"q.timer": timer}, map[string]string{"quadlet": "x", "/usr/lib/systemd/system-generators/podman-system-generator": "x"}, "", nil, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWorld(t)
			files := map[string]string{}
			for name, content := range tc.files {
				files[path.Join(unitDir, name)] = content
			}
			for p, content := range tc.host {
				if p == "quadlet" {
					files[quadletDir+"/q.container"] = "[Container]\nImage=x\n"
					continue
				}
				w.onHost(p, content, 0o755)
			}
			all := wantOf(files)
			loaded := map[string]unitState{}
			if tc.loaded != "" {
				loaded = parseUnits("a.service loaded active running x\n")
			}
			got, err := all.forHost(newAfter(host{w.root}, all, nil), loaded)
			if tc.refused || err != nil {
				if sysexits.Code(err) != sysexits.DataErr || !tc.refused {
					t.Errorf("forHost = %v; refused %v", err, tc.refused)
				}
				return
			}
			var skipped []string
			for _, s := range got.skipped {
				skipped = append(skipped, s.unit+" "+s.reason)
			}
			slices.Sort(skipped)
			same(t, "skipped", skipped, tc.skipped)
			for _, f := range got.files {
				for _, s := range got.skipped {
					if f.unit == s.unit {
						t.Errorf("%s belongs to a unit that is skipped", f.path)
					}
				}
			}
		})
	}
}
