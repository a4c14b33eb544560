package index_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/interval"
)

// Efforts that are far from a target are measured with some of the queries only. What
// is kept is measured with all, and does not depend on threads.
func TestCalibrateWithManyQueries(t *testing.T) {
	const dim, queries = 16, 300
	for _, metric := range metrics {
		if raceEnabled && metric != index.Dot {
			continue
		}
		r := random(7)
		data := clustered(r, 2000+queries, dim, 40, 0.7)
		x := build(t, dim, data[:2000], params(metric))
		sample := data[2000:]
		var first []index.Effort
		for _, threads := range []int{1, 5} {
			calibrate(t, x, dim, sample, threads)
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
			got, _ := bounds(t, x, measured(sample, e.K), e.K, e.Ef)
			assert.InDelta(t, got, float64(e.Recall), 1e-6, "%v: %+v", metric, e)
			if e.Recall < e.Target || e.K == last.K && e.Ef == last.Ef {
				continue
			}
			last = e
			if less := e.Ef * 2 / 3; less > 0 {
				got, _ := bounds(t, x, measured(sample, e.K), e.K, less)
				assert.Less(t, got, float64(e.Target), "%v: ef %d would do for %+v", metric, less, e)
			}
		}
	}
}

// Efforts hold for queries that neither shaped nor calibrated: the recall of many others
// is at the target, or no further below it than chance has it.
func TestCalibrationHoldsForOthers(t *testing.T) {
	if raceEnabled {
		t.Skip("goroutines do not depend on the data")
	}
	const dim, rows, others = 12, 3000, 1500
	for seed := range uint64(6) {
		r := random(100 + seed)
		metric := metrics[seed%3]
		data := clustered(r, rows+300+others, dim, 60, 0.6)
		if metric == index.Dot {
			scaled(data[:rows], func(int) float64 { return math.Exp(0.7 * r.NormFloat64()) })
		}
		x := build(t, dim, data[:rows], params(metric))
		calibrate(t, x, dim, data[rows:rows+300], 2)
		for _, e := range x.Effort() {
			if e.K > 100 || e.Recall < e.Target {
				continue
			}
			_, upper := bounds(t, x, data[rows+300:], e.K, e.Ef)
			assert.GreaterOrEqual(t, upper, float64(e.Target), "%v, seed %d: %+v", metric, seed, e)
		}
	}
}

// However few queries there are, no effort is said to reach what they cannot show.
func TestCalibrationByFewQueries(t *testing.T) {
	r := random(8)
	data := clustered(r, 1012, 8, 10, 0.5)
	x := build(t, 8, data[:1000], params(index.L2))
	calibrate(t, x, 8, data[1000:], 1)
	for _, e := range x.Effort() {
		if e.K > 10 {
			continue
		}
		// Eight queries for ten rows of which none is missed.
		assert.LessOrEqual(t, float64(e.Recall), interval.Lower(1, 80, interval.Z99)+1e-6)
		assert.Equal(t, e.Target <= 0.93, x.EffortFor(10, float64(e.Target)) > 0, "%+v", e)
	}
}

// Without queries that shape, walks start where the build chose, and efforts are found.
func TestCalibrationWithoutShape(t *testing.T) {
	data := clustered(random(9), 1300, 8, 10, 0.5)
	x := build(t, 8, data[:1000], params(index.Dot))
	require.NoError(t, x.Calibrate(t.Context(), matrix(t, 8, nil), matrix(t, 8, data[1000:]), 2))
	assert.Positive(t, x.EffortFor(10, 0.9))
}
