package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
	"observability-hub/lib/statedir"
)

// fleetVariable makes the test binary act as a fleet of hosts. e2e/fleet builds the
// binary and runs it. So thousands of hosts send with the tool's own code in one
// process, and the tool needs no code for that.
const fleetVariable = "SYSMETRICS_TEST_FLEET"

// fleetOrder says what the fleet does. It is a JSON object on stdin.
type fleetOrder struct {
	Dir     string   // for the state directories of the hosts
	Name    string   // begins the name of each host
	Hosts   int      // number of hosts
	Seconds float64  // within which each host sends once, at a random moment
	Samples int      // number of samples that each host sends; all but one wait in its spool
	Records []string // one sample, whose time and host are replaced
	Seed    uint64
	Replay  bool // each host then sends all its records once more, as after a crash before the spool was shortened
}

// fleetReport is the result, a JSON object on stdout.
type fleetReport struct {
	Flushes, Failed            int
	P50, P99, Max              float64 // of the time of a flush, in seconds
	Began, Ended               time.Time
	Inserted, Duplicates, Lost int64
	Waiting                    int64          // records that are in a spool at the end
	Retries                    int            // flushes after Ended, for the hosts that failed
	Errors                     map[string]int // messages and their number
	CPU                        float64        // seconds of this process until Ended
}

// simulated is one host of the fleet.
type simulated struct {
	dir     string
	moment  time.Duration
	newest  []entry   // the newest sample; nil after the first attempt, which leaves it in the spool or in the table
	samples [][]entry // all samples, if they are sent again
}

// processCPU returns the CPU time of this process in seconds.
func processCPU() float64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// runFleet is the main function of a fleet.
func runFleet() error {
	var order fleetOrder
	if err := json.NewDecoder(os.Stdin).Decode(&order); err != nil {
		return err
	}
	hosts, err := order.prepare()
	if err != nil {
		return err
	}
	report := fleetReport{Began: time.Now(), Errors: map[string]int{}}
	var mu sync.Mutex
	var took []time.Duration
	addresses := regexp.MustCompile(` (at )?[0-9.]+:[0-9]+(->[0-9.]+:[0-9]+)?`) // they differ, and the messages are counted
	send := func(h *simulated) (failed bool) {
		start := time.Now()
		d, err := h.send()
		mu.Lock()
		defer mu.Unlock()
		took = append(took, time.Since(start))
		report.Inserted, report.Duplicates, report.Lost = report.Inserted+d.inserted, report.Duplicates+d.duplicates, report.Lost+d.lost
		if err != nil {
			report.Errors[addresses.ReplaceAllString(err.Error(), "")]++
		}
		return err != nil
	}
	cpu := processCPU()
	var group sync.WaitGroup
	again := make([]bool, len(hosts))
	for i, h := range hosts {
		group.Go(func() {
			time.Sleep(time.Until(report.Began.Add(h.moment)))
			again[i] = send(h)
		})
	}
	group.Wait()
	report.Ended, report.CPU = time.Now(), processCPU()-cpu
	report.Flushes = len(took)
	slices.Sort(took)
	at := func(part float64) float64 { return took[min(int(part*float64(len(took))), len(took)-1)].Seconds() }
	report.P50, report.P99, report.Max = at(0.5), at(0.99), at(1)

	// The next minutes of the hosts that failed, and of all hosts if they are to send again.
	var todo []*simulated
	for i, h := range hosts {
		if again[i] {
			report.Failed++
		}
		if again[i] || order.Replay {
			todo = append(todo, h)
		}
		if order.Replay {
			if err := h.spool(h.samples...); err != nil {
				return err
			}
		}
	}
	for round := 0; round < 50 && len(todo) > 0; round++ {
		var rest []*simulated
		slots := make(chan struct{}, 8)
		for _, h := range todo {
			slots <- struct{}{}
			group.Go(func() {
				defer func() { <-slots }()
				if send(h) {
					mu.Lock()
					defer mu.Unlock()
					rest = append(rest, h)
				}
			})
		}
		group.Wait()
		report.Retries += len(todo)
		todo = rest
	}
	for _, h := range hosts {
		w, err := countRecords(filepath.Join(h.dir, spoolFile))
		if err != nil {
			return err
		}
		report.Waiting += w.records
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// prepare makes the hosts, with all but their newest sample in their spools.
func (o fleetOrder) prepare() ([]*simulated, error) {
	random := rand.New(rand.NewPCG(o.Seed, 0))
	hosts := make([]*simulated, o.Hosts)
	for i := range hosts {
		name := fmt.Sprintf("%s%05d", o.Name, i)
		h := &simulated{dir: filepath.Join(o.Dir, name), moment: time.Duration(random.Float64() * o.Seconds * float64(time.Second))}
		for n := range o.Samples {
			at := time.Now().Add(h.moment - time.Duration(o.Samples-1-n)*time.Minute).UTC().Truncate(time.Millisecond)
			var batch []entry
			for _, line := range o.Records {
				line = strings.Replace(line, "TIME", at.Format(record.TimeFormat), 1)
				line = strings.Replace(line, "HOST", name, 1)
				batch = append(batch, entry{line: []byte(line + "\n"), host: name, time: at})
			}
			h.samples = append(h.samples, batch)
		}
		hosts[i] = h
		h.newest = h.samples[o.Samples-1]
		if err := h.spool(h.samples[:o.Samples-1]...); err != nil {
			return nil, err
		}
		if !o.Replay {
			h.samples = nil
		}
	}
	return hosts, nil
}

// spool adds samples to the spool of a host.
func (h *simulated) spool(samples ...[]entry) error {
	if len(samples) == 0 {
		return nil
	}
	dir, err := statedir.Open(context.Background(), h.dir, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	d := h.delivery()
	_, err = d.spool(queue{dir, spoolFile, d.SpoolMax << 20}, slices.Concat(samples...))
	return err
}

// delivery is that of a run of the unit.
func (h *simulated) delivery() *delivery {
	env := &cli.Env{App: app(), Diag: &diag.Logger{W: io.Discard, Now: time.Now}}
	return &delivery{env: env, stateFlags: stateFlags{h.dir, 64}, databaseFlags: databaseFlags{7 * time.Second}, sampled: time.Now()}
}

// send delivers the newest sample, and what is in the spool, as collect does.
func (h *simulated) send() (*delivery, error) {
	d := h.delivery()
	dir, err := statedir.Open(context.Background(), h.dir, 0)
	if err != nil {
		return d, err
	}
	defer dir.Close()
	batch := h.newest
	h.newest = nil
	return d, d.deliver(context.Background(), dir, batch, nothing)
}
