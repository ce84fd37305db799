package main

// weeks shows weeks and months, from the hourly means that sysmetrics rollup keeps up to date. No query reads the samples.
func weeks() *builder {
	hosts := "SELECT DISTINCT host FROM system_metrics_hourly WHERE metric = 'cpu_usage' AND $__timeFilter(time) ORDER BY 1"
	const hour = "Means of an hour, or of more hours if the range of time is long."
	return board("hub-weeks", "Weeks and months: hourly means", "30d", "", databaseVariable(), hostVariable(hosts)).
		WithPanel(chart("CPU busy, the 10 busiest hosts", "percent", busiestHourly("cpu_usage")).Min(0).Max(100).Description(hour)).
		WithPanel(chart("Memory used, the 10 fullest hosts", "percent", busiestHourly("memory_used_percent")).Min(0).Max(100).Description(hour)).
		WithPanel(chart("Waiting for I/O, the 10 worst hosts", "percent", busiestHourly("disk_pressure")).Min(0).
			Description("Pressure: the share of time in which a task waited for I/O. " + hour)).
		WithPanel(chart("Network: bytes per second, all hosts together", "Bps", series(`SELECT $__timeGroupAlias(time, $__interval), metric, sum(mean) / count(DISTINCT time) AS value FROM system_metrics_hourly WHERE metric IN ('rx_bytes_per_s', 'tx_bytes_per_s') AND $__timeFilter(time) GROUP BY 1, 2 ORDER BY 1`)).
			Description(hour)).
		WithPanel(list("File systems, the first to be full first", rows(`SELECT host, name AS mount, used_percent AS "used", free, per_day AS "growth per day", CASE WHEN per_day > 0 THEN free / per_day END AS "days until full" FROM (
  SELECT host, name, 86400 * regr_slope(last, extract(epoch FROM time)::float8) AS per_day, max(time) AS time FROM system_metrics_hourly WHERE metric = 'disk_used' AND $__timeFilter(time) GROUP BY host, name
) growth
JOIN (SELECT host, name, time, last AS used_percent FROM system_metrics_hourly WHERE metric = 'disk_used_percent' AND $__timeFilter(time)) percents USING (host, name, time)
JOIN (SELECT host, name, time, last AS free FROM system_metrics_hourly WHERE metric = 'disk_free' AND $__timeFilter(time)) frees USING (host, name, time)
ORDER BY "days until full" NULLS LAST, used_percent DESC LIMIT 50`)).
			Description("The growth is a straight line through the newest sample of each hour.").
			OverrideByName("host", linkToHost()).OverrideByName("used", limits("percent", 80, 90)).
			OverrideByName("free", unit("bytes")).OverrideByName("growth per day", unit("bytes")).OverrideByName("days until full", unit("d"))).
		WithPanel(chart("${host}: CPU busy", "percent", hostHourly("'cpu_usage', 'cpu_iowait'", "mean"), hostHourly("'cpu_usage'", "highest")).Min(0).Max(100).Description(hour)).
		WithPanel(chart("${host}: memory and swap used", "percent", hostHourly("'memory_used_percent', 'swap_used_percent'", "mean")).Min(0).Max(100).Description(hour)).
		WithPanel(chart("${host}: disk used", "percent", hostHourly("'disk_used_percent'", "last")).Min(0).Max(100)).
		WithPanel(chart("${host}: pressure", "percent", hostHourly("'cpu_pressure', 'memory_pressure', 'disk_pressure'", "mean")).Min(0).Max(100).Description(hour)).
		WithPanel(chart("${host}: disks busy", "percent", hostHourly("'disk_util_percent'", "mean")).Min(0).Max(100).Description(hour)).
		WithPanel(chart("${host}: network", "Bps", hostHourly("'rx_bytes_per_s', 'tx_bytes_per_s'", "mean")).Description(hour))
}

// hostHourly is a query of one host's hourly numbers. The column is mean, highest or last. The largest of several hours is drawn
// for highest and last, and their mean for mean.
func hostHourly(metrics, column string) query {
	aggregate, suffix := "max("+column+")", ""
	switch column {
	case "mean":
		aggregate = "sum(mean * samples) / sum(samples)"
	case "highest":
		suffix = ", ' highest'"
	}
	return series("SELECT $__timeGroupAlias(time, $__interval), concat_ws(' ', nullif(name, ''), metric" + suffix + ") AS metric, " + aggregate + " AS value FROM system_metrics_hourly WHERE host = ${host:sqlstring} AND metric IN (" + metrics + ") AND $__timeFilter(time) GROUP BY 1, 2 ORDER BY 1")
}

// busiestHourly is a query of a number of all hosts, of the 10 hosts with the highest mean.
func busiestHourly(metric string) query {
	from := "FROM system_metrics_hourly WHERE metric = '" + metric + "' AND $__timeFilter(time)"
	return series("SELECT $__timeGroupAlias(time, $__interval), host AS metric, sum(mean * samples) / sum(samples) AS value " + from + ` AND host IN (
  SELECT host ` + from + ` GROUP BY host ORDER BY sum(mean * samples) / sum(samples) DESC LIMIT 10
) GROUP BY 1, 2 ORDER BY 1`)
}
