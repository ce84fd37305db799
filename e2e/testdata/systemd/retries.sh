# Start limits and retries, in a booted machine. Prints "ok WHAT" for each check, and stops at the first failure.
set -euo pipefail

fail() {
  echo "not ok: $*" >&2
  exit 1
}

# count UNIT TEXT: prints how many lines of the journal of a unit contain the text.
count() {
  journalctl --sync
  journalctl --quiet --unit "$1" --output=cat | grep -c -- "$2" || :
}

# reports UNIT N: hub-failure has reported the unit N times, and reports it no more.
reports() {
  local try
  for ((try = 0; try < 300; try++)); do
    if (($(count "hub-failure@$1.service" '"msg":"unit_failed"') == $2)); then break; fi
    sleep 0.1
  done
  (($(count "hub-failure@$1.service" '"msg":"unit_failed"') == $2)) || fail "$1 was reported $(count "hub-failure@$1.service" unit_failed) times; want $2"
}

# quick UNIT: makes the unit wait only a second between its tries.
quick() {
  mkdir -p "/etc/systemd/system/$1.d"
  printf '[Service]\nEnvironment=HUB_RETRY_AFTER=1s\n' >"/etc/systemd/system/$1.d/quick.conf"
  systemctl daemon-reload
}

mkdir -p /opt/bin
for unit in gitops-sync gitops-apply reading-sync volume-backup; do quick $unit.service; done
echo "GITSYNC_REPO=/nowhere" >/etc/observability-hub/gitops-sync.env

# The failures: no Docker client, no repository, no proxy.
tries=(gitops-sync.service:2 reading-sync.service:3 volume-backup.service:1)
echo 'READSYNC_DEADLINE=1s' >/etc/observability-hub/reading-sync.env
for case in "${tries[@]}"; do
  unit=${case%:*} want=${case#*:}
  if systemctl start "$unit" 2>/dev/null; then fail "$unit succeeds"; fi
  got=$(count "$unit" '"level":"ERROR"')
  [ "$got" -eq "$want" ] || fail "$unit failed $got times; want $want: $(journalctl --quiet --unit "$unit" --output=cat | tail -n 20)"
  reports "$unit" 1
  [ "$(systemctl show --property=NRestarts --value "$unit")" = 0 ] || fail "$unit was restarted"
  echo "ok $unit fails after $want tries, and is reported once"
done
journalctl --quiet --unit volume-backup.service --output=cat | grep '"msg":"no_volumes".*docker is not installed' >/dev/null || fail 'volume-backup.service does not say that docker is not installed'
echo 'ok without Docker volume-backup.service says so'

# After the cause of a failure was removed, the next start succeeds at once, by hand and by the timer.
printf '#!/bin/sh\nexit 0\n' >/opt/bin/true
chmod 755 /opt/bin/true
for case in "${tries[@]}"; do
  unit=${case%:*}
  printf '[Unit]\nOnSuccess=\nConditionPathExists=\n[Service]\nExecStart=\nExecStart=/opt/bin/true\nExecStopPost=\n' >"/etc/systemd/system/$unit.d/mended.conf"
  systemctl daemon-reload
  began=$EPOCHSECONDS
  for _ in 1 2 3 4 5 6 7 8; do systemctl start "$unit" || fail "$unit is refused: $(systemctl show --property=Result "$unit")"; done
  ((EPOCHSECONDS - began < 25)) || fail "$unit hangs"
  echo "ok $unit can be started again at once, eight times"
done

# A run that a signal or a timeout ended is reported once, too.
for how in 'kill -KILL $$' 'kill -TERM $$' 'exit 1'; do
  for unit in system-metrics.service volume-backup.service; do
    mkdir -p "/etc/systemd/system/$unit.d"
    printf '[Service]\nExecStart=\nExecStart=/bin/sh -c "%s"\nExecStopPost=\nTimeoutStartSec=2s\n' "${how/\$\$/\$\$\$\$}" >"/etc/systemd/system/$unit.d/mended.conf"
    systemctl daemon-reload
    before=$(count "hub-failure@$unit.service" '"msg":"unit_failed"')
    if systemctl start "$unit" 2>/dev/null; then fail "$unit with $how succeeds"; fi
    reports "$unit" $((before + 1))
  done
done
echo 'ok a job that is killed is reported once'

# A job that hangs is stopped by its timeout, with all its processes, and reported once.
hanging=(gitops-sync.service gitops-apply.service reading-sync.service system-metrics.service volume-backup.service)
declare -A before=()
for unit in "${hanging[@]}"; do
  mkdir -p "/etc/systemd/system/$unit.d"
  printf '[Unit]\nOnSuccess=\nConditionPathExists=\nOnFailure=\nOnFailure=hub-failure@%%n.service\n[Service]\nExecStart=\nExecStart=/bin/sh -c "sleep 1000; exit"\nExecStopPost=\nTimeoutStartSec=2s\n' \
    >"/etc/systemd/system/$unit.d/mended.conf"
  before[$unit]=$(count "hub-failure@$unit.service" '"msg":"unit_failed"')
done
systemctl daemon-reload
if systemctl start "${hanging[@]}" 2>/dev/null; then fail 'jobs that hang succeed'; fi
for unit in "${hanging[@]}"; do
  [ "$(systemctl show --property=Result --value "$unit")" = timeout ] || fail "the result of $unit: $(systemctl show --property=Result "$unit")"
  reports "$unit" $((before[$unit] + 1))
done
# The only one: KillMode=process leaves a process of sysmetrics that waits for a dead mount, which cannot be killed.
left=$(grep -lazx 's[l]eep' /proc/[0-9]*/cmdline 2>/dev/null | wc -l)
[ "$left" -le 1 ] || fail "$left processes are left"
echo 'ok a job that hangs is stopped by its timeout, and reported once'
