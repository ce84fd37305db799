#!/usr/bin/env bats
# Tests manage_volume.sh with a real Docker daemon, which this file starts. The
# only image is a static busybox. Tests that kill the script at every step, and
# tests of the fidelity of archives, are in e2e/.
# shellcheck disable=SC2016 # expressions expand later, not here
# shellcheck disable=SC2154 # bats assigns stderr
# shellcheck disable=SC2031 # each test is a subshell
bats_require_minimum_version 1.5.0

setup_file() {
  daemon=$(mktemp -d /tmp/hub-docker-XXXXXX)
  chmod 755 "$daemon"
  bash "$BATS_TEST_DIRNAME/../../e2e/docker/daemon.sh" "$daemon" 3>&- >/dev/null 2>&1 &
  daemon_pid=$!
  until [ -S "$daemon/d.sock" ]; do
    kill -0 "$daemon_pid"
    sleep 0.05
  done
  # Where other users reach it too: the repository may be in /root.
  install -m 755 "$BATS_TEST_DIRNAME/../manage_volume.sh" "$daemon"
  export daemon daemon_pid DOCKER_HOST=unix://$daemon/d.sock
}

teardown_file() {
  kill "$daemon_pid"
  while [ -e "$daemon" ]; do sleep 0.05; done
  rm -f "$daemon.log"
}

setup() {
  script=$BATS_TEST_DIRNAME/../manage_volume.sh
  unset JOURNAL_STREAM
  cd "$BATS_TEST_TMPDIR" || return
  export STATE_DIRECTORY=$BATS_TEST_TMPDIR/state
  v=vol$BATS_TEST_NUMBER
  data=$daemon/data/volumes/$v/_data
  docker volume create "$v" >/dev/null
}

teardown() {
  local all
  all=$(docker ps --all --quiet)
  # shellcheck disable=SC2086 # the words are the ids
  [ -z "$all" ] || docker rm --force --volumes $all >/dev/null
  all=$(docker volume ls --quiet)
  # shellcheck disable=SC2086
  [ -z "$all" ] || docker volume rm --force $all >/dev/null
}

# container NAME [DOCKER-OPTION…]: starts a container that uses the volume and stops on SIGTERM.
container() {
  local name=$1
  shift
  docker run --detach --network none --name "$name" --volume "$v:/data" "$@" busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
}

# is STATE NAME…: fails unless all these containers are in that state.
is() {
  local want=$1 name got
  shift
  for name in "$@"; do
    got=$(docker inspect --format '{{.State.Status}}' "$name")
    [ "$got" = "$want" ] || {
      echo "$name is $got, not $want"
      return 1
    }
  done
}

# await CONDITION…: waits until the command succeeds, for 15 seconds at most.
await() {
  local try
  for ((try = 0; try < 300; try++)); do
    if "$@"; then return; fi
    sleep 0.05
  done
  echo "timed out waiting for: $*"
  return 1
}

# instead_of PROGRAM TEXT: writes a bash script with TEXT to bin/PROGRAM. In it $REAL is the path of the real program. Each
# call adds a line to the file "calls".
instead_of() {
  mkdir -p bin
  printf '#!/bin/bash\nREAL=%q\necho >>%q\n%s\n' "$(type -P "$1")" "$BATS_TEST_TMPDIR/calls" "$2" >"bin/$1"
  chmod +x "bin/$1"
}

# said JQ: fails unless the expression is true for a diagnostic on stderr.
said() {
  jq -se "any($1)" <<<"$stderr" >/dev/null || {
    echo "no diagnostic matches: $1"
    echo "$stderr"
    return 1
  }
}

# nothing_left: fails unless all journals, staging directories and temporary files are removed. The conditions are joined
# with &&, because set -e is off when await calls this function.
nothing_left() {
  [ -z "$(find "$STATE_DIRECTORY" -type f)" ] \
    && [ -z "$(find "$daemon/data/volumes" -name '.hub-*')" ]
}

# --- list, create ---

@test "list prints a record for each volume, with its running containers" {
  docker volume create --label tier=db "$v-b" >/dev/null
  container one
  container two --volume "$v-b:/more"
  docker create --name idle --volume "$v:/data" busybox true >/dev/null
  run -0 --separate-stderr "$script" list
  jq -se --arg v "$v" 'map(select(.volume == $v)) | length == 1 and (.[0] | .level == "INFO" and .msg == "volume"
    and .service == "volume-backup" and .driver == "local" and (.mountpoint | endswith($v + "/_data"))
    and .labels == {} and (.containers | sort) == ["one", "two"])' <<<"$output"
  jq -se --arg v "$v-b" 'map(select(.volume == $v))[0] | .labels == {"tier": "db"} and .containers == ["two"]' <<<"$output"
  jq -se 'all(.time | test("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$"))' <<<"$output"
}

@test "list leaves out volumes with the label hub.backup=false, unless --all" {
  docker volume create --label hub.backup=false "$v-scratch" >/dev/null
  run -0 --separate-stderr "$script" list
  [[ $output != *"$v-scratch"* ]]
  run -0 --separate-stderr "$script" list --all
  [[ $output == *"$v-scratch"* ]]
}

@test "list says where containers mount a volume, which distinguishes two anonymous volumes" {
  docker run --detach --network none --name one --volume /data/db --volume "$v:/a \"b\"" --volume /data/config busybox sleep 1000 >/dev/null
  run -0 --separate-stderr "$script" list
  jq -se '[.[] | select(.volume | length == 64) | .mounts] | sort == [[{"container": "one", "destination": "/data/config"}],
    [{"container": "one", "destination": "/data/db"}]]' <<<"$output"
  jq -se --arg v "$v" '.[] | select(.volume == $v) | .mounts == [{"container": "one", "destination": "/a \"b\""}]' <<<"$output"
}

