package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"

	"observability-hub/e2e/nspawn"
)

// promtail is the part of Promtail's configuration that deploy/promtail/promtail.yaml uses. Any other key in the file is an
// error, so a misspelt key is an error.
type promtail struct {
	Server    struct{ Disable bool }
	Positions struct{ Filename string }
	Clients   []struct{ URL string }
	Scrape    []scrape `yaml:"scrape_configs"`
}

type scrape struct {
	Job     string `yaml:"job_name"`
	Journal struct {
		Path   string
		MaxAge string `yaml:"max_age"`
		Labels map[string]string
	}
	Relabel []rule `yaml:"relabel_configs"`
	Stages  []struct {
		JSON *struct {
			Expressions map[string]string
		}
		Labels map[string]*string
	} `yaml:"pipeline_stages"`
}

type rule struct {
	Source      []string `yaml:"source_labels"`
	Regex       string
	Target      string `yaml:"target_label"`
	Replacement string
	Action      string
}

func readPromtail(t *testing.T) scrape {
	t.Helper()
	var config promtail
	readYAML(t, "deploy/promtail/promtail.yaml", &config)
	if len(config.Scrape) != 1 || config.Scrape[0].Job != "systemd-journal" || len(config.Clients) != 1 {
		t.Fatalf("promtail.yaml: want one client and the one job systemd-journal, not %+v", config)
	}
	return config.Scrape[0]
}

// apply returns the labels with which Promtail would send an entry, or nil if it would not send it. The rules are those of
// Prometheus: source labels are joined by ";", an expression must match the whole text, a label without a value does not exist,
// and labels that begin with "__" are not sent.
func (s scrape) apply(entry nspawn.Entry) (map[string]string, error) {
	labels := maps.Clone(s.Journal.Labels)
	for field, value := range entry {
		labels["__journal_"+strings.ToLower(field)] = value
	}
	for _, rule := range s.Relabel {
		if rule.Regex == "" {
			rule.Regex = "(.*)"
		}
		if rule.Replacement == "" {
			rule.Replacement = "$1"
		}
		var values []string
		for _, name := range rule.Source {
			values = append(values, labels[name])
		}
		source := strings.Join(values, ";")
		pattern, err := regexp.Compile("^(?s:" + rule.Regex + ")$")
		if err != nil {
			return nil, err
		}
		match := pattern.FindStringSubmatchIndex(source)
		switch rule.Action {
		case "keep":
			if match == nil {
				return nil, nil
			}
		case "", "replace":
			if match == nil {
				continue
			}
			if rule.Target == "" {
				return nil, errors.New("a rule to replace has no target_label")
			}
			labels[rule.Target] = string(pattern.ExpandString(nil, rule.Replacement, source, match))
		default:
			return nil, fmt.Errorf("unknown action: %q", rule.Action)
		}
	}
	maps.DeleteFunc(labels, func(name, value string) bool { return strings.HasPrefix(name, "__") || value == "" })

	extracted := map[string]string{}
	for _, stage := range s.Stages {
		if stage.JSON != nil {
			var object map[string]any
			// A line that is not a JSON object is not changed.
			if json.Unmarshal([]byte(entry["MESSAGE"]), &object) == nil {
				for name, expression := range stage.JSON.Expressions {
					if value, found := object[expression].(string); found {
						extracted[name] = value
					}
				}
			}
		}
		for name, source := range stage.Labels {
			from := name
			if source != nil {
				from = *source
			}
			if value := extracted[from]; value != "" {
				labels[name] = value
			}
		}
	}
	return labels, nil
}

