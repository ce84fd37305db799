package unit

import (
	"slices"
	"strings"
	"testing"
)

func TestRootAndBringsFiles(t *testing.T) {
	for _, tc := range []struct {
		settings, root string
		known, brings  bool
	}{
		{"", "", true, false},
		{"RootDirectory=/", "", true, false},
		{"RootDirectory=-/srv/%p", "/srv/a", true, false},
		{"RootDirectory=/srv/%H", "", false, false},
		{"RootImage=/x.raw", "", false, false},
		{"RootImage=/x.raw\nRootImage=", "", true, false},
		{"ExtensionImages=/x.raw", "", true, true},
		{"ExtensionDirectories=/x", "", true, true},
		{"BindPaths=/opt/app", "", true, false},
		{"BindReadOnlyPaths=-/srv/x:/opt/app:norbind", "", true, true},
		{"BindReadOnlyPaths=/etc/x /srv/x:/opt/app/bin/run", "", true, true},
		{"BindReadOnlyPaths=/srv/x:/opt/ap", "", true, false},
		{"MountImages=/x.raw:/opt", "", true, true},
	} {
		u := Parse("a.service", []byte("[Service]\n"+tc.settings+"\n"))
		root, known := u.RootDirectory()
		if brings := u.BringsFiles("/opt/app/bin/run"); root != tc.root || known != tc.known || brings != tc.brings {
			t.Errorf("%s: root %q, %v, brings %v", tc.settings, root, known, brings)
		}
	}
}

