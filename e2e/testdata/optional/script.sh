#!/bin/bash
# Runs in the booted machine: makes a host with all four families, whose Docker and Proxy Service are stand-ins, starts each
# optional unit once, and shows hub-status on a terminal, healthy and with each kind of trouble.
set -euo pipefail
export HOME=/root

psql_hub() { runuser -u postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"; }

# by_hand CMD...: as a person runs it. This script is a unit itself.
by_hand() { env -u INVOCATION_ID -u JOURNAL_STREAM SYSMETRICS_HOST=web1 "$@"; }

# await COMMAND...: waits until the command succeeds.
await() {
  local start=$SECONDS
  until "$@"; do
    if ((SECONDS - start > 30)); then
      echo "not within 30 s: $*" >&2
      exit 1
    fi
    sleep 0.1
  done
}
in_state() { [[ $(systemctl show --property=ActiveState --value "$1") == "$2" ]]; }

# calm: waits until system-metrics.timer, which fires every minute, does not fire for three seconds.
calm() {
  local next
  next=$(systemctl show --property=NextElapseUSecRealtime --value system-metrics.timer)
  [[ -n $next ]] && (($(date -d "$next" +%s) - EPOCHSECONDS > 3)) && ! in_state system-metrics.service activating
}

# shown NAME: what hub-status prints on a terminal of 100 columns, and its records.
shown() {
  await calm
  by_hand script --quiet --return --command 'stty cols 100 rows 40; hub-status' /dev/null >/e2e/"$1".term </dev/null || echo "$?" >/e2e/"$1".status
  by_hand hub-status --json >/e2e/"$1".jsonl || :
}

# kind NAME FAMILY: what hub-status prints of this trouble.
kind() {
  echo "# $1"
  { by_hand hub-status --table "$2" || [[ $? == 1 ]]; } | sed '1,/^$/d'
} >>/e2e/kinds

# --- a healthy host ----------------------------------------------------------

systemctl start proxy.socket
psql_hub <<'SQL'
CREATE ROLE server LOGIN;
CREATE DATABASE hub OWNER server;
SQL
# That of an older hub has no partitions, and so takes rows of any day.
psql_hub --dbname=hub <<'SQL'
SET ROLE server;
CREATE TABLE system_metrics (time timestamptz NOT NULL, host text NOT NULL, os text, metric_type text NOT NULL, payload jsonb NOT NULL);
SQL
printf '%s\n' PGHOST=/run/postgresql PGDATABASE=hub SYSMETRICS_HOST=web1 >/etc/observability-hub/system-metrics.env
printf '%s\n' GITSYNC_REPO=/srv/hub.git GITSYNC_HEALTH_WINDOW=1s >/etc/observability-hub/gitops-sync.env
printf '%s\n' VOLBACKUP_MANAGE_VOLUME=/usr/local/bin/volumes HUB_TRIES=1 >/etc/observability-hub/volume-backup.env
install -m 600 /dev/stdin /etc/observability-hub/dead-man.env <<<PING_URL=http://127.0.0.1:8086/key
mkdir -p /srv/data
seq 100000 >/srv/data/grafana.db
git init --quiet --bare --initial-branch=main /srv/hub.git
git clone --quiet /srv/hub.git /tmp/hub 2>/dev/null
git config --global safe.directory '*'
commit() {
  mkdir -p /tmp/hub/systemd
  printf '[Service]\nType=oneshot\nExecStart=%s\n[X-Gitsync]\nProbe=yes\n' "$1" >/tmp/hub/systemd/own.service
  git -C /tmp/hub add .
  git -C /tmp/hub -c user.name=hub -c user.email=hub@example.org commit --quiet --message="$1"
  git -C /tmp/hub push --quiet
  chown -R server: /srv/hub.git
}
commit true
timers=(gitops-sync.timer reading-sync.timer system-metrics.timer volume-backup.timer)
# Without an active timer systemd forgets a service, and how its last run ended.
systemctl enable --quiet --now "${timers[@]}"
systemctl start gitops-sync.service reading-sync.service system-metrics.service volume-backup.service
await test -e /var/lib/gitops-apply/ledger.json
await in_state gitops-apply.service inactive
shown healthy

# --- the optional units ------------------------------------------------------

optional=(system-metrics-prune.timer volume-backup-verify.timer hub-textfile.timer hub-status.timer)
systemctl is-enabled "${optional[@]}" >/e2e/enabled-by-install || :
systemctl preset --quiet "${optional[@]}"
systemctl is-enabled "${optional[@]}" >/e2e/enabled-by-preset || :

psql_hub --dbname=hub --command="INSERT INTO system_metrics SELECT now() - interval '40 days', host, os, metric_type, payload FROM system_metrics"
echo SYSMETRICS_KEEP=30d >>/etc/observability-hub/system-metrics.env
systemctl start system-metrics-prune.service
psql_hub --dbname=hub --command="SELECT count(*) FILTER (WHERE time < now() - interval '30 days'), count(*) >= 4 FROM system_metrics" >/e2e/rows

systemctl start volume-backup-verify.service
systemctl start hub-textfile.service
cp /var/lib/hub-textfile/hub.prom /e2e/healthy.prom
stat --format='%a %U' /var/lib/hub-textfile /var/lib/hub-textfile/hub.prom >/e2e/textfile

await test -e /run/pings
cp /run/pings /e2e/pings

# --- with trouble ------------------------------------------------------------

commit false
systemctl start gitops-sync.service
await in_state gitops-apply.service failed
kind 'A commit broke a unit, and was undone' gitops-sync
# Only the endpoint of this host has that directory.
install -d -o server -g server -m 750 /var/lib/reading-sync
echo '{"mongo_id":"1","reason":"nul"}' >/var/lib/reading-sync/dead-letters.jsonl
chown server: /var/lib/reading-sync/dead-letters.jsonl
kind 'Documents that PostgreSQL cannot store' reading-sync
by_hand sysmetrics | sed "s/\"time\":\"[^\"]*\"/\"time\":\"$(date -u -d '2 hours ago' +%FT%T.000Z)\"/" >/tmp/old
systemctl stop postgresql@15-main.service
by_hand sysmetrics flush </tmp/old >/dev/null 2>&1 || :
systemctl start system-metrics.service 2>/dev/null || :
kind 'A database that is down for more than an hour' system-metrics
touch /run/broken-volume
systemctl start volume-backup.service 2>/dev/null || :
kind 'A backup that failed' volume-backup
shown trouble
systemctl start hub-textfile.service
cp /var/lib/hub-textfile/hub.prom /e2e/trouble.prom

# The other kinds, each alone.
rm /run/broken-volume
systemctl start postgresql@15-main.service
await pg_isready --quiet
systemctl start volume-backup.service system-metrics.service
rm /var/lib/reading-sync/dead-letters.jsonl
echo VOLBACKUP_MAX_AGE=1s >>/etc/observability-hub/volume-backup.env
sleep 1.1
kind 'A backup that is too old for volbackup status' volume-backup
sed -i '$d' /etc/observability-hub/volume-backup.env
by_hand gitsync hold >/dev/null
commit true
systemctl reset-failed gitops-apply.service
rm -f /var/lib/gitops-apply/quarantine.json
kind 'A hold that nobody ended' gitops-sync
by_hand gitsync resume >/dev/null
install -o server -g server -m 600 /tmp/old /var/lib/system-metrics/rejected.jsonl
kind 'Records that the database refused' system-metrics
rm /var/lib/system-metrics/rejected.jsonl
systemctl disable --quiet --now reading-sync.timer
kind 'A timer that is off' reading-sync
systemctl enable --quiet --now reading-sync.timer
systemctl mask --quiet system-metrics.service
kind 'A unit that is masked' system-metrics
systemctl unmask --quiet system-metrics.service
mv /usr/local/lib/systemd/system/volume-backup.timer /root/
systemctl daemon-reload
kind 'A unit that is not installed' volume-backup
mv /root/volume-backup.timer /usr/local/lib/systemd/system/
systemctl daemon-reload
systemctl start volume-backup.timer
mv /usr/local/bin/readsync /root/
kind 'A tool that is not installed' reading-sync
mv /root/readsync /usr/local/bin/
install -D -m 644 /dev/null /etc/credstore/age_identity
kind 'Secrets that every user can read' volume-backup
rm -r /etc/credstore
unshare --mount bash -c 'mount -t tmpfs none /run && exec "$@"' - bash -c "$(declare -f kind by_hand); kind 'systemd cannot be asked' system-metrics"