@test "list says why a volume cannot be read, and prints no password" {
  docker volume create --opt type=none --opt o=bind --opt device=/srv/data "$v-bind" >/dev/null
  docker volume create --opt type=cifs --opt o=username=hub,password=s3cret --opt device=//nas/x "$v-cifs" >/dev/null
  docker volume create --opt type=tmpfs --opt device=tmpfs "$v-tmpfs" >/dev/null
  docker volume create --opt o=size=1g "$v-size" >/dev/null 2>&1 || docker volume create "$v-size" >/dev/null # needs xfs with quotas
  run -0 --separate-stderr "$script" list
  [ "$(jq -r 'select(.refused) | .volume + ": " + .refused' <<<"$output" | sort)" = "$v-bind: it is a mount of /srv/data, type none
$v-cifs: it is a mount of //nas/x, type cifs
$v-tmpfs: it is a mount of tmpfs, type tmpfs" ]
  [[ $output != *s3cret* ]]
  run -65 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v-cifs"
  [[ $stderr != *s3cret* ]]
}

@test "list prints nothing when there is no volume" {
  docker volume rm "$v" >/dev/null
  run -0 --separate-stderr "$script" list
  [ -z "$output$stderr" ]
}

@test "list to a full disk fails" {
  run -73 --separate-stderr bash -c '"$0" list >/dev/full' "$script"
  said '.msg == "output_failed"'
}

@test "create creates missing volumes, and does not change existing ones" {
  echo old >"$data/file"
  run -0 --separate-stderr "$script" create "$v" "$v-new"
  [ "$(jq -c '[.msg, .volume, .new]' <<<"$output")" = '["volume_created","'"$v"'",false]
["volume_created","'"$v"'-new",true]' ]
  [ "$(cat "$data/file")" = old ]
  docker volume inspect "$v-new" >/dev/null
}

# --- export ---

@test "export writes a tar stream of the volume" {
  mkdir "$data/dir"
  echo hello >"$data/dir/file"
  run -0 --separate-stderr bash -c '"$0" export "$1" | tar -xO ./dir/file' "$script" "$v"
  [ "$output" = hello ]
  [ -z "$stderr" ]
}

@test "export of an unchanged volume gives the same bytes" {
  mkdir "$data"/{b,a,c}
  touch "$data"/a/{3,1,2}
  ln "$data/a/1" "$data/c/link"
  truncate -s 1M "$data/sparse"
  printf x | dd of="$data/sparse" bs=1 seek=500000 conv=notrunc status=none
  "$script" export "$v" >one.tar
  "$script" export "$v" >two.tar
  cmp one.tar two.tar
}

@test "tar writes the same bytes for a directory as export for a volume" {
  mkdir "$data/dir"
  truncate -s 1M "$data/dir/sparse"
  "$script" export "$v" >one.tar
  TAR_OPTIONS=--exclude=dir "$script" tar "$data" >two.tar
  cmp one.tar two.tar
}

# settled DIRECTORY…: succeeds if the last change is older than two seconds, so that another change gives a new tree.
settled() { [ -z "$(find "$@" -newerct "@$((EPOCHSECONDS - 2))")" ]; }

# tree VOLUME: prints the digest of the tree, which export writes to descriptor 3.
tree() { UNLESS_TREE=- "$script" export "$1" 3>&1 >/dev/null; }

@test "export writes nothing to stdout if the volume still has the tree in UNLESS_TREE" {
  container one
  echo hello >"$data/file"
  await settled "$data"
  local known
  known=$(tree "$v")
  [[ $known =~ ^[0-9a-f]{64}$ ]]
  run -0 --separate-stderr env UNLESS_TREE="$known" bash -c '"$0" export "$1" 3>told | wc -c' "$script" "$v"
  [ "$output" = 0 ]
  [ "$(cat told)" = "$known" ]
  is running one
  nothing_left
  UNLESS_TREE=${known//[0-9]/0} "$script" export "$v" 3>told >out.tar
  tar -tf out.tar ./file
  [ "$(cat told)" = "$known" ]
}

@test "every change gives another tree, even if a file keeps its length and its times" {
  local changes=(
    'touch -r file ref; printf HELLO >file; touch -r ref file; rm ref' # the times of the directory change too
    'printf HELLO | dd of=file conv=notrunc status=none; touch -d @1000000000 file'
    'chmod 600 file' 'chown 5 file' 'chgrp 5 file' 'touch file' 'touch -h link' 'ln -nsf other link'
    'setfattr -n user.a -v b file' 'setfacl -m u:7:r file' 'mv file file2' 'rm empty' 'touch more' 'ln file more' 'mknod pipe p'
    'chmod 700 .' 'chown 5 .' 'python3 -c "import mmap; f = open(\"file\", \"r+b\"); m = mmap.mmap(f.fileno(), 5); m[0] = 72; m.flush()"'
  )
  local i before=() after
  for i in "${!changes[@]}"; do
    docker volume create "$v-$i" >/dev/null
    (cd "$daemon/data/volumes/$v-$i/_data" && printf hello >file && touch -d @1000000000 file && touch empty && ln -s file link)
  done
  await settled "$daemon"/data/volumes/"$v"-*/
  for i in "${!changes[@]}"; do before[i]=$(tree "$v-$i"); done
  # Without a change the tree stays the same.
  [ "$(tree "$v-0")" = "${before[0]}" ]
  for i in "${!changes[@]}"; do (cd "$daemon/data/volumes/$v-$i/_data" && eval "${changes[i]}"); done
  await settled "$daemon"/data/volumes/"$v"-*/
  for i in "${!changes[@]}"; do
    after=$(tree "$v-$i")
    [[ $after =~ ^[0-9a-f]{64}$ ]]
    [ "$after" != "${before[i]}" ] || {
      echo "the tree is unchanged after: ${changes[i]}"
      return 1
    }
  done
}

@test "a file that changed just now gives a different tree each time" {
  local one two
  until touch "$data/file" && one=$(tree "$v") && two=$(tree "$v") && ! settled "$data"; do :; done
  [[ $one =~ ^[0-9a-f]{64}$ ]]
  [ "$one" != "$two" ]
}

@test "export writes no tree while something can write to the volume" {
  local mode
  await settled "$data"
  for mode in pause none; do
    container "$mode" --label "hub.backup.quiesce=$mode"
    UNLESS_TREE=- "$script" export "$v" 3>told >out.tar
    tar -tf out.tar
    [ ! -s told ]
    docker rm --force "$mode"
  done
  [ -n "$(tree "$v")" ]
  # A mapped file of a tmpfs changes without a trace.
  mount -t tmpfs tmpfs "$data"
  run bash -c 'UNLESS_TREE=- "$0" export "$1" 3>told >out.tar' "$script" "$v"
  umount "$data"
  [ "$status" -eq 0 ]
  tar -tf out.tar
  [ ! -s told ]
}

@test "export with UNLESS_TREE works if descriptor 3 is closed" {
  UNLESS_TREE=- "$script" export "$v" 3>&- >out.tar
  tar -tf out.tar
}

@test "containers are stopped while the volume is read, and started again afterwards" {
  container one
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.Names}} {{.State}}'
  [ "$output" = 'one exited' ]
  is running one
  nothing_left
}

@test "hub.backup.quiesce=pause pauses the container" {
  container one --label hub.backup.quiesce=pause
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.Names}} {{.State}}'
  [ "$output" = 'one paused' ]
  is running one
}

@test "hub.backup.quiesce=none leaves the container alone" {
  container one --label hub.backup.quiesce=none
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.Names}} {{.State}}'
  [ "$output" = 'one running' ]
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
}

@test "an unknown hub.backup.quiesce is refused before a container is stopped" {
  container one --label hub.backup.quiesce=freeze
  run -78 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "bad_label" and (.error | contains("freeze"))'
  is running one
}

@test "hub.backup.exec runs in the container before it is stopped" {
  container one --label 'hub.backup.exec=echo "dumped by $HOSTNAME" >/data/dump'
  run -0 --separate-stderr bash -c '"$0" export "$1" | tar -xO ./dump' "$script" "$v"
  [[ $output == 'dumped by '* ]]
  is running one
}

@test "a hub.backup.exec can have many lines, and lines that begin with an exclamation mark" {
  container one --label hub.backup.exec=$'! test -e /data/absent\n\necho ".dumped" >/data/dump\n! false'
  run -0 --separate-stderr bash -c '"$0" export "$1" | tar -xO ./dump' "$script" "$v"
  [ "$output" = .dumped ]
  docker rm --force one >/dev/null
  container two --label hub.backup.exec='! true'
  run -69 --separate-stderr bash -c '"$0" export "$1" >out.tar' "$script" "$v"
  said '.msg == "exec_failed"'
}

@test "if a hub.backup.exec fails, the export fails and no container is stopped" {
  container one --label 'hub.backup.exec=echo no space; exit 3'
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -69 --separate-stderr bash -c '"$0" export "$1" | wc -c; exit "${PIPESTATUS[0]}"' "$script" "$v"
  [ "$output" -eq 0 ]
  said '.msg == "exec_failed" and (.error | contains("status 3: no space"))'
  is running one
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
}

@test "the output of a hub.backup.exec is not written to the stream" {
  container one --label 'hub.backup.exec=echo noise; echo more >&2'
  "$script" export "$v" >out.tar 2>err
  tar -tf out.tar
  [ ! -s err ]
}

