package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/cli"
	"observability-hub/lib/sysexits"
	"observability-hub/volbackup/internal/repository"
)

// host is a directory with volumes and a repository. It puts stand-ins for
// manage_volume.sh and restic in PATH. The end-to-end tests use the same stand-in for
// manage_volume.sh.
type host struct {
	*testing.T
	dir string
}

func newHost(t *testing.T) host {
	t.Helper()
	h := host{t, t.TempDir()}
	script, err := filepath.Abs("../e2e/volbackup/testdata/bin")
	if err != nil {
		t.Fatal(err)
	}
	restic, err := filepath.Abs("testdata/bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", script+":"+restic+":"+os.Getenv("PATH"))
	t.Setenv("VOLUMES", filepath.Join(h.dir, "volumes"))
	t.Setenv("LOG", filepath.Join(h.dir, "log"))
	t.Setenv("VOLBACKUP_REPO", filepath.Join(h.dir, "repo"))
	t.Setenv("STATE_DIRECTORY", filepath.Join(h.dir, "state"))
	t.Setenv("RESTIC_REPOSITORY", filepath.Join(h.dir, "restic"))
	for _, dir := range []string{"volumes", "restic"} {
		if err := os.Mkdir(filepath.Join(h.dir, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return h
}

// write writes a file below the directory of the host.
func (h host) write(name, content string) {
	h.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		h.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		h.Fatal(err)
	}
}

func (h host) remove(name string) {
	h.Helper()
	if err := os.RemoveAll(filepath.Join(h.dir, name)); err != nil {
		h.Fatal(err)
	}
}

// call runs the tool with the file stdin, and fails the test unless it exits with
// that status.
func (h host) call(status int, stdin string, args ...string) (stdout, stderr string) {
	h.Helper()
	var files [2]*os.File
	for i, name := range []string{"stdout", "stderr"} {
		f, err := os.Create(filepath.Join(h.dir, name))
		if err != nil {
			h.Fatal(err)
		}
		defer f.Close()
		files[i] = f
	}
	in, err := os.Open(filepath.Join(h.dir, stdin))
	if err != nil {
		h.Fatal(err)
	}
	defer in.Close()
	got := cli.Main(app(), args, in, files[0], files[1])
	var texts [2]string
	for i, f := range files {
		b, err := os.ReadFile(f.Name())
		if err != nil {
			h.Fatal(err)
		}
		texts[i] = string(b)
	}
	if got != status {
		h.Fatalf("volbackup %s: status %d; want %d\n%s\n%s", strings.Join(args, " "), got, status, texts[0], texts[1])
	}
	return texts[0], texts[1]
}

// do runs the tool without stdin, otherwise like call.
func (h host) do(status int, args ...string) (stdout, stderr string) {
	h.Helper()
	h.write("nothing", "")
	return h.call(status, "nothing", args...)
}

// records returns the records of an output that have the given event.
func records(t *testing.T, output, event string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(output) {
		var r map[string]any
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if r["msg"] == event {
			found = append(found, r)
		}
	}
	return found
}

// states returns the state of each volume that status prints.
func (h host) states(status int, args ...string) map[string]string {
	h.Helper()
	out, _ := h.do(status, append([]string{"status"}, args...)...)
	states := map[string]string{}
	for _, r := range records(h.T, out, "backup_status") {
		states[fmt.Sprint(r["volume"])] = fmt.Sprint(r["state"])
	}
	return states
}

func TestCommands(t *testing.T) {
	for _, engine := range []string{"folder", "restic"} {
		t.Run(engine, func(t *testing.T) {
			h := newHost(t)
			t.Setenv("VOLBACKUP_ENGINE", engine)
			t.Setenv("TMPDIR", t.TempDir())
			h.write("volumes/a/f", "of a")
			h.write("volumes/b/f", "of b")
			h.write("volumes/c/f", "of c")
			h.write("volumes/c.labels", `{"hub.backup":"false"}`)
			h.write("volumes/a.containers", `["app"]`)
			h.write("volumes/b.containers", `["app","web"]`)
			h.write("volumes/bind/f", "elsewhere")
			h.write("volumes/bind.refused", "")
			h.write("volumes/later/f", "later")
			h.write("volumes/later.before", "exit 3")

			out, diag := h.do(sysexits.OK, "run", "--exclude", "later")
			if got := records(t, out, "backed_up"); len(got) != 2 {
				t.Errorf("backed up: %v", got)
			}
			if got := records(t, out, "left_out"); len(got) != 3 {
				t.Errorf("left out: %v", got)
			}
			if len(records(t, diag, "volume_left_out")) != 1 {
				t.Error(diag)
			}
			log, err := os.ReadFile(filepath.Join(h.dir, "log"))
			if err != nil || !strings.Contains(string(log), "with a b -- ") {
				t.Errorf("the containers were not stopped once for both volumes: %s, %v", log, err)
			}
			want := map[string]string{"a": "current", "b": "current", "c": "excluded", "bind": "excluded", "later": "excluded"}
			if got := h.states(sysexits.OK, "--max-age", "1h"); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("states %v; want %v", got, want)
			}
			if out, _ := h.do(sysexits.OK, "list", "a"); strings.Count(out, `"volume":"a"`) != 1 {
				t.Error(out)
			}
			h.do(sysexits.Failed, "list", "nowhere")
			h.do(sysexits.OK, "verify", "--deep")
			if out, _ := h.do(sysexits.OK, "cat", "a"); !strings.Contains(out, "of a") {
				t.Error("cat does not write the content")
			}
			h.write("volumes/a/f", "changed")
			h.do(sysexits.OK, "restore", "a")
			if b, err := os.ReadFile(filepath.Join(h.dir, "volumes/a/f")); err != nil || string(b) != "of a" {
				t.Errorf("restored %q, %v", b, err)
			}
			_, diag = h.do(sysexits.Unavailable, "restore", "a", "--manage-volume", "./missing")
			if !strings.Contains(diag, `"msg":"command_missing"`) {
				t.Errorf("restore without the script: %s", diag)
			}
			h.do(sysexits.Failed, "restore", "a@nothing")
			h.do(sysexits.Usage, "restore", "a@")
			h.do(sysexits.Usage, "cat", "../a")
			h.do(sysexits.Usage, "list", "../a")
			h.do(sysexits.Usage, "status", "../a")

			h.remove("volumes/b")
			out, diag = h.do(sysexits.OK, "run", "--exclude", "later")
			if got := records(t, diag, "volume_gone"); len(got) != 1 {
				t.Errorf("%d warnings about the removed volume; want 1: %s", len(got), diag)
			}
			if engine == "folder" && records(t, out, "backed_up")[0]["outcome"] != "unchanged" {
				t.Error(out)
			}
			want = map[string]string{"a": "stale", "b": "retired", "c": "excluded", "bind": "excluded", "later": "excluded"}
			if got := h.states(sysexits.Failed, "--max-age", "1ns"); fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("states %v; want %v", got, want)
			}
			// The first backup of a new volume fails.
			h.write("volumes/bad/f", "bad")
			h.write("volumes/bad.status", "2")
			t.Setenv("FAIL_COMMAND", "backup")
			t.Setenv("FAIL_STATUS", "1")
			h.do(map[string]int{"folder": sysexits.Partial, "restic": sysexits.Unavailable}[engine], "run", "--exclude", "later")
			if got := h.states(sysexits.Failed); got["bad"] != "never_backed_up" {
				t.Errorf("states %v", got)
			}
		})
	}
}

