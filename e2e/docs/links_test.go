// Package docs tests the Markdown files of the repository.
package docs

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"observability-hub/e2e/workspace"
)

// pages returns the Markdown files of the repository, by their paths below its root.
func pages(t *testing.T) map[string]string {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		if d.IsDir() && name != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "dist") {
			return filepath.SkipDir
		}
		if filepath.Ext(name) == ".md" {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[name] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	named   = regexp.MustCompile(`<a id="([^"]+)"></a>`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	symbols = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns the targets of links into a page: explicit anchors, and headings in the form that forges give them.
func anchors(page string) map[string]bool {
	all := map[string]bool{}
	for _, m := range named.FindAllStringSubmatch(page, -1) {
		all[m[1]] = true
	}
	for _, m := range heading.FindAllStringSubmatch(page, -1) {
		text := symbols.ReplaceAllString(strings.ToLower(named.ReplaceAllString(m[1], "")), "")
		all[strings.ReplaceAll(strings.TrimSpace(text), " ", "-")] = true
	}
	return all
}

func TestLinks(t *testing.T) {
	all, links := pages(t), 0
	for name, page := range all {
		for _, m := range link.FindAllStringSubmatch(page, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			links++
			file, anchor, hasAnchor := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.Join(filepath.Dir(name), file)
			}
			if root, err := workspace.Root(); err != nil {
				t.Fatal(err)
			} else if _, err := os.Stat(filepath.Join(root, target)); err != nil {
				t.Errorf("%s: the target of the link %s: %v", name, m[1], err)
			}
			if hasAnchor && !anchors(all[target])[anchor] {
				t.Errorf("%s: the link %s: %s has no such anchor", name, m[1], target)
			}
		}
	}
	if links < 50 {
		t.Errorf("only %d links are found", links)
	}
}

func TestDecisions(t *testing.T) {
	decisions := 0
	for name, page := range pages(t) {
		if filepath.Dir(name) != "docs/decisions" || name == "docs/decisions/README.md" {
			continue
		}
		ids := map[string]bool{}
		for _, section := range strings.Split(page, "\n### ")[1:] {
			decisions++
			title, text, _ := strings.Cut(section, "\n")
			id := named.FindStringSubmatch(title)
			if id == nil {
				t.Errorf("%s: %q has no anchor", name, title)
				continue
			}
			if ids[id[1]] {
				t.Errorf("%s: two headings have the anchor %s", name, id[1])
			}
			ids[id[1]] = true
			for _, part := range []string{"Question", "Choice", "Why", "Price"} {
				if strings.Count(text, "\n- **"+part+".** ") != 1 {
					t.Errorf("%s#%s: want one part %q", name, id[1], part)
				}
			}
		}
	}
	if decisions < 100 {
		t.Errorf("only %d decisions are found", decisions)
	}
}
