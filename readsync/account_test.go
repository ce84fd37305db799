package main

import (
	"testing"

	"observability-hub/lib/sysexits"
)

func TestAccount(t *testing.T) {
	var a account
	a.add([]*row{{outcome: inserted}, {outcome: inserted}, {outcome: identical}, {outcome: differing}, {outcome: rejected}})
	if a.read != 5 || a.inserted != 2 || a.identical != 1 || a.differing != 1 || a.rejected != 1 || a.check() != nil {
		t.Errorf("%+v, %v", a, a.check())
	}
	a.add([]*row{{}}) // a row without an outcome
	if err := a.check(); sysexits.Code(err) != sysexits.Failed {
		t.Errorf("check of an account that does not balance = %v; want an error", err)
	}
	for _, tc := range []struct {
		a       account
		allowed int64
		status  int
	}{
		{account{read: 1, inserted: 1}, 0, 0},
		{account{rejected: 1}, 0, sysexits.DataErr},
		{account{rejected: 1}, 1, sysexits.Partial},
		{account{differing: 1}, 0, sysexits.Partial},
	} {
		if got := sysexits.Code(tc.a.verdict("file", tc.allowed)); got != tc.status {
			t.Errorf("%+v with --max-rejects %d: %d; want %d", tc.a, tc.allowed, got, tc.status)
		}
	}
}

func TestOutcomeNames(t *testing.T) {
	for o := inserted; o <= rejected; o++ {
		if parseOutcome(o.String()) != o {
			t.Errorf("parseOutcome(%v) does not return it", o)
		}
	}
	for _, s := range []string{"", "undecided", "INSERTED"} {
		if parseOutcome(s) != undecided {
			t.Errorf("parseOutcome(%q) returns an outcome", s)
		}
	}
}
