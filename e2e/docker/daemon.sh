#!/bin/bash
# The life of one Docker daemon: daemon.sh DIR
#
# It runs until SIGTERM, in mount and PID namespaces of its own: however it
# ends, the kernel ends dockerd, containerd and all containers, and takes their
# mounts, without a trace on the host. DIR is removed. It needs docker.io and
# busybox-static from Debian, and root. The host's own daemon is not touched.
#
# DIR/d.sock    the daemon's socket, there once it answers and has the image "busybox"
# DIR/data      data root; volumes are in DIR/data/volumes
# DIR/log       the daemon's log
set -euo pipefail

inner() {
  local dir=$1 daemon
  # No bridge and no packet filter, which the host may lack or use for itself.
  # The image is there before the socket has its name.
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
  # As process number 1 it has orphans to bury.
  wait "$daemon"
}

# A paused container does not die before it is thawed; any takes a moment to be gone, and a cgroup in use stays.
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
  # Left for whoever asks why.
  cp "$dir/log" "$dir.log" || :
  clear_up "$dir"
  exit "$status"
}

case $1 in
  inner) inner "$2" ;;
  *) outer "$1" ;;
esac
