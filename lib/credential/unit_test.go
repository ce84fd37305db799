package credential

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

// The rules are those of EnvironmentFile= in systemd.exec(5).
func TestParseEnvironment(t *testing.T) {
	for text, want := range map[string]string{
		"A=b\nC=d":                       "A=b|C=d",
		"# A=b\n ; C=d\n\nE=f\n":         "E=f",
		"A\nB=c":                         "B=c",
		"export A=b\n1A=b\nA-B=c\n=x\n":  "",
		"A = b c \n":                     "A=b c",
		"A=b # c\n":                      "A=b # c",
		"A=\nB=\"\"\n":                   "A=|B=",
		"A=b\r\nB=c\r\n":                 "A=b|B=c",
		`A="b c"  `:                      "A=b c",
		`A="a\"b\\c\$d\` + "`" + `e\nf"`: `A=a"b\c$d` + "`" + `e\nf`,
		"A=\"b\\\nc\nd\"":                "A=bc\nd",
		`A='b\c"d'`:                      `A=b\c"d`,
		"A='b\nc'\nD=e":                  "A=b\nc|D=e",
		`A=b"c"'d'`:                      `A=b"c"'d'`,
		`A="b"c"d"`:                      `A=bc"d"`,
		`A="b" 'c'`:                      "A=bc",
		`A=b\ c\\d\"e`:                   `A=b c\d"e`,
		"A=b \\\n  c\nD=e":               "A=b   c|D=e",
		"A=b\\ ":                         "A=b ",
		`A="b`:                           "A=b",
		"A=postgres://u:p#q@h/d?x=y#z\n": "A=postgres://u:p#q@h/d?x=y#z",
		"A=b\nA=c":                       "A=b|A=c",
		"\tA=b":                          "A=b",
		"# c \\\nA=b":                    "A=b", // since systemd 254
		"# Q=\"old\nA=b\n; Q='old\nC=d":  "A=b|C=d",
		"=x\nA=b":                        "A=b",
		"A=b\n# end":                     "A=b",
	} {
		var got []string
		for _, v := range parseEnvironment(text) {
			got = append(got, v.name+"="+v.value)
		}
		if got := strings.Join(got, "|"); got != want {
			t.Errorf("parseEnvironment(%q) = %q; want %q", text, got, want)
		}
	}
}

func FuzzParseEnvironment(f *testing.F) {
	f.Add("A=\"b\\\nc\"\n#d\nE='f")
	f.Fuzz(func(t *testing.T, text string) {
		for _, v := range parseEnvironment(text) {
			if !validName(v.name) || len(v.value) > len(text) {
				t.Fatalf("parseEnvironment(%q) = %q", text, v)
			}
		}
	})
}

// unset removes a variable until the end of the test.
func unset(t *testing.T, names ...string) {
	t.Helper()
	for _, name := range names {
		t.Setenv(name, "")
		os.Unsetenv(name)
	}
}

func TestRootByHand(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: make test runs it")
	}
	for _, tc := range []struct {
		name          string
		env           map[string]string
		file, store   string
		variable, url string // $X, and what Lookup(database_url) returns
	}{
		{name: "nothing"},
		{name: "the file", file: "X=file\nDATABASE_URL=from-file", variable: "file", url: "from-file"},
		{name: "the environment wins over the file", env: map[string]string{"X": "env", "DATABASE_URL": "from-env"}, file: "X=file\nDATABASE_URL=from-file", variable: "env", url: "from-env"},
		{name: "an empty variable wins too", env: map[string]string{"DATABASE_URL": ""}, file: "DATABASE_URL=from-file", store: "from-store"},
		{name: "the store", store: "from-store", url: "from-store"},
		{name: "the store wins over the file, as in the unit", file: "DATABASE_URL=from-file", store: "from-store", url: "from-store"},
		{name: "the environment wins over the store", env: map[string]string{"DATABASE_URL": "from-env"}, store: "from-store", url: "from-env"},
		{name: "libpq's variables win over the file and the store", env: map[string]string{"PGHOST": "h"}, file: "DATABASE_URL=from-file", store: "from-store"},
		{name: "the file's other variables beside libpq's in the environment", env: map[string]string{"PGHOST": "h"}, file: "X=file", variable: "file"},
		{name: "libpq's variables of the file beside the store", file: "PGSSLMODE=require\nPGHOST=h", store: "from-store", url: "from-store"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			unset(t, "X", "DATABASE_URL", "INVOCATION_ID", "CREDENTIALS_DIRECTORY", "PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE", "PGSSLMODE")
			for name, value := range tc.env {
				t.Setenv(name, value)
			}
			root := t.TempDir()
			write := func(name, content string) {
				path := filepath.Join(root, name)
				if content == "" {
					return
				}
				if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			write("etc/observability-hub/family.env", tc.file)
			write("etc/credstore/database_url", tc.store)
			if err := asUnit(root, "family"); err != nil {
				t.Fatal(err)
			}
			url, ok, err := lookup(root, "database_url")
			if got := os.Getenv("X"); got != tc.variable || url != tc.url || ok != (tc.url != "") || err != nil {
				t.Errorf("X = %q, database_url = %q, %v, %v; want %q, %q", got, url, ok, err, tc.variable, tc.url)
			}
			if path, _, err := file(root, "name", "database_url"); (path != "") != (tc.store != "") || err != nil {
				t.Errorf("file = %q, %v", path, err)
			}
			if path, _, err := file(root, "database_url", "other"); path != "" || err != nil {
				t.Errorf("file of another name = %q, %v", path, err)
			}
			// In a unit, systemd has already provided the settings.
			t.Setenv("INVOCATION_ID", "1")
			unset(t, "DATABASE_URL")
			if url, ok, err := lookup(root, "database_url"); ok || err != nil {
				t.Errorf("in a unit: database_url = %q, %v, %v; want none", url, ok, err)
			}
		})
	}
}

func TestEnvironmentFileCannotBeRead(t *testing.T) {
	root := t.TempDir()
	path := filepath.Join(root, "etc/observability-hub/family.env")
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := asUnit(root, "family"); sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), path) {
		t.Errorf("a directory in place of the file: %v; want status 78 and the path", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("A=\xff"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := asUnit(root, "family"); sysexits.Code(err) != sysexits.Config || !strings.Contains(err.Error(), path) {
		t.Errorf("no UTF-8: %v; want status 78 and the path", err)
	}
}

// A unit with two environment files takes the second value of a variable.
func TestTwoFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: make test runs it")
	}
	unset(t, "A", "B", "C", "INVOCATION_ID", "CREDENTIALS_DIRECTORY")
	root := t.TempDir()
	dir := filepath.Join(root, settingsDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"family.env": "A=1\nB=1\n", "unit.env": "B=2\nC=2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := asUnit(root, "family", "none", "unit"); err != nil {
		t.Fatal(err)
	}
	if got := os.Getenv("A") + os.Getenv("B") + os.Getenv("C"); got != "122" {
		t.Errorf("A, B and C are %s; want 122", got)
	}
}
