package index

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// CostModel is what estimates of searches read of an index, which [Index.CostModel] returns:
// who has it plans and estimates as the index does, wherever that is. It is a value of plain
// fields. Its methods may be called from any number of goroutines while nothing changes them;
// one that comes from elsewhere must pass [CostModel.Validate] first.
type CostModel struct {
	Rows  int // of the index
	Nodes int // rows with different vectors
	// Flat is whether there is no graph to walk; see [Flat].
	Flat bool
	// Degree is the mean number of neighbours of some nodes on layer 0.
	Degree   float64
	Effort   []Effort         // as of [Index.Effort]
	Filtered []FilteredEffort // as of [Index.FilteredEffort]
}

// CostModel returns the index's, which the caller must not change.
func (x *Index) CostModel() *CostModel { return &x.costs }

// degreeSample is how many nodes tell the mean number of neighbours.
const degreeSample = 16

// measureCosts notes what the costs of searches depend on, but for what a calibration finds.
func (x *Index) measureCosts() {
	x.costs.Rows, x.costs.Nodes, x.costs.Flat, x.costs.Degree = len(x.rows), x.nodes, x.flat(), 0
	if x.nodes == 0 || x.flat() {
		return
	}
	for i := range degreeSample {
		x.costs.Degree += float64(len(x.layers[0].neighbours(uint32(i*x.nodes/degreeSample)))) / degreeSample
	}
}

// Validate returns an error that names a field which no index's model has.
func (m *CostModel) Validate() error {
	switch {
	case m.Rows < 0 || m.Rows > MaxRows:
		return fmt.Errorf("cost model: %d rows, want 0 to %d", m.Rows, MaxRows)
	case m.Nodes < min(m.Rows, 1) || m.Nodes > m.Rows:
		return fmt.Errorf("cost model: %d nodes of %d rows", m.Nodes, m.Rows)
	case !(m.Degree >= 0 && m.Degree <= MaxRows): // NaN is neither
		return fmt.Errorf("cost model: a mean of %v neighbours, want 0 to %d", m.Degree, MaxRows)
	}
	for i, e := range m.Effort {
		if !e.valid() || i > 0 && !m.Effort[i-1].before(e) {
			return fmt.Errorf("cost model: effort %d is %+v, want numbers that a calibration finds, by k and target", i, e)
		}
	}
	for i, e := range m.Filtered {
		if !e.valid() || i > 0 && !m.Filtered[i-1].before(e) {
			return fmt.Errorf("cost model: filtered effort %d is %+v, want numbers that a calibration finds, by falling share, k and target", i, e)
		}
	}
	return nil
}

// EffortFor returns the effort that was shown to reach a mean recall of target for k
// rows, and 0, the exact scan, for a target above the highest calibrated one, for
// one that no walk cheaper than the scan reached, or without a calibration.
// From one band of k to the next it rises, and is that of the next from half-way on;
// beyond the last it scales.
func (m *CostModel) EffortFor(k int, target float64) int {
	ef, reached := effortFor(m.Effort, k, target)
	if !reached {
		return 0
	}
	return ef
}

// FilteredEffortFor returns the effort of a filtered walk that the calibration found to
// do with room to spare where such a share of rows is eligible, and 0, the exact scan,
// where none does. Between two shares it interpolates by their logarithm. Where no more
// rows than k are not eligible, a walk has room for them and needs no more effort than
// without a filter. A file without filtered efforts says nothing of them; there it is
// half as much again as without a filter, and a little, as it takes on SIFT.
func (m *CostModel) FilteredEffortFor(k int, target float64, eligible int) int {
	ef := m.EffortFor(k, target)
	if ef == 0 || eligible == 0 || m.Rows-eligible <= k {
		return ef
	}
	if len(m.Filtered) == 0 {
		return ef + ef/2 + 20
	}
	found := m.classEffort(k, target, eligible)
	if found == 0 {
		return 0
	}
	return max(found+found/4, ef+filteredLeast)
}

// filteredLeast is how much more effort a filtered walk gets at least than one without a
// filter, beside a quarter more than was found. Filters that people write are harder than
// those that a calibration can make up: they keep what is alike in ways that the vectors
// do not show.
const filteredLeast = 20

