package main

// gitops shows which commit each host has, and its drift, rollbacks and holds.
func gitops() *builder {
	const (
		pull  = "gitops-sync"
		apply = "gitops-apply"
		both  = pull + "|" + apply
	)
	applied := stream(apply, "applied") + ` | json commit="commit"`
	// The time of the newest record with this commit equals the time of the newest record with any commit.
	newest := lastTime("host, unit, commit", applied) + " == on (host, unit) group_left () " + lastTime("host, unit", stream(apply, "applied"))
	return board("hub-gitops", "GitOps: commits, drift, rollbacks", "24h", "1m", databaseVariable(), lokiVariable(), lokiHosts()).
		WithPanel(values("Commit of each host", "applied", "dateTimeFromNow", logValues(newest)).Span(12).
			Description("The commit of the newest apply that succeeded, and how long ago that was.").
			OverrideByName("host", linkToHost())).
		WithPanel(values("Hosts of each commit", "hosts", "short", logValues("count by (commit) ("+newest+")")).Span(12)).
		WithPanel(list("State of each host", rows(`SELECT host, payload->>'instance' AS "instance", left(payload->>'commit', 12) AS "commit", (payload->>'apply_age_s')::float8 AS "applied", payload->>'held' = 'true' AS "held", (payload->>'held_until')::timestamptz AS "held until", left(payload->>'quarantined', 12) AS "quarantined", left(payload->>'waiting', 12) AS "waiting", time AS "reported" FROM (
  `+lastJobs("true", "payload->>'family' = 'gitops-sync'")+`
) jobs ORDER BY payload->>'quarantined' IS NULL, "held" DESC, "applied" DESC NULLS FIRST, host`)).
			Description("From hub-status. A commit waits for the turn of the host, or because other hosts have rolled it back.").
			OverrideByName("host", linkToHost()).OverrideByName("applied", limits("s", 2700, 7200))).
		WithPanel(bars("Drift that was repaired", "short",
			logSeries("{{host}} {{path}}", count("host, path", stream(apply, "action")+` | json reason="reason", path="path" | reason="drift"`, "$__interval"))).
			Description("Files that were changed on the host and restored.")).
		WithPanel(bars("Actions", "short",
			logSeries("{{action}} {{reason}}", count("action, reason", stream(apply, "action")+` | json action="action", reason="reason"`, "$__interval")))).
		WithPanel(values("Rollbacks", "times", "short",
			logValues(count("host, commit, failed, reason, back_to", stream(apply, "rolled_back")+` | json commit="commit", failed="unit", reason="reason", back_to="back_to"`, "$__range"))).Span(12).
			OverrideByName("host", linkToHost())).
		WithPanel(values("Holds", "last seen", "dateTimeFromNow",
			logValues(lastTime("host, unit, since, until", stream(apply, "held")+` | json since="since", until="until"`))).Span(12).
			Description("Runs that changed nothing because of a hold. A hold without an end has no time in the column until.").
			OverrideByName("host", linkToHost())).
		WithPanel(bars("Quarantined commits", "short",
			logSeries("{{host}} {{commit}}", count("host, commit", stream(apply, "quarantined")+` | json commit="commit"`, "$__interval"))).
			Description("Runs that did not apply the pulled commit because it is quarantined.")).
		WithPanel(marks("Duration", "s",
			logSeries("{{host}} {{unit}}", largest("host, unit", "duration_s", stream(both, "pulled|applied")+` | json duration_s="duration_s"`)))).
		WithPanel(lines("Errors and warnings", logLines(stream(both, ".+")+` | level=~"ERROR|WARN" | json event="msg", error="error", detail="detail" | line_format "{{.host}} {{.event}} {{.error}}{{.detail}}"`)))
}
