package engines

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/parallel"
)

// Tolerance is how much worse than the k-th exact score a row may score, relative
// to it, and still count.
const Tolerance = 1e-6

// truth judges answers under a predicate.
type truth struct {
	set       *Set
	predicate *Predicate
	// worst holds, for each k, the largest distance of each query that counts.
	worst map[int][]float32
	// top holds the nearest eligible rows of each query, as many as [topRows].
	top [][]uint32
}

// topRows is how many of the rows nearest to a query say what it is about: the
// correlation of a predicate with the queries is measured on them.
const topRows = 100

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

// findTruths scans all rows for every query, once for all predicates. ks ascend.
func findTruths(ctx context.Context, s *Set, predicates []*Predicate, ks []int, threads int, progress func(done int64)) ([]*truth, error) {
	truths := make([]*truth, len(predicates))
	for i, p := range predicates {
		t := &truth{set: s, predicate: p, worst: map[int][]float32{}, top: make([][]uint32, s.queries.Rows())}
		for _, k := range ks {
			t.worst[k] = make([]float32, s.queries.Rows())
		}
		truths[i] = t
	}
	most := max(ks[len(ks)-1], topRows)
	var done atomic.Int64
	var mu sync.Mutex // of progress
	parallel.Chunks(threads, (s.queries.Rows()+truthQueries-1)/truthQueries, 1, func(_, group int) {
		if ctx.Err() != nil {
			return
		}
		from := group * truthQueries
		to := min(from+truthQueries, s.queries.Rows())
		for i, lists := range s.nearest(from, to, most, predicates) {
			for j, t := range truths {
				t.learn(from+i, lists[j])
			}
		}
		n := done.Add(int64(to - from))
		mu.Lock()
		progress(n)
		mu.Unlock()
	})
	return truths, ctx.Err()
}

// learn takes the nearest eligible rows of a query.
func (t *truth) learn(query int, list []neighbour) {
	for k, worst := range t.worst {
		worst[query] = loosen(list[min(k, len(list))-1].distance)
	}
	for _, n := range list[:min(topRows, len(list))] {
		t.top[query] = append(t.top[query], n.row)
	}
}

// neighbour is a row at a distance from a query.
type neighbour struct {
	distance float32
	row      uint32
}

// collector keeps the k nearest of the rows that it is given.
type collector struct {
	k     int
	bound float32 // distances from here on are of no use once there are k rows
	list  []neighbour
}

func (c *collector) add(distance float32, row uint32) {
	if distance < c.bound || len(c.list) < c.k {
		c.list = append(c.list, neighbour{distance, row})
	}
}

// trim leaves the k nearest, ascending, ties by row.
func (c *collector) trim() {
	slices.SortFunc(c.list, func(a, b neighbour) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.row, b.row))
	})
	if len(c.list) >= c.k {
		c.list = c.list[:c.k]
		c.bound = c.list[c.k-1].distance
	}
}

// nearest returns, for the queries from to to-1 and under each predicate, the k
// nearest eligible rows, or all where there are fewer.
func (s *Set) nearest(from, to, k int, predicates []*Predicate) [][][]neighbour {
	collectors := make([]collector, (to-from)*len(predicates))
	for i := range collectors {
		collectors[i] = collector{k: k, bound: float32(math.Inf(1))}
	}
	var buf [truthRows]float32
	for first := 0; first < s.base.Rows(); first += truthRows {
		out := buf[:min(truthRows, s.base.Rows()-first)]
		for i := range to - from {
			s.distanceRange(s.queries.padded(from+i), first, out)
			for j, p := range predicates {
				c := &collectors[i*len(predicates)+j]
				p.collect(uint32(first), out, c)
				if len(c.list) >= 2*k {
					c.trim()
				}
			}
		}
	}
	lists := make([][][]neighbour, to-from)
	for i := range collectors {
		collectors[i].trim()
		query := i / len(predicates)
		lists[query] = append(lists[query], collectors[i].list)
	}
	return lists
}

// collect gives a collector the eligible ones of the rows from first on, whose
// distances are known. first is a multiple of 64.
func (p *Predicate) collect(first uint32, distances []float32, c *collector) {
	if p == nil {
		for i, d := range distances {
			c.add(d, first+uint32(i))
		}
		return
	}
	words := p.rows[first/64:]
	for i := range (len(distances) + 63) / 64 {
		for w := words[i]; w != 0; w &= w - 1 {
			at := i*64 + bits.TrailingZeros64(w)
			c.add(distances[at], first+uint32(at))
		}
	}
}

func loosen(d float32) float32 { return d + float32(math.Abs(float64(d))*Tolerance) }

// recall returns the share of the k rows to find for a query that are in rows, an
// answer with -1 where there is none. An answer with a row that may not be returned
// is an error: what it would be worth does not matter.
func (t *truth) recall(query, k int, rows []int32) (float64, error) {
	var ids []uint32
	for _, row := range rows {
		switch {
		case row < 0:
			continue
		case int(row) >= t.set.base.Rows():
			return 0, fmt.Errorf("the answer to query %d has row %d of %d", query, row, t.set.base.Rows())
		case !t.predicate.has(uint32(row)):
			return 0, fmt.Errorf("the answer to query %d has row %d, which is not eligible", query, row)
		}
		ids = append(ids, uint32(row))
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
	want := min(k, t.predicate.of(t.set))
	return float64(min(found, want)) / float64(want), nil
}

// correlation returns how much more often than among all rows a row is eligible
// among those nearest to a query, which unfiltered knows: above 1 the queries want
// what is eligible, below they do not.
func (t *truth) correlation(unfiltered *truth) float64 {
	eligible, rows := 0, 0
	for _, top := range unfiltered.top {
		for _, row := range top {
			if t.predicate.has(row) {
				eligible++
			}
		}
		rows += len(top)
	}
	return float64(eligible) / float64(rows) / t.selectivity()
}

// selectivity returns the share of the rows that are eligible.
func (t *truth) selectivity() float64 {
	return float64(t.predicate.of(t.set)) / float64(t.set.base.Rows())
}
