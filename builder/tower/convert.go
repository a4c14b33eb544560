package tower

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// maxTimeText is longer than any text of a time.
const maxTimeText = 64

// timeLayouts are the texts of times, with a T or a space before the time of day: RFC 3339,
// what Python and SQL engines write, and what has no zone.
var timeLayouts = []struct {
	layout string
	zoned  bool
}{
	{"2006-01-02T15:04:05Z07:00", true},
	{"2006-01-02T15:04:05Z0700", true},
	{"2006-01-02T15:04:05Z07", true},
	{"2006-01-02T15:04:05 MST", true}, // of UTC alone
	{"2006-01-02T15:04:05", false},
	{"2006-01-02", false},
}

// isDate reports whether the text of a time has no time of day.
func isDate(text string) bool { return len(text) == len(time.DateOnly) }

// parseTime parses a date, or a date and a time of day, with a zone or without, which is
// then UTC.
func parseTime(text string) (t time.Time, zoned, ok bool) {
	const day = len(time.DateOnly)
	if len(text) < day || len(text) > maxTimeText || text[4] != '-' || text[7] != '-' {
		return t, false, false
	}
	if !isDate(text) {
		if text[day] != 'T' && text[day] != ' ' || strings.Contains(text, ",") {
			return t, false, false
		}
		text = text[:day] + "T" + text[day+1:]
	}
	for _, l := range timeLayouts {
		if strings.HasSuffix(l.layout, "MST") != strings.HasSuffix(text, " UTC") {
			continue
		}
		if t, err := time.Parse(l.layout, text); err == nil {
			return t, l.zoned, true
		}
	}
	return t, false, false
}

// rangeError says what a type can hold.
type rangeError string

func (e rangeError) Error() string { return "want " + string(e) }

// parseValue returns the value of a type that the text of a scalar is, and whether it is a
// time without a zone. A number that the type cannot hold is a [rangeError].
func parseValue(t attribute.Type, text string) (v attribute.Value, unzoned bool, err error) {
	switch t {
	case attribute.Keyword:
		return attribute.OfKeyword(text), false, nil
	case attribute.Bool:
		switch strings.ToLower(text) {
		case "true":
			return attribute.OfBool(true), false, nil
		case "false":
			return attribute.OfBool(false), false, nil
		}
	case attribute.Int:
		i, ok := parseInt(text)
		if ok {
			return attribute.OfInt(i), false, nil
		}
		if digits(strings.TrimPrefix(text, "-")) {
			return v, false, rangeError("the int64 range")
		}
	case attribute.Float, attribute.Float32:
		return parseFloat(t, text)
	case attribute.Timestamp:
		if at, zoned, ok := parseTime(text); ok {
			return attribute.OfTimestamp(at), !zoned, nil
		}
	}
	return v, false, fmt.Errorf("want %v", t)
}

// digits reports whether a text has nothing else.
func digits(text string) bool { return text != "" && strings.Trim(text, "0123456789") == "" }

// parseInt parses an integer, which may be written as a float.
func parseInt(text string) (int64, bool) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, true
	}
	const exact = 1 << 53
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= exact {
		return 0, false
	}
	return int64(f), true
}

// parseFloat parses a finite float; NaN is absent. An integer is not rounded.
func parseFloat(t attribute.Type, text string) (v attribute.Value, unzoned bool, err error) {
	width := 64
	if t == attribute.Float32 {
		width = 32
	}
	if !holdsExactly(text, width) {
		return v, false, rangeError(fmt.Sprintf("an integer that float%d holds exactly", width))
	}
	f, err := strconv.ParseFloat(text, width)
	switch {
	case errors.Is(err, strconv.ErrRange) || math.IsInf(f, 0):
		return v, false, rangeError(fmt.Sprintf("a finite number of the float%d range", width))
	case err != nil:
		return v, false, fmt.Errorf("want %v", t)
	case t == attribute.Float32:
		return attribute.OfFloat32(float32(f)), false, nil
	}
	return attribute.OfFloat(f), false, nil
}

// storedTime returns a time as an attribute has it, and a note for the tally if that is
// not the same.
func storedTime(name string, t time.Time) (v attribute.Value, note string) {
	stored := attribute.ClampTime(t)
	if !stored.Equal(t) {
		note = "attribute " + name + ": %d timestamps are not of the years 1 to 9999 and are stored as the first or the last moment of those"
	}
	return attribute.OfTimestamp(stored), note
}
