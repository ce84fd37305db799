#!/bin/bash
# Tests the units of readsync in a booted machine. The test runs the databases, whose
# sockets are in /mongo and /postgres. Each part prints its name if it succeeds. The
# first failure ends the script.
set -euo pipefail

trap 'echo "line $LINENO: $BASH_COMMAND" >&2' ERR
ok() { echo "ok $1"; }

# await CONDITION… waits until the condition is true, for at most 30 s.
await() {
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "never true: $*" >&2
  return 1
}
fails() { ! "$@"; }
is() { [[ $(systemctl show -P "$2" "$1") == "$3" ]]; }
# said UNIT MSG FILTER succeeds if the last record MSG of the unit matches.
said() { journalctl -b -q -o cat -u "$1" | jq -Rr "fromjson? | select(.msg == \"$2\")" | jq -se "last | $3"; }
# calls prints the number of instances.
calls() { systemctl list-units --all --plain --no-legend 'reading-sync-api@*' | wc -l; }
none() { [[ $(calls) == 0 ]]; }
listens() { (: </dev/tcp/127.0.0.1/8085) 2>/dev/null; }
# variant NAME COMMAND creates a unit like reading-sync-api@.service with another command.
variant() {
  sed -e "s|^ExecStart=.*|ExecStart=$2|" -e "s|^StateDirectory=.*|StateDirectory=$1|" -e '/^Requires=/d' -e 's|^Type=.*|Type=oneshot|' \
    -e '/^Standard/d' /usr/local/lib/systemd/system/reading-sync-api@.service >"/run/systemd/system/$1.service"
  systemctl daemon-reload
}

units=(reading-sync.service reading-sync.timer reading-sync-api.socket)

for unit in "${units[@]}"; do
  [[ $(systemctl is-enabled "$unit" || :) == disabled ]]
done
systemctl preset "${units[@]}" 2>/dev/null
[[ $(systemctl is-enabled "${units[@]}" || :) == $'disabled\nenabled\nenabled' ]]
[[ -z $(systemd-analyze --man=no --recursive-errors=no verify "${units[@]}" 2>&1) ]]
for unit in reading-sync.service reading-sync-api@.service; do
  systemd-analyze security --offline=true --threshold=13 --no-pager "/usr/local/lib/systemd/system/$unit" >/tmp/security
  tail -n 1 /tmp/security
done
ok 'presets, verification and exposure'

