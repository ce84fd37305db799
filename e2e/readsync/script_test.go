package readsync

import (
	"fmt"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"observability-hub/e2e/mongowire"
	"observability-hub/e2e/postgres"
	"observability-hub/e2e/workspace"
)

// TestScript runs the scripts in testdata/script. Each tests one behaviour of the command line. Each script has its own MongoDB, for
// which the command mongo is the client, and its own PostgreSQL database, for psql.
func TestScript(t *testing.T) {
	t.Parallel()
	tool, err := workspace.Binary("readsync")
	if err != nil {
		t.Fatal(err)
	}
	client, err := workspace.Build(filepath.Join("..", "mongo"), "mongo")
	if err != nil {
		t.Fatal(err)
	}
	pg := postgres.Run(t, postgres.Config{TCP: true})
	var databases atomic.Int64
	testscript.Run(t, testscript.Params{
		Cmds:                workspace.Commands,
		Dir:                 filepath.Join("testdata", "script"),
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			name := fmt.Sprintf("script_%d", databases.Add(1))
			if err := pg.Exec("CREATE DATABASE " + name + " OWNER hub"); err != nil {
				return err
			}
			mongo, err := mongowire.New(mongowire.Config{})
			if err != nil {
				return err
			}
			env.Defer(func() { _ = mongo.Close() })
			url := pg.SocketURL("hub", name)
			for name, value := range map[string]string{
				"PATH":               filepath.Dir(tool) + ":" + filepath.Dir(client) + ":/usr/sbin:/usr/bin:/sbin:/bin",
				"HOME":               env.WorkDir,
				"STATE":              filepath.Join(env.WorkDir, "state"),
				"READSYNC_STATE_DIR": filepath.Join(env.WorkDir, "state"),
				"MONGO_URI":          mongo.URI(),
				"MONGO_DB_NAME":      database,
				"MONGO_COLLECTION":   collection,
				"DATABASE_URL":       url,
				// For the scripts, not for readsync.
				"READINGS": strings.Join([]string{database, collection}, "."),
				"PSQL":     url,
				"PG_TCP":   fmt.Sprintf("127.0.0.1:%d/%s", pg.Port, name), // connections to this address need a password
			} {
				env.Setenv(name, value)
			}
			return nil
		},
	})
}
