package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/cli"
)

// The maximum that the machine of these tests does in a second. A higher rate is
// a spike that did not happen.
const (
	maxBytesPerS = 1e9
	maxCountPerS = 1e5
	maxBusy      = 0.5 // of each CPU
	maxJitter    = 2   // how far a counter steps back without having been reset
)

// machine simulates a host whose true activity is known and limited. Events
// happen to it after which its counters are hard to interpret.
type machine struct {
	rng       *rand.Rand
	boot      int
	monotonic time.Duration
	asleep    time.Duration
	wall      time.Time
	wild      bool // steal ran wild since boot

	cpus    map[string]*cpuTimes
	sum     cpuTimes // of all CPUs that ever were online
	ctxt    uint64
	net     map[string]*[8]uint64  // in the order of interfaceColumns
	disks   map[string]*[11]uint64 // the columns of diskstats
	vm, tcp map[string]uint64
	stalled [3]uint64 // microseconds: cpu, memory, io
}

func newMachine(rng *rand.Rand) *machine {
	m := &machine{rng: rng, wall: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	m.reboot()
	return m
}

// reboot resets everything to 0, as if the machine had booted a while ago.
func (m *machine) reboot() {
	m.boot++
	m.monotonic, m.asleep, m.wild = 0, 0, false
	m.cpus = map[string]*cpuTimes{"cpu0": {}, "cpu1": {}}
	m.sum, m.ctxt, m.stalled = cpuTimes{}, 0, [3]uint64{}
	m.net = map[string]*[8]uint64{"eth0": {}, "wlan0": {}}
	m.disks = map[string]*[11]uint64{"sda": {}, "nvme0n1": {}}
	m.vm, m.tcp = map[string]uint64{}, map[string]uint64{}
	m.advance(time.Duration(1+m.rng.IntN(100_000)) * time.Second)
}

// clone returns a copy of the machine, as a hypervisor's snapshot does.
func (m *machine) clone() *machine {
	c := *m
	c.cpus, c.net, c.disks = copyAll(m.cpus), copyAll(m.net), copyAll(m.disks)
	c.vm, c.tcp = maps.Clone(m.vm), maps.Clone(m.tcp)
	return &c
}

func copyAll[V any](m map[string]*V) map[string]*V {
	c := make(map[string]*V, len(m))
	for k, v := range m {
		c[k] = new(*v)
	}
	return c
}

// upTo returns a random number between 0 and n.
func (m *machine) upTo(n float64) uint64 { return m.rng.Uint64N(uint64(n) + 1) }

// advance runs the machine for d, without suspend.
func (m *machine) advance(d time.Duration) {
	m.monotonic += d
	m.wall = m.wall.Add(d)
	s := d.Seconds()
	for _, name := range sortedKeys(m.cpus) {
		c := m.cpus[name]
		busy := m.rng.Float64() * maxBusy * s * userHZ
		var grown cpuTimes
		for i, share := range []float64{0.5, 0.1, 0.2, 0, 0, 0.1, 0.05, 0.05, 0.2, 0.05} {
			grown[i] = uint64(busy * share) // the last two are inside the first two
		}
		grown[4] = uint64(0.1 * s * userHZ)
		grown[3] = uint64(s*userHZ-busy) - grown[4]
		for i := range grown {
			c[i] += grown[i]
			m.sum[i] += grown[i]
		}
	}
	m.ctxt += m.upTo(s * maxCountPerS)
	for _, name := range sortedKeys(m.net) {
		for i := range m.net[name] {
			limit := s * maxCountPerS
			if i%4 == 0 {
				limit = s * maxBytesPerS
			}
			m.net[name][i] += m.upTo(limit)
		}
	}
	for _, name := range sortedKeys(m.disks) {
		d := m.disks[name]
		for i := range d {
			limit := s * maxCountPerS
			if i == 2 || i == 6 {
				limit = s * maxBytesPerS / sectorSize
			}
			if i != inFlightColumn {
				d[i] += m.upTo(limit)
			}
		}
	}
	for _, name := range vmstatCounters {
		m.vm[name] += m.upTo(s * maxCountPerS)
	}
	for _, c := range snmpCounters {
		m.tcp[c.protocol+" "+c.name] += m.upTo(s * maxCountPerS)
	}
	for i := range m.stalled {
		m.stalled[i] += m.upTo(1e6 * s)
	}
}

// happen makes one of the events happen.
func (m *machine) happen(event byte, earlier *machine) {
	const kinds = 13
	which := event / kinds // selects one of several CPUs, interfaces or disks
	switch event % kinds {
	case 0: // nothing
	case 1:
		m.reboot()
	case 2: // suspend: only CLOCK_BOOTTIME and the wall clock continue
		d := time.Duration(which) * time.Minute
		m.asleep += d
		m.wall = m.wall.Add(d)
	case 3: // a driver is loaded again
		*pick(m.net, which) = [8]uint64{}
	case 4: // a disk is replaced by one of the same name
		*pick(m.disks, which) = [11]uint64{}
	case 5: // jitter
		back(&m.sum[4], maxJitter)
		back(&pick(m.cpus, which)[4], maxJitter)
		back(&pick(m.net, which)[0], maxJitter)
		back(&m.ctxt, maxJitter)
	case 6: // steal runs wild after a live migration, forward or backward
		c := pick(m.cpus, which)
		m.wild = true
		if which%2 == 0 {
			c[7] += 1 << 40
			m.sum[7] += 1 << 40
		} else {
			m.sum[7] -= c[7]
			c[7] = 0
		}
	case 7: // hotplug: something appears that has counted since boot
		name := fmt.Sprint(2 + which%4)
		up := m.monotonic.Seconds()
		past := func(limit float64) uint64 { return uint64(limit * up / 2) }
		if _, ok := m.cpus["cpu"+name]; !ok {
			m.cpus["cpu"+name] = &cpuTimes{past(20), 0, past(10), past(150)}
		}
		if _, ok := m.net["eth"+name]; !ok {
			b, n := past(maxBytesPerS), past(maxCountPerS)
			m.net["eth"+name] = &[8]uint64{b, n, n, n, b, n, n, n}
		}
		if _, ok := m.disks["dm-"+name]; !ok {
			b, n := past(maxBytesPerS/sectorSize), past(maxCountPerS)
			m.disks["dm-"+name] = &[11]uint64{n, n, b, n, n, n, b, n, 0, n, n}
		}
	case 8: // hotplug: something disappears
		name := fmt.Sprint(2 + which%4)
		delete(m.cpus, "cpu"+name)
		delete(m.net, "eth"+name)
		delete(m.disks, "dm-"+name)
	case 9: // the clock is set, back or ahead
		m.wall = m.wall.Add(time.Duration(int(which)-10) * time.Hour)
	case 10: // the hypervisor restores an earlier snapshot: same boot, all clocks and counters earlier
		if earlier.boot == m.boot && earlier.monotonic+5*time.Minute < m.monotonic {
			rng, wall := m.rng, m.wall
			*m = *earlier.clone()
			m.rng, m.wall = rng, wall
		}
	case 11: // idle counts the suspend, as some kernels had it
		d := time.Duration(which) * time.Hour
		m.asleep += d
		c := pick(m.cpus, which)
		c[3] += uint64(d.Seconds() * userHZ)
		m.sum[3] += uint64(d.Seconds() * userHZ)
	case 12: // the kernel's pressure totals begin again
		m.stalled = [3]uint64{}
	}
}

func pick[V any](m map[string]*V, which byte) *V {
	names := sortedKeys(m)
	return m[names[int(which)%len(names)]]
}

// back steps a counter back.
func back(v *uint64, by uint64) { *v -= min(by, *v) }

// read does what collectCmd.read does, with the text that the kernel would print.
func (m *machine) read(t testing.TB) *reading {
	t.Helper()
	r := &reading{}
	memory, disk, network := &memoryState{}, &diskState{}, &networkState{}
	r.counters = make(counters)
	r.bootID = fmt.Sprintf("boot-%d", m.boot)
	r.clock = clock{wall: m.wall, monotonic: m.monotonic, boottime: m.monotonic + m.asleep}

	var stat strings.Builder
	line := func(name string, times *cpuTimes) {
		fmt.Fprintf(&stat, "%s %s\n", name, strings.Trim(fmt.Sprint(*times), "[]"))
	}
	line("cpu", &m.sum)
	for _, name := range sortedKeys(m.cpus) {
		line(name, m.cpus[name])
	}
	fmt.Fprintf(&stat, "ctxt %d\nprocesses %d\n", m.ctxt, m.ctxt/2)
	var netdev, diskstats, vmstat strings.Builder
	for _, name := range sortedKeys(m.net) {
		n := m.net[name]
		fmt.Fprintf(&netdev, "%6s: %d %d %d %d 0 0 0 0 %d %d %d %d 0 0 0 0\n", name, n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7])
	}
	for _, name := range sortedKeys(m.disks) {
		fmt.Fprintf(&diskstats, "   8  %x %s %s\n", name, name, strings.Trim(fmt.Sprint(*m.disks[name]), "[]"))
	}
	for _, name := range sortedKeys(m.vm) {
		fmt.Fprintf(&vmstat, "%s %d\n", name, m.vm[name])
	}
	odd := func(line []byte, err error) { t.Fatalf("line %q: %v", line, err) }
	cpu := parseStat([]byte(stat.String()), r.counters, odd)
	network.interfaces = parseNetDev([]byte(netdev.String()), every, r.counters, odd)
	disk.devices = parseDiskstats([]byte(diskstats.String()), filter{}, func(*blockDevice) {}, r.counters, odd)
	parseVmstat([]byte(vmstat.String()), r.counters, odd)
	maps.Copy(r.counters, m.tcp)
	for i, p := range []*pressure{&cpu.pressure, &memory.pressure, &disk.pressure} {
		p.resource = []string{"cpu", "memory", "io"}[i]
		p.parse(fmt.Appendf(nil, "some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=%d\n", m.stalled[i], m.stalled[i]/2), r.counters, odd)
	}
	r.resources = []*resource{{metricType: "cpu", state: cpu}, {metricType: "memory", state: memory}, {metricType: "disk", state: disk}, {metricType: "network", state: network}}
	return r
}

