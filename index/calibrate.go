package index

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/interval"
	"github.com/tandem-ann/tandem/index/parallel"
)

// bands are the values of k that a calibration covers. What lies between two of them is not
// measured, and where rows are in clusters effort may rise at once where k passes the rows
// of one: so no band is more than about three times the one before.
var bands = [...]int{10, 30, 100, 300, 1000}

// measuring is the part of a sample that measures each band: a query for more rows tells
// more, and takes longer.
var measuring = [len(bands)]float64{1, 0.75, 0.5, 0.375, 0.25}

// filteredBands are those under filters, where the margin is larger, and missedBands those
// that nodes that walks miss are looked for at.
var (
	filteredBands = [...]int{10, 100, 1000}
	missedBands   = [...]int{10, 100}
)

// covered returns the values of k that an index has nodes for.
func (x *Index) covered(ks []int) []int {
	var some []int
	for _, k := range ks {
		if k <= x.nodes {
			some = append(some, k)
		}
	}
	return some
}

// ladder holds the efforts that a calibration tries, as multiples of k.
var ladder = [...]float64{0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 1.8, 2.2, 2.7, 3.3, 4, 5, 6, 8, 10, 13, 16, 20, 26, 32, 40, 50, 64, 80, 100, 128, 160, 200}

// Calibrate fits the index to sample queries, which should come from the distribution that
// will be asked. By those of shape it chooses where walks start. By the others it measures
// recall against effort, without a filter and under several, and keeps, for each k band and
// recall target, the least effort that is shown to reach it: one whose recall is at least
// the target with a confidence of 99%. That holds for queries that are in neither sample,
// if the two have none in common. Without any of shape, walks start where [Build] chose.
// It must be called before the index is written or shared. The result does not depend on
// threads.
func (x *Index) Calibrate(ctx context.Context, shape, queries *Matrix, threads int) error {
	for _, m := range []*Matrix{shape, queries} {
		if m.Dim() != x.dim {
			return errors.New("calibrate: queries have another dimension than the index")
		}
		for i := range m.Rows() {
			if err := x.params.Metric.CheckVector(m.Row(i)); err != nil {
				return fmt.Errorf("calibrate: query %d: %w", i, err)
			}
		}
	}
	x.costs.Effort, x.costs.Filtered = nil, nil
	if queries.Rows() == 0 || len(x.covered(bands[:])) == 0 {
		return nil
	}
	if shape.Rows() > 0 {
		s := &calibration{x: x, queries: shape, threads: threads, bands: x.covered(missedBands[:])}
		if err := s.enter(ctx); err != nil {
			return err
		}
	}
	c := &calibration{x: x, queries: queries, threads: threads, bands: x.covered(bands[:])}
	if err := c.answer(ctx, c.measured); err != nil {
		return err
	}
	var found []Effort
	for _, k := range c.bands {
		efforts, err := c.efforts(ctx, k)
		if err != nil {
			return err
		}
		found = append(found, efforts...)
	}
	x.costs.Effort = found
	c.bands = x.covered(filteredBands[:])
	filtered, err := c.filtered(ctx)
	if err != nil {
		x.costs.Effort = nil
		return err
	}
	x.costs.Filtered = filtered
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

// measured returns how many of the queries measure the efforts of a band.
func (c *calibration) measured(k int) int {
	return int(math.Ceil(measuring[slices.Index(bands[:], k)] * float64(c.queries.Rows())))
}

// answer finds the exact answers: for each band, of as many queries as count says, rounded
// up to those that are scanned for together.
func (c *calibration) answer(ctx context.Context, count func(k int) int) error {
	c.exact = make([][]Hit, c.queries.Rows())
	groups := (len(c.exact) + together - 1) / together
	parallel.Chunks(c.threads, groups, 1, func(_, group int) {
		if ctx.Err() == nil {
			var queries []int
			for i := group * together; i < min((group+1)*together, len(c.exact)); i++ {
				queries = append(queries, i)
			}
			q := Query{Eligible: len(c.x.rows)}
			for _, k := range c.bands {
				if queries[0] < count(k) {
					q.K = k
				}
			}
			c.scan(q, queries, c.exact)
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

// A goal is what an effort should reach: a recall, by its bound, which is as many standard
// deviations below the mean as bound says; with a bound of 0, by the mean itself.
type goal struct {
	recall float32
	bound  float64
}

// recall returns the mean recall or its lower bound.
func (m measurement) recall(bound float64) float32 {
	trials := float64(m.queries) * float64(m.k)
	mean := float64(m.found) / trials
	if bound == 0 {
		return float32(mean)
	}
	squares := float64(m.squares) - float64(float64(m.found)*mean*float64(m.k))
	return float32(interval.Lower(mean, interval.Effective(mean, trials, squares, m.queries), bound))
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
	parallel.Each(c.threads, n, func(worker, i int) {
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

// reaches reports whether m's effort reaches a goal, and measures it with as many
// queries as that takes.
func (c *calibration) reaches(ctx context.Context, m *measurement, g goal) (bool, error) {
	all := len(c.asked)
	n := max(m.queries, min(fewQueries, all))
	for {
		if err := c.measure(ctx, m, n); err != nil {
			return false, err
		}
		if n == all {
			return m.recall(g.bound) >= g.recall, nil
		}
		// What the mean of all will have to be, as far as these show.
		deviation := m.standardError(float64(g.recall))
		want := float64(g.recall) + float64(g.bound*deviation*math.Sqrt(float64(n)/float64(all)))
		if off := float64(m.recall(0)) - want; math.Abs(off) > certainty*deviation {
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
	return c.x.costs.exactCost(eligible, k)
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

// least returns the least step from first on that reaches a goal or costs too much, or
// the last one that is worth measuring, measured with every query.
func (s *steps) least(ctx context.Context, first int, g goal, costs func(*measurement) bool) (int, error) {
	does := func(i int) (bool, error) {
		m := s.step(i)
		reached, err := s.c.reaches(ctx, m, g)
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
//
// Of several efforts the least is taken whose bound is at the target. That is no more
// likely to be too little than a single test is: whatever effort finds, more effort finds
// as well, but for single rows, so one of the efforts that are too little passes hardly ever
// unless the largest of them does.
func (c *calibration) efforts(ctx context.Context, k int) ([]Effort, error) {
	of := &calibration{x: c.x, threads: c.threads, asked: c.asked[:c.measured(k)]}
	s := &steps{c: of, k: k, at: map[int]*measurement{}}
	most := float32(interval.Lower(1, float64(len(of.asked))*float64(k), interval.Z99))
	var efforts []Effort
	step := 0
	for _, target := range Targets {
		costs := of.costly
		if most < target { // though nothing be missed: no effort is worth trying
			costs = func(*measurement) bool { return true }
		}
		var err error
		if step, err = s.least(ctx, step, goal{target, interval.Z99}, costs); err != nil {
			return nil, err
		}
		m := s.step(step)
		efforts = append(efforts, Effort{K: k, Target: target, Ef: m.ef, Recall: m.recall(interval.Z99), Scored: m.meanScored()})
	}
	return efforts, nil
}
