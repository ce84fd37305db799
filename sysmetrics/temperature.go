package main

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cpuChips are the hwmon drivers of CPU sensors. Only these are read: others
// (drive, ACPI and I²C sensors) can take seconds to answer.
var cpuChips = []string{"coretemp", "k10temp", "zenpower", "via_cputemp", "cpu_thermal"}

// cpuZones are the thermal zone types of machines without such a chip.
var cpuZones = []string{"x86_pkg_temp", "cpu-thermal", "cpu_thermal", "soc-thermal", "soc_thermal"}

// temperature holds CPU temperatures in °C.
type temperature struct {
	packages map[string]float64 // by chip, one for each socket
	cores    map[string]float64 // "core_0", "tccd1"; in a second socket "package_1_core_0"
}

// readTemperature reads /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst),
// else the thermal zones. Temperatures there are in thousandths of a degree.
func (h *host) readTemperature(n *notes) temperature {
	t := temperature{packages: map[string]float64{}, cores: map[string]float64{}}
	chips, _ := os.ReadDir(filepath.Join(h.sysRoot, "class/hwmon"))
	for _, chip := range chips {
		dir := filepath.Join(h.sysRoot, "class/hwmon", chip.Name())
		name, err := h.readLine(dir + "/name")
		if err != nil {
			dir += "/device" // before Linux 3.15 the attributes are there
			if name, err = h.readLine(dir + "/name"); err != nil {
				continue
			}
		}
		if slices.Contains(cpuChips, name) {
			h.readChip(dir, t, n)
		}
	}
	if len(t.packages) == 0 {
		h.readZones(t)
	}
	if len(t.packages) == 0 {
		n.unsupported = append(n.unsupported, "package_temp")
	}
	if len(t.cores) == 0 {
		n.unsupported = append(n.unsupported, "core_temps")
	}
	return t
}

func (h *host) readChip(dir string, t temperature, n *notes) {
	files, err := os.ReadDir(dir)
	if err != nil {
		n.miss("core_temps", err)
		return
	}
	socket := len(t.packages)
	for _, file := range files {
		sensor, ok := strings.CutSuffix(file.Name(), "_input")
		if !ok || !strings.HasPrefix(sensor, "temp") {
			continue
		}
		degrees, err := h.readDegrees(filepath.Join(dir, file.Name()))
		if err != nil {
			n.miss(filepath.Base(dir)+"/"+sensor, err)
			continue
		}
		label, err := h.readLine(filepath.Join(dir, sensor+"_label"))
		if err != nil {
			label = "package" // the lone sensor of a small board has no label
		}
		switch label := strings.ToLower(label); {
		case strings.HasPrefix(label, "package"), label == "tdie", label == "tctl" && t.packages[dir] == 0:
			t.packages[dir] = degrees
		case strings.HasPrefix(label, "core "), strings.HasPrefix(label, "tccd"):
			key := strings.ReplaceAll(label, " ", "_")
			if socket > 0 {
				key = "package_" + strconv.Itoa(socket) + "_" + key
			}
			t.cores[key] = degrees
		}
	}
}

func (h *host) readZones(t temperature) {
	zones, _ := filepath.Glob(filepath.Join(h.sysRoot, "class/thermal/thermal_zone*"))
	for _, zone := range zones {
		kind, err := h.readLine(zone + "/type")
		if err != nil || !slices.Contains(cpuZones, kind) {
			continue
		}
		if degrees, err := h.readDegrees(zone + "/temp"); err == nil {
			t.packages[zone] = degrees
		}
	}
}

func (h *host) readDegrees(path string) (float64, error) {
	text, err := h.readLine(path)
	if err != nil {
		return 0, err
	}
	milli, err := strconv.ParseInt(text, 10, 32)
	return float64(milli) / 1000, err
}

// write adds package_temp, the hottest socket, and core_temps.
func (t temperature) write(p payload) {
	hottest, known := 0.0, false
	for _, degrees := range t.packages {
		if !known || degrees > hottest {
			hottest, known = degrees, true
		}
	}
	optional(p, "package_temp", hottest, known)
	p.Object("core_temps", func() {
		cores := sortedKeys(t.cores)
		p.list(coreRoom, "core_temps", len(cores), func(i int) { p.Float(cores[i], t.cores[cores[i]]) })
	})
}
