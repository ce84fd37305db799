module observability-hub/lib/postgres

go 1.26.0

require (
	github.com/lib/pq v1.12.3
	observability-hub/lib v0.0.0
)

replace observability-hub/lib => ../
