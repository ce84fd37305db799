module observability-hub/gitsync

go 1.26.0

require observability-hub/lib v0.0.0

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/google/renameio/v2 v2.0.2 // indirect
)

replace observability-hub/lib => ../lib
