package index_test

import (
	"context"
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections/sectionstest"
)

// calibrated is an index that the bands 10, 100 and 1000 apply to.
func calibrated(t *testing.T, metric index.Metric) (x *index.Index, sample, others [][]float32) {
	t.Helper()
	r := random(5)
	data := clustered(r, 4500, 16, 40, 0.7)
	x = build(t, 16, data[:4000], params(metric))
	sample, others = data[4000:4200], data[4200:]
	calibrate(t, x, 16, sample, 2)
	return x, sample, others
}

func TestCalibrate(t *testing.T) {
	for _, metric := range metrics {
		if raceEnabled && metric != index.Dot {
			continue
		}
		t.Run(metric.String(), func(t *testing.T) {
			x, sample, others := calibrated(t, metric)
			efforts := x.Effort()
			require.NotEmpty(t, efforts)
			i := 0
			for _, k := range []int{10, 30, 100, 300, 1000} {
				for _, target := range index.Targets {
					e := efforts[i]
					i++
					require.Equal(t, k, e.K)
					require.Equal(t, target, e.Target)
					assert.Positive(t, e.Ef)
					by := measured(sample, k)
					got, _ := bounds(t, x, by, k, e.Ef)
					assert.InDelta(t, got, float64(e.Recall), 1e-6, "%+v", e)
					_, scored := recall(t, x, by, k, e.Ef)
					assert.InDelta(t, float64(scored), float64(e.Scored), 1, "%+v", e)
					if e.Recall < e.Target {
						// Not reached by a walk cheaper than the scan, so Auto scans.
						_, stats := search(t, x, index.Query{Vector: sample[0], K: k, Ef: x.EffortFor(k, float64(target))})
						assert.Equal(t, index.ExactScan, stats.Plan, "%+v", e)
					}
				}
			}
			require.Len(t, efforts, i)

			// Other queries of the distribution get what they were promised.
			for _, k := range []int{10, 30, 100} {
				for _, target := range []float64{0.9, 0.95, 0.99} {
					found := 0
					for _, q := range others {
						exact, _ := search(t, x, index.Query{Vector: q, K: k})
						hits, _ := search(t, x, index.Query{Vector: q, K: k, Ef: x.EffortFor(k, target)})
						for _, h := range hits {
							if !metric.Better(exact[k-1].Score, h.Score) {
								found++
							}
						}
					}
					got := float64(found) / float64(k*len(others))
					assert.GreaterOrEqual(t, got, target-0.02, "k %d, target %v", k, target)
				}
			}
		})
	}
}

// withEffort is an index that was calibrated to just this.
func withEffort(t *testing.T, effort []index.Effort) *index.Index {
	t.Helper()
	c := unpack(t, encode(t, tiny(t, index.Dot)))
	var data []byte
	for _, e := range effort {
		data = binary.LittleEndian.AppendUint32(data, uint32(e.K))
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(e.Target))
		data = binary.LittleEndian.AppendUint32(data, uint32(e.Ef))
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(e.Recall))
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(e.Scored))
	}
	c[c.At("index.effort")].Data = data
	x, err := openBytes(pack(c))
	require.NoError(t, err)
	require.Equal(t, effort, x.Effort())
	return x
}

