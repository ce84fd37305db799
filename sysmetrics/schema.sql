-- The table of sysmetrics. Run this as the role that will insert the records:
--
--     sysmetrics schema | psql --set ON_ERROR_STOP=1 DATABASE
--
-- An existing table is not changed, and keeps its rows. A new table has daily
-- partitions. sysmetrics creates a partition with the first record of a day, and
-- "sysmetrics prune" drops old ones. If the extension TimescaleDB is installed
-- in the database, a new table is a hypertable instead. If you use TimescaleDB's
-- compression, the columns of the unique index must be in
-- timescaledb.compress_segmentby (host, metric_type) and compress_orderby (time).
DO $$
BEGIN
    IF coalesce(current_schema(), 'pg_temp') LIKE 'pg\_temp%' THEN
        RAISE EXCEPTION 'the search_path of % names no schema for permanent tables', current_user USING ERRCODE = 'invalid_schema_name';
    ELSIF to_regclass('system_metrics') IS NOT NULL THEN
        RAISE NOTICE 'system_metrics exists and is not changed';
    ELSIF EXISTS (SELECT FROM pg_extension WHERE extname = 'timescaledb') THEN
        CREATE TABLE system_metrics (
            time        timestamptz NOT NULL,
            host        text        NOT NULL,
            os          text        NOT NULL,
            metric_type text        NOT NULL,
            payload     jsonb       NOT NULL
        );
        PERFORM create_hypertable('system_metrics', 'time', chunk_time_interval => interval '1 day');
    ELSE
        CREATE TABLE system_metrics (
            time        timestamptz NOT NULL,
            host        text        NOT NULL,
            os          text        NOT NULL,
            metric_type text        NOT NULL,
            payload     jsonb       NOT NULL
        ) PARTITION BY RANGE (time);
    END IF;
END
$$;

-- The order of columns suits a dashboard: one host, one type, a range of time.
DO $$
BEGIN
    CREATE UNIQUE INDEX IF NOT EXISTS system_metrics_key ON system_metrics (host, metric_type, time);
EXCEPTION WHEN unique_violation THEN
    RAISE WARNING 'no unique index: the table holds rows with the same host, metric_type and time. sysmetrics avoids duplicates without the index too';
    CREATE INDEX IF NOT EXISTS system_metrics_lookup ON system_metrics (host, metric_type, time);
END
$$;

-- For ranges of time over all hosts. A BRIN index needs a few pages for months
-- of rows. Without autosummarize it would not know new pages before the next
-- vacuum, and queries of the last minutes would read them all.
CREATE INDEX IF NOT EXISTS system_metrics_time ON system_metrics USING brin (time) WITH (autosummarize = on);
