package index

import (
	"context"
	"errors"
	"fmt"
	"math"
)

// bands are the values of k that a calibration covers.
var bands = [...]int{10, 100, 1000}

// ladder holds the efforts that a calibration tries, as multiples of k.
var ladder = [...]float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200}

// Calibrate fits the index to sample queries, which should come from the
// distribution that will be asked: it chooses where walks start, measures recall
// against effort, without a filter and under several, and keeps, for each k band and
// recall target, the least effort that reaches it. It must be called before the index is
// written or shared. The result does not depend on threads.
func (x *Index) Calibrate(ctx context.Context, queries *Matrix, threads int) error {
	if queries.Dim() != x.dim {
		return errors.New("calibrate: queries have another dimension than the index")
	}
	for i := range queries.Rows() {
		if err := x.params.Metric.CheckVector(queries.Row(i)); err != nil {
			return fmt.Errorf("calibrate: query %d: %w", i, err)
		}
	}
	x.effort, x.filtered = nil, nil
	x.classify()
	c := &calibration{x: x, queries: queries, threads: threads}
	for _, k := range bands {
		if k <= x.nodes {
			c.bands = append(c.bands, k)
		}
	}
	if queries.Rows() == 0 || len(c.bands) == 0 {
		return nil
	}
	if err := c.answer(ctx); err != nil {
		return err
	}
	if err := c.chooseEntries(ctx); err != nil {
		return err
	}
	for _, k := range c.bands[:min(len(c.bands), missedBands)] {
		if err := c.enterMissed(ctx, k); err != nil {
			return err
		}
	}
	var found []Effort
	for _, k := range c.bands {
		efforts, err := c.efforts(ctx, k)
		if err != nil {
			return err
		}
		found = append(found, efforts...)
	}
	x.effort = found
	filtered, err := c.filtered(ctx)
	if err != nil {
		x.effort = nil
		return err
	}
	x.filtered = filtered
	x.classify()
	return nil
}

// calibration is a calibration in progress.
//
// What takes time is to walk for every query at every effort that is tried. So few are
// tried, since recall and cost rise with effort: the least that will do is between one
// that will not and one that will. And an effort that is far from a target is not
// measured with every query, but with as many as show on which side of it it is. Only
// an effort that is kept is measured with all.
type calibration struct {
	x       *Index
	queries *Matrix
	threads int
	bands   []int
	exact   [][]Hit // the best rows of each query, as many as the largest band

	asked []asked // the searches that efforts are measured with
}

// asked is one search of a calibration.
type asked struct {
	query Query // but for K, Ef and Plan
	exact []Hit
	near  int // eligible nodes near the query
}

// together is how many queries are scanned for at a time: the more, the less is read
// from memory, until what they keep is not in cache beside a block of codes.
const together = 16

// answer finds the exact answers.
func (c *calibration) answer(ctx context.Context) error {
	c.exact = make([][]Hit, c.queries.Rows())
	groups := (len(c.exact) + together - 1) / together
	parallelChunks(c.threads, groups, 1, func(_, group int) {
		if ctx.Err() == nil {
			var queries []int
			for i := group * together; i < min((group+1)*together, len(c.exact)); i++ {
				queries = append(queries, i)
			}
			c.scan(Query{K: c.bands[len(c.bands)-1], Eligible: len(c.x.rows)}, queries, c.exact)
		}
	})
	for i, exact := range c.exact {
		c.asked = append(c.asked, asked{query: Query{Vector: c.queries.Row(i)}, exact: exact})
	}
	return ctx.Err()
}

// scan finds the exact answers of some of the queries, which differ from q in their
// vectors, and puts each at the place of its query.
func (c *calibration) scan(q Query, queries []int, hits [][]Hit) {
	x := c.x
	var searches []*scratch
	for _, i := range queries {
		s := x.scratch.Get().(*scratch)
		x.begin(s, c.queries.Row(i), q.K)
		searches = append(searches, s)
	}
	x.scan(searches, q)
	for i, s := range searches {
		s.top.sort(x.rows)
		hits[queries[i]] = x.hits(s, nil)
		x.scratch.Put(s)
	}
}

// A measurement is what walks for the first queries of the sample found.
type measurement struct {
	k, ef   int
	queries int
	found   int
	squares int // of found, for its variance
	scored  int
	through int
}

func (m measurement) recall() float32 {
	return float32(m.found) / float32(m.queries) / float32(m.k)
}

func (m measurement) meanScored() float32 { return float32(m.scored) / float32(m.queries) }

func (m measurement) meanThrough() float32 { return float32(m.through) / float32(m.queries) }

// measure walks for more queries, until m has as many. A hit counts when its score is
// as good as the k-th exact one, so ties are no misses.
func (c *calibration) measure(ctx context.Context, m *measurement, queries int) error {
	n := queries - m.queries
	if n <= 0 {
		return nil
	}
	found, stats := make([]int, n), make([]Stats, n)
	hits := make([][]Hit, max(c.threads, 1))
	parallel(c.threads, n, func(worker, i int) {
		if ctx.Err() != nil {
			return
		}
		a := c.asked[m.queries+i]
		a.query.K, a.query.Ef, a.query.Plan = m.k, m.ef, GraphWalk
		// The vectors were checked, and all else of the query is ours.
		hits[worker], stats[i], _ = c.x.Search(a.query, hits[worker][:0])
		last := a.exact[m.k-1].Score
		for _, h := range hits[worker] {
			if !c.x.params.Metric.Better(last, h.Score) {
				found[i]++
			}
		}
	})
	for i, f := range found {
		m.found += f
		m.squares += f * f
		m.scored += stats[i].Scored
		m.through += stats[i].Through
	}
	m.queries = queries
	return ctx.Err()
}

