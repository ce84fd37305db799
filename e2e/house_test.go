package e2e

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/postgres"
)

//go:embed testdata/house/setup.sh
var houseSetup string

// houseServices are the services of the four families in a house, and houseTimers what starts them.
var (
	houseServices = []string{"gitops-sync.service", "gitops-apply.service", "reading-sync.service", "system-metrics.service", "volume-backup.service"}
	houseTimers   = []string{"gitops-sync.timer", "reading-sync.timer", "system-metrics.timer", "volume-backup.timer"}
)

// house is a booted host with all four unit families. Docker and the Git server run in the machine. The Git repository,
// PostgreSQL and the MongoDB stand-in are outside, and survive the machine.
type house struct {
	t         *testing.T
	machine   *nspawn.Machine
	mongo     *mongowire.Server
	pg        *postgres.Cluster
	clone     string // a clone of the Git repository, on this host
	documents int    // in MongoDB
	round     int    // of the newest work
	jitter    string // of the timers before the first reboot
	often     string // a drop-in that adds to a timer's schedule, and removes its delay
}

// newHouse boots a machine of a suite, sets it up, and boots it again. every is how often the jobs run, beside their own schedule.
func newHouse(t *testing.T, suite, every string) *house {
	t.Helper()
	shared := t.TempDir()
	for dir := shared; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil { // the units' user must be able to enter it
			t.Fatal(err)
		}
	}
	socket := filepath.Join(shared, "mongo.sock")
	h := &house{t: t, often: "[Timer]\nOnCalendar=" + every + "\nRandomizedDelaySec=0\nAccuracySec=100ms\n", clone: filepath.Join(shared, "clone"), pg: postgres.Run(t, postgres.Config{}), mongo: mongowire.Run(t, mongowire.Config{Address: socket})}
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	// A MongoDB on another host takes its time.
	h.mongo.Intercept(func(*mongowire.Call) mongowire.Action { return mongowire.Action{Delay: 50 * time.Millisecond} })
	h.git("", "init", "--quiet", "--bare", "--initial-branch=main", filepath.Join(shared, "git", "hub"))
	h.git("", "clone", "--quiet", filepath.Join(shared, "git", "hub"), h.clone)
	h.work()
	config := docker.Machine(t, nspawn.Config{
		Suite: suite,
		Tools: []string{"gitsync", "readsync", "sysmetrics", "volbackup"},
		Files: []nspawn.File{
			{Path: "/srv/credentials/mongo_uri", Content: "mongodb://" + url.PathEscape("/shared/mongo.sock") + "/\n"},
			{Path: "/srv/credentials/database_url", Content: fmt.Sprintf("postgres://hub@/hub?host=/postgres&port=%d&sslmode=disable\n", h.pg.Port)},
			{Path: "/etc/systemd/system/git-daemon.service", Content: `[Service]
ExecStart=git daemon --export-all --base-path=/shared/git --listen=127.0.0.1 --reuseaddr
[Install]
WantedBy=multi-user.target
`},
			{Path: "/etc/systemd/system/copy.service", Content: "[Service]\nType=oneshot\nExecStart=true\n"},
			// gitops-sync and system-metrics are to run every few seconds, and the first runs of the others are not to wait for half an
			// hour.
			{Path: "/etc/systemd/system/gitops-sync.timer.d/often.conf", Content: h.often},
			{Path: "/etc/systemd/system/system-metrics.timer.d/often.conf", Content: h.often},
			{Path: "/etc/systemd/system/reading-sync.timer.d/now.conf", Content: "[Timer]\nRandomizedDelaySec=0\n"},
			{Path: "/etc/systemd/system/volume-backup.timer.d/now.conf", Content: "[Timer]\nRandomizedDelaySec=0\n"},
		},
		Binds:   []nspawn.Bind{{From: shared, To: "/shared"}, {From: filepath.Dir(h.pg.Socket()), To: "/postgres"}},
		Timeout: 30 * time.Minute,
	})
	for name := range houseCopies {
		content, err := os.ReadFile(filepath.Join("..", "systemd", name))
		if err != nil {
			t.Fatal(err)
		}
		config.Files = append(config.Files, nspawn.File{Path: "/etc/systemd/system/copy-" + name, Content: string(content) + "\n[Timer]\nUnit=copy.service\n"})
	}
	h.machine = nspawn.Start(t, config)
	presets := append([]string{"reading-sync-api.socket", "volume-backup-resume.service"}, houseTimers...)
	h.run("bash", append([]string{"-c", houseSetup, "setup"}, presets...)...)
	for name := range houseCopies {
		h.run("systemctl", "enable", "--quiet", "--now", "copy-"+name)
	}
	h.jitter = h.delays()
	h.mark()
	h.machine.Reboot()
	return h
}