@test "a container that was stopped before the export stays stopped" {
  container one
  container two
  docker stop two >/dev/null
  docker create --name never --volume "$v:/data" busybox true >/dev/null
  "$script" export "$v" >/dev/null
  is running one
  is exited two
  is created never
}

@test "a container that was paused before the export stays paused" {
  container one
  docker pause one
  "$script" export "$v" >/dev/null
  is paused one
}

@test "containers of a compose project are stopped and started like other containers" {
  container hub-db-1 --label com.docker.compose.project=hub --label com.docker.compose.service=db --restart unless-stopped
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.State}}'
  [ "$output" = exited ]
  is running hub-db-1
}

@test "a restart policy does not start the container while the volume is read, and is unchanged afterwards" {
  container one --restart always
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.State}}'
  [ "$output" = exited ]
  is running one
  [ "$(docker inspect --format '{{.HostConfig.RestartPolicy.Name}}' one)" = always ]
}

@test "a --rm container is paused, because a stop would remove it" {
  container one --rm
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.State}}'
  [ "$output" = paused ]
  said '.msg == "pause_instead"'
  is running one
}

@test "how long the containers were down is said to a caller that asks" {
  container one
  SAY_DOWNTIME=yes run -0 --separate-stderr "$script" with "$v" -- sleep 0.5
  said '.msg == "containers_up" and .downtime_s >= 0.5 and .downtime_s < 60'
  docker stop one >/dev/null
  SAY_DOWNTIME=yes run -0 --separate-stderr "$script" with "$v" -- true
  [ -z "$stderr" ]
}

@test "a container that is removed during the run is reported, and the others are started again" {
  container one
  container two
  run -0 --separate-stderr "$script" with "$v" -- docker rm one
  said '.msg == "container_gone" and (.detail | contains("one"))'
  is running two
  nothing_left
}

@test "a container that is started while the volume is read makes it inconsistent" {
  container one
  mkfifo gate
  "$script" export "$v" >gate 2>err &
  # The reader blocks tar. The volume must be larger than the pipe.
  exec 7<gate
  head -c 1000000 /dev/urandom >"$data/big"
  await is exited one
  docker start one >/dev/null
  cat <&7 >/dev/null
  local status=0
  wait $! || status=$?
  [ "$status" -eq 1 ]
  jq -e 'select(.msg == "started_meanwhile")' err
}

@test "a file that changes while it is read gives status 1 and a complete stream" {
  head -c 3000000 /dev/urandom >"$data/big"
  mkfifo gate
  "$script" export "$v" >gate 2>err &
  exec 7<gate
  head -c 100000 <&7 >out.tar
  echo more >>"$data/big"
  cat <&7 >>out.tar
  local status=0
  wait $! || status=$?
  [ "$status" -eq 1 ]
  tar -tf out.tar
  jq -e 'select(.msg == "tar_message" and (.detail | contains("changed")))' err
}

@test "a container that Docker has to kill is reported in each run, and the export is not consistent" {
  docker run --detach --network none --name deaf --stop-timeout 1 --volume "$v:/data" busybox sleep 1000 >/dev/null
  local try
  await settled "$data"
  for try in 1 2; do
    UNLESS_TREE=- run -1 --separate-stderr bash -c '"$0" export "$1" 3>told | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
    said '.msg == "container_killed" and .level == "WARN" and .container == "deaf" and .volume == "'"$v"'"'
    # Without a tree the next run must read the volume, and prints the warning again.
    [ ! -s told ]
    is running deaf
  done
  run -0 --separate-stderr "$script" with "$v" -- true
  said '.msg == "container_killed"'
}

# compose SERVICE DEPENDS [DOCKER-OPTION…]: starts a container of the compose project "hub" that uses the volume.
compose() {
  local service=$1 depends=$2
  shift 2
  docker run --detach --network none --name "hub-$service-1" --volume "$v:/data" --label com.docker.compose.project=hub \
    --label "com.docker.compose.service=$service" --label "com.docker.compose.depends_on=$depends" "$@" busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
}

# order EVENT: prints the containers in the order in which they had the event, since the file "began" was made.
order() {
  docker events --since "$(stat -c %.9Y began)" --until "${EPOCHREALTIME/,/.}" --filter "event=$1" --format '{{.Actor.Attributes.name}}' | tr '\n' ' '
}

@test "dependants are stopped first and started last" {
  compose web app:service_started:true
  compose app db:service_healthy:false,cache:service_started:true
  compose db ''
  compose cache ''
  # This container belongs to another project, which has services with the same names. It also depends on a missing service.
  docker run --detach --network none --name other-db-1 --volume "$v:/data" --label com.docker.compose.project=other \
    --label com.docker.compose.service=db --label com.docker.compose.depends_on=app:service_started:true,lost:service_started:true busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
  touch began
  "$script" export "$v" >out.tar
  is running hub-web-1 hub-app-1 hub-db-1 hub-cache-1 other-db-1
  # Both of what app needs, in any order.
  [[ $(order die) =~ hub-web-1\ .*hub-app-1\ .*hub-(db|cache)-1\ .*hub-(db|cache)-1 ]]
  [[ $(order start) =~ hub-(db|cache)-1\ .*hub-(db|cache)-1\ .*hub-app-1\ .*hub-web-1 ]]
}

@test "services that depend on each other in a circle, or on themselves, are stopped and started" {
  compose one two:service_started:true
  compose two one:service_started:true,two:service_started:true
  "$script" export "$v" >out.tar
  is running hub-one-1 hub-two-1
  nothing_left
}

@test "a dependant with the condition service_healthy starts when its service is healthy" {
  compose db '' --health-cmd 'test -e /data/ready' --health-interval 100ms --health-start-period 60s
  compose app db:service_healthy:false
  touch began
  "$script" with "$v" -- true &
  await is running hub-db-1
  until [ -n "$(order die)" ] && [ "$(docker inspect --format '{{.State.Status}}' hub-db-1)" = running ]; do :; done
  is exited hub-app-1
  touch "$data/ready"
  wait $!
  is running hub-app-1
  # The same applies to resume after a kill.
  rm "$data/ready"
  killed_run
  "$script" resume &
  await is running hub-db-1
  is exited hub-app-1
  touch "$data/ready"
  wait $!
  is running hub-app-1
  nothing_left
}

@test "export to a full disk exits with status 73, and containers run" {
  container one
  run -73 --separate-stderr bash -c '"$0" export "$1" >/dev/full' "$script" "$v"
  said '.msg == "output_failed"'
  is running one
}

@test "export dies of SIGPIPE without a message when its reader exits, and containers run" {
  container one
  head -c 3000000 /dev/urandom >"$data/big"
  run -141 --separate-stderr bash -c '"$0" export "$1" | head -c 1 >/dev/null; exit "${PIPESTATUS[0]}"' "$script" "$v"
  [ -z "$stderr" ]
  is running one
}

@test "if the state directory cannot be written, no container is stopped" {
  container one
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -73 --separate-stderr bash -c '"$0" --state-dir /proc/nowhere export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "state_unwritable"'
  is running one
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
}

@test "export and import pull no image and create no container" {
  container one
  local before
  before=$(docker ps --all --quiet --no-trunc && docker images --quiet)
  "$script" export "$v" >out.tar
  "$script" import --stop "$v" <out.tar
  [ "$(docker ps --all --quiet --no-trunc && docker images --quiet)" = "$before" ]
}

