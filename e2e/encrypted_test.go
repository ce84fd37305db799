package e2e

import (
	_ "embed"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"observability-hub/e2e/nspawn"
)

//go:embed testdata/encrypted/script.sh
var encryptedScript string

// TestEncryptedCredentials boots machines whose credentials are encrypted. systemd 252 does not find them without the
// documented drop-in, and systemd 257 finds them and does not decrypt them.
func TestEncryptedCredentials(t *testing.T) {
	t.Parallel()
	for _, suite := range []string{nspawn.Bookworm, nspawn.Trixie} {
		t.Run(suite, func(t *testing.T) {
			t.Parallel()
			result := nspawn.Run(t, nspawn.Config{
				Suite:    suite,
				Packages: []string{"git", "jq"}, // the packages of a root that another test creates
				Tools:    []string{"gitsync", "readsync", "sysmetrics"},
				Script:   encryptedScript,
			})
			if result.Status != 0 {
				t.Fatalf("the script exited %d\n%s\n%s", result.Status, result.Stdout, result.Stderr)
			}
			unit := `"spooled":4` // and no word of a database
			if suite == nspawn.Trixie {
				unit = "LoadCredentialEncrypted=database_url"
			}
			for name, want := range map[string]string{
				"unit":           unit,
				"by-hand":        "127.0.0.1:1",
				"status":         "system-metrics.service does not decrypt /etc/credstore.encrypted/database_url: systemctl edit",
				"drop-in":        "127.0.0.1:1",
				"hub-run":        "127.0.0.1:1",
				"ssh-unit":       "server\nthe key\n",
				"ssh-by-hand":    "server\nthe key\n",
				"readsync":       "connect to MongoDB at 127.0.0.1:1",
				"foreign":        `"error":"decrypt /etc/credstore.encrypted/database_url: exit status 1: `,
				"status-drop-in": `"family":"system-metrics"`,
			} {
				got, err := os.ReadFile(filepath.Join(result.Dir, name))
				if err != nil || !strings.Contains(string(got), want) {
					t.Errorf("%s: %v\n%s\nwant %s", name, err, got, want)
				}
				if strings.Contains(string(got), "not decrypt") != (name == "status" || name == "unit" && suite == nspawn.Trixie) {
					t.Errorf("%s: %s", name, got)
				}
			}
			if left, err := os.ReadFile(filepath.Join(result.Dir, "left")); len(left) > 0 || err != nil {
				t.Errorf("copies of credentials are left: %s %v", left, err)
			}
		})
	}
}
