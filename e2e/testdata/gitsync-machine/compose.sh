#!/bin/bash
# The manual's example of an on-change command with the real docker compose. Two commits are one project with one volume.
# A published tree that is bind-mounted stays while its container runs. The daemon runs outside of this machine.
set -Eeuo pipefail
trap 'echo "line $LINENO: $BASH_COMMAND" >&2; journalctl -q --no-pager -n 40 >&2' ERR
export GIT_AUTHOR_NAME=test GIT_AUTHOR_EMAIL=test@example.org GIT_COMMITTER_NAME=test GIT_COMMITTER_EMAIL=test@example.org

# The docker client, as on a host. Only the address of the daemon is that of this test.
cat >/usr/local/bin/docker <<END
#!/bin/sh
exec env DOCKER_HOST=unix:///docker/d.sock HOME=/tmp /opt/docker "\$@"
END
chmod 755 /usr/local/bin/docker
install -d /usr/libexec/docker/cli-plugins
ln -s /opt/docker-compose /usr/libexec/docker/cli-plugins/docker-compose
chown server "$APP"

mkdir -p /root/hub/systemd /root/hub/config && cd /root/hub && git init -q -b main
printf '[Service]\nExecStart=/bin/true\n' >systemd/a.service
cat >.gitsync.json <<'END'
{"on_change":[
  {"paths":["docker-compose.yml","config/*"],
   "run":["docker","compose","up","-d"]}
]}
END
cat >docker-compose.yml <<'END'
services:
  web:
    image: busybox
    command: ["sh", "-c", "echo $$VERSION >>/data/versions; exec sleep 1000"]
    environment: {VERSION: "1"}
    network_mode: none
    stop_grace_period: 0s
    volumes: ["data:/data", "./config:/config:ro"]
volumes: {data: {}}
END
echo one >config/file
commit() { git add -A && git commit -q --allow-empty -m "$1"; }
deploy() { gitsync --repo /root/hub --publish "$APP" --keep-trees 1 --health-window 0s --state-dir /root/state; }
containers() { docker ps --format '{{.Names}}'; }

commit one
deploy
[[ $(containers) == current-web-1 ]]
[[ $(docker volume ls -q) == current_data ]]
first=$(readlink "$APP/current")
echo "ok the first commit starts the project"

# Commits that do not change the project: its tree stays, although only one tree is to be kept.
for n in a b c; do
  commit $n
  deploy
done
[[ $(docker exec current-web-1 cat /config/file) == one ]]
[[ -d $APP/$first && $(find "$APP" -mindepth 1 -maxdepth 1 -type d | wc -l) == 2 ]]
echo "ok the tree that a container has mounted stays"

sed -i 's/VERSION: "1"/VERSION: "2"/' docker-compose.yml
echo two >config/file
commit two
deploy
[[ $(containers) == current-web-1 ]]
[[ $(docker volume ls -q) == current_data ]]
[[ $(docker exec current-web-1 cat /data/versions) == $'1\n2' ]]
[[ $(docker exec current-web-1 cat /config/file) == two ]]
echo "ok the second commit is the same project with the same volume"
commit d
deploy
[[ ! -e $APP/$first ]]
echo "ok the old tree is removed then"

# A rollback runs the command for the older commit, in the same path.
before=$(readlink "$APP/current")
sed -i 's/VERSION: "2"/VERSION: "3"/' docker-compose.yml
commit three
gitsync --repo /root/hub --publish "$APP" --keep-trees 3 --health-window 0s --state-dir /root/state
gitsync rollback --repo /root/hub --publish "$APP" --health-window 0s --state-dir /root/state
[[ $(readlink "$APP/current") == "$before" ]]
[[ $(containers) == current-web-1 && $(docker volume ls -q) == current_data ]]
[[ $(docker exec current-web-1 cat /data/versions) == $'1\n2\n3\n2' ]]
echo "ok a rollback is the same project, too"
