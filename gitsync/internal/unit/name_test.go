package unit

import (
	"slices"
	"strings"
	"testing"
)

func TestMountName(t *testing.T) {
	// The names that systemd-escape --path --suffix=mount prints.
	for point, want := range map[string]string{
		"/": "-.mount", "/data": "data.mount", "/a//b/": "a-b.mount", `/mnt/a\040b`: `mnt-a\x20b.mount`, "/.x/.y": `\x2ex-.y.mount`,
		`/a-b/c@d:e_f\134g`: `a\x2db-c\x40d:e_f\x5cg.mount`, "/é": `\xc3\xa9.mount`, `/\134040`: `\x5c040.mount`, "none": "", "": "",
	} {
		if got := MountName(point); got != want {
			t.Errorf("MountName(%q) = %q; want %q", point, got, want)
		}
	}
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{
		"a.service", "a@.service", "a@b.service", "a@b@c.service", `dev-disk-by\x2duuid.swap`, "-.mount", "-.slice", "a.b.c.timer", "foo-.service",
		"dbus-org.freedesktop.x1.service", "a:b_c.path", "x.device", "x.scope", strings.Repeat("a", 247) + ".service",
	} {
		if err := CheckName(name); err != nil {
			t.Errorf("CheckName(%q) = %v; want nil", name, err)
		}
	}
	for name, want := range map[string]string{
		"":                                    "is empty",
		"a":                                   "no suffix",
		"a.":                                  "no suffix",
		"a.servce":                            `no unit type "servce"`,
		"a.conf":                              `no unit type "conf"`,
		".service":                            "only a suffix",
		"@.service":                           "nothing before the @",
		"@b.service":                          "nothing before the @",
		"a b.service":                         `not allow ' '`,
		"a/b.service":                         `not allow '/'`,
		"ä.service":                           `not allow 'ä'`,
		"a%i.service":                         `not allow '%'`,
		"a.Service":                           "no unit type",
		strings.Repeat("a", 248) + ".service": "256 bytes",
	} {
		if err := CheckName(name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("CheckName(%q) = %v; want %q", name, err, want)
		}
	}
}

func TestParts(t *testing.T) {
	for _, tc := range []struct {
		name, kind, template, instance string
		isTemplate, deployed, known    bool
	}{
		{"a.service", "service", "", "", false, true, true},
		{"a@.timer", "timer", "", "", true, true, true},
		{"a@b.path", "path", "a@.path", "b", false, true, true},
		{"a@b@c.service", "service", "a@.service", "b@c", false, true, true},
		{"a@b.c.service", "service", "a@.service", "b.c", false, true, true},
		{"a.device", "device", "", "", false, false, true},
		{"a.scope", "scope", "", "", false, false, true},
		{"a.conf", "conf", "", "", false, false, false},
		{"a", "", "", "", false, false, false},
	} {
		template, ok := Template(tc.name)
		if Type(tc.name) != tc.kind || template != tc.template || ok != (tc.template != "") || Instance(tc.name) != tc.instance ||
			IsTemplate(tc.name) != tc.isTemplate || Deployed(tc.name) != tc.deployed || Known(tc.name) != tc.known {
			t.Errorf("%s: type %q, template %q %v, instance %q, is template %v, deployed %v, known %v", tc.name, Type(tc.name), template, ok,
				Instance(tc.name), IsTemplate(tc.name), Deployed(tc.name), Known(tc.name))
		}
	}
	if got := Instantiate("a@.service", "b@c"); got != "a@b@c.service" {
		t.Errorf("Instantiate = %s", got)
	}
	if got := Instantiate("a.service", "b"); got != "a.service" {
		t.Errorf("Instantiate of a plain unit = %s", got)
	}
}

// The order in which systemd 252 reads these directories.
func TestDropInDirs(t *testing.T) {
	for name, want := range map[string]string{
		"foo.service":         "service.d foo.service.d",
		"foo-bar.service":     "service.d foo-.service.d foo-bar.service.d",
		"a-b-c.timer":         "timer.d a-.timer.d a-b-.timer.d a-b-c.timer.d",
		"foo-bar@x-y.service": "service.d foo-@.service.d foo-@x-y.service.d foo-.service.d foo-bar@.service.d foo-bar@x-y.service.d",
		"foo-bar@.service":    "service.d foo-.service.d foo-bar@.service.d",
		"foo-.service":        "service.d foo-.service.d",
		"foo-bar-.service":    "service.d foo-.service.d foo-bar-.service.d",
		"-.mount":             "mount.d -.mount.d",
		"foo--bar.service":    "service.d foo-.service.d foo--.service.d foo--bar.service.d",
		`dev-a\x2db.swap`:     `swap.d dev-.swap.d dev-a\x2db.swap.d`,
		"foo-bar.container":   "container.d foo-.container.d foo-bar.container.d",
		"not a unit":          "",
	} {
		if got := strings.Join(DropInDirs(name), " "); got != want {
			t.Errorf("DropInDirs(%s) = %s; want %s", name, got, want)
		}
	}
}

