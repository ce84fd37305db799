package main

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/command"
	"observability-hub/lib/diag"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

const controlUnit = "gitsync-control.service" // a unit without faults

// verify lets systemd-analyze check the units in the stage, before anything on the
// host changes. The commit is refused only for faults that it brings. A complaint is
// a warning if it is about a file of the administrator or of a package, or about a
// file that was deployed before, or if systemd has it without the commit too.
func (p *plan) verify(ctx context.Context, d *diag.Logger) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	if err := p.stage.make(); err != nil {
		return err
	}
	units, others := p.unitsToVerify()
	var fatal, warnings []string
	for i, names := range [][]string{units, others} {
		names, err := p.withoutColons(names)
		if err != nil {
			return err
		}
		complaints, faulty, err := p.analyze(ctx, p.stage.real(unitDir), names)
		if err != nil {
			return err
		}
		// If systemd-analyze itself fails, its messages name no unit.
		if about := func(c unit.Complaint) bool { return c.Unit != "" || c.File != "" }; faulty && !slices.ContainsFunc(complaints, about) {
			return cannotVerify(complaints[0].Text)
		}
		var before []unit.Complaint
		if len(complaints) > 0 {
			if before, _, err = p.analyze(ctx, "", names); err != nil {
				return err
			}
		}
		for _, c := range complaints {
			c.Unit = strings.ReplaceAll(c.Unit, escapedColon, ":")
			text := p.hostText(c)
			switch verdict := p.judgeComplaint(c, before, i == 1); {
			case verdict == refuses && !slices.Contains(fatal, text):
				fatal = append(fatal, text)
			case verdict == warns && !slices.Contains(warnings, text):
				warnings = append(warnings, text)
			}
		}
	}
	if len(fatal) > 0 {
		if err := p.canVerify(ctx); err != nil {
			return err
		}
		return sysexits.New(sysexits.DataErr, "verify_failed", fmt.Errorf("commit %s: systemd-analyze verify: %s", p.want.commit, strings.Join(fatal, "; "))).
			WithHint("nothing was changed; correct the units and push")
	}
	for _, w := range warnings {
		d.Warn("unit_warning", "systemd-analyze verify: "+w)
	}
	return nil
}

// unitsToVerify returns the units of the commit, templates as instances, and
// the units of the host that get a drop-in.
func (p *plan) unitsToVerify() (units, others []string) {
	for _, f := range p.want.files {
		if f.unit == "" || placeOf(f.unit) != unitDir || unit.Type(f.unit) == "" || p.foreign[f.unit] {
			continue
		}
		where, isMasked := p.after.find(f.unit)
		switch names := p.instances(f.unit); {
		case isMasked || where == "": // drop-ins in foo-.service.d have no unit of that name
		case f.isUnit() || p.want.file(where) != nil:
			units = append(units, names...)
		default:
			others = append(others, names...)
		}
	}
	return slices.Compact(slices.Sorted(slices.Values(units))), slices.Compact(slices.Sorted(slices.Values(others)))
}

// anInstance is the instance used to check a template that has no known instance.
const anInstance = "instance"

