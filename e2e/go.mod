module observability-hub/e2e

go 1.26.0

require github.com/lib/pq v1.12.3

require go.yaml.in/yaml/v3 v3.0.6

require (
	github.com/rogpeppe/go-internal v1.16.0
	golang.org/x/sys v0.49.0
	golang.org/x/tools v0.26.0 // indirect
)
