module observability-hub/sysmetrics

go 1.26.0

require (
	github.com/lib/pq v1.12.3
	golang.org/x/sys v0.49.0
	observability-hub/lib v0.0.0
	observability-hub/lib/postgres v0.0.0
)

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/google/renameio/v2 v2.0.2 // indirect
)

replace observability-hub/lib => ../lib

replace observability-hub/lib/postgres => ../lib/postgres
