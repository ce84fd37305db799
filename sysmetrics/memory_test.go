package main

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"observability-hub/sysmetrics/internal/statfs"
)

func TestParseVmstat(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       counters
		odd        int
	}{
		{"all", "nr_free_pages 9\npswpin 1\npswpout 2\npgmajfault 3\noom_kill 4\n", counters{"pswpin": 1, "pswpout": 2, "pgmajfault": 3, "oom_kill": 4}, 0},
		{"names with the same beginning", "pgmajfault_s 1\noom_kill_x 2\npswpin_direct 3\npswpout\n", counters{}, 0},
		{"last line without a line break", "oom_kill 7", counters{"oom_kill": 7}, 0},
		{"empty", "", counters{}, 0},
		{"not a number", "oom_kill many\n", counters{}, 1},
		{"two numbers", "oom_kill 1 2\n", counters{}, 1},
		{"no number", "oom_kill \n", counters{}, 1},
	} {
		c := counters{}
		odd := 0
		if parseVmstat([]byte(tc.text), c, func([]byte, error) { odd++ }); odd != tc.odd || !maps.Equal(c, tc.want) {
			t.Errorf("%s: parseVmstat = %v, %d odd; want %v, %d", tc.name, c, odd, tc.want, tc.odd)
		}
	}
}

func FuzzParseVmstat(f *testing.F) {
	for _, seed := range fixtures(f, "vmstat") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		c := counters{}
		if parseVmstat(data, c, func([]byte, error) {}); len(c) > len(vmstatCounters) {
			t.Fatalf("counters %v", c)
		}
		wantKept(t, c)
	})
}

// Odd lines of meminfo that were found on hosts. An odd line must not affect the
// values of other lines.
func TestOddMeminfo(t *testing.T) {
	const good = "MemTotal: 1000 kB\nMemFree: 100 kB\nMemAvailable: 400 kB\nBuffers: 10 kB\nCached: 200 kB\nSwapTotal: 50 kB\nSwapFree: 20 kB\n"
	replace := func(name, line string) string {
		at := strings.Index(good, name+":")
		end := at + strings.IndexByte(good[at:], '\n') + 1
		return good[:at] + line + "\n" + good[end:]
	}
	for _, tc := range []struct {
		name, text string
		null       string // keys that must be null; all others must not be
		failed     bool
	}{
		{"plain", good, "", false},
		{"odd lines that are not needed, such as Android's ShadowCallStack", good + "ShadowCallStack:10373888 kB\nOdd\n\nFoo bar baz\n", "", false},
		{"units and numbers that are not needed", good + "HugePages_Total: -1\nDirectMap4k: 99999999999999999999999 MB\n", "", false},
		// A subtraction in lxcfs underflows if the guest's swap is larger than its host's.
		{"underflow in SwapFree", replace("SwapFree", "SwapFree:       18014398509281816 kB"), "swap_free swap_used swap_used_percent", true},
		{"underflow in MemFree", replace("MemFree", "MemFree: 18014398509481983 kB"), "free", true},
		{"available beyond total", replace("MemAvailable", "MemAvailable: 1001 kB"), "available used used_percent", true},
		{"negative", replace("Cached", "Cached: -5 kB"), "cached", true},
		{"negative total", replace("MemTotal", "MemTotal: -5 kB"), "total used used_percent", true},
		{"more than 64 bits", replace("MemTotal", "MemTotal: 99999999999999999999 kB"), "total used used_percent", true},
		{"more than 64 bits as bytes", replace("MemTotal", "MemTotal: 18446744073709551 kB"), "total used used_percent", true},
		{"no unit", replace("Buffers", "Buffers: 10"), "buffers", true},
		{"another unit", replace("Buffers", "Buffers: 10 MB"), "buffers", true},
		{"no number", replace("Buffers", "Buffers:"), "buffers", true},
		{"a word after the unit", replace("Buffers", "Buffers: 10 kB x"), "buffers", true},
		{"no space", replace("Buffers", "Buffers:10 kB"), "", false},
		{"no colon", replace("Buffers", "Buffers 10 kB"), "buffers", true},
		{"no MemAvailable, as before Linux 3.14", replace("MemAvailable", ""), "", false},
		{"no MemTotal", replace("MemTotal", ""), "total used used_percent", false},
		{"no swap", replace("SwapTotal", ""), "swap_total swap_used swap_used_percent", false},
		{"empty", "", "total available used used_percent free buffers cached swap_total swap_free swap_used swap_used_percent", false},
		{"a line of 64 KiB", good + strings.Repeat("x", 64<<10) + "\n", "", false},
		{"bytes that are not text", good + "\x00\xff\xfe: 3 kB\n", "", false},
	} {
		root := t.TempDir()
		writeTree(t, root, minimalProc)
		writeTree(t, root, map[string]string{"meminfo": tc.text})
		r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{}, nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
		m := payloadOf(t, r.stdout, "memory")
		for _, key := range strings.Fields("total available used used_percent free buffers cached swap_total swap_free swap_used swap_used_percent") {
			v, ok := m[key]
			if want := slices.Contains(strings.Fields(tc.null), key); !ok || (v == nil) != want {
				t.Errorf("%s: %s = %v; want null: %v", tc.name, key, v, want)
			}
			if f, ok := v.(float64); ok && (f < 0 || f > 1<<40) {
				t.Errorf("%s: %s = %v", tc.name, key, f)
			}
		}
		failed := m["_meta"].(map[string]any)["failed"].(map[string]any)
		n := 0
		for key := range failed {
			if strings.HasPrefix(key, "meminfo") {
				n++
			}
		}
		if (n > 0) != tc.failed {
			t.Errorf("%s: failed = %v; want an entry: %v", tc.name, failed, tc.failed)
		}
	}
}

