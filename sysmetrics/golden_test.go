package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"observability-hub/lib/record"
)

var update = flag.Bool("update", false, "rewrite the golden files under testdata")

// TestGolden runs the tool on copies of four kinds of host, twice each, a
// minute apart, and compares every byte of what it prints.
func TestGolden(t *testing.T) {
	for _, tc := range []struct {
		kind    string
		args    []string
		prepare func(t *testing.T, proc string)
	}{
		// Two sockets with hwmon; LVM, btrfs subvolumes, ZFS, NFS, FUSE, bind
		// mounts, odd names. Within the minute iowait of one CPU steps back, a CPU
		// goes offline and another comes online, a disk is replaced by one of the same
		// name, and a network adapter is plugged in.
		{"metal", []string{"--fs-types=nfs4"}, nil},
		// A virtual machine without sensors that reboots within the minute.
		{"vm", nil, nil},
		// 300 veth interfaces and 200 bind mounts beside one disk and one
		// interface; temperature from a thermal zone; pressure beyond 100 %.
		{"containers", nil, addContainers},
		// Linux 3.2: no PSI, MemAvailable, oom_kill; sensors under device/.
		{"old", nil, nil},
	} {
		t.Run(tc.kind, func(t *testing.T) {
			fixture := filepath.Join("testdata", tc.kind)
			state := t.TempDir()
			for n := 1; n <= 2; n++ {
				proc := filepath.Join(fixture, "proc", fmt.Sprint(n))
				if tc.prepare != nil {
					copied := t.TempDir()
					if err := os.CopyFS(copied, os.DirFS(proc)); err != nil {
						t.Fatal(err)
					}
					tc.prepare(t, copied)
					proc = copied
				}
				r := run(t, fixtureStatfs(fixture), "", append([]string{
					"--procfs=" + proc, "--sysfs=" + filepath.Join(fixture, "sys"),
					"--os-release=" + filepath.Join(fixture, "etc/os-release"),
					fmt.Sprintf("--now=2026-01-02T03:%02d:05.5Z", 3+n), "--state-dir=" + state,
				}, tc.args...)...)
				if r.status != 0 || r.stderr != "" {
					t.Fatalf("run %d: status %d, stderr %s", n, r.status, r.stderr)
				}
				compare(t, fmt.Sprintf("%s/want.%d.jsonl", fixture, n), withoutSelf(t, r.stdout))
			}
		})
	}
}

// addContainers gives a copy of /proc 300 pairs of veth interfaces and 200
// bind mounts, as a host of many containers has them.
func addContainers(t *testing.T, proc string) {
	var veths, binds strings.Builder
	for i := range 300 {
		fmt.Fprintf(&veths, "veth%07x: %d %d 0 0 0 0 0 0 %d %d 0 0 0 0 0 0\n", 0xa1b2c3+i*7919, i*1000, i, i*2000, i)
	}
	for i := range 200 {
		fmt.Fprintf(&binds, "%d 24 8:1 /var/lib/docker/volumes/v%d/_data /srv/volumes/v%d rw,relatime shared:1 - ext4 /dev/sda1 rw\n", 100+2*i, i, i)
		fmt.Fprintf(&binds, "%d 24 0:%d / /var/lib/docker/overlay2/%032x/merged rw,relatime shared:%d - overlay overlay rw,lowerdir=/l/A:/l/B,upperdir=/u,workdir=/w\n", 101+2*i, 100+i, i, 300+i)
	}
	for name, more := range map[string]string{"net/dev": veths.String(), "1/mountinfo": binds.String()} {
		f, err := os.OpenFile(filepath.Join(proc, name), os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteString(more); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// withoutSelf checks and then removes _meta.self, the cost of the run, because it
// is different in each run.
func withoutSelf(t *testing.T, out string) string {
	t.Helper()
	var cpu struct {
		Payload struct {
			Meta struct {
				Self struct {
					CPU float64 `json:"cpu_ms"`
					RSS int64   `json:"max_rss"`
				} `json:"self"`
			} `json:"_meta"`
		} `json:"payload"`
	}
	line, _, _ := strings.Cut(out, "\n")
	if err := json.Unmarshal([]byte(line), &cpu); err != nil {
		t.Fatalf("line %s: %v", line, err)
	}
	if self := cpu.Payload.Meta.Self; self.CPU <= 0 || self.RSS < 1<<20 {
		t.Errorf("_meta.self = %+v; want CPU time and more than 1 MiB", self)
	}
	return regexp.MustCompile(`"self":\{[^}]*\}`).ReplaceAllString(out, `"self":{}`)
}

// compare compares records with a golden file, every byte of them.
func compare(t *testing.T, golden, out string) {
	t.Helper()
	for line := range strings.Lines(out) {
		if !json.Valid([]byte(line)) || len(line) > record.MaxLine {
			t.Errorf("not a JSON line of at most %d bytes: %s", record.MaxLine, line)
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(out), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	data, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if want := string(data); out != want {
		for i, line := range strings.Split(out, "\n") {
			if wanted := strings.Split(want, "\n"); i >= len(wanted) || line != wanted[i] {
				t.Fatalf("%s, line %d:\n got %s\nwant %s", golden, i+1, line, wanted[min(i, len(wanted)-1)])
			}
		}
		t.Fatalf("%s has more lines than\n%s", golden, out)
	}
}