func TestEffortFor(t *testing.T) {
	var records []index.Effort
	for _, band := range []struct {
		k   int
		efs [len(index.Targets)]int
	}{
		{10, [...]int{4, 7, 18, 60}},
		{100, [...]int{30, 45, 110, 500}},
		{1000, [...]int{200, 400, 1100, 5000}},
	} {
		for i, target := range index.Targets {
			records = append(records, index.Effort{K: band.k, Target: target, Ef: band.efs[i], Recall: 1, Scored: 2000})
		}
	}
	x := withEffort(t, records)
	efforts := map[int]map[float32]index.Effort{}
	for _, e := range records {
		if efforts[e.K] == nil {
			efforts[e.K] = map[float32]index.Effort{}
		}
		efforts[e.K][e.Target] = e
	}
	// 0 asks for the exact scan, which no effort is above.
	effort := func(k int, target float64) int {
		if ef := x.EffortFor(k, target); ef != 0 {
			return ef
		}
		return math.MaxInt
	}
	targets := []float64{0, 0.5, 0.9, 0.92, 0.95, 0.98, 0.99, 0.999}
	for _, target := range targets {
		last := 0
		for k := 1; k < 3000; k += 7 {
			ef := effort(k, target)
			require.Positive(t, ef)
			require.GreaterOrEqual(t, ef, last, "k %d, target %v: rises with k", k, target)
			last = ef
		}
	}
	for k := 1; k < 3000; k += 11 {
		last := 0
		for _, target := range targets {
			ef := effort(k, target)
			require.GreaterOrEqual(t, ef, last, "k %d, target %v: rises with the target", k, target)
			last = ef
		}
		for _, target := range []float64{0.9991, 0.9999, 1, 2} {
			require.Zero(t, x.EffortFor(k, target), "no walk is known to reach %v", target)
		}
	}
	for _, target := range []float32{0.90, 0.95} {
		low, mid, high := efforts[10][target].Ef, efforts[100][target].Ef, efforts[1000][target].Ef
		at := func(k int) int { return x.EffortFor(k, float64(target)) }
		assert.Equal(t, low, at(1), "below the first band")
		assert.Equal(t, low, at(10))
		assert.Equal(t, mid, at(100))
		assert.Equal(t, high, at(1000))
		assert.Equal(t, 2*high, at(2000), "beyond the last it scales")
		for k := 10; k <= 100; k++ {
			assert.True(t, at(k) >= min(low, mid) && at(k) <= max(low, mid), k)
		}
		assert.InDelta(t, (low+mid)/2, at(32), 1)
		assert.Equal(t, mid, at(55), "from half-way on")
	}
	assert.GreaterOrEqual(t, x.EffortFor(math.MaxInt, 0.9), 1)
	assert.Equal(t, efforts[10][0.95].Ef, x.EffortFor(10, 0.92), "the least sufficient target counts")
	assert.Equal(t, efforts[10][0.90].Ef, x.EffortFor(10, 0))
	falling := withEffort(t, []index.Effort{{K: 10, Target: 0.9, Ef: 4, Recall: 1}, {K: 30, Target: 0.9, Ef: 3, Recall: 1}})
	assert.Equal(t, []int{4, 4, 3}, []int{falling.EffortFor(10, 0.9), falling.EffortFor(20, 0.9), falling.EffortFor(30, 0.9)})
	assert.Equal(t, 1, withEffort(t, []index.Effort{{K: 10, Target: 0.9, Ef: 1, Recall: 1}}).EffortFor(15, 0.9))
}

// A band whose last record misses its target is one in which the scan is cheaper.
func TestEffortForAnUnreachedBand(t *testing.T) {
	x := withEffort(t, []index.Effort{
		{K: 10, Target: 0.9, Ef: 5, Recall: 0.93, Scored: 100},
		{K: 100, Target: 0.9, Ef: 40, Recall: 0.92, Scored: 900},
		{K: 1000, Target: 0.9, Ef: 100, Recall: 0.76, Scored: 2500},
	})
	assert.Equal(t, 40, x.EffortFor(100, 0.9))
	assert.Zero(t, x.EffortFor(101, 0.9), "nothing tells how effort rises towards it")
	assert.Zero(t, x.EffortFor(1000, 0.9))
	assert.Zero(t, x.EffortFor(2000, 0.9))
}

