#!/usr/bin/env bats
# manage_volume.sh against a real Docker daemon of its own, with a static
# busybox for an image. Kill matrices and the fidelity of archives are in e2e/.
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

# container NAME [DOCKER-OPTION…]: one that uses the volume, and ends when it is told to.
container() {
  local name=$1
  shift
  docker run --detach --network none --name "$name" --volume "$v:/data" "$@" busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
}

# is STATE NAME…
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

# await CONDITION…
await() {
  local try
  for ((try = 0; try < 300; try++)); do
    if "$@"; then return; fi
    sleep 0.05
  done
  echo "waited in vain for: $*"
  return 1
}

# instead_of PROGRAM TEXT: makes bin/PROGRAM, a bash script of TEXT, in which $REAL is the program; its calls are counted in "calls".
instead_of() {
  mkdir -p bin
  printf '#!/bin/bash\nREAL=%q\necho >>%q\n%s\n' "$(type -P "$1")" "$BATS_TEST_TMPDIR/calls" "$2" >"bin/$1"
  chmod +x "bin/$1"
}

# said JQ: true of a diagnostic on stderr.
said() {
  jq -se "any($1)" <<<"$stderr" >/dev/null || {
    echo "nobody said: $1"
    echo "$stderr"
    return 1
  }
}

# nothing_left: no journal, no staging, no temporary file. For await, too, where set -e is off.
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

@test "list leaves out what is labelled hub.backup=false, unless --all" {
  docker volume create --label hub.backup=false "$v-scratch" >/dev/null
  run -0 --separate-stderr "$script" list
  [[ $output != *"$v-scratch"* ]]
  run -0 --separate-stderr "$script" list --all
  [[ $output == *"$v-scratch"* ]]
}

@test "list says where containers mount a volume, so that two anonymous ones can be told apart" {
  docker run --detach --network none --name one --volume /data/db --volume "$v:/a \"b\"" --volume /data/config busybox sleep 1000 >/dev/null
  run -0 --separate-stderr "$script" list
  jq -se '[.[] | select(.volume | length == 64) | .mounts] | sort == [[{"container": "one", "destination": "/data/config"}],
    [{"container": "one", "destination": "/data/db"}]]' <<<"$output"
  jq -se --arg v "$v" '.[] | select(.volume == $v) | .mounts == [{"container": "one", "destination": "/a \"b\""}]' <<<"$output"
}

