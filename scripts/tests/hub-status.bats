#!/usr/bin/env bats
# hub-status on hosts with every kind of trouble. systemctl, journalctl and the
# tools are stand-ins that print what a test wrote to a file; the real ones are
# used in e2e/, in a booted machine.
# shellcheck disable=SC2016 # stand-ins and jq expressions expand later, not here
# shellcheck disable=SC2154 # bats assigns output, status and stderr
bats_require_minimum_version 1.5.0

setup() {
  script=$BATS_TEST_DIRNAME/../hub-status
  unset JOURNAL_STREAM VOLBACKUP_REPO
  export SYSMETRICS_HOST=web1 BATS_TEST_TMPDIR HUB_ETC=$BATS_TEST_TMPDIR/etc
  bin=$BATS_TEST_TMPDIR/bin
  mkdir "$bin" "$BATS_TEST_TMPDIR/said"
  PATH=$bin:/usr/bin:/bin
  now=$(date +%s)
  stand_in systemctl <<'SH'
printf '%s\n' "$*" >>"$BATS_TEST_TMPDIR/calls"
cat "$BATS_TEST_TMPDIR"/units.*
SH
  local name
  for name in sysmetrics gitsync readsync volbackup journalctl; do
    stand_in "$name" <<'SH'
printf '%s\n' "${0##*/} $*" >>"$BATS_TEST_TMPDIR/calls"
read -r status <"$BATS_TEST_TMPDIR/said/${0##*/}"
tail -n +2 "$BATS_TEST_TMPDIR/said/${0##*/}"
exit "$status"
SH
  done
  healthy
}

stand_in() {
  { echo '#!/bin/bash' && cat; } >"$bin/$1"
  chmod +x "$bin/$1"
}

# says PROGRAM STATUS: what a stand-in prints, from stdin, and its exit status.
says() { { echo "$2" && cat; } >"$BATS_TEST_TMPDIR/said/$1"; }

# says_record PROGRAM SERVICE MSG FIELDS: a record of a tool.
says_record() {
  says "$1" 0 <<<"{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"INFO\",\"msg\":\"$3\",\"service\":\"$2\",$4}"
}

# refuses PROGRAM STATUS MSG ERROR: the diagnostic of a tool.
refuses() {
  says "$1" "$2" <<<"{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"ERROR\",\"msg\":\"$3\",\"service\":\"x\",\"error\":\"$4\",\"hint\":\"no hint\"}"
}

# at SECONDS: a time that is so far from now, as systemctl prints it.
at() { date -u -d "@$((now + $1))" '+%a %F %T UTC'; }

# a_unit NAME PROPERTY=VALUE...: what systemctl show prints of a unit.
a_unit() {
  { printf '%s\n' "Id=$1" "${@:2}" && echo; } >"$BATS_TEST_TMPDIR/units.$1"
}

# a_service NAME PROPERTY=VALUE...: a service that has run for 1.25 s, five minutes ago. Later properties win.
a_service() {
  a_unit "$1" LoadState=loaded ActiveState=inactive Result=success ConditionResult=yes ConditionTimestampMonotonic=1000000 \
    "ExecMainStartTimestamp=$(at -300)" ExecMainStartTimestampMonotonic=1000000 ExecMainExitTimestampMonotonic=2250000 \
    ExecMainStatus=0 "${@:2}"
}

# an_idle_service NAME PROPERTY=VALUE...: one that systemd has not started.
an_idle_service() {
  a_service "$1" ConditionResult=no ConditionTimestampMonotonic=0 ExecMainStartTimestamp= ExecMainStartTimestampMonotonic=0 \
    ExecMainExitTimestampMonotonic=0 "${@:2}"
}

# a_timer NAME PROPERTY=VALUE...: a timer of every ten minutes.
a_timer() {
  a_unit "$1" LoadState=loaded ActiveState=active Result=success "NextElapseUSecRealtime=$(at 300)" "LastTriggerUSec=$(at -300)" "${@:2}"
}

healthy() {
  local family
  for family in gitops-sync reading-sync system-metrics volume-backup; do
    a_service "$family.service"
    a_timer "$family.timer"
  done
  a_service gitops-apply.service ExecMainStartTimestampMonotonic=2250000 ExecMainExitTimestampMonotonic=3000000
  an_idle_service volume-backup-resume.service
  a_unit reading-sync-api.socket LoadState=loaded ActiveState=inactive Result=success
  spool 0 null
  commit
  says_record readsync reading-sync dead_letter_status '"dead_letters":0,"bytes":0'
  says_record journalctl reading-sync triggered '"processed_count":12,"calls":2,"attempts":2,"duration_s":0.5,"url":"http://localhost:8085"'
  volumes '"grafana_data" current 3600.5' '"pg_data" current 86400' '"old" retired 9e6' '"scratch" excluded null'
}

# spool RECORDS AGE [REJECTED]
spool() {
  says_record sysmetrics system-metrics spool_status "\"spooled\":$1,\"spool_bytes\":$(($1 * 900)),\"oldest_age_s\":$2,\"rejected\":${3:-0}"
}

# commit [JSON]: what gitsync says, changed by a jq object.
commit() {
  jq -c --argjson change "${1:-{\}}" '. + $change' >"$BATS_TEST_TMPDIR/commit" <<'JSON'
{"time":"2026-01-02T03:04:05.678Z","level":"INFO","msg":"status","service":"gitops-sync","applied":"1a2b3c4d5e6f7a8b9c0d","fetched":"1a2b3c4d5e6f7a8b9c0d","quarantined":null,"quarantine_reason":null,"held":false,"held_until":null,"pull_age_s":301.5,"apply_age_s":299.25,"stale":false,"interrupted":false,"files":3,"drift":0,"drifted":[]}
JSON
  says gitsync 0 <"$BATS_TEST_TMPDIR/commit"
}

