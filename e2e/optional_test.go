package e2e

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"observability-hub/e2e/events"
	"observability-hub/e2e/nspawn"
	"observability-hub/e2e/workspace"
)

//go:embed testdata/optional/script.sh
var optionalScript string

// optionalProxy answers HTTP requests: the first call of the Proxy Service processes documents, and pings are noted.
const optionalProxy = `#!/bin/bash
read -r _ path _
while IFS= read -r line && [[ $line != $'\r' ]]; do :; done
body=ok
if [[ $path == /api/sync/reading ]]; then
  n=0
  if mkdir /run/called 2>/dev/null; then n=12; fi
  body="{\"service\":\"reading-sync\",\"status\":\"success\",\"processed_count\":$n,\"timestamp\":\"2026-01-02T03:04:05Z\"}"
else
  echo "$path" >>/run/pings
fi
printf 'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' "${#body}" "$body"
`

// optionalVolumes stands for manage_volume.sh on a host with one volume.
const optionalVolumes = `#!/bin/bash
case $1 in
  list) echo '{"time":"2026-01-02T03:04:05.678Z","level":"INFO","msg":"volume","service":"volume-backup","volume":"grafana_data","driver":"local","mountpoint":"/srv/data","labels":{},"containers":[],"mounts":[]}' ;;
  export)
    if [[ -e /run/broken-volume ]]; then
      echo '{"time":"2026-01-02T03:04:05.678Z","level":"ERROR","msg":"read_failed","service":"volume-backup","error":"tar cannot read volume grafana_data"}' >&2
      exit 69
    fi
    exec tar -C /srv/data -c .
    ;;
esac
`

// TestOptionalUnits boots a host with all four families and starts each unit that no preset enables. It also takes the pictures
// of hub-status in docs/pictures.
func TestOptionalUnits(t *testing.T) {
	t.Parallel()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	deployed := func(name string) string {
		content, err := os.ReadFile(filepath.Join(root, "deploy", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(content)
	}
	result := nspawn.Run(t, nspawn.Config{
		Packages: hubPackages,
		Tools:    []string{"sysmetrics", "gitsync", "readsync", "volbackup"},
		Files: []nspawn.File{
			{Path: "/usr/local/bin/proxy", Content: optionalProxy, Mode: 0o755},
			{Path: "/usr/local/bin/volumes", Content: optionalVolumes, Mode: 0o755},
			{Path: "/etc/systemd/system/proxy.socket", Content: "[Socket]\nListenStream=127.0.0.1:8085\nListenStream=127.0.0.1:8086\nAccept=yes\n"},
			{Path: "/etc/systemd/system/proxy@.service", Content: "[Service]\nExecStart=/usr/local/bin/proxy\nStandardInput=socket\n"},
			{Path: "/etc/systemd/system/hub-ping@.service", Content: deployed("dead-man/hub-ping@.service")},
			{Path: "/etc/systemd/system/volume-backup.service.d/dead-man.conf", Content: deployed("dead-man/dead-man.conf")},
		},
		Script: optionalScript,
	})
	if result.Status != 0 {
		for _, entry := range result.Journal {
			if entry["SYSLOG_IDENTIFIER"] != "systemd" {
				t.Logf("%s: %s", entry["SYSLOG_IDENTIFIER"], entry["MESSAGE"])
			}
		}
		t.Fatalf("the script exited %d\n%s\n%s", result.Status, result.Stdout, result.Stderr)
	}
	for name, want := range map[string]string{
		"enabled-by-install": strings.Repeat("disabled\n", 4),
		"enabled-by-preset":  strings.Repeat("disabled\n", 4),
		"rows":               "0|t\n",
		"textfile":           "755 server\n644 server\n",
		"pings":              "/key/volume-backup\n",
		"trouble.status":     "1\n",
	} {
		if got := result.Left(t, name); got != want {
			t.Errorf("%s: %q; want %q", name, got, want)
		}
	}
	ran := map[string]bool{}
	for _, entry := range result.Journal {
		var message struct{ Msg string }
		if json.Unmarshal([]byte(entry["MESSAGE"]), &message) == nil {
			ran[entry["_SYSTEMD_UNIT"]+" "+message.Msg] = true
		}
	}
	for _, want := range []string{"system-metrics-prune.service pruned", "volume-backup-verify.service archive_verified"} {
		if !ran[want] {
			t.Errorf("the journal has no record %s", want)
		}
	}

	healthy, trouble := checkMetrics(t, result.Left(t, "healthy.prom")), checkMetrics(t, result.Left(t, "trouble.prom"))
	for _, family := range []string{"gitops-sync", "reading-sync", "system-metrics", "volume-backup"} {
		label := `{family="` + family + `"}`
		if healthy["hub_job_ok"+label] != "1" || trouble["hub_job_ok"+label] != "0" {
			t.Errorf("hub_job_ok of %s: %q, then %q", family, healthy["hub_job_ok"+label], trouble["hub_job_ok"+label])
		}
		success := "hub_job_last_success_timestamp_seconds" + label
		if healthy[success] == "" || trouble[success] < healthy[success] {
			t.Errorf("%s: %q, then %q", success, healthy[success], trouble[success])
		}
	}
	if failed := `{family="volume-backup"}`; trouble["hub_job_last_run_timestamp_seconds"+failed] <= trouble["hub_job_last_success_timestamp_seconds"+failed] {
		t.Errorf("a run that failed is the last success: %v", trouble)
	}
	for sample, want := range map[string]string{`hub_quarantined{family="gitops-sync"}`: "1", `hub_dead_letters{family="reading-sync"}`: "1", `hub_backup_volumes{family="volume-backup"}`: "1"} {
		if trouble[sample] != want {
			t.Errorf("%s is %q; want %s", sample, trouble[sample], want)
		}
	}
	for _, name := range []string{"healthy.jsonl", "trouble.jsonl"} {
		events.Read(t).Check(t, "hub-status "+name, result.Left(t, name))
	}
	checkTerminal(t, "hub-status-healthy", result.Left(t, "healthy.term"))
	checkTerminal(t, "hub-status-trouble", result.Left(t, "trouble.term"))
	checkShown(t, "hub-status-healthy.jsonl", result.Left(t, "healthy.jsonl"), result.Left(t, "healthy.jsonl"))
	checkShown(t, "hub-status-trouble.jsonl", result.Left(t, "trouble.jsonl"), result.Left(t, "trouble.jsonl"))
	checkShown(t, "hub-status-kinds.txt", result.Left(t, "kinds"), result.Left(t, "kinds"))
}

// checkMetrics checks a file for node_exporter as `promtool check metrics` does, and returns its samples.
func checkMetrics(t *testing.T, text string) map[string]string {
	t.Helper()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v:\n%s", err, problems, text)
	}
	samples := map[string]string{}
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), " "); found && name != "#" {
			samples[name] = value
		}
	}
	return samples
}