func TestPrune(t *testing.T) {
	h := newHost(t)
	h.write("volumes/v/f", "1")
	h.write("volumes/gone/f", "1")
	h.do(sysexits.OK, "run")
	h.write("volumes/v/f", "2")
	h.remove("volumes/gone")
	h.do(sysexits.OK, "run")
	removed := func(args ...string) int {
		t.Helper()
		out, _ := h.do(sysexits.OK, append([]string{"prune"}, args...)...)
		return len(records(t, out, "archive_removed"))
	}
	keep := []string{"--keep-daily", "1", "--keep-weekly", "0", "--keep-monthly", "0"}
	if n := removed(append(keep, "--dry-run")...); n != 1 {
		t.Errorf("--dry-run: %d archives; want 1", n)
	}
	if n := removed(keep...); n != 1 {
		t.Errorf("%d archives removed; want 1", n)
	}
	if n := removed("--retired", "90d"); n != 0 {
		t.Errorf("%d archives of a volume removed that was there moments ago; want 0", n)
	}
	if n := removed("--retired", "1ns", "gone"); n != 1 {
		t.Errorf("%d archives of a retired volume removed; want 1", n)
	}
	h.do(sysexits.Failed, "prune", "gone")
	h.do(sysexits.Usage, "prune", "--retired=-1s")
	if got := h.states(sysexits.OK); len(got) != 1 || got["v"] != "current" {
		t.Errorf("states %v", got)
	}
}

