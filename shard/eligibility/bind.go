package eligibility

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// MaxListUses is how many elements the lists of bindings may have in all, each as often
// as the filter uses it.
const MaxListUses = 1 << 22

// value is a binding's value.
type value struct {
	list  bool
	one   scalar // if it is no list
	items []any  // if it is one
}

func valueOf(v any) (value, error) {
	if items, ok := v.([]any); ok {
		return value{list: true, items: items}, nil
	}
	s, err := scalarOf(v)
	return value{one: s}, err
}

// any returns what valueOf was given.
func (v *value) any() any {
	if v.list {
		return v.items
	}
	return v.one.any()
}

// checkEvery is how many elements of a list pass between looks at the context.
const checkEvery = 1024

// each calls do with every element of a list. It stops when the context ends. Other errors
// say which element they are about.
func (v *value) each(ctx context.Context, do func(scalar) error) error {
	for i, item := range v.items {
		if i%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		s, err := scalarOf(item)
		if err == nil {
			err = do(s)
		}
		if err != nil {
			return fmt.Errorf("element %d: %w", i, err)
		}
	}
	return nil
}

// binder makes a plan of a condition. Without values it only knows constants: a
// test that needs a binding then has no plan, but what it compares is checked.
type binder struct {
	ctx    context.Context // of the query
	schema attribute.Schema
	names  []string
	values []value
	lists  map[converted]leaf // lists of bindings, once for all tests that use them
}

// converted is a list of a binding as attributes of a type are compared with it.
type converted struct {
	slot int
	typ  attribute.Type
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
	times  []stretch[time.Time]
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
	leafTimes
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
			return b.inBinding(x)
		}
	}
	if x.field == noField {
		return b.alone(x, right)
	}
	return b.attribute(x, right)
}

// fail returns an error about the value of an operand with that slot, or that of the
// context as it is.
func (b *binder) fail(slot int, err error) error {
	if ended := b.ctx.Err(); slot == noSlot || ended != nil && errors.Is(err, ended) {
		return err
	}
	return &BindError{b.names[slot], err.Error()}
}

// inBinding makes the plan of a test whether something is in a list that is a binding.
func (b *binder) inBinding(x *test) (*plan, error) {
	if b.values == nil {
		return nil, nil
	}
	slot := x.list.slot
	v := &b.values[slot]
	if !v.list {
		return nil, b.fail(slot, fmt.Errorf("%s is not a list: in takes a list", v.one))
	}
	if x.field == noField {
		left, _, err := b.scalar(x.left)
		if err != nil {
			return nil, err
		}
		truth := false
		var leftErr error // not about an element
		err = v.each(b.ctx, func(s scalar) error {
			holds, err := x.holds(left, s)
			if wrong, ok := errors.AsType[*sideError](err); ok && !wrong.right && x.left.slot != noSlot {
				leftErr = err
			}
			truth = truth || holds
			return err
		})
		switch {
		case leftErr != nil:
			return nil, b.fail(x.left.slot, leftErr)
		case err != nil:
			return nil, b.fail(slot, err)
		}
		return constant(truth), nil
	}
	f := b.schema.Field(x.field)
	l, err := b.list(slot, f)
	if err != nil {
		return nil, b.fail(slot, err)
	}
	l.field = x.field
	return l.plan(), nil
}

// list returns a binding's list as the attribute f, and others of its type, are compared
// with it, each element once.
func (b *binder) list(slot int, f attribute.Field) (leaf, error) {
	t := f.Type
	key := converted{slot, t}
	if l, ok := b.lists[key]; ok {
		return l, nil
	}
	var l leaf
	var known seen
	isIn := &test{kind: testIn, op: equal}
	err := b.values[slot].each(b.ctx, func(s scalar) error {
		s, err := s.convert(t)
		if err == nil && known.add(t, s) {
			l.add(isIn, t, s)
		}
		return compared(f, err)
	})
	if err != nil {
		return l, err
	}
	if b.lists == nil {
		b.lists = map[converted]leaf{}
	}
	b.lists[key] = l
	return l, nil
}

// seen is which elements of a list have been seen.
type seen struct {
	texts  map[string]struct{}
	ints   map[int64]struct{}
	floats map[float64]struct{}
	times  map[time.Time]struct{}
}

// add notes an element that was converted to type t, and reports whether it is new.
func (k *seen) add(t attribute.Type, s scalar) bool {
	switch t {
	case attribute.Keyword, attribute.KeywordList:
		return isNew(&k.texts, s.text)
	case attribute.Timestamp:
		return isNew(&k.times, s.at.UTC())
	}
	if s.kind == real {
		return isNew(&k.floats, s.float)
	}
	return isNew(&k.ints, s.num)
}

func isNew[T comparable](known *map[T]struct{}, x T) bool {
	if _, ok := (*known)[x]; ok {
		return false
	}
	if *known == nil {
		*known = map[T]struct{}{}
	}
	(*known)[x] = struct{}{}
	return true
}

// compared says of an error of [scalar.convert] what the attribute is compared with.
func compared(f attribute.Field, err error) error {
	if e, ok := errors.AsType[*kindError](err); ok {
		accepted := accepts[f.Type]
		if accepted == aNumber && e.s.bound {
			accepted += " or a decimal string"
		}
		return fmt.Errorf("attribute %s (%s) is compared with %s, not with %s", f.Name, f.Type, accepted, e.s)
	}
	return err
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
	return v.one, true, nil
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
		c, err := s.convert(f.Type)
		if err != nil {
			return nil, b.fail(o.slot, compared(f, err))
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
	case leafTimes:
		return len(l.times)
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
	case attribute.Int:
		l.kind = leafInts
		if r, ok := intsThat(op, s); ok {
			l.ints = append(l.ints, r)
		}
	case attribute.Timestamp:
		l.kind = leafTimes
		l.times = append(l.times, timesThat(op, s))
	case attribute.Float, attribute.Float32:
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
			return false, &sideError{fmt.Errorf("startsWith takes two strings, not %s and %s", left, right), left.kind == text}
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
	if err := left.ambiguous(x.op, right); err != nil {
		return false, err
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
		holds, err := x.holds(left, s)
		if err != nil {
			return nil, b.fail(faulty(err, x.left.slot, o.slot), err)
		}
		truth = truth || holds
	}
	if !known {
		return nil, nil
	}
	return constant(truth), nil
}

// faulty returns the slot that the error of comparing two operands is about: of the one that
// is wrong, else of the first, if it is a binding.
func faulty(err error, left, right int) int {
	if wrong, ok := errors.AsType[*sideError](err); ok && wrong.right {
		left, right = right, left
	}
	if left == noSlot {
		return right
	}
	return left
}
