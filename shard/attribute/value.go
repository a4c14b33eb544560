package attribute

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"
)

// Value is one attribute of one row. The zero Value is absent: the row does not
// have the attribute.
type Value struct {
	typ   Type
	nanos uint32 // of the second of a timestamp
	num   uint64 // bool, int64, the bits of a float64, or a timestamp's seconds since the Unix epoch
	text  string
	list  []string
}

// OfKeyword returns a keyword.
func OfKeyword(s string) Value { return Value{typ: Keyword, text: s} }

// OfKeywords returns a keyword list: list sorted, without repetitions. An empty
// list is an absent value. OfKeywords takes ownership of list.
func OfKeywords(list []string) Value {
	if len(list) == 0 {
		return Value{}
	}
	slices.Sort(list)
	return Value{typ: KeywordList, list: slices.Compact(list)}
}

// OfBool returns a bool.
func OfBool(b bool) Value {
	if b {
		return Value{typ: Bool, num: 1}
	}
	return Value{typ: Bool}
}

// OfInt returns an int.
func OfInt(i int64) Value { return Value{typ: Int, num: uint64(i)} }

// OfFloat returns a float. NaN is an absent value, as data frames use it.
// Negative zero becomes zero, so that equal values are stored equal.
func OfFloat(f float64) Value {
	if math.IsNaN(f) {
		return Value{}
	}
	return Value{typ: Float, num: math.Float64bits(f + 0)}
}

// OfFloat32 returns a float32. NaN is an absent value and negative zero becomes zero,
// as in [OfFloat].
func OfFloat32(f float32) Value {
	v := OfFloat(float64(f))
	if !v.Absent() {
		v.typ = Float32
	}
	return v
}

// OfTimestamp returns a timestamp.
func OfTimestamp(t time.Time) Value {
	return Value{typ: Timestamp, num: uint64(t.Unix()), nanos: uint32(t.Nanosecond())}
}

// ClampTime returns t in UTC, or what is nearest to it of the times that an attribute
// can have: those of the years 1 to 9999, as RFC 3339 has them.
func ClampTime(t time.Time) time.Time {
	first, last := time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC)
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	}
	return t.UTC()
}

// Absent reports whether the row does not have the attribute.
func (v Value) Absent() bool { return v.typ == 0 }

// Type returns the value's type, 0 when it is absent.
func (v Value) Type() Type { return v.typ }

// Keyword returns the string of a keyword.
func (v Value) Keyword() string { return v.text }

// Keywords returns the strings of a keyword list, ascending. The caller must not
// change them.
func (v Value) Keywords() []string { return v.list }

// Bool returns the truth of a bool.
func (v Value) Bool() bool { return v.num != 0 }

// Int returns the number of an int.
func (v Value) Int() int64 { return int64(v.num) }

// Float returns the number of a float. Of a float32 it is what the number is written
// as, the float64 nearest to the shortest decimal that no other float32 is nearer to:
// 9.99, not 9.989999771118164.
func (v Value) Float() float64 {
	f := math.Float64frombits(v.num)
	if v.typ != Float32 || f == math.Trunc(f) && math.Abs(f) < 1<<24 {
		return f // the usual whole number needs no decimals
	}
	f, _ = strconv.ParseFloat(strconv.FormatFloat(f, 'g', -1, 32), 64) // it parses what it formats
	return f
}

// Float32 returns the number of a float32.
func (v Value) Float32() float32 { return float32(math.Float64frombits(v.num)) }

// Time returns the time of a timestamp, in UTC.
func (v Value) Time() time.Time { return time.Unix(int64(v.num), int64(v.nanos)).UTC() }

// Equal reports whether both values are absent, or of one type and equal.
func (v Value) Equal(o Value) bool {
	return v.typ == o.typ && v.num == o.num && v.nanos == o.nanos && v.text == o.text && slices.Equal(v.list, o.list)
}

// String formats the value for messages and tables.
func (v Value) String() string {
	switch v.typ {
	case Keyword:
		return v.text
	case KeywordList:
		return fmt.Sprintf("%q", v.list)
	case Bool:
		return fmt.Sprint(v.Bool())
	case Int:
		return fmt.Sprint(v.Int())
	case Float, Float32:
		return fmt.Sprint(v.Float())
	case Timestamp:
		return v.Time().Format(time.RFC3339Nano)
	}
	return "absent"
}

// compareNumbers orders two numbers as a column of that type has them.
func compareNumbers(t Type, a, b uint64) int {
	if t == Float || t == Float32 {
		return cmp.Compare(math.Float64frombits(a), math.Float64frombits(b))
	}
	return cmp.Compare(int64(a), int64(b))
}