// filteredRecall returns the mean recall of what filtered walks answer that are asked for
// a target, and how many were walks to the end.
func filteredRecall(t *testing.T, x *index.Index, queries [][]float32, k int, target float64, filter index.Bitset, eligible int) (mean float64, walks int) {
	found := 0
	q := index.Query{K: k, Filter: filter, Eligible: eligible}
	q.Ef = x.FilteredEffortFor(k, target, eligible)
	exact := index.Query{K: k, Filter: filter, Eligible: eligible, Plan: index.ExactScan}
	for _, v := range queries {
		q.Vector, exact.Vector = v, v
		want, _ := search(t, x, exact)
		hits, stats := search(t, x, q)
		require.Len(t, hits, k)
		if stats.Plan == index.FilteredWalk {
			walks++
		}
		for _, h := range hits {
			if !x.Metric().Better(want[k-1].Score, h.Score) {
				found++
			}
		}
	}
	return float64(found) / float64(k*len(queries)), walks
}

// Efforts found under the filters of the calibration reach their targets under others,
// whether they have nothing to do with the queries, keep what is near to one, or what is
// far from it.
func TestFilteredEffort(t *testing.T) {
	r := random(5)
	data := clustered(r, 20_500, 16, 40, 0.7)
	rows, sample, others := data[:20_000], data[20_000:20_200], data[20_200:]
	for _, metric := range metrics {
		t.Run(metric.String(), func(t *testing.T) {
			x := build(t, 16, rows, params(metric))
			calibrate(t, x, 16, sample, 2)
			calibrated := x.FilteredEffort()
			require.NotEmpty(t, calibrated)
			walks := 0
			for _, part := range []int{2, 5, 10, 30} {
				ranks := make([]int, len(rows)) // of each row, from one of the queries
				for rank, r := range precise(metric, others[0], rows, nil) {
					ranks[r.row] = rank
				}
				for name, eligible := range map[string]func(row int) bool{
					"random": func(row int) bool { return mixed(row)%uint32(part) == 0 },
					"near":   func(row int) bool { return ranks[row] < len(rows)/part },
					"far":    func(row int) bool { return ranks[row] >= len(rows)-len(rows)/part },
				} {
					filter, n := filterOf(x, eligible)
					for _, k := range []int{10, 100} {
						got, n := filteredRecall(t, x, others[1:], k, 0.95, filter, n)
						assert.GreaterOrEqual(t, got, 0.94, "%s, a part of 1/%d, k %d", name, part, k)
						walks += n
					}
				}
			}
			assert.Positive(t, walks)
			again, err := openBytes(encode(t, x))
			require.NoError(t, err)
			require.Equal(t, calibrated, again.FilteredEffort())
			for eligible := 1; eligible <= len(rows); eligible += 37 {
				ef := x.FilteredEffortFor(10, 0.95, eligible)
				require.GreaterOrEqual(t, ef, 0)
				require.Equal(t, ef, again.FilteredEffortFor(10, 0.95, eligible), "%d eligible", eligible)
			}
		})
	}
}

// Efforts under filters are the same, however many goroutines find them.
func TestFilteredEffortForAnyThreads(t *testing.T) {
	data := clustered(random(5), 5_100, 16, 40, 0.7)
	x := build(t, 16, data[:5_000], params(index.Dot))
	var first []index.FilteredEffort
	for _, threads := range []int{1, 2, 5} {
		calibrate(t, x, 16, data[5_000:], threads)
		if first == nil {
			first = x.FilteredEffort()
			require.NotEmpty(t, first)
		}
		require.Equal(t, first, x.FilteredEffort(), "%d threads", threads)
	}
}

