package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"observability-hub/sysmetrics/internal/statfs"
)

func TestHungAgain(t *testing.T) {
	m := mount{device: "0:52", root: "/", point: "/mnt/nas", fstype: "nfs4", source: "nas:/export"}
	var h hung
	const now = 1000 * time.Second
	for i, wait := range []time.Duration{5 * time.Minute, 10 * time.Minute, 20 * time.Minute, 40 * time.Minute, time.Hour, time.Hour} {
		if h = h.again(m, now); h.retry != now+wait || h.failures != i+1 {
			t.Errorf("question %d without an answer: retry at %v, failures %d; want %v later", i+1, h.retry, h.failures, wait)
		}
	}
	h.failures = 1 << 40
	if h = h.again(m, now); h.retry != now+time.Hour {
		t.Errorf("after many failures: retry at %v; want an hour later", h.retry)
	}
	if !h.same(m) {
		t.Error("the mount is not recognized")
	}
	for _, other := range []mount{
		{device: "0:53", point: "/mnt/nas", fstype: "nfs4"}, {device: "0:52", point: "/mnt", fstype: "nfs4"}, {device: "0:52", point: "/mnt/nas", fstype: "nfs"},
	} {
		if h.same(other) {
			t.Errorf("%+v is recognized as %+v", other, h.mount)
		}
	}
}

// A mount that does not answer delays a run by at most the deadline. It does not
// delay the following runs, because they do not ask it until the wait is over or
// the host has rebooted.
func TestHangingMount(t *testing.T) {
	t.Parallel()
	root, state := t.TempDir(), t.TempDir()
	const mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:52 / /hangs/nas rw - nfs4 nas:/a rw\n24 22 0:53 / /mnt/nas rw - nfs4 nas:/b rw\n"
	writeTree(t, root, minimalProc)
	for _, step := range []struct {
		name, boot, uptime, mountinfo string
		want                          string // the reason in _meta.failed, "" for none
	}{
		{"first", "a", "1000.00", mounts, "statfs: no answer"},
		{"a minute later", "a", "1060.00", mounts, "hung before; next attempt in"},
		{"after five minutes", "a", "1400.00", mounts, "statfs: no answer"},
		{"ten minutes have not passed", "a", "1900.00", mounts, "hung before; next attempt in"},
		{"another mount", "a", "1960.00", strings.Replace(mounts, "/hangs/nas", "/mnt/nas2", 1), ""},
		{"the first mount is back and hangs", "a", "2020.00", mounts, "statfs: no answer"},
		{"rebooted", "b", "50.00", mounts, "statfs: no answer"},
	} {
		writeTree(t, root, map[string]string{"uptime": step.uptime + " 0.00\n", "1/mountinfo": step.mountinfo, "sys/kernel/random/boot_id": step.boot + "\n"})
		r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{Total: 4096}, nil }, "",
			"--procfs="+root, "--sysfs="+root, "--state-dir="+state, "--fs-types=nfs4")
		if r.status != 0 || r.stderr != "" {
			t.Fatalf("%s: status %d, stderr %s", step.name, r.status, r.stderr)
		}
		payload := payloadOf(t, r.stdout, "disk")
		meta, _ := payload["_meta"].(map[string]any)
		failed, _ := meta["failed"].(map[string]any)
		reason, _ := failed["/hangs/nas"].(string)
		if reason == "" != (step.want == "") || !strings.HasPrefix(reason, step.want) {
			t.Errorf("%s: failed = %v; want %q", step.name, failed, step.want)
		}
		for _, point := range []string{"/", "/mnt/nas"} {
			if _, ok := payload[point]; !ok {
				t.Errorf("%s: %s, which answers, is not in %v", step.name, point, sortedKeys(payload))
			}
		}
	}
}

// payloadOf returns the payload of the record of one type.
func payloadOf(t *testing.T, out, metricType string) map[string]any {
	t.Helper()
	for line := range strings.Lines(out) {
		var r struct {
			MetricType string         `json:"metric_type"`
			Payload    map[string]any `json:"payload"`
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r.MetricType == metricType {
			return r.Payload
		}
	}
	t.Fatalf("no record of type %s in %s", metricType, out)
	return nil
}

// If the clock went back, a mount must not wait for longer than the maximum.
func TestHungRetryIsBounded(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	writeTree(t, root, minimalProc)
	writeTree(t, root, map[string]string{"1/mountinfo": "24 22 0:53 / /mnt/nas rw - nfs4 nas:/b rw\n"})
	old := &snapshot{bootID: strings.TrimSpace(minimalProc["sys/kernel/random/boot_id"]), clock: clock{monotonic: 1, boottime: 1}, counters: counters{},
		hung: []hung{{mount{device: "0:53", point: "/mnt/nas", fstype: "nfs4"}, 300 * 24 * time.Hour, 3}}}
	writeTree(t, state, map[string]string{stateFile: string(old.encode())})
	r := run(t, func(string) (statfs.Usage, error) { return statfs.Usage{Total: 4096}, nil }, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+state, "--fs-types=nfs4")
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("status %d, stderr %s", r.status, r.stderr)
	}
	if payload := payloadOf(t, r.stdout, "disk"); payload["/mnt/nas"] == nil {
		t.Errorf("/mnt/nas was not asked: %v", payload["_meta"])
	}
}
