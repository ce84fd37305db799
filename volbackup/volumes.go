package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
)

// volume is what manage_volume.sh list says of one.
type volume struct {
	Volume     string            `json:"volume"`
	Driver     string            `json:"driver"`
	Mountpoint string            `json:"mountpoint"`
	Labels     map[string]string `json:"labels"`
	Containers []string          `json:"containers"` // those that run
}

// held reports whether a container may be down while the volume is read. Of one
// that is not listed nothing is known.
func (v volume) held() bool { return v.Driver == "" || len(v.Containers) > 0 }

// leftOut is the label of a volume that is not backed up.
const leftOut = "hub.backup"

// list asks manage_volume.sh which volumes there are.
func (f scriptFlags) list(ctx context.Context) ([]volume, error) {
	out, messages, err := command.Cmd{Args: []string{f.ManageVolume, "list"}, Dependent: true}.Run(ctx)
	if err != nil {
		var s said
		_, _ = s.Write(messages)
		text, hint := s.last()
		if hint == "" && !s.found {
			hint = "see whether manage_volume.sh is in PATH, or give --manage-volume"
		}
		status := passedOn(command.Status(err))
		if status == sysexits.Failed {
			status = sysexits.Unavailable
		}
		return nil, sysexits.New(status, "no_volumes", fmt.Errorf("%s list: %w: %s", f.ManageVolume, err, text)).WithHint(hint)
	}
	var all []volume
	for line := range bytes.Lines(out) {
		var v volume
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, sysexits.New(sysexits.Unavailable, "no_volumes", fmt.Errorf("%s list: %w", f.ManageVolume, err))
		}
		if checkVolume(v.Volume) == nil && v.Labels[leftOut] != "false" {
			all = append(all, v)
		}
	}
	return all, nil
}

// pick returns the volumes of the names, in their order; one that is not
// listed has nothing but its name, and its export will say why.
func pick(all []volume, names []string) []volume {
	if len(names) == 0 {
		return all
	}
	var picked []volume
	for _, name := range names {
		i := slices.IndexFunc(all, func(v volume) bool { return v.Volume == name })
		if i < 0 {
			picked = append(picked, volume{Volume: name})
		} else {
			picked = append(picked, all[i])
		}
	}
	return picked
}
