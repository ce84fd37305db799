# shellcheck shell=bash
# Part of the demos, to be sourced: a temporary PostgreSQL in $work, and functions for messages.

work=${work-}
pg_bin=

say() {
  if [[ -t 1 ]]; then
    printf '\n\033[1m%s\033[0m\n' "$*"
  else
    printf '\n%s\n' "$*"
  fi
}

fail() {
  printf 'demo: error: %s\n' "$*" >&2
  exit 1
}

# as_postgres PROGRAM...: runs a program of PostgreSQL. PostgreSQL refuses to run as root, so root runs it as the user postgres.
as_postgres() (
  local program=$1
  shift
  cd / # that user may not be allowed to enter the current directory
  if [[ $EUID -eq 0 ]]; then
    setpriv --reuid=postgres --regid=postgres --init-groups -- "$pg_bin/$program" "$@"
  else
    "$pg_bin/$program" "$@"
  fi
)

find_postgres() {
  local initdb
  initdb=$(compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1) || true
  [[ -n $initdb ]] || fail 'no PostgreSQL server in /usr/lib/postgresql: apt-get install postgresql'
  pg_bin=${initdb%/initdb}
}

start_database() {
  as_postgres pg_ctl start --silent --wait -D "$work/data" -l "$work/postgres/log"
}

stop_database() {
  as_postgres pg_ctl stop --silent --wait --mode=immediate -D "$work/data"
}

# make_database: starts a server that listens only on a unix socket, with an ordinary role that owns a database.
make_database() {
  install -d -m 755 "$work/postgres"
  [[ $EUID -ne 0 ]] || chown postgres "$work" "$work/postgres"
  as_postgres initdb -D "$work/data" -U postgres -A trust --no-sync --no-instructions -E UTF8 --locale=C.UTF-8 >"$work/initdb.log"
  {
    printf "listen_addresses = ''\n"
    printf "unix_socket_directories = '%s'\n" "$work/postgres"
    printf 'fsync = off\n'
  } >>"$work/data/postgresql.conf"
  start_database
  export PGHOST=$work/postgres PGUSER=hub PGDATABASE=hub
  psql -X -q -U postgres -d postgres -c 'CREATE ROLE hub LOGIN' -c 'CREATE DATABASE hub OWNER hub'
}
