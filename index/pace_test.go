package index_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// TestDone ends searches that have only begun, whatever their plan: they do a small part
// of their work. One that is shorter than a look is not worth ending. With a pause they find
// the same, and take it.
func TestDone(t *testing.T) {
	const rows, dim = 20_000, 64
	r := random(1)
	x := build(t, dim, gaussian(r, rows, dim), index.DefaultParams(index.Dot))
	half := index.NewBitset(rows)
	for i := range uint32(rows / 2) {
		half.Set(2 * i)
	}
	done := make(chan struct{})
	close(done)
	open := make(chan struct{})
	for name, q := range map[string]index.Query{
		"graph walk":    {K: 10, Ef: rows, Plan: index.GraphWalk},
		"filtered walk": {K: 10, Ef: rows / 4, Plan: index.GraphWalk, Filter: half, Eligible: rows / 2},
		"exact scan":    {K: rows, Plan: index.ExactScan},
		"filtered scan": {K: rows / 2, Plan: index.ExactScan, Filter: half, Eligible: rows / 2},
	} {
		t.Run(name, func(t *testing.T) {
			q.Vector = gaussian(r, 1, dim)[0]
			q.Done = open
			hits, all, err := x.Search(q, nil)
			require.NoError(t, err)
			q.Done = nil
			want, _, err := x.Search(q, nil)
			require.NoError(t, err)
			require.Equal(t, want, hits)
			paused := 0
			q.Pause = func() { paused++ }
			hits, _, err = x.Search(q, nil)
			require.NoError(t, err)
			require.Equal(t, want, hits)
			require.Positive(t, paused)
			q.Pause = nil
			q.Done = done
			hits, ended, err := x.Search(q, nil)
			require.ErrorIs(t, err, index.ErrStopped)
			require.Empty(t, hits)
			if all.Plan != index.ExactScan {
				require.Less(t, ended.Expanded, all.Expanded/10)
			}
			q.K, q.Ef, q.Plan, q.Filter = 1, 1, index.GraphWalk, nil
			_, _, err = x.Search(q, nil)
			require.NoError(t, err)
		})
	}
}
