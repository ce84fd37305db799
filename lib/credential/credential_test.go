package credential

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLookup(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{
		"from_file": "hunter2\n", "empty": "\n", "nul": "hunter2\x00", "huge": strings.Repeat("hunter2", 10_000),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "a_folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	t.Setenv("FROM_FILE", "the file wins")
	t.Setenv("FROM_ENV", "value")
	for _, tc := range []struct {
		name, want string
		ok, fails  bool
	}{
		{"from_file", "hunter2", true, false},
		{"from_env", "value", true, false},
		{"absent", "", false, false},
		{"empty", "", false, false},
		{"nul", "", false, true},
		{"huge", "", false, true},
		{"a_folder", "", false, true},
	} {
		got, ok, err := Lookup(tc.name)
		if got != tc.want || ok != tc.ok || (err != nil) != tc.fails {
			t.Errorf("Lookup(%s) = %q, %v, %v; want %q, %v, error %v", tc.name, got, ok, err, tc.want, tc.ok, tc.fails)
		}
		if err != nil && (!strings.Contains(err.Error(), tc.name) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("Lookup(%s): error %q; want it to name the file and not its content", tc.name, err)
		}
	}
}
