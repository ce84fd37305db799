package volbackup

import (
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// makeCorpus fills a directory with unusual files of every kind that a file system supports.
func makeCorpus(tb testing.TB, dir string) {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, name) }
	write := func(name, content string) string {
		tb.Helper()
		must(os.MkdirAll(filepath.Dir(at(name)), 0o755))
		must(os.WriteFile(at(name), []byte(content), 0o644))
		return at(name)
	}
	run := func(name string, args ...string) {
		tb.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			tb.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
		}
	}

	// Links: hard links across directories; symbolic links that dangle, lead out, and loop.
	write("links/a", "linked")
	must(os.MkdirAll(at("other"), 0o755))
	must(os.Link(at("links/a"), at("other/z")))
	must(os.Link(at("links/a"), at("links/b")))
	for name, target := range map[string]string{"dangling": "nowhere", "out": "/etc/passwd", "up": "../../../..", "loop": "loop", "long": strings.Repeat("x", 4000)} {
		must(os.Symlink(target, at("links/"+name)))
	}
	must(os.Link(at("links/dangling"), at("other/dangling")))
	must(os.Lchown(at("links/out"), 999, 472))

	// Holes: in the middle, at the end, a file that is one hole, a file with many; and zeros that are not holes.
	hole := func(name string, size int64, data ...int64) {
		tb.Helper()
		f, err := os.Create(write(name, ""))
		must(err)
		must(f.Truncate(size))
		for _, offset := range data {
			_, err := f.WriteAt([]byte("data"), offset)
			must(err)
		}
		must(f.Close())
	}
	hole("sparse/middle", 10<<20, 0, 9<<20)
	hole("sparse/end", 10<<20, 4096)
	hole("sparse/only", 1<<30)
	hole("sparse/huge", 1<<40, 1<<39)
	var many []int64
	for i := range int64(300) {
		many = append(many, i*16384)
	}
	hole("sparse/many", 300*16384, many...)
	write("sparse/"+strings.Repeat("n", 120)+"/"+strings.Repeat("m", 200), strings.Repeat("\x00", 100000))
	hole("sparse/"+strings.Repeat("n", 120)+"/hole", 1<<20, 1<<19)

	// Extended attributes, ACLs, capabilities.
	attributed := write("attributes/file", "x")
	must(unix.Setxattr(attributed, "user.note", []byte("a\x00b=\n%"), 0))
	must(unix.Setxattr(attributed, "user.empty", nil, 0))
	must(unix.Setxattr(attributed, "trusted.hub", []byte("t"), 0))
	must(unix.Setxattr(at("attributes"), "user.folder", []byte("f"), 0))
	run("setfacl", "-m", "u:999:rw,g:472:r,m::rw", attributed)
	run("setfacl", "-m", "u:999:rwx,d:u:999:rwx,d:g:472:rx", at("attributes"))
	run("setcap", "cap_net_bind_service=+ep", write("attributes/capable", "#!"))
	must(os.Symlink("file", at("attributes/link")))
	must(unix.Lsetxattr(at("attributes/link"), "trusted.link", []byte("l"), 0))

	// Owners and modes.
	for i, mode := range []os.FileMode{0, 0o400, 0o777, 0o4755, 0o2755, 0o1777, 0o7777} {
		name := write(fmt.Sprintf("modes/%04o", mode), "m")
		must(os.Chown(name, []int{0, 999, 472, 65534, 1 << 30}[i%5], 472))
		must(unix.Chmod(name, uint32(mode)))
	}
	must(os.MkdirAll(at("modes/closed/inside"), 0o755))
	must(unix.Chmod(at("modes/closed"), 0))
	must(os.MkdirAll(at("modes/setgid"), 0o755))
	must(os.Chown(at("modes/setgid"), 999, 472))
	must(unix.Chmod(at("modes/setgid"), 0o3770))

	// Names. Bytes that are not UTF-8 must be restored unchanged.
	for _, name := range []string{
		"new\nline", "-rf", "--help", " ", " leading", "trailing ", "quote'\"`$(x)", "back\\slash", "\\012", "tab\t", "\x01\x7f\x1b[31m", "*?[]",
		"\xff\xfe\x80", "mixed-\xc3\xa9-\xe9", "ünï", "日本語", strings.Repeat("a", 255), strings.Repeat("\xff", 255), "..x", ".hidden", "...", "#x", "@LongLink", "./PaxHeaders"[2:],
	} {
		write("names/"+name, name)
	}
	must(os.Mkdir(at("names/folder\nwith\nlines"), 0o755))
	write("names/folder\nwith\nlines/-file", "")

	// Long paths. The limits of tar's header are at 99 to 101, 155 and 256 bytes.
	for _, n := range []int{97, 98, 99, 100, 101, 154, 155, 156, 157, 255, 256, 257, 1000, 3000} {
		name := fmt.Sprintf("long/%04d/", n)
		for len(name) < n {
			name += strings.Repeat("d", min(200, n-len(name))) + "/"
		}
		write(strings.TrimSuffix(name, "/")[:max(n, 12)]+"e", "long")
	}
	write("long/"+strings.Repeat(strings.Repeat("deep", 50)+"/", 20)+"bottom", "4,000 bytes") // GNU tar unpacks paths up to the kernel's limit of 4,095 bytes

	// Other kinds of files.
	must(os.MkdirAll(at("kinds"), 0o755))
	must(unix.Mkfifo(at("kinds/fifo"), 0o640))
	must(unix.Mknod(at("kinds/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))))
	must(unix.Mknod(at("kinds/block"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))))
	must(os.MkdirAll(at("kinds/empty/folders/only"), 0o755))
	write("kinds/nothing", "")
	listener, err := net.Listen("unix", at("kinds/socket"))
	must(err)
	listener.(*net.UnixListener).SetUnlinkOnClose(false)
	must(listener.Close())
	random := rand.NewChaCha8([32]byte{})
	big := make([]byte, 3<<20+1)
	_, _ = random.Read(big)
	write("kinds/big", string(big))

	// Times, last, because a new file changes the times of its directory.
	for name, when := range map[string]time.Time{
		"kinds/big": time.Unix(1700000000, 123456789), "kinds/nothing": time.Unix(0, 1), "modes/0777": time.Unix(-1, 999999999),
		"names/-rf": time.Date(1901, 12, 14, 0, 0, 0, 1, time.UTC), "names/ ": time.Date(2400, 1, 1, 0, 0, 0, 999999999, time.UTC),
		"kinds/empty": time.Unix(1600000000, 1),
	} {
		must(os.Chtimes(at(name), when, when))
	}
	must(unix.UtimesNanoAt(unix.AT_FDCWD, at("links/dangling"), []unix.Timespec{{Sec: 5, Nsec: 6}, {Sec: 7, Nsec: 8}}, unix.AT_SYMLINK_NOFOLLOW))

	// The root directory itself.
	must(unix.Setxattr(dir, "user.root", []byte("r"), 0))
	must(os.Chown(dir, 999, 472))
	must(unix.Chmod(dir, 0o1750))
	must(os.Chtimes(dir, time.Unix(1500000000, 42), time.Unix(1500000000, 42)))
}

// TestDockerFidelity backs up and restores every kind of unusual file. Only sockets may be missing.
func TestDockerFidelity(t *testing.T) {
	h := newDockerHost(t)
	h.must(t, "manage_volume.sh create corpus")
	makeCorpus(t, h.Volume("corpus"))
	want := tree(t, h.Volume("corpus"))
	for _, way := range []struct{ name, line string }{
		{"put-cat", "manage_volume.sh export corpus | volbackup put corpus && volbackup cat corpus | manage_volume.sh import put-cat"},
		{"run-restore", "volbackup run corpus && volbackup cat corpus | manage_volume.sh import run-restore"},
		{"pipe", "manage_volume.sh export corpus | manage_volume.sh import pipe"},
	} {
		t.Run(way.name, func(t *testing.T) {
			out := h.must(t, way.line)
			if !strings.Contains(out, `"identical":true`) {
				t.Errorf("import does not say that the trees are identical: %s", out)
			}
			got := tree(t, h.Volume(way.name))
			wantSameTree(t, got, want)
			t.Logf("%d files are identical", len(got))
		})
	}
	// Restore in place, over a changed tree.
	if err := os.WriteFile(filepath.Join(h.Volume("corpus"), "stale"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h.must(t, "volbackup restore corpus")
	wantSameTree(t, tree(t, h.Volume("corpus")), want)
}
