// Package credential reads secrets from systemd's credentials directory
// (LoadCredential= in systemd.exec(5)), else from the environment. It never reads
// them from the command line, because every user of the host can see that.
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

// maxSize is the maximum size of a credential, in bytes. systemd's limit for all
// credentials of a unit is 1 MiB.
const maxSize = 64 << 10

// Lookup returns the secret called name, for example database_url. It looks in
// this order: the file $CREDENTIALS_DIRECTORY/name; the environment variable of
// that name in upper case; and, if root runs the tool by hand, the file that the
// unit's LoadCredential= finds. The value of a file is returned without its
// trailing line breaks. ok is false if none of these exists, or if the first that
// exists is empty. An error names the file and never shows its content.
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

// Path returns the path of a credential's file, for another program that reads it,
// such as ssh. The file is $CREDENTIALS_DIRECTORY/name or, if root runs the tool
// by hand, the file that the unit's LoadCredential= finds. Path returns "" if
// there is no such file.
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

// given returns the path of a credential that systemd passed to the unit, or ""
// if systemd passed no credentials.
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
		return "", fmt.Errorf("read %s: it contains a NUL byte", path)
	}
	return string(b), nil
}
