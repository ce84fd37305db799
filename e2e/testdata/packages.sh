# shellcheck shell=bash
# packages.sh — the life of the packages in a Debian machine: install, enable, upgrade,
# remove, purge. The packages are in /packages, those of a higher version in /higher.
# packages_test.go runs it with bash.
set -euo pipefail

readonly etc=/etc/observability-hub links=/etc/systemd/system
list0='' # the files before the first package

fail() {
  echo "packages.sh: line ${BASH_LINENO[0]}: $*" >&2
  systemctl list-units --all 'system-metrics*' 'gitops*' 'reading*' 'volume*' 'hub-*' >&2 || :
  exit 1
}
trap 'echo "packages.sh: line $LINENO: $BASH_COMMAND" >&2' ERR

# until_ok WHAT COMMAND...: waits until the command succeeds.
until_ok() {
  local what=$1 end=$((SECONDS + 30))
  shift
  until "$@"; do
    ((SECONDS < end)) || fail "no $what after 30 s"
    sleep 0.05
  done
}

# files: prints all files of the machine but those that change by themselves.
files() {
  find / -xdev '(' -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /tmp -o -path /e2e -o -path /packages -o -path /higher \
    -o -path /var/log -o -path /var/tmp -o -path /var/cache -o -path /var/lib/dpkg -o -path /var/lib/rpm \
    -o -name '*.dpkg-*' ')' -prune -o -print | sort
}

# added: prints the files that were not there before the first package.
added() {
  comm -13 <(echo "$list0") <(files)
}

packages() {
  local dir=$1 name
  shift
  for name in "$@"; do
    echo "$dir/hub-${name}_"*.deb
  done
}

is() {
  local got
  got=$(systemctl "$1" "$2" 2>/dev/null) || :
  [[ $got == "$3" ]] || fail "$1 $2: $got, not $3"
}

property() { systemctl show --value --property "$2" "$1"; }
invocation_is_not() { [[ $(property system-metrics.service InvocationID) != "$1" ]]; }
sampled_since() { [[ /var/lib/system-metrics/counters -nt $1 ]]; }
reported() { journalctl --quiet --output=cat -u 'hub-failure@volume-backup.service.service' | grep -q unit_failed; }
waiting() { [[ -e /var/lib/system-metrics/waits ]]; }
nothing_failed() {
  [[ -z $(systemctl list-units --failed --no-legend) ]] || fail "failed: $(systemctl list-units --failed --no-legend)"
}

# only_sysmetrics: what a host gets that wants nothing else.
only_sysmetrics() {
  local made
  # shellcheck disable=SC2046 # names without blanks
  dpkg -i $(packages /packages common sysmetrics)
  # Apart from the packages' own files: the user, and the directory for environment files.
  made=$(added | grep -vxF -f <(dpkg -L hub-common hub-sysmetrics) | grep -vE '^/etc/(passwd|group|shadow|gshadow)-$|^/etc/[.]pwd[.]lock$|^/var/lib/systemd/deb-systemd-helper-enabled') || :
  [[ $made == "$etc" ]] || fail "also made: $made"
  [[ $(stat -c '%U %a' "$etc") == 'root 700' ]] || fail "$etc: $(stat -c '%U %a' "$etc")"
  getent passwd server >/dev/null || fail 'no user server'
  ! getent group docker >/dev/null || fail 'sysmetrics needs no group docker'
  is is-enabled system-metrics.timer disabled
  is is-enabled hub-status.timer disabled
  is is-active system-metrics.timer inactive
  [[ $(sysmetrics --version) == "sysmetrics $VERSION" ]] || fail "$(sysmetrics --version)"
  [[ -e /usr/share/man/man1/sysmetrics.1.gz ]] || fail 'no manual'
  systemctl preset system-metrics.timer hub-status.timer 2>/dev/null
  is is-enabled system-metrics.timer enabled
  is is-enabled hub-status.timer disabled
  systemctl disable system-metrics.timer 2>/dev/null
}

# upgraded: a timer goes on, and a run that has begun goes on, while the packages change.
upgraded() {
  local run mark=/run/mark
  mkdir -p $links/system-metrics.{timer,service}.d
  printf '[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nAccuracySec=1ms\nRandomizedDelaySec=0\n' >$links/system-metrics.timer.d/often.conf
  printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=\nExecStart=/bin/sh -c %s\n' \
    "'while [ -e \$\$STATE_DIRECTORY/wait ]; do touch \$\$STATE_DIRECTORY/waits; sleep 0.05; done; exec sysmetrics collect --flush'" \
    >$links/system-metrics.service.d/slow.conf
  systemctl daemon-reload
  touch $mark
  systemctl enable --now system-metrics.timer 2>/dev/null
  until_ok 'sample by the timer' sampled_since $mark

  touch /var/lib/system-metrics/wait
  until_ok 'run that waits' waiting
  run=$(property system-metrics.service InvocationID)
  # shellcheck disable=SC2046 # names without blanks
  dpkg -i $(packages /higher common sysmetrics)
  [[ $(dpkg-query -W -f '${Version}' hub-sysmetrics) == *higher* ]] || fail 'not the higher version'
  is is-active system-metrics.service activating
  is is-active system-metrics.timer active
  [[ $(property system-metrics.service InvocationID) == "$run" ]] || fail 'the run was restarted'
  [[ $(property system-metrics.timer NeedDaemonReload) == no ]] || fail 'systemd does not know the new units'
  [[ $(property system-metrics.timer Description) == *higher* ]] || fail 'systemd does not have the new timer'
  touch $mark
  rm /var/lib/system-metrics/wait
  until_ok 'sample by the run' sampled_since $mark
  until_ok 'run after the upgrade' invocation_is_not "$run"
  [[ $(property system-metrics.service Result) == success ]] || fail "$(property system-metrics.service Result)"
  is is-enabled system-metrics.timer enabled
  nothing_failed
  rm -r $links/system-metrics.{timer,service}.d
  systemctl daemon-reload
}

