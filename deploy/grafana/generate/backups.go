package main

// backups shows the volumes of all hosts. volbackup reads back each archive of its own repository before it prints the record, so a
// record with level INFO is a verified backup.
func backups() *builder {
	each := stream("volume-backup", "backed_up")
	finished := stream("volume-backup", "backup_finished")
	counted := func(field string) query {
		return logSeries(field, total("service", field, finished+` | json `+field+`="`+field+`"`))
	}
	return board("hub-backups", "Backups of volumes", "7d", "5m", databaseVariable(), lokiVariable(), lokiHosts()).
		WithPanel(values("Last verified backup of each volume", "verified", "dateTimeFromNow",
			logValues(lastTime("host, volume", each+` | level="INFO" | json volume="volume"`))).Span(12).
			Description("volbackup reads each archive back before it counts. Snapshots of restic are not read back. A volume that is not listed has no backup in the range of time.").
			OverrideByName("host", linkToHost())).
		WithPanel(values("Failed backups of each volume", "failures", "short",
			logValues(count("host, volume, error", each+` | level="ERROR" | json volume="volume", error="error"`, "$__range"))).Span(12).
			OverrideByName("host", linkToHost())).
		WithPanel(list("Oldest backup of each host", rows(`SELECT host, (payload->>'oldest_backup_s')::float8 AS "oldest backup", (payload->>'stale_volumes')::int AS "stale volumes", (payload->>'volumes')::int AS "volumes", time AS "reported" FROM (
  `+lastJobs("true", "payload->>'family' = 'volume-backup'")+`
) jobs ORDER BY "stale volumes" DESC NULLS LAST, "oldest backup" DESC NULLS FIRST, host`)).Span(12).
			Description("From hub-status: the age of the newest verified backup of the volume whose backup is the oldest.").
			OverrideByName("host", linkToHost()).OverrideByName("oldest backup", limits("s", 90000, 172800)).OverrideByName("stale volumes", limits("short", 1, 2))).
		WithPanel(chart("Age of the oldest backup", "s", series(`SELECT time, host AS metric, (payload->>'oldest_backup_s')::float8 AS value FROM system_metrics WHERE metric_type = 'jobs' AND payload->>'family' = 'volume-backup' AND $__timeFilter(time) ORDER BY time`))).
		WithPanel(marks("Size of an archive", "bytes",
			logSeries("{{host}} {{volume}}", largest("host, volume", "stored_bytes", each+` | level="INFO" | json volume="volume", stored_bytes="stored_bytes"`)))).
		WithPanel(marks("Size of a volume", "bytes",
			logSeries("{{host}} {{volume}}", largest("host, volume", "bytes", each+` | level="INFO" | json volume="volume", bytes="bytes"`)))).
		WithPanel(marks("Duration of a backup", "s",
			logSeries("{{host}} {{volume}}", largest("host, volume", "duration_s", each+` | json volume="volume", duration_s="duration_s"`))).
			Description("The containers of a volume are down for a part of this time.")).
		WithPanel(marks("Downtime of the containers", "s",
			logSeries("{{host}} {{volume}}", largest("host, volume", "downtime_s", each+` | json volume="volume", downtime_s="downtime_s"`))).
			Description("For how long containers of a volume were stopped or paused. Volumes that share containers show the same time.")).
		WithPanel(bars("Volumes of a run", "short", counted("stored"), counted("unchanged"), counted("failed"), counted("left_out"))).
		WithPanel(bars("Not consistent", "short",
			logSeries("{{host}} {{volume}} {{consistency}}", count("host, volume, consistency", each+` | level="INFO" | json volume="volume", consistency="consistency" | consistency != "consistent"`, "$__interval"))).
			Description("changed: a file changed while it was read. killed: a container did not stop in time.")).
		WithPanel(bars("Damage, and containers in trouble", "short",
			logSeries("{{host}} {{event}}", count("host, event", stream("volume-backup", "archive_damaged|archives_damaged|archive_verify_failed|container_killed|container_gone|not_resumed|not_healthy|backup_stale|no_room")+` | json event="msg"`, "$__interval")))).
		WithPanel(lines("Errors and warnings", logLines(stream("volume-backup", ".+")+` | level=~"ERROR|WARN" | json event="msg", error="error", detail="detail", volume="volume" | line_format "{{.host}} {{.event}} {{.volume}} {{.error}}{{.detail}}"`)))
}
