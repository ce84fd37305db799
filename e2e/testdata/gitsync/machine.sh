#!/bin/bash
# gitsync in a booted machine: its units, from an empty host on. Each part
# prints its name when it holds; the first that does not ends the script.
set -euo pipefail

export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org
export GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org
repo=/srv/git/hub
url=git://127.0.0.1/hub
apply_state=/var/lib/gitops-apply
sync_state=/var/lib/gitops-sync

trap 'echo "line $LINENO: $BASH_COMMAND" >&2; tail -n 5 /tmp/out /tmp/err >&2 || :' ERR

# await CONDITION...: until it is true, for at most 30 s.
await() {
  local tries
  for ((tries = 0; tries < 300; tries++)); do
    if "$@" >/dev/null 2>&1; then return; fi
    sleep 0.1
  done
  echo "never true: $*" >&2
  return 1
}

push() {
  git -C $repo add -A
  git -C $repo commit -q --allow-empty -m "$1"
}

head_commit() { git -C $repo rev-parse HEAD; }

applied() { jq -r .commit $apply_state/ledger.json; }

# by_units: the timer's way, from pull to the end of apply.
by_units() {
  systemctl reset-failed gitops-sync.service gitops-apply.service 2>/dev/null || :
  systemctl start gitops-sync.service
  await apply_ended
}
apply_ended() { [[ $(systemctl show -P ActiveState gitops-apply.service) =~ ^(inactive|failed)$ && $(systemctl show -P Job gitops-apply.service) != [1-9]* ]]; }

# by_hand STATUS ARGS...: gitsync as an administrator calls it, with the exit status that it must have.
by_hand() {
  local want=$1 status=0
  shift
  gitsync "$@" >/tmp/out 2>/tmp/err || status=$?
  if [[ $status != "$want" ]]; then
    echo "gitsync $*: exit status $status, not $want" >&2
    cat /tmp/out /tmp/err >&2
    return 1
  fi
}

# sync STATUS: pull as server, apply by hand with a short health window.
sync() {
  systemctl reset-failed gitops-sync.service 2>/dev/null || :
  setpriv --reuid=server --regid=server --clear-groups env HOME=/ gitsync pull --state-dir $sync_state --repo $url >/tmp/out 2>/tmp/err
  by_hand "$1" apply --state-dir $apply_state --source $sync_state --repo $url --health-window 2s
}
plan() { by_hand 0 plan --state-dir $apply_state --source $sync_state --repo $url; }

reloads() { journalctl -b _PID=1 --output=cat --quiet | grep -c '^Reloading\.$' || :; }

ok() { echo "ok $1"; }

no_dead_links() { [[ -z $(find /etc/systemd/system -xtype l) ]]; }

mkdir -p $repo
git init -q -b main $repo
git daemon --export-all --base-path=/srv/git --listen=127.0.0.1 --reuseaddr --detach --pid-file=/run/git-daemon.pid
cp -r /project/systemd /project/scripts $repo/
printf 'GITSYNC_REPO=%s\nGITSYNC_HEALTH_WINDOW=2s\n' $url >/etc/observability-hub/gitops-sync.env
push 'the project'

# From an empty host with only git, gitsync and its units.
by_units
[[ $(applied) == "$(head_commit)" ]]
cmp /etc/systemd/system/gitops-sync.service /project/systemd/gitops-sync.service
[[ ! -e /etc/systemd/system/system-metrics.service ]]
systemctl is-enabled gitops-sync.timer
systemctl is-active gitops-sync.timer
[[ $(systemctl is-enabled gitops-sync.service) == disabled ]]
cmp /usr/local/bin/hub-failure /project/scripts/hub-failure
[[ $(stat -c %U:%a $sync_state/repo.git/HEAD) == server:600 ]]
ok 'first deployment'

before=$(reloads)
by_units
[[ $(journalctl -u gitops-apply.service -o cat | jq -Rr 'fromjson? | select(.msg == "applied").actions' | tail -1) == 0 ]]
[[ $(reloads) == "$before" ]]
plan
[[ ! -s /tmp/out ]]
ok 'second run changes nothing'

# Units of our own for the rest: a timer that is far from firing, a service that runs, a socket, a template.
cat >$repo/systemd/tick.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=tick
UNIT
cat >$repo/systemd/tick.timer <<'UNIT'
[Timer]
OnCalendar=2099-01-01
[Install]
WantedBy=timers.target
UNIT
cat >$repo/systemd/runs.service <<'UNIT'
[Service]
ExecStart=sleep infinity
[Install]
WantedBy=multi-user.target
UNIT
cat >$repo/systemd/echo.socket <<'UNIT'
[Socket]
ListenStream=127.0.0.1:7007
Accept=yes
[Install]
WantedBy=sockets.target
UNIT
cat >$repo/systemd/echo@.service <<'UNIT'
[Service]
ExecStart=cat
StandardInput=socket
UNIT
printf '#!/bin/sh\nexit 0\n' >$repo/scripts/tick
chmod 755 $repo/scripts/tick
push 'units of our own'
before=$(reloads)
sync 0
[[ $(reloads) == $((before + 1)) ]]
systemctl is-active tick.timer runs.service echo.socket
systemctl is-enabled tick.timer runs.service echo.socket
exec 7<>/dev/tcp/127.0.0.1/7007
echo hello >&7
read -r -t 5 answer <&7
[[ $answer == hello ]]
exec 7>&-
plan
[[ ! -s /tmp/out ]]
ok 'script, timer, service, socket and template'

