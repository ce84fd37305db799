package unit

import (
	"slices"
	"strings"
)

// QuadletTypes returns the types of files from which podman's generator makes units
// (podman-systemd.unit(5)).
func QuadletTypes() []string {
	return []string{"container", "volume", "network", "kube", "pod", "image", "build"}
}

// Quadlet reports whether a file of this name is a quadlet.
func Quadlet(name string) bool { return slices.Contains(QuadletTypes(), Type(name)) }

// QuadletService returns the service that podman's generator makes from a quadlet:
// a.service for a.container, a-volume.service for a.volume. content has the content
// of the quadlet and then of its drop-ins, which may set ServiceName=. It returns ""
// if the name is not that of a quadlet.
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
