package eligibility

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"
	"time"

	"cel.dev/cel-go/cel"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

var allTypes = "flag bool\ngenre keyword\nprice float\nreleased timestamp\nscore float32\ntags keyword_list\nyear int"

// singles are numbers, and the float32s nearest to them as CEL writes them.
var singles = map[string]string{
	"-1": "-1.0", "0": "0.0", "1": "1.0", "2": "2.0", "0.5": "0.5", "0.1": "0.10000000149011612", "16777217": "16777216.0",
	"user.i": "user.i_single", "user.f": "user.f_single",
}

// condition is a condition in our language and as the oracle, cel-go itself, is
// asked it: there, has_x is a variable that says whether the row has x, and guards
// each comparison of x, which is all that our language adds to CEL.
type condition struct{ ours, oracle string }

func drawCondition(t *rapid.T, depth int) condition {
	if depth > 0 {
		kind := rapid.IntRange(0, 5).Draw(t, "kind")
		if kind <= 2 {
			op := []string{" && ", " || ", "!"}[kind]
			a := drawCondition(t, depth-1)
			if op == "!" {
				return condition{"!(" + a.ours + ")", "!(" + a.oracle + ")"}
			}
			b := drawCondition(t, depth-1)
			return condition{"(" + a.ours + op + b.ours + ")", "(" + a.oracle + op + b.oracle + ")"}
		}
	}
	guard := func(name, format string, args ...any) condition {
		ours := fmt.Sprintf(format, args...)
		return condition{ours, "(has_" + name + " && " + ours + ")"}
	}
	pick := func(name string, of ...string) string { return rapid.SampledFrom(of).Draw(t, name) }
	word := func() string { return pick("word", `""`, `"a"`, `"ab"`, `"b"`, `"ü"`, "user.s") }
	number := func() string { return pick("number", "-1", "0", "1", "2", "0.5", "-0.5", "1.0", "user.i", "user.f") }
	instant := func() string {
		return pick("instant", `timestamp("1970-01-01T00:00:00Z")`, `timestamp("1970-01-01T00:00:00.000000001Z")`, `timestamp("1969-12-31T23:59:59Z")`, "user.t",
			`timestamp("0001-01-01T00:00:00Z")`, `timestamp("9999-12-31T23:59:59.999999999Z")`, `timestamp("9999-12-31T00:00:00Z")`, `timestamp("2262-04-12T00:00:00Z")`)
	}
	single := func() string {
		return pick("single", "-1", "0", "1", "2", "0.5", "0.1", "16777217", "user.i", "user.f")
	}
	list := func(item func() string) string {
		var items []string
		for range rapid.IntRange(0, 3).Draw(t, "items") {
			items = append(items, item())
		}
		return "[" + strings.Join(items, ", ") + "]"
	}
	order := func() string { return pick("order", "==", "!=", "<", "<=", ">", ">=") }
	either := func(a, op, b string) string { // the attribute on either side
		if rapid.Bool().Draw(t, "flip") {
			flipped := map[string]string{"==": "==", "!=": "!=", "<": ">", "<=": ">=", ">": "<", ">=": "<="}
			return b + " " + flipped[op] + " " + a
		}
		return a + " " + op + " " + b
	}
	switch rapid.IntRange(0, 16).Draw(t, "leaf") {
	case 0:
		return guard("flag", "flag")
	case 1:
		return guard("flag", "%s", either("flag", pick("equality", "==", "!="), pick("bool", "true", "false", "user.b")))
	case 2:
		return guard("genre", "%s", either("genre", order(), word()))
	case 3:
		return guard("genre", "genre.startsWith(%s)", word())
	case 4:
		return guard("genre", "genre in %s", list(word))
	case 5:
		return guard("genre", "genre in user.l")
	case 6:
		return guard("tags", "%s in tags", word())
	case 7:
		return guard("tags", "tags.exists(x, x == %s || x.startsWith(%s) || x in %s)", word(), word(), list(word))
	case 8:
		return guard("year", "%s", either("year", order(), number()))
	case 9:
		return guard("year", "year in %s", list(number))
	case 10:
		return guard("price", "%s", either("price", order(), number()))
	case 11:
		return guard("price", "price in %s", list(number))
	case 12:
		return guard("released", "%s", either("released", order(), instant()))
	case 13:
		name := pick("attribute", "flag", "genre", "price", "released", "score", "tags", "year")
		return condition{"has(" + name + ")", "has_" + name}
	case 14:
		op, n := order(), single()
		return condition{"score " + op + " " + n, "(has_score && score " + op + " " + singles[n] + ")"}
	case 15:
		a, b := single(), single()
		return condition{fmt.Sprintf("score in [%s, %s]", a, b), fmt.Sprintf("(has_score && score in [%s, %s])", singles[a], singles[b])}
	default:
		text := pick("alone", "true", "false", "user.b", "user.i < 1", "user.f >= user.i", `user.s == "a"`, `user.s in ["a", ""]`, "user.s in user.l", "1 < 2")
		return condition{text, text}
	}
}