removed() {
  echo SYSMETRICS_HOST=web1 >$etc/system-metrics.env
  dpkg -r hub-sysmetrics
  is is-active system-metrics.timer inactive
  ! find $links -type l | grep system-metrics >&2 || fail 'links are left'
  [[ -s /var/lib/system-metrics/spool.jsonl && -s $etc/system-metrics.env ]] || fail 'state or settings are gone'
  nothing_failed

  # Again: what was kept is used, and nothing is enabled.
  # shellcheck disable=SC2046 # names without blanks
  dpkg -i $(packages /packages sysmetrics)
  is is-enabled system-metrics.timer disabled
  systemctl enable --now system-metrics.timer system-metrics.service 2>/dev/null
  [[ $(tail -n 1 /var/lib/system-metrics/spool.jsonl) == *'"host":"web1"'* ]] || fail 'the settings were not read'
  dpkg -P hub-sysmetrics
  is is-active system-metrics.timer inactive
  [[ ! -e /var/lib/system-metrics && ! -e $etc/system-metrics.env ]] || fail 'purge left state or settings'
  nothing_failed
}

# others: the three other tools, on a host without Docker.
others() {
  local unit state status
  # shellcheck disable=SC2046 # names without blanks
  dpkg -i $(packages /packages gitsync readsync volbackup)
  for unit in $(dpkg -L hub-gitsync hub-readsync hub-volbackup | sed -n 's|.*/systemd/system/||p'); do
    state=$(systemctl is-enabled "$unit" 2>/dev/null) || :
    [[ $state =~ ^(disabled|static)$ ]] || fail "$unit is $state"
  done
  getent group docker >/dev/null || fail 'no group docker'
  systemctl start volume-backup.service 2>/dev/null && fail 'a backup without Docker'
  status=$(property volume-backup.service ExecMainStatus)
  [[ $status == 78 ]] || fail "volume-backup.service without Docker ended with $status" # 216 would be the missing group
  until_ok 'report of the failure' reported
  systemctl reset-failed

  systemctl enable --now gitops-sync@web.timer reading-sync.timer reading-sync-api.socket volume-backup.timer \
    volume-backup-resume.service 2>/dev/null
  install -D /dev/stdin /var/lib/volume-backup/repository/db/20260101T010000Z.tar.zst <<<archive
  install -D /dev/stdin /var/lib/volume-backup/elsewhere/db/20260101T010000Z.tar.zst <<<archive
  install -D /dev/stdin /var/lib/reading-sync/dead-letters.jsonl <<<letter
  install -D /dev/stdin /var/lib/gitops-sync-web/trees/current/data <<<data
  install -D /dev/stdin /var/lib/gitops-sync-web/repo.git/HEAD <<<ref
  install -D /dev/stdin /var/lib/gitops-apply-web/ledger.json <<<ledger
  touch $etc/gitops-sync-web.env $etc/volume-backup.env $etc/reading-sync-api.env

  dpkg -r hub-gitsync hub-readsync hub-volbackup
  [[ -z $(systemctl list-units --no-legend 'gitops*' 'reading*' 'volume-*') ]] || fail "$(systemctl list-units 'gitops*' 'reading*' 'volume-*')"
  ! find $links -type l | grep -E '/(gitops|reading|volume|hub)-' >&2 || fail 'links are left'
  for file in /var/lib/gitops-sync-web/repo.git/HEAD /var/lib/gitops-apply-web/ledger.json $etc/gitops-sync-web.env; do
    [[ -e $file ]] || fail "removal removed $file"
  done
  nothing_failed

  dpkg -P hub-gitsync hub-readsync hub-volbackup hub-common
  # Data stays, and what other packages and systemd made.
  added | grep -vE '^/etc/(passwd|group|shadow|gshadow)-$|^/etc/[.]pwd[.]lock$' >/e2e/after-purge || :
}

# with_rpm: the scripts of the .rpms, under a running systemd. Debian's rpm knows nothing of the packages that dpkg has
# installed, so dependencies are not checked.
with_rpm() {
  command -v rpm >/dev/null || return 0
  rpm --install --nodeps /packages/hub-{common,sysmetrics,gitsync}-*.rpm
  is is-enabled system-metrics.timer disabled
  getent passwd server >/dev/null || fail 'no user server'
  systemctl enable --now system-metrics.timer gitops-sync@web.timer 2>/dev/null
  rpm --upgrade --force --nodeps /packages/hub-{common,sysmetrics,gitsync}-*.rpm
  is is-active system-metrics.timer active
  is is-enabled system-metrics.timer enabled
  systemctl start system-metrics.service
  rpm --erase --nodeps hub-sysmetrics hub-gitsync
  is is-active system-metrics.timer inactive
  is is-active gitops-sync@web.timer inactive
  ! find $links -type l | grep -E '/(gitops|system-metrics)-?' >&2 || fail 'links are left'
  [[ -s /var/lib/system-metrics/spool.jsonl ]] || fail 'the state is gone'
  rpm --erase hub-common
  nothing_failed
}

list0=$(files)
for step in only_sysmetrics upgraded removed others with_rpm; do
  echo "== $step" >&2
  $step
done
