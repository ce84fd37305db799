package main

import (
	"maps"
	"slices"
)

// core names the files whose mutants are drawn: those that decide what a tool
// does to data and hosts. Command lines, texts and output are left out.
var core = map[string][]string{
	"gitsync": {
		"plan.go", "change.go", "restart.go", "enable.go", "enablement.go", "health.go", "forhost.go", "ledger.go",
		"journal.go", "back.go", "owners.go", "want.go", "internal/gitobj/*.go", "internal/unit/*.go",
	},
	"readsync": {
		"answer.go", "compare.go", "letters.go", "load.go", "mark.go", "moments.go", "retry.go", "row.go", "run.go", "session.go",
		"table.go", "target.go", "trigger.go", "internal/deadletter/*.go", "internal/extjson/*.go", "internal/moment/*.go",
		"internal/copytext/*.go", "internal/rawbson/*.go",
	},
	"sysmetrics": {
		"cpu.go", "deliver.go", "device.go", "disk.go", "filter.go", "flush.go", "insert.go", "interface.go", "memory.go",
		"mounts.go", "network.go", "pressure.go", "rates.go", "spool.go", "staging.go", "state.go", "temperature.go",
		"internal/statfs/statfs.go",
	},
	"volbackup": {
		"choice.go", "directory.go", "producer.go", "prune.go", "restore.go", "room.go", "store.go", "said.go",
		"internal/repository/*.go", "internal/tarcheck/*.go",
	},
	"lib": {
		"libpq/*.go", "statedir/*.go", "record/*.go", "redact/*.go", "credential/*.go",
	},
}

func tools() []string { return slices.Sorted(maps.Keys(core)) }
