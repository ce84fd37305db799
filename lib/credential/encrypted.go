package credential

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"observability-hub/lib/sysexits"
)

// systemdCreds is the program that decrypts credentials; see systemd-creds(1).
const systemdCreds = "/usr/bin/systemd-creds"

// decrypt returns the content of the encrypted credential called name. Only root can
// decrypt one that was made with the key of the host.
func decrypt(program, path, name string) ([]byte, error) {
	out, err := output(program, "decrypt", "--name="+name, path, "-")
	if err != nil {
		return nil, sysexits.New(sysexits.Config, "bad_configuration", fmt.Errorf("decrypt %s: %w", path, err)).
			WithHint("create it again on this host: systemd-creds encrypt --name=" + name + " - " + path)
	}
	return out, nil
}

// output runs a program and returns its stdout. The error has the last line of its
// stderr. output does not use os/exec, because to import that package costs a tenth of
// the time of a small run, even if the run decrypts nothing.
func output(args ...string) ([]byte, error) {
	stdout, outEnd, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer stdout.Close()
	stderr, errEnd, err := os.Pipe()
	if err != nil {
		outEnd.Close()
		return nil, err
	}
	defer stderr.Close()
	process, err := os.StartProcess(args[0], args, &os.ProcAttr{Files: []*os.File{nil, outEnd, errEnd}})
	outEnd.Close()
	errEnd.Close()
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(stdout)
	said, _ := io.ReadAll(io.LimitReader(stderr, maxSize)) // the program does not wait for this: a pipe holds more than it prints there
	state, waited := process.Wait()
	if err = errors.Join(err, waited); err != nil {
		return nil, err
	}
	if !state.Success() {
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		return nil, fmt.Errorf("%s: %s", state, lines[len(lines)-1])
	}
	return out, nil
}

// isEncrypted reports whether text is an encrypted credential, as systemd-creds
// writes it: base64 with line breaks. The shortest one has 90 bytes. No secret of the
// toolkit looks like that, because each has a colon, a blank, a hyphen or a single
// equals sign before its end.
func isEncrypted(text string) bool {
	text = strings.ReplaceAll(text, "\n", "")
	raw, err := base64.StdEncoding.DecodeString(text)
	return err == nil && len(raw) >= 64
}

// notDecrypted returns the error for a credential that systemd passed on as it is
// stored. From version 254 on, LoadCredential= finds encrypted credentials, but it
// does not decrypt them.
func notDecrypted(path, name string) error {
	return sysexits.New(sysexits.Config, "bad_configuration", fmt.Errorf("read %s: the credential is encrypted, and systemd has not decrypted it", path)).
		WithHint("add a drop-in to the unit with systemctl edit: [Service], and below it LoadCredentialEncrypted=" + name +
			"; if a file follows in its line LoadCredential=" + name + ":, it must follow here too")
}