func TestValues(t *testing.T) {
	long := strings.Repeat("x", maxLine-1-len("A="))
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"plain", "[S]\nA=1\nA=2\n", []string{"1", "2"}},
		{"spaces", "[S]\n\t A =\t b = c \t\n", []string{"b = c"}},
		{"reset", "[S]\nA=1\nA=\nA=2\n", []string{"2"}},
		{"reset at the end", "[S]\nA=1\nA= \n", nil},
		{"other section and case", "[T]\nA=1\n[s]\nA=2\n[S]\na=3\n", nil},
		{"section twice", "[S]\nA=1\n[T]\nA=2\n[S]\nA=3\n", []string{"1", "3"}},
		{"no section", "A=1\n[S]\nA=2\n", []string{"2"}},
		{"no newline at the end", "[S]\nA=1", []string{"1"}},
		{"comments", "# [T]\n[S]\n;A=1\n  #A=2\nA=3 # not a comment\n", []string{"3 # not a comment"}},
		{"continued", "[S]\nA=1 \\\n  2\\\n3\n", []string{"1    2 3"}},
		{"comment in the middle", "[S]\nA=1 \\\n# no \\\n  ; nor this\n2\n", []string{"1  2"}},
		{"empty line ends it", "[S]\nA=1 \\\n\nA=2\n", []string{"1", "2"}},
		{"continued at the end", "[S]\nA=1 \\", []string{"1"}},
		{"two backslashes", "[S]\nA=1 \\\\\nA=2\n", []string{`1 \\`, "2"}},
		{"three backslashes", "[S]\nA=1 \\\\\\\nA=2\n", []string{`1 \\ A=2`}},
		{"space after the backslash", "[S]\nA=1 \\ \nA=2\n", []string{`1 \`, "2"}},
		{"assignment after a continuation", "[S]\nB=1 \\\nA=2\nA=3\n", []string{"3"}},
		{"Windows", "\xef\xbb\xbf[S]\r\nA=1 \\\r\n  2\r\n\r\nA=3\r\n", []string{"1    2", "3"}},
		{"old Mac", "[S]\rA=1\rA=2\r", []string{"1", "2"}},
		{"NUL", "[S]\x00A=1\n\x00A=2\r\n\x00A=3\x00\x00\n", []string{"1", "2", "3"}},
		{"BOM before a comment", "\xef\xbb\xbf# x\n[S]\nA=1\n", []string{"1"}},
		{"a section with a space", "[S]\nA=1\n[X Y]\nA=2\n[S]\nA=3\n", []string{"1", "3"}},
		{"not an assignment", "[S]\nhello\n=1\nA=2\n", []string{"2"}},
		{"longest line", "[S]\nA=" + long + "\nA=2\n", []string{long, "2"}},
	} {
		u := Parse("a.service", []byte(tc.text))
		if got := u.Values("S", "A"); !slices.Equal(got, tc.want) || u.Err != nil {
			t.Errorf("%s: %.80q, %v; want %.80q", tc.name, got, u.Err, tc.want)
		}
	}
}

// systemd does not load these files. The assignments before the fault are kept.
func TestParseFault(t *testing.T) {
	for name, tc := range map[string]struct{ text, want string }{
		"too long":           {"[S]\nA=1\nA=" + strings.Repeat("x", maxLine-len("A=")) + "\nA=2\n", "line 3 is longer"},
		"too long, joined":   {"[S]\nA=1\nA=" + strings.Repeat("x", maxLine/2) + "\\\n" + strings.Repeat("x", maxLine/2) + "\nA=2\n", "line 4 is longer"},
		"not UTF-8":          {"[S]\nA=1\nB=\xff\nA=2\n", "line 3 is not UTF-8"},
		"section without ]":  {"[S]\nA=1\n[S\nA=2\n", "line 3: [S is not"},
		"section with quote": {"[S]\nA=1\n[S\"]\nA=2\n", "is not a section"},
	} {
		u := Parse("a.service", []byte(tc.text), []byte("[S]\nA=3\n[\nA=4\n"))
		if u.Err == nil || !strings.Contains(u.Err.Error(), tc.want) {
			t.Errorf("%s: error %v; want %q", name, u.Err, tc.want)
		}
		if got := u.Values("S", "A"); !slices.Equal(got, []string{"1", "3"}) {
			t.Errorf("%s: %.80q", name, got)
		}
	}
}

func TestWords(t *testing.T) {
	for _, tc := range []struct {
		text string
		want []string
	}{
		{"A=a  b\tc", []string{"a", "b", "c"}},
		{`A="a b" 'c "d"' e"f g"h`, []string{"a b", `c "d"`, "ef gh"}},
		{`A=a\x2db.service "c\d" 'e\'f`, []string{`a\x2db.service`, `c\d`, `e\f`}}, // no escapes
		{`A="" ''`, []string{"", ""}},
		{"A=a\nA=\nA=b\nA=c d", []string{"b", "c", "d"}},
		{"A=a \"b\nA=c", []string{"a", "c"}},
		{"A=", nil},
	} {
		if got := Parse("a.service", []byte("[S]\n"+tc.text)).Words("S", "A"); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q; want %q", tc.text, got, tc.want)
		}
	}
}

