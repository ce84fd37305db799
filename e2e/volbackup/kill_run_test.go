package volbackup

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/torture"
)

// killVictims are the programs that take part in a backup or a restore.
var killVictims = []string{"volbackup", "manage_volume.sh", "tar", "docker"}

// killWorld is a host with volumes. All files of a volume have the same version.
type killWorld struct {
	*dockerHost
	random  *rand.Rand
	version map[string]int            // version of each volume
	kills   map[string]int            // number of kills by program
	moments map[string]*torture.Kills // moments of kills by command line
	ends    map[int]int               // number of runs by exit status
	latest  int                       // the newest version
	number  int
}

const killFiles = 6

// killContent returns the content of a file in a version.
func killContent(version, file int) []byte {
	line := fmt.Sprintf("version %d of file %d\n", version, file)
	return bytes.Repeat([]byte(line), 60000)
}

// write writes a new version to a volume.
func (w *killWorld) write(tb testing.TB, volume string) {
	tb.Helper()
	w.latest++
	for file := range killFiles {
		if err := os.WriteFile(filepath.Join(w.Volume(volume), strconv.Itoa(file)), killContent(w.latest, file), 0o640); err != nil {
			tb.Fatal(err)
		}
	}
	w.version[volume] = w.latest
}

// read returns the version of a volume, and fails the test if the files have different versions or none.
func (w *killWorld) read(tb testing.TB, volume string) int {
	tb.Helper()
	names, err := os.ReadDir(w.Volume(volume))
	if err != nil || len(names) != killFiles {
		tb.Fatalf("volume %s: %d files, %v; want %d", volume, len(names), err, killFiles)
	}
	version := -1
	for file := range killFiles {
		content, err := os.ReadFile(filepath.Join(w.Volume(volume), strconv.Itoa(file)))
		if err != nil {
			tb.Fatal(err)
		}
		if version < 0 {
			if _, err := fmt.Sscanf(string(content), "version %d of", &version); err != nil {
				tb.Fatalf("volume %s, file %d: %v", volume, file, err)
			}
		}
		if !bytes.Equal(content, killContent(version, file)) {
			tb.Fatalf("volume %s is a mixture: file %d does not have version %d: %.40q", volume, file, version, content)
		}
	}
	return version
}

// killMarked returns the processes of a run, including orphans. They have the marker in their environment.
func killMarked(marker string) map[int]string {
	found := map[int]string{}
	paths, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, path := range paths {
		environ, err := os.ReadFile(path)
		if err != nil || !bytes.Contains(environ, []byte(marker+"\x00")) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		cmdline, err := os.ReadFile(filepath.Join(filepath.Dir(path), "cmdline"))
		if err != nil || len(cmdline) == 0 {
			continue // the process has ended
		}
		found[pid] = strings.ReplaceAll(string(cmdline), "\x00", " ")
	}
	return found
}

// killKind returns the program of killVictims to which a command line belongs. bash and sed of the script count as the
// script.
func killKind(cmdline string) string {
	program, _, _ := strings.Cut(cmdline, " ")
	switch program = filepath.Base(program); {
	case slices.Contains(killVictims, program):
		return program
	case strings.Contains(cmdline, "manage_volume.sh"):
		return "manage_volume.sh"
	}
	return ""
}

