#!/bin/bash
# Runs in the booted machine: walks through the README, whose blocks the test has put into /page, as a user who may use
# sudo. The packages are in dist/ of that user's home, and the source tree is in src/.
set -euo pipefail

echo "127.0.0.1 localhost e2e" >/etc/hosts
useradd --create-home --shell=/bin/bash ann
echo 'ann ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/ann
# -a keeps the times: make install builds nothing that is newer than its sources.
cp -a /src /home/ann/src
cp -r /dist /home/ann/dist
chown -R ann: /home/ann

# walk DIR BLOCK: runs a block as a person does: not as part of a unit.
walk() {
  echo "# $2"
  (cd "/home/ann/$1" && env -u INVOCATION_ID -u JOURNAL_STREAM runuser --user ann -- bash -euo pipefail "/page/$2.sh") </dev/null
}

rows() { runuser -u postgres -- psql --no-psqlrc --tuples-only --no-align --dbname=hub --command='SELECT count(*) FROM system_metrics'; }

# A run of the timer may be under way: a start waits for it.
run() { systemctl start system-metrics.service; }

{
  walk . first-row-1
  run
  walk . first-row-2
} >/e2e/packages 2>&1
rows >/e2e/rows-of-packages
systemctl is-enabled system-metrics.timer >/e2e/enabled

# The same host from source. The removal keeps the environment file.
apt-get remove --quiet=2 --yes hub-sysmetrics hub-common >/e2e/removal 2>&1
rm -rf /var/lib/system-metrics
runuser -u postgres -- psql --no-psqlrc --quiet --dbname=hub --command='DROP TABLE system_metrics' >>/e2e/removal
{
  walk src from-source-1
  systemctl enable --now system-metrics.timer
  run
} >/e2e/source 2>&1
rows >/e2e/rows-of-source
command -v sysmetrics >/e2e/path
