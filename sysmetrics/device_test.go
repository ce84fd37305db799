package main

import (
	"fmt"
	"strings"
	"testing"

	"observability-hub/sysmetrics/internal/statfs"
)

func TestParseDiskstats(t *testing.T) {
	c := counters{}
	odd := 0
	parse := func(text string, f filter) []blockDevice {
		return parseDiskstats([]byte(text), f, func(*blockDevice) {}, c, func([]byte, error) { odd++ })
	}
	devices := parse("   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n"+ // 11 columns, as before Linux 4.18
		"   8       1 sda1 x\n"+ // the numbers of a partition are not parsed
		" 259       0 nvme0n1 1 2 3 4 5 6 7 8 0 10 11 12 13 14 15 16 17\n"+
		" 259       1 nvme1n1 1 2 3 4 5 6 7 8 0 10 11 12 13 14 15\n"+ // 15 columns, from 4.18 to 5.4
		"   7       0 loop0 x\n", filter{skip: []string{"loop*"}})
	if odd != 0 || len(devices) != 3 || devices[0] != (blockDevice{"sda", "disk 8:0 ", "", 9}) || devices[1].inFlight != 0 {
		t.Fatalf("parseDiskstats = %v, %d odd lines", devices, odd)
	}
	for name, want := range map[string]uint64{
		"reads": 1, "read_bytes": 3 * 512, "read_ms": 4, "writes": 5, "write_bytes": 7 * 512, "write_ms": 8, "busy_ms": 10, "queue_ms": 11,
	} {
		if got := c["disk 8:0 "+name]; got != want {
			t.Errorf("%s = %d; want %d", name, got, want)
		}
	}
	for i, text := range []string{"8 0\n", "8 0 sda\n", "8 0 sda 1 2 3 4 5 6 7 8 9 10\n", "8 0 sda 1 2 3 4 5 6 7 8 9 10 x\n"} {
		if devices := parse(text, filter{}); len(devices) > 0 || odd != i+1 {
			t.Errorf("parseDiskstats(%q) = %v, %d odd lines; want it odd", text, devices, odd)
		}
	}
}

// minute runs collect twice, a minute apart, on two states of files below /proc
// and /sys, and returns the second payload of a type.
func minute(t *testing.T, metricType string, before, after map[string]string) map[string]any {
	t.Helper()
	root, state := t.TempDir(), t.TempDir()
	writeTree(t, root, minimalProc)
	var out string
	for i, files := range []map[string]string{before, after} {
		writeTree(t, root, map[string]string{"uptime": fmt.Sprintf("%d 0\n", 1000+60*i)})
		writeTree(t, root, files)
		r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+state)
		if r.status != 0 || r.stderr != "" {
			t.Fatalf("status %d: %s", r.status, r.stderr)
		}
		out = r.stdout
	}
	return payloadOf(t, out, metricType)
}

// The times in /proc/diskstats have 32 bits on every kernel. On 32-bit kernels all columns have 32 bits.
func TestDiskstatsWrap(t *testing.T) {
	stats := func(reads, sectors, readMS, busy, queue uint64) map[string]string {
		return map[string]string{"diskstats": fmt.Sprintf(" 8 0 sda %d 0 %d %d 0 0 0 0 0 %d %d\n", reads, sectors, readMS, busy, queue)}
	}
	const end = 1 << 32
	for _, tc := range []struct {
		name          string
		before, after map[string]string
		want          map[string]any
		reset         bool
	}{
		{"plain", stats(1000, 2000, 100, 50, 60), stats(1060, 2120, 700, 650, 660),
			map[string]any{"read_iops": 1.0, "read_bytes_per_s": 1024.0, "read_await_ms": 10.0, "util_percent": 1.0, "queue_ms_per_s": 10.0}, false},
		{"times", stats(1000, 2000, end-100, end-50, end-60), stats(1060, 2120, 500, 550, 540),
			map[string]any{"read_iops": 1.0, "read_bytes_per_s": 1024.0, "read_await_ms": 10.0, "util_percent": 1.0, "queue_ms_per_s": 10.0}, false},
		{"queue alone", stats(1000, 2000, 100, 50, end-60), stats(1060, 2120, 700, 650, 540), map[string]any{"util_percent": 1.0, "queue_ms_per_s": 10.0}, false},
		{"all columns", stats(end-30, end-60, end-100, end-50, end-60), stats(30, 60, 500, 550, 540),
			map[string]any{"read_iops": 1.0, "read_bytes_per_s": 1024.0, "read_await_ms": 10.0, "util_percent": 1.0, "queue_ms_per_s": 10.0}, false},
		{"another disk", stats(5000, 2000, end-100, end-50, end-60), stats(10, 20, 500, 550, 540), map[string]any{"read_iops": nil, "util_percent": nil, "queue_ms_per_s": nil}, true},
		{"64 bits that went back", stats(1<<40, 2000, 1, 1, 1), stats(10, 3000, 2, 2, 2), map[string]any{"read_iops": nil}, true},
	} {
		disk := minute(t, "disk", tc.before, tc.after)
		for key, want := range tc.want {
			if got := disk["_io"].(map[string]any)["sda"].(map[string]any)[key]; got != want {
				t.Errorf("%s: %s = %v; want %v", tc.name, key, got, want)
			}
		}
		reset := disk["_meta"].(map[string]any)["reset"].([]any)
		if (len(reset) > 0) != tc.reset {
			t.Errorf("%s: reset = %v", tc.name, reset)
		}
		for _, name := range reset {
			if !strings.HasPrefix(name.(string), "disk sda ") {
				t.Errorf("%s: reset = %v; want names such as disk sda reads", tc.name, reset)
			}
		}
	}
}

