#!/usr/bin/env bash
# Shows sysmetrics at its job: a PostgreSQL of its own in a temporary folder, two samples, the rows;
# then the same with the database down and up again. Nothing outside of that folder is touched, and nothing stays.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
sysmetrics=${SYSMETRICS:-$here/bin/sysmetrics}
work=
# shellcheck source=e2e/demo-database.sh
source "$here/e2e/demo-database.sh"

clean_up() {
  local status=$?
  trap - EXIT
  # Another Ctrl-C must not leave a server behind.
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

# Flushes one sample; the argument is the exit status that should come of it.
flush() {
  local want=$1 status=0
  printf '  $ sysmetrics collect --flush\n'
  "$sysmetrics" collect --flush >"$work/out" 2>"$work/err" || status=$?
  sed 's/^/    /' "$work/out" "$work/err"
  printf '    exit status %s\n' "$status"
  [[ $status -eq $want ]] || fail "exit status $status where $want was due"
}

expect() {
  local what=$1 got=$2 want=$3
  [[ $got == "$want" ]] || fail "$what: $got, not $want"
}

count_rows() { psql -XAt -c 'SELECT count(*) FROM system_metrics'; }

main() {
  [[ -x $sysmetrics ]] || fail "no $sysmetrics: run make build"
  find_postgres
  trap clean_up EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  # Nothing of the caller's own databases or credentials.
  local name
  for name in $(compgen -e); do
    case $name in
      PG* | SYSMETRICS_* | DATABASE_URL | CREDENTIALS_DIRECTORY | STATE_DIRECTORY | JOURNAL_STREAM) unset "$name" ;;
    esac
  done
  work=$(mktemp -d "${TMPDIR:-/tmp}/hub-demo.XXXXXX")
  chmod 755 "$work"
  export SYSMETRICS_STATE_DIR=$work/state

  say '1. A sample of this host, on stdout: one JSON record each of cpu, memory, disk and network'
  echo '  $ sysmetrics | cut -c 1-160'
  "$sysmetrics" | cut -c 1-160 | sed 's/^/    /'

  say '2. A PostgreSQL server of our own, in a temporary folder, with the table that sysmetrics asks for'
  make_database
  echo '  $ sysmetrics schema | psql'
  "$sysmetrics" schema | psql -X -q --set ON_ERROR_STOP=1

  say '3. Two samples into it. The timer does this each minute'
  flush 0
  flush 0
  show_rows
  expect 'rows of two samples' "$(count_rows)" 8

  say '4. The database goes down, and a sample is due: it waits in the spool, and the exit status says why'
  stop_database
  flush 69
  printf '  records in the spool: %s\n' "$(spooled)"
  expect 'records in the spool' "$(spooled)" 4

  say '5. The database is up again: the next sample takes the waiting one along, with its own time'
  start_database
  flush 0
  printf '  records in the spool: %s\n' "$(spooled)"
  expect 'records in the spool' "$(spooled)" 0
  show_rows
  expect 'rows of four samples' "$(count_rows)" 16

  say 'Four samples, sixteen rows, nothing lost and nothing twice. The server and its folder go now.'
}

main "$@"
