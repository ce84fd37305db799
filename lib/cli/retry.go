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

// A unit sets these variables so that the tool retries a failed run: the number of tries, and the time between them.
const (
	triesVariable = "HUB_TRIES"
	afterVariable = "HUB_RETRY_AFTER"
)

// retryable are the statuses of failures that may succeed later without a change.
var retryable = []int{sysexits.Failed, sysexits.Unavailable, sysexits.CantCreate, sysexits.TempFail}

// retry waits and then runs the whole program again, if status is retryable and a try is left. Otherwise it returns.
//
// The number of retries cannot be limited with systemd's start limit. That limit also counts successful starts and
// starts by a person, and then it rejects the timer's next start.
func retry(status int) {
	tries, err := strconv.Atoi(os.Getenv(triesVariable))
	if err != nil || tries < 2 || !slices.Contains(retryable, status) {
		return
	}
	after, err := time.ParseDuration(os.Getenv(afterVariable))
	if err != nil {
		return
	}
	signal.Reset() // a signal ends the wait and the program
	time.Sleep(after)
	if os.Setenv(triesVariable, strconv.Itoa(tries-1)) == nil {
		_ = syscall.Exec("/proc/self/exe", os.Args, os.Environ()) // if this fails, the program exits with status
	}
}
