#!/bin/bash
# manage_volume.sh - read and replace Docker volumes as tar streams while nothing writes to them.
#
# This script does everything that involves Docker. volbackup does everything that involves backups. The manual is
# manage_volume.sh(1). The script needs bash 5, coreutils, GNU tar, util-linux and the docker client. It pulls no image,
# and starts only containers that it has stopped.
#
# READER'S GUIDE. What `export VOLUME` and `with VOLUME... -- CMD` do to the containers of a volume:
#
#   1. begin            lock the volume; start the containers that a killed run left down (resume_dead)
#   2. run_hooks        run hub.backup.exec in each container
#   3. look_at_users    ask Docker which containers use the volume; decide for each: stop, pause or nothing (decide)
#   4. write_journal    write to disk which containers will be stopped or paused, before the first one is
#   5. bring_down       stop or pause them, dependants first
#   6. export_volume    read the volume; or run the command (with_volumes)
#   7. resume_journal   start them again, dependants last (revive); then delete the journal
#
# Steps 2 to 5 are quiesce. `import` unpacks the stream beside the old content before step 3, and exchanges the two
# instead of step 6. Three places can do step 7, and the first one to run does it: the EXIT trap of this run (finish);
# `resume`, which the unit's ExecStopPost= and a unit at boot call; or step 1 of the next run. A run holds a flock(2) on
# the directory of its volume while it is alive. If the locks of a journal are free, the run that wrote it is dead.
set -euo pipefail
# The caller's environment must not change what tar does.
unset TAR_OPTIONS TAPE POSIXLY_CORRECT

# --- state ------------------------------------------------------------------
# All global variables. Each comment names the functions that write the variable, and says what it holds. A test
# compares this page with the functions. Everything else is an argument or a local variable. If the comment of a
# function says "Runs as a child" (supervise), its assignments to these variables are lost when it ends.

# `make install` adds the commit.
readonly version=0.1.0-dev
readonly service=volume-backup unit_state=/var/lib/volume-backup
readonly staging_name=.hub-import # directory beside the content of a volume, in which an import unpacks

state_dir=''           # main (--state-dir), open_state: the state directory of volbackup and this script
journals=''            # open_state: the directory of the journals
volumes=()             # begin: the volumes of this run, in the order of the command line
declare -A data_dir=() # locate: the directory of each volume, .../VOLUME/_data
lock_fds=()            # take_lock, drop_locks: descriptors of the locks that this process holds
lock_paths=()          # take_lock, drop_locks: the directories of these locks, .../VOLUME
claims=''              # lock_claims: the descriptor of the lock on $journals
journal=''             # begin_reading, import_volume: the journal of this run; the file exists while containers are down
at_rest=''             # begin_reading, import_volume: set when Docker has carried out all stops and pauses
killed=''              # report_kills: set if a container did not stop within its timeout
created=''             # import_volume: the volume that import has created, which is removed if the import fails

answer=()    # query_for: the stdout of docker, one line per element
complaint='' # query_for, diagnose, is_gone, must_be_down: the stderr of docker, if it failed
trouble=''   # query_for, diagnose, is_gone, must_be_down: the reason, if docker failed: silent, away, denied or refused

users=()                # look_at_users: the containers that use the volumes, newest first
declare -A container=() # look_at_users, decide: the properties of each container, as container[ID.FIELD]. The fields
# are those below, and "verb", which decide adds: stop, pause or empty.
declare -rA question=(
  [id]=.Id
  [name]=.Name
  [state]=.State.Status # as Docker names it
  [code]=.State.ExitCode
  [remove]=.HostConfig.AutoRemove                            # true: a stop removes the container (--rm)
  [task]='(index .Config.Labels "com.docker.swarm.task.id")' # not empty: swarm replaces the container after a stop
  [grace]='(index .Config "StopTimeout")'                    # time limit of a stop in seconds, -1 for none
  [mode]='(index .Config.Labels "hub.backup.quiesce")'       # stop, pause or none
  [hook]='(index .Config.Labels "hub.backup.exec")'          # a command
  [project]='(index .Config.Labels "com.docker.compose.project")'
  [service]='(index .Config.Labels "com.docker.compose.service")'
  [needs]='(index .Config.Labels "com.docker.compose.depends_on")' # db:service_healthy:false,cache:service_started:true
  [mounts]=.Mounts
)

patience=90 # revive: how many seconds to wait for a daemon that is unavailable. The unit's TimeoutStopSec= is longer.
child=''    # supervise, with_volumes, await_child: the process that this script waits for
caught=''   # on_signal: the signal that ends this run
status=0    # await_child, finish: the exit status of the child; the exit status of this process
verdict=0   # heed: the exit status that follows from the messages of tar
exec {stderr}>&2
readonly stderr # a copy of stderr, because await_child silences descriptor 2

# Only these options decide how a directory becomes a tar stream. The same tree must give the same bytes, because
# volbackup stores an unchanged volume as a hard link. Therefore names are sorted, and headers contain no times that
# reading changes and no process number. (exthdr.name removes the number. The sparse format 1.0 has one that cannot be
# removed; 0.0 has none.)
readonly tar_create=(
  tar --create --file=- --format=posix --sort=name --numeric-owner --xattrs '--xattrs-include=*' --acls
  --sparse --sparse-version=0.0 --quoting-style=escape
  '--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime'
)
readonly tar_extract=(
  tar --extract --file=- --numeric-owner --same-owner --same-permissions --delay-directory-restore
  --xattrs '--xattrs-include=*' --acls --quoting-style=escape --block-number --ignore-zeros
)

# --- usage ------------------------------------------------------------------

usage() {
  cat <<'TXT'
Usage:
  manage_volume.sh [--state-dir DIR] COMMAND

Commands:
  list [--all]           print a JSON line for each volume
  create VOLUME...       create volumes that do not exist yet
  export VOLUME          write a volume to stdout, as tar
  import [--stop] VOLUME replace a volume by the tar stream on stdin
  with VOLUME... -- CMD  run a command while nothing writes to the volumes
  resume                 start containers that an interrupted run left stopped
  backup [VOLUME...]     back up with volbackup
  restore VOLUME[@ID]    restore with volbackup
  tar DIR                write a directory to stdout, as export writes a volume

Containers that use the volume are stopped while it is read, unless their label
hub.backup.quiesce is pause or none. import fails if containers that use the
volume run; with --stop it stops and starts them. See manage_volume.sh(1).

Example:
    $ manage_volume.sh list | jq -r .volume
    $ manage_volume.sh export grafana_data | zstd >grafana_data.tar.zst
    $ zstd -dc grafana_data.tar.zst | manage_volume.sh import --stop grafana_data
    $ manage_volume.sh with grafana_data -- sh -c 'du -sh "$VOLUME_PATH"'
TXT
}

# --- json -------------------------------------------------------------------

# json TEXT: prints TEXT as a JSON string. A byte that is not UTF-8 (RFC 3629: no overlong form, no surrogate, nothing
# above U+10FFFF) becomes U+FFFD. manage_volume.sh, hub-failure and hub-status contain this function, and a test compares
# them: each script must work as the only file that is installed.
json() {
  # Work on bytes, not on characters, in any locale of the caller.
  local LC_ALL=C rest=$1 out='' next more=$'[\x80-\xbf]' plain
  plain=$'[] !#-[^-\x7f]|[\xc2-\xdf]'$more$'|\xe0[\xa0-\xbf]'$more$'|[\xe1-\xec\xee\xef]'$more$more$'|\xed[\x80-\x9f]'$more
  plain+=$'|\xf0[\x90-\xbf]'$more$more$'|[\xf1-\xf3]'$more$more$more$'|\xf4[\x80-\x8f]'$more$more
  while [[ -n $rest ]]; do
    if [[ $rest =~ ^($plain)+ ]]; then
      next=${BASH_REMATCH[0]}
      out+=$next
    else
      next=${rest:0:1}
      case $next in
        \" | \\) out+=\\$next ;;
        $'\n') out+='\n' ;;
        $'\t') out+='\t' ;;
        [$'\x01'-$'\x1f']) printf -v out '%s\\u%04x' "$out" "'$next" ;;
        *) out+='\ufffd' ;;
      esac
    fi
    rest=${rest:${#next}}
  done
  printf '"%s"' "$out"
}

# unquote NAME...: replaces each of the caller's variables that holds a JSON string or null by its text. printf %b knows
# all escapes of JSON except \".
unquote() {
  local -n quoted
  for quoted; do
    case $quoted in
      null) quoted= ;;
      \"*)
        quoted=${quoted:1:-1}
        printf -v quoted %b "${quoted//\\\"/\"}"
        ;;
    esac
  done
}

