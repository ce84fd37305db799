package main

import (
	"context"
	_ "embed"
	"io"

	"observability-hub/lib/cli"
)

//go:embed schema.sql
var schemaSQL string

// partitionPrefix and a day in UTC as YYYYMMDD are the name of a partition.
const partitionPrefix = "system_metrics_p"

// schemaCmd prints the SQL that makes the table.
type schemaCmd struct{}

// Run prints schema.sql.
func (*schemaCmd) Run(_ context.Context, env *cli.Env) error {
	_, err := io.WriteString(env.Stdout, schemaSQL)
	return err
}