@test "export ignores TAR_OPTIONS of the caller" {
  echo hello >"$data/file"
  TAR_OPTIONS=--exclude=file "$script" export "$v" >out.tar
  tar -tf out.tar ./file
}

# --- concurrent runs ---

@test "a second run on the same volume exits with status 75" {
  container one
  "$script" with "$v" -- sh -c 'touch begun; while [ ! -e end ]; do sleep 0.05; done' &
  await test -e begun
  run -75 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "locked"'
  touch end
  wait $!
  is running one
}

@test "a container with two volumes is started when the last of two runs ends" {
  docker volume create "$v-b" >/dev/null
  container one --volume "$v-b:/more"
  "$script" with "$v" -- sh -c 'touch begun1; while [ ! -e end1 ]; do sleep 0.05; done' &
  local first=$!
  await test -e begun1
  "$script" with "$v-b" -- sh -c 'touch begun2; while [ ! -e end2 ]; do sleep 0.05; done' &
  local second=$!
  await test -e begun2
  touch end1
  wait "$first"
  is exited one
  touch end2
  wait "$second"
  is running one
  nothing_left
}

@test "a paused container with two volumes is unpaused when the last of two runs ends" {
  docker volume create "$v-b" >/dev/null
  container one --volume "$v-b:/more" --label hub.backup.quiesce=pause
  "$script" with "$v" -- sh -c 'touch begun1; while [ ! -e end1 ]; do sleep 0.05; done' &
  local first=$!
  await test -e begun1
  "$script" with "$v-b" -- sh -c 'touch begun2; while [ ! -e end2 ]; do sleep 0.05; done' &
  local second=$!
  await test -e begun2
  touch end1
  wait "$first"
  is paused one
  touch end2
  wait "$second"
  is running one
}

# --- killed runs ---

@test "resume starts containers that a killed run left down, and a second resume starts none" {
  container one
  container two --label hub.backup.quiesce=pause
  "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
  is exited one
  is paused two
  run -0 --separate-stderr "$script" resume
  [ -z "$output$stderr" ]
  is running one two
  nothing_left
  docker stop two >/dev/null
  run -0 "$script" resume
  is exited two
}

@test "containers are started again even if the warning about a removed one cannot be written" {
  container one
  container two
  mkfifo err
  exec 7<>err
  "$script" with "$v" -- sh -c 'docker rm one >/dev/null; touch ready; exec sleep 1000' 2>err 7<&- &
  await test -e ready
  exec 7<&- # as when volbackup is killed
  kill $!
  wait $! || :
  await is running two
  await nothing_left
}

@test "when the run is killed, tar is killed too, and the stream is incomplete" {
  head -c 3000000 /dev/urandom >"$data/big"
  mkfifo gate
  "$script" export "$v" >gate &
  exec 7<gate
  head -c 100000 <&7 >out.tar
  kill -KILL $!
  wait $! || true
  cat <&7 >>out.tar
  run -2 tar -tf out.tar
}

@test "the next run on another volume resumes a killed run" {
  container one
  docker volume create "$v-b" >/dev/null
  "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
  "$script" export "$v-b" >/dev/null
  is running one
}

# happened EVENT: succeeds if a container has had the event since the file "began" was made.
happened() { [ -n "$(order "$1")" ]; }

@test "if a run is killed while Docker stops a container, resume waits for the stop" {
  docker run --detach --network none --name slow --stop-timeout 6 --volume "$v:/data" busybox sleep 1000 >/dev/null
  touch began
  "$script" export "$v" >/dev/null &
  await happened kill
  kill -KILL $!
  wait $! || true
  is running slow
  [ -z "$(order die)" ]
  "$script" resume
  # The stop has completed, and the container was started after it.
  [ "$(order die)" = 'slow ' ]
  is running slow
  nothing_left
}

@test "resume reads journals of an earlier version, which lack the field HEALTHY" {
  container one
  container two --label hub.backup.quiesce=pause
  killed_run
  [ "$(grep -c ' no$' "$STATE_DIRECTORY/quiesced/$v")" -eq 2 ]
  sed -i 's/ no$//' "$STATE_DIRECTORY/quiesced/$v"
  "$script" resume
  is running one two
  nothing_left
}

@test "a container that was removed after the kill is reported by resume" {
  container one
  "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
  docker rm one >/dev/null
  run -0 --separate-stderr "$script" resume
  said '.msg == "container_gone"'
  nothing_left
}

@test "a container that cannot be started again is reported, and stays in the journal for the next resume" {
  mkdir "$BATS_TEST_TMPDIR/bound"
  container one --mount "type=bind,source=$BATS_TEST_TMPDIR/bound,target=/bound"
  run -0 --separate-stderr "$script" with "$v" -- rmdir "$BATS_TEST_TMPDIR/bound"
  said '.msg == "not_resumed" and .level == "ERROR"'
  run -69 --separate-stderr "$script" resume
  mkdir "$BATS_TEST_TMPDIR/bound"
  run -0 --separate-stderr "$script" resume
  is running one
  nothing_left
}

@test "on SIGTERM, SIGINT and SIGHUP the containers are started, and the run dies of the signal" {
  container one
  local signal
  for signal in TERM INT HUP; do
    rm -f begun
    env --default-signal=INT "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
    await test -e begun
    kill -s "$signal" $!
    local status=0
    wait $! || status=$?
    [ "$status" -eq $((128 + $(kill -l "$signal"))) ]
    # On a slow host Docker takes longer than the five seconds of the run.
    await is running one
    await nothing_left
  done
}

@test "SIGTERM, SIGINT and SIGHUP end an export whose stream is not read" {
  container one
  head -c 1000000 /dev/zero >"$data/file"
  mkfifo stream
  local signal reader
  for signal in TERM INT HUP; do
    sleep 1000 <stream &
    reader=$!
    env --default-signal=INT "$script" export "$v" >stream &
    await is exited one
    kill -s "$signal" $!
    local status=0
    wait $! || status=$?
    [ "$status" -eq $((128 + $(kill -l "$signal"))) ]
    await is running one
    await nothing_left
    kill "$reader"
  done
}

@test "on SIGTERM while Docker stops a slow container, the run ends and a background process starts the container" {
  docker run --detach --network none --name slow --stop-timeout 7 --volume "$v:/data" busybox sleep 1000 >/dev/null
  "$script" export "$v" >/dev/null 2>err &
  await test -e "$STATE_DIRECTORY/quiesced/$v"
  SECONDS=0
  kill -TERM $!
  local status=0
  wait $! || status=$?
  [ "$status" -eq 143 ]
  [ "$SECONDS" -lt 5 ]
  jq -e 'select(.msg == "still_resuming")' err
  await test ! -e "$STATE_DIRECTORY/quiesced/$v"
  is running slow
}

# --- containers that a killed run leaves down ---

# killed_run [ENV…]: starts a run with that environment, and kills it with SIGKILL while the containers are down.
killed_run() {
  rm -f begun
  env "$@" "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
}

# on_a_host COMMAND…: runs a command as root by hand would, on a host that has the unit's state directory
# /var/lib/volume-backup. It is the directory "unit" here.
on_a_host() {
  mkdir -p unit home
  env -u STATE_DIRECTORY -u XDG_STATE_HOME HOME="$PWD/home" \
    unshare --mount bash -c 'mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/volume-backup; mount --bind unit /var/lib/volume-backup; exec "$@"' - "$@"
}

