module observability-hub/e2e

go 1.26
