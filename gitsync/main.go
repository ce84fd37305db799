// Gitsync makes a host match its Git repository: units, drop-ins, presets and
// scripts. It rolls back if what it deployed does not work.
//
// Synopsis:
//
//	gitsync [sync] [FLAG...]
//	gitsync pull --repo URL [--ref main]
//	gitsync plan
//	gitsync apply [-] < PLAN
//	gitsync status [--max-age D]
//	gitsync rollback
//	gitsync hold [--for D]
//	gitsync resume
//	gitsync verdict
//
// pull fetches into a bare repository and checks the commit. apply reads that
// commit file by file, checks every hash, and changes the host. Under systemd the
// two are isolated from each other: pull runs as an ordinary user with network
// access, and apply runs as root without it. gitsync(1) is the manual.
package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"observability-hub/lib/cli"
)

const (
	name   = "gitsync"
	family = "gitops-sync" // the unit family; every record has it as its service
)

// originFlags say where commits come from and which commits are accepted.
type originFlags struct {
	Repo        string `placeholder:"URL"`
	Ref         string `default:"main"`
	Path        string `placeholder:"SUBDIR"`
	AllowRewind bool
	Publish     string `placeholder:"DIR"`
	signers
}

func (o originFlags) Validate() error {
	if strings.HasPrefix(o.Repo, "-") || strings.ContainsAny(o.Repo, "\x00\n\r") {
		return errors.New("--repo is not a URL")
	}
	return errors.Join(checkRef(o.Ref), checkPart(o.Path))
}

// part returns the cleaned --path. It is empty for the whole repository.
func (o originFlags) part() string { return cleanPart(o.Path) }

func cleanPart(dir string) string {
	if dir = path.Clean(dir); dir == "." {
		return ""
	}
	return dir
}

// checkPart refuses a --path that is not below the top of a repository.
func checkPart(dir string) error {
	if dir != "" && (path.IsAbs(dir) || slices.Contains(strings.Split(dir, "/"), "..") || strings.ContainsAny(dir, "\x00\n\r")) {
		return fmt.Errorf("--path %q is not a directory in the repository, such as hosts/web1", dir)
	}
	return nil
}

// pullFlags limit a pull.
type pullFlags struct {
	Timeout   time.Duration `default:"5m"`
	KeepTrees int           `default:"3" placeholder:"N"`
}

func (p pullFlags) Validate() error {
	if p.Timeout <= 0 {
		return fmt.Errorf("--timeout must be greater than 0, got %v", p.Timeout)
	}
	if p.KeepTrees < 1 {
		return fmt.Errorf("--keep-trees must be at least 1, got %d", p.KeepTrees)
	}
	return nil
}

// hostFlags say which host is changed and where its commit is.
type hostFlags struct {
	Source     string `placeholder:"DIR"`
	Root       string `default:"/" placeholder:"DIR"`
	ScriptsDir string `default:"/usr/local/bin" placeholder:"DIR"`
}

func (h hostFlags) Validate() error {
	if !filepath.IsAbs(h.ScriptsDir) || filepath.Clean(h.ScriptsDir) != h.ScriptsDir {
		return fmt.Errorf("--scripts-dir %s must be an absolute path without . and .. and without a slash at the end", h.ScriptsDir)
	}
	return nil
}

// applyFlags say how a commit is applied.
type applyFlags struct {
	AllowPrune      bool
	HealthWindow    time.Duration `default:"10s"`
	RunAs           string        `default:"server" placeholder:"USER"`
	OnChangeTimeout time.Duration `default:"10m" placeholder:"D"`
}

func (a applyFlags) Validate() error {
	if a.HealthWindow < 0 {
		return fmt.Errorf("--health-window must not be negative, got %v", a.HealthWindow)
	}
	if a.OnChangeTimeout < time.Second {
		return fmt.Errorf("--on-change-timeout must be at least 1s, got %v", a.OnChangeTimeout)
	}
	return checkRunAs(a.RunAs)
}

func main() {
	os.Exit(cli.Main(app(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app describes the whole command line. The flags of a command are the fields of
// its struct.
func app() cli.App {
	return cli.App{
		Name:        name,
		Service:     family,
		Description: "Make this host match its Git repository: units, drop-ins, presets and scripts. Roll back if they do not work.",
		Commands: []cli.Command{
			{Name: "sync", Help: "Pull, then apply (the default).", Default: true, Grammar: &syncCmd{}},
			{Name: "pull", Help: "Fetch and check the newest commit; change nothing else.", Grammar: &pullCmd{}},
			{Name: "plan", Help: "Print what apply would do.", Grammar: &planCmd{}},
			{Name: "apply", Help: "Make the host match the pulled commit.", Grammar: &applyCmd{}},
			{Name: "status", Help: "Print one record: commits, hold, ages and drift.", Grammar: &statusCmd{}},
			{Name: "rollback", Help: "Apply the commit before the applied one, and quarantine the newer one.", Grammar: &rollbackCmd{}},
			{Name: "hold", Help: "Keep apply from changing anything, for a time or until resume.", Grammar: &holdCmd{}},
			{Name: "resume", Help: "End a hold.", Grammar: &resumeCmd{}},
			{Name: "verdict", Help: "Publish on the remote that this host rolled a commit back.", Unit: "gitops-verdict", Grammar: &verdictCmd{}},
		},
		Flags: flagHelp,
		Examples: `  gitsync pull --repo https://git.example.org/hub.git --ref main
  gitsync plan
  gitsync apply
  gitsync plan | jq -c 'select(.unit != "volume-backup.timer")' | gitsync apply -
  gitsync hold --for 2h
  gitsync status --max-age 1h
`,
	}
}

// validate checks the flags of several embedded structs.
func validate(all ...interface{ Validate() error }) error {
	var err error
	for _, v := range all {
		err = errors.Join(err, v.Validate())
	}
	return err
}

// checkRef refuses an invalid ref name (git-check-ref-format(1)).
func checkRef(ref string) error {
	bad := ref == "" || strings.HasPrefix(ref, "-") || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") ||
		strings.HasSuffix(ref, ".lock") || strings.HasSuffix(ref, ".") || strings.Contains(ref, "..") || strings.Contains(ref, "//") ||
		strings.Contains(ref, "@{") || strings.ContainsAny(ref, " ~^:?*[\\\x7f")
	for _, c := range []byte(ref) {
		bad = bad || c < ' '
	}
	if bad {
		return fmt.Errorf("--ref %q is not a valid ref name", ref)
	}
	return nil
}
