#!/bin/bash
# Runs in the booted machine: makes a host of the older hub, then walks through docs/adopting.md, whose blocks the test has
# put into /page as STEP-NUMBER-forth.sh and STEP-NUMBER-back.sh. Each step is done, taken back and done again.
set -euo pipefail

checkout=/home/server/hub
psql_hub() { runuser -u postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"; }

# --- a host of the older hub -------------------------------------------------

# The user of the older hub has a home below /home.
usermod --home=/home/server --shell=/bin/bash server
install -d -o server -g server /home/server
mkdir -p $checkout/systemd $checkout/scripts
cat >$checkout/.env <<'ENV'
# the hub's database
DB_HOST=127.0.0.1
DB_PORT=5432
DB_NAME=hub
DB_USER=server
SERVER_DB_PASSWORD="pa'ss\wo$rd #1"
ENV
cat >/tmp/hub.sql <<'SQL'
CREATE ROLE server LOGIN PASSWORD 'pa''ss\wo$rd #1';
CREATE DATABASE hub OWNER server;
SQL
psql_hub </tmp/hub.sql
psql_hub --dbname=hub <<'SQL'
SET ROLE server;
CREATE TABLE system_metrics (time timestamptz NOT NULL, host text NOT NULL, os text, metric_type text NOT NULL, payload jsonb NOT NULL);
INSERT INTO system_metrics SELECT now() - n * interval '1 min', 'web1', 'debian', 'cpu', '{"usage": 5}' FROM generate_series(1, 100) n;
SQL
for family in system-metrics reading-sync volume-backup gitops-sync; do
  printf '#!/bin/sh\necho old %s\n' $family >$checkout/scripts/$family.sh
  chmod +x $checkout/scripts/$family.sh
  printf '[Service]\nType=oneshot\nExecStart=%s/scripts/%s.sh\n' $checkout $family >$checkout/systemd/$family.service
  printf '[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n' >$checkout/systemd/$family.timer
  systemctl --quiet link $checkout/systemd/$family.service $checkout/systemd/$family.timer
  systemctl --quiet enable --now $family.timer
  systemctl start $family.service
done
mkdir -p /home/server/backups/2024-05-31 /home/server/backups/2024-06-01 /tmp/volume/dir
echo dashboards >/tmp/volume/dir/grafana.db
for day in 2024-05-31 2024-06-01; do
  echo $day >/tmp/volume/day
  tar -czf /home/server/backups/$day/grafana_data.tar.gz -C /tmp/volume .
done
# The repository without the old units, as step 6 asks, and with a unit of the host's own.
git init --quiet --bare --initial-branch=main /srv/hub.git
git clone --quiet /srv/hub.git /tmp/clone 2>/dev/null
mkdir -p /tmp/clone/systemd
printf '[Service]\nType=oneshot\nExecStart=true\n' >/tmp/clone/systemd/own.service
git -C /tmp/clone add .
git -C /tmp/clone -c user.name=hub -c user.email=hub@example.org commit --quiet --message='without the old units'
git -C /tmp/clone push --quiet
chown -R server:server /srv/hub.git

# old FAMILY, new FAMILY: whose timer is enabled and runs.
old() { [[ $(readlink -f "$(systemctl show --property=FragmentPath --value "$1.service")") == "$checkout"/* ]] && systemctl --quiet is-active "$1.timer"; }
new() { [[ $(systemctl show --property=FragmentPath --value "$1.service") == /usr/local/lib/* ]] && systemctl --quiet is-active "$1.timer"; }
must() {
  if ! "$@"; then
    echo "step $step: not so: $*" >&2
    exit 1
  fi
}

# by_hand CMD...: as a person runs it. This script is a unit itself.
by_hand() { env -u INVOCATION_ID -u JOURNAL_STREAM HOME=/root "$@"; }

# --- the page ----------------------------------------------------------------

run() {
  local block
  for block in /page/"$step"-*-"$1".sh; do
    if [[ -e $block ]]; then
      echo "# $block"
      by_hand bash -euo pipefail "$block" </dev/null
    fi
  done
}

for step in 1 2 3 4 5 6; do
  run forth
  family=''
  case $step in
    3) family=system-metrics ;;
    4) family=reading-sync ;;
    5) family=volume-backup ;;
    6) family=gitops-sync ;;
  esac
  if [[ -n $family ]]; then must new "$family"; fi
  run back
  if [[ -n $family ]]; then
    must old "$family"
    systemctl start "$family.service"
  fi
  run forth
  if [[ -n $family ]]; then must new "$family"; fi
done >/e2e/walk 2>&1

systemctl --no-legend list-unit-files | grep -c linked >/e2e/linked || :
psql_hub --dbname=hub --command="SELECT count(*) FILTER (WHERE os = 'debian'), count(*) FILTER (WHERE payload ? '_meta') >= 8 FROM system_metrics" >/e2e/rows
by_hand volbackup list >/e2e/archives
by_hand volbackup cat grafana_data | tar -xO ./day >/e2e/restored
for _ in $(seq 100); do
  if [[ -e /var/lib/gitops-apply/ledger.json && $(systemctl show --property=ActiveState --value gitops-apply.service) == inactive ]]; then break; fi
  sleep 0.2
done
by_hand gitsync status >/e2e/gitsync
systemctl is-enabled system-metrics.timer reading-sync.timer volume-backup.timer gitops-sync.timer >/e2e/enabled
