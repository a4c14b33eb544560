package attribute

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// Value is one attribute of one row. The zero Value is absent: the row does not
// have the attribute.
type Value struct {
	typ  Type
	num  uint64 // bool, int64 or float64 bits
	text string
	list []string
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

// OfTimestamp returns a timestamp, in nanoseconds since the Unix epoch.
func OfTimestamp(ns int64) Value { return Value{typ: Timestamp, num: uint64(ns)} }

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

// Int returns the number of an int, or the nanoseconds of a timestamp.
func (v Value) Int() int64 { return int64(v.num) }

// Float returns the number of a float.
func (v Value) Float() float64 { return math.Float64frombits(v.num) }

// Time returns the instant of a timestamp, in UTC.
func (v Value) Time() time.Time { return time.Unix(0, int64(v.num)).UTC() }

// Equal reports whether both values are absent, or of one type and equal.
func (v Value) Equal(o Value) bool {
	return v.typ == o.typ && v.num == o.num && v.text == o.text && slices.Equal(v.list, o.list)
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
	case Float:
		return fmt.Sprint(v.Float())
	case Timestamp:
		return v.Time().Format(time.RFC3339Nano)
	}
	return "absent"
}

// compareNumbers orders two values of one numeric type (bool, int, float,
// timestamp).
func compareNumbers(t Type, a, b uint64) int {
	if t == Float {
		return cmp.Compare(math.Float64frombits(a), math.Float64frombits(b))
	}
	return cmp.Compare(int64(a), int64(b))
}
