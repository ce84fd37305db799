package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"observability-hub/lib/command"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// scriptFlags name the program that accesses volumes.
type scriptFlags struct {
	ManageVolume string `default:"manage_volume.sh" placeholder:"PROGRAM"`
}

// volume is a volume as manage_volume.sh list prints it.
type volume struct {
	Volume     string            `json:"volume"`
	Driver     string            `json:"driver"`
	Mountpoint string            `json:"mountpoint"`
	Labels     map[string]string `json:"labels"`
	Containers []string          `json:"containers"` // the running ones
	Mounts     []mount           `json:"mounts"`     // where these containers mount it
	Refused    string            `json:"refused"`    // why it cannot be read, such as "it is a mount of /srv/data, type none"

	named bool   // the volume is named on the command line
	name  string // the volume's name in the repository
}

// mount says where a container mounts a volume.
type mount struct {
	Container   string `json:"container"`
	Destination string `json:"destination"`
}

// held reports whether a container may be down while the volume is read. It
// returns true for a volume that is not listed, because its containers are unknown.
func (v volume) held() bool { return v.Driver == "" || len(v.Containers) > 0 }

// list returns the volumes that manage_volume.sh list prints, including those
// with the label hub.backup=false.
func (f scriptFlags) list(ctx context.Context) ([]volume, error) {
	out, messages, err := command.Cmd{Args: []string{f.ManageVolume, "list", "--all"}, Dependent: true}.Run(ctx)
	if err != nil {
		var s said
		_, _ = s.Write(messages)
		text, hint := s.last()
		if hint == "" && s.event == "" {
			hint = "put manage_volume.sh in PATH, or pass --manage-volume PROGRAM"
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
		if repository.CheckVolume(v.Volume) == nil {
			v.name = v.Volume
			all = append(all, v)
		}
	}
	return all, nil
}

// groups divides volumes into groups that share running containers. The volumes
// of a group are read together, so each container is stopped only once.
func groups(volumes []volume) (all [][]volume) {
	for _, v := range volumes {
		group := []volume{v}
		all = slices.DeleteFunc(all, func(g []volume) bool {
			if !slices.ContainsFunc(g, func(w volume) bool { return shareContainer(v, w) }) {
				return false
			}
			group = append(slices.Clone(g), group...)
			return true
		})
		all = append(all, group)
	}
	return all
}

func shareContainer(a, b volume) bool {
	return slices.ContainsFunc(a.Containers, func(c string) bool { return slices.Contains(b.Containers, c) })
}
