package main

import (
	"bytes"
	"compress/zlib"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// signers says whose signatures are good. With neither, none is asked for.
type signers struct {
	AllowedSigners string `placeholder:"FILE"`
	GpgHome        string `placeholder:"DIR"`
}

func (s signers) wanted() bool { return s.AllowedSigners != "" || s.GpgHome != "" }

// verify checks the signature of one commit with git, whose exit status
// decides: its words "Good signature" come for untrusted keys too.
//
// git sees the commit in a repository that holds nothing else, written from
// the bytes whose hash was checked. So neither the configuration of the source
// (gpg.program is a program that git runs) nor a change behind our back counts.
func (s signers) verify(ctx context.Context, reader string, c *commit) error {
	if !s.wanted() {
		return nil
	}
	store, err := looseCommit(reader, c)
	if err != nil {
		return statedir.Unwritable(err)
	}
	defer os.RemoveAll(store)

	// A kind of signature that nobody listed keys for is not good.
	args := []string{"-c", "gpg.x509.program=/bin/false"}
	env := readerEnv(store)
	if s.AllowedSigners != "" {
		file, err := filepath.Abs(s.AllowedSigners)
		if err != nil {
			return err
		}
		if _, err := os.Stat(file); err != nil {
			return sysexits.New(sysexits.Config, "no_signers", fmt.Errorf("allowed signers: %w", err))
		}
		args = append(args, "-c", "gpg.ssh.allowedSignersFile="+file)
	} else {
		args = append(args, "-c", "gpg.ssh.program=/bin/false")
	}
	if s.GpgHome != "" {
		home, err := filepath.Abs(s.GpgHome)
		if err != nil {
			return err
		}
		if _, err := os.Stat(home); err != nil {
			return sysexits.New(sysexits.Config, "no_signers", fmt.Errorf("gpg home: %w", err))
		}
		env = append(env, "GNUPGHOME="+home)
	} else {
		args = append(args, "-c", "gpg.program=/bin/false")
	}
	_, err = git{dir: reader, env: env}.run(ctx, append(args, "verify-commit", c.id)...)
	if err == nil || ctx.Err() != nil {
		return err
	}
	reason := "its signature is not good"
	if !bytes.Contains(c.raw, []byte("\ngpgsig ")) {
		reason = "it is not signed"
	}
	return sysexits.New(sysexits.DataErr, "signature_refused", fmt.Errorf("commit %s: %s", c.id, reason)).
		WithHint("sign it with a key that --allowed-signers or --gpg-home lists; nothing was changed")
}

// looseCommit makes an object directory that holds the one commit.
func looseCommit(reader string, c *commit) (string, error) {
	store, err := os.MkdirTemp(reader, "commit-")
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	z := zlib.NewWriter(&b)
	fmt.Fprintf(z, "commit %d\x00", len(c.raw))
	_, err = z.Write(c.raw)
	err = errors.Join(err, z.Close())
	if err == nil {
		err = os.Mkdir(filepath.Join(store, c.id[:2]), 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(store, c.id[:2], c.id[2:]), b.Bytes(), 0o600)
	}
	if err != nil {
		os.RemoveAll(store)
	}
	return store, err
}
