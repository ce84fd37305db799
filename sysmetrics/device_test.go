package main

import (
	"strings"
	"testing"
)

func TestParseDiskstats(t *testing.T) {
	c := counters{}
	devices, err := parseDiskstats([]byte("   8       0 sda 1 2 3 4 5 6 7 8 9 10 11\n"+ // 11 columns, as before Linux 4.18
		"   8       1 sda1 x\n"+ // a partition is not looked at
		" 259       0 nvme0n1 1 2 3 4 5 6 7 8 0 10 11 12 13 14 15 16 17\n"+
		"   7       0 loop0 x\n"), filter{skip: []string{"loop*"}}, c)
	if err != nil || len(devices) != 2 || devices[0] != (blockDevice{"sda", 9}) || devices[1] != (blockDevice{"nvme0n1", 0}) {
		t.Fatalf("parseDiskstats = %v, %v", devices, err)
	}
	for name, want := range map[string]uint64{
		"reads": 1, "read_bytes": 3 * 512, "read_ms": 4, "writes": 5, "write_bytes": 7 * 512, "write_ms": 8, "busy_ms": 10, "queue_ms": 11,
	} {
		if got := c["disk sda "+name]; got != want {
			t.Errorf("%s = %d; want %d", name, got, want)
		}
	}
	for _, text := range []string{"8 0\n", "8 0 sda\n", "8 0 sda 1 2 3 4 5 6 7 8 9 10\n", "8 0 sda 1 2 3 4 5 6 7 8 9 10 x\n", "\n"} {
		if devices, err := parseDiskstats([]byte(text), filter{}, counters{}); err == nil {
			t.Errorf("parseDiskstats(%q) = %v; want an error", text, devices)
		}
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
		devices, err := parseDiskstats(data, filter{skip: []string{"loop*"}}, c)
		if err != nil {
			return
		}
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