sed -i s/2099/2088/ $repo/systemd/tick.timer
push 'another time'
sync 0
[[ $(systemctl show -P NextElapseUSecRealtime tick.timer) == *2088* ]]
ok 'changed timer'

pid=$(systemctl show -P MainPID runs.service)
mkdir $repo/systemd/runs.service.d
printf '[Service]\nNice=7\n' >$repo/systemd/runs.service.d/nice.conf
push 'a drop-in'
sync 0
[[ $(systemctl show -P MainPID runs.service) != "$pid" && $(systemctl show -P Nice runs.service) == 7 ]]
ok 'drop-in'

sed -i 's/7007/7008/' $repo/systemd/echo.socket
push 'another port'
sync 0
exec 7<>/dev/tcp/127.0.0.1/7008
exec 7>&-
ok 'changed socket'

echo '# by hand' >>/etc/systemd/system/tick.service
chmod 600 /etc/systemd/system/tick.timer
systemctl disable --now tick.timer 2>/dev/null
plan
[[ $(jq -r 'select(.reason == "drift").action' /tmp/out | sort | tr '\n' ' ') == 'enable update update ' ]]
sync 0
cmp /etc/systemd/system/tick.service $repo/systemd/tick.service
[[ $(stat -c %a /etc/systemd/system/tick.timer) == 644 ]]
systemctl is-active tick.timer
systemctl stop tick.timer
sync 0
systemctl is-active tick.timer
ok 'drift is healed'

systemctl enable tick.service 2>/dev/null || :
git -C $repo rm -q systemd/echo.socket systemd/echo@.service
push 'no socket'
sync 0
[[ ! -e /etc/systemd/system/echo.socket && ! -e /etc/systemd/system/echo@.service ]]
[[ $(systemctl show -P ActiveState echo.socket) == inactive && $(systemctl show -P LoadState echo.socket) == not-found ]]
no_dead_links
ok 'removed unit'

# A probe that fails, in a commit that also changes, adds and removes units.
good=$(head_commit)
find /etc/systemd/system /usr/local/bin -not -type d -printf '%p %l %m %T@ ' -exec sha256sum {} \; 2>/dev/null | sort >/tmp/before
cp $repo/systemd/runs.service /tmp/runs.service
cat >$repo/systemd/probe.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=false
[X-Gitsync]
Probe=yes
UNIT
cp $repo/systemd/tick.timer $repo/systemd/tock.timer
printf '[Timer]\nUnit=tick.service\nOnCalendar=2077-01-01\n[Install]\nWantedBy=timers.target\n' >$repo/systemd/tock.timer
sed -i 's/infinity/1000000/' $repo/systemd/runs.service
git -C $repo rm -q -r systemd/runs.service.d
push 'a probe that fails'
bad=$(head_commit)
sync 10
jq -e 'select(.msg == "rolled_back").unit == "probe.service"' /tmp/out >/dev/null
find /etc/systemd/system /usr/local/bin -not -type d -printf '%p %l %m %T@ ' -exec sha256sum {} \; 2>/dev/null | sort >/tmp/after
diff /tmp/before /tmp/after
[[ $(systemctl show -P LoadState tock.timer) == not-found ]]
systemctl is-active runs.service tick.timer
[[ $(systemctl show -P Nice runs.service) == 7 ]]
[[ $(applied) == "$good" ]]
ok 'failing probe is rolled back'

before=$(reloads)
sync 0
grep -q quarantined /tmp/err
[[ $(reloads) == "$before" && $(applied) == "$good" ]]
by_hand 0 status --state-dir $apply_state --source $sync_state
jq -e ".quarantined == \"$bad\" and .applied == \"$good\" and .fetched == \"$bad\"" /tmp/out >/dev/null
ok 'a bad commit is not tried again'

sed -i 's/ExecStart=false/ExecStart=true/' $repo/systemd/probe.service
push 'a probe that succeeds'
sync 0
[[ $(applied) == "$(head_commit)" ]]
systemctl is-active tock.timer
by_hand 0 status --state-dir $apply_state --source $sync_state
jq -e '.quarantined == null' /tmp/out >/dev/null
ok 'the next commit is tried'

# A service that dies a moment after it was started.
cp $repo/systemd/runs.service /tmp/runs.service
printf '[Service]\nExecStart=sh -c "sleep 1; exit 3"\nRestart=always\nRestartSec=1h\n[Install]\nWantedBy=multi-user.target\n' >$repo/systemd/runs.service
push 'a service that dies'
sync 10
grep -q 'waits to be restarted' /tmp/out
cmp /etc/systemd/system/runs.service /tmp/runs.service
systemctl is-active runs.service
cp /tmp/runs.service $repo/systemd/runs.service
push 'as it was'
sync 0
ok 'auto-restart is unhealthy'

