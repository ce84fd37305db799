#!/bin/bash
# Provokes the events of gitsync that need a running systemd. Its output goes to /e2e/lines.
set -uo pipefail
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org
export GITSYNC_STATE_DIR=/var/lib/try GITSYNC_REPO=/srv/hub GITSYNC_HEALTH_WINDOW=0s GITSYNC_PUBLISH=/srv/trees
git init -q -b main /srv/hub
mkdir /srv/hub/systemd
printf '[Service]\nType=oneshot\nExecStart=false\n[X-Gitsync]\nProbe=yes\n' >/srv/hub/systemd/probe.service
echo '{"on_change":[{"paths":["systemd"],"run":["false"]}]}' >/srv/hub/.gitsync.json
git -C /srv/hub add -A
git -C /srv/hub commit -q -m bad
gitsync >>/e2e/lines 2>&1
[[ $? == 10 ]] || exit 1
gitsync >>/e2e/lines 2>&1 || exit 2
sed -i s/false/true/ /srv/hub/systemd/probe.service
git -C /srv/hub commit -q -a -m good
gitsync >>/e2e/lines 2>&1
[[ $? == 11 ]] || exit 3

# Units that do not stop, that take longer to start than the timeout of one command, and that cannot start.
# unit writes a service that is started at boot: unit NAME TEXT.
unit() { printf '%b\n[Install]\nWantedBy=multi-user.target\n' "$2" >"/srv/hub/systemd/$1.service"; }
unit stays '[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=sleep inf'
unit slow '[Service]\nTimeoutStartSec=7s\nTimeoutStopSec=1s\nExecStartPre=sleep 6\nExecStartPre=sleep 6\nExecStartPre=sleep 6\nExecStartPre=sleep 6\nExecStart=sleep inf'
unit needs '[Unit]\nRequires=other.service\n[Service]\nExecStart=sleep inf'
mkdir -p /run/systemd/system
printf '[Service]\nExecStart=sleep inf\n' >/run/systemd/system/other.service
git -C /srv/hub add -A
git -C /srv/hub commit -q -m started
gitsync >>/e2e/lines 2>&1
[[ $? == 11 ]] || exit 4
git -C /srv/hub rm -q systemd/stays.service
git -C /srv/hub commit -q -m stopped
gitsync >>/e2e/lines 2>&1
[[ $? == 11 ]] || exit 5
systemctl stop needs.service other.service
rm /run/systemd/system/other.service
systemctl daemon-reload
gitsync >>/e2e/lines 2>&1
[[ $? == 11 ]] || exit 6
