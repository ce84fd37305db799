package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"observability-hub/lib/credential"
	"observability-hub/lib/sysexits"
)

// credentials are the credentials that exist.
type credentials struct {
	files  map[string]string // paths, by name
	copies string            // directory with copies, if there are any
}

// pullKeys and verdictKeys return the name in the stores of a credential of
// gitops-sync.service and gitops-verdict.service.
func pullKeys(name string) string { return name }

func verdictKeys(name string) string {
	switch name {
	case "deploy_key":
		return "verdict_key"
	case "git_credentials":
		return "verdict_credentials"
	}
	return name
}

// findCredentials returns the credentials for git. called returns their names in the
// stores. If as is not nil, git runs as that user, who cannot read the files in
// /etc/credstore. Then the user gets copies in a directory below dir, as a unit gets
// them from systemd. A decrypted credential is always such a copy. The caller must
// remove the copies.
//
// The caller holds the lock of the directory state. So copies for it that exist
// already are from a run that was killed, and findCredentials replaces them.
func findCredentials(as *syscall.Credential, called func(string) string, state, dir string) (*credentials, error) {
	c := &credentials{files: map[string]string{}}
	copies := map[string][]byte{}
	for _, name := range []string{"git_credentials", "deploy_key", "known_hosts"} {
		file, content, err := credential.File(name, called(name))
		if err != nil {
			return c, err
		}
		if file != "" && as != nil {
			if content, err = os.ReadFile(file); err != nil {
				return c, err
			}
		}
		if content != nil {
			copies[name] = content
		} else if file != "" {
			c.files[name] = file
		}
	}
	if len(copies) == 0 {
		return c, nil
	}
	place := filepath.Join(dir, "gitsync-credentials-"+ownerName(realState(state)))
	uid, gid := os.Geteuid(), os.Getegid()
	if as != nil {
		uid, gid = int(as.Uid), int(as.Gid)
	}
	if err := c.copyTo(place, copies, uid, gid); err != nil {
		return c, sysexits.New(sysexits.CantCreate, "state_unwritable", fmt.Errorf("copy the credentials: %w", err)).
			WithHint("run by root, gitsync copies the credentials there for git: check that " + dir + " is writable and has space")
	}
	return c, nil
}

// copyTo writes copies into a directory that belongs to the user. It removes an old
// directory of that name.
func (c *credentials) copyTo(dir string, copies map[string][]byte, uid, gid int) error {
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return err
	}
	c.copies = dir
	for name, content := range copies {
		c.files[name] = filepath.Join(c.copies, name)
		if err := writeNew(c.files[name], content, 0o400, uid, gid); err != nil {
			return err
		}
	}
	return os.Chown(c.copies, uid, gid)
}

// remove removes the copies.
func (c *credentials) remove() {
	if c.copies != "" {
		_ = os.RemoveAll(c.copies)
	}
}