by_hand 0 hold --state-dir $apply_state
sed -i s/2088/2066/ $repo/systemd/tick.timer
push 'while held'
sync 0
grep -q '"msg":"held"' /tmp/out
grep -q 2088 /etc/systemd/system/tick.timer
by_hand 0 resume --state-dir $apply_state
sync 0
grep -q 2066 /etc/systemd/system/tick.timer
ok 'hold and resume'

by_hand 0 rollback --state-dir $apply_state --source $sync_state --health-window 1s
grep -q 2088 /etc/systemd/system/tick.timer
sync 0
grep -q 2088 /etc/systemd/system/tick.timer
push 'on we go'
sync 0
grep -q 2066 /etc/systemd/system/tick.timer
ok 'rollback by hand'

# The units that do the work are themselves deployed by it.
for unit in gitops-sync.service gitops-sync.timer gitops-apply.service; do
  printf '# changed\n' >>$repo/systemd/$unit
done
push 'its own units'
by_units
[[ $(systemctl show -P Result gitops-apply.service) == success && $(applied) == "$(head_commit)" ]]
grep -q '# changed' /etc/systemd/system/gitops-apply.service
[[ $(systemctl show -P NeedDaemonReload gitops-apply.service) == no ]]
systemctl is-active gitops-sync.timer
ok 'own units changed'

# Its own binary is replaced while it runs: the probe does that.
cp /usr/local/bin/gitsync /tmp/gitsync.copy
cat >$repo/systemd/probe.service <<'UNIT'
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'cp /tmp/gitsync.copy /usr/local/bin/.gitsync.new && mv /usr/local/bin/.gitsync.new /usr/local/bin/gitsync'
[X-Gitsync]
Probe=yes
UNIT
push 'a probe that replaces gitsync'
by_units
[[ $(systemctl show -P Result gitops-apply.service) == success && $(applied) == "$(head_commit)" ]]
by_hand 0 --version
ok 'own binary replaced'

# On-change commands: as server, in the published tree, failing without a rollback.
install -d -o server -g server /srv/gitops-sync
echo 'GITSYNC_PUBLISH=/srv/gitops-sync' >>/etc/observability-hub/gitops-sync.env
# Changed by hand above the reload of the environment, which needs none.
cat >$repo/.gitsync.json <<'JSON'
{"on_change":[{"paths":["compose/*.yml"],"run":["/bin/sh","-c","id -un >/var/lib/gitops-sync/ran; pwd >>/var/lib/gitops-sync/ran; cat compose/a.yml >>/var/lib/gitops-sync/ran"]}]}
JSON
mkdir $repo/compose
echo one >$repo/compose/a.yml
push 'on change'
by_units
[[ $(systemctl show -P Result gitops-apply.service) == success ]]
[[ $(cat $sync_state/ran) == "server
/srv/gitops-sync/$(head_commit)
one" ]]
rm $sync_state/ran
by_units
[[ ! -e $sync_state/ran ]]
echo two >$repo/compose/a.yml
push 'changed'
by_units
[[ $(tail -1 $sync_state/ran) == two ]]
ok 'on-change command runs as server'

sed -i s/2066/2055/ $repo/systemd/tick.timer
sed -i 's/id -un/exit 3; id -un/' $repo/.gitsync.json
push 'an on-change command that fails'
by_units
[[ $(systemctl show -P ExecMainStatus gitops-apply.service) == 11 ]]
grep -q 2055 /etc/systemd/system/tick.timer
[[ $(applied) == "$(head_commit)" ]]
git -C $repo rm -q .gitsync.json
push 'none'
by_units
[[ $(systemctl show -P Result gitops-apply.service) == success ]]
ok 'a failing on-change command leaves the units'

# Two at once: the second says so.
status=0
flock $apply_state bash -c "gitsync apply --state-dir $apply_state --source $sync_state" >/tmp/out 2>/tmp/err || status=$?
[[ $status == 75 ]]
ok 'two runs at once'

# The template, for another repository with a ledger of its own.
git init -q -b main /srv/git/web
mkdir /srv/git/web/systemd
printf '[Service]\nType=oneshot\nExecStart=true\n' >/srv/git/web/systemd/web.service
git -C /srv/git/web add -A
git -C /srv/git/web commit -q -m web
echo 'GITSYNC_REPO=git://127.0.0.1/web' >/etc/observability-hub/gitops-sync-web.env
systemctl start gitops-sync@web.service
await test -e /etc/systemd/system/web.service
await test -e /var/lib/gitops-apply-web/ledger.json
systemctl enable --now gitops-sync@web.timer 2>/dev/null
by_units
systemctl is-enabled gitops-sync@web.timer
ok 'a second repository'
