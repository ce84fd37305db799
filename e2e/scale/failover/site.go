package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"time"

	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// site is a primary and its standby. They change their roles, and keep their addresses.
type site struct {
	servers          [2]*postgres.Cluster
	primary, standby *postgres.Cluster
	link             *postgres.Link // from the primary to the standby
	delay            time.Duration
	sync             bool
	saved            bytes.Buffer // the rows of the last old primary, as records
}

// newSite starts the two servers with the table of sysmetrics. The table has no unique index: a doubled record would be there.
func newSite(sync bool, delay time.Duration) (_ *site, err error) {
	s := &site{sync: sync, delay: delay}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.primary, err = postgres.New(postgres.Config{TCP: true, Conf: []string{"max_connections = 200"}}); err != nil {
		return nil, err
	}
	s.servers[0] = s.primary
	schema, err := tableSQL()
	if err != nil {
		return nil, err
	}
	if _, err := s.primary.PSQL("SET ROLE hub;\n" + schema +
		"DROP INDEX system_metrics_key; CREATE INDEX system_metrics_lookup ON system_metrics (host, metric_type, time);\n"); err != nil {
		return nil, err
	}
	if s.link, err = postgres.NewLink(delay); err != nil {
		return nil, err
	}
	if s.standby, err = postgres.NewStandby(s.primary, s.link); err != nil {
		return nil, err
	}
	s.servers[1] = s.standby
	if sync {
		// Settings are not replicated. Without this one on the standby too, the site would be asynchronous after the promotion.
		for _, c := range s.servers {
			if _, err := c.PSQL("ALTER SYSTEM SET synchronous_standby_names = '*';\nSELECT pg_reload_conf();\n"); err != nil {
				return nil, err
			}
		}
	}
	return s, s.primary.AwaitStreaming(sync)
}

// tableSQL is the output of sysmetrics schema.
func tableSQL() (string, error) {
	path, err := workspace.Binary("sysmetrics")
	if err != nil {
		return "", err
	}
	out, err := exec.Command(path, "schema").Output()
	return string(out), err
}

// url returns libpq's list of both servers. first is the one that is tried first.
func (s *site) url(first int) string {
	a, b := s.servers[first%2], s.servers[(first+1)%2]
	return fmt.Sprintf("postgres://hub:%s@127.0.0.1,127.0.0.1/hub?port=%d,%d&target_session_attrs=read-write", a.Password, a.Port, b.Port)
}

// fence stops the old primary for good, and adds the rows on its disk to old.
func (s *site) fence(old rows) error {
	if err := s.primary.Kill9(); err != nil {
		return err
	}
	if err := s.primary.StartAlone(); err != nil {
		return err
	}
	found, err := readRows(s.primary)
	if err != nil {
		return err
	}
	for key := range found {
		old[key] = 1
	}
	records, err := s.primary.Query("SELECT json_build_object('time', time, 'host', host, 'os', os, 'metric_type', metric_type, 'payload', payload) FROM system_metrics")
	if err != nil {
		return err
	}
	s.saved.Reset()
	for _, r := range records {
		s.saved.WriteString(r[0] + "\n")
	}
	return s.primary.Crash()
}

// salvage flushes the rows of the old primary's disk into the new primary.
func (s *site) salvage() error {
	tool, err := workspace.Binary("sysmetrics")
	if err != nil {
		return err
	}
	state, err := os.MkdirTemp("", "hub-failover-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(state)
	cmd := exec.Command(tool, "flush")
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + state, "SYSMETRICS_STATE_DIR=" + state, "DATABASE_URL=" + s.url(0)}
	cmd.Stdin = &s.saved
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("flush the rows of the old primary: %w: %s", err, out)
	}
	return nil
}

// rebuild makes the old primary the standby of the new one.
func (s *site) rebuild() error {
	if err := s.link.Close(); err != nil {
		return err
	}
	var err error
	if s.link, err = postgres.NewLink(s.delay); err != nil {
		return err
	}
	s.primary, s.standby = s.standby, s.primary
	if err := s.standby.Rebuild(s.primary, s.link); err != nil {
		return err
	}
	if err := s.primary.AwaitStreaming(s.sync); err != nil {
		return err
	}
	return s.standby.AwaitReplay(s.primary)
}

func (s *site) close() {
	if s.link != nil {
		_ = s.link.Close()
	}
	for _, c := range s.servers {
		if c != nil {
			_ = c.Close()
		}
	}
}
