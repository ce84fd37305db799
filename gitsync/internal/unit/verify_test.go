package unit

import "testing"

// Messages of systemd-analyze verify as systemd 252 printed them, and some of
// 257 from its source.
func TestParseVerify(t *testing.T) {
	for _, tc := range []struct {
		line    string
		want    Complaint // its text is not compared if it is empty
		fatal   bool
		program string
	}{
		{"/v/a.service:7: Unit uses KillMode=none. This is unsafe, as it disables systemd's process lifecycle management for the service. Please update the service to use a safer KillMode=, such as 'mixed' or 'control-group'. Support for KillMode=none is deprecated and will eventually be removed.", Complaint{File: "/v/a.service", Line: 7, Unit: "a.service"}, false, ""},
		{"/v/a.service:8: Standard output type syslog is obsolete, automatically updating to journal. Please update your unit file, and consider removing the setting altogether.", Complaint{File: "/v/a.service", Line: 8, Unit: "a.service"}, false, ""},
		{"/v/a.service:9: Unit uses MemoryLimit=; please use MemoryMax= instead. Support for MemoryLimit= will be removed soon.", Complaint{File: "/v/a.service", Line: 9, Unit: "a.service"}, false, ""},
		{"/v/a.service:11: Unit uses CPUShares=; please use CPUWeight= instead. Support for CPUShares= will be removed soon.", Complaint{File: "/v/a.service", Line: 11, Unit: "a.service"}, false, ""},
		{"/v/a.service:12: PIDFile= references a path below legacy directory /var/run/, updating /var/run/a.pid → /run/a.pid; please update the unit file accordingly.", Complaint{File: "/v/a.service", Line: 12, Unit: "a.service"}, false, ""},
		{"/v/a.service:10: Support for option CPUShares= has been removed and it is ignored", Complaint{File: "/v/a.service", Line: 10, Unit: "a.service"}, false, ""},
		{"/v/a.service:13: Unknown key 'Misspelt' in section [Service], ignoring.", Complaint{"/v/a.service", 13, "a.service", "Unknown key 'Misspelt' in section [Service], ignoring."}, true, ""},
		{"/v/a.service:14: Invalid maximum tasks value 'xx', ignoring: Invalid argument", Complaint{"/v/a.service", 14, "a.service", "Invalid maximum tasks value 'xx', ignoring: Invalid argument"}, true, ""},
		{"/v/a.service:15: Nice priority out of range, ignoring: 100", Complaint{File: "/v/a.service", Line: 15, Unit: "a.service"}, true, ""},
		{"Accepting user/group name 'b@d', which does not match strict user/group name rules.", Complaint{}, false, ""},
		{"/v/a.service:17: Unknown section 'Nope'. Ignoring.", Complaint{File: "/v/a.service", Line: 17, Unit: "a.service"}, true, ""},
		{"a.service: Command /opt/none/a is not executable: No such file or directory", Complaint{Unit: "a.service"}, true, "/opt/none/a"},
		{"f.service: Command /opt/a b/prog is not executable: No such file or directory", Complaint{Unit: "f.service"}, true, "/opt/a b/prog"},
		{"b.service: Service has no ExecStart=, ExecStop=, or SuccessAction=. Refusing.", Complaint{Unit: "b.service"}, true, ""},
		{"Unit b.service has a bad unit file setting.", Complaint{"", 0, "b.service", "Unit b.service has a bad unit file setting."}, true, ""},
		{"/v/c.timer:2: Failed to parse calendar specification, ignoring: nope", Complaint{File: "/v/c.timer", Line: 2, Unit: "c.timer"}, true, ""},
		{"c.timer: Timer unit lacks value setting. Refusing.", Complaint{Unit: "c.timer"}, true, ""},
		{"Configuration file /v/d.service is marked executable. Please remove executable permission bits. Proceeding anyway.", Complaint{File: "/v/d.service", Unit: "d.service"}, false, ""},
		{"/v/d.service:4: Missing '=', ignoring line.", Complaint{File: "/v/d.service", Line: 4, Unit: "d.service"}, true, ""},
		{"/v/d.service:7: Invalid section header '[Service'", Complaint{File: "/v/d.service", Line: 7, Unit: "d.service"}, true, ""},
		{"Unit d.service failed to load properly, please adjust/correct and reload service manager: Bad message", Complaint{Unit: "d.service"}, true, ""},
		{"/v/e.service:2: Unbalanced quoting, ignoring: \"/bin/true \"x\"", Complaint{File: "/v/e.service", Line: 2, Unit: "e.service"}, true, ""},
		{"e.service: Unit configuration has fatal error, unit will not be started.", Complaint{Unit: "e.service"}, true, ""},
		{"/v/q9.service:11: Neither a valid executable name nor an absolute path: $X/y", Complaint{File: "/v/q9.service", Line: 11, Unit: "q9.service"}, true, ""},
		{"h.socket: service h@internal.service not loaded, socket cannot be started.", Complaint{Unit: "h.socket"}, true, ""},
		{"i.mount: Where= setting doesn't match unit name. Refusing.", Complaint{Unit: "i.mount"}, true, ""},
		{"/v/true.service.d/x.conf:2: Unknown key 'Typo' in section [Service], ignoring.", Complaint{File: "/v/true.service.d/x.conf", Line: 2, Unit: "true.service"}, true, ""},
		{"/v/service.d/x.conf:2: Unknown key 'Typo' in section [Service], ignoring.", Complaint{File: "/v/service.d/x.conf", Line: 2}, true, ""},
		{"Unit nonexist.service not found.", Complaint{Unit: "nonexist.service"}, true, ""},
		{"Failed to load unit file /v/a.service: Invalid argument", Complaint{Unit: "a.service"}, true, ""},
		{"Failed to load unit a.service: Invalid argument", Complaint{Unit: "a.service"}, true, ""},
		{"Unit a.service is masked.", Complaint{Unit: "a.service"}, true, ""},
		{"a@b.service: Failed to create a@b.service/start: Unit c.service not found.", Complaint{Unit: "a@b.service"}, true, ""},
		{"Failed to prepare filename bad: Invalid argument", Complaint{Text: "Failed to prepare filename bad: Invalid argument"}, true, ""},
		{"a.service: Command is fine", Complaint{Unit: "a.service"}, false, ""},
	} {
		all := ParseVerify("\n" + tc.line + "\r\n")
		if len(all) != 1 {
			t.Fatalf("%s: %d complaints", tc.line, len(all))
		}
		c := all[0]
		program, missing := MissingProgram(c)
		if tc.want.Text == "" {
			tc.want.Text = c.Text
		}
		if c != tc.want || c.Text == "" || Fatal(c) != tc.fatal || program != tc.program || missing != (tc.program != "") {
			t.Errorf("%s:\n%+v, fatal %v, program %q; want\n%+v, fatal %v, program %q", tc.line, c, Fatal(c), program, tc.want, tc.fatal, tc.program)
		}
	}
}
