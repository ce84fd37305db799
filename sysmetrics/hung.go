package main

import "time"

// hung records a mount that did not answer, so that later runs do not ask it
// until retry.
type hung struct {
	mount    mount         // only device, point and fstype, which identify it; a new mount there is asked at once
	retry    time.Duration // CLOCK_BOOTTIME at which it is asked again
	failures int
}

const (
	hungFirstRetry = 5 * time.Minute
	hungMaxRetry   = time.Hour
)

// again returns h after one more failure of m to answer. The mount is asked again
// after five minutes, then ten, and so on up to an hour.
func (h hung) again(m mount, now time.Duration) hung {
	wait := min(hungFirstRetry<<min(h.failures, 10), hungMaxRetry)
	return hung{mount: mount{device: m.device, point: m.point, fstype: m.fstype}, retry: now + wait, failures: h.failures + 1}
}

// waits reports whether it is too early to ask again. A wait of more than
// hungMaxRetry is not valid: the clock went back, as after a virtual machine was
// restored from a snapshot.
func (h hung) waits(now time.Duration) bool {
	return now < h.retry && h.retry-now <= hungMaxRetry
}

// same reports whether m is the mount that h records.
func (h hung) same(m mount) bool {
	return h.mount.device == m.device && h.mount.point == m.point && h.mount.fstype == m.fstype
}