// instances returns the unit itself or, for a template, the instances of the commit
// and of the host, because systemd can only check instances.
func (p *plan) instances(name string) []string {
	if !unit.IsTemplate(name) {
		return []string{name}
	}
	var all []string
	consider := func(n string) {
		if t, ok := unit.Template(n); ok && t == name && !p.after.maskedByAdmin(n) {
			all = append(all, n)
		}
	}
	for _, subjects := range []map[string]enablement{p.declared.Preset, p.declared.Links} {
		for n := range subjects {
			consider(n)
		}
	}
	for n, s := range p.running {
		if s.runs() {
			consider(n)
		}
	}
	if len(all) == 0 {
		return []string{unit.Instantiate(name, anInstance)}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Verdicts on a complaint.
const (
	isNothing = iota
	warns
	refuses
)

// judgeComplaint returns the verdict on one complaint. before has the complaints
// without the commit. foreign says that the unit's main file is not the commit's.
func (p *plan) judgeComplaint(c unit.Complaint, before []unit.Complaint, foreign bool) int {
	if program, ok := unit.MissingProgram(c); ok {
		if u := p.after.unit(c.Unit); u != nil && p.after.executable(u, program) {
			return isNothing // the program is deployed with the unit, or is on the other root
		}
	}
	old := slices.ContainsFunc(before, func(b unit.Complaint) bool { return b.Unit == c.Unit && b.Text == c.Text })
	f := p.want.file(p.hostPath(c.File))
	switch {
	case old && f == nil, !unit.Fatal(c):
		return warns
	case c.File != "" && f == nil:
		return warns
	case c.File == "" && (foreign || !p.unitChanges(c.Unit)):
		return warns
	case f != nil && p.ledger.Files[f.path].Sum == f.sum:
		return warns
	case f != nil && unit.IsTemplate(f.unit) && strings.HasPrefix(unit.Instance(c.Unit), anInstance) && strings.Contains(line(f.content, c.Line), "%"):
		return isNothing // it depends on the name of an instance that does not exist
	}
	return refuses
}

// unitChanges reports whether the commit changes a file of a unit. It returns true
// for "": a complaint that names no unit counts as one about a change.
func (p *plan) unitChanges(name string) bool {
	if name == "" {
		return true
	}
	for _, f := range p.want.files {
		if f.unit != "" && !p.after.left[f.path] && p.ledger.Files[f.path].Sum != f.sum && p.touches(f.unit, name) {
			return true
		}
	}
	return false
}

// hostPath returns the path on the host of a file in the stage.
func (p *plan) hostPath(file string) string {
	rest, ok := strings.CutPrefix(file, p.stage.real(unitDir)+"/")
	if !ok {
		return file
	}
	return strings.ReplaceAll(path.Join(unitDir, rest), escapedColon, ":")
}

// escapedColon replaces a colon in the names of units for systemd-analyze, which
// reads a:b.service as the file a with the name b.service.
const escapedColon = `\x3a`

// withoutColons returns the units, renamed in the stage if their names have a colon.
func (p *plan) withoutColons(units []string) ([]string, error) {
	var all []string
	for _, name := range units {
		escaped := strings.ReplaceAll(name, ":", escapedColon)
		if where, _ := p.after.find(name); escaped != name {
			main := name
			if path.Base(where) != name {
				main, _ = unit.Template(name)
			}
			if err := p.stage.write(path.Join(unitDir, strings.ReplaceAll(main, ":", escapedColon)), p.after.content(where)); err != nil {
				return nil, err
			}
		}
		all = append(all, escaped)
	}
	return all, nil
}

// hostText returns the text of a complaint with its file in the repository, or else
// its file or unit on the host.
func (p *plan) hostText(c unit.Complaint) string {
	text := c.Text
	switch f := p.want.file(p.hostPath(c.File)); {
	case f != nil:
		return fmt.Sprintf("%s:%d: %s", f.source, c.Line, text)
	case c.File != "":
		return fmt.Sprintf("%s:%d: %s", c.File, c.Line, text)
	case c.Unit != "" && !strings.Contains(text, c.Unit):
		return c.Unit + ": " + text
	}
	return text
}

// line returns line n of a file, counted from 1, or "".
func line(content []byte, n int) string {
	lines := strings.Split(string(content), "\n")
	if n < 1 || n > len(lines) {
		return ""
	}
	return lines[n-1]
}

// analyze runs systemd-analyze verify on units. The unit files in dir take
// precedence over those of the host. faulty says that its exit status was not 0.
func (p *plan) analyze(ctx context.Context, dir string, units []string) (complaints []unit.Complaint, faulty bool, err error) {
	if len(units) == 0 {
		return nil, false, nil
	}
	// Without --recursive-errors=no, systemd-analyze verify exits with 0 for a
	// misspelt key.
	args := append([]string{"systemd-analyze", "verify", "--man=no", "--recursive-errors=no", "--"}, units...)
	env := append(os.Environ(), "SYSTEMD_UNIT_PATH="+dir+p.host.unitPath(), "SYSTEMD_COLORS=0", "SYSTEMD_LOG_LEVEL=notice", "LC_ALL=C.UTF-8")
	_, messages, err := command.Cmd{Args: args, Env: env, Dir: "/", Dependent: true}.Run(ctx)
	switch status := command.Status(err); {
	case err == nil:
	case ctx.Err() != nil:
		return nil, true, err
	case status < 0:
		return nil, true, noSystemd(fmt.Errorf("check the units: %w", err))
	case status > 128 || len(messages) == 0:
		return nil, true, cannotVerify(err.Error())
	}
	return unit.ParseVerify(string(messages)), err != nil, nil
}

// canVerify checks that systemd-analyze accepts a unit without faults. If it cannot
// work on this host, it accepts no unit, and the commit must not be refused.
func (p *plan) canVerify(ctx context.Context) error {
	dir := p.stage.real("control")
	if err := p.stage.write(filepath.Join("control", controlUnit), []byte("[Service]\nType=oneshot\nExecStart=/bin/true\n")); err != nil {
		return statedir.Unwritable(err)
	}
	complaints, faulty, err := p.analyze(ctx, dir, []string{controlUnit})
	if err != nil {
		return err
	}
	for _, c := range complaints {
		if faulty && c.File == "" && (c.Unit == controlUnit || c.Unit == "") {
			return cannotVerify(c.Text)
		}
	}
	return nil
}

// cannotVerify returns the error for a systemd-analyze that itself fails.
func cannotVerify(said string) error {
	return sysexits.New(sysexits.Unavailable, "systemd_unavailable", fmt.Errorf("systemd-analyze verify does not work here: %s", said)).
		WithHint("nothing was changed; the next run tries again")
}

// unitPath returns the directories where systemd-analyze finds units that are not
// staged: the default directories or, for another root, those of that root followed
// by this system's own.
func (h host) unitPath() string {
	if !h.offline() {
		return ":"
	}
	var all strings.Builder
	for _, dir := range unitPath {
		if real, err := h.resolve(dir); err == nil {
			all.WriteString(":" + real)
		}
	}
	return all.String() + ":/usr/lib/systemd/system:/lib/systemd/system"
}
