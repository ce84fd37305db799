# Simulates a power failure in the middle of a backup, after which the machine boots again. This script runs at each boot,
# and writes "ok WHAT" to /e2e/log for each check.
set -euo pipefail

fail() {
  echo "not ok: $*" >>/e2e/log
  exit 1
}

state() { docker inspect --format '{{.State.Status}}' "$1"; }

# await_state CONTAINER STATE: waits until the container is in the state, for one minute at most.
await_state() {
  local try
  for ((try = 0; try < 600; try++)); do
    if [ "$(state "$1")" = "$2" ]; then return; fi
    sleep 0.1
  done
  fail "$1 is $(state "$1"), not $2: $(systemctl status --no-pager volume-backup-resume.service 2>&1)"
}

if [ ! -e /booted ]; then
  touch /booted
  make-image
  docker volume create data >/dev/null
  docker run --detach --network none --name one --restart unless-stopped --volume data:/data busybox sh -c 'trap exit TERM; sleep 10000 & wait' >/dev/null
  docker run --detach --network none --name two --volume data:/data busybox sh -c 'trap exit TERM; sleep 10000 & wait' >/dev/null
  docker create --name idle --volume data:/data busybox true >/dev/null
  systemctl preset --quiet volume-backup-resume.service volume-backup.timer
  [ "$(systemctl is-enabled volume-backup-resume.service)" = enabled ] || fail 'the preset does not enable the unit'
  systemctl start volume-backup-resume.service
  [ "$(systemctl show --property=ConditionResult --value volume-backup-resume.service)" = no ] || fail 'the unit runs without a journal'
  echo 'ok without a journal the unit does not run' >>/e2e/log
  # A third container delays the backup, because it does not stop on SIGTERM.
  docker run --detach --network none --name slow --stop-timeout 60 --volume data:/data busybox sleep 10000 >/dev/null
  systemctl start --no-block volume-backup.service
  await_state one exited
  await_state two exited
  [ -n "$(ls /var/lib/volume-backup/quiesced)" ] || fail 'no journal was written'
  sync
  # Reboot without stopping units or unmounting file systems.
  systemctl reboot --force --force
  exec sleep infinity
fi
await_state one running
await_state two running
await_state slow running
[ "$(state idle)" = created ] || fail 'a container that did not run was started'
for ((try = 0; try < 600; try++)); do
  if [ "$(systemctl show --property=ActiveState --value volume-backup-resume.service)" != activating ]; then break; fi
  sleep 0.1
done
[ -z "$(ls /var/lib/volume-backup/quiesced)" ] || fail 'the journal was not removed'
[ "$(systemctl show --property=Result --value volume-backup-resume.service)" = success ] || fail 'the unit failed'
echo 'ok after the power failure all containers run again, without the nightly run' >>/e2e/log
