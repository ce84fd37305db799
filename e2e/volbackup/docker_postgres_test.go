package volbackup

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"observability-hub/e2e/await"
)

const pgImage = "postgres"

// pgBin returns the directory of the programs of the newest PostgreSQL.
func pgBin(tb testing.TB) string {
	tb.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		tb.Fatal("no PostgreSQL in /usr/lib/postgresql: apt-get install postgresql")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1])
}

// importPostgres creates an image of the host's PostgreSQL with the libraries that it needs. Its user is 999, as in the
// official image.
func importPostgres(tb testing.TB, h *dockerHost) {
	tb.Helper()
	bin := pgBin(tb)
	version := filepath.Base(filepath.Dir(bin))
	line := fmt.Sprintf(`set -eu
mkdir -p root/bin root/etc root/tmp root/proc root/dev root/sys root/usr/share/postgresql
chmod 1777 root/tmp
cp "$(command -v busybox)" root/bin/busybox
root/bin/busybox --install root/bin
echo 'postgres:x:999:999::/tmp:/bin/sh' >root/etc/passwd
echo 'postgres:x:999:' >root/etc/group
cd %[1]s
{ ldd %[1]s/postgres %[1]s/initdb %[1]s/psql %[1]s/pg_dump | grep -o '/[^ ]*'; } | grep -v : | sort -u |
	xargs cp --parents --dereference -t "$OLDPWD/root"
cd "$OLDPWD"
cp --parents -t root %[1]s/postgres %[1]s/initdb %[1]s/psql %[1]s/pg_dump
mkdir -p root%[2]s
cp %[2]s/plpgsql.so %[2]s/amcheck.so %[2]s/dict_snowball.so root%[2]s/
cp -r /usr/share/postgresql/%[3]s root/usr/share/postgresql/`, bin, filepath.Join(filepath.Dir(bin), "lib"), version)
	h.must(tb, line)
	h.Import(tb, filepath.Join(h.dir, "root"), pgImage, "ENV PATH="+bin+":/bin", "ENV LC_ALL=C", "USER 999:999")
}

// pgServer is a PostgreSQL server in a container, with its socket on the host.
type pgServer struct {
	h      *dockerHost
	name   string
	socket string
}

// startPG starts a server on a volume. It creates the cluster if the volume has none.
func startPG(tb testing.TB, h *dockerHost, name, volume string, options ...string) *pgServer {
	tb.Helper()
	s := &pgServer{h: h, name: name, socket: filepath.Join(h.dir, "socket-"+name)}
	if err := os.MkdirAll(s.socket, 0o777); err != nil {
		tb.Fatal(err)
	}
	if err := os.Chmod(s.socket, 0o777); err != nil {
		tb.Fatal(err)
	}
	h.Docker(tb, "volume", "create", volume)
	if files, err := os.ReadDir(h.Volume(volume)); err == nil && len(files) == 0 {
		// The official image does the same for a new volume.
		if err := os.Chown(h.Volume(volume), 999, 999); err != nil {
			tb.Fatal(err)
		}
		if err := os.Chmod(h.Volume(volume), 0o700); err != nil {
			tb.Fatal(err)
		}
	}
	// The official image uses SIGINT too. After SIGTERM PostgreSQL would wait for its clients to disconnect.
	args := append([]string{"run", "--detach", "--network", "none", "--stop-signal", "SIGINT", "--name", name, "--volume", volume + ":/data", "--volume", s.socket + ":/socket"}, options...)
	h.Docker(tb, append(args, pgImage, "sh", "-c",
		"[ -e /data/PG_VERSION ] || initdb -D /data -U postgres -A trust --locale=C >/dev/null; exec postgres -D /data -c listen_addresses= -c unix_socket_directories=/socket")...)
	ready := false
	tb.Cleanup(func() {
		if !ready {
			logs, _ := h.Command("logs", name).CombinedOutput()
			tb.Logf("the server in %s:\n%s", name, logs)
		}
	})
	await.Until(tb, "the server in "+name+" to accept a connection", func() bool {
		_, err := s.try("psql", "-XAtc", "SELECT 1")
		ready = err == nil
		return ready
	})
	return s
}

