package cli

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// Age is a duration that must have a unit, and is not negative: days of 24 hours
// or weeks, 90d or 12w, or what [time.ParseDuration] knows. It is for what is
// deleted by age, where a number that was meant as days must not be seconds.
type Age time.Duration

// UnmarshalText is how kong parses one.
func (a *Age) UnmarshalText(text []byte) error {
	d, err := parseDuration(string(text))
	if err != nil || d < 0 {
		return fmt.Errorf("%q is not an age such as 90d, 12w or 36h", text)
	}
	*a = Age(d)
	return nil
}

func parseDuration(s string) (time.Duration, error) {
	number, unit := s[:max(len(s)-1, 0)], s[max(len(s)-1, 0):]
	if unit != "d" && unit != "w" {
		return time.ParseDuration(s)
	}
	length := 24 * time.Hour
	if unit == "w" {
		length *= 7
	}
	n, err := strconv.ParseUint(number, 10, 16)
	if err == nil && n > uint64(math.MaxInt64/length) {
		err = strconv.ErrRange // it would wrap around
	}
	return time.Duration(n) * length, err
}

// durations is how kong parses every [time.Duration]: as an [Age], or as a number
// of seconds.
var durations = kong.TypeMapper(reflect.TypeFor[time.Duration](), kong.MapperFunc(func(ctx *kong.DecodeContext, target reflect.Value) error {
	var s string
	if err := ctx.Scan.PopValueInto("duration", &s); err != nil {
		return err
	}
	d, err := parseDuration(s)
	if _, number := strconv.ParseFloat(s, 64); err != nil && number == nil {
		d, err = time.ParseDuration(s + "s")
	}
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 90s, 26h, 8d or a number of seconds", s)
	}
	target.SetInt(int64(d))
	return nil
}))