# volumes 'NAME STATE AGE'...
volumes() {
  local name state age all=()
  for name; do
    read -r name state age <<<"$name"
    all+=("{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"INFO\",\"msg\":\"backup_status\",\"service\":\"volume-backup\",\"volume\":$name,\"archives\":1,\"damaged\":0,\"newest\":null,\"age_s\":$age,\"stale\":$([[ $state == @(stale|never_backed_up) ]] && echo true || echo false),\"state\":\"$state\"}")
  done
  says volbackup "${volumes_status:-0}" < <(printf '%s\n' "${all[@]}")
}

# look STATUS ARGUMENTS...: runs the script without a terminal, demands the exit status and valid JSON, and leaves the
# records in $records. If HUB_STATUS_RECORDS names a file they are added to it: a test in e2e/ compares them with the
# schema.
look() {
  run "-$1" --separate-stderr "$script" "${@:2}"
  [ -z "$stderr" ] || { echo "stderr: $stderr" && return 1; }
  records=$output
  jq -e . <<<"$records" >/dev/null
  if [ -n "${HUB_STATUS_RECORDS-}" ]; then cat <<<"$records" >>"$HUB_STATUS_RECORDS"; fi
}

# has FAMILY JQ: the expression is true of the payload of the family.
has() {
  jq -se --arg family "$1" "map(select(.service == \$family))[0].payload | $2" <<<"$records" >/dev/null || {
    echo "not true of $1: $2"
    echo "of: $records"
    return 1
  }
}

# ails FAMILY TEXT: the only problem of the host is the family's, and begins with the text. The other families are well.
ails() {
  has "$1" '.ok == false and (.problems | length) == 1' || return 1
  has "$1" ".problems[0] | startswith($(jq -n --arg text "$2" '$text'))" || return 1
  jq -se --arg family "$1" 'all(.[]; .payload.ok == (.service != $family) and .level == (if .payload.ok then "INFO" else "WARN" end))' <<<"$records" >/dev/null
}

@test "a healthy host" {
  look 0
  [ "$(jq -r .service <<<"$records" | tr '\n' ' ')" = 'gitops-sync reading-sync system-metrics volume-backup ' ]
  jq -se 'all(.[]; .level == "INFO" and .msg == "job_status" and .host == "web1" and .metric_type == "jobs")' <<<"$records"
  local family
  for family in gitops-sync reading-sync system-metrics volume-backup; do
    has "$family" '.ok and .problems == [] and .unknown == {} and .result == "success" and .running == false'
    has "$family" ".last_run == \"$(date -u -d "@$((now - 300))" +%FT%T.000Z)\" and .next_run == \"$(date -u -d "@$((now + 300))" +%FT%T.000Z)\""
  done
  has system-metrics '.duration_s == 1.25 and .spooled == 0 and .spool_age_s == null and .rejected == 0'
  # The pull and the apply that it started.
  has gitops-sync '.duration_s == 2 and .commit == "1a2b3c4d5e6f7a8b9c0d" and .apply_age_s == 299.25 and .held == false and .quarantined == null'
  has reading-sync '.synced == 12 and .dead_letters == 0'
  # Volumes that are left out or gone do not count.
  has volume-backup '.volumes == 2 and .stale_volumes == 0 and .oldest_backup_s == 86400'
}

@test "it asks systemd once, and about the state of the units" {
  look 0
  [ "$(grep -c '^show ' "$BATS_TEST_TMPDIR/calls")" -eq 1 ]
  grep -qx 'sysmetrics status --state-dir /var/lib/system-metrics' "$BATS_TEST_TMPDIR/calls"
  grep -qx 'gitsync status --state-dir /var/lib/gitops-apply' "$BATS_TEST_TMPDIR/calls"
  grep -qx 'readsync status --state-dir /var/lib/reading-sync' "$BATS_TEST_TMPDIR/calls"
  grep -qx 'volbackup status --state-dir /var/lib/volume-backup' "$BATS_TEST_TMPDIR/calls"
}

@test "each record of a run has a time of its own: host, metric type and time are the key of a row" {
  look 0
  jq -se 'map(.time) | length == 4 and . == unique' <<<"$records"
  jq -se 'all(.[]; .time | test("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$"))' <<<"$records"
}

@test "a table" {
  look 0
  run -0 --separate-stderr "$script" --table
  [ -z "$stderr" ]
  cat <<<"$output"
  [ "$(wc -l <<<"$output")" -eq 5 ]
  # The columns line up.
  [[ ${lines[0]} == 'FAMILY          LAST RUN  RESULT  TOOK  NEXT RUN  STATE' ]]
  # The clock may have gone on a second or two.
  [[ ${lines[1]} =~ ^'gitops-sync     5min ago  ok      2.0s  in '[45]'min   1a2b3c4d5e6f applied 4min ago'$ ]]
  [[ ${lines[2]} =~ ^'reading-sync    5min ago  ok      1.2s  in '[45]'min   12 synced, 0 dead letters'$ ]]
  [[ ${lines[3]} =~ ^'system-metrics  5min ago  ok      1.2s  in '[45]'min   0 records waiting'$ ]]
  [[ ${lines[4]} =~ ^'volume-backup   5min ago  ok      1.2s  in '[45]'min   2 volumes, oldest backup 24h'$ ]]
}

