package gates

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// withAge returns a manifest whose apps have an attribute of a type.
func withAge(t *testing.T, typ attribute.Type) *manifest.Manifest {
	schema, err := attribute.NewSchema([]attribute.Field{{Name: "age", Type: typ}})
	require.NoError(t, err)
	return &manifest.Manifest{Apps: manifest.Tower{Schema: schema}}
}

// Whether a filter can be bound is judged by the kinds of its bindings; of queries that do
// not tell them only the filter is looked at.
func TestBindingsOfLiveFilters(t *testing.T) {
	const byAge = "age <= user.age"
	filter := func(tower shard.Kind, text string, kinds map[string]eligibility.Kind) querylog.LiveFilter {
		return querylog.LiveFilter{Tower: tower, Expression: text, Bindings: kinds, Queries: 10}
	}
	age := func(k eligibility.Kind) map[string]eligibility.Kind { return map[string]eligibility.Kind{"age": k} }
	for name, test := range map[string]struct {
		filter querylog.LiveFilter
		share  float64 // that fails
		why    string
		not    string // run
	}{
		"a decimal":                {filter: filter(shard.Apps, byAge, age(eligibility.KindDecimal))},
		"a string":                 {filter: filter(shard.Apps, byAge, age(eligibility.KindString)), share: 1, why: "attribute age (int) is compared with a number or a decimal string"},
		"nothing bound":            {filter: filter(shard.Apps, byAge, map[string]eligibility.Kind{}), share: 1, why: "does not bind it"},
		"kinds not told":           {filter: filter(shard.Apps, byAge, nil), not: "10 recorded queries do not say of what kinds their bindings were"},
		"no bindings":              {filter: filter("", "age == 3", nil)},
		"neither told":             {filter: filter("", byAge, nil), not: "10 recorded queries do not say"},
		"not of the tower":         {filter: filter(shard.Users, byAge, nil), share: 1, why: "age"},
		"of neither of the towers": {filter: filter("", "price < 3", nil), share: 1, why: "price"},
	} {
		read := func(context.Context) (*querylog.LiveFilters, error) {
			return &querylog.LiveFilters{List: []querylog.LiveFilter{test.filter}, Queries: 10, Since: time.Unix(0, 0)}, nil
		}
		f, err := CheckFilters(t.Context(), withAge(t, attribute.Int), nil, DefaultThresholds(), read)
		require.NoError(t, err)
		require.Equal(t, test.share, f.Checks[0].Value, name)
		require.Contains(t, f.Checks[0].Text, test.why, name)
		require.Equal(t, test.not != "", len(f.Undecided) > 0, name)
		if test.not != "" {
			require.Equal(t, manifest.GateNotRun, f.Undecided[0].Undecided)
			require.Contains(t, f.Undecided[0].Text, test.not, name)
		}
	}
}