@test "resume, export and with by hand start containers that the unit left down, and then remove the journal" {
  container one
  container two --label hub.backup.quiesce=pause
  local command
  mkdir unit
  for command in resume "export $v" "with $v -- true"; do
    killed_run STATE_DIRECTORY="$PWD/unit"
    is exited one
    is paused two
    [ -e "unit/quiesced/$v" ]
    # shellcheck disable=SC2086 # the words are the arguments
    on_a_host "$script" $command >out.tar
    is running one two
    [ -z "$(ls unit/quiesced)" ]
  done
  "$script" export "$v" >out.tar
  killed_run STATE_DIRECTORY="$PWD/unit"
  on_a_host "$script" import --stop "$v" <out.tar
  is running one
  # If two were still paused, the import would be refused.
  is running two
  [ -z "$(ls unit/quiesced)" ]
}

@test "the unit starts containers that a run by hand left down, whichever state directory that run used" {
  container one
  mkdir unit
  on_a_host "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL "$(sed -n 's/^owner //p' "unit/quiesced/$v")"
  wait $! || true
  is exited one
  # A run by root uses the unit's directory, so the unit finds the journal.
  [ -e "unit/quiesced/$v" ]
  STATE_DIRECTORY=$PWD/unit "$script" resume
  is running one
  # An earlier version wrote its journal to the home directory.
  killed_run STATE_DIRECTORY="$PWD/home/.local/state/volume-backup"
  on_a_host "$script" resume
  is running one
  [ -z "$(ls home/.local/state/volume-backup/quiesced)" ]
}

@test "after two dead runs on one volume with two state directories, resume starts the containers of both" {
  container one
  container two
  killed_run STATE_DIRECTORY="$PWD/unit"
  docker start two >/dev/null
  mkdir -p state/quiesced
  sed '/ one /d' "unit/quiesced/$v" >"state/quiesced/$v"
  [ "$(grep -c ' one ' "unit/quiesced/$v")" -eq 1 ]
  [ "$(grep -c ' two ' "state/quiesced/$v")" -eq 1 ]
  docker stop two >/dev/null
  on_a_host "$script" --state-dir "$PWD/state" resume
  is running one two
  [ -z "$(find unit state -type f)" ]
}

@test "files that root writes to the unit's directory by hand belong to the owner of the directory" {
  container one
  mkdir unit
  chown 4321:4321 unit
  on_a_host "$script" with "$v" -- stat -c %u unit/quiesced "unit/quiesced/$v" >owners
  [ "$(cat owners)" = $'4321\n4321' ]
}

@test "the journal of a container that cannot be started survives the next run on the same volume" {
  mkdir "$BATS_TEST_TMPDIR/bound"
  container one --mount "type=bind,source=$BATS_TEST_TMPDIR/bound,target=/bound"
  container two
  killed_run
  rmdir "$BATS_TEST_TMPDIR/bound"
  run -69 --separate-stderr "$script" resume
  is running two
  "$script" export "$v" >out.tar
  [ -e "$STATE_DIRECTORY/quiesced/$v" ]
  mkdir "$BATS_TEST_TMPDIR/bound"
  run -0 --separate-stderr "$script" resume
  is running one two
  nothing_left
}

@test "a container that exits with an error as soon as it is started is reported, and the journal stays" {
  docker run --detach --network none --name one --volume "$v:/data" busybox \
    sh -c '[ ! -e /data/broken ] || exit 7; trap exit TERM; sleep 1000 & wait' >/dev/null
  killed_run
  touch "$data/broken"
  run -69 --separate-stderr "$script" resume
  said '.msg == "not_resumed" and (.error | contains("container one"))'
  [ -e "$STATE_DIRECTORY/quiesced/$v" ]
  rm "$data/broken"
  run -0 "$script" resume
  is running one
  nothing_left
}

@test "a container that exits with status 0 after the start is not started again and again" {
  docker run --detach --network none --name job --volume "$v:/data" busybox \
    sh -c '[ ! -e /data/over ] || exit 0; trap exit TERM; sleep 1000 & wait' >/dev/null
  killed_run
  touch "$data/over"
  run -0 --separate-stderr "$script" resume
  is exited job
  nothing_left
}

@test "resume starts a container that was renamed, and ignores a new container that has the name of a removed one" {
  container one
  container two
  killed_run
  docker rename one other
  docker rm two >/dev/null
  docker create --name two --volume "$v:/data" busybox true >/dev/null
  run -0 --separate-stderr "$script" resume
  said '.msg == "container_gone" and (.detail | contains("two"))'
  is running other
  is created two
  nothing_left
}

@test "a journal that this user cannot read is reported" {
  container one
  # shellcheck disable=SC2030 # for this test alone
  STATE_DIRECTORY=$daemon/readable
  mkdir -m 777 "$STATE_DIRECTORY"
  killed_run
  chmod 777 "$STATE_DIRECTORY/quiesced"
  chmod 600 "$STATE_DIRECTORY/quiesced/$v"
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker "$daemon/manage_volume.sh" resume
  said '.msg == "not_resumed" and (.error | contains("cannot read"))'
  "$script" resume
  is running one
}

# --- with ---

@test "with passes on the mount point, stdin, stdout and the exit status" {
  run -7 --separate-stderr bash -c 'echo input | "$0" with "$1" -- sh -c "cat; echo \$VOLUME_PATH; exit 7"' "$script" "$v"
  [ "$output" = $'input\n'"$data" ]
  [ -z "$stderr" ]
}

@test "with exits as a shell does if its command dies of a signal or does not exist" {
  run -137 --separate-stderr "$script" with "$v" -- sh -c 'kill -KILL $$'
  run -127 --separate-stderr "$script" with "$v" -- no-such-command
}

@test "with forwards SIGTERM and lets the command clean up" {
  "$script" with "$v" -- bash -c 'trap "kill \$!; echo cleared up >done; exit 3" TERM; sleep 1000 & touch begun; wait' &
  await test -e begun
  kill -TERM $!
  local status=0
  wait $! || status=$?
  [ "$status" -eq 143 ]
  [ "$(cat 'done')" = 'cleared up' ]
}

# --- several volumes ---

@test "with on several volumes stops each container once, and passes every mount point" {
  docker volume create "$v-b" >/dev/null
  docker volume create "$v-c" >/dev/null
  container one --volume "$v-b:/data/nested"
  docker run --detach --network none --name two --volume "$v-c:/data" busybox sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
  touch began
  run -0 --separate-stderr "$script" with "$v-c" "$v" "$v-b" -- sh -c 'docker ps --quiet; echo "$VOLUME_PATH $VOLUME_PATH_1 $VOLUME_PATH_2 $VOLUME_PATH_3"'
  [ "$output" = "${data/$v/$v-c} ${data/$v/$v-c} $data ${data/$v/$v-b}" ]
  is running one two
  [ "$(docker events --since "$(stat -c %.9Y began)" --until "${EPOCHREALTIME/,/.}" --filter event=die --format x | wc -l)" -eq 2 ]
  nothing_left
}

@test "a run on several volumes locks each of them, and resume takes over all of them" {
  docker volume create "$v-b" >/dev/null
  container one
  container two --volume "$v-b:/more"
  "$script" with "$v" "$v-b" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  run -75 --separate-stderr "$script" with "$v-b" -- true
  run -0 "$script" resume
  is exited one two
  kill -KILL $!
  wait $! || true
  run -0 --separate-stderr "$script" resume
  is running one two
  nothing_left
}

@test "with stops no container if one of its volumes does not exist" {
  container one
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -65 --separate-stderr "$script" with "$v" nowhere -- true
  run -64 --separate-stderr "$script" with -- true
  run -64 --separate-stderr "$script" with "$v" "$v"
  is running one
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
}

# --- import ---