// fewQueries is how many queries an effort is measured with at first, and certainty
// how many standard errors its recall must be off a target by to need no more.
const (
	fewQueries = 64
	certainty  = 3
)

// reaches reports whether m's effort reaches a recall, and measures it with as many
// queries as that takes.
func (c *calibration) reaches(ctx context.Context, m *measurement, recall float32) (bool, error) {
	all := len(c.asked)
	n := max(m.queries, min(fewQueries, all))
	for {
		if err := c.measure(ctx, m, n); err != nil {
			return false, err
		}
		off := float64(m.recall() - recall)
		if n == all || math.Abs(off) > certainty*m.standardError(float64(recall)) {
			return off >= 0, nil
		}
		n = min(2*n, all)
	}
}

// standardError returns that of the recall: as it shows in what was measured, but no
// less than if each of k rows were missed by itself at the recall that is asked about.
func (m measurement) standardError(recall float64) float64 {
	n, k := float64(m.queries), float64(m.k)
	mean := float64(m.found) / n
	variance := (float64(m.squares)/n - float64(mean*mean)) / (k * k)
	return math.Sqrt(max(variance, recall*(1-recall)/k) / n)
}

// costly reports whether m's walks cost more than the scan. Such a walk is never taken,
// so no effort beyond is worth measuring.
func (c *calibration) costly(m *measurement) bool {
	return float64(m.meanScored())*walkCost(m.ef)+float64(m.meanThrough())*throughCost > c.most(m.k)
}

// most is what a walk for k rows may cost: as much as the exact scan.
func (c *calibration) most(k int) float64 {
	eligible := len(c.x.rows)
	if len(c.asked) > 0 && c.asked[0].query.Filter != nil {
		eligible = c.asked[0].query.Eligible
	}
	return c.x.exactCost(eligible, k)
}

// steps are the measurements of one band, by ladder step.
type steps struct {
	c  *calibration
	k  int
	at map[int]*measurement // by effort
}

// effort returns that of a step of the ladder.
func (s *steps) effort(i int) int {
	return min(max(int(ladder[i]*float64(s.k)), 1), s.c.x.nodes)
}

// last returns the last step that is worth measuring. A walk scores at least as many nodes
// as its effort, and one that costs too much by that alone may take seconds a query.
func (s *steps) last() int {
	i := len(ladder) - 1
	for ; i > 0 && float64(s.effort(i))*walkCost(s.effort(i)) > s.c.most(s.k); i-- {
	}
	return i
}

// step returns the measurement of a step.
func (s *steps) step(i int) *measurement {
	ef := s.effort(min(i, s.last()))
	if s.at[ef] == nil {
		s.at[ef] = &measurement{k: s.k, ef: ef}
	}
	return s.at[ef]
}

// stride is how many steps are passed over at most in search of one that will do. A
// walk of much more effort than that one would take longer than what it saves.
const stride = 4

// least returns the least step from first on that reaches a recall or costs too much, or
// the last one that is worth measuring, measured with every query.
func (s *steps) least(ctx context.Context, first int, recall float32, costs func(*measurement) bool) (int, error) {
	does := func(i int) (bool, error) {
		m := s.step(i)
		reached, err := s.c.reaches(ctx, m, recall)
		return reached || i >= s.last() || m.ef == s.c.x.nodes || costs(m), err
	}
	low, high := first, first // steps below low will not do
	for by := 1; ; by = min(2*by, stride) {
		done, err := does(high)
		if err != nil {
			return 0, err
		}
		if done {
			break
		}
		low, high = high+1, high+by
	}
	for low < high {
		middle := (low + high) / 2
		done, err := does(middle)
		if err != nil {
			return 0, err
		}
		if done {
			high = middle
		} else {
			low = middle + 1
		}
	}
	// All queries may show what some did not.
	for ; ; high++ {
		if err := s.c.measure(ctx, s.step(high), len(s.c.asked)); err != nil {
			return 0, err
		}
		if done, err := does(high); done || err != nil {
			return high, err
		}
	}
}

// efforts returns the least effort for each target.
func (c *calibration) efforts(ctx context.Context, k int) ([]Effort, error) {
	s := &steps{c: c, k: k, at: map[int]*measurement{}}
	var efforts []Effort
	step := 0
	for _, target := range Targets {
		var err error
		if step, err = s.least(ctx, step, safely(target), c.costly); err != nil {
			return nil, err
		}
		m := s.step(step)
		efforts = append(efforts, Effort{K: k, Target: target, Ef: m.ef, Recall: m.recall(), Scored: m.meanScored()})
	}
	return efforts, nil
}

// safely is the recall that the sample must show for a target: a little more, so
// that other queries reach it too.
func safely(target float32) float32 { return target + (1-target)*0.1 }