// TestAgainstCEL compares what we compile, by row, with what cel-go evaluates.
func TestAgainstCEL(t *testing.T) {
	schema := parseSchema(t, allTypes)
	compiler, err := NewCompiler(schema)
	require.NoError(t, err)
	env, err := cel.NewEnv()
	require.NoError(t, err)
	dir := t.TempDir()
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.SampledFrom([]string{"", "a", "ab", "abc", "b", "ü"})
		number := rapid.SampledFrom([]float64{-1, -0.5, 0, 0.1, 0.5, 1, 2})
		times := []time.Time{
			time.Unix(-1, 0).UTC(), time.Unix(0, -1).UTC(), time.Unix(0, 0).UTC(), time.Unix(0, 1).UTC(),
			time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC),
		}
		var rows []map[string]attribute.Value
		var vars []map[string]any
		values := map[string]any{
			"s": word.Draw(rt, "s"), "i": int64(rapid.IntRange(-1, 2).Draw(rt, "i")), "f": number.Draw(rt, "f"),
			"b": rapid.Bool().Draw(rt, "b"), "t": rapid.SampledFrom(times).Draw(rt, "t"),
			"l": []any{word.Draw(rt, "l0"), word.Draw(rt, "l1")},
		}
		values["i_single"], values["f_single"] = float64(values["i"].(int64)), float64(float32(values["f"].(float64)))
		for range rapid.IntRange(1, 90).Draw(rt, "rows") {
			row := map[string]attribute.Value{}
			seen := map[string]any{"user": values}
			set := func(name string, v attribute.Value, x any) {
				has := !v.Absent() && rapid.IntRange(0, 3).Draw(rt, "has") > 0
				seen["has_"+name] = has
				if has {
					row[name], seen[name] = v, x
				}
			}
			b, s, f, i := rapid.Bool().Draw(rt, "flag"), word.Draw(rt, "genre"), number.Draw(rt, "price"), int64(rapid.IntRange(-2, 3).Draw(rt, "year"))
			l, at := rapid.SliceOfN(word, 0, 3).Draw(rt, "tags"), rapid.SampledFrom(times).Draw(rt, "released")
			f32 := rapid.SampledFrom([]float32{-1, 0, 0.1, 0.5, 1, 2, 16_777_216}).Draw(rt, "score")
			set("flag", attribute.OfBool(b), b)
			set("genre", attribute.OfKeyword(s), s)
			set("price", attribute.OfFloat(f), f)
			set("released", attribute.OfTimestamp(at), at)
			set("score", attribute.OfFloat32(f32), float64(f32))
			set("tags", attribute.OfKeywords(append([]string(nil), l...)), l)
			set("year", attribute.OfInt(i), i)
			rows, vars = append(rows, row), append(vars, seen)
		}
		table := newTable(t, dir, schema, rows)
		dst := index.NewBitset(len(rows))
		for range 20 {
			c := drawCondition(rt, 3)
			filter, err := compiler.Compile(c.ours)
			require.NoError(t, err)
			bound, err := filter.Bind(ctx, values)
			require.NoError(t, err, c.ours)
			for i := range dst {
				dst[i] = ^uint64(0) // what was there must not matter
			}
			eval(rt, bound, table, dst)

			parsed, issues := env.Parse(c.oracle)
			require.NoError(t, issues.Err())
			program, err := env.Program(parsed)
			require.NoError(t, err)
			for i := range rows {
				want, _, err := program.Eval(vars[i])
				require.NoError(t, err, c.oracle)
				require.Equal(t, want.Value(), dst.Has(uint32(i)), "%s\nrow %v\nbindings %v", c.ours, rows[i], values)
			}
			requireClauses(rt, compiler, bound, values, table, dst)
		}
	})
}

// requireClauses checks that a row is eligible just if it is for every clause, and
// that the text of each clause is a filter that means the same.
func requireClauses(t *rapid.T, compiler *Compiler, whole Bound, values map[string]any, table *attribute.Table, eligible index.Bitset) {
	all, clause := index.NewBitset(table.Rows()), index.NewBitset(table.Rows())
	all.Fill(table.Rows())
	for _, c := range clauses(t, whole) {
		eval(t, c, table, clause)
		all.And(clause)
		filter, err := compiler.Compile(c.String())
		require.NoError(t, err, "clause %q of %s", c, whole)
		bound, err := filter.Bind(ctx, values)
		require.NoError(t, err, c.String())
		alone := index.NewBitset(table.Rows())
		eval(t, bound, table, alone)
		require.Equal(t, alone, clause, "clause %q of %s", c, whole)
		require.Len(t, clauses(t, bound), 1, c.String())
	}
	require.Equal(t, eligible, all, whole.String())
}

