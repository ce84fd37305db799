package main

import (
	"fmt"

	"observability-hub/lib/cli"
	"observability-hub/lib/record"
	"observability-hub/lib/sysexits"
)

// account counts documents by their outcome.
type account struct {
	read, inserted, identical, differing, rejected int64
	replaced                                       int64 // differing documents that replaced their rows

	namedRejected, namedDiffering int64 // documents that a warning has named
}

func (a *account) add(rows []*row) {
	for _, r := range rows {
		a.read++
		switch r.outcome {
		case inserted:
			a.inserted++
		case identical:
			a.identical++
		case differing:
			a.differing++
		case replaced:
			a.differing++
			a.replaced++
		case rejected:
			a.rejected++
		}
	}
}

// fill adds the outcomes to a record.
func (a *account) fill(l *record.Line) {
	l.Int("read", a.read)
	l.Int("inserted", a.inserted)
	l.Int("identical", a.identical)
	l.Int("differing", a.differing)
	l.Int("rejected", a.rejected)
	if a.replaced > 0 {
		l.Int("replaced", a.replaced)
	}
}

// kept returns the number of differing documents that did not replace their rows.
func (a *account) kept() int64 { return a.differing - a.replaced }

// check returns an error unless each document has exactly one outcome.
func (a *account) check() error {
	if sum := a.inserted + a.identical + a.differing + a.rejected; a.read != sum {
		return sysexits.New(sysexits.Failed, "unbalanced",
			fmt.Errorf("the account does not balance: %d read, %d inserted + %d identical + %d differing + %d rejected = %d",
				a.read, a.inserted, a.identical, a.differing, a.rejected, sum)).
			WithHint("this is a bug in readsync, please report it; nothing is lost, because documents that are not marked are read again")
	}
	return nil
}

// level returns the level of the record that contains the account.
func (a *account) level(err error) string {
	if err != nil || a.rejected+a.kept() > 0 {
		return record.Warn
	}
	return record.Info
}

// verdict returns the error that the outcomes cause, if any.
func (a *account) verdict(letters string, allowed int64) error {
	switch {
	case a.rejected > allowed:
		return tooMany(a.rejected, allowed, letters)
	case a.rejected > 0:
		return sysexits.New(sysexits.Partial, "documents_rejected", fmt.Errorf("set %s aside in %s", plural(a.rejected, "document"), letters)).
			WithHint("read the reasons in that file; correct the cause, or use --nul=replace, then: readsync retry " + letters)
	case a.kept() > 0:
		return sysexits.New(sysexits.Partial, "documents_differ", fmt.Errorf("left %s ingested: the row with the same id has other content", plural(a.kept(), "document"))).
			WithHint("run with --differing=replace to replace the rows, or set their status to processed to keep the rows")
	}
	return nil
}

// forecast returns the error that the outcomes of a dry run would cause.
func (a *account) forecast(allowed int64) error {
	code := sysexits.Partial
	if a.rejected > allowed {
		code = sysexits.DataErr
	}
	switch {
	case a.rejected > 0:
		return sysexits.New(code, "documents_rejected", fmt.Errorf("%s would be rejected, with --max-rejects %d", plural(a.rejected, "document"), allowed))
	case a.kept() > 0:
		return sysexits.New(code, "documents_differ", fmt.Errorf("would leave %s ingested: the row with the same id has other content", plural(a.kept(), "document")))
	}
	return nil
}

// maxNamed limits the documents of each kind that a run names in a warning.
const maxNamed = 20

// name prints a warning for each rejected and each differing document, up to maxNamed
// of each kind.
func (a *account) name(env *cli.Env, rows []*row) {
	for _, r := range rows {
		switch {
		case r.outcome == rejected && a.namedRejected < maxNamed:
			a.namedRejected++
			env.Diag.Warn("document_rejected", "document "+shortID(r.id)+": "+r.refused.Error(), idField(r.id), reasonField(r.refused.Reason))
		case r.outcome == differing && a.namedDiffering < maxNamed:
			a.namedDiffering++
			env.Diag.Warn("document_differs", "document "+shortID(r.id)+" differs from the row that has its id", idField(r.id))
		}
	}
}

// tooMany returns the error of a run that rejected n documents, more than allowed.
func tooMany(n, allowed int64, path string) error {
	return sysexits.New(sysexits.DataErr, "too_many_rejects",
		fmt.Errorf("stopped: rejected %s, more than --max-rejects %d, and set them aside in %s; committed rows are kept", plural(n, "document"), allowed, path)).
		WithHint("read the reasons in that file; the next run continues with the other documents; correct the cause, or use --nul=replace, then: readsync retry " + path)
}
