#!/usr/bin/env bats
# Tests hub-failure with journals that are made to break it. systemctl and
# journalctl are stand-ins that print a file which the test wrote. e2e/ uses the
# real programs in a booted machine.
# shellcheck disable=SC2016 # stand-ins and jq expressions expand later, not here
# shellcheck disable=SC2154 # bats assigns stderr
bats_require_minimum_version 1.5.0

setup() {
  script=$BATS_TEST_DIRNAME/../hub-failure
  unset JOURNAL_STREAM "${!MONITOR_@}"
  mkdir "$BATS_TEST_TMPDIR/bin"
  PATH=$BATS_TEST_TMPDIR/bin:$PATH
  export BATS_TEST_TMPDIR
  : >"$BATS_TEST_TMPDIR/journal"
  : >"$BATS_TEST_TMPDIR/properties"
  # systemd's closing message is already in this journal.
  stand_in journalctl <<'SH'
printf '%s\n' "$*" >>"$BATS_TEST_TMPDIR/journalctl.args"
case $* in
  *MESSAGE_ID=*) echo "Failed with result 'exit-code'." ;;
  *--lines=0*) ;;
  *) cat "$BATS_TEST_TMPDIR/journal" ;;
esac
SH
  stand_in systemctl <<'SH'
cat "$BATS_TEST_TMPDIR/properties"
SH
}

# stand_in PROGRAM: writes a bash script with the text from stdin to bin/PROGRAM.
stand_in() {
  { echo '#!/bin/bash' && cat; } >"$BATS_TEST_TMPDIR/bin/$1"
  chmod +x "$BATS_TEST_TMPDIR/bin/$1"
}

# report UNIT: runs the script and sets $record to its output. It fails unless the
# script succeeds and prints exactly one line of valid UTF-8 JSON below 48 KiB.
report() {
  "$script" "$@" >"$BATS_TEST_TMPDIR/out" 2>"$BATS_TEST_TMPDIR/err"
  [ "$(wc -l <"$BATS_TEST_TMPDIR/out")" -eq 1 ]
  [ "$(wc -c <"$BATS_TEST_TMPDIR/out")" -lt 49152 ]
  iconv -f UTF-8 -t UTF-8 "$BATS_TEST_TMPDIR/out" >/dev/null
  record=$(cat "$BATS_TEST_TMPDIR/out")
  jq -e . "$BATS_TEST_TMPDIR/out" >/dev/null
}

# has JQ: fails unless the expression is true for the record.
has() {
  jq -e "$1" <<<"$record" >/dev/null || {
    echo "not true: $1"
    echo "of: $record"
    return 1
  }
}

@test "the record has the common fields and the MONITOR_ variables of systemd" {
  echo 'disk on fire' >"$BATS_TEST_TMPDIR/journal"
  echo NRestarts=2 >"$BATS_TEST_TMPDIR/properties"
  MONITOR_UNIT=system-metrics.service MONITOR_SERVICE_RESULT=exit-code MONITOR_EXIT_CODE=exited \
    MONITOR_EXIT_STATUS=69 MONITOR_INVOCATION_ID=0123456789abcdef0123456789abcdef \
    report system-metrics.service
  has '.level == "ERROR" and .msg == "unit_failed"'
  has '.time | test("^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$")'
  has '.service == "system-metrics" and .unit == "system-metrics.service"'
  has '.result == "exit-code" and .exit_code == "exited" and .exit_status == "69"'
  has '.invocation_id == "0123456789abcdef0123456789abcdef" and .restarts == 2'
  has '.lines == ["disk on fire"]'
  has 'has("instance") | not'
  [ ! -s "$BATS_TEST_TMPDIR/err" ]
  grep -q '_SYSTEMD_INVOCATION_ID=0123456789abcdef0123456789abcdef' "$BATS_TEST_TMPDIR/journalctl.args"
}

@test "without MONITOR_ variables the result comes from systemctl" {
  printf '%s\n' Result=signal ExecMainCode=2 ExecMainStatus=9 InvocationID=abc NRestarts=0 >"$BATS_TEST_TMPDIR/properties"
  report volume-backup.service
  has '.result == "signal" and .exit_code == "killed" and .exit_status == "KILL"'
  has '.invocation_id == "abc" and .restarts == 0'
}

@test "MONITOR_ variables of another unit are ignored" {
  printf '%s\n' Result=timeout ExecMainCode=1 ExecMainStatus=78 >"$BATS_TEST_TMPDIR/properties"
  MONITOR_UNIT=other.service MONITOR_SERVICE_RESULT=oom-kill report volume-backup.service
  has '.result == "timeout" and .exit_code == "exited" and .exit_status == "78"'
}