func TestBool(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "A=1": true, "A=YES": true, "A=y": true, "A=True": true, "A=t": true, "A=On": true, "A=off": false, "A=maybe": false,
		"A=yes\nA=no": false, "A=no\nA=yes": true,
		"A=yes\nA=": true, "A=yes\nA=maybe": true, // systemd 252: Failed to parse boolean value, ignoring
	} {
		if got := Parse("a.service", []byte("[S]\n"+text)).Bool("S", "A"); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestLast(t *testing.T) {
	u := Parse("a.service", []byte("[S]\nA=1\nA=2\nB=1\nB="), []byte("[S]\nA=3"))
	if a, b := u.Last("S", "A"), u.Last("S", "B"); a != "3" || b != "" {
		t.Errorf("Last = %q, %q", a, b)
	}
}

// The programs are those that systemd 252 reported, where it was asked.
func TestPrograms(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       []string
	}{
		{"a.service", "ExecStart=/bin/a b", []string{"/bin/a"}},
		{"a.service", "ExecStart=/bin/a\nExecStart=b c", []string{"/bin/a", "b"}},
		{"a.service", "ExecStart=/bin/a x\nExecStart=/bin/a y", []string{"/bin/a"}},
		{"a.service", "ExecStart=/bin/a\nExecStart=\nExecStart=/bin/b", []string{"/bin/b"}},
		{"a.service", "ExecStart=\\\n  /bin/a \\\n  b", []string{"/bin/a"}},
		{"a.service", `ExecStart="/bin/ec\x68o" a`, []string{"/bin/echo"}},
		{"a.service", `ExecStart=/opt/a\sb/prog`, []string{"/opt/a b/prog"}},
		{"a.service", `ExecStart='/opt/a b'/prog`, []string{"/opt/a b/prog"}},
		{"a.service", `ExecStart=/bin/\141\u00e4\U000000e4\t`, nil}, // a tab
		{"a.service", `ExecStart=/bin/\141\u00e4\U000000e4`, []string{"/bin/aää"}},
		{"a.service", `ExecStart=/bin/a\q`, nil}, // an unknown escape is kept, and a program cannot contain a backslash
		{"a.service", "ExecStart=-/bin/a\nExecStart=/bin/b\nExecStart=@-/bin/c c\nExecStart=\"-/bin/d\"", []string{"/bin/b"}},
		{"a.service", "ExecStart=@/bin/a argv0 b", []string{"/bin/a"}},
		{"a.service", "ExecStart=@/bin/a", nil},
		{"a.service", "ExecStart=:+/bin/a\nExecStart=!/bin/b\nExecStart=!!/bin/c\nExecStart=|/bin/d\nExecStart=:!!@/bin/e e", []string{"/bin/a", "/bin/b", "/bin/c", "/bin/d", "/bin/e"}},
		{"a.service", "ExecStart=!!!/bin/a\nExecStart=+!/bin/b\nExecStart=::/bin/c", nil},
		{"a.service", "ExecStart=-\nExecStart=+", nil},
		{"a.service", `ExecStart=/bin/a b ; /bin/c ; -/bin/d ;`, []string{"/bin/a", "/bin/c"}},
		{"a.service", `ExecStart=; /bin/c`, []string{"/bin/c"}},
		{"a.service", `ExecStart=/bin/a b \; /bin/c`, []string{"/bin/a"}},
		{"a.service", `ExecStart=/bin/a b; /bin/c`, []string{"/bin/a"}},
		{"a.service", `ExecStart=/bin/a ";" /bin/c`, []string{"/bin/a"}},
		{"a.service", `ExecStart=/bin/a ;/bin/c`, []string{"/bin/a"}},
		{"a.service", "ExecStart=\"/bin/a\nExecStart=/bin/b", []string{"/bin/b"}},
		{"a.service", "ExecStart=/bin/a \"b", nil},
		{"a.service", "ExecStart=/bin//./a/../b", []string{"/bin/a/../b"}},
		{"a.service", "ExecStart=/bin/\nExecStart=./a\nExecStart=a/b\nExecStart=..\nExecStart=/" + strings.Repeat("a", 256) + "\nExecStart=" + strings.Repeat("/a", 2048), nil},
		{"a.service", "ExecStart=${DIR}/a\nExecStart=$PROG", []string{"$PROG"}}, // systemd does not expand variables there
		{"a.service", "ExecStart=/bin/a$$b {} $HOME", []string{"/bin/a$$b"}},
		{"a.service", "ExecStart=/x/%%y\nExecStart=%p", []string{"/x/%y", "a"}},
		{"job.service", "ExecStart=/usr/local/bin/%N x", []string{"/usr/local/bin/job"}},
		{"a-b@c-d.service", "ExecStart=/x/%p/%i/%j\nExecStart=/x%f", []string{"/x/a-b/c-d/b", "/x/c/d"}},
		{"a@.service", "ExecStart=/x/%i\nExecStart=/x/%p\nExecStart=/y %i", []string{"/x/a", "/y"}},
		{"a.service", "ExecStart=/x/%H\nExecStart=/x/%e", nil},
		{"a.mount", "ExecStart=/bin/a", nil},
		{"a.socket", "ExecStart=/bin/a", nil},
	} {
		if got := Parse(tc.name, []byte("[Service]\n"+tc.text)).Programs(); !slices.Equal(got, tc.want) {
			t.Errorf("%s, %s: %q; want %q", tc.name, tc.text, got, tc.want)
		}
	}
	u := Parse("a.service", []byte("[Service]\nExecStart=/bin/a"), []byte("[Service]\nExecStart=\nExecStart=/bin/b"))
	if got := u.Programs(); !slices.Equal(got, []string{"/bin/b"}) {
		t.Errorf("with a drop-in: %q", got)
	}
}

