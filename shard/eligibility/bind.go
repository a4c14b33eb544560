package eligibility

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// value is a binding's value.
type value struct {
	list bool
	all  []scalar // one if it is no list
}

func valueOf(v any) (value, error) {
	list, ok := v.([]any)
	if !ok {
		s, err := scalarOf(v)
		return value{all: []scalar{s}}, err
	}
	all := make([]scalar, len(list))
	for i, item := range list {
		var err error
		if all[i], err = scalarOf(item); err != nil {
			return value{}, fmt.Errorf("element %d: %w", i, err)
		}
	}
	return value{list: true, all: all}, nil
}

// binder makes a plan of a condition. Without values it only knows constants: a
// test that needs a binding then has no plan, but what it compares is checked.
type binder struct {
	schema attribute.Schema
	names  []string
	values []value
}

// plan is a condition with its operands in place. It is immutable.
type plan struct {
	kind nodeKind
	kids []*plan
	leaf leaf
}

// leaf asks for the ordinals that are in any of its sets.
type leaf struct {
	kind   leafKind
	field  int
	texts  []string
	ints   []stretch[int64]
	floats []stretch[float64]
}

type leafKind uint8

const (
	leafNone leafKind = iota
	leafHas
	leafTrue
	leafFalse
	leafKeywords // equal to one of texts
	leafPrefix   // starts with texts[0]
	leafBelow    // less than texts[0]
	leafFrom     // texts[0] or greater
	leafInts
	leafFloats
)

var (
	planNone = &plan{kind: isNone}
	planAll  = &plan{kind: isAll}
)

func constant(b bool) *plan {
	if b {
		return planAll
	}
	return planNone
}

// plan makes the plan of a condition and drops what cannot change it.
func (b *binder) plan(n *node) (*plan, error) {
	switch n.kind {
	case isNone, isAll:
		return constant(n.kind == isAll), nil
	case isTest:
		return b.test(n.test)
	case isNot:
		kid, err := b.plan(n.kids[0])
		if err != nil {
			return nil, err
		}
		return not(kid), nil
	}
	kids := make([]*plan, 0, len(n.kids))
	for _, k := range n.kids {
		kid, err := b.plan(k)
		if err != nil {
			return nil, err
		}
		kids = append(kids, kid)
	}
	return join(n.kind, kids), nil
}

// join returns the and or the or of kids, which it takes over.
func join(kind nodeKind, kids []*plan) *plan {
	neutral, decisive := isAll, isNone
	if kind == isOr {
		neutral, decisive = isNone, isAll
	}
	if slices.ContainsFunc(kids, func(p *plan) bool { return p.kind == decisive }) {
		return constant(decisive == isAll)
	}
	kids = slices.DeleteFunc(kids, func(p *plan) bool { return p.kind == neutral })
	switch len(kids) {
	case 0:
		return constant(neutral == isAll)
	case 1:
		return kids[0]
	}
	return &plan{kind: kind, kids: kids}
}

func not(p *plan) *plan {
	switch p.kind {
	case isNone:
		return planAll
	case isAll:
		return planNone
	case isNot:
		return p.kids[0]
	}
	return &plan{kind: isNot, kids: []*plan{p}}
}

// test makes the plan of a test.
func (b *binder) test(x *test) (*plan, error) {
	if x.kind == testHas {
		return &plan{kind: isTest, leaf: leaf{kind: leafHas, field: x.field}}, nil
	}
	right := []operand{x.right}
	if x.kind == testIn {
		if right = x.list.items; x.list.slot != noSlot {
			if b.values == nil {
				return nil, nil
			}
			v := b.values[x.list.slot]
			if !v.list {
				return nil, b.fail(x.list.slot, fmt.Errorf("%s is not a list: in takes a list", v.all[0]))
			}
			right = make([]operand, len(v.all))
			for i, s := range v.all {
				right[i] = operand{slot: noSlot, value: s}
			}
		}
	}
	if x.field == noField {
		return b.alone(x, right)
	}
	return b.attribute(x, right)
}

// fail returns an error about the value of an operand with that slot.
func (b *binder) fail(slot int, err error) error {
	if slot == noSlot {
		return err
	}
	return &BindError{b.names[slot], err.Error()}
}

// slotOf returns which binding an error about an operand of a test is about.
func slotOf(x *test, o operand) int {
	if o.slot == noSlot && x.kind == testIn {
		return x.list.slot
	}
	return o.slot
}

