package main

import (
	"strings"

	"github.com/lib/pq"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/moment"
	"observability-hub/readsync/internal/pgfault"
	"observability-hub/readsync/internal/reading"
)

// readMoments lets PostgreSQL parse the timestamps that readsync cannot parse. Hubs
// before this tool sent every text to PostgreSQL, so those texts must stay valid. A text
// that means different moments with different settings of DateStyle is refused.
// Refusing bad texts here keeps them out of the COPY of a batch.
func (t *target) readMoments(rows []*row) error {
	var odd []*row
	for _, r := range rows {
		if r.unread && r.refused == nil {
			odd = append(odd, r)
		}
	}
	var before []string
	for _, order := range []string{"MDY", "DMY", "YMD"} {
		if len(odd) == 0 {
			return nil
		}
		moments, err := t.moments(order, odd)
		if err != nil {
			return err
		}
		var still []*row
		var read []string
		for i, r := range odd {
			switch {
			case moments[i] == "":
				r.refused = (&extjson.Refusal{Reason: "bad_timestamp"}).At(reading.Fields[reading.Timestamp])
			case before != nil && moments[i] != before[i]:
				r.refused = (&extjson.Refusal{Reason: "bad_timestamp", Detail: "it means different days, depending on the order of day, month and year"}).At(reading.Fields[reading.Timestamp])
			default:
				still, read = append(still, r), append(read, moments[i])
			}
		}
		odd, before = still, read
	}
	for i, r := range odd {
		column, err := moment.Parse(nil, []byte(before[i]))
		if err != nil {
			r.refused = extjson.AsRefusal(err).At(reading.Fields[reading.Timestamp])
			continue
		}
		r.columns[reading.Timestamp], r.unread = column, false
	}
	return nil
}

// moments returns each timestamp as PostgreSQL parses it with that order of day, month
// and year. The result is empty for a text that is not a timestamp.
func (t *target) moments(order string, rows []*row) ([]string, error) {
	texts := make([]string, len(rows))
	for i, r := range rows {
		texts[i] = pq.QuoteLiteral(string(r.columns[reading.Timestamp]))
	}
	got, err := t.read("SELECT text::timestamptz::text FROM unnest(ARRAY["+strings.Join(texts, ",")+"]::text[]) WITH ORDINALITY AS t (text, n) ORDER BY n",
		"DateStyle = 'ISO, "+order+"'", "TimeZone = 'UTC'")
	switch half := len(rows) / 2; {
	case err == nil:
		return got, nil
	case !pgfault.Content(err, reading.ColumnNames[:]):
		return nil, err
	case len(rows) == 1:
		return []string{""}, nil
	default:
		first, err := t.moments(order, rows[:half])
		if err != nil {
			return nil, err
		}
		rest, err := t.moments(order, rows[half:])
		return append(first, rest...), err
	}
}
