package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

type verifyCmd struct {
	repositoryFlags
	identityFlags
	engineFlags
	Deep     bool
	Archives []string `arg:"" optional:"" name:"volume[@id]" help:"Only these volumes or archives."`
}

// Run checks archives and keeps the result in their manifests.
func (c *verifyCmd) Run(ctx context.Context, env *cli.Env) error {
	if c.isRestic() {
		return c.verifyRestic(ctx, env)
	}
	r, err := c.open()
	if err != nil {
		return err
	}
	if err := r.claimExisting(ctx); err != nil {
		return err
	}
	defer r.release()
	if err := r.mend(); err != nil {
		env.Diag.Warn("mark_failed", err.Error())
	}
	if len(c.Archives) == 0 {
		if c.Archives, err = r.volumes(); err != nil {
			return err
		}
	}
	bad, seen, closed := 0, 0, 0
	var noKey error
	for _, arg := range c.Archives {
		volume, id, err := parseArchive(arg)
		if err != nil {
			return err
		}
		all, err := r.archives(volume)
		if err != nil {
			return err
		}
		for _, a := range all {
			if id != "" && a.id != id {
				continue
			}
			seen++
			wrong := c.verify(ctx, r, a)
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			deep := c.Deep
			if sysexits.Code(wrong) == sysexits.Config { // no key is not damage, and the stored bytes are right
				closed++
				noKey, wrong, deep = wrong, nil, false
			}
			if wrong != nil {
				bad++
			}
			if err := r.mark(a, wrong); err != nil {
				env.Diag.Warn("mark_failed", err.Error())
			}
			if err := report(env, volume, a, wrong, deep); err != nil {
				return err
			}
		}
	}
	if seen == 0 {
		return missing(fmt.Errorf("%s: no backup", r.dir))
	}
	var failed []error
	if bad > 0 {
		failed = append(failed, sysexits.New(sysexits.DataErr, "archives_damaged", fmt.Errorf("%d of %d archives are damaged", bad, seen)).
			WithHint("they are not used for restores by default any more; run volbackup run for new ones"))
	}
	if closed > 0 {
		failed = append(failed, fmt.Errorf("of %d of %d archives only the stored bytes were checked: %w", closed, seen, noKey))
	}
	return errors.Join(failed...)
}

// verify returns what is wrong with an archive.
func (c *verifyCmd) verify(ctx context.Context, r *repository, a archive) error {
	if a.err != nil {
		return a.err
	}
	if err := r.check(ctx, a.manifest); err != nil || !c.Deep {
		return err
	}
	identities, err := c.identitiesFor(a.manifest)
	if err != nil {
		return err
	}
	f, err := os.Open(r.path(a.manifest))
	if err != nil {
		return err
	}
	defer f.Close()
	return pour(ctx, f, a.manifest, identities, io.Discard)
}

// mark keeps the result of a verification.
func (r *repository) mark(a archive, wrong error) error {
	if a.manifest == nil {
		return nil
	}
	a.Damaged = ""
	if wrong != nil {
		a.Damaged = wrong.Error()
	} else {
		a.Verified = time.Now().UTC().Truncate(time.Millisecond)
	}
	return r.update(a.manifest)
}

func report(env *cli.Env, volume string, a archive, wrong error, deep bool) error {
	level := record.Info
	if wrong != nil {
		level = record.Error
	}
	l := record.New(time.Now(), level, "archive_verified", env.Service)
	l.String("volume", volume)
	l.String("id", a.id)
	l.Bool("ok", wrong == nil)
	l.Bool("deep", deep)
	if wrong != nil {
		l.String("error", wrong.Error())
	}
	return env.Stdout.Record(level, l.End())
}
