package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

const (
	carriedBytes   = 32 << 20
	carriedChanged = 1 << 20
)

// carried copies a directory repository to the second host in several ways, and lets that host verify and restore.
func (b *bench) carried(w io.Writer) error {
	repo, copied := filepath.Join(b.web1.dir, "repo"), filepath.Join(b.web2.dir, "repo")
	at := func(dir string) []string { return []string{"VOLBACKUP_REPO=" + dir} }
	if err := b.web1.container("files", "carried"); err != nil {
		return err
	}
	if err := b.web1.fill(b.random, "carried", carriedBytes, carriedBytes); err != nil {
		return err
	}
	rows := [][]string{{"way", "at that moment", "verify --deep there", "restore there", "equal to the backup", "size there × size here"}}
	digest := ""
	earlier := map[string]bool{} // the digests of all backups
	// back makes a backup, of which part is changed.
	back := func(changed int) (err error) {
		if changed > 0 {
			if err := b.web1.fill(b.random, "carried", carriedBytes, changed); err != nil {
				return err
			}
		}
		if digest, err = b.web1.digest("carried"); err != nil {
			return err
		}
		earlier[digest] = true
		_, err = b.web1.must(at(repo), "volbackup run carried")
		return err
	}
	// there lets web2 verify and restore, and removes the volume again. If want is empty, the copy was taken in the middle of a
	// run or is not complete: restore must return any of the backups, and verify may report the archive that is missing.
	there := func(way, moment, dir, want string) error {
		b.progress("%s, %s: verify and restore on web2", way, moment)
		verified, err := b.web2.try(at(dir), "volbackup verify --deep")
		if err != nil {
			return err
		}
		restored, err := b.web2.try(at(dir), "volbackup restore carried")
		if err != nil {
			return err
		}
		got := ""
		if restored.status == 0 {
			if got, err = b.web2.digest("carried"); err != nil {
				return err
			}
			if _, err := b.web2.must(nil, "docker volume rm carried"); err != nil {
				return err
			}
		}
		equal := yes(got == want)
		if want == "" {
			equal = "to one of them"
			if !earlier[got] || verified.status != 0 && (verified.status != 65 || strings.Contains(moment, "writes")) {
				b.wrong("%s, %s: verify %d, restore %d, one of the backups: %v: %s%s", way, moment, verified.status, restored.status, earlier[got], verified.stderr, restored.stderr)
			}
		} else if got != want || verified.status != 0 {
			b.wrong("%s, %s: verify %d, restore %d: %s%s", way, moment, verified.status, restored.status, verified.stderr, restored.stderr)
		}
		here, err := usage(repo)
		if err != nil {
			return err
		}
		size, err := usage(dir)
		if err != nil {
			return err
		}
		rows = append(rows, []string{way, moment, verified.failure(), restored.failure(), equal, fmt.Sprintf("%.2f", float64(size)/float64(here))})
		return nil
	}
	rsync := func() (int64, error) {
		out, err := b.web1.must(nil, fmt.Sprintf("rsync -aH --stats %s/ %s/", repo, copied))
		return sent(out), err
	}

	b.progress("the directory repository")
	// Archives of one day are pruned to one, so the table of retention does not matter here.
	for _, changed := range []int{0, carriedChanged, 0} {
		if err := back(changed); err != nil {
			return err
		}
	}
	first, err := rsync()
	if err != nil {
		return err
	}
	if err := there("rsync -aH", "after a run", copied, digest); err != nil {
		return err
	}
	// restic carries the repository, or the volume itself. What each sends for the same change.
	s := b.servers[0]
	env := s.at("of-the-directory")
	if _, err := b.web1.must(env, "restic init"); err != nil {
		return err
	}
	resticFirst, _, err := b.measured(s, b.web1, env, "restic backup --quiet "+repo)
	if err != nil {
		return err
	}
	engine := s.at("of-the-volume")
	if _, err := b.web1.must(engine, "restic init"); err != nil {
		return err
	}
	engineFirst, _, err := b.measured(s, b.web1, engine, "volbackup run carried")
	if err != nil {
		return err
	}
	plain := s.at("of-the-volume-by-restic")
	if _, err := b.web1.must(plain, "restic init"); err != nil {
		return err
	}
	backup := "manage_volume.sh with carried -- restic backup --quiet " + b.web1.Volume("carried")
	plainFirst, _, err := b.measured(s, b.web1, plain, backup)
	if err != nil {
		return err
	}
	if err := back(carriedChanged); err != nil {
		return err
	}
	second, err := rsync()
	if err != nil {
		return err
	}
	resticSecond, _, err := b.measured(s, b.web1, env, "restic backup --quiet "+repo)
	if err != nil {
		return err
	}
	plainSecond, _, err := b.measured(s, b.web1, plain, backup)
	if err != nil {
		return err
	}
	engineSecond, _, err := b.measured(s, b.web1, engine, "volbackup run carried")
	if err != nil {
		return err
	}
	if err := there("rsync -aH", "after the next run", copied, digest); err != nil {
		return err
	}

	// Copies that are killed: what is there must be whole, and the next copy completes it.
	for i := range 2 * b.rounds {
		if err := back(carriedChanged); err != nil {
			return err
		}
		if _, err := b.web1.try(nil, fmt.Sprintf("rsync -aH --bwlimit=20m %s/ %s/ & p=$!; sleep %.2f; kill -9 $p", repo, copied, 0.2+b.random.Float64())); err != nil {
			return err
		}
		if err := there("rsync -aH", fmt.Sprintf("killed, %d", i+1), copied, ""); err != nil {
			return err
		}
		if _, err := rsync(); err != nil {
			return err
		}
	}
	if err := there("rsync -aH", "after those", copied, digest); err != nil {
		return err
	}

	// Copies while a run writes.
	for i := range 2 * b.rounds {
		if err := b.web1.fill(b.random, "carried", carriedBytes, carriedChanged); err != nil {
			return err
		}
		now, err := b.web1.digest("carried")
		if err != nil {
			return err
		}
		earlier[now] = true
		done := make(chan error, 1)
		go func() {
			_, err := b.web1.must(at(repo), "volbackup run carried")
			done <- err
		}()
		for running := true; running; {
			select {
			case err := <-done:
				if err != nil {
					return err
				}
				running = false
			default:
				// 24: a file vanished, which is what a temporary file does.
				r, err := b.web1.try(nil, fmt.Sprintf("rsync -aH %s/ %s/", repo, copied))
				if err != nil {
					return err
				}
				if r.status != 0 && r.status != 24 {
					b.wrong("rsync of a live repository: %d %s", r.status, r.stderr)
				}
				if err := there("rsync -aH", fmt.Sprintf("while a run writes, %d", i+1), copied, ""); err != nil {
					return err
				}
			}
		}
	}

	if err := back(carriedChanged); err != nil {
		return err
	}
	if _, err := b.web1.must(env, "restic backup --quiet "+repo); err != nil {
		return err
	}
	if _, err := b.web2.must(env, "restic restore --quiet latest --target restored"); err != nil {
		return err
	}
	if err := there("restic backup of the directory", "after a run", filepath.Join(b.web2.dir, "restored", repo), digest); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nA directory repository of a volume of %d MB, carried to a second host:\n\n", carriedBytes>>20)
	markdown(w, rows)
	mb := func(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }
	fmt.Fprintf(w, "\nBytes on the network for that volume; for the second backup %d MB in eight files had changed:\n\n", carriedChanged>>20)
	markdown(w, [][]string{{"way", "first", "second"},
		{"rsync -aH of the directory repository", mb(first), mb(second)},
		{"restic backup of the directory repository", mb(resticFirst), mb(resticSecond)},
		{"volbackup run --engine restic", mb(engineFirst), mb(engineSecond)},
		{"of that, restic backup alone, without check, forget and prune", mb(plainFirst), mb(plainSecond)}})
	return nil
}

// sent reads the statistics of rsync.
func sent(stats string) int64 {
	for line := range strings.Lines(stats) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(line), "Total bytes sent: "); ok {
			n, _ := strconv.ParseInt(strings.ReplaceAll(text, ",", ""), 10, 64)
			return n
		}
	}
	return 0
}

// usage returns the bytes that the files of a directory take, a file with several names once.
func usage(dir string) (sum int64, err error) {
	seen := map[uint64]bool{}
	err = filepath.Walk(dir, func(path string, info os.FileInfo, err error) error {
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		if st, ok := info.Sys().(*syscall.Stat_t); ok && !seen[st.Ino] {
			seen[st.Ino] = true
			sum += info.Size()
		}
		return nil
	})
	return sum, err
}
