package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// rolloutFlags say when this host takes a new commit. The hosts of a fleet take it
// within the time Stagger, each at its turn.
type rolloutFlags struct {
	Stagger   time.Duration `placeholder:"D"`
	Turn      *float64      `placeholder:"F"`
	StopAfter int           `placeholder:"N"`
	Host      string        `placeholder:"NAME"`
}

func (r rolloutFlags) Validate() error {
	var err error
	if r.Stagger < 0 {
		err = fmt.Errorf("--stagger must not be negative, got %v", r.Stagger)
	}
	if r.Turn != nil && !(*r.Turn >= 0 && *r.Turn <= 1) { // also refuses NaN
		err = errors.Join(err, fmt.Errorf("--turn must be from 0 to 1, got %v", *r.Turn))
	}
	if r.StopAfter < 0 {
		err = errors.Join(err, fmt.Errorf("--stop-after must not be negative, got %d", r.StopAfter))
	}
	if hostErr := checkHost(r.Host); hostErr != nil {
		err = errors.Join(err, fmt.Errorf("--host: %w", hostErr))
	}
	return err
}

// checkHost returns an error for the name of a host that cannot be one component of a
// ref. It accepts the empty name, with which --host stands for the host name.
func checkHost(name string) error {
	plain := func(c rune) bool {
		return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.ContainsRune("-_.", c)
	}
	if name != "" && (len(name) > 100 || strings.ContainsFunc(name, func(c rune) bool { return !plain(c) }) ||
		name[0] == '.' || name[0] == '-' || strings.Contains(name, "..") || strings.HasSuffix(name, ".") || strings.HasSuffix(name, ".lock")) {
		return fmt.Errorf("%q cannot be part of a ref; a name has at most 100 letters, digits, dots, dashes and underscores, as in web1.example.org", name)
	}
	return nil
}

// hostName returns --host, or else the name of this host.
func hostName(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	name, err := os.Hostname()
	if err == nil {
		err = checkHost(name)
	}
	if err != nil {
		return "", sysexits.New(sysexits.Usage, "usage", fmt.Errorf("the name of this host cannot be used: %w", err)).WithHint("set --host or GITSYNC_HOST")
	}
	return name, nil
}

// delay returns how long this host waits before it takes a new commit. Without
// --turn, the name of the host decides: the same host always has the same turn, and
// the turns of a fleet are spread evenly.
func (r rolloutFlags) delay() (time.Duration, error) {
	if r.Stagger == 0 {
		return 0, nil
	}
	if r.Turn != nil {
		return time.Duration(*r.Turn * float64(r.Stagger)), nil
	}
	name, err := hostName(r.Host)
	return time.Duration(turnOf(name) * float64(r.Stagger)), err
}

// turnOf returns the turn of a host: at least 0 and less than 1.
func turnOf(name string) float64 {
	h := sha256.Sum256([]byte(name))
	return float64(binary.BigEndian.Uint64(h[:8])>>11) / (1 << 53) // the 53 bits that a float64 holds exactly
}

// waiting is a commit that pull has fetched and that this host does not take yet.
type waiting struct {
	Commit string    `json:"commit"`
	Tip    string    `json:"tip"`             // what the ref pointed to: the commit, or a tag
	First  time.Time `json:"first"`           // when this host first saw a commit newer than the accepted one
	Since  time.Time `json:"since"`           // when this host first saw this commit
	Until  time.Time `json:"until,omitzero"`  // the turn of this host; zero if hosts have stopped the commit
	BadOn  []string  `json:"bad_on,omitzero"` // the hosts that have stopped it
}

// see returns what waits after a pull has found tip at the time now. If the clock was
// set back, the wait begins again. So it lasts one more delay, and does not wait until
// the clock reaches the old time. The commit after one that hosts have stopped begins a
// roll-out of its own: its limit must not be that of the stopped one, which may be over
// on all hosts.
func (w *waiting) see(tip string, now time.Time) waiting {
	var next waiting
	if w != nil {
		next = *w
	}
	if next.Tip != tip && len(next.BadOn) > 0 {
		next.First = now
	}
	if next.Tip != tip {
		next = waiting{Tip: tip, First: next.First, Since: now}
	}
	if next.First.IsZero() || next.First.After(now) {
		next.First = now
	}
	if next.Since.After(now) {
		next.Since = now
	}
	next.Until, next.BadOn = time.Time{}, nil
	return next
}

