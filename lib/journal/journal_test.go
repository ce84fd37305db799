package journal

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestConnected(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		env  string
		want bool
	}{
		{"", false},
		{"8:1", false},
		{"garbage", false},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino), true},
		{fmt.Sprintf("%d:%d", st.Dev, st.Ino+1), false},
	} {
		t.Setenv("JOURNAL_STREAM", tc.env)
		if got := Connected(f); got != tc.want {
			t.Errorf("Connected with JOURNAL_STREAM=%q = %v; want %v", tc.env, got, tc.want)
		}
	}
}

func TestPrefix(t *testing.T) {
	for level, want := range map[string]string{"DEBUG": "", "INFO": "", "WARN": "<4>", "ERROR": "<3>"} {
		if got := Prefix(level); got != want {
			t.Errorf("Prefix(%s) = %q; want %q", level, got, want)
		}
	}
}