// houseCopies are the timers with a random delay. The machine has a copy of each, which no test changes.
var houseCopies = map[string]time.Duration{ // the values are the times between two runs
	"gitops-sync.timer": 15 * time.Minute, "reading-sync.timer": 24 * time.Hour, "system-metrics.timer": time.Minute, "volume-backup.timer": 24 * time.Hour,
}

// delays returns the random delays of the copies: how much later than their schedule they run next.
func (h *house) delays() string {
	h.t.Helper()
	var all []string
	for name, period := range houseCopies {
		// While the service runs, its timer has no next start.
		next := h.run("bash", "-c", `until next=$(systemctl show --property=NextElapseUSecRealtime --value copy-`+name+`) && [[ -n $next ]]; do sleep 0.1; done; date --utc --date="$next" +%s`)
		seconds, err := strconv.ParseInt(next, 10, 64)
		if err != nil {
			h.t.Fatal(err)
		}
		all = append(all, name+" "+fmt.Sprint(time.Duration(seconds)*time.Second%period))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// run runs a command in the machine and returns its output, without spaces around it. It fails the test if the command fails.
func (h *house) run(name string, arguments ...string) string {
	h.t.Helper()
	out, err := h.try(name, arguments...)
	if err != nil {
		h.t.Fatalf("%s %q: %v\n%s", name, arguments, err, out)
	}
	return out
}

func (h *house) try(name string, arguments ...string) (string, error) {
	out, err := h.machine.Command(name, arguments...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// git runs git on this host.
func (h *house) git(dir string, arguments ...string) string {
	h.t.Helper()
	cmd := exec.Command("git", arguments...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_AUTHOR_NAME=test", "GIT_AUTHOR_EMAIL=test@example.org", "GIT_COMMITTER_NAME=test", "GIT_COMMITTER_EMAIL=test@example.org")
	out, err := cmd.CombinedOutput()
	if err != nil {
		h.t.Fatalf("git %q: %v\n%s", arguments, err, out)
	}
	return strings.TrimSpace(string(out))
}

// work makes work for gitsync and readsync: a commit with a new service, script and timer, and documents. mark makes the work
// for volbackup, which needs the machine. sysmetrics always has work.
func (h *house) work() {
	h.t.Helper()
	h.round++
	for name, content := range map[string]string{
		"systemd/lamp.service":                  fmt.Sprintf("[Service]\nExecStart=sleep infinity\nEnvironment=ROUND=%d\n[Install]\nWantedBy=multi-user.target\n", h.round),
		"systemd/clean.service":                 "[Service]\nType=oneshot\nExecStart=clean\n",
		"systemd/clean.timer":                   fmt.Sprintf("[Timer]\nOnCalendar=*-*-* 04:%02d\n[Install]\nWantedBy=timers.target\n", h.round%60),
		"systemd/50-house.preset":               "enable lamp.service\nenable clean.timer\n",
		"scripts/clean":                         fmt.Sprintf("#!/bin/sh\necho clean %d\n", h.round),
		"systemd/reading-sync.timer.d/50.conf":  h.often,
		"systemd/volume-backup.timer.d/50.conf": h.often,
	} {
		path := filepath.Join(h.clone, name)
		if h.round == 1 && strings.HasSuffix(name, "50.conf") {
			continue // first the timers run by their own schedule
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			h.t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
			h.t.Fatal(err)
		}
	}
	h.git(h.clone, "add", "--all")
	h.git(h.clone, "commit", "--quiet", "--message", fmt.Sprint("round ", h.round))
	h.git(h.clone, "push", "--quiet", "origin", "HEAD:main")
	for range 1000 {
		h.documents++
		doc, err := bson.Marshal(bson.D{{Key: "_id", Value: fmt.Sprintf("reading-%05d", h.documents)}, {Key: "status", Value: "ingested"},
			{Key: "timestamp", Value: bson.NewDateTimeFromTime(time.Now())}, {Key: "source", Value: "house"}, {Key: "event_type", Value: "reading"},
			{Key: "payload", Value: bson.D{{Key: "round", Value: h.round}}}})
		if err != nil {
			h.t.Fatal(err)
		}
		if err := h.mongo.Put("hub", "readings", doc); err != nil {
			h.t.Fatal(err)
		}
	}
}

// mark writes the number of the round into both volumes.
func (h *house) mark() {
	h.t.Helper()
	h.run("bash", "-c", fmt.Sprintf("for v in data logs; do echo %d >/var/lib/docker/volumes/$v/_data/round; done", h.round))
}

// pending returns what the jobs have not done yet of the newest work, or "".
func (h *house) pending() string {
	if n := h.statuses()["processed"]; n != h.documents {
		return fmt.Sprintf("%d of %d documents are processed", n, h.documents)
	}
	if h.query("SELECT to_regclass('system_metrics')") == "[[NULL]]" {
		return "there is no sample"
	}
	if got, _ := h.try("jq", "--raw-output", ".commit", "/var/lib/gitops-apply/ledger.json"); got != h.git(h.clone, "rev-parse", "HEAD") {
		return "the commit is not applied: " + got
	}
	for _, volume := range []string{"data", "logs"} {
		if got, _ := h.try("bash", "-c", "volbackup cat "+volume+" | tar -xO ./round"); got != fmt.Sprint(h.round) {
			return fmt.Sprintf("the newest archive of %s is of round %s; want %d", volume, got, h.round)
		}
	}
	return ""
}

// until waits until a condition is met, for at most two minutes. The condition returns what is missing, or "".
func (h *house) until(what string, missing func() string) {
	h.t.Helper()
	h.untilEvery(100*time.Millisecond, what, missing)
}

// untilEvery is until with another time between two looks.
func (h *house) untilEvery(pause time.Duration, what string, missing func() string) {
	h.t.Helper()
	for began := time.Now(); ; time.Sleep(pause) {
		lacks := missing()
		if lacks == "" {
			return
		}
		if time.Since(began) > 2*time.Minute {
			units, _ := h.try("systemctl", "--no-pager", "list-units", "--all", "gitops-*", "reading-*", "system-metrics*", "volume-*", "docker*", "lamp*")
			journal, _ := h.try("journalctl", "--quiet", "--boot", "--no-pager", "--lines=100", "--output=short-precise")
			h.t.Fatalf("round %d: waited two minutes until %s: %s\n%s\n%s", h.round, what, lacks, units, journal)
		}
	}
}

// statuses returns the number of documents for each status.
func (h *house) statuses() map[string]int {
	statuses := map[string]int{}
	for _, doc := range h.mongo.Documents("hub", "readings") {
		statuses[bson.Raw(doc).Lookup("status").StringValue()]++
	}
	return statuses
}

// rest stops timers, and waits until services have ended.
func (h *house) rest(timers, services []string) {
	h.t.Helper()
	h.run("systemctl", append([]string{"stop"}, timers...)...)
	h.until("the jobs end", func() string {
		jobs := h.run("systemctl", "list-jobs", "--plain", "--no-legend")
		for _, unit := range services {
			if state := h.run("systemctl", "show", "--property=ActiveState", "--value", unit); state != "inactive" || strings.Contains(jobs, unit) {
				return unit + " is " + state + ", jobs: " + jobs
			}
		}
		return ""
	})
}

// check waits until the jobs have done all work, stops the timers, and checks that everything is where it belongs, once.
func (h *house) check() {
	h.t.Helper()
	h.until("the jobs do their work", h.pending)
	// gitsync would start again the timers of the commit.
	h.rest(houseTimers[:1], houseServices[:2])
	if plan := h.run("gitsync", "plan"); plan != "" {
		h.t.Errorf("round %d: gitsync has more to do: %s", h.round, plan)
	}
	h.rest(houseTimers, houseServices)

	for what, c := range map[string]struct{ got, want string }{
		"rows of documents, and different ones": {h.query("SELECT count(*), count(DISTINCT mongo_id) FROM reading_analytics"), fmt.Sprintf("[[%d %d]]", h.documents, h.documents)},
		"documents by status":                   {fmt.Sprint(h.statuses()), fmt.Sprint(map[string]int{"processed": h.documents})},
		"samples that are not four rows":        {h.query("SELECT time, host, count(*) FROM system_metrics GROUP BY time, host HAVING count(*) <> 4 OR count(DISTINCT metric_type) <> 4"), "[]"},
		"records that wait":                     {h.run("bash", "-c", "cat /var/lib/system-metrics/spool.jsonl 2>/dev/null | wc -l"), "0"},
		"containers":                            {h.run("bash", "-c", "docker ps --all --format '{{.Names}} {{.State}}' | sort"), "quiet running\nslow running\nwriter running"},
		"journals of containers":                {h.run("bash", "-c", "ls /var/lib/volume-backup/quiesced 2>/dev/null || :"), ""},
		"the service of the commit":             {h.run("systemctl", "show", "--property=ActiveState,Environment", "lamp.service"), fmt.Sprintf("Environment=ROUND=%d\nActiveState=active", h.round)},
		"the script of the commit":              {h.run("clean"), fmt.Sprint("clean ", h.round)},
		"the timer of the commit":               {h.run("bash", "-c", "systemctl is-enabled clean.timer; systemctl is-active clean.timer"), "enabled\nactive"},
		"files that gitsync left":               {h.run("find", "/etc", "/usr/local", "-name", ".gitsync-*~"), ""},
		"failed units":                          {h.run("systemctl", "list-units", "--failed", "--plain", "--no-legend", "gitops-*", "reading-*", "system-metrics*", "volume-*", "hub-*", "docker*", "lamp*", "clean*"), ""},
	} {
		if c.got != c.want {
			h.t.Errorf("round %d: %s: %q; want %q", h.round, what, c.got, c.want)
		}
	}
	if out, err := h.try("volbackup", "verify"); err != nil {
		h.t.Errorf("round %d: volbackup verify: %v\n%s", h.round, err, out)
	}
}

// start starts the timers again.
func (h *house) start() {
	h.t.Helper()
	h.run("systemctl", append([]string{"start"}, houseTimers...)...)
}

func (h *house) query(query string) string {
	h.t.Helper()
	rows, err := h.pg.Query(query)
	if err != nil {
		h.t.Fatalf("%s: %v", query, err)
	}
	return fmt.Sprint(rows)
}

// runs returns how often a unit has finished since this boot.
func (h *house) runs(unit string) int {
	h.t.Helper()
	out := h.run("bash", "-c", "journalctl --sync; journalctl --quiet --boot --output=cat UNIT="+unit+" JOB_RESULT=done | grep -c ^Finished || :")
	n, err := strconv.Atoi(out)
	if err != nil {
		h.t.Fatal(err)
	}
	return n
}

// TestHouse boots a host with all four unit families, beside a real PostgreSQL, a MongoDB stand-in, Docker and a Git server. No
// service is started by hand. At boot the timers start the daily jobs, which the host has missed. After that all jobs run by the
// clock, every ten seconds: drop-ins shorten the schedules, and gitsync deploys those of the daily jobs. TestSystemd waits for the
// minutes of system-metrics. Drop-ins also turn off the random delays, which are checked with copies of the timers.
func TestHouse(t *testing.T) {
	t.Parallel()
	began := time.Now()
	h := newHouse(t, nspawn.Bookworm, "*:*:0/10")
	booted := time.Now()

	// The schedules of the daily jobs are those of the units: what runs is what was missed.
	h.check()
	for _, unit := range []string{"reading-sync.service", "volume-backup.service"} {
		if n := h.runs(unit); n != 1 && !(n == 2 && h.due(booted)) {
			t.Errorf("%s ran %d times after the boot; want 1", unit, n)
		}
	}
	t.Logf("the missed runs were made up %v after the boot", time.Since(booted).Round(100*time.Millisecond))

	// The random delays are those of before the reboot, and stay through daemon-reloads.
	for range 5 {
		h.run("systemctl", "daemon-reload")
		if got := h.delays(); got != h.jitter {
			t.Errorf("the random delays were %s; now %s", h.jitter, got)
		}
	}
	t.Logf("after a reboot and five daemon-reloads the jobs are still due at %s", h.jitter)

	h.start()
	h.work()
	h.mark()
	h.until("the jobs do their work", h.pending)
	status, err := h.try("hub-status", "--json")
	if err != nil || strings.Count(status, `"ok":true`) != 4 {
		t.Errorf("hub-status: %v\n%s", err, status)
	}
	t.Logf("hub-status:\n%s", h.run("hub-status", "--table"))
	h.check()
	result := h.machine.Stop()
	t.Logf("from the first boot to power-off: %v", time.Since(began).Round(100*time.Millisecond))
	t.Logf("what the jobs did:\n%s", h.table(result.Journal))
	for _, entry := range result.Journal {
		if strings.HasPrefix(entry["_SYSTEMD_UNIT"], "hub-failure@") {
			t.Errorf("a job failed: %s", entry["MESSAGE"])
		}
	}
}

// due says whether a daily job was also due by its schedule since a point in time.
func (h *house) due(since time.Time) bool {
	return since.UTC().Hour() != time.Now().UTC().Hour()
}

// table returns a table of the runs in the journal.
func (h *house) table(journal []nspawn.Entry) string {
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "unit\truns\tsucceeded\tfailed\tcut\tshortest\tlongest\tjournal lines\tfinal records")
	for _, unit := range houseServices {
		var succeeded, failed, cut, lines int
		var start time.Time
		var took []time.Duration
		finals := map[string]int{}
		for _, e := range journal {
			microseconds, _ := strconv.ParseInt(e["__REALTIME_TIMESTAMP"], 10, 64)
			switch {
			case e["UNIT"] == unit && strings.HasPrefix(e["MESSAGE"], "Starting "):
				if !start.IsZero() {
					cut++
				}
				start = time.UnixMicro(microseconds)
			case e["UNIT"] == unit && !start.IsZero() && (strings.HasPrefix(e["MESSAGE"], "Finished ") || strings.HasPrefix(e["MESSAGE"], "Failed to start")):
				took = append(took, time.UnixMicro(microseconds).Sub(start))
				start = time.Time{}
				if strings.HasPrefix(e["MESSAGE"], "Finished ") {
					succeeded++
				} else {
					failed++
				}
			case e["_SYSTEMD_UNIT"] == unit:
				lines++
				var r struct{ Msg string }
				_ = json.Unmarshal([]byte(e["MESSAGE"]), &r) // other lines have no event
				finals[r.Msg]++
			}
		}
		if !start.IsZero() {
			cut++
		}
		if len(took) == 0 {
			took = []time.Duration{0}
		}
		var events []string
		for _, event := range []string{"pulled", "applied", "triggered", "flushed", "backup_finished"} {
			if finals[event] > 0 {
				events = append(events, fmt.Sprintf("%s %d", event, finals[event]))
			}
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%v\t%v\t%d\t%s\n", unit, succeeded+failed+cut, succeeded, failed, cut,
			slices.Min(took).Round(10*time.Millisecond), slices.Max(took).Round(10*time.Millisecond), lines, strings.Join(events, ", "))
	}
	w.Flush()
	return text.String()
}
