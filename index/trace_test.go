package index_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

func TestTrace(t *testing.T) {
	const dim = 9
	rows := clustered(random(1), 800, dim, 10, 0.5)
	for _, metric := range metrics {
		x := build(t, dim, rows, params(metric))
		var trace index.Trace
		for _, query := range gaussian(random(2), 20, dim) {
			q := index.Query{Vector: query, K: 5, Ef: 30, Plan: index.GraphWalk}
			want, stats, err := x.Search(q, nil)
			require.NoError(t, err)

			trace.Reset()
			q.Trace = &trace
			got, _, err := x.Search(q, nil)
			require.NoError(t, err)
			assert.Equal(t, want, got, "recording changes nothing")
			assert.Equal(t, stats.Scored, trace.Scored())

			best := x.Replay(query, trace.Clone())
			if metric == index.L2 {
				assert.Equal(t, want[0].Score, best)
			} else if metric == index.Dot {
				assert.Equal(t, want[0].Score, -best)
			}
			assert.Equal(t, stats.Scored, trace.Scored(), "a replay is not recorded")
		}
	}
}
