
-- Hourly means for charts of weeks and months, which "sysmetrics rollup" and
-- "sysmetrics prune" fill. system_metrics is not changed.
CREATE TABLE IF NOT EXISTS system_metrics_hourly (
    time    timestamptz      NOT NULL, -- the beginning of the hour
    host    text             NOT NULL,
    metric  text             NOT NULL, -- such as cpu_usage or disk_used_percent
    name    text             NOT NULL, -- a mount point, a disk or an interface, else empty
    samples integer          NOT NULL,
    mean    double precision NOT NULL,
    highest double precision NOT NULL,
    last    double precision NOT NULL, -- the newest value of the hour
    PRIMARY KEY (host, metric, name, time)
);
-- For one metric of all hosts.
CREATE INDEX IF NOT EXISTS system_metrics_hourly_metric ON system_metrics_hourly (metric, time);

-- How many records of each hour are summed up in system_metrics_hourly.
CREATE TABLE IF NOT EXISTS system_metrics_hours (
    time    timestamptz PRIMARY KEY,
    records bigint NOT NULL
);
