package main

import (
	"container/heap"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"observability-hub/e2e/workspace"
)

// fleet has a Git server and the directories of its hosts.
type fleet struct {
	dir       string
	gitsync   string
	server    *server
	hosts     int
	good, bad string // commits
}

const unit = "[Service]\nExecStart=/usr/local/bin/app\n"

// systemctl is the systemctl of a host. It knows one unit. A start runs the unit's program and keeps its exit status.
const systemctl = `#!/bin/sh
case " $* " in *" --root="*) exec /usr/bin/systemctl "$@" ;; esac
[ "$1" = --no-pager ] && shift
for last; do :; done
case " $* " in
*" list-units "*) echo 'app.service loaded active running the program' ;;
*" show "*)
  if [ "$(cat "$HOST_DIR/status" 2>/dev/null || echo 0)" = 0 ]; then active=active sub=running result=success; else active=failed sub=failed result=exit-code; fi
  printf 'Id=%s\nLoadState=loaded\nActiveState=%s\nSubState=%s\nResult=%s\nNRestarts=0\n\n' "$last" $active $sub $result
  ;;
*" restart "* | *" start "*) /usr/local/bin/app; echo $? >"$HOST_DIR/status" ;;
esac
`

// newFleet makes the server with a good commit, and hosts that have applied it.
func newFleet(dir string, hosts int) (*fleet, error) {
	f := &fleet{dir: dir, hosts: hosts}
	var err error
	if f.gitsync, err = workspace.Binary("gitsync"); err != nil {
		return nil, err
	}
	if f.server, err = newServer(dir); err != nil {
		return nil, err
	}
	for _, d := range []string{"bin", "at", "base/units", "base/programs", "base/state"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bin/systemctl"), []byte(systemctl), 0o755); err != nil {
		return nil, err
	}
	if f.good, err = f.server.commit(map[string]string{"systemd/app.service": unit, "scripts/app": "#!/bin/sh\nexit 0\n"}); err != nil {
		return nil, err
	}
	if f.bad, err = f.server.commit(map[string]string{"scripts/app": "#!/bin/sh\nexit 1\n"}); err != nil {
		return nil, err
	}
	// One host applies the good commit, and the other hosts are copies of it.
	if err := f.server.reset(f.good); err != nil {
		return nil, err
	}
	base := filepath.Join(dir, "base")
	if r, err := f.pull(base); err != nil || !r.Changed {
		return nil, fmt.Errorf("first pull: %+v, %v", r, err)
	}
	return f, f.apply(base, 0)
}

func (f *fleet) host(i int) string { return filepath.Join(f.dir, "hosts", strconv.Itoa(i)) }

// remake makes all hosts as they were after the good commit.
func (f *fleet) remake() error {
	hosts := filepath.Join(f.dir, "hosts")
	if err := errors.Join(os.RemoveAll(hosts), os.Mkdir(hosts, 0o755)); err != nil {
		return err
	}
	for i := range f.hosts {
		if out, err := exec.Command("cp", "-a", filepath.Join(f.dir, "base"), f.host(i)).CombinedOutput(); err != nil {
			return fmt.Errorf("cp: %w: %s", err, out)
		}
	}
	return f.server.reset(f.good)
}

// pulledRecord has the fields of a pulled record that count here.
type pulledRecord struct {
	Changed bool     `json:"changed"`
	Waiting string   `json:"waiting"`
	BadOn   []string `json:"bad_on"`
}

// pull runs gitsync pull on a host.
func (f *fleet) pull(host string, flags ...string) (pulledRecord, error) {
	var r pulledRecord
	out, err := f.run(host, nil, append([]string{f.gitsync, "pull", "--repo", f.server.url(), "--state-dir", filepath.Join(host, "state/sync")}, flags...)...)
	if err == nil {
		err = json.Unmarshal(out, &r)
	}
	return r, err
}

// apply runs gitsync apply in the mount namespace of a host, and checks its exit status. The state directory has the same path on
// all hosts, because hosts are copies.
func (f *fleet) apply(host string, want int) error {
	at := filepath.Join(f.dir, "at")
	script := `mount --bind "$1/units" /etc/systemd/system && mount --bind "$1/programs" /usr/local/bin && mount --bind "$1/state" "$2" && shift 2 && exec "$@"`
	_, err := f.run(host, nil, "unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", host, at,
		f.gitsync, "apply", "--state-dir", filepath.Join(at, "apply"), "--source", filepath.Join(at, "sync"), "--health-window", "0s")
	status := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		status = e.ExitCode()
	} else if err != nil {
		return err
	}
	if status != want {
		return fmt.Errorf("apply: exit status %d, not %d: %w", status, want, err)
	}
	return nil
}

