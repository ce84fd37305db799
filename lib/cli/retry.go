package cli

import (
	"os"
	"os/signal"
	"slices"
	"strconv"
	"syscall"
	"time"

	"observability-hub/lib/sysexits"
)

// Variables that a unit sets to have a failed run tried again: how many tries there are, and how far apart they are.
const (
	triesVariable = "HUB_TRIES"
	afterVariable = "HUB_RETRY_AFTER"
)

// retryable are the statuses of failures that may pass by themselves.
var retryable = []int{sysexits.Failed, sysexits.Unavailable, sysexits.CantCreate, sysexits.TempFail}

// retry runs the whole program again, after a wait, if status may pass by itself and a try is left. Otherwise it returns.
//
// systemd's start limit cannot bound retries: it counts successful starts and those of people too, and refuses the
// timer's next one.
func retry(status int) {
	tries, err := strconv.Atoi(os.Getenv(triesVariable))
	if err != nil || tries < 2 || !slices.Contains(retryable, status) {
		return
	}
	after, err := time.ParseDuration(os.Getenv(afterVariable))
	if err != nil {
		return
	}
	signal.Reset() // a signal ends the wait, and the program
	time.Sleep(after)
	if os.Setenv(triesVariable, strconv.Itoa(tries-1)) == nil {
		_ = syscall.Exec("/proc/self/exe", os.Args, os.Environ()) // if it fails, the first status stands
	}
}