func TestPutCommand(t *testing.T) {
	h := newHost(t)
	h.write("tree/f", "content")
	tar := []string{"put", "v", "--", "tar", "-C", filepath.Join(h.dir, "tree"), "-c", "."}
	out, _ := h.do(sysexits.OK, tar...)
	if got := records(t, out, "stored"); len(got) != 1 || got[0]["unchanged"] != false {
		t.Error(out)
	}
	out, _ = h.do(sysexits.OK, tar...)
	if got := records(t, out, "stored"); len(got) != 1 || got[0]["unchanged"] != true {
		t.Error(out)
	}
	h.do(sysexits.OK, "cat", "v")
	b, err := os.ReadFile(filepath.Join(h.dir, "stdout"))
	if err != nil {
		t.Fatal(err)
	}
	h.write("archive", string(b))
	out, _ = h.call(sysexits.OK, "archive", "put", "v", "--made", "2024-05-31")
	if got := records(t, out, "stored"); got[0]["made"] != "2024-05-31T00:00:00.000Z" {
		t.Error(out)
	}
	h.call(sysexits.OK, "archive", "put", "w", "--staging", h.dir)
	h.write("gzip", "\x1f\x8b\x08rest")
	h.write("open", string(b[:1536]))
	h.write("long", strings.Repeat("no archive\n", 1000))
	for file, hint := range map[string]string{"gzip": "zcat FILE", "open": "head -c 1024 /dev/zero", "long": "run it again", "nothing": "run it again"} {
		if _, diag := h.call(sysexits.DataErr, file, "put", "x"); !strings.Contains(diag, hint) {
			t.Errorf("%s: %s", file, diag)
		}
	}
	_, diag := h.do(sysexits.DataErr, "put", "x", "--", "tar", "-P", "-c", filepath.Join(h.dir, "tree"))
	if !strings.Contains(diag, "names that lead out") {
		t.Error(diag)
	}
	h.do(sysexits.Failed, "put", "x", "--", "sh", "-c", "exit 3")
	h.do(sysexits.Unavailable, "put", "x", "--", "no-such-program")
	h.do(sysexits.CantCreate, "put", "x", "--staging", "/nowhere")
	h.do(sysexits.Usage, "put", "x", "--made", "tomorrow")
	h.do(sysexits.Usage, "put", "x", "--made", "2999-01-01")
	if _, err := os.Stat(filepath.Join(h.dir, "repo", "x")); err == nil {
		t.Error("something was stored")
	}
}

const (
	identity  = "AGE-SECRET-KEY-1GFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPYYSJZGFPQ4EGAEX"
	recipient = "age1zvkyg2lqzraa2lnjvqej32nkuu0ues2s82hzrye869xeexvn73equnujwj"
)

