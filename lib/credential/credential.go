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
// none, the environment variable of that name in upper case. ok is false if
// there is neither, or it is empty. An error names the file, never its content.
func Lookup(name string) (value string, ok bool, err error) {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		path := filepath.Join(dir, name)
		b, err := read(path)
		switch {
		case err == nil:
			return b, b != "", nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", false, err
		}
	}
	value = os.Getenv(strings.ToUpper(name))
	return value, value != "", nil
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
