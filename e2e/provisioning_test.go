package e2e

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"go.yaml.in/yaml/v3"

	"observability-hub/e2e/workspace"
)

// dataSources is what our file uses of Grafana's format for data sources; anything else in it is an error.
type dataSources struct {
	APIVersion  int `yaml:"apiVersion"`
	DataSources []struct {
		Name, UID, Type, Access, URL, User string
		JSONData                           struct {
			Database, SSLMode string
			TimescaleDB       bool
		} `yaml:"jsonData"`
		SecureJSONData struct{ Password string } `yaml:"secureJsonData"`
		Editable       bool
	} `yaml:"datasources"`
}

// dashboardProviders is the same for dashboards.
type dashboardProviders struct {
	APIVersion int `yaml:"apiVersion"`
	Providers  []struct {
		Name, Folder, Type    string
		OrgID                 int  `yaml:"orgId"`
		DisableDeletion       bool `yaml:"disableDeletion"`
		UpdateIntervalSeconds int  `yaml:"updateIntervalSeconds"`
		AllowUIUpdates        bool `yaml:"allowUiUpdates"`
		Options               struct{ Path string }
	}
}

// readYAML reads a file of the repository strictly: a key that into does not have is an error.
func readYAML(t *testing.T, path string, into any) {
	t.Helper()
	root, err := workspace.Root()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(content))
	decoder.KnownFields(true)
	if err := decoder.Decode(into); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
}

// The provisioned data sources are of the types that the dashboards ask for, and no password is in a file.
func TestGrafanaProvisioning(t *testing.T) {
	var sources dataSources
	readYAML(t, "deploy/grafana/provisioning/datasources/observability-hub.yaml", &sources)
	types := map[string]bool{}
	for _, s := range sources.DataSources {
		types[s.Type] = true
		if s.Name == "" || s.UID == "" || s.Access != "proxy" || s.URL == "" {
			t.Errorf("data source %+v", s)
		}
		if s.Type == postgresType && (s.JSONData.SSLMode == "" || s.JSONData.Database == "" || s.User == "" || s.SecureJSONData.Password != "${HUB_GRAFANA_PASSWORD}") {
			t.Errorf("data source %+v", s)
		}
	}
	used := map[string]bool{}
	for file, d := range allDashboards(t) {
		for _, v := range d.Templating.List {
			if v.Type == "datasource" {
				used[v.Query] = true
				if !types[v.Query] {
					t.Errorf("%s needs a data source of type %s, which is not provisioned", file, v.Query)
				}
			}
		}
	}
	if len(used) != len(types) || sources.APIVersion != 1 {
		t.Errorf("provisioned %v, used %v", types, used)
	}

	var providers dashboardProviders
	readYAML(t, "deploy/grafana/provisioning/dashboards/observability-hub.yaml", &providers)
	if providers.APIVersion != 1 || len(providers.Providers) != 1 || providers.Providers[0].Type != "file" || !filepath.IsAbs(providers.Providers[0].Options.Path) {
		t.Errorf("%+v", providers)
	}
}
