package eligibility

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"regexp"
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
	if s.kind != text || !s.bound || !decimal.MatchString(s.text) {
		return s, nil
	}
	i, err := strconv.ParseInt(s.text, 10, 64)
	if err != nil {
		return s, fmt.Errorf("%s is not from %d to %d", s, math.MinInt64, math.MaxInt64)
	}
	return scalar{kind: integer, bound: true, num: i}, nil
}

var decimal = regexp.MustCompile(`^-?[0-9]+$`)

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

// beside returns two scalars as they are compared with each other: a binding's string
// is an int beside a number and a timestamp beside one, and numbers that may have been
// rounded are only compared with a float of the filter's text.
func (s scalar) beside(o scalar) (_, _ scalar, err error) {
	switch {
	case s.kind == text && o.kind == instant:
		s, err = parseInstant(s.text)
	case s.kind == instant && o.kind == text:
		o, err = parseInstant(o.text)
	case s.kind == text && o.number():
		s, err = s.integer()
	case s.number() && o.kind == text:
		o, err = o.integer()
	}
	if err == nil && s.number() && o.number() {
		if o.kind == integer || o.bound {
			err = s.rounded()
		}
		if err == nil && (s.kind == integer || s.bound) {
			err = o.rounded()
		}
	}
	return s, o, err
}

// compare orders two scalars. Numbers mix, and a string can be a number or a timestamp;
// other kinds do not mix.
func (s scalar) compare(o scalar) (int, error) {
	s, o, err := s.beside(o)
	switch {
	case err != nil:
		return 0, err
	case s.kind == integer && o.kind == real:
		return -compareFloat(o.float, s.num), nil
	case s.kind == real && o.kind == integer:
		return compareFloat(s.float, o.num), nil
	case s.kind != o.kind:
		return 0, fmt.Errorf("%s cannot be compared with %s", s, o)
	case s.kind == real:
		return cmp.Compare(s.float, o.float), nil
	case s.kind == text:
		return strings.Compare(s.text, o.text), nil
	case s.kind == instant:
		return s.at.Compare(o.at), nil
	}
	return cmp.Compare(s.num, o.num), nil
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