// ZFS, as on a NAS or Proxmox, keeps its cache outside of the page cache, and frees it when memory is needed.
func TestZFSCache(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, minimalProc)
	writeTree(t, root, map[string]string{
		"meminfo":                "MemTotal: 1000 kB\nMemAvailable: 400 kB\n",
		"spl/kstat/zfs/arcstats": "13 1 0x01 123 33456 1 2\nname                            type data\nhits                            4    1\nc_min                           4    102400\nc_max                           4    512000\nsize                            4    409600\n",
	})
	m := payloadOf(t, run(t, nil, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir()).stdout, "memory")
	for key, want := range map[string]float64{"zfs_arc": 409600, "zfs_arc_reclaimable": 307200, "available": 409600, "available_with_arc": 716800} {
		if m[key] != want {
			t.Errorf("%s = %v; want %v", key, m[key], want)
		}
	}
	if failed := m["_meta"].(map[string]any)["failed"].(map[string]any); failed["arcstats"] != nil {
		t.Errorf("failed = %v; want no arcstats", failed)
	}
	writeTree(t, root, map[string]string{"spl/kstat/zfs/arcstats": "size 4 1\n"})
	m = payloadOf(t, run(t, nil, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir()).stdout, "memory")
	if failed := m["_meta"].(map[string]any)["failed"].(map[string]any); failed["arcstats"] == nil {
		t.Errorf("failed = %v; want arcstats without c_min", failed)
	}
	if parseArcstats([]byte("size 4 1\nc_min 4 -1\n")) != nil {
		t.Error("arcstats without c_min are accepted")
	}
}

// An odd line in a file of /proc affects only its own value: all four records are
// printed, with the values of the other lines.
func TestOddLinesAnywhere(t *testing.T) {
	good := map[string]string{
		"meminfo":       "MemTotal: 1000 kB\nMemAvailable: 400 kB\n",
		"stat":          "cpu  100 0 50 850\ncpu0 100 0 50 850\nctxt 5\nprocesses 6\nprocs_running 1\nprocs_blocked 0\n",
		"loadavg":       "0.5 0.4 0.3 1/2 3\n",
		"vmstat":        "pgmajfault 1\npswpin 1\npswpout 1\noom_kill 0\n",
		"diskstats":     " 8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n 8 16 sdb 1 2 3 4 5 6 7 8 9 10 11\n",
		"1/mountinfo":   "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n",
		"net/dev":       netDevHeader + "eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n",
		"net/snmp":      "Tcp: ActiveOpens CurrEstab InSegs\nTcp: 7 3 9\nUdp: InDatagrams NoPorts\nUdp: 4 5\n",
		"net/snmp6":     "Udp6InDatagrams 8\nUdp6NoPorts 9\n",
		"net/sockstat":  "sockets: used 12\nTCP: inuse 5 orphan 0 tw 1 alloc 6 mem 1\nUDP: inuse 2 mem 0\n",
		"net/sockstat6": "TCP6: inuse 3\nUDP6: inuse 4\n",
		"pressure/cpu":  "some avg10=0.10 avg60=0.05 avg300=0.01 total=1000\n",
	}
	for file, text := range good {
		for _, odd := range []string{"odd", "odd odd: x y z", "odd: -1 kB", "9999999999999999999999999", "\x00\xff", ":", " - ", "cpu9 x", "8 32 sdc x", "eth9: x", "Tcp: x", "some avg10=x total=-1", "full"} {
			root := t.TempDir()
			writeTree(t, root, minimalProc)
			writeTree(t, root, good)
			writeTree(t, root, map[string]string{file: text + odd + "\n"})
			r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{Total: 10}, nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+t.TempDir())
			if r.status != 0 || r.stderr != "" {
				t.Fatalf("%s, %q: status %d, %s", file, odd, r.status, r.stderr)
			}
			cpu, memory, disk, network := payloadOf(t, r.stdout, "cpu"), payloadOf(t, r.stdout, "memory"), payloadOf(t, r.stdout, "disk"), payloadOf(t, r.stdout, "network")
			for what, v := range map[string]any{
				"usage": cpu["usage"], "load1": cpu["load1"], "forks": cpu["forks_per_s"], "pressure": cpu["pressure"], "used": memory["used"], "faults": memory["major_faults_per_s"],
				"/": disk["/"], "sda": disk["_io"].(map[string]any)["sda"], "sdb": disk["_io"].(map[string]any)["sdb"], "eth0": network["eth0"],
				"established": network["_tcp"].(map[string]any)["established"], "udp": network["_udp"].(map[string]any)["no_ports_per_s"], "udp6": network["_udp6"].(map[string]any)["in_datagrams_per_s"],
				"tcp_in_use": network["_sockets"].(map[string]any)["tcp_in_use"], "udp6_in_use": network["_sockets"].(map[string]any)["udp6_in_use"],
			} {
				if v == nil {
					t.Errorf("%s, %q: %s is lost", file, odd, what)
				}
			}
		}
	}
}