@test "a terminal gets the table, and --json the records" {
  run -0 script --quiet --command "$script" /dev/null
  [[ $output == 'FAMILY '* ]]
  run -0 script --quiet --command "$script --json" /dev/null
  jq -e . <<<"${lines[0]}"
}

@test "a unit that failed" {
  a_service volume-backup.service ActiveState=failed Result=exit-code ExecMainStatus=69
  look 1
  ails volume-backup 'volume-backup.service failed, exit status 69: journalctl -u volume-backup.service'
  has volume-backup '.result == "exit-code" and .oldest_backup_s == 86400'
  run -1 --separate-stderr "$script" --table
  [[ ${lines[4]} == 'volume-backup   5min ago  exit 69  1.2s  in '* ]]
  [[ $output == *$'\n\n''volume-backup: volume-backup.service failed, exit status 69: '* ]]
}

@test "a unit that systemd will start again has failed too" {
  a_service system-metrics.service ActiveState=activating Result=signal ExecMainStatus=9
  look 1
  ails system-metrics 'system-metrics.service failed, killed by signal 9: '
  run -1 --separate-stderr "$script" --table system-metrics
  [[ ${lines[1]} == 'system-metrics  running   signal 9  '* ]]
}

@test "a timeout, and a start limit" {
  a_service reading-sync.service ActiveState=failed Result=timeout
  look 1
  ails reading-sync 'reading-sync.service failed, timeout: '
  a_service reading-sync.service ActiveState=failed Result=start-limit-hit
  look 1
  ails reading-sync 'reading-sync.service failed, start-limit-hit: '
}

@test "the second unit of a family fails" {
  a_service gitops-apply.service ActiveState=failed Result=exit-code ExecMainStatus=10
  look 1
  ails gitops-sync 'gitops-apply.service failed, exit status 10: '
  has gitops-sync '.result == "exit-code"'
  healthy
  a_service volume-backup-resume.service ActiveState=failed Result=exit-code ExecMainStatus=69
  look 1
  ails volume-backup 'volume-backup-resume.service failed, exit status 69: '
  healthy
  a_unit reading-sync-api.socket LoadState=loaded ActiveState=failed Result=trigger-limit-hit
  look 1
  ails reading-sync 'reading-sync-api.socket failed, trigger-limit-hit: '
}

@test "an API socket that a host with a Proxy Service does not use is no trouble" {
  a_unit reading-sync-api.socket LoadState=not-found ActiveState=inactive Result=success
  look 0
}

@test "a timer that is off, failed, masked, missing, or never fires" {
  a_timer system-metrics.timer ActiveState=inactive NextElapseUSecRealtime=
  look 1
  ails system-metrics 'system-metrics.timer is off: systemctl enable --now system-metrics.timer'
  has system-metrics '.next_run == null and .unknown.next_run == "system-metrics.timer is off"'
  a_timer system-metrics.timer LoadState=masked ActiveState=inactive NextElapseUSecRealtime=
  look 1
  ails system-metrics 'system-metrics.timer is masked: systemctl unmask system-metrics.timer'
  a_timer system-metrics.timer LoadState=not-found ActiveState=inactive NextElapseUSecRealtime= LastTriggerUSec=
  look 1
  ails system-metrics 'system-metrics.timer is not installed'
  a_timer system-metrics.timer NextElapseUSecRealtime=
  look 1
  ails system-metrics 'system-metrics.timer has no next run: systemctl status system-metrics.timer'
  a_timer system-metrics.timer LoadState=bad-setting ActiveState=inactive NextElapseUSecRealtime=
  look 1
  ails system-metrics 'system-metrics.timer cannot be loaded: systemctl status system-metrics.timer'
}

@test "a job that never ran is well as long as its timer will start it" {
  an_idle_service volume-backup.service
  a_timer volume-backup.timer LastTriggerUSec=
  refuses volbackup 1 no_backups 'repository: /var/lib/volume-backup/repository: no backup of any volume'
  look 0
  has volume-backup '.last_run == null and .result == null and .duration_s == null and .oldest_backup_s == null'
  has volume-backup '.unknown.last_run == "systemd knows of no run" and .unknown.oldest_backup_s == "no backup yet"'
  run -0 --separate-stderr "$script" --table volume-backup
  [[ ${lines[1]} =~ ^'volume-backup  -         -       -     in '[45]'min   no backup yet'$ ]]
  [ "${#lines[@]}" -eq 2 ]
  a_timer volume-backup.timer LastTriggerUSec= ActiveState=inactive NextElapseUSecRealtime=
  look 1
  ails volume-backup 'volume-backup.timer is off: '
}

@test "after a boot the timer still knows the last run, but not its result" {
  an_idle_service volume-backup.service
  look 0
  has volume-backup ".last_run == \"$(date -u -d "@$((now - 300))" +%FT%T.000Z)\" and .result == null and .duration_s == null"
  has volume-backup '.unknown == {"result": "no run since the host booted", "duration_s": "no run since the host booted"}'
  run -0 --separate-stderr "$script" --table volume-backup
  [[ ${lines[1]} == 'volume-backup  5min ago  ?       ?     in '* ]]
  [ "${lines[2]}" = 'volume-backup: ? result, duration_s: no run since the host booted' ]
}

@test "a job that runs" {
  a_service volume-backup.service ActiveState=activating ExecMainExitTimestampMonotonic=0
  a_timer volume-backup.timer NextElapseUSecRealtime=
  look 0
  has volume-backup '.running and .result == null and .next_run == null and .unknown.next_run == "the job is running"'
  run -0 --separate-stderr "$script" --table volume-backup
  [[ ${lines[1]} == 'volume-backup  running   -       -     -         2 volumes, '* ]]
}