// Under inner product hardly any query is about rows of small norm, so a filter that
// keeps just those has nothing near where walks look.
func TestFilteredEffortOfSmallNorms(t *testing.T) {
	r := random(7)
	rows := clustered(r, 12_000, 16, 40, 0.7)
	norms := make([]float64, len(rows))
	for i, row := range rows {
		scale := float32(math.Exp(r.NormFloat64()))
		for j := range row {
			row[j] *= scale
		}
		norms[i] = float64(scale)
	}
	sorted := slices.Sorted(slices.Values(norms))
	queries := clustered(r, 400, 16, 40, 0.7)
	x := build(t, 16, rows, params(index.Dot))
	calibrate(t, x, 16, queries[:200], 2)
	for _, part := range []float64{0.7, 0.5, 0.3} {
		filter, n := filterOf(x, func(row int) bool { return norms[row] < sorted[int(part*float64(len(rows)))] })
		for _, k := range []int{10, 100} {
			for _, target := range []float64{0.9, 0.95, 0.99} {
				got, _ := filteredRecall(t, x, queries[200:], k, target, filter, n)
				assert.GreaterOrEqual(t, got, target-0.01, "part %v, k %d, target %v", part, k, target)
			}
		}
	}
}

// withFiltered is an index that was calibrated to just this under filters.
func withFiltered(t *testing.T, filtered []index.FilteredEffort) *index.Index {
	t.Helper()
	c := unpack(t, encode(t, tiny(t, index.Dot)))
	le := binary.LittleEndian
	effort, data := []byte{}, []byte{}
	for i, e := range filtered {
		data = le.AppendUint32(data, math.Float32bits(e.Share))
		for _, out := range []*[]byte{&data, &effort} {
			if out == &effort && i > 0 {
				continue
			}
			*out = le.AppendUint32(*out, uint32(e.K))
			*out = le.AppendUint32(*out, math.Float32bits(e.Target))
			*out = le.AppendUint32(*out, uint32(e.Ef))
			*out = le.AppendUint32(*out, math.Float32bits(e.Recall))
			*out = le.AppendUint32(*out, math.Float32bits(e.Scored))
		}
		data = le.AppendUint32(data, math.Float32bits(e.Through))
	}
	c[c.At("index.effort")].Data = effort
	if at := c.At("index.effort_filtered"); at >= 0 {
		c[at].Data = data
	} else {
		c = append(c, sectionstest.Section{Name: "index.effort_filtered", Data: data})
	}
	x, err := openBytes(pack(c))
	require.NoError(t, err)
	require.Equal(t, filtered, x.FilteredEffort())
	return x
}

func TestFilteredEffortFor(t *testing.T) {
	at := func(share float32, ef int, recall float32) index.FilteredEffort {
		return index.FilteredEffort{Share: share, Effort: index.Effort{K: 1, Target: 0.9, Ef: ef, Recall: recall, Scored: 5}, Through: 3}
	}
	x := withFiltered(t, []index.FilteredEffort{at(0.8, 10, 0.9), at(0.2, 30, 0.92), at(0.05, 70, 0.1)})
	rows := x.Rows()
	require.Equal(t, 40, rows)
	for eligible, want := range map[int]int{
		40: 10, // all are
		36: 30, // more than the largest share: 20 more than without a filter
		32: 30, // a share that was calibrated
		15: 30, // between two
		8:  37, // a share that was calibrated, and a quarter more
		5:  71, // towards what was tried last
		3:  0,  // beyond half-way to it
		2:  0,  // the last share
		1:  0,  // less than the last share
		0:  10, // which is answered without a search
	} {
		assert.Equal(t, want, x.FilteredEffortFor(1, 0.9, eligible), "%d eligible", eligible)
	}
	assert.Zero(t, x.FilteredEffortFor(1, 0.99, 32), "nothing is known of such a target")

	x = withEffort(t, []index.Effort{{K: 10, Target: 0.9, Ef: 10, Recall: 0.95}})
	assert.Empty(t, x.FilteredEffort())
	assert.Equal(t, 35, x.FilteredEffortFor(10, 0.9, 20), "a file of before filtered walks were calibrated")
}

