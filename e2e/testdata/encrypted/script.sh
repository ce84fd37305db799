#!/bin/bash
# Runs in the booted machine; ../../encrypted_test.go reads what it leaves in /e2e.
set -euo pipefail

# By hand: the script itself is a unit.
by_hand() { env -u INVOCATION_ID -u JOURNAL_STREAM HOME=/root "$@"; }
seal() { install -d -m 700 /etc/credstore.encrypted && systemd-creds encrypt --name="$1" - "/etc/credstore.encrypted/$1"; }

systemd-sysusers
systemd-tmpfiles --create
# Requests to a program named ssh: it shows the key that gitsync gave it.
install -m 755 /dev/stdin /usr/local/bin/ssh <<'SSH'
#!/bin/bash
for word; do
  if [[ $word == IdentityFile=* ]]; then word=${word#*\"} && id -un && cat "${word%\"}"; fi
done >>/var/lib/gitops-sync/ssh
exit 255
SSH
seal database_url <<<'postgres://hub@127.0.0.1:1/hub'
seal deploy_key <<<'the key'
seal mongo_uri <<<'mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100'
install -m 600 /dev/stdin /etc/observability-hub/reading-sync.env <<<'MONGO_COLLECTION=documents'
install -m 600 /dev/stdin /etc/observability-hub/reading-sync-api.env <<<'MONGO_DB_NAME=hub'

# run NAME UNIT: starts the unit and leaves what it printed.
run() {
  systemctl reset-failed "$2" || :
  systemctl start "$2" || :
  journalctl --quiet --output=cat "_SYSTEMD_UNIT=$2" | tail -n 2 >"/e2e/$1"
}

# The unit as it is, root by hand, and the documented drop-in.
run unit system-metrics.service
by_hand sysmetrics --flush >/e2e/by-hand 2>&1 || :
hub-status --json system-metrics >/e2e/status || :
mkdir -p /etc/systemd/system/{system-metrics,gitops-sync}.service.d
printf '[Service]\nLoadCredentialEncrypted=database_url\n' >/etc/systemd/system/system-metrics.service.d/encrypted.conf
printf '[Service]\nLoadCredentialEncrypted=deploy_key\nEnvironment=HUB_TRIES=1\n' >/etc/systemd/system/gitops-sync.service.d/encrypted.conf
systemctl daemon-reload
run drop-in system-metrics.service
hub-status --json system-metrics >/e2e/status-drop-in || :
hub-run system-metrics sysmetrics flush </dev/null >/e2e/hub-run 2>&1 || :

# A key for git, which is a file of the user of git.
install -m 600 /dev/stdin /etc/observability-hub/gitops-sync.env <<<'GITSYNC_REPO=git@127.0.0.1:hub.git'
systemctl start gitops-sync.service || :
mv /var/lib/gitops-sync/ssh /e2e/ssh-unit
by_hand gitsync pull >/e2e/pull 2>&1 || :
mv /var/lib/gitops-sync/ssh /e2e/ssh-by-hand
ls -d /run/gitsync-* >/e2e/left 2>/dev/null || :

# The endpoint's settings and credential, for the commands of the endpoint alone.
by_hand readsync run >/e2e/readsync 2>&1 || :

# A credential of another host.
printf '%s\n' "$(base64 -w 76 <(head -c 200 /dev/zero))" >/etc/credstore.encrypted/database_url
by_hand sysmetrics --flush >/e2e/foreign 2>&1 || :
