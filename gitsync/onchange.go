package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"observability-hub/gitsync/internal/gitobj"
	"observability-hub/lib/command"
	"observability-hub/lib/diag"
	"observability-hub/lib/record"
)

// rulesFile is a file in the repository. It says which commands to run when files
// change.
const rulesFile = ".gitsync.json"

const maxRules = 64 << 10

// rule is one entry of rulesFile: a command to run in the published tree when one of
// the paths changed.
type rule struct {
	Paths []string `json:"paths"` // files or directories; * and ? as in path.Match
	Run   []string `json:"run"`   // program and arguments; no shell

	state string // hash of the objects that the paths name
}

// key names the rule in the ledger and in the unit that runs it.
func (r rule) key() string {
	b, _ := json.Marshal(r) // strings can always be marshalled
	return sum(b)[:12]
}

// unit is the transient unit that runs the rule.
func (r rule) unit() string { return "gitops-on-change-" + r.key() + ".service" }

// readRules reads and checks .gitsync.json, and finds the objects that its paths
// name.
func readRules(o *gitobj.Store, e gitobj.Entry, tree string) ([]rule, error) {
	if !e.IsRegular() {
		return nil, gitobj.Refuse(rulesFile, "it is "+e.Kind())
	}
	content, err := o.Blob(rulesFile, e.ID, maxRules)
	if err != nil {
		return nil, err
	}
	rules, err := parseRules(content)
	if err != nil {
		return nil, gitobj.Refuse(rulesFile, err.Error())
	}
	for i := range rules {
		var found []string
		for _, p := range rules[i].Paths {
			if p == "." {
				found = append(found, tree)
				continue
			}
			all, err := match(o, tree, "", strings.Split(strings.TrimSuffix(p, "/"), "/"))
			if err != nil {
				return nil, err
			}
			found = append(found, all...)
		}
		slices.Sort(found)
		rules[i].state = sum([]byte(strings.Join(found, "\n")))
	}
	return rules, nil
}

// parseRules parses the file. It rejects unknown keys, because a command with a
// misspelt key would silently never run.
func parseRules(content []byte) ([]rule, error) {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	var file *struct {
		OnChange []rule `json:"on_change"`
	}
	if err := d.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("there is text after the object")
	}
	if file == nil {
		return nil, errors.New("it is null, not an object")
	}
	seen := map[string]bool{}
	for i, r := range file.OnChange {
		switch {
		case len(r.Paths) == 0:
			return nil, fmt.Errorf("on_change %d: no paths", i+1)
		case len(r.Run) == 0 || r.Run[0] == "":
			return nil, fmt.Errorf("on_change %d: nothing to run", i+1)
		case len(file.OnChange) > 100 || len(r.Paths) > 100 || len(r.Run) > 100:
			return nil, errors.New("more than 100 entries")
		case seen[r.key()]:
			return nil, fmt.Errorf("on_change %d: the same as an earlier entry", i+1)
		}
		seen[r.key()] = true
		for _, word := range append(slices.Clone(r.Paths), r.Run...) {
			if strings.ContainsRune(word, 0) {
				return nil, fmt.Errorf("on_change %d: contains a NUL character", i+1)
			}
		}
		for _, p := range r.Paths {
			clean := path.Clean(p)
			if p == "" || path.IsAbs(p) || clean == ".." || strings.HasPrefix(clean, "../") || clean != strings.TrimSuffix(p, "/") {
				return nil, fmt.Errorf("on_change %d: %q is not a path inside the repository", i+1, p)
			}
			if _, err := path.Match(p, ""); err != nil {
				return nil, fmt.Errorf("on_change %d: %q: %v", i+1, p, err)
			}
		}
	}
	return file.OnChange, nil
}

// match returns "path mode id" for each entry below a tree that a pattern matches.
// The pattern is split at its slashes. The id of a directory changes with everything
// in it.
func match(o *gitobj.Store, tree, dir string, pattern []string) ([]string, error) {
	entries, err := o.Tree(tree)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		if ok, _ := path.Match(pattern[0], e.Name); !ok { // checked by parseRules
			continue
		}
		if len(pattern) == 1 {
			found = append(found, fmt.Sprintf("%q %s %s", dir+e.Name, e.Mode, e.ID))
		} else if e.IsTree() {
			below, err := match(o, e.ID, dir+e.Name+"/", pattern[1:])
			if err != nil {
				return nil, err
			}
			found = append(found, below...)
		}
	}
	return found, nil
}

