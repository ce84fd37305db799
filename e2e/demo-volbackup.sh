#!/usr/bin/env bash
# Shows volbackup at its job, on a folder that stands for a volume: two backups, of which the second is a hard link, a
# stream that breaks off, a flipped bit, and the content back as it was; then, where a Docker daemon can be started, on a
# volume whose container is stopped and started. Everything is in a temporary folder that goes.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
volbackup=${VOLBACKUP:-$here/bin/volbackup}

fail() {
  printf 'demo: error: %s\n' "$*" >&2
  exit 1
}

# Runs a shell line, in which volbackup is the one that was built; the first argument is the exit status that is due.
run() {
  local want=$1 line=$2 status=0
  printf '  $ %s\n' "$line"
  (cd "$work" && PATH=${volbackup%/*}:$PATH bash -o pipefail -c "$line") >"$work/out" 2>"$work/err" || status=$?
  jq -rR 'fromjson? // . | if type == "object" then [.msg, .volume, .id, .error, .detail] + (if .unchanged == true then ["unchanged"] else [] end) | map(select(. != null)) | join("  ") else . end | "    " + .' \
    "$work/out" "$work/err"
  printf '    exit status %s\n' "$status"
  [[ $status -eq $want ]] || fail "exit status $status where $want was due"
}

# A daemon of our own, beside that of the host, with a container at work in a volume.
docker_volume() {
  local daemon=$work/docker
  if [[ $EUID -ne 0 ]] || ! command -v dockerd >/dev/null || ! command -v busybox >/dev/null; then
    printf '\n5. A Docker volume: left out. It takes root, dockerd and busybox: apt-get install docker.io busybox-static\n'
    return
  fi
  printf '\n5. A Docker volume; its container is stopped while it is read. Somebody deletes the data, and they come back\n'
  # A socket's path must be short.
  daemon=$(mktemp -d /tmp/hub-docker-XXXXXX)
  bash "$here/e2e/docker/daemon.sh" "$daemon" >/dev/null 2>&1 &
  local supervisor=$!
  # shellcheck disable=SC2064 # the values of now
  trap "kill $supervisor 2>/dev/null; while [ -e '$daemon' ]; do sleep 0.1; done; rm -rf '$work' '$daemon.log'" EXIT
  until [[ -S $daemon/d.sock ]]; do
    kill -0 "$supervisor" 2>/dev/null || fail "no Docker daemon: $(tail -n 3 "$daemon.log")"
    sleep 0.1
  done
  export DOCKER_HOST=unix://$daemon/d.sock STATE_DIRECTORY=$work/state PATH=$here/scripts:$PATH
  docker volume create grafana_data >/dev/null
  docker run --detach --network none --name grafana --volume grafana_data:/data busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
  docker exec grafana sh -c 'echo dashboards >/data/file'
  # shellcheck disable=SC2016 # jq's
  run 0 'manage_volume.sh list | jq -r "[.volume, .containers[]] | join(\" \")"'
  run 0 'volbackup run'
  run 0 'docker exec grafana rm /data/file'
  run 0 'volbackup restore --stop grafana_data'
  run 0 'docker ps --format "{{.Names}} {{.State}}"; docker exec grafana cat /data/file'
}

main() {
  [[ -x $volbackup ]] || fail "no $volbackup: run make build"
  local name
  for name in $(compgen -e); do
    case $name in
      VOLBACKUP_* | AGE_IDENTITY | CREDENTIALS_DIRECTORY | STATE_DIRECTORY | JOURNAL_STREAM) unset "$name" ;;
    esac
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/hub-demo.XXXXXX")
  # shellcheck disable=SC2064 # the value of now
  trap "rm -rf '$work'" EXIT
  export VOLBACKUP_REPO=$work/repository
  mkdir "$work/volume"
  printf 'the first version\n' >"$work/volume/file"

  printf '\n1. A backup of a folder, and another: nothing has changed, so it is a hard link\n'
  run 0 'volbackup put demo -- tar -C volume -c .'
  run 0 'volbackup put demo -- tar -C volume -c .'
  run 0 'stat -c "%h links, %s bytes" repository/demo/*.tar.zst'

  printf '\n2. A stream that breaks off is refused, and so is one whose maker fails\n'
  run 65 'tar -C volume -c . | head -c 1024 | volbackup put demo'
  run 1 'volbackup put demo -- sh -c "tar -C volume -c .; exit 1"'

  printf '\n3. The volume changes and is backed up; then a bit of that archive flips\n'
  printf 'the second version\n' >"$work/volume/file"
  run 0 'volbackup put demo -- tar -C volume -c .'
  printf damaged | dd of="$(find "$work/repository/demo" -name '*.zst' | sort | tail -n 1)" bs=1 seek=40 conv=notrunc status=none
  run 65 'volbackup cat demo'
  run 65 'volbackup verify'

  printf '\n4. The newest good one, with volbackup and without\n'
  run 0 'volbackup cat demo | tar -xO ./file'
  # shellcheck disable=SC2016 # for the shell that runs it
  run 0 'for archive in repository/demo/*.zst; do break; done; zstd -dc $archive | tar -xO ./file'

  docker_volume
}

main "$@"
