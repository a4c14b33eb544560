package index_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// Efforts that are far from a target are measured with some of the queries only. What
// is kept is measured with all, and does not depend on threads.
func TestCalibrateWithManyQueries(t *testing.T) {
	const dim, queries = 16, 300
	for _, metric := range metrics {
		r := random(7)
		data := clustered(r, 2000+queries, dim, 40, 0.7)
		x := build(t, dim, data[:2000], params(metric))
		sample := data[2000:]
		var first []index.Effort
		for _, threads := range []int{1, 5} {
			require.NoError(t, x.Calibrate(t.Context(), matrix(t, dim, sample), threads))
			if first == nil {
				first = x.Effort()
			}
			require.Equal(t, first, x.Effort(), "%d threads", threads)
		}
		last := index.Effort{}
		for _, e := range first {
			if e.K > 100 {
				break
			}
			got, _ := recall(t, x, sample, e.K, e.Ef)
			assert.InDelta(t, got, float64(e.Recall), 1e-6, "%v: %+v", metric, e)
			if e.Recall < e.Target || e.K == last.K && e.Ef == last.Ef {
				continue
			}
			last = e
			if less := e.Ef * 2 / 3; less > 0 {
				got, _ := recall(t, x, sample, e.K, less)
				assert.Less(t, got, float64(e.Target+(1-e.Target)*0.1), "%v: ef %d would do for %+v", metric, less, e)
			}
		}
	}
}
