package eligibility

import (
	"context"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is all that decides, of a binding's value, whether a filter can be bound to it, but
// for the length of lists and for how two strings compare: "float", or of a list the kinds
// that are in it, "list of decimal, string", and "list" of an empty one. It says nothing
// else of the value.
type Kind string

// The kinds of values that are no lists.
const (
	KindBool    Kind = "bool"
	KindInt     Kind = "int"
	KindFloat   Kind = "float"   // between -2^53 and 2^53
	KindLarge   Kind = "large"   // a float beyond, to which an int may have been rounded
	KindString  Kind = "string"  // none of the next two
	KindDecimal Kind = "decimal" // a string that is an int64 in decimal digits
	KindTime    Kind = "time"    // a string that is a timestamp
	KindInstant Kind = "instant" // a timestamp
	KindOther   Kind = "other"   // what no filter can be bound to
)

// representatives has a value of each kind.
var representatives = map[Kind]any{
	KindBool: true, KindInt: int64(1), KindFloat: 0.5, KindLarge: float64(two53), KindString: "...", KindDecimal: "1",
	KindTime: "2000-01-01T00:00:00Z", KindInstant: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC), KindOther: nil,
}

// kindList is the kind of an empty list.
const kindList Kind = "list"

// The kind of another list is listOf and the kinds in it, with listBetween between them.
const (
	listOf      = "list of "
	listBetween = ", "
)

// KindOf returns the kind of a value that is no list.
func KindOf(value any) Kind {
	s, err := scalarOf(value)
	if err != nil {
		return KindOther
	}
	switch s.kind {
	case boolean:
		return KindBool
	case integer:
		return KindInt
	case instant:
		return KindInstant
	case real:
		if math.Abs(s.float) >= two53 {
			return KindLarge
		}
		return KindFloat
	}
	if isDecimal(s.text) {
		if _, err := strconv.ParseInt(s.text, 10, 64); err == nil {
			return KindDecimal
		}
		return KindString
	}
	// No other string is looked at for long: there may be many.
	if len(s.text) >= len(time.DateOnly) && s.text[4] == '-' {
		if _, err := parseInstant(s.text); err == nil {
			return KindTime
		}
	}
	return KindString
}

// KindOfList returns the kind of a list whose elements are of some kinds, of one as often as
// may be.
func KindOfList(elements ...Kind) Kind {
	if len(elements) == 0 {
		return kindList
	}
	elements = slices.Compact(slices.Sorted(slices.Values(elements)))
	words := make([]string, len(elements))
	for i, k := range elements {
		words[i] = string(k)
	}
	return Kind(listOf + strings.Join(words, listBetween))
}

// Known reports whether this build knows the kind: a later one may have more.
func (k Kind) Known() bool {
	_, ok := k.value()
	return ok
}

// value returns a value of a kind, and false of one that is not known.
func (k Kind) value() (any, bool) {
	if k == kindList {
		return []any{}, true
	}
	elements, isList := strings.CutPrefix(string(k), listOf)
	if !isList {
		v, ok := representatives[k]
		return v, ok
	}
	var list []any
	for word := range strings.SplitSeq(elements, listBetween) {
		v, ok := representatives[Kind(word)]
		if !ok {
			return nil, false
		}
		list = append(list, v)
	}
	return list, true
}

// BindKinds returns an error unless the filter can be bound to values of such kinds, which
// are known. It is a [*BindError], and what it says of a value is true of any of that kind;
// or the context's if that ends first.
func (f *Filter) BindKinds(ctx context.Context, kinds map[string]Kind) error {
	values := make(map[string]any, len(kinds))
	for name, k := range kinds {
		values[name], _ = k.value()
	}
	_, err := f.Bind(ctx, values)
	return err
}
