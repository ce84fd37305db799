package volbackup

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// To survive a power failure, a file must be fsynced after its last write and before the
// rename to its final name. The directory must be fsynced after the rename and before the
// run prints its record.
func TestSyncedBeforeRenamed(t *testing.T) {
	w := newWorld(t)
	for i, name := range []string{"stored", "unchanged", "changed"} {
		w.fill("v", 5<<20+i/2, uint64(i/2))
		report := filepath.Join(w.dir, "trace")
		cmd := w.command("strace", "-f", "-y", "-qq", "-e", "signal=none", "-e", "trace=write,pwrite64,fsync,fdatasync,rename,renameat,renameat2,link,linkat", "-o", report,
			w.binary, "run", "v")
		if got := w.finish(cmd); got.status != 0 {
			t.Fatalf("%s: status %d: %s", name, got.status, got.stderr)
		}
		trace, err := os.ReadFile(report)
		if err != nil {
			t.Fatal(err)
		}
		renames := checkTrace(t, name, w.repo, string(trace))
		if renames < 2 {
			t.Errorf("%s: %d renames seen", name, renames)
		}
	}
}

// checkTrace checks the system calls in the output of strace -y, and returns the number
// of renames.
func checkTrace(t *testing.T, name, repo, trace string) (renames int) {
	t.Helper()
	call := regexp.MustCompile(`^\d+ +(\w+)\((.*?)\) += (-?\d+)`)
	began := regexp.MustCompile(`^(\d+) +(\w+)\((.*) <unfinished \.\.\.>`)
	ended := regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>(.*)$`)
	path := regexp.MustCompile(`<(/[^>]*)>`)
	quoted := regexp.MustCompile(`"([^"]*)"`)
	synced, dirty := map[string]bool{}, map[string]bool{} // files; directories with renames that are not synced
	waiting := map[string]string{}
	for line := range strings.Lines(trace) {
		line = strings.TrimSuffix(line, "\n")
		if m := began.FindStringSubmatch(line); m != nil {
			waiting[m[1]] = m[1] + " " + m[2] + "(" + m[3]
			continue
		}
		if m := ended.FindStringSubmatch(line); m != nil {
			line = waiting[m[1]] + m[3]
		}
		m := call.FindStringSubmatch(line)
		if m == nil || m[3] == "-1" {
			continue
		}
		switch m[1] {
		case "write", "pwrite64":
			if p := path.FindStringSubmatch(m[2]); p != nil {
				synced[p[1]] = false
			}
			if strings.Contains(m[2], `\"msg\":\"backed_up\"`) && len(dirty) > 0 {
				t.Errorf("%s: the record is printed before these directories are synced: %v", name, dirty)
			}
		case "fsync", "fdatasync":
			if p := path.FindStringSubmatch(m[2]); p != nil {
				synced[p[1]] = true
				delete(dirty, p[1])
			}
		case "link", "linkat":
			if p := quoted.FindAllStringSubmatch(m[2], -1); len(p) == 2 {
				synced[p[1][1]] = true // an earlier run has synced the file
			}
		case "rename", "renameat", "renameat2":
			p := quoted.FindAllStringSubmatch(m[2], -1)
			if len(p) != 2 || !strings.HasPrefix(p[1][1], repo) {
				continue
			}
			renames++
			if !synced[p[0][1]] {
				t.Errorf("%s: renamed before the file is synced: %s", name, line)
			}
			dirty[filepath.Dir(p[1][1])] = true
		}
	}
	return renames
}
