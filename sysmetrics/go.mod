module observability-hub/sysmetrics

go 1.26

require (
	github.com/alecthomas/kong v1.17.0
	github.com/lib/pq v1.12.3
	github.com/prometheus/procfs v0.23.0
	observability-hub/lib v0.0.0
)

replace observability-hub/lib => ../lib
