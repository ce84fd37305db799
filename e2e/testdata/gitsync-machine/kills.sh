#!/bin/bash
# Kills gitsync apply while systemd does the work that it requested: units are
# stopped, reloaded, enabled, restarted and watched. After each kill the next run
# must leave the host as the newest commit wants it. The caller sets
#   steps    kill at each step whose number modulo this is $phase (1: at each)
#   rounds   number of kills at random times
#   RANDOM   the seed
set -Eeuo pipefail
: "${steps:?}" "${phase:?}" "${rounds:?}"

readonly hub=/root/hub state=/var/lib/state units=/etc/systemd/system
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org
export GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org
export GITSYNC_STATE_DIR=$state GITSYNC_REPO=$hub GITSYNC_HEALTH_WINDOW=100ms

trap 'went_wrong "$LINENO" "$BASH_COMMAND"' ERR
went_wrong() {
  trap - ERR
  printf 'line %s: %s\n%s\n' "$1" "$2" "${when:-}" >&2
  cat /tmp/out /tmp/err >&2 || :
  journalctl --sync
  journalctl --quiet --no-pager --output=short-monotonic --lines=30 >&2
}

active() { [[ $(systemctl show -P ActiveState "$1") == active ]]; }
gone() { [[ ! -e $units/$1 && $(systemctl show -P LoadState "$1") == not-found && $(systemctl show -P ActiveState "$1") == inactive ]]; }

unit() {
  mkdir -p "$(dirname "$hub/systemd/$1")"
  cat >"$hub/systemd/$1"
}

# Two commits that change, add, remove, enable and disable in both directions.
commits() {
  git init -q -b main $hub
  mkdir $hub/scripts
  local n
  for n in 1 2; do
    rm -rf $hub/systemd
    unit tick.service <<<$'[Service]\nType=oneshot\nExecStart=tick\n[X-Gitsync]\nProbe=yes'
    unit tick.timer <<<$'[Timer]\nOnCalendar='$((2070 + n))$'-01-01\n[Install]\nWantedBy=timers.target'
    unit runs.service <<<$'[Service]\nExecStart=sleep '$((n * 100000))$'\n[Install]\nWantedBy=multi-user.target'
    unit "only$n.service" <<<$'[Service]\nType=oneshot\nExecStart=true'
    unit "only$n.timer" <<<$'[Timer]\nOnCalendar=2090-01-01\n[Install]\nWantedBy=timers.target'
    unit both.socket <<<$'[Socket]\nListenFIFO=/run/both-'$n$'\n[Install]\nWantedBy=sockets.target'
    unit both.service <<<$'[Service]\nExecStart=cat\nStandardInput=socket'
    [[ $n == 2 ]] || unit runs.service.d/nice.conf <<<$'[Service]\nNice=1'
    printf '#!/bin/sh\nexit 0 # %s\n' $n >$hub/scripts/tick
    chmod 755 $hub/scripts/tick
    git -C $hub add -A
    git -C $hub commit -q -m "$n"
    git -C $hub branch -q "commit$n"
  done
}

# want makes the other commit the newest of the branch.
want() {
  wanted=$((3 - ${wanted:-2}))
  git -C $hub rm -rq .
  git -C $hub checkout -q "commit$wanted" -- .
  git -C $hub commit -q --allow-empty -m again
}

# untorn checks that each file belongs to one of the two commits, at any moment.
untorn() {
  local path name
  while read -r path; do
    name=systemd/${path#"$units/"}
    [[ $path == /usr/local/bin/* ]] && name=scripts/${path##*/}
    cmp -s "$path" <(git -C $hub show "commit1:$name" 2>/dev/null) || cmp -s "$path" <(git -C $hub show "commit2:$name")
  done < <(
    find $units -type f -name '*.*' -not -name '.*' -not -name e2e.service
    echo /usr/local/bin/tick
  )
}

# converge runs gitsync once more and checks that the host matches the newest commit.
converge() {
  gitsync >/tmp/out 2>/tmp/err
  diff -r --exclude='*.wants' --exclude=e2e.service --exclude=.gitsync $hub/systemd $units
  cmp $hub/scripts/tick /usr/local/bin/tick
  [[ ! -e $state/journal.json && -z $(find $units /usr/local/bin -name '.*' -not -name .gitsync) && -z $(find $units -xtype l) ]]
  [[ $(systemctl show -P NextElapseUSecRealtime tick.timer) == *$((2070 + wanted))-01-01* ]]
  [[ $(tr '\0' ' ' <"/proc/$(systemctl show -P MainPID runs.service)/cmdline") == "sleep $((wanted * 100000)) " ]]
  [[ $(systemctl show -P Nice runs.service) == $((2 - wanted)) ]]
  [[ $(systemctl show -P Listen both.socket) == "/run/both-$wanted (FIFO)" ]]
  local name
  for name in tick.timer runs.service both.socket "only$wanted.timer"; do
    active "$name"
    systemctl is-enabled --quiet "$name"
  done
  gone "only$((3 - wanted)).timer"
  gone "only$((3 - wanted)).service"
  [[ -z $(systemctl list-units --failed --quiet --no-legend) ]]
  gitsync plan >/tmp/out 2>/tmp/err
  [[ ! -s /tmp/out ]]
}

main() {
  local n status began typical=0 kills=0 at=0
  local -a random
  # Before subshells, because each of them would have its own random numbers.
  for ((n = 0; n < rounds; n++)); do random+=("$((RANDOM * 32768 + RANDOM))"); done
  commits
  for n in 1 2 3; do
    want
    when="undisturbed $n"
    began=${EPOCHREALTIME/./}
    gitsync >/tmp/out 2>/tmp/err
    typical=$((${EPOCHREALTIME/./} - began))
    converge
  done

  for ((n = 1; ; n++)); do
    ((n % steps == phase % steps)) || continue
    want
    when="step $n"
    status=0
    GITSYNC_FAULT_AT=$n gitsync >/tmp/out 2>/tmp/err || status=$?
    untorn
    converge
    [[ $status == 137 ]] || break
    at=$((at + 1))
  done
  [[ $status == 0 ]]
  ((at * steps >= 20)) # a run has more steps than that
  echo "ok $at kills at steps 1 to $((n - 1))"

  for n in "${random[@]}"; do
    want
    when="after $((n % typical)) microseconds"
    gitsync >/tmp/out 2>/tmp/err &
    sleep "$(printf '0.%06d' "$((n % typical % 1000000))")"
    kill -KILL $! 2>/dev/null || :
    status=0
    wait $! || status=$?
    # As other load comes and goes, most of the moments stay within the run.
    if [[ $status == 137 ]]; then
      kills=$((kills + 1))
      typical=$((typical + typical / 20))
    else
      typical=$((typical - typical / 4))
    fi
    untorn
    converge
  done
  ((kills * 4 >= rounds)) # or the moments show nothing
  echo "ok $kills of $rounds runs killed at random times"
}

main
