package credential

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/lib/sysexits"
)

// What systemd-creds encrypt of systemd 252 prints for the text "enc-a".
const sealed = `Whxqht+dQJax1aZeCGLxmiAAAAABAAAADAAAABAAAAAanrMTc094F0KSx6AAAAAA8nLJF
hzzoSP/goQSdRCTan+Ji+3rzCzxaUOq8YqvYwXyZ3Lr0jXHbPuV6UeOYdsmS9Qm0e7F2w==
`

func TestIsEncrypted(t *testing.T) {
	for text, want := range map[string]bool{
		sealed:                               true,
		strings.ReplaceAll(sealed, "\n", ""): true,
		"":                                   false,
		"short":                              false,
		"postgres://hub:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA@db/hub": false,
		"host=db password=" + strings.Repeat("A", 200):                                                       false,
		"user:" + strings.Repeat("A", 200):                                                                   false,
		"-----BEGIN OPENSSH PRIVATE KEY-----\n" + sealed + "-----END OPENSSH PRIVATE KEY-----\n":             false,
		"git.example.org ssh-ed25519 " + sealed:                                                              false,
		"AGE-SECRET-KEY-1" + strings.Repeat("Q", 58) + "\n":                                                  false,
	} {
		if got := isEncrypted(text); got != want {
			t.Errorf("isEncrypted(%q) = %v", text, got)
		}
	}
}

// A credential that systemd 257 passed on without decrypting it is an error that says what to add to the unit.
func TestNotDecrypted(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	path := filepath.Join(dir, "database_url")
	if err := os.WriteFile(path, []byte(sealed), 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, looked := Lookup("database_url")
	_, _, filed := File("database_url", "database_url")
	for _, err := range []error{looked, filed} {
		e, ok := errors.AsType[*sysexits.Error](err)
		if !ok || e.Code != sysexits.Config || !strings.Contains(e.Error(), path) || strings.Contains(e.Error(), "Whxq") || !strings.Contains(e.Hint, "LoadCredentialEncrypted=database_url") {
			t.Errorf("error %v", err)
		}
	}
}

func TestDecrypt(t *testing.T) {
	program := filepath.Join(t.TempDir(), "systemd-creds")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n[ $4 != - ] || [ $3 != good ] || exec echo \"$1 $2\"\necho first >&2\necho no key >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if got, err := decrypt(program, "good", "mongo_uri"); string(got) != "decrypt --name=mongo_uri\n" || err != nil {
		t.Errorf("decrypt = %q, %v", got, err)
	}
	for _, tc := range []struct{ program, want string }{{program, "exit status 1: no key"}, {program + "x", "no such file"}} {
		_, err := decrypt(tc.program, "/store/bad", "mongo_uri")
		if sysexits.Code(err) != sysexits.Config || !strings.HasPrefix(err.Error(), "decrypt /store/bad: ") || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("decrypt = %v; want %s", err, tc.want)
		}
	}
}

func TestStored(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"etc/credstore/plain", "usr/lib/credstore/both", "etc/credstore.encrypted/both", "run/credstore.encrypted/sealed"} {
		path := filepath.Join(root, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]struct {
		dir       string
		encrypted bool
	}{"plain": {"etc/credstore", false}, "both": {"usr/lib/credstore", false}, "sealed": {"run/credstore.encrypted", true}} {
		path, encrypted, ok := stored(root, name)
		if path != filepath.Join(root, want.dir, name) || encrypted != want.encrypted || !ok {
			t.Errorf("stored(%s) = %q, %v, %v", name, path, encrypted, ok)
		}
	}
	if path, _, ok := stored(root, "none"); path != "" || ok {
		t.Errorf("stored(none) = %q, %v", path, ok)
	}
}
