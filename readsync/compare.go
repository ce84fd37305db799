package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// compareSQL says of the rows with the numbers %s whether the table has them with
// the same content: - (not there any more), t or f. It is a statement of its
// own, since the snapshot of the INSERT does not show what another session
// committed meanwhile. Hubs before this tool stored an empty text for a missing source or
// type, and null for a missing payload.
const compareSQL = `SELECT s.n || CASE WHEN r.mongo_id IS NULL THEN '-' WHEN
	r.event_timestamp IS NOT DISTINCT FROM s.event_timestamp
	AND coalesce(r.source, '') = coalesce(s.source, '') AND coalesce(r.event_type, '') = coalesce(s.event_type, '')
	AND coalesce(r.payload::jsonb, 'null') = coalesce(s.payload, 'null')
	AND coalesce(r.meta::jsonb, 'null') = coalesce(s.meta, 'null') THEN 't' ELSE 'f' END
FROM readsync_staging s LEFT JOIN reading_analytics r ON r.mongo_id = s.mongo_id WHERE s.n IN (%s)`

// compare returns the outcome of each row, given the numbers of those that
// were not inserted.
func (t *target) compare(rows []*row, skipped []string) ([]outcome, error) {
	outcomes := slices.Repeat([]outcome{inserted}, len(rows))
	if len(skipped) == 0 {
		return outcomes, nil
	}
	differ, err := t.differing(skipped, outcomes)
	if err != nil || len(differ) == 0 {
		return outcomes, err
	}
	for _, form := range otherForms {
		var other []*row
		var numbers []string
		var at []int
		for _, i := range differ {
			if r := form(rows[i]); r != nil {
				numbers = append(numbers, strconv.Itoa(len(other)))
				other, at = append(other, r), append(at, i)
			}
		}
		if len(other) == 0 {
			continue
		}
		if err := t.restage(other); err != nil {
			return nil, err
		}
		again := make([]outcome, len(other))
		if _, err := t.differing(numbers, again); err != nil {
			return nil, err
		}
		for k, i := range at {
			outcomes[i] = again[k]
		}
		differ = slices.DeleteFunc(differ, func(i int) bool { return outcomes[i] != differing })
	}
	if t.mode.replace && len(differ) > 0 {
		return outcomes, t.replaceRows(rows, differ, outcomes)
	}
	return outcomes, nil
}

// restage gives the staging table other rows.
func (t *target) restage(rows []*row) error {
	if err := t.exec("DELETE FROM readsync_staging"); err != nil {
		return err
	}
	return t.copy(copySQL, rows)
}

// replaceSQL gives the rows of the table the content of the staged ones.
const replaceSQL = `WITH new AS (
	UPDATE reading_analytics r SET event_timestamp = s.event_timestamp, source = s.source, event_type = s.event_type, payload = s.payload, meta = s.meta
	FROM readsync_staging s WHERE r.mongo_id = s.mongo_id RETURNING s.n)
SELECT n::text FROM new`

// replaceRows replaces those rows that differ. One that a trigger keeps stays
// differing.
func (t *target) replaceRows(rows []*row, differ []int, outcomes []outcome) error {
	staged := make([]*row, len(differ))
	for k, i := range differ {
		staged[k] = rows[i]
	}
	if err := t.restage(staged); err != nil {
		return err
	}
	done, err := t.column(replaceSQL)
	if err != nil {
		return err
	}
	for _, text := range done {
		k, err := strconv.Atoi(text)
		if err != nil || k >= len(differ) {
			return fmt.Errorf("replace rows: %q", text)
		}
		outcomes[differ[k]] = replaced
	}
	return nil
}

// differing compares rows with the table, sets the outcome of each, and
// returns the differing ones.
func (t *target) differing(numbers []string, outcomes []outcome) (differ []int, err error) {
	verdicts, err := t.column(fmt.Sprintf(compareSQL, strings.Join(numbers, ",")))
	if err != nil {
		return nil, err
	}
	if len(verdicts) != len(numbers) {
		return nil, fmt.Errorf("compare rows: %d of %d are in the staging table", len(verdicts), len(numbers))
	}
	for _, v := range verdicts {
		n, err := strconv.Atoi(v[:len(v)-1])
		if err != nil || n >= len(outcomes) {
			return nil, fmt.Errorf("compare rows: %q", v)
		}
		switch v[len(v)-1] {
		case 't':
			outcomes[n] = identical
		case 'f':
			outcomes[n] = differing
			differ = append(differ, n)
		default:
			if !t.taken {
				return nil, errGone
			}
			outcomes[n] = rejected
		}
	}
	slices.Sort(differ)
	return differ, nil
}