// TestNumbersAreExact compares the ranges of ints and floats with exact
// arithmetic, around the ends of int64 and where floats are sparse.
func TestNumbersAreExact(t *testing.T) {
	ints := rapid.OneOf(
		rapid.Int64(),
		rapid.Map(rapid.IntRange(-3, 3), func(d int) int64 { return 1<<53 + int64(d) }),
		rapid.Map(rapid.IntRange(-3, 3), func(d int) int64 { return -1<<53 + int64(d) }),
		rapid.SampledFrom([]int64{math.MinInt64, math.MinInt64 + 1, math.MaxInt64, math.MaxInt64 - 1, math.MaxInt64 - 511, math.MaxInt64 - 512, 0, 1, -1}),
	)
	floats := rapid.OneOf(
		rapid.Float64(),
		rapid.Map(ints, func(i int64) float64 { return float64(i) }),
		rapid.Map(ints, func(i int64) float64 { return math.Nextafter(float64(i), 0) }),
		rapid.SampledFrom([]float64{0, math.Copysign(0, -1), 0.5, -0.5, two63, -two63, math.Inf(1), math.Inf(-1), math.MaxFloat64, math.SmallestNonzeroFloat64}),
	)
	exact := func(s scalar) *big.Float {
		if s.kind == integer {
			return new(big.Float).SetInt64(s.num)
		}
		return new(big.Float).SetFloat64(s.float)
	}
	rapid.Check(t, func(rt *rapid.T) {
		s := scalar{kind: integer, num: ints.Draw(rt, "constant")}
		if rapid.Bool().Draw(rt, "real") {
			s = scalar{kind: real, float: floats.Draw(rt, "constant")}
		}
		i, f := ints.Draw(rt, "int"), floats.Draw(rt, "float")
		asInt, asFloat := scalar{kind: integer, num: i}, scalar{kind: real, float: f}
		for op := equal; op <= greaterEqual; op++ {
			if op == notEqual {
				continue
			}
			r, ok := intsThat(op, s)
			require.Equal(rt, op.holds(exact(asInt).Cmp(exact(s))), ok && r.lo <= i && i <= r.hi, "int %d %v %s", i, op, s)
			if !math.IsInf(f, 0) { // a stored float is finite
				r, ok := floatsThat(op, s)
				require.Equal(rt, op.holds(exact(asFloat).Cmp(exact(s))), ok && r.lo <= f && f <= r.hi, "float %v %v %s", f, op, s)
			}
		}
		for _, a := range []scalar{asInt, asFloat} {
			order, err := a.compare(s)
			require.NoError(rt, err)
			require.Equal(rt, exact(a).Cmp(exact(s)), order)
		}
	})
}

// FuzzCompile gives the compiler any text. What compiles must evaluate, and its
// negation must be true of all other rows.
func FuzzCompile(f *testing.F) {
	for _, s := range []string{
		`flag && !(genre == "rpg") || year in [1, 2.5]`,
		`tags.exists(t, t == "a" || t.startsWith(user.s)) && has(price)`,
		`user.i <= year && released < timestamp("2024-01-01T00:00:00Z")`,
		`"a" in tags && genre in user.l && price >= -1.5e3`,
		`user.b ? 1 : [2, {"a": 3}][0].b`,
		"// comment\n'single' != genre && r\"raw\" == genre",
		`((((((((year == 0x1F))))))))`,
		"genre == \"\xff\"", "!", "a.b.c.d()", "timestamp('x')", "`year` > 1", "year in user.i",
	} {
		f.Add(s)
	}
	schema := parseSchema(f, allTypes)
	table := newTable(f, f.TempDir(), schema, parseRows(f, schema, `{"flag": true, "genre": "rpg", "year": 1, "price": 2.5, "tags": ["a", "b"], "released": "2020-01-01T00:00:00Z"}
{"genre": "a", "year": -1, "tags": ["ab"]}
{"flag": false, "price": 0}
{}`))
	values := map[string]any{"s": "a", "i": int64(1), "f": 0.5, "b": true, "l": []any{"a", "rpg"}, "t": time.Unix(0, 0)}
	f.Fuzz(func(t *testing.T, text string) {
		compiler, err := NewCompiler(schema)
		require.NoError(t, err)
		count := func(text string) (int, bool) {
			filter, err := compiler.Compile(text)
			if err != nil {
				var e *Error
				require.ErrorAs(t, err, &e)
				require.Positive(t, e.Line)
				require.Positive(t, e.Column)
				require.NotEmpty(t, e.Message)
				return 0, false
			}
			bound, err := filter.Bind(ctx, values)
			if err != nil {
				var e *BindError
				require.ErrorAs(t, err, &e)
				require.Contains(t, filter.Bindings(), e.Binding)
				return 0, false
			}
			eligible, all, clause := index.NewBitset(table.Rows()), index.NewBitset(table.Rows()), index.NewBitset(table.Rows())
			n := eval(t, bound, table, eligible)
			all.Fill(table.Rows())
			for _, c := range clauses(t, bound) {
				eval(t, c, table, clause)
				all.And(clause)
				_, err := compiler.Compile(c.String())
				require.NoError(t, err, "clause %q", c)
			}
			require.Equal(t, eligible, all)
			return n, true
		}
		if yes, ok := count(text); ok {
			if no, ok := count("!(" + text + "\n)"); ok {
				require.Equal(t, table.Rows(), yes+no)
			}
		}
	})
}
