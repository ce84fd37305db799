package main

import (
	"bytes"
	"fmt"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// clock is one moment, read from three clocks.
type clock struct {
	wall      time.Time     // the time of the record; may step
	monotonic time.Duration // CLOCK_MONOTONIC: since boot, suspend excluded
	boottime  time.Duration // CLOCK_BOOTTIME: since boot, suspend included
}

// readClock reads the three clocks from the kernel.
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

// parseUptime reads proc_uptime(5), which is the clock of a copied /proc. The
// file holds the seconds since boot, suspend included. A copy does not show how
// much of that time was suspend.
func parseUptime(data []byte) (time.Duration, error) {
	field, _, _ := bytes.Cut(data, []byte(" "))
	s, err := strconv.ParseFloat(string(bytes.TrimSpace(field)), 64)
	if err != nil || !(s >= 0 && s <= 1e9) { // written so that NaN fails
		return 0, fmt.Errorf("uptime: %q is not a number of seconds", field)
	}
	return time.Duration(s * float64(time.Second)), nil
}
