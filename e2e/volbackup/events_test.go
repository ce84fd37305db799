package volbackup

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/e2e/events"
	"observability-hub/e2e/workspace"
)

// TestEvents provokes every event of volbackup, and checks every line against the schema.
func TestEvents(t *testing.T) {
	docs := events.Read(t)
	binary, err := workspace.Binary("volbackup")
	if err != nil {
		t.Fatal(err)
	}
	bin, err := filepath.Abs(filepath.Join("testdata", "bin"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	env := []string{"PATH=" + bin + ":/usr/bin:/bin", "HOME=" + dir, "VOLUMES=" + filepath.Join(dir, "volumes"),
		"RESTIC_REPOSITORY=" + filepath.Join(dir, "restic"), "RESTIC_PASSWORD=secret", "RESTIC_CACHE_DIR=" + filepath.Join(dir, "cache")}
	repo := filepath.Join(dir, "repo")
	// provoke runs a line of shell, in which "$V" is volbackup, and fails the test unless the event is printed.
	provoke := func(event, line string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", line)
		cmd.Dir, cmd.Env = dir, append(env, "V="+binary, "VOLBACKUP_REPO="+repo)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the exit status does not matter
		docs.Check(t, "volbackup "+event, stdout.String())
		docs.Check(t, "volbackup "+event, stderr.String())
		if !strings.Contains(stdout.String()+stderr.String(), `"msg":"`+event+`"`) {
			t.Errorf("%s does not print %s\nstdout: %s\nstderr: %s", line, event, stdout.String(), stderr.String())
		}
	}
	flip := `for f in repo/v/*.zst; do printf damaged | dd of=$f bs=1 seek=50 conv=notrunc status=none; done; `

	provoke("no_backups", `mkdir -p volumes/v volumes/w; echo v >volumes/v/f; "$V" status`)
	provoke("no_state_directory", `VOLBACKUP_REPO= HOME= "$V" list`)
	provoke("repository_unwritable", `VOLBACKUP_REPO=/proc/nowhere "$V" run`)
	provoke("staging_unwritable", `"$V" run --staging /nowhere`)
	provoke("stored", `tar -C volumes/v -c . | "$V" put v`)
	provoke("stored", `tar -C volumes/v -c . | "$V" put v`)
	provoke("backed_up", `"$V" run`)
	provoke("backup_finished", `echo more >volumes/v/f; "$V" run`)
	provoke("archive", `"$V" list`)
	provoke("archive", `echo half >repo/w/x.json; "$V" list; rm repo/w/x.json`)
	provoke("backup_status", `"$V" status`)
	provoke("backup_stale", `"$V" status --max-age 1ns`)
	provoke("archive_verified", `"$V" verify --deep`)
	provoke("restored", `"$V" restore v`)
	provoke("command_message", `echo 'echo hello >&2' >volumes/v.before; "$V" run v; rm volumes/v.before`)
	provoke("command_failed", `echo 2 >volumes/v.status; "$V" run v`)
	provoke("partly_failed", `"$V" run; rm volumes/v.status`)
	provoke("command_missing", `"$V" put v -- no-such-program`)
	provoke("no_volumes", `"$V" run --manage-volume no-such-program`)
	provoke("usage", `"$V" put ../x`)
	provoke("no_names", `"$V" run - </dev/null`)
	provoke("stream_refused", `"$V" put v </dev/null`)
	provoke("archive_removed", `"$V" prune --keep-daily 1 --keep-weekly 0 --keep-monthly 0`)
	provoke("bad_recipient", `"$V" run --recipient age1nonsense`)
	provoke("bad_identity", `"$V" run --recipient age1mrmfnwhtlprn4jquex0ukmwcm7y2nxlphuzgsgv8ew2k9mewy3rs8u7su5 >/dev/null; "$V" cat v`)
	provoke("locked", `flock repo "$V" run`)
	provoke("output_failed", `"$V" list >/dev/full`)
	provoke("failed", `mv repo/v away; echo >repo/v; "$V" list v; rm repo/v; mv away repo/v`)
	provoke("archive_damaged", `"$V" run v >/dev/null; `+flip+`"$V" cat v`)
	provoke("archives_damaged", `"$V" verify`)
	provoke("archive_verify_failed", `"$V" verify`)

	provoke("left_out", `"$V" run --exclude v`)
	provoke("nothing_included", `"$V" run --include nosuch`)
	provoke("volume_left_out", `echo >volumes/w.refused; "$V" run; rm volumes/w.refused`)
	provoke("volume_gone", `mkdir volumes/short; "$V" run >/dev/null; rmdir volumes/short; "$V" run`)
	provoke("inventory_damaged", `echo >>repo/.volumes.json; "$V" status; "$V" run`)
	small := filepath.Join(dir, "small")
	provoke("no_room", `mkdir -p `+small+`; mount -t tmpfs -o size=1m tmpfs `+small+`; head -c 300000 /dev/urandom >volumes/v/f
		VOLBACKUP_REPO=`+small+` "$V" run v; head -c 600000 /dev/zero >`+small+`/else
		VOLBACKUP_REPO=`+small+` "$V" run v; umount `+small)
	provoke("mark_failed", `mount --bind repo repo && mount -o remount,bind,ro repo; "$V" verify; umount repo`)

	provoke("restic_failed", `"$V" run --engine restic`)
	provoke("backed_up", `restic init --quiet; "$V" run --engine restic`)
	provoke("snapshot", `"$V" list --engine restic`)
	provoke("backup_status", `"$V" status --engine restic`)
	provoke("repository_verified", `"$V" verify --engine restic`)
	provoke("archives_damaged", `for f in restic/data/*/*; do chmod u+w $f; printf damaged | dd of=$f bs=1 seek=20 conv=notrunc status=none; done; "$V" verify --deep --engine restic`)
	if left, err := os.ReadDir(small); err != nil || len(left) > 0 {
		t.Errorf("%s: %d files, %v", small, len(left), err)
	}
	docs.Demand(t, "volbackup/")
}
