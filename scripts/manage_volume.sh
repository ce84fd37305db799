#!/bin/bash
# manage_volume.sh - Docker volumes as tar streams, read while nothing writes to them.
#
# Everything that touches Docker is here; everything that touches backups is in
# volbackup. See manage_volume(1). Needs bash, coreutils, GNU tar, util-linux and
# the docker client; pulls no image and starts no container of its own.
#
# How nothing stays down: before the first container is stopped, what is about
# to be stopped is on disk, in $state_dir/quiesced/VOLUME. The file goes when all
# of it runs again, by whoever comes first: this run (an EXIT trap), `resume`
# (the unit's ExecStopPost=) or the next run. Who works on a volume holds a
# flock(2) on its folder, so what nobody holds was left by a run that died.
set -euo pipefail

readonly service=volume-backup
# What nobody else may add to.
unset TAR_OPTIONS TAPE POSIXLY_CORRECT

# The same tree must give the same bytes, which volbackup turns into a hard
# link: names sorted, no process number in a header (exthdr.name; the 1.0 sparse
# format has one that cannot be set, 0.0 has none), no times of our own reading.
readonly tar_create=(
  tar --create --file=- --format=posix --sort=name --numeric-owner --xattrs '--xattrs-include=*' --acls
  --sparse --sparse-version=0.0 --quoting-style=escape
  '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime'
)
readonly tar_extract=(
  tar --extract --file=- --numeric-owner --same-owner --same-permissions --delay-directory-restore
  --xattrs '--xattrs-include=*' --acls --quoting-style=escape --block-number --ignore-zeros
)

usage() {
  cat <<'TXT'
Usage:
  manage_volume.sh [--state-dir DIR] COMMAND

Commands:
  list [--all]           print a JSON line for each volume
  create VOLUME...       create volumes that are not there yet
  export VOLUME          write a volume to stdout, as tar
  import [--stop] VOLUME replace a volume by the tar stream on stdin
  with VOLUME... -- CMD  run a command while nothing writes to the volumes
  resume                 start what an interrupted run has left stopped
  backup [VOLUME...]     back up with volbackup
  restore VOLUME[@ID]    restore with volbackup

Containers that use the volume are stopped while it is read, unless their label
hub.backup.quiesce says pause or none. import refuses while containers run,
unless --stop lets it stop and start them. See manage_volume(1).

Example:
    $ manage_volume.sh list | jq -r .volume
    $ manage_volume.sh export grafana_data | zstd >grafana_data.tar.zst
    $ zstd -dc grafana_data.tar.zst | manage_volume.sh import --stop grafana_data
    $ manage_volume.sh with grafana_data -- sh -c 'du -sh "$VOLUME_PATH"'
TXT
}

# --- what is said -----------------------------------------------------------

# json TEXT: TEXT as a JSON string. Names of volumes and containers, and tar's
# escaped paths, are ASCII; of anything else only the shape remains.
json() {
  local LC_ALL=C text=${1//$'\n'/ }
  text=${text//\\/\\\\}
  text=${text//\"/\\\"}
  printf '"%s"' "${text//[^ -~]/?}"
}

# envelope LEVEL EVENT: the start of every line.
envelope() {
  local LC_ALL=C TZ=UTC now=$EPOCHREALTIME
  printf '{"time":"%(%Y-%m-%dT%H:%M:%S)T.%.3sZ","level":"%s","msg":"%s","service":"%s"' \
    "${now%.*}" "${now#*.}" "$1" "$2" "$service"
}

# say LEVEL EVENT TEXT [HINT [FIELDS]]: a diagnostic, in the form that stderr wants. FIELDS are JSON that begins with a comma.
say() {
  local level=$1 event=$2 text=${3:0:4000} hint=${4:-} word=warning key=detail prefix=
  if [[ $level == ERROR ]]; then word=error key=error; fi
  if [[ -t 2 ]]; then
    if [[ $level == DEBUG ]]; then return; fi
    text=${text//[[:cntrl:]]/ }
    printf 'manage_volume.sh: %s: %s\n%s' "$word" "$text" "${hint:+manage_volume.sh: hint: $hint$'\n'}" >&2 || :
    return
  fi
  # systemd names the journal's stream; children inherit the name also when their own stderr is another.
  if [[ -n ${JOURNAL_STREAM:-} && $(stat -L -c %d:%i - <&2 2>/dev/null) == "$JOURNAL_STREAM" ]]; then
    case $level in
      ERROR) prefix='<3>' ;;
      WARN) prefix='<4>' ;;
    esac
  fi
  printf '%s%s,"%s":%s%s}\n' "$prefix" "$(envelope "$level" "$event")" "$key" "$(json "$text")" \
    "${hint:+,\"hint\":$(json "$hint")}${5:-}" >&2 || :
}

# fail STATUS EVENT TEXT [HINT]: the last word of this process.
fail() {
  local status=$1
  shift
  say ERROR "$@"
  exit "$status"
}

# --- children and signals ---------------------------------------------------

child='' caught='' status=0 stderr=''

# supervise CMD…: runs a command or function as a process group of its own, so
# that a signal ends all of it, and leaves its exit status in $status.
supervise() {
  set -m
  "$@" <&0 &
  child=$!
  set +m
  await_child
}

await_child() {
  status=0
  # Bash would tell of a child that died of a signal, in a form of its own.
  { wait "$child"; } 2>/dev/null || status=$?
  child=
}

on_signal() {
  caught=$1
  exec 2>&"$stderr" # it may be silenced, see await_child
  # Once is enough, and the work of clearing up must not be cut short.
  trap '' TERM HUP INT
  local try
  if [[ -n $child ]]; then
    signal_child "$caught"
    for ((try = 0; try < 20; try++)); do
      if ! kill -0 "$child" 2>/dev/null; then break; fi
      sleep 0.1
    done
    signal_child KILL
  fi
  exit 1
}

signal_child() {
  kill -s "$1" -- "-$child" 2>/dev/null || kill -s "$1" "$child" 2>/dev/null || :
}

# mortal SIGNAL CMD…: becomes CMD, which gets the signal when this script dies: whoever reads a stream must not take it
# for whole, and nothing may read a volume that is resumed. In the unit's sandbox setpriv may not run; there systemd
# ends what is left. Only for a child of its own.
mortal() {
  if setpriv --pdeathsig "$1" -- true 2>/dev/null; then
    exec setpriv --pdeathsig "$1" -- "${@:2}"
  fi
  exec "${@:2}"
}

# finish runs last, whatever happened. A run that was told to end has five
# seconds; a container that is still busy stopping may take longer.
finish() {
  status=$?
  set +e
  # Where the caller was killed, nobody reads stderr any more, and a complaint must not be the end of this.
  trap '' TERM HUP INT PIPE
  if [[ -n $caught ]]; then
    if [[ -n $own_journal && -e $own_journal ]]; then
      drop_locks
      setsid "$BASH" "$0" --state-dir "$state_dir" resume </dev/null >/dev/null &
      local helper=$! try
      for ((try = 0; try < 20; try++)); do
        if ! kill -0 "$helper" 2>/dev/null; then break; fi
        sleep 0.1
      done
      if kill -0 "$helper" 2>/dev/null; then
        say WARN still_resuming "containers of $volume are still stopping; they are started again as soon as they have"
      fi
    fi
    if [[ -n $created ]]; then query volume rm "$volume"; fi
    trap - "$caught"
    kill -s "$caught" "$$"
  elif [[ -n $own_journal && -e $own_journal ]]; then
    resume_journal "$own_journal"
  fi
  # Made for what did not come.
  if [[ -n $created ]]; then query volume rm "$volume"; fi
  exit "$status"
}

# --- docker -----------------------------------------------------------------

# query ARG…: leaves docker's answer in $answer, a line each, and returns its
# status; what it complained of is in $complaint. A daemon that hangs is given up after $patience seconds, 0 for never.
query() {
  local line code=0 lines=() patience=${patience:-60}
  answer=() complaint=
  # A signal interrupts mapfile, as it would not a command.
  mapfile -t lines < <(exec timeout --foreground --kill-after=5 "$patience" docker "$@" 2> >(exec sed -u 's/^/!/') </dev/null)
  wait "$!" || code=$?
  for line in "${lines[@]}"; do
    case $line in
      '!WARNING'*) ;;
      '!'*) complaint+=${complaint:+ }${line:1} ;;
      *) answer+=("$line") ;;
    esac
  done
  case $code in
    124 | 137) complaint="$no_answer within $patience s" ;;
  esac
  return "$code"
}

