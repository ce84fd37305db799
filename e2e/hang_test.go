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

// fuseMount mounts a small file system whose server is a process of the test. If
// that process is stopped, the mount never answers, as with a dead NFS server.
func fuseMount(t *testing.T) (point string, server *os.Process) {
	t.Helper()
	dir := t.TempDir()
	point = filepath.Join(dir, "mnt")
	image := filepath.Join(dir, "image")
	if err := os.Mkdir(point, 0o755); err != nil {
		t.Fatal(err)
	}
	files := t.TempDir() // one file: an image of a disk
	disk := filepath.Join(files, "disk")
	for _, args := range [][]string{
		{"truncate", "-s", "2M", disk},
		{"mkfs.ext4", "-q", disk},
		{"truncate", "-s", "8M", image},
		{"mkfs.ext4", "-q", "-d", files, image},
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
		// If the server is killed, all waiting calls return, and the mount can be removed.
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

// diskPayload is the disk part of a sample.
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
		t.Errorf("a FUSE mount that was not selected is in the record: %s %s", got.Mounts[point], got.Failed[point])
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
		t.Error("/ is not in the record, because of the mount that hangs")
	}
	if hangs.took > 10*time.Second {
		t.Errorf("the run took %v", hangs.took)
	}
	// The process that asked has ended, or belongs to init: the run did not wait for it.
	again := tool.want(0, "", args...)
	if got := again.disk(t); !strings.Contains(got.Failed[point], "hung before") {
		t.Errorf("the next run says %q; want it to remember the mount", got.Failed[point])
	}
	if again.took > time.Second && again.took > hangs.took/2 {
		t.Errorf("the next run took %v after one of %v: it has asked again", again.took, hangs.took)
	}

	// Another state directory does not remember the mount. After the server continues, the mount is in the record.
	if err := server.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if got := sysmetrics(t).want(0, "", args...).disk(t); got.Mounts[point] == nil {
		t.Errorf("the mount that answers again: %v", got.Failed)
	}
}

// A local file system below a mount that hangs does not answer either, because its
// path leads through that mount. Neither mount is named on the command line.
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

// An ext4 on a disk that is dead still answers: the kernel has the numbers in
// memory.
func TestDeadDisk(t *testing.T) {
	point, server := fuseMount(t)
	mounted := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro", filepath.Join(point, "disk"), mounted).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Cleanup(func() {
		_ = server.Signal(syscall.SIGCONT)
		if out, err := exec.Command("umount", "--lazy", mounted).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v\n%s", mounted, err, out)
		}
	})
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("2"), 0); err != nil { // drops everything from memory that can be dropped
		t.Fatal(err)
	}
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	got := sysmetrics(t).want(0, "")
	if d := got.disk(t); d.Mounts[mounted] == nil || d.Failed[mounted] != "" {
		t.Errorf("%s: payload %s, failed %q; want it in the record", mounted, d.Mounts[mounted], d.Failed[mounted])
	}
}

// A mount whose type counts as a local disk may hang as well: a disk behind iSCSI, a frozen file system, a false type. Only its
// own numbers are missing, whether the run prints or flushes, and however it ends.
func TestLocalMountThatHangs(t *testing.T) {
	point, server := fuseMount(t)
	host := newFixtureHost(t, "web1")
	host.tick(t)
	host.write(t, map[string]string{"1/mountinfo": "25 1 8:1 / / rw - ext4 /dev/vda rw\n26 25 8:2 / " + point + " rw - xfs /dev/vdb rw\n27 25 8:3 / /usr rw - xfs /dev/vdc rw\n"})
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{nil, {"--interval=1ms"}} {
		tool := sysmetrics(t)
		got := tool.want(0, "", append(args, host.args()...)...)
		if n := len(parseLines(t, []byte(got.stdout))); n != 4 {
			t.Errorf("%v: %d records; want 4", args, n)
		}
		d := got.disk(t)
		if d.Mounts["/"] == nil || d.Mounts["/usr"] == nil || d.Mounts[point] != nil || d.Failed[point] == "" {
			t.Errorf("%v: mounts %v, failed %v; want / and /usr, and %s failed", args, d.Mounts, d.Failed, point)
		}
		if got.took > 10*time.Second {
			t.Errorf("%v: the run took %v", args, got.took)
		}
		again := tool.want(0, "", host.args()...)
		if d := again.disk(t); !strings.Contains(d.Failed[point], "hung before") {
			t.Errorf("%v: the next run says %v; want it to remember", args, d.Failed)
		}
	}
	flushed := sysmetrics(t)
	flushed.want(0, "", append([]string{"collect", "--flush"}, host.args()...)...)
	expectSpooled(t, flushed, 4)

	// The run is ended while it waits: the next run gets the lock at once.
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		tool := sysmetrics(t)
		cmd := tool.command("", host.args()...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		askingChild(t, cmd)
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_ = cmd.Wait()
		if got := exitStatus(cmd.ProcessState); got != 128+int(signal) {
			t.Errorf("%v: exit status %d", signal, got)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%v: it took %v to end", signal, took)
		}
		tool.want(0, "", host.args()...)
	}
}

// askingChild waits for the process that asks the mounts, and returns its process number.
func askingChild(t *testing.T, cmd *exec.Cmd) (pid string) {
	t.Helper()
	await.Until(t, "the process that asks the mount", func() bool {
		children, _ := filepath.Glob("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/task/*/children")
		for _, c := range children {
			if b, err := os.ReadFile(c); err == nil && len(strings.TrimSpace(string(b))) > 0 {
				pid = strings.Fields(string(b))[0]
			}
		}
		return pid != ""
	})
	return pid
}

// A run that gets SIGTERM while it waits for a mount ends at once.
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
	probe := askingChild(t, cmd)
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
