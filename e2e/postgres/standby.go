package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"
)

// RunStandby starts a standby of the cluster and closes it at the end of the test.
func RunStandby(tb testing.TB, primary *Cluster) *Cluster {
	tb.Helper()
	c, err := NewStandby(primary)
	if err != nil {
		tb.Fatalf("start a standby: %v", err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the standby's log:\n%s", c.logTail())
		}
		if err := c.Close(); err != nil {
			tb.Errorf("remove the standby: %v", err)
		}
	})
	return c
}

// NewStandby copies the primary with pg_basebackup and starts the copy as a hot standby, which replicates over the primary's unix
// socket. It has the primary's password and its own port.
func NewStandby(primary *Cluster) (*Cluster, error) {
	c, err := prepare(primary.config)
	if err != nil {
		return nil, err
	}
	c.Password = primary.Password
	err = c.run("pg_basebackup", "-D", c.data(), "-h", primary.socket(), "-p", strconv.Itoa(primary.Port), "-U", "postgres",
		"--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync")
	if err == nil {
		err = c.configure()
	}
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Promote makes the standby a primary and returns after it accepts writes.
func (c *Cluster) Promote() error {
	rows, err := c.Query("SELECT pg_promote(true, 60)")
	if err != nil {
		return err
	}
	if rows[0][0] != "true" {
		return errors.New("the standby was not promoted within 60 s")
	}
	return nil
}

// AwaitReplay returns after the standby has replayed everything that the primary has written so far.
func (c *Cluster) AwaitReplay(primary *Cluster) error {
	rows, err := primary.Query("SELECT pg_current_wal_lsn()")
	if err != nil {
		return err
	}
	want := rows[0][0]
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := c.Query("SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", want)
		if err != nil {
			return err
		}
		if rows[0][0] == "true" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the standby has not replayed %s after %s", want, startTimeout)
		case <-tick.C:
		}
	}
}
