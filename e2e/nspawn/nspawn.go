// Package nspawn boots throw-away Debian machines with systemd as PID 1, for tests of units.
//
// A machine is a container of systemd-nspawn: its own file system, processes, journal and loopback, the host's kernel, no
// other network. It boots in about a second. Its root is an overlay over a cached one (see Root), so it costs what it
// writes. It needs root; mmdebstrap, systemd-container, e2fsprogs and util-linux from Debian; and make and go when it
// installs tools. The host's own PID 1 may be anything.
//
//	result := nspawn.Run(t, nspawn.Config{
//		Tools:  []string{"sysmetrics"},
//		Script: "systemctl start system-metrics.service",
//	})
//
// A machine never outlives its test. However the test process ends, SIGKILL included, the kernel takes the machine's
// processes, mounts and loop devices with it.
package nspawn

import (
	"crypto/rand"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/workspace"
)

// Config describes a machine. Its zero value is a bare machine that runs until Stop.
type Config struct {
	// Suite is the Debian suite, Bookworm if it is empty.
	Suite string
	// Packages are Debian packages beside systemd and dbus. Each set of packages is a root of its own in the cache.
	Packages []string
	// Tools are installed by `make install`: binaries, units, man pages, scripts, sysusers, tmpfiles and presets. Nothing
	// is enabled.
	Tools []string
	// Files are put into the root before it boots, over what is there.
	Files []File
	// Binds are folders or files of the host that the machine sees.
	Binds []Bind
	// Disks are file systems of their own.
	Disks []Disk
	// Options are passed to systemd-nspawn, for example --capability=CAP_SYS_NICE.
	Options []string
	// Script is run by bash as root once multi-user.target is reached, with the folder /e2e to leave files in (see
	// Result.Dir). The machine ends when it does. Without one, the machine ends by Stop.
	Script string
	// Timeout bounds the whole life of the machine, in whole seconds; 2 minutes if it is 0. When it is reached the machine
	// is shut down and the test fails with what there is of output and journal.
	Timeout time.Duration
}

// File is a regular file in the machine. Missing folders above it are made.
type File struct {
	Path    string
	Content string
	Mode    fs.FileMode // 0644 if it is 0
}

// Bind makes From, on the host, visible as To.
type Bind struct {
	From, To string
	ReadOnly bool
}

// Disk is an empty ext4 file system of MiB mebibytes on a loop device, mounted on Path.
type Disk struct {
	Path string
	MiB  int
}

// Result is what a machine leaves.
type Result struct {
	// Status is the exit status of the script.
	Status int
	// Stdout and Stderr are the script's. What units write is in the journal.
	Stdout, Stderr string
	// Journal is the whole journal of the machine, oldest entry first.
	Journal []Entry
	// Dir is the folder that was /e2e. It goes when the test ends.
	Dir string
	// Console is what systemd wrote before it had a journal, and what systemd-nspawn has to say.
	Console string
}

//go:embed machine.sh
var machineScript string

// hostname is every machine's.
const hostname = "e2e"

// runner is what systemd starts; the exit status of the script becomes that of the machine.
const runner = `[Unit]
Description=The test's script
Requires=multi-user.target
After=multi-user.target
SuccessAction=exit
FailureAction=exit

[Service]
Type=oneshot
ExecStartPre=touch /e2e/started
ExecStart=/bin/bash /e2e/script
StandardOutput=file:/e2e/stdout
StandardError=file:/e2e/stderr
`

// Run boots a machine, waits until its script has ended, and gives what it left. A script that fails does not fail the
// test: that is for the caller to judge by Status. Everything else that goes wrong does.
func Run(t testing.TB, config Config) *Result {
	t.Helper()
	if config.Script == "" {
		t.Fatal("nspawn.Run needs a script, or the machine would never end")
	}
	return Start(t, config).Wait()
}

// Start boots a machine and returns when its script has begun, or, without a script, when it has booted.
func Start(t testing.TB, config Config) *Machine {
	t.Helper()
	m, err := start(t, config)
	if err != nil {
		t.Fatalf("boot a machine: %v", err)
	}
	return m
}