// classEffort returns the effort that was found, 0 where that is the exact scan.
func (m *CostModel) classEffort(k int, target float64, eligible int) int {
	high, low, at := m.classesAround(eligible)
	if low == nil {
		return 0 // the calibration ended where scans are cheaper
	}
	ef, reached := effortFor(low, k, target)
	if high == nil || at == 1 {
		if !reached {
			return 0
		}
		return ef
	}
	from, ok := effortFor(high, k, target)
	if !reached {
		// A walk costs about the same at both shares, and the scan costs less the fewer
		// rows are eligible: somewhere between the two it becomes the better plan. Up to
		// half-way effort rises to what was tried last, and beyond the scan is taken.
		at *= 2
	}
	if !ok || at > 1 {
		return 0
	}
	return from + int(math.Round(float64(ef-from)*at))
}

// class holds what was found for one share of eligible rows. It is not empty.
type class []FilteredEffort

func (c class) share() float64 { return float64(c[0].Share) }

// classesAround returns the classes of the next higher and the next lower share than
// that of the eligible rows, nil where there is none, and how far it is from one to the
// other, from 0 to 1.
func (m *CostModel) classesAround(eligible int) (high, low class, at float64) {
	share := float64(eligible) / float64(m.Rows)
	for rest := m.Filtered; len(rest) > 0; rest = rest[len(low):] {
		n := 1
		for n < len(rest) && rest[n].Share == rest[0].Share {
			n++
		}
		low = class(rest[:n])
		if low.share() <= share {
			if high == nil {
				return nil, low, 1
			}
			return high, low, math.Log(high.share()/share) / math.Log(high.share()/low.share())
		}
		high = low
	}
	return high, nil, 0
}

// The relative cost of a row, with everything around it: in a scan of all rows,
// which reads codes in order, and in a scan of some; and that of a list that a
// filtered walk looks through. They are fixed, not timed during the build, so that
// builds stay reproducible.
const (
	scanCost    = 1
	gatherCost  = 4
	vectorCost  = 3   // of a row whose vector is read too,
	keepCost    = 150 // of those that are until the best is found, for each row of the answer
	throughCost = 30
)

// walkCost is that of a distance that a walk computes: a larger pool costs more to
// keep sorted.
func walkCost(ef int) float64 { return 9 + float64(ef)/128 }

// exactCost is that of an exact scan for k rows. Where many rows are eligible it reads
// the codes of all; and the more it keeps, the more vectors it reads beside the codes.
func (m *CostModel) exactCost(eligible, k int) float64 {
	return float64(min(m.Rows*scanCost, eligible*gatherCost) + min(k*keepCost, eligible*vectorCost))
}

// walkPart is the part of the exact scan's cost that a filtered walk may be expected to
// cost. Single walks cost more than expected, and one that is given up costs the scan too.
const walkPart = 0.75

// choose returns the plan that costs least, and notes in stats why, unless all are asked
// for, and what it expects.
func (m *CostModel) choose(q Query, stats *Stats) Plan {
	if q.K == q.Eligible {
		return ExactScan
	}
	if q.Ef == 0 {
		stats.Reason = NoEffort
		return ExactScan
	}
	most := 1.0
	stats.ExactCost = m.exactCost(q.Eligible, q.K)
	if q.Filter != nil {
		most, stats.Walk, stats.WalkCost = walkPart, FilteredWalk, m.filteredCost(q)
	} else {
		stats.Walk, stats.WalkCost = GraphWalk, m.graphCost(m.among(q))
	}
	stats.Reason = Cheapest
	if stats.WalkCost < most*stats.ExactCost {
		return stats.Walk
	}
	if stats.WalkCost < stats.ExactCost {
		stats.Reason = TooNear
	}
	return ExactScan
}

// among returns how many nodes a graph walk expands: the effort, and its part of the dead
// rows.
func (m *CostModel) among(q Query) int {
	if q.Dead == nil {
		return q.Ef
	}
	return min(q.Ef+int(float64(q.Ef)*float64(m.deadAmong(q))/float64(max(q.Ef, q.K))), m.Nodes)
}

// deadAmong returns how many dead rows are to be expected among the best K that are not.
func (m *CostModel) deadAmong(q Query) int {
	return int(math.Round(float64(q.K) * float64(m.Rows-q.Eligible) / float64(q.Eligible)))
}

