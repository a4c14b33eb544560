package eligibility

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// scalar is one constant of a filter or value of a binding.
type scalar struct {
	kind  scalarKind
	bound bool  // it is of a binding
	num   int64 // boolean (0 or 1), integer
	float float64
	text  string
	at    time.Time // instant
}

type scalarKind uint8

const (
	boolean scalarKind = iota + 1
	integer
	real
	text
	instant
)

// String names the scalar in a message.
func (s scalar) String() string {
	switch s.kind {
	case boolean:
		return fmt.Sprintf("bool %t", s.num != 0)
	case integer:
		return fmt.Sprintf("int %d", s.num)
	case real:
		return fmt.Sprintf("float %v", s.float)
	case text:
		return fmt.Sprintf("string %.40q", s.text)
	}
	return "timestamp " + s.at.UTC().Format(time.RFC3339Nano)
}

func (s scalar) number() bool { return s.kind == integer || s.kind == real }

// scalarOf returns a binding's value.
func scalarOf(v any) (scalar, error) {
	switch v := v.(type) {
	case bool:
		return scalar{kind: boolean, bound: true, num: int64(b2i(v))}, nil
	case int64:
		return scalar{kind: integer, bound: true, num: v}, nil
	case float64:
		if math.IsNaN(v) {
			return scalar{}, errors.New("NaN is not accepted")
		}
		return scalar{kind: real, bound: true, float: v}, nil
	case string:
		return scalar{kind: text, bound: true, text: v}, nil
	case time.Time:
		return scalar{kind: instant, bound: true, at: v}, nil
	}
	what := fmt.Sprintf("a %T", v)
	switch v.(type) {
	case nil:
		what = "null"
	case []any:
		what = "a list in a list"
	case map[string]any:
		what = "an object"
	}
	return scalar{}, fmt.Errorf("%s is not accepted: want a bool, a number, a string, a timestamp or a list of them", what)
}

// any returns what scalarOf was given.
func (s scalar) any() any {
	switch s.kind {
	case boolean:
		return s.num != 0
	case integer:
		return s.num
	case real:
		return s.float
	case text:
		return s.text
	}
	return s.at
}

// parseInstant reads a timestamp: RFC 3339, of any year that it can write.
func parseInstant(s string) (scalar, error) {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		return scalar{}, fmt.Errorf("string %.40q is not an RFC 3339 timestamp such as \"2024-01-01T00:00:00Z\"", s)
	}
	return scalar{kind: instant, at: t}, nil
}

// integer returns the int that a binding's string says, for what a number of JSON
// cannot: it is a double, which does not have each int from 2^53 on. Other strings are
// returned as they are.
func (s scalar) integer() (scalar, error) {
	if s.kind != text || !s.bound || !isDecimal(s.text) {
		return s, nil
	}
	i, err := strconv.ParseInt(s.text, 10, 64)
	if err != nil {
		return s, fmt.Errorf("%s is not from %d to %d", s, math.MinInt64, math.MaxInt64)
	}
	return scalar{kind: integer, bound: true, num: i}, nil
}

// isDecimal reports whether a text is an int of any size, in decimal digits.
func isDecimal(s string) bool {
	digits := strings.TrimPrefix(s, "-")
	for _, c := range []byte(digits) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return digits != ""
}

// compareDecimals orders two texts that are decimal by their ints.
func compareDecimals(a, b string) int {
	x, xNegative := magnitude(a)
	y, yNegative := magnitude(b)
	if xNegative != yNegative {
		return cmp.Compare(b2i(yNegative), b2i(xNegative))
	}
	order := cmp.Or(cmp.Compare(len(x), len(y)), strings.Compare(x, y))
	if xNegative {
		return -order
	}
	return order
}

// magnitude returns the digits of a decimal text without those that say nothing, none for
// 0, and whether it is below 0.
func magnitude(s string) (digits string, negative bool) {
	digits, negative = strings.CutPrefix(s, "-")
	digits = strings.TrimLeft(digits, "0")
	return digits, negative && digits != ""
}

// two53 is the least double that more than one int may have become.
const two53 = 1 << 53

// rounded returns an error if the scalar is a binding's number that an int may have
// been rounded to.
func (s scalar) rounded() error {
	if s.kind != real || !s.bound || math.Abs(s.float) < two53 {
		return nil
	}
	return fmt.Errorf("%s is not between -2^53 and 2^53, so an int may have been rounded to it: want a decimal string, such as \"9007199254740993\"", s)
}

