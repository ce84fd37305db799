package main

import (
	"slices"
	"strings"
	"testing"
)

func TestParseUnit(t *testing.T) {
	u := parseUnit([]byte(`# comment
[Unit]
Description=a = b
[Service]
ExecStart = @-/usr/bin/one arg \
  # a comment in the middle
  more
ExecStart=
ExecStart=two
  ExecStart=:+three \
; another

[X-Gitsync]
Probe=TRUE
[Install]
WantedBy=a.target b.target
WantedBy=c.target
Alias=other.service a.service
`))
	if got := u.last("Unit", "Description"); got != "a = b" {
		t.Errorf("Description = %q", got)
	}
	if got := u.executables(); !slices.Equal(got, []string{"two", "three"}) {
		t.Errorf("executables = %q", got)
	}
	if !u.probe() {
		t.Error("no probe")
	}
	want := []string{"/etc/systemd/system/a.target.wants/a.service", "/etc/systemd/system/b.target.wants/a.service", "/etc/systemd/system/c.target.wants/a.service", "/etc/systemd/system/other.service"}
	if got := u.links("a.service"); !slices.Equal(got, want) {
		t.Errorf("links = %q; want %q", got, want)
	}
}

func TestExecCommand(t *testing.T) {
	for _, tc := range []struct{ value, flags, name string }{
		{"/bin/a b", "", "/bin/a"},
		{"-!a", "-!", "a"},
		{`"/bin/a b" c`, "", ""},
		{"%h/bin/a", "", ""},
		{"${X}", "", ""},
		{"", "", ""},
	} {
		if flags, name := execCommand(tc.value); flags != tc.flags || name != tc.name {
			t.Errorf("execCommand(%q) = %q, %q; want %q, %q", tc.value, flags, name, tc.flags, tc.name)
		}
	}
}

func TestReplaceExecutables(t *testing.T) {
	in := "[Service]\n# ExecStart=old\nExecStart=-old arg \\\n  old\n ExecStop = other\nExecStartPre=old\nNotExec=old\n"
	want := "[Service]\n# ExecStart=old\nExecStart=-/bin/true arg \\\n  old\n ExecStop = other\nExecStartPre=/bin/true\nNotExec=old\n"
	if got := string(replaceExecutables([]byte(in), "/bin/true", func(n string) bool { return n == "old" })); got != want {
		t.Errorf("replaceExecutables = %q; want %q", got, want)
	}
}

// A file keeps its lines, and stays as it is where no program is known.
func FuzzReplaceExecutables(f *testing.F) {
	f.Add([]byte("[Service]\nExecStart=a b\r\nExecStop=-c"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if out := replaceExecutables(in, "/bin/true", func(string) bool { return false }); string(out) != string(in) {
			t.Errorf("%q became %q", in, out)
		}
		out := replaceExecutables(in, "/bin/true", func(string) bool { return true })
		if strings.Count(string(out), "\n") != strings.Count(string(in), "\n") {
			t.Errorf("%q became %q, of other lines", in, out)
		}
		parseUnit(in).executables()
	})
}

func TestTriggered(t *testing.T) {
	for _, tc := range []struct{ unit, text, want string }{
		{"a.timer", "[Timer]\n", "a.service"},
		{"a.timer", "[Timer]\nUnit=b.target\n", "b.target"},
		{"a@.timer", "[Timer]\n", "a@.service"},
		{"a.socket", "[Socket]\nAccept=yes\n", "a@.service"},
		{"a.socket", "[Socket]\nService=b.service\n", "b.service"},
		{"a.path", "[Path]\nUnit=c.service\n", "c.service"},
	} {
		if got := parseUnit([]byte(tc.text)).triggered(tc.unit); got != tc.want {
			t.Errorf("%s with %q starts %s; want %s", tc.unit, tc.text, got, tc.want)
		}
	}
}

func TestTemplate(t *testing.T) {
	for _, tc := range []struct {
		unit, template string
		instance       bool
	}{{"a@b.service", "a@.service", true}, {"a@.service", "a@.service", false}, {"a.service", "a@.service", false}, {"a@b@c.timer", "a@.timer", true}} {
		if got, ok := template(tc.unit); ok != tc.instance || ok && got != tc.template {
			t.Errorf("template(%s) = %s, %v", tc.unit, got, ok)
		}
	}
}
