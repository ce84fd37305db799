// Package moment converts the timestamp of a document into text for a timestamptz
// column, or refuses it. [Append] accepts every BSON type, [Parse] accepts a text.
// [Readable] reports which other texts PostgreSQL may parse.
package moment

import (
	"encoding/binary"
	"math"
	"strconv"
	"strings"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"

	"observability-hub/readsync/internal/extjson"
	"observability-hub/readsync/internal/rawbson"
)

// The first moment of timestamptz, and the first moment after its range, in seconds
// since 1970: 4714-11-24 BC and 294277-01-01. In microseconds they would overflow.
const (
	firstMoment = -210866803200
	pastMoment  = 9224318016000
)

// Numbers below maxSeconds are seconds, up to the year 5138. Numbers below maxMillis are
// milliseconds, from 1973 to 9999. Larger numbers are refused.
const (
	maxSeconds = 1e11
	maxMillis  = 253402300800000
)

// Append appends a document's timestamp as text that timestamptz accepts.
func Append(dst []byte, v rawbson.Value) ([]byte, error) {
	outside := &extjson.Refusal{Reason: "timestamp_out_of_range"}
	number := 0.0
	switch v.Kind {
	case bson.TypeDateTime:
		return appendTime(dst, time.UnixMilli(int64(binary.LittleEndian.Uint64(v.Data))))
	case bson.TypeTimestamp:
		return appendTime(dst, time.Unix(int64(binary.LittleEndian.Uint64(v.Data)>>32), 0))
	case bson.TypeString:
		return Parse(dst, v.Text())
	case bson.TypeInt32:
		number = float64(int32(binary.LittleEndian.Uint32(v.Data)))
	case bson.TypeInt64:
		number = float64(int64(binary.LittleEndian.Uint64(v.Data)))
	case bson.TypeDouble:
		number = math.Float64frombits(binary.LittleEndian.Uint64(v.Data))
	case bson.TypeDecimal128:
		var err error
		if number, err = strconv.ParseFloat(v.Decimal().String(), 64); err != nil {
			return dst, outside
		}
	default:
		return dst, &extjson.Refusal{Reason: "bad_timestamp"}
	}
	switch size := math.Abs(number); {
	case size < maxSeconds:
		return appendTime(dst, time.UnixMicro(micros(number, 1e6)))
	case size < maxMillis:
		return appendTime(dst, time.UnixMicro(micros(number, 1e3)))
	}
	return dst, outside // NaN and the infinities too
}

// micros converts a number of units of n microseconds into microseconds. It does not
// multiply floats, because that would be wrong by some microseconds after the year 4253.
func micros(number float64, n int64) int64 {
	whole, fraction := math.Modf(number)
	return int64(whole)*n + int64(math.Round(fraction*float64(n)))
}

// appendTime appends a time in PostgreSQL's format. For the years 1 to 9999 that is RFC
// 3339.
func appendTime(dst []byte, t time.Time) ([]byte, error) {
	t = t.UTC()
	if s := t.Unix(); s < firstMoment || s >= pastMoment {
		return dst, &extjson.Refusal{Reason: "timestamp_out_of_range"}
	}
	if y := t.Year(); y <= 0 {
		// Go's year 0 is 1 BC. Only the number is replaced, because the date may be a leap
		// day.
		year := strconv.Itoa(1 - y)
		for range 4 - len(year) {
			dst = append(dst, '0')
		}
		dst = t.AppendFormat(append(dst, year...), "-01-02T15:04:05.999999Z")
		return append(dst, " BC"...), nil
	}
	return t.AppendFormat(dst, time.RFC3339Nano), nil // has at most microseconds; this layout is much faster than others
}

