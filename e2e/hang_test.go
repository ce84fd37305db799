package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"observability-hub/e2e/await"
)

// fuseMount mounts a small file system whose server is a process of ours:
// stopping it makes a mount that never answers, as a dead NFS server does.
func fuseMount(t *testing.T) (point string, server *os.Process) {
	t.Helper()
	dir := t.TempDir()
	point = filepath.Join(dir, "mnt")
	image := filepath.Join(dir, "image")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"truncate", "-s", "8M", image},
		{"mkfs.ext4", "-q", image},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	cmd := exec.Command("fuse2fs", "-f", "-o", "ro,entry_timeout=0,attr_timeout=0", image, point)
	if err := cmd.Start(); err != nil {
		t.Fatalf("this test needs a FUSE file system: %v: install the package fuse2fs", err)
	}
	t.Cleanup(func() {
		// Killed, it answers whoever still waits, and the mount can go.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if out, err := exec.Command("umount", "--lazy", point).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", point, err, out)
		}
	})
	await.Until(t, "the mount "+point, func() bool {
		mounts, err := os.ReadFile("/proc/self/mountinfo")
		return err == nil && strings.Contains(string(mounts), " "+point+" ")
	})
	return point, cmd.Process
}

// diskPayload is what a sample says of the disks.
type diskPayload struct {
	Mounts map[string]json.RawMessage
	Failed map[string]string
}

func (o outcome) disk(t *testing.T) diskPayload {
	t.Helper()
	for _, l := range parseLines(t, []byte(o.stdout)) {
		if l.MetricType != "disk" {
			continue
		}
		p := diskPayload{}
		var meta struct {
			Meta struct {
				Failed map[string]string `json:"failed"`
			} `json:"_meta"`
		}
		if err := json.Unmarshal(l.Payload, &p.Mounts); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(l.Payload, &meta); err != nil {
			t.Fatal(err)
		}
		p.Failed = meta.Meta.Failed
		return p
	}
	t.Fatalf("no disk record in %s%s", o.stdout, o.stderr)
	return diskPayload{}
}

func TestHangingMount(t *testing.T) {
	point, server := fuseMount(t)
	tool := sysmetrics(t)
	args := []string{"--fs-types", "fuse.*"}

	if got := tool.want(0, "").disk(t); got.Mounts[point] != nil || got.Failed[point] != "" {
		t.Errorf("a FUSE mount that nobody selected is in the record: %s %s", got.Mounts[point], got.Failed[point])
	}
	if got := tool.want(0, "", args...).disk(t); !strings.Contains(string(got.Mounts[point]), `"fstype":"fuse.`) {
		t.Fatalf("the selected mount is not in the record; failed: %v", got.Failed)
	}

	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	hangs := tool.want(0, "", args...)
	got := hangs.disk(t)
	if got.Mounts[point] != nil || !strings.Contains(got.Failed[point], "no answer") {
		t.Errorf("the mount that hangs: payload %s, failed %q; want it failed", got.Mounts[point], got.Failed[point])
	}
	if got.Mounts["/"] == nil {
		t.Error("the mount that hangs took / with it")
	}
	if hangs.took > 10*time.Second {
		t.Errorf("the run took %v", hangs.took)
	}
	// The process that asked is gone, or nobody's: the run did not wait for it.
	again := tool.want(0, "", args...)
	if got := again.disk(t); !strings.Contains(got.Failed[point], "hung before") {
		t.Errorf("the next run says %q; want it to remember", got.Failed[point])
	}
	if again.took > time.Second && again.took > hangs.took/2 {
		t.Errorf("the next run took %v after one of %v: it has asked again", again.took, hangs.took)
	}

	// Another state has no memory: once the server goes on, all is well there.
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := sysmetrics(t).want(0, "", args...).disk(t); got.Mounts[point] == nil {
		t.Errorf("the mount that answers again: %v", got.Failed)
	}
}

// A local file system below a mount that hangs is not asked either, and nobody
// has to name one of them: the way to it leads through the other.
func TestMountBelowAHangingOne(t *testing.T) {
	point, server := fuseMount(t)
	image := filepath.Join(t.TempDir(), "image")
	below := filepath.Join(point, "lost+found")
	for _, args := range [][]string{
		{"truncate", "-s", "8M", image},
		{"mkfs.ext4", "-q", image},
		{"mount", "-o", "loop", image, below},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		_ = server.Signal(syscall.SIGCONT)
		if out, err := exec.Command("umount", "--lazy", below).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", below, err, out)
		}
	})
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	got := sysmetrics(t).want(0, "")
	if d := got.disk(t); d.Mounts["/"] == nil || d.Failed[below] == "" {
		t.Errorf("failed: %v; want %s there, and / in the record", d.Failed, below)
	}
	if got.took > 10*time.Second {
		t.Errorf("the run took %v", got.took)
	}
}

// A run that is told to end while it waits for a mount ends, and at once.
func TestTerminatedWhileAMountHangs(t *testing.T) {
	_, server := fuseMount(t)
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tool := sysmetrics(t)
	cmd := tool.command("", "--fs-types", "fuse.*")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	probe := ""
	await.Until(t, "the process that asks the mount", func() bool {
		children, _ := filepath.Glob("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/task/*/children")
		for _, c := range children {
			if b, err := os.ReadFile(c); err == nil && len(strings.TrimSpace(string(b))) > 0 {
				probe = strings.Fields(string(b))[0]
			}
		}
		return probe != ""
	})
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if got := exitStatus(cmd.ProcessState); got != 128+15 {
		t.Errorf("exit status %d; want that of SIGTERM", got)
	}
	await.Until(t, "the end of the process that asks the mount", func() bool {
		_, err := os.Stat("/proc/" + probe)
		return os.IsNotExist(err)
	})
	if names, _ := filepath.Glob(filepath.Join(tool.state, "*")); len(names) > 0 {
		t.Errorf("left behind: %v", names)
	}
}
