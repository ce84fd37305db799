package main

import "observability-hub/lib/table"

// flagHelp says what each flag is for. It stands here and not in the tags of
// the flags, as kong parses every tag at every start.
const flagHelp = `
timeout       Longest time to wait for one answer of a database (${default}).
state-dir     Folder for the lock and the dead letters (default: $STATE_DIRECTORY, else ~/.local/state/reading-sync).
dead-letters  File for documents that cannot become rows (default: dead-letters.jsonl in the state directory).
max-rejects   Stop when more documents than this cannot become rows (${default}).
nul           What to do about NUL characters, which PostgreSQL cannot store: reject the document, or replace them by U+FFFD (${default}).
differing     What to do about a row that differs from its document: keep it, and leave the document ingested, or replace it (${default}).
dates         How dates and ObjectIDs inside of payload and meta are stored: extended JSON, or text as hubs before this tool did (${default}).
dry-run       Write nothing: say what would become of each document.
all           List the rows without a document too.
url           The endpoint to call (${default}).
deadline      Longest time for all calls together (${default}).
allow-host    A further name by which callers may address this machine.
limit         Print at most this many documents; 0 is all (${default}).
` + table.Help