@test "a job whose condition is not met is skipped" {
  an_idle_service gitops-sync.service ConditionTimestampMonotonic=1000000
  an_idle_service gitops-apply.service
  refuses gitsync 78 no_state_directory 'no state directory /var/lib/gitops-apply: no run has saved state there'
  look 0
  has gitops-sync '.result == "skipped" and .last_run == null and .commit == null'
  has gitops-sync '.unknown.last_run == "a condition of gitops-sync.service is not met" and .unknown.commit == "nothing applied yet"'
}

@test "a spool that grows, and records that the database refuses" {
  # The database was away for a few minutes.
  spool 40 600.5
  look 0
  has system-metrics '.spooled == 40 and .spool_age_s == 600.5'
  spool 9000 86400.25
  look 1
  ails system-metrics '9000 records in the spool, the oldest for 24h, because no database takes them: hub-run system-metrics sysmetrics flush </dev/null'
  spool 0 null 1
  look 1
  ails system-metrics 'the database has refused 1 record: '
}

@test "a commit that waits" {
  commit '{"waiting": "feedface000000000000", "waiting_until": "2026-01-02T05:04:05.678Z"}'
  run -0 --separate-stderr "$script" --json gitops-sync
  records=$output
  has gitops-sync '.waiting == "feedface000000000000" and .ok'
  run -0 --separate-stderr "$script" --table gitops-sync
  [[ ${lines[1]} == *'  1a2b3c4d5e6f applied 4min ago, feedface0000 waits until 2026-01-02T05:04Z' ]]
  commit '{"waiting": "feedface000000000000"}'
  look 1
  ails gitops-sync 'commit feedface0000 is not taken, because other hosts rolled it back: correct it with a new commit'
}

@test "a commit in quarantine" {
  commit '{"quarantined": "feedface000000000000", "quarantine_reason": "web.service: \"failed\" \\ exit-code"}'
  look 1
  ails gitops-sync 'commit feedface0000 is quarantined, web.service: "failed" \ exit-code: correct it with a new commit'
  has gitops-sync '.quarantined == "feedface000000000000" and .commit == "1a2b3c4d5e6f7a8b9c0d"'
  run -1 --separate-stderr "$script" --table gitops-sync
  [[ ${lines[1]} == *'  feedface0000 quarantined' ]]
}

@test "a hold with an end is well, one without an end needs a person" {
  commit '{"held": true, "held_until": "2026-01-02T05:04:05.678Z", "apply_age_s": 90000}'
  look 0
  has gitops-sync '.held and .held_until == "2026-01-02T05:04:05.678Z"'
  commit '{"held": true}'
  look 1
  ails gitops-sync 'a hold without an end: gitsync resume ends it'
  has gitops-sync '.held and .held_until == null'
}

@test "no apply has succeeded for hours" {
  # Two of the timer's periods, of 15 minutes or more, and an hour.
  commit '{"apply_age_s": 5390.5}'
  look 0
  commit '{"apply_age_s": 9000.5}'
  look 1
  ails gitops-sync 'the last apply that succeeded was 2h ago: journalctl -u gitops-apply.service'
  # A timer of twelve hours.
  a_timer gitops-sync.timer "NextElapseUSecRealtime=$(at 42900)"
  look 0
}

@test "dead letters" {
  says_record readsync reading-sync dead_letter_status '"dead_letters":3,"bytes":900'
  look 1
  ails reading-sync '3 documents in the dead letters: hub-run reading-sync-api@by-hand readsync retry /var/lib/reading-sync/dead-letters.jsonl'
  has reading-sync '.synced == 12 and .dead_letters == 3'
}

@test "a host whose documents a Proxy Service syncs has no dead letters" {
  refuses readsync 78 no_state_directory 'no state directory /var/lib/reading-sync: no run has saved state there'
  look 0
  has reading-sync '.dead_letters == 0 and .unknown == {}'
}

@test "the newest run counts, and lines that are not records do not matter" {
  says journalctl 0 <<'TXT'
{"level":"ERROR","msg":"documents_rejected","service":"reading-sync","error":"\"msg\":\"triggered\",\"processed_count\":1"}
{"level":"INFO","msg":"triggered","service":"reading-sync","processed_count":7}
{"level":"INFO","msg":"triggered","service":"reading-sync","processed_count":8}
TXT
  look 0
  has reading-sync '.synced == 7'
}

@test "backups that are too old" {
  volumes '"grafana_data" current 100' '"pg\"1" current 176500.5'
  look 1
  ails volume-backup 'the newest verified backup of pg"1 is 2d old: journalctl -u volume-backup.service'
  has volume-backup '.oldest_backup_s == 176500.5 and .volumes == 2'
  # Once a week.
  a_timer volume-backup.timer "NextElapseUSecRealtime=$(at 604500)"
  look 0
}

@test "volumes without a good backup" {
  volumes_status=1 volumes '"grafana_data" current 100' '"pg_data" never_backed_up null' '"x" stale null'
  look 1
  ails volume-backup '2 volumes without a verified backup that is new enough: volbackup status'
  has volume-backup '.volumes == 3 and .stale_volumes == 2 and .oldest_backup_s == 100'
}

@test "a thousand volumes" {
  local all=() i
  for ((i = 0; i < 1000; i++)); do all+=("\"v$i\" current $i.5"); done
  volumes "${all[@]}"
  look 0
  has volume-backup '.volumes == 1000 and .oldest_backup_s == 999.5'
}

