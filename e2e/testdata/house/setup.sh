#!/bin/bash
# Makes a host with all four unit families, as an administrator does after `make install`: settings, credentials, presets.
# Nothing is started but Docker, whose containers are to be backed up, and the Git server. The timers start at the next boot.
set -euo pipefail

make-image
for volume in data logs; do docker volume create "$volume" >/dev/null; done
# Two containers share a volume: one writes into it all the time, one does not end on SIGTERM. The third is paused for a backup.
docker run --detach --network none --name writer --restart unless-stopped --volume data:/data busybox \
  sh -c 'trap exit TERM; while :; do date >/data/new && mv /data/new /data/now; sleep 0.1 & wait; done' >/dev/null
docker run --detach --network none --name slow --restart unless-stopped --stop-timeout 2 --volume data:/data busybox \
  sh -c 'trap "" TERM; while :; do sleep 1; done' >/dev/null
docker run --detach --network none --name quiet --restart unless-stopped --label hub.backup.quiesce=pause --volume logs:/logs busybox \
  sh -c 'trap exit TERM; sleep 100000 & wait' >/dev/null
head -c 8M /dev/urandom >/var/lib/docker/volumes/data/_data/random

printf '%s\n' GITSYNC_REPO=git://127.0.0.1/hub GITSYNC_HEALTH_WINDOW=1s >/etc/observability-hub/gitops-sync.env
printf '%s\n' MONGO_DB_NAME=hub MONGO_COLLECTION=readings >/etc/observability-hub/reading-sync-api.env
install -d -m 700 /etc/credstore
install -m 600 /srv/credentials/* /etc/credstore/
systemctl enable --quiet --now git-daemon.service
systemctl preset --quiet "$@"

# The machine was off for two days: the timers of the daily jobs have missed their time.
for timer in gitops-sync reading-sync volume-backup; do touch -d '2 days ago' "/var/lib/systemd/timers/stamp-$timer.timer"; done
