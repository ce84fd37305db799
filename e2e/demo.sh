#!/usr/bin/env bash
# Shows what sysmetrics does: two samples in a temporary PostgreSQL, and their rows. Then the same while the database is
# down, and after it is up again. It changes nothing outside of a temporary directory, and removes that directory.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sysmetrics=${SYSMETRICS:-$here/bin/sysmetrics}
work=
# shellcheck source=e2e/demo-database.sh
source "$here/e2e/demo-database.sh"

clean_up() {
  local status=$?
  trap - EXIT
  # A second Ctrl-C must not leave a server running.
  trap '' INT TERM HUP
  if [[ -n $work && -e $work/data/postmaster.pid ]]; then
    stop_database || true
  fi
  [[ -z $work ]] || rm -rf "$work"
  exit "$status"
}

show_rows() {
  echo '  $ psql'
  psql -X -q --pset=footer=off -c "
    SELECT to_char(time, 'HH24:MI:SS.MS') AS time, host, metric_type,
      CASE metric_type
        WHEN 'cpu' THEN (payload->>'usage') || ' % busy'
        WHEN 'memory' THEN (payload->>'used_percent') || ' % used'
        WHEN 'disk' THEN '/ ' || coalesce(payload->'/'->>'used_percent', '?') || ' % used'
        ELSE (SELECT count(*) FROM jsonb_object_keys(payload) AS name WHERE name !~ '^_') || ' interfaces'
      END AS value
    FROM system_metrics ORDER BY time, metric_type" | sed '/^$/d; s/^/    /'
}

spooled() {
  if [[ -s $work/state/spool.jsonl ]]; then
    wc -l <"$work/state/spool.jsonl"
  else
    echo 0
  fi
}

# flush STATUS: flushes one sample, which must exit with that status.
flush() {
  local want=$1 status=0
  printf '  $ sysmetrics collect --flush\n'
  "$sysmetrics" collect --flush >"$work/out" 2>"$work/err" || status=$?
  sed 's/^/    /' "$work/out" "$work/err"
  printf '    exit status %s\n' "$status"
  [[ $status -eq $want ]] || fail "exit status $status, want $want"
}

expect() {
  local what=$1 got=$2 want=$3
  [[ $got == "$want" ]] || fail "$what: $got, want $want"
}

count_rows() { psql -XAt -c 'SELECT count(*) FROM system_metrics'; }

main() {
  [[ -x $sysmetrics ]] || fail "no $sysmetrics: run make build"
  find_postgres
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # The demo must not use the caller's databases or credentials.
  local name
  for name in $(compgen -e); do
    case $name in
      SYSMETRICS_HOST) ;;
      PG* | SYSMETRICS_* | DATABASE_URL | CREDENTIALS_DIRECTORY | STATE_DIRECTORY | JOURNAL_STREAM) unset "$name" ;;
    esac
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/hub-demo.XXXXXX")
  chmod 755 "$work"
  export SYSMETRICS_STATE_DIR=$work/state

  say '1. Print a sample of this host: one JSON record each for cpu, memory, disk and network'
  echo '  $ sysmetrics | cut -c 1-160'
  "$sysmetrics" | cut -c 1-160 | sed 's/^/    /'

  say '2. Start PostgreSQL in a temporary directory, and create the table of sysmetrics'
  make_database
  echo '  $ sysmetrics schema | psql'
  "$sysmetrics" schema | psql -X -q --set ON_ERROR_STOP=1

  say '3. Insert two samples. The timer does this each minute'
  flush 0
  flush 0
  show_rows
  expect 'rows of two samples' "$(count_rows)" 8

  say '4. Stop the database. The next sample waits in the spool, and the exit status says why'
  stop_database
  flush 69
  printf '  records in the spool: %s\n' "$(spooled)"
  expect 'records in the spool' "$(spooled)" 4

  say '5. Start the database. The next run also inserts the waiting sample, with its original time'
  start_database
  flush 0
  printf '  records in the spool: %s\n' "$(spooled)"
  expect 'records in the spool' "$(spooled)" 0
  show_rows
  expect 'rows of four samples' "$(count_rows)" 16

  say 'Four samples, sixteen rows: none is lost, and none is inserted twice. The server and its directory are removed now.'
}

main "$@"