@test "a record is printed even if systemctl and journalctl fail" {
  stand_in systemctl <<<'echo no bus >&2; exit 1'
  stand_in journalctl <<<'echo no journal >&2; exit 1'
  report reading-sync.service
  has '.service == "reading-sync" and .result == "" and .invocation_id == ""'
  has '.restarts == null and .lines == []'
  [ "$(sort -u "$BATS_TEST_TMPDIR/err")" = $'no bus\nno journal' ]
}

@test "for an instance of a template, service is the template's family and instance is the instance" {
  report gitops-sync@web.service
  has '.service == "gitops-sync" and .instance == "web" and .unit == "gitops-sync@web.service"'
  report 'gitops-sync@a\x2db@"c.service'
  has '.service == "gitops-sync" and .instance == "a\\x2db@\"c"'
}

@test "the suffix .timer is removed from the service name too" {
  report system-metrics.timer
  has '.service == "system-metrics"'
}

@test "the record has the last 20 messages, newest last" {
  seq 1 50 >"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines == [range(31; 51) | tostring]'
}

@test "quotes, backslashes, brackets, globs and empty lines are unchanged" {
  cat >"$BATS_TEST_TMPDIR/journal" <<'TXT'
"quoted" and \back\slash\ and \" both \\"

*?[a-z]* $(reboot) `id` ${HOME} %s %n ~ ! -n
{"level":"INFO","msg":"nested \u0000 json"}
  leading and trailing spaces  
TXT
  report a.service
  has '.lines[0] == "\"quoted\" and \\back\\slash\\ and \\\" both \\\\\""'
  has '.lines[1] == ""'
  has '.lines[2] == "*?[a-z]* $(reboot) `id` ${HOME} %s %n ~ ! -n"'
  has '.lines[3] | fromjson.level == "INFO"'
  has '.lines[4] == "  leading and trailing spaces  "'
}

@test "bytes from 1 to 31 and DEL are unchanged, and NUL becomes U+FFFD" {
  local i
  for ((i = 1; i < 32; i++)); do
    # A newline ends a message.
    if ((i != 10)); then printf '%b' "\\x$(printf %02x "$i")"; fi
  done >"$BATS_TEST_TMPDIR/journal"
  printf '\x7f\0end\n' >>"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines[0] | explode == ([range(1; 10)] + [range(11; 32)] + [127, 65533] + ("end" | explode))'
}

@test "a carriage return or a priority prefix in a message does not start a line" {
  printf 'one\r{"level":"INFO"}\r<0>panic\n' >"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines == ["one\r{\"level\":\"INFO\"}\r<0>panic"]'
}

@test "valid UTF-8 is unchanged, and other bytes become U+FFFD" {
  # Characters of two, three and four bytes; the last one before the surrogates, the first one after them; the last one of Unicode.
  printf 'é€😀\xed\x9f\xbf\xee\x80\x80\xf4\x8f\xbf\xbf\n' >"$BATS_TEST_TMPDIR/journal"
  # Overlong, surrogate, too large, continuation byte without a start byte, truncated.
  printf 'a\xc0\xafb\xe0\x80\xafc\xed\xa0\x80d\xf4\x90\x80\x80e\x80f\xf0\x9f\x98\n' >>"$BATS_TEST_TMPDIR/journal"
  printf '\xff\xfe\xf8\x88\x80\x80\x80\xc3\n' >>"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines[0] | explode == [233, 8364, 128512, 55295, 57344, 1114111]'
  has '.lines[1] | gsub("\ufffd+"; "?") == "a?b?c?d?e?f?"'
  has '.lines[2] | explode | unique == [65533]'
}

@test "the record does not depend on the caller's locale" {
  printf 'é\xff\n' >"$BATS_TEST_TMPDIR/journal"
  LC_ALL=C.UTF-8 report a.service
  has '.lines[0] | explode == [233, 65533]'
  LC_ALL=C report a.service
  has '.lines[0] | explode == [233, 65533]'
}

@test "a long message is truncated, even in the middle of a character" {
  { printf 'a%.0s' {1..999} && printf '€%.0s' {1..20000} && echo; } >"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines[0] | length == 1000 and startswith("aaa") and endswith("a\ufffd")'
}

