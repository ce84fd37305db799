package main

import "observability-hub/lib/table"

// flagHelp has one line for each flag. The texts are not in the tags of the flags,
// because kong parses every tag at every start.
const flagHelp = `
timeout       Maximum time to wait for one answer of a database (${default}).
state-dir     Directory of the lock and the dead letters (default: $STATE_DIRECTORY, else ~/.local/state/reading-sync).
dead-letters  File for documents that cannot become rows (default: dead-letters.jsonl in the state directory).
max-rejects   Stop if more documents than this are rejected (${default}).
nul           How to treat NUL characters, which PostgreSQL cannot store: reject the document, or replace them by U+FFFD (${default}).
differing     How to treat a row that differs from its document: keep it and leave the document ingested, or replace it (${default}).
dates         How to store dates and ObjectIDs inside payload and meta: as extended JSON, or as text like hubs before this tool (${default}).
dry-run       Write nothing, and print the numbers of a real run.
all           Also list rows without a document.
url           The endpoint to call (${default}).
deadline      Maximum time for all calls together (${default}).
allow-host    Another name that callers may use for this machine.
limit         Print at most this many documents; 0 means all (${default}).
` + table.Help
