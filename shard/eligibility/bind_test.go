package eligibility

import (
	"context"
	"fmt"
	"math"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// TestFloat32s compares a float32 attribute with numbers, in the text and bound, as Go
// compares float32s.
func TestFloat32s(t *testing.T) {
	schema := parseSchema(t, "price float32")
	compiler, err := NewCompiler(schema)
	require.NoError(t, err)
	dir := t.TempDir()
	single := rapid.OneOf(rapid.Float32(), rapid.SampledFrom([]float32{0, 9.99, 0.1, 1 << 24, math.MaxFloat32, math.SmallestNonzeroFloat32}))
	// Near a float32, and between two of them.
	number := rapid.OneOf(rapid.Float64(), rapid.Custom(func(t *rapid.T) float64 {
		f := single.Draw(t, "near")
		next := math.Nextafter32(f, float32(rapid.SampledFrom([]float64{math.Inf(1), math.Inf(-1)}).Draw(t, "to")))
		if math.IsInf(float64(next), 0) {
			next = f
		}
		between := float64(f)/2 + float64(next)/2
		return rapid.SampledFrom([]float64{float64(f), between, math.Nextafter(between, 0), math.Nextafter(between, math.Inf(1))}).Draw(t, "at")
	}))
	rapid.Check(t, func(rt *rapid.T) {
		prices := rapid.SliceOfN(single, 1, 20).Draw(rt, "prices")
		var rows []map[string]attribute.Value
		for _, p := range prices {
			rows = append(rows, map[string]attribute.Value{"price": attribute.OfFloat32(p)})
		}
		table := newTable(t, dir, schema, rows)
		c := number.Draw(rt, "constant")
		if rapid.Bool().Draw(rt, "a price") {
			c = rapid.SampledFrom(rows).Draw(rt, "row")["price"].Float() // as it is shown
		}
		other := number.Draw(rt, "other")
		for op, holds := range map[string]func(a, b float32) bool{
			"==": func(a, b float32) bool { return a == b }, "!=": func(a, b float32) bool { return a != b },
			"<": func(a, b float32) bool { return a < b }, "<=": func(a, b float32) bool { return a <= b },
			">": func(a, b float32) bool { return a > b }, ">=": func(a, b float32) bool { return a >= b },
			"in": func(a, b float32) bool { return a == b || a == float32(other) },
		} {
			texts := []string{fmt.Sprintf("price %s %s", op, literal(c)), fmt.Sprintf("price %s user.c", op)}
			if op == "in" {
				texts = []string{fmt.Sprintf("price in [%s, %s]", literal(other), literal(c)), "price in user.l"}
			}
			for _, text := range texts {
				filter, err := compiler.Compile(text)
				require.NoError(rt, err, text)
				bound, err := filter.Bind(ctx, map[string]any{"c": c, "l": []any{c, other, c}})
				require.NoError(rt, err, text)
				dst := index.NewBitset(len(rows))
				eval(rt, bound, table, dst)
				for i, p := range prices {
					require.Equal(rt, holds(p, float32(c)), dst.Has(uint32(i)), "%v: %s, c is %v", p, text, c)
				}
			}
		}
	})
}

// literal writes a float as the language has it, never as an int.
func literal(f float64) string {
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// TestDecimalStrings compares int and float attributes with ints of all sizes, as
// bindings carry them from JSON: small ones as numbers, others as strings.
func TestDecimalStrings(t *testing.T) {
	schema := parseSchema(t, "id int\nprice float")
	compiler, err := NewCompiler(schema)
	require.NoError(t, err)
	dir := t.TempDir()
	ints := rapid.OneOf(rapid.Int64(), rapid.Int64Range(-3, 3), rapid.Custom(func(t *rapid.T) int64 {
		end := rapid.SampledFrom([]int64{math.MinInt64 + 3, math.MaxInt64 - 3, 1 << 53, -1 << 53}).Draw(t, "end")
		return end + rapid.Int64Range(-3, 3).Draw(t, "off")
	}))
	rapid.Check(t, func(rt *rapid.T) {
		ids := rapid.SliceOfN(ints, 1, 20).Draw(rt, "ids")
		var rows []map[string]attribute.Value
		for _, id := range ids {
			rows = append(rows, map[string]attribute.Value{"id": attribute.OfInt(id), "price": attribute.OfFloat(float64(id))})
		}
		table := newTable(t, dir, schema, rows)
		bind := func(i int64, name string) any {
			if i > -two53 && i < two53 && rapid.Bool().Draw(rt, name) {
				return float64(i)
			}
			return strconv.FormatInt(i, 10)
		}
		x, y := ints.Draw(rt, "x"), rapid.SampledFrom(ids).Draw(rt, "y")
		values := map[string]any{"x": bind(x, "x as a number"), "l": []any{bind(y, "y as a number"), bind(x, "and x")}}
		for text, want := range map[string]func(id int64) bool{
			"id == user.x": func(id int64) bool { return id == x }, "id != user.x": func(id int64) bool { return id != x },
			"id < user.x": func(id int64) bool { return id < x }, "user.x <= id": func(id int64) bool { return x <= id },
			"!(id in user.l)":                           func(id int64) bool { return id != x && id != y },
			"id in [user.x, " + fmt.Sprint(y/2) + "]":   func(id int64) bool { return id == x || id == y/2 },
			"user.x in user.l":                          func(int64) bool { return true },
			"user.x == " + fmt.Sprint(y/2):              func(int64) bool { return x == y/2 },
			"user.x < " + fmt.Sprint(y/2):               func(int64) bool { return x < y/2 },
			"price < user.x":                            func(id int64) bool { return compareFloat(float64(id), x) < 0 },
			"price in user.l":                           func(id int64) bool { return compareFloat(float64(id), x) == 0 || compareFloat(float64(id), y) == 0 },
			fmt.Sprintf("%d in user.l", x/2):            func(int64) bool { return x/2 == x || x/2 == y },
			fmt.Sprintf("user.x in [%d, %d]", y/2, x/2): func(int64) bool { return x == y/2 || x == x/2 },
		} {
			filter, err := compiler.Compile(text)
			require.NoError(rt, err, text)
			bound, err := filter.Bind(ctx, values)
			require.NoError(rt, err, text)
			dst := index.NewBitset(len(rows))
			eval(rt, bound, table, dst)
			for i, id := range ids {
				require.Equal(rt, want(id), dst.Has(uint32(i)), "%d: %s, %v", id, text, values)
			}
		}
	})
}

// TestRoundedNumbers: a double that several ints become is never taken for one of them.
func TestRoundedNumbers(t *testing.T) {
	compiler, err := NewCompiler(parseSchema(t, "id int\nprice float\nscore float32"))
	require.NoError(t, err)
	for _, big := range []float64{two53, -two53, two53 + 2, 1e19, math.Inf(1)} {
		values := map[string]any{"x": big, "y": 1.0, "l": []any{1.0, big}}
		for _, text := range []string{
			"id == user.x", "id < user.x", "id in user.l", "id in [user.x]", "user.x == 5", "5 in user.l", "user.x == user.y", "user.y < user.x",
			"user.y in user.l", "user.x in user.l", "user.x in [1, 2]",
		} {
			filter, err := compiler.Compile(text)
			require.NoError(t, err)
			_, err = filter.Bind(ctx, values)
			var e *BindError
			require.ErrorAs(t, err, &e, text)
			assert.Contains(t, e.Message, "want a decimal string", text)
		}
		for _, text := range []string{"price == user.x", "score < user.x", "price in user.l", "user.x > 1.5", "user.x in [1.5, 2.5]"} {
			filter, err := compiler.Compile(text)
			require.NoError(t, err)
			_, err = filter.Bind(ctx, values)
			assert.NoError(t, err, text)
		}
	}
}

// longList returns a list of n strings.
func longList(n int) []any {
	list := make([]any, n)
	for i := range list {
		list[i] = "genre-" + strconv.Itoa(i)
	}
	return list
}

// TestListsAreConvertedOnce: what a filter needs does not grow with how often it uses a
// list.
func TestListsAreConvertedOnce(t *testing.T) {
	compiler, err := NewCompiler(parseSchema(t, "genre keyword\ntags keyword_list"))
	require.NoError(t, err)
	const n = 4000
	list := longList(n)
	bytes := func(uses int) (allocated uint64) {
		text := strings.Repeat("!(genre in user.l) || ", uses/2) + strings.Repeat(`"x" in user.l || `, uses/2) + "false"
		filter, err := compiler.Compile(text)
		require.NoError(t, err)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err = filter.Bind(ctx, map[string]any{"l": list})
		runtime.ReadMemStats(&after)
		require.NoError(t, err)
		return after.TotalAlloc - before.TotalAlloc
	}
	bytes(2) // whatever is made once
	once, often := bytes(2), bytes(800)
	assert.Less(t, often, once+800*n*8, "800 uses of %d elements allocate %d bytes, 2 allocate %d", n, often, once)
}

func TestListUsesAreBounded(t *testing.T) {
	compiler, err := NewCompiler(parseSchema(t, "genre keyword"))
	require.NoError(t, err)
	text := strings.Repeat("genre in user.l || ", 700) + "genre in user.other"
	filter, err := compiler.Compile(text)
	require.NoError(t, err)
	other := []any{"rpg"}
	_, err = filter.Bind(ctx, map[string]any{"l": longList(MaxListUses / 700), "other": other})
	require.NoError(t, err)
	_, err = filter.Bind(ctx, map[string]any{"l": longList(MaxListUses/700 + 1), "other": other})
	require.EqualError(t, err, "filter: binding user.l: a list of 5992 elements that the filter uses 700 times, which with other lists makes 4194401; accepted: up to 4194304")
}

// TestDuplicatesCollapse: an element that a list has twice is looked for once.
func TestDuplicatesCollapse(t *testing.T) {
	compiler, err := NewCompiler(parseSchema(t, "flag bool\ngenre keyword\nid int\nprice float32\nuntil timestamp"))
	require.NoError(t, err)
	for text, list := range map[string][]any{
		"flag in user.l":  {true, true},
		"genre in user.l": {"a", "a", "a"},
		"id in user.l":    {5.0, 5.0, "7", int64(7), "7"},
		"price in user.l": {0.1, float64(float32(0.1)), "16777217", 16777216.0},
		"until in user.l": {"3000-01-01T00:00:00Z", "3000-01-01T01:00:00+01:00"},
	} {
		filter, err := compiler.Compile(text)
		require.NoError(t, err)
		bound, err := filter.Bind(ctx, map[string]any{"l": list})
		require.NoError(t, err)
		assert.LessOrEqual(t, bound.root.leaf.len(), 2, text)
	}
}

// TestContextsEnd: binding and evaluating end soon after the context does, and say so.
func TestContextsEnd(t *testing.T) {
	schema := parseSchema(t, "genre keyword\ntags keyword_list")
	compiler, err := NewCompiler(schema)
	require.NoError(t, err)
	var rows []map[string]attribute.Value
	for i := range 2000 {
		rows = append(rows, map[string]attribute.Value{"genre": attribute.OfKeyword(fmt.Sprint("genre-", i))})
	}
	table := newTable(t, t.TempDir(), schema, rows)
	filter, err := compiler.Compile(strings.Repeat("genre in user.l || ", 38) + `"x" in user.l && !("genre-1" in user.l)`)
	require.NoError(t, err)
	values := map[string]any{"l": longList(100_000 - 2)}
	bound, err := filter.Bind(ctx, values)
	require.NoError(t, err)
	dst := index.NewBitset(len(rows))

	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err = filter.Bind(ended, values)
	require.ErrorIs(t, err, context.Canceled)
	_, err = bound.Clauses(ended)
	require.ErrorIs(t, err, context.Canceled)
	_, err = bound.Eval(ended, table, dst)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, len(rows), eval(t, bound, table, dst), "what ended must leave nothing behind")

	slow, cancel := context.WithTimeout(ctx, 5*time.Millisecond) // in the midst of it: it takes some 100
	defer cancel()
	_, err = bound.Eval(slow, table, dst)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

// TestBindings makes a filter again of what a bound one says of itself.
func TestBindings(t *testing.T) {
	const all = `flag == user.b && year > user.i && price < user.f && genre == user.s && at < user.t && year in user.l && year > user.i`
	schema := parseSchema(t, "flag bool\nyear int\nprice float\ngenre keyword\nat timestamp")
	here, err := NewCompiler(schema)
	require.NoError(t, err)
	there, err := NewCompiler(schema)
	require.NoError(t, err)
	values := map[string]any{
		"b": true, "i": int64(math.MinInt64), "f": math.Inf(1), "s": "12", "l": []any{int64(1), 2.0, "3"},
		"t": time.Date(2024, 1, 2, 3, 4, 5, 6, time.UTC),
	}
	bind := func(c *Compiler, text string, values map[string]any) Bound {
		filter, err := c.Compile(text)
		require.NoError(t, err)
		bound, err := filter.Bind(t.Context(), values)
		require.NoError(t, err)
		return bound
	}
	bound := bind(here, all, values)
	require.Equal(t, values, bound.Bindings())
	require.Equal(t, bound.root, bind(there, bound.String(), bound.Bindings()).root)
	values["other"] = "is used by no filter"
	values["b"] = false
	require.NotContains(t, bind(here, all, values).Bindings(), "other")
	require.Equal(t, false, bind(here, all, values).Bindings()["b"])
	require.Nil(t, bind(here, "year > 5", values).Bindings())
}
