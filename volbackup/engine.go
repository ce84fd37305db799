package main

import (
	"context"
	"io"
	"time"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/volbackup/internal/repository"
)

// engine keeps backups: a directory of archives, or a restic repository.
type engine interface {
	// begin locks what run and prune write to, until end.
	begin(ctx context.Context) error
	end()
	// inventory returns the directory that the inventory is in.
	inventory() (dir string, err error)
	// backUp backs up volumes that share containers, and calls done for each of
	// them, now or in settle.
	backUp(ctx context.Context, group []volume, done func(outcome))
	// settle verifies and prunes what is verified and pruned for all volumes at once.
	settle(ctx context.Context, done func(outcome)) error
	// archives returns the backups of each of the volumes or, if none is named, of
	// all, with those of other hosts if everyHost is set.
	archives(ctx context.Context, volumes []string, everyHost bool) (map[string][]repository.Archive, error)
	// record is the record of one of them.
	record(volume string, a repository.Archive) []byte
	// find returns the backup VOLUME@ID or, without an ID, the newest, and how to
	// write its tar stream, all of which was checked before. done must be called.
	find(ctx context.Context, volume, id string) (m *repository.Manifest, pour func(context.Context, io.Writer) (outside string, err error), done func(), err error)
	// verify checks backups, prints a record for each, and keeps the result.
	verify(ctx context.Context, names []string, deep bool) error
	// where is the name of the whole, for messages.
	where() string
}

// engineFlags choose what keeps the backups.
type engineFlags struct {
	Engine string `default:"folder" enum:"folder,restic"`
}

func (f engineFlags) isRestic() bool { return f.Engine == "restic" }

// engine returns what --engine chooses.
func (f engineFlags) engine(env *cli.Env, repo repositoryFlags, keys identityFlags, staging stagingFlags, script scriptFlags) (engine, error) {
	if f.isRestic() {
		return newRestic(env, repo, staging, script)
	}
	r, err := repo.open()
	if err != nil {
		return nil, err
	}
	return &directory{Repository: r, env: env, keys: keys}, nil
}

// outcome is how the backup of one volume ended.
type outcome struct {
	v         volume
	m         *repository.Manifest
	unchanged bool
	pruned    int
	started   time.Time
	err       error
}

// report prints the record. A full stdout must not keep the next volume from its
// backup; it fails the run at its end.
func (o outcome) report(env *cli.Env) {
	level := record.Info
	if o.err != nil {
		level = record.Error
	}
	now := time.Now()
	l := record.New(now, level, "backed_up", env.Service)
	outcome := "stored"
	switch {
	case o.err != nil:
		outcome = "failed"
	case o.unchanged:
		outcome = "unchanged"
	}
	l.String("volume", o.v.name)
	l.String("outcome", outcome)
	if o.err != nil {
		l.String("error", o.err.Error())
	} else {
		l.String("id", o.m.ID)
		l.Int("bytes", o.m.Bytes)
		l.Int("stored_bytes", o.m.StoredBytes)
		l.Int("entries", o.m.Entries)
		l.String("consistency", o.m.Consistency)
	}
	l.Int("pruned", int64(o.pruned))
	l.Float("duration_s", now.Sub(o.started).Seconds())
	_ = env.Stdout.Record(level, l.End())
}