// scalar returns the value of an operand, if it is known.
func (b *binder) scalar(o operand) (s scalar, known bool, err error) {
	if o.slot == noSlot {
		return o.value, true, nil
	}
	if b.values == nil {
		return scalar{}, false, nil
	}
	v := b.values[o.slot]
	if v.list {
		return scalar{}, false, b.fail(o.slot, errors.New("a list is not accepted here: want one value"))
	}
	return v.all[0], true, nil
}

// attribute makes the plan of a test of an attribute with any of the operands.
func (b *binder) attribute(x *test, right []operand) (*plan, error) {
	f := b.schema.Field(x.field)
	l := leaf{field: x.field}
	unknown := false
	for _, o := range right {
		s, known, err := b.scalar(o)
		if err != nil {
			return nil, err
		}
		if !known {
			unknown = true
			continue
		}
		c, ok, err := s.convert(f.Type)
		if !ok {
			if err == nil {
				err = fmt.Errorf("attribute %s (%s) is compared with %s, not with %s", f.Name, f.Type, accepts[f.Type], s)
			}
			return nil, b.fail(slotOf(x, o), err)
		}
		l.add(x, f.Type, c)
	}
	switch {
	case unknown:
		return nil, nil
	case x.op == notEqual:
		has := &plan{kind: isTest, leaf: leaf{kind: leafHas, field: x.field}}
		return join(isAnd, []*plan{has, not(l.plan())}), nil
	}
	return l.plan(), nil
}

// plan returns the leaf as a plan.
func (l *leaf) plan() *plan {
	if l.len() == 0 {
		return planNone
	}
	return &plan{kind: isTest, leaf: *l}
}

// len returns the number of the leaf's sets.
func (l *leaf) len() int {
	switch l.kind {
	case leafNone:
		return 0
	case leafKeywords:
		return len(l.texts)
	case leafInts:
		return len(l.ints)
	case leafFloats:
		return len(l.floats)
	}
	return 1
}

// add adds what compares with s as the test says. Of a notEqual it adds what is
// equal.
func (l *leaf) add(x *test, t attribute.Type, s scalar) {
	op := x.op
	if op == notEqual {
		op = equal
	}
	switch t {
	case attribute.Bool:
		kind := leafFalse
		if s.num != 0 {
			kind = leafTrue
		}
		if l.kind != leafNone && l.kind != kind {
			kind = leafHas // flag in [true, false]
		}
		l.kind = kind
	case attribute.Int, attribute.Timestamp:
		l.kind = leafInts
		if r, ok := intsThat(op, s); ok {
			l.ints = append(l.ints, r)
		}
	case attribute.Float:
		l.kind = leafFloats
		if r, ok := floatsThat(op, s); ok {
			l.floats = append(l.floats, r)
		}
	default:
		// The string that comes right after s is s with a zero byte.
		switch {
		case x.kind == testPrefix:
			l.kind = leafPrefix
		case op == less:
			l.kind = leafBelow
		case op == lessEqual:
			l.kind, s.text = leafBelow, s.text+"\x00"
		case op == greaterEqual:
			l.kind = leafFrom
		case op == greater:
			l.kind, s.text = leafFrom, s.text+"\x00"
		default:
			l.kind = leafKeywords
		}
		l.texts = append(l.texts, s.text)
	}
}

// holds decides a test of two scalars.
func (x *test) holds(left, right scalar) (bool, error) {
	if x.kind == testPrefix {
		if left.kind != text || right.kind != text {
			return false, fmt.Errorf("startsWith takes two strings, not %s and %s", left, right)
		}
		return strings.HasPrefix(left.text, right.text), nil
	}
	order, err := left.compare(right)
	if err != nil {
		return false, err
	}
	if left.kind == boolean && x.op != equal && x.op != notEqual {
		return false, errors.New("bools have only == and !=")
	}
	return x.op.holds(order), nil
}

// alone decides a test of operands only.
func (b *binder) alone(x *test, right []operand) (*plan, error) {
	left, known, err := b.scalar(x.left)
	if err != nil {
		return nil, err
	}
	truth := false
	for _, o := range right {
		s, ok, err := b.scalar(o)
		if err != nil {
			return nil, err
		}
		if !known || !ok {
			known = false
			continue
		}
		// An error is about the binding there is.
		slot := x.left.slot
		if slot == noSlot {
			slot = slotOf(x, o)
		}
		holds, err := x.holds(left, s)
		if err != nil {
			return nil, b.fail(slot, err)
		}
		truth = truth || holds
	}
	if !known {
		return nil, nil
	}
	return constant(truth), nil
}
