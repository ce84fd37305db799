package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/workspace"
)

// volumeBench compares volbackup with tar and zstd, with the commands of the old script, and with restic and borg, on directories.
type volumeBench struct {
	work    string
	tool    string
	rounds  int
	corpora []*corpus
	docker  *docker.Daemon
	script  string // manage_volume.sh
}

// corpus is a volume to back up, and the candidates that are compared on it.
type corpus struct {
	name, dir                            string
	cat, file, zstd, gzip                *candidate
	put, again, staged, run, runAgain    *candidate
	restic, resticAgain, borg, borgAgain *candidate

	down       []time.Duration // how long tar ran, staged
	downReport string
}

// benchVolbackup measures and prints the figures, and returns how many targets are missed.
func benchVolbackup(work string, rounds int, w io.Writer) (missed int, err error) {
	tool, err := workspace.Binary("volbackup")
	if err != nil {
		return 0, err
	}
	root, err := workspace.Root()
	if err != nil {
		return 0, err
	}
	b := &volumeBench{work: filepath.Join(work, "volbackup"), tool: tool, rounds: max(1, rounds/40), script: filepath.Join(root, "scripts", "manage_volume.sh")}
	if b.docker, err = docker.New(); err != nil {
		return 0, err
	}
	defer b.docker.Close()
	for _, c := range []struct {
		name string
		make func(string) error
	}{{"1 GiB, logs and random data", mixedData}, {"50,000 small files", smallFiles}} {
		progress("making %s", c.name)
		if err := b.addCorpus(c.name, c.make); err != nil {
			return 0, err
		}
	}
	if err := b.measureAll(); err != nil {
		return 0, err
	}
	return b.report(w), nil
}

// tarLine reads a directory as manage_volume.sh export does.
const tarLine = `tar --create --file=- --format=posix --sort=name --numeric-owner --xattrs '--xattrs-include=*' --acls --sparse --sparse-version=0.0 ` +
	`'--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime' -C "$DIR" .`