@test "only what is installed is listed" {
  rm "$bin/readsync" "$bin/gitsync" "$bin/volbackup"
  local name
  for name in gitops-sync reading-sync volume-backup; do
    a_unit "$name.timer" LoadState=not-found ActiveState=inactive Result=success
    a_unit "$name.service" LoadState=not-found ActiveState=inactive Result=success
  done
  look 0
  [ "$(jq -r .service <<<"$records")" = system-metrics ]
  # A family that is named must be there.
  look 1 volume-backup
  has volume-backup '.problems == ["volume-backup.service is not installed", "volume-backup.timer is not installed", "volbackup is not installed"]'
  has volume-backup '.unknown.oldest_backup_s == "the program is not installed"'
}

@test "a unit without its program" {
  rm "$bin/gitsync"
  look 1
  ails gitops-sync 'gitsync is not installed'
  has gitops-sync '.result == "success" and .commit == null and .unknown.commit == "the program is not installed"'
}

@test "nothing is installed" {
  rm "$bin"/{sysmetrics,gitsync,readsync,volbackup} "$BATS_TEST_TMPDIR"/units.*
  a_unit system-metrics.timer LoadState=not-found ActiveState=inactive Result=success
  run -1 --separate-stderr "$script"
  [ -z "$output" ]
  [[ $stderr == 'hub-status: no job '* ]]
}

@test "what this user may not see is null, with the reason" {
  local denied='permission denied; run hub-status as root'
  refuses sysmetrics 1 permission_denied 'open /var/lib/system-metrics/spool.jsonl: permission denied'
  refuses gitsync 1 permission_denied 'open /var/lib/gitops-apply/ledger.json: permission denied'
  refuses readsync 1 permission_denied 'open /var/lib/reading-sync/dead-letters.jsonl: permission denied'
  refuses volbackup 1 inventory_damaged 'inventory /var/lib/volume-backup/repository/.volumes.json: permission denied'
  says journalctl 1 <<<'No journal files were opened due to insufficient permissions.'
  look 0
  has system-metrics ".spooled == null and .unknown == {spooled: \"$denied\", spool_age_s: \"$denied\", rejected: \"$denied\"}"
  has gitops-sync ".commit == null and .held == null and .unknown.commit == \"$denied\""
  has reading-sync ".synced == null and .dead_letters == null and .unknown == {synced: \"$denied\", dead_letters: \"$denied\"}"
  has volume-backup ".volumes == null and .oldest_backup_s == null and .unknown.oldest_backup_s == \"$denied\""
  # What systemd says is for everyone.
  a_service volume-backup.service ActiveState=failed Result=exit-code ExecMainStatus=1
  look 1
  run -1 --separate-stderr "$script" --table
  [[ $output == *'? records waiting'* && $output == *'? synced, ? dead letters'* ]]
  [[ $output == *"system-metrics: ? spooled, spool_age_s, rejected: $denied"* ]]
}

@test "a journal without the run, and a tool that is older than its status command" {
  says journalctl 0 </dev/null
  refuses sysmetrics 64 usage 'unexpected argument status'
  look 0
  has reading-sync '.synced == null and .unknown.synced == "the journal that this user can read has no record of a run"'
  has system-metrics '.spooled == null and .unknown.spooled == "unexpected argument status"'
}

@test "documents were never synced" {
  an_idle_service reading-sync.service
  a_timer reading-sync.timer LastTriggerUSec=
  says journalctl 0 </dev/null
  look 0
  has reading-sync '.synced == null and .unknown.synced == "no run has ended yet"'
  run -0 --separate-stderr "$script" --table reading-sync
  [[ ${lines[1]} == *'  nothing synced yet, 0 dead letters' ]]
}

@test "a tool that crashes, and one that prints what is not JSON" {
  says sysmetrics 139 </dev/null
  says volbackup 1 <<<$'Segmentation \x01 "fault" \\ \xff'
  look 0
  has system-metrics '.unknown.spooled == "exit status 139"'
  has volume-backup '.unknown.volumes == "Segmentation \u0001 \"fault\" \\ \ufffd"'
}

@test "a tool that hangs" {
  stand_in timeout <<<'if [[ $2 == sysmetrics ]]; then exit 124; fi; shift; exec "$@"'
  look 0
  has system-metrics '.spooled == null and .unknown.spooled == "no answer within 10 s"'
  grep -q '^volbackup ' "$BATS_TEST_TMPDIR/calls"
}

@test "a host without systemd" {
  stand_in systemctl <<<'echo "System has not been booted with systemd" >&2; exit 1'
  look 1
  has system-metrics '.problems == ["systemd cannot be asked: System has not been booted with systemd"]'
  has system-metrics '.last_run == null and .next_run == null and .spooled == 0'
  has system-metrics '.unknown.next_run == "System has not been booted with systemd"'
}

@test "times that date cannot parse are null" {
  a_timer system-metrics.timer 'NextElapseUSecRealtime=Sam 2026-13-45 25:61:00 XYZ'
  look 1
  has system-metrics '.next_run == null and .last_run == null and .result == null'
  has system-metrics '.problems == ["systemd cannot be asked: systemctl prints times that date cannot parse"]'
}

@test "instances of gitops-sync have lines of their own" {
  a_service 'gitops-sync@web.service'
  a_timer 'gitops-sync@web.timer'
  a_service 'gitops-apply@web.service' ActiveState=failed Result=exit-code ExecMainStatus=10 ExecMainStartTimestampMonotonic=2250000
  look 1
  jq -se 'length == 5 and .[1].service == "gitops-sync" and .[1].payload.instance == "web"' <<<"$records"
  jq -se '.[1].payload.problems[0] | startswith("gitops-apply@web.service failed, exit status 10: ")' <<<"$records"
  jq -se '.[0].payload | .ok and (has("instance") | not)' <<<"$records"
  grep -qx 'gitsync status --state-dir /var/lib/gitops-apply-web' "$BATS_TEST_TMPDIR/calls"
  look 1 gitops-sync@web
  jq -se 'length == 1' <<<"$records"
  # Where only instances are in use, the timer without one is off on purpose.
  a_timer gitops-sync.timer ActiveState=inactive NextElapseUSecRealtime=
  a_service 'gitops-apply@web.service' ExecMainStartTimestampMonotonic=2250000
  look 0
  jq -se 'map(.payload.instance) == ["web", null, null, null]' <<<"$records"
}

