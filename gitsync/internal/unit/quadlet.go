package unit

import (
	"slices"
	"strings"
)

// QuadletTypes returns the types of files that podman's generator makes units
// of (podman-systemd.unit(5)).
func QuadletTypes() []string {
	return []string{"container", "volume", "network", "kube", "pod", "image", "build"}
}

// Quadlet reports whether a file of this name is a quadlet.
func Quadlet(name string) bool { return slices.Contains(QuadletTypes(), Type(name)) }

// QuadletService returns the service that podman's generator makes of a
// quadlet: a.service of a.container, a-volume.service of a.volume. The content
// is that of the quadlet and of its drop-ins; ServiceName= in it counts. It
// returns "" for the name of another file.
func QuadletService(name string, content ...[]byte) string {
	stem, kind, _ := split(name)
	if !Quadlet(name) || stem == "" {
		return ""
	}
	if len(content) > 0 {
		section := strings.ToUpper(kind[:1]) + kind[1:]
		if service := Parse(name, content[0], content[1:]...).Last(section, "ServiceName"); service != "" {
			return service + ".service"
		}
	}
	if kind != "container" && kind != "kube" {
		stem += "-" + kind
	}
	return stem + ".service"
}
