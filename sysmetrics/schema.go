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
type schemaCmd struct{}

// Run prints schema.sql.
func (*schemaCmd) Run(_ context.Context, env *cli.Env) error {
	_, err := io.WriteString(env.Stdout, schemaSQL)
	return err
}
