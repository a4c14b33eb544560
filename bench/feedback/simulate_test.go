package feedback_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/feedback"
)

// TestRun has a small simulation find what a large one does: the better arm has the higher rate and
// is ahead more often, interleaving takes fewer requests and finds it about as often as planned,
// and equal arms are found different about as often as the level says.
func TestRun(t *testing.T) {
	o := feedback.Options{Seed: 1, Effects: []float64{0.3}, Common: 0.9, Requests: 2000, Null: 200, NullRequests: 300}
	report, err := feedback.Run(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, report.Rows, 2)
	for _, r := range report.Rows {
		require.Greater(t, r.Rates[1], r.Rates[0], r.Clicks)
		require.Greater(t, r.Prefer, 0.5, r.Clicks)
		require.Less(t, r.Ratio, 0.5, r.Clicks)
		for _, power := range r.Powers {
			require.InDelta(t, 0.8, power, 0.1, r.Clicks) // five standard deviations of 400
		}
	}
	for _, n := range report.Nulls {
		require.Less(t, n.Interleaved, 200/20+16, n.Clicks) // five standard deviations above
		require.Less(t, n.Compared, 200/20+16, n.Clicks)
		require.Positive(t, n.Interleaved+n.Compared, n.Clicks)
	}
	again, err := feedback.Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, report, again)
}

// TestOptions has each option refused by its name.
func TestOptions(t *testing.T) {
	good := feedback.Options{Effects: feedback.DefaultEffects, Requests: 1000, Null: 1, NullRequests: 1}
	require.NoError(t, good.Validate())
	for want, change := range map[string]func(*feedback.Options){
		"effect is 0; accepted: above 0, up to 10":   func(o *feedback.Options) { o.Effects = []float64{0} },
		"effect has 0 numbers; accepted: 1 to 20":    func(o *feedback.Options) { o.Effects = nil },
		"common is 1; accepted: 0 up to below 1":     func(o *feedback.Options) { o.Common = 1 },
		"requests is 1; accepted: 100 to 10000000":   func(o *feedback.Options) { o.Requests = 1 },
		"null is 0; accepted: 1 to 1000000":          func(o *feedback.Options) { o.Null = 0 },
		"null requests is 0; accepted: 1 to 1000000": func(o *feedback.Options) { o.NullRequests = 0 },
	} {
		o := good
		change(&o)
		require.EqualError(t, o.Validate(), want)
	}
}
