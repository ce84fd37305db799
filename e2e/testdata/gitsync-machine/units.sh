#!/bin/bash
# Tests gitsync's own units in a booted machine. Pushed commits are deployed by
# gitops-sync.service and then gitops-apply.service, in their sandboxes. No test
# calls apply by hand to deploy. Each part prints its name when it succeeds. The
# first part that fails ends the script.
set -Eeuo pipefail

readonly hub=/root/hub
readonly apply_state=/var/lib/gitops-apply sync_state=/var/lib/gitops-sync
readonly units=/etc/systemd/system
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org
export GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org

trap 'went_wrong "$LINENO" "$BASH_COMMAND"' ERR
went_wrong() {
  trap - ERR
  printf 'line %s: %s\n' "$1" "$2" >&2
  journalctl --sync
  journalctl --quiet --no-pager --output=short-monotonic --lines=40 >&2
}

# await CONDITION... waits until the condition is true, for at most 30 s.
await() {
  local tries
  for ((tries = 0; tries < 600; tries++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  echo "never true: $*" >&2
  return 1
}

property() { systemctl show -P "$2" "$1"; }
active() { [[ $(property "$1" ActiveState) == active ]]; }
enabled() { [[ $(systemctl is-enabled "$1" || :) == "${2:-enabled}" ]]; }
inactive() { [[ $(property "$1" ActiveState) == inactive ]]; }
ended() { [[ $(property "$1" ActiveState) =~ ^(inactive|failed)$ && ! $(property "$1" Job) =~ [1-9] ]]; }
same() { diff "$1" "$2" >&2; }

# unit NAME writes a unit or drop-in of the repository from stdin.
unit() {
  mkdir -p "$(dirname "$hub/systemd/$1")"
  cat >"$hub/systemd/$1"
}

push() {
  git -C $hub add -A
  git -C $hub commit -q --allow-empty -m "$1"
  git -C $hub push -q origin main
}

newest() { git -C $hub rev-parse HEAD; }
applied() { jq -r .commit $apply_state/ledger.json; }

# records MSG prints the records of that event that gitops-apply.service has written since the last deployment began.
records() {
  journalctl --sync
  journalctl --quiet --after-cursor="$cursor" --unit=gitops-apply.service --output=cat | jq -cR "fromjson? | select(.msg == \"$1\")"
}

# reloads prints how often systemd has read its units again since then.
reloads() {
  journalctl --sync
  journalctl --quiet --after-cursor="$cursor" _PID=1 --output=cat | grep -c '^Reloading\.' || :
}

# begin starts the pull. It returns when apply is running or has ended.
begin() {
  journalctl --sync
  cursor=$(journalctl --quiet --lines=0 --show-cursor | sed -n 's/^-- cursor: //p')
  local before
  before=$(property gitops-apply.service InvocationID)
  systemctl start gitops-sync.service
  await another_invocation "$before"
}
another_invocation() {
  local now
  now=$(property gitops-apply.service InvocationID)
  [[ -n $now && $now != "$1" ]]
}

# finish STATUS waits until apply has ended, and checks its exit status.
finish() {
  await ended gitops-apply.service
  local status
  status=$(property gitops-apply.service ExecMainStatus)
  if [[ $status != "$1" ]]; then
    echo "gitops-apply.service: exit status $status; want $1" >&2
    return 1
  fi
}

# deploy STATUS runs one deployment and checks its exit status.
deploy() {
  begin
  finish "$1"
}

# snapshot [TIME] prints hashes, modes and owners of all deployed files, and every link. With %T@ it also prints when files were written.
snapshot() {
  find $units /usr/local/bin /usr/local/lib/systemd \( -type l -printf '%p -> %l\n' \) -o \( -type f -printf "%p %m %U:%G ${1:-} " -exec sha256sum {} \; \) | sort
}

no_dead_links() {
  local dead
  dead=$(find $units -xtype l)
  [[ -z $dead ]] || {
    echo "dead links: $dead" >&2
    return 1
  }
}

prepare() {
  git init -q --bare -b main /srv/git/hub
  git init -q -b main $hub
  git -C $hub remote add origin /srv/git/hub
  git daemon --export-all --enable=receive-pack --base-path=/srv/git --listen=127.0.0.1 --reuseaddr --detach --pid-file=/run/git-daemon.pid
  printf '%s\n' GITSYNC_REPO=git://127.0.0.1/hub GITSYNC_HEALTH_WINDOW=1s GITSYNC_PUBLISH=/srv/gitops-sync GITSYNC_ON_CHANGE_TIMEOUT=3s \
    >/etc/observability-hub/gitops-sync.env
  install -d -o server -g server /srv/gitops-sync
}

scores() {
  local score
  for unit in gitops-sync.service:13 gitops-apply.service:30; do
    score=$(systemd-analyze --no-pager --threshold="${unit#*:}" security "${unit%:*}" | tail -n 1) || {
      echo "$score" >&2
      return 1
    }
  done
}

# systemd starts the units of OnSuccess= at each retry too, although nothing has succeeded. apply must wait for the pull, and must
# do nothing if nothing was pulled.
a_pull_that_is_tried_again() {
  local env=/etc/observability-hub/gitops-sync.env dropin=/run/systemd/system/gitops-sync.service.d
  cp $env /tmp/env
  echo GITSYNC_REPO=git://127.0.0.1:1/hub >>$env
  mkdir -p $dropin
  printf '[Service]\nRestartSec=1s\n' >$dropin/soon.conf
  systemctl daemon-reload
  systemctl start gitops-sync.service && return 1
  await ended gitops-sync.service
  [[ $(property gitops-sync.service ExecMainStatus) == 69 ]]
  journalctl --sync
  [[ $(journalctl --quiet --unit=gitops-sync.service --output=cat | grep -c remote_unavailable) == 2 ]]
  [[ -z $(journalctl --quiet _SYSTEMD_UNIT=gitops-apply.service) ]]
  ended gitops-apply.service
  [[ $(property gitops-apply.service Result) == success ]]
  mv /tmp/env $env
  rm -r $dropin
  systemctl daemon-reload
  systemctl reset-failed gitops-sync.service
}

an_empty_host() {
  [[ -z $(find $units -name 'gitops-*') && ! -e $apply_state ]]
  cp -r /project/systemd /project/scripts $hub/
  push 'the project'
  deploy 0
  [[ $(applied) == "$(newest)" ]]
  # All units whose program exists here are deployed byte for byte, and nothing else.
  (cd $hub/systemd && ls gitops-* hub-* volume-backup-resume.service) | sort >/tmp/want
  (cd $units && find . -maxdepth 1 -type f -not -name e2e.service -printf '%P\n') | sort >/tmp/is
  same /tmp/want /tmp/is
  while read -r name; do cmp "$hub/systemd/$name" "$units/$name"; done </tmp/want
  records action | jq -r 'select(.action == "skip" and .reason == "not-installed-here").unit' | sort >/tmp/is
  (cd $hub/systemd && find . -maxdepth 1 -name '*.service' -o -maxdepth 1 -name '*.timer' -o -maxdepth 1 -name '*.socket') | sed 's|^\./||' | grep -vE '^(gitops-|hub-|volume-backup-resume)' | sort >/tmp/want
  same /tmp/want /tmp/is
  [[ $(find $units -type l -path '*.wants/gitops*' -printf '%P ') == 'timers.target.wants/gitops-sync.timer ' ]]
  active gitops-sync.timer
  # The two halves run as different users.
  [[ $(stat -c %U $sync_state/repo.git/objects $sync_state/pulled.json | sort -u) == server ]]
  [[ $(find $units $apply_state -type f -not -user root | wc -l) == 0 ]]
  [[ $(reloads) == 1 ]]
}

a_second_run() {
  snapshot %T@ >/tmp/before
  deploy 0
  snapshot %T@ >/tmp/after
  same /tmp/before /tmp/after
  [[ $(reloads) == 0 && $(records action) == '' ]]
  records applied | jq -e '.actions == 0 and .reloaded == false' >/dev/null
}

a_program_that_comes_and_goes() {
  install -m 755 /opt/sysmetrics /usr/local/bin/sysmetrics
  deploy 0
  cmp $units/system-metrics.timer $hub/systemd/system-metrics.timer
  enabled system-metrics.timer
  enabled system-metrics.service disabled
  active system-metrics.timer
  systemctl start system-metrics.service
  rm /usr/local/bin/sysmetrics
  deploy 0
  [[ ! -e $units/system-metrics.timer && ! -e $units/system-metrics.service ]]
  inactive system-metrics.timer
  no_dead_links
}

# The start limits of the units are not meant for a test that pushes every second.
drop_ins_of_our_own() {
  unit gitops-sync.service.d/often.conf <<<$'[Unit]\nStartLimitIntervalSec=0'
  unit gitops-apply.service.d/often.conf <<<$'[Unit]\nStartLimitIntervalSec=0\n[Service]\nRestartSec=1s'
  push 'drop-ins of its own units'
  systemctl reset-failed gitops-sync.service gitops-apply.service
  deploy 0
  [[ $(property gitops-apply.service DropInPaths) == "$units/gitops-apply.service.d/often.conf" ]]
  [[ $(property gitops-apply.service RestartUSec) == 1s ]]
  [[ $(reloads) == 1 ]]
}

units_of_every_kind() {
  unit tick.service <<<$'[Service]\nType=oneshot\nExecStart=tick'
  unit tick.timer <<<$'[Timer]\nOnCalendar=2099-01-01\n[Install]\nWantedBy=timers.target'
  unit runs.service <<<$'[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target'
  unit runs.service.d/nice.conf <<<$'[Service]\nNice=3'
  unit fifo.socket <<<$'[Socket]\nListenFIFO=/run/fifo-1\n[Install]\nWantedBy=sockets.target'
  unit fifo.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket\nStandardOutput=append:/run/fifo-out'
  unit seen.path <<<$'[Path]\nPathChanged=/run/seen\n[Install]\nWantedBy=multi-user.target'
  unit seen.service <<<$'[Service]\nType=oneshot\nExecStart=touch /run/was-seen'
  unit work@.service <<<$'[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target'
  unit group.target <<<$'[Unit]\nWants=tick.timer\n[Install]\nWantedBy=multi-user.target'
  unit 50-site.preset <<<'enable work@.service one two'
  printf '#!/bin/sh\nexit 0\n' >$hub/scripts/tick
  chmod 755 $hub/scripts/tick
  push 'units of every kind'
  deploy 0
  [[ $(reloads) == 1 ]]
  for name in tick.timer runs.service fifo.socket seen.path group.target; do
    enabled $name
    active $name
  done
  [[ $(property tick.timer NextElapseUSecRealtime) == *2099-01-01* && $(property runs.service Nice) == 3 ]]
  echo one >/run/fifo-1
  await grep -q one /run/fifo-out
  touch /run/seen
  await test -e /run/was-seen
  deploy 0
  [[ $(reloads) == 0 && $(records action) == '' ]]
}

a_template() {
  # The presets enable two instances, and the administrator a third.
  enabled work@one.service
  enabled work@two.service
  systemctl enable --quiet --now work@three.service
  systemctl start work@one.service
  local one three
  one=$(property work@one.service MainPID) three=$(property work@three.service MainPID)
  sed -i 's/infinity/1000000/' $hub/systemd/work@.service
  push 'another template'
  deploy 0
  [[ $(property work@one.service MainPID) != "$one" && $(property work@three.service MainPID) != "$three" ]]
  enabled work@three.service
  systemctl disable --quiet work@two.service
  deploy 0
  enabled work@two.service
  git -C $hub rm -q systemd/work@.service systemd/50-site.preset
  push 'no template'
  deploy 0
  [[ ! -e $units/work@.service ]]
  inactive work@one.service
  inactive work@three.service
  [[ -z $(find $units -name 'work@*') ]]
}

a_changed_timer() {
  local runs
  runs=$(property runs.service InvocationID)
  sed -i 's/2099-01-01/2088-02-03/' $hub/systemd/tick.timer
  push 'another time'
  deploy 0
  [[ $(property tick.timer NextElapseUSecRealtime) == *2088-02-03* ]]
  [[ $(records action | jq -r '"\(.action) \(.unit)"') == $'update tick.timer\nrestart tick.timer' ]]
  # Units that did not change keep running.
  [[ $(property runs.service InvocationID) == "$runs" ]]
}

a_changed_drop_in() {
  sed -i 's/Nice=3/Nice=4/' $hub/systemd/runs.service.d/nice.conf
  push 'another drop-in'
  deploy 0
  [[ $(property runs.service Nice) == 4 && $(ps -o ni= "$(property runs.service MainPID)" 2>/dev/null || awk '{print $19}' "/proc/$(property runs.service MainPID)/stat") -eq 4 ]]
  git -C $hub rm -q systemd/runs.service.d/nice.conf
  push 'no drop-in'
  deploy 0
  [[ $(property runs.service Nice) == 0 && ! -e $units/runs.service.d ]]
  active runs.service
}

# The service holds the socket. Both must be stopped before the socket can be bound again.
a_changed_socket() {
  active fifo.service
  sed -i 's/fifo-1/fifo-2/' $hub/systemd/fifo.socket
  push 'another socket'
  deploy 0
  active fifo.socket
  echo two >/run/fifo-2
  await grep -q two /run/fifo-out
}

drift() {
  snapshot >/tmp/before
  rm $units/tick.service /usr/local/bin/tick $units/timers.target.wants/tick.timer
  echo 'Nice=9' >>$units/runs.service
  chown server $units/fifo.service
  systemctl stop seen.path
  # A drop-in that is not gitsync's is not drift.
  mkdir $units/fifo.service.d
  echo $'[Service]\nNice=1' >$units/fifo.service.d/ours.conf
  systemctl daemon-reload
  deploy 0
  active seen.path
  cmp $units/fifo.service.d/ours.conf <<<$'[Service]\nNice=1'
  rm -r $units/fifo.service.d
  snapshot >/tmp/after
  same /tmp/before /tmp/after
  [[ $(property runs.service Nice) == 0 ]]
  deploy 0
  [[ $(records action) == '' ]]
}

a_removed_unit() {
  git -C $hub rm -q systemd/fifo.socket systemd/fifo.service systemd/group.target systemd/seen.path systemd/seen.service
  push 'fewer units'
  deploy 0
  for name in fifo.socket fifo.service group.target seen.path seen.service; do
    [[ ! -e $units/$name && $(property $name LoadState) == not-found && $(property $name ActiveState) == inactive ]]
  done
  # The units were stopped while systemd still had their files.
  journalctl --sync
  journalctl --quiet --after-cursor="$cursor" _PID=1 --output=cat | grep -E '^(Stopped|Closed|Stopping|Closing|Reloading)' >/tmp/order
  [[ $(grep -n '^Reloading' /tmp/order | cut -d: -f1) -gt $(grep -nE '^(Stopped|Closed) fifo' /tmp/order | tail -n 1 | cut -d: -f1) ]]
  [[ -z $(find $units -type l \( -name 'fifo*' -o -name 'seen*' -o -name 'group*' \)) ]]
  no_dead_links
}

# A bad commit that changes, adds, removes, enables and disables.
a_failing_probe() {
  unit probe.service <<<$'[Service]\nType=oneshot\nExecStart=false\n[X-Gitsync]\nProbe=yes'
  unit tock.timer <<<$'[Timer]\nUnit=tick.service\nOnCalendar=2077-01-01\n[Install]\nWantedBy=timers.target'
  unit 40-site.preset <<<'disable tick.timer'
  git -C $hub rm -q systemd/runs.service
  sed -i 's/exit 0/exit 1/' $hub/scripts/tick
  push 'a probe that fails'
  local good
  good=$(applied)
  snapshot %T@ >/tmp/before
  deploy 10
  snapshot %T@ >/tmp/after
  same /tmp/before /tmp/after
  records rolled_back | jq -se "map(select(.unit == \"probe.service\" and .commit == \"$(newest)\" and .back_to == \"$good\")) | length == 1" >/dev/null
  active tick.timer
  active runs.service
  enabled tick.timer
  enabled runs.service
  journalctl --sync
  journalctl --quiet --after-cursor="$cursor" _PID=1 --output=cat | grep -i vanished && return 1
  [[ $(property tock.timer LoadState) == not-found && $(property probe.service LoadState) == not-found ]]
  [[ $(property tick.timer NextElapseUSecRealtime) == *2088-02-03* && $(applied) == "$good" ]]
  await reported gitops-apply.service
  # This commit is not tried again.
  deploy 0
  [[ $(reloads) == 0 && $(records action) == '' && $(records quarantined | jq -r .commit) == "$(newest)" ]]
  snapshot %T@ >/tmp/after
  same /tmp/before /tmp/after
  # The next commit is tried.
  unit probe.service <<<$'[Service]\nType=oneshot\nExecStart=tick\n[X-Gitsync]\nProbe=yes'
  sed -i 's/exit 1/exit 0/' $hub/scripts/tick
  push 'a probe that succeeds'
  deploy 0
  [[ $(applied) == "$(newest)" && $(property probe.service ExecMainStatus) == 0 && ! -e $units/runs.service ]]
  active tock.timer
  inactive tick.timer
  enabled tick.timer disabled
}

# The unit never has the state failed, because it waits to be restarted.
a_service_that_dies() {
  unit runs.service <<<$'[Service]\nExecStart=sleep infinity\n[Install]\nWantedBy=multi-user.target'
  push 'a service'
  deploy 0
  active runs.service
  cp $hub/systemd/runs.service /tmp/runs.service
  unit runs.service <<<$'[Service]\nExecStart=sh -c "sleep 0.3; exit 3"\nRestart=always\nRestartSec=1h\n[Install]\nWantedBy=multi-user.target'
  push 'a service that dies a moment after it was started'
  deploy 10
  records rolled_back | jq -e '.unit == "runs.service" and (.reason | test("waits to be restarted"))' >/dev/null
  cmp $units/runs.service /tmp/runs.service
  active runs.service
  cp /tmp/runs.service $hub/systemd/runs.service
  push 'as it was'
  deploy 0
}

# The rollback lasts until the branch moves.
rollback_by_hand() {
  local elapse
  elapse=$(property tick.timer NextElapseUSecRealtime)
  sed -i 's/2088/2067/' $hub/systemd/tick.timer
  push 'a change to be sorry for'
  deploy 0
  gitsync rollback --state-dir $apply_state --source $sync_state --health-window 1s >/dev/null
  [[ $(property tick.timer NextElapseUSecRealtime) == "$elapse" ]]
  deploy 0
  [[ $(property tick.timer NextElapseUSecRealtime) == "$elapse" ]]
  sed -i 's/2067/2088/' $hub/systemd/tick.timer
  push 'on we go'
  deploy 0
  [[ $(applied) == "$(newest)" ]]
}

# The template units with their own ledger: neither gitsync owns the units of the other.
another_repository() {
  git init -q -b main /srv/git/web
  mkdir /srv/git/web/systemd
  printf '[Service]\nType=oneshot\nExecStart=true\n' >/srv/git/web/systemd/web.service
  git -C /srv/git/web add -A
  git -C /srv/git/web commit -q -m web
  echo 'GITSYNC_REPO=git://127.0.0.1/web' >/etc/observability-hub/gitops-sync-web.env
  systemctl enable --quiet gitops-sync@web.timer
  systemctl start gitops-sync@web.service
  await test -e /var/lib/gitops-apply-web/ledger.json
  cmp $units/web.service /srv/git/web/systemd/web.service
  deploy 0
  [[ -e $units/web.service ]]
  enabled gitops-sync@web.timer
}

# reported UNIT checks that hub-failure has reported its failure since the last deployment began.
reported() {
  journalctl --quiet --after-cursor="$cursor" --unit="hub-failure@$1.service" --output=cat | jq -cR "fromjson? | select(.unit == \"$1\")" | grep .
}

# hold_in_probe YEAR pushes and starts a deployment that stays in its probe until the file /run/block is removed.
hold_in_probe() {
  unit probe.service <<<$'[Service]\nType=oneshot\nExecStart=sh -c "touch /run/probing; while [ -e /run/block ]; do sleep 0.05; done"\n[X-Gitsync]\nProbe=yes'
  unit tock.timer <<<$'[Timer]\nUnit=tick.service\nOnCalendar='"$1"$'-01-01\n[Install]\nWantedBy=timers.target'
  touch /run/block
  rm -f /run/probing
  push "blocked until $1"
  begin
  await test -e /run/probing
}

two_at_once() {
  hold_in_probe 2071
  local status=0
  gitsync apply --state-dir $apply_state --source $sync_state >/tmp/out 2>/tmp/err || status=$?
  [[ $status == 75 ]]
  grep -q '"level":"ERROR"' /tmp/err
  # The timer elapses while the job is running, and systemd merges the two starts.
  local id
  id=$(property gitops-apply.service InvocationID)
  systemctl start gitops-sync.service
  [[ $(property gitops-apply.service InvocationID) == "$id" ]]
  rm /run/block
  finish 0
  [[ $(applied) == "$(newest)" && $(property tock.timer NextElapseUSecRealtime) == *2071* ]]
}

its_binary_replaced() {
  hold_in_probe 2072
  cp /usr/local/bin/gitsync /usr/local/bin/.gitsync.new
  mv /usr/local/bin/.gitsync.new /usr/local/bin/gitsync
  [[ $(readlink "/proc/$(property gitops-apply.service MainPID)/exe") == *' (deleted)' ]]
  rm /run/block
  finish 0
  [[ $(applied) == "$(newest)" ]]
  deploy 0
  [[ $(records action) == '' ]]
}

# stopped YEAR and killed YEAR interrupt a deployment that changes the timer to that year. After SIGTERM the run itself undoes it,
# and after SIGKILL the next run does.
stopped() {
  local good
  good=$(applied)
  snapshot %T@ >/tmp/before
  hold_in_probe "$1"
  systemctl stop gitops-apply.service
  [[ $(property gitops-apply.service Result) == success ]]
  snapshot %T@ >/tmp/after
  same /tmp/before /tmp/after
  [[ $(applied) == "$good" && ! -e $apply_state/journal.json ]]
  # The probe does not go on either.
  await ended probe.service
  rm /run/block
  deploy 0
  [[ $(applied) == "$(newest)" && $(property tock.timer NextElapseUSecRealtime) == *"$1"* ]]
}

killed() {
  hold_in_probe "$1"
  systemctl kill --signal=KILL gitops-apply.service
  rm /run/block
  await await_applied
  await ended gitops-apply.service
  [[ $(property gitops-apply.service Result) == success && $(property tock.timer NextElapseUSecRealtime) == *"$1"* ]]
  records apply_interrupted | grep . >/dev/null
  deploy 0
  [[ $(records action) == '' ]]
}

hold_and_resume() {
  gitsync hold --state-dir $apply_state >/dev/null
  sed -i 's/2088/2066/' $hub/systemd/tick.timer
  push 'while held'
  deploy 0
  [[ $(records held | wc -l) == 1 && $(applied) != "$(newest)" ]]
  grep -q 2088 $units/tick.timer
  gitsync resume --state-dir $apply_state >/dev/null
  deploy 0
  grep -q 2066 $units/tick.timer
  gitsync hold --state-dir $apply_state --for 1ms >/dev/null
  deploy 0
  [[ $(records held) == '' ]]
}

its_own_units() {
  for name in gitops-sync.service gitops-sync.timer gitops-apply.service; do
    sed -i 's/^Description=.*/Description=Changed/' "$hub/systemd/$name"
  done
  push 'its own units'
  deploy 0
  [[ $(applied) == "$(newest)" && $(records applied | wc -l) == 1 ]]
  for name in gitops-sync.service gitops-sync.timer gitops-apply.service; do
    [[ $(property $name Description) == Changed && $(property $name NeedDaemonReload) == no ]]
  done
  active gitops-sync.timer
}

on_change() {
  cat >$hub/.gitsync.json <<'JSON'
{"on_change":[{"paths":["compose"],"run":["/bin/sh","-c","{ id -un; pwd; cat compose/a.yml; grep NoNewPrivs /proc/self/status; } >/var/lib/gitops-sync/ran; test ! -e /run/refuse && { test ! -e /run/hang || sleep 60; }"]}]}
JSON
  mkdir $hub/compose
  echo one >$hub/compose/a.yml
  push 'an on-change command'
  deploy 0
  same $sync_state/ran <(printf 'server\n%s\none\nNoNewPrivs:\t1\n' /srv/gitops-sync/current)
  [[ $(stat -c %U $sync_state/ran) == server ]]
  rm $sync_state/ran
  sed -i 's/2066/2055/' $hub/systemd/tick.timer
  push 'something else'
  deploy 0
  [[ ! -e $sync_state/ran ]]

  touch /run/refuse
  echo two >$hub/compose/a.yml
  sed -i 's/2055/2044/' $hub/systemd/tick.timer
  push 'a command that fails'
  deploy 11
  grep -q 2044 $units/tick.timer
  [[ $(applied) == "$(newest)" && $(records rolled_back) == '' ]]
  records on_change_failed | grep . >/dev/null
  await reported gitops-apply.service
  rm /run/refuse
  touch /run/hang
  deploy 11
  rm /run/hang
  deploy 0
  [[ $(reloads) == 0 && $(records action | jq -r .action) == run ]]
  deploy 0
  [[ $(records action) == '' ]]
}

# gitops-verdict.service publishes what the host rolled back, and withdraws that. The host does not take a commit that
# another host rolled back, and takes others at its turn.
a_roll_out() {
  local settings good
  settings=$(</etc/observability-hub/gitops-sync.env)
  mkdir -p $units/gitops-apply.service.d
  printf '[Unit]\nOnSuccess=gitops-verdict.service\nOnFailure=gitops-verdict.service\n' >$units/gitops-apply.service.d/verdict.conf
  systemctl daemon-reload
  good=$(newest)
  unit probe-bad.service <<<$'[Service]\nType=oneshot\nExecStart=false\n[X-Gitsync]\nProbe=yes'
  push 'bad here'
  deploy 10
  await verdict_is "$(newest)"
  git -C $hub rm -q systemd/probe-bad.service
  push 'the correction'
  deploy 0
  await verdict_is ''
  [[ $(applied) == "$(newest)" ]]

  echo GITSYNC_STOP_AFTER=1 >>/etc/observability-hub/gitops-sync.env
  good=$(newest)
  push 'bad elsewhere'
  git -C /srv/git/hub update-ref refs/hosts/web9/bad "$(newest)"
  deploy 0
  [[ $(applied) == "$good" && $(gitsync status | jq -r '.waiting, .bad_on[]') == "$(newest)"$'\nweb9' ]]
  runuser -u server -- gitsync status --state-dir $apply_state | jq -e '.waiting_until == null' >/dev/null
  git -C /srv/git/hub update-ref -d refs/hosts/web9/bad
  deploy 0
  [[ $(applied) == "$(newest)" ]]

  printf '%s\n' GITSYNC_STAGGER=1h GITSYNC_TURN=1 >>/etc/observability-hub/gitops-sync.env
  good=$(newest)
  push 'not yet'
  deploy 0
  [[ $(applied) == "$good" && $(gitsync status | jq -r .waiting) == "$(newest)" ]]
  hub-status --json gitops-sync | jq -e '.payload.ok and .payload.waiting != null' >/dev/null
  sed -i /GITSYNC_STAGGER/d /etc/observability-hub/gitops-sync.env
  deploy 0
  [[ $(applied) == "$(newest)" ]]

  await ended gitops-verdict.service
  echo "$settings" >/etc/observability-hub/gitops-sync.env
  rm $units/gitops-apply.service.d/verdict.conf
  systemctl daemon-reload
}
verdict_is() { [[ $(git -C /srv/git/hub for-each-ref --format='%(objectname)' "refs/hosts/$(hostname)/bad") == "$1" ]]; }

# Nothing is started by hand here. The timer also goes back to its old interval by itself.
by_the_timer() {
  unit gitops-sync.timer.d/often.conf <<<$'[Timer]\nOnCalendar=\nOnCalendar=*:*:*\nRandomizedDelaySec=0\nAccuracySec=1ms'
  push 'every second'
  deploy 0
  sed -i 's/2044/2033/' $hub/systemd/tick.timer
  push 'for the timer to find'
  await grep -q 2033 $units/tick.timer
  git -C $hub rm -q systemd/gitops-sync.timer.d/often.conf
  push 'every 15 minutes again'
  await test ! -e $units/gitops-sync.timer.d/often.conf
  await await_applied
  await ended gitops-sync.service
  await ended gitops-apply.service
  active gitops-sync.timer
  local next now
  next=$(date +%s -d "$(property gitops-sync.timer NextElapseUSecRealtime)")
  now=$(date +%s)
  ((next > now && next <= now + 17 * 60))
  # At a quarter of an hour plus the fixed delay.
  ((next % 900 <= 120 + 10))
}
await_applied() { [[ $(applied) == "$(newest)" ]]; }

main() {
  prepare
  local part
  for part in scores a_pull_that_is_tried_again an_empty_host a_second_run a_program_that_comes_and_goes drop_ins_of_our_own \
    units_of_every_kind a_template a_changed_timer a_changed_drop_in a_changed_socket drift \
    a_removed_unit a_service_that_dies rollback_by_hand a_failing_probe two_at_once its_binary_replaced 'stopped 2073' 'killed 2074' \
    hold_and_resume its_own_units on_change a_roll_out another_repository by_the_timer; do
    # shellcheck disable=SC2086 # a function with its arguments
    $part
    echo "ok ${part//_/ } ($SECONDS s)"
  done
}

main
