#!/usr/bin/env bash
# Shows what readsync does, with FerretDB, which speaks MongoDB's protocol, and a PostgreSQL in a temporary directory:
# documents become rows, and one document cannot. It changes nothing outside of that directory, and removes it.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
readsync=${READSYNC:-$here/bin/readsync}
work=
ferret=
# shellcheck source=e2e/demo-database.sh
source "$here/e2e/demo-database.sh"

clean_up() {
  local status=$?
  trap - EXIT
  # A second Ctrl-C must not leave a server running.
  trap '' INT TERM HUP
  if [[ -n $ferret ]]; then
    kill "$ferret" 2>/dev/null || true
    wait "$ferret" || true
  fi
  if [[ -n $work && -e $work/data/postmaster.pid ]]; then
    stop_database || true
  fi
  [[ -z $work ]] || rm -rf "$work"
  exit "$status"
}

start_ferret() {
  local deadline
  echo '  building FerretDB, which takes a minute the first time'
  # go build -v prints each package that it compiles, which are about 500.
  (cd "$here/e2e/ferret" && CGO_ENABLED=0 go build -v -o "$work/ferret" . 2>&1) \
    | awk '!/^[a-zA-Z0-9.\/_-]+$/ { print; next } ++n % 100 == 0 { print "    " n " packages"; fflush() }'
  (cd "$here/e2e/mongo" && CGO_ENABLED=0 go build -o "$work/mongo" .)
  # FerretDB exits at the end of its standard input, which this script keeps open.
  mkfifo "$work/alive"
  "$work/ferret" <"$work/alive" >"$work/uri" 2>"$work/ferret.log" &
  ferret=$!
  exec 9>"$work/alive"
  deadline=$((SECONDS + 30))
  until [[ -s $work/uri ]]; do
    if ! kill -0 "$ferret" 2>/dev/null || ((SECONDS > deadline)); then
      fail "FerretDB does not start: $(<"$work/ferret.log")"
    fi
    sleep 0.1
  done
  MONGO_URI=$(<"$work/uri")
  export MONGO_URI MONGO_DB_NAME=hub MONGO_COLLECTION=readings
}

insert() { "$work/mongo" insert "$MONGO_URI" hub.readings; }
count() { "$work/mongo" count "$MONGO_URI" hub.readings "$1"; }

# run STATUS ARG...: runs readsync, which must exit with that status.
run() {
  local want=$1 status=0
  shift
  printf '  $ readsync %s\n' "$*"
  "$readsync" "$@" >"$work/out" 2>"$work/err" || status=$?
  jq -r '"    " + ([.msg, (to_entries[] | select(.key | IN("read", "inserted", "identical", "rejected", "marked", "processed", "rows", "no_row")) | "\(.key) \(.value)"), .detail, .error] | map(select(. != null)) | join("  "))' "$work/err" "$work/out"
  printf '    exit status %s\n' "$status"
  [[ $status -eq $want ]] || fail "exit status $status, want $want"
}

expect() {
  local what=$1 got=$2 want=$3
  [[ $got == "$want" ]] || fail "$what: $got, want $want"
}

main() {
  [[ -x $readsync ]] || fail "no $readsync: run make build"
  find_postgres
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # The demo must not use the caller's databases or credentials.
  local name
  for name in $(compgen -e); do
    case $name in
      PG* | READSYNC_* | MONGO_* | DATABASE_URL | CREDENTIALS_DIRECTORY | STATE_DIRECTORY | JOURNAL_STREAM) unset "$name" ;;
    esac
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/hub-demo.XXXXXX")
  chmod 755 "$work"
  export READSYNC_STATE_DIR=$work/state

  say '1. Start FerretDB and PostgreSQL in a temporary directory, and insert three documents to be synced'
  start_ferret
  make_database
  insert <<'JSON'
{"_id":{"$oid":"65e1d8000000000000000001"},"status":"ingested","timestamp":{"$date":"2026-03-01T12:00:00Z"},"source":"greenhouse","event_type":"reading","payload":{"celsius":21.5}}
{"_id":{"$oid":"65e1d8000000000000000002"},"status":"ingested","timestamp":{"$date":"2026-03-01T12:01:00Z"},"source":"greenhouse","event_type":"reading","payload":{"celsius":21.75,"serial":{"$numberLong":"9007199254740993"}}}
{"_id":{"$oid":"65e1d8000000000000000003"},"status":"ingested","timestamp":{"$date":"2026-03-01T12:02:00Z"},"source":"test","event_type":"reading","payload":{}}
JSON
  printf '  documents to sync: %s\n' "$(count '{"status":"ingested"}')"

  say '2. Sync in three stages with a filter between them: documents with the source "test" are left out'
  printf "  \$ readsync extract | jq -c 'select(.source != \"test\")' | readsync load | readsync mark\n"
  "$readsync" extract | jq -c 'select(.source != "test")' | "$readsync" load | "$readsync" mark | jq -r 'select(.msg) | "    \(.msg)  read \(.read)  marked \(.marked)"'
  echo '  $ psql'
  psql -X -q --pset=footer=off -c "SELECT mongo_id, to_char(event_timestamp AT TIME ZONE 'UTC', 'HH24:MI') AS time, source, payload FROM reading_analytics ORDER BY 1" | sed '/^$/d; s/^/    /'
  expect 'documents that are left' "$(count '{"status":"ingested"}')" 1

  say '3. Sync the rest in one run, as the service does. A second run changes nothing'
  run 0 run
  run 0 run
  expect 'documents that are left' "$(count '{"status":"ingested"}')" 0

  say '4. A document that PostgreSQL cannot store is set aside with the reason. It can be loaded later'
  insert <<<'{"_id":"odd","status":"ingested","source":"a\u0000b","payload":{}}'
  run 11 run --max-rejects 1
  printf '  set aside: %s\n' "$(jq -r '"\(.mongo_id): \(.detail)"' "$work/state/dead-letters.jsonl")"
  run 0 retry --nul=replace "$work/state/dead-letters.jsonl"

  say '5. Compare both sides'
  run 0 verify
  expect 'rows' "$(psql -XAt -c 'SELECT count(*) FROM reading_analytics')" 4

  say 'Four documents became four rows, each once. Both servers and their directory are removed now.'
}

main "$@"
