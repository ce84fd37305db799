package main

import (
	"bytes"
	"maps"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"observability-hub/lib/statedir"
)

func sameState(a, b *snapshot) bool {
	return a.bootID == b.bootID && a.clock.monotonic == b.clock.monotonic && a.clock.boottime == b.clock.boottime &&
		a.sent.Equal(b.sent) && maps.Equal(a.counters, b.counters) && slices.Equal(a.hung, b.hung)
}

func TestStateRoundTrip(t *testing.T) {
	for _, s := range []*snapshot{
		{bootID: "a", counters: counters{}},
		{bootID: "a", counters: counters{}, sent: time.UnixMilli(1767323117250)},
		{bootID: "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0", clock: clock{monotonic: 1, boottime: math.MaxInt64},
			counters: counters{"cpu user": 0, "net eth0:1 rx_bytes": math.MaxUint64, "disk a  b reads": 7},
			hung: []hung{
				{mount{device: "0:52", point: "/mnt/nas", fstype: "nfs4"}, 5 * time.Minute, 1},
				{mount{device: "", point: "/mnt/ \t\n\"\\\x00\xffé\u2028", fstype: "fuse."}, time.Hour, 1 << 30},
			}},
	} {
		got, err := decodeState(s.encode())
		if err != nil || !sameState(got, s) {
			t.Errorf("decodeState(encode(%+v)) = %+v, %v", s, got, err)
		}
	}
}

// A state file is replaced atomically, so an incomplete file is damaged.
func TestDecodeStateRefuses(t *testing.T) {
	const good = "sysmetrics-counters 1\nboot a 1 2\ncounter 5 cpu user\nend\n"
	if _, err := decodeState([]byte(good)); err != nil {
		t.Fatalf("decodeState(%q) = %v", good, err)
	}
	for n := range len(good) {
		if s, err := decodeState([]byte(good[:n])); err == nil {
			t.Errorf("decodeState of the first %d bytes = %+v; want an error", n, s)
		}
	}
	for _, tc := range []struct{ from, to string }{
		{"counters 1", "counters 2"}, {"boot a 1 2\n", ""}, {"boot a 1 2", "boot a 1"}, {"boot a 1 2", "boot a x 2"},
		{"boot a 1 2", "boot a -1 2"}, {"boot a 1 2", "boot a 1 -2"}, {"boot a 1 2", "boot a 1 2 3"},
		{"counter 5 cpu user", "counter -5 cpu user"}, {"counter 5 cpu user", "counter 5"}, {"counter 5 cpu user", "counter 5 "},
		{"counter 5 cpu user", "other 5 cpu user"}, {"counter 5 cpu user", `hung 1 2 "a" "b" "c`}, {"counter 5 cpu user", `hung -1 2 "a" "b" "c"`},
		{"counter 5 cpu user", `hung 1 -2 "a" "b" "c"`}, {"counter 5 cpu user", "\x00"}, {"counter 5 cpu user", "sent"}, {"counter 5 cpu user", "sent -1"}, {"counter 5 cpu user", "sent 1 2"}, {"end\n", "end\n\n"},
	} {
		text := strings.Replace(good, tc.from, tc.to, 1)
		if s, err := decodeState([]byte(text)); err == nil {
			t.Errorf("decodeState(%q) = %+v; want an error", text, s)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add([]byte("sysmetrics-counters 1\nboot a 1 2\ncounter 5 cpu user\nhung 1 2 \"0:5\" \"nfs4\" \"/mnt/a b\"\nend\n"))
	f.Add((&snapshot{bootID: "b", counters: counters{"a b": 1}, hung: []hung{{retry: 1, failures: 1}}}).encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := decodeState(data)
		if err != nil {
			return
		}
		if s.clock.monotonic < 0 || s.clock.boottime < 0 {
			t.Fatalf("clock %+v", s.clock)
		}
		again := s.encode()
		got, err := decodeState(again)
		if err != nil || !sameState(got, s) {
			t.Fatalf("decodeState(%q) = %+v; decoded again from %q: %+v, %v", data, s, again, got, err)
		}
		if !bytes.Equal(got.encode(), again) {
			t.Fatal("encode is not stable")
		}
	})
}

// FuzzEncodeState tests the other direction: decodeState returns the snapshot that was encoded.
func FuzzEncodeState(f *testing.F) {
	f.Add("net eth0 rx_bytes", uint64(5), "/mnt/a b", "nfs4", int64(1), 2)
	f.Add("x", uint64(0), "\x00\"\\\n", "", int64(0), 0)
	f.Fuzz(func(t *testing.T, name string, v uint64, point, fstype string, retry int64, failures int) {
		if name == "" || strings.Contains(name, "\n") || retry < 0 || failures < 0 {
			return // no parser makes such a name, and hung makes no such number
		}
		s := &snapshot{bootID: "b", counters: counters{name: v},
			hung: []hung{{mount{device: "0:1", point: point, fstype: fstype}, time.Duration(retry), failures}}}
		got, err := decodeState(s.encode())
		if err != nil || !sameState(got, s) {
			t.Fatalf("decodeState(%q) = %+v, %v; want %+v", s.encode(), got, err, s)
		}
	})
}

// The file is not fsynced, so a power loss may leave it empty. There is no
// warning then, because after a power loss the boot is another one anyway.
func TestLoadStateEmpty(t *testing.T) {
	dir, err := statedir.Open(t.Context(), t.TempDir(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for content, damaged := range map[string]bool{"": false, "sysmetrics-counters 1\n": true} {
		if err := os.WriteFile(dir.Join(stateFile), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if s, err := loadState(dir); s != nil || (err != nil) != damaged {
			t.Errorf("loadState of %q = %+v, %v", content, s, err)
		}
	}
}
