package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// exporter is node-exporter, with its packaged set of collectors, on loopback.
type exporter struct {
	path    string
	address string
	scrape  figures // of a running exporter: the cost of each minute
	whole   figures // start, one scrape, end: the cost if the program is run once
}

func newExporter(path string) *exporter {
	return &exporter{path: path}
}

// start runs the exporter until the returned function ends it. wrapper may be a program that runs it.
func (e *exporter) start(wrapper ...string) (cmd *exec.Cmd, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	e.address = l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, nil, err
	}
	argv := append(wrapper, e.path, "--web.listen-address="+e.address, "--log.level=error")
	cmd = exec.Command(argv[0], argv[1:]...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	stop = func() error {
		// To the process group, because strace does not forward the signal.
		if err := syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM); err != nil {
			return err
		}
		var exited *exec.ExitError
		if err := cmd.Wait(); err != nil && !errors.As(err, &exited) {
			return err
		}
		return nil
	}
	deadline := time.Now().Add(20 * time.Second)
	for {
		conn, err := net.Dial("tcp", e.address)
		if err == nil {
			return cmd, stop, conn.Close()
		}
		if time.Now().After(deadline) {
			return nil, nil, errors.Join(fmt.Errorf("node-exporter does not listen: %w", err), stop())
		}
		time.Sleep(time.Millisecond)
	}
}

func (e *exporter) get() error {
	response, err := http.Get("http://" + e.address + "/metrics")
	if err != nil {
		return err
	}
	defer response.Body.Close()
	n, err := io.Copy(io.Discard, response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || n == 0) {
		err = fmt.Errorf("node-exporter: %s, %d bytes", response.Status, n)
	}
	return err
}

// measure makes one run of each kind.
func (e *exporter) measure() error {
	began := time.Now()
	cmd, stop, err := e.start()
	if err != nil {
		return err
	}
	if err := errors.Join(e.get(), stop()); err != nil {
		return err
	}
	e.whole.add(cost{CPU: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), Wall: time.Since(began)})

	cmd, stop, err = e.start()
	if err != nil {
		return err
	}
	err = func() error {
		if err := e.get(); err != nil { // the first scrape warms up a newly started exporter
			return err
		}
		before, err := processCPU(cmd.Process.Pid)
		if err != nil {
			return err
		}
		began := time.Now()
		if err := e.get(); err != nil {
			return err
		}
		wall := time.Since(began)
		after, err := processCPU(cmd.Process.Pid)
		e.scrape.add(cost{CPU: after - before, Wall: wall})
		return err
	}()
	return errors.Join(err, stop())
}

// observe measures memory and system calls.
func (e *exporter) observe(work string) error {
	report := filepath.Join(work, "exporter")
	for range 3 {
		cmd, stop, err := e.start()
		if err != nil {
			return err
		}
		err = func() error {
			if err := e.get(); err != nil {
				return err
			}
			calls, err := e.traceScrape(cmd.Process.Pid, report)
			if err != nil {
				return err
			}
			e.scrape.syscalls = append(e.scrape.syscalls, calls)
			peak, err := peakRSS(cmd.Process.Pid)
			e.scrape.rss, e.whole.rss = append(e.scrape.rss, peak), append(e.whole.rss, peak)
			return err
		}()
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		_, stop, err = e.start("/usr/bin/strace", "-f", "-qq", "-c", "-o", report, "--")
		if err != nil {
			return err
		}
		if err := errors.Join(e.get(), stop()); err != nil {
			return err
		}
		calls, err := readTotal(report)
		if err != nil {
			return err
		}
		e.whole.syscalls = append(e.whole.syscalls, calls)
	}
	return nil
}

// traceScrape counts the system calls of one scrape by attaching to the running process.
func (e *exporter) traceScrape(pid int, report string) (int64, error) {
	strace := exec.Command("/usr/bin/strace", "-f", "-c", "-o", report, "-p", strconv.Itoa(pid))
	messages, err := strace.StderrPipe()
	if err != nil {
		return 0, err
	}
	if err := strace.Start(); err != nil {
		return 0, err
	}
	attached := false
	for s := bufio.NewScanner(messages); !attached && s.Scan(); {
		attached = strings.Contains(s.Text(), "attached")
	}
	go io.Copy(io.Discard, messages) // strace names each further thread
	if !attached {
		return 0, errors.Join(fmt.Errorf("strace cannot attach to process %d", pid), strace.Wait())
	}
	err = e.get()
	if err := strace.Process.Signal(os.Interrupt); err != nil {
		return 0, err
	}
	_ = strace.Wait() // it ends by the signal
	if err != nil {
		return 0, err
	}
	return readTotal(report)
}

func readTotal(path string) (int64, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return totalCalls(string(text))
}

// peakRSS reads VmHWM, in kB, from proc_pid_status(5).
func peakRSS(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM of process %d", pid)
}
