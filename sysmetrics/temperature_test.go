package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"observability-hub/lib/record"
)

func TestReadTemperature(t *testing.T) {
	for _, tc := range []struct {
		name        string
		files       map[string]string // below class/
		hottest     string            // package_temp, "null" for none
		cores       map[string]float64
		unsupported string
		failed      string
	}{
		{"none", nil, "null", nil, "package_temp core_temps", ""},
		{"Ryzen", map[string]string{
			"hwmon/hwmon3/name": "k10temp", "hwmon/hwmon3/temp1_input": "55125", "hwmon/hwmon3/temp1_label": "Tctl",
			"hwmon/hwmon3/temp2_input": "45125", "hwmon/hwmon3/temp2_label": "Tdie",
			"hwmon/hwmon3/temp3_input": "44000", "hwmon/hwmon3/temp3_label": "Tccd1", "hwmon/hwmon3/temp4_input": "43500", "hwmon/hwmon3/temp4_label": "Tccd2",
		}, "45.125", map[string]float64{"tccd1": 44, "tccd2": 43.5}, "", ""},
		{"Ryzen without Tdie", map[string]string{
			"hwmon/hwmon3/name": "k10temp", "hwmon/hwmon3/temp1_input": "55125", "hwmon/hwmon3/temp1_label": "Tctl",
		}, "55.125", nil, "core_temps", ""},
		{"no label", map[string]string{"hwmon/hwmon0/name": "cpu_thermal", "hwmon/hwmon0/temp1_input": "48312"}, "48.312", nil, "core_temps", ""},
		{"below zero", map[string]string{"hwmon/hwmon0/name": "cpu_thermal", "hwmon/hwmon0/temp1_input": "-12000"}, "-12", nil, "core_temps", ""},
		{"other chips are not read", map[string]string{"hwmon/hwmon0/name": "drivetemp", "hwmon/hwmon0/temp1_input": "x"}, "null", nil, "package_temp core_temps", ""},
		{"a sensor without a value", map[string]string{
			"hwmon/hwmon0/name": "coretemp", "hwmon/hwmon0/temp1_input": "50000", "hwmon/hwmon0/temp1_label": "Package id 0",
			"hwmon/hwmon0/temp2_input": "", "hwmon/hwmon0/temp2_label": "Core 0",
		}, "50", nil, "core_temps", "hwmon0/temp2"},
		{"a chip without sensors", map[string]string{"hwmon/hwmon0/name": "coretemp"}, "null", nil, "package_temp core_temps", ""},
		{"a thermal zone", map[string]string{"thermal/thermal_zone0/type": "acpitz", "thermal/thermal_zone0/temp": "27800",
			"thermal/thermal_zone1/type": "cpu-thermal", "thermal/thermal_zone1/temp": "61000"}, "61", nil, "core_temps", ""},
		// A server of two sockets; the second one's driver was loaded first. hwmon10 comes after hwmon2.
		{"two sockets, by their labels", map[string]string{
			"hwmon/hwmon2/name": "coretemp", "hwmon/hwmon2/temp1_input": "60000", "hwmon/hwmon2/temp1_label": "Package id 1", "hwmon/hwmon2/temp2_input": "59000", "hwmon/hwmon2/temp2_label": "Core 0",
			"hwmon/hwmon10/name": "coretemp", "hwmon/hwmon10/temp1_input": "50000", "hwmon/hwmon10/temp1_label": "Package id 0", "hwmon/hwmon10/temp2_input": "49000", "hwmon/hwmon10/temp2_label": "Core 0",
		}, "60", map[string]float64{"core_0": 49, "package_1_core_0": 59}, "", ""},
		{"two sockets, Physical id", map[string]string{
			"hwmon/hwmon0/name": "coretemp", "hwmon/hwmon0/temp1_input": "50000", "hwmon/hwmon0/temp1_label": "Physical id 0", "hwmon/hwmon0/temp2_input": "49000", "hwmon/hwmon0/temp2_label": "Core 0",
			"hwmon/hwmon1/name": "coretemp", "hwmon/hwmon1/temp1_input": "60000", "hwmon/hwmon1/temp1_label": "Physical id 1", "hwmon/hwmon1/temp2_input": "59000", "hwmon/hwmon1/temp2_label": "Core 0",
		}, "60", map[string]float64{"core_0": 49, "package_1_core_0": 59}, "", ""},
		{"two sockets without a package sensor, in the order of their numbers", map[string]string{
			"hwmon/hwmon2/name": "coretemp", "hwmon/hwmon2/temp2_input": "49000", "hwmon/hwmon2/temp2_label": "Core 0",
			"hwmon/hwmon10/name": "coretemp", "hwmon/hwmon10/temp2_input": "59000", "hwmon/hwmon10/temp2_label": "Core 0",
		}, "null", map[string]float64{"core_0": 49, "package_1_core_0": 59}, "package_temp", ""},
		{"two sockets that both say 0", map[string]string{
			"hwmon/hwmon0/name": "coretemp", "hwmon/hwmon0/temp1_input": "50000", "hwmon/hwmon0/temp1_label": "Package id 0", "hwmon/hwmon0/temp2_input": "49000", "hwmon/hwmon0/temp2_label": "Core 0",
			"hwmon/hwmon1/name": "coretemp", "hwmon/hwmon1/temp1_input": "60000", "hwmon/hwmon1/temp1_label": "Package id 0", "hwmon/hwmon1/temp2_input": "59000", "hwmon/hwmon1/temp2_label": "Core 0",
		}, "60", map[string]float64{"core_0": 49, "package_1_core_0": 59}, "", ""},
		{"EPYC of two sockets", map[string]string{
			"hwmon/hwmon0/name": "k10temp", "hwmon/hwmon0/temp1_input": "50000", "hwmon/hwmon0/temp1_label": "Tctl", "hwmon/hwmon0/temp3_input": "45000", "hwmon/hwmon0/temp3_label": "Tccd1",
			"hwmon/hwmon1/name": "k10temp", "hwmon/hwmon1/temp1_input": "61000", "hwmon/hwmon1/temp1_label": "Tctl", "hwmon/hwmon1/temp3_input": "46000", "hwmon/hwmon1/temp3_label": "Tccd1",
		}, "61", map[string]float64{"tccd1": 45, "package_1_tccd1": 46}, "", ""},
		{"zenpower", map[string]string{"hwmon/hwmon0/name": "zenpower", "hwmon/hwmon0/temp1_input": "45000", "hwmon/hwmon0/temp1_label": "Tdie", "hwmon/hwmon0/temp2_input": "72000", "hwmon/hwmon0/temp2_label": "Tctl"},
			"45", nil, "core_temps", ""},
		{"impossible readings", map[string]string{
			"hwmon/hwmon0/name": "coretemp", "hwmon/hwmon0/temp1_input": "255000", "hwmon/hwmon0/temp1_label": "Package id 0", "hwmon/hwmon0/temp2_input": "-273150", "hwmon/hwmon0/temp2_label": "Core 0",
			"hwmon/hwmon0/temp3_input": "99999999999999", "hwmon/hwmon0/temp3_label": "Core 1", "hwmon/hwmon0/temp4_input": "41000", "hwmon/hwmon0/temp4_label": "Core 2",
		}, "null", map[string]float64{"core_2": 41}, "hwmon0/temp1 hwmon0/temp2 hwmon0/temp3 package_temp", ""},
		{"a Raspberry Pi 3", map[string]string{"thermal/thermal_zone0/type": "bcm2835_thermal", "thermal/thermal_zone0/temp": "48000"}, "48", nil, "core_temps", ""},
		{"big.LITTLE", map[string]string{"thermal/thermal_zone0/type": "cpu-b0-thermal", "thermal/thermal_zone0/temp": "48000",
			"thermal/thermal_zone1/type": "cpu-l0-thermal", "thermal/thermal_zone1/temp": "52000", "thermal/thermal_zone2/type": "gpu-thermal", "thermal/thermal_zone2/temp": "99000"}, "52", nil, "core_temps", ""},
		{"RK3588", map[string]string{"thermal/thermal_zone0/type": "package-thermal", "thermal/thermal_zone0/temp": "48000",
			"thermal/thermal_zone1/type": "bigcore0-thermal", "thermal/thermal_zone1/temp": "49000"}, "49", nil, "core_temps", ""},
		{"Allwinner", map[string]string{"thermal/thermal_zone0/type": "cpu0-thermal", "thermal/thermal_zone0/temp": "48000",
			"thermal/thermal_zone1/type": "cpu1-thermal", "thermal/thermal_zone1/temp": "-256000"}, "48", nil, "core_temps", ""},
		{"a zone is not read if there is a chip", map[string]string{"hwmon/hwmon0/name": "cpu_thermal", "hwmon/hwmon0/temp1_input": "48000",
			"thermal/thermal_zone1/type": "x86_pkg_temp", "thermal/thermal_zone1/temp": "61000"}, "48", nil, "core_temps", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			sys := t.TempDir()
			files := make(map[string]string)
			for name, data := range tc.files {
				files["class/"+name] = data + "\n"
			}
			writeTree(t, sys, files)
			h := &host{sysRoot: sys, buf: make([]byte, 1024)}
			var n notes
			temp := h.readTemperature(&n)
			l := &record.Line{}
			temp.write(payload{Line: l, notes: &n})
			if got, want := string(l.End()), `"package_temp":`+tc.hottest+`,`; !strings.HasPrefix(got, want) {
				t.Errorf("payload %s; want %s first", got, want)
			}
			if !maps.Equal(temp.cores, tc.cores) {
				t.Errorf("cores = %v; want %v", temp.cores, tc.cores)
			}
			if got := strings.Join(n.unsupported, " "); got != tc.unsupported {
				t.Errorf("unsupported = %q; want %q", got, tc.unsupported)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(n.failed)), " "); got != tc.failed {
				t.Errorf("failed = %q; want %q", got, tc.failed)
			}
		})
	}
}

// The temperatures of thousands of cores leave room for the other fields.
func TestManyTemperatures(t *testing.T) {
	temp := temperature{packages: map[string]float64{"a": 50}, cores: map[string]float64{}}
	for i := range 4000 {
		temp.cores[fmt.Sprintf("package_31_core_%d", i)] = 51.123
	}
	l, n := &record.Line{}, notes{}
	temp.write(payload{Line: l, notes: &n})
	if l.Len() > coreRoom+10 || l.Len() < coreRoom-100 || !strings.Contains(n.failed["core_temps"], "of 4000 left out") {
		t.Errorf("%d bytes, failed %v; want %d and a note", l.Len(), n.failed, coreRoom)
	}
}
