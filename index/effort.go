package index

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
)

// Effort is what a calibration found: with an effort of Ef, which may be below K, sample
// queries for K rows had this mean recall.
type Effort struct {
	K      int
	Target float32 // the recall target that Ef is the least effort for
	Ef     int
	Recall float32 // mean recall@K of the sample; below Target where none reaches it
	Scored float32 // mean distance computations a query
}

func (e Effort) before(o Effort) bool {
	return e.K < o.K || e.K == o.K && e.Target < o.Target
}

// Targets are the recall targets that a calibration covers.
var Targets = [...]float32{0.90, 0.95, 0.99, 0.999}

// DefaultTarget is the recall target of a query that names none.
const DefaultTarget = 0.99

// bands are the values of k that a calibration covers.
var bands = [...]int{10, 100, 1000}

// ladder holds the efforts that a calibration tries, as multiples of k.
var ladder = [...]float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200}

// Calibrate fits the index to sample queries, which should come from the
// distribution that will be asked: it chooses where walks start, measures recall
// against effort, and keeps, for each k band and recall target, the least effort
// that reaches it. It must be called before the index is written or shared. The
// result does not depend on threads.
func (x *Index) Calibrate(ctx context.Context, queries *Matrix, threads int) error {
	if queries.Dim() != x.dim {
		return errors.New("calibrate: queries have another dimension than the index")
	}
	for i := range queries.Rows() {
		if err := x.params.Metric.CheckVector(queries.Row(i)); err != nil {
			return fmt.Errorf("calibrate: query %d: %w", i, err)
		}
	}
	x.effort = nil
	if queries.Rows() == 0 || x.nodes == 0 {
		return nil
	}
	var exact [][][]Hit // the k best of each query, for each band
	for _, k := range bands {
		if k > x.nodes {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		hits := make([][]Hit, queries.Rows())
		parallel(threads, queries.Rows(), func(_, i int) {
			hits[i], _, _ = x.Search(Query{Vector: queries.Row(i), K: k}, nil)
		})
		exact = append(exact, hits)
	}
	if len(exact) > 0 {
		if err := x.chooseEntries(ctx, queries, bands[0], exact[0], threads); err != nil {
			return err
		}
	}
	for i := range exact[:min(len(exact), missedBands)] {
		if err := x.enterMissed(ctx, queries, bands[i], exact[i], threads); err != nil {
			return err
		}
	}
	var found []Effort
	for i, exact := range exact {
		k := bands[i]
		pending := Targets[:]
		for step := 0; len(pending) > 0; step++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			ef := x.nodes
			if step < len(ladder) {
				ef = min(max(int(ladder[step]*float64(k)), 1), x.nodes)
			}
			e := x.measure(queries, k, ef, exact, threads)
			// A walk that costs more than the scan is never taken, so no effort
			// beyond is worth measuring.
			last := ef == x.nodes || float64(e.Scored)*walkCost(ef) > x.exactCost(len(x.rows))
			for len(pending) > 0 && (e.Recall >= safely(pending[0]) || last) {
				e.Target = pending[0]
				found = append(found, e)
				pending = pending[1:]
			}
		}
	}
	x.effort = found
	return nil
}

// safely is the recall that the sample must show for a target: a little more, so
// that other queries reach it too.
func safely(target float32) float32 { return target + (1-target)*0.1 }

// measure returns the mean recall and cost of walks at one effort. A hit counts
// when its score is as good as the k-th exact one, so ties are no misses.
func (x *Index) measure(queries *Matrix, k, ef int, exact [][]Hit, threads int) Effort {
	found := make([]int, queries.Rows())
	scored := make([]int, queries.Rows())
	parallel(threads, queries.Rows(), func(_, i int) {
		hits, stats, _ := x.Search(Query{Vector: queries.Row(i), K: k, Ef: ef, Plan: GraphWalk}, nil)
		last := exact[i][len(exact[i])-1].Score
		for _, h := range hits {
			if !x.params.Metric.Better(last, h.Score) {
				found[i]++
			}
		}
		scored[i] = stats.Scored
	})
	var hits, total int
	for i := range found {
		hits += found[i]
		total += scored[i]
	}
	n := float32(queries.Rows())
	return Effort{K: k, Ef: ef, Recall: float32(hits) / n / float32(k), Scored: float32(total) / n}
}

// Effort returns what the calibration found, by k and target.
func (x *Index) Effort() []Effort { return slices.Clone(x.effort) }

// EffortFor returns the effort that reaches a mean recall of target for k
// rows, and 0, the exact scan, for a target above the highest calibrated one, for
// one that no walk cheaper than the scan reached, or without a calibration.
// Between two bands of k it interpolates; beyond the last it scales.
func (x *Index) EffortFor(k int, target float64) int {
	var low, high Effort
	for _, e := range x.effort {
		if float64(e.Target) < target-1e-6 || e.K == low.K || e.K == high.K {
			continue // only the least sufficient target of each band counts
		}
		if e.K <= k {
			low = e
		} else if high.K == 0 {
			high = e
		}
	}
	// A band may hold a target that no walk cheaper than the scan reached.
	if high.Recall < high.Target {
		high = Effort{}
	}
	if low.Recall < low.Target {
		return 0
	}
	switch {
	case low.K == 0 && high.K == 0:
		return 0
	case low.K == 0:
		return high.Ef
	case high.K == 0:
		return max(low.Ef*k/low.K, 1)
	}
	return low.Ef + (high.Ef-low.Ef)*(k-low.K)/(high.K-low.K)
}

// The relative cost of a row, with everything around it: in a scan of all rows,
// which reads codes in order, and in a scan of some. They are fixed, not timed during
// the build, so that builds stay reproducible.
const (
	scanCost   = 1
	gatherCost = 4
)

// walkCost is that of a distance that a walk computes: a larger pool costs more to
// keep sorted.
func walkCost(ef int) float64 { return 9 + float64(ef)/128 }

// exactCost is that of an exact scan. Where many rows are eligible it reads the codes
// of all.
func (x *Index) exactCost(eligible int) float64 {
	return float64(min(len(x.rows)*scanCost, eligible*gatherCost))
}

// choose returns the plan that costs least.
func (x *Index) choose(q Query) Plan {
	if q.Ef == 0 || q.K == q.Eligible {
		return ExactScan
	}
	walk := x.walkScored(q.Ef) * walkCost(q.Ef)
	// A walk that collects eligible nodes goes on until it has seen ef of them.
	walk *= float64(len(x.rows)) / float64(q.Eligible)
	switch {
	case walk >= x.exactCost(q.Eligible):
		return ExactScan
	case q.Filter == nil:
		return GraphWalk
	}
	return FilteredWalk
}

// walkScored estimates how many distances a walk with pools of ef computes, from
// the calibrated efforts around ef.
func (x *Index) walkScored(ef int) float64 {
	perEf := 8.0 // a typical walk, where nothing was measured
	if len(x.effort) > 0 {
		nearest := slices.MinFunc(x.effort, func(a, b Effort) int {
			return cmp.Compare(distance(a.Ef, ef), distance(b.Ef, ef))
		})
		perEf = float64(nearest.Scored) / float64(nearest.Ef)
	}
	return min(perEf*float64(ef), float64(x.nodes))
}

func distance(a, b int) int { return max(a-b, b-a) }