// accepts names what an attribute of a type is compared with.
var accepts = [...]string{
	attribute.Keyword: "a string", attribute.KeywordList: "a string", attribute.Bool: "a bool",
	attribute.Int: aNumber, attribute.Float: aNumber, attribute.Float32: aNumber,
	attribute.Timestamp: "a timestamp or an RFC 3339 string",
}

const aNumber = "a number"

// kindError says that a scalar is of a kind that is not compared with what it stands
// beside.
type kindError struct{ s scalar }

func (e *kindError) Error() string { return fmt.Sprintf("%s is not accepted here", e.s) }

// convert returns a scalar as an attribute of type t is compared with it. An error may
// be a [*kindError].
func (s scalar) convert(t attribute.Type) (scalar, error) {
	var err error
	ok := false
	switch t {
	case attribute.Keyword, attribute.KeywordList:
		ok = s.kind == text
	case attribute.Bool:
		ok = s.kind == boolean
	case attribute.Int:
		if err = s.rounded(); err == nil {
			s, err = s.integer()
		}
		ok = s.number()
	case attribute.Float:
		s, err = s.integer()
		ok = s.number()
	case attribute.Float32:
		s, err = s.integer()
		if ok = s.number(); ok {
			s = s.single()
		}
	case attribute.Timestamp:
		if s.kind == text {
			s, err = parseInstant(s.text)
		}
		ok = s.kind == instant
	}
	if err == nil && !ok {
		err = &kindError{s}
	}
	return s, err
}

// single returns the float32 that is nearest to a number, of two the even one.
func (s scalar) single() scalar {
	f := float32(s.float)
	if s.kind == integer {
		f = float32(s.num)
	}
	return scalar{kind: real, bound: s.bound, float: float64(f)}
}

// sideError is an error about one of two scalars that are compared.
type sideError struct {
	error
	right bool // it is about the right one
}

// Unwrap returns the error.
func (e *sideError) Unwrap() error { return e.error }

// beside returns a scalar as it is compared with o: a binding's string is an int beside a
// number, and a string is a timestamp beside one.
func (s scalar) beside(o scalar) (scalar, error) {
	switch {
	case s.kind == text && o.kind == instant:
		return parseInstant(s.text)
	case s.kind == text && o.number():
		return s.integer()
	}
	return s, nil
}

// exactBeside returns an error if a number may have been rounded from an int, and is
// compared with another that tells ints apart: any but a float of the filter's text.
func (s scalar) exactBeside(o scalar) error {
	if o.number() && (o.kind == integer || o.bound) {
		return s.rounded()
	}
	return nil
}

// compare orders two scalars. Numbers mix, and a string can be a number or a timestamp;
// other kinds do not mix. An error about one of them is a [*sideError].
func (s scalar) compare(o scalar) (int, error) {
	left, err := s.beside(o)
	if err != nil {
		return 0, &sideError{err, false}
	}
	right, err := o.beside(s)
	if err != nil {
		return 0, &sideError{err, true}
	}
	if err := left.exactBeside(right); err != nil {
		return 0, &sideError{err, false}
	}
	if err := right.exactBeside(left); err != nil {
		return 0, &sideError{err, true}
	}
	switch {
	case left.kind == integer && right.kind == real:
		return -compareFloat(right.float, left.num), nil
	case left.kind == real && right.kind == integer:
		return compareFloat(left.float, right.num), nil
	case left.kind != right.kind:
		return 0, fmt.Errorf("%s cannot be compared with %s", left, right)
	case left.kind == real:
		return cmp.Compare(left.float, right.float), nil
	case left.kind == text:
		return strings.Compare(left.text, right.text), nil
	case left.kind == instant:
		return left.at.Compare(right.at), nil
	}
	return cmp.Compare(left.num, right.num), nil
}

// ambiguous returns an error if two strings of bindings compare one way as strings and
// another way as what both may stand for: nothing beside them says which they are.
func (s scalar) ambiguous(op comparison, o scalar) error {
	if s.kind != text || o.kind != text || !s.bound || !o.bound {
		return nil
	}
	asTexts := op.holds(strings.Compare(s.text, o.text))
	if isDecimal(s.text) && isDecimal(o.text) {
		if op.holds(compareDecimals(s.text, o.text)) != asTexts {
			return fmt.Errorf("%s and %s compare in one way as strings and in another as ints, and both are bindings, so nothing says which they are: "+
				"want a number for one of them, or one binding with the outcome, a bool", s, o)
		}
		return nil
	}
	a, aErr := parseInstant(s.text)
	b, bErr := parseInstant(o.text)
	if aErr == nil && bErr == nil && op.holds(a.at.Compare(b.at)) != asTexts {
		return fmt.Errorf("%s and %s compare in one way as strings and in another as timestamps, and both are bindings, so nothing says which they are: "+
			"want both with the same offset and as many digits, or one binding with the outcome, a bool", s, o)
	}
	return nil
}

