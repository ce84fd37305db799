#!/bin/bash
# Runs as root in a mount namespace of its own: the state directories of the units are in a /var/lib of the test. $1 is the
# directory of the tools, $2 that of the host scripts.
set -euo pipefail
shopt -s nullglob
readonly unit=12345 other=12346 member=12347

# Every user must be able to reach the tools, wherever the checkout is.
mount -t tmpfs -o mode=755 tmpfs /mnt
cd /mnt
mkdir bin lib
cp "$1"/{gitsync,readsync,sysmetrics,volbackup} "$2"/manage_volume.sh bin
export PATH=/mnt/bin:/usr/sbin:/usr/bin:/sbin:/bin

# as USER COMMAND...: by hand, without the settings of a unit. member is in the group of the units.
as() {
  local user=$1 groups=--clear-groups
  shift
  if ((user == member)); then groups=--groups=$unit; fi
  mkdir -p "home-$user" && chown "$user:$user" "home-$user"
  setpriv --reuid "$user" --regid "$user" "$groups" env --unset=INVOCATION_ID HOME="$PWD/home-$user" "$@" </dev/null
}

# gives USER STATUS PATTERN COMMAND...: the command has that exit status and prints a line that matches. Whatever it could
# not read, it never proposes to remove it, and calls no archive damaged.
gives() {
  local status=0 said
  said=$(as "$1" "${@:4}" 2>&1) || status=$?
  if [[ $status != "$2" ]] || ! grep -Eq -- "$3" <<<"$said" || { ((status)) && grep -Eiq 'remove it|damaged|stale|writes a new' <<<"$said"; }; then
    printf 'as %s: %s\nexit status %s, want %s with %s:\n%s\n' "$1" "${*:4}" "$status" "$2" "$3" "$said"
    failed=1
  fi
  rm -rf "home-$1"
}
failed=0
denied='"msg":"permission_denied".*"error":"[^"]*/var/lib/.*,"hint":"run it as root'

# The state directories as systemd makes them, and what the units leave there.
for family in gitops-sync system-metrics reading-sync volume-backup; do install -d -o $unit -g $unit -m 750 "lib/$family"; done
install -d -m 755 lib/gitops-apply root/usr/bin root/etc/systemd/system
cp /bin/true root/usr/bin
mount --bind lib /var/lib
git init -q -b main hub
install -D -m 644 /dev/stdin hub/systemd/a.service <<<$'[Service]\nExecStart=true'
git -C hub add . && git -C hub -c user.name=a -c user.email=a@example.org commit -qm a && chown -R $unit hub
(
  umask 077 # as in the units
  as $unit gitsync pull --repo "$PWD/hub"
  as $unit sysmetrics --flush
  as $unit sh -c 'tar -C /etc -c hostname | volbackup put v'
  as $unit sh -c 'echo {} >/var/lib/reading-sync/dead-letters.jsonl'
  as $unit mkdir /var/lib/volume-backup/quiesced
) >/dev/null
umask 022 # of gitops-apply.service
gitsync apply --root "$PWD/root" >/dev/null

# A monitor in the group of the units can ask, although it may not read a backup.
gives $member 0 '"msg":"status".*"drift":0' gitsync status --max-age 1h
gives $member 0 '"msg":"backup_status".*"state":"current"' volbackup status --max-age 1h
gives $member 0 '"msg":"archive"' volbackup list
gives $member 1 "$denied" volbackup cat v
gives $member 1 "$denied" volbackup verify
gives $member 1 "$denied" volbackup restore v
gives $unit 0 '"msg":"status".*"drift":0' gitsync status

# The error names what another user may not read, although that user has no state and names none.
for command in 'gitsync status' 'volbackup status' 'volbackup list' 'volbackup cat v' 'volbackup verify' 'sysmetrics status' \
  'readsync status' 'volbackup prune' 'manage_volume.sh resume'; do
  # shellcheck disable=SC2086 # words
  gives $other 1 "$denied" $command
done
gives $other 1 "$denied" readsync retry /var/lib/reading-sync/dead-letters.jsonl
gives $other 73 '"msg":"repository_unwritable".*"hint":"run it as the owner' volbackup put v --repo /var/lib/volume-backup/repository
gives $other 73 '"msg":"state_unwritable".*"hint":"ls -ld' gitsync pull --state-dir /var/lib/gitops-sync --repo hub

# A hold of another state than that of the units would hold nothing. Records in another spool are inserted by no unit.
mine="home-$other/.local/state"
as $other mkdir -p "$mine/gitops-sync"
gives $other 78 '"msg":"other_state".*/var/lib/gitops-apply' gitsync hold
gives $other 73 '"msg":"state_unwritable".*/var/lib/gitops-apply' gitsync hold
sample='{"time":"2026-01-01T00:00:00Z","host":"h","metric_type":"cpu","payload":{}}'
gives $other 0 '"msg":"spooled_apart".*1 record kept in /mnt/home-.*/var/lib/system-metrics' sh -c "echo '$sample' | sysmetrics flush"
gives $other 0 '^1$' sh -c "echo '$sample' | sysmetrics flush --state-dir ~/own 2>&1 | wc -l" # no warning if the user names it

# What this user lacks may be in the settings, which root alone can read.
mkdir etc work
mount -t overlay -o lowerdir=/etc,upperdir=etc,workdir=work overlay /etc # the test adds a directory that the host may not have
install -d -m 700 /etc/observability-hub
unseen='"hint":"[^"]*only root can read the settings in /etc/observability-hub: run it as root, or with hub-run'
for command in 'gitsync pull' 'readsync run' 'readsync verify' 'sysmetrics prune --keep 90d'; do
  # shellcheck disable=SC2086 # words
  gives $unit 78 "$unseen" $command
done

# The directories can be entered, but the files cannot be read.
chmod 755 /var/lib/*/ /var/lib/volume-backup/{repository,repository/v}
find /var/lib -type f -exec chmod 600 {} +
for command in 'status' 'plan' 'apply' 'rollback'; do
  gives $other 1 "$denied" gitsync $command --state-dir /var/lib/gitops-apply
done
gives $other 1 "$denied" gitsync pull --state-dir /var/lib/gitops-sync --repo hub
for command in 'status' 'list' 'cat v' 'restore v' 'verify' 'prune'; do
  # shellcheck disable=SC2086 # words
  gives $other 1 "$denied" volbackup $command
done
chmod 644 /var/lib/volume-backup/repository/v/*.json
install -m 600 /dev/null /var/lib/volume-backup/repository/.volumes.json
gives $other 1 "$denied" volbackup status
rm /var/lib/volume-backup/repository/.volumes.json
gives $other 0 '"state":"current"' volbackup status

# The disk fails: the file may be good.
gives $other 1 '"error":".*input/output error","hint":"the file may be intact' readsync status --dead-letters /proc/self/mem
exit $failed
