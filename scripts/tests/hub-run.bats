#!/usr/bin/env bats
# Tests hub-run with stand-ins for systemctl and systemd-run. e2e/ uses the real programs in a booted machine.
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

# stand_in PROGRAM: writes a bash script with the text from stdin to bin/PROGRAM.
stand_in() {
  { echo '#!/bin/bash' && cat; } >"$BATS_TEST_TMPDIR/bin/$1"
  chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

# properties: prints the properties that systemd-run got.
properties() {
  sed -n 's/^--property=//p' "$BATS_TEST_TMPDIR/args"
}

@test "the command gets the settings of the service and its drop-ins, in order" {
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

@test "specifiers are replaced by the names of the service, not of the transient unit" {
  printf '[Service]\nStateDirectory=job-%%i\nEnvironment=N=%%n:%%N:%%%%i\n' >"$BATS_TEST_TMPDIR/unit"
  run -11 "$script" job@web.service tool
  diff - <(properties) <<'END'
StateDirectory=job-web
Environment=N=job@web.service:job@web:%%i
Environment=HUB_TRIES=1
END
}

@test "the error names a service that does not exist" {
  echo not-found >"$BATS_TEST_TMPDIR/state"
  run -78 "$script" jobb tool
  [[ $output == *'no jobb.service'* ]]
  [[ ! -e $BATS_TEST_TMPDIR/args ]]
}

@test "the error without systemd names systemd" {
  : >"$BATS_TEST_TMPDIR/state"
  run -69 "$script" job tool
  [[ $output == *systemd* ]]
}

@test "wrong arguments cause a usage error" {
  local args
  for args in '' 'job' '--help x'; do
    # shellcheck disable=SC2086 # words
    run -64 "$script" $args
    [[ $output == *usage* ]]
  done
}
