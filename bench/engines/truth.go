package engines

import (
	"context"
	"math"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/kernel"
)

// Tolerance is how much worse than the k-th exact score a row may score, relative
// to it, and still count.
const Tolerance = 1e-6

// truth judges answers.
type truth struct {
	set *Set
	// worst holds, for each k, the largest distance of each query that counts.
	worst map[int][]float32
}

// distances scores rows, so that less is better.
func (s *Set) distances(query []float32, rows []uint32, out []float32) {
	if s.Metric == index.L2 {
		kernel.L2(query, s.base.data, rows, out)
		return
	}
	kernel.Dot(query, s.base.data, rows, out)
	negate(out)
}

// distanceRange scores the rows from first on.
func (s *Set) distanceRange(query []float32, first int, out []float32) {
	if s.Metric == index.L2 {
		kernel.L2Range(query, s.base.data, first, out)
		return
	}
	kernel.DotRange(query, s.base.data, first, out)
	negate(out)
}

func negate(out []float32) {
	for i, d := range out {
		out[i] = -d
	}
}

// The exact scan takes that many rows at a time for that many queries, so that the
// rows stay in the cache.
const (
	truthRows    = 512
	truthQueries = 64
)

// findTruth scans all rows for every query. ks ascend.
func findTruth(ctx context.Context, s *Set, ks []int, threads int, progress func(done int64)) (*truth, error) {
	t := &truth{set: s, worst: map[int][]float32{}}
	for _, k := range ks {
		t.worst[k] = make([]float32, s.queries.Rows())
	}
	most := min(ks[len(ks)-1], s.base.Rows())
	var next, done atomic.Int64
	var mu sync.Mutex // of progress
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for {
				from := int(next.Add(truthQueries)) - truthQueries
				if from >= s.queries.Rows() || ctx.Err() != nil {
					return
				}
				to := min(from+truthQueries, s.queries.Rows())
				for i, best := range s.nearest(from, to, most) {
					for k, worst := range t.worst {
						worst[from+i] = loosen(best[min(k, most)-1])
					}
				}
				n := done.Add(int64(to - from))
				mu.Lock()
				progress(n)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return t, ctx.Err()
}

// nearest returns the k least distances, ascending, of the queries from to to-1.
func (s *Set) nearest(from, to, k int) [][]float32 {
	best := make([][]float32, to-from)
	bound := make([]float32, to-from)
	for i := range bound {
		bound[i] = float32(math.Inf(1))
	}
	var buf [truthRows]float32
	for first := 0; first < s.base.Rows(); first += truthRows {
		out := buf[:min(truthRows, s.base.Rows()-first)]
		for i := range best {
			s.distanceRange(s.queries.padded(from+i), first, out)
			for _, d := range out {
				if d < bound[i] || len(best[i]) < k {
					best[i] = append(best[i], d)
				}
			}
			if len(best[i]) >= 2*k {
				slices.Sort(best[i])
				best[i] = best[i][:k]
				bound[i] = best[i][k-1]
			}
		}
	}
	for i := range best {
		slices.Sort(best[i])
		best[i] = best[i][:k]
	}
	return best
}

func loosen(d float32) float32 { return d + float32(math.Abs(float64(d))*Tolerance) }

// recall returns the share of the k rows to find for a query that are in rows, an
// answer with -1 where there is none.
func (t *truth) recall(query, k int, rows []int32) float64 {
	var ids []uint32
	for _, row := range rows {
		if row >= 0 && int(row) < t.set.base.Rows() {
			ids = append(ids, uint32(row))
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids) // a row counts once
	d := make([]float32, len(ids))
	t.set.distances(t.set.queries.padded(query), ids, d)
	found := 0
	for _, d := range d {
		if d <= t.worst[k][query] {
			found++
		}
	}
	want := min(k, t.set.base.Rows())
	return float64(min(found, want)) / float64(want)
}
