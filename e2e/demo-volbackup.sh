#!/usr/bin/env bash
# Shows what volbackup does. A directory takes the place of a volume: it is backed up twice, and the second backup is a hard
# link; a stream that ends early is refused; a damaged archive is found; the content is read back. If a Docker daemon can be
# started, the demo then backs up a volume whose container is stopped and started. It changes nothing outside of temporary
# directories, and removes them.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
volbackup=${VOLBACKUP:-$here/bin/volbackup}

fail() {
  printf 'demo: error: %s\n' "$*" >&2
  exit 1
}

# run STATUS LINE: runs a shell line with the built volbackup in PATH. The line must exit with that status.
run() {
  local want=$1 line=$2 status=0
  printf '  $ %s\n' "$line"
  (cd "$work" && PATH=${volbackup%/*}:$PATH bash -o pipefail -c "$line") >"$work/out" 2>"$work/err" || status=$?
  jq -rR 'fromjson? // . | if type == "object" then [.msg, .volume, .id, .error, .detail] + (if .unchanged == true then ["unchanged"] else [] end) | map(select(. != null)) | join("  ") else . end | "    " + .' \
    "$work/out" "$work/err"
  printf '    exit status %s\n' "$status"
  [[ $status -eq $want ]] || fail "exit status $status, want $want"
}

# docker_volume: starts a Docker daemon beside that of the host, with a running container that uses a volume.
docker_volume() {
  local daemon=$work/docker
  if [[ $EUID -ne 0 ]] || ! command -v dockerd >/dev/null || ! command -v busybox >/dev/null; then
    printf '\n5. A Docker volume: left out, because it needs root, dockerd and busybox (apt-get install docker.io busybox-static)\n'
    return
  fi
  printf '\n5. Back up a Docker volume, whose container is stopped while it is read. Delete the data, and restore it\n'
  # The path of a socket must be short.
  daemon=$(mktemp -d /tmp/hub-docker-XXXXXX)
  bash "$here/e2e/docker/daemon.sh" "$daemon" >/dev/null 2>&1 &
  local supervisor=$!
  # shellcheck disable=SC2064 # the current values
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
  # shellcheck disable=SC2064 # the current value
  trap "rm -rf '$work'" EXIT
  export VOLBACKUP_REPO=$work/repository
  mkdir "$work/volume"
  printf 'the first version\n' >"$work/volume/file"

  printf '\n1. Back up a directory twice. Nothing has changed, so the second backup is a hard link\n'
  run 0 'volbackup put demo -- tar -C volume -c .'
  run 0 'volbackup put demo -- tar -C volume -c .'
  run 0 'stat -c "%h links, %s bytes" repository/demo/*.tar.zst'

  printf '\n2. A stream that ends early is refused, and so is a stream whose producer fails\n'
  run 65 'tar -C volume -c . | head -c 1024 | volbackup put demo'
  run 1 'volbackup put demo -- sh -c "tar -C volume -c .; exit 1"'

  printf '\n3. Change the data, back it up, and then damage that archive\n'
  printf 'the second version\n' >"$work/volume/file"
  run 0 'volbackup put demo -- tar -C volume -c .'
  printf damaged | dd of="$(find "$work/repository/demo" -name '*.zst' | sort | tail -n 1)" bs=1 seek=40 conv=notrunc status=none
  run 65 'volbackup cat demo'
  run 65 'volbackup verify'

  printf '\n4. Read the newest good archive, with volbackup and without it\n'
  run 0 'volbackup cat demo | tar -xO ./file'
  # shellcheck disable=SC2016 # for the shell that runs it
  run 0 'for archive in repository/demo/*.zst; do break; done; zstd -dc $archive | tar -xO ./file'

  docker_volume
}

main "$@"
