package volbackup

import (
	"bytes"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"observability-hub/e2e/torture"
)

// A truncated stream is rejected with exit status 65 and not published. The test truncates
// at every multiple of 512 bytes before the end mark is complete, and at random bytes.
func TestCutStreams(t *testing.T) {
	w, random := newWorld(t), torture.Random(t, 0)
	w.fill("v", 20_000, 1)
	stream := w.finish(w.command("sh", "-c", "manage_volume.sh export v"))
	if stream.status != 0 {
		t.Fatal(stream.stderr)
	}
	data := []byte(stream.stdout)
	end := len(bytes.TrimRight(data, "\x00"))
	end = (end+511)/512*512 + 1024
	var cuts []int
	for cut := 0; cut < end; cut += 512 {
		cuts = append(cuts, cut)
	}
	random.Shuffle(len(cuts), func(i, j int) { cuts[i], cuts[j] = cuts[j], cuts[i] })
	numbers := 1000
	if !torture.Full {
		cuts, numbers = cuts[:min(len(cuts), 20)], 20
	}
	for range numbers {
		cut := random.IntN(len(data))
		if cut >= end && cut%512 == 0 {
			cut-- // otherwise the end mark, and therefore the archive, would be complete
		}
		cuts = append(cuts, cut)
	}
	w.want(0, "run", "v")
	before := w.archives("v")
	for _, cut := range cuts {
		for _, volume := range []string{"v", "fresh"} {
			cmd := w.command(w.binary, "put", volume)
			cmd.Stdin = bytes.NewReader(data[:cut])
			if got := w.finish(cmd); got.status != 65 {
				t.Fatalf("truncated at %d of %d: status %d: %s", cut, len(data), got.status, got.stderr)
			}
		}
	}
	if after := w.archives("*"); len(after) != len(before) || len(w.leftovers()) > 1 {
		t.Errorf("after %d truncated streams: %q, %q", len(cuts), after, w.leftovers())
	}
	t.Logf("%d truncated streams rejected", len(cuts))
}

// verify finds a flipped bit in an archive or a manifest, and cat and restore write no
// byte of a damaged archive.
func TestFlippedBits(t *testing.T) {
	w, random := newWorld(t), torture.Random(t, 0)
	w.fill("v", 50_000, 1)
	w.want(0, "run", "v")
	archive := w.archives("v")[0]
	id := filepath.Base(archive[:len(archive)-len(".tar.zst")])
	flips := 500
	if !torture.Full {
		flips = 20
	}
	for _, path := range []string{archive, archive[:len(archive)-len(".tar.zst")] + ".json"} {
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for range flips {
			bit := random.IntN(len(good) * 8)
			bad := bytes.Clone(good)
			bad[bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(path, bad, 0o600); err != nil {
				t.Fatal(err)
			}
			if got := w.want(65, "cat", "v@"+id); got.stdout != "" {
				t.Fatalf("%s, bit %d: cat wrote %d bytes", path, bit, len(got.stdout))
			}
			w.want(65, "restore", "v@"+id)
			w.want(65, "verify", "v")
			if err := os.WriteFile(path, good, 0o600); err != nil {
				t.Fatal(err)
			}
			w.want(0, "verify", "v") // the repaired file is valid again
		}
	}
	if content, err := os.ReadFile(filepath.Join(w.volumes, "v", "file")); err != nil || len(content) != 50_000 {
		t.Errorf("the volume was changed: %d bytes, %v", len(content), err)
	}
}

// verify reads from the disk, not from the page cache: it finds a change on the disk
// even if the file was read just before.
func TestDamageBelowMemory(t *testing.T) {
	w := newWorld(t)
	disk := filepath.Join(w.dir, "disk")
	mount := w.finish(w.command("sh", "-c", `truncate -s 32M "$0" && mkfs.ext4 -q "$0" && mkdir "$1" && mount -o loop "$0" "$1"`, disk, w.repo))
	if mount.status != 0 {
		t.Fatalf("mount a file (these tests need root): %s", mount.stderr)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(w.repo, 0); err != nil {
			t.Error(err)
		}
	})
	w.fill("v", 4<<20, 1)
	w.want(0, "run", "v")
	w.want(0, "verify", "v")
	syscall.Sync()
	archive, err := os.ReadFile(w.archives("v")[0]) // the archive is in the page cache now
	if err != nil {
		t.Fatal(err)
	}
	blocks, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(blocks, archive[1<<20:][:4096])
	if at < 0 {
		t.Fatal("the archive was not found on the disk")
	}
	f, err := os.OpenFile(disk, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte{archive[1<<20] ^ 1}, int64(at)); err != nil {
		t.Fatal(err)
	}
	if again, err := os.ReadFile(w.archives("v")[0]); err != nil || !bytes.Equal(again, archive) {
		t.Fatalf("the archive is no longer in the page cache, so the test proves nothing: %v", err)
	}
	w.want(65, "verify", "v")
}
