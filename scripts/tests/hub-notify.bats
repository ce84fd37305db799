#!/usr/bin/env bats
# hub-notify with a stand-in for journalctl; the real one is used in e2e/, in a booted machine.
# shellcheck disable=SC2016 # stand-ins expand later, not here
bats_require_minimum_version 1.5.0

setup() {
  script=$BATS_TEST_DIRNAME/../hub-notify
  examples=$BATS_TEST_DIRNAME/../../deploy/on-failure.d
  export HUB_ON_FAILURE=$BATS_TEST_TMPDIR/on-failure.d BATS_TEST_TMPDIR
  mkdir "$BATS_TEST_TMPDIR/bin" "$HUB_ON_FAILURE"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
  record='{"level":"ERROR","msg":"unit_failed","unit":"job.service","lines":["a \"b\" $HOME `id`"]}'
  printf '%s\n' "$record" >"$BATS_TEST_TMPDIR/journal"
  program bin/journalctl <<'SH'
printf '%s\n' "$@" >"$BATS_TEST_TMPDIR/asked"
cat "$BATS_TEST_TMPDIR/journal"
SH
}

# program PATH: makes a program of stdin.
program() {
  { echo '#!/bin/sh' && cat; } >"$BATS_TEST_TMPDIR/$1"
  chmod +x "$BATS_TEST_TMPDIR/$1"
}

@test "each program gets the record on stdin and the unit's name" {
  program on-failure.d/one <<<'{ echo "$UNIT"; cat; } >"$BATS_TEST_TMPDIR/one"'
  program on-failure.d/two <<<'cat >"$BATS_TEST_TMPDIR/two"'
  run -0 "$script" job.service
  [[ -z $output ]]
  [[ $(<"$BATS_TEST_TMPDIR/one") == "job.service"$'\n'"$record" ]]
  [[ $(<"$BATS_TEST_TMPDIR/two") == "$record" ]]
  grep -qx _SYSTEMD_UNIT=hub-failure@job.service.service "$BATS_TEST_TMPDIR/asked"
}

@test "a program that fails is named, and the others still run" {
  program on-failure.d/a <<<'exit 3'
  program on-failure.d/b <<<'touch "$BATS_TEST_TMPDIR/ran"'
  run -1 "$script" job@web.service
  [[ $output == *'"level":"WARN","msg":"hook_failed","service":"hub-notify","unit":"job@web.service","detail":"a ended with status 3"'* ]]
  jq -e . <<<"$output" >/dev/null
  [[ -e $BATS_TEST_TMPDIR/ran ]]
}

@test "what is no program of the administrator does not run" {
  program on-failure.d/old.dpkg-dist <<<'touch "$BATS_TEST_TMPDIR/ran"'
  program 'on-failure.d/edited~' <<<'touch "$BATS_TEST_TMPDIR/ran"'
  echo 'touch "$BATS_TEST_TMPDIR/ran"' >"$HUB_ON_FAILURE/no-program"
  mkdir "$HUB_ON_FAILURE/directory"
  run -0 "$script" job.service
  [[ ! -e $BATS_TEST_TMPDIR/ran ]]
}

@test "an empty directory is no failure" {
  run -0 "$script" job.service
}

@test "a journal without the record is said" {
  : >"$BATS_TEST_TMPDIR/journal"
  program on-failure.d/one <<<'touch "$BATS_TEST_TMPDIR/ran"'
  run -69 "$script" job.service
  [[ $output == *no_failure_record* && ! -e $BATS_TEST_TMPDIR/ran ]]
}

@test "wrong arguments are a usage error" {
  run -64 "$script"
  run -64 "$script" 'a b.service'
  run -64 "$script" --help
}

@test "the examples send the record, and say what is missing" {
  cp "$examples/ntfy" "$HUB_ON_FAILURE"
  program bin/curl <<'SH'
for a; do printf '%s\n' "$a"; done >"$BATS_TEST_TMPDIR/arguments"
cat /dev/fd/3 - >"$BATS_TEST_TMPDIR/posted"
SH
  run -1 "$script" job.service
  [[ $output == *NTFY_URL* ]]
  NTFY_URL=https://ntfy.example.org/secret run -0 "$script" job.service
  [[ $(<"$BATS_TEST_TMPDIR/posted") == 'url = "https://ntfy.example.org/secret"'$'\n'"$record" ]]
  run ! grep -q secret "$BATS_TEST_TMPDIR/arguments"
}
