#!/usr/bin/env bash
# Shows what gitsync does, with a repository and a host in a temporary directory: a commit is deployed, a broken commit is
# refused, and a change by hand is reverted. It changes nothing outside of that directory, and removes it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
gitsync=${GITSYNC:-$here/bin/gitsync}

fail() {
  printf 'demo: error: %s\n' "$*" >&2
  exit 1
}

# run STATUS ARG...: runs gitsync, which must exit with that status.
run() {
  local want=$1 status=0
  shift
  printf '  $ gitsync %s\n' "$*"
  "$gitsync" "$@" >"$work/out" 2>"$work/err" || status=$?
  jq -r '"    " + ([.msg, .action, .unit // .path, .reason, .error, .hint] | map(select(. != null)) | join("  "))' "$work/out" "$work/err"
  printf '    exit status %s\n' "$status"
  [[ $status -eq $want ]] || fail "exit status $status, want $want"
}

commit() {
  git -C "$work/hub" add -A
  git -C "$work/hub" -c user.name=demo -c user.email=demo@example.org commit -q -m "$1"
}

main() {
  [[ -x $gitsync ]] || fail "no $gitsync: run make build"
  local name
  for name in $(compgen -e); do
    case $name in
      GITSYNC_* | GIT_* | CREDENTIALS_DIRECTORY | STATE_DIRECTORY | JOURNAL_STREAM) unset "$name" ;;
    esac
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/hub-demo.XXXXXX")
  # shellcheck disable=SC2064 # the current value
  trap "rm -rf '$work'" EXIT
  export GITSYNC_STATE_DIR=$work/state GITSYNC_REPO=$work/hub GITSYNC_ROOT=$work/host
  local units=$work/host/etc/systemd/system
  mkdir -p "$work/hub/systemd" "$work/hub/scripts" "$units"
  git init -q -b main "$work/hub"

  printf '\n1. Deploy a repository with a script, its service and its timer to a host in a directory\n'
  printf '#!/bin/sh\necho hello\n' >"$work/hub/scripts/greet"
  chmod 755 "$work/hub/scripts/greet"
  printf '[Service]\nType=oneshot\nExecStart=greet\n' >"$work/hub/systemd/greet.service"
  printf '[Timer]\nOnCalendar=hourly\n[Install]\nWantedBy=timers.target\n' >"$work/hub/systemd/greet.timer"
  commit good
  run 0
  [[ -L $units/timers.target.wants/greet.timer ]] || fail 'the timer is not enabled'

  printf '\n2. Push a commit with a misspelt key. It is refused before anything is written\n'
  printf '[Service]\nType=oneshot\nExecStrat=greet\n' >"$work/hub/systemd/greet.service"
  commit broken
  run 65
  grep -q ExecStart=greet "$units/greet.service" || fail 'the unit has changed'

  printf '\n3. Push a correction. Meanwhile a person has edited the timer by hand\n'
  printf '[Service]\nType=oneshot\nNice=10\nExecStart=greet\n' >"$work/hub/systemd/greet.service"
  commit corrected
  sed -i s/hourly/daily/ "$units/greet.timer"
  run 0 pull
  run 0 plan
  run 0 apply

  printf '\n4. The host matches the repository, so the plan is empty\n'
  run 0 plan
  [[ ! -s $work/out ]] || fail 'the plan is not empty'
}

main "$@"