// every selects every interface, with its name as key.
func every(name string) (netInterface, bool) {
	return netInterface{name: name, key: "net " + name + " "}, true
}

// live makes events happen to a machine, samples it after each, and checks every
// number of every payload.
func live(t *testing.T, seed uint64, events []byte) {
	rng := rand.New(rand.NewPCG(seed, 0))
	m := newMachine(rng)
	earlier := m.clone()
	h := &host{osRelease: "/nonexistent"}
	c := &collectCmd{Host: "web1"}
	env := &cli.Env{App: cli.App{Service: "system-metrics"}}
	var prev *snapshot
	for i, event := range events {
		before := *m
		m.happen(event, earlier)
		if m.boot != before.boot {
			earlier = m.clone()
		}
		m.advance(time.Duration(500+rng.IntN(120_000)) * time.Millisecond)
		cur := m.read(t)
		lines, err := c.records(env, h, prev, cur)
		if err != nil {
			t.Fatal(err)
		}
		first := prev == nil || m.boot != before.boot || m.monotonic < before.monotonic
		window, asleep := m.monotonic, m.asleep
		if !first {
			window, asleep = m.monotonic-before.monotonic, m.asleep-before.asleep
		}
		for _, line := range lines {
			check := payloadCheck{t: t, what: fmt.Sprintf("seed %d, events %v, sample %d", seed, events, i), line: line, wild: m.wild}
			check.record(first, window.Seconds(), asleep.Seconds())
		}
		if t.Failed() {
			return
		}
		// The next run knows only what is in the state file.
		if prev, err = decodeState(cur.encode()); err != nil {
			t.Fatal(err)
		}
	}
}

