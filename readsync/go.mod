module observability-hub/readsync

go 1.26.0

require (
	github.com/google/renameio/v2 v2.0.2
	github.com/lib/pq v1.12.3
	go.mongodb.org/mongo-driver/v2 v2.10.0
	observability-hub/lib v0.0.0
	observability-hub/lib/postgres v0.0.0
)

require (
	github.com/alecthomas/kong v1.17.0 // indirect
	github.com/klauspost/compress v1.20.3 // indirect
	github.com/xdg-go/scram v1.4.0 // indirect
	github.com/xdg-go/stringprep v1.0.4 // indirect
	github.com/youmark/pkcs8 v0.0.0-20240726163527-a2c0da244d78 // indirect
	golang.org/x/crypto v0.54.0 // indirect
	golang.org/x/sync v0.22.0 // indirect
	golang.org/x/text v0.41.0 // indirect
)

replace observability-hub/lib => ../lib

replace observability-hub/lib/postgres => ../lib/postgres
