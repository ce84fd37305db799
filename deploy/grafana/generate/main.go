// Command generate writes the Grafana dashboards into deploy/grafana. Run it in its own directory after a change:
//
//	go run .
//
// A test compares the committed files with what it writes.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// dashboards are all of them, by the files that hold them.
var dashboards = map[string]func() *builder{
	"dashboards/fleet.json":        fleet,
	"dashboards/host.json":         host,
	"dashboards/weeks.json":        weeks,
	"dashboards/jobs.json":         jobs,
	"dashboards/backups.json":      backups,
	"dashboards/gitops.json":       gitops,
	"dashboards/reading-sync.json": readingSync,
	// The dashboard of one host had this path before there were others.
	"system-metrics.json": host,
}

func main() {
	for path, build := range dashboards {
		if err := write(filepath.Join("..", path), build()); err != nil {
			fmt.Fprintln(os.Stderr, "generate:", err)
			os.Exit(1)
		}
	}
}

func write(path string, b *builder) error {
	content, err := render(b)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return os.WriteFile(path, content, 0o644)
}

// schemaVersion is that of Grafana 10. Newer versions of Grafana migrate a dashboard when they load it.
const schemaVersion = 39

// render returns a dashboard as JSON. Its panels are numbered in their order.
func render(b *builder) ([]byte, error) {
	d, err := b.Build()
	if err != nil {
		return nil, err
	}
	d.SchemaVersion = schemaVersion
	for i := range d.Links {
		d.Links[i].Placement = nil // the SDK's default hides the link in a menu of newer versions
	}
	for i := range d.Panels {
		id := uint32(i + 1)
		d.Panels[i].Panel.Id = &id
	}
	content, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return nil, err
	}
	return append(readable(content), '\n'), nil
}

// readable undoes the escapes that encoding/json adds for HTML. A query then looks the same in the file as in Grafana. The SDK's
// types encode themselves, so an encoder cannot be told to leave out the escapes. The first pair keeps an escaped backslash.
func readable(content []byte) []byte {
	return []byte(strings.NewReplacer(`\\`, `\\`, `\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(content)))
}