@test "import refuses a volume in which something is mounted" {
  mkdir "$data/inside" elsewhere
  echo precious >elsewhere/file
  "$script" export "$v" >vol.tar
  mount --bind elsewhere "$data/inside"
  run --separate-stderr bash -c '"$0" import "$1" <vol.tar' "$script" "$v"
  umount "$data/inside"
  [ "$status" -eq 65 ]
  said '.msg == "volume_refused" and (.error | contains("/inside"))'
  [ "$(cat elsewhere/file)" = precious ]
  nothing_left
}

@test "list replaces labels that would make journald split the line" {
  docker volume create --label "k=$(printf 'ä%.0s' {1..20000})" "$v-long" >/dev/null
  run -0 --separate-stderr "$script" list
  [ "$(awk '{ print length }' <<<"$output" | sort -n | tail -1)" -lt 49152 ]
  jq -se --arg v "$v-long" 'map(select(.volume == $v))[0].labels == {"truncated": "true"}' <<<"$output"
}

@test "import creates a volume that does not exist" {
  echo hello >"$data/file"
  "$script" export "$v" >out.tar
  run -0 --separate-stderr "$script" import "$v-new" <out.tar
  jq -e '.msg == "imported" and .volume == "'"$v-new"'" and .identical' <<<"$output"
  [ "$(cat "$daemon/data/volumes/$v-new/_data/file")" = hello ]
  nothing_left
}

@test "import replaces the whole content of the volume" {
  echo new >"$data/new"
  chown 999:472 "$data"
  chmod 1750 "$data"
  "$script" export "$v" >out.tar
  rm "$data/new"
  echo stale >"$data/stale.log"
  chmod 755 "$data"
  "$script" import "$v" <out.tar
  [ "$(ls "$data")" = new ]
  [ "$(stat -c '%u %g %a' "$data")" = '999 472 1750' ]
}

@test "import is refused while a container runs, and the volume is unchanged" {
  container one
  echo old >"$data/file"
  "$script" export "$v" >out.tar
  echo newer >"$data/file"
  run -75 --separate-stderr "$script" import "$v" <out.tar
  said '.msg == "in_use" and (.hint | contains("--stop"))'
  [ "$(cat "$data/file")" = newer ]
  is running one
  nothing_left
}

@test "import is refused while a container is paused, even with --stop" {
  container one
  "$script" export "$v" >out.tar
  docker pause one
  run -75 --separate-stderr "$script" import --stop "$v" <out.tar
  is paused one
  nothing_left
}

@test "import without --stop does not stop a container that was started during the unpacking" {
  echo old >"$data/file"
  "$script" export "$v" >out.tar
  docker create --network none --name one --volume "$v:/data" busybox sleep 1000 >/dev/null
  mkfifo gate
  "$script" import "$v" <gate 2>err &
  exec 7>gate
  await test -e "${data%/*}/.hub-import/new"
  docker start one >/dev/null
  local started status=0
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  cat out.tar >&7
  exec 7>&-
  wait $! || status=$?
  [ "$status" -eq 75 ]
  jq -e 'select(.msg == "in_use")' err
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
  nothing_left
}

@test "import --stop stops the containers for the exchange, and starts them with the new content" {
  docker run --detach --network none --name one --volume "$v:/data" busybox \
    sh -c 'trap exit TERM; cp /data/file /data/seen; sleep 1000 & wait' >/dev/null
  echo old >"$data/file"
  "$script" export "$v" >out.tar
  echo newer >"$data/file"
  "$script" import --stop "$v" <out.tar
  is running one
  await test -e "$data/seen"
  [ "$(cat "$data/seen")" = old ]
}

@test "import accepts archives of other programs" {
  mkdir tree
  echo a >tree/a
  ln tree/a tree/b
  tar -C tree -cf out.tar b a
  chmod 700 "$data"
  "$script" import "$v" <out.tar
  [ "$data/a" -ef "$data/b" ]
  [ "$(stat -c %a "$data")" = 700 ]
}

@test "an archive that is followed by another one, or by anything except zeros, is refused" {
  mkdir tree
  echo a >tree/a
  tar -C tree -cf a.tar .
  echo b >tree/b
  tar -C tree -cf b.tar .
  echo old >"$data/old"
  cat a.tar b.tar >both.tar
  run -65 --separate-stderr "$script" import "$v" <both.tar
  said '.msg == "import_refused" and (.error | contains("after its end"))'
  (cat a.tar && printf "garbage%.0s" {1..200}) >trailing.tar
  run -65 --separate-stderr "$script" import "$v" <trailing.tar
  said '.msg == "import_refused"'
  [ "$(ls "$data")" = old ]
  nothing_left
  (cat a.tar && head -c 30000 /dev/zero) >padded.tar
  "$script" import "$v" <padded.tar
  [ "$(ls "$data")" = a ]
}

@test "an archive with a label is imported; one that has a name twice is refused, with a hint" {
  mkdir tree
  echo a >tree/a
  tar -C tree -V label -cf labelled.tar .
  "$script" import "$v" <labelled.tar
  [ "$(cat "$data/a")" = a ]
  tar -C tree -cf twice.tar ./a
  tar -C tree -rf twice.tar ./a
  run -65 --separate-stderr "$script" import "$v" <twice.tar
  said '.msg == "import_refused" and (.hint | contains("tar -r"))'
  nothing_left
}

@test "export and import work with a volume name of the maximum length" {
  local long
  long=$(printf 'v%.0s' {1..255})
  docker volume create "$long" >/dev/null
  container one --volume "$long:/long"
  "$script" export "$long" >vol.tar
  is running one
  "$script" import --stop "$long" <vol.tar
  is running one
  nothing_left
}

@test "a stream that ends at any multiple of 512 bytes is refused, and the volume is unchanged" {
  head -c 2000 /dev/zero >"$data/a"
  echo b >"$data/b"
  "$script" export "$v" >out.tar
  # The rest after the two zero blocks is padding.
  local end cut
  end=$(($(tar -tRf out.tar | sed -n 's/^block \([0-9]*\): [*][*] Block of NULs.*/\1/p') + 1))
  [ "$end" -gt 8 ]
  echo old >"$data/old"
  for ((cut = 0; cut <= end * 512 - 1; cut += 512)); do
    run -65 --separate-stderr bash -c 'head -c "$2" out.tar | "$0" import "$1"' "$script" "$v" "$cut"
    said '.msg == "import_refused"'
  done
  [ -e "$data/old" ]
  nothing_left
}

@test "if the stream is refused, import removes the volume that it created" {
  run -65 --separate-stderr bash -c 'echo nonsense | "$0" import "$1-new"' "$script" "$v"
  run -1 docker volume inspect "$v-new"
}

@test "names that lead out of the volume are refused" {
  mkdir tree
  echo evil >tree/file
  tar -P -C tree -cf out.tar --transform 's,^,../../escaped-,' file
  run -65 --separate-stderr "$script" import "$v" <out.tar
  said '.msg == "import_refused"'
  [ -z "$(find "$daemon/data" -name 'escaped-*')" ]
  nothing_left
}

@test "import does not write through a symbolic link" {
  mkdir -p tree/away outside
  ln -s "$BATS_TEST_TMPDIR/outside" tree/link
  tar -C tree -cf out.tar link
  rm tree/link
  mkdir tree/link
  echo evil >tree/link/file
  tar -C tree -rf out.tar link/file
  run -65 --separate-stderr "$script" import "$v" <out.tar
  said '.msg == "import_refused"'
  [ -z "$(ls outside)" ]
}