// payloadCheck checks each number of one record.
type payloadCheck struct {
	t      *testing.T
	what   string
	line   []byte
	wild   bool // the values of steal are not reliable
	first  bool
	window float64
}

func (c *payloadCheck) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Errorf("%s: %s\n%s", c.what, fmt.Sprintf(format, args...), c.line)
}

func (c *payloadCheck) record(first bool, window, suspended float64) {
	c.t.Helper()
	var r struct{ Payload map[string]any }
	if err := json.Unmarshal(c.line, &r); err != nil {
		c.t.Fatalf("%s: %v\n%s", c.what, err, c.line)
	}
	meta, ok := r.Payload["_meta"].(map[string]any)
	if !ok {
		c.t.Fatalf("%s: no _meta\n%s", c.what, c.line)
	}
	c.window, _ = meta["window_s"].(float64)
	c.first, _ = meta["first"].(bool)
	if c.first != first {
		c.fail("first = %v; want %v", c.first, first)
	}
	if asleep, ok := meta["suspended_s"].(float64); !ok || math.Abs(asleep-suspended) > 0.001 || math.Abs(c.window-window) > 0.001 {
		c.fail("window_s = %v, suspended_s = %v; want %v, %v", meta["window_s"], meta["suspended_s"], window, suspended)
	}
	c.walk("", r.Payload)
}

