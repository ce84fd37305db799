package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// clock is one moment on the three clocks that matter.
type clock struct {
	wall      time.Time     // for the record; may step
	monotonic time.Duration // CLOCK_MONOTONIC: since boot, without suspend
	boottime  time.Duration // CLOCK_BOOTTIME: since boot, with suspend
}

// readClock reads the kernel's clocks.
func readClock() (clock, error) {
	c := clock{wall: time.Now()}
	for _, k := range []struct {
		id  int32
		dst *time.Duration
	}{{unix.CLOCK_MONOTONIC, &c.monotonic}, {unix.CLOCK_BOOTTIME, &c.boottime}} {
		var ts unix.Timespec
		if err := unix.ClockGettime(k.id, &ts); err != nil {
			return clock{}, fmt.Errorf("clock_gettime %d: %w", k.id, err)
		}
		*k.dst = time.Duration(ts.Nano())
	}
	return c, nil
}

// parseUptime reads proc_uptime(5), the clock of a copied /proc: seconds since
// boot, suspend included, which a copy cannot tell apart.
func parseUptime(data []byte) (time.Duration, error) {
	field, _, _ := bytes.Cut(data, []byte(" "))
	s, err := strconv.ParseFloat(string(bytes.TrimSpace(field)), 64)
	if err != nil || !(s >= 0 && s <= 1e9) { // which NaN is not
		return 0, fmt.Errorf("uptime: %q is not a number of seconds", field)
	}
	return time.Duration(s * float64(time.Second)), nil
}