func TestTriggers(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"a.timer", "", "a.service"},
		{"a.timer", "[Timer]\nUnit=b.target", "b.target"},
		{"a.timer", "[Timer]\nUnit=\nUnit=b.service\nUnit=c.service", "b.service"}, // systemd 252: Multiple units to trigger specified, ignoring
		{"a.timer", "[Timer]\nUnit=nonsense\nUnit=a.timer", "a.service"},
		{"a.timer", "[Path]\nUnit=b.service", "a.service"},
		{"a-b.timer", "[Timer]\nUnit=%j@%p.service", "b@a-b.service"},
		{"a@.timer", "", "a@.service"},
		{"a@x.timer", "", "a@x.service"},
		{"a@x.timer", "[Timer]\nUnit=b@%i.service", "b@x.service"},
		{"a@.timer", "[Timer]\nUnit=b@%i.service", "b@.service"},
		{"a@.timer", "[Timer]\nUnit=%i.service", ""},
		{"a.timer", "[Timer]\nUnit=%H.service", ""},
		{"a.path", "[Path]\nUnit=c.service", "c.service"},
		{"a.path", "", "a.service"},
		{"a.socket", "", "a.service"},
		{"a.socket", "[Socket]\nAccept=yes", "a@.service"},
		{"a@x.socket", "[Socket]\nAccept=yes", "a@.service"},
		{"a.socket", "[Socket]\nAccept=yes\nAccept=maybe", "a@.service"},
		{"a.socket", "[Socket]\nService=b.service\nService=c.service", "c.service"},
		{"a.socket", "[Socket]\nService=b.service\nService=\nService=c.target", "b.service"},
		{"a@.socket", "[Socket]\nService=%i.service", ""},
		{"a.automount", "", "a.mount"},
		{"a.service", "", ""},
		{"a.mount", "", ""},
	} {
		if got := strings.Join(Parse(tc.name, []byte(tc.text)).Triggers(), " "); got != tc.want {
			t.Errorf("%s with %q starts %q; want %q", tc.name, tc.text, got, tc.want)
		}
	}
}

func TestExpand(t *testing.T) {
	for _, tc := range []struct{ name, in, want string }{
		{"a-b@c\\x2dd-e.service", "%n|%N|%p|%P|%i|%I|%j|%J|%f", `a-b@c\x2dd-e.service|a-b@c\x2dd-e|a-b|a/b|c\x2dd-e|c-d/e|b|b|/c-d/e`},
		{"a.service", "%i%I.%N", ".a"},
		{"var-lib.mount", "%f", "/var/lib"},
		{"-.mount", "%f", "/"},
		{"a@-.service", "%f", "/"},
		{"a.service", "%h %t %S %C %L %E %T %V %u %U %g %G %d", "/root /run /var/lib /var/cache /var/log /etc /tmp /var/tmp root 0 root 0 /run/credentials/a.service"},
		{"a.service", "100%% %% %", "100% % %"},
		{"a.service", "%-x %{ %ä", "%-x %{ %ä"},
		{"a@.service", "%p %j %P %J %%i", "a a a a %i"},
	} {
		if got, ok := Parse(tc.name, nil).Expand(tc.in); !ok || got != tc.want {
			t.Errorf("%s: Expand(%q) = %q, %v; want %q", tc.name, tc.in, got, ok, tc.want)
		}
	}
	for _, tc := range []struct{ name, in string }{
		{"a.service", "%H"}, {"a.service", "%m"}, {"a.service", "%v"}, {"a.service", "%x"}, {"a.service", "%1"}, {"a.service", "%s"},
		{"a@.service", "%i"}, {"a@.service", "%I"}, {"a@.service", "%n"}, {"a@.service", "%N"}, {"a@.service", "%f"}, {"a@.service", "%d"},
		{`a@b\q.service`, "%I"}, {`a@b\x2.service`, "%I"}, {`a@b\xgg.service`, "%f"}, {"a@-b.service", "%f"}, {"a@b-..-c.service", "%f"},
	} {
		if got, ok := Parse(tc.name, nil).Expand(tc.in); ok {
			t.Errorf("%s: Expand(%q) = %q; want it unknown", tc.name, tc.in, got)
		}
	}
}

