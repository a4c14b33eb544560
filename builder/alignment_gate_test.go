package builder_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Where the best of few apps are a large part of them, any vectors find much of what users
// interacted with: towers that belong together pass all the same, and others do not.
func TestAlignmentOfFewApps(t *testing.T) {
	aligned := func(tw *towers) gates.Row {
		o := tw.options(t, "1")
		o.Interactions = []string{tw.interactions}
		_, report := build(t, o)
		return rowOf(report, gates.Alignment)
	}
	for _, apps := range []int{40, 110, 150, 300} {
		tw := syntheticTowers(t, apps, 400)
		tw.segments = ""
		row := aligned(tw)
		require.Equal(t, manifest.GatePassed, row.State, "%d apps: %s", apps, row.Why)
		other := tw.clone()
		other.users = rotated(other.users, 3)
		row = aligned(other)
		require.Equal(t, manifest.GateFailed, row.State, "%d apps of another training", apps)
		require.Contains(t, row.Why, "the towers do not belong together")
	}
	few := syntheticTowers(t, 10, 100)
	few.segments = ""
	o := few.options(t, "1")
	o.Interactions = []string{few.interactions}
	store, report := build(t, o)
	require.Equal(t, manifest.GateInconclusive, rowOf(report, gates.Alignment).State)
	require.Equal(t, "with at most 10 apps everybody is given all", rowOf(report, gates.Alignment).Why)
	verdict, err := gates.Judge(t.Context(), store, report.Digest)
	require.NoError(t, err)
	require.Contains(t, verdict.Unproved(), "alignment inconclusive: with at most 10 apps")
}