readonly no_answer='Docker gave no answer'
readonly daemon_hint='is the daemon up? try: systemctl status docker'

# unreachable: whether what docker complained of is that there is no daemon.
unreachable() {
  [[ $complaint == *'annot connect to the Docker daemon'* || $complaint == *'error during connect'* || $complaint == *'dial unix'* ]]
}

# explain WHAT: ends the run because docker did not do WHAT.
explain() {
  local text="$1: ${complaint:-$no_answer}"
  case $complaint in
    *'ermission denied while trying to connect'* | *'connect: permission denied'*)
      fail 78 docker_denied "$text" 'run as root, or as a member of the group docker'
      ;;
  esac
  if unreachable || [[ -z $complaint || $complaint == "$no_answer"* ]]; then fail 69 docker_unavailable "$text" "$daemon_hint"; fi
  fail 69 docker_failed "$text" 'the daemon knows more: journalctl -u docker'
}

need_docker() {
  command -v docker >/dev/null || fail 78 no_docker 'there is no docker on this host' 'apt-get install docker.io'
}

check_name() {
  [[ $1 =~ ^[a-zA-Z0-9][a-zA-Z0-9_.-]*$ ]] || fail 64 usage "not the name of a volume: $1" 'manage_volume.sh list prints their names'
}

# look_up VOLUME: leaves the folder of a volume in $mountpoint, or returns 1 if there is no such volume.
look_up() {
  if ! query volume inspect --format '{{json .Driver}} {{json .Mountpoint}} {{json .Options}}' "$1"; then
    if [[ ${complaint,,} == *'no such volume'* ]]; then return 1; fi
    explain "look at volume $1"
  fi
  local driver rest options
  read -r driver rest <<<"${answer[0]}"
  # A Go string in JSON; a folder with a quote or a backslash in its name is not one of Docker's own.
  [[ $rest =~ ^\"([^\"\\]*)\"\ (.*)$ ]] || fail 65 volume_refused "volume $1 has an odd mount point: $rest"
  mountpoint=${BASH_REMATCH[1]} options=${BASH_REMATCH[2]}
  if [[ $driver != '"local"' ]]; then
    fail 65 volume_refused "volume $1 is kept by the driver $driver, not on this host" "use the driver's own backup, and label the volume hub.backup=false"
  fi
  if [[ -z $mountpoint ]]; then
    fail 65 volume_refused "volume $1 has no mount point" 'label it hub.backup=false'
  fi
  if [[ $options =~ \"(device|type|o)\": && ! $options =~ ^\{\"o\":\"size=[^,\"]*\"\}$ ]]; then
    # Its folder is empty whenever no container runs.
    fail 65 volume_refused "volume $1 is a mount of something else: $options" 'back up what it mounts, and label the volume hub.backup=false'
  fi
  local host=${DOCKER_HOST:-}
  if [[ -z $host ]] && query context inspect --format '{{.Endpoints.docker.Host}}'; then host=${answer[0]}; fi
  if [[ -n $host && $host != unix://* && ! $host =~ ^tcp://(localhost|127\.[0-9.]+|\[::1\])(:|$) ]]; then
    fail 78 remote_docker "the Docker daemon is on another host, and so is the volume: ${host##*@}" 'run this on that host, by ssh'
  fi
}

# resolve VOLUME: the same for a volume that must be there, whose folder this user must be able to enter.
resolve() {
  need_docker
  look_up "$1" || fail 65 no_such_volume "no such volume: $1" 'manage_volume.sh list prints those that are there'
  see_folder
}

see_folder() {
  if [[ ! -d $mountpoint && ! -d ${mountpoint%/*} || ! -x ${mountpoint%/*} || ! -r ${mountpoint%/*} ]]; then
    fail 78 volume_unreadable "cannot enter $mountpoint as $(id -un)" 'run as root, or with the capability CAP_DAC_READ_SEARCH, which volume-backup.service has'
  fi
}

# --- locks ------------------------------------------------------------------

# lock_volume: one run at a time on a volume, whichever user and state directory it has.
lock_volume() {
  local fd
  exec {fd}<"${mountpoint%/*}"
  # Long enough for a run that only looks whether the lock is held.
  flock -w 2 "$fd" || fail 75 locked "another run works on volume $volume" 'wait for it to end'
  volume_locks+=("$fd")
  our_locks+=("${mountpoint%/*}")
}

# drop_locks: closes this process's descriptors of the locks. Another process of the run may hold them still.
drop_locks() {
  local fd
  for fd in "${volume_locks[@]}"; do exec {fd}<&-; done
}

# is_ours PATH: whether this process holds the lock on PATH.
is_ours() {
  local path
  for path in "${our_locks[@]}"; do
    if [[ $path == "$1" ]]; then return 0; fi
  done
  return 1
}

# held JOURNAL: whether the run that wrote the journal is alive. A living run holds its locks, so a journal whose lock
# this process holds belongs to this run or to a dead one, in whatever state directory it lies.
held() {
  local path fd taken=0 paths
  mapfile -t paths < <(sed -n 's/^lock //p' "$1")
  for path in "${paths[@]}"; do
    if is_ours "$path"; then return 1; fi
  done
  for path in "${paths[@]}"; do
    if [[ ! -d $path ]]; then continue; fi
    { exec {fd}<"$path"; } 2>/dev/null || return 0
    flock -s -n "$fd" || taken=1
    exec {fd}<&-
    if ((taken)); then return 0; fi
  done
  return 1
}

# lock_claims: while it is held, nobody else decides what to stop or to start.
lock_claims() {
  exec {mutex}<"$journals"
  flock "$mutex"
}

unlock_claims() {
  exec {mutex}<&-
}

# --- the journal ------------------------------------------------------------

volume='' mountpoint='' state_dir='' journals='' own_journal='' mutex='' volume_locks=() our_locks=()

# open_state: sets $state_dir and $journals. By hand, root uses the directory of the unit, which resumes at each boot.
open_state() {
  local given=${STATE_DIRECTORY:-}
  state_dir=${state_dir:-${given%%:*}}
  if [[ -z $state_dir && $EUID == 0 && -d $unit_state ]]; then state_dir=$unit_state; fi
  if [[ -z $state_dir ]]; then
    state_dir=$(user_state) || fail 78 no_state_directory 'no state directory: HOME is not set' 'give --state-dir'
  fi
  journals=$state_dir/quiesced
  if ! (umask 077 && mkdir -p "$journals" && { ((EUID)) || chown --reference="$state_dir" "$journals"; }) 2>/dev/null || [[ ! -w $journals ]]; then
    fail 73 state_unwritable "cannot write to $journals" 'name a directory that this user can write to with --state-dir'
  fi
}
readonly unit_state=/var/lib/$service

# user_state: prints the state directory of a run by hand.
user_state() {
  [[ -n ${XDG_STATE_HOME:-${HOME:-}} ]] && echo "${XDG_STATE_HOME:-$HOME/.local/state}/$service"
}

# all_journals: those of this state directory, of the unit, and of earlier runs of this user by hand.
all_journals() {
  local dir seen=()
  for dir in "$state_dir" "$unit_state" "$(user_state)"; do
    dir=$(realpath --quiet -- "$dir/quiesced") || continue
    case " ${seen[*]} " in *" $dir "*) continue ;; esac
    seen+=("$dir")
    compgen -G "$dir/[a-zA-Z0-9]*" || :
  done
}

# record LINE…: writes this run's journal to disk before anything in it is done. The caller holds the claims. Containers
# that an earlier run of this volume has left down stay in it.
record() {
  local temporary=$journals/.new # the claims are held; a volume's name may be as long as a file's
  if ! { { printf '%s\n' "owner $$" "at ${EPOCHREALTIME/,/.}" "${our_locks[@]/#/lock }" "$@" && unfinished "$@"; } >"$temporary" \
    && { ((EUID)) || chown --reference="$journals" "$temporary"; } \
    && sync "$temporary" && mv -T "$temporary" "$journals/$volume" && sync "$journals"; } 2>/dev/null; then
    rm -f "$temporary"
    fail 73 state_unwritable "cannot write the journal to $journals" 'make room there; nothing has been stopped'
  fi
}

# unfinished LINE…: prints the containers of the journal that is there, except those of the lines.
unfinished() {
  local verb id rest
  if [[ ! -e $journals/$volume ]]; then return; fi
  while read -r verb id rest; do
    if [[ $verb == stop || $verb == pause ]] && [[ " $* " != *" $id "* ]]; then echo "$verb $id $rest"; fi
  done <"$journals/$volume"
}

# claimed ID: whether another run, which is alive, has the container stopped or paused. Its journal lists the container,
# and it starts the container when it ends.
claimed() {
  local file
  while read -r file; do
    if grep -q " $1 " "$file" 2>/dev/null && held "$file"; then return 0; fi
  done < <(all_journals)
  return 1
}

# --- quiescing --------------------------------------------------------------

# users: leaves the containers of the volume in $answer, newest first, a line each.
users() {
  local try
  for try in 1 2 3; do
    query ps --all --quiet --no-trunc "${filters[@]}" || explain "look for the containers of $volume"
    if ((${#answer[@]} == 0)); then return; fi
    # One may be removed just now.
    if query inspect --type container --format "$container_format" "${answer[@]}"; then return; fi
  done
  explain "look at the containers of $volume"
}
# shellcheck disable=SC2016 # a Go template
readonly container_format='{{.Id}} {{.Name}} {{.State.Running}} {{.State.Paused}} {{.HostConfig.AutoRemove}}
{{- if index .Config.Labels "com.docker.swarm.task.id"}} swarm{{else}} -{{end}}
{{- with index .Config "StopTimeout"}} {{.}}{{else}} 10{{end}}
{{- if index .Config.Labels "hub.backup.exec"}} exec{{else}} -{{end}}
{{- with index .Config.Labels "hub.backup.quiesce"}} {{.}}{{else}} stop{{end}}'

# run_hooks: hub.backup.exec of every running container.
run_hooks() {
  local line id name running paused remove swarm grace hook mode output code hooks=()
  users
  for line in "${answer[@]}"; do
    read -r id name running paused remove swarm grace hook mode <<<"$line"
    case $mode in
      stop | pause | none) ;;
      *) fail 78 bad_label "container ${name#/} has the label hub.backup.quiesce=$mode" 'it can be stop, pause or none' ;;
    esac
    if [[ $hook == exec && $paused == false ]]; then
      if [[ $running == true ]]; then hooks+=("$id ${name#/}"); elif claimed "$id"; then
        fail 75 locked "container ${name#/} is stopped by another run, and its hub.backup.exec cannot run" 'wait for that run to end'
      fi
    fi
  done
  for line in "${hooks[@]}"; do
    read -r id name <<<"$line"
    # Behind a dot each: a line that begins with ! would count as a complaint of docker's.
    query inspect --type container --format '{{range split (index .Config.Labels "hub.backup.exec") "\n"}}.{{println .}}{{end}}' "$id" \
      || explain "look at container $name"
    code=0
    output=$(docker exec "$id" sh -c "$(printf '%s\n' "${answer[@]#.}")" 2>&1 </dev/null | tail -c 2000) || code=$?
    if ((code)); then
      fail 69 exec_failed "hub.backup.exec of container $name ended with status $code: $output" 'nothing was stopped, and nothing is exported'
    fi
  done
}

# quiesce: brings the volume to rest: hooks, then the journal, then the containers. With "replace", files are
# about to go that even a paused container has open, so everything must stop.
quiesce() {
  local purpose=${1:-read} line id name running paused remove swarm grace hook mode entries=() stops=() pauses=() longest=0
  if [[ $purpose == read ]]; then run_hooks; fi
  lock_claims
  users
  for line in "${answer[@]}"; do
    read -r id name running paused remove swarm grace hook mode <<<"$line"
    name=${name#/}
    if [[ $purpose == replace ]]; then
      if [[ $running == true && ($paused == true || $remove == true || $swarm == swarm) ]] || claimed "$id"; then
        fail 75 in_use "container $name uses volume $volume and cannot be stopped for a while" 'stop it yourself: it is paused, a --rm container, a swarm task, or part of another run'
      fi
      mode=stop
    fi
    if [[ $mode == none ]]; then continue; fi
    if [[ $running == false || $paused == true ]]; then
      # Down already, by somebody's will; or by a run on another volume, and then we need it down as well.
      if ! claimed "$id"; then continue; fi
      if [[ $paused == true ]]; then mode=pause; fi
    elif [[ $mode == stop && ($remove == true || $swarm == swarm) ]]; then
      # Stopped, it would be removed, or replaced by another.
      say WARN pause_instead "container $name would not survive a stop; it is paused instead"
      mode=pause
    fi
    # The oldest first: what was made before the others is what they need.
    entries=("$mode $id $name $grace" "${entries[@]}")
    if [[ $mode == pause ]]; then
      pauses+=("$id")
      continue
    fi
    stops+=("$id")
    # Without a time limit, -1, it may take for ever.
    if ((grace < 0 || longest < 0)); then longest=-60; elif ((grace > longest)); then longest=$grace; fi
  done
  if ((${#entries[@]} == 0)) && [[ $purpose == read ]]; then
    unlock_claims
    return
  fi
  if [[ $purpose == replace ]]; then entries=("import $mountpoint" "${entries[@]}"); fi
  record "${entries[@]}"
  unlock_claims
  # An orphan of a killed run must not stop what has just been resumed.
  kill -0 "$$" 2>/dev/null || exit 1
  if ((${#stops[@]})); then
    bring_down "$longest"
    tell_killed "${stops[@]}"
  fi
  for id in "${pauses[@]}"; do
    query pause "$id" || [[ $complaint == *'already paused'* ]] || gone_or_fail "$id"
  done
}

# bring_down SECONDS: stops the containers of $stops. Those that depend on others, by the labels of compose, stop first.
bring_down() {
  local id ranks=()
  in_order stops
  for id in "${ordered[@]}"; do
    if ((${#ranks[@]})) && [[ ${rank[$id]} != "${rank[${ranks[0]}]}" ]]; then
      patience=$(($1 + 60)) query stop "${ranks[@]}" || gone_or_fail "${ranks[@]}"
      ranks=()
    fi
    ranks+=("$id")
  done
  patience=$(($1 + 60)) query stop "${ranks[@]}" || gone_or_fail "${ranks[@]}"
}

# in_order ARRAY: leaves the ids of the array in $ordered, those that depend on others first, and their depth in $rank:
# 0 for what nothing depends on. com.docker.compose.depends_on is "db:service_healthy:false,cache:service_started:true".
in_order() {
  local -n ids=$1
  local line id project part depends other round changed=yes
  local -A projects=() services=() needs=()
  rank=() ordered=() healthy=() answer=()
  for id in "${ids[@]}"; do rank[$id]=0; done
  # The labels of a single container order nothing.
  if ((${#ids[@]} > 1)) && ! query inspect --type container --format "$compose_format" "${ids[@]}" && [[ $complaint == "$no_answer"* ]]; then
    absences=0 absence=$complaint
  fi
  for line in "${answer[@]}"; do
    read -r id project part depends <<<"$line"
    if [[ -z $id || -z ${rank[$id]:-} ]]; then continue; fi
    projects[$id]=$project services[$id]=$part needs[$id]=",$depends"
  done
  # A cycle ends after as many rounds as there are containers.
  for ((round = 0; round < ${#ids[@]}; round++)); do
    if [[ -z $changed ]]; then break; fi
    changed=
    for id in "${!needs[@]}"; do
      for other in "${!needs[@]}"; do
        if [[ ${projects[$id]} == - || ${projects[$id]} != "${projects[$other]}" || ${needs[$id]} != *",${services[$other]}:"* ]]; then continue; fi
        if [[ ${needs[$id]} == *",${services[$other]}:service_healthy"* ]]; then healthy[$other]=yes; fi
        if ((rank[$other] <= rank[$id] && rank[$id] < ${#ids[@]})); then
          rank[$other]=$((rank[$id] + 1))
          changed=yes
        fi
      done
    done
  done
  mapfile -t ordered < <(for id in "${ids[@]}"; do echo "${rank[$id]} $id"; done | sort -s -n -k 1,1 | cut -d ' ' -f 2)
}
# shellcheck disable=SC2016 # a Go template
readonly compose_format='{{.Id}} {{with index .Config.Labels "com.docker.compose.project"}}{{.}}{{else}}-{{end}}
{{- with index .Config.Labels "com.docker.compose.service"}} {{.}}{{else}} -{{end}} {{index .Config.Labels "com.docker.compose.depends_on"}}'
# Containers in the order in which they stop; how deep each is; those whose health others wait for.
declare -A rank=() healthy=()
ordered=()

# tell_killed ID…: tells of each container that Docker had to kill, because it did not stop in its time: what it had not
# written yet is not in the volume. Sets $killed.
tell_killed() {
  local line id name code mounts each
  query inspect --type container --format '{{.Id}} {{.Name}} {{.State.ExitCode}}{{range .Mounts}}{{if eq .Type "volume"}} {{.Name}}{{end}}{{end}}' "$@" || [[ ${complaint,,} == *'no such'* ]] \
    || explain "look at the containers of $volume"
  for line in "${answer[@]}"; do
    read -r id name code mounts <<<"$line"
    # 128 + SIGKILL; also if the kernel killed it for want of memory.
    if [[ $code != 137 ]]; then continue; fi
    killed=11
    for each in "${!mountpoints[@]}"; do
      if [[ " $mounts " == *" $each "* ]]; then say_killed "$each" "${name#/}"; fi
    done
  done
}

# 11 if a container of the volume was killed at its stop timeout.
killed=0

# say_killed VOLUME CONTAINER
say_killed() {
  say WARN container_killed "container $2 did not stop in time and was killed; what it had not written is not in volume $1" \
    'give it more time: docker run --stop-timeout, or stop_grace_period in compose' ",\"volume\":$(json "$1"),\"container\":$(json "$2")"
}

# gone_or_fail ID…: after docker refused to stop: fine if they do not run any more, and docker says so.
gone_or_fail() {
  local said=$complaint id
  for id in "$@"; do
    if query inspect --type container --format '{{.State.Running}} {{.State.Paused}}' "$id"; then
      if [[ ${answer[0]} != 'true false' ]]; then continue; fi
    elif [[ ${complaint,,} == *'no such'* ]]; then
      continue
    fi
    complaint=$said
    explain "bring the containers of $volume to rest"
  done
}

# disturbed: whether something may have been writing although all was brought to rest, or was not given the time to end
# well. A daemon that was away meanwhile has its own mind about what to start.
disturbed() {
  local line id name state what found=1
  if ((killed)); then found=0; fi
  query ps --all --no-trunc "${filters[@]}" \
    --format '{{.ID}} {{.Names}} {{.State}} {{.Label "hub.backup.quiesce"}} {{.Status}}' || {
    say WARN cannot_tell "nobody can tell whether a container wrote to volume $volume while it was read: ${complaint:-$no_answer}"
    return
  }
  for line in "${answer[@]}"; do
    read -r id name state what <<<"$line"
    if [[ $state == running && $what != none* ]]; then
      say WARN started_meanwhile "container $name ran while volume $volume was read"
      found=0
    fi
  done
  return "$found"
}

# --- resuming ---------------------------------------------------------------

# resume_journal FILE: undoes what the journal tells, and removes it. Whoever calls it holds the volume's lock, or
# there is no volume any more.
resume_journal() {
  local file=$1 verb rest id name grace health at=0 swapped='' left=()
  [[ -e $file ]] || return 0
  lock_claims
  in_start_order "$file"
  while read -r verb rest; do
    case $verb in
      at) at=$rest ;;
      import)
        swapped=$rest
        if ! undo_swap "$rest"; then left+=("$verb $rest"); fi
        ;;
      stop | pause)
        read -r id name grace health <<<"$rest"
        if ((${#left[@]})) && [[ ${left[0]} == import* ]]; then
          left+=("$verb $rest")
        elif claimed "$id"; then
          continue # the other run starts it
        elif ! revive "$verb" "$id" "$name" "${grace:-10}" "$at"; then
          left+=("$verb $rest")
        elif [[ $health == yes ]]; then
          await_health "$id" "$name"
        fi
        ;;
    esac
  done < <(printf '%s\n' "${journal_lines[@]}")
  unlock_claims
  # The journal stays whole: what runs by then is no work for the next attempt.
  if ((${#left[@]})); then return 69; fi
  # By now the containers run.
  if [[ -n $swapped ]]; then rm -rf --one-file-system "${swapped%/*}/${staging_name:?}" || return 73; fi
  rm -f "$file" && sync "${file%/*}" || return 73
}

# in_start_order JOURNAL: leaves the journal in $journal_lines, its containers in the order in which they start.
in_start_order() {
  local verb id rest downs=()
  local -A lines=()
  journal_lines=()
  while read -r verb id rest; do
    case $verb in
      stop | pause)
        downs+=("$id")
        lines[$id]="$verb $id $rest"
        ;;
      *) journal_lines+=("$verb $id $rest") ;;
    esac
  done <"$1"
  if ((${#downs[@]} == 0)); then return; fi
  in_order downs
  local i
  for ((i = ${#ordered[@]} - 1; i >= 0; i--)); do
    id=${ordered[i]}
    # Only where something is to be started later.
    journal_lines+=("${lines[$id]} ${healthy[$id]:-no}")
  done
}

# await_health ID NAME: waits until a container is healthy whose dependants ask for that, at most a minute.
await_health() {
  local try
  for ((try = 0; try < 120; try++)); do
    query inspect --type container --format '{{with index .State "Health"}}{{.Status}}{{else}}none{{end}}' "$1" || return 0
    if [[ ${answer[0]} != starting && ${answer[0]} != unhealthy ]]; then return; fi
    pause_claims 0.5
  done
  say WARN not_healthy "container $2 is not healthy after a minute; what depends on it is started all the same" "see docker logs $2"
}

# undo_swap MOUNTPOINT: after an import that was killed, the volume is the old one again, or the new one if it had come
# that far.
undo_swap() {
  local folder=${1%/*} staging=${1%/*}/$staging_name
  if [[ ! -d $staging || ! -d $staging/old ]]; then return 0; fi
  if [[ ! -e $1 ]]; then
    if ! mv -T "$staging/old" "$1" || ! sync "$folder"; then
      say ERROR import_interrupted "volume ${folder##*/} is in $staging/old" 'run manage_volume.sh resume as root'
      return 1
    fi
  elif [[ -d $staging/new ]]; then
    say ERROR import_interrupted "an import was interrupted, and somebody has made $1 meanwhile; the volume is in $staging/old" \
      "decide which one it shall be, and remove $staging"
    return 1
  fi
}
readonly staging_name=.hub-import

# revive VERB ID NAME GRACE AT: makes one container run again, and returns 0 only if it was seen running, has ended well
# after the start, or is gone. A daemon that is being restarted is waited for; one that hangs, or stays away, is not
# asked again.
revive() {
  local verb=$1 id=$2 name=$3 grace=$4 at=$5 attempts=4 started=
  while ((attempts > 0 && absences > 0)); do
    if ! query inspect --type container --format '{{.State.Running}} {{.State.Paused}} {{.State.Restarting}} {{.State.ExitCode}}' "$id"; then
      if [[ ${complaint,,} == *'no such'* ]]; then
        say WARN container_gone "container $name was removed while it was to be started again"
        return 0
      fi
      if [[ $complaint == "$no_answer"* ]]; then
        absences=0
      elif unreachable; then
        absences=$((absences - 1))
        pause_claims 1
        if claimed "$id"; then return 0; fi
      else
        attempts=$((attempts - 1))
      fi
      absence=$complaint
      continue
    fi
    case $started:$verb:${answer[0]} in
      *:stop:'true false false '*)
        if ! stopping "$id" "$grace" "$at"; then return 0; fi
        if ((grace < 0 && EPOCHSECONDS > ${at%.*} + 60)); then
          complaint='Docker is still stopping it, without a time limit'
          break
        fi
        pause_claims 0.1
        if claimed "$id"; then return 0; fi
        continue
        ;;
      *:pause:'true false false '*)
        # A client that was killed may have had the last word with the daemon.
        if [[ -n $at_rest ]] || ((EPOCHSECONDS > ${at%.*} + 3)); then return 0; fi
        sleep 0.1
        continue
        ;;
      *:'true true '*) if query unpause "$id"; then continue; fi ;;
      # Its restart policy starts it again.
      *:'true false true '*) return 0 ;;
      # A job that has done its work.
      started:*:'false false false 0') return 0 ;;
      *) if query start "$id"; then started=started; fi ;;
    esac
    if [[ -n $started && -z $complaint ]]; then complaint='it ends as soon as it is started'; fi
    attempts=$((attempts - 1))
    sleep 0.2
  done
  local hint="see docker logs $name"
  if ((absences == 0)); then complaint=$absence hint=$daemon_hint; fi
  say ERROR not_resumed "container $name does not start again: $complaint" "$hint; then run: manage_volume.sh resume"
  return 1
}
# How often, a second apart, a daemon that is away is waited for, by all containers together; the unit's TimeoutStopSec=
# is longer. What it was that was waited for.
absences=90 absence=

# pause_claims SECONDS: waits, and lets others decide meanwhile.
pause_claims() {
  unlock_claims
  sleep "$1"
  lock_claims
}

# Set when Docker has done all that it was asked to: nothing is under way any more.
at_rest=

# stopping ID GRACE AT: whether the daemon may still be about to stop a container that runs. It goes on with what it was
# asked to do when whoever asked is dead, and `start` does nothing while the container runs.
stopping() {
  local id=$1 grace=$2 at=$3
  if [[ -n $at_rest ]] || ((grace >= 0 && EPOCHSECONDS > ${at%.*} + grace + 5)); then return 1; fi
  query events --since "$at" --until "${EPOCHREALTIME/,/.}" --filter "container=$id" --filter event=kill --filter event=start \
    --format '{{.Action}}' || return 0
  # What a client that was killed has sent may take the daemon a moment to read.
  [[ ${answer[*]: -1} == kill ]] || ((EPOCHSECONDS <= ${at%.*} + 3))
}

# lives PID: whether a process is there and stays. One that has just been killed can still be signalled.
lives() {
  local try
  for try in 1 2 3; do
    if ! kill -0 "$1" 2>/dev/null || [[ $(cat "/proc/$1/stat" 2>/dev/null) == *') Z '* ]]; then return 1; fi
    sleep 0.2
  done
}

# take_over JOURNAL: locks the volumes of a dead run, and adds to $fds and $our_locks. Returns 10 if the run is alive.
take_over() {
  local path fd owner paths
  mapfile -t paths < <(sed -n 's/^lock //p' "$1")
  for path in "${paths[@]}"; do
    if [[ ! -d $path ]] || is_ours "$path"; then continue; fi
    if ! { exec {fd}<"$path"; } 2>/dev/null; then
      say ERROR not_resumed "cannot enter $path as $(id -un), where ${1##*/} was left stopped" 'run manage_volume.sh resume as root'
      return 78
    fi
    fds+=("$fd")
    if ! flock -n "$fd"; then
      owner=$(sed -n 's/^owner //p' "$1") || return 10
      # It has started us to do this; or it is alive; or it is dead, and a child of it has yet to end.
      if [[ $owner != "$PPID" ]] && lives "$owner"; then return 10; fi
      if ! flock -w 60 "$fd"; then
        say ERROR not_resumed "volume ${1##*/} is still held by what a dead run has started" 'see fuser -v '"$path"
        return 75
      fi
    fi
    our_locks+=("$path")
  done
}

# resume_stale: resumes what dead runs have left, and returns 69 if something stays down.
resume_stale() {
  local file worst=0 path fd fds kept at_rest='' our_locks=("${our_locks[@]}")
  lock_claims
  rm -f "$journals"/.[a-zA-Z0-9]*
  unlock_claims
  while read -r file <&3; do
    if [[ ! -r $file ]]; then
      if [[ ! -e $file ]]; then continue; fi
      say ERROR not_resumed "cannot read the journal $file as $(id -un)" 'run manage_volume.sh resume as root'
      worst=78
      continue
    fi
    fds=() kept=${#our_locks[@]}
    if take_over "$file"; then resume_journal "$file" || worst=$?; else
      path=$?
      if ((path != 10)); then worst=$path; fi
    fi
    for fd in "${fds[@]}"; do exec {fd}<&-; done
    our_locks=("${our_locks[@]:0:kept}")
  done 3< <(all_journals)
  return "$worst"
}

# --- reading ----------------------------------------------------------------

# begin VOLUME: a volume that is there, ours alone, and as whole as it was before whoever died at work on it.
begin() {
  local name
  for name in "$@"; do check_name "$name"; done
  # Sorted, so that two runs on the same volumes do not wait for each other.
  while read -r name; do
    volume=$name
    resolve "$name"
    lock_volume
    mountpoints[$name]=$mountpoint
    filters+=(--filter "volume=$name")
  done < <(printf '%s\n' "$@" | sort -u)
  open_state
  resume_stale || :
  volume=$1 mountpoint=${mountpoints[$1]}
  own_journal=$journals/$volume
  for name in "${!mountpoints[@]}"; do
    mountpoint=${mountpoints[$name]}
    [[ ! -e ${mountpoint%/*}/$staging_name/old || -e $mountpoint ]] \
      || fail 78 import_interrupted "an import of volume $name was interrupted" 'run manage_volume.sh resume as root'
    [[ -r $mountpoint && -x $mountpoint ]] \
      || fail 78 volume_unreadable "cannot read $mountpoint as $(id -un)" 'run as root, or with the capability CAP_DAC_READ_SEARCH, which volume-backup.service has'
  done
  mountpoint=${mountpoints[$1]}
}
# The mount points of all volumes of this run, and docker's filters for their containers.
declare -A mountpoints=()
filters=()

# relay [strict]: passes on what tar says, and returns the status that it comes to. On extraction nothing is harmless.
relay() {
  local line worst=0 shown=0
  # It ends only after all who might tell something, among them who resumes the volume, and needs its lock.
  drop_locks
  while IFS= read -r line; do
    line=${line#tar: }
    case $line in
      *': socket ignored')
        say DEBUG tar_message "volume $volume: $line"
        continue
        ;;
      'Exiting with failure status'* | *'Error is not recoverable'*) continue ;;
      *'No space left on device'* | *'Disk quota exceeded'* | *'Wrote only '*) worst=73 ;;
      *'Permission denied'* | *'Operation not permitted'*) if ((worst != 73)); then worst=78; fi ;;
      *) if [[ ${1:-} == strict ]] && ((worst == 0)); then worst=65; fi ;;
    esac
    shown=$((shown + 1))
    if ((shown <= 20)); then say WARN tar_message "volume $volume: $line"; fi
  done
  if ((shown > 20)); then say WARN tar_message "volume $volume: and $((shown - 20)) more messages"; fi
  return "$worst"
}

# read_out: the volume as tar on stdout. Leaves tar's 0 or 1 in $status, or one of ours.
read_out() {
  local errors listener said=0
  exec {errors}> >(relay)
  listener=$!
  supervise tar_out
  exec {errors}>&-
  wait "$listener" || said=$?
  case $status:$said in
    2:73) fail 73 output_failed 'the stream cannot be written' 'make room where it goes' ;;
    2:78) fail 78 volume_unreadable "not all of volume $volume can be read as $(id -un)" 'run as root, or with the capability CAP_DAC_READ_SEARCH, which volume-backup.service has' ;;
    2:*) fail 69 read_failed "tar cannot read volume $volume" ;;
  esac
}

tar_out() {
  LC_ALL=C mortal KILL "${tar_create[@]}" --directory="$mountpoint" . 2>&"$errors"
}

# tell_tree: writes the digest of the volume's metadata to descriptor 3, and returns 10 if it is $UNLESS_TREE: then no
# file has changed since, whatever its length and times of modification say, as nobody can set the time of an inode's
# change. One that changed just now may change again within the same tick of the clock: its digest is like no other.
# Only where all containers are stopped, as a page that a paused one has mapped changes without a trace, and on file
# systems that are known to keep that time also for mapped files. Otherwise there is no digest.
tell_tree() {
  local sum
  if ((killed)); then return; fi
  query ps --quiet "${filters[@]}" --filter status=running --filter status=paused --filter status=restarting || return 0
  if ((${#answer[@]})); then return; fi
  case $(stat -f -c %T "$mountpoint") in
    ext2/ext3 | xfs | btrfs) ;;
    *) return ;;
  esac
  sum=$(
    {
      printf '%s\0' "${tar_create[@]}"
      mortal KILL find "$mountpoint" -newerct "@$((EPOCHSECONDS - 1))" -printf "$EPOCHREALTIME\\0" -o \
        -printf '%P\0%D %i %y %m %U %G %n %s %T@ %C@ %l\0'
    } | sha256sum
  ) 2>/dev/null || return 0
  sum=${sum%% *}
  { printf '%s\n' "$sum" >&3; } 2>/dev/null || return 0
  if [[ $sum == "$UNLESS_TREE" ]]; then return 10; fi
}

# bring_to_rest: quiesces the volume for a reader, and sets $killed and $at_rest.
bring_to_rest() {
  supervise quiesce_and_tell
  case $status in
    0) ;;
    11) killed=11 ;;
    *) exit "$status" ;;
  esac
  at_rest=yes
}

# quiesce_and_tell: runs quiesce in a process of its own; the exit status carries $killed.
quiesce_and_tell() {
  quiesce
  return "$killed"
}

export_volume() {
  [[ ! -t 1 ]] || fail 64 usage 'a tar stream is nothing for a terminal' 'send it to a file or a pipe'
  begin "$1"
  bring_to_rest
  if [[ -n ${UNLESS_TREE:-} ]]; then
    supervise tell_tree
    if ((status == 10)); then exit 0; fi
  fi
  read_out
  if ((status == 0)) && disturbed; then status=1; fi
  exit "$status"
}

# with_volumes VOLUME… -- CMD…
with_volumes() {
  local names=() variables=() name
  while [[ $1 != -- ]]; do
    names+=("$1")
    shift
  done
  shift
  begin "${names[@]}"
  for name in "${names[@]}"; do variables+=("VOLUME_PATH_$((${#variables[@]} + 1))=${mountpoints[$name]}"); done
  bring_to_rest
  # Not a process group of its own: the command may talk to the terminal. Without one, bash makes it deaf to Ctrl-C.
  run_command "VOLUME_PATH=$mountpoint" "${variables[@]}" "$@" <&0 &
  child=$!
  await_child
  disturbed || :
  exit "$status"
}

run_command() {
  drop_locks
  mortal TERM env --default-signal=INT,QUIT "$@"
}

# --- writing ----------------------------------------------------------------

# import_volume [--stop] VOLUME: the new tree grows beside the old one, in the volume's own folder, which the daemon
# does not look into. Two renames make it the volume; until the second one undo_swap brings the old one back.
import_volume() {
  may_stop=
  if [[ $1 == --stop ]]; then
    may_stop=yes
    shift
  fi
  [[ ! -t 0 ]] || fail 64 usage 'import reads a tar stream from stdin' 'manage_volume.sh import VOLUME <FILE'
  ((EUID == 0)) || fail 78 not_root 'only root can give files back their owners' 'sudo manage_volume.sh import …'
  volume=$1
  check_name "$volume"
  filters=(--filter "volume=$volume")
  need_docker
  if ! look_up "$volume"; then
    query volume create "$volume" || explain "create volume $volume"
    created=yes
    look_up "$volume" || explain "create volume $volume"
  fi
  see_folder
  mountpoints[$volume]=$mountpoint
  open_state
  lock_volume
  resume_stale || fail 75 import_interrupted 'what an earlier run has left cannot be put right' 'see the messages above'
  if [[ ! -d $mountpoint || -L $mountpoint || $(stat -c %d "$mountpoint") != "$(stat -c %d "${mountpoint%/*}")" ]]; then
    fail 65 volume_refused "the folder $mountpoint is a link or a mount; it cannot be exchanged"
  fi
  no_mounts_inside
  in_use
  own_journal=$journals/$volume
  lock_claims
  record "import $mountpoint"
  unlock_claims
  staging=${mountpoint%/*}/$staging_name
  rm -rf --one-file-system "$staging"
  mkdir -m 700 "$staging" || fail 73 output_failed "cannot write to ${mountpoint%/*}"
  supervise unpack
  if ((status)); then exit "$status"; fi
  supervise replace
  if ((status)); then exit "$status"; fi
  at_rest=yes
  created=
  local identical
  identical=$(<"$staging/identical")
  printf '%s,"volume":%s,"identical":%s}\n' "$(envelope INFO imported)" "$(json "$volume")" "$identical" 2>/dev/null \
    || fail 73 output_failed 'cannot write the record'
}
created='' may_stop='' staging=''

# in_use: refuses early what replace would refuse after all the work.
in_use() {
  local id name running rest
  users
  for line in "${answer[@]}"; do
    read -r id name running rest <<<"$line"
    if [[ $running == true && -z $may_stop ]]; then
      fail 75 in_use "container ${name#/} uses volume $volume" 'stop it, or give --stop'
    fi
  done
}

# no_mounts_inside: refuses a volume in which something else is mounted. It would move away with the old tree, and be
# emptied with it.
no_mounts_inside() {
  local escaped=$mountpoint field
  # As mountinfo writes it, proc(5).
  escaped=${escaped//\\/\\134}
  escaped=${escaped// /\\040}
  while read -r _ _ _ _ field _; do
    if [[ $field == "$escaped"/* ]]; then
      fail 65 volume_refused "something is mounted inside volume $volume: $field" 'unmount it; only a volume of files alone can be exchanged'
    fi
  done </proc/self/mountinfo
}

# unpack: stdin becomes $staging/new, and is proved to be there.
unpack() {
  local errors listener sum summer said=0 codes new=$staging/new
  mkdir -m 700 "$new"
  # An archive need not have an entry for its root.
  chown --reference="$mountpoint" "$new"
  chmod --reference="$mountpoint" "$new"
  exec {errors}> >(relay strict)
  listener=$!
  exec {sum}> >(drop_locks && exec b2sum >"$staging/sum" 2>/dev/null)
  summer=$!
  set +e
  tee "/dev/fd/$sum" \
    | LC_ALL=C "${tar_extract[@]}" --warning=no-timestamp -vv --directory="$new" 2>&"$errors" \
    | LC_ALL=C awk '
      $3 == "**" { if ($4 == "Block") zeros++; next }
      zeros { behind = 1 }
      $3 !~ /^[dV]/ { entries++ }
      $3 ~ /^-/ { bytes += $5 }
      END { printf "%d %.0f\n", entries, bytes; exit behind ? 3 : zeros < 2 }' >"$staging/entries" 2>/dev/null
  codes=("${PIPESTATUS[@]}")
  set -e
  exec {errors}>&- {sum}>&-
  wait "$listener" || said=$?
  wait "$summer" || codes[0]=$?
  if ((said == 73)); then
    fail 73 output_failed "no room for the new volume beside the old one" "make room on that file system; volume $volume is as it was"
  fi
  if ((codes[1] || said)); then
    fail 65 import_refused 'tar cannot unpack the stream' "volume $volume is as it was"
  fi
  if ((codes[0])); then fail 73 output_failed "cannot write to $staging"; fi
  if ((codes[2] == 3)); then
    fail 65 import_refused 'the stream goes on after its end-of-archive mark' "volume $volume is as it was; import one archive at a time"
  fi
  if ((codes[2])); then
    fail 65 import_refused 'the stream ends early: it has no end-of-archive mark' "volume $volume is as it was"
  fi
  compare "$new"
  sync -f "$new"
}

# compare FOLDER: what has been unpacked against the stream: the same number of entries and bytes; and the bytes
# themselves, if the stream is what we would write of this folder.
compare() {
  local unpacked again
  unpacked=$(find "$1" ! -type d -printf '%y %D:%i %s\n' | LC_ALL=C awk '
    { entries++ }
    $1 == "f" && !seen[$2]++ { bytes += $3 }
    END { printf "%d %.0f\n", entries, bytes }')
  if [[ $unpacked != "$(<"$staging/entries")" ]]; then
    fail 65 import_refused "unpacked (entries, bytes): $unpacked; in the stream: $(<"$staging/entries")" \
      "volume $volume is as it was; a stream that has a name twice, as tar -r makes, cannot be compared: unpack it elsewhere, and import what tar makes of that"
  fi
  again=$(LC_ALL=C "${tar_create[@]}" --directory="$1" . 2>/dev/null | b2sum)
  if [[ $again == "$(<"$staging/sum")" ]]; then echo true; else echo false; fi >"$staging/identical"
}

replace() {
  quiesce replace
  mv -T "$mountpoint" "$staging/old"
  mv -T "$staging/new" "$mountpoint"
  sync "${mountpoint%/*}"
}

# --- the other commands -----------------------------------------------------

list_volumes() {
  # Bytes are counted, not characters.
  local LC_ALL=C all='' line names=() users tab=$'\t' record labels
  if [[ ${1:-} == --all ]]; then
    all=yes
    shift
  fi
  (($# == 0)) || fail 64 usage "list takes no argument: $1" 'manage_volume.sh --help'
  need_docker
  # Read once, for all volumes.
  declare -A users=()
  query ps --quiet --no-trunc || explain 'list containers'
  if ((${#answer[@]})); then
    # shellcheck disable=SC2016 # a Go template
    query inspect --type container --format \
      '{{$name := .Name}}{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}} {{$name}}{{"\n"}}{{end}}{{end}}' "${answer[@]}" || :
    local name container known
    for line in "${answer[@]}"; do
      read -r name container <<<"$line"
      if [[ -z $name ]]; then continue; fi
      known=${users[$name]:-}
      # journald splits what is longer than 48 KiB.
      if ((${#known} < 10000)); then users[$name]=$known${known:+,}"\"${container#/}\""; fi
    done
  fi
  query volume ls --quiet || explain 'list volumes'
  names=("${answer[@]}")
  if ((${#names[@]} == 0)); then return; fi
  # One that is removed just now fails the call, after the others are printed.
  query volume inspect --format "{{.Name}}$tab{{json .Driver}}$tab{{json .Mountpoint}}$tab{{if .Labels}}{{json .Labels}}{{else}}{}{{end}}$tab{{with .Labels}}{{index . \"hub.backup\"}}{{end}}" "${names[@]}" \
    || [[ ${complaint,,} == *'no such volume'* ]] || explain 'look at volumes'
  local driver folder backup
  for line in "${answer[@]}"; do
    IFS=$tab read -r name driver folder labels backup <<<"$line"
    if [[ $backup == false && -z $all ]]; then continue; fi
    record="$(envelope INFO volume),\"volume\":$(json "$name"),\"driver\":$driver,\"mountpoint\":$folder"
    if ((${#labels} > 30000)); then labels='{"truncated":"true"}'; fi
    printf '%s,"labels":%s,"containers":[%s]}\n' "$record" "$labels" "${users[$name]:-}" 2>/dev/null \
      || fail 73 output_failed 'cannot write the list'
  done
}

create_volumes() {
  (($#)) || fail 64 usage 'create needs the name of a volume' 'manage_volume.sh create VOLUME...'
  local made
  need_docker
  for volume in "$@"; do check_name "$volume"; done
  for volume in "$@"; do
    made=false
    if ! query volume inspect "$volume"; then
      if [[ ${complaint,,} != *'no such volume'* ]]; then explain "look at volume $volume"; fi
      query volume create "$volume" || explain "create volume $volume"
      made=true
    fi
    printf '%s,"volume":%s,"new":%s}\n' "$(envelope INFO volume_created)" "$(json "$volume")" "$made" 2>/dev/null \
      || fail 73 output_failed 'cannot write the record'
  done
}

resume() {
  open_state
  # Without a journal there is nothing to ask Docker for, which may not be installed.
  if [[ -n $(all_journals) ]]; then need_docker; fi
  resume_stale
}

# volbackup ARG…: becomes volbackup, which calls this script.
volbackup() {
  local tool
  tool=$(type -P volbackup) || fail 78 no_volbackup 'there is no volbackup on this host' 'make install TOOLS=volbackup'
  if [[ -n $state_dir ]]; then export STATE_DIRECTORY=$state_dir; fi
  trap - EXIT
  exec "$tool" "$@"
}

main() {
  while (($#)); do
    case $1 in
      --state-dir)
        (($# > 1)) || fail 64 usage '--state-dir needs a folder'
        state_dir=$2
        shift 2
        ;;
      --state-dir=*)
        state_dir=${1#*=}
        shift
        ;;
      -h | --help | help)
        usage || fail 73 output_failed 'cannot write the help'
        return
        ;;
      --version)
        echo "manage_volume.sh ${version}"
        return
        ;;
      *) break ;;
    esac
  done
  exec {stderr}>&2
  trap finish EXIT
  local signal
  for signal in TERM INT HUP; do
    # shellcheck disable=SC2064 # the value of now
    trap "on_signal $signal" "$signal"
  done
  local command=${1:-}
  shift || :
  case $command in
    list) list_volumes "$@" ;;
    create) create_volumes "$@" ;;
    export)
      (($# == 1)) || fail 64 usage 'export takes the name of one volume' 'manage_volume.sh export VOLUME >FILE'
      export_volume "$1"
      ;;
    import)
      if [[ $# != 1 && ($# != 2 || $1 != --stop) ]]; then
        fail 64 usage 'import takes the name of one volume' 'manage_volume.sh import [--stop] VOLUME <FILE'
      fi
      import_volume "$@"
      ;;
    with)
      if [[ $# -lt 3 || $1 == -- || " ${*:2:$#-2} " != *' -- '* ]]; then
        fail 64 usage 'with takes the names of volumes, -- and a command' 'manage_volume.sh with VOLUME... -- COMMAND'
      fi
      with_volumes "$@"
      ;;
    resume)
      (($# == 0)) || fail 64 usage "resume takes no argument: $1"
      resume
      ;;
    backup) volbackup run "$@" ;;
    restore)
      (($#)) || fail 64 usage 'restore takes the name of one volume' 'manage_volume.sh restore VOLUME[@ID]'
      volbackup restore "$@"
      ;;
    '') fail 64 usage 'no command' 'manage_volume.sh --help' ;;
    *) fail 64 usage "no such command: $command" 'manage_volume.sh --help' ;;
  esac
}
readonly version=devel

main "$@"
