package main

import "observability-hub/lib/cli"

// writing is the one way of rows into the table, for run, load and retry: write,
// decide, set aside, account, name. Killed between any two of these, the next run
// finds the documents still ingested, and their rows and letters there.
type writing struct {
	env     *cli.Env
	target  *target
	account account
	aside   func(rejects []*row) error // keeps what cannot be a row; nil in a dry run
}

// write writes rows that have different ids, or are all documents of one collection.
func (w *writing) write(rows []*row) error {
	if err := w.target.write(rows); err != nil {
		return err
	}
	var rejects []*row
	for _, r := range rows {
		if r.refused != nil {
			r.outcome = rejected
			rejects = append(rejects, r)
		}
	}
	if len(rejects) > 0 && w.aside != nil {
		if err := w.aside(rejects); err != nil {
			return err
		}
	}
	w.account.add(rows)
	w.account.name(w.env, rows)
	return nil
}
