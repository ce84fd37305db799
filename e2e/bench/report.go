package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// report prints the figures and the targets, and returns how many targets are missed.
func (b *bench) report(w io.Writer) (missed int) {
	fmt.Fprintf(w, "sysmetrics: medians of %d runs each, in turns (node-exporter: %d); %s, %d CPUs, Linux %s.\n",
		b.rounds, len(b.exporter.scrape.cpu), runtime.GOARCH, runtime.NumCPU(), release())
	fmt.Fprintf(w, "CPU is user + system time of the client's side; memory is the largest process's peak; size leaves shared libraries out.\n\n")
	empty := &b.candidate(emptyName).figures
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tCPU ms\t× empty\twall ms\t× empty\tRSS MB\tsyscalls\twrites\tsize MB\tinstr. M\t")
	row := func(name string, f *figures, size int64) {
		fmt.Fprintf(t, "%s\t%s\t%.2f\t%s\t%.2f\t%s\t%s\t%s\t%s\t%s\t\n", name,
			ms(f.cpu), ratio(f.cpu, empty.cpu), ms(f.wall), ratio(f.wall, empty.wall),
			mb(median(f.rss)), count(f.syscalls), count(f.writes), mb(size), million(f.instructions))
	}
	for _, c := range b.candidates {
		row(c.name, &c.figures, size(c.programs))
	}
	exporterSize := size([]string{b.exporter.path})
	row("node-exporter, one scrape", &b.exporter.scrape, exporterSize)
	row("node-exporter, start + scrape", &b.exporter.whole, exporterSize)
	t.Flush()
	fmt.Fprintln(w)
	if why := b.perf[instructionEvent]; why != "" {
		fmt.Fprintf(w, "Instructions are not counted: %s.\n", why)
	}
	if why := b.perf[syscallEvent]; why != "" {
		fmt.Fprintf(w, "System calls are counted by strace, under which a Go program makes more of them: %s.\n", why)
	} else {
		fmt.Fprintln(w, "System calls are counted by perf, node-exporter's by strace.")
	}

	fmt.Fprintf(w, "\nWith %d veth interfaces and %d bind mounts, in turns with this host:\n\n", 2*vethPairs, bindMounts)
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tCPU ms here\tCPU ms there\tratio\twall ratio\t")
	for _, name := range []string{emptyName, collectName, flushName, chainName} {
		fmt.Fprintf(t, "%s\t%s\t%s\t%.2f\t%.2f\t\n", name, ms(b.plain[name].cpu), ms(b.loaded[name].cpu),
			ratio(b.loaded[name].cpu, b.plain[name].cpu), ratio(b.loaded[name].wall, b.plain[name].wall))
	}
	t.Flush()

	collect, flush, chain := b.candidate(collectName), b.candidate(flushName), b.candidate(chainName)
	fmt.Fprintf(w, "\nTargets:\n\n")
	v := newVerdicts(w)
	v.target("sysmetrics, CPU × empty", ratio(collect.figures.cpu, empty.cpu), 3.6, "%.2f")
	v.target("sysmetrics --flush, CPU × empty", ratio(flush.figures.cpu, empty.cpu), 4.4, "%.2f")
	v.target("sysmetrics --flush, CPU × sadc | sadf | psql", ratio(flush.figures.cpu, chain.figures.cpu), 1, "%.2f")
	v.target("peak RSS, MB", float64(max(median(collect.figures.rss), median(flush.figures.rss)))/1e6, 9, "%.1f")
	v.target("system calls", float64(max(median(collect.figures.syscalls), median(flush.figures.syscalls))), 520, "%.0f")
	v.target("stripped binary, MB", float64(size(collect.programs))/1e6, 8, "%.2f")
	v.target("client writes per flush", float64(median(flush.figures.writes)), 3, "%.0f")
	v.target("sysmetrics, CPU on the loaded host × here", ratio(b.loaded[collectName].cpu, b.plain[collectName].cpu), 1.5, "%.2f")
	v.target("sysmetrics --flush, the same", ratio(b.loaded[flushName].cpu, b.plain[flushName].cpu), 1.5, "%.2f")
	v.t.Flush()

	fmt.Fprintf(w, "\nCommands:\n\n")
	for _, c := range b.candidates {
		fmt.Fprintf(w, "  %s:\n    %s\n", c.name, strings.ReplaceAll(c.shown, b.work, "$TMPDIR"))
	}
	fmt.Fprintf(w, "  node-exporter:\n    %s --web.listen-address=127.0.0.1:PORT --log.level=error; GET /metrics\n", b.exporter.path)
	return v.missed
}

// verdicts is a table of targets.
type verdicts struct {
	t      *tabwriter.Writer
	missed int
}

func newVerdicts(w io.Writer) *verdicts { return &verdicts{t: tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)} }

// target adds a row whose figure must not be above a limit.
func (v *verdicts) target(what string, got, limit float64, format string) {
	verdict := "met"
	if got > limit {
		verdict = "MISSED"
		v.missed++
	}
	fmt.Fprintf(v.t, "  %s\t"+format+"\tat most "+format+"\t%s\n", what, got, limit, verdict)
}

// atLeast adds a row whose figure must not be below a limit.
func (v *verdicts) atLeast(what string, got, limit float64, format string) {
	verdict := "met"
	if got < limit {
		verdict = "MISSED"
		v.missed++
	}
	fmt.Fprintf(v.t, "  %s\t"+format+"\tat least "+format+"\t%s\n", what, got, limit, verdict)
}

func (b *bench) candidate(name string) *candidate {
	for _, c := range b.candidates {
		if c.name == name {
			return c
		}
	}
	panic("no candidate " + name)
}

// ratio returns the ratio of the medians.
func ratio(a, b []time.Duration) float64 { return float64(median(a)) / float64(median(b)) }

func ms(all []time.Duration) string {
	return fmt.Sprintf("%.2f", float64(median(all))/float64(time.Millisecond))
}

func mb(bytes int64) string { return fmt.Sprintf("%.1f", float64(bytes)/1e6) }

func count(all []int64) string {
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprint(median(all))
}

func million(all []int64) string {
	if len(all) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", float64(median(all))/1e6)
}

func release() string {
	text, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(text))
}