# --- messages ---------------------------------------------------------------

# envelope LEVEL EVENT: prints the fields with which every record begins.
envelope() {
  local LC_ALL=C TZ=UTC now=$EPOCHREALTIME
  printf '{"time":"%(%Y-%m-%dT%H:%M:%S)T.%.3sZ","level":"%s","msg":"%s","service":"%s"' \
    "${now%.*}" "${now#*.}" "$1" "$2" "$service"
}

# emit EVENT FIELDS: prints a record to stdout. FIELDS is JSON without the braces.
emit() {
  printf '%s,%s}\n' "$(envelope INFO "$1")" "$2" 2>/dev/null || fail 73 output_failed "cannot write the record $1"
}

# say LEVEL EVENT TEXT [HINT [FIELDS]]: prints a diagnostic to stderr: as text to a terminal, as JSON elsewhere, with a
# priority to the journal. FIELDS is JSON without the braces.
say() {
  local level=$1 event=$2 text=${3:0:4000} hint=${4:-} fields=${5:-} word=warning key=detail prefix=
  if [[ $level == ERROR ]]; then word=error key=error; fi
  if [[ -t 2 ]]; then
    if [[ $level == DEBUG ]]; then return 0; fi
    text=${text//[[:cntrl:]]/ }
    printf 'manage_volume.sh: %s: %s\n%s' "$word" "$text" "${hint:+manage_volume.sh: hint: $hint$'\n'}" >&2 || :
    return 0
  fi
  # JOURNAL_STREAM names the stream of the journal. Children inherit the variable even if their own stderr is
  # redirected.
  if [[ -n ${JOURNAL_STREAM:-} && $(stat -L -c %d:%i - <&2 2>/dev/null) == "$JOURNAL_STREAM" ]]; then
    case $level in
      ERROR) prefix='<3>' ;;
      WARN) prefix='<4>' ;;
    esac
  fi
  printf '%s%s,"%s":%s%s%s}\n' "$prefix" "$(envelope "$level" "$event")" "$key" "$(json "$text")" \
    "${hint:+,\"hint\":$(json "$hint")}" "${fields:+,$fields}" >&2 || :
}

# fail STATUS EVENT TEXT [HINT]: prints an error and exits.
fail() {
  say ERROR "${@:2}"
  exit "$1"
}

# takes MIN MAX SYNOPSIS ARG...: exits with a usage error unless the number of arguments is between MIN and MAX.
takes() {
  local given=$(($# - 3))
  if ((given < $1 || given > $2)); then fail 64 usage "wrong number of arguments: $given" "manage_volume.sh $3"; fi
}

# --- children ---------------------------------------------------------------

# supervise CMD...: runs a command or function as a child in its own process group, so that one signal ends all its
# processes. Sets $status to the exit status.
supervise() {
  set -m
  "$@" <&0 &
  child=$!
  set +m
  await_child
}

# await_child: waits for $child and sets $status.
await_child() {
  status=0
  # Discard bash's own message about a child that was ended by a signal.
  { wait "$child"; } 2>/dev/null || status=$?
  child=
}

# mortal SIGNAL CMD...: executes CMD, which receives the signal when this script dies. Otherwise a consumer could take
# half a stream for a whole one, or CMD could read a volume whose containers run again. The sandbox of the unit does not
# allow setpriv; there systemd ends the processes that are left.
mortal() {
  if setpriv --pdeathsig "$1" -- true 2>/dev/null; then
    exec setpriv --pdeathsig "$1" -- "${@:2}"
  fi
  exec "${@:2}"
}

# ended PID TRIES: returns 0 if the process ends within TRIES tenths of a second.
ended() {
  local try
  for ((try = 0; try < $2; try++)); do
    if ! kill -0 "$1" 2>/dev/null || [[ $(cat "/proc/$1/stat" 2>/dev/null) == *') Z '* ]]; then return 0; fi
    sleep 0.1
  done
  return 1
}

# signal_child SIGNAL: sends the signal to the process group of $child, or to $child if it has no group.
signal_child() {
  kill -s "$1" -- "-$child" 2>/dev/null || kill -s "$1" "$child" 2>/dev/null || :
}

# --- how a run ends ---------------------------------------------------------

# on_signal SIGNAL: the trap for TERM, INT and HUP. It ends the child and exits.
on_signal() {
  caught=$1
  exec 2>&"$stderr"
  # A second signal must not interrupt the clean-up.
  trap '' TERM HUP INT
  if [[ -n $child ]]; then
    signal_child "$caught"
    ended "$child" 20 || :
    signal_child KILL
  fi
  exit 1
}

# down_since JOURNAL: prints when the containers of the journal began to stop, or nothing if it lists none.
down_since() {
  sed -n '/^at /h; /^\(stop\|pause\) /{g; s/^at //p; q}' "$1"
}

# say_up SINCE: tells volbackup, which sets SAY_DOWNTIME, how long the containers of this run were down. SINCE is from
# down_since.
say_up() {
  if [[ -z ${SAY_DOWNTIME:-} || -z $1 ]]; then return 0; fi
  local down=$((${EPOCHREALTIME/[.,]/} - ${1/./}))
  if ((down < 0)); then down=0; fi # the clock was set back
  printf -v down '%d.%03d' $((down / 1000000)) $((down / 1000 % 1000))
  say DEBUG containers_up "the containers of ${volumes[*]} are running again after $down s" '' "\"downtime_s\":$down"
}

# finish: the trap for EXIT. It starts the containers that this run stopped. After a signal the run has five seconds,
# but a container may take longer to stop: then a `resume` in the background waits for it. Functions that finish calls
# use "return 0", because in a trap a plain "return" returns the status from before the trap.
finish() {
  status=$?
  local since
  set +e
  # If the caller was killed, nothing reads stderr any more. A message must not end this function by SIGPIPE.
  trap '' TERM HUP INT PIPE
  if [[ -n $journal && -e $journal ]]; then
    since=$(down_since "$journal")
    if [[ -z $caught ]]; then
      if resume_journal "$journal" "$at_rest"; then say_up "$since"; fi
    else
      drop_locks
      setsid "$BASH" "$0" --state-dir "$state_dir" resume </dev/null >/dev/null &
      if ! ended "$!" 20; then
        say WARN still_resuming "containers of ${volumes[*]} are still stopping; a background process starts them as soon as they have stopped"
      elif [[ ! -e $journal ]]; then
        say_up "$since"
      fi
    fi
  fi
  if [[ -n $created ]]; then query volume rm "$created"; fi
  if [[ -n $caught ]]; then
    trap - "$caught"
    kill -s "$caught" "$$"
  fi
  exit "$status"
}

# --- docker -----------------------------------------------------------------

# query ARG...: runs docker with a time limit of one minute. It sets $answer, and returns 1 if docker failed.
query() { query_for 60 "$@"; }

# query_for SECONDS ARG...: does the same with another time limit, 0 for none.
query_for() {
  local line code=0 lines=()
  answer=() complaint='' trouble=''
  # sed marks the lines of stderr with "!". A line of stdout never begins with it, because it is JSON or an id. mapfile
  # reads the output because a signal interrupts it at once; bash would wait for a command to end.
  mapfile -t lines < <(exec timeout --foreground --kill-after=5 "$1" docker "${@:2}" 2> >(exec sed -u 's/^/!/') </dev/null)
  wait "$!" || code=$?
  for line in "${lines[@]}"; do
    if [[ $line == '!'* ]]; then complaint+=${complaint:+ }${line:1}; else answer+=("$line"); fi
  done
  if ((code)); then
    diagnose "$code" "$1"
    return 1
  fi
  complaint=''
}

# diagnose STATUS SECONDS: sets $trouble to the reason why docker failed. The client exits with status 1 for any reason,
# and its messages change between versions. Therefore this function makes a request that every daemon can answer, and
# checks the permissions of the socket.
diagnose() {
  local socket
  complaint=${complaint:-docker exited with status $1}
  if (($1 == 124 || $1 == 137)); then
    trouble=silent complaint="Docker did not answer within $2 s"
  elif timeout --foreground --kill-after=5 30 docker version --format '{{json .Server.Version}}' &>/dev/null </dev/null; then
    trouble=refused
  else
    trouble=away socket=$(docker_host)
    socket=${socket#unix://}
    if [[ -S $socket && ! -w $socket ]]; then trouble=denied; fi
  fi
}

# explain WHAT: exits with the error that docker failed to do WHAT.
explain() {
  case $trouble in
    denied) fail 78 docker_denied "$1: $complaint" 'run as root, or as a member of the group docker' ;;
    refused) fail 69 docker_failed "$1: $complaint" 'see the log of the daemon: journalctl -u docker' ;;
    *) fail 69 docker_unavailable "$1: $complaint" "$daemon_hint" ;;
  esac
}
readonly daemon_hint='see whether the daemon runs: systemctl status docker'

