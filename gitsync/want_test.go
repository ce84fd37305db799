package main

import (
	"slices"
	"strings"
	"testing"

	"observability-hub/gitsync/internal/gitobj"
)

// readWant returns files with their paths, modes and units.
func TestReadWant(t *testing.T) {
	w := newWorld(t)
	w.commit(map[string]string{
		"systemd/a.service": service, "systemd/a.service.d/x.conf": "[Service]\nNice=1\n", "systemd/a.service.d/README": "x", "systemd/service.d/all.conf": "[Service]\nNice=1\n",
		"systemd/w@.service": service, "systemd/w@one.service.d/x.conf": "[Service]\nNice=1\n", "systemd/srv-data.mount": "[Mount]\nWhat=/x\nWhere=/srv/data\n", "systemd/-.slice": "[Slice]\n",
		"systemd/q.container": "[Container]\nImage=x\n", "systemd/q.container.d/x.conf": "[Container]\nPull=never\n", "systemd/eth0.network": "[Match]\nName=eth0\n",
		"systemd/hub.preset": presets, "systemd/README.md": "x", "systemd/.editorconfig": "x", "systemd/docs/x": "x",
		"scripts/job": "#!/bin/sh\n", "scripts/.hidden": "x", "scripts/tests/x": "x", ".gitsync.json": `{"on_change":[{"paths":["docs"],"run":["true"]}]}`, "docs/x": "x", "x.service": service,
	})
	w.git("update-index", "--chmod=-x", "scripts/job")
	w.git("commit", "-q", "-m", "mode")
	want, err := w.want()
	if err != nil {
		t.Fatal(err)
	}
	var got, skipped []string
	for _, f := range want.files {
		kind := ""
		for _, k := range []struct {
			is   bool
			name string
		}{{f.isMain(), "main"}, {f.isUnit(), "unit"}, {f.isQuadlet(), "quadlet"}} {
			if k.is {
				kind += " " + k.name
			}
		}
		got = append(got, f.path+" "+f.mode.String()+" "+f.unit+kind)
		if want.file(f.path) != f || want.file(f.path+"x") != nil {
			t.Errorf("file(%s) returns another file", f.path)
		}
	}
	same(t, "files", got, []string{
		quadletDir + "/q.container -rw-r--r-- q.container main quadlet",
		quadletDir + "/q.container.d/x.conf -rw-r--r-- q.container",
		unitDir + "/-.slice -rw-r--r-- -.slice main unit",
		unitDir + "/a.service -rw-r--r-- a.service main unit",
		unitDir + "/a.service.d/x.conf -rw-r--r-- a.service",
		unitDir + "/service.d/all.conf -rw-r--r-- service",
		unitDir + "/srv-data.mount -rw-r--r-- srv-data.mount main unit",
		unitDir + "/w@.service -rw-r--r-- w@.service main unit",
		unitDir + "/w@one.service.d/x.conf -rw-r--r-- w@one.service",
		"/usr/local/bin/job -rw-r--r-- ",
		presetDir + "/hub.preset -rw-r--r-- ",
	})
	for _, s := range want.skipped {
		skipped = append(skipped, s.key()+" "+s.reason)
	}
	slices.Sort(skipped)
	same(t, "skipped", skipped, []string{"systemd/README.md not-deployed", "systemd/a.service.d/README not-deployed", "systemd/docs not-deployed", "systemd/eth0.network not-deployed"})
	if len(want.rules) != 1 {
		t.Errorf("rules: %v", want.rules)
	}
}

// The limits on the number and total size of files.
func TestReadWantLimits(t *testing.T) {
	for name, files := range map[string]int{"files": maxFiles + 1, "bytes": maxTotal/maxFile + 1} {
		w := newWorld(t)
		all := map[string]string{}
		content := "x"
		if name == "bytes" {
			content = strings.Repeat("x", maxFile)
		}
		for i := range files {
			all["scripts/"+strings.Repeat("x", i%100+1)+string(rune('a'+i/100%26))+string(rune('a'+i/2600))] = content
		}
		w.commit(all)
		if _, err := w.want(); err == nil || !strings.Contains(err.Error(), "in all") {
			t.Errorf("too many %s: %v", name, err)
		}
	}
}

func TestIsDropInDir(t *testing.T) {
	entries := []gitobj.Entry{{Name: "web.network"}, {Name: "web.container"}}
	for dir, want := range map[string]bool{
		"web.service.d": true, "service.d": true, "web-.service.d": true, "web.device.d": false, "web.d": false,
		"web.network.d": true, "db.network.d": false, "web.container.d": true, "db.container.d": false, "container.d": true, "a b.service.d": false,
	} {
		if got := isDropInDir(dir, entries); got != want {
			t.Errorf("isDropInDir(%s) = %v; want %v", dir, got, want)
		}
	}
}

func TestAliased(t *testing.T) {
	w := wantOf(map[string]string{
		unitDir + "/a.service":          "[Service]\nExecStart=true\n[Install]\nAlias=b.service %p-x.service %Q.service\n",
		unitDir + "/a.service.d/x.conf": "[Install]\nAlias=c.service\n",
		unitDir + "/d.service":          "[Service]\nExecStart=true\n",
	})
	a := newAfter(host{root: t.TempDir()}, w, nil)
	for name, want := range map[string]string{"b.service": "a.service", "a-x.service": "a.service", "c.service": "a.service", "d.service": "", "%Q.service": "", "": ""} {
		if got := w.aliased(a, name); got != want {
			t.Errorf("aliased(%q) = %q; want %q", name, got, want)
		}
	}
}