@test "an instance whose name systemd escapes" {
  a_service 'gitops-sync@a\x2db.service'
  a_timer 'gitops-sync@a\x2db.timer'
  look 0
  jq -se '.[1].payload.instance == "a\\x2db"' <<<"$records"
}

@test "families can be chosen" {
  a_service volume-backup.service ActiveState=failed Result=exit-code ExecMainStatus=1
  look 0 system-metrics reading-sync
  [ "$(jq -r .service <<<"$records" | tr '\n' ' ')" = 'system-metrics reading-sync ' ]
  look 1 volume-backup
}

@test "the host and its system are named as sysmetrics names them" {
  unset SYSMETRICS_HOST
  look 0
  local id
  # shellcheck disable=SC1091 # a file of the host
  id=$(. /etc/os-release && echo "$ID${VERSION_ID:+ $VERSION_ID}")
  jq -se --arg host "$(</proc/sys/kernel/hostname)" --arg os "$id" 'all(.[]; .host == $host and .os == $os)' <<<"$records"
}

@test "--flush passes the records to sysmetrics flush, whose exit status counts" {
  stand_in sysmetrics <<'SH'
case $1 in
  flush) cat >"$BATS_TEST_TMPDIR/flushed" && exit "$(cat "$BATS_TEST_TMPDIR/flush.status")" ;;
  status) tail -n +2 "$BATS_TEST_TMPDIR/said/sysmetrics" ;;
esac
SH
  a_service volume-backup.service ActiveState=failed Result=exit-code ExecMainStatus=1
  echo 0 >"$BATS_TEST_TMPDIR/flush.status"
  run -0 --separate-stderr "$script" --flush
  [ -z "$output$stderr" ]
  jq -se 'length == 4 and .[2].payload.spooled == 0 and .[3].level == "WARN"' "$BATS_TEST_TMPDIR/flushed"
  # Under the unit, the records go into a pipe and not to the journal.
  : >"$BATS_TEST_TMPDIR/stream"
  run -0 bash -c 'JOURNAL_STREAM=$(stat -c %d:%i "$1") "$0" --flush >"$1"' "$script" "$BATS_TEST_TMPDIR/stream"
  jq -se 'length == 4' "$BATS_TEST_TMPDIR/flushed"
  echo 73 >"$BATS_TEST_TMPDIR/flush.status"
  run -73 "$script" --flush system-metrics
  jq -se 'length == 1' "$BATS_TEST_TMPDIR/flushed"
  rm "$bin/sysmetrics"
  run -69 --separate-stderr "$script" --flush
  [[ $stderr == 'hub-status: --flush needs sysmetrics'* ]]
}

@test "<4> only for a warning, and only when stdout is the journal's stream" {
  # A file stands for the stream: what counts is its device and inode.
  a_service volume-backup.service ActiveState=failed Result=exit-code ExecMainStatus=1
  local stream
  : >"$BATS_TEST_TMPDIR/stream"
  stream=$(stat -c %d:%i "$BATS_TEST_TMPDIR/stream")
  run -1 bash -c 'JOURNAL_STREAM=$1 "$0" >"$2"' "$script" "$stream" "$BATS_TEST_TMPDIR/stream"
  [ "$(cut -c1-4 "$BATS_TEST_TMPDIR/stream" | tr '\n' ' ')" = '{"ti {"ti {"ti <4>{ ' ]
  JOURNAL_STREAM=$stream look 1
}

@test "a full output fails" {
  run ! --separate-stderr bash -c '"$0" >/dev/full' "$script"
  run ! --separate-stderr bash -c '"$0" --table >/dev/full' "$script"
}

@test "usage" {
  run -0 --separate-stderr "$script" --help
  [[ $output == 'usage: hub-status '* && -z $stderr ]]
  local args
  for args in --no-such-option volume-backup.service 'system-metrics nonsense' gitops-sync@ -x; do
    # shellcheck disable=SC2086 # the words are the arguments
    run -64 --separate-stderr "$script" $args
    [ -z "$output" ]
    [[ $stderr == *'usage: '* ]]
  done
}

@test "the manual has every option" {
  local option
  for option in --json --table --flush; do grep -q "\*$option\*" "$BATS_TEST_DIRNAME/../../docs/hub-status.1.scd"; done
}

