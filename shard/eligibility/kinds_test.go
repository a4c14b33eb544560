package eligibility

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestKinds: what a filter can be bound to depends on the kinds of the values alone.
func TestKinds(t *testing.T) {
	schema := parseSchema(t, "word keyword\nwords keyword_list\nflag bool\nn int\nx float\nx32 float32\nat timestamp")
	compiler, err := NewCompiler(schema)
	require.NoError(t, err)
	scalars := map[Kind][]any{
		KindBool: {true, false}, KindInt: {int64(0), int64(math.MinInt64)}, KindFloat: {0.0, -3.5, 17.0}, KindLarge: {float64(two53), math.Inf(-1)},
		KindString:  {"", "teen", "99999999999999999999", "2024-13-01T00:00:00Z", "-", "1.5"},
		KindDecimal: {"0", "-12", "9223372036854775807"}, KindTime: {"2024-01-01T00:00:00Z", "1999-12-31T23:59:59.5+02:00"},
		KindInstant: {time.Unix(0, 0)}, KindOther: {nil, math.NaN(), map[string]any{}},
	}
	var values []any
	kinds := map[int]Kind{}
	add := func(kind Kind, v any) {
		require.True(t, kind.Known(), kind)
		kinds[len(values)] = kind
		values = append(values, v)
	}
	for kind, list := range scalars {
		for _, v := range list {
			require.Equal(t, kind, KindOf(v), "%v", v)
			add(kind, v)
			add(KindOfList(kind), []any{v, v})
			add(KindOfList(KindString, kind, KindString), []any{v, "teen", v})
		}
	}
	add(KindOfList(), []any{})
	for _, text := range []string{
		"word == user.a", "word < user.a", "word.startsWith(user.a)", "user.a in words", "word in user.a", "flag == user.a", "n < user.a", "n in user.a",
		"n in [1, user.a]", "x >= user.a", "x32 != user.a", "x in user.a", "at > user.a", "at in user.a", "user.a", "!user.a", "user.a == 3", "user.a < 3.5",
		`user.a == "teen"`, "user.a in [1, 2]", "1 in user.a", "user.a == user.a", "free && user.a", "n == 1",
	} {
		filter, err := compiler.Compile(text)
		if err != nil {
			continue // no filter, whatever is bound
		}
		for i, v := range values {
			_, want := filter.Bind(t.Context(), map[string]any{"a": v})
			got := filter.BindKinds(t.Context(), map[string]Kind{"a": kinds[i]})
			assert.Equal(t, want == nil, got == nil, "%s with %s %v: %v, %v", text, kinds[i], v, want, got)
		}
		assert.Equal(t, len(filter.Bindings()) > 0, filter.BindKinds(t.Context(), nil) != nil, "nothing is bound")
	}
	filter, err := compiler.Compile("n == user.a")
	require.NoError(t, err)
	require.EqualError(t, filter.BindKinds(t.Context(), map[string]Kind{"a": KindString}),
		`filter: binding user.a: attribute n (int) is compared with a number or a decimal string, not with string "..."`)
	require.Equal(t, Kind("list of float, string"), KindOfList(KindString, KindFloat, KindString))
	for _, kind := range []Kind{"", "list of", "list of ", "list of list", "vector", "list of float,string"} {
		require.False(t, kind.Known(), kind)
	}
}