func (b *volumeBench) addCorpus(name string, fill func(string) error) error {
	base := filepath.Join(b.work, strconv.Itoa(len(b.corpora)))
	volume := fmt.Sprint("bench", len(b.corpora))
	c := &corpus{name: name, dir: b.docker.Volume(volume), downReport: filepath.Join(base, "down")}
	if err := os.MkdirAll(base, 0o755); err != nil {
		return err
	}
	if out, err := b.docker.Command("volume", "create", volume).CombinedOutput(); err != nil {
		return fmt.Errorf("docker volume create: %w: %s", err, out)
	}
	if err := fill(c.dir); err != nil {
		return err
	}
	env := []string{"PATH=" + filepath.Dir(b.tool) + ":/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "HOME=" + base, "DIR=" + c.dir, "DOWN=" + c.downReport,
		b.docker.Env(), "VOLUME=" + volume, "STATE_DIRECTORY=" + filepath.Join(base, "state"), "VOLBACKUP_MANAGE_VOLUME=" + b.script,
		"RESTIC_PASSWORD=bench", "BORG_PASSPHRASE=bench", "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK=yes"}
	// Each candidate has its own directory. The directories of first backups are emptied before each run.
	candidate := func(name, line string, fresh string) *candidate {
		place := filepath.Join(base, strings.ReplaceAll(name, " ", "-"))
		one := &candidate{name: name, shown: line, command: command{Argv: []string{"sh", "-c", line}, Env: append(env, "OUT="+place)}}
		prepare := command{Argv: []string{"sh", "-c", fresh}, Env: one.command.Env}
		one.before = func() error {
			_, err := measure(prepare)
			return err
		}
		return one
	}
	const empty = `rm -rf "$OUT"; mkdir "$OUT"; sync`
	// Both command lines that write the whole stream must get pages that the kernel has already. A virtual machine may get new
	// pages from its host, which takes ten times as long and says nothing about the candidates.
	const pages = empty + `; dd if=/dev/zero of="$OUT/pages" bs=1M count=3000 status=none; rm "$OUT/pages"`
	once := func(line string) string { return `[ -e "$OUT" ] || { mkdir "$OUT"; ` + line + `; }; sync` }
	c.cat = candidate("tar | cat", tarLine+` | cat >/dev/null`, "sync")
	c.file = candidate("tar >file", tarLine+` >"$OUT/volume.tar"`, pages)
	c.zstd = candidate("tar | zstd -T0 -3", tarLine+` | zstd -T0 -3 -q -o "$OUT/volume.tar.zst"`, empty)
	c.gzip = candidate("tar | gzip", tarLine+` | gzip >"$OUT/volume.tar.gz"`, empty)
	put := tarLine + ` | volbackup put volume --repo "$OUT"`
	c.put = candidate("volbackup put", put, empty)
	c.again = candidate("volbackup put, unchanged", put, once(put))
	c.staged = candidate("volbackup put, staged", `volbackup put volume --repo "$OUT" -- sh -c 'set -e; a=$(date +%s%N); `+strings.ReplaceAll(tarLine, "'", `'\''`)+`; b=$(date +%s%N); echo $((b - a)) >"$DOWN"'`, pages)
	run := `volbackup run "$VOLUME" --repo "$OUT"`
	c.run = candidate("volbackup run", run, empty)
	c.runAgain = candidate("volbackup run, unchanged", run, once(run))
	restic := `restic --quiet --repo "$OUT" backup "$DIR"`
	c.restic = candidate("restic backup", restic, empty+`; restic --quiet --repo "$OUT" init; sync`)
	c.resticAgain = candidate("restic backup, unchanged", restic, once(`restic --quiet --repo "$OUT" init; `+restic))
	borg := `borg create "$OUT::$(date +%s%N)" "$DIR"`
	c.borg = candidate("borg create", borg, empty+`; borg init --encryption=none "$OUT"; sync`)
	c.borgAgain = candidate("borg create, unchanged", borg, once(`borg init --encryption=none "$OUT"; `+borg))
	b.corpora = append(b.corpora, c)
	return nil
}

func (c *corpus) candidates() []*candidate {
	return []*candidate{c.cat, c.file, c.zstd, c.put, c.again, c.staged, c.run, c.runAgain, c.gzip, c.restic, c.resticAgain, c.borg, c.borgAgain}
}

// mixedData makes a GiB, three quarters of it lines of logs and the rest random.
func mixedData(dir string) error {
	random := rand.New(rand.NewPCG(1, 2))
	words := make([]string, 3000)
	for i := range words {
		words[i] = strconv.FormatUint(random.Uint64()>>24, 16)
	}
	for i := range 16 {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("file-", i)))
		if err != nil {
			return err
		}
		w := bufio.NewWriter(f)
		for n := 0; n < 64<<20; {
			var k int
			if i%4 == 3 {
				k, err = w.Write(randomBytes(random, 4096))
			} else {
				k, err = fmt.Fprintf(w, "2026-01-02T03:04:05Z %d level=info service=%s path=/api/v1/%s status=200 id=%s trace=%s\n", 1_700_000_000+n,
					words[random.IntN(20)], words[random.IntN(100)], words[random.IntN(3000)], words[random.IntN(3000)])
			}
			if err != nil {
				return err
			}
			n += k
		}
		if err := w.Flush(); err != nil {
			return err
		}
		if err := f.Close(); err != nil {
			return err
		}
	}
	return nil
}

func randomBytes(random *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(random.Uint32())
	}
	return b
}

