package eligibility

import (
	"context"
	"slices"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// node is a condition: a tree of and, or and not over tests. It is immutable.
type node struct {
	kind nodeKind
	kids []*node
	test *test
}

type nodeKind uint8

const (
	isNone nodeKind = iota // false
	isAll                  // true
	isAnd
	isOr
	isNot
	isTest
)

// test is a question about one attribute, or about operands alone.
type test struct {
	kind  testKind
	field int     // of the schema, or noField
	left  operand // if there is no field
	op    comparison
	right operand
	list  operands // testIn
}

const noField = -1

type testKind uint8

const (
	testHas     testKind = iota
	testCompare          // of a keyword list: has an element equal to
	testIn               // of a keyword list: has an element that is in
	testPrefix
)

// comparison is the operator of a testCompare.
type comparison uint8

const (
	equal comparison = iota
	notEqual
	less
	lessEqual
	greater
	greaterEqual
)

var comparisons = map[string]comparison{
	operators.Equals: equal, operators.NotEquals: notEqual, operators.Less: less,
	operators.LessEquals: lessEqual, operators.Greater: greater, operators.GreaterEquals: greaterEqual,
}

// flip returns the comparison with its sides exchanged.
func (c comparison) flip() comparison {
	switch c {
	case less:
		return greater
	case lessEqual:
		return greaterEqual
	case greater:
		return less
	case greaterEqual:
		return lessEqual
	}
	return c
}

// operand is a constant, or a binding if slot is not noSlot.
type operand struct {
	slot  int
	value scalar
}

const noSlot = -1

// operands is a list of operands, or one binding that is a list.
type operands struct {
	slot  int
	items []operand
}

// translation turns one checked expression into a filter.
type translation struct {
	schema   attribute.Schema
	info     *ast.SourceInfo
	filter   *Filter
	elements []string // the variables of the exists that are being vetted
}

// condition translates an expression that is true or false.
func (t *translation) condition(e ast.Expr) (*node, error) {
	switch e.Kind() {
	case ast.LiteralKind:
		if e.AsLiteral() == types.True {
			return &node{kind: isAll}, nil
		}
		return &node{kind: isNone}, nil
	case ast.IdentKind, ast.SelectKind:
		return t.compare(e, equal, e, operand{slot: noSlot, value: scalar{kind: boolean, num: 1}})
	case ast.ComprehensionKind:
		return t.exists(e)
	case ast.CallKind:
		call := e.AsCall()
		args := call.Args()
		switch name := call.FunctionName(); name {
		case operators.LogicalAnd:
			return t.both(isAnd, args)
		case operators.LogicalOr:
			return t.both(isOr, args)
		case operators.LogicalNot:
			kid, err := t.condition(args[0])
			if err != nil {
				return nil, err
			}
			return &node{kind: isNot, kids: []*node{kid}}, nil
		case operators.In:
			return t.in(e, args[0], args[1])
		case fnHas:
			field, _ := t.schema.Lookup(args[0].AsIdent())
			return &node{kind: isTest, test: &test{kind: testHas, field: field}}, nil
		case fnStartsWith:
			o, err := t.operand(args[0])
			if err != nil {
				return nil, err
			}
			return t.finish(e, &test{kind: testPrefix, right: o}, call.Target())
		default:
			return t.comparison(e, name, args[0], args[1])
		}
	}
	return nil, t.errorf(e, "not a condition: %s", supported)
}

// both translates an and or an or. The parser balances a chain of them, which is
// flattened again.
func (t *translation) both(kind nodeKind, args []ast.Expr) (*node, error) {
	n := &node{kind: kind}
	for _, a := range args {
		kid, err := t.condition(a)
		if err != nil {
			return nil, err
		}
		n.add(kid)
	}
	return n, nil
}

// add adds a condition to an and or an or.
func (n *node) add(kid *node) {
	if kid.kind == n.kind {
		n.kids = append(n.kids, kid.kids...)
	} else {
		n.kids = append(n.kids, kid)
	}
}

// field returns the attribute that an expression names.
func (t *translation) field(e ast.Expr) (int, bool) {
	if e.Kind() != ast.IdentKind {
		return noField, false
	}
	return t.schema.Lookup(e.AsIdent())
}

// operand translates a constant or a binding.
func (t *translation) operand(e ast.Expr) (operand, error) {
	switch e.Kind() {
	case ast.LiteralKind:
		switch v := e.AsLiteral().(type) {
		case types.Bool:
			return operand{slot: noSlot, value: scalar{kind: boolean, num: int64(b2i(bool(v)))}}, nil
		case types.Int:
			return operand{slot: noSlot, value: scalar{kind: integer, num: int64(v)}}, nil
		case types.Double:
			return operand{slot: noSlot, value: scalar{kind: real, float: float64(v)}}, nil
		case types.String:
			return operand{slot: noSlot, value: scalar{kind: text, text: string(v)}}, nil
		}
	case ast.SelectKind:
		return operand{slot: t.slot(e)}, nil
	case ast.CallKind:
		if call := e.AsCall(); call.FunctionName() == fnTimestamp {
			v, err := parseInstant(string(call.Args()[0].AsLiteral().(types.String)))
			if err != nil {
				return operand{}, t.errorf(e, "%v", err)
			}
			return operand{slot: noSlot, value: v}, nil
		}
	case ast.IdentKind:
		if _, ok := t.field(e); ok {
			return operand{}, t.errorf(e, "attribute %s: an attribute can be compared with a constant or a binding, not with another attribute", e.AsIdent())
		}
	}
	return operand{}, t.errorf(e, "want a constant or a binding here")
}

// slot returns the number of a binding.
func (t *translation) slot(e ast.Expr) int {
	name := e.AsSelect().FieldName()
	if first, at := &t.filter.first, t.errorf(e.AsSelect().Operand(), "%s", name); *first == nil || at.before(*first) {
		*first = at
	}
	if i := slices.Index(t.filter.names, name); i >= 0 {
		return i
	}
	t.filter.names, t.filter.lists = append(t.filter.names, name), append(t.filter.lists, 0)
	return len(t.filter.names) - 1
}

// operands translates a list of constants and bindings, or a binding.
func (t *translation) operands(e ast.Expr) (operands, error) {
	switch e.Kind() {
	case ast.SelectKind:
		slot := t.slot(e)
		t.filter.lists[slot]++
		return operands{slot: slot}, nil
	case ast.ListKind:
		list := operands{slot: noSlot}
		for _, item := range e.AsList().Elements() {
			o, err := t.operand(item)
			if err != nil {
				return operands{}, err
			}
			list.items = append(list.items, o)
		}
		return list, nil
	}
	if f, ok := t.field(e); ok {
		return operands{}, t.errorf(e, "attribute %s: a constant or a binding can be in an attribute, not another attribute", t.schema.Field(f).Name)
	}
	return operands{}, t.errorf(e, "want a list or a binding here")
}

// comparison translates the comparison of two expressions, an attribute on either
// side.
func (t *translation) comparison(e ast.Expr, name string, left, right ast.Expr) (*node, error) {
	op := comparisons[name]
	if _, ok := t.field(left); !ok {
		if _, ok := t.field(right); ok {
			left, right, op = right, left, op.flip()
		}
	}
	o, err := t.operand(right)
	if err != nil {
		return nil, err
	}
	return t.compare(e, op, left, o)
}

// compare translates the comparison of an attribute or operand with an operand.
func (t *translation) compare(e ast.Expr, op comparison, left ast.Expr, right operand) (*node, error) {
	return t.finish(e, &test{kind: testCompare, op: op, right: right}, left)
}

// finish gives a test its left side.
func (t *translation) finish(e ast.Expr, x *test, left ast.Expr) (*node, error) {
	var ok bool
	var err error
	if x.field, ok = t.field(left); !ok {
		x.field = noField
		if x.left, err = t.operand(left); err != nil {
			return nil, err
		}
	}
	if x.field != noField && t.schema.Field(x.field).Type == attribute.KeywordList {
		return nil, t.errorf(e, "attribute %s is a keyword_list: it takes in or exists", t.schema.Field(x.field).Name)
	}
	return t.checked(e, x)
}

// checked binds a test's constants to find an error in them now.
func (t *translation) checked(e ast.Expr, x *test) (*node, error) {
	b := binder{ctx: context.Background(), schema: t.schema}
	if _, err := b.test(x); err != nil {
		return nil, t.errorf(e, "%v", err)
	}
	return &node{kind: isTest, test: x}, nil
}

// in translates: left in right.
func (t *translation) in(e, left, right ast.Expr) (*node, error) {
	if field, ok := t.field(right); ok {
		return t.elementTest(e, testCompare, field, left)
	}
	list, err := t.operands(right)
	if err != nil {
		return nil, err
	}
	return t.finish(e, &test{kind: testIn, list: list}, left)
}

// exists translates: attribute.exists(p, condition). An or in the condition is an
// or of two exists; an and is not an and.
func (t *translation) exists(e ast.Expr) (*node, error) {
	c := e.AsComprehension()
	field, _ := t.field(c.IterRange()) // vet saw to it that there is one
	return t.element(existsCondition(c), c.IterVar(), field)
}

// element translates a condition about an element of a list.
func (t *translation) element(e ast.Expr, name string, field int) (*node, error) {
	is := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == name }
	if e.Kind() == ast.CallKind {
		call := e.AsCall()
		args := call.Args()
		switch fn := call.FunctionName(); {
		case fn == operators.LogicalOr:
			n := &node{kind: isOr}
			for _, a := range args {
				kid, err := t.element(a, name, field)
				if err != nil {
					return nil, err
				}
				n.add(kid)
			}
			return n, nil
		case fn == operators.Equals && is(args[0]):
			return t.elementTest(e, testCompare, field, args[1])
		case fn == operators.Equals && is(args[1]):
			return t.elementTest(e, testCompare, field, args[0])
		case fn == operators.In && is(args[0]):
			list, err := t.operands(args[1])
			if err != nil {
				return nil, err
			}
			return t.checked(e, &test{kind: testIn, field: field, list: list})
		case fn == fnStartsWith && is(call.Target()):
			return t.elementTest(e, testPrefix, field, args[0])
		}
	}
	return nil, t.errorf(e, "exists(%s, ...) takes %s == VALUE, %s in LIST, %s.startsWith(VALUE) and || of them", name, name, name, name)
}

// elementTest translates a comparison of some element with a constant or binding.
func (t *translation) elementTest(e ast.Expr, kind testKind, field int, value ast.Expr) (*node, error) {
	o, err := t.operand(value)
	if err != nil {
		return nil, err
	}
	return t.checked(e, &test{kind: kind, field: field, op: equal, right: o})
}