@test "after SIGTERM during the unpacking the volume is unchanged, and the staging directory is removed" {
  echo old >"$data/file"
  head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/big"
  mkfifo gate
  "$script" import "$v" <gate &
  exec 7>gate
  tar -c big | head -c 2000000 >&7
  await test -e "${data%/*}/.hub-import/new/big"
  kill -TERM $!
  local status=0
  wait $! || status=$?
  [ "$status" -eq 143 ]
  [ "$(cat "$data/file")" = old ]
  nothing_left
}

@test "resume restores the old content if an import was killed between its two renames" {
  container one
  echo old >"$data/file"
  "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
  # The state after the first rename of exchange.
  sed -i "3a import $data" "$STATE_DIRECTORY/quiesced/$v"
  mkdir -p "${data%/*}/.hub-import/new"
  mv "$data" "${data%/*}/.hub-import/old"
  "$script" resume
  [ "$(cat "$data/file")" = old ]
  is running one
  nothing_left
}

@test "resume does not undo an interrupted import if the directory was created again in the meantime" {
  echo old >"$data/file"
  mkdir -p "$STATE_DIRECTORY/quiesced" "${data%/*}/.hub-import/new"
  printf '%s\n' 'owner 1' 'at 1' "lock ${data%/*}" "import $data" >"$STATE_DIRECTORY/quiesced/$v"
  mv "$data" "${data%/*}/.hub-import/old"
  mkdir "$data"
  run -69 --separate-stderr "$script" resume
  said '.msg == "import_interrupted"'
  [ "$(cat "${data%/*}/.hub-import/old/file")" = old ]
}

# --- refusals ---

@test "export and import refuse volumes that mount something else" {
  docker volume create --opt type=none --opt o=bind --opt device=/tmp "$v-bind" >/dev/null
  docker volume create --opt type=nfs --opt o=addr=127.0.0.1 --opt device=:/x "$v-nfs" >/dev/null
  local name
  for name in "$v-bind" "$v-nfs"; do
    run -65 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$name"
    said '.msg == "volume_refused"'
    run -65 --separate-stderr "$script" import "$name" </dev/null
  done
}

@test "export of a volume that does not exist fails" {
  run -65 --separate-stderr bash -c '"$0" export nowhere | cat; exit "${PIPESTATUS[0]}"' "$script"
  said '.msg == "no_such_volume" and (.hint | contains("list"))'
}

@test "commands fail with status 69 if the daemon is down" {
  local args
  for args in list 'export x1' 'create x1' 'with x1 -- true'; do
    # shellcheck disable=SC2086 # the words are the arguments
    DOCKER_HOST=unix:///nowhere run -69 --separate-stderr bash -c '"$0" "$@" | cat; exit "${PIPESTATUS[0]}"' "$script" $args
    said '.msg == "docker_unavailable" and (.hint | contains("systemctl status docker"))'
  done
}

@test "if the daemon goes down during the run, the journal stays, and resume starts the containers later" {
  container one
  # shellcheck disable=SC2030 # for this test alone
  DOCKER_HOST=unix://$BATS_TEST_TMPDIR/link.sock
  ln -s "$daemon/d.sock" link.sock
  instead_of sleep true
  PATH=$PWD/bin:$PATH run -0 --separate-stderr "$script" with "$v" -- rm "$BATS_TEST_TMPDIR/link.sock"
  said '.msg == "not_resumed" and (.hint | contains("systemctl status docker"))'
  said '.msg == "cannot_tell"'
  PATH=$PWD/bin:$PATH run -69 "$script" resume
  ln -s "$daemon/d.sock" link.sock
  "$script" resume
  is running one
}

@test "if the daemon dies while it stops a container, nothing is read or exchanged" {
  container one
  echo old >"$data/file"
  "$script" export "$v" >vol.tar
  echo newer >"$data/file"
  instead_of docker 'if [ "$1" = stop ] || [ -e "$BATS_TEST_TMPDIR/dead" ]; then touch "$BATS_TEST_TMPDIR/dead"; set -- -H unix:///nowhere "$@"; fi; exec "$REAL" "$@"'
  instead_of sleep 'rm -f "$BATS_TEST_TMPDIR/dead"'
  PATH=$PWD/bin:$PATH run -69 --separate-stderr "$script" import --stop "$v" <vol.tar
  said '.msg == "docker_unavailable" and (.error | contains("stop or pause the containers"))'
  [ "$(cat "$data/file")" = newer ]
  PATH=$PWD/bin:$PATH run -69 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  [ -z "$output" ]
  is running one
  nothing_left
}

@test "a run waits for a daemon that restarts during the run" {
  container one
  # shellcheck disable=SC2030,SC2031 # for this test alone
  DOCKER_HOST=unix://$BATS_TEST_TMPDIR/link.sock
  ln -s "$daemon/d.sock" link.sock
  instead_of sleep '[ "$(wc -l <calls)" -lt 20 ] || ln -sf "$daemon/d.sock" "$BATS_TEST_TMPDIR/link.sock"'
  PATH=$PWD/bin:$PATH run -0 --separate-stderr "$script" with "$v" -- rm "$BATS_TEST_TMPDIR/link.sock"
  is running one
  nothing_left
}

@test "if Docker cannot say whether a container wrote during the export, the export is not consistent" {
  echo hello >"$data/file"
  # shellcheck disable=SC2016 # expands in the program
  instead_of docker '[ "$2" != --all ] || [ "$3" != --no-trunc ] || { echo broken >&2; exit 1; }; exec "$REAL" "$@"'
  PATH=$PWD/bin:$PATH run -1 --separate-stderr bash -c '"$0" export "$1" >out.tar' "$script" "$v"
  said '.msg == "cannot_tell" and .level == "WARN"'
  tar -tf out.tar ./file
}

@test "a daemon that does not answer is asked only once, and the journal stays" {
  container one
  container two
  # The time limit expires immediately, so a busy machine does not matter.
  instead_of timeout '[ ! -e "$BATS_TEST_TMPDIR/hang" ] || { echo "$*" >>"$BATS_TEST_TMPDIR/asked"; exit 124; }; exec "$REAL" "$@"'
  PATH=$PWD/bin:$PATH run -0 --separate-stderr "$script" with "$v" -- touch "$BATS_TEST_TMPDIR/hang"
  said '.msg == "not_resumed" and (.error | contains("container one")) and (.error | contains("did not answer within 60 s"))'
  said '.msg == "not_resumed" and (.error | contains("container two"))'
  # One query whether a container ran during the run, and one query to start the first container.
  [ "$(grep -c '^--foreground --kill-after=5 60 docker ' asked)" -eq 2 ]
  [ "$(wc -l <asked)" -eq 2 ]
  "$script" resume
  is running one two
  nothing_left
}

@test "a docker stop that does not return is given up after the container's timeout" {
  container one --stop-timeout 30
  instead_of timeout '[ "$5" != stop ] || exit 124; exec "$REAL" "$@"'
  PATH=$PWD/bin:$PATH run -69 --separate-stderr "$script" with "$v" -- true
  said '.msg == "docker_unavailable" and (.error | contains("did not answer within 90 s"))'
  is running one
  nothing_left
}

@test "resume does not wait indefinitely for the stop of a container without a stop timeout" {
  docker run --detach --network none --name endless --stop-timeout -1 --volume "$v:/data" busybox sleep 1000 >/dev/null
  # The client exits, and the daemon continues with the stop.
  instead_of docker '[ "$1" != stop ] || { timeout 1 "$REAL" "$@"; exit 1; }; exec "$REAL" "$@"'
  touch began
  PATH=$PWD/bin:$PATH "$script" with "$v" -- true &
  await happened kill
  kill -KILL $!
  wait $! || true
  sed -i 's/^at .*/at '$((EPOCHSECONDS - 61))'.0/' "$STATE_DIRECTORY/quiesced/$v"
  run -69 --separate-stderr timeout 20 "$script" resume
  said '.msg == "not_resumed" and (.error | contains("still stopping it"))'
  docker kill endless
  "$script" resume
  is running endless
  nothing_left
}

@test "while resume waits for a container, other runs are not blocked" {
  docker run --detach --network none --name slow --stop-timeout 6 --volume "$v:/data" busybox sleep 1000 >/dev/null
  touch began
  "$script" export "$v" >/dev/null &
  await happened kill
  kill -TERM $!
  wait $! || true
  # The background resume of that run is working.
  timeout 2 flock "$STATE_DIRECTORY/quiesced" true
  await is running slow
  await nothing_left
}

@test "a remote daemon is refused" {
  mkdir bin
  printf '#!/bin/sh\nexport DOCKER_HOST=%s\nexec %s "$@"\n' "unix://$daemon/d.sock" "$(type -P docker)" >bin/docker
  chmod +x bin/docker
  PATH=$PWD/bin:$PATH DOCKER_HOST=ssh://web2 run -78 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "remote_docker"'
}

@test "the hint for a user without access to Docker names the group docker" {
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/ bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$daemon/manage_volume.sh" "$v"
  said '.msg == "docker_denied" and (.hint | contains("group docker"))'
}

@test "the hint for a user who can use Docker but cannot read volumes names the capability" {
  chmod 777 "$BATS_TEST_TMPDIR"
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$daemon/manage_volume.sh" "$v"
  said '.msg == "volume_unreadable" and (.hint | contains("CAP_DAC_READ_SEARCH"))'
}

@test "with CAP_DAC_READ_SEARCH and the group docker another user can export, stopping and starting containers" {
  chmod 777 "$BATS_TEST_TMPDIR"
  container one
  echo secret >"$data/file"
  chown -R 999:999 "$data"
  chmod 700 "$data" "$data/file"
  run -0 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker --inh-caps=+dac_read_search --ambient-caps=+dac_read_search \
    --no-new-privs bash -c '"$0" export "$1" | tar -xO ./file' "$daemon/manage_volume.sh" "$v"
  [ "$output" = secret ]
  is running one
}

@test "import by a user other than root is refused" {
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker "$daemon/manage_volume.sh" import "$v" </dev/null
  said '.msg == "not_root"'
}

@test "the state page of the script names every global variable, and the functions that write it" {
  local name
  # Lines of VARIABLE FUNCTION, from the page.
  sed -n '/^# --- state /,/^# --- usage /p' "$script" \
    | sed -nE 's/^(declare -A )?([a-z_]+)=.*# ([a-z_, ()-]+):.*/\2 \3/p' | sed 's/ ([^)]*)//g; s/,//g' \
    | awk '{ for (i = 2; i <= NF; i++) print $1, $i }' | sort >page
  # The same lines, from the code of the functions: assignments to variables that are not local.
  # shellcheck disable=SC1090
  for name in $(sed -nE 's/^([a-z_]+)\(\) \{.*/\1/p' "$script"); do
    (source <(sed '/^main "\$@"$/d' "$script") && declare -f "$name") | awk -v name="$name" '
      { sub(/^ +/, "") }
      /^local / {
        gsub(/"[^"]*"|\$?\047[^\047]*\047|\$\{[^}]*\}/, "")
        for (i = 2; i <= NF; i++) { sub(/[=;].*/, "", $i); locals[$i] }
        next
      }
      /^for / { written[$2] }
      /(^|[ (])mapfile -t / { split($0, word, /mapfile -t /); sub(/ .*/, "", word[2]); written[word[2]] }
      /(^|[ (])exec \{/ { split($0, word, /[{}]/); if (word[2] ~ /^[a-z_]+$/ && /\}[<>] *[^&]/ && !/\}[<>]&-/) written[word[2]] }
      /(^|& )[a-z_]+(\[[^]]*\])?\+?=/ {
        text = $0
        while (match(text, /(^| )[a-z_]+(\[[^]]*\])?\+?=/)) {
          target = substr(text, RSTART, RLENGTH)
          gsub(/^ |[[+=].*/, "", target)
          written[target]
          text = substr(text, RSTART + RLENGTH)
        }
      }
      END { for (target in written) if (!(target in locals) && target ~ /^[a-z_]+$/) print target, name }'
  done | sort >code
  [ "$(wc -l <page)" -gt 20 ]
  diff page code
}

# --- the command line ---

@test "manage_volume.sh, hub-failure and hub-status contain the same function json, so each works without the others" {
  local name
  for name in manage_volume.sh hub-failure hub-status; do
    sed -n '/^# json TEXT:/,/^}/p' "${script%/*}/$name" >"$name"
    [ "$(wc -l <"$name")" -gt 20 ]
  done
  cmp manage_volume.sh hub-failure
  cmp manage_volume.sh hub-status
}

@test "usage errors exit with status 64" {
  local args
  for args in '' nonsense 'export' 'export a1 b1' 'export ../x' 'import' 'import --start x1' 'with x1' 'with x1 true' 'create' 'create .x' 'list x' 'resume x' 'restore' 'tar' 'tar a b' --state-dir; do
    # shellcheck disable=SC2086 # the words are the arguments
    run -64 --separate-stderr bash -c '"$0" "$@" </dev/null | cat; exit "${PIPESTATUS[0]}"' "$script" $args
    [ -z "$output" ]
    said '.msg == "usage" and .level == "ERROR"'
  done
}

@test "--help ends with examples, and fails on a full disk" {
  run -0 --separate-stderr "$script" --help
  [[ $output == 'Usage:'*'Example'*'manage_volume.sh with'* ]]
  run -73 bash -c '"$0" --help >/dev/full' "$script"
}

@test "on a terminal diagnostics are plain text" {
  run -0 script --quiet --return --command "'$script' export nowhere | cat" /dev/null
  [[ $output == *'manage_volume.sh: error: no such volume: nowhere'* ]]
  [[ $output == *'manage_volume.sh: hint: manage_volume.sh list'* ]]
}

@test "export and import refuse a terminal as the stream" {
  run -64 script --quiet --return --command "'$script' export '$v'" /dev/null
  run -64 script --quiet --return --command "'$script' import '$v'" /dev/null
}

@test "the prefix <3> is written only if stderr is the journal's stream" {
  local stream
  : >stream
  stream=$(stat -c %d:%i stream)
  JOURNAL_STREAM=$stream run -64 bash -c '"$0" nonsense 2>stream' "$script"
  [[ $(cat stream) == '<3>{"time":'* ]]
  JOURNAL_STREAM=$stream run -64 --separate-stderr "$script" nonsense
  [[ $stderr == '{"time":'* ]]
}

@test "backup and restore execute volbackup, which inherits the state directory" {
  mkdir bin
  printf '#!/bin/sh\necho "$STATE_DIRECTORY $*"\n' >bin/volbackup
  chmod +x bin/volbackup
  PATH=$PWD/bin:$PATH run -0 "$script" --state-dir /x/y backup a b
  [ "$output" = '/x/y run a b' ]
  PATH=$PWD/bin:$PATH run -0 "$script" restore a@1
  [ "$output" = "$STATE_DIRECTORY restore a@1" ]
  PATH=/usr/bin:/bin run -78 --separate-stderr "$script" backup
  said '.msg == "no_volbackup"'
}