func start(t testing.TB, config Config) (*Machine, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("only root can: run the tests as root on a machine where that does no harm")
	}
	if config.Timeout == 0 {
		config.Timeout = 2 * time.Minute
	}
	if config.Script == "" {
		config.Script = "exec sleep infinity"
	}
	if config.Suite == "" {
		config.Suite = Bookworm
	}
	root, err := Root(config.Suite, config.Packages...)
	if err != nil {
		return nil, err
	}
	// Not t.TempDir(), whose long names would not do for a machine's.
	dir, err := os.MkdirTemp("", "hub-nspawn-")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	options, err := prepare(dir, config)
	if err != nil {
		return nil, err
	}
	m := &Machine{t: t, dir: dir, timeout: config.Timeout}
	arguments := slices.Concat([]string{filepath.Join(dir, "machine.sh"), "outer", dir, strconv.Itoa(int(config.Timeout.Seconds())), root}, options)
	if err := m.supervise(exec.Command("bash", arguments...)); err != nil {
		return nil, err
	}
	t.Cleanup(m.kill)
	return m, m.awaitScript()
}

// prepare fills the machine's folder and gives the options for systemd-nspawn.
func prepare(dir string, config Config) ([]string, error) {
	layer := filepath.Join(dir, "layer")
	for _, folder := range []string{"layer", "e2e", "disks"} {
		if err := os.Mkdir(filepath.Join(dir, folder), 0o755); err != nil {
			return nil, err
		}
	}
	// A machine without an id would take this for its first boot and enable whatever the presets say.
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails, see crypto/rand
	files := append([]File{
		{Path: filepath.Join(dir, "machine.sh"), Content: machineScript},
		{Path: filepath.Join(dir, "e2e/script"), Content: config.Script},
		{Path: filepath.Join(layer, "etc/machine-id"), Content: fmt.Sprintf("%x\n", id), Mode: 0o444},
		// mmdebstrap copies the name of the host.
		{Path: filepath.Join(layer, "etc/hostname"), Content: hostname + "\n"},
		{Path: filepath.Join(layer, "etc/systemd/system/e2e.service"), Content: runner},
	}, config.Files...)
	for i, file := range files {
		if i >= len(files)-len(config.Files) {
			file.Path = filepath.Join(layer, file.Path)
		}
		if err := file.write(); err != nil {
			return nil, err
		}
	}
	if len(config.Tools) > 0 {
		if err := install(layer, config.Tools); err != nil {
			return nil, err
		}
	}
	options := []string{"--hostname=" + hostname}
	for _, bind := range config.Binds {
		if bind.ReadOnly {
			options = append(options, "--bind-ro="+bind.From+":"+bind.To)
		} else {
			options = append(options, "--bind="+bind.From+":"+bind.To)
		}
	}
	for i, disk := range config.Disks {
		name := filepath.Join(dir, "disks", strconv.Itoa(i))
		if err := os.WriteFile(name+".img", nil, 0o600); err != nil {
			return nil, err
		}
		if err := os.Truncate(name+".img", int64(disk.MiB)<<20); err != nil {
			return nil, err
		}
		options = append(options, "--bind="+name+":"+disk.Path)
	}
	return append(options, config.Options...), nil
}

func (f File) write() error {
	if err := os.MkdirAll(filepath.Dir(f.Path), 0o755); err != nil {
		return err
	}
	mode := f.Mode
	if mode == 0 {
		mode = 0o644
	}
	if err := os.WriteFile(f.Path, []byte(f.Content), mode); err != nil {
		return err
	}
	// The umask of whoever runs the test has no say.
	return os.Chmod(f.Path, mode)
}

// install runs `make install` into dir. Test processes share the workspace's bin folder, hence the lock.
func install(dir string, tools []string) error {
	root, err := workspace.Root()
	if err != nil {
		return err
	}
	unlock, err := lock(filepath.Join(CacheDir(), "install.lock"))
	if err != nil {
		return err
	}
	defer unlock()
	selected := "TOOLS=" + strings.Join(tools, " ")
	for _, arguments := range [][]string{{"build", selected}, {"install", selected, "PREFIX=/usr/local", "DESTDIR=" + dir}} {
		out, err := combinedOutput(exec.Command("make", append([]string{"-C", root}, arguments...)...))
		if err != nil {
			return fmt.Errorf("make %s: %w\n%s", strings.Join(arguments, " "), err, out)
		}
	}
	return nil
}
