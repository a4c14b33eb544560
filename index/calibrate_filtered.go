package index

import (
	"context"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/parallel"
)

// How filtered walks are calibrated.
//
// # Goals
//
// A filtered walk must reach its target under a filter that nobody has seen: one that
// has nothing to do with the queries, one that keeps what they want or what they do not,
// and both in one. The planner must know what the walk costs, and that no walk will do
// where none does. All that has to take no longer than the rest of the
// calibration.
//
// # Design
//
// What a walk has to do depends on whether the query is amid what is eligible, which the
// walk itself finds out (see [Index.filteredWalk]), more than on how the filter came about:
// measured on SIFT and on a million clustered rows, queries that are amid need about the
// same effort under filters of all kinds. So the searches under filters of all
// kinds are put together. Only those that are amid count, since the others are answered by
// the exact scan, and of them only the half that has the fewest eligible nodes
// near, since a filter that nobody has seen may be one under which all queries are
// like those. How many rows are eligible matters too, so that is done for a few shares,
// ever smaller until no walk can cost less than the exact scan.
//
// Filters of our own say nothing of queries that are apart: on a real tower, what little
// effort found the answers of the few such queries under these filters missed most under
// filters by popularity.

// Each share is a part of 1/shareStep of the one before it, the last one half of it.
const (
	firstShare = 0.5
	shareStep  = 4
	lastStep   = 2
)

const (
	// fewestAsked is how many searches it takes for their recall to tell something.
	fewestAsked = 16
	// fewestEligible is how many times k rows must be eligible: of fewer, a scan costs less.
	fewestEligible = 4
	// filteredMargin is the part of what a target leaves that a recall must be above it by,
	// since few searches show it.
	filteredMargin = 0.25
	// leastFilteredEf is the least effort. Where the short walk finds the answers of most
	// queries less would do for the mean, and single queries would fare badly.
	leastFilteredEf = 10
)

// filteredQueries returns how many queries are asked for k rows under each filter: the
// more rows are asked for, the less their recall varies.
func filteredQueries(k int) int { return max(int(256/math.Sqrt(float64(k))), 8) }

// filtered returns the filtered efforts.
func (c *calibration) filtered(ctx context.Context) ([]FilteredEffort, error) {
	var found []FilteredEffort
	for number, share := range c.shares() {
		searches, err := c.underFilters(ctx, c.filters(share, number))
		if err != nil {
			return nil, err
		}
		useful := false
		for _, k := range c.bands {
			of := &calibration{x: c.x, threads: c.threads}
			for _, a := range searches {
				if len(a.exact) >= k {
					of.asked = append(of.asked, a)
				}
			}
			if len(of.asked) < fewestAsked {
				continue
			}
			of.asked = poorer(of.asked)
			efforts, err := of.filteredEfforts(ctx, k)
			if err != nil {
				return nil, err
			}
			for _, e := range efforts {
				e.Share = float32(share)
				found = append(found, e)
				useful = useful || e.Recall >= e.Target
			}
		}
		if !useful {
			break
		}
	}
	return found, nil
}

// shares returns the shares of eligible rows to calibrate for: those for which a walk may
// cost less than the exact scan.
func (c *calibration) shares() []float64 {
	may := func(share float64) bool {
		eligible := int(share * float64(len(c.x.rows)))
		return eligible >= fewestEligible*c.bands[0] && c.x.costs.graphCost(c.x.costs.guideEf(eligible)) < c.x.costs.exactCost(eligible, c.bands[0])
	}
	var shares []float64
	share := firstShare
	for ; may(share); share /= shareStep {
		shares = append(shares, share)
	}
	if share *= shareStep / lastStep; len(shares) > 0 && may(share) {
		shares = append(shares, share)
	}
	return shares
}

// poorer returns the half of the searches that has the fewest eligible nodes near, and
// those with as many.
func poorer(searches []asked) []asked {
	near := make([]int, len(searches))
	for i, a := range searches {
		near[i] = a.near
	}
	slices.Sort(near)
	most := near[(len(near)-1)/2]
	return slices.DeleteFunc(searches, func(a asked) bool { return a.near > most })
}

