package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

// What a host with containers has in addition to this host.
const (
	vethPairs  = 150 // 300 interfaces
	bindMounts = 200
)

// answer is the loaded host's answer to a command.
type answer struct {
	Cost  cost
	Error string
}

// loadedHost is a second process of this program, in its own network, mount and process namespaces with many interfaces and
// mounts. All of them end together with the process.
type loadedHost struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	send    *json.Encoder
	receive *json.Decoder
}

func (b *bench) startLoadedHost() (*loadedHost, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	mounts := filepath.Join(b.work, "mounts")
	if err := os.Mkdir(mounts, 0o755); err != nil {
		return nil, err
	}
	h := &loadedHost{cmd: exec.Command(self, "-in-loaded-host", mounts)}
	h.cmd.Stderr = os.Stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{
		// A process namespace, because sysmetrics reads the mounts of process 1.
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if h.in, err = h.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.send, h.receive = json.NewEncoder(h.in), json.NewDecoder(out)
	if err := h.cmd.Start(); err != nil {
		return nil, err
	}
	var ready answer
	if err := h.receive.Decode(&ready); err != nil || ready.Error != "" {
		return nil, errors.Join(fmt.Errorf("the loaded host does not come up: %s", ready.Error), err, h.stop())
	}
	return h, nil
}

func (h *loadedHost) measure(c command) (cost, error) {
	if err := h.send.Encode(c); err != nil {
		return cost{}, err
	}
	var a answer
	if err := h.receive.Decode(&a); err != nil {
		return cost{}, fmt.Errorf("the loaded host: %w", err)
	}
	if a.Error != "" {
		return cost{}, fmt.Errorf("in the loaded host: %s", a.Error)
	}
	return a.Cost, nil
}

// stop ends the process and its namespaces.
func (h *loadedHost) stop() error {
	return errors.Join(h.in.Close(), h.cmd.Wait())
}

// serveLoadedHost is the process inside: it sets up the host, and then runs the commands that it gets.
func serveLoadedHost(in io.Reader, out io.Writer, args []string) error {
	if len(args) != 1 || os.Getpid() != 1 {
		return errors.New("-in-loaded-host is for this program's own use")
	}
	send := json.NewEncoder(out)
	if err := loadHost(args[0]); err != nil {
		return errors.Join(err, send.Encode(answer{Error: err.Error()}))
	}
	if err := send.Encode(answer{}); err != nil {
		return err
	}
	for receive := json.NewDecoder(bufio.NewReader(in)); ; {
		var c command
		if err := receive.Decode(&c); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		var a answer
		var err error
		if a.Cost, err = measure(c); err != nil {
			a.Error = err.Error()
		}
		if err := send.Encode(a); err != nil {
			return err
		}
	}
}

// loadHost fills the namespaces of this process.
func loadHost(mounts string) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make the mounts private: %w", err)
	}
	// /proc and /sys show the namespaces of the process that mounted them.
	for _, fs := range []string{"proc", "sysfs"} {
		if err := syscall.Mount(fs, "/"+strings.TrimSuffix(fs, "fs"), fs, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", fs, err)
		}
	}
	var links strings.Builder
	for i := range vethPairs {
		fmt.Fprintf(&links, "link add veth%da type veth peer name veth%[1]db\nlink set veth%[1]da up\nlink set veth%[1]db up\n", i)
	}
	ip := exec.Command("ip", "-batch", "-")
	ip.Stdin = strings.NewReader(links.String())
	if out, err := ip.CombinedOutput(); err != nil {
		return fmt.Errorf("ip: %w\n%s", err, out)
	}
	for i := range bindMounts {
		point := filepath.Join(mounts, fmt.Sprint(i))
		if err := os.Mkdir(point, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount(mounts, point, "", syscall.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind mount %s: %w", point, err)
		}
	}
	return nil
}

// measureLoaded compares sysmetrics with itself, in turns on this host and on the loaded one.
func (b *bench) measureLoaded() error {
	progress("making a host with %d interfaces and %d bind mounts", 2*vethPairs, bindMounts)
	host, err := b.startLoadedHost()
	if err != nil {
		return err
	}
	err = b.compareWith(host)
	progress("")
	return errors.Join(err, host.stop())
}

func (b *bench) compareWith(host *loadedHost) error {
	b.plain, b.loaded = map[string]*figures{}, map[string]*figures{}
	hosts := []struct {
		figures map[string]*figures
		suffix  string // of the state directory: each host has its own previous run
		measure func(command) (cost, error)
	}{{b.plain, "", measure}, {b.loaded, "-loaded", host.measure}}
	const warmUp = 3
	for round := -warmUp; round < b.rounds; round++ {
		progress("loaded host, round %d of %d", round+1, b.rounds)
		for _, c := range b.candidates {
			if c.name == psqlName {
				continue // it does not read the host
			}
			for _, h := range hosts {
				if c.before != nil {
					if err := c.before(); err != nil {
						return err
					}
				}
				k := command{Argv: c.command.Argv}
				for _, v := range c.command.Env {
					if strings.HasPrefix(v, "SYSMETRICS_STATE_DIR=") {
						v += h.suffix
					}
					k.Env = append(k.Env, v)
				}
				cost, err := h.measure(k)
				if err != nil {
					return err
				}
				if round < 0 {
					continue
				}
				if h.figures[c.name] == nil {
					h.figures[c.name] = &figures{}
				}
				h.figures[c.name].add(cost)
			}
		}
	}
	return nil
}
