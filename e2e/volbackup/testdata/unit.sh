# Tests volume-backup.service in a booted machine with Debian's Docker daemon.
# Prints "ok WHAT" for each check, and stops at the first one that fails.
set -euo pipefail

fail() {
  echo "not ok: $*" >&2
  exit 1
}

records() {
  journalctl --sync
  journalctl --quiet --unit volume-backup.service --output=cat | grep '^{'
}

make-image

docker volume create data >/dev/null
data=/var/lib/docker/volumes/data/_data
echo secret >"$data/file"
chown -R 999:999 "$data"
chmod 700 "$data"
chmod 600 "$data/file"
docker run --detach --network none --name one --volume data:/data busybox sh -c 'trap exit TERM; sleep 10000 & wait' >/dev/null
started=$(docker inspect --format '{{.State.StartedAt}}' one)

systemctl start volume-backup.service || fail "the unit failed: $(systemctl show --property=Result,ExecMainStatus volume-backup)"
records | jq -es 'any(.msg == "backed_up" and .volume == "data" and .outcome == "stored" and .consistency == "consistent" and .downtime_s > 0)' >/dev/null \
  || fail 'there is no record of the backup'
[ "$(systemctl show --property=User --value volume-backup.service)" = server ] || fail 'the unit does not run as server'
echo 'ok the unit, as User=server, backs up a volume of uid 999 with mode 0700'

[ "$(docker inspect --format '{{.State.Status}}' one)" = running ] || fail 'the container is down'
[ "$(docker inspect --format '{{.State.StartedAt}}' one)" != "$started" ] || fail 'the container was not stopped'
echo 'ok the container was stopped and runs again'

export HOME=/root VOLBACKUP_REPO=/var/lib/volume-backup/repository
[ "$(stat -c '%U %a' "$VOLBACKUP_REPO")" = 'server 750' ] || fail "wrong owner or mode of the repository: $(stat -c '%U %a' "$VOLBACKUP_REPO")"
[ "$(volbackup cat data | tar -xO ./file)" = secret ] || fail 'the archive does not contain the file'
volbackup cat data | manage_volume.sh import copy >/dev/null
[ "$(stat -c '%u %a' /var/lib/docker/volumes/copy/_data)" = '999 700' ] || fail 'the root directory has another owner or mode'
echo 'ok the archive can be restored'
docker volume rm copy >/dev/null

systemctl start volume-backup.service
records | jq -es 'map(select(.msg == "backed_up"))[-1].outcome == "unchanged"' >/dev/null || fail 'the second backup is not a link'
echo 'ok an unchanged volume is a hard link'

# At boot, a backup that was missed waits until the containers of an interrupted one are started, because both lock the volumes.
slow=/etc/systemd/system/volume-backup-resume.service.d
mkdir -p $slow
printf '[Unit]\nConditionDirectoryNotEmpty=\n[Service]\nExecStartPre=flock /var/lib/docker/volumes/data sleep 5\n' >$slow/slow.conf
systemctl daemon-reload
systemctl start --no-block volume-backup-resume.service
for ((try = 0; try < 100; try++)); do
  if ! flock --nonblock /var/lib/docker/volumes/data true; then break; fi
  sleep 0.1
done
systemctl start volume-backup.service || fail "the backup does not wait for the containers: $(records | tail -n 3)"
[ "$(systemctl show --property=Result --value volume-backup-resume.service)" = success ] || fail 'the unit that starts containers failed'
rm -r $slow
systemctl daemon-reload
echo 'ok a backup waits until the containers of an interrupted one are started'

# The unit is killed in the middle of a backup. A container that stops slowly delays the backup.
docker run --detach --network none --name slow --stop-timeout 30 --volume data:/data busybox sleep 10000 >/dev/null
systemctl start --no-block volume-backup.service
for ((try = 0; try < 600; try++)); do
  if [ "$(docker inspect --format '{{.State.Status}}' one)" = exited ]; then break; fi
  sleep 0.1
done
[ "$(docker inspect --format '{{.State.Status}}' one)" = exited ] || fail 'the run did not stop the container'
systemctl kill --signal=KILL volume-backup.service
systemctl stop volume-backup.service
for ((try = 0; try < 600; try++)); do
  if [ "$(docker inspect --format '{{.State.Status}} {{.State.StartedAt}}' one | cut -d ' ' -f 1)" = running ]; then break; fi
  sleep 0.1
done
[ "$(docker inspect --format '{{.State.Status}}' one)" = running ] || fail 'the container is down after SIGKILL'
echo 'ok after SIGKILL, ExecStopPost= starts the container'
docker rm --force slow >/dev/null
systemctl reset-failed

mkdir -p /etc/systemd/system/volume-backup.service.d
printf '[Service]\nEnvironment=HUB_RETRY_AFTER=1s\n' >/etc/systemd/system/volume-backup.service.d/quick.conf
systemctl daemon-reload
systemctl stop docker.service docker.socket
status=0
systemctl start volume-backup.service 2>/dev/null || status=$?
[ "$status" -ne 0 ] || fail 'the unit succeeds without a daemon'
records | jq -es 'any(.level == "ERROR" and .hint != null)' >/dev/null || fail 'there is no error with a hint'
[ "$(systemctl show --property=ExecMainStatus --value volume-backup.service)" = 69 ] || fail "status $(systemctl show --property=ExecMainStatus volume-backup.service)"
echo 'ok the unit exits with status 69 if the daemon is down'
systemctl stop volume-backup.service

exposure=$(systemd-analyze security --no-pager volume-backup.service | sed -n 's/.*exposure level for volume-backup.service: \([0-9.]*\).*/\1/p')
awk -v e="$exposure" 'BEGIN { exit !(e != "" && e <= 1.3) }' || fail "the exposure is $exposure"
echo "ok exposure $exposure"
