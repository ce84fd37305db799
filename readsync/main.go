// Readsync syncs documents from MongoDB to PostgreSQL. Every document becomes one
// row, or leaves a record that says why not.
//
// Synopsis:
//
//	readsync run [FLAG...]
//	readsync extract | readsync load | readsync mark
//	readsync retry DEADLETTER
//	readsync verify
//	readsync status
//	readsync trigger [--url URL]
//	readsync serve
//
// run reads the documents of a collection whose status is ingested, inserts
// them into the table reading_analytics, and sets the status to processed after
// they are committed. extract, load and mark are the same three stages as
// filters. trigger calls a Proxy Service, or readsync serve, which do the sync.
// readsync(1) is the manual.
package main

import (
	"os"

	"observability-hub/lib/cli"
)

const (
	name   = "readsync"
	family = "reading-sync" // the unit family: the service of every record

	endpointUnit = "reading-sync-api" // whose settings name the databases
)

func main() {
	os.Exit(cli.Main(app(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// app returns the whole command line of the tool. The flags of a command are the
// fields of its struct.
func app() cli.App { return appBetween(peers{dialCollection, dialDatabase}) }

// appBetween returns the tool for the given databases.
func appBetween(p peers) cli.App {
	f := peerFlags{peers: p}
	return cli.App{
		Name:        name,
		Service:     family,
		Description: "Sync documents from MongoDB to PostgreSQL: each becomes one row, or a record that says why not.",
		Commands: []cli.Command{
			{Name: "run", Help: "Sync all ingested documents: extract, load and mark in one.", Unit: endpointUnit, Grammar: &runCmd{peerFlags: f}},
			{Name: "extract", Help: "Print each ingested document as a record.", Unit: endpointUnit, Grammar: &extractCmd{peerFlags: f}},
			{Name: "load", Help: "Insert the records on stdin as rows, and print the outcome of each.", Unit: endpointUnit, Grammar: &loadCmd{peerFlags: f}},
			{Name: "mark", Help: "Mark the documents whose outcomes load printed.", Unit: endpointUnit, Grammar: &markCmd{peerFlags: f}},
			{Name: "retry", Help: "Load dead letters again.", Unit: endpointUnit, Grammar: &retryCmd{peerFlags: f}},
			{Name: "verify", Help: "Compare documents and rows in both directions.", Unit: endpointUnit, Grammar: &verifyCmd{peerFlags: f}},
			{Name: "status", Help: "Count the documents that wait in the dead letters.", Grammar: &statusCmd{}},
			{Name: "trigger", Help: "Call the Proxy Service, or readsync serve, until everything is synced.", Grammar: &triggerCmd{pace: usualPace()}},
			{Name: "serve", Help: "Answer one call on stdin, as a Proxy Service does.", Unit: endpointUnit, Grammar: &serveCmd{peerFlags: f}},
		},
		Flags: flagHelp,
		Examples: `  readsync run --dry-run
  readsync run --max-rejects 100 --nul=replace
  readsync extract | jq -c 'select(.source != "test")' | readsync load | readsync mark
  readsync retry /var/lib/reading-sync/dead-letters.jsonl
  readsync verify
  readsync trigger --url http://localhost:8085/api/sync/reading
  systemd-socket-activate --accept --inetd -l 127.0.0.1:8085 readsync serve
`,
	}
}
