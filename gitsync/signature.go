package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/sysexits"
)

// signersHint is the hint for a missing file or directory of keys.
const signersHint = "both the user of gitops-sync.service (server) and root must be able to read it; gitops-sync.service cannot see /home, /root and /run/user"

// signers says which signatures are good. If both fields are empty, a commit needs
// no signature.
type signers struct {
	AllowedSigners string `placeholder:"FILE"`
	GpgHome        string `placeholder:"DIR"`
}

func (s signers) wanted() bool { return s.AllowedSigners != "" || s.GpgHome != "" }

// verify checks the signature of one commit.
func (s signers) verify(ctx context.Context, reader gitobj.Reader, c *gitobj.Commit) error {
	if !s.wanted() {
		return nil
	}
	// If no keys are listed for a kind of signature, signatures of that kind are not
	// good.
	options := []string{"-c", "gpg.x509.program=/bin/false"}
	var env []string
	if s.AllowedSigners != "" {
		file, err := filepath.Abs(s.AllowedSigners)
		if err != nil {
			return err
		}
		if _, err := os.Stat(file); err != nil {
			return sysexits.New(sysexits.Config, "no_signers", fmt.Errorf("allowed signers: %w", err)).WithHint(signersHint)
		}
		options = append(options, "-c", "gpg.ssh.allowedSignersFile="+file)
	} else {
		options = append(options, "-c", "gpg.ssh.program=/bin/false")
	}
	if s.GpgHome != "" {
		home, err := filepath.Abs(s.GpgHome)
		if err != nil {
			return err
		}
		if _, err := os.Stat(home); err != nil {
			return sysexits.New(sysexits.Config, "no_signers", fmt.Errorf("gpg home: %w", err)).WithHint(signersHint)
		}
		env = append(env, "GNUPGHOME="+home)
	} else {
		options = append(options, "-c", "gpg.program=/bin/false")
	}
	err := reader.VerifyCommit(ctx, c, options, env)
	if err == nil || ctx.Err() != nil {
		return err
	}
	if _, ok := errors.AsType[*sysexits.Error](err); ok {
		return err // the check itself failed
	}
	reason := "its signature is not good"
	if !c.Signed() {
		reason = "it is not signed"
	}
	return sysexits.New(sysexits.DataErr, "signature_refused", fmt.Errorf("commit %s: %s", c.ID, reason)).
		WithHint("sign it with a key that --allowed-signers or --gpg-home lists; nothing was changed")
}