// turn returns when the turn of this host comes. A newer commit starts the delay
// again, but only for one stagger after the first commit that the host has not
// taken. Without that limit, a branch that moves often would starve the host.
func (w waiting) turn(delay, stagger time.Duration) time.Time {
	turn, latest := w.Since.Add(delay), w.First.Add(stagger+delay)
	if latest.Before(turn) {
		return latest
	}
	return turn
}

// record adds the fields of pulled and status.
func (w *waiting) record(l *record.Line) {
	if w == nil {
		w = &waiting{}
	}
	if w.Commit != "" {
		l.String("waiting", w.Commit)
	} else {
		l.Null("waiting")
	}
	if !w.Until.IsZero() {
		l.String("waiting_until", w.Until.Format(record.TimeFormat))
	} else {
		l.Null("waiting_until")
	}
	l.Strings("bad_on", w.BadOn)
}

// why returns the reason why the commit waits.
func (w *waiting) why() string {
	if w.Until.IsZero() {
		return "it was rolled back on " + named(w.BadOn)
	}
	return "it waits for the turn of this host, until " + w.Until.Format(record.TimeFormat)
}

// rolloutTrailer is the trailer of a commit that does not wait for turns.
const rolloutTrailer = "Gitsync-Rollout"

// postpone decides whether this host takes the fetched tip. If it does not, postpone
// puts the tip that was accepted before into now, with the commit that waits. A commit
// that examine rejects is refused at once, not at the turn.
//
// The first commit of a host, and the first one after a change of the repository, ref
// or path, does not wait: that change is not part of a roll-out.
func (p *pull) postpone(ctx context.Context, repo *repository, url string, was pulled, now *pulled) error {
	if p.Stagger == 0 && p.StopAfter == 0 || was.Commit == "" || now.Repo != was.Repo || now.Ref != was.Ref || now.Path != was.Path || now.Tip == was.Tip {
		return nil
	}
	delay, err := p.delay()
	if err != nil {
		return err
	}
	clock := time.Now().UTC().Truncate(time.Millisecond)
	w := p.resumed(was.Waiting, clock).see(now.Tip, clock)
	later := func() error {
		now.Tip, now.Waiting = was.Tip, &w
		return nil
	}
	if w.Until = w.turn(delay, p.Stagger); w.Commit != "" && clock.Before(w.Until) {
		return later()
	}
	reader, o, err := openObjects(ctx, p.dir.Path, repo.dir)
	if err != nil {
		return err
	}
	defer o.Close()
	c, _, err := p.examine(ctx, o, reader, was, *now)
	if err != nil || c.ID == was.Commit {
		return err
	}
	if _, err := o.Peel(was.Tip); err != nil {
		return nil // a repository that was cloned again may lack the accepted commit, so the host cannot stay at it
	}
	w.Commit = c.ID
	if c.Trailer(rolloutTrailer) == "now" {
		w.Until = clock
	}
	if clock.Before(w.Until) {
		return later()
	}
	if p.StopAfter == 0 {
		return nil
	}
	bad, err := repo.badOn(ctx, url, c.ID)
	if err != nil || len(bad) < p.StopAfter {
		return err
	}
	w.Until, w.BadOn = time.Time{}, bad[:min(len(bad), maxNamed)]
	p.env.Diag.Warn("rollout_stopped", fmt.Sprintf("commit %s is not taken: it was rolled back on %s", c.ID, named(bad)),
		diag.Field{Key: "commit", Value: c.ID}, diag.Field{Key: "hosts", Value: len(bad)})
	return later()
}

// resumed returns what waits after pulls that failed. If none succeeded for one stagger,
// because the remote was down or its branch was refused, then the host was not starved
// by newer commits, and the next one is rolled out like any other. The same is true of
// all hosts of the fleet, which would otherwise take it at once.
func (p *pull) resumed(w *waiting, now time.Time) *waiting {
	info, err := os.Stat(p.dir.Join(pulledFile)) // its time is that of the last pull that succeeded
	if w == nil || p.Stagger == 0 || err != nil || now.Sub(info.ModTime()) <= p.Stagger {
		return w
	}
	next := *w
	next.First = now
	return &next
}

// maxNamed is how many hosts a message names.
const maxNamed = 5

// named lists hosts for a message.
func named(hosts []string) string {
	if more := len(hosts) - maxNamed; more > 0 {
		return fmt.Sprintf("%s and %d more", strings.Join(hosts[:maxNamed], ", "), more)
	}
	return strings.Join(hosts, ", ")
}
