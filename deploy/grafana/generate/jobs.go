package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/table"
)

// The families as Promtail labels them, and the events that end a run of them well.
const (
	families = "system-metrics|gitops-sync|gitops-apply|reading-sync|reading-sync-api|volume-backup"
	ends     = "flushed|pulled|applied|held|triggered|synced|backup_finished"
)

// lastJobs is an SQL query of what hub-status reported last about each job. hosts and jobs are conditions for hosts and for the
// rows. The newest report of a host is found in the index (host, metric_type, time); its rows are some milliseconds apart.
func lastJobs(hosts, jobs string) string {
	from := "FROM system_metrics WHERE metric_type = 'jobs' AND " + hosts + " AND $__timeFilter(time)"
	return "SELECT DISTINCT ON (host, payload->>'family', payload->>'instance') time, host, payload FROM (SELECT host, max(time) AS newest " + from + " GROUP BY host) reports " +
		"JOIN (SELECT time, host, payload " + from + " AND " + jobs + ") rows USING (host) WHERE time > newest - interval '1 minute' ORDER BY host, payload->>'family', payload->>'instance', time DESC"
}

// jobList shows what hub-status says about each job. It needs no Loki.
func jobList(title, where string) *table.PanelBuilder {
	return list(title, rows(`SELECT time, host, concat_ws('@', payload->>'family', payload->>'instance') AS "job", CASE WHEN (payload->>'ok')::boolean THEN 'ok' ELSE 'needs a person' END AS "state",
  payload->>'result' AS "result", (payload->>'last_run')::timestamptz AS "last run", (payload->>'duration_s')::float8 AS "took", (payload->>'next_run')::timestamptz AS "next run",
  (SELECT string_agg(p, '; ') FROM jsonb_array_elements_text(payload->'problems') p) AS "problems"
FROM (
  `+lastJobs(where, "true")+`
) jobs ORDER BY (payload->>'ok')::boolean, "last run" NULLS FIRST, host, "job"`)).
		Description("From hub-status --json | sysmetrics flush. Empty on hosts that do not run it.").
		OverrideByName("host", linkToHost()).OverrideByName("took", unit("s"))
}

// jobs shows how each unit is doing, from the logs.
func jobs() *builder {
	done := stream(families, ends)
	return board("hub-jobs", "Jobs: last success, duration, failures", "24h", "1m", databaseVariable(), lokiVariable(), lokiHosts()).
		WithPanel(values("Last success of each job", "last success", "dateTimeFromNow",
			logValues(lastTime("host, unit", stream(families, ends)+" | level=\"INFO\""))).
			Description("The newest record of a run that ended well, within the range of time. A job that is not listed had none.").
			OverrideByName("host", linkToHost())).
		WithPanel(values("Failures of each unit", "failures", "short",
			logValues(count("host, failed, result, exit_status", stream(families, "unit_failed")+` | json failed="unit", result="result", exit_status="exit_status"`, "$__range"))).
			Description("A unit counts as failed once its retries are used up.").
			OverrideByName("host", linkToHost())).
		WithPanel(bars("Failures of units", "short",
			logSeries("{{host}} {{failed}}", count("host, failed", stream(families, "unit_failed")+` | json failed="unit"`, "$__interval")))).
		WithPanel(bars("Errors by event", "short",
			logSeries("{{service}} {{event}}", count("service, event", stream(families, ".+")+` | level="ERROR" | json event="msg"`, "$__interval")))).
		WithPanel(marks("Duration of runs", "s",
			logSeries("{{host}} {{unit}}", largest("host, unit", "duration_s", done+` | json duration_s="duration_s" | duration_s != ""`)))).
		WithPanel(bars("Runs", "short",
			logSeries("{{service}}", count("service", done, "$__interval"))).
			Description("Records that end a run. system-metrics has one a minute and host.")).
		WithPanel(lines("Errors", logLines(stream(families, ".+")+` | level="ERROR" | json event="msg", error="error", failed="unit" | line_format "{{.host}} {{.event}} {{.failed}} {{.error}}"`))).
		WithPanel(jobList("Jobs, worst first, from the database", "true"))
}
