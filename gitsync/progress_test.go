package main

import (
	"strings"
	"testing"

	"observability-hub/lib/diag"
)

func TestFetchProgress(t *testing.T) {
	said := "remote: Counting objects: 50% (1/2)\rremote: Counting objects: 100% (2/2), done.        \n" +
		"Receiving objects:  42% (" + strings.Repeat("9", 90) + ")\rReceiving objects: 100% (3/3), done.\n" +
		"From /srv/hub\n + 1...2 main -> refs/x  (forced update)\n ! [rejected] main -> refs/x (shallow update not allowed)\n" +
		"error: index file is damaged\nReceiving objects:  1%\rfatal: the remote end hung up"
	var shown strings.Builder
	p := &fetchProgress{diag: &diag.Logger{Name: name, Terminal: true, W: &shown}}
	for i := range said { // in pieces of one byte
		if n, err := p.Write([]byte(said[i : i+1])); n != 1 || err != nil {
			t.Fatal(n, err)
		}
	}
	p.diag.EndProgress()
	lines := strings.Split(shown.String(), "\r\x1b[K")
	if len(lines) != 7 || lines[3] != "gitsync: Receiving objects:  42% ("+strings.Repeat("9", 45) || lines[6] != "" {
		t.Errorf("shown: %q", lines)
	}
	want := " ! [rejected] main -> refs/x (shallow update not allowed)\nerror: index file is damaged\nfatal: the remote end hung up"
	if got := string(withoutProgress([]byte(said))); got != want {
		t.Errorf("%q; want %q", got, want)
	}
}