func TestPromtail(t *testing.T) {
	t.Parallel()
	scrape := readPromtail(t)
	unit := func(name, priority, message string) nspawn.Entry {
		return nspawn.Entry{"_SYSTEMD_UNIT": name, "PRIORITY": priority, "MESSAGE": message, "_HOSTNAME": "web1"}
	}
	systemd := func(name, priority, message string) nspawn.Entry {
		return nspawn.Entry{"_SYSTEMD_UNIT": "init.scope", "UNIT": name, "PRIORITY": priority, "MESSAGE": message, "_HOSTNAME": "web1"}
	}
	for _, test := range []struct {
		name  string
		entry nspawn.Entry
		want  string // unit, service, level; empty if the entry is not sent
	}{
		{"a record", unit("system-metrics.service", "6", `{"level":"INFO"}`), "system-metrics.service system-metrics INFO"},
		{"a debug record has the priority of other lines", unit("reading-sync.service", "6", `{"level":"DEBUG"}`), "reading-sync.service reading-sync DEBUG"},
		{"an error", unit("volume-backup.service", "3", `{"level":"ERROR"}`), "volume-backup.service volume-backup ERROR"},
		{"a panic", unit("gitops-apply.service", "6", "panic: no"), "gitops-apply.service gitops-apply INFO"},
		{"JSON without a level", unit("gitops-sync.service", "4", `{"a":1}`), "gitops-sync.service gitops-sync WARN"},
		{"JSON with another level", unit("gitops-sync.service", "2", `{"level":3}`), "gitops-sync.service gitops-sync ERROR"},
		{"an instance", unit("gitops-sync@web.service", "6", "x"), "gitops-sync@web.service gitops-sync INFO"},
		{"an activated service", unit("reading-sync-api.service", "5", "x"), "reading-sync-api.service reading-sync-api INFO"},
		{"its socket", systemd("reading-sync-api.socket", "6", "Listening"), "reading-sync-api.socket reading-sync-api INFO"},
		{"a timer", systemd("system-metrics.timer", "6", "Started"), "system-metrics.timer system-metrics INFO"},
		{"systemd on a failure", systemd("system-metrics.service", "4", "Failed with result 'exit-code'."), "system-metrics.service system-metrics WARN"},
		{"a report", unit("hub-failure@volume-backup.service.service", "3", `{"level":"ERROR"}`), "hub-failure@volume-backup.service.service volume-backup ERROR"},
		{"of an instance", unit("hub-failure@gitops-sync@web.service.service", "3", "x"), "hub-failure@gitops-sync@web.service.service gitops-sync ERROR"},

		{"a unit of the same family", unit("volume-backup-verify.service", "3", `{"level":"ERROR"}`), "volume-backup-verify.service volume-backup ERROR"},
		{"its timer", systemd("system-metrics-prune.timer", "6", "Started"), "system-metrics-prune.timer system-metrics INFO"},
		{"a report of it", unit("hub-failure@volume-backup-verify.service.service", "3", "x"), "hub-failure@volume-backup-verify.service.service volume-backup ERROR"},

		{"another unit", unit("ssh.service", "3", "x"), ""},
		{"systemd on another unit", systemd("ssh.service", "3", "x"), ""},
		{"one that begins like ours", unit("system-metrics-else.service", "3", "x"), ""},
		{"one that ends like ours", unit("my-system-metrics.service", "3", "x"), ""},
		{"a process that claims to speak of our unit", nspawn.Entry{"_SYSTEMD_UNIT": "ssh.service", "UNIT": "system-metrics.service", "PRIORITY": "0"}, ""},
		{"the kernel", nspawn.Entry{"_TRANSPORT": "kernel", "PRIORITY": "3", "MESSAGE": "x"}, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			labels, err := scrape.apply(test.entry)
			if err != nil {
				t.Fatal(err)
			}
			if test.want == "" {
				if labels != nil {
					t.Errorf("it is sent, with %v", labels)
				}
				return
			}
			fields := strings.Fields(test.want)
			want := map[string]string{"job": "systemd-journal", "host": "web1", "unit": fields[0], "service": fields[1], "level": fields[2]}
			if !maps.Equal(labels, want) {
				t.Errorf("labels %v; want %v", labels, want)
			}
		})
	}
}

// checkPromtail applies the configuration to the journal of a machine.
func checkPromtail(t *testing.T, journal []nspawn.Entry) {
	scrape := readPromtail(t)
	sent := map[string]int{}
	for _, entry := range journal {
		labels, err := scrape.apply(entry)
		if err != nil {
			t.Fatal(err)
		}
		if labels == nil {
			continue
		}
		if labels["job"] != "systemd-journal" || labels["host"] != "e2e" || labels["level"] == "" || len(labels) != 5 {
			t.Errorf("labels %v of %q", labels, entry["MESSAGE"])
		}
		from := "itself"
		if entry["_SYSTEMD_UNIT"] == "init.scope" {
			from = "systemd"
		}
		sent[fmt.Sprintf("%s %s %s by %s", labels["unit"], labels["service"], labels["level"], from)]++
	}
	for _, want := range []string{
		"system-metrics.service system-metrics INFO by itself",
		"system-metrics.service system-metrics ERROR by itself",
		"system-metrics.service system-metrics INFO by systemd",
		"system-metrics.service system-metrics WARN by systemd", // Failed with result …
		"system-metrics.timer system-metrics INFO by systemd",
		"hub-failure@system-metrics.service.service system-metrics ERROR by itself",
	} {
		if sent[want] == 0 {
			t.Errorf("%q is not sent, but %q", want, slices.Sorted(maps.Keys(sent)))
		}
	}
	for line := range sent {
		if !strings.HasPrefix(line, "system-metrics.") && !strings.HasPrefix(line, "hub-failure@") {
			t.Errorf("a line of another unit is sent: %s", line)
		}
	}
}
