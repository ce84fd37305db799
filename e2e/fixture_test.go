package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// epoch is the first minute of the fixtures' clock. It is recent, because the tool creates no partitions for the distant past,
// and shortly before midnight, so that the shortest fault run includes midnight.
var epoch = time.Now().UTC().Truncate(24*time.Hour).AddDate(0, 0, -3).Add(-20 * time.Minute)

// fixtureHost is a small copy of /proc. The test moves its counters and its clock, so a minute of the host takes no time.
type fixtureHost struct {
	name  string
	proc  string
	ticks int
}

func newFixtureHost(tb testing.TB, name string) *fixtureHost {
	tb.Helper()
	h := &fixtureHost{name: name, proc: filepath.Join(tb.TempDir(), "proc"), ticks: -1}
	h.write(tb, map[string]string{
		"loadavg":                   "0.50 0.40 0.30 2/180 4242\n",
		"meminfo":                   "MemTotal:        8000000 kB\nMemFree:         1000000 kB\nMemAvailable:    5000000 kB\nBuffers:          100000 kB\nCached:          3000000 kB\nSwapTotal:       1000000 kB\nSwapFree:         900000 kB\nSlab:             200000 kB\nSReclaimable:     150000 kB\nSUnreclaim:        50000 kB\n",
		"1/mountinfo":               "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
		"self/mountinfo":            "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n",
		"sys/kernel/random/boot_id": "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0\n",
		"sys/kernel/hostname":       name + "\n",
		"net/sockstat":              "sockets: used 120\nTCP: inuse 5 orphan 0 tw 1 alloc 6 mem 1\nUDP: inuse 2 mem 0\n",
		"pressure/memory":           "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/cpu":              "some avg10=0.10 avg60=0.05 avg300=0.01 total=1000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"pressure/io":               "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
	})
	return h
}

// tick lets a minute pass and returns the wall clock after it. The fraction of the second differs from minute to minute, and
// half of the times are rounded up if a table stores whole seconds.
func (h *fixtureHost) tick(tb testing.TB) time.Time {
	tb.Helper()
	h.ticks++
	n := uint64(h.ticks)
	busy, idle := 4000+1500*n, 90000+4500*n
	h.write(tb, map[string]string{
		"uptime": fmt.Sprintf("%d.25 %d.00\n", 1000+60*n, 900+50*n),
		"stat": fmt.Sprintf("cpu  %[1]d 10 %[2]d %[3]d 50 0 5 0 0 0\ncpu0 %[1]d 10 %[2]d %[3]d 50 0 5 0 0 0\nintr %[3]d 0\nctxt %[4]d\nbtime 1772322200\nprocesses %[5]d\nprocs_running 2\nprocs_blocked 0\nsoftirq 100 0 0 0 0 0 0 0 0 0 0\n",
			busy, busy/2, idle, 100000+7000*n, 2000+30*n),
		"net/dev": fmt.Sprintf("Inter-|   Receive                                                |  Transmit\n face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n    lo: 100 1 0 0 0 0 0 0 100 1 0 0 0 0 0 0\n  eth0: %d %d 0 0 0 0 0 0 %d %d 0 0 0 0 0 0\n",
			1000000+60000*n, 1000+100*n, 500000+30000*n, 500+50*n),
		"diskstats": fmt.Sprintf("   8       0 sda %[1]d 10 %[2]d 300 %[1]d 20 %[2]d 400 0 500 700\n   8       1 sda1 %[1]d 10 %[2]d 300 %[1]d 20 %[2]d 400 0 500 700\n",
			1000+60*n, 20000+6000*n),
		"vmstat": fmt.Sprintf("pgmajfault %d\noom_kill 0\npswpin 0\npswpout 0\n", 10+n),
		"net/snmp": fmt.Sprintf("Tcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\nTcp: 1 200 120000 -1 10 20 0 0 3 %d %d 0 0 0 0\nUdp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors InCsumErrors IgnoredMulti MemErrors\nUdp: %d 0 0 10 0 0 0 0 0\n",
			1000+10*n, 900+9*n, 50+n),
	})
	return h.now()
}

// now returns the wall clock of the last tick.
func (h *fixtureHost) now() time.Time { return sampleTime(h.ticks) }

// sampleTime returns the wall clock of the n-th tick.
func sampleTime(n int) time.Time {
	return epoch.Add(time.Duration(n)*time.Minute + time.Duration(n%8)*125*time.Millisecond)
}

// sampleNumber returns the tick to which a time belongs, whether or not it was rounded to seconds.
func sampleNumber(at time.Time) int {
	return int(at.Add(30*time.Second).Sub(epoch) / time.Minute)
}

func (h *fixtureHost) write(tb testing.TB, files map[string]string) {
	tb.Helper()
	for name, content := range files {
		path := filepath.Join(h.proc, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			tb.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
}

// args returns the flags with which the tool samples this host at its current minute.
func (h *fixtureHost) args() []string {
	return []string{"--procfs", h.proc, "--now", h.now().Format(time.RFC3339Nano)}
}
