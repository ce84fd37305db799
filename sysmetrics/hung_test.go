package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
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
		t.Errorf("after very many: retry at %v; want an hour later", h.retry)
	}
	if !h.same(m) {
		t.Error("the mount is not recognized")
	}
	for _, other := range []mount{
		{device: "0:53", point: "/mnt/nas", fstype: "nfs4"}, {device: "0:52", point: "/mnt", fstype: "nfs4"}, {device: "0:52", point: "/mnt/nas", fstype: "nfs"},
	} {
		if h.same(other) {
			t.Errorf("%+v is taken for %+v", other, h.mount)
		}
	}
}

// A mount that does not answer takes no run longer than the deadline, and the
// following runs no time at all, until it is asked again: after a while, or
// when the host has been started anew.
func TestHangingMount(t *testing.T) {
	t.Parallel()
	root, state := t.TempDir(), t.TempDir()
	const mounts = "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n23 22 0:52 / /hangs/nas rw - nfs4 nas:/a rw\n24 22 0:53 / /mnt/nas rw - nfs4 nas:/b rw\n"
	writeTree(t, root, minimalProc)
	for _, step := range []struct {
		name, boot, uptime, mountinfo string
		want                          string // the reason in _meta.failed, "" for none
		asked                         bool
	}{
		{"first", "a", "1000.00", mounts, "statfs: no answer", true},
		{"a minute later", "a", "1060.00", mounts, "hung before; asked again in", false},
		{"after five minutes", "a", "1400.00", mounts, "statfs: no answer", true},
		{"ten minutes have not passed", "a", "1900.00", mounts, "hung before; asked again in", false},
		{"mounted anew", "a", "1960.00", strings.Replace(mounts, "/hangs/nas", "/mnt/nas2", 1), "", true},
		{"gone, and hanging again", "a", "2020.00", mounts, "statfs: no answer", true},
		{"rebooted", "b", "50.00", mounts, "statfs: no answer", true},
	} {
		writeTree(t, root, map[string]string{"uptime": step.uptime + " 0.00\n", "1/mountinfo": step.mountinfo, "sys/kernel/random/boot_id": step.boot + "\n"})
		start := time.Now()
		r := run(t, func(string) (usage, error) { return usage{total: 4096}, nil }, "",
			"--procfs="+root, "--sysfs="+root, "--state-dir="+state, "--fs-types=nfs4")
		took := time.Since(start)
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
		if took > statfsDeadline+10*time.Second {
			t.Errorf("%s: took %v; want little more than %v", step.name, took, statfsDeadline)
		}
		if !step.asked && took >= statfsDeadline {
			t.Errorf("%s: took %v; want no wait for a mount that is known to hang", step.name, took)
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

// A clock that cannot be: the memory of a mount must not outlast its longest wait.
func TestHungRetryIsBounded(t *testing.T) {
	root, state := t.TempDir(), t.TempDir()
	writeTree(t, root, minimalProc)
	writeTree(t, root, map[string]string{"1/mountinfo": "24 22 0:53 / /mnt/nas rw - nfs4 nas:/b rw\n"})
	old := &snapshot{bootID: strings.TrimSpace(minimalProc["sys/kernel/random/boot_id"]), clock: clock{monotonic: 1, boottime: 1}, counters: counters{},
		hung: []hung{{mount{device: "0:53", point: "/mnt/nas", fstype: "nfs4"}, 300 * 24 * time.Hour, 3}}}
	writeTree(t, state, map[string]string{stateFile: string(old.encode())})
	r := run(t, nil, "", "--procfs="+root, "--sysfs="+root, "--state-dir="+state, "--fs-types=nfs4")
	if r.status != 0 || r.stderr != "" {
		t.Fatalf("status %d, stderr %s", r.status, r.stderr)
	}
	if payload := payloadOf(t, r.stdout, "disk"); payload["/mnt/nas"] == nil {
		t.Errorf("/mnt/nas was not asked: %v", payload["_meta"])
	}
}

func TestStatfsApart(t *testing.T) {
	for _, tc := range []struct {
		name   string
		points []string
		want   map[string]string // the error of a point, "" for an answer
	}{
		{"answers", []string{"/mnt/nas", "/tank"}, map[string]string{"/mnt/nas": "", "/tank": ""}},
		{"an error is no hang", []string{"/mnt/broken", "/mnt/nas"}, map[string]string{"/mnt/broken": "statfs: input/output error", "/mnt/nas": ""}},
		{"gone", []string{"/no/such/mount"}, map[string]string{"/no/such/mount": "statfs: no such file or directory"}},
		{"a name like a flag", []string{"--help", "-x"}, map[string]string{"--help": "statfs: no such file or directory", "-x": "statfs: no such file or directory"}},
		{"an odd name", []string{"/mnt/usb disk\t(1)\\copy", "/a\nb"}, map[string]string{"/mnt/usb disk\t(1)\\copy": "", "/a\nb": "statfs: no such file or directory"}},
	} {
		usages, errs := statfsApart(t.Context(), tc.points)
		got := make(map[string]string)
		for i, point := range tc.points {
			got[point] = ""
			if errs[i] != nil {
				got[point] = errs[i].Error()
			} else if usages[i].total == 0 {
				got[point] = fmt.Sprintf("%+v", usages[i])
			}
		}
		if !maps.Equal(got, tc.want) {
			t.Errorf("%s: statfsApart = %q; want %q", tc.name, got, tc.want)
		}
	}
}

// A run that is told to end does not remember as hanging what it did not wait for.
func TestStatfsApartInterrupted(t *testing.T) {
	root := t.TempDir()
	writeTree(t, root, minimalProc)
	writeTree(t, root, map[string]string{"1/mountinfo": "23 22 0:52 / /hangs/nas rw - nfs4 nas:/a rw\n"})
	h, err := newHost(root, root, "")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	remembered := []hung{}
	var n notes
	h.readDisk(ctx, diskFilter{mounts: mountFilter{}}, clock{}, &remembered, counters{}, &n)
	if len(remembered) > 0 {
		t.Errorf("remembered = %+v; want none", remembered)
	}
}