func TestNotCalibrated(t *testing.T) {
	x := build(t, 4, gaussian(random(1), 100, 4), params(index.L2))
	assert.Empty(t, x.Effort())
	assert.Zero(t, x.EffortFor(10, 0.9))

	calibrate(t, x, 4, nil, 1)
	assert.Empty(t, x.Effort(), "no queries")

	require.ErrorContains(t, x.Calibrate(t.Context(), matrix(t, 5, nil), matrix(t, 4, nil), 1), "dimension")
	require.ErrorContains(t, x.Calibrate(t.Context(), matrix(t, 4, nil), matrix(t, 5, nil), 1), "dimension")

	x = build(t, 4, nil, params(index.L2))
	calibrate(t, x, 4, gaussian(random(1), 3, 4), 1)
	assert.Empty(t, x.Effort(), "no rows")
	assert.Zero(t, x.EffortFor(10, 0.9))
}

// A small index stops at the bands it has rows for.
func TestCalibrateSmall(t *testing.T) {
	for _, rows := range []int{1, 9, 10, 99, 100, 101} {
		x := build(t, 4, gaussian(random(1), rows, 4), params(index.Dot))
		calibrate(t, x, 4, gaussian(random(2), 5, 4), 3)
		bands := 0
		for _, k := range []int{10, 30, 100} {
			if k <= rows {
				bands++
			}
		}
		assert.Len(t, x.Effort(), bands*len(index.Targets), rows)
		_, err := openBytes(encode(t, x))
		require.NoError(t, err)
	}
}

func TestCalibrateIsCancelled(t *testing.T) {
	x := build(t, 4, gaussian(random(1), 100, 4), params(index.L2))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	some := matrix(t, 4, gaussian(random(2), 5, 4))
	require.ErrorIs(t, x.Calibrate(ctx, some, some, 1), context.Canceled)
	assert.Empty(t, x.Effort())
}

// Queries that cannot be searched must be an error.
func TestCalibrateRejects(t *testing.T) {
	for _, tt := range []struct {
		metric index.Metric
		bad    []float32
	}{
		{index.Dot, []float32{1, float32(math.NaN())}},
		{index.L2, []float32{1e19, 0}},
		{index.Cosine, []float32{0, 0}},
	} {
		x := build(t, 2, gaussian(random(1), 50, 2), params(tt.metric))
		require.NotPanics(t, func() {
			good, bad := matrix(t, 2, [][]float32{{1, 1}, {1, 1}}), matrix(t, 2, [][]float32{{1, 1}, tt.bad})
			require.ErrorContains(t, x.Calibrate(t.Context(), good, bad, 1), "query 1")
			require.ErrorContains(t, x.Calibrate(t.Context(), bad, good, 1), "query 1")
		}, tt.metric)
	}
}

// Where no walk cheaper than the scan reaches a target, the effort for it must
// lead to the scan whatever else the query asks: a filter that leaves nearly all
// rows must not turn the answer into a poor one.
func TestUnreachableTarget(t *testing.T) {
	const rows, dim = 1500, 48
	r := random(1)
	data := gaussian(r, rows+60, dim)
	p := index.DefaultParams(index.L2)
	p.M, p.EfConstruction = 2, 2
	x := build(t, dim, data[:rows], p)
	calibrate(t, x, dim, data[rows:], 2)
	unreached := 0
	for _, e := range x.Effort() {
		if e.Recall >= e.Target {
			continue
		}
		unreached++
		q := index.Query{K: e.K, Ef: x.EffortFor(e.K, float64(e.Target))}
		q.Filter, q.Eligible = filterOf(x, func(row int) bool { return row%50 != 0 })
		found := 0
		for _, v := range data[rows:] {
			q.Vector, q.Plan = v, index.ExactScan
			exact, _ := search(t, x, q)
			q.Plan = index.Auto
			hits, _ := search(t, x, q)
			for _, h := range hits {
				if h.Score <= exact[e.K-1].Score {
					found++
				}
			}
		}
		got := float64(found) / float64(e.K*60)
		assert.GreaterOrEqual(t, got, float64(e.Target)-0.02, "%+v", e)
	}
	require.Positive(t, unreached, "the data is not as hard as the test needs")
}