// A minute later a name may belong to another device. The kernel's number identifies the device.
func TestSwappedNames(t *testing.T) {
	const small, large = "1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0", "5000000000000 1 0 0 0 0 0 0 5 1 0 0 0 0 0 0"
	network := minute(t, "network",
		map[string]string{"net/dev": netDevHeader + "eth0: " + small + "\neth1: " + large + "\n", "class/net/eth0/ifindex": "2\n", "class/net/eth1/ifindex": "3\n"},
		map[string]string{"net/dev": netDevHeader + "eth1: 61 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\neth0: " + large + "\n", "class/net/eth0/ifindex": "3\n", "class/net/eth1/ifindex": "2\n"})
	for name, want := range map[string]float64{"eth0": 0, "eth1": 1} {
		if got := network[name].(map[string]any)["rx_bytes_per_s"]; got != want {
			t.Errorf("%s: rx_bytes_per_s = %v; want %v", name, got, want)
		}
	}
	// An interface that was removed and created again has another index. Its counters cannot be compared.
	network = minute(t, "network",
		map[string]string{"net/dev": netDevHeader + "eth0: " + small + "\n", "class/net/eth0/ifindex": "2\n"},
		map[string]string{"net/dev": netDevHeader + "eth0: " + large + "\n", "class/net/eth0/ifindex": "9\n"})
	if got := network["eth0"].(map[string]any)["rx_bytes_per_s"]; got != nil {
		t.Errorf("a new interface with an old name: %v; want null", got)
	}
	disk := minute(t, "disk",
		map[string]string{"diskstats": " 8 0 sda 5 0 0 0 0 0 0 0 0 0 0\n 253 0 dm-0 0 0 0 0 0 0 0 0 0 0 0\n", "block/sda/diskseq": "1\n", "block/dm-0/dm/name": "vg0-root\n"},
		map[string]string{"diskstats": " 8 0 sda 9000000 0 0 0 0 0 0 0 0 0 0\n 253 0 dm-0 60 0 0 0 0 0 0 0 0 0 0\n", "block/sda/diskseq": "7\n"})["_io"].(map[string]any)
	if got := disk["sda"].(map[string]any)["read_iops"]; got != nil {
		t.Errorf("a new disk with an old name: %v; want null", got)
	}
	if dm := disk["dm-0"].(map[string]any); dm["read_iops"] != 1.0 || dm["dm_name"] != "vg0-root" {
		t.Errorf("dm-0 = %v; want 1 read a second and its name", dm)
	}
}

func TestIsPartition(t *testing.T) {
	names := make(map[string]bool)
	for name := range strings.FieldsSeq("sda sdaa nvme0n1 mmcblk0 md0 md127 loop0 dm-0 xvda nbd0 sd p") {
		names[name] = true
	}
	for _, tc := range []struct {
		names string
		want  bool
	}{
		{"sda1 sda10 sdaa3 nvme0n1p1 nvme0n1p12 mmcblk0p1 md0p1 md127p2 loop0p1 nbd0p1 xvda1", true},
		{"sda sdaa nvme0n1 mmcblk0 mmcblk0boot0 md0 md127 dm-0 dm-1 sdb sdb1 nvme1n1p1 xvdb1 mmcblk1p1 sr0 ram0 p 0 p1p", false},
	} {
		for name := range strings.FieldsSeq(tc.names) {
			if got := isPartition(name, names); got != tc.want {
				t.Errorf("isPartition(%s) = %v; want %v", name, got, tc.want)
			}
		}
	}
}

func FuzzParseDiskstats(f *testing.F) {
	for _, seed := range fixtures(f, "diskstats") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		devices := parseDiskstats(data, filter{skip: []string{"loop*"}}, func(*blockDevice) {}, c, func([]byte, error) {})
		for _, d := range devices {
			if strings.HasPrefix(d.name, "loop") {
				t.Fatalf("device %q", d.name)
			}
			for _, col := range deviceColumns {
				if _, ok := c[d.counter(col.name)]; !ok {
					t.Fatalf("%q has no %s", d.name, col.name)
				}
			}
		}
		wantKept(t, c)
	})
}
