package cli

import (
	"fmt"
	"math"
	"strconv"
	"time"
)

// Age is a duration that may also be given in days of 24 hours, or in weeks:
// 90d, 12w, or what [time.ParseDuration] knows. It is not negative.
type Age time.Duration

// UnmarshalText is how kong parses one.
func (a *Age) UnmarshalText(text []byte) error {
	s := string(text)
	var d time.Duration
	var err error
	if number, unit := s[:max(len(s)-1, 0)], s[max(len(s)-1, 0):]; unit == "d" || unit == "w" {
		var n uint64
		length := 24 * time.Hour
		if unit == "w" {
			length *= 7
		}
		if n, err = strconv.ParseUint(number, 10, 16); err == nil && n > uint64(math.MaxInt64/length) {
			err = strconv.ErrRange // it would wrap around
		}
		d = time.Duration(n) * length
	} else {
		d, err = time.ParseDuration(s)
	}
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not an age such as 90d, 12w or 36h", s)
	}
	*a = Age(d)
	return nil
}
