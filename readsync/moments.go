package main

import (
	"strings"

	"github.com/lib/pq"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/moment"
	"observability-hub/readsync/internal/pgfault"
	"observability-hub/readsync/internal/reading"
)

// readMoments has PostgreSQL read the timestamps of rows that only it can read, as
// it did for the hubs before this tool, which sent it each text. A text that means
// different moments with different settings of DateStyle is refused. No bad text
// reaches the COPY of a batch.
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

// moments returns what PostgreSQL reads each timestamp as, with that order of day,
// month and year. It is empty for what is no timestamp.
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