# is_gone container|volume NAME: returns 0 if the last query failed because the container or volume does not exist.
is_gone() {
  local said=$complaint
  if [[ $trouble != refused ]]; then return 1; fi
  case $1 in
    container) query ps --all --quiet --no-trunc --filter "id=$2" || return 1 ;;
    volume) query volume ls --quiet --filter "name=$2" || return 1 ;;
  esac
  trouble=refused complaint=$said
  [[ " ${answer[*]} " != *" $2 "* ]]
}

# --- which daemon -----------------------------------------------------------

need_docker() {
  command -v docker >/dev/null || fail 78 no_docker 'docker is not installed, or not in PATH' 'apt-get install docker.io'
}

# docker_host: prints the address of the daemon.
docker_host() {
  echo "${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}' 2>/dev/null)}"
}

# need_local_docker: exits with an error unless the daemon is on this host. The volumes are where the daemon is.
need_local_docker() {
  local host
  need_docker
  host=$(docker_host)
  if [[ -n $host && $host != unix://* && ! $host =~ ^tcp://(localhost|127\.[0-9.]+|\[::1\])(:|$) ]]; then
    fail 78 remote_docker "the Docker daemon is on another host, and so are its volumes: ${host##*@}" 'run manage_volume.sh on that host, for example with ssh'
  fi
}

# --- volumes ----------------------------------------------------------------

# check_name NAME: exits with a usage error unless NAME is a valid volume name.
check_name() {
  [[ $1 =~ ^[a-zA-Z0-9][a-zA-Z0-9_.-]*$ ]] || fail 64 usage "not a valid volume name: $1" 'manage_volume.sh list prints the names'
}

# refusal DRIVER DIRECTORY OPTIONS: prints why a volume cannot be read, or nothing if it can. OPTIONS is JSON.
refusal() {
  local type=none device='an unnamed device'
  if [[ $1 != local ]]; then
    echo "is managed by the driver $1, not stored on this host"
  elif [[ -z $2 || $2 == *[[:cntrl:]]* ]]; then
    echo 'has no directory on this host'
  elif [[ $3 =~ \"(device|type|o)\": && ! $3 =~ ^\{\"o\":\"size=[^,\"]*\"\}$ ]]; then
    # Docker mounts the device when a container starts; at other times the directory is empty. Do not print "o", which
    # may contain a password.
    if [[ $3 =~ \"type\":\"([^\"]*)\" ]]; then type=${BASH_REMATCH[1]}; fi
    if [[ $3 =~ \"device\":\"([^\"]*)\" ]]; then device=${BASH_REMATCH[1]}; fi
    echo "is a mount of $device, type $type"
  fi
}
readonly refusal_hint='back it up with another tool, and exclude it here: volbackup run --exclude VOLUME'

# locate VOLUME: sets data_dir[VOLUME] to the directory of the volume, or returns 1 if the volume does not exist.
locate() {
  local driver directory options why
  if ! query volume inspect --format $'{{json .Driver}}\t{{json .Mountpoint}}\t{{json .Options}}' "$1"; then
    if is_gone volume "$1"; then return 1; fi
    explain "inspect volume $1"
  fi
  IFS=$'\t' read -r driver directory options <<<"${answer[0]}"
  unquote driver directory
  why=$(refusal "$driver" "$directory" "$options")
  if [[ -n $why ]]; then fail 65 volume_refused "volume $1 $why" "$refusal_hint"; fi
  data_dir[$1]=$directory
}

# unreadable DIRECTORY: exits with the error that this user cannot read the directory.
unreadable() {
  fail 78 volume_unreadable "cannot read all of $1 as $(id -un)" \
    'run as root, or with the capability CAP_DAC_READ_SEARCH, which volume-backup.service has'
}

# begin VOLUME...: locates and locks the volumes of this run, and opens the state directory.
begin() {
  local name parent
  for name; do check_name "$name"; done
  need_local_docker
  volumes=("$@")
  # Locking in sorted order avoids a deadlock between two runs on the same volumes.
  while read -r name; do
    locate "$name" || fail 65 no_such_volume "no such volume: $name" 'manage_volume.sh list prints the volumes that exist'
    parent=${data_dir[$name]%/*}
    if [[ ! -d ${data_dir[$name]} && ! -d $parent || ! -x $parent || ! -r $parent ]]; then unreadable "$parent"; fi
    # Two seconds, because `held` of another process takes the lock for a moment to test it.
    take_lock "$parent" 2 || fail 75 locked "another run holds the lock of volume $name" "wait for it to end; fuser -v $parent shows its process"
  done < <(printf '%s\n' "$@" | sort -u)
  open_state
}

# --- locks ------------------------------------------------------------------
# Only one run at a time works on a volume, even if runs have different users and state directories. Children inherit
# the locks.

# take_lock DIRECTORY SECONDS: returns 1 if another process holds the lock, 2 if the directory cannot be opened.
take_lock() {
  local fd
  { exec {fd}<"$1"; } 2>/dev/null || return 2
  if ! flock -w "$2" "$fd"; then
    exec {fd}<&-
    return 1
  fi
  lock_fds+=("$fd") lock_paths+=("$1")
}

# drop_locks [N]: closes the locks of this process, except the first N. A child may still hold them.
drop_locks() {
  local keep=${1:-0} fd
  for fd in "${lock_fds[@]:keep}"; do exec {fd}<&-; done
  lock_fds=("${lock_fds[@]:0:keep}") lock_paths=("${lock_paths[@]:0:keep}")
}

# is_ours DIRECTORY: returns 0 if this process holds the lock of the directory.
is_ours() {
  local path
  for path in "${lock_paths[@]}"; do
    if [[ $path == "$1" ]]; then return 0; fi
  done
  return 1
}

# lock_claims: takes the lock without which no run decides which containers to stop or start.
lock_claims() {
  exec {claims}<"$journals"
  flock "$claims"
}

unlock_claims() {
  exec {claims}<&-
}

# give_way SECONDS ID: waits without the lock of lock_claims. Returns 1 if another run has brought the container down.
give_way() {
  unlock_claims
  sleep "$1"
  lock_claims
  ! claimed "$2"
}

# --- where the journals are -------------------------------------------------

# open_state: sets $state_dir and $journals, and creates the directory. When root runs the script by hand, it uses the
# state directory of the unit, because volume-backup-resume.service reads that one at each boot.
open_state() {
  local given=${STATE_DIRECTORY:-}
  state_dir=${state_dir:-${given%%:*}}
  if [[ -z $state_dir && $EUID == 0 && -d $unit_state ]]; then state_dir=$unit_state; fi
  if [[ -z $state_dir ]]; then
    state_dir=$(user_state) || fail 78 no_state_directory 'no state directory: HOME is not set' 'set HOME, or pass --state-dir DIR'
  fi
  journals=$state_dir/quiesced
  if ! (umask 077 && mkdir -p "$journals" && give "$journals" "$state_dir") 2>/dev/null || [[ ! -w $journals ]]; then
    fail 73 state_unwritable "cannot write to $journals" 'pass --state-dir DIR, a directory that this user can write to'
  fi
}

# user_state: prints the state directory in the user's home.
user_state() {
  [[ -n ${XDG_STATE_HOME:-${HOME:-}} ]] && echo "${XDG_STATE_HOME:-$HOME/.local/state}/$service"
}

# give FILE DIRECTORY: if root runs the script, gives FILE the owner of DIRECTORY, so that the unit can use it.
give() {
  ((EUID)) || chown --reference="$2" "$1"
}

# all_journals: prints the journals in $state_dir, in the unit's state directory, and in the user's own state directory.
all_journals() {
  local dir seen=' '
  for dir in "$state_dir" "$unit_state" "$(user_state)"; do
    dir=$(realpath --quiet -- "$dir/quiesced") || continue
    if [[ $seen == *" $dir "* ]]; then continue; fi
    seen+="$dir "
    compgen -G "$dir/[a-zA-Z0-9]*" || :
  done
}

# --- the journal ------------------------------------------------------------
# The lines of $journals/VOLUME:
#
#   owner PID                          the process of the run
#   at SECONDS                         when the journal was written
#   lock DIRECTORY                     one line for each volume of the run
#   import DIRECTORY                   an import exchanges the content of DIRECTORY
#   stop|pause ID NAME GRACE HEALTHY   one line for each container, in the order in which they are started again;
#                                      HEALTHY is "yes" if other containers wait until this one is healthy

# write_journal FILE SWAP LINE...: writes the journal and syncs it to disk. SWAP is the directory that an import
# exchanges, or empty. Each LINE describes a container. The caller holds the lock of lock_claims. The new journal keeps
# the containers that an earlier run on the volume left down.
write_journal() {
  # Not $file.new: the name of a volume can be as long as a file name can be.
  local file=$1 swap=$2 text temporary=$journals/.new
  shift 2
  text=$(
    printf '%s\n' "owner $$" "at ${EPOCHREALTIME/,/.}" "${lock_paths[@]/#/lock }" ${swap:+"import $swap"}
    left_down "$file" "$*"
    if (($#)); then printf '%s\n' "$@"; fi
  )
  if ! { echo "$text" >"$temporary" && give "$temporary" "$journals" && sync "$temporary" \
    && mv -T "$temporary" "$file" && sync "$journals"; } 2>/dev/null; then
    rm -f "$temporary"
    fail 73 state_unwritable "cannot write the journal to $journals" "make room there: df -h $journals; no container was stopped"
  fi
}

# left_down JOURNAL LINES: prints the containers of the journal that are not in LINES.
left_down() {
  local verb id rest
  if [[ ! -e $1 ]]; then return 0; fi
  while read -r verb id rest; do
    if [[ $verb == @(stop|pause) && " $2 " != *" $id "* ]]; then echo "$verb $id $rest"; fi
  done <"$1"
}

# locks_of JOURNAL: prints the directories that the run of the journal locks.
locks_of() {
  sed -n 's/^lock //p' "$1"
}

# held JOURNAL: returns 0 if the run that wrote the journal is alive. If this process holds a lock of the journal, the
# journal belongs to this run or to a dead one, in any state directory.
held() {
  local path alive=1
  while read -r path; do
    if is_ours "$path"; then return 1; fi
    if [[ -d $path ]] && ! flock --shared --nonblock "$path" true 2>/dev/null; then alive=0; fi
  done < <(locks_of "$1")
  return "$alive"
}

# claimed ID: returns 0 if another live run has stopped or paused the container. That run will start it.
claimed() {
  local file
  while read -r file; do
    if grep -q " $1 " "$file" 2>/dev/null && held "$file"; then return 0; fi
  done < <(all_journals)
  return 1
}

# --- which containers -------------------------------------------------------

# ask_users ARG...: runs docker ps for the containers that use the volumes.
ask_users() {
  query ps "$@" "${volumes[@]/#/--filter=volume=}"
}

# look_at_users: sets $users and $container from Docker's data about the containers that use the volumes.
look_at_users() {
  local try line field value values format=''
  # Every field is JSON, which contains no tab, so a tab always separates two fields.
  for field in "${!question[@]}"; do format+="{{json ${question[$field]}}}"$'\t'; done
  for try in 1 2 3; do
    ask_users --all --quiet --no-trunc || explain "list the containers of ${volumes[*]}"
    if ((${#answer[@]} == 0)); then break; fi
    # docker inspect fails if a container was removed since docker ps.
    if query inspect --type container --format "$format" "${answer[@]}"; then break; fi
    if ((try == 3)); then explain "inspect the containers of ${volumes[*]}"; fi
  done
  users=() container=()
  for line in "${answer[@]}"; do
    local -A one=()
    IFS=$'\t' read -r -a values <<<"$line"
    for field in "${!question[@]}"; do
      value=${values[0]} values=("${values[@]:1}")
      unquote value
      one[$field]=$value
    done
    users+=("${one[id]}")
    one[name]=${one[name]#/} one[mode]=${one[mode]:-stop} one[grace]=${one[grace]:-10}
    for field in "${!one[@]}"; do container[${one[id]}.$field]=${one[$field]}; done
  done
}

# is_up ID: returns 0 if the container can write.
is_up() {
  [[ ${container[$1.state]} == @(running|restarting) ]]
}

# is_fragile ID: returns 0 if the container does not survive a stop.
is_fragile() {
  [[ ${container[$1.remove]} == true || -n ${container[$1.task]} ]]
}

# --- hub.backup.exec --------------------------------------------------------

# run_hooks: runs hub.backup.exec of every running container.
run_hooks() {
  local id name output code
  look_at_users
  for id in "${users[@]}"; do
    name=${container[$id.name]}
    if [[ ${container[$id.mode]} != @(stop|pause|none) ]]; then
      fail 78 bad_label "container $name has the invalid label hub.backup.quiesce=${container[$id.mode]}" 'recreate the container with stop, pause or none as the value'
    fi
    if [[ -n ${container[$id.hook]} && ${container[$id.state]} != paused ]] && ! is_up "$id" && claimed "$id"; then
      fail 75 locked "another run has stopped container $name, so its hub.backup.exec cannot run" 'wait for that run to end'
    fi
  done
  for id in "${users[@]}"; do
    if [[ -z ${container[$id.hook]} ]] || ! is_up "$id"; then continue; fi
    code=0
    output=$(docker exec "$id" sh -c "${container[$id.hook]}" 2>&1 </dev/null | tail -c 2000) || code=$?
    if ((code)); then
      fail 69 exec_failed "hub.backup.exec of container ${container[$id.name]} exited with status $code: $output" \
        'correct the cause and run this again; no container was stopped, and nothing was exported'
    fi
  done
}

# --- in which order ---------------------------------------------------------

# needs ID OTHER [CONDITION]: returns 0 if container ID depends on container OTHER in compose, under that CONDITION. The
# label com.docker.compose.depends_on is "db:service_healthy:false,cache:service_started:true".
needs() {
  local id=$1 other=$2
  [[ $id != "$other" && -n ${container[$id.project]} && ${container[$id.project]} == "${container[$other.project]}" &&
    ,${container[$id.needs]} == *",${container[$other.service]}:${3:-}"* ]]
}

# waves ID...: prints the containers in the order in which they stop. The containers of one line stop together: no
# container of a later line depends on them. If the rest depend on each other in a circle, they are printed as one line.
waves() {
  local left=("$@") wave rest id other
  while ((${#left[@]})); do
    wave=() rest=()
    for id in "${left[@]}"; do
      for other in "${left[@]}"; do
        if needs "$other" "$id"; then
          rest+=("$id")
          continue 2
        fi
      done
      wave+=("$id")
    done
    if ((${#wave[@]} == 0)); then wave=("${left[@]}") rest=(); fi
    echo "${wave[*]}"
    left=("${rest[@]}")
  done
}

# --- stopping and pausing ---------------------------------------------------

# decide ID MODE: sets container[ID.verb] to stop, to pause, or to nothing if the container is left alone.
decide() {
  local id=$1 verb=$2
  if [[ $verb == none ]]; then
    verb=
  elif ! is_up "$id" && ! claimed "$id"; then
    verb= # it was already down before this run
  elif [[ ${container[$id.state]} == paused ]]; then
    verb=pause # another run has paused it, and this run needs it paused too
  elif [[ $verb == stop ]] && is_up "$id" && is_fragile "$id"; then
    say WARN pause_instead "container ${container[$id.name]} does not survive a stop (--rm or a swarm task); it is paused instead"
    verb=pause
  fi
  container[$id.verb]=$verb
}

# quiesce [SWAP MAY_STOP]: stops or pauses the containers, after writing the journal. SWAP is the directory that an
# import exchanges. For an import all containers must stop, because a paused container keeps files open that the import
# deletes. Runs as a child.
quiesce() {
  local swap=${1:-} may_stop=${2:-} id other healthy wave order=() down=() lines=()
  if [[ -z $swap ]]; then run_hooks; fi
  lock_claims
  look_at_users
  if [[ -n $swap ]]; then refuse_users "$may_stop"; fi
  for id in "${users[@]}"; do
    if [[ -n $swap ]]; then decide "$id" stop; else decide "$id" "${container[$id.mode]}"; fi
    if [[ -n ${container[$id.verb]} ]]; then down+=("$id"); fi
  done
  if ((${#down[@]} == 0)); then
    unlock_claims
    return 0
  fi
  mapfile -t order < <(waves "${down[@]}")
  # shellcheck disable=SC2048 # words
  for id in ${order[*]}; do
    healthy=no
    for other in "${down[@]}"; do
      if needs "$other" "$id" service_healthy; then healthy=yes; fi
    done
    lines=("${container[$id.verb]} $id ${container[$id.name]} ${container[$id.grace]} $healthy" "${lines[@]}")
  done
  write_journal "$journal" "$swap" "${lines[@]}"
  unlock_claims
  # If the run was killed, its containers may have been resumed already. This child must not stop them again.
  kill -0 "$$" 2>/dev/null || exit 1
  for wave in "${order[@]}"; do
    # shellcheck disable=SC2086 # a wave is words
    bring_down $wave
  done
}

# bring_down ID...: stops or pauses containers, all at once.
bring_down() {
  local id grace limit=60 stops=() pauses=()
  for id; do
    grace=${container[$id.grace]}
    if [[ ${container[$id.verb]} == pause ]]; then
      pauses+=("$id")
      continue
    fi
    stops+=("$id")
    # A grace of -1 means no time limit, for which query_for takes 0.
    if ((grace < 0 || limit == 0)); then limit=0; elif ((grace + 60 > limit)); then limit=$((grace + 60)); fi
  done
  if ((${#stops[@]})); then query_for "$limit" stop "${stops[@]}" || must_be_down "${stops[@]}"; fi
  if ((${#pauses[@]})); then query pause "${pauses[@]}" || must_be_down "${pauses[@]}"; fi
}

# must_be_down ID...: is called after docker stop or docker pause failed. It exits with that error, unless Docker
# confirms that none of the containers is running.
must_be_down() {
  local said=$complaint why=$trouble id
  for id; do
    if query inspect --type container --format '{{json .State.Status}}' "$id"; then
      if [[ ${answer[0]} != '"running"' && ${answer[0]} != '"restarting"' ]]; then continue; fi
    elif is_gone container "$id"; then
      continue
    fi
    complaint=$said trouble=$why
    explain "stop or pause the containers of ${volumes[*]}"
  done
}

# --- is the stream consistent? ----------------------------------------------

# report_kills: prints a warning for each container that Docker killed because it did not stop within its timeout. It
# then sets $killed.
report_kills() {
  local id name volume
  if [[ ! -e $journal ]]; then return 0; fi
  look_at_users
  for id in "${users[@]}"; do
    # 137 is 128 + SIGKILL. The kernel's OOM killer gives the same status.
    if [[ ${container[$id.code]} != 137 ]] || ! grep -q "^stop $id " "$journal"; then continue; fi
    killed=yes name=${container[$id.name]}
    for volume in "${!data_dir[@]}"; do
      if [[ ${container[$id.mounts]} != *"\"Name\":\"$volume\""* ]]; then continue; fi
      say WARN container_killed "container $name did not stop within its timeout and was killed; data that it had not written is not in volume $volume" \
        'give it more time: docker run --stop-timeout, or stop_grace_period in compose' \
        "\"volume\":$(json "$volume"),\"container\":$(json "$name")"
    done
  done
}

# disturbed: returns 0 if the stream may be inconsistent: if a container was killed before it had written its data, if a
# container that should be down is running, or if Docker does not answer. For example, a daemon that restarts during the
# run starts containers by their restart policies.
disturbed() {
  local line name mode found=1
  if [[ -n $killed ]]; then found=0; fi
  if ! ask_users --all --no-trunc --filter status=running --format $'{{json .Names}}\t{{json (.Label "hub.backup.quiesce")}}'; then
    say WARN cannot_tell "cannot find out whether a container wrote to ${volumes[*]} while it was read: $complaint"
    return 0
  fi
  for line in "${answer[@]}"; do
    IFS=$'\t' read -r name mode <<<"$line"
    unquote name mode
    if [[ $mode != none ]]; then
      say WARN started_meanwhile "container $name ran while ${volumes[*]} was read"
      found=0
    fi
  done
  return "$found"
}

# --- starting what a journal lists ------------------------------------------

# resume_journal FILE AT_REST: starts the containers of the journal, undoes its import, and then deletes the journal.
# AT_REST is not empty if Docker has carried out all stops and pauses. The caller holds the locks of the journal, unless
# the volume no longer exists.
resume_journal() {
  local file=$1 at_rest=$2 verb rest id name grace healthy at=0 swapped='' stays=0
  if [[ ! -e $file ]]; then return 0; fi
  lock_claims
  while read -r verb rest; do
    case $verb in
      at) at=${rest%.*} ;;
      import)
        swapped=$rest
        if ! undo_swap "$rest"; then
          stays=1
          break
        fi
        ;;
      stop | pause)
        read -r id name grace healthy <<<"$rest"
        # No stop is in progress any more: revive does not need to wait for one.
        if [[ -n $at_rest ]]; then at=0 grace=0; fi
        if claimed "$id"; then
          continue # the other run starts it
        elif ! revive "$verb" "$id" "$name" "${grace:-10}" "$at"; then
          stays=1
        elif [[ $healthy == yes ]]; then
          await_health "$id" "$name"
        fi
        ;;
    esac
  done <"$file"
  unlock_claims
  # Keep the whole journal. The next attempt does nothing with the containers that run by then.
  if ((stays)); then return 69; fi
  if [[ -n $swapped ]]; then rm -rf --one-file-system "${swapped%/*}/${staging_name:?}" || return 73; fi
  rm -f "$file" && sync "${file%/*}" || return 73
}

# undo_swap DIRECTORY: undoes the exchange of a killed import if only the first rename was done. If both were done, the
# volume keeps its new content. It fails if DIRECTORY was created again after the first rename.
undo_swap() {
  local staging=${1%/*}/$staging_name
  if [[ ! -d $staging/old ]]; then return 0; fi
  if [[ ! -e $1 ]]; then
    if ! mv -T "$staging/old" "$1" || ! sync "${1%/*}"; then
      say ERROR import_interrupted "the content of $1 is in $staging/old" 'run as root: manage_volume.sh resume'
      return 1
    fi
  elif [[ -d $staging/new ]]; then
    say ERROR import_interrupted "an import was interrupted, and $1 was created afterwards; the old content is in $staging/old" \
      "keep $1: rm -r $staging; or take the old content: move $1 away, then mv $staging/old $1 && rm -r $staging"
    return 1
  fi
}

# --- starting one container -------------------------------------------------

# revive VERB ID NAME GRACE AT: starts or unpauses a container for which Docker received VERB at the second AT. It
# returns 0 only if the container was seen running, exited with status 0 after the start, does not exist any more, or
# belongs to another run. It waits for a daemon that is unavailable. If the daemon does not answer in time, it is not
# asked again.
revive() {
  local verb=$1 id=$2 name=$3 grace=$4 at=$5 tries=4 started='' why='' hint="see docker logs $3"
  while ((tries > 0 && patience > 0)); do
    if query inspect --type container --format '{{json .State.Status}} {{json .State.ExitCode}}' "$id"; then
      case $started:${answer[0]} in
        *:'"running" '*)
          if ! under_way "$verb" "$id" "$grace" "$at"; then return 0; fi
          if ((grace < 0 && EPOCHSECONDS > at + 60)); then
            why='Docker is still stopping it, without a time limit'
            break
          fi
          give_way 0.1 "$id" || return 0
          continue
          ;;
        *:'"restarting" '*) return 0 ;;
        *:'"paused" '*) if query unpause "$id"; then continue; fi ;;
        started:'"exited" 0') return 0 ;; # a job that is done
        *) if query start "$id"; then started=started; fi ;;
      esac
      why=${complaint:-it exits as soon as it is started}
    elif is_gone container "$id"; then
      say WARN container_gone "container $name was removed before it could be started again"
      return 0
    elif [[ $trouble != refused ]]; then
      patience=$((patience - 1))
      if [[ $trouble == silent ]]; then patience=0; else give_way 1 "$id" || return 0; fi
      continue
    else
      why=$complaint
    fi
    tries=$((tries - 1))
    sleep 0.2
  done
  if ((patience == 0)); then why=$complaint hint=$daemon_hint; fi
  say ERROR not_resumed "container $name does not start again: $why" "$hint; then run: manage_volume.sh resume"
  return 1
}

# under_way VERB ID GRACE AT: returns 0 if Docker may still be about to stop or pause a running container. Docker
# completes a request even if its client is dead, and `docker start` does nothing while the container still runs.
under_way() {
  local verb=$1 id=$2 grace=$3 at=$4
  # The daemon may not have read the request of a killed client yet.
  if ((EPOCHSECONDS <= at + 3)); then return 0; fi
  if [[ $verb == pause ]] || ((grace >= 0 && EPOCHSECONDS > at + grace + 5)); then return 1; fi
  query events --since "$at" --until "${EPOCHREALTIME/,/.}" --filter "container=$id" --filter event=kill --filter event=start \
    --format '{{json .Action}}' || return 0
  [[ ${answer[*]: -1} == '"kill"' ]]
}

# await_health ID NAME: waits for a container to become healthy, for at most one minute. Other containers depend on
# that.
await_health() {
  local try
  for ((try = 0; try < 120; try++)); do
    query inspect --type container --format '{{with .State.Health}}{{json .Status}}{{end}}' "$1" || return 0
    if [[ ${answer[0]} != '"starting"' && ${answer[0]} != '"unhealthy"' ]]; then return 0; fi
    give_way 0.5 "$1" || return 0
  done
  say WARN not_healthy "container $2 is not healthy after a minute; the containers that depend on it are started anyway" "see docker logs $2"
}

# --- journals of dead runs --------------------------------------------------

# resume_dead: resumes the journals of dead runs. Returns an exit status other than 0 if a container stays down.
resume_dead() {
  local file code worst=0 kept=${#lock_fds[@]}
  lock_claims
  rm -f "$journals"/.[a-zA-Z0-9]*
  unlock_claims
  while read -r file <&3; do
    code=0
    take_over "$file" || code=$?
    if ((code == 0)); then resume_journal "$file" '' || code=$?; fi
    if ((code && code != 10)); then worst=$code; fi
    drop_locks "$kept"
  done 3< <(all_journals)
  return "$worst"
}

# take_over JOURNAL: takes the locks of a dead run. Returns 10 if there is nothing to do, because the run is alive or
# has removed its journal.
take_over() {
  local path paths owner code
  if [[ ! -e $1 ]]; then return 10; fi
  if [[ ! -r $1 ]]; then
    say ERROR not_resumed "cannot read the journal $1 as $(id -un)" 'run as root: manage_volume.sh resume'
    return 78
  fi
  mapfile -t paths < <(locks_of "$1")
  for path in "${paths[@]}"; do
    if [[ ! -d $path ]] || is_ours "$path"; then continue; fi
    code=0
    take_lock "$path" 0 || code=$?
    if ((code == 1)); then
      owner=$(sed -n 's/^owner //p' "$1") || return 10
      # Wait for the lock if the owner started this process (finish), or if the owner is dead and only a child still
      # holds the lock. A process that was killed just now still accepts signals, so give it a moment to disappear.
      if [[ $owner != "$PPID" ]] && ! ended "$owner" 6; then return 10; fi
      if ! take_lock "$path" 60; then
        say ERROR not_resumed "a child process of a dead run still holds the lock of volume ${1##*/}" "fuser -v $path shows the process; end it, then run: manage_volume.sh resume"
        return 75
      fi
    elif ((code)); then
      say ERROR not_resumed "cannot lock $path as $(id -un); containers of ${1##*/} are still stopped" 'run as root: manage_volume.sh resume'
      return 78
    fi
  done
}

# --- tar --------------------------------------------------------------------

# write_tar DIRECTORY: executes tar, which writes the directory to stdout.
write_tar() {
  LC_ALL=C mortal KILL "${tar_create[@]}" --directory="$1" .
}

# heed MODE CMD...: supervises tar, or a function that runs tar, and relays its messages from stderr. It sets $verdict
# to the exit status that follows from the messages: 73 for a full disk, 78 for missing permission, else 0. If MODE is
# strict, any other message gives 65.
heed() {
  local messages listener
  exec {messages}> >(relay "$1")
  listener=$!
  supervise "${@:2}" 2>&"$messages"
  exec {messages}>&-
  verdict=0
  wait "$listener" || verdict=$?
}

# relay MODE: prints the messages of tar, which it reads from stdin, and returns the verdict for heed.
relay() {
  local line level worst=0 shown=0
  # This process ends only after all processes that can write a message, and one of those may wait for the locks.
  drop_locks
  while IFS= read -r line; do
    line=${line#tar: } level=WARN
    case $line in
      'Exiting with failure status'* | *'Error is not recoverable'*) continue ;;
      *': socket ignored') level=DEBUG ;;
      *'No space left on device'* | *'Disk quota exceeded'* | *'Wrote only '*) worst=73 ;;
      *'Permission denied'* | *'Operation not permitted'*) if ((worst != 73)); then worst=78; fi ;;
      *) if [[ $1 == strict ]] && ((worst == 0)); then worst=65; fi ;;
    esac
    if [[ $level == WARN ]]; then shown=$((shown + 1)); fi
    if ((shown <= 20)); then say "$level" tar_message "volume ${volumes[0]}: $line"; fi
  done
  if ((shown > 20)); then say WARN tar_message "volume ${volumes[0]}: $((shown - 20)) more messages are not shown"; fi
  return "$worst"
}

# --- reading: export, with --------------------------------------------------

# begin_reading VOLUME...: locks the volumes, repairs what dead runs left, and stops or pauses the containers.
begin_reading() {
  local name directory
  begin "$@"
  resume_dead || :
  for name; do
    directory=${data_dir[$name]}
    if [[ ! -r $directory || ! -x $directory ]]; then unreadable "$directory"; fi
  done
  journal=$journals/$1
  supervise quiesce
  if ((status)); then exit "$status"; fi
  at_rest=yes
  report_kills
}

# export_volume VOLUME: implements `export`.
export_volume() {
  local directory
  takes 1 1 'export VOLUME >FILE' "$@"
  [[ ! -t 1 ]] || fail 64 usage 'export does not write a tar stream to a terminal' 'manage_volume.sh export VOLUME >FILE'
  begin_reading "$1"
  directory=${data_dir[$1]}
  if [[ -n ${UNLESS_TREE:-} && -z $killed ]]; then
    supervise print_tree "$directory"
    if ((status == 10)); then exit 0; fi
  fi
  heed lenient write_tar "$directory"
  case $status:$verdict in
    2:73) fail 73 output_failed 'cannot write the stream to stdout' 'make room on the file system that the stream is written to' ;;
    2:78) unreadable "$directory" ;;
    2:*) fail 69 read_failed "tar cannot read volume $1" 'the messages of tar before this one name the file; dmesg -l err shows a failing disk' ;;
  esac
  if ((status == 0)) && disturbed; then exit 1; fi
  exit "$status"
}

# print_tree DIRECTORY: writes the digest of the metadata of all files to descriptor 3, and returns 10 if the digest
# equals $UNLESS_TREE. In that case no file has changed since the digest was taken, even if a program has reset a file's
# length and modification time, because no program can set the time of an inode's change. A file that changed within the
# last second may change again within the same tick of the clock; such a file makes the digest different each time. No
# digest is written if a container runs or is paused, because it can change a mapped page without a trace, nor on file
# systems that are not known to update the change time for mapped files. Runs as a child.
print_tree() {
  local sum
  ask_users --quiet --filter status=running --filter status=paused --filter status=restarting || return 0
  if ((${#answer[@]})); then return 0; fi
  case $(stat -f -c %T "$1") in
    ext2/ext3 | xfs | btrfs) ;;
    *) return 0 ;;
  esac
  sum=$(
    {
      printf '%s\0' "${tar_create[@]}"
      mortal KILL find "$1" -newerct "@$((EPOCHSECONDS - 1))" -printf "$EPOCHREALTIME\\0" -o \
        -printf '%P\0%D %i %y %m %U %G %n %s %T@ %C@ %l\0'
    } | sha256sum
  ) 2>/dev/null || return 0
  sum=${sum%% *}
  { printf '%s\n' "$sum" >&3; } 2>/dev/null || return 0
  if [[ $sum == "$UNLESS_TREE" ]]; then return 10; fi
}

# with_volumes VOLUME... -- CMD...: implements `with`.
with_volumes() {
  local names=() paths=() name
  while (($#)) && [[ $1 != -- ]]; do
    names+=("$1")
    shift
  done
  if ((${#names[@]} == 0 || $# < 2)); then
    fail 64 usage 'with needs at least one volume, then -- and a command' 'manage_volume.sh with VOLUME... -- COMMAND'
  fi
  shift
  begin_reading "${names[@]}"
  paths=("VOLUME_PATH=${data_dir[${names[0]}]}")
  for name in "${names[@]}"; do paths+=("VOLUME_PATH_${#paths[@]}=${data_dir[$name]}"); done
  # supervise would give the command its own process group, in which it could not read from the terminal.
  run_command "${paths[@]}" "$@" <&0 &
  child=$!
  await_child
  disturbed || :
  exit "$status"
}

# run_command ARG...: executes env, which restores the default action of SIGINT and SIGQUIT. Bash ignores both signals
# in a background child.
run_command() {
  drop_locks
  mortal TERM env --default-signal=INT,QUIT "$@"
}

# --- writing: import --------------------------------------------------------

# import_volume [--stop] VOLUME: implements `import`. It unpacks beside the old content, in the directory of the volume,
# which the daemon ignores. Two renames exchange the contents. Until the second rename, undo_swap restores the old
# content.
import_volume() {
  local may_stop='' volume directory staging identical
  if [[ ${1:-} == --stop ]]; then
    may_stop=yes
    shift
  fi
  takes 1 1 'import [--stop] VOLUME <FILE' "$@"
  volume=$1
  [[ ! -t 0 ]] || fail 64 usage 'import does not read a tar stream from a terminal' 'manage_volume.sh import VOLUME <FILE'
  ((EUID == 0)) || fail 78 not_root 'only root can restore the owners of files' "sudo manage_volume.sh import $volume <FILE"
  check_name "$volume"
  need_local_docker
  if ! locate "$volume"; then
    query volume create "$volume" || explain "create volume $volume"
    created=$volume
  fi
  begin "$volume"
  directory=${data_dir[$volume]} staging=${data_dir[$volume]%/*}/$staging_name
  resume_dead || fail 75 import_interrupted 'the state that an earlier run left cannot be repaired' 'the messages before this one say why; then run as root: manage_volume.sh resume'
  refuse_mounts "$directory"
  look_at_users
  refuse_users "$may_stop"

  lock_claims
  write_journal "$journals/$volume" "$directory"
  journal=$journals/$volume
  unlock_claims
  rm -rf --one-file-system "$staging"
  mkdir -m 700 "$staging" "$staging/new" || fail 73 output_failed "cannot write to ${staging%/*}" "make room there: df -h ${staging%/*}"
  # An archive may have no entry for its root directory.
  chown --reference="$directory" "$staging/new"
  chmod --reference="$directory" "$staging/new"
  unpack "$staging" "volume $volume is unchanged"
  supervise compare "$staging" "volume $volume is unchanged"
  case $status in
    0) identical=true ;;
    10) identical=false ;;
    *) exit "$status" ;;
  esac
  supervise exchange "$directory" "$staging" "$may_stop"
  if ((status)); then exit "$status"; fi
  at_rest=yes created=
  emit imported "\"volume\":$(json "$volume"),\"identical\":$identical"
}

# refuse_mounts DIRECTORY: exits with an error if DIRECTORY is a symbolic link, or if something is mounted at it or in
# it. The mount would be moved away with the old content, and its files would be deleted.
refuse_mounts() {
  local directory=$1 field
  if [[ ! -d $directory || -L $directory ]]; then fail 65 volume_refused "$directory is not a directory; import cannot replace it"; fi
  while read -r _ _ _ _ field _; do
    printf -v field %b "$field" # a space is \040, see proc(5)
    if [[ $field/ == "$directory"/* ]]; then
      fail 65 volume_refused "something is mounted in the volume: $field" "unmount it: umount $field"
    fi
  done </proc/self/mountinfo
}

# refuse_users MAY_STOP: exits with an error if a container that uses the volume is running, unless it may be stopped
# and survives a stop. Paused containers, and containers that another run has stopped, are an error in any case.
refuse_users() {
  local id name
  for id in "${users[@]}"; do
    name=${container[$id.name]}
    if is_up "$id" && [[ -z $1 ]]; then
      fail 75 in_use "container $name uses volume ${volumes[0]}" 'stop it, or pass --stop'
    fi
    if [[ ${container[$id.state]} == paused ]] || { is_up "$id" && is_fragile "$id"; } || claimed "$id"; then
      fail 75 in_use "container $name uses volume ${volumes[0]} and cannot be stopped and started again" \
        'stop it by hand; it is paused, a --rm container, a swarm task, or another run has stopped it'
    fi
  done
}

# --- unpacking --------------------------------------------------------------

# unpack STAGING UNCHANGED: unpacks stdin into STAGING/new, and exits with an error if the stream is incomplete or tar
# fails. UNCHANGED is part of the hint.
unpack() {
  heed strict extract "$1"
  case $verdict:$status in
    0:0) ;;
    73:*) fail 73 output_failed 'no room for the new content beside the old' "make room on that file system; $2" ;;
    0:11) fail 65 import_refused 'the stream ends early: it has no end-of-archive mark' "$2" ;;
    0:12) fail 65 import_refused 'the stream continues after its end-of-archive mark' "$2; import one archive at a time" ;;
    0:13) fail 73 output_failed "cannot write to $1" "$2" ;;
    *) fail 65 import_refused 'tar cannot unpack the stream' "$2" ;;
  esac
}

# extract STAGING: runs tar on stdin. It writes the digest of the stream to STAGING/sum, and its numbers of entries and
# bytes to STAGING/entries. Returns 11 if the stream ends early, 12 if it continues after its end mark, 13 if a file
# cannot be written. Runs as a child.
extract() {
  local sum summer codes
  exec {sum}> >(drop_locks && exec b2sum >"$1/sum" 2>/dev/null)
  summer=$!
  set +e
  tee "/dev/fd/$sum" 2>/dev/null \
    | LC_ALL=C "${tar_extract[@]}" --warning=no-timestamp -vv --directory="$1/new" \
    | LC_ALL=C awk '
      $3 == "**" { if ($4 == "Block") zeros++; next }
      zeros { trailing = 1 }
      $3 !~ /^[dV]/ { entries++ }
      $3 ~ /^-/ { bytes += $5 }
      END { printf "%d %.0f\n", entries, bytes; exit trailing ? 12 : zeros < 2 ? 11 : 0 }' >"$1/entries" 2>/dev/null
  codes=("${PIPESTATUS[@]}")
  exec {sum}>&-
  wait "$summer" || return 13
  if ((codes[1])); then return 1; fi
  if ((codes[0])); then return 13; fi
  return "${codes[2]}"
}

# compare STAGING UNCHANGED: compares the unpacked files with the stream. It exits with an error if the numbers of
# entries or bytes differ. It returns 10 if tar, run on the unpacked files, does not write the same bytes as the stream,
# for example because another program made the stream. Runs as a child.
compare() {
  local unpacked again
  unpacked=$(find "$1/new" ! -type d -printf '%y %D:%i %s\n' | LC_ALL=C awk '
    { entries++ }
    $1 == "f" && !seen[$2]++ { bytes += $3 }
    END { printf "%d %.0f\n", entries, bytes }')
  if [[ $unpacked != "$(<"$1/entries")" ]]; then
    fail 65 import_refused "unpacked (entries, bytes): $unpacked; in the stream: $(<"$1/entries")" \
      "$2; a stream that has a name twice, as tar -r makes, cannot be compared: unpack it elsewhere, pack that directory with tar, and import the result"
  fi
  again=$(write_tar "$1/new" 2>/dev/null | b2sum)
  sync -f "$1/new"
  [[ $again == "$(<"$1/sum")" ]] || return 10
}

# exchange DIRECTORY STAGING MAY_STOP: stops the containers and exchanges the contents. Runs as a child.
exchange() {
  quiesce "$1" "$3"
  report_kills
  mv -T "$1" "$2/old"
  mv -T "$2/new" "$1"
  sync "${1%/*}"
}

# --- list -------------------------------------------------------------------

# list_volumes [--all]: implements `list`.
list_volumes() {
  # Count bytes, not characters.
  local LC_ALL=C all='' line names name driver directory options labels why
  if [[ ${1:-} == --all ]]; then
    all=yes
    shift
  fi
  takes 0 0 'list [--all]' "$@"
  need_docker
  local -A containers=() mounts=()
  list_mounts containers mounts
  query volume ls --quiet || explain 'list volumes'
  names=("${answer[@]}")
  if ((${#names[@]} == 0)); then return 0; fi
  # If a volume was removed since docker volume ls, docker prints the others and fails.
  query volume inspect --format $'{{.Name}}\t{{json .Driver}}\t{{json .Mountpoint}}\t{{json .Options}}\t{{json .Labels}}' "${names[@]}" \
    || [[ $trouble == refused ]] || explain 'inspect volumes'
  for line in "${answer[@]}"; do
    IFS=$'\t' read -r name driver directory options labels <<<"$line"
    if [[ -z $all && $labels == *'"hub.backup":"false"'* ]]; then continue; fi
    if [[ $labels == null ]]; then labels={}; fi
    if ((${#labels} > 30000)); then labels='{"truncated":"true"}'; fi # journald splits a line of more than 48 KiB
    line="\"volume\":\"$name\",\"driver\":$driver,\"mountpoint\":$directory,\"labels\":$labels"
    line+=",\"containers\":[${containers[$name]:-}],\"mounts\":[${mounts[$name]:-}]"
    if [[ $driver$options != '"local"null' ]]; then
      unquote driver directory
      why=$(refusal "$driver" "$directory" "$options")
      if [[ -n $why ]]; then line+=",\"refused\":$(json "it $why")"; fi
    fi
    emit volume "$line"
  done
}

# list_mounts CONTAINERS MOUNTS: fills two associative arrays of the caller. By volume, they hold the running containers
# that use it, and where these mount it, as JSON arrays without the brackets.
# shellcheck disable=SC2004 # the subscripts are strings
list_mounts() {
  local -n by_container=$1 by_mount=$2
  local line volume container destination
  query ps --quiet --no-trunc || explain 'list containers'
  if ((${#answer[@]} == 0)); then return 0; fi
  # shellcheck disable=SC2016 # a Go template
  # If a container was removed since docker ps, docker prints the others and fails.
  query inspect --type container --format \
    $'{{$name := .Name}}{{range .Mounts}}{{if eq .Type "volume"}}{{.Name}}\t{{json $name}}\t{{json .Destination}}\n{{end}}{{end}}' "${answer[@]}" || :
  for line in "${answer[@]}"; do
    IFS=$'\t' read -r volume container destination <<<"$line"
    if [[ -z $volume ]] || ((${#by_mount[$volume]} > 10000)); then continue; fi
    container=\"${container#\"/}
    by_container[$volume]+=${by_container[$volume]:+,}$container
    by_mount[$volume]+=${by_mount[$volume]:+,}"{\"container\":$container,\"destination\":$destination}"
  done
}

# --- the other commands -----------------------------------------------------

# create_volumes VOLUME...: implements `create`.
create_volumes() {
  local volume new
  takes 1 9999 'create VOLUME...' "$@"
  need_docker
  for volume; do check_name "$volume"; done
  for volume; do
    new=false
    if ! query volume inspect "$volume"; then
      is_gone volume "$volume" || explain "inspect volume $volume"
      query volume create "$volume" || explain "create volume $volume"
      new=true
    fi
    emit volume_created "\"volume\":$(json "$volume"),\"new\":$new"
  done
}

# resume: implements `resume`.
resume() {
  local unseen=''
  takes 0 0 resume "$@"
  # Without a named state directory a person means the unit's. If this user may not read it, resume must not look like a success.
  if [[ -z $state_dir${STATE_DIRECTORY:-} && -d $unit_state ]] && ! ls "$unit_state/quiesced" &>/dev/null \
    && [[ ! -x $unit_state || -e $unit_state/quiesced ]]; then
    unseen=$unit_state/quiesced
  fi
  open_state
  # Without a journal docker is not needed, and it may not be installed.
  if [[ -n $(all_journals) ]]; then need_docker; fi
  resume_dead
  if [[ -n $unseen ]]; then
    fail 1 permission_denied "cannot read the journals in $unseen, so containers that the unit stopped may be down" 'run it as root'
  fi
}

# volbackup ARG...: executes volbackup, which calls this script.
volbackup() {
  local tool
  if [[ $1 == restore ]]; then takes 2 9999 'restore VOLUME[@ID]' "$@"; fi
  tool=$(type -P volbackup) || fail 78 no_volbackup 'volbackup is not installed, or not in PATH' 'make install TOOLS=volbackup'
  if [[ -n $state_dir ]]; then export STATE_DIRECTORY=$state_dir; fi
  trap - EXIT
  exec "$tool" "$@"
}

# tar_directory DIR: implements `tar`.
tar_directory() {
  takes 1 1 'tar DIR >FILE' "$@"
  trap - EXIT
  write_tar "$1"
}

main() {
  local command signal
  while (($#)); do
    case $1 in
      --state-dir)
        (($# > 1)) || fail 64 usage '--state-dir needs a directory'
        state_dir=$2
        shift 2
        ;;
      --state-dir=*)
        state_dir=${1#*=}
        shift
        ;;
      -h | --help | help)
        usage || fail 73 output_failed 'cannot write the help'
        return 0
        ;;
      --version)
        echo "manage_volume.sh $version" || fail 73 output_failed 'cannot write the version'
        return 0
        ;;
      *) break ;;
    esac
  done
  trap finish EXIT
  for signal in TERM INT HUP; do
    # shellcheck disable=SC2064 # expand $signal now
    trap "on_signal $signal" "$signal"
  done
  command=${1:-}
  shift || :
  case $command in
    list) list_volumes "$@" ;;
    create) create_volumes "$@" ;;
    export) export_volume "$@" ;;
    import) import_volume "$@" ;;
    with) with_volumes "$@" ;;
    resume) resume "$@" ;;
    backup) volbackup run "$@" ;;
    restore) volbackup restore "$@" ;;
    tar) tar_directory "$@" ;;
    '') fail 64 usage 'no command' 'manage_volume.sh --help' ;;
    *) fail 64 usage "no such command: $command" 'manage_volume.sh --help' ;;
  esac
}

main "$@"
