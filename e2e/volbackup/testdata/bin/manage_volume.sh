#!/bin/sh
# Replaces scripts/manage_volume.sh in tests that need no Docker. A volume is a
# directory in $VOLUMES. These files beside it set its behaviour:
#
#   NAME.status      the exit status of export
#   NAME.before      a shell script that export runs first
#   NAME.labels      the labels
#   NAME.containers  the running containers
#   NAME.mounts      where they mount the volume
#   NAME.refused     the volume cannot be read; the file holds what list prints as the reason
#   NAME.killed      its container does not stop within its timeout
#
# If ALONE is set, `with` accepts only one volume, as in earlier versions.
set -eu
say() { echo "$*" >>"${LOG:-/dev/null}"; }
say "$*"
script=$(dirname "$(realpath "$0")")/../../../../scripts/manage_volume.sh # the real script
refuse() {
  if [ -e "$VOLUMES/$1.refused" ]; then
    echo '{"level":"ERROR","msg":"volume_refused","error":"volume '"$1"' is a mount of /srv/data, type none","hint":"exclude it"}' >&2
    exit 65
  fi
  if [ -e "$VOLUMES/$1.killed" ]; then
    echo '{"level":"WARN","msg":"container_killed","detail":"container db did not stop within its timeout","volume":"'"$1"'","container":"db"}' >&2
  fi
}
case $1 in
  list)
    for dir in "$VOLUMES"/*/; do
      v=$(basename "$dir")
      labels='{}' containers='[]' mounts='[]'
      if [ -e "$VOLUMES/$v.labels" ]; then labels=$(cat "$VOLUMES/$v.labels"); fi
      if [ -e "$VOLUMES/$v.containers" ]; then containers=$(cat "$VOLUMES/$v.containers"); fi
      if [ -e "$VOLUMES/$v.mounts" ]; then mounts=$(cat "$VOLUMES/$v.mounts"); fi
      refused=''
      if [ -s "$VOLUMES/$v.refused" ]; then refused=',"refused":"'$(cat "$VOLUMES/$v.refused")'"'; fi
      printf '{"msg":"volume","volume":"%s","driver":"local","mountpoint":"%s","labels":%s,"containers":%s,"mounts":%s%s}\n' \
        "$v" "$VOLUMES/$v" "$labels" "$containers" "$mounts" "$refused"
    done
    ;;
  export)
    # shellcheck source=/dev/null
    if [ -e "$VOLUMES/$2.before" ]; then . "$VOLUMES/$2.before"; fi
    refuse "$2"
    if [ ! -e "$VOLUMES/$2" ]; then
      echo '{"level":"ERROR","msg":"no_such_volume","error":"no such volume: '"$2"'","hint":"look"}' >&2
      exit 65
    fi
    "$script" tar "$VOLUMES/$2"
    if [ -e "$VOLUMES/$2.status" ]; then exit "$(cat "$VOLUMES/$2.status")"; fi
    ;;
  import)
    shift
    if [ "$1" = --stop ]; then shift; fi
    if [ -e "$VOLUMES/$1.used" ]; then
      echo '{"level":"ERROR","msg":"in_use","error":"container db uses volume '"$1"'","hint":"stop it, or pass --stop"}' >&2
      exit 75
    fi
    rm -rf "$VOLUMES/.new"
    mkdir "$VOLUMES/.new"
    tar -x -C "$VOLUMES/.new"
    rm -rf "${VOLUMES:?}/$1"
    mv "$VOLUMES/.new" "$VOLUMES/$1"
    ;;
  with)
    shift
    n=0 first=$VOLUMES/$1
    while [ "$1" != -- ]; do
      refuse "$1"
      n=$((n + 1))
      if [ $n -gt 1 ] && [ -n "${ALONE:-}" ]; then exit 64; fi
      export "VOLUME_PATH_$n=$VOLUMES/$1"
      shift
    done
    shift
    export VOLUME_PATH="$first"
    exec "$@"
    ;;
  tar) exec "$script" "$@" ;;
  *) exit 64 ;;
esac
