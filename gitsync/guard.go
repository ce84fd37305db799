package main

import (
	"fmt"
	"slices"

	"observability-hub/lib/sysexits"
)

// guard refuses a plan that would remove all or most of the files that gitsync
// owns. A commit that does this is more often a mistake than an intention.
func guard(l *ledger, w *want, allow bool) error {
	if allow {
		return nil
	}
	removed := len(l.gone(w))
	kept := len(l.Files) - removed
	var err error
	switch {
	case len(w.files) == 0 && len(w.rules) == 0 && (len(l.Files) > 0 || !slices.ContainsFunc(w.skipped, func(s skippedFile) bool { return s.unit != "" })):
		err = fmt.Errorf("commit %s wants nothing: no units in systemd/, no scripts in scripts/", w.commit)
	case removed > 2 && removed > kept:
		err = fmt.Errorf("commit %s would remove %d of the %d files that gitsync deployed", w.commit, removed, len(l.Files))
	default:
		return nil
	}
	return sysexits.New(sysexits.DataErr, "prune_refused", err).
		WithHint("nothing was changed; if this is intended, run gitsync apply --allow-prune once, by hand as root")
}
