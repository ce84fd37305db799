package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/logs"
	"github.com/grafana/grafana-foundation-sdk/go/loki"
	"github.com/grafana/grafana-foundation-sdk/go/stat"
	"github.com/grafana/grafana-foundation-sdk/go/table"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// The committed files are equal to the generator's output, and no other file is in dashboards/.
func TestCommitted(t *testing.T) {
	for path, build := range dashboards {
		want, err := render(build())
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		got, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what the generator writes: run `go run .` in deploy/grafana/generate", path)
		}
	}
	files, err := filepath.Glob("../dashboards/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if path := strings.TrimPrefix(filepath.ToSlash(file), "../"); dashboards[path] == nil {
			t.Errorf("%s: the generator does not write this file", path)
		}
	}
}

// readStrictly reads a dashboard with the SDK's strict reader, which first learns each type of panel and query that occurs here.
func readStrictly(content []byte) (d classic, err error) {
	runtime := cog.NewRuntime()
	runtime.RegisterPanelcfgVariant(timeseries.VariantConfig())
	runtime.RegisterPanelcfgVariant(table.VariantConfig())
	runtime.RegisterPanelcfgVariant(stat.VariantConfig())
	runtime.RegisterPanelcfgVariant(logs.VariantConfig())
	runtime.RegisterDataqueryVariant(loki.VariantConfig())
	registerPostgres()
	// The strict reader reports mistakes but loses the panels. The lenient reader keeps them.
	var strict classic
	if err := wrong(strict.UnmarshalJSONStrict(content)); err != nil {
		return d, err
	}
	return d, json.Unmarshal(content, &d)
}

// wrong returns an error of the strict reader, which returns an empty list of errors where it found none.
func wrong(err error) error {
	var found cog.BuildErrors
	if errors.As(err, &found) && len(found) == 0 {
		return nil
	}
	return err
}

// Each committed file reads back strictly: no unknown field, no missing one, no wrong type, and nothing lost.
func TestStrict(t *testing.T) {
	uids := map[string]string{}
	for path := range dashboards {
		content, err := os.ReadFile(filepath.Join("..", path))
		if err != nil {
			t.Fatal(err)
		}
		d, err := readStrictly(content)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if err := d.Validate(); err != nil {
			t.Errorf("%s: %v", path, err)
		}
		again, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		var before, after any
		if err := errors.Join(json.Unmarshal(content, &before), json.Unmarshal(again, &after)); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(before, after) {
			t.Errorf("%s: something is lost when it is read back", path)
		}
		var titles []string
		for _, p := range d.Panels {
			if slices.Contains(titles, *p.Panel.Title) {
				t.Errorf("%s: two panels have the title %q", path, *p.Panel.Title)
			}
			titles = append(titles, *p.Panel.Title)
			for _, target := range p.Panel.Targets {
				if _, unknown := target.(variants.UnknownDataquery); unknown {
					t.Errorf("%s: %s: a query of an unknown type", path, *p.Panel.Title)
				}
			}
		}
		if other := uids[*d.Uid]; other != "" && filepath.Dir(other) == filepath.Dir(path) {
			t.Errorf("%s and %s have the uid %s", path, other, *d.Uid)
		}
		uids[*d.Uid] = path
	}
}

// The strict reader finds mistakes, which TestStrict relies on.
func TestStrictRefuses(t *testing.T) {
	good, err := render(host())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ what, old, new string }{
		{"a misspelt key of a panel", `"gridPos"`, `"gridPosition"`},
		{"a misspelt key of an SQL query", `"rawSql"`, `"sql"`},
		{"a wrong type", `"refresh": "1m"`, `"refresh": 1`},
		{"a missing key of an SQL query", `"rawSql"`, `"expr"`},
		{"a misspelt option", `"showLegend"`, `"showLegends"`},
	} {
		bad := strings.Replace(string(good), test.old, test.new, 1)
		if bad == string(good) {
			t.Fatalf("%s: %s does not occur", test.what, test.old)
		}
		if _, err := readStrictly([]byte(bad)); err == nil {
			t.Errorf("%s is read without an error", test.what)
		}
	}
}