@test "a secret that every user can read is a problem of its families" {
  mkdir -p "$HUB_ETC/credstore" "$HUB_ETC/observability-hub"
  touch "$HUB_ETC"/credstore/{database_url,age_identity,known_hosts,mongo_uri}
  echo 'GITSYNC_REPO=https://u:token@git.example.org/hub' >"$HUB_ETC/observability-hub/gitops-sync.env"
  chmod 644 "$HUB_ETC"/*/*
  chmod 600 "$HUB_ETC/credstore/mongo_uri"
  run -1 "$script" --json
  [ "$(jq -r '.payload | "\(.family) \(.problems[])"' <<<"$output" | sort)" = "gitops-sync every user can read $HUB_ETC/observability-hub/gitops-sync.env: chmod 600 $HUB_ETC/observability-hub/gitops-sync.env
reading-sync every user can read $HUB_ETC/credstore/database_url: chmod 600 $HUB_ETC/credstore/database_url
system-metrics every user can read $HUB_ETC/credstore/database_url: chmod 600 $HUB_ETC/credstore/database_url
volume-backup every user can read $HUB_ETC/credstore/age_identity: chmod 600 $HUB_ETC/credstore/age_identity" ]
  touch "$HUB_ETC"/credstore/verdict_{key,credentials}
  echo 'GITSYNC_REPO=https://u:token@git.example.org/hub' >"$HUB_ETC/observability-hub/gitops-verdict.env"
  chmod 644 "$HUB_ETC"/*/*verdict*
  run -1 "$script" --json gitops-sync
  [ "$(grep -o 'credstore/verdict_key:\|credstore/verdict_credentials:\|gitops-verdict.env:' <<<"$output" | wc -l)" -eq 3 ]
  # In a directory that nobody else may enter, nobody else reads them.
  chmod 700 "$HUB_ETC"/*
  run -0 "$script" --json
}

@test "a settings file that every user can read is a problem if it holds a secret" {
  local line name
  mkdir -p "$HUB_ETC/observability-hub"
  while IFS= read -r line; do
    for name in reading-sync-api.env hub-notify.env; do
      rm -f "$HUB_ETC"/observability-hub/*
      printf '# a comment\n%s\n' "$line" >"$HUB_ETC/observability-hub/$name"
      run -1 "$script" --json
      [ "$(jq -r '.payload.problems[]' <<<"$output")" = "every user can read $HUB_ETC/observability-hub/$name: chmod 600 $HUB_ETC/observability-hub/$name" ] || {
        echo "$line in $name"
        false
      }
    done
  done <<'END'
PGPASSWORD=x
DATABASE_URL=postgres://hub:x@db/hub
DATABASE_URL="host=db password=x"
MONGO_URI=mongodb://hub:x@db/?tls=true
 PROXY_AUTH = user:x
RESTIC_PASSWORD=x
AWS_SECRET_ACCESS_KEY=x
NTFY_TOKEN=x
END
  # Other settings are no secret, and a comment is no setting.
  printf '%s\n' '# PGPASSWORD=x' ';DATABASE_URL=postgres://hub:x@db/hub' 'PGHOST=/run/postgresql' 'DATABASE_URL=postgres://hub@db:5432/hub' \
    'GITSYNC_REPO=git@git.example.org:hub.git' 'RESTIC_PASSWORD_FILE=/etc/restic' 'PGPASSWORD=' >"$HUB_ETC/observability-hub/reading-sync-api.env"
  rm -f "$HUB_ETC/observability-hub/hub-notify.env"
  run -0 "$script" --json
}

@test "an encrypted credential that the unit does not decrypt is a problem" {
  mkdir -p "$HUB_ETC/credstore.encrypted" "$HUB_ETC/credstore"
  touch "$HUB_ETC"/credstore.encrypted/{mongo_uri,age_identity,deploy_key} "$HUB_ETC/credstore/deploy_key"
  chmod 600 "$HUB_ETC"/credstore*/*
  stand_in systemctl <<'SH'
if [[ $* == 'cat -- reading-sync-api@.service' ]]; then printf '[Service]\nLoadCredential=mongo_uri\nLoadCredentialEncrypted=mongo_uri2\n'; exit; fi
if [[ $* == 'cat -- volume-backup.service' ]]; then printf '[Service]\nLoadCredentialEncrypted=age_identity\n'; exit; fi
cat "$BATS_TEST_TMPDIR"/units.*
SH
  run -1 "$script" --json
  [ "$(jq -r '.payload.problems[]' <<<"$output")" = "reading-sync-api@.service does not decrypt $HUB_ETC/credstore.encrypted/mongo_uri: systemctl edit reading-sync-api@.service, [Service], LoadCredentialEncrypted=mongo_uri" ]
}

