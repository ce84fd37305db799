package main

import (
	"context"
	_ "embed"
	"io"

	"observability-hub/lib/cli"
)

//go:embed schema.sql
var schemaSQL string

// tableSQL is the plain table that flush makes where there is none: for the
// first run on a new database. schema.sql makes the better one. A table that is
// there gets nothing: the relation that is missing may be one of its triggers'.
const tableSQL = `DO $$ BEGIN IF to_regclass('system_metrics') IS NULL THEN
	CREATE TABLE system_metrics (
		time timestamptz NOT NULL, host text NOT NULL, os text NOT NULL, metric_type text NOT NULL, payload jsonb NOT NULL);
	CREATE UNIQUE INDEX system_metrics_key ON system_metrics (host, metric_type, time);
END IF; END $$`

// partitionPrefix and a day in UTC as YYYYMMDD are the name of a partition.
const partitionPrefix = "system_metrics_p"

// schemaCmd prints the SQL that makes the table.
type schemaCmd struct{}

// Run prints schema.sql.
func (*schemaCmd) Run(_ context.Context, env *cli.Env) error {
	_, err := io.WriteString(env.Stdout, schemaSQL)
	return err
}
