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
	// begin locks the repository for writing, until end is called.
	begin(ctx context.Context) error
	end()
	// inventory returns the directory of the inventory.
	inventory() (dir string, err error)
	// backUp backs up volumes that share containers. done is called for each
	// volume, by backUp or later by settle.
	backUp(ctx context.Context, group []volume, done func(outcome))
	// settle does the verifying and pruning that an engine does once for all volumes.
	settle(ctx context.Context, done func(outcome)) error
	// archives returns the backups of each of the volumes, or of all volumes if none
	// is named. If everyHost is set, backups of other hosts are included.
	archives(ctx context.Context, volumes []string, everyHost bool) (map[string][]repository.Archive, error)
	// record returns the record of one backup.
	record(volume string, a repository.Archive) []byte
	// find returns the backup VOLUME@ID, or the newest one if id is empty. It has
	// verified the backup. pour writes the tar stream. The caller must call
	// done.
	find(ctx context.Context, volume, id string) (m *repository.Manifest, pour func(context.Context, io.Writer) (outside string, err error), done func(), err error)
	// verify verifies backups, prints a record for each, and records the result.
	verify(ctx context.Context, names []string, deep bool) error
	// where returns the name of the repository, for messages.
	where() string
}

// engineFlags choose the engine.
type engineFlags struct {
	Engine string `default:"folder" enum:"folder,restic"`
}

func (f engineFlags) isRestic() bool { return f.Engine == "restic" }

// engine returns the engine that --engine names, for a command that reads backups.
func (f engineFlags) engine(env *cli.Env, repo repositoryFlags, keys identityFlags, staging stagingFlags, script scriptFlags) (engine, error) {
	if f.isRestic() {
		return newRestic(env, repo, staging, script)
	}
	r, err := repo.open(true)
	if err != nil {
		return nil, err
	}
	return &directory{Repository: r, env: env, keys: keys}, nil
}

// outcome is the result of the backup of one volume.
type outcome struct {
	v         volume
	m         *repository.Manifest
	unchanged bool
	pruned    int
	started   time.Time
	downtime  float64 // for how many seconds containers were down
	down      bool    // they may still be down, so downtime is not known
	err       error
}

// wasDown sets the downtime to that of p, the program that has read the volume.
func (o *outcome) wasDown(p *producer) {
	var known bool
	o.downtime, known = p.downtime()
	o.down = !known
}

// report prints the record. It ignores a failing stdout, which must not prevent the
// backup of the next volume. The run fails at its end.
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
	if o.down {
		l.Null("downtime_s")
	} else {
		l.Float("downtime_s", o.downtime)
	}
	l.Float("duration_s", now.Sub(o.started).Seconds())
	_ = env.Stdout.Record(level, l.End())
}
