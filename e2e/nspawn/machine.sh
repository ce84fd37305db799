#!/bin/bash
# machine.sh outer DIR LIMIT BASE [NSPAWN-OPTION…]: boots a machine and waits for its end.
#
# The script runs twice. The outer run is the child of the test. It starts the inner
# run in its own mount and PID namespaces, and cleans up if the test has ended. The
# inner run is PID 1 of its namespace. It mounts the root, boots the machine and exports
# the journal. However they end, the kernel ends all processes, mounts and loop devices
# together with the namespaces.
#
# DIR/console   output of the machine's console
# DIR/status    exit status of systemd-nspawn, or "limit" if it ran longer than LIMIT seconds
# DIR/journal   the machine's journal, one JSON object per line
# DIR/cgroups   cgroups that were created for the machine
# DIR/again     exists if the machine has to boot again, however it ends; removed at that boot
set -euo pipefail

# enter_cgroup DIR: moves this process into a new cgroup. Machines in one cgroup would manage each other's services.
enter_cgroup() {
  local dir=$1 name hierarchies path mounted
  name=$(basename "$dir")
  while IFS=: read -r _ hierarchies path; do
    case $hierarchies in
      name=systemd) mounted=/sys/fs/cgroup/systemd ;;
      '') mounted=/sys/fs/cgroup/unified && [[ -d $mounted ]] || mounted=/sys/fs/cgroup ;;
      *) continue ;;
    esac
    if [[ ! -e $mounted$path/cgroup.procs ]]; then continue; fi
    mkdir "${mounted}${path%/}/$name"
    printf '%s\n' "${mounted}${path%/}/$name" >>"$dir/cgroups"
    echo 0 >"${mounted}${path%/}/$name/cgroup.procs"
  done </proc/self/cgroup
}

leave_cgroup() {
  local dir=$1 cgroup try
  if [[ ! -e $dir/cgroups ]]; then return; fi
  while read -r cgroup; do
    # Killed processes need a moment to end, and until then their cgroup cannot be removed.
    for ((try = 0; try < 100; try++)); do
      find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null || :
      if [[ ! -e $cgroup ]]; then break; fi
      sleep 0.05
    done
  done <"$dir/cgroups"
}

# mount_root DIR BASE: mounts an overlay, which takes no time. If DIR is itself on an overlay, BASE is copied.
mount_root() {
  local dir=$1 base=$2
  mkdir "$dir/root" "$dir/upper" "$dir/work"
  if ! mount -t overlay overlay -o "lowerdir=$base,upperdir=$dir/upper,workdir=$dir/work" "$dir/root" 2>/dev/null; then
    cp -a --reflink=auto "$base/." "$dir/root"
  fi
}

inner() {
  local dir=$1 limit=$2 base=$3 disk status=0
  shift 3
  enter_cgroup "$dir"
  mount_root "$dir" "$base"
  # Files that the test installs. Existing directories keep their owner and mode.
  tar -C "$dir/layer" -c . | tar -C "$dir/root" -x --no-overwrite-dir --keep-directory-symlink
  for disk in "$dir"/disks/*.img; do
    if [[ ! -e $disk ]]; then continue; fi
    mkfs.ext4 -q "$disk"
    mkdir "${disk%.img}"
    mount -o loop "$disk" "${disk%.img}"
  done
  # systemd-nspawn cannot clear its own directory if /run is on a disk.
  mkdir -p /run/systemd/nspawn
  mount -t tmpfs tmpfs /run/systemd/nspawn
  SECONDS=0
  # 133: the machine reboots.
  while :; do
    status=0
    timeout --kill-after=10 "$((limit > SECONDS ? limit - SECONDS : 1))" systemd-nspawn --quiet --directory="$dir/root" --machine="$(basename "$dir")" \
      --register=no --keep-unit --settings=no --link-journal=no --resolv-conf=off --timezone=off \
      --private-network --console=pipe --bind="$dir/e2e:/e2e" "$@" \
      --boot systemd.unit=e2e.service </dev/null >>"$dir/console" 2>&1 || status=$?
    if [[ -e $dir/again ]]; then
      rm "$dir/again"
    elif ((status != 133)); then
      break
    fi
  done
  journalctl --directory="$dir/root/var/log/journal" --output=json --all --no-pager --quiet >"$dir/journal" || :
  # The script in the machine may itself exit with a status of timeout(1).
  if ((SECONDS >= limit && (status == 124 || status == 137))); then status=limit; fi
  echo "$status" >"$dir/status"
}

outer() {
  local dir=$1 child='' status=0
  # The signal comes from the test, from the kernel if the test has ended, or from the
  # terminal to all processes at once.
  trap 'kill -KILL "$child" 2>/dev/null || :; wait "$child" || :; leave_cgroup "$dir"; rm -rf "$dir"; exit 143' TERM INT HUP
  unshare --mount --pid --fork --kill-child --mount-proc -- bash "$0" inner "$@" &
  child=$!
  wait "$child" || status=$?
  leave_cgroup "$dir"
  exit "$status"
}

case $1 in
  inner | outer) "$@" ;;
esac
