package eligibility

import (
	"fmt"

	"cel.dev/cel-go/checker"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/containers"
	"cel.dev/cel-go/common/decls"
	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// What CEL functions are called in a checked expression.
const (
	fnHas        = "@has" // CEL has a macro of that name, which takes a field
	fnStartsWith = "startsWith"
	fnTimestamp  = "timestamp"
)

// bindings is the variable whose fields are a query's bindings.
const bindings = "user"

// function is an operator or function of the language.
type function struct {
	name    string // in a message
	takes   string // what arguments, in a message
	declare []overload
}

type overload struct {
	args   []*types.Type
	result *types.Type
	member bool
}

var textList = types.NewListType(types.StringType)

// functions is all that a filter may call. CEL's own declarations are not used,
// so what is not here does not pass the type check.
var functions = func() map[string]function {
	on := func(result *types.Type, args ...*types.Type) overload { return overload{args: args, result: result} }
	text, number, real, truth, instant := types.StringType, types.IntType, types.DoubleType, types.BoolType, types.TimestampType
	pair := func(t ...*types.Type) overload { return on(truth, t...) }
	ordered := []overload{
		pair(number, number), pair(number, real), pair(real, number), pair(real, real), pair(text, text), pair(instant, instant),
	}
	equal := append([]overload{pair(truth, truth)}, ordered...)
	var in, has []overload
	for _, e := range []*types.Type{number, real, text, truth, instant} {
		in = append(in, pair(e, types.NewListType(e)))
		has = append(has, pair(e))
	}
	in = append(in, pair(number, types.NewListType(real)), pair(real, types.NewListType(number)))
	has = append(has, pair(textList))

	const orders = "it compares numbers with numbers, strings with strings and timestamp(\"...\") with timestamps"
	const equals = "it compares numbers with numbers, strings with strings, bools with bools and timestamp(\"...\") with timestamps; a list takes in or exists"
	const conditions = "it takes conditions"
	return map[string]function{
		operators.LogicalAnd:       {"operator &&", conditions, []overload{pair(truth, truth)}},
		operators.LogicalOr:        {"operator ||", conditions, []overload{pair(truth, truth)}},
		operators.LogicalNot:       {"operator !", "it takes a condition", []overload{pair(truth)}},
		operators.Equals:           {"operator ==", equals, equal},
		operators.NotEquals:        {"operator !=", equals, equal},
		operators.Less:             {"operator <", orders, ordered},
		operators.LessEquals:       {"operator <=", orders, ordered},
		operators.Greater:          {"operator >", orders, ordered},
		operators.GreaterEquals:    {"operator >=", orders, ordered},
		operators.In:               {"operator in", "it takes a value and a list of its type, or a string and a keyword_list attribute", in},
		operators.NotStrictlyFalse: {"exists", conditions, []overload{pair(truth)}}, // of the macro
		fnHas:                      {"function has", "it takes an attribute: has(price)", has},
		fnStartsWith:               {"function startsWith", "it takes a keyword and a string: name.startsWith(\"The \")", []overload{{[]*types.Type{text, text}, truth, true}}},
		fnTimestamp:                {"function timestamp", "it takes a string in quotes: timestamp(\"2024-01-01T00:00:00Z\")", []overload{on(instant, text)}},
	}
}()

// supported is what a message about anything else says.
const supported = "a filter has &&, ||, !, ==, !=, <, <=, >, >=, in, has, startsWith, exists and timestamp"

// celTypes maps the type of an attribute to CEL's.
var celTypes = [...]*types.Type{
	attribute.Keyword: types.StringType, attribute.KeywordList: textList, attribute.Bool: types.BoolType,
	attribute.Int: types.IntType, attribute.Float: types.DoubleType, attribute.Timestamp: types.TimestampType,
	attribute.Float32: types.DoubleType,
}

// newEnv returns the declarations that filters over schema are checked against.
func newEnv(schema attribute.Schema) (*checker.Env, error) {
	env, err := checker.NewEnv(containers.DefaultContainer, types.NewEmptyRegistry(), checker.CrossTypeNumericComparisons(true))
	if err != nil {
		return nil, err
	}
	for name, f := range functions {
		var opts []decls.FunctionOpt
		for i, o := range f.declare {
			id := fmt.Sprintf("%s/%d", name, i)
			if o.member {
				opts = append(opts, decls.MemberOverload(id, o.args, o.result))
			} else {
				opts = append(opts, decls.Overload(id, o.args, o.result))
			}
		}
		d, err := decls.NewFunction(name, opts...)
		if err != nil {
			return nil, err
		}
		if err := env.AddFunctions(d); err != nil {
			return nil, err
		}
	}
	vars := []*decls.VariableDecl{decls.NewVariable(bindings, types.NewMapType(types.StringType, types.DynType))}
	for _, f := range schema.Fields() {
		vars = append(vars, decls.NewVariable(f.Name, celTypes[f.Type]))
	}
	return env, env.AddIdents(vars...)
}

// typeError returns the type checker's error as ours: it names the arguments as
// the filter does, and says what would be accepted.
func (t *translation) typeError(checked *ast.AST, e *common.Error) *Error {
	var at ast.Expr
	ast.PreOrderVisit(checked.Expr(), ast.NewExprVisitor(func(x ast.Expr) {
		if x.ID() == e.ExprID {
			at = x
		}
	}))
	switch {
	case at == nil:
		return ourError(e)
	case checked.GetType(at.ID()).Kind() != types.ErrorKind: // it has a type, but not the one its place wants
		return t.errorf(at, "%s is not a condition", t.describe(checked, at))
	case at.Kind() != ast.CallKind:
		return ourError(e)
	}
	call := at.AsCall()
	args := call.Args()
	if call.IsMemberFunction() {
		args = append([]ast.Expr{call.Target()}, args...)
	}
	text := ""
	for i, a := range args {
		if i > 0 {
			text += " and "
		}
		text += t.describe(checked, a)
	}
	f := functions[call.FunctionName()]
	return t.errorf(at, "%s does not take %s: %s", f.name, text, f.takes)
}

// describe names an expression in a message.
func (t *translation) describe(checked *ast.AST, e ast.Expr) string {
	switch e.Kind() {
	case ast.IdentKind:
		if i, ok := t.schema.Lookup(e.AsIdent()); ok {
			f := t.schema.Field(i)
			return fmt.Sprintf("attribute %s (%s)", f.Name, f.Type)
		}
		return "the element " + e.AsIdent() + " (string)"
	case ast.LiteralKind:
		if o, err := t.operand(e); err == nil {
			return o.value.String()
		}
	case ast.SelectKind:
		return "binding " + bindings + "." + e.AsSelect().FieldName()
	}
	if checkedType(checked, e) == "bool" {
		return "a condition"
	}
	return "a " + checkedType(checked, e)
}

func checkedType(checked *ast.AST, e ast.Expr) string {
	return checker.FormatCELType(checked.GetType(e.ID()))
}
