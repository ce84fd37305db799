package postgres

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// RunStandby starts a standby of the cluster and closes it at the end of the test.
func RunStandby(tb testing.TB, primary *Cluster) *Cluster {
	tb.Helper()
	return RunLinkedStandby(tb, primary, nil)
}

// RunLinkedStandby is RunStandby with a standby that replicates over a link.
func RunLinkedStandby(tb testing.TB, primary *Cluster, link *Link) *Cluster {
	tb.Helper()
	c, err := NewStandby(primary, link)
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
// socket or, if link is not nil, over the link. It has the primary's password and its own port.
func NewStandby(primary *Cluster, link *Link) (*Cluster, error) {
	c, err := prepare(primary.config)
	if err != nil {
		return nil, err
	}
	if err := c.follow(primary, link); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Rebuild replaces the data of a stopped server by a copy of the primary, and starts it as its standby. It keeps its port.
func (c *Cluster) Rebuild(primary *Cluster, link *Link) error {
	if c.Running() {
		return errors.New("the server still runs")
	}
	if err := os.RemoveAll(c.data()); err != nil {
		return err
	}
	if err := os.Mkdir(c.data(), 0o700); err != nil {
		return err
	}
	if err := c.own(c.data()); err != nil {
		return err
	}
	return c.follow(primary, link)
}

// follow fills the empty data directory and starts the server as a standby.
func (c *Cluster) follow(primary *Cluster, link *Link) error {
	c.Password = primary.Password
	if err := c.run("pg_basebackup", "-D", c.data(), "-h", primary.socket(), "-p", strconv.Itoa(primary.Port), "-U", "postgres",
		"--write-recovery-conf", "--wal-method=stream", "--checkpoint=fast", "--no-sync"); err != nil {
		return err
	}
	if err := c.configure(); err != nil {
		return err
	}
	if link != nil {
		go link.serve(primary.Socket())
		f, err := os.OpenFile(filepath.Join(c.data(), "postgresql.auto.conf"), os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := fmt.Fprintf(f, "primary_conninfo = 'host=127.0.0.1 port=%d user=postgres sslmode=disable'\nwal_retrieve_retry_interval = '100ms'\n", link.port()); err != nil {
			return err
		}
	}
	return c.Start()
}

// AwaitStreaming returns after a standby receives what the primary writes and, if sync is set, is a synchronous standby.
func (c *Cluster) AwaitStreaming(sync bool) error {
	return c.await("no standby is streaming", "SELECT count(*) > 0 FROM pg_stat_replication WHERE state = 'streaming' AND (sync_state IN ('sync', 'quorum') OR NOT $1)", sync)
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
	return c.await("the standby has not replayed "+rows[0][0], "SELECT pg_last_wal_replay_lsn() >= $1::pg_lsn", rows[0][0])
}

// await returns after the query returns true. problem describes the state in which it does not.
func (c *Cluster) await(problem, query string, args ...any) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		rows, err := c.Query(query, args...)
		if err != nil {
			return err
		}
		if rows[0][0] == "true" {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s after %s", problem, startTimeout)
		case <-tick.C:
		}
	}
}
