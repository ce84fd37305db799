package unit

import (
	"encoding/json"
	"flag"
	"fmt"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

var record = flag.Bool("record", false, "ask this host's systemd for testdata/recorded.json")

// recorded is a unit with systemd's view of it.
type recorded struct {
	Text     string // quoted as in Go, because it need not be UTF-8
	State    string // the load state
	Programs []string
	Oneshot  bool
	Remains  bool
}

const recordedFile = "testdata/recorded.json"

// Random units must have the meaning that they have for systemd. The answers are
// those of systemd 252, recorded by
//
//	go test ./internal/unit -run TestRecorded -record
func TestRecorded(t *testing.T) {
	if *record {
		askSystemd(t)
	}
	content, err := os.ReadFile(recordedFile)
	if err != nil {
		t.Fatal(err)
	}
	var all []recorded
	if err := json.Unmarshal(content, &all); err != nil {
		t.Fatal(err)
	}
	loaded := 0
	for _, r := range all {
		text, err := strconv.Unquote(r.Text)
		if err != nil {
			t.Fatal(err)
		}
		u := Parse("r.service", []byte(text))
		if r.State == "error" && u.Err == nil || r.State == "loaded" && u.Err != nil {
			t.Errorf("%s: %v; systemd: %s", r.Text, u.Err, r.State)
		}
		if r.State != "loaded" {
			continue
		}
		loaded++
		var programs []string
		for _, c := range u.commands() {
			programs = append(programs, c.program)
		}
		if got, want := fmt.Sprintf("%q", programs), fmt.Sprintf("%q", r.Programs); got != want || u.Oneshot() != r.Oneshot || u.RemainAfterExit() != r.Remains {
			t.Errorf("%s: %s, oneshot %v, remains %v; systemd: %s, %v, %v", r.Text, got, u.Oneshot(), u.RemainAfterExit(), want, r.Oneshot, r.Remains)
		}
	}
	if loaded < 200 {
		t.Errorf("systemd loaded only %d of %d units", loaded, len(all))
	}
}

// askSystemd makes random units and records what systemd --test prints about them.
func askSystemd(t *testing.T) {
	atoms := []string{
		"/bin/a", " ", "\t", `"`, "'", `\`, `\\`, `\x41`, `\n`, `\q`, `\s`, `\101`, `\u00e9`, ";", " ; ", ` \; `, "-", "+", "!", ":", "%p", "%%", "%",
		"\\\n", "\\\r\n", "\\\n# c \\\n", "\n; c\n", "\n", "\r", "\x00", "é", "x", "=", "[", "]", "$$", "{}", "/", "/./", "//", "..",
		"\nExecStart=", "\nExecStart=/bin/b ", "\nExecStart=\n", "\nType=simple\n", "\nType=\n", "\nRemainAfterExit=maybe\n", "\nRemainAfterExit=OFF\n", "\n[Service]\n", "\n[X]\n", "\n[Service\n", "\xff",
	}
	random := rand.New(rand.NewSource(252))
	dir := t.TempDir()
	var all []recorded
	wants := "[Unit]\nWants="
	for i := range 500 {
		text := "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStop=/bin/true\nExecStart="
		if random.Intn(3) > 0 {
			text += "/bin/a "
		}
		for range 1 + random.Intn(8) {
			atom := atoms[random.Intn(len(atoms))]
			if atom == "\xff" && random.Intn(4) > 0 {
				continue // rare, because systemd does not load such a file
			}
			text += atom
		}
		all = append(all, recorded{Text: strconv.Quote(text)})
		// Instances have the same prefix (%p) as r.service.
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("r@%d.service", i)), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		wants += fmt.Sprintf(" r@%d.service", i)
	}
	if err := os.WriteFile(filepath.Join(dir, "all.target"), []byte(wants+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/lib/systemd/systemd", "--test", "--system", "--unit=all.target")
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR=/tmp", "SYSTEMD_LOG_TARGET=null", "SYSTEMD_UNIT_PATH=" + dir}
	if os.Getuid() == 0 { // systemd --test refuses to run as root
		for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("systemd --test: %v", err)
	}
	dump, _, _ := strings.Cut(string(out), "-> By jobs:")
	for block := range strings.SplitSeq(dump, "\t-> Unit ") {
		var i int
		if _, err := fmt.Sscanf(block, "r@%d.service:", &i); err != nil {
			continue
		}
		section := ""
		for line := range strings.Lines(block) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "-> ") {
				section = line
			}
			key, value, _ := strings.Cut(line, ": ")
			switch {
			case key == "Unit Load State":
				all[i].State = value
			case key == "Type":
				all[i].Oneshot = value == "oneshot"
			case key == "RemainAfterExit":
				all[i].Remains = value == "yes"
			case key == "Command Line" && section == "-> ExecStart:":
				all[i].Programs = append(all[i].Programs, simplify(firstArgument(value)))
			}
		}
	}
	content, err := json.MarshalIndent(all, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(recordedFile, append(content, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// firstArgument returns the first argument of a command line in systemd's dump,
// without its quotes.
func firstArgument(line string) string {
	if !strings.HasPrefix(line, `"`) {
		first, _, _ := strings.Cut(line, " ")
		return first
	}
	var b strings.Builder
	for i := 1; i < len(line) && line[i] != '"'; i++ {
		if line[i] == '\\' && i+1 < len(line) {
			i++
		}
		b.WriteByte(line[i])
	}
	return b.String()
}