func TestEncrypted(t *testing.T) {
	h := newHost(t)
	h.write("volumes/v/f", "secret")
	h.write("recipients", "# a comment\n"+recipient+"\n")
	h.write("identity", identity)
	h.do(sysexits.OK, "run", "--recipients-file", filepath.Join(h.dir, "recipients"))
	h.do(sysexits.Config, "cat", "v")
	h.do(sysexits.Config, "verify", "--deep")
	h.do(sysexits.OK, "verify")
	h.do(sysexits.Config, "cat", "v", "--identity", filepath.Join(h.dir, "recipients"))
	if out, _ := h.do(sysexits.OK, "cat", "v", "--identity", filepath.Join(h.dir, "identity")); !strings.Contains(out, "secret") {
		t.Error("cat does not write the content")
	}
	h.do(sysexits.OK, "verify", "--deep", "--identity", filepath.Join(h.dir, "identity"))
	h.write("empty", "")
	h.do(sysexits.Config, "run", "--recipients-file", filepath.Join(h.dir, "empty"))
	h.do(sysexits.Config, "run", "--recipient", "age1wrong")
	h.do(sysexits.Config, "run", "--recipients-file", filepath.Join(h.dir, "nosuch"))
}

func TestDamaged(t *testing.T) {
	h := newHost(t)
	h.write("volumes/v/f", "content")
	h.do(sysexits.OK, "run")
	found, err := filepath.Glob(filepath.Join(h.dir, "repo/v/*.zst"))
	if err != nil || len(found) != 1 {
		t.Fatal(found, err)
	}
	flip(t, found[0], 60)
	out, _ := h.do(sysexits.DataErr, "verify")
	if got := records(t, out, "archive_verify_failed"); len(got) != 1 || got[0]["ok"] != false {
		t.Error(out)
	}
	if got := h.states(sysexits.Failed); got["v"] != "stale" {
		t.Errorf("states %v", got)
	}
	h.do(sysexits.Failed, "cat", "v")
	h.do(sysexits.OK, "run")
	if got := h.states(sysexits.OK); got["v"] != "current" {
		t.Errorf("states %v", got)
	}
}

// restic's exit status gives the reason, whatever it prints. Its messages are used only for exit status 1.
func TestResticFailed(t *testing.T) {
	for _, c := range []struct {
		code   int
		said   string
		status int
	}{
		{10, "Fatal: unknown message", sysexits.Unavailable},
		{11, "Fatal: unknown message", sysexits.TempFail},
		{12, "Fatal: unknown message", sysexits.Config},
		{11, "wrong password", sysexits.TempFail},
		{1, "Fatal: wrong password or no key found", sysexits.Config},
		{1, "Fatal: unable to create lock: repository is already locked by PID 1", sysexits.TempFail},
		{1, "Fatal: unable to open config file\nIs there a repository at the following location?", sysexits.Unavailable},
		{1, "Fatal: Please specify repository location (-r)", sysexits.Config},
		{1, "", sysexits.Unavailable},
	} {
		err := resticFailed("restic backup", c.said, c.code, false, errors.New("exit status"))
		if got := sysexits.Code(err); got != c.status {
			t.Errorf("%d, %q: %d; want %d", c.code, c.said, got, c.status)
		}
	}
	// A network that damages the list of keys is no error of the settings: an earlier call has opened the repository.
	for _, err := range []error{
		resticFailed("restic forget", "Fatal: wrong password or no key found", 1, true, errors.New("exit status")),
		resticFailed("restic forget", "", 12, true, errors.New("exit status")),
	} {
		if got := sysexits.Code(err); got != sysexits.Unavailable {
			t.Errorf("%v after a call that succeeded: %d", err, got)
		}
	}
	h := newHost(t)
	h.write("volumes/v/f", "content")
	t.Setenv("VOLBACKUP_ENGINE", "restic")
	for _, command := range []string{"unlock", "backup", "check", "forget", "prune"} {
		for code, status := range map[string]int{"10": sysexits.Unavailable, "11": sysexits.TempFail, "12": sysexits.Config} {
			if code == "12" && command != "unlock" { // unlock is the first call of a run
				status = sysexits.Unavailable
			}
			t.Setenv("FAIL_COMMAND", command)
			t.Setenv("FAIL_STATUS", code)
			h.do(status, "run")
		}
	}
	t.Setenv("FAIL_COMMAND", "")
	t.Setenv("BACKUP_STATUS", "3")
	out, _ := h.do(sysexits.Failed, "run")
	if !strings.Contains(out, "some files could not be read") {
		t.Error(out)
	}
}

