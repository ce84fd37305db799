package main

import (
	"fmt"
	"time"

	"observability-hub/lib/diag"
)

// shortID shortens a long id for messages.
func shortID(id string) string {
	if len(id) > 200 {
		return id[:200] + "…"
	}
	return id
}

func idField(id string) diag.Field         { return diag.Field{Key: "mongo_id", Value: shortID(id)} }
func reasonField(reason string) diag.Field { return diag.Field{Key: "reason", Value: reason} }

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// seconds returns the time since then, in seconds, for a record.
func seconds(since time.Time) float64 { return time.Since(since).Seconds() }