@test "an encrypted credential of another name is known by the name in the unit" {
  mkdir -p "$HUB_ETC/credstore.encrypted"
  touch "$HUB_ETC"/credstore.encrypted/{deploy_key-web,verdict_key-web,known_hosts-web}
  a_timer gitops-sync@web.timer
  a_service gitops-sync@web.service
  stand_in systemctl <<'SH'
if [[ $* == 'cat -- gitops-sync@web.service' ]]; then printf '[Service]\nLoadCredential=deploy_key:deploy_key-%%i\nLoadCredentialEncrypted=known_hosts:known_hosts-web\n'; exit; fi
if [[ $* == cat* ]]; then exit; fi
cat "$BATS_TEST_TMPDIR"/units.*
SH
  run -1 "$script" --json gitops-sync@web
  [ "$(jq -r '.payload.problems[]' <<<"$output" | sed 's/.*: //')" = 'systemctl edit gitops-sync@web.service, [Service], LoadCredentialEncrypted=deploy_key:deploy_key-web
systemctl edit gitops-verdict@web.service, [Service], LoadCredentialEncrypted=deploy_key:verdict_key-web' ]
}

@test "hub-status knows each credential of the units" {
  local name known=0
  while read -r name; do
    grep -q "[:\" ]$name\b" "$script"
    known=$((known + 1))
  done < <(sed -n 's/^LoadCredential=\([a-z_]*:\)\?\([a-z_]*\).*/\2/p' "$BATS_TEST_DIRNAME"/../../systemd/*.service | sort -u)
  ((known >= 9))
}

# --- --textfile ---

@test "--textfile writes a gauge for each number that is known, and exits 0 whatever needs a person" {
  a_timer reading-sync.timer ActiveState=inactive NextElapseUSecRealtime=
  run -0 --separate-stderr "$script" --textfile "$BATS_TEST_TMPDIR/hub.prom"
  [ -z "$output$stderr" ]
  grep -qx '# TYPE hub_job_ok gauge' "$BATS_TEST_TMPDIR/hub.prom"
  grep -qx 'hub_job_ok{family="reading-sync"} 0' "$BATS_TEST_TMPDIR/hub.prom"
  grep -qx 'hub_job_ok{family="system-metrics"} 1' "$BATS_TEST_TMPDIR/hub.prom"
  grep -qx 'hub_job_last_run_duration_seconds{family="volume-backup"} 1.250' "$BATS_TEST_TMPDIR/hub.prom"
  grep -qx "hub_job_last_success_timestamp_seconds{family=\"gitops-sync\"} $((now - 300))" "$BATS_TEST_TMPDIR/hub.prom"
  run -1 grep -q 'hub_job_next_run_timestamp_seconds{family="reading-sync"}' "$BATS_TEST_TMPDIR/hub.prom"
  # The samples of a metric stand together.
  [ "$(grep -c '^# HELP' "$BATS_TEST_TMPDIR/hub.prom")" -eq "$(grep -v '^#' "$BATS_TEST_TMPDIR/hub.prom" | cut -d '{' -f 1 | uniq | wc -l)" ]
  [ ! -e "$BATS_TEST_TMPDIR/hub.prom.new" ]
}

@test "--textfile keeps the last success while the job fails" {
  "$script" --textfile "$BATS_TEST_TMPDIR/hub.prom" volume-backup
  a_service volume-backup.service Result=exit-code ExecMainStatus=11 "ExecMainStartTimestamp=$(at -60)"
  "$script" --textfile "$BATS_TEST_TMPDIR/hub.prom" volume-backup
  grep -qx "hub_job_last_success_timestamp_seconds{family=\"volume-backup\"} $((now - 300))" "$BATS_TEST_TMPDIR/hub.prom"
  grep -qx "hub_job_last_run_timestamp_seconds{family=\"volume-backup\"} $((now - 60))" "$BATS_TEST_TMPDIR/hub.prom"
}

@test "--textfile that cannot be written leaves the file alone and exits 73" {
  mkdir "$BATS_TEST_TMPDIR/hub.prom.new"
  echo old >"$BATS_TEST_TMPDIR/hub.prom"
  run -73 --separate-stderr "$script" --textfile "$BATS_TEST_TMPDIR/hub.prom"
  [[ $stderr == *"hub-status: cannot write $BATS_TEST_TMPDIR/hub.prom"* ]]
  [ "$(cat "$BATS_TEST_TMPDIR/hub.prom")" = old ]
  mkfifo "$BATS_TEST_TMPDIR/fifo"
  run -73 --separate-stderr "$script" --textfile "$BATS_TEST_TMPDIR/fifo"
  [ -p "$BATS_TEST_TMPDIR/fifo" ]
  run -73 --separate-stderr "$script" --textfile "$BATS_TEST_TMPDIR/missing/hub.prom"
  run -64 --separate-stderr "$script" --textfile
}

@test "--textfile escapes the name of an instance, and keeps its last success" {
  local file=$BATS_TEST_TMPDIR/hub.prom name='gitops-sync@a\x2db'
  a_timer "$name.timer"
  a_service "$name.service"
  "$script" --textfile "$file" "$name" "$name"
  grep -Fqx 'hub_job_ok{family="gitops-sync@a\\x2db"} 1' "$file"
  [ "$(grep -c '^hub_job_ok{' "$file")" -eq 1 ]
  a_service "$name.service" Result=exit-code ExecMainStatus=69 "ExecMainStartTimestamp=$(at -60)"
  "$script" --textfile "$file" "$name"
  grep -Fqx "hub_job_last_success_timestamp_seconds{family=\"gitops-sync@a\\\\x2db\"} $((now - 300))" "$file"
  # The name of a unit has neither of these, but an argument can.
  run -0 "$script" --textfile "$file" $'gitops-sync@"/\n'
  grep -Fqx 'hub_job_running{family="gitops-sync@\"/\n"} 0' "$file"
}

@test "--textfile does not follow a link that someone put in its way" {
  echo mine >"$BATS_TEST_TMPDIR/other"
  ln -s other "$BATS_TEST_TMPDIR/hub.prom.new"
  run -0 "$script" --textfile "$BATS_TEST_TMPDIR/hub.prom"
  [ "$(cat "$BATS_TEST_TMPDIR/other")" = mine ]
  [ -f "$BATS_TEST_TMPDIR/hub.prom" ] && [ ! -L "$BATS_TEST_TMPDIR/hub.prom" ]
}

@test "--textfile waits for another run that writes the same file" {
  local file=$BATS_TEST_TMPDIR/dir/hub.prom lock
  mkdir "$BATS_TEST_TMPDIR/dir"
  mkfifo "$BATS_TEST_TMPDIR/waits"
  stand_in flock <<'SH'
echo >"$BATS_TEST_TMPDIR/waits"
exec /usr/bin/flock "$@"
SH
  exec {lock}<"$BATS_TEST_TMPDIR/dir"
  /usr/bin/flock "$lock"
  echo other >"$file.new"
  (exec {lock}<&- && exec "$script" --textfile "$file") &
  read -r -t 10 <>"$BATS_TEST_TMPDIR/waits"
  mv "$file.new" "$file"
  [ "$(cat "$file")" = other ]
  exec {lock}<&-
  wait $!
  grep -q '^hub_job_ok' "$file"
}
