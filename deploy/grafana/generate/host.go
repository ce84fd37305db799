package main

import (
	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/common"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// hostUID is the address of the dashboard since it was the only one.
const hostUID = "hub-system-metrics"

// samples is an SQL query of one host's rows of one type.
func samples(metricType, columns string) query {
	return series("SELECT time, " + columns + " FROM system_metrics WHERE metric_type = '" + metricType + "' AND host = ${host:sqlstring} AND $__timeFilter(time) ORDER BY time")
}

// host shows one host. Its queries work with the rows of the collector before sysmetrics too, which has fewer keys.
func host() *builder {
	hosts := "SELECT DISTINCT host FROM system_metrics WHERE $__timeFilter(time) ORDER BY 1"
	percent := func(title string, queries ...query) *timeseries.PanelBuilder {
		return chart(title, "percent", queries...).Min(0).Max(100)
	}
	return board(hostUID, "Host: system metrics", "6h", "1m", databaseVariable(),
		hostVariable(hosts)).
		WithPanel(percent("CPU busy",
			samples("cpu", `(payload->>'usage')::float8 AS "busy", (payload->'modes'->>'iowait')::float8 AS "waiting for I/O", (payload->'modes'->>'steal')::float8 AS "stolen"`))).
		WithPanel(percent("Pressure: time that tasks waited",
			samples("cpu", `(payload->'pressure'->'some'->>'percent')::float8 AS "for CPU"`),
			samples("memory", `(payload->'pressure'->'some'->>'percent')::float8 AS "for memory"`),
			samples("disk", `(payload->'_pressure'->'some'->>'percent')::float8 AS "for I/O"`)).
			Description("Exact for each minute. Empty on kernels without pressure stall information.")).
		WithPanel(percent("Memory used",
			samples("memory", `(payload->>'used_percent')::float8 AS "memory", (payload->>'swap_used_percent')::float8 AS "swap"`))).
		WithPanel(chart("Load and run queue", "short",
			samples("cpu", `(payload->>'load1')::float8 AS "load, 1 minute", (payload->>'run_queue')::float8 AS "runnable", (payload->>'blocked')::float8 AS "waiting for I/O"`))).
		WithPanel(percent("Disk used",
			series("SELECT time, m.key AS metric, (m.value->>'used_percent')::float8 AS value FROM system_metrics, jsonb_each(payload) m WHERE metric_type = 'disk' AND host = ${host:sqlstring} AND $__timeFilter(time) AND left(m.key, 1) <> '_' ORDER BY time"))).
		WithPanel(rootFileSystem()).
		WithPanel(chart("Disk: time of an operation", "ms",
			series("SELECT time, d.key AS metric, (d.value->>'await_ms')::float8 AS value FROM system_metrics, jsonb_each(payload->'_io') d WHERE metric_type = 'disk' AND host = ${host:sqlstring} AND $__timeFilter(time) ORDER BY time")).
			Description("Mean time from request to answer, waiting in the queue included. A gap is a minute without operations.")).
		WithPanel(percent("Disk: busy",
			series("SELECT time, d.key AS metric, (d.value->>'util_percent')::float8 AS value FROM system_metrics, jsonb_each(payload->'_io') d WHERE metric_type = 'disk' AND host = ${host:sqlstring} AND $__timeFilter(time) ORDER BY time"))).
		WithPanel(chart("Network: bytes per second", "Bps",
			series("SELECT time, i.key || ' received' AS metric, (i.value->>'rx_bytes_per_s')::float8 AS value FROM system_metrics, jsonb_each(payload) i WHERE metric_type = 'network' AND host = ${host:sqlstring} AND $__timeFilter(time) AND left(i.key, 1) <> '_' ORDER BY time"),
			series("SELECT time, i.key || ' sent' AS metric, (i.value->>'tx_bytes_per_s')::float8 AS value FROM system_metrics, jsonb_each(payload) i WHERE metric_type = 'network' AND host = ${host:sqlstring} AND $__timeFilter(time) AND left(i.key, 1) <> '_' ORDER BY time"))).
		WithPanel(chart("Network: drops and errors per second", "cps",
			series("SELECT time, i.key || ' ' || r.name AS metric, (i.value->>(r.name || '_per_s'))::float8 AS value FROM system_metrics, jsonb_each(payload) i, unnest(ARRAY['rx_drops', 'tx_drops', 'rx_errors', 'tx_errors']) r(name) WHERE metric_type = 'network' AND host = ${host:sqlstring} AND $__timeFilter(time) AND left(i.key, 1) <> '_' ORDER BY time"),
			samples("network", `(payload->'_tcp'->>'retransmits_per_s')::float8 AS "TCP retransmits"`))).
		WithPanel(chart("eth0: received, from the counter", "Bps",
			series(`SELECT time, CASE WHEN now >= before THEN (now - before) / seconds END AS "eth0" FROM (SELECT time, (payload->'eth0'->>'rx_bytes')::float8 AS now, lag((payload->'eth0'->>'rx_bytes')::float8) OVER w AS before, nullif(extract(epoch FROM time - lag(time) OVER w), 0)::float8 AS seconds FROM system_metrics WHERE metric_type = 'network' AND host = ${host:sqlstring} AND $__timeFilter(time) WINDOW w AS (ORDER BY time)) counters ORDER BY time`)).
			Description("For rows from before sysmetrics, which have no rates. A counter that went backwards is a gap.")).
		WithPanel(list("What could not be read",
			rows("SELECT time, metric_type, f.key AS what, f.value AS why FROM system_metrics, jsonb_each_text(payload->'_meta'->'failed') f WHERE host = ${host:sqlstring} AND $__timeFilter(time) ORDER BY time DESC LIMIT 100")).
			Span(12).Height(8).Description("Hanging mounts, for example.")).
		WithPanel(jobList("Jobs", "host = ${host:sqlstring}"))
}

// hostVariable chooses one of the hosts that a query returns.
func hostVariable(hosts string) cog.Builder[dashboard.VariableModel] {
	return dashboard.NewQueryVariableBuilder("host").Label("Host").Datasource(database).
		Query(dashboard.StringOrMap{String: &hosts}).Refresh(dashboard.VariableRefreshOnTimeRangeChanged).Sort(dashboard.VariableSortDisabled)
}

func rootFileSystem() *stat.PanelBuilder {
	return number("Root file system", "percent",
		samples("disk", `(payload->'/'->>'used_percent')::float8 AS "space", (payload->'/'->>'inodes_used_percent')::float8 AS "inodes"`)).
		Span(12).Height(8).Min(0).Max(100).GraphMode(common.BigValueGraphModeArea)
}