func TestDropInApplies(t *testing.T) {
	for _, tc := range []struct {
		dir, name string
		want      bool
	}{
		{"service.d", "a.service", true},
		{"service.d", "a.timer", false},
		{"/etc/systemd/system/a@.service.d", "a@b.service", true},
		{"a@b.service.d", "a@.service", false},
		{"a-.service.d", "a-b.service", true},
		{"a-.service.d", "ab.service", false},
		{"a.service.d", "a-b.service", false},
	} {
		if got := DropInApplies(tc.dir, tc.name); got != tc.want {
			t.Errorf("DropInApplies(%s, %s) = %v", tc.dir, tc.name, got)
		}
	}
}

func TestDropIns(t *testing.T) {
	got := DropIns([]string{"foo-bar.service"}, []string{
		"/etc/u/service.d/10-all.conf",
		"/etc/u/foo-.service.d/20-x.conf",
		"/etc/u/foo-bar.service.d/50-own.conf",
		"/etc/u/other.service.d/60.conf",
		"/etc/u/foo-bar.service.d/readme.txt",
		"/etc/u/foo-bar.service.d/.hidden.conf",
		"/usr/u/foo-bar.service.d/20-x.conf",
		"/usr/u/foo-bar.service.d/10-all.conf",
		"/usr/u/foo-.service.d/50-own.conf",
	})
	// A directory in /etc takes precedence over a more specific one in /usr, except that service.d has the lowest priority of all.
	want := []string{"/usr/u/foo-bar.service.d/10-all.conf", "/etc/u/foo-.service.d/20-x.conf", "/etc/u/foo-bar.service.d/50-own.conf"}
	if !slices.Equal(got, want) {
		t.Errorf("DropIns = %q; want %q", got, want)
	}
	if got := DropIns([]string{"a.service"}, []string{"/etc/u/service.d/a.conf", "/usr/u/service.d/a.conf"}); !slices.Equal(got, []string{"/etc/u/service.d/a.conf"}) {
		t.Errorf("DropIns of service.d = %q", got)
	}
}

func TestCheckDropInDir(t *testing.T) {
	for _, dir := range []string{"x.service.d", "service.d", "foo-.service.d", "a@.timer.d", "a@b.socket.d", "scope.d"} {
		if err := CheckDropInDir(dir); err != nil {
			t.Errorf("CheckDropInDir(%q) = %v", dir, err)
		}
	}
	for _, dir := range []string{"x.service", "x.d", "x y.service.d", ".d", "x.conf.d", "@.service.d"} {
		if err := CheckDropInDir(dir); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("CheckDropInDir(%q) = %v", dir, err)
		}
	}
}

func TestQuadletService(t *testing.T) {
	for _, tc := range []struct{ name, content, want string }{
		{"a.container", "", "a.service"},
		{"a.volume", "", "a-volume.service"},
		{"a.network", "", "a-network.service"},
		{"a.kube", "", "a.service"},
		{"a.pod", "", "a-pod.service"},
		{"a.image", "", "a-image.service"},
		{"a.build", "", "a-build.service"},
		{"a.b.container", "", "a.b.service"},
		{"a@.container", "", "a@.service"},
		{"a@x.container", "", "a@x.service"},
		{"a.container", "[Container]\nImage=x\nServiceName=web\n", "web.service"},
		{"a.pod", "[Pod]\nServiceName=web\n", "web.service"},
		{"a.container", "[Pod]\nServiceName=web\n", "a.service"},
		{"a.volume", "[Volume]\nServiceName=\n", "a-volume.service"},
		{"a.service", "", ""},
		{".container", "", ""},
		{"a", "", ""},
	} {
		if got := QuadletService(tc.name, []byte(tc.content)); got != tc.want {
			t.Errorf("QuadletService(%s, %q) = %s; want %s", tc.name, tc.content, got, tc.want)
		}
	}
	if got := QuadletService("a.container"); got != "a.service" {
		t.Errorf("QuadletService without content = %s", got)
	}
	if got := QuadletService("a.container", []byte("[Container]\nServiceName=b\n"), []byte("[Container]\nServiceName=c\n")); got != "c.service" {
		t.Errorf("QuadletService with a drop-in = %s", got)
	}
}
