package eligibility

import (
	"cmp"
	"slices"
	"strings"

	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/wording"
)

// vet rejects what the language does not have, before the type check, which would
// say less about it.
func (t *translation) vet(e ast.Expr, depth int) error {
	if depth > MaxDepth {
		return t.errorf(e, "nested deeper than %d", MaxDepth)
	}
	switch e.Kind() {
	case ast.IdentKind:
		return t.vetName(e)
	case ast.LiteralKind:
		switch e.AsLiteral().(type) {
		case types.Bool, types.Int, types.Double, types.String:
			return nil
		case types.Uint:
			return t.errorf(e, "unsigned numbers are not supported: write it without u")
		}
		return t.errorf(e, "%s is not supported: a filter has numbers, strings, true and false", strings.TrimSuffix(e.AsLiteral().Type().TypeName(), "_type"))
	case ast.SelectKind:
		return t.vetSelect(e)
	case ast.ListKind:
		return t.vetAll(e.AsList().Elements(), depth)
	case ast.CallKind:
		call := e.AsCall()
		if err := t.vetCall(e, call); err != nil {
			return err
		}
		if call.IsMemberFunction() {
			if err := t.vet(call.Target(), depth+1); err != nil {
				return err
			}
		}
		return t.vetAll(call.Args(), depth)
	case ast.ComprehensionKind:
		c := e.AsComprehension()
		if c.IterVar() == bindings {
			return t.errorf(e, "%s is the name of the bindings: give the element another", bindings)
		}
		if err := t.vet(c.IterRange(), depth+1); err != nil {
			return err
		}
		if i, ok := t.field(c.IterRange()); !ok || t.schema.Field(i).Type != attribute.KeywordList {
			return t.errorf(e, "exists takes a keyword_list attribute: platforms.exists(p, p == \"linux\")")
		}
		t.elements = append(t.elements, c.IterVar())
		err := t.vet(existsCondition(c), depth+1)
		t.elements = t.elements[:len(t.elements)-1]
		return err
	}
	return t.errorf(e, "maps and messages are not supported: %s", supported)
}

func (t *translation) vetAll(all []ast.Expr, depth int) error {
	for _, e := range all {
		if err := t.vet(e, depth+1); err != nil {
			return err
		}
	}
	return nil
}

// existsCondition returns the condition of exists(p, condition), which the macro
// expands to a loop whose step is: result || condition.
func existsCondition(c ast.ComprehensionExpr) ast.Expr {
	return c.LoopStep().AsCall().Args()[1]
}

func (t *translation) vetCall(e ast.Expr, call ast.CallExpr) error {
	name := call.FunctionName()
	if name == "has" { // not with one argument, or it would be the macro's
		name = fnHas
	}
	f, ok := functions[name]
	switch {
	case name == operators.Conditional:
		return t.errorf(e, "operator ?: is not supported: %s", supported)
	case name == operators.Index:
		return t.errorf(e, "operator [] is not supported: %s", supported)
	case !ok || name == operators.NotStrictlyFalse:
		if op, ok := operators.FindReverse(name); ok && op != "" {
			return t.errorf(e, "operator %s is not supported: %s", op, supported)
		}
		return t.errorf(e, "function %.64s is not supported: %s", name, supported)
	case len(f.declare[0].args) != len(call.Args())+b2i(call.IsMemberFunction()) || f.declare[0].member != call.IsMemberFunction():
		return t.errorf(e, "%s: %s", f.name, f.takes)
	case name == fnHas && (call.Args()[0].Kind() != ast.IdentKind || t.isElement(call.Args()[0].AsIdent())):
		return t.errorf(e, "%s: %s", f.name, f.takes)
	case name == fnTimestamp && call.Args()[0].Kind() != ast.LiteralKind:
		return t.errorf(e, "%s: %s; a binding needs none", f.name, f.takes)
	}
	return nil
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (t *translation) isElement(name string) bool { return slices.Contains(t.elements, name) }

func (t *translation) vetSelect(e ast.Expr) error {
	s := e.AsSelect()
	if o := s.Operand(); o.Kind() == ast.IdentKind && o.AsIdent() == bindings && !s.IsTestOnly() {
		return nil
	}
	return t.errorf(e, "field %.64s: only %s has fields, one level of them: %s.NAME is a binding", s.FieldName(), bindings, bindings)
}

func (t *translation) vetName(e ast.Expr) error {
	name := e.AsIdent()
	if _, ok := t.schema.Lookup(name); ok || t.isElement(name) {
		return nil
	}
	if name == bindings {
		return t.errorf(e, "%s alone is no value: %s.NAME is a binding", bindings, bindings)
	}
	names := t.schema.Names()
	if len(names) == 0 {
		return t.errorf(e, "unknown attribute %.64s: there are no attributes", name)
	}
	which := "the attributes are "
	if len(names) > 12 {
		which = "the closest are "
		slices.SortStableFunc(names, func(a, b string) int { return cmp.Compare(distance(name, a), distance(name, b)) })
		names = names[:3]
	}
	return t.errorf(e, "unknown attribute %.64s: %s%s", name, which, strings.Join(names, ", "))
}

// distance returns how far apart two names are, whatever their case, of which only the
// first 64 bytes count.
func distance(a, b string) int {
	return wording.Distance(strings.ToLower(a[:min(len(a), 64)]), strings.ToLower(b[:min(len(b), 64)]))
}