func TestOneshot(t *testing.T) {
	for _, tc := range []struct {
		name, text string
		want       bool
	}{
		{"a.service", "Type=oneshot\nExecStart=/bin/a", true},
		{"a.service", "ExecStart=/bin/a", false},
		{"a.service", "ExecStop=/bin/a\nRemainAfterExit=yes", true},
		{"a.service", "ExecStart=/bin/a\nExecStart=\nExecStop=/bin/a", true},
		{"a.service", "BusName=org.a", false},
		{"a.service", "Type=simple\nExecStop=/bin/a", false},
		{"a.service", "Type=oneshot\nType=\nType=nonsense", true}, // systemd 252: Failed to parse service type, ignoring
		{"a.service", "Type=oneshot\nType=exec", false},
		{"a.service", "ExecStart=-/bin/a", false},
		{"a@.service", "ExecStart=/x/%i", false},
		{"a.timer", "Type=oneshot", false},
	} {
		if got := Parse(tc.name, []byte("[Service]\n"+tc.text)).Oneshot(); got != tc.want {
			t.Errorf("%s, %q: oneshot %v", tc.name, tc.text, got)
		}
	}
}

func TestOwnSection(t *testing.T) {
	u := Parse("a-b.service", []byte("[Service]\nRemainAfterExit=on\n[X-Gitsync]\nProbe=yes\nRestart=no\nRestartOnChange=scripts/%j \"/etc/a b\" %H\nRestartOnChange=/etc/c\n"))
	if !u.Probe() || !u.RestartNo() || !u.RemainAfterExit() {
		t.Errorf("probe %v, no restart %v, remains %v", u.Probe(), u.RestartNo(), u.RemainAfterExit())
	}
	if got := u.RestartOnChange(); !slices.Equal(got, []string{"scripts/b", "/etc/a b", "/etc/c"}) {
		t.Errorf("RestartOnChange = %q", got)
	}
	u = Parse("a.service", []byte("[X-Gitsync]\nRestart=nonsense\n"))
	if u.Probe() || u.RestartNo() || u.RemainAfterExit() {
		t.Errorf("probe %v, no restart %v, remains %v", u.Probe(), u.RestartNo(), u.RemainAfterExit())
	}
}

