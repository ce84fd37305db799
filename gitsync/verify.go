package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"observability-hub/lib/command"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

const (
	stageDir    = "stage"
	controlUnit = "gitsync-control.service" // one without a fault
)

// verify stages the whole set in the state directory and lets systemd-analyze
// check it, before anything on the host changes.
//
// systemd-analyze verify(1) exits 0 for a misspelt key unless it is told not to
// look at other units' errors. Programs that are known to be there, or that
// this very set brings, are replaced by one that is always there: scripts are
// not deployed yet, and another root's are not in ours.
func (d *desired) verify(ctx context.Context, h host, dir *statedir.Dir) error {
	stage := dir.Join(stageDir)
	if err := os.RemoveAll(stage); err != nil {
		return statedir.Unwritable(err)
	}
	defer os.RemoveAll(stage)
	known := func(name string) bool {
		for _, p := range candidates(name) {
			if f := d.file(p); f != nil && f.mode&0o111 != 0 || h.executable(p) {
				return true
			}
		}
		return false
	}
	var units, others []string // ours, and those of the host that get a drop-in
	for _, f := range d.files {
		if f.unit == "" {
			continue
		}
		to := filepath.Join(stage, strings.TrimPrefix(f.path, unitDir))
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return statedir.Unwritable(err)
		}
		if err := os.WriteFile(to, replaceExecutables(f.content, "/bin/true", known), 0o600); err != nil {
			return statedir.Unwritable(err)
		}
		if f.isUnit() {
			units = append(units, instantiate(f.unit))
		} else if d.unit(f.unit) == nil && unitType(f.unit) != "" {
			others = append(others, instantiate(f.unit))
		} else if d.file(path.Join(unitDir, f.unit)) == nil {
			units = append(units, f.unit) // an instance of a template of ours
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	env := append(os.Environ(), "SYSTEMD_UNIT_PATH="+stage+h.unitPath(), "SYSTEMD_COLORS=0", "SYSTEMD_LOG_LEVEL=notice", "LC_ALL=C.UTF-8")
	analyze := func(units ...string) (text string, faulty bool, err error) {
		if len(units) == 0 {
			return "", false, nil
		}
		args := append([]string{"systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--"}, units...)
		_, messages, err := command.Cmd{Args: args, Env: env, Dir: "/", Dependent: true}.Run(ctx)
		text = strings.TrimSpace(strings.ReplaceAll(string(messages), stage+"/", "systemd/"))
		switch status := command.Status(err); {
		case err == nil || ctx.Err() != nil:
			return text, false, err
		case status < 0:
			return "", false, sysexits.New(sysexits.Config, "no_systemd", fmt.Errorf("check the units: %w", err)).WithHint("install systemd")
		case status > 128 || text == "":
			return "", false, cannotVerify(err.Error())
		}
		return text, true, nil
	}
	refused := func(text string) error {
		// Is it the units? Where systemd-analyze itself cannot work, it takes no unit at all.
		if err := os.WriteFile(filepath.Join(stage, controlUnit), []byte("[Service]\nType=oneshot\nExecStart=/bin/true\n"), 0o600); err != nil {
			return statedir.Unwritable(err)
		}
		if said, faulty, err := analyze(controlUnit); err != nil {
			return err
		} else if faulty {
			return cannotVerify(said)
		}
		return sysexits.New(sysexits.DataErr, "verify_failed", fmt.Errorf("commit %s: systemd-analyze verify: %s", d.commit, oneLine(text))).
			WithHint("nothing was written; mend the units and push")
	}
	if text, faulty, err := analyze(units...); err != nil {
		return err
	} else if faulty {
		return refused(text)
	}
	// The host's own units may have faults of their own, or not be there: only what is said of our files counts.
	text, _, err := analyze(others...)
	if err != nil {
		return err
	}
	var ours []string
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "systemd/") {
			ours = append(ours, strings.TrimSpace(line))
		}
	}
	if len(ours) > 0 {
		return refused(strings.Join(ours, "\n"))
	}
	return nil
}

// cannotVerify is the failure of systemd-analyze itself.
func cannotVerify(said string) error {
	return sysexits.New(sysexits.Unavailable, "systemd_unavailable", fmt.Errorf("systemd-analyze verify does not work here: %s", oneLine(said))).
		WithHint("nothing was written; the next run tries again")
}

// oneLine makes one line of many.
func oneLine(text string) string { return strings.ReplaceAll(text, "\n", "; ") }

// unitPath is where systemd-analyze finds units that are not staged: the
// default places, or those of another root before this system's own.
func (h host) unitPath() string {
	if !h.offline() {
		return ":"
	}
	var all strings.Builder
	for _, dir := range []string{unitDir, "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system"} {
		if real, err := h.resolve(dir); err == nil {
			all.WriteString(":" + real)
		}
	}
	return all.String() + ":/usr/lib/systemd/system:/lib/systemd/system"
}

// instantiate gives a template an instance: only such a unit can be checked.
func instantiate(unit string) string {
	if isTemplate(unit) {
		return strings.Replace(unit, "@"+path.Ext(unit), "@instance"+path.Ext(unit), 1)
	}
	return unit
}