// Snapshots of another host in the same restic repository do not affect the status of this host.
func TestResticOtherHosts(t *testing.T) {
	h := newHost(t)
	h.write("volumes/theirs/f", "content")
	t.Setenv("VOLBACKUP_ENGINE", "restic")
	t.Setenv("RESTIC_HOST", "another")
	h.do(sysexits.OK, "run")
	t.Setenv("RESTIC_HOST", "")
	h.remove("volumes/theirs")
	h.remove("state")
	h.write("volumes/ours/f", "content")
	if _, diag := h.do(sysexits.OK, "run"); diag != "" {
		t.Error(diag)
	}
	if got := h.states(sysexits.OK); len(got) != 1 || got["ours"] != "current" {
		t.Errorf("states %v", got)
	}
	if out, _ := h.do(sysexits.OK, "list"); strings.Count(out, `"msg":"snapshot"`) != 2 {
		t.Error(out)
	}
}

func TestGroups(t *testing.T) {
	v := func(name string, containers ...string) volume { return volume{Volume: name, Containers: containers} }
	got := groups([]volume{v("a", "1"), v("b"), v("c", "2"), v("d", "2", "1"), v("e", "3"), v("f")})
	var text []string
	for _, g := range got {
		var names []string
		for _, v := range g {
			names = append(names, v.Volume)
		}
		text = append(text, strings.Join(names, "+"))
	}
	if s := strings.Join(text, " "); s != "b c+a+d e f" && s != "b a+c+d e f" {
		t.Errorf("groups: %s", s)
	}
}

func TestChoose(t *testing.T) {
	hex := strings.Repeat("0123456789abcdef", 4)
	other := strings.Repeat("f", 64)
	all := func() []volume {
		var all []volume
		for _, v := range []volume{{Volume: "data"}, {Volume: "cache"}, {Volume: "no", Labels: map[string]string{leaveOut: "false"}}, {Volume: hex, Containers: []string{"db"}}, {Volume: other}} {
			v.name = v.Volume
			all = append(all, v)
		}
		return all
	}
	for _, c := range []struct {
		flags   choiceFlags
		chosen  string
		leftOut string
	}{
		{choiceFlags{}, "data cache", "anonymous:2 label:1"},
		{choiceFlags{Exclude: []string{"c*"}}, "data", "anonymous:2 excluded:1 label:1"},
		{choiceFlags{Include: []string{"c*"}}, "cache", "label:1 not_included:3"},
		{choiceFlags{Include: []string{"c*", "d*"}, Exclude: []string{"cache"}}, "data", "excluded:1 label:1 not_included:2"},
		{choiceFlags{Anonymous: true}, "data cache db", "label:1 unnamed:1"},
		{choiceFlags{Anonymous: true, Exclude: []string{"db"}}, "data cache", "excluded:1 label:1 unnamed:1"},
	} {
		chosen, leftOut, err := c.flags.choose(all())
		var names, reasons []string
		for _, v := range chosen {
			names = append(names, v.name)
		}
		for _, r := range sortedKeys(leftOut) {
			reasons = append(reasons, fmt.Sprint(r, ":", len(leftOut[r])))
		}
		if got, why := strings.Join(names, " "), strings.Join(reasons, " "); err != nil || got != c.chosen || why != c.leftOut {
			t.Errorf("%+v: %s, left out %s, %v; want %s, %s", c.flags, got, why, err, c.chosen, c.leftOut)
		}
	}
	if _, _, err := (choiceFlags{Include: []string{"nosuch"}}).choose(all()); sysexits.Code(err) != sysexits.Config {
		t.Errorf("a pattern that matches nothing: %v", err)
	}
}

