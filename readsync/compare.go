package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// compareSQL compares the staged rows with the numbers %s with the table. For each
// number it returns t (same content), f (other content) or - (the row does not exist
// any more). It is a separate statement, because the snapshot of the INSERT does not
// include rows that another session committed in the meantime. It treats an empty
// text as a missing source or type, and null as a missing payload, because hubs before
// this tool stored them that way.
const compareSQL = `SELECT s.n || CASE WHEN r.mongo_id IS NULL THEN '-' WHEN
	r.event_timestamp IS NOT DISTINCT FROM s.event_timestamp
	AND coalesce(r.source, '') = coalesce(s.source, '') AND coalesce(r.event_type, '') = coalesce(s.event_type, '')
	AND coalesce(r.payload::jsonb, 'null') = coalesce(s.payload, 'null')
	AND coalesce(r.meta::jsonb, 'null') = coalesce(s.meta, 'null') THEN 't' ELSE 'f' END
FROM readsync_staging s LEFT JOIN reading_analytics r ON r.mongo_id = s.mongo_id WHERE s.n IN (%s)`

// compare returns the outcome of each row. skipped has the numbers of the rows that
// were not inserted. Rows that differ are compared again in each of the otherForms. If
// rows still differ, and the mode is replace, compare replaces them.
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

// restage replaces the content of the staging table by rows.
func (t *target) restage(rows []*row) error {
	if err := t.exec("DELETE FROM readsync_staging"); err != nil {
		return err
	}
	return t.copy(copySQL, rows)
}

// replaceSQL updates the table with the content of the staged rows and returns the
// numbers of the updated rows.
const replaceSQL = `WITH new AS (
	UPDATE reading_analytics r SET event_timestamp = s.event_timestamp, source = s.source, event_type = s.event_type, payload = s.payload, meta = s.meta
	FROM readsync_staging s WHERE r.mongo_id = s.mongo_id RETURNING s.n)
SELECT n::text FROM new`

// replaceRows replaces the rows that differ. If a trigger prevents the update of a row,
// its outcome stays differing.
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

// differing compares the staged rows of those numbers with the table, sets their
// outcomes, and returns the sorted numbers of those that differ.
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
			if !t.discarded {
				return nil, errGone
			}
			outcomes[n] = rejected
		}
	}
	slices.Sort(differ)
	return differ, nil
}
