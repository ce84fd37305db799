// Package pgfault classifies errors of PostgreSQL by their cause: the content of a row,
// the table, another session, or the server.
package pgfault

import (
	"errors"
	"slices"
	"strings"

	"github.com/lib/pq"

	"observability-hub/lib/postgres"
)

// Content reports whether the content of a row caused an error: data exceptions,
// violated constraints, exceeded limits. known has the columns that readsync fills.
func Content(err error, known []string) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	if !ok || Table(pe, known) != "" {
		return false
	}
	switch postgres.Class(pe) {
	case "22", "23", "44", "54", "P0":
		return true
	}
	return pe.Routine == "ExecWithCheckOptions" // a policy of row-level security rejects this row
}

// Table returns a hint if an error means that the table accepts no row at all: it has an
// additional NOT NULL column, its ids are exhausted, or its sequence is too low. It
// returns "" for other errors.
func Table(e *pq.Error, known []string) string {
	switch {
	case e.Code == "23502" && e.Column != "mongo_id" && !slices.Contains(known, e.Column):
		return "reading_analytics has a NOT NULL column that readsync does not fill: give it a default"
	case e.Code == "2200H", e.Code == "22003" && e.Routine == "int84":
		return "the ids of reading_analytics are exhausted: change its id column and the sequence of that column to bigint"
	case e.Code == "23505" && strings.Contains(e.Detail, "(id)=("):
		return "the sequence of reading_analytics is lower than its ids, as after a restore: SELECT setval(pg_get_serial_sequence('reading_analytics', 'id'), max(id)) FROM reading_analytics"
	}
	return ""
}

// Doubtful reports whether the content of a row may have caused an error although its
// class does not say so. For example, a SQL_ASCII database rejects some JSON escapes,
// and a trigger may raise any error. Doubtful returns false for the classes of the
// connection, the transaction, privileges and the server.
func Doubtful(err error, known []string) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && Table(pe, known) == "" &&
		!slices.Contains([]string{"08", "25", "28", "3D", "40", "53", "55", "57", "58"}, postgres.Class(pe))
}

// Code reports whether an error has one of these SQLSTATEs.
func Code(err error, codes ...string) bool {
	pe, ok := errors.AsType[*pq.Error](err)
	return ok && slices.Contains(codes, string(pe.Code))
}