func TestPick(t *testing.T) {
	all := []volume{{Volume: "a", Containers: []string{"app"}}, {Volume: "b"}, {Volume: "no", Labels: map[string]string{leaveOut: "false"}}}
	var got []string
	for _, v := range pick(all, []string{"b", "no", "a", "b", "unlisted"}) {
		if !v.named {
			t.Errorf("%s is not marked as named", v.Volume)
		}
		got = append(got, fmt.Sprint(v.Volume, v.Containers))
	}
	if got, want := strings.Join(got, " "), "b[] no[] a[app] unlisted[]"; got != want {
		t.Errorf("picked %s; want %s", got, want)
	}
}

func TestNameAnonymous(t *testing.T) {
	a, b, c := strings.Repeat("a", 64), strings.Repeat("b", 64), strings.Repeat("c", 64)
	v := func(name string, uses ...string) volume { // CONTAINER:DESTINATION
		v := volume{Volume: name, name: name}
		for _, use := range uses {
			container, destination, _ := strings.Cut(use, ":")
			v.Containers = append(v.Containers, container)
			if destination != "" { // an earlier manage_volume.sh prints no mounts
				v.Mounts = append(v.Mounts, mount{container, destination})
			}
		}
		return v
	}
	for _, test := range []struct {
		volumes []volume
		want    string
	}{
		{[]volume{v(a, "web:/data"), v("data", "web:/x")}, "web data"},
		{[]volume{v(a, "mongo:/data/db"), v(b, "mongo:/data/configdb")}, "mongo-data-db mongo-data-configdb"},
		{[]volume{v(a, "web:/data", "app:/srv"), v(b, "app:/run")}, "app-srv app-run"},
		{[]volume{v(a, "db"), v(b, "db:/b")}, a + " db-b"},
		{[]volume{v(a, "db:/data"), v("db", "db:/x")}, a + " db"},
		{[]volume{v(a, "db:/a-b"), v(b, "db:/a/b"), v(c, "web:/data")}, a + " " + b + " web"},
		{[]volume{v(a, "db:/a"), v(b, "db:/b"), v(c, "db-a:/data")}, a + " db-b " + c},
		{[]volume{v(a, "db:/a b"), v(b, "db:/b")}, a + " db-b"},
		{[]volume{v(a)}, a},
	} {
		var names []string
		nameAnonymous(test.volumes)
		for _, v := range test.volumes {
			names = append(names, v.name)
		}
		if got := strings.Join(names, " "); got != test.want {
			t.Errorf("%v: %s; want %s", test.volumes, got, test.want)
		}
	}
}

// The digest of a tree is accepted only as a complete line of the right length.
func TestTree(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for output, want := range map[string]string{sum + "\n": sum, sum: "", "ab\n": "", "": "", strings.Repeat("zz", 32) + "\n": ""} {
		if got := tree([]byte(output)); got != want {
			t.Errorf("tree(%q) = %q; want %q", output, got, want)
		}
	}
}

// Archives of earlier versions can have absolute names. The error of a failed restore names one.
func TestRestoreAbsoluteNames(t *testing.T) {
	p := &producer{args: []string{"sh", "-c", `exit 65`}}
	if _, err := p.open(t.Context(), "", nil); err != nil {
		t.Fatal(err)
	}
	ended := p.wait()
	p.close()
	m := &repository.Manifest{Volume: "v", ID: "20260101T000000.000Z"}
	err := (&restoreCmd{}).failed(p, ended, m, "/etc/passwd")
	if sysexits.Code(err) != sysexits.DataErr || !strings.Contains(err.Error(), "/etc/passwd") {
		t.Error(err)
	}
	if err := (&restoreCmd{}).failed(p, ended, m, ""); strings.Contains(err.Error(), "lead out") {
		t.Error(err)
	}
}
