#!/bin/bash
# Tests gitsync on a host with a running systemd, one case after another. The
# files host-?.sh contain the cases. Each case is a function whose name begins
# with the number of the case. A case runs in its own process, with its own
# repository, state directory and units, and leaves nothing. Therefore a case
# that fails does not affect the next. The last lines of the script that the
# test puts together call main with a regular expression that selects cases.
set -Eeuo pipefail

# shellcheck disable=SC2034 # for the cases
readonly units=/etc/systemd/system vendor=/usr/lib/systemd/system
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org
export GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org
[[ ! -d /cover ]] || export GOCOVERDIR=/cover

went_wrong() {
  trap - ERR
  local i
  for ((i = 1; i < ${#FUNCNAME[@]}; i++)); do printf '%s, line %s\n' "${FUNCNAME[i]}" "${BASH_LINENO[i - 1]}"; done
  printf 'not true: %s\n' "$1"
  cat /tmp/out /tmp/err 2>/dev/null || :
  systemctl list-units --all --plain --no-legend "$p-*" "*-$p*" || :
  journalctl --sync
  journalctl --quiet --no-pager --output=short-monotonic --lines=25
}

# no COMMAND... checks that the command fails. A plain ! does not end the script.
no() {
  if "$@"; then
    echo "unexpected: $*"
    return 1
  fi
}

# await COMMAND... waits until the command succeeds, for at most 20 s.
await() {
  local tries
  for ((tries = 0; tries < 400; tries++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.05
  done
  echo "never true: $*"
  return 1
}

property() { systemctl show -P "$2" "$1"; }
# is UNIT PROPERTY VALUE checks a property of a unit.
is() {
  local value
  value=$(property "$1" "$2")
  if [[ $value != "$3" ]]; then
    echo "$1: $2 is $value; want $3"
    return 1
  fi
}
active() { is "$1" ActiveState active; }
inactive() { is "$1" ActiveState inactive; }
failed() { is "$1" ActiveState failed; }
pid() { property "$1" MainPID; }
# runs UNIT COMMAND checks the command of the unit's main process.
runs() {
  local main line
  active "$1"
  main=$(pid "$1")
  line=$(tr '\0' ' ' <"/proc/$main/cmdline")
  if [[ $line != "$2 " ]]; then
    echo "$1 runs $line; want $2"
    return 1
  fi
}
enabled() {
  local state
  state=$(systemctl is-enabled "$1" 2>/dev/null || :)
  if [[ $state != "${2:-enabled}" ]]; then
    echo "$1 is $state; want ${2:-enabled}"
    return 1
  fi
}
absent() { [[ ! -e $1 && ! -L $1 ]]; }

# unit NAME and script NAME write a file of the repository from stdin.
unit() {
  mkdir -p "$(dirname "$hub/systemd/$1")"
  cat >"$hub/systemd/$1"
}
script() {
  mkdir -p "$hub/scripts"
  cat >"$hub/scripts/$1"
  chmod 755 "$hub/scripts/$1"
}
drop() { rm -r "${@/#/$hub/systemd/}"; }
push() {
  git -C "$hub" add -A
  git -C "$hub" commit -q --allow-empty -m change
}
newest() { git -C "$hub" rev-parse HEAD; }

# run STATUS COMMAND [FLAG...] checks the exit status of gitsync. Its output is in /tmp/out and /tmp/err.
run() {
  local want=$1 status=0
  shift
  # Except for the command that has other flags.
  local flags=(--state-dir "$state" --repo "$hub")
  [[ $1 != status ]] || flags=(--state-dir "$state")
  [[ $1 == plan || $1 == status ]] || flags+=(--health-window "$window")
  gitsync "$@" "${flags[@]}" >/tmp/out 2>/tmp/err || status=$?
  if [[ $status != "$want" ]]; then
    echo "gitsync $*: exit status $status; want $want"
    return 1
  fi
}
# deploy [STATUS] [FLAG...] pushes the files of the repository and runs sync.
deploy() {
  push
  run "${1:-0}" sync "${@:2}"
}
applied() {
  local commit
  commit=$(gitsync status --state-dir "$state" | jq -r .applied)
  [[ $commit == "$1" ]]
}
# said ACTION UNIT [REASON] checks that the last run printed that action.
said() {
  jq -e -s --arg a "$1" --arg u "$2" --arg r "${3:-}" \
    'any(.[]; .action == $a and .unit == $u and ($r == "" or .reason == $r))' /tmp/out >/dev/null
}
no_action() {
  # Of output that is not JSON jq says neither.
  jq -e -s 'all(.[]; .action == null or .reason == "foreign")' /tmp/out >/dev/null || {
    echo "$1 is not empty:"
    return 1
  }
}
# settled [STATUS] [FLAG...] checks that the host matches the commit and nothing is left to do.
settled() {
  window=0s run "${1:-0}" sync "${@:2}"
  no_action 'a second run'
  run 0 plan "${@:2}"
  no_action 'the plan'
  local dead
  dead=$(find $units -xtype l -name "$p-*")
  [[ -z $dead ]] || { echo "dead links: $dead" && return 1; }
}

# files lists the files that a case could leave.
files() { { find /etc/systemd /usr/lib/systemd /usr/local/lib /usr/local/bin /etc/containers /usr/libexec/podman /run/systemd/system /var/lib/gitops-* 2>/dev/null || :; } | sort; }

clean() {
  local left
  mapfile -t left < <(systemctl list-units --all --plain --no-legend "$p-*" "*-$p*" | cut -d' ' -f1)
  if [[ ${#left[@]} -gt 0 ]]; then
    systemctl kill --signal=KILL -- "${left[@]}" 2>/dev/null || :
    timeout 20 systemctl stop -- "${left[@]}" 2>/dev/null || :
  fi
  files | comm -13 /tmp/files - | sort -r | while read -r name; do
    if [[ -d $name && ! -L $name ]]; then rmdir "$name"; else rm "$name"; fi
  done
  systemctl daemon-reload
  systemctl reset-failed
}

# one NAME runs a case in its own process.
one() {
  p=${1%%_*}
  p=${p,,}
  hub=/srv/cases/$p/hub state=/srv/cases/$p/state
  # Only the cases about crashes need a longer window.
  [[ $1 == A* ]] && window=2s || window=500ms
  git init -q -b main "$hub"
  trap 'went_wrong "$BASH_COMMAND"' ERR
  "$1"
}

main() {
  local name began status
  mkdir -p /srv/cases /etc/systemd/system-preset
  files >/tmp/files
  while read -r name; do
    [[ $name =~ $1 ]] || continue
    began=${EPOCHREALTIME/./} status=0
    timeout --kill-after=5 "$([[ -n $torture ]] && echo 400 || echo 90)" bash /e2e/script one "$name" >"/e2e/$name.log" 2>&1 || status=$?
    p=${name%%_*} p=${p,,}
    clean >>"/e2e/$name.log" 2>&1 || :
    printf '%s %s %d\n' "$([[ $status == 0 ]] && echo ok || echo red)" "$name" $(((${EPOCHREALTIME/./} - began) / 1000))
  done < <(declare -F | cut -d' ' -f3 | grep -E '^[A-H][0-9]+_' | sort -V)
}
