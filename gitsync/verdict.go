package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/redact"
	"observability-hub/lib/statedir"
	"observability-hub/lib/sysexits"
)

// A host publishes that it rolled a commit back as a ref of the remote:
// refs/hosts/NAME/bad points to the quarantined commit, which the remote has already.
// The ref exists only while the host has a quarantined commit.
const (
	hostRefs  = "refs/hosts/"
	badSuffix = "/bad"
)

func badRef(host string) string { return hostRefs + host + badSuffix }

// verdict is what this host last published. It is in the state directory of pull.
type verdict struct {
	Repo   string `json:"repo"`
	Host   string `json:"host"`
	Commit string `json:"commit"` // the bad commit, or ""
}

const verdictFile = "verdict.json"

type verdictCmd struct {
	stateFlags
	Source  string        `placeholder:"DIR"`
	Repo    string        `placeholder:"URL"`
	Host    string        `placeholder:"NAME"`
	Timeout time.Duration `default:"5m"`
}

func (c *verdictCmd) Validate() error {
	return validate(originFlags{Repo: c.Repo, Ref: "main"}, pullFlags{Timeout: c.Timeout, KeepTrees: 1}, rolloutFlags{Host: c.Host})
}

// Run publishes the verdict of this host if it differs from what was published last.
// It runs after an apply, as the user of pull: apply has neither network nor key.
func (c *verdictCmd) Run(ctx context.Context, env *cli.Env) error {
	began := time.Now()
	state, err := c.path()
	if err != nil {
		return err
	}
	if c.Source == "" {
		c.Source = defaultSource(state)
	}
	p, err := readPulled(c.Source)
	if err != nil {
		return err
	}
	if c.Repo == "" {
		c.Repo = p.Repo
	}
	if p.Commit == "" || c.Repo == "" {
		return nothingPulled(c.Source)
	}
	q, err := readQuarantine(state)
	if err != nil {
		return err
	}
	want := verdict{Commit: q.Commit}
	if want.Host, err = hostName(c.Host); err != nil {
		return err
	}
	if want.Repo, err = remoteURL(c.Repo); err != nil {
		return err
	}
	dir, err := statedir.Open(ctx, c.Source, lockWait)
	if err != nil {
		return err
	}
	defer dir.Close()
	var was verdict
	if err := readState(c.Source, verdictFile, &was); err != nil {
		env.Diag.Warn("state_unreadable", err.Error()+"; the verdict is published again")
	}
	changed := was != want
	if changed {
		if err := c.publish(ctx, env, dir, want, p.FullRef); err != nil {
			return err
		}
		step("verdict")
		if err := writeState(dir, verdictFile, want); err != nil {
			return err
		}
	}
	l := record.New(time.Now(), record.Info, "verdict", env.Service)
	l.String("host", want.Host)
	l.String("repo", displayURL(want.Repo))
	l.String("ref", badRef(want.Host))
	if want.Commit != "" {
		l.String("bad", want.Commit)
	} else {
		l.Null("bad")
	}
	l.Bool("changed", changed)
	l.Float("duration_s", time.Since(began).Seconds())
	return env.Stdout.Record(record.Info, l.End())
}

// publish sets the ref of this host on the remote, or deletes it. ref is the full name
// of the ref that this host follows.
func (c *verdictCmd) publish(ctx context.Context, env *cli.Env, dir *statedir.Dir, v verdict, ref string) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	repo, err := openRepository(dir, env.Diag)
	if err != nil {
		return err
	}
	keys, err := findCredentials(repo.as, verdictKeys, dir.Path, "/run")
	defer keys.remove()
	if err != nil {
		return err
	}
	from, extra, err := repo.open(ctx, c.Repo, keys)
	if err != nil {
		return err
	}
	repo.env = append(repo.user, extra...)
	step("verdict")
	if v.Commit != "" && !gitobj.IsHash(ref) {
		// git sends what is not in the history of the remote's refs, as far as it has
		// their commits. If the branch has moved, it would send the whole history of the
		// bad commit. Negotiation (push.negotiate) needs a protocol that sshd passes on
		// only if it is configured.
		_, _ = repo.fetch(ctx, from.url, "+"+ref+":"+movedRef) // the push gives the reason if it fails
	}
	// The empty source deletes the ref.
	_, err = repo.run(ctx, "push", "--quiet", "--no-verify", "--", from.url, "+"+v.Commit+":"+badRef(v.Host))
	switch {
	case err == nil || v.Commit == "" && said(err, "remote ref does not exist"):
		return nil
	case said(err, "remote rejected") && !said(err, "unpacker error"):
		return sysexits.New(sysexits.Config, "verdict_refused", fmt.Errorf("publish the verdict to %s: %s", displayURL(c.Repo), rejection(err))).
			WithHint("the remote must allow this host's key to write " + badRef(v.Host) + "; see --host")
	case errors.Is(context.Cause(ctx), context.DeadlineExceeded) || ctx.Err() == nil:
		e, _ := errors.AsType[*gitError](err)
		hint := "the next run tries again"
		if e != nil && strings.Contains(e.said, "ermission denied") {
			hint = remoteHint(c.Repo, e.said)
		}
		return sysexits.New(sysexits.Unavailable, "remote_unavailable", fmt.Errorf("publish the verdict to %s: %w", displayURL(c.Repo), err)).WithHint(hint)
	}
	return err
}

// rejection returns why the remote did not accept a push: what its hook printed, or
// else git's line about the ref.
func rejection(err error) string {
	e, _ := errors.AsType[*gitError](err)
	why := ""
	for line := range strings.Lines(e.said) {
		line = strings.TrimSpace(line)
		if hook, ok := strings.CutPrefix(line, "remote: "); ok && strings.TrimSpace(hook) != "" {
			return redact.Text(strings.TrimSpace(hook))
		}
		if strings.Contains(line, "[remote rejected]") {
			why = redact.Text(line)
		}
	}
	return why
}
