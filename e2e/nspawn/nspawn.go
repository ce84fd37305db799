// Package nspawn boots temporary Debian machines with systemd as PID 1, for tests of units.
//
// A machine is a container of systemd-nspawn. It has its own file system, processes, journal and loopback interface, and no
// other network. It uses the host's kernel, and boots in about a second. Its root is an overlay over a cached root (see
// Root), so it takes only the space that it writes. The package needs root; mmdebstrap, systemd-container, e2fsprogs and
// util-linux from Debian; and make and go if it installs tools. The host's PID 1 can be any program.
//
//	result := nspawn.Run(t, nspawn.Config{
//		Tools:  []string{"sysmetrics"},
//		Script: "systemctl start system-metrics.service",
//	})
//
// A machine never outlives its test. However the test process ends, even by SIGKILL, the kernel ends the machine's
// processes, and removes its mounts and loop devices.
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

// Config describes a machine. Its zero value is a minimal machine that runs until Stop.
type Config struct {
	// Suite is the Debian suite, Bookworm if it is empty.
	Suite string
	// Packages are Debian packages in addition to systemd and dbus. The cache has a separate root for each set of packages.
	Packages []string
	// Tools are installed by `make install`: binaries, units, man pages, scripts, sysusers, tmpfiles and presets. Nothing
	// is enabled.
	Tools []string
	// Files are written into the root before it boots. They replace existing files.
	Files []File
	// Binds are directories or files of the host that are mounted in the machine.
	Binds []Bind
	// Disks are separate file systems.
	Disks []Disk
	// Options are passed to systemd-nspawn, for example --capability=CAP_SYS_NICE.
	Options []string
	// Script is run by bash as root when multi-user.target is reached. It can leave files in the directory /e2e (see
	// Result.Dir). The machine ends together with the script. Without a script, Stop ends the machine.
	Script string
	// Timeout is the maximum time that the machine runs, in whole seconds; 2 minutes if it is 0. After that time the machine
	// is shut down, and the test fails with the output and the journal so far.
	Timeout time.Duration
}

// File is a regular file in the machine. Missing parent directories are created.
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

// Result is the result of a machine that has ended.
type Result struct {
	// Status is the exit status of the script.
	Status int
	// Stdout and Stderr are those of the script. The output of units is in the journal.
	Stdout, Stderr string
	// Journal is the whole journal of the machine, oldest entry first.
	Journal []Entry
	// Dir is the directory that was /e2e in the machine. It is removed at the end of the test.
	Dir string
	// Console is the output of systemd before the journal started, and the output of systemd-nspawn.
	Console string
}

// Left returns the content of a file that the script has left in /e2e. If there is none, the test fails and goes on.
func (r *Result) Left(t testing.TB, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(r.Dir, name))
	if err != nil {
		t.Error(err)
	}
	return string(content)
}

//go:embed machine.sh
var machineScript string

// hostname is the host name of every machine.
const hostname = "e2e"

// runner is the unit that systemd starts. The exit status of the script becomes that of the machine.
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

// Run boots a machine, waits until its script has ended, and returns its result. If the script fails, the test does not
// fail: the caller checks Status. Every other failure fails the test.
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
	// Not t.TempDir(), whose names are too long for the name of a machine.
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

// prepare fills the machine's directory and returns the options for systemd-nspawn.
func prepare(dir string, config Config) ([]string, error) {
	layer := filepath.Join(dir, "layer")
	for _, sub := range []string{"layer", "e2e", "disks"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	// Without a machine id, systemd would treat this as the first boot, and enable units by the presets.
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
	// The umask of the user that runs the test must have no effect.
	return os.Chmod(f.Path, mode)
}

// install runs `make install` into dir. It takes a lock, because test processes share the bin directory of the workspace.
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
	if !workspace.Given() {
		return nil
	}
	// The test is for the binaries in HUB_BIN_DIR.
	for _, tool := range tools {
		path, err := workspace.Binary(tool)
		if err != nil {
			return err
		}
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, "usr/local/bin", tool), content, 0o755); err != nil {
			return err
		}
	}
	return nil
}
