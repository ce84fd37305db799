package main

import (
	"strings"
	"testing"
	"time"

	"observability-hub/lib/sysexits"
)

func TestSelection(t *testing.T) {
	plan := []action{
		{Action: doInstall, Unit: "a.timer", Path: "/etc/systemd/system/a.timer", Reason: "new", Commit: someHash},
		{Action: doInstall, Unit: "", Path: "/usr/local/bin/a", Reason: "new", Commit: someHash},
		{Action: doEnable, Unit: "a.timer", Path: "/etc/systemd/system/a.timer", Reason: "new", Commit: someHash},
	}
	line := func(a action) string { return string(a.planned(time.Unix(0, 0), family)) }
	for _, tc := range []struct {
		name, stdin string
		want        int // actions, or -1 for refused
	}{
		{"all, in another order", line(plan[2]) + line(plan[0]) + line(plan[1]), 3},
		{"one", line(plan[1]), 1},
		{"one, twice", line(plan[1]) + "\n" + line(plan[1]), 1},
		{"none", "", 0},
		{"enable without install", line(plan[2]), -1},
		{"not from a plan", line(action{Action: doRemove, Unit: "a.timer", Path: plan[0].Path, Reason: "new", Commit: someHash}), -1},
		{"of another commit", line(action{Action: doInstall, Unit: "a.timer", Path: plan[0].Path, Reason: "new", Commit: strings.Repeat("e", 40)}), -1},
		{"no commit", `{"action":"install"}`, -1},
		{"not JSON", "install a.timer", -1},
		{"half a line", line(plan[0])[:30], -1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := parseSelection([]byte(tc.stdin))
			var got []action
			if err == nil {
				got, err = s.of(plan, someHash)
			}
			switch {
			case tc.want < 0 && sysexits.Code(err) != sysexits.DataErr:
				t.Errorf("%v, %v; want a refusal", got, err)
			case tc.want >= 0 && (err != nil || len(got) != tc.want):
				t.Errorf("%v, %v; want %d actions", got, err, tc.want)
			}
		})
	}
}

func FuzzParseSelection(f *testing.F) {
	f.Add([]byte(`{"action":"install","commit":"x"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSelection(b)
		if err != nil {
			return
		}
		if got, err := s.of(nil, someHash); err == nil && len(got) > 0 {
			t.Errorf("%q selects %v from an empty plan", b, got)
		}
	})
}

func FuzzParseRules(f *testing.F) {
	f.Add([]byte(`{"on_change":[{"paths":["a/*.yml"],"run":["docker","compose","up","-d"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		rules, err := parseRules(b)
		if err != nil {
			return
		}
		for _, r := range rules {
			if len(r.Paths) == 0 || len(r.Run) == 0 {
				t.Errorf("%q is accepted", b)
			}
			for _, p := range r.Paths {
				if p == "" || p[0] == '/' || p == ".." {
					t.Errorf("%q is accepted with the path %q", b, p)
				}
			}
		}
	})
}
