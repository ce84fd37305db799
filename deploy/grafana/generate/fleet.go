package main

// fleet shows all hosts. Each list begins with the host that needs attention most.
func fleet() *builder {
	return board("hub-fleet", "Fleet: all hosts", "24h", "1m", databaseVariable()).
		WithPanel(number("Hosts", "short", rows(`SELECT count(DISTINCT host) AS "hosts" FROM system_metrics WHERE metric_type = 'cpu' AND $__timeFilter(time)`))).
		WithPanel(number("Silent for 5 minutes", "short", rows(`SELECT count(*) FILTER (WHERE last < $__timeTo()::timestamptz - interval '5 minutes') AS "silent" FROM (
  SELECT host, max(time) AS last FROM system_metrics WHERE metric_type = 'cpu' AND $__timeFilter(time) GROUP BY host
) hosts`)).Description("Hosts that sent rows in the range of time, and none in its last 5 minutes.")).
		WithPanel(number("Jobs that need a person", "short", rows(`SELECT count(*) FILTER (WHERE NOT (payload->>'ok')::boolean) AS "jobs" FROM (
  `+lastJobs("true", "true")+`
) jobs`)).Description("From hub-status. The list below names them.")).
		WithPanel(number("Fullest file system", "percent", rows(`SELECT max((m.value->>'used_percent')::float8) AS "used" FROM (
  `+newest("'disk'", "host, metric_type")+`
) latest, jsonb_each(payload) m WHERE left(m.key, 1) <> '_'`))).
		WithPanel(list("Hosts, worst first", rows(`WITH latest AS (
  `+newest("'cpu', 'memory', 'disk'", "host, metric_type")+`
), busy AS (
  SELECT host, avg((payload->>'usage')::float8) AS percent FROM system_metrics
  WHERE metric_type = 'cpu' AND $__timeFilter(time) AND time > $__timeTo()::timestamptz - interval '15 minutes' GROUP BY host
), fullest AS (
  SELECT DISTINCT ON (host) host, m.key AS mount, (m.value->>'used_percent')::float8 AS percent FROM latest, jsonb_each(payload) m
  WHERE metric_type = 'disk' AND left(m.key, 1) <> '_' ORDER BY host, percent DESC NULLS LAST
), jobs AS (
  SELECT host, count(*) FILTER (WHERE NOT (payload->>'ok')::boolean) AS bad FROM (
    `+lastJobs("true", "true")+`
  ) last GROUP BY host
)
SELECT c.host, c.os, extract(epoch FROM $__timeTo()::timestamptz - c.time)::float8 AS "last seen", coalesce(jobs.bad, 0) AS "bad jobs",
  busy.percent AS "CPU busy", (m.payload->>'used_percent')::float8 AS "memory used", fullest.percent AS "disk used", fullest.mount AS "fullest file system",
  (c.payload->'pressure'->'some'->>'percent')::float8 AS "CPU pressure", (c.payload->>'load1')::float8 AS "load"
FROM latest c
LEFT JOIN latest m ON m.host = c.host AND m.metric_type = 'memory'
LEFT JOIN busy ON busy.host = c.host LEFT JOIN fullest ON fullest.host = c.host LEFT JOIN jobs ON jobs.host = c.host
WHERE c.metric_type = 'cpu'
ORDER BY c.time < $__timeTo()::timestamptz - interval '5 minutes' DESC, "bad jobs" DESC, greatest(busy.percent, (m.payload->>'used_percent')::float8, fullest.percent) DESC NULLS LAST, c.host`)).
			Height(12).
			Description("Silent hosts come first, then hosts with jobs that need a person, then the rest by the fullest of CPU (mean of 15 minutes), memory and disks.").
			OverrideByName("host", linkToHost()).OverrideByName("last seen", limits("s", 180, 300)).OverrideByName("bad jobs", limits("short", 1, 2)).
			OverrideByName("CPU busy", limits("percent", 80, 95)).OverrideByName("memory used", limits("percent", 80, 95)).
			OverrideByName("disk used", limits("percent", 80, 90)).OverrideByName("CPU pressure", limits("percent", 25, 60))).
		WithPanel(jobList("Jobs, worst first", "true")).
		WithPanel(list("File systems, the first to be full first", rows(`SELECT host, mount, used_percent AS "used", free, per_day AS "growth per day", CASE WHEN per_day > 0 THEN free / per_day END AS "days until full" FROM (
  SELECT host, m.key AS mount, 86400 * regr_slope((m.value->>'used')::float8, extract(epoch FROM time)::float8) AS per_day,
    (array_agg((m.value->>'used_percent')::float8 ORDER BY time DESC))[1] AS used_percent, (array_agg((m.value->>'free')::float8 ORDER BY time DESC))[1] AS free
  FROM (
    `+newest("'disk'", "host, metric_type, date_trunc('hour', time)")+`
  ) hours, jsonb_each(payload) m WHERE left(m.key, 1) <> '_' GROUP BY host, m.key
) growth ORDER BY "days until full" NULLS LAST, used_percent DESC LIMIT 50`)).
			Description("The growth is a straight line through the newest sample of each hour of the range of time. A longer range of time gives a steadier estimate.").
			OverrideByName("host", linkToHost()).OverrideByName("used", limits("percent", 80, 90)).
			OverrideByName("free", unit("bytes")).OverrideByName("growth per day", unit("bytes")).OverrideByName("days until full", unit("d"))).
		WithPanel(chart("CPU busy, the 10 busiest hosts", "percent", busiest("cpu", "payload->>'usage'")).Min(0).Max(100)).
		WithPanel(chart("Memory used, the 10 fullest hosts", "percent", busiest("memory", "payload->>'used_percent'")).Min(0).Max(100)).
		WithPanel(chart("Waiting for I/O, the 10 worst hosts", "percent", busiest("disk", "payload->'_pressure'->'some'->>'percent'")).Min(0).
			Description("Pressure: the share of time in which a task waited for I/O.")).
		WithPanel(chart("Network: bytes per second, all hosts", "Bps", series(`SELECT $__timeGroupAlias(time, $__interval), host AS metric, avg(total) AS value FROM (
  SELECT time, host, sum((i.value->>'rx_bytes_per_s')::float8 + (i.value->>'tx_bytes_per_s')::float8) AS total FROM system_metrics, jsonb_each(payload) i
  WHERE metric_type = 'network' AND $__timeFilter(time) AND left(i.key, 1) <> '_' GROUP BY time, host
) traffic GROUP BY 1, 2 ORDER BY 1`)))
}

// newest is an SQL query of the newest row of each group of the given types. Their times come from the index (host, metric_type,
// time), so that only these rows are read, and not the payload of every row of the range of time.
func newest(types, groups string) string {
	return "SELECT DISTINCT ON (" + groups + ") host, os, metric_type, time, payload FROM (SELECT host, metric_type, max(time) AS time FROM system_metrics WHERE metric_type IN (" + types + ") AND $__timeFilter(time) GROUP BY " + groups + ") last " +
		"JOIN (SELECT host, os, metric_type, time, payload FROM system_metrics WHERE metric_type IN (" + types + ") AND $__timeFilter(time)) rows USING (host, metric_type, time)"
}

// busiest is a query of a number of all hosts, of the 10 hosts with the highest mean.
func busiest(metricType, value string) query {
	from := "FROM system_metrics WHERE metric_type = '" + metricType + "' AND $__timeFilter(time)"
	return series("SELECT $__timeGroupAlias(time, $__interval), host AS metric, avg((" + value + ")::float8) AS value " + from + ` AND host IN (
  SELECT host ` + from + " GROUP BY host ORDER BY avg((" + value + `)::float8) DESC NULLS LAST LIMIT 10
) GROUP BY 1, 2 ORDER BY 1`)
}
