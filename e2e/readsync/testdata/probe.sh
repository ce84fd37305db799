#!/bin/bash
# Runs in the sandbox of reading-sync-api@.service and prints the actions that it allows.
for dir in / /boot /dev /dev/shm /dev/mqueue /e2e /etc /home /mnt /mongo /opt /postgres /proc/sys/kernel /root /run /run/lock /run/user \
  /srv /sys/fs/cgroup /usr/local/bin /usr/share /var /var/lib /var/log /var/lib/reading-sync /var/lib/probe; do
  if touch "$dir/probe-file" 2>/dev/null; then
    echo "writes $dir"
    rm "$dir/probe-file"
  fi
done
if [[ -S /postgres/.s.PGSQL.5432 || -n $(compgen -G '/postgres/.s.PGSQL.*') ]]; then echo 'sees the database'; fi
if [[ -r $CREDENTIALS_DIRECTORY/mongo_uri && -r $CREDENTIALS_DIRECTORY/database_url ]]; then echo 'sees the credentials'; fi
if (: </dev/tcp/127.0.0.1/8085); then echo 'speaks TCP'; fi