func (c *payloadCheck) walk(path string, v any) {
	c.t.Helper()
	switch v := v.(type) {
	case map[string]any:
		for _, k := range sortedKeys(v) {
			c.walk(path+"/"+k, v[k])
		}
	case float64:
		c.number(path, v)
	}
}

func (c *payloadCheck) number(path string, v float64) {
	c.t.Helper()
	key := path[strings.LastIndexByte(path, '/')+1:]
	if v < 0 {
		c.fail("%s = %v; want none below 0", path, v)
	}
	percent := strings.HasSuffix(key, "percent") || key == "usage" || strings.HasPrefix(path, "/modes/") || strings.HasPrefix(path, "/core_usage/")
	if percent && v > 100 {
		c.fail("%s = %v; want at most 100", path, v)
	}
	// Busy and steal are bounded; a window of half a second is 50 ticks, of
	// which rounding and jitter take some.
	if (key == "usage" || strings.HasPrefix(path, "/core_usage/")) && v > 100*maxBusy+10 && !c.wild {
		c.fail("%s = %v; the machine is never busier than %v", path, v, 100*maxBusy)
	}
	limit := math.Inf(1)
	switch {
	case strings.HasSuffix(key, "bytes_per_s"):
		limit = maxBytesPerS
	case strings.HasSuffix(key, "_per_s"), strings.HasSuffix(key, "_iops"):
		limit = maxCountPerS
	case key == "oom_kills":
		limit = maxCountPerS * c.window
	}
	if slack := maxJitter*sectorSize/c.window + 1; v > limit+slack {
		c.fail("%s = %v; the machine never does more than %v", path, v, limit)
	}
}

// TestRatesOfALife makes random events happen to machines.
func TestRatesOfALife(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 150 {
		events := make([]byte, 25)
		for i := range events {
			events[i] = byte(rng.Uint32())
		}
		if live(t, rng.Uint64(), events); t.Failed() {
			return
		}
	}
}

// FuzzRates looks for a series of events that leads to an impossible number.
func FuzzRates(f *testing.F) {
	for kind := range byte(13) {
		f.Add(uint64(kind), []byte{0, kind, 0, kind + 13, kind + 26, 0})
	}
	f.Add(uint64(1), []byte{7, 8, 7, 8, 8, 7})     // hotplug in both directions
	f.Add(uint64(2), []byte{0, 10, 1, 0, 0, 10})   // restored, also after a reboot
	f.Add(uint64(3), []byte{6, 19, 6, 19, 32, 45}) // steal jumps ahead and back
	f.Fuzz(func(t *testing.T, seed uint64, events []byte) {
		live(t, seed, events[:min(len(events), 40)])
	})
}

