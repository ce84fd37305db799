package main

import (
	"context"
	_ "embed"
	"io"

	"observability-hub/lib/cli"
)

//go:embed schema.sql
var schemaSQL string

// partitionPrefix is the first part of a partition's name. The second part is
// the day in UTC as YYYYMMDD.
const partitionPrefix = "system_metrics_p"

// schemaCmd prints the SQL that creates the table.
type schemaCmd struct {
	Rollup bool
}

// Run prints schema.sql and, on request, rollup.sql.
func (s *schemaCmd) Run(_ context.Context, env *cli.Env) error {
	sql := schemaSQL
	if s.Rollup {
		sql += rollupSQL
	}
	_, err := io.WriteString(env.Stdout, sql)
	return err
}
