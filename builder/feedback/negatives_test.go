package feedback_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/feedback"
	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// TestNegatives has apps that were eligible follow what was served of a request of the day, be counted,
// and change no report.
func TestNegatives(t *testing.T) {
	store := objectstest.NewFaults()
	l := many(4, 4)
	l.queries[0][3].Snapshot = "gone"
	l.queries[0][3].Time = day.Add(-1) // not of the day: nothing is drawn
	l.queries[0][2].Snapshot = "gone"
	l.put(t, store)
	bucket := store.Bucket("x")
	o := options()
	_, err := feedback.Join(t.Context(), bucket, o)
	require.NoError(t, err)
	plain, err := feedback.Measure(t.Context(), bucket, measureOptions())
	require.NoError(t, err)

	asked := 0
	o.Negatives = 2
	o.Eligible = func(_ context.Context, q *querylog.Query, n int) ([]querylog.Candidate, bool, error) {
		asked++
		require.Equal(t, 2, n)
		switch q.RequestID {
		case "r0":
			return []querylog.Candidate{{ID: "x", Score: 0.5}, {ID: "y", Score: 0.25}}, true, nil
		case "r1":
			return []querylog.Candidate{{ID: "z"}}, true, nil
		}
		return nil, false, nil
	}
	done, err := feedback.Join(t.Context(), bucket, o)
	require.NoError(t, err)
	require.True(t, done.Changed, "how many are drawn is another number")
	require.Equal(t, 3, asked)
	c := done.Set.Counts
	require.Equal(t, []int64{3, 1, 1}, []int64{c.Eligible, c.EligibleUnknown, c.EligibleShort})
	got := map[string][]joined.Row{}
	for r, err := range done.Set.Rows(t.Context(), bucket) {
		require.NoError(t, err)
		if r.Role == joined.RoleEligible {
			got[r.RequestID] = append(got[r.RequestID], *r)
		}
	}
	require.Len(t, got["r0"], 2)
	require.Equal(t, []any{"x", float32(0.5), int64(0), "u0", "x"}, []any{got["r0"][0].AppID, got["r0"][0].Score, got["r0"][0].Rank, got["r0"][0].UserID, got["r0"][0].Arm})
	require.Len(t, got["r1"], 1)
	report, err := feedback.Measure(t.Context(), bucket, measureOptions())
	require.NoError(t, err)
	report.Days, plain.Days = nil, nil // the generation
	require.Equal(t, plain, report)

	again, err := feedback.Join(t.Context(), bucket, o)
	require.NoError(t, err)
	require.False(t, again.Fresh)

	o.Again, o.Eligible = true, func(context.Context, *querylog.Query, int) ([]querylog.Candidate, bool, error) {
		return nil, false, errors.New("no disk")
	}
	_, err = feedback.Join(t.Context(), bucket, o)
	require.EqualError(t, err, "join 2026-11-25: draw eligible apps of the request \"r0\": no disk")
	o.Negatives = 101
	require.EqualError(t, o.Validate(), "negatives is 101; accepted: 0 to 100")
}