func TestNewWindow(t *testing.T) {
	at := func(boot string, monotonic, boottime time.Duration) *snapshot {
		return &snapshot{bootID: boot, clock: clock{monotonic: monotonic, boottime: boottime}, counters: counters{"n": uint64(monotonic / time.Second)}}
	}
	const s = time.Second
	for _, tc := range []struct {
		name               string
		prev, cur          *snapshot
		first              bool
		seconds, suspended float64
	}{
		{"first run", nil, at("a", 100*s, 130*s), true, 100, 30},
		{"a minute", at("a", 100*s, 100*s), at("a", 160*s, 160*s), false, 60, 0},
		{"suspend", at("a", 100*s, 130*s), at("a", 160*s, 3790*s), false, 60, 3600},
		{"reboot", at("a", 1000*s, 1000*s), at("b", 1060*s, 1060*s), true, 1060, 0},
		{"restored", at("a", 1000*s, 1000*s), at("a", 500*s, 500*s), true, 500, 0},
		{"no time", at("a", 100*s, 100*s), at("a", 100*s, 100*s), false, 0, 0},
		{"boottime behind by the moment between two reads", at("a", 100*s, 100*s), at("a", 160*s, 160*s-1), false, 60, 0},
	} {
		w := newWindow(tc.prev, tc.cur)
		if w.first != tc.first || w.seconds != tc.seconds || w.suspended != tc.suspended {
			t.Errorf("%s: newWindow = first %v, %v s, suspended %v s; want %v, %v, %v",
				tc.name, w.first, w.seconds, w.suspended, tc.first, tc.seconds, tc.suspended)
		}
		r, o := w.perSecond("n")
		if want := map[bool]outcome{true: unknown, false: counted}[tc.seconds == 0]; o != want || o == counted && r != 1 {
			t.Errorf("%s: perSecond = %v, %v; want 1, %v", tc.name, r, o, want)
		}
	}
}

func TestDelta(t *testing.T) {
	const most = math.MaxUint64
	for _, tc := range []struct {
		prev, cur, slack, size uint64
		want                   uint64
		outcome                outcome
	}{
		{0, 0, 0, 0, 0, counted},
		{10, 25, 0, 0, 15, counted},
		{0, most, 0, 0, most, counted},
		{100, 99, 1, 0, 0, counted},
		{100, 98, 1, 0, 0, wentBack},
		{most, 0, 1000, 0, 0, wentBack},                // not a wrap
		{1 << 32, 5, 0, 0, 0, wentBack},                // nor one of 32 bits
		{1<<32 - 10, 5, 0, 0, 0, wentBack},             // where the counter has 64
		{1<<32 - 10, 5, 0, 1 << 32, 15, counted},       // where it has 32
		{1 << 32, 5, 0, 1 << 32, 0, wentBack},          // it has more, as it shows
		{1 << 31, 5, 0, 1 << 32, 0, wentBack},          // too far
		{1<<32 - 10, 1 << 31, 0, 1 << 32, 0, wentBack}, // too far beyond
	} {
		if got, o := delta(tc.prev, tc.cur, tc.slack, tc.size); got != tc.want || o != tc.outcome {
			t.Errorf("delta(%d, %d, %d) = %d, %d; want %d, %d", tc.prev, tc.cur, tc.slack, got, o, tc.want, tc.outcome)
		}
	}
}

func TestWindowDelta(t *testing.T) {
	w := &window{prev: counters{"both": 5, "gone": 5, "back": 5000}, cur: counters{"both": 7, "new": 7, "back": 1}, seconds: 1}
	for name, want := range map[string]outcome{"both": counted, "gone": unknown, "new": unknown, "neither": unknown, "back": wentBack} {
		if _, o := w.delta(name); o != want {
			t.Errorf("delta(%s) = outcome %d; want %d", name, o, want)
		}
	}
	w.first, w.prev = true, nil // the window is all time since boot, when the counter was 0
	if d, o := w.delta("new"); d != 7 || o != counted {
		t.Errorf("delta(new) since boot = %d, %d; want 7, counted", d, o)
	}
}

func TestPercentOf(t *testing.T) {
	for _, tc := range []struct {
		part, whole, want float64
		ok                bool
	}{
		{0, 10, 0, true},
		{5, 10, 50, true},
		{15, 10, 100, true},
		{-5, 10, 0, true},
		{5, 0, 0, false},
		{5, -1, 0, false},
		{5, math.NaN(), 0, false},
		{math.MaxUint64, math.MaxUint64, 100, true},
		{5, math.Inf(1), 0, true},
	} {
		if got, ok := percentOf(tc.part, tc.whole); got != tc.want || ok != tc.ok {
			t.Errorf("percentOf(%v, %v) = %v, %v; want %v, %v", tc.part, tc.whole, got, ok, tc.want, tc.ok)
		}
	}
}

