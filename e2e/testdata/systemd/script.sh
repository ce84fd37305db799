#!/bin/bash
# Runs in the booted machine. ../../systemd_test.go reads the files that it leaves in /e2e.
#
# The three runs of the timer take two to three minutes of waiting. Meanwhile the script
# makes all other checks that do not need the unit itself.
set -euo pipefail

units=(system-metrics.service system-metrics.timer hub-failure@example.service.service hub-status.service hub-status.timer
  hub-textfile.service hub-textfile.timer system-metrics-prune.service system-metrics-prune.timer)
# Debian's postgresql.service only represents its clusters.
postgres=postgresql@15-main.service

# await SECONDS COMMAND…: waits until the command succeeds.
await() {
  local limit=$1 start=$SECONDS
  shift
  until "$@"; do
    if ((SECONDS - start > limit)); then
      echo "not within $limit s: $*" >&2
      exit 1
    fi
    sleep 0.2
  done
}

in_state() { [[ $(systemctl show --property=ActiveState --value "$1") == "$2" ]]; }
psql_hub() { runuser -u postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 "$@"; }
# flushes N: whether N runs of the unit have printed their record.
flushes() { (($(journalctl --quiet --output=cat _SYSTEMD_UNIT=system-metrics.service | grep -c '"msg":"flushed"') >= $1)); }
# stored N: whether the database has N samples. Before the first sample there is no table.
stored() {
  local n
  n=$(psql_hub --dbname=hub --command='SELECT count(DISTINCT time) FROM system_metrics' 2>/dev/null) && ((n >= $1))
}

# jobs NAME COMMAND…: the record of hub-status, and its exit status.
jobs() {
  local status=0
  "${@:2}" >"/e2e/jobs-$1" || status=$?
  echo "$status" >>"/e2e/jobs-$1"
}

# A unit like the real one, under another name and with another command.
variant() {
  local name=$1 command=$2
  sed -e "s|^ExecStart=.*|ExecStart=$command|" -e "s|^StateDirectory=.*|StateDirectory=$name|" \
    /usr/local/lib/systemd/system/system-metrics.service >"/run/systemd/system/$name.service"
}

# The installation has enabled no unit.
for unit in system-metrics.service system-metrics.timer; do
  systemctl is-enabled "$unit" || :
done >/e2e/enabled-by-install

# After the installation: no environment file, no credential, no database.
variant plain 'sysmetrics collect --flush'
systemctl start plain.service

# A database that the user `server` reaches through the socket, under its own name.
runuser -u postgres -- createuser server
runuser -u postgres -- createdb --owner=server hub
cat >/etc/observability-hub/system-metrics.env <<'ENV'
PGHOST=/run/postgresql
PGDATABASE=hub
PGUSER=server
ENV
# An interface that counts. The machine has only its loopback interface.
ip link add eth0 type veth peer name peer0
ip link set eth0 up

# The database is down during the timer's first run.
systemctl stop "$postgres"
systemctl preset system-metrics.timer system-metrics.service
for unit in system-metrics.service system-metrics.timer; do
  systemctl is-enabled "$unit" || :
done >/e2e/enabled-by-preset
systemctl start system-metrics.timer

# Meanwhile: a run that always hangs.
variant hang "bash -c 'trap \"\" TERM; exec sleep infinity'"
systemctl start --no-block hang.service

systemd-analyze verify "${units[@]}" >/e2e/verify 2>&1 || echo "exit status $?" >>/e2e/verify
for unit in /usr/local/lib/systemd/system/*.service; do
  if [[ $unit == *hub-notify* ]]; then continue; fi # the administrator's programs; e2e/verify-units has its limit
  status=0
  systemd-analyze security --offline=true --threshold=13 --no-pager "$unit" >/tmp/security || status=$?
  echo "$status $(tail -n 1 /tmp/security)"
done >/e2e/security

# A job with messages that are hard to write as JSON. One is longer than a line of journald.
cat >/run/hostile <<'BASH'
printf '"quoted\\ \001\377 é\n'
head -c 60000 /dev/zero | tr '\0' 0
echo
exit 3
BASH
systemd-run --quiet --unit=hostile.service --property=Type=oneshot \
  --property=OnFailure=hub-failure@hostile.service.service bash /run/hostile || :

await 80 in_state system-metrics.service failed
await 10 flushes 1
jobs down hub-status
jobs nobody runuser -u nobody -- hub-status
systemctl start "$postgres"
variant probe 'bash /usr/local/bin/probe'
systemctl start probe.service

# One sample waited in the spool. The second and the third run add one each.
await 70 stored 2
await 70 stored 3
await 20 in_state system-metrics.service inactive
jobs well hub-status
systemctl stop system-metrics.timer
await 20 in_state system-metrics.service inactive
psql_hub --dbname=hub --command="SELECT json_agg(m ORDER BY time, metric_type) FROM system_metrics m" >/e2e/rows
df --block-size=1 --output=size /home | tail -n 1 >/e2e/home-size

# The credential wins over the environment: a bad credential, then a good one.
mkdir -p /etc/credstore
echo 'nonsense://' >/etc/credstore/database_url
chmod 600 /etc/credstore/database_url
systemctl start system-metrics.service || echo failed >/e2e/bad-credential
echo 'PGHOST=/nowhere' >/etc/observability-hub/system-metrics.env
echo 'postgres://server@/hub?host=/run/postgresql&sslmode=disable' >/etc/credstore/database_url
systemctl start system-metrics.service
psql_hub --dbname=hub --command='SELECT count(*), count(DISTINCT (time, metric_type)) FROM system_metrics' >/e2e/final-count

await 70 in_state hang.service failed
await 20 in_state hub-failure@hang.service.service inactive

# The unit adds its record to the spool. It has no network, and needs no database.
systemctl start hub-status.service
runuser -u server -- env DATABASE_URL="$(cat /etc/credstore/database_url)" sysmetrics flush </dev/null
psql_hub --dbname=hub --command="SELECT payload->>'family', payload->>'ok', payload->>'result', host FROM system_metrics WHERE metric_type = 'jobs' ORDER BY time" >/e2e/jobs-rows

# Uninstalling stops and disables the timer, which has fired often enough.
mkdir /run/systemd/system/system-metrics.timer.d
printf '[Timer]\nOnCalendar=\nOnCalendar=yearly\n' >/run/systemd/system/system-metrics.timer.d/yearly.conf
systemctl daemon-reload
systemctl start system-metrics.timer
make --silent --directory=/src uninstall TOOLS=sysmetrics >/e2e/uninstall 2>&1
systemctl is-active system-metrics.timer >/e2e/after-uninstall || :
find / -xdev \( -name '*system-metrics*' -o -name '*sysmetrics*' -o -name '*hub-failure*' -o -name 'hub-run*' -o -name '*hub-status*' -o -name '*observability-hub*' \) \
  -not -path '/src/*' >>/e2e/after-uninstall
