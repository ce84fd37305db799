package main

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"observability-hub/e2e/postgres"
)

// key identifies a record.
type key struct {
	host, metricType string
	ms               int64 // since the epoch
}

// rows are the rows of a table, with how often each key is there.
type rows map[key]int

func readRows(c *postgres.Cluster) (rows, error) {
	found, err := c.Query("SELECT host, metric_type, (extract(epoch FROM time) * 1000)::bigint, count(*) FROM system_metrics GROUP BY 1, 2, 3")
	if err != nil {
		return nil, err
	}
	all := rows{}
	for _, r := range found {
		ms, err := strconv.ParseInt(r[2], 10, 64)
		if err != nil {
			return nil, err
		}
		if all[key{r[0], r[1], ms}], err = strconv.Atoi(r[3]); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// result counts the records of a scenario.
type result struct {
	taken, stored int
	unreplicated  int // missing, but committed on an old primary
	lost          int // missing everywhere
	doubled       int // additional rows of a record
	unexplained   int // rows that belong to no run
	replayed      int // records that a run sent although they were in the table already
	recovery      time.Duration
	unexpected    error
}

// audit compares the runs with the rows. A run takes four records at one moment between its beginning and its end, and the runs
// of a host do not overlap. old are the rows that old primaries had when they were fenced.
func audit(f *fleet, final, old rows) result {
	r := result{unexpected: f.unexpected()}
	index := func(all rows) map[string][]key {
		byHost := map[string][]key{}
		for k := range all {
			byHost[k.host] = append(byHost[k.host], k)
		}
		return byHost
	}
	stored, before := index(final), index(old)
	within := func(keys []key, of run) map[string]key {
		types := map[string]key{}
		for _, k := range keys {
			if k.ms >= of.began.UnixMilli() && k.ms <= of.ended.UnixMilli() {
				types[k.metricType] = k
			}
		}
		return types
	}
	for _, n := range final {
		r.doubled += n - 1
	}
	explained := 0
	for _, h := range f.hosts {
		for _, of := range h.runs {
			r.replayed += of.flushed.Duplicates
			if of.began.IsZero() {
				continue // the last flush takes no sample
			}
			here, there := within(stored[h.name], of), within(before[h.name], of)
			explained += len(here)
			for _, metricType := range []string{"cpu", "memory", "disk", "network"} {
				r.taken++
				if _, ok := here[metricType]; ok {
					r.stored++
				} else if _, ok := there[metricType]; ok {
					r.unreplicated++
				} else {
					r.lost++
				}
			}
		}
	}
	r.unexplained = len(final) - explained
	return r
}

// check returns an error if something is wrong that the replication mode does not explain.
func (r result) check(lossless bool) error {
	err := r.unexpected
	if r.taken == 0 {
		err = errors.Join(err, errors.New("no sample was taken"))
	}
	if r.lost > 0 {
		err = errors.Join(err, fmt.Errorf("%d records are nowhere", r.lost))
	}
	if r.doubled > 0 || r.unexplained > 0 {
		err = errors.Join(err, fmt.Errorf("%d doubled rows, %d rows that no run explains", r.doubled, r.unexplained))
	}
	if lossless && r.unreplicated > 0 {
		err = errors.Join(err, fmt.Errorf("%d records are only on the old primary", r.unreplicated))
	}
	return err
}
