package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.mongodb.org/mongo-driver/v2/bson"
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
	// They may be there as hubs before this tool wrote them.
	var old []*row
	var numbers []string
	for _, i := range differ {
		r := legacyRow(rows[i])
		if r == nil {
			r = rows[i]
		}
		numbers = append(numbers, strconv.Itoa(len(old)))
		old = append(old, r)
	}
	if err := t.exec("DELETE FROM readsync_staging"); err != nil {
		return nil, err
	}
	if err := t.copy(copySQL, old); err != nil {
		return nil, err
	}
	again := make([]outcome, len(old))
	if _, err := t.differing(numbers, again); err != nil {
		return nil, err
	}
	for at, i := range differ {
		outcomes[i] = again[at]
	}
	return outcomes, nil
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

// legacyRow returns the row that a hub before this tool made of a document, if
// that is known.
func legacyRow(r *row) *row {
	if r.doc == nil {
		return nil
	}
	old := *r
	c := converter{dialect: legacy}
	for _, i := range []int{atPayload, atMeta} {
		v := r.fields[i]
		if v.isNull() {
			continue
		}
		text, err := c.append(nil, v)
		if err != nil {
			text = nil // it stored NULL for what it could not marshal
		}
		if text != nil && checkJSON(text, nulReject) != nil {
			return nil
		}
		old.columns[i] = text
	}
	for _, i := range []int{atSource, atEventType} {
		if r.fields[i].kind != bson.TypeString {
			old.columns[i] = nil // it took nothing but strings
		}
	}
	return &old
}
