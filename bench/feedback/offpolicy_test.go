package feedback_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/feedback"
)

// TestRunOffPolicy has intervals cover the true value at about the nominal rate, and estimates be
// about it, in a small simulation.
func TestRunOffPolicy(t *testing.T) {
	o := feedback.OffPolicyOptions{Seed: 1, Runs: 200, Users: 150, Share: 0.3}
	report, err := feedback.RunOffPolicy(t.Context(), o)
	require.NoError(t, err)
	require.Len(t, report.Rows, 9)
	for _, r := range report.Rows {
		what := r.Policy + " " + r.Estimate
		// Four standard deviations of 200 at 95%, and what a normal interval lacks of few users.
		require.InDelta(t, 0.95, float64(r.Covered)/200, 0.07, what)
		// The width is four standard errors of one, of which there are 200.
		require.Less(t, math.Abs(r.Mean-r.True), r.Width/math.Sqrt(200)*1.2, what)
	}
	again, err := feedback.RunOffPolicy(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, report, again)
	for want, change := range map[string]func(*feedback.OffPolicyOptions){
		"runs is 0; accepted: 1 to 1000000":         func(o *feedback.OffPolicyOptions) { o.Runs = 0 },
		"users is 1; accepted: 2 to 1000000":        func(o *feedback.OffPolicyOptions) { o.Users = 1 },
		"share is 1; accepted: above 0 and below 1": func(o *feedback.OffPolicyOptions) { o.Share = 1 },
	} {
		o := o
		change(&o)
		require.EqualError(t, o.Validate(), want)
	}
}