// verdict runs gitsync verdict on a host.
func (f *fleet) verdict(host string) error {
	_, err := f.run(host, nil, f.gitsync, "verdict", "--state-dir", filepath.Join(host, "state/apply"), "--source", filepath.Join(host, "state/sync"), "--host", name(host))
	return err
}

// name returns the name of a host in the fleet.
func name(host string) string { return "web" + filepath.Base(host) + ".example.org" }

// run runs a program for a host. Its error has what the program printed on stderr.
func (f *fleet) run(host string, env []string, args ...string) ([]byte, error) {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append([]string{"PATH=" + filepath.Join(f.dir, "bin") + ":/usr/sbin:/usr/bin:/sbin:/bin", "HOME=" + f.dir, "HOST_DIR=" + host, "GIT_CONFIG_GLOBAL=/dev/null"}, env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return out, err
}

// scenario is a roll-out of the bad commit.
type scenario struct {
	name      string
	jitter    time.Duration // RandomizedDelaySec= of the timer
	stagger   time.Duration // --stagger
	stopAfter int           // --stop-after; with 0, hosts publish no verdicts either
	canaries  int           // hosts with --turn 0
}

// result is how a roll-out ended.
type result struct {
	took, stopped int
	first, last   time.Duration // when the first and the last host took the commit, after the push
}

// applyTime is how long an apply takes in the simulation.
const applyTime = 20 * time.Second

// event is something that a host does at a time after the push.
type event struct {
	at   time.Duration
	host int
	push bool // of the verdict; else a pull
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

// rollOut pushes the bad commit and runs all hosts until each has taken it or was stopped.
func (f *fleet) rollOut(s scenario) (result, error) {
	var r result
	if err := f.remake(); err != nil {
		return r, err
	}
	if err := f.server.reset(f.bad); err != nil {
		return r, err
	}
	const pushed = 5 * time.Minute // after the timers elapsed last
	random := rand.New(rand.NewPCG(1, 2))
	var queue events
	for i := range f.hosts {
		at := time.Duration(random.Float64()*float64(s.jitter)) - pushed
		if at < 0 {
			at += interval
		}
		queue = append(queue, event{at: at, host: i})
	}
	heap.Init(&queue)
	seen := map[int]time.Duration{}
	for queue.Len() > 0 {
		e := heap.Pop(&queue).(event)
		host := f.host(e.host)
		if e.push {
			if err := f.verdict(host); err != nil {
				return r, err
			}
			continue
		}
		flags := []string{"--stagger", s.stagger.String(), "--stop-after", strconv.Itoa(s.stopAfter), "--host", name(host)}
		if e.host < s.canaries {
			flags = append(flags, "--turn", "0")
		}
		if first, ok := seen[e.host]; ok {
			if err := setWaiting(host, e.at-first); err != nil {
				return r, err
			}
		}
		p, err := f.pull(host, flags...)
		switch {
		case err != nil:
			return r, err
		case p.Changed:
			if err := f.apply(host, 10); err != nil {
				return r, err
			}
			if r.took == 0 {
				r.first = e.at
			}
			r.last = e.at
			r.took++
			if s.stopAfter > 0 {
				heap.Push(&queue, event{at: e.at + applyTime, host: e.host, push: true})
			}
		case p.Waiting == "":
			return r, fmt.Errorf("host %d neither takes the commit nor waits", e.host)
		case len(p.BadOn) > 0:
			r.stopped++ // until another commit is pushed
		default:
			if _, ok := seen[e.host]; !ok {
				seen[e.host] = e.at
			}
			heap.Push(&queue, event{at: e.at + interval, host: e.host})
		}
	}
	return r, nil
}

// setWaiting makes the commit that waits on a host one that was first seen that long ago.
func setWaiting(host string, ago time.Duration) error {
	path := filepath.Join(host, "state/sync/pulled.json")
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var p map[string]any
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	waiting, ok := p["waiting"].(map[string]any)
	if !ok {
		return fmt.Errorf("%s: nothing waits", path)
	}
	at := time.Now().Add(-ago).UTC().Format(time.RFC3339Nano)
	waiting["first"], waiting["since"] = at, at
	if b, err = json.Marshal(p); err != nil {
		return err
	}
	return os.WriteFile(path, b, 0o600)
}