@test "list says why a volume cannot be read, and no password" {
  docker volume create --opt type=none --opt o=bind --opt device=/srv/data "$v-bind" >/dev/null
  docker volume create --opt type=cifs --opt o=username=hub,password=s3cret --opt device=//nas/x "$v-cifs" >/dev/null
  docker volume create --opt type=tmpfs --opt device=tmpfs "$v-tmpfs" >/dev/null
  docker volume create --opt o=size=1g "$v-size" >/dev/null 2>&1 || docker volume create "$v-size" >/dev/null # needs xfs with quotas
  run -0 --separate-stderr "$script" list
  [ "$(jq -r 'select(.refused) | .volume + ": " + .refused' <<<"$output" | sort)" = "$v-bind: it is a mount of something else: /srv/data, of type none
$v-cifs: it is a mount of something else: //nas/x, of type cifs
$v-tmpfs: it is a mount of something else: tmpfs, of type tmpfs" ]
  [[ $output != *s3cret* ]]
  run -65 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v-cifs"
  [[ $stderr != *s3cret* ]]
}

@test "list prints nothing when there is no volume" {
  docker volume rm "$v" >/dev/null
  run -0 --separate-stderr "$script" list
  [ -z "$output$stderr" ]
}

@test "list into a full output fails" {
  run -73 --separate-stderr bash -c '"$0" list >/dev/full' "$script"
  said '.msg == "output_failed"'
}

@test "create makes volumes that are not there, and leaves those that are" {
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

@test "tar writes a directory as export writes a volume" {
  mkdir "$data/dir"
  truncate -s 1M "$data/dir/sparse"
  "$script" export "$v" >one.tar
  TAR_OPTIONS=--exclude=dir "$script" tar "$data" >two.tar
  cmp one.tar two.tar
}

# settled FOLDER…: whether the last change is so old that another one would show.
settled() { [ -z "$(find "$@" -newerct "@$((EPOCHSECONDS - 2))")" ]; }

# tree VOLUME: what export tells of it on descriptor 3.
tree() { UNLESS_TREE=- "$script" export "$1" 3>&1 >/dev/null; }

@test "export delivers nothing if the volume still has the tree that it is told" {
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
  UNLESS_TREE=${known//[0-9]/0} "$script" export "$v" 3>told | tar -t
  [ "$(cat told)" = "$known" ]
}

@test "every change gives another tree, also of a file that keeps its length and its times" {
  local changes=(
    'touch -r file ref; printf HELLO >file; touch -r ref file; rm ref' # the folder's times change as well
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
  # The same again, so that it is the change that makes the difference.
  [ "$(tree "$v-0")" = "${before[0]}" ]
  for i in "${!changes[@]}"; do (cd "$daemon/data/volumes/$v-$i/_data" && eval "${changes[i]}"); done
  await settled "$daemon"/data/volumes/"$v"-*/
  for i in "${!changes[@]}"; do
    after=$(tree "$v-$i")
    [[ $after =~ ^[0-9a-f]{64}$ ]]
    [ "$after" != "${before[i]}" ] || {
      echo "no change was seen of: ${changes[i]}"
      return 1
    }
  done
}

@test "a file that changed just now gives a tree that no other is like" {
  local one two
  until touch "$data/file" && one=$(tree "$v") && two=$(tree "$v") && ! settled "$data"; do :; done
  [[ $one =~ ^[0-9a-f]{64}$ ]]
  [ "$one" != "$two" ]
}

@test "there is no tree of a volume that something may write to" {
  local mode
  await settled "$data"
  for mode in pause none; do
    container "$mode" --label "hub.backup.quiesce=$mode"
    UNLESS_TREE=- "$script" export "$v" 3>told | tar -t
    [ ! -s told ]
    docker rm --force "$mode"
  done
  [ -n "$(tree "$v")" ]
  # A mapped file of a tmpfs changes without a trace.
  mount -t tmpfs tmpfs "$data"
  UNLESS_TREE=- "$script" export "$v" 3>told | tar -t
  umount "$data"
  [ ! -s told ]
}

@test "a wish for a tree is no harm where nobody listens on descriptor 3" {
  UNLESS_TREE=- "$script" export "$v" 3>&- | tar -t
}

@test "containers are stopped while the volume is read, and run again afterwards" {
  container one
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.Names}} {{.State}}'
  [ "$output" = 'one exited' ]
  is running one
  nothing_left
}

@test "hub.backup.quiesce=pause pauses" {
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

@test "an unknown hub.backup.quiesce is refused before anything is stopped" {
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

@test "a hub.backup.exec may have many lines, also such that begin with an exclamation mark" {
  container one --label hub.backup.exec=$'! test -e /data/absent\n\necho ".dumped" >/data/dump\n! false'
  run -0 --separate-stderr bash -c '"$0" export "$1" | tar -xO ./dump' "$script" "$v"
  [ "$output" = .dumped ]
  docker rm --force one >/dev/null
  container two --label hub.backup.exec='! true'
  run -69 --separate-stderr bash -c '"$0" export "$1" >out.tar' "$script" "$v"
  said '.msg == "exec_failed"'
}

@test "a hub.backup.exec that fails fails the export, and nothing is stopped" {
  container one --label 'hub.backup.exec=echo no space; exit 3'
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -69 --separate-stderr bash -c '"$0" export "$1" | wc -c; exit "${PIPESTATUS[0]}"' "$script" "$v"
  [ "$output" -eq 0 ]
  said '.msg == "exec_failed" and (.error | contains("status 3: no space"))'
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
}

@test "what a hub.backup.exec prints does not get into the stream" {
  container one --label 'hub.backup.exec=echo noise; echo more >&2'
  "$script" export "$v" >out.tar 2>err
  tar -tf out.tar
  [ ! -s err ]
}

@test "a container that was stopped stays stopped" {
  container one
  container two
  docker stop two >/dev/null
  docker create --name never --volume "$v:/data" busybox true >/dev/null
  "$script" export "$v" >/dev/null
  is running one
  is exited two
  is created never
}

@test "a container that was paused stays paused" {
  container one
  docker pause one
  "$script" export "$v" >/dev/null
  is paused one
}

@test "containers of a compose project are stopped and started like others" {
  container hub-db-1 --label com.docker.compose.project=hub --label com.docker.compose.service=db --restart unless-stopped
  run -0 --separate-stderr "$script" with "$v" -- docker ps --all --format '{{.State}}'
  [ "$output" = exited ]
  is running hub-db-1
}

@test "a restart policy does not start the container while it is read, and still holds afterwards" {
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

@test "a container that is removed meanwhile is reported, and the others run again" {
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
  # The reader holds tar up; the volume must not fit into the pipe.
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

@test "a file that changes while it is read gives status 1 and a whole stream" {
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

@test "a container that had to be killed is reported every time, and the export is not consistent" {
  docker run --detach --network none --name deaf --stop-timeout 1 --volume "$v:/data" busybox sleep 1000 >/dev/null
  local try
  await settled "$data"
  for try in 1 2; do
    UNLESS_TREE=- run -1 --separate-stderr bash -c '"$0" export "$1" 3>told | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
    said '.msg == "container_killed" and .level == "WARN" and .container == "deaf" and .volume == "'"$v"'"'
    # There is no tree that could spare the next run the reading, and the warning.
    [ ! -s told ]
    is running deaf
  done
  run -0 --separate-stderr "$script" with "$v" -- true
  said '.msg == "container_killed"'
}

# compose SERVICE DEPENDS [DOCKER-OPTION…]: a container of the project "hub" that writes when it stops, and starts.
compose() {
  local service=$1 depends=$2
  shift 2
  docker run --detach --network none --name "hub-$service-1" --volume "$v:/data" --label com.docker.compose.project=hub \
    --label "com.docker.compose.service=$service" --label "com.docker.compose.depends_on=$depends" "$@" busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
}

# order EVENT: the containers in the order of an event, since the file "began" was made.
order() {
  docker events --since "$(stat -c %.9Y began)" --until "${EPOCHREALTIME/,/.}" --filter "event=$1" --format '{{.Actor.Attributes.name}}' | tr '\n' ' '
}

@test "dependants are stopped first and started last" {
  compose web app:service_started:true
  compose app db:service_healthy:false,cache:service_started:true
  compose db ''
  compose cache ''
  # Other projects have services of the same names, and this one wants a service that is not there.
  docker run --detach --network none --name other-db-1 --volume "$v:/data" --label com.docker.compose.project=other \
    --label com.docker.compose.service=db --label com.docker.compose.depends_on=app:service_started:true,lost:service_started:true busybox \
    sh -c 'trap exit TERM; sleep 1000 & wait' >/dev/null
  touch began
  "$script" export "$v" >out.tar
  is running hub-web-1 hub-app-1 hub-db-1 hub-cache-1 other-db-1
  [[ $(order die) =~ hub-web-1\ .*hub-app-1\ .*hub-(db|cache)-1 ]]
  [[ $(order start) =~ hub-(db|cache)-1\ .*hub-app-1\ .*hub-web-1 ]]
}

@test "services that depend on each other in a circle, and on themselves, are stopped and started" {
  compose one two:service_started:true
  compose two one:service_started:true,two:service_started:true
  "$script" export "$v" >out.tar
  is running hub-one-1 hub-two-1
  nothing_left
}

@test "a dependant that asks for health starts when its service is healthy" {
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
  # Also after a kill.
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

@test "export to a full output fails with 73, and containers run" {
  container one
  run -73 --separate-stderr bash -c '"$0" export "$1" >/dev/full' "$script" "$v"
  said '.msg == "output_failed"'
  is running one
}

@test "export dies quietly when its reader is gone, and containers run" {
  container one
  head -c 3000000 /dev/urandom >"$data/big"
  run -141 --separate-stderr bash -c '"$0" export "$1" | head -c 1 >/dev/null; exit "${PIPESTATUS[0]}"' "$script" "$v"
  [ -z "$stderr" ]
  is running one
}

@test "a state directory that cannot be written stops nothing" {
  container one
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -73 --separate-stderr bash -c '"$0" --state-dir /proc/nowhere export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "state_unwritable"'
  [ "$(docker inspect --format '{{.State.StartedAt}}' one)" = "$started" ]
}

@test "nothing is pulled and no container is made" {
  container one
  local before
  before=$(docker ps --all --quiet --no-trunc && docker images --quiet)
  "$script" export "$v" >out.tar
  "$script" import --stop "$v" <out.tar
  [ "$(docker ps --all --quiet --no-trunc && docker images --quiet)" = "$before" ]
}

@test "TAR_OPTIONS of the caller have no say" {
  echo hello >"$data/file"
  TAR_OPTIONS=--exclude=file "$script" export "$v" >out.tar
  tar -tf out.tar ./file
}

# --- two at once ---

@test "a second run on the same volume is told to try later" {
  container one
  "$script" with "$v" -- sh -c 'touch begun; while [ ! -e end ]; do sleep 0.05; done' &
  await test -e begun
  run -75 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "locked"'
  touch end
  wait $!
  is running one
}

@test "a container in two volumes starts when the last of two runs is done" {
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

@test "the same, paused" {
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

# --- killed ---

@test "resume starts what a killed run has left stopped, once" {
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

@test "containers come back although nobody reads what is said of one that is gone" {
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

@test "when the run is killed, so is its tar: no reader takes the stream for whole" {
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

@test "the next run resumes too" {
  container one
  docker volume create "$v-b" >/dev/null
  "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
  "$script" export "$v-b" >/dev/null
  is running one
}

# happened EVENT: whether it did to a container, since the file "began" was made.
happened() { [ -n "$(order "$1")" ]; }

@test "a run that is killed while Docker is stopping a container: resume waits for that" {
  docker run --detach --network none --name slow --stop-timeout 6 --volume "$v:/data" busybox sleep 1000 >/dev/null
  touch began
  "$script" export "$v" >/dev/null &
  await happened kill
  kill -KILL $!
  wait $! || true
  is running slow
  [ -z "$(order die)" ]
  "$script" resume
  # The stop that was under way has ended, and the container was started after it.
  [ "$(order die)" = 'slow ' ]
  is running slow
  nothing_left
}

@test "a journal of an earlier version, which does not say who waits for whose health" {
  container one
  container two --label hub.backup.quiesce=pause
  killed_run
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

@test "a container that cannot start again is reported, and kept for the next resume" {
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

@test "SIGTERM, SIGINT and SIGHUP: containers run, and the run dies of the signal" {
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
    # On a slow host Docker needs longer than the run may take.
    await is running one
    await nothing_left
  done
}

@test "SIGTERM, SIGINT and SIGHUP in the middle of a stream that nobody takes" {
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

@test "SIGTERM while Docker is stopping a container that takes its time" {
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

# --- containers that stay down ---

# killed_run [ENV…] : a run with that environment that SIGKILL ends while the containers of the volume are down.
killed_run() {
  rm -f begun
  env "$@" "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
}

# on_a_host COMMAND…: runs a command as root by hand on a host with a directory /var/lib/volume-backup of the unit,
# which is the directory "unit" here.
on_a_host() {
  mkdir -p unit home
  env -u STATE_DIRECTORY -u XDG_STATE_HOME HOME="$PWD/home" \
    unshare --mount bash -c 'mount -t tmpfs tmpfs /var/lib; mkdir /var/lib/volume-backup; mount --bind unit /var/lib/volume-backup; exec "$@"' - "$@"
}

@test "resume, export and with by hand start what the unit has left down, and only then is the journal removed" {
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
  # A second run of the import would be refused by a container that is still paused.
  is running two
  [ -z "$(ls unit/quiesced)" ]
}

@test "the unit starts what a run by hand has left down, in the unit's directory or another one" {
  container one
  mkdir unit
  on_a_host "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL "$(sed -n 's/^owner //p' "unit/quiesced/$v")"
  wait $! || true
  is exited one
  # Root by hand uses the unit's directory, so the unit finds the journal.
  [ -e "unit/quiesced/$v" ]
  STATE_DIRECTORY=$PWD/unit "$script" resume
  is running one
  # An older version has left its journal in the home directory.
  killed_run STATE_DIRECTORY="$PWD/home/.local/state/volume-backup"
  on_a_host "$script" resume
  is running one
  [ -z "$(ls home/.local/state/volume-backup/quiesced)" ]
}

@test "two dead runs of one volume with two state directories: each container of both is started" {
  container one
  container two
  killed_run STATE_DIRECTORY="$PWD/unit"
  docker start two >/dev/null
  mkdir -p state/quiesced
  sed "s/ one / one /;/ one /d" "unit/quiesced/$v" >"state/quiesced/$v"
  docker stop two >/dev/null
  on_a_host "$script" --state-dir "$PWD/state" resume
  is running one two
  [ -z "$(find unit state -type f)" ]
}

@test "files that root by hand writes into the unit's directory belong to the owner of the directory" {
  container one
  mkdir unit
  chown 4321:4321 unit
  on_a_host "$script" with "$v" -- stat -c %u unit/quiesced "unit/quiesced/$v" >owners
  [ "$(cat owners)" = $'4321\n4321' ]
}

@test "the journal of a container that does not start again survives the next run on the same volume" {
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

@test "a container that fails as soon as it is started is reported, and the journal stays" {
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

@test "a container that does its work and ends well after the start is not started for ever" {
  docker run --detach --network none --name job --volume "$v:/data" busybox \
    sh -c '[ ! -e /data/over ] || exit 0; trap exit TERM; sleep 1000 & wait' >/dev/null
  killed_run
  touch "$data/over"
  run -0 --separate-stderr "$script" resume
  is exited job
  nothing_left
}

@test "a container that was renamed meanwhile is started; one that was made anew under its name is left alone" {
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
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker "$script" resume
  said '.msg == "not_resumed" and (.error | contains("cannot read"))'
  "$script" resume
  is running one
}

# --- with ---

@test "with passes the mount point, stdin, stdout and the exit status" {
  run -7 --separate-stderr bash -c 'echo input | "$0" with "$1" -- sh -c "cat; echo \$VOLUME_PATH; exit 7"' "$script" "$v"
  [ "$output" = $'input\n'"$data" ]
  [ -z "$stderr" ]
}

@test "with passes a death by signal, and a command that is not there" {
  run -137 --separate-stderr "$script" with "$v" -- sh -c 'kill -KILL $$'
  run -127 --separate-stderr "$script" with "$v" -- no-such-command
}

@test "with passes signals on and lets the command end in order" {
  "$script" with "$v" -- bash -c 'trap "kill \$!; echo cleared up >done; exit 3" TERM; sleep 1000 & touch begun; wait' &
  await test -e begun
  kill -TERM $!
  wait $! || true
  [ "$(cat 'done')" = 'cleared up' ]
}

# --- several volumes ---

@test "with of several volumes stops each container once, and passes every mount point" {
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

@test "a run on several volumes holds each of them, and resume takes over all of them" {
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

@test "with of several volumes of which one is not there stops nothing" {
  container one
  local started
  started=$(docker inspect --format '{{.State.StartedAt}}' one)
  run -65 --separate-stderr "$script" with "$v" nowhere -- true
  run -64 --separate-stderr "$script" with -- true
  run -64 --separate-stderr "$script" with "$v" "$v"
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

@test "list cuts a line that journald would split" {
  docker volume create --label "k=$(printf 'ä%.0s' {1..20000})" "$v-long" >/dev/null
  run -0 --separate-stderr "$script" list
  [ "$(awk '{ print length }' <<<"$output" | sort -n | tail -1)" -lt 49152 ]
  jq -se --arg v "$v-long" 'map(select(.volume == $v))[0].labels == {"truncated": "true"}' <<<"$output"
}

@test "import into a new volume makes it" {
  echo hello >"$data/file"
  "$script" export "$v" >out.tar
  run -0 --separate-stderr "$script" import "$v-new" <out.tar
  jq -e '.msg == "imported" and .volume == "'"$v-new"'" and .identical' <<<"$output"
  [ "$(cat "$daemon/data/volumes/$v-new/_data/file")" = hello ]
  nothing_left
}

@test "import replaces what was there, and leaves nothing of it" {
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

@test "import is refused while a container runs, and changes nothing" {
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

@test "import is refused while a container is paused, also with --stop" {
  container one
  "$script" export "$v" >out.tar
  docker pause one
  run -75 --separate-stderr "$script" import --stop "$v" <out.tar
  is paused one
  nothing_left
}

@test "import without --stop leaves a container alone that was started while it unpacked" {
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

@test "import --stop stops the containers for the exchange, and starts them with the new data" {
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

@test "import takes foreign archives too" {
  mkdir tree
  echo a >tree/a
  ln tree/a tree/b
  tar -C tree -cf out.tar b a
  chmod 700 "$data"
  "$script" import "$v" <out.tar
  [ "$data/a" -ef "$data/b" ]
  [ "$(stat -c %a "$data")" = 700 ]
}

@test "an import that is followed by another archive, or by anything but zeros, is refused" {
  mkdir tree
  echo a >tree/a
  tar -C tree -cf a.tar .
  echo b >tree/b
  tar -C tree -cf b.tar .
  echo old >"$data/old"
  cat a.tar b.tar >both.tar
  run -65 --separate-stderr "$script" import "$v" <both.tar
  said '.msg == "import_refused" and (.error | contains("after its end"))'
  (cat a.tar && printf "garbage%.0s" {1..200}) >behind.tar
  run -65 --separate-stderr "$script" import "$v" <behind.tar
  said '.msg == "import_refused"'
  [ "$(ls "$data")" = old ]
  nothing_left
  (cat a.tar && head -c 30000 /dev/zero) >padded.tar
  "$script" import "$v" <padded.tar
  [ "$(ls "$data")" = a ]
}

@test "an archive with a label is imported; one with a name twice is refused, and told why" {
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

@test "a volume whose name is as long as a name can be" {
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

@test "a stream that ends early is refused at every multiple of 512 bytes, and the volume stays" {
  head -c 2000 /dev/zero >"$data/a"
  echo b >"$data/b"
  "$script" export "$v" >out.tar
  # What comes after the two zero blocks is padding.
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

@test "a refused stream leaves no new volume" {
  run -65 --separate-stderr bash -c 'echo nonsense | "$0" import "$1-new"' "$script" "$v"
  run -1 docker volume inspect "$v-new"
}

@test "names that lead out of the volume are refused" {
  mkdir tree
  echo evil >tree/file
  tar -P -C tree -cf out.tar --transform 's,^,../../escaped-,' file
  run -65 --separate-stderr "$script" import "$v" <out.tar
  [ ! -e "$daemon/data/volumes/escaped-file" ]
  nothing_left
}

@test "import writes through no symbolic link" {
  mkdir -p tree/away outside
  ln -s "$BATS_TEST_TMPDIR/outside" tree/link
  tar -C tree -cf out.tar link
  rm tree/link
  mkdir tree/link
  echo evil >tree/link/file
  tar -C tree -rf out.tar link/file
  "$script" import "$v" <out.tar || true
  [ -z "$(ls outside)" ]
}

@test "SIGTERM while unpacking leaves the old volume and no staging" {
  echo old >"$data/file"
  head -c 3000000 /dev/urandom >"$BATS_TEST_TMPDIR/big"
  mkfifo gate
  "$script" import "$v" <gate &
  exec 7>gate
  tar -c big | head -c 2000000 >&7
  await test -e "${data%/*}/.hub-import/new/big"
  kill -TERM $!
  wait $! || true
  [ "$(cat "$data/file")" = old ]
  nothing_left
}

@test "an import that was killed between its two renames: resume brings the old volume back" {
  container one
  echo old >"$data/file"
  "$script" with "$v" -- sh -c 'touch begun; exec sleep 1000' &
  await test -e begun
  kill -KILL $!
  wait $! || true
  # As replace leaves it.
  sed -i "3a import $data" "$STATE_DIRECTORY/quiesced/$v"
  mkdir -p "${data%/*}/.hub-import/new"
  mv "$data" "${data%/*}/.hub-import/old"
  "$script" resume
  [ "$(cat "$data/file")" = old ]
  is running one
  nothing_left
}

@test "an interrupted import is not cleared up over data that somebody has made meanwhile" {
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

@test "volumes that are mounts of something else are refused" {
  docker volume create --opt type=none --opt o=bind --opt device=/tmp "$v-bind" >/dev/null
  docker volume create --opt type=nfs --opt o=addr=127.0.0.1 --opt device=:/x "$v-nfs" >/dev/null
  local name
  for name in "$v-bind" "$v-nfs"; do
    run -65 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$name"
    said '.msg == "volume_refused"'
    run -65 --separate-stderr "$script" import "$name" </dev/null
  done
}

@test "a volume that is not there" {
  run -65 --separate-stderr bash -c '"$0" export nowhere | cat; exit "${PIPESTATUS[0]}"' "$script"
  said '.msg == "no_such_volume" and (.hint | contains("list"))'
}

@test "a daemon that is down" {
  local args
  for args in list 'export x1' 'create x1' 'with x1 -- true'; do
    # shellcheck disable=SC2086 # the words are the arguments
    DOCKER_HOST=unix:///nowhere run -69 --separate-stderr bash -c '"$0" "$@" | cat; exit "${PIPESTATUS[0]}"' "$script" $args
    said '.msg == "docker_unavailable" and (.hint | contains("systemctl status docker"))'
  done
}

@test "a daemon that goes down meanwhile: the journal stays, and resume starts the containers when it is back" {
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

@test "a daemon that dies while it stops a container: nothing is read, and nothing exchanged" {
  container one
  echo old >"$data/file"
  "$script" export "$v" >vol.tar
  echo newer >"$data/file"
  instead_of docker 'if [ "$1" = stop ] || [ -e "$BATS_TEST_TMPDIR/dead" ]; then touch "$BATS_TEST_TMPDIR/dead"; set -- -H unix:///nowhere "$@"; fi; exec "$REAL" "$@"'
  instead_of sleep 'rm -f "$BATS_TEST_TMPDIR/dead"'
  PATH=$PWD/bin:$PATH run -69 --separate-stderr "$script" import --stop "$v" <vol.tar
  said '.msg == "docker_unavailable" and (.error | contains("bring the containers"))'
  [ "$(cat "$data/file")" = newer ]
  PATH=$PWD/bin:$PATH run -69 --separate-stderr bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  [ -z "$output" ]
  is running one
  nothing_left
}

@test "a daemon that restarts meanwhile is waited for" {
  container one
  # shellcheck disable=SC2030,SC2031 # for this test alone
  DOCKER_HOST=unix://$BATS_TEST_TMPDIR/link.sock
  ln -s "$daemon/d.sock" link.sock
  instead_of sleep '[ "$(wc -l <calls)" -lt 20 ] || ln -sf "$daemon/d.sock" "$BATS_TEST_TMPDIR/link.sock"'
  PATH=$PWD/bin:$PATH run -0 --separate-stderr "$script" with "$v" -- rm "$BATS_TEST_TMPDIR/link.sock"
  is running one
  nothing_left
}

@test "an export of which nobody can tell whether something wrote meanwhile is not called consistent" {
  echo hello >"$data/file"
  # shellcheck disable=SC2016 # expands in the program
  instead_of docker '[ "$2" != --all ] || [ "$3" != --no-trunc ] || { echo broken >&2; exit 1; }; exec "$REAL" "$@"'
  PATH=$PWD/bin:$PATH run -1 --separate-stderr bash -c '"$0" export "$1" >out.tar' "$script" "$v"
  said '.msg == "cannot_tell" and .level == "WARN"'
  tar -tf out.tar ./file
}

@test "a daemon that hangs is asked once, and the journal stays" {
  container one
  container two
  # The time is up at once, however busy the machine is.
  instead_of timeout '[ ! -e "$BATS_TEST_TMPDIR/hang" ] || { echo "$*" >>"$BATS_TEST_TMPDIR/asked"; exit 124; }; exec "$REAL" "$@"'
  PATH=$PWD/bin:$PATH run -0 --separate-stderr "$script" with "$v" -- touch "$BATS_TEST_TMPDIR/hang"
  said '.msg == "not_resumed" and (.error | contains("container one")) and (.error | contains("no answer within 60 s"))'
  said '.msg == "not_resumed" and (.error | contains("container two"))'
  # Once whether something wrote meanwhile, and once to start the first container.
  [ "$(grep -c '^--foreground --kill-after=5 60 docker ' asked)" -eq 2 ]
  [ "$(wc -l <asked)" -eq 2 ]
  "$script" resume
  is running one two
  nothing_left
}

@test "a docker stop that never ends is given up after the container's grace" {
  container one --stop-timeout 30
  instead_of timeout '[ "$5" != stop ] || exit 124; exec "$REAL" "$@"'
  PATH=$PWD/bin:$PATH run -69 --separate-stderr "$script" with "$v" -- true
  said '.msg == "docker_unavailable" and (.error | contains("no answer within 90 s"))'
  is running one
  nothing_left
}

@test "a container without a time limit for its stop does not keep resume waiting for ever" {
  docker run --detach --network none --name endless --stop-timeout -1 --volume "$v:/data" busybox sleep 1000 >/dev/null
  # The client is gone, and the daemon goes on.
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

@test "while resume waits for a container, others work" {
  docker run --detach --network none --name slow --stop-timeout 6 --volume "$v:/data" busybox sleep 1000 >/dev/null
  touch began
  "$script" export "$v" >/dev/null &
  await happened kill
  kill -TERM $!
  wait $! || true
  # The resume that it has left behind is at work.
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

@test "a user who may not use Docker is told what is missing" {
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --clear-groups env HOME=/ bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "docker_denied" and (.hint | contains("group docker"))'
}

@test "a user who may use Docker but not read volumes is told what is missing" {
  chmod 777 "$BATS_TEST_TMPDIR"
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker bash -c '"$0" export "$1" | cat; exit "${PIPESTATUS[0]}"' "$script" "$v"
  said '.msg == "volume_unreadable" and (.hint | contains("CAP_DAC_READ_SEARCH"))'
}

@test "with CAP_DAC_READ_SEARCH and the group docker another user can export, stopping and starting containers" {
  chmod 777 "$BATS_TEST_TMPDIR"
  container one
  echo secret >"$data/file"
  chown -R 999:999 "$data"
  chmod 700 "$data" "$data/file"
  run -0 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker --inh-caps=+dac_read_search --ambient-caps=+dac_read_search \
    --no-new-privs bash -c '"$0" export "$1" | tar -xO ./file' "$script" "$v"
  [ "$output" = secret ]
  is running one
}

@test "import is for root" {
  run -78 --separate-stderr setpriv --reuid=nobody --regid=nogroup --groups=docker "$script" import "$v" </dev/null
  said '.msg == "not_root"'
}

@test "the page of state names every global, and the functions that write it" {
  local name
  # VARIABLE FUNCTION, as the page has it.
  sed -n '/^# --- state /,/^# --- usage /p' "$script" \
    | sed -nE 's/^(declare -A )?([a-z_]+)=.*# ([a-z_, ()-]+):.*/\2 \3/p' | sed 's/ ([^)]*)//g; s/,//g' \
    | awk '{ for (i = 2; i <= NF; i++) print $1, $i }' | sort >page
  # The same, as the functions have it: assignments to what is not local.
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

@test "json is the same function in hub-failure, so that each script works as the only one that is installed" {
  local name
  for name in manage_volume.sh hub-failure; do
    sed -n '/^# json TEXT:/,/^}/p' "${script%/*}/$name" >"$name"
    [ "$(wc -l <"$name")" -gt 20 ]
  done
  cmp manage_volume.sh hub-failure
}

@test "usage errors exit 64 and say what is right" {
  local args
  for args in '' nonsense 'export' 'export a1 b1' 'export ../x' 'import' 'import --start x1' 'with x1' 'with x1 true' 'create' 'create .x' 'list x' 'resume x' 'restore' 'tar' 'tar a b' --state-dir; do
    # shellcheck disable=SC2086 # the words are the arguments
    run -64 --separate-stderr bash -c '"$0" "$@" </dev/null | cat; exit "${PIPESTATUS[0]}"' "$script" $args
    [ -z "$output" ]
    said '.msg == "usage" and .level == "ERROR"'
  done
}

@test "help ends in examples, and fails on a full output" {
  run -0 --separate-stderr "$script" --help
  [[ $output == 'Usage:'*'Example'*'manage_volume.sh with'* ]]
  run -73 bash -c '"$0" --help >/dev/full' "$script"
}

@test "on a terminal diagnostics are for people" {
  run -0 script --quiet --return --command "'$script' export nowhere | cat" /dev/null
  [[ $output == *'manage_volume.sh: error: no such volume: nowhere'* ]]
  [[ $output == *'manage_volume.sh: hint: manage_volume.sh list'* ]]
}

@test "no tar stream from or to a terminal" {
  run -64 script --quiet --return --command "'$script' export '$v'" /dev/null
  run -64 script --quiet --return --command "'$script' import '$v'" /dev/null
}

@test "<3> only when stderr is the journal's stream" {
  local stream
  : >stream
  stream=$(stat -c %d:%i stream)
  JOURNAL_STREAM=$stream run -64 bash -c '"$0" nonsense 2>stream' "$script"
  [[ $(cat stream) == '<3>{"time":'* ]]
  JOURNAL_STREAM=$stream run -64 --separate-stderr "$script" nonsense
  [[ $stderr == '{"time":'* ]]
}

@test "backup and restore become volbackup, which inherits the state directory" {
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
