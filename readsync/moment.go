package main

import (
	"encoding/binary"
	"math"
	"strconv"
	"time"

	"go.mongodb.org/mongo-driver/v2/bson"
)

// The first moment of timestamptz, and the one behind the last, in seconds since
// 1970: 4714-11-24 BC and 294277-01-01. In microseconds they overflow.
const (
	firstMoment = -210866803200
	pastMoment  = 9224318016000
)

// Numbers up to this size are seconds, to the year 5138; larger ones are
// milliseconds, from 1973 to 9999. Beyond that they are neither.
const (
	maxSeconds = 1e11
	maxMillis  = 253402300800000
)

// appendMoment appends a document's timestamp as timestamptz reads it.
func appendMoment(dst []byte, v value) ([]byte, error) {
	outside := &refusal{reason: "timestamp_out_of_range"}
	number := 0.0
	switch v.kind {
	case bson.TypeDateTime:
		return appendTime(dst, time.UnixMilli(int64(binary.LittleEndian.Uint64(v.data))))
	case bson.TypeTimestamp:
		return appendTime(dst, time.Unix(int64(binary.LittleEndian.Uint64(v.data)>>32), 0))
	case bson.TypeString:
		return parseMoment(dst, v.text())
	case bson.TypeInt32:
		number = float64(int32(binary.LittleEndian.Uint32(v.data)))
	case bson.TypeInt64:
		number = float64(int64(binary.LittleEndian.Uint64(v.data)))
	case bson.TypeDouble:
		number = math.Float64frombits(binary.LittleEndian.Uint64(v.data))
	case bson.TypeDecimal128:
		var err error
		if number, err = strconv.ParseFloat(decimal(v).String(), 64); err != nil {
			return dst, outside
		}
	default:
		return dst, &refusal{reason: "bad_timestamp"}
	}
	switch size := math.Abs(number); {
	case size < maxSeconds:
		return appendTime(dst, time.UnixMicro(micros(number, 1e6)))
	case size < maxMillis:
		return appendTime(dst, time.UnixMicro(micros(number, 1e3)))
	}
	return dst, outside // NaN and the infinities too
}

// micros is a number in units of which one is n microseconds. A product of floats
// would be wrong by some microseconds after the year 4253.
func micros(number float64, n int64) int64 {
	whole, fraction := math.Modf(number)
	return int64(whole)*n + int64(math.Round(fraction*float64(n)))
}

// appendTime appends a time in the words of PostgreSQL, which are RFC 3339's in
// the years from 1 to 9999.
func appendTime(dst []byte, t time.Time) ([]byte, error) {
	t = t.UTC()
	if s := t.Unix(); s < firstMoment || s >= pastMoment {
		return dst, &refusal{reason: "timestamp_out_of_range"}
	}
	if y := t.Year(); y <= 0 {
		// There is no year 0: it is 1 BC. Leap years must stay what they are, so
		// only the number is changed.
		year := strconv.Itoa(1 - y)
		for range 4 - len(year) {
			dst = append(dst, '0')
		}
		dst = t.AppendFormat(append(dst, year...), "-01-02T15:04:05.999999Z")
		return append(dst, " BC"...), nil
	}
	return t.AppendFormat(dst, "2006-01-02T15:04:05.999999Z"), nil
}

// parseMoment reads RFC 3339 in a wide sense: a blank for the T, and no zone,
// which means UTC, are taken too; so is what appendTime writes.
func parseMoment(dst, text []byte) ([]byte, error) {
	bad := &refusal{reason: "bad_timestamp"}
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
	ok = ok && skip("Tt ")
	hour := number(2, 2)
	ok = ok && skip(":")
	minute := number(2, 2)
	ok = ok && skip(":")
	second := number(2, 2)
	if !ok || month < 1 || month > 12 || day < 1 || day > daysIn(year, month) || hour < 0 || hour > 23 ||
		minute < 0 || minute > 59 || second < 0 || second > 60 {
		return dst, bad
	}
	nanos := 0
	if skip(".,") {
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
		return dst, &refusal{reason: "timestamp_out_of_range"}
	case bc:
		year = 1 - year
	}
	t := time.Date(year, time.Month(month), day, hour, minute, second, nanos, time.UTC).Round(time.Microsecond)
	return appendTime(dst, t.Add(-time.Duration(offset)*time.Second))
}

func daysIn(year, month int) int {
	return time.Date(year, time.Month(month)+1, 0, 0, 0, 0, 0, time.UTC).Day()
}
