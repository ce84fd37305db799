package main

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// cpuChips are the hwmon drivers of CPU sensors. No other sensors are read,
// because drive, ACPI and I²C sensors can take seconds to answer.
var cpuChips = []string{"coretemp", "k10temp", "zenpower", "via_cputemp", "cpu_thermal"}

// temperature holds CPU temperatures in °C.
type temperature struct {
	packages map[string]float64 // one for each socket or thermal zone
	cores    map[string]float64 // "core_0", "tccd1"; in a second socket "package_1_core_0"
}

// readTemperature reads /sys/class/hwmon (Documentation/hwmon/sysfs-interface.rst)
// or, if that has no CPU temperature, the thermal zones. The files hold
// thousandths of a degree.
func (h *host) readTemperature(n *notes) temperature {
	t := temperature{packages: map[string]float64{}, cores: map[string]float64{}}
	var chips []chip
	for _, dir := range h.chipDirs() {
		if c := h.readChip(dir, n); len(c.cores)+len(c.packages) > 0 {
			chips = append(chips, c)
		}
	}
	number(chips)
	for _, c := range chips {
		if degrees, ok := c.hottest(); ok {
			t.packages[strconv.Itoa(c.socket)] = degrees
		}
		for key, degrees := range c.cores {
			if c.socket > 0 {
				key = "package_" + strconv.Itoa(c.socket) + "_" + key
			}
			t.cores[key] = degrees
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

// chip is the sensor chip of one socket.
type chip struct {
	id       string // the number in "Package id 1", "" if there is no such label
	socket   int
	packages map[string]float64 // temperatures of the whole socket, by label
	cores    map[string]float64
}

// packageLabels are the labels of a whole socket's temperature, the best one
// first. On some Ryzens Tctl has an offset for fan control. On small boards the
// only sensor has no label.
var packageLabels = []string{"package id", "physical id", "tdie", "tctl", ""}

func (c chip) hottest() (float64, bool) {
	for _, label := range packageLabels {
		if degrees, ok := c.packages[label]; ok {
			return degrees, true
		}
	}
	return 0, false
}

// number numbers the sockets. A chip gets the number in its label if it has one,
// else the lowest free number.
func number(chips []chip) {
	taken := make(map[int]bool)
	for _, labelled := range []bool{true, false} {
		for i := range chips {
			n, err := strconv.Atoi(chips[i].id)
			if (err == nil) != labelled {
				continue
			}
			if !labelled {
				n = 0
			}
			for taken[n] {
				n++
			}
			taken[n], chips[i].socket = true, n
		}
	}
}

// chipDirs returns the directories of CPU sensors, ordered by their devices. The
// hwmon numbers give no stable order, because they depend on the order in which
// the drivers are loaded.
func (h *host) chipDirs() []string {
	entries, _ := os.ReadDir(filepath.Join(h.sysRoot, "class/hwmon"))
	type found struct{ dir, device, number string }
	var all []found
	for _, entry := range entries {
		dir := filepath.Join(h.sysRoot, "class/hwmon", entry.Name())
		device, _ := os.Readlink(dir + "/device")
		name, err := h.readLine(dir + "/name")
		if err != nil {
			dir += "/device" // before Linux 3.15 the attributes are there
			if name, err = h.readLine(dir + "/name"); err != nil {
				continue
			}
		}
		if slices.Contains(cpuChips, name) {
			all = append(all, found{dir, filepath.Base(device), fmt.Sprintf("%20s", entry.Name())})
		}
	}
	slices.SortStableFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(len(a.device), len(b.device)), strings.Compare(a.device, b.device), strings.Compare(a.number, b.number))
	})
	dirs := make([]string, len(all))
	for i, f := range all {
		dirs[i] = f.dir
	}
	return dirs
}

func (h *host) readChip(dir string, n *notes) chip {
	c := chip{packages: map[string]float64{}, cores: map[string]float64{}}
	files, err := os.ReadDir(dir)
	if err != nil {
		n.miss("core_temps", err)
		return c
	}
	for _, file := range files {
		sensor, ok := strings.CutSuffix(file.Name(), "_input")
		if !ok || !strings.HasPrefix(sensor, "temp") {
			continue
		}
		label := strings.ToLower(h.line(filepath.Join(dir, sensor+"_label")))
		for _, prefix := range packageLabels[:2] {
			if id, ok := strings.CutPrefix(label, prefix); ok {
				label, c.id = prefix, strings.TrimSpace(id)
			}
		}
		degrees, err := h.readDegrees(filepath.Join(dir, file.Name()))
		if err != nil {
			n.miss(filepath.Base(dir)+"/"+sensor, err)
			continue
		}
		switch {
		case slices.Contains(packageLabels, label):
			if _, ok := c.packages[label]; !ok {
				c.packages[label] = degrees
			}
		case strings.HasPrefix(label, "core "), strings.HasPrefix(label, "tccd"):
			c.cores[strings.ReplaceAll(label, " ", "_")] = degrees
		}
	}
	return c
}

func (h *host) readZones(t temperature) {
	dir := filepath.Join(h.sysRoot, "class/thermal")
	entries, _ := os.ReadDir(dir) // it is missing where there is no sensor
	for _, entry := range entries {
		zone := filepath.Join(dir, entry.Name())
		if !strings.HasPrefix(entry.Name(), "thermal_zone") || !isCPUZone(h.line(zone+"/type")) {
			continue
		}
		if degrees, err := h.readDegrees(zone + "/temp"); err == nil {
			t.packages[zone] = degrees
		}
	}
}

// isCPUZone reports whether a thermal zone of this type measures a CPU or the
// chip with the CPU. The types come from device trees, so they differ between
// boards: cpu-thermal, cpu0-thermal, cpu-b0-thermal, bigcore1-thermal,
// package-thermal, soc_thermal, bcm2835_thermal, mtktscpu, CPU-therm.
func isCPUZone(kind string) bool {
	kind = strings.ReplaceAll(strings.ToLower(kind), "_", "-")
	if slices.Contains([]string{"x86-pkg-temp", "package-thermal", "soc-thermal", "soc-max-thermal", "mpu-thermal", "imx-thermal", "imx-thermal-zone", "cluster0-thermal", "cluster1-thermal", "center-thermal"}, kind) {
		return true
	}
	return strings.Contains(kind, "cpu") || strings.HasPrefix(kind, "bcm2") && strings.HasSuffix(kind, "-thermal") ||
		(strings.HasPrefix(kind, "bigcore") || strings.HasPrefix(kind, "littlecore")) && strings.HasSuffix(kind, "-thermal")
}

// readDegrees returns a temperature in °C. A value that no running CPU can have
// comes from a sensor that is off or broken. It is reported as a missing file.
func (h *host) readDegrees(path string) (float64, error) {
	text, err := h.readLine(path)
	if err != nil {
		return 0, err
	}
	milli, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, err
	}
	if milli <= -55_000 || milli >= 150_000 {
		return 0, fmt.Errorf("%s says %d °C: %w", path, milli/1000, fs.ErrNotExist)
	}
	return float64(milli) / 1000, nil
}

// write adds package_temp, which is that of the hottest socket, and core_temps.
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