// guideEf returns the pool of the walk of all nodes that a filtered walk begins with.
func (m *CostModel) guideEf(eligible int) int {
	return min(max(amidMean*m.Rows/eligible, guideLeast), m.Nodes)
}

// Cost estimates what [Index.Search] takes for k rows with an effort of ef, of so many
// eligible rows, by the plan that it would choose. A row in a scan of all rows costs 1.
func (m *CostModel) Cost(k, ef, eligible int) float64 {
	q := Query{K: min(k, eligible), Ef: min(ef, m.Nodes), Eligible: eligible}
	if q.K == 0 {
		return 0
	}
	if m.Flat {
		return m.exactCost(eligible, q.K)
	}
	if eligible < m.Rows {
		q.Filter = Bitset{} // that there is one is what matters
	}
	var stats Stats
	if m.choose(q, &stats) == ExactScan {
		return m.exactCost(eligible, q.K)
	}
	return stats.WalkCost
}

// filteredCost estimates what a filtered walk costs for a query that is amid what is
// eligible.
func (m *CostModel) filteredCost(q Query) float64 {
	if missing := m.Rows - q.Eligible; missing <= max(q.Ef, q.K) {
		return m.graphCost(q.Ef + missing)
	}
	return m.graphCost(m.guideEf(q.Eligible)) + m.afterGuide(q.Ef, q.Eligible)
}

// graphCost estimates what a walk of all nodes costs.
func (m *CostModel) graphCost(ef int) float64 { return m.walkScored(ef) * walkCost(ef) }

// afterGuide estimates what the rest of a filtered walk costs: from what was calibrated for shares and efforts around, and without that from the
// share of the rows that are eligible. Of a node's list about two thirds are new to a
// walk, of a list that it looks through about a half.
func (m *CostModel) afterGuide(ef, eligible int) float64 {
	high, low, at := m.classesAround(eligible)
	if high == nil {
		high = low
	} else if low == nil {
		low = high
	}
	if low != nil {
		from, to := low.afterGuide(m, ef), high.afterGuide(m, ef)
		return to + (from-to)*at
	}
	share := float64(eligible) / float64(m.Rows)
	own, more := m.Degree*share*2/3, m.Degree*share/2
	through := m.Degree * (1 - share)
	if more > 0 {
		through = min(through, (m.Degree-own)/more)
	}
	return float64(ef) * ((own+through*more)*walkCost(ef) + through*throughCost)
}

// afterGuide scales what the calibrated effort nearest to ef costs.
func (c class) afterGuide(m *CostModel, ef int) float64 {
	e := &c[0]
	for i := range c {
		if distance(c[i].Ef, ef) < distance(e.Ef, ef) {
			e = &c[i]
		}
	}
	guide := m.walkScored(m.guideEf(max(int(c.share()*float64(m.Rows)), 1)))
	cost := max(float64(e.Scored)-guide, 0)*walkCost(ef) + float64(e.Through)*throughCost
	return cost * float64(ef) / float64(e.Ef)
}

// walkScored estimates how many distances a walk with pools of ef computes, from
// the calibrated efforts around ef.
func (m *CostModel) walkScored(ef int) float64 {
	perEf := 8.0 // a typical walk, where nothing was measured
	if len(m.Effort) > 0 {
		nearest := slices.MinFunc(m.Effort, func(a, b Effort) int {
			return cmp.Compare(distance(a.Ef, ef), distance(b.Ef, ef))
		})
		perEf = float64(nearest.Scored) / float64(nearest.Ef)
	}
	return min(perEf*float64(ef), float64(m.Nodes))
}

func distance(a, b int) int { return max(a-b, b-a) }

// EffortFor is [CostModel.EffortFor] of the index's model.
func (x *Index) EffortFor(k int, target float64) int { return x.costs.EffortFor(k, target) }

// FilteredEffortFor is [CostModel.FilteredEffortFor] of the index's model.
func (x *Index) FilteredEffortFor(k int, target float64, eligible int) int {
	return x.costs.FilteredEffortFor(k, target, eligible)
}

// Cost is [CostModel.Cost] of the index's model.
func (x *Index) Cost(k, ef, eligible int) float64 { return x.costs.Cost(k, ef, eligible) }