// round starts one command, kills one of its processes at a random time, runs resume as the unit's ExecStopPost= does, and
// checks containers, files, archives and volumes.
func (w *killWorld) round(t *testing.T, line string) {
	t.Helper()
	w.number++
	marker := fmt.Sprintf("HUB_KILL_ROUND=%d.%d", os.Getpid(), w.number)
	cmd := w.shell(line)
	cmd.Env = append(slices.Clone(cmd.Env), marker)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	// An orphan may keep the pipe open.
	cmd.WaitDelay = 20 * time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit status is checked below
		close(ended)
	}()
	after := w.moments[line].After()
	wanted := killVictims[w.random.IntN(len(killVictims))]
	if wanted == "tar" {
		after = 0 // tar runs only for a short time, so wait for it
	}
	select {
	case <-time.After(after):
	case <-ended:
	}
	victim, kind := w.victim(marker, wanted, ended)
	hit := victim != 0 && syscall.Kill(victim, syscall.SIGKILL) == nil
	if hit {
		w.kills[kind]++
	}
	if wanted != "tar" { // whose moment is its own
		w.moments[line].Add(hit)
	}
	story := fmt.Sprintf("round %d: %s: SIGKILL for %s after %v", w.number, line, kind, after)
	// systemd kills the remaining processes of a unit before ExecStopPost=. A terminal does not.
	if w.random.IntN(2) == 0 && (kind == "volbackup" || kind == "manage_volume.sh") {
		story += ", and for the remaining processes"
		for pid := range killMarked(marker) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	select {
	case <-ended:
	case <-time.After(60 * time.Second):
		t.Fatalf("%s: the command does not end: %v\n%s", story, killMarked(marker), output.String())
	}
	w.ends[cmd.ProcessState.ExitCode()]++
	fail := func(format string, args ...any) {
		t.Helper()
		t.Fatalf("%s: exit status %d: %s\n%s", story, cmd.ProcessState.ExitCode(), fmt.Sprintf(format, args...), output.String())
	}
	story += fmt.Sprintf(" at %.6f", float64(time.Now().UnixMicro())/1e6)
	journals, _ := w.shell("head -v -n 100 state/quiesced/*").CombinedOutput()
	story += fmt.Sprintf("\njournals: %s\n", journals)
	if status, stdout, stderr := w.try(t, "manage_volume.sh resume"); status != 0 {
		fail("resume: exit status %d\n%s%s", status, stdout, stderr)
	}
	// If the caller of the script was killed, the script gets SIGTERM and starts the containers itself. resume does not start
	// the containers of a live script.
	for deadline := time.Now().Add(20 * time.Second); len(w.down(t)) > 0; {
		if time.Now().After(deadline) {
			events, _ := w.Command("events", "--since", "60s", "--until", "0s", "--format", "{{.TimeNano}} {{.Actor.Attributes.name}} {{.Action}} {{.Actor.Attributes.signal}}").CombinedOutput()
			processes, _ := w.shell("ps -eo pid,ppid,pgid,stat,etimes,wchan:25,args; head -v -n 100 state/quiesced/*; cat /proc/locks").CombinedOutput()
			fail("containers are down: %v\nevents:\n%s\nprocesses, journals, locks:\n%s", w.down(t), events, processes)
		}
		time.Sleep(20 * time.Millisecond)
	}
	for deadline := time.Now().Add(20 * time.Second); len(w.left(t)) > 0; {
		if time.Now().After(deadline) {
			fail("not removed: %q", w.left(t))
		}
		time.Sleep(20 * time.Millisecond)
	}
	if status, stdout, stderr := w.try(t, "volbackup verify --deep"); status != 0 {
		fail("verify: exit status %d\n%s%s", status, stdout, stderr)
	}
	for volume, version := range w.version {
		if !regexp.MustCompile(`"backed_up".*"volume":"` + volume + `","outcome":"(stored|unchanged)"`).MatchString(output.String()) {
			continue
		}
		if got := w.stored(t, volume); got != version {
			fail("volume %s is reported as backed up, but its newest archive has version %d; want %d", volume, got, version)
		}
	}
}

// stored returns the version in a volume's newest archive.
func (w *killWorld) stored(tb testing.TB, volume string) (version int) {
	tb.Helper()
	content := w.must(tb, "volbackup cat "+volume+" | tar --extract --to-stdout ./0")
	if _, err := fmt.Sscanf(content, "version %d of", &version); err != nil {
		tb.Fatalf("the newest archive of %s: %v", volume, err)
	}
	return version
}

// victim returns a process of the wanted program. If none appears for a while, it returns a process of another program,
// unless tar is wanted.
func (w *killWorld) victim(marker, wanted string, ended <-chan struct{}) (pid int, kind string) {
	for try := 0; ; try++ {
		for pid, cmdline := range killMarked(marker) {
			if kind := killKind(cmdline); kind == wanted || wanted != "tar" && try >= 20 && kind != "" {
				return pid, kind
			}
		}
		select {
		case <-ended:
			return 0, "no process"
		case <-time.After(time.Millisecond):
		}
	}
}

// down returns the containers that do not run.
func (w *killWorld) down(tb testing.TB) []string {
	tb.Helper()
	var down []string
	for name, state := range w.containers(tb) {
		if state != "running" {
			down = append(down, name+" is "+state)
		}
	}
	return down
}

