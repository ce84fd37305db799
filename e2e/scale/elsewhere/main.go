// Elsewhere measures backups that leave the host: volbackup with restic's engine through a bad network, and a directory
// repository that rsync or restic carries away.
//
//   - For each kind of server and each fault of the network it runs `volbackup run`, and checks its exit status, whether the
//     backups that it reported are there and whole, whether the containers are up, and whether the next run succeeds.
//   - A second host, with its own name, Docker daemon, state and cache, verifies and restores from each repository. It has
//     only the location, the password and the access to the server.
//   - Two hosts back up into one restic repository at the same time.
//   - A directory repository is copied by rsync -aH, also in the middle of runs and with copies that are killed, and by
//     restic backup. The second host verifies the copy and restores from it.
//
// Run it as root from the project's directory: make bench-elsewhere, or go run ./e2e/scale/elsewhere -help. It starts its own
// Docker daemons, an S3 server (versitygw), an HTTP server of restic's REST protocol (rclone serve restic) and an SSH
// server, and changes nothing else on the host. It exits with status 1 if a rule is broken.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"observability-hub/e2e/dependent"
	"observability-hub/e2e/workspace"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == dependent.ReapArgument {
		os.Exit(dependent.Reap(os.Args[2:]))
	}
	b := &bench{}
	flag.IntVar(&b.rounds, "rounds", 1, "how often each fault is tried with each server")
	flag.Uint64Var(&b.seed, "seed", uint64(time.Now().UnixNano()), "seed of the faults and of the data")
	flag.StringVar(&b.only, "only", "", "only this part: network, hosts or carried")
	flag.StringVar(&b.server, "server", "", "only this server: s3, rest, rest-tls or sftp")
	flag.StringVar(&b.fault, "fault", "", "only this fault")
	flag.BoolVar(&b.verbose, "v", false, "print the exit status and the messages of each run to stderr")
	flag.Parse()
	if err := errors.Join(b.run(os.Stdout), workspace.Clean()); err != nil {
		fmt.Fprintf(os.Stderr, "elsewhere: error: %v\n", err)
		os.Exit(1)
	}
}

// bench is one run of this program.
type bench struct {
	rounds              int
	seed                uint64
	only, server, fault string
	verbose             bool

	work    string
	random  *rand.Rand
	web1    *host
	web2    *host
	servers []*server
	broken  []string // rules that were broken
}

// wrong notes that a rule is broken.
func (b *bench) wrong(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	b.broken = append(b.broken, text)
	fmt.Fprintf(os.Stderr, "\nelsewhere: wrong: %s\n", text)
}

func (b *bench) progress(format string, args ...any) {
	if info, err := os.Stderr.Stat(); err == nil && info.Mode()&os.ModeCharDevice != 0 {
		fmt.Fprintf(os.Stderr, "\r\033[K"+format, args...)
	} else if b.verbose {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
	}
}

func (b *bench) run(w io.Writer) (err error) {
	began := time.Now()
	b.random = rand.New(rand.NewPCG(b.seed, 1))
	if b.work, err = os.MkdirTemp("/tmp", "hub-elsewhere-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(b.work)) }()
	for _, h := range []struct {
		name string
		host **host
	}{{"web1", &b.web1}, {"web2", &b.web2}} {
		b.progress("starting %s", h.name)
		if *h.host, err = newHost(b.work, h.name); err != nil {
			return err
		}
		defer (*h.host).Close()
	}
	b.progress("starting the servers")
	if b.servers, err = startServers(b.work, b.seed); err != nil {
		return err
	}
	defer func() {
		for _, s := range b.servers {
			s.close()
		}
	}()
	fmt.Fprintf(w, "Seed %d; %s, %d CPUs, Linux %s; %s.\n", b.seed, runtime.GOARCH, runtime.NumCPU(), release(), strings.Join(versions(), ", "))
	for _, part := range []struct {
		name string
		run  func(io.Writer) error
	}{{"network", b.network}, {"hosts", b.hosts}, {"carried", b.carried}} {
		if b.only == "" || b.only == part.name {
			if err := part.run(w); err != nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
		}
	}
	b.progress("")
	fmt.Fprintf(w, "\nIt took %.0f s. Rules that were broken: %d.\n", time.Since(began).Seconds(), len(b.broken))
	for _, text := range b.broken {
		fmt.Fprintf(w, "- %s\n", text)
	}
	if len(b.broken) > 0 {
		return errors.New("rules were broken")
	}
	return nil
}

// tally counts outcomes, in the order in which they first occurred.
type tally struct {
	names  []string
	counts map[string]int
}

func (t *tally) add(name string) {
	if t.counts == nil {
		t.counts = map[string]int{}
	}
	if t.counts[name]++; !slices.Contains(t.names, name) {
		t.names = append(t.names, name)
	}
}

func (t *tally) String() string {
	if len(t.names) == 1 {
		return t.names[0]
	}
	var all []string
	for _, name := range t.names {
		all = append(all, fmt.Sprintf("%d × %s", t.counts[name], name))
	}
	return strings.Join(all, ", ")
}

// markdown writes a table.
func markdown(w io.Writer, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], len([]rune(cell)))
		}
	}
	line := func(row []string) {
		for i, cell := range row {
			fmt.Fprintf(w, "| %s%s ", cell, strings.Repeat(" ", widths[i]-len([]rune(cell))))
		}
		fmt.Fprintln(w, "|")
	}
	line(rows[0])
	for _, n := range widths {
		fmt.Fprintf(w, "|%s", strings.Repeat("-", n+2))
	}
	fmt.Fprintln(w, "|")
	for _, row := range rows[1:] {
		line(row)
	}
}
