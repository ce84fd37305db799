package e2e

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/events"
	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/systemd/script.sh
var systemdScript string

//go:embed testdata/systemd/probe.sh
var systemdProbe string

// hubPackages are those of the machines with a database, which share one root.
var hubPackages = []string{"curl", "git", "iproute2", "make", "man-db", "postgresql", "sudo", "zstd"}

// TestSystemd boots a machine with systemd and PostgreSQL, in which the timer of system-metrics fires three times: while the
// database is down, after it is up again, and once more. It takes two to three minutes, mostly waiting for the clock.
func TestSystemd(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: hubPackages,
		Tools:    []string{"sysmetrics"},
		Files: []nspawn.File{
			{Path: "/usr/local/bin/probe", Content: systemdProbe},
			// The timer's fixed random delay depends on the machine id. With this one it is 7 of 50 seconds.
			{Path: "/etc/machine-id", Content: fmt.Sprintf("%032x\n", 0x4f), Mode: 0o444},
		},
		Binds:   []nspawn.Bind{{From: root, To: "/src", ReadOnly: true}},
		Disks:   []nspawn.Disk{{Path: "/home", MiB: 64}},
		Script:  systemdScript,
		Timeout: 5 * time.Minute,
	})
	if result.Status != 0 {
		t.Errorf("the script exited %d\n%s\n%s", result.Status, result.Stdout, result.Stderr)
		for _, entry := range result.Journal {
			t.Logf("%s: %s", entry["SYSLOG_IDENTIFIER"], entry["MESSAGE"])
		}
		return
	}
	for name, want := range map[string]string{
		"enabled-by-install": "disabled\ndisabled\n",
		"enabled-by-preset":  "disabled\nenabled\n",
		"verify":             "",
		"bad-credential":     "failed\n",
		// Five samples of four resources.
		"final-count": "20|20\n",
		"jobs-rows":   "system-metrics|false|success|e2e\n",
	} {
		if got := result.Left(t, name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	t.Run("security", func(t *testing.T) { checkSecurity(t, result.Left(t, "security")) })
	t.Run("sandbox", func(t *testing.T) { checkSandbox(t, result.Journal, result.Left(t, "home-size")) })
	t.Run("timer", func(t *testing.T) { checkTimer(t, result.Journal) })
	t.Run("no database", func(t *testing.T) { checkRecords(t, of(result.Journal, "plain.service"), "inserted 0, spooled 4") })
	t.Run("records", func(t *testing.T) {
		checkRecords(t, of(result.Journal, "system-metrics.service"),
			// The database is down. The next minute is the retry.
			"inserted 0, spooled 4", "ERROR database_unavailable",
			// The database is up again: the spool is inserted before the new sample.
			"inserted 8, spooled 0",
			"inserted 4, spooled 0",
			// A bad credential, then a good one.
			"inserted 0, spooled 4", "ERROR bad_configuration",
			"inserted 8, spooled 0")
	})
	t.Run("rows", func(t *testing.T) { checkRows(t, result.Left(t, "rows"), result.Left(t, "home-size")) })
	t.Run("hub-status", func(t *testing.T) {
		checkJobs(t, result.Left(t, "jobs-down"), result.Left(t, "jobs-nobody"), result.Left(t, "jobs-well"))
	})
	t.Run("hub-failure", func(t *testing.T) { checkFailures(t, result.Journal) })
	t.Run("uninstall", func(t *testing.T) { checkUninstalled(t, result.Left(t, "after-uninstall")) })
	t.Run("promtail", func(t *testing.T) { checkPromtail(t, result.Journal) })
}

// checkSecurity reads lines with the exit status of systemd-analyze security --threshold=13 and its summary.
func checkSecurity(t *testing.T, lines string) {
	units := 0
	for line := range strings.Lines(lines) {
		units++
		t.Log(strings.TrimSpace(line))
		if !strings.HasPrefix(line, "0 ") {
			t.Errorf("above 1.3: %s", line)
		}
	}
	if units != 5 {
		t.Errorf("%d services were scored; want 5", units)
	}
}

// checkSandbox checks the output of probe.sh.
func checkSandbox(t *testing.T, journal []nspawn.Entry, homeSize string) {
	var writes, rest []string
	for _, entry := range of(journal, "probe.service") {
		if dir, found := strings.CutPrefix(entry["MESSAGE"], "writes "); found {
			writes = append(writes, dir)
		} else {
			rest = append(rest, entry["MESSAGE"])
		}
	}
	if want := []string{"/var/lib/probe"}; !slices.Equal(writes, want) {
		t.Errorf("it writes %q; want %q", writes, want)
	}
	for _, want := range []string{
		"reads /proc/stat", "reads /proc/meminfo", "reads /proc/net/dev", "reads /proc/1/mountinfo", "reads /sys/block",
		"executes itself", "sees the socket", "connects by TCP",
	} {
		if !slices.Contains(rest, want) {
			t.Errorf("it prints %q; want %q", want, rest)
		}
	}
	var blocks, size int64
	if n, err := fmt.Sscanf(find(rest, "home "), "home %d %d", &blocks, &size); n != 2 {
		t.Errorf("the size of /home: %v in %q", err, rest)
	} else if got := fmt.Sprint(blocks * size); got != strings.TrimSpace(homeSize) {
		t.Errorf("/home has %s bytes in the sandbox, %s outside", got, homeSize)
	}
}

// checkTimer checks when systemd started the unit while the timer was active.
func checkTimer(t *testing.T, journal []nspawn.Entry) {
	var minutes []string
	perMinute := map[string]int{}
	for _, entry := range journal {
		if entry["UNIT"] != "system-metrics.service" || !strings.HasPrefix(entry["MESSAGE"], "Starting ") {
			continue
		}
		microseconds, err := strconv.ParseInt(entry["__REALTIME_TIMESTAMP"], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		start := time.UnixMicro(microseconds).UTC()
		minute := start.Format("15:04")
		if perMinute[minute]++; perMinute[minute] == 1 {
			minutes = append(minutes, minute)
			if start.Second() < 7 || start.Second() > 12 {
				t.Errorf("the first start of the minute was at %v; want it 7 seconds after the minute, by the machine's fixed random delay", start)
			}
		}
	}
	// The last of the three minutes may include the starts by hand, with credentials.
	if len(minutes) != 3 || perMinute[minutes[0]] != 1 || perMinute[minutes[1]] != 1 || perMinute[minutes[2]] != 3 {
		t.Errorf("starts per minute: %v in %v; want 1 (the database was down), 1, and 1 with 2 by hand", perMinute, minutes)
	}
}

// checkRecords compares a summary of a unit's own messages with the expected one.
func checkRecords(t *testing.T, entries []nspawn.Entry, want ...string) {
	type record struct {
		Time              time.Time
		Level             string
		Msg               string
		Service           string
		Inserted, Spooled int
	}
	priorities := map[string]string{"INFO": "6", "WARN": "4", "ERROR": "3"}
	var got []string
	for _, entry := range entries {
		var r record
		if err := json.Unmarshal([]byte(entry["MESSAGE"]), &r); err != nil {
			t.Errorf("%q: %v", entry["MESSAGE"], err)
			continue
		}
		if entry["SYSLOG_IDENTIFIER"] != "sysmetrics" || entry["PRIORITY"] != priorities[r.Level] || r.Service != "system-metrics" || r.Time.IsZero() {
			t.Errorf("identifier %s, priority %s: %s", entry["SYSLOG_IDENTIFIER"], entry["PRIORITY"], entry["MESSAGE"])
		}
		if r.Msg == "flushed" {
			got = append(got, fmt.Sprintf("inserted %d, spooled %d", r.Inserted, r.Spooled))
		} else {
			got = append(got, r.Level+" "+r.Msg)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the unit printed %q; want %q", got, want)
	}
}

// checkRows checks the table after the third run.
func checkRows(t *testing.T, rows, homeSize string) {
	var table []struct {
		Time       time.Time
		Host, OS   string
		MetricType string `json:"metric_type"`
		Payload    map[string]json.RawMessage
	}
	if err := json.Unmarshal([]byte(rows), &table); err != nil {
		t.Fatalf("%v in %s", err, rows)
	}
	samples := map[time.Time][]string{}
	for _, row := range table {
		samples[row.Time] = append(samples[row.Time], row.MetricType)
		if row.Host != "e2e" || row.OS != "debian 12" {
			t.Errorf("host %q, os %q; want e2e, debian 12", row.Host, row.OS)
		}
		want := map[string]struct{ key, field, value string }{
			"cpu":     {"usage", "", ""},
			"memory":  {"total", "", memTotal(t)},
			"disk":    {"/home", "total", strings.TrimSpace(homeSize)},
			"network": {"eth0", "rx_bytes", "0"},
		}[row.MetricType]
		value := row.Payload[want.key]
		if want.field != "" {
			var object map[string]json.RawMessage
			_ = json.Unmarshal(value, &object) // a value that is not an object has no fields
			value = object[want.field]
		}
		if _, err := strconv.ParseFloat(string(value), 64); err != nil || want.value != "" && string(value) != want.value {
			t.Errorf("%s: %s %s = %s; want %s", row.MetricType, want.key, want.field, value, want.value)
		}
	}
	for at, types := range samples {
		if !slices.Equal(types, []string{"cpu", "disk", "memory", "network"}) {
			t.Errorf("the sample of %v has %q", at, types)
		}
	}
	if len(samples) != 3 {
		t.Errorf("%d samples; want 3", len(samples))
	}
}

// memTotal returns this host's memory in bytes, which is also that of the machine.
func memTotal(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	var kib int64
	if _, err := fmt.Sscanf(string(content), "MemTotal: %d kB", &kib); err != nil {
		t.Fatal(err)
	}
	return strconv.FormatInt(kib*1024, 10)
}

// checkJobs checks the records of hub-status while the database is down, for root and for a user that may see less, and
// after the database has come back.
func checkJobs(t *testing.T, down, nobody, well string) {
	docs := events.Read(t)
	for _, c := range []struct {
		name, record     string
		status, result   string
		spooled, problem any
	}{
		{"down", down, "1", "exit-code", 4.0, "system-metrics.service failed, exit status 69: journalctl -u system-metrics.service"},
		{"nobody", nobody, "1", "exit-code", nil, "system-metrics.service failed, exit status 69: journalctl -u system-metrics.service"},
		{"well", well, "0", "success", 0.0, nil},
	} {
		record, status, _ := strings.Cut(c.record, "\n")
		docs.Check(t, c.name, record)
		var r struct {
			Service, Host string
			Payload       struct {
				OK       bool
				Problems []any
				LastRun  *time.Time `json:"last_run"`
				NextRun  *time.Time `json:"next_run"`
				Duration *float64   `json:"duration_s"`
				Result   string
				Spooled  any
				Unknown  map[string]string
			}
		}
		if err := json.Unmarshal([]byte(record), &r); err != nil {
			t.Errorf("%s: %v in %q", c.name, err, c.record)
			continue
		}
		p := r.Payload
		if strings.TrimSpace(status) != c.status || r.Service != "system-metrics" || r.Host != "e2e" || p.OK != (c.problem == nil) ||
			p.Result != c.result || p.Spooled != c.spooled || len(p.Problems) > 0 && p.Problems[0] != c.problem {
			t.Errorf("%s: status %s, %s", c.name, status, record)
		}
		if p.LastRun == nil || p.NextRun == nil || p.Duration == nil || p.NextRun.Sub(*p.LastRun) > 2*time.Minute || *p.Duration > 10 {
			t.Errorf("%s: the last run, its duration or the next run: %s", c.name, record)
		}
		if (p.Unknown["spooled"] == "permission denied; run hub-status as root") != (c.spooled == nil) {
			t.Errorf("%s: the reason why the spool is not seen: %s", c.name, record)
		}
	}
}

// checkFailures checks the records of hub-failure.
func checkFailures(t *testing.T, journal []nspawn.Entry) {
	type record struct {
		Level, Msg, Service, Unit, Result string
		ExitCode                          string `json:"exit_code"`
		ExitStatus                        string `json:"exit_status"`
		InvocationID                      string `json:"invocation_id"`
		Restarts                          int
		Lines                             []string
	}
	type failure struct {
		unit, result, exitCode, exitStatus string
		restarts                           int
	}
	wanted := map[failure]string{ // values are patterns that one of the lines must match
		{"hostile.service", "exit-code", "exited", "3", 0}:         "^\"quoted\\\\ \x01\ufffd é$",
		{"system-metrics.service", "exit-code", "exited", "69", 0}: `"msg":"database_unavailable"`,
		{"hang.service", "timeout", "killed", "KILL", 0}:           `start operation timed out`,
		{"system-metrics.service", "exit-code", "exited", "78", 0}: `"msg":"bad_configuration"`,
	}
	for _, entry := range journal {
		unit, instance := entry["_SYSTEMD_UNIT"], ""
		if !strings.HasPrefix(unit, "hub-failure@") {
			continue
		}
		instance = strings.TrimSuffix(strings.TrimPrefix(unit, "hub-failure@"), ".service")
		var r record
		if err := json.Unmarshal([]byte(entry["MESSAGE"]), &r); err != nil {
			t.Errorf("%s said %q: %v", unit, entry["MESSAGE"], err)
			continue
		}
		if entry["PRIORITY"] != "3" || entry["SYSLOG_IDENTIFIER"] != "hub-failure" || r.Level != "ERROR" || r.Msg != "unit_failed" ||
			r.Unit != instance || r.Service != strings.TrimSuffix(instance, ".service") || len(r.InvocationID) != 32 {
			t.Errorf("priority %s, identifier %s, unit %s: %s", entry["PRIORITY"], entry["SYSLOG_IDENTIFIER"], unit, entry["MESSAGE"])
		}
		key := failure{r.Unit, r.Result, r.ExitCode, r.ExitStatus, r.Restarts}
		pattern, found := wanted[key]
		if !found {
			t.Errorf("unexpected, or twice: %s", entry["MESSAGE"])
			continue
		}
		delete(wanted, key)
		if !slices.ContainsFunc(r.Lines, regexp.MustCompile(pattern).MatchString) {
			t.Errorf("%s: no line of %q matches %s", r.Unit, r.Lines, pattern)
		}
	}
	for key := range wanted {
		t.Errorf("no record of %v", key)
	}
}

// checkUninstalled checks the output of is-active for the timer, and the remaining files of the toolkit. Only files of users and
// runs may be left.
func checkUninstalled(t *testing.T, lines string) {
	got := strings.Fields(lines)
	slices.Sort(got)
	want := []string{
		"/etc/observability-hub",
		"/etc/observability-hub/system-metrics.env",
		"/var/lib/system-metrics",
		"inactive",
	}
	if !slices.Equal(got, want) {
		t.Errorf("after uninstall: %q; want %q", got, want)
	}
}

// of returns the journal entries of the processes of a unit.
func of(journal []nspawn.Entry, unit string) []nspawn.Entry {
	return slices.DeleteFunc(slices.Clone(journal), func(e nspawn.Entry) bool { return e["_SYSTEMD_UNIT"] != unit })
}

// find returns the first text with the prefix.
func find(texts []string, prefix string) string {
	for _, text := range texts {
		if strings.HasPrefix(text, prefix) {
			return text
		}
	}
	return ""
}

// TestInstall installs into an empty directory, and uninstalls.
func TestInstall(t *testing.T) {
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	dest := t.TempDir()
	run := func(target string) {
		t.Helper()
		if out, err := exec.Command("make", "-C", root, target, "TOOLS=sysmetrics", "DESTDIR="+dest).CombinedOutput(); err != nil {
			t.Fatalf("make %s: %v\n%s", target, err, out)
		}
	}
	out, err := exec.Command("make", "-C", root, "install", "TOOLS=sysmetrics", "PREFIX=/opt/hub", "DESTDIR="+dest).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "it can be /usr or /usr/local") {
		t.Errorf("a prefix where systemd does not look: %v, %s", err, out)
	}
	// files lists all files that are not directories.
	files := func() (paths []string) {
		t.Helper()
		err := filepath.WalkDir(dest, func(path string, entry os.DirEntry, err error) error {
			if err == nil && !entry.IsDir() {
				paths = append(paths, strings.TrimPrefix(path, dest+"/usr/local/"))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return paths
	}
	run("build")
	run("install")
	want := []string{
		"bin/hub-failure",
		"bin/hub-notify",
		"bin/hub-run",
		"bin/hub-status",
		"bin/sysmetrics",
		"lib/systemd/system/hub-failure@.service",
		"lib/systemd/system/hub-notify@.service",
		"lib/systemd/system/hub-status.service",
		"lib/systemd/system/hub-status.timer",
		"lib/systemd/system/hub-textfile.service",
		"lib/systemd/system/hub-textfile.timer",
		"lib/systemd/system/system-metrics-prune.service",
		"lib/systemd/system/system-metrics-prune.timer",
		"lib/systemd/system/system-metrics.service",
		"lib/systemd/system/system-metrics.timer",
		"lib/systemd/system-preset/80-observability-hub.preset",
		"lib/sysusers.d/observability-hub.conf",
		"lib/tmpfiles.d/observability-hub.conf",
		"share/bash-completion/completions/sysmetrics",
		"share/fish/vendor_completions.d/sysmetrics.fish",
		"share/man/man1/hub-failure.1",
		"share/man/man1/hub-notify.1",
		"share/man/man1/hub-run.1",
		"share/man/man1/hub-status.1",
		"share/man/man1/sysmetrics.1",
		"share/zsh/site-functions/_sysmetrics",
	}
	if got := files(); !slices.Equal(got, want) {
		t.Errorf("installed: %q; want %q", got, want)
	}
	for _, unit := range []string{"system-metrics.service", "system-metrics.timer", "system-metrics-prune.timer", "hub-status.timer", "hub-textfile.timer"} {
		// It exits 1 for a unit that is not enabled.
		if out, _ := exec.Command("systemctl", "--root="+dest, "is-enabled", unit).CombinedOutput(); string(out) != "disabled\n" {
			t.Errorf("%s is %s", unit, out)
		}
	}
	version, err := exec.Command(filepath.Join(dest, "usr/local/bin/sysmetrics"), "--version").Output()
	if want, _ := exec.Command(filepath.Join(root, "packaging", "version")).Output(); err != nil || len(want) == 0 ||
		string(version) != "sysmetrics "+string(want) {
		t.Errorf("version %q, %v; want that of %q", version, err, want)
	}

	// While another tool is installed, the shared files stay.
	other := filepath.Join(dest, "usr/local/bin/volbackup")
	if err := os.WriteFile(other, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	run("uninstall")
	want = []string{
		"bin/hub-failure",
		"bin/hub-notify",
		"bin/hub-run",
		"bin/hub-status",
		"bin/volbackup",
		"lib/systemd/system/hub-failure@.service",
		"lib/systemd/system/hub-notify@.service",
		"lib/systemd/system/hub-status.service",
		"lib/systemd/system/hub-status.timer",
		"lib/systemd/system/hub-textfile.service",
		"lib/systemd/system/hub-textfile.timer",
		"lib/systemd/system-preset/80-observability-hub.preset",
		"lib/sysusers.d/observability-hub.conf",
		"lib/tmpfiles.d/observability-hub.conf",
		"share/man/man1/hub-failure.1",
		"share/man/man1/hub-notify.1",
		"share/man/man1/hub-run.1",
		"share/man/man1/hub-status.1",
	}
	if got := files(); !slices.Equal(got, want) {
		t.Errorf("left beside another tool: %q; want %q", got, want)
	}
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	// The script prints the installed version, too.
	if out, err := exec.Command("make", "-C", root, "install", "TOOLS=volbackup", "DESTDIR="+dest).CombinedOutput(); err != nil {
		t.Fatalf("make install TOOLS=volbackup: %v\n%s", err, out)
	}
	script, err := exec.Command(filepath.Join(dest, "usr/local/bin/manage_volume.sh"), "--version").Output()
	if want, _ := exec.Command(filepath.Join(root, "packaging", "version")).Output(); err != nil || len(want) == 0 ||
		string(script) != "manage_volume.sh "+string(want) {
		t.Errorf("version %q, %v; want that of %q", script, err, want)
	}
	if out, err := exec.Command("make", "-C", root, "uninstall", "TOOLS=volbackup", "DESTDIR="+dest).CombinedOutput(); err != nil {
		t.Fatalf("make uninstall TOOLS=volbackup: %v\n%s", err, out)
	}
	for range 2 { // uninstalling files that do not exist is not an error
		run("uninstall")
		if got := files(); len(got) > 0 {
			t.Errorf("left: %q", got)
		}
	}
}

// TestInstallSome installs some of the tools into an empty directory. The presets enable the timers of these tools, and no others.
func TestInstallSome(t *testing.T) {
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	// make install needs only tools that are built.
	if out, err := exec.Command("make", "-C", root, "build").CombinedOutput(); err != nil {
		t.Fatalf("make build: %v\n%s", err, out)
	}
	for tools, want := range map[string][]string{
		"sysmetrics":           {"system-metrics.timer"},
		"gitsync":              {"gitops-sync.timer"},
		"readsync":             {"reading-sync-api.socket", "reading-sync.timer"},
		"volbackup":            {"volume-backup-resume.service", "volume-backup.timer"},
		"sysmetrics volbackup": {"system-metrics.timer", "volume-backup-resume.service", "volume-backup.timer"},
		"gitsync readsync":     {"gitops-sync.timer", "reading-sync-api.socket", "reading-sync.timer"},
	} {
		t.Run(tools, func(t *testing.T) {
			dest := t.TempDir()
			if out, err := exec.Command("make", "-C", root, "install", "TOOLS="+tools, "DESTDIR="+dest).CombinedOutput(); err != nil {
				t.Fatalf("make install: %v\n%s", err, out)
			}
			if out, err := exec.Command("systemctl", "--root="+dest, "preset-all").CombinedOutput(); err != nil {
				t.Fatalf("systemctl preset-all: %v\n%s", err, out)
			}
			links, err := filepath.Glob(filepath.Join(dest, "etc/systemd/system/*.wants/*"))
			if err != nil {
				t.Fatal(err)
			}
			var enabled []string
			for _, link := range links {
				enabled = append(enabled, filepath.Base(link))
			}
			slices.Sort(enabled)
			enabled = slices.Compact(enabled) // a unit may be wanted by several others
			if !slices.Equal(enabled, want) {
				t.Errorf("enabled: %q; want %q", enabled, want)
			}
		})
	}
}
