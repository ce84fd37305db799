package main

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"observability-hub/lib/credential"
)

// credentials are the credentials that exist.
type credentials struct {
	files  map[string]string // paths, by name
	copies string            // directory with copies, if there are any
}

// findCredentials returns the credentials for git. If as is not nil, git runs as
// that user, who cannot read the files in /etc/credstore. Then the user gets copies
// in a directory below dir, as a unit gets them from systemd. The caller must remove
// the copies.
func findCredentials(as *syscall.Credential, dir string) (*credentials, error) {
	c := &credentials{files: map[string]string{}}
	for _, name := range []string{"git_credentials", "deploy_key", "known_hosts"} {
		if file := credential.Path(name); file != "" {
			c.files[name] = file
		}
	}
	if as == nil || len(c.files) == 0 {
		return c, nil
	}
	var err error
	if c.copies, err = os.MkdirTemp(dir, "gitsync-credentials-"); err != nil {
		return c, fmt.Errorf("copy the credentials: %w", err)
	}
	for name, file := range c.files {
		b, err := os.ReadFile(file)
		if err != nil {
			return c, err
		}
		fresh := filepath.Join(c.copies, name)
		if err := writeNew(fresh, b, 0o400, int(as.Uid), int(as.Gid)); err != nil {
			return c, fmt.Errorf("copy the credentials: %w", err)
		}
		c.files[name] = fresh
	}
	if err := os.Chown(c.copies, int(as.Uid), int(as.Gid)); err != nil {
		return c, fmt.Errorf("copy the credentials: %w", err)
	}
	return c, nil
}

// remove removes the copies.
func (c *credentials) remove() {
	if c.copies != "" {
		_ = os.RemoveAll(c.copies)
	}
}
