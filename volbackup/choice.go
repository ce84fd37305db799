package main

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// choiceFlags choose the volumes of a run in which no volume is named.
type choiceFlags struct {
	Include   []string `placeholder:"PATTERN"`
	Exclude   []string `placeholder:"PATTERN"`
	Anonymous bool
}

func (c choiceFlags) Validate() error {
	for _, p := range slices.Concat(c.Include, c.Exclude) {
		if _, err := path.Match(p, ""); err != nil {
			return fmt.Errorf("%q is not a valid pattern: *, ? and [a-z] have the same meaning as in a shell", p)
		}
	}
	return nil
}

// Reasons for which a volume is left out.
const (
	byLabel      = "label"        // hub.backup=false
	byExclude    = "excluded"     // a pattern of --exclude
	notIncluded  = "not_included" // no pattern of --include
	withoutFlag  = "anonymous"    // without --anonymous
	withoutName  = "unnamed"      // anonymous, and no running container gives it a name
	cannotBeRead = "refused"      // manage_volume.sh cannot read it: it mounts something else, or has another driver
	isGone       = "gone"         // removed after it was listed
)

// leaveOut is the label of a volume. With the value false the volume is not backed up.
const leaveOut = "hub.backup"

// choose returns the volumes to back up, and the other volumes by the reason for which
// they are left out.
func (c choiceFlags) choose(all []volume) (chosen []volume, leftOut map[string][]volume, err error) {
	leftOut = map[string][]volume{}
	if c.Anonymous {
		nameAnonymous(all)
	}
	matched := len(c.Include) == 0 || len(all) == 0
	for _, v := range all {
		included := len(c.Include) == 0 || matches(c.Include, v)
		matched = matched || included
		reason := ""
		switch {
		case v.Labels[leaveOut] == "false":
			reason = byLabel
		case matches(c.Exclude, v):
			reason = byExclude
		case !included:
			reason = notIncluded
		case isAnonymous(v.Volume) && !c.Anonymous:
			reason = withoutFlag
		case isAnonymous(v.name):
			reason = withoutName
		}
		if reason == "" {
			chosen = append(chosen, v)
		} else {
			leftOut[reason] = append(leftOut[reason], v)
		}
	}
	if !matched {
		return nil, nil, sysexits.New(sysexits.Config, "nothing_included", fmt.Errorf("--include %s matches no volume", strings.Join(c.Include, ","))).
			WithHint("manage_volume.sh list prints the names")
	}
	return chosen, leftOut, nil
}

func matches(patterns []string, v volume) bool {
	return slices.ContainsFunc(patterns, func(p string) bool {
		byVolume, _ := path.Match(p, v.Volume)
		byName, _ := path.Match(p, v.name)
		return byVolume || byName
	})
}

// pick returns the named volumes, in the order of the names and each only once. A volume
// that is not listed has only its name. Its export fails with the reason.
func pick(all []volume, names []string) []volume {
	var picked []volume
	for i, name := range names {
		if slices.Contains(names[:i], name) {
			continue
		}
		v := volume{Volume: name, name: name}
		if i := slices.IndexFunc(all, func(v volume) bool { return v.Volume == name }); i >= 0 {
			v = all[i]
		}
		v.named = true
		picked = append(picked, v)
	}
	return picked
}

// isAnonymous reports whether Docker generated the name of a volume.
func isAnonymous(name string) bool {
	return len(name) == 64 && strings.Trim(name, "0123456789abcdef") == ""
}

// nameAnonymous gives each anonymous volume the name of the container that uses it. When
// the container is recreated, Docker creates another volume, but the container's name
// stays the same. If a container has several anonymous volumes, the mount point is part
// of the name. A volume keeps its own name if another volume would have the same name.
func nameAnonymous(all []volume) {
	several, taken := map[string]int{}, map[string]int{}
	for _, v := range all {
		taken[v.Volume]++
		if isAnonymous(v.Volume) && len(v.Containers) > 0 {
			several[slices.Min(v.Containers)]++
		}
	}
	names := make([]string, len(all))
	for i, v := range all {
		if !isAnonymous(v.Volume) || len(v.Containers) == 0 {
			continue
		}
		container, place := slices.Min(v.Containers), ""
		if several[container] > 1 {
			if place = v.place(container); place == "" {
				continue
			}
		}
		names[i] = container + place
		taken[names[i]]++
	}
	for i, name := range names {
		if taken[name] == 1 && repository.CheckVolume(name) == nil {
			all[i].name = name
		}
	}
}

// place returns where a container mounts the volume, in characters that a name can have:
// "-data-db" for /data/db.
func (v volume) place(container string) string {
	for _, m := range v.Mounts {
		if m.Container == container {
			return strings.ReplaceAll(m.Destination, "/", "-")
		}
	}
	return ""
}

// refusal returns the reason for which a volume can never be backed up, or "" for any
// other error.
func refusal(err error) string {
	if e, ok := errors.AsType[*scriptError](err); ok {
		switch e.event {
		case volumeRefused:
			return cannotBeRead
		case "no_such_volume":
			return isGone
		}
	}
	return ""
}

// volumeRefused is the event of manage_volume.sh for a volume that it cannot read.
const volumeRefused = "volume_refused"

// scriptError is an error of manage_volume.sh, with its event.
type scriptError struct {
	error
	event string
}

func (e *scriptError) Unwrap() error { return e.error }
