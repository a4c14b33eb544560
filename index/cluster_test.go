package index_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// Clusters of more rows than a list has places, far apart in many dimensions, do
// not become islands.
func TestWalkBetweenClusters(t *testing.T) {
	const rows, dim, clusters, k, ef = 2000, 384, 20, 10, 100
	r := random(7)
	middles := gaussian(r, clusters, dim)
	near := func(n int) [][]float32 {
		out := gaussian(r, n, dim)
		for i, v := range out {
			for j := range v {
				v[j] = middles[i%clusters][j] + 0.4*v[j]
			}
		}
		return out
	}
	x := build(t, dim, near(rows), index.DefaultParams(index.Cosine))
	got, scored := recall(t, x, near(100), k, ef)
	t.Logf("recall %.4f of %d scored", got, scored)
	require.GreaterOrEqual(t, got, 0.99)
}