// try runs one of the host's client programs on the server.
func (s *pgServer) try(program string, args ...string) (string, error) {
	out, err := s.client(program, args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", program, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out)), nil
}

func (s *pgServer) client(program string, args ...string) *exec.Cmd {
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + program)
	if len(found) > 0 {
		program = found[len(found)-1]
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = s.h.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "PGHOST=" + s.socket, "PGUSER=postgres", "PGDATABASE=postgres", "LC_ALL=C"}
	return cmd
}

func (s *pgServer) must(tb testing.TB, program string, args ...string) string {
	tb.Helper()
	out, err := s.try(program, args...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

const (
	pgClients = 4
	pgSeconds = 5
)

// load writes to the server for some seconds, or until the server stops. acknowledged returns the times at which each client
// received the acknowledgements of its transactions. The n-th transaction of a client inserts the number n.
func (s *pgServer) load(tb testing.TB) (acknowledged func() map[int][]time.Time) {
	tb.Helper()
	s.must(tb, "psql", "-Xqc", "CREATE TABLE IF NOT EXISTS ledger (client int, n int, PRIMARY KEY (client, n))")
	s.must(tb, "pgbench", "--initialize", "--quiet", "--scale=1")
	script := filepath.Join(s.h.dir, s.name+".sql")
	const transaction = `\set n :n + 1
\set account random(1, 100000)
BEGIN;
INSERT INTO ledger VALUES (:client_id, :n);
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :account;
END;
`
	if err := os.WriteFile(script, []byte(transaction), 0o644); err != nil {
		tb.Fatal(err)
	}
	cmd := s.client("pgbench", "--no-vacuum", "--client="+strconv.Itoa(pgClients), "--jobs=2", "--time="+strconv.Itoa(pgSeconds), "--define=n=0",
		"--file="+script, "--log", "--log-prefix="+s.name)
	if err := cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	await.Until(tb, "pgbench has written 500 rows", func() bool {
		n, err := strconv.Atoi(s.must(tb, "psql", "-XAtc", "SELECT count(*) FROM ledger"))
		return err == nil && n > 500
	})
	return func() map[int][]time.Time {
		tb.Helper()
		_ = cmd.Wait() // pgbench fails when its server is stopped
		logs, err := filepath.Glob(filepath.Join(s.h.dir, s.name+".[0-9]*"))
		if err != nil || len(logs) == 0 {
			tb.Fatalf("no log of pgbench: %v", err)
		}
		all := map[int][]time.Time{}
		for _, path := range logs {
			f, err := os.Open(path)
			if err != nil {
				tb.Fatal(err)
			}
			for lines := bufio.NewScanner(f); lines.Scan(); {
				var client, n, took, script int
				var seconds, micros int64
				if _, err := fmt.Sscan(lines.Text(), &client, &n, &took, &script, &seconds, &micros); err != nil {
					tb.Fatalf("%s: %v: %q", path, err, lines.Text())
				}
				all[client] = append(all[client], time.UnixMicro(seconds*1e6+micros))
			}
			f.Close()
		}
		return all
	}
}

// check fails the test unless the restored server passes pg_amcheck and has every transaction that was acknowledged before
// the given time.
func (s *pgServer) check(t *testing.T, acknowledged map[int][]time.Time, before time.Time) {
	t.Helper()
	s.must(t, "pg_amcheck", "--install-missing", "--heapallindexed", "--database=postgres")
	total := 0
	for client := range pgClients {
		have, err := strconv.Atoi(s.must(t, "psql", "-XAtc", fmt.Sprintf("SELECT count(*) FROM ledger WHERE client = %d", client)))
		if err != nil {
			t.Fatal(err)
		}
		want := 0
		for _, when := range acknowledged[client] {
			if when.Before(before) {
				want++
			}
		}
		total += want
		if have < want {
			t.Errorf("client %d: %d transactions were restored; %d were acknowledged before the containers stopped", client, have, want)
		}
		// The transactions are the first ones, without a gap.
		if last := s.must(t, "psql", "-XAtc", fmt.Sprintf("SELECT coalesce(max(n), 0) FROM ledger WHERE client = %d", client)); last != strconv.Itoa(have) {
			t.Errorf("client %d: %d transactions, the last is number %s", client, have, last)
		}
	}
	if total < 100 {
		t.Errorf("only %d transactions were acknowledged before the containers stopped; that proves nothing", total)
	}
	t.Logf("%d transactions were acknowledged before the containers stopped, and all were restored", total)
}

// when returns the time of the first event of this kind that the container had after since.
func (h *dockerHost) when(tb testing.TB, container, event string, since time.Time) time.Time {
	tb.Helper()
	var nanos int64
	await.Until(tb, "the event "+event+" of "+container, func() bool {
		// Docker rounds "0s" down to a second, which may be before since.
		out := h.Docker(tb, "events", "--since", stamp(since), "--until", stamp(time.Now()), "--filter", "container="+container, "--filter", "event="+event, "--format", "{{.TimeNano}}")
		first, _, _ := strings.Cut(out, "\n")
		var err error
		nanos, err = strconv.ParseInt(first, 10, 64)
		return err == nil
	})
	return time.Unix(0, nanos)
}

// stamp returns a time in the format of docker's options: seconds since 1970, with microseconds.
func stamp(moment time.Time) string {
	return fmt.Sprintf("%d.%06d", moment.Unix(), moment.Nanosecond()/1000)
}

// TestDockerPostgres backs up a database under write load in each of the three ways, and restores it. Every transaction
// whose commit was acknowledged before the backup must be in the restored database.
func TestDockerPostgres(t *testing.T) {
	h := newDockerHost(t)
	importPostgres(t, h)
	for _, way := range []string{"stop", "pause"} {
		t.Run(way, func(t *testing.T) {
			s := startPG(t, h, way, "data-"+way, "--label", "hub.backup.quiesce="+way)
			acknowledged := s.load(t)
			began := time.Now()
			h.must(t, "volbackup run data-"+way)
			if state := h.State(t, way); state != "running" {
				t.Errorf("the server is %s after the backup", state)
			}
			event := map[string]string{"stop": "die", "pause": "pause"}[way]
			quiesced := h.when(t, way, event, began)
			all := acknowledged()
			h.must(t, "volbackup cat data-"+way+" | manage_volume.sh import restored-"+way)
			restored := startPG(t, h, "restored-"+way, "restored-"+way)
			restored.check(t, all, quiesced)
			h.Docker(t, "rm", "--force", way, "restored-"+way)
		})
	}
	t.Run("exec", func(t *testing.T) {
		h.Docker(t, "volume", "create", "--label", "hub.backup=false", "data-exec")
		h.Docker(t, "volume", "create", "dump")
		if err := os.Chown(h.Volume("dump"), 999, 999); err != nil {
			t.Fatal(err)
		}
		s := startPG(t, h, "exec", "data-exec", "--volume", "dump:/dump", "--label", "hub.backup.quiesce=none",
			"--label", "hub.backup.exec=pg_dump -h /socket -U postgres -Fc -f /dump/new postgres && mv /dump/new /dump/postgres.dump")
		acknowledged := s.load(t)
		began := time.Now()
		out := h.must(t, "volbackup run")
		if strings.Contains(out, `"volume":"data-exec"`) {
			t.Errorf("a volume with the label hub.backup=false is backed up: %s", out)
		}
		all := acknowledged()
		h.must(t, "volbackup cat dump | manage_volume.sh import restored-dump")
		restored := startPG(t, h, "restored-exec", "restored-exec")
		restored.must(t, "pg_restore", "--dbname=postgres", filepath.Join(h.Volume("restored-dump"), "postgres.dump"))
		restored.check(t, all, began)
		h.Docker(t, "rm", "--force", "exec", "restored-exec")
	})
	if left := h.containers(t); len(left) != 0 {
		t.Errorf("containers are left: %v", left)
	}
}