// checkTerminal compares the picture of a terminal in docs/pictures with what was printed there.
func checkTerminal(t *testing.T, name, printed string) {
	t.Helper()
	printed = strings.ReplaceAll(printed, "\r", "")
	checkShown(t, name+".svg", string(drawTerminal(wrapped(printed, terminalColumns))), prompt+printed)
}

var (
	shownTags    = regexp.MustCompile(`<[^>]*>`)
	shownTimes   = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`)
	shownCommits = regexp.MustCompile(`\b[0-9a-f]{12,40}\b`)
	shownNumbers = regexp.MustCompile(`\b\d+(\.\d+)?(ms|s|min|h|d)?\b`)
)

// checkShown compares a file of docs/pictures, but for numbers, times and commits, with the text that was printed, or writes it.
func checkShown(t *testing.T, name, content, text string) {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(root, "docs", "pictures", name)
	if *updatePictures {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(path)
	if err != nil {
		t.Error(err)
	}
	masked := func(text string) []string {
		text = shownCommits.ReplaceAllString(shownTimes.ReplaceAllString(text, "TIME"), "COMMIT")
		return strings.Fields(shownNumbers.ReplaceAllString(text, "N"))
	}
	shows := string(file)
	if strings.HasSuffix(name, ".svg") {
		shows = readTerminal(shows)
	}
	if got, want := masked(shows), masked(text); !slices.Equal(got, want) {
		t.Errorf("%s does not show what is printed: go test -run TestOptionalUnits ./e2e -pictures\n%q\nwant\n%q", path, got, want)
	}
}

const (
	terminalColumns = 100
	prompt          = "root@web1:~# hub-status\n"
)

// wrapped returns the lines as a terminal with that many columns shows them.
func wrapped(text string, columns int) (lines []string) {
	for line := range strings.SplitSeq(strings.TrimRight(text, "\n"), "\n") {
		runes := []rune(line)
		for len(runes) > columns {
			lines, runes = append(lines, string(runes[:columns])), runes[columns:]
		}
		lines = append(lines, string(runes))
	}
	return lines
}

// readTerminal returns the text of a picture by drawTerminal. Where a line begins depends on the numbers before it.
func readTerminal(svg string) string {
	var text strings.Builder
	for line := range strings.Lines(svg) {
		line = html.UnescapeString(shownTags.ReplaceAllString(strings.TrimSpace(line), ""))
		text.WriteString(line)
		if len([]rune(line)) < terminalColumns {
			text.WriteString("\n")
		}
	}
	return text.String()
}

// drawTerminal returns a picture of a terminal with these lines as SVG.
func drawTerminal(lines []string) []byte {
	const left, top, column, row = 14, 52, 7.83, 18
	var b bytes.Buffer
	height := top + row*len(lines) + 4
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="monospace" font-size="13" role="img" aria-label="hub-status on a terminal">`+"\n",
		int(2*left+column*terminalColumns), height)
	fmt.Fprintf(&b, `<rect width="100%%" height="100%%" rx="8" fill="#0d1117"/>`+"\n")
	fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#7ee787" xml:space="preserve">%s</text>`+"\n", left, top-row-8, strings.TrimSpace(prompt))
	for i, line := range lines {
		if line != "" {
			// Without a length, columns would not be straight in a font that is not monospaced.
			fmt.Fprintf(&b, `<text x="%d" y="%d" fill="#e6edf3" xml:space="preserve" textLength="%.1f" lengthAdjust="spacingAndGlyphs">%s</text>`+"\n",
				left, top+row*i, column*float64(len([]rune(line))), html.EscapeString(line))
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