# Without configuration the socket does not listen, because a Proxy Service may need the port. Nothing fails.
systemctl start reading-sync-api.socket
is reading-sync-api.socket ActiveState inactive
fails listens
systemctl start reading-sync.timer
at=$(date -d "$(systemctl show -P NextElapseUSecRealtime reading-sync.timer)" +%H%M)
((10#$at >= 1000 && 10#$at <= 1031))
systemctl stop reading-sync.timer
ok 'no configuration'

printf 'MONGO_DB_NAME=hub\nMONGO_COLLECTION=readings\nREADSYNC_URL=http://hub:hunter2@localhost:8085/api/sync/reading?token=hunter2\n' \
  >/etc/observability-hub/reading-sync.env
touch /etc/observability-hub/reading-sync-api.env
mkdir -p /etc/credstore
chmod 700 /etc/credstore
cp /srv/credentials/* /etc/credstore/
chmod 600 /etc/credstore/*
systemctl start reading-sync-api.socket
is reading-sync-api.socket ActiveState active
none
ok 'the socket listens, and nothing runs'

# The machine was off yesterday at ten, so the timer starts the service now. The random delay is disabled.
mkdir -p /run/systemd/system/reading-sync.timer.d
printf '[Timer]\nRandomizedDelaySec=0\n' >/run/systemd/system/reading-sync.timer.d/now.conf
systemctl daemon-reload
touch -d '2 days ago' /var/lib/systemd/timers/stamp-reading-sync.timer
systemctl start reading-sync.timer
await said reading-sync.service triggered '.processed_count == 1500 and .calls == 2 and .attempts == 2 and .level == "INFO"'
said 'reading-sync-api@*' synced '.inserted == 0 and .read == 0'
is reading-sync.service Result success
ok 'timer, trigger, socket, serve'

[[ $(stat -c %U:%a /var/lib/reading-sync) == server:750 ]]
await none
is reading-sync-api.socket ActiveState active
ok 'one process per call, and none is left'

for _ in 1 2 3; do
  readsync trigger >/tmp/out
  jq -e '.processed_count == 0 and .attempts == 1' /tmp/out >/dev/null
done
await none
ok 'repeated calls'

# Calls of a browser page, and calls to another name, are refused.
request() {
  exec 3<>/dev/tcp/127.0.0.1/8085
  printf 'POST /api/sync/reading HTTP/1.1\r\n%s\r\n\r\n' "$1" >&3
  head -n 1 <&3
  exec 3<&-
}
[[ $(request 'Host: evil.example') == *' 403 '* ]]
[[ $(request $'Host: localhost\r\nOrigin: http://evil.example') == *' 403 '* ]]
[[ $(request 'Host: localhost') == *' 200 '* ]]
ok 'other sites and names are refused'

# The number of idle connections is limited. They stop neither the socket nor later calls.
crowd=()
for _ in {1..60}; do
  exec {fd}<>/dev/tcp/127.0.0.1/8085 || continue
  crowd+=("$fd")
done
(($(calls) <= 16))
is reading-sync-api.socket ActiveState active
for fd in "${crowd[@]}"; do exec {fd}<&-; done
await none
readsync trigger >/dev/null
is reading-sync-api.socket ActiveState active
ok 'idle connections are limited'

# A document is rejected: everything else is synced, and reading-sync.service fails. The instance that rejected the document
# does not fail too.
touch /e2e/poison
await test -e /e2e/poisoned
if systemctl start reading-sync.service; then exit 1; fi
said reading-sync.service triggered '.level == "INFO" and .left_behind'
failures() { journalctl -b -q -o cat -u 'hub-failure@*' | jq -Rr 'fromjson? | select(.msg == "unit_failed" and .exit_status == "11").unit'; }
failed() { [[ -n $(failures) ]]; }
await failed
await none
[[ $(failures) == reading-sync.service ]]
[[ $(jq -r .reason /var/lib/reading-sync/dead-letters.jsonl) == nul ]]
[[ $(stat -c %a /var/lib/reading-sync/dead-letters.jsonl) == 600 ]]
systemctl is-active -q reading-sync-api.socket
readsync trigger >/dev/null
await none
ok 'rejected documents are reported'

# The sandbox allows only these actions.
variant probe 'bash /usr/local/bin/probe'
systemctl start probe.service
[[ $(journalctl -b -q -o cat _SYSTEMD_UNIT=probe.service) == $'writes /var/lib/probe\nsees the database\nsees the credentials\nspeaks TCP' ]]
ok 'sandbox'

# The database is unreachable: trigger reports it, and its unit fails.
sed -i 's/port=[0-9]*/port=1/' /etc/credstore/database_url
printf 'READSYNC_DEADLINE=4s\n' >>/etc/observability-hub/reading-sync.env
fails systemctl start reading-sync.service 2>/dev/null
is reading-sync.service ExecMainStatus 69
# The deadline may end the last call, but the first one was answered.
reported() { [[ $(journalctl -b -q -o cat _SYSTEMD_UNIT=reading-sync.service) == *call_failed*'status 503'*'connect to the database'* ]]; }
await reported
systemctl stop reading-sync.service
ok 'database down'

# Nothing listens: trigger fails and names the URL.
systemctl stop reading-sync-api.socket 'reading-sync-api@*'
fails systemctl start reading-sync.service 2>/dev/null
is reading-sync.service ExecMainStatus 69
said reading-sync.service proxy_unavailable '.error | contains("http://xxxxx@localhost:8085/api/sync/reading?token=xxxxx")'
systemctl stop reading-sync.service
ok 'no Proxy Service'
