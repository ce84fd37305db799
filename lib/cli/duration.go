package cli

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"

	"github.com/alecthomas/kong"
)

// Age is a duration that has a unit and is not negative. The unit is d (24 hours),
// w, or one that [time.ParseDuration] accepts: 90d, 12w, 36h. Age is for deleting
// by age. A number without a unit is an error there, because a number of days must
// not be read as seconds.
type Age time.Duration

// UnmarshalText is called by kong to parse an age.
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
		err = strconv.ErrRange // the multiplication would overflow
	}
	return time.Duration(n) * length, err
}

// durations makes kong parse every [time.Duration] in the form of an [Age], or as a
// number of seconds.
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
