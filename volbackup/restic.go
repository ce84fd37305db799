package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
)

// restic is a repository that the program restic keeps: on S3, by SFTP, behind
// a rest-server. Where it is and its password are in restic's own variables.
// Each volume's snapshots carry the tag volume=NAME.
type restic struct{ host string }

// engineFlags choose who keeps the backups.
type engineFlags struct {
	Engine string `default:"folder" enum:"folder,restic"`
}

func (f engineFlags) isRestic() bool { return f.Engine == "restic" }

func newRestic() (restic, error) {
	host, err := os.Hostname()
	if err != nil {
		return restic{}, fmt.Errorf("host name: %w", err)
	}
	return restic{host}, nil
}

const (
	resticTag = "volume-backup"
	volumeTag = "volume="
)

// snapshot is what restic snapshots --json says of one.
type snapshot struct {
	ID       string    `json:"id"`
	ShortID  string    `json:"short_id"`
	Time     time.Time `json:"time"`
	Hostname string    `json:"hostname"`
	Paths    []string  `json:"paths"`
	Tags     []string  `json:"tags"`
}

// volume returns the volume that a snapshot is of.
func (s snapshot) volume() string {
	for _, tag := range s.Tags {
		if v, ok := strings.CutPrefix(tag, volumeTag); ok {
			return v
		}
	}
	return ""
}

// call runs restic and returns what it prints.
func (r restic) call(ctx context.Context, args ...string) ([]byte, error) {
	// Dependent: a killed run leaves no restic at work, and restic's own lock
	// is then stale and goes with the next unlock.
	out, messages, err := command.Cmd{Args: append([]string{"restic"}, args...), Dependent: true}.Run(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return out, resticFailed("restic "+args[0], string(messages), err)
	}
	return out, nil
}

// resticFailed explains a restic that failed: it has one exit status for all,
// so its words decide ours.
func resticFailed(what, said string, err error) error {
	text := lastLine(said)
	status, hint := sysexits.Unavailable, "see whether the repository can be reached: restic snapshots"
	for _, known := range []struct {
		words, hint string
		status      int
	}{
		{"executable file not found", "apt-get install restic", sysexits.Config},
		{"Please specify repository location", "set RESTIC_REPOSITORY in /etc/observability-hub/volume-backup.env", sysexits.Config},
		{"wrong password", "RESTIC_PASSWORD_FILE must hold the password of that repository", sysexits.Config},
		{"no password", "set RESTIC_PASSWORD_FILE", sysexits.Config},
		{"an empty password is not a password", "set RESTIC_PASSWORD_FILE", sysexits.Config},
		{"Resolving password failed", "RESTIC_PASSWORD_FILE must name a file that the user of this run can read", sysexits.Config},
		{"Is there a repository at", "restic init makes one; if there should be one, see whether it can be reached", sysexits.Unavailable},
		{"already locked", "another restic is at work on that repository; restic unlock removes locks whose owner is dead", sysexits.TempFail},
	} {
		if strings.Contains(said+err.Error(), known.words) {
			status, hint = known.status, known.hint
			break
		}
	}
	if text == "" {
		text = err.Error()
	}
	return sysexits.New(status, "restic_failed", fmt.Errorf("%s: %s", what, text)).WithHint(hint)
}

func lastLine(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range lines {
		if strings.HasPrefix(line, "Fatal: ") {
			return line
		}
	}
	return lines[len(lines)-1]
}

// snapshots returns those of the volumes, of all if none is named, oldest first.
func (r restic) snapshots(ctx context.Context, volumes []string) ([]snapshot, error) {
	out, err := r.call(ctx, "snapshots", "--json", "--no-lock", "--tag", resticTag)
	if err != nil {
		return nil, err
	}
	var all []snapshot
	if err := json.Unmarshal(out, &all); err != nil {
		return nil, fmt.Errorf("restic snapshots: %w", err)
	}
	all = slices.DeleteFunc(all, func(s snapshot) bool {
		return len(volumes) > 0 && !slices.Contains(volumes, s.volume()) || checkVolume(s.volume()) != nil
	})
	slices.SortStableFunc(all, func(a, b snapshot) int { return a.Time.Compare(b.Time) })
	return all, nil
}

// find returns the snapshot VOLUME@ID; without an ID the newest, of this host
// if it has one.
func (r restic) find(ctx context.Context, volume, id string) (snapshot, error) {
	all, err := r.snapshots(ctx, []string{volume})
	if err != nil {
		return snapshot{}, err
	}
	hosts := map[string]bool{}
	best := -1
	for i, s := range all {
		hosts[s.Hostname] = true
		if id != "" && (s.ID == id || s.ShortID == id) || id == "" && s.Hostname == r.host {
			best = i
		}
	}
	if best < 0 && id == "" && len(hosts) == 1 {
		best = len(all) - 1
	}
	switch {
	case best >= 0:
		return all[best], nil
	case id == "" && len(hosts) > 1:
		return snapshot{}, sysexits.New(sysexits.Usage, "usage", fmt.Errorf("%s: backups of %d other hosts", volume, len(hosts))).
			WithHint("say which: VOLUME@ID; volbackup list --engine restic shows them")
	}
	return snapshot{}, sysexits.New(sysexits.Failed, "no_backups", fmt.Errorf("%s: no such backup in the restic repository", volume)).
		WithHint("volbackup list --engine restic shows what is there")
}