@test "if messages grow sixfold in JSON, the oldest are left out and the line stays below 48 KiB" {
  local i
  for ((i = 0; i < 30; i++)); do
    printf '\x01%.0s' {1..2000}
    echo
  done >"$BATS_TEST_TMPDIR/journal"
  echo 'the reason' >>"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '(.lines | length) > 4 and .lines[-1] == "the reason"'
}

@test "a journal without a final newline, and a journal of one megabyte, are read" {
  printf 'cut' >"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines == ["cut"]'
  yes 'the quick brown fox' | head -c 1000000 >"$BATS_TEST_TMPDIR/journal"
  report a.service
  has '.lines | length == 20'
}

@test "a number of restarts that is not a number becomes null" {
  printf '%s\n' 'NRestarts=1,"x":2' >"$BATS_TEST_TMPDIR/properties"
  report a.service
  has '.restarts == null'
}

@test "the prefix <3> is written only if stdout is the journal's stream" {
  # A file can replace the stream, because only the device and the inode are compared.
  local stream
  : >"$BATS_TEST_TMPDIR/stream"
  stream=$(stat -c %d:%i "$BATS_TEST_TMPDIR/stream")
  JOURNAL_STREAM=$stream "$script" a.service >"$BATS_TEST_TMPDIR/stream"
  [[ $(cat "$BATS_TEST_TMPDIR/stream") == '<3>{"time":'* ]]
  JOURNAL_STREAM=$stream report a.service
  [[ $record == '{"time":'* ]]
  JOURNAL_STREAM=nonsense report a.service
  [[ $record == '{"time":'* ]]
}

@test "hub-failure does not wait if the journal cannot be read" {
  stand_in journalctl <<<'exit 1'
  stand_in sleep <<<'touch "$BATS_TEST_TMPDIR/slept"'
  report a.service
  [ ! -e "$BATS_TEST_TMPDIR/slept" ]
}

@test "hub-failure stops waiting for a closing message after 20 attempts" {
  echo 'last words' >"$BATS_TEST_TMPDIR/journal"
  stand_in journalctl <<<'case $* in *MESSAGE_ID=*) ;; *--lines=0*) ;; *) cat "$BATS_TEST_TMPDIR/journal" ;; esac'
  stand_in sleep <<<'echo . >>"$BATS_TEST_TMPDIR/slept"'
  report a.service
  has '.lines == ["last words"]'
  [ "$(wc -l <"$BATS_TEST_TMPDIR/slept")" -eq 20 ]
}

@test "hub-failure waits for lines of the unit itself, which may reach the journal after those of systemd" {
  echo 'Main process exited' >"$BATS_TEST_TMPDIR/journal"
  MONITOR_UNIT=a.service MONITOR_INVOCATION_ID=0123456789abcdef0123456789abcdef export MONITOR_UNIT MONITOR_INVOCATION_ID
  stand_in journalctl <<'SH'
case $* in
  *MESSAGE_ID=*) echo "Failed with result 'exit-code'." ;;
  *_PID=1*) cat "$BATS_TEST_TMPDIR/journal" ;;
  *_SYSTEMD_INVOCATION_ID=*) grep 'last words' "$BATS_TEST_TMPDIR/journal" ;;
esac
SH
  stand_in sleep <<<'echo . >>"$BATS_TEST_TMPDIR/slept"; if (($(wc -l <"$BATS_TEST_TMPDIR/slept") == 3)); then echo "last words" >>"$BATS_TEST_TMPDIR/journal"; fi'
  report a.service
  has '.lines == ["Main process exited", "last words"]'
  [ "$(wc -l <"$BATS_TEST_TMPDIR/slept")" -eq 3 ]
}

@test "hub-failure waits only for a second if the unit printed nothing" {
  stand_in journalctl <<<'case $* in *MESSAGE_ID=*) echo "Failed with result" ;; esac'
  stand_in sleep <<<'echo . >>"$BATS_TEST_TMPDIR/slept"'
  report a.service
  has '.lines == []'
  [ "$(wc -l <"$BATS_TEST_TMPDIR/slept")" -eq 10 ]
}

@test "hub-failure fails on a full disk" {
  run -1 --separate-stderr bash -c '"$0" a.service >/dev/full' "$script"
}

@test "usage errors exit with status 64 and print no record" {
  local args
  for args in '' 'a.service b.service' '--help' '-x.service' 'nosuffix' '../a.service' "$(printf 'x%.0s' {1..300}).service"; do
    # shellcheck disable=SC2086 # the words are the arguments
    run -64 --separate-stderr "$script" $args
    [ -z "$output" ]
    [[ $stderr == 'usage: '* ]]
  done
}