// Parse parses RFC 3339 in a wide sense. It also accepts a date alone, a time without
// seconds, a blank instead of the T or before the zone, a time without a zone, which
// means UTC, and the format of appendTime.
func Parse(dst, text []byte) ([]byte, error) {
	bad := &extjson.Refusal{Reason: "bad_timestamp"}
	s := text
	number := func(from, to int) (n int) {
		digits := 0
		for ; digits < len(s) && digits < to && s[digits] >= '0' && s[digits] <= '9'; digits++ {
			n = n*10 + int(s[digits]-'0')
		}
		if digits < from {
			return -1
		}
		s = s[digits:]
		return n
	}
	skip := func(any string) bool {
		for _, c := range []byte(any) {
			if len(s) > 0 && s[0] == c {
				s = s[1:]
				return true
			}
		}
		return false
	}
	year := number(4, 6)
	ok := year >= 0 && skip("-")
	month := number(2, 2)
	ok = ok && skip("-")
	day := number(2, 2)
	hour, minute, second := 0, 0, 0
	dateOnly := len(s) == 0
	if !dateOnly {
		ok = ok && skip("Tt ")
		hour = number(2, 2)
		ok = ok && skip(":")
		minute = number(2, 2)
	}
	withSeconds := !dateOnly && skip(":")
	if withSeconds {
		second = number(2, 2)
	}
	if !ok || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour < 0 || hour > 23 ||
		minute < 0 || minute > 59 || second < 0 || second > 60 {
		return dst, bad
	}
	nanos := 0
	if withSeconds && skip(".,") {
		digits := 0
		for ; digits < len(s) && s[digits] >= '0' && s[digits] <= '9'; digits++ {
			if digits < 9 {
				nanos = nanos*10 + int(s[digits]-'0')
			}
		}
		if digits == 0 {
			return dst, bad
		}
		for range 9 - digits {
			nanos *= 10
		}
		s = s[digits:]
	}
	if len(s) > 1 && s[0] == ' ' && strings.IndexByte("+-Zz", s[1]) >= 0 {
		s = s[1:]
	}
	offset := 0
	if !skip("Zz") && len(s) > 0 && (s[0] == '+' || s[0] == '-') {
		sign := 1
		if s[0] == '-' {
			sign = -1
		}
		s = s[1:]
		hours := number(2, 2)
		skip(":")
		minutes := 0
		if len(s) > 0 && s[0] != ' ' {
			minutes = number(2, 2)
		}
		if hours < 0 || hours > 23 || minutes < 0 || minutes > 59 {
			return dst, bad
		}
		offset = sign * (hours*3600 + minutes*60)
	}
	bc := string(s) == " BC"
	switch {
	case len(s) > 0 && !bc:
		return dst, bad
	case year == 0:
		return dst, &extjson.Refusal{Reason: "timestamp_out_of_range"}
	case bc:
		year = 1 - year
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC).Round(time.Microsecond)
	return appendTime(dst, t.Add(-time.Duration(offset)*time.Second))
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}

// Readable reports whether PostgreSQL may parse a text that [Parse] does not accept. It
// returns false for texts that do not plainly mean one moment: words such as now or
// infinity, numbers other than a date of eight digits, texts without a year of four
// digits, and offsets after a name (GMT+0100), which PostgreSQL reads with the opposite
// of the usual sign.
func Readable(text []byte) bool {
	if _, err := strconv.ParseFloat(string(text), 64); len(text) > 100 || err == nil && len(text) != len("20060102") {
		return false
	}
	year := false
	for i := 0; i < len(text); {
		start := i
		for i < len(text) && text[i] >= '0' && text[i] <= '9' {
			i++
		}
		if n := i - start; n > 0 {
			year = year || n == len("2006") || n == len("20060102")
			continue
		}
		for i < len(text) && (text[i]|0x20 >= 'a' && text[i]|0x20 <= 'z') {
			i++
		}
		word := strings.ToLower(string(text[start:i]))
		switch word {
		case "now", "today", "tomorrow", "yesterday", "epoch", "infinity", "allballs":
			return false
		case "":
			if text[i] < ' ' || text[i] > '~' {
				return false
			}
			i++
			continue
		}
		if i+1 < len(text) && (text[i] == '+' || text[i] == '-') && text[i+1] >= '0' && text[i+1] <= '9' && word != "t" && !month(word) {
			return false
		}
	}
	return year
}

// month reports whether a word begins like the English name of a month.
func month(word string) bool {
	return len(word) >= 3 && strings.Contains("jan feb mar apr may jun jul aug sep oct nov dec", word[:3])
}
