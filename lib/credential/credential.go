// Package credential reads secrets: from systemd's credentials directory
// (LoadCredential= in systemd.exec(5)), else from the environment, and never
// from the command line, which every user of the host can read.
package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// maxSize bounds a credential; systemd's own limit for all of a unit's is 1 MiB.
const maxSize = 64 << 10

// Lookup returns the secret called name (for example database_url): the file
// $CREDENTIALS_DIRECTORY/name without its trailing line break or, if there is
// none, the environment variable of that name in upper case or, where root runs
// the tool by hand and there is no such variable, the file that the unit's
// LoadCredential= finds. ok is false if there is none of them, or it is empty. An
// error names the file, never its content.
func Lookup(name string) (value string, ok bool, err error) {
	return lookup("/", name)
}

func lookup(root, name string) (value string, ok bool, err error) {
	if path := given(name); path != "" {
		b, err := read(path)
		switch {
		case err == nil:
			return b, b != "", nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", false, err
		}
	}
	if value, ok := os.LookupEnv(strings.ToUpper(name)); ok || !byHand() {
		return value, value != "", nil
	}
	if path, ok := stored(root, name); ok {
		value, err = read(path)
		return value, value != "", err
	}
	return "", false, nil
}

// Path returns the file of a credential that another program is to read, as ssh
// reads a key: $CREDENTIALS_DIRECTORY/name or, where root runs the tool by hand,
// the file that the unit's LoadCredential= finds. It is empty if there is none.
func Path(name string) string {
	if path := given(name); path != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			return path
		}
	}
	if path, ok := stored("/", name); ok && byHand() {
		return path
	}
	return ""
}

// given returns where systemd puts a credential of a unit.
func given(name string) string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		return filepath.Join(dir, name)
	}
	return ""
}

func read(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err != nil {
		return "", err
	}
	if len(b) > maxSize {
		return "", fmt.Errorf("read %s: longer than %d bytes", path, maxSize)
	}
	b = bytes.TrimRight(b, "\r\n")
	if bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("read %s: holds a NUL byte", path)
	}
	return string(b), nil
}
