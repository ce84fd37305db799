package main

// readingSync shows the sync of documents from MongoDB to PostgreSQL. The numbers of documents come from the logs, and the lag
// comes from the rows.
func readingSync() *builder {
	const service = "reading-sync|reading-sync-api"
	documents := func(field string) query {
		return logSeries(field, total("service", field, stream(service, "synced")+` | json `+field+`="`+field+`"`))
	}
	return board("hub-reading-sync", "Reading sync: documents and lag", "7d", "5m", databaseVariable(), lokiVariable(), lokiHosts()).
		WithPanel(number("Newest row", "s", rows(`SELECT extract(epoch FROM $__timeTo()::timestamptz - max(created_at))::float8 AS "age" FROM reading_analytics WHERE created_at <= $__timeTo()::timestamptz`)).
			Description("Time since a row was inserted.")).
		WithPanel(number("Newest event", "s", rows(`SELECT extract(epoch FROM $__timeTo()::timestamptz - max(event_timestamp))::float8 AS "age" FROM reading_analytics WHERE event_timestamp <= $__timeTo()::timestamptz`)).
			Description("Time since the newest event that has a row: the age of the newest data in a report.")).
		WithPanel(number("Rows", "short", rows(`SELECT count(*) AS "rows" FROM reading_analytics WHERE $__timeFilter(created_at)`))).
		WithPanel(number("Dead letters", "short", rows(`SELECT sum((payload->>'dead_letters')::int) AS "dead letters" FROM (
  `+lastJobs("true", "payload->>'family' = 'reading-sync'")+`
) jobs`)).Description("Documents that were set aside on all hosts, from hub-status.")).
		WithPanel(bars("Documents of a sync", "short", documents("inserted"), documents("identical"), documents("differing"), documents("rejected")).
			Description("From readsync. A Proxy Service has no such record, see the next panel.")).
		WithPanel(bars("Documents that a call processed", "short",
			logSeries("{{host}}", total("host", "processed_count", stream("reading-sync", "triggered")+` | json processed_count="processed_count"`)))).
		WithPanel(bars("Rows by source", "short", series(`SELECT $__timeGroupAlias(created_at, $__interval), coalesce(source, 'none') AS metric, count(*) AS value FROM reading_analytics WHERE $__timeFilter(created_at) GROUP BY 1, 2 ORDER BY 1`))).
		WithPanel(marks("Lag: from the event to its row", "s", series(`SELECT $__timeGroupAlias(created_at, $__interval), percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM created_at - event_timestamp)) AS "median", max(extract(epoch FROM created_at - event_timestamp))::float8 AS "longest" FROM reading_analytics WHERE $__timeFilter(created_at) AND event_timestamp IS NOT NULL GROUP BY 1 ORDER BY 1`))).
		WithPanel(values("Documents that were rejected or differ", "times", "short",
			logValues(count("host, event, reason", stream(service, "document_rejected|document_differs")+` | json event="msg", reason="reason"`, "$__range"))).Span(12).
			Description("The first 20 of a run are logged.").
			OverrideByName("host", linkToHost())).
		WithPanel(marks("Duration", "s",
			logSeries("{{host}} {{unit}}", largest("host, unit", "duration_s", stream(service, "synced|triggered")+` | json duration_s="duration_s"`)))).
		WithPanel(lines("Errors and warnings", logLines(stream(service, ".+")+` | level=~"ERROR|WARN" | json event="msg", error="error", detail="detail", document="mongo_id" | line_format "{{.host}} {{.event}} {{.document}} {{.error}}{{.detail}}"`)))
}
