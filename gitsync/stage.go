package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"observability-hub/gitsync/internal/unit"
	"observability-hub/lib/command"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// stage is a small root in the state directory with the units that the host will
// have after a plan. gitsync runs systemctl and systemd-analyze on it before it
// changes anything on the host.
type stage struct {
	state *statedir.Dir
	dir   string
	after *after
	files map[string][]byte // by path in the stage
	made  bool              // the files are on disk
}

const stageDir = "stage"

// newStage returns a stage with the units, drop-ins and presets of the commit.
// The caller must remove it.
func newStage(dir *statedir.Dir, a *after) (*stage, error) {
	s := &stage{state: dir, dir: dir.Join(stageDir), after: a, files: map[string][]byte{}}
	for _, f := range a.want.files {
		switch {
		case a.left[f.path]:
		case f.unit != "" && placeOf(f.unit) == unitDir:
			// systemd ignores a byte order mark, but systemd-analyze complains about one before a comment.
			s.files[f.path] = bytes.TrimPrefix(f.content, []byte("\ufeff"))
		case path.Dir(f.path) == presetDir:
			s.files[f.path] = f.content
		}
	}
	s.files[unitDir+"/x"] = nil
	if err := os.RemoveAll(s.dir); err != nil {
		return nil, statedir.Unwritable(err)
	}
	return s, nil
}

// remove removes the stage.
func (s *stage) remove() { _ = os.RemoveAll(s.dir) }

func (s *stage) real(p string) string { return filepath.Join(s.dir, p) }

// write adds a file to the stage, or replaces it.
func (s *stage) write(p string, content []byte) error {
	s.files[p] = content
	if !s.made {
		return nil
	}
	to := s.real(p)
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return statedir.Unwritable(err)
	}
	if err := os.WriteFile(to, content, 0o600); err != nil {
		return statedir.Unwritable(err)
	}
	return nil
}

// make writes the files to disk, where systemd's tools read them.
func (s *stage) make() error {
	if s.made {
		return nil
	}
	s.made = true
	for p, content := range s.files {
		if err := s.write(p, content); err != nil {
			return err
		}
	}
	return nil
}

// declared has the links that systemctl makes for the units of a commit. The keys
// are units and instances. Links that Also= makes are under their own units.
type declared struct {
	Links  map[string]enablement `json:"links"`  // links that systemctl enable makes
	Preset map[string]enablement `json:"preset"` // links that the presets want
	Off    map[string]bool       `json:"off"`    // units that the presets disable, and do not merely leave alone
	Host   map[string]enablement `json:"host"`   // links that units declare themselves which stay on the host without the commit
}

// answered is a cached answer of systemctl about a stage. systemctl reads no file
// outside the stage. gitsync therefore asks again only if the files or the program
// systemctl changed, or if the meaning of specifiers may have changed with the host
// name, the boot or the user.
type answered struct {
	Question string    `json:"question"` // digest of everything that the answer depends on
	Declared *declared `json:"declared"`
}

const answeredFile = "enablement.json"