func smallFiles(dir string) error {
	random := rand.New(rand.NewPCG(3, 4))
	for i := range 50_000 {
		subdir := filepath.Join(dir, fmt.Sprint(i/500))
		if i%500 == 0 {
			if err := os.Mkdir(subdir, 0o755); err != nil {
				return err
			}
		}
		text := strings.Repeat(fmt.Sprintf("line %d of file %d\n", random.IntN(1000), i), 1+random.IntN(200))
		if err := os.WriteFile(filepath.Join(subdir, fmt.Sprint(i)), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (b *volumeBench) measureAll() error {
	for round := -1; round < b.rounds; round++ {
		for _, c := range b.corpora {
			// This candidate's files may have left the page cache during the turn of another candidate.
			if _, err := measure(c.cat.command); err != nil {
				return err
			}
			for _, one := range c.candidates() {
				progress("volbackup, round %d of %d: %s, %s", round+1, b.rounds, c.name, one.name)
				if err := one.before(); err != nil {
					return err
				}
				cost, err := measure(one.command)
				if err != nil {
					return err
				}
				if round < 0 {
					continue
				}
				one.figures.add(cost)
				if one != c.staged {
					continue
				}
				text, err := os.ReadFile(c.downReport)
				if err != nil {
					return err
				}
				ns, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
				if err != nil {
					return err
				}
				c.down = append(c.down, time.Duration(ns))
			}
		}
	}
	for _, c := range b.corpora {
		for _, one := range c.candidates() {
			rss, err := largestRSS(one, filepath.Join(b.work, "report"))
			if err != nil {
				return err
			}
			one.figures.rss = append(one.figures.rss, rss)
		}
	}
	progress("")
	return nil
}

func (b *volumeBench) report(w io.Writer) (missed int) {
	fmt.Fprintf(w, "volbackup: medians of %d runs each, in turns; %s, %d CPUs, Linux %s.\n", b.rounds, runtime.GOARCH, runtime.NumCPU(), release())
	fmt.Fprintf(w, "CPU is that of all programs of a line, tar included; memory is the largest process's peak. Staged: the stream is read to its end before it is compressed.\n")
	for _, c := range b.corpora {
		fmt.Fprintf(w, "\n%s:\n\n", c.name)
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintln(t, "\tCPU ms\t× tar|zstd\twall ms\t× tar|zstd\tRSS MB\t")
		for _, one := range c.candidates() {
			fmt.Fprintf(t, "%s\t%s\t%.2f\t%s\t%.2f\t%s\t\n", one.name, ms(one.figures.cpu), ratio(one.figures.cpu, c.zstd.figures.cpu),
				ms(one.figures.wall), ratio(one.figures.wall, c.zstd.figures.wall), mb(median(one.figures.rss)))
		}
		t.Flush()
	}
	fmt.Fprintf(w, "\nTargets:\n\n")
	v := newVerdicts(w)
	for _, c := range b.corpora {
		v.target("put, CPU × tar | zstd, "+c.name, ratio(c.put.figures.cpu, c.zstd.figures.cpu), 1.25, "%.2f")
		v.target("put, wall × tar | zstd, "+c.name, ratio(c.put.figures.wall, c.zstd.figures.wall), 1.15, "%.2f")
		v.target("put, wall × tar | gzip, "+c.name, ratio(c.put.figures.wall, c.gzip.figures.wall), 0.2, "%.2f")
		v.target("run, unchanged, wall × first, "+c.name, ratio(c.runAgain.figures.wall, c.run.figures.wall), 0.15, "%.2f")
		v.target("put, staged: reading, wall × tar >file, "+c.name, ratio(c.down, c.file.figures.wall), 1.15, "%.2f")
		v.target("put, memory MB, "+c.name, float64(median(c.put.figures.rss))/(1<<20), 64, "%.0f")
		v.target("put, staged, memory MB, "+c.name, float64(median(c.staged.figures.rss))/(1<<20), 64, "%.0f")
	}
	v.t.Flush()
	fmt.Fprintf(w, "\nCommands; $DIR is the directory, and $OUT an empty directory:\n\n")
	for _, one := range b.corpora[0].candidates() {
		fmt.Fprintf(w, "  %s:\n    %s\n", one.name, one.shown)
	}
	return v.missed
}
