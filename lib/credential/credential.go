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
// that name in upper case; and, if root runs the tool by hand, the stores in which
// the unit's LoadCredential= and LoadCredentialEncrypted= look. The value of a file
// is returned without its trailing line breaks. ok is false if none of these exists,
// or if the first that exists is empty. An error names the file and never shows its
// content. If it carries an exit status, it also has a hint.
func Lookup(name string) (value string, ok bool, err error) {
	return lookup("/", name)
}

func lookup(root, name string) (value string, ok bool, err error) {
	if path := given(name); path != "" {
		b, err := read(path, name)
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
	if path, encrypted, ok := stored(root, name); encrypted {
		b, err := decrypt(systemdCreds, path, name)
		if err == nil {
			value, err = secret(b, path)
		}
		return value, value != "", err
	} else if ok {
		value, err = read(path, name)
		return value, value != "", err
	}
	return "", false, nil
}

// File returns a credential for another program that reads it, such as ssh: the
// path of its file, which is $CREDENTIALS_DIRECTORY/name or, if root runs the tool
// by hand, the file in the stores. If that file is encrypted, path is "", and content
// is what the caller must write to a file. Both are empty if there is no credential.
// called is the name of the file in the stores, to which the unit may give another
// name: LoadCredential=name:called.
func File(name, called string) (path string, content []byte, err error) {
	return file("/", name, called)
}

func file(root, name, called string) (path string, content []byte, err error) {
	if path := given(name); path != "" {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			b, err := os.ReadFile(path)
			if err == nil && isEncrypted(string(b)) {
				err = notDecrypted(path, name)
			}
			return path, nil, err
		}
	}
	if !byHand() {
		return "", nil, nil
	}
	path, encrypted, _ := stored(root, called)
	if encrypted {
		content, err = decrypt(systemdCreds, path, name)
		return "", content, err
	}
	return path, nil, nil
}

// given returns the path of a credential that systemd passed to the unit, or ""
// if systemd passed no credentials.
func given(name string) string {
	if dir := os.Getenv("CREDENTIALS_DIRECTORY"); dir != "" {
		return filepath.Join(dir, name)
	}
	return ""
}

func read(path, name string) (string, error) {
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
	if isEncrypted(string(b)) {
		return "", notDecrypted(path, name)
	}
	return secret(b, path)
}

// secret returns the content of a credential without its trailing line breaks.
func secret(b []byte, path string) (string, error) {
	b = bytes.TrimRight(b, "\r\n")
	if bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("read %s: it contains a NUL byte", path)
	}
	return string(b), nil
}
