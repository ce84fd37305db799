package main

import "time"

// hung remembers a mount that did not answer, so that later runs leave it
// alone for a while.
type hung struct {
	mount    mount         // only device, point and fstype: a new mount there is asked at once
	retry    time.Duration // CLOCK_BOOTTIME of the next question
	failures int
}

const (
	hungFirstRetry = 5 * time.Minute
	hungMaxRetry   = time.Hour
)

// again returns the memory after one more question without an answer: the
// next comes after five minutes, then ten, up to an hour.
func (h hung) again(m mount, now time.Duration) hung {
	wait := min(hungFirstRetry<<min(h.failures, 10), hungMaxRetry)
	return hung{mount: mount{device: m.device, point: m.point, fstype: m.fstype}, retry: now + wait, failures: h.failures + 1}
}

// waits reports whether it is too early to ask again. A wait longer than any
// is from before the clock went back, as in a restored virtual machine.
func (h hung) waits(now time.Duration) bool {
	return now < h.retry && h.retry-now <= hungMaxRetry
}

// same reports whether m is still the mount that is remembered.
func (h hung) same(m mount) bool {
	return h.mount.device == m.device && h.mount.point == m.point && h.mount.fstype == m.fstype
}