func TestInstallable(t *testing.T) {
	for text, want := range map[string]bool{
		"[Install]\nWantedBy=a.target": true, "[Install]\nRequiredBy=a.target": true, "[Install]\nUpheldBy=a.target": true,
		"[Install]\nAlias=b.service": true, "[Install]\nAlso=b.timer": true, "[Install]\nDefaultInstance=b": true,
		"": false, "[Install]\n": false, "[Install]\nWantedBy=": false, "[Install]\nWantedBy=a.target\nWantedBy=": false, "[Unit]\nWantedBy=a.target": false,
	} {
		if got := Parse("a.service", []byte(text)).Installable(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
	if !Parse("a.service", nil, []byte("[Install]\nWantedBy=a.target")).Installable() {
		t.Error("[Install] in a drop-in is not found")
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("[S]\nA=1 \\\n# x\n 2\n"), []byte("[S]\nA=\n"))
	f.Add([]byte("\xef\xbb\xbf[S]\r\nA=\\\r\n\x00"), []byte("[S\nA=\xff"))
	f.Fuzz(func(t *testing.T, main, dropIn []byte) {
		u := Parse("a@b.service", main, dropIn)
		for _, s := range u.settings {
			for _, text := range []string{s.key, s.value} {
				if text != strings.Trim(text, whitespace) || strings.ContainsAny(text, "\n\r\x00") {
					t.Errorf("%q has whitespace around it or contains an end of a line", text)
				}
			}
		}
		u.Programs()
		u.Oneshot()
		// Comments and empty lines before a file have no meaning.
		if again := Parse("a@b.service", append([]byte("# x\n\n;y\n"), main...), dropIn); !strings.HasPrefix(string(main), bom) && !slices.Equal(again.settings, u.settings) {
			t.Errorf("a comment before %q changes %q to %q", main, u.settings, again.settings)
		}
	})
}

func FuzzWords(f *testing.F) {
	f.Add(`a "b c" d\x20e 'f`)
	f.Add("\\")
	f.Fuzz(func(t *testing.T, text string) {
		for _, unescape := range []bool{false, true} {
			rest, ok, err := text, true, error(nil)
			for ok && err == nil {
				before := len(rest)
				var word string
				word, rest, ok, err = cutWord(rest, unescape)
				if ok && len(rest) >= before {
					t.Fatalf("cutWord does not shorten %q", rest)
				}
				if len(word) > before {
					t.Errorf("%q is longer than its source", word)
				}
			}
		}
		// Any text in quotes is one word.
		if !strings.Contains(text, "'") {
			if word, rest, ok, err := cutWord("'"+text+"'", false); !ok || err != nil || rest != "" || word != text {
				t.Errorf("quoted %q is %q, %q, %v, %v", text, word, rest, ok, err)
			}
		}
	})
}

func FuzzExpand(f *testing.F) {
	f.Add("a@b.service", "%i %% %n %")
	f.Add(`a\x2db@.service`, "%P%J")
	f.Fuzz(func(t *testing.T, name, value string) {
		u := Parse(name, nil)
		if got, ok := u.Expand(strings.ReplaceAll(value, "%", "%%")); !ok || got != value {
			t.Errorf("escaped %q is %q, %v", value, got, ok)
		}
		u.Expand(value)
		if CheckName(name) == nil {
			if got, ok := u.Expand("%n"); !IsTemplate(name) && (!ok || got != name) {
				t.Errorf("%%n of %s is %s", name, got)
			}
			for _, dir := range DropInDirs(name) {
				if err := CheckDropInDir(dir); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestCunescape(t *testing.T) {
	for _, tc := range []struct {
		text, plain string
		used        int
	}{
		{"", "", 0}, {"n", "\n", 1}, {"s", " ", 1}, {"q", "", 0},
		{"x41", "A", 3}, {"x4", "", 0}, {"x4g", "", 0}, {"xfF", "\xff", 3}, {"x00", "", 0},
		{"101", "A", 3}, {"10", "", 0}, {"128", "", 0}, {"377", "\xff", 3}, {"400", "", 0}, {"000", "", 0},
		{"u00e4", "ä", 5}, {"u00e", "", 0}, {"ud800", "", 0}, {"U0001F600", "😀", 9}, {"U0001F60", "", 0}, {"U00110000", "", 0},
	} {
		if plain, used := cunescape(tc.text); plain != tc.plain || used != tc.used {
			t.Errorf("cunescape(%q) = %q, %d; want %q, %d", tc.text, plain, used, tc.plain, tc.used)
		}
	}
}