// left returns the files that resume must remove: journals, and the staging directories of import.
func (w *killWorld) left(tb testing.TB) []string {
	tb.Helper()
	journals, err := filepath.Glob(filepath.Join(w.dir, "state", "quiesced", "*"))
	if err != nil {
		tb.Fatal(err)
	}
	staging, err := filepath.Glob(filepath.Join(w.Dir, "data", "volumes", "*", ".hub-*"))
	if err != nil {
		tb.Fatal(err)
	}
	return append(journals, staging...)
}

// TestKillRun kills volbackup, the script, tar and the docker client at random times during backups and restores. Afterwards
// all containers run, every archive is good, and every volume has its old or its new content.
func TestKillRun(t *testing.T) {
	rounds := 30
	if torture.Full {
		rounds = 300
	}
	w := &killWorld{dockerHost: newDockerHost(t), random: torture.Random(t, 0), version: map[string]int{}, kills: map[string]int{}, moments: map[string]*torture.Kills{}, ends: map[int]int{}}
	for _, volume := range []string{"vol-a", "vol-b"} {
		w.Docker(t, "volume", "create", volume)
		w.write(t, volume)
	}
	w.container(t, "alpha", "--volume", "vol-a:/data")
	w.container(t, "beta", "--volume", "vol-b:/data", "--label", "hub.backup.quiesce=pause")
	w.container(t, "both", "--volume", "vol-a:/a", "--volume", "vol-b:/b", "--restart", "unless-stopped")
	// A container that stops slowly.
	w.Docker(t, "run", "--detach", "--network", "none", "--name", "slow", "--stop-timeout", "1", "--volume", "vol-b:/data", docker.Image, "sleep", "10000")

	commands := []string{"volbackup run", "volbackup run", "manage_volume.sh export vol-a | volbackup put vol-a", "volbackup restore --stop vol-a", "volbackup restore --stop vol-b"}
	for _, line := range commands { // measure the commands, so that the kills fall into their run time
		began := time.Now()
		w.must(t, line)
		w.moments[line] = torture.NewKills(w.random, time.Since(began))
	}
	replaced, kept := 0, 0
	for range rounds {
		line := commands[w.random.IntN(len(commands))]
		fields := strings.Fields(line)
		volume := fields[len(fields)-1]
		if fields[1] == "restore" {
			// A version that differs from the one that will be restored.
			w.write(t, volume)
		} else if w.random.IntN(2) == 0 {
			w.write(t, "vol-a")
			w.write(t, "vol-b")
		}
		w.round(t, line)
		for name, before := range w.version {
			got := w.read(t, name)
			switch {
			case got == before && fields[1] == "restore" && name == volume:
				kept++
			case got < before && fields[1] == "restore" && name == volume:
				replaced++
			case got != before:
				t.Fatalf("round %d: %s: volume %s has version %d; want %d", w.number, line, name, got, before)
			}
			w.version[name] = got
		}
	}
	t.Logf("%d rounds, kills: %v, exit statuses: %v, restores: %d left the old volume, %d the new one; 0 containers down, 0 bad archives, 0 mixed volumes",
		rounds, w.kills, w.ends, kept, replaced)
	total := 0
	for _, n := range w.kills {
		total += n
	}
	if total < rounds/3 {
		t.Errorf("%d kills in %d rounds; want a third at least", total, rounds)
	}
	if torture.Full {
		for _, kind := range killVictims {
			if w.kills[kind] < rounds/30 {
				t.Errorf("%d kills of %s; want %d at least", w.kills[kind], kind, rounds/30)
			}
		}
	}
	w.must(t, "volbackup run")
	for volume, version := range w.version {
		if got := w.stored(t, volume); got != version {
			t.Errorf("after a complete run the newest archive of %s has version %d; want %d", volume, got, version)
		}
	}
	parts, err := filepath.Glob(filepath.Join(w.repo, "*", ".*"))
	parts = slices.DeleteFunc(parts, func(path string) bool { return filepath.Base(path) == ".prefixes" }) // a cache
	if err != nil || len(parts) > 0 {
		t.Errorf("after a complete run the repository still contains %q, %v", parts, err)
	}
}