// runRules runs the on-change commands. The ledger is written before, so the units
// stay even if a command fails. The next run tries a failed command again.
func (x *execution) runRules(ctx context.Context) error {
	for _, act := range x.each(doRun) {
		i := slices.IndexFunc(x.plan.want.rules, func(r rule) bool { return r.unit() == act.Unit })
		err := errors.New("no tree is published: on-change commands need --publish, for gitsync pull too")
		if x.Publish != "" {
			err = runRule(ctx, x.plan.want.rules[i], publishedTree(x.Publish, x.plan.want.commit), x.RunAs, x.OnChangeTimeout)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			x.env.Diag.Warn("on_change_failed", err.Error(), diag.Field{Key: "unit", Value: act.Unit})
			x.failed = append(x.failed, err.Error())
			continue
		}
		x.ledger.OnChange[x.plan.want.rules[i].key()] = x.plan.want.rules[i].state
		step("on-change")
		if err := writeState(x.dir, ledgerFile, x.ledger); err != nil {
			return err
		}
		if err := x.report(record.Info, act); err != nil {
			return err
		}
	}
	return nil
}

// runRule runs a rule's command as the user runAs in DIR/current. This link is, or
// becomes, the published tree of the commit. Its path does not change from commit to
// commit, and docker compose takes the name of its project from it. The command runs
// as a transient service, outside of gitsync's cgroup, and systemd stops it after
// timeout. It never runs as root, because everyone who can push to the repository
// decides what runs.
func runRule(ctx context.Context, r rule, tree, runAs string, timeout time.Duration) error {
	tree, err := filepath.Abs(tree)
	if err != nil {
		return err
	}
	if _, err := os.Stat(tree); err != nil {
		return fmt.Errorf("published tree: %w", err)
	}
	// systemd stops the command after timeout. This longer limit is for a systemd that
	// does not answer.
	ctx, cancel := context.WithTimeout(ctx, timeout+30*time.Second)
	defer cancel()
	args := append(r.command(tree, runAs, timeout), r.Run[0])
	for _, word := range r.Run[1:] {
		args = append(args, strings.ReplaceAll(word, "$", "$$")) // systemd would expand variables
	}
	out, messages, err := command.Cmd{Args: args, Dir: "/", Dependent: true}.Run(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(r.Run, " "), err, firstLine(string(messages)+string(out)))
	}
	return nil
}

// command returns the systemd-run command that runs the rule, without the rule's own
// arguments. It sets PWD, from which programs take the name of the working directory.
func (r rule) command(tree, runAs string, timeout time.Duration) []string {
	dir, commit := filepath.Split(tree)
	current := filepath.Join(dir, currentLink)
	args := []string{"systemd-run", "--quiet", "--wait", "--collect", "--unit=" + r.unit(), "--uid=" + runAs,
		"--working-directory=" + current, "--setenv=PWD=" + current, "--property=RuntimeMaxSec=" + timeout.String(), "--property=NoNewPrivileges=yes",
		"--property=SyslogIdentifier=gitops-on-change"}
	pre := func(prefix string, words ...string) {
		for i, w := range words {
			words[i] = execQuote(w)
		}
		args = append(args, "--property=ExecStartPre="+prefix+strings.Join(words, " "))
	}
	if target, _ := os.Readlink(current); target != commit {
		// After a rollback, current still points to the newer tree that pull published.
		fresh := filepath.Join(dir, newLink)
		pre("", "/bin/ln", "-sfn", commit, fresh)
		pre("", "/bin/mv", "-fT", fresh, current)
	}
	// The link keeps pull from removing a tree that processes of the command still
	// use. A failure is ignored (-), because the user may not be allowed to write here.
	pre("-", "/bin/ln", "-sfn", commit, filepath.Join(dir, ranLink+r.key()))
	return append(args, "--")
}

// execQuote quotes a word for ExecStartPre= (systemd.service(5), "Command lines").
func execQuote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", "$$").Replace(s) + `"`
}

// firstLine returns the first line of a program's messages. If there are none, it
// returns where to look.
func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line == "" {
		return "see the journal for its output"
	}
	return line
}

// checkRunAs refuses root as the user for on-change commands, by name or by number.
func checkRunAs(name string) error {
	if name == "" || name == "root" || strings.Trim(name, "0") == "" {
		return fmt.Errorf("--run-as %q: commands from the repository never run as root", name)
	}
	return nil
}

// publishedTree returns the path where pull publishes a commit.
func publishedTree(dir, commit string) string { return filepath.Join(dir, commit) }