func TestCPUUsage(t *testing.T) {
	// One CPU over a minute: 6,000 ticks.
	base := cpuTimes{1000, 100, 500, 90000, 300, 0, 50, 20, 400, 10}
	for _, tc := range []struct {
		name    string
		grown   [10]int64
		usage   float64
		outcome outcome
	}{
		{"idle", [10]int64{3: 6000}, 0, counted},
		{"busy", [10]int64{0: 6000}, 100, counted},
		{"half", [10]int64{0: 1000, 2: 1000, 6: 500, 7: 500, 3: 3000}, 50, counted},
		{"waiting is not busy", [10]int64{3: 3000, 4: 3000}, 0, counted},
		{"guest is inside user", [10]int64{0: 3000, 3: 3000, 8: 3000}, 50, counted},
		{"guest_nice is inside nice", [10]int64{1: 1500, 3: 4500, 9: 1500}, 25, counted},
		{"iowait jitters", [10]int64{0: 3000, 3: 3000, 4: -2}, 50, counted},
		{"idle set back", [10]int64{0: 3000, 3: -80000}, 0, wentBack},
		{"steal runs wild", [10]int64{0: 3000, 3: 3000, 7: 1 << 40}, 0, jumpAhead},
		{"idle counts a suspend", [10]int64{0: 3000, 3: 360000}, 0, jumpAhead},
		{"no tick", [10]int64{}, 0, unknown},
	} {
		w := &window{prev: counters{}, cur: counters{}, seconds: 60}
		for i, mode := range cpuModes {
			w.prev["cpu0 "+mode] = base[i]
			w.cur["cpu0 "+mode] = uint64(int64(base[i]) + tc.grown[i])
		}
		s, o := w.cpuUsage("cpu0", 1)
		if o != tc.outcome || o == counted && s.usage != tc.usage {
			t.Errorf("%s: cpuUsage = %v, %d; want %v, %d", tc.name, s.usage, o, tc.usage, tc.outcome)
		}
		if _, o := w.cpuUsage("cpu9", 1); o != unknown {
			t.Errorf("cpuUsage of a missing CPU = %d; want unknown", o)
		}
	}
}

func TestResetIsNamedOnce(t *testing.T) {
	m := newMachine(rand.New(rand.NewPCG(1, 1)))
	prev := m.read(t)
	*m.net["eth0"] = [8]uint64{}
	m.advance(100 * time.Millisecond)
	c := &collectCmd{Host: "web1"}
	lines, err := c.records(&cli.Env{}, &host{osRelease: "/nonexistent"}, &prev.snapshot, m.read(t))
	if err != nil {
		t.Fatal(err)
	}
	var r struct {
		Payload struct {
			Eth0  map[string]any `json:"eth0"`
			Wlan0 map[string]any `json:"wlan0"`
			Meta  struct{ Reset []string }
		}
	}
	if err := json.Unmarshal([]byte(strings.Replace(string(lines[3]), `"_meta"`, `"Meta"`, 1)), &r); err != nil {
		t.Fatal(err)
	}
	if v, ok := r.Payload.Eth0["rx_bytes_per_s"]; v != nil || !ok {
		t.Errorf("rx_bytes_per_s = %v; want null", v)
	}
	if v, ok := r.Payload.Eth0["rx_bytes"].(float64); !ok || v > maxBytesPerS {
		t.Errorf("rx_bytes = %v; want the counter as it is", r.Payload.Eth0["rx_bytes"])
	}
	if v := r.Payload.Wlan0["rx_bytes_per_s"]; v == nil {
		t.Error("the other interface's rate is null")
	}
	slices.Sort(r.Payload.Meta.Reset)
	if got := slices.Compact(slices.Clone(r.Payload.Meta.Reset)); len(got) != 8 || len(got) != len(r.Payload.Meta.Reset) {
		t.Errorf("reset = %q; want the eight counters of eth0, each once", r.Payload.Meta.Reset)
	}
}
