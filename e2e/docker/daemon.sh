#!/bin/bash
# daemon.sh DIR: runs a Docker daemon.
#
# It runs until SIGTERM, in its own mount and PID namespaces. So however it ends, the
# kernel ends dockerd, containerd and all containers, and removes their mounts. DIR is
# removed. It needs root, and docker.io and busybox-static from Debian. It does not use
# the host's daemon.
#
# DIR/d.sock    the daemon's socket; it exists as soon as the daemon answers and has
#               the image "busybox"
# DIR/data      data root; volumes are in DIR/data/volumes
# DIR/log       the daemon's log
set -euo pipefail

inner() {
  local dir=$1 daemon
  # No bridge and no packet filter: the host may not have them, or may use them. The
  # image is imported before the socket gets its final name.
  dockerd --config-file "$dir/daemon.json" --host "unix://$dir/new.sock" --data-root "$dir/data" --exec-root "$dir/exec" \
    --pidfile "$dir/pid" --cgroup-parent "/${dir##*/}" --exec-opt native.cgroupdriver=cgroupfs \
    --bridge none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false >"$dir/log" 2>&1 &
  daemon=$!
  until docker --host "unix://$dir/new.sock" version >/dev/null 2>&1; do
    kill -0 "$daemon" || exit 1
    sleep 0.05
  done
  mkdir -p "$dir"/image/{bin,etc,proc,sys,dev,tmp}
  cp "$(type -P busybox)" "$dir/image/bin/busybox"
  "$dir/image/bin/busybox" --install "$dir/image/bin"
  tar -C "$dir/image" -c . | docker --host "unix://$dir/new.sock" import --change 'ENV PATH=/bin' - busybox >/dev/null
  mv "$dir/new.sock" "$dir/d.sock"
  # This is process number 1 of the namespace, which must reap orphans.
  wait "$daemon"
}

# clear_up DIR: removes cgroups and DIR. A paused container must be thawed before it can end. Processes need a moment to
# end, and until then their cgroup cannot be removed.
clear_up() {
  local dir=$1 try state
  for state in /sys/fs/cgroup/{,freezer/}"${dir##*/}"/*/{freezer.state,cgroup.freeze}; do
    case $state in
      *freezer.state) if [[ -e $state ]]; then echo THAWED >"$state"; fi ;;
      *) if [[ -e $state ]]; then echo 0 >"$state"; fi ;;
    esac
  done
  for ((try = 0; try < 600; try++)); do
    find /sys/fs/cgroup -depth -type d \( -path "*/${dir##*/}" -o -path "*/${dir##*/}/*" \) -exec rmdir {} + 2>/dev/null || :
    if [[ -z $(find /sys/fs/cgroup -type d -name "${dir##*/}" -print -quit) ]]; then break; fi
    sleep 0.05
  done
  rm -rf "$dir"
}

outer() {
  local dir=$1 child='' status=0
  trap 'kill -KILL "$child" 2>/dev/null || :; clear_up "$dir"; exit 143' TERM INT HUP
  echo '{}' >"$dir/daemon.json"
  unshare --mount --pid --fork --kill-child --mount-proc -- bash "$0" inner "$dir" &
  child=$!
  wait "$child" || status=$?
  # The log is kept for the caller, to show why the daemon ended.
  cp "$dir/log" "$dir.log" || :
  clear_up "$dir"
  exit "$status"
}

case $1 in
  inner) inner "$2" ;;
  *) outer "$1" ;;
esac
