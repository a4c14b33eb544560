package eligibility

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"cel.dev/cel-go/common/types"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// scalar is one constant of a filter or value of a binding.
type scalar struct {
	kind  scalarKind
	num   int64 // boolean (0 or 1), integer, instant (nanoseconds since the epoch)
	float float64
	text  string
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
	return "timestamp " + time.Unix(0, s.num).UTC().Format(time.RFC3339Nano)
}

func (s scalar) number() bool { return s.kind == integer || s.kind == real }

// scalarOf returns a binding's value.
func scalarOf(v any) (scalar, error) {
	switch v := v.(type) {
	case bool:
		return scalar{kind: boolean, num: int64(b2i(v))}, nil
	case int64:
		return scalar{kind: integer, num: v}, nil
	case float64:
		if math.IsNaN(v) {
			return scalar{}, errors.New("NaN is not accepted")
		}
		return scalar{kind: real, float: v}, nil
	case string:
		return scalar{kind: text, text: v}, nil
	case time.Time:
		return instantOf(v)
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

// instantOf returns a time as nanoseconds since the epoch, if they fit.
func instantOf(v time.Time) (scalar, error) {
	ns := v.UnixNano()
	if !time.Unix(0, ns).Equal(v) {
		return scalar{}, fmt.Errorf("timestamp %s is not between 1677-09-21 and 2262-04-11", v.UTC().Format(time.RFC3339Nano))
	}
	return scalar{kind: instant, num: ns}, nil
}

// parseInstant reads a timestamp as CEL's timestamp function does.
func parseInstant(s string) (scalar, error) {
	t, ok := types.String(s).ConvertToType(types.TimestampType).(types.Timestamp)
	if !ok {
		return scalar{}, fmt.Errorf("string %.40q is not an RFC 3339 timestamp such as \"2024-01-01T00:00:00Z\"", s)
	}
	return instantOf(t.Time)
}

// accepts names what an attribute of a type is compared with.
var accepts = [...]string{
	attribute.Keyword: "a string", attribute.KeywordList: "a string", attribute.Bool: "a bool",
	attribute.Int: "a number", attribute.Float: "a number", attribute.Timestamp: "a timestamp or an RFC 3339 string",
}

// convert returns a scalar as an attribute of type t is compared with it.
func (s scalar) convert(t attribute.Type) (scalar, bool, error) {
	switch t {
	case attribute.Keyword, attribute.KeywordList:
		return s, s.kind == text, nil
	case attribute.Bool:
		return s, s.kind == boolean, nil
	case attribute.Int, attribute.Float:
		return s, s.number(), nil
	}
	if s.kind == text {
		s, err := parseInstant(s.text)
		return s, err == nil, err
	}
	return s, s.kind == instant, nil
}

// compare orders two scalars. Numbers mix, and a string is a timestamp beside
// one; other kinds do not mix.
func (s scalar) compare(o scalar) (int, error) {
	var err error
	if s.kind == text && o.kind == instant {
		s, err = parseInstant(s.text)
	} else if s.kind == instant && o.kind == text {
		o, err = parseInstant(o.text)
	}
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

// stretch is a closed range of numbers.
type stretch[T int64 | float64] struct{ lo, hi T }

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
