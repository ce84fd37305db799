package main

import (
	"bytes"
	"encoding/json"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/cog/variants"
	"github.com/grafana/grafana-foundation-sdk/go/common"
)

// postgresType is the type of Grafana's PostgreSQL data source. The SDK has no query type for it.
const postgresType = "grafana-postgresql-datasource"

// postgresQuery is a query as Grafana's SQL editor saves it in its code mode.
type postgresQuery struct {
	RefID      string               `json:"refId"`
	Datasource common.DataSourceRef `json:"datasource"`
	EditorMode string               `json:"editorMode"`
	Format     string               `json:"format"` // time_series or table
	RawQuery   bool                 `json:"rawQuery"`
	RawSQL     string               `json:"rawSql"`
}

func (q postgresQuery) ImplementsDataqueryVariant() {}
func (q postgresQuery) DataqueryType() string       { return postgresType }
func (q postgresQuery) Validate() error             { return nil }

func (q postgresQuery) Equals(other variants.Dataquery) bool {
	o, ok := other.(*postgresQuery)
	return ok && q.RefID == o.RefID && q.Datasource.Equals(o.Datasource) && q.EditorMode == o.EditorMode &&
		q.Format == o.Format && q.RawQuery == o.RawQuery && q.RawSQL == o.RawSQL
}

// Build makes the query its own builder.
func (q postgresQuery) Build() (variants.Dataquery, error) { return &q, nil }

// registerPostgres makes the SDK's strict reader read postgresQuery.
func registerPostgres() {
	read := func(raw []byte) (variants.Dataquery, error) {
		var q postgresQuery
		decoder := json.NewDecoder(bytes.NewReader(raw))
		decoder.DisallowUnknownFields()
		return &q, decoder.Decode(&q)
	}
	cog.NewRuntime().RegisterDataqueryVariant(variants.DataqueryConfig{
		Identifier:                 postgresType,
		DataqueryUnmarshaler:       read,
		StrictDataqueryUnmarshaler: read,
	})
}