// holds reports whether the comparison is true of a left side that compares so
// with the right one.
func (c comparison) holds(order int) bool {
	switch c {
	case equal:
		return order == 0
	case notEqual:
		return order != 0
	case less:
		return order < 0
	case lessEqual:
		return order <= 0
	case greater:
		return order > 0
	}
	return order >= 0
}

// two63 is one more than the largest int64.
const two63 = 1 << 63

// compareFloat compares a float that is not NaN with an int, exactly.
func compareFloat(f float64, i int64) int {
	switch {
	case f >= two63:
		return 1
	case f < -two63:
		return -1
	}
	whole := math.Floor(f)
	if order := cmp.Compare(int64(whole), i); order != 0 || f == whole {
		return order
	}
	return 1 // f is between i and i + 1
}

// stretch is a closed range of numbers or times.
type stretch[T int64 | float64 | time.Time] struct{ lo, hi T }

// intsThat returns the ints for which: int c s. The comparison is not notEqual.
func intsThat(c comparison, s scalar) (stretch[int64], bool) {
	all := stretch[int64]{math.MinInt64, math.MaxInt64}
	lo, hi, exact := s.num, s.num, true // the ints at or around s
	if s.kind == real {
		switch {
		case s.float >= two63: // above every int
			return all, c == less || c == lessEqual
		case s.float < -two63:
			return all, c == greater || c == greaterEqual
		}
		hi = int64(math.Floor(s.float))
		lo, exact = hi, s.float == math.Floor(s.float)
		if !exact {
			lo++ // no overflow: a float with a fraction is below 2^53
		}
	}
	switch c {
	case less:
		if exact {
			if hi == math.MinInt64 {
				return all, false
			}
			hi--
		}
		return stretch[int64]{all.lo, hi}, true
	case lessEqual:
		return stretch[int64]{all.lo, hi}, true
	case greater:
		if exact {
			if lo == math.MaxInt64 {
				return all, false
			}
			lo++
		}
		return stretch[int64]{lo, all.hi}, true
	case greaterEqual:
		return stretch[int64]{lo, all.hi}, true
	}
	return stretch[int64]{lo, hi}, exact
}

// timesThat returns the timestamps for which: timestamp c s. The comparison is not
// notEqual.
func timesThat(c comparison, s scalar) stretch[time.Time] {
	// Before and after every timestamp that an attribute can have.
	first, last := time.Unix(-1<<40, 0), time.Unix(1<<40, 0)
	switch c {
	case less:
		return stretch[time.Time]{first, s.at.Add(-1)}
	case lessEqual:
		return stretch[time.Time]{first, s.at}
	case greater:
		return stretch[time.Time]{s.at.Add(1), last}
	case greaterEqual:
		return stretch[time.Time]{s.at, last}
	}
	return stretch[time.Time]{s.at, s.at}
}

// floatsThat returns the finite floats for which: float c s. The comparison is
// not notEqual.
func floatsThat(c comparison, s scalar) (stretch[float64], bool) {
	down, up := math.Inf(-1), math.Inf(1)
	lo, hi, exact := s.float, s.float, true // the floats at or around s
	if s.kind == integer {
		lo = float64(s.num)
		hi = lo
		switch order := compareFloat(lo, s.num); {
		case order < 0:
			lo, exact = math.Nextafter(lo, up), false
		case order > 0:
			hi, exact = math.Nextafter(hi, down), false
		}
	}
	switch c {
	case less:
		if exact {
			hi = math.Nextafter(hi, down)
		}
		return stretch[float64]{down, hi}, true
	case lessEqual:
		return stretch[float64]{down, hi}, true
	case greater:
		if exact {
			lo = math.Nextafter(lo, up)
		}
		return stretch[float64]{lo, up}, true
	case greaterEqual:
		return stretch[float64]{lo, up}, true
	}
	return stretch[float64]{lo, hi}, exact
}