// filteredEfforts returns the least effort for each target.
func (c *calibration) filteredEfforts(ctx context.Context, k int) ([]FilteredEffort, error) {
	s := &steps{c: c, k: k, at: map[int]*measurement{}}
	var efforts []FilteredEffort
	step := 0
	for s.step(step).ef < min(leastFilteredEf, c.x.nodes) {
		step++
	}
	for _, target := range Targets {
		var err error
		if step, err = s.least(ctx, step, goal{recall: target + (1-target)*filteredMargin}, c.costly); err != nil {
			return nil, err
		}
		m := s.step(step)
		efforts = append(efforts, FilteredEffort{
			Effort:  Effort{K: k, Target: target, Ef: m.ef, Recall: m.recall(0), Scored: m.meanScored()},
			Through: m.meanThrough(),
		})
	}
	return efforts, nil
}

// underFilters returns searches for the first queries under each filter, in turns, if they
// are amid what is eligible. They have as many exact hits as the largest band they are
// asked for has rows.
func (c *calibration) underFilters(ctx context.Context, filters []Query) ([]asked, error) {
	queries := min(c.queries.Rows(), filteredQueries(c.bands[0]))
	near := make([]int, queries*len(filters)) // eligible nodes near, 0 for those that are apart
	parallel.Each(c.threads, len(near), func(_, i int) {
		if ctx.Err() == nil {
			near[i] = c.x.amid(c.queries.Row(i/len(filters)), filters[i%len(filters)])
		}
	})
	type group struct {
		filter  int
		queries []int
	}
	var groups []group
	for f := range filters {
		last := -1 // the group that has room for a query
		for i := range queries {
			if near[i*len(filters)+f] == 0 {
				continue
			}
			if last < 0 || len(groups[last].queries) == together {
				last = len(groups)
				groups = append(groups, group{filter: f})
			}
			groups[last].queries = append(groups[last].queries, i)
		}
	}
	exact := make([][][]Hit, len(filters))
	for f := range exact {
		exact[f] = make([][]Hit, queries)
	}
	parallel.Chunks(c.threads, len(groups), 1, func(_, i int) {
		g, q := groups[i], filters[groups[i].filter]
		for _, k := range c.bands {
			if filteredQueries(k) > g.queries[0] && fewestEligible*k <= q.Eligible {
				q.K = k
			}
		}
		if q.K > 0 && ctx.Err() == nil {
			c.scan(q, g.queries, exact[g.filter])
		}
	})
	var found []asked
	for i, n := range near {
		if n > 0 {
			q := filters[i%len(filters)]
			q.Vector = c.queries.Row(i / len(filters))
			found = append(found, asked{q, exact[i%len(filters)][i/len(filters)], n})
		}
	}
	return found, ctx.Err()
}

// filters returns filters of about a share of the rows: rows drawn by a hash, those that
// score best against a query of the sample, those that score worst, and rows drawn by a
// hash among those that score best. The query depends on number. A filter that equal
// scores make much larger or smaller is left out.
func (c *calibration) filters(share float64, number int) []Query {
	x := c.x
	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	x.begin(s, c.queries.Row(c.queries.Rows()-1-number%c.queries.Rows()), 1)
	distances := make([]float32, len(x.rows))
	x.vectors.scoreRange(x.params.Metric, s.query, 0, distances)
	for i, d := range distances {
		distances[i] = x.params.Metric.score(d)
	}
	sorted := slices.Clone(distances)
	slices.Sort(sorted)
	within := func(share float64) float32 { return sorted[int(share*float64(len(sorted)))] }
	drawn := func(ordinal int, share float64) bool {
		return float64(mix(uint64(x.rows[ordinal])+uint64(number)<<32)>>11) < share*(1<<53)
	}
	root := math.Sqrt(share)
	near, far, wide := within(share), within(1-share), within(root)
	var filters []Query
	for _, eligible := range []func(ordinal int) bool{
		func(ordinal int) bool { return drawn(ordinal, share) },
		func(ordinal int) bool { return distances[ordinal] < near },
		func(ordinal int) bool { return distances[ordinal] >= far },
		func(ordinal int) bool { return distances[ordinal] < wide && drawn(ordinal, root) },
	} {
		q := Query{Filter: NewBitset(len(x.rows))}
		for ordinal := range x.rows {
			if eligible(ordinal) {
				q.Filter.Set(uint32(ordinal))
			}
		}
		q.Eligible = q.Filter.Count()
		if meant := share * float64(len(x.rows)); float64(q.Eligible) > meant/2 && float64(q.Eligible) < 2*meant {
			filters = append(filters, q)
		}
	}
	return filters
}
