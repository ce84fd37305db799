#!/bin/bash
# Runs in the booted machine; ../../systemd_test.go reads what it leaves in /e2e.
set -euo pipefail

# await SECONDS COMMAND…: until the command succeeds.
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
psql_hub() { runuser -u postgres -- psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --dbname=hub "$@"; }
listens() { mongo count "$uri" hub.readings >/dev/null 2>&1; }
processed() { (($(mongo count "$uri" hub.readings '{"status":"processed"}') == $1)); }
# said UNIT EVENT: whether the unit has printed such a record.
said() { journalctl --quiet --output=cat "_SYSTEMD_UNIT=$1" | grep --quiet "\"msg\":\"$2\""; }

# A database that the user `server` reaches through the socket, as itself; and a MongoDB with documents.
runuser -u postgres -- createuser server
runuser -u postgres -- createdb --owner=server hub
uri=mongodb://127.0.0.1:27017/
systemd-run --quiet --unit=mongo.service mongo serve 127.0.0.1:27017
await 20 listens
for n in {1..2500}; do
  printf '{"_id":{"$oid":"%024x"},"status":"ingested","source":"sensor","payload":{"n":%d}}\n' "$n" "$n"
done | mongo insert "$uri" hub.readings

mkdir -p /etc/credstore
echo "$uri" >/etc/credstore/mongo_uri
echo 'postgres://server@/hub?host=/run/postgresql&sslmode=disable' >/etc/credstore/database_url
chmod 600 /etc/credstore/*
printf 'MONGO_DB_NAME=hub\nMONGO_COLLECTION=readings\nREADSYNC_IDLE=2s\n' >/etc/observability-hub/reading-sync-api.env

units=(reading-sync.service reading-sync.timer reading-sync-api.service reading-sync-api.socket)
systemctl preset "${units[@]}"
for unit in "${units[@]}"; do
  echo "$unit $(systemctl is-enabled "$unit")"
done >/e2e/enabled 2>&1
systemd-analyze verify "${units[@]}" >/e2e/verify 2>&1 || echo "exit status $?" >>/e2e/verify
for unit in reading-sync.service reading-sync-api.service; do
  status=0
  systemd-analyze security --offline=true --threshold=13 --no-pager "/usr/local/lib/systemd/system/$unit" >/tmp/security || status=$?
  echo "$status $(tail -n 1 /tmp/security)"
done >/e2e/security

# The timer as it is, but every few seconds: it fires, trigger calls, the socket starts serve, serve syncs.
systemctl start reading-sync-api.socket
mkdir /run/systemd/system/reading-sync.timer.d
printf '[Timer]\nOnCalendar=\nOnCalendar=*:*:0/5\nRandomizedDelaySec=0\nAccuracySec=1s\n' >/run/systemd/system/reading-sync.timer.d/soon.conf
systemctl daemon-reload
systemctl start reading-sync.timer
await 60 said reading-sync.service triggered
systemctl stop reading-sync.timer
await 20 in_state reading-sync.service inactive
await 20 processed 2500
psql_hub --command='SELECT count(*), count(DISTINCT mongo_id) FROM reading_analytics' >/e2e/rows

# Nobody calls any more: the service goes, the socket stays, and a call starts it again.
await 30 in_state reading-sync-api.service inactive
systemctl show --property=Result --value reading-sync-api.service >/e2e/idle
systemctl show --property=ActiveState --value reading-sync-api.socket >>/e2e/idle
echo '{"_id":"late","status":"ingested"}' | mongo insert "$uri" hub.readings
systemctl start reading-sync.service
await 20 processed 2501

# A database that is down is no success of the job, and the hook for failures says so.
systemctl stop postgresql@15-main.service
echo '{"_id":"later","status":"ingested"}' | mongo insert "$uri" hub.readings
mkdir /run/systemd/system/reading-sync.service.d
printf '[Service]\nRestart=no\nEnvironment=READSYNC_DEADLINE=4s\n' >/run/systemd/system/reading-sync.service.d/soon.conf
systemctl daemon-reload
systemctl start reading-sync.service || echo failed >/e2e/database-down
await 20 said hub-failure@reading-sync.service.service unit_failed
systemctl start postgresql@15-main.service
systemctl start reading-sync.service
await 20 processed 2502
psql_hub --command='SELECT count(*), count(DISTINCT mongo_id) FROM reading_analytics' >/e2e/final-rows
