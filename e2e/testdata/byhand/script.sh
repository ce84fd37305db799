#!/bin/bash
# Runs in the booted machine; ../../byhand_test.go reads what it leaves in /e2e.
set -euo pipefail

# By hand: the script itself is a unit.
by_hand() { env -u INVOCATION_ID -u JOURNAL_STREAM HOME=/root "$@"; }

systemd-sysusers
systemd-tmpfiles --create

# The environment that a service gets from the file, and that root gets by hand.
install -D -m 600 /odd.env /etc/observability-hub/volume-backup.env
cat >/usr/local/bin/show <<'SHOW'
#!/bin/bash
sed -z '/^V[0-9]/!d' "/proc/$$/environ" | sort -z >"$1"
exec tar --create --directory=/etc hostname
SHOW
chmod +x /usr/local/bin/show
systemd-run --quiet --wait --property=EnvironmentFile=/etc/observability-hub/volume-backup.env \
  --property=StandardOutput=null show /e2e/environment-unit
by_hand V1=mine volbackup put vol --repo /tmp/repository -- show /e2e/environment-by-hand-overridden >/dev/null
by_hand volbackup put vol --repo /tmp/repository -- show /e2e/environment-by-hand >/dev/null

# What the administrator wants to run when a unit fails: it gets the record of the failure, as another user.
install -d -m 755 /etc/observability-hub/on-failure.d
install -m 755 /dev/stdin /etc/observability-hub/on-failure.d/tell <<'HOOK'
#!/bin/sh
{ id -un; echo "$UNIT $TO"; cat; } >/tmp/told && cat /tmp/told
HOOK
echo 'TO=somebody' | install -m 600 /dev/stdin /etc/observability-hub/hub-notify.env

# The unit's state and credential.
install -D -m 600 /dev/stdin /etc/credstore/database_url <<<'postgres://hub@127.0.0.1:1/hub'
systemctl start system-metrics.service || :
by_hand sysmetrics --flush >/e2e/by-hand 2>/e2e/by-hand-said || :
rm /var/lib/system-metrics/*
by_hand sysmetrics --flush >/e2e/fresh 2>/e2e/fresh-said || :
stat --format='%U %n' /var/lib/system-metrics/* >/e2e/owners
[ ! -e /root/.local/state/system-metrics ]
systemctl reset-failed system-metrics.service
systemctl start system-metrics.service || :
journalctl --quiet --output=cat _SYSTEMD_UNIT=system-metrics.service | tail -n 2 >/e2e/unit
by_hand DATABASE_URL=postgres://hub@127.0.0.2:1/hub sysmetrics --flush >/dev/null 2>/e2e/overridden || :

# With hub-run as the unit: its user, credential, state and sandbox.
# shellcheck disable=SC2016 # it expands there
hub-run system-metrics bash -c 'id -un; ls "$CREDENTIALS_DIRECTORY"; echo "$STATE_DIRECTORY"; touch /etc/written || exit 11' \
  >/e2e/as-unit 2>/e2e/as-unit-said || echo "status $?" >>/e2e/as-unit
echo 'from stdin' | hub-run system-metrics cat >>/e2e/as-unit

# The failures of system-metrics above were told.
told() { journalctl --quiet --output=cat --identifier=hub-notify; }
for _ in $(seq 100); do
  if told | grep -q unit_failed; then break; fi
  sleep 0.2
done
told >/e2e/told
{
  systemctl status 'hub-failure@*' 'hub-notify@*'
  journalctl --no-pager -n 60 -o short
} >/e2e/told-why 2>&1 || :
