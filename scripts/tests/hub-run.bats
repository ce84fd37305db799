#!/usr/bin/env bats
# hub-run with stand-ins for systemctl and systemd-run; the real ones are used in e2e/, in a booted machine.
# shellcheck disable=SC2016 # stand-ins expand later, not here
bats_require_minimum_version 1.5.0

setup() {
  script=$BATS_TEST_DIRNAME/../hub-run
  mkdir "$BATS_TEST_TMPDIR/bin"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
  export BATS_TEST_TMPDIR
  stand_in systemctl <<'SH'
case $1 in
  show) cat "$BATS_TEST_TMPDIR/state" ;;
  cat) cat "$BATS_TEST_TMPDIR/unit" ;;
esac
SH
  stand_in systemd-run <<'SH'
printf '%s\n' "$@" >"$BATS_TEST_TMPDIR/args"
exit 11
SH
  echo loaded >"$BATS_TEST_TMPDIR/state"
  : >"$BATS_TEST_TMPDIR/unit"
}

stand_in() {
  { echo '#!/bin/bash' && cat; } >"$BATS_TEST_TMPDIR/bin/$1"
  chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

# properties: prints what systemd-run was given as properties.
properties() {
  sed -n 's/^--property=//p' "$BATS_TEST_TMPDIR/args"
}

@test "the command gets the settings of the service and its drop-ins, in their order" {
  cat >"$BATS_TEST_TMPDIR/unit" <<'UNIT'
# /usr/lib/systemd/system/job.service
[Unit]
Description=A job
Environment=not of this section

[Service]
Type=oneshot
ExecStart=job
ExecStartPre=-prepare
User=server
Environment=A=1 \
  # a comment in between \
  "B=two words"
; another comment
CapabilityBoundingSet=
TimeoutStartSec=3h
Restart=on-failure

[Install]
WantedBy=multi-user.target

# /etc/systemd/system/job.service.d/more.conf
[Service]
User = other
LoadCredential=secret:/etc/secret
UNIT
  run -11 "$script" job tool --flag 'two words'
  diff - <(properties) <<'END'
User=server
Environment=A=1    "B=two words"
CapabilityBoundingSet=
User=other
LoadCredential=secret:/etc/secret
Environment=HUB_TRIES=1
END
  [[ $(tail -n 4 "$BATS_TEST_TMPDIR/args") == $'--\ntool\n--flag\ntwo words' ]]
}

@test "specifiers mean the service, not the transient unit" {
  printf '[Service]\nStateDirectory=job-%%i\nEnvironment=N=%%n:%%N:%%%%i\n' >"$BATS_TEST_TMPDIR/unit"
  run -11 "$script" job@web.service tool
  diff - <(properties) <<'END'
StateDirectory=job-web
Environment=N=job@web.service:job@web:%%i
Environment=HUB_TRIES=1
END
}

@test "a service that is not there is named" {
  echo not-found >"$BATS_TEST_TMPDIR/state"
  run -78 "$script" jobb tool
  [[ $output == *'no jobb.service'* ]]
  [[ ! -e $BATS_TEST_TMPDIR/args ]]
}

@test "without systemd it says so" {
  : >"$BATS_TEST_TMPDIR/state"
  run -69 "$script" job tool
  [[ $output == *systemd* ]]
}

@test "wrong arguments are a usage error" {
  local args
  for args in '' 'job' '--help x'; do
    # shellcheck disable=SC2086 # words
    run -64 "$script" $args
    [[ $output == *usage* ]]
  done
}