// resticBackup is what the volume's containers are down for. $0 is the volume.
const resticBackup = `exec restic backup --quiet --json --tag ` + resticTag + ` --tag "` + volumeTag + `$0" -- "$VOLUME_PATH"`

// resticIncomplete is restic's exit status for a snapshot that lacks files.
const resticIncomplete = 3

// backUp makes a snapshot of a volume while it is at rest. One that lacks files
// is forgotten: it must never be the newest.
func (r restic) backUp(ctx context.Context, script, volume string, s *said) (id string, bytes, added int64, err error) {
	p := &producer{args: []string{script, "with", volume, "--", "sh", "-c", resticBackup, volume}, said: said{Diag: s.Diag}}
	out, err := p.open(ctx, "")
	if err != nil {
		return "", 0, 0, err
	}
	text, readErr := io.ReadAll(io.LimitReader(out, 1<<20))
	ended := p.wait()
	if ended == nil {
		p.said.passOn()
	}
	p.out.Close()
	var summary struct {
		Type      string `json:"message_type"`
		ID        string `json:"snapshot_id"`
		Processed int64  `json:"total_bytes_processed"`
		Added     int64  `json:"data_added"`
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	parsed := json.Unmarshal([]byte(lines[len(lines)-1]), &summary)
	switch {
	case ctx.Err() != nil:
		return "", 0, 0, context.Cause(ctx)
	case command.Status(ended) == resticIncomplete && summary.ID != "":
		_, forgot := r.call(ctx, "forget", summary.ID)
		last, _ := p.said.last()
		return "", 0, 0, errors.Join(sysexits.New(sysexits.Failed, "restic_failed", fmt.Errorf("restic backup: some files could not be read: %s", last)).
			WithHint("its snapshot is forgotten again; run as root, or with the capability CAP_DAC_READ_SEARCH"), forgot)
	case ended != nil:
		last, hint := p.said.last()
		if hint != "" { // of manage_volume.sh
			return "", 0, 0, p.failed(ended)
		}
		return "", 0, 0, resticFailed("restic backup", last, ended)
	case readErr != nil || parsed != nil || summary.ID == "":
		return "", 0, 0, errors.New("restic backup: it ended well and named no snapshot")
	}
	return summary.ID, summary.Processed, summary.Added, nil
}

// check verifies the repository, with deep every byte in it.
func (r restic) check(ctx context.Context, deep bool) error {
	args := []string{"check"}
	if deep {
		args = append(args, "--read-data")
	}
	_, err := r.call(ctx, args...)
	if e, ok := errors.AsType[*sysexits.Error](err); ok && e.Code == sysexits.Unavailable && strings.Contains(e.Error(), "repository contains errors") {
		return sysexits.New(sysexits.DataErr, "archives_damaged", e.Err).WithHint("restic check says more; restic rebuild-index and restic backup mend what can be mended")
	}
	return err
}

// forget removes what is expired of a volume; the newest always stays.
func (r restic) forget(ctx context.Context, volume string, keep retention) (removed int, err error) {
	out, err := r.call(ctx, "forget", "--json", "--group-by", "host", "--host", r.host, "--tag", resticTag+","+volumeTag+volume, "--keep-last", "1",
		"--keep-daily", strconv.Itoa(keep.KeepDaily), "--keep-weekly", strconv.Itoa(keep.KeepWeekly), "--keep-monthly", strconv.Itoa(keep.KeepMonthly))
	if err != nil {
		return 0, err
	}
	var groups []struct{ Remove []snapshot }
	if err := json.Unmarshal(out, &groups); err != nil {
		return 0, nil // it has nothing to say where nothing is left to keep
	}
	for _, g := range groups {
		removed += len(g.Remove)
	}
	return removed, nil
}

// stream restores a snapshot into dir, where restic compares
// every byte with its hash, and returns the tar that reads it: restic's own dump
// has no hard links and not the root folder.
func (r restic) stream(ctx context.Context, s snapshot, dir string) (*producer, error) {
	if len(s.Paths) != 1 {
		return nil, fmt.Errorf("snapshot %s is of %d folders", s.ShortID, len(s.Paths))
	}
	if _, err := r.call(ctx, "restore", s.ID, "--target", dir, "--verify"); err != nil {
		return nil, err
	}
	return &producer{args: append(slices.Clone(tarCommand), "--directory="+filepath.Join(dir, s.Paths[0]), ".")}, nil
}

// tarCommand is GNU tar with all that a file system has.
var tarCommand = []string{"tar", "--create", "--file=-", "--format=posix", "--sort=name", "--numeric-owner", "--xattrs", "--xattrs-include=*",
	"--acls", "--sparse", "--pax-option=delete=atime,delete=ctime"}
