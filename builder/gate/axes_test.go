package gate

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// What users interacted with settles what vectors alone seem to show, and neither a name nor
// a comparison with what serves is taken back by it.
func TestSettleAxes(t *testing.T) {
	found := func(aligned ...bool) *gates.Findings {
		f := &gates.Findings{}
		f.Add(gates.TrainingRun, "one training run", 1, manifest.BoundMin, 1, true, "both name it")
		f.Add(gates.Axes, agreement, 0.1, manifest.BoundMin, 4.5, false, apart+"they agree by 0.00")
		f.Add(gates.Axes, gates.FallOf+agreement, 0.1, manifest.BoundMin, 5, false, "much less than before")
		for _, passed := range aligned {
			f.Add(gates.Alignment, "hit-rate@10 against chance", 2, manifest.BoundMin, 1.5, passed, "")
		}
		return f
	}
	for _, aligned := range [][]bool{nil, {false}, {true, false}} {
		f := found(aligned...)
		settleAxes(f)
		require.Equal(t, found(aligned...), f, "aligned %v", aligned)
	}
	f := found(true, true)
	settleAxes(f)
	require.Len(t, f.Checks, 4)
	require.Equal(t, gates.FallOf+agreement, f.Checks[1].Subject)
	require.False(t, f.Checks[1].Passed)
	require.Len(t, f.Undecided, 1)
	require.Equal(t, manifest.GateInconclusive, f.Undecided[0].Undecided)
	require.Equal(t, settled+"they agree by 0.00", f.Undecided[0].Text)
}