// question returns the digest of everything that systemctl's answer depends on.
func (s *stage) question(names ...[]string) (string, error) {
	program, err := exec.LookPath("systemctl")
	if err != nil {
		return "", noSystemd(err)
	}
	info, err := os.Stat(program)
	if err != nil {
		return "", noSystemd(err)
	}
	name, err := os.Hostname()
	if err != nil {
		return "", err
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id") // the kernel may be another after a boot
	h := sha256.New()
	fmt.Fprintf(h, "%q %d %d %q %q %d %q\n", program, info.Size(), info.ModTime().UnixNano(), name, boot, os.Geteuid(), names)
	for _, p := range slices.Sorted(maps.Keys(s.files)) {
		fmt.Fprintf(h, "%q %d\n%s", p, len(s.files[p]), s.files[p])
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// presetDirs are in order of priority: a file hides the files of the same name in
// later directories (systemd.preset(5)).
var presetDirs = []string{"/etc/systemd/system-preset", "/run/systemd/system-preset", presetDir, "/usr/lib/systemd/system-preset", "/lib/systemd/system-preset"}

// ask lets systemctl enable the units in the stage, once according to the presets
// and once without them. foreign has the units of the commit whose files on this
// host are not the commit's. links has the links of the host, and was the links that
// the commit before declared.
func (s *stage) ask(ctx context.Context, foreign map[string]bool, links enablement, was map[string]enablement) (*declared, error) {
	d := &declared{Links: map[string]enablement{}, Preset: map[string]enablement{}, Off: map[string]bool{}, Host: map[string]enablement{}}
	units, enable := s.installable(foreign, links)
	stay := s.stay(units, was)
	if len(units)+len(stay) == 0 {
		return d, nil
	}
	if err := s.prepare(slices.Concat(units, stay)); err != nil {
		return nil, err
	}
	question, err := s.question(units, enable, stay)
	if err != nil {
		return nil, err
	}
	var last answered
	if b, err := readRegular(s.state.Join(answeredFile), maxState); err == nil && json.Unmarshal(b, &last) == nil && last.Question == question && last.Declared != nil {
		return last.Declared, nil
	}
	if err := s.askEach(ctx, d, units, enable); err != nil {
		return nil, err
	}
	if err := s.askHost(ctx, d, stay, was); err != nil {
		return nil, err
	}
	return d, writeState(s.state, answeredFile, answered{question, d})
}

// askEach asks about all units at once. If systemctl refuses that, it asks about one
// unit after the other.
func (s *stage) askEach(ctx context.Context, d *declared, units, enable []string) error {
	err := s.askTogether(ctx, d, units, enable)
	if sysexits.Code(err) != sysexits.DataErr {
		return err
	}
	// Two units may have the same alias. A host enables only one of them.
	if _, err := s.take(); err != nil {
		return err
	}
	for _, name := range units {
		mine := slices.DeleteFunc(slices.Clone(enable), func(e string) bool {
			t, _ := unit.Template(e)
			return e != name && t != name
		})
		if err := s.askTogether(ctx, d, []string{name}, mine); err != nil {
			return err
		}
	}
	return nil
}

// askHost asks about units of the host. If systemctl refuses a unit, which is not
// the commit's fault, the unit keeps the links that the commit before declared.
func (s *stage) askHost(ctx context.Context, d *declared, stay []string, was map[string]enablement) error {
	for _, name := range stay {
		err := s.systemctl(ctx, []string{"enable", "--", name})
		if err != nil && sysexits.Code(err) != sysexits.DataErr {
			return err
		}
		made, takeErr := s.take()
		if takeErr != nil {
			return takeErr
		}
		if err != nil {
			made = was[name]
		}
		d.Host[name] = made.of(name)
	}
	return nil
}

// askTogether asks about the given units at once.
func (s *stage) askTogether(ctx context.Context, d *declared, units, enable []string) error {
	if err := s.systemctl(ctx, append([]string{"preset", "--"}, units...)); err != nil {
		return err
	}
	made, err := s.take()
	if err != nil {
		return err
	}
	maps.Copy(d.Preset, made.bySubject())
	if err := s.systemctl(ctx, append([]string{"enable", "--"}, enable...)); err != nil {
		return err
	}
	before, err := readEnablement(host{root: s.dir})
	if err != nil {
		return err
	}
	maps.Copy(d.Links, before.bySubject())
	if err := s.systemctl(ctx, append([]string{"preset", "--preset-mode=disable-only", "--"}, units...)); err != nil {
		return err
	}
	left, err := s.take()
	if err != nil {
		return err
	}
	for subject := range before.without(left).bySubject() {
		d.Off[subject] = true
	}
	return nil
}

// installable returns the units of the commit that can be enabled. enable has the
// names to enable to see their links. For a template without DefaultInstance= these
// are the instances that are enabled on the host.
func (s *stage) installable(foreign map[string]bool, links enablement) (units, enable []string) {
	seen := map[string]bool{}
	for _, f := range s.after.want.files {
		name := f.unit
		if name == "" || seen[name] || foreign[name] || placeOf(name) != unitDir || !unit.Deployed(name) || unit.CheckName(name) != nil {
			continue
		}
		seen[name] = true
		u := s.after.unit(name)
		if u == nil || !u.Installable() || !f.isMain() && s.after.want.file(path.Join(unitDir, name)) == nil && !installsIn(f) {
			continue
		}
		units = append(units, name)
		switch {
		case !unit.IsTemplate(name) || u.Last("Install", "DefaultInstance") != "":
			enable = append(enable, name)
		default:
			for subject := range links.of(name).bySubject() {
				if unit.Instance(subject) != "" {
					enable = append(enable, subject)
				}
			}
		}
	}
	return units, slices.Compact(slices.Sorted(slices.Values(enable)))
}

// stay returns the units and instances whose links the commit before declared and
// which the host has without this commit: units of a package that lose an override
// or a drop-in, or that Also= named.
func (s *stage) stay(units []string, was map[string]enablement) []string {
	var all []string
	for _, subject := range slices.Sorted(maps.Keys(was)) {
		t, _ := unit.Template(subject)
		where, isMasked := s.after.find(subject)
		if where != "" && !isMasked && s.after.file(where) == nil && !slices.Contains(units, subject) && !slices.Contains(units, t) {
			all = append(all, subject)
		}
	}
	return all
}

// installsIn reports whether a drop-in has an [Install] section.
func installsIn(f *wantedFile) bool { return unit.Parse(f.unit, nil, f.content).Installable() }

// prepare adds the files that systemctl needs besides those of the commit: the
// host's presets, its drop-ins for the units, and its units.
func (s *stage) prepare(units []string) error {
	need := slices.Clone(units)
	for i := 0; i < len(need); i++ {
		p, isMasked := s.after.find(need[i])
		if p == "" {
			continue
		}
		if isMasked {
			// Also= names a unit that the administrator masked. systemctl would refuse the
			// whole request, so the stage gets an empty unit.
			if err := s.write(p, []byte("[Unit]\n")); err != nil {
				return err
			}
			continue
		}
		if s.after.file(p) == nil {
			if err := s.write(p, s.after.content(p)); err != nil {
				return err
			}
		}
		for _, d := range s.after.dropIns(need[i]) {
			if s.after.file(d) == nil {
				if err := s.write(d, s.after.content(d)); err != nil {
					return err
				}
			}
		}
		for _, also := range s.after.unit(need[i]).Words("Install", "Also") {
			if !slices.Contains(need, also) {
				need = append(need, also)
			}
		}
	}
	// These files give the values of the specifiers %m, %o, %w and so on.
	for _, p := range []string{"/etc/machine-id", "/etc/machine-info", "/etc/os-release", "/usr/lib/os-release"} {
		if b := s.after.content(p); b != nil {
			if err := s.write(p, b); err != nil {
				return err
			}
		}
	}
	for _, dir := range presetDirs {
		real, err := s.after.host.resolve(dir)
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(real)
		if err != nil && !notThere(err) {
			return fmt.Errorf("read presets: %w", err)
		}
		for _, e := range entries {
			p := path.Join(dir, e.Name())
			if unit.Type(p) != "preset" || s.after.gone[p] || s.after.file(p) != nil {
				continue
			}
			// A link to /dev/null hides a preset in a later directory, as an empty file does.
			if err := s.write(p, s.after.content(p)); err != nil {
				return err
			}
		}
	}
	return nil
}

// take returns the links that systemctl made in the stage, and removes them.
func (s *stage) take() (enablement, error) {
	made, err := readEnablement(host{root: s.dir})
	if err != nil {
		return nil, err
	}
	return made, made.remove(host{root: s.dir})
}

// systemctl runs systemctl on the files of the stage. If it refuses them, an
// [Install] section is wrong, and it would refuse that on every host. The commit is
// then refused.
func (s *stage) systemctl(ctx context.Context, args []string) error {
	if args[len(args)-1] == "--" {
		return nil
	}
	if err := s.make(); err != nil {
		return err
	}
	_, err := systemctl(ctx, systemctlTimeout, append([]string{"--quiet", "--no-reload", "--root=" + s.dir}, args...)...)
	status := command.Status(err)
	if err == nil || ctx.Err() != nil || status <= 0 || status > 128 || errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, why, _ := strings.Cut(err.Error(), fmt.Sprintf("exit status %d: ", status))
	return sysexits.New(sysexits.DataErr, "commit_refused", fmt.Errorf("commit %s: systemctl %s: %s", s.after.want.commit, args[0], strings.ReplaceAll(why, s.dir, ""))).
		WithHint("nothing was changed; correct the [Install] section and push")
}
