package volbackup

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/e2e/docker"
	"observability-hub/e2e/events"
	"observability-hub/e2e/workspace"
)

// TestDockerEvents provokes every event of manage_volume.sh, and checks every line against the schema.
func TestDockerEvents(t *testing.T) {
	docs := events.Read(t)
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	d := docker.Run(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// Other users must reach the script too, and the repository may be in /root.
	script, err := os.ReadFile(filepath.Join(root, "scripts", "manage_volume.sh"))
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(d.Dir, "manage_volume.sh")
	if err := os.WriteFile(copied, script, 0o755); err != nil {
		t.Fatal(err)
	}
	// provoke runs a line of bash, in which "$M" is the script, and fails the test unless the event is printed.
	provoke := func(event, line string) {
		t.Helper()
		cmd := exec.Command("bash", "-c", line)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, d.Env(), "STATE_DIRECTORY=" + filepath.Join(dir, "state"),
			"M=" + copied, "V=" + d.Volume("vol")}
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		_ = cmd.Run() // the exit status does not matter
		docs.Check(t, "manage_volume.sh "+event, stdout.String())
		docs.Check(t, "manage_volume.sh "+event, stderr.String())
		if !strings.Contains(stdout.String()+stderr.String(), `"msg":"`+event+`"`) {
			t.Errorf("%s does not print %s\nstdout: %s\nstderr: %s", line, event, stdout.String(), stderr.String())
		}
	}
	run := func(options string) string {
		return "docker run --detach --network none " + options + " busybox sh -c 'trap exit TERM; sleep 1000 & wait' >container; "
	}
	const gone = "docker rm --force $(docker ps --all --quiet) >container; "

	provoke("usage", `"$M" nonsense`)
	provoke("volume_created", `"$M" create vol`)
	provoke("volume", `echo x >"$V/file"; "$M" list`)
	provoke("volume", run("--volume vol:/data --name one")+`docker volume create --label a=b other >container; "$M" list`)
	provoke("in_use", `"$M" export vol >vol.tar; "$M" import vol <vol.tar`)
	provoke("imported", `"$M" import --stop vol <vol.tar`)
	provoke("container_gone", `"$M" with vol -- docker rm one >container`)
	provoke("pause_instead", run("--volume vol:/data --rm")+`"$M" export vol >vol.tar; `+gone)
	provoke("containers_up", run("--volume vol:/data")+`SAY_DOWNTIME=yes "$M" export vol >vol.tar; `+gone)
	provoke("container_killed", `docker run --detach --network none --stop-timeout 1 --volume vol:/data busybox sleep 1000 >container; "$M" export vol >vol.tar; `+gone)
	provoke("not_healthy", run("--name db --volume vol:/data --label com.docker.compose.project=p --label com.docker.compose.service=db --health-cmd false --health-interval 100ms")+
		run("--volume vol:/data --label com.docker.compose.project=p --label com.docker.compose.service=app --label com.docker.compose.depends_on=db:service_healthy:false")+
		`"$M" export vol >vol.tar; `+gone)
	provoke("started_meanwhile", run("--volume vol:/data --name one")+`"$M" with vol -- docker start one >container; `+gone)
	provoke("still_resuming", `docker run --detach --network none --name slow --stop-timeout 60 --volume vol:/data busybox sleep 1000 >container
		"$M" export vol >vol.tar & while [ ! -e state/quiesced/vol ]; do sleep 0.05; done; kill $!; wait $!; docker kill slow >container
		while [ -e state/quiesced/vol ]; do sleep 0.05; done; `+gone)
	provoke("bad_label", run("--volume vol:/data --label hub.backup.quiesce=x")+`"$M" export vol >vol.tar; `+gone)
	provoke("exec_failed", run("--volume vol:/data --label hub.backup.exec=false")+`"$M" export vol >vol.tar; `+gone)
	provoke("not_resumed", `mkdir bound; `+run(`--volume vol:/data --volume "$PWD/bound:/bound" --name one --mount "type=bind,source=$PWD/bound,target=/b"`)+
		`"$M" with vol -- rmdir bound; `+gone+`"$M" resume`)
	provoke("tar_message", `mkfifo "$V/fifo"; python3 -c 'import socket, sys; socket.socket(socket.AF_UNIX).bind("s")' && mv s "$V/"; "$M" export vol >vol.tar; rm "$V/s" "$V/fifo"`)
	provoke("locked", `"$M" with vol -- sh -c '"$M" export vol >vol.tar'`)
	provoke("output_failed", `"$M" export vol >/dev/full`)
	provoke("state_unwritable", `"$M" --state-dir /proc/nowhere export vol >vol.tar`)
	provoke("no_state_directory", `STATE_DIRECTORY= HOME= "$M" export vol >vol.tar`)
	provoke("permission_denied", `unshare --mount sh -c 'mount -t tmpfs tmpfs /var/lib && mkdir -m 700 /var/lib/volume-backup && install -d -o nobody /var/lib/home &&
		STATE_DIRECTORY= HOME=/var/lib/home setpriv --reuid=nobody --regid=nogroup --clear-groups "$M" resume'`)
	provoke("import_refused", `echo nonsense | "$M" import vol`)
	provoke("import_interrupted", `D=$(dirname "$V"); mkdir -p "$D/.hub-import/new"; mv "$V" "$D/.hub-import/old"; mkdir "$V"
		printf '%s\n' 'owner 1' 'at 1' "lock $D" "import $V" >state/quiesced/vol; "$M" resume; rmdir "$V"; "$M" resume`)
	provoke("no_such_volume", `"$M" export nowhere >vol.tar`)
	provoke("volume_refused", `docker volume create --opt type=tmpfs --opt device=tmpfs memory >container; "$M" export memory >vol.tar`)
	provoke("remote_docker", `mkdir bin; printf '#!/bin/sh\nDOCKER_HOST=%s exec %s "$@"\n' "$DOCKER_HOST" "$(command -v docker)" >bin/docker; chmod +x bin/docker
		PATH=$PWD/bin:$PATH DOCKER_HOST=ssh://web2 "$M" export vol >vol.tar`)
	provoke("cannot_tell", `mkdir mute; printf '#!/bin/sh\n[ "$3" != --no-trunc ] || exit 1\nexec %s "$@"\n' "$(command -v docker)" >mute/docker; chmod +x mute/docker
		PATH=$PWD/mute:$PATH "$M" export vol >vol.tar`)
	provoke("docker_unavailable", `DOCKER_HOST=unix:///nowhere "$M" list`)
	provoke("docker_failed", `mkdir broken; printf '#!/bin/sh\n[ "$1" = version ] || { echo broken >&2; exit 1; }\n' >broken/docker; chmod +x broken/docker; PATH=$PWD/broken:$PATH "$M" list`)
	provoke("docker_denied", `setpriv --reuid=nobody --regid=nogroup --clear-groups "$M" list`)
	provoke("volume_unreadable", `setpriv --reuid=nobody --regid=nogroup --groups=docker "$M" export vol >vol.tar`)
	provoke("not_root", `setpriv --reuid=nobody --regid=nogroup --groups=docker "$M" import vol </dev/null`)
	provoke("read_failed", `mkdir failing; printf '#!/bin/sh\necho "tar: ./file: Read error at byte 0: Input/output error" >&2; exit 2\n' >failing/tar; chmod +x failing/tar
		PATH=$PWD/failing:$PATH "$M" export vol >vol.tar`)
	provoke("no_docker", `mkdir few; for p in bash cat id sed flock mkdir timeout; do ln -s "$(command -v $p)" few/; done; PATH=$PWD/few "$M" list`)
	provoke("no_volbackup", `PATH=/usr/bin:/bin "$M" backup`)
	docs.Demand(t, "scripts/manage_volume.sh")
}
