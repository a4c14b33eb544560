package index

import (
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/sections"
)

// An exact scan finds the k best rows by their vectors, to the bit, and yet reads
// few vectors.
//
// # Goals
//
// The answer is what a scan of the vectors gives, ties and all, whatever the data
// is. The scan costs what reading the codes costs, a quarter of the memory; and
// where codes cannot tell rows apart, hardly more than reading the vectors.
//
// # Design
//
// The codes of a row give a lower bound of its distance. The first rows are scored
// on their vectors, which fills the top k; of all others only those are whose bound
// does not exceed the k-th best distance so far. Levels are random and the nodes of
// the upper ones come first, so the first rows are a sample of all, and the k-th
// best distance soon is near to what it ends at.
//
// # Why the bound holds
//
// Let x' = x-m for the centre m, s the row's step, c its codes less 128, and
// x' = s*c + e. Let q' = q under dot and cosine and q-m under L2, v its codes, a
// their step, and q' = a*v + r. Then
//
//	q'x' = s*(a*vc + rc + q'e/s)
//
// and vc is known exactly. By the way rows are coded no |c| is above 127 and no |e|
// above s/2, but for rounding; so q'x' is within s*(127*|r| + |q'|/2) of s*a*vc,
// where |.| sums magnitudes. That is a margin in proportion to s, like the shift of
// a query, and so [kernel.Within] computes the bound when the shift is less by the
// margin. The distance is -mq - q'x' under dot and cosine, |q'|^2 + |x'|^2 - 2q'x'
// under L2, where the margin counts twice.
//
// Rounding is accounted for in the same way. With u = 2^-24, and g = u times the
// roundings that a term of a kernel's sum goes through:
//
//   - What is rounded in proportion to s adds to the margin. In s*(scale*p + shift)
//     that is 2u of |p| <= 255|v|, 3u of 128|v| in the shift, and less than 1100u of
//     |v| from the other operations, all times a, where a|v| <= |q'|+|r|. In the exact
//     product it is g|q'| times at most 128s.
//   - Under dot and cosine the exact product also errs by g times the sum of |q_j m_j|
//     for the part of x that is the centre, and so does the base. That does not depend
//     on the row, so it is added to the distance that the bound is compared with.
//   - Under L2 the exact distance errs by g times itself, the base by g|q'|^2, and the
//     bias and its addition by a few u of |x'|^2. A row that matters has a distance D
//     of at most the k-th best, and then |x'|^2 <= 2D + 2|q'|^2. So this too is added
//     to what the bound is compared with.
//   - A product that is too small for a float32 errs by at most 2^-150; tiny is more
//     than any sum of them.
//
// An overflow can only make the bound minus infinity: that of a row is not above its
// distance, which is finite.

// scan is the memory of an exact scan.
type scan struct {
	seeds           int      // rows to score on their vectors before codes are of use
	list, nodes     []uint32 // rows to scan, and the nodes whose codes they have
	pending         []uint32 // rows that their bounds let pass
	futile          futility
	products        []float32   // of the query and the centres of groups
	spans           []span      // of each group
	groups          []candidate // that may hold any of the best, by promise
	coded           bool        // whether the query is, and what follows is known
	slack, relative float64     // what bounds are compared with exceeds the distance by
}

func (s *scan) begin(seeds int) {
	*s = scan{
		seeds: seeds, list: s.list[:0], nodes: s.nodes[:0], pending: s.pending[:0],
		products: s.products, spans: s.spans, groups: s.groups[:0],
	}
}

const (
	// block is how many rows are scored in one kernel call.
	block = 256
	// flush is how many rows that their bounds let pass are scored together. More
	// would wait long, while the distance to beat is out of date.
	flush = 32
	// sparse is the part of a block that must be eligible for all of it to be bound:
	// a listed row takes longer than that many in order.
	sparse = 3
	// fewest is how many times k rows there must be for bounds to be of use.
	fewest = 8

	rounding = 0x1p-24 // of one operation on float32
	tiny     = 0x1p-125
	// halfStep is what a component may be off its code by, in steps: a half, and
	// the rounding of a difference, of a quotient and of the step.
	halfStep = 0.5 + 4*127*rounding
)

// boundBelow makes q, a coded query, one for which the distances of codes are lower
// bounds.
func (c *codes) boundBelow(metric Metric, query []float32, q *kernel.Query, s *scan) {
	step := -float64(q.Scale)
	if metric == L2 {
		step /= 2
	}
	var size, rest, offset float64
	code := q.Code[:len(c.centre)]
	for j, m := range c.centre {
		d := float64(query[j])
		if metric == L2 {
			d -= float64(m)
			offset += float64(d * d)
		} else {
			offset += math.Abs(float64(d * float64(m)))
		}
		size += math.Abs(d)
		rest += math.Abs(d - float64(step*float64(code[j])))
	}
	sum := kernelError(len(query))
	margin := halfStep*size + 127*rest + 2000*rounding*(size+rest)
	if metric == L2 {
		margin *= 2
		s.relative = 2*sum + 40*rounding
		s.slack = s.relative*offset + tiny
	} else {
		margin += 128 * sum * size
		s.relative = 0
		s.slack = (2.2*sum+5*rounding)*offset + tiny
	}
	low := float32(float64(q.Shift) - 1.001*margin - tiny)
	q.Shift = math.Nextafter32(low, -infinity)
}

// kernelError returns what a kernel's sum over vectors of a padded length is off by at most,
// of the sum of the magnitudes: a product, a sixteenth of the row to add, four to fold the
// lanes; under L2 a difference, which is squared.
func kernelError(length int) float64 {
	return 1.1 * rounding * float64(length/16+8)
}

// limit returns what the bounds of rows within distance d do not exceed.
func (s *scan) limit(d float32) float32 {
	if d == infinity {
		return d
	}
	return math.Nextafter32(float32(float64(d)+s.relative*float64(d)+s.slack), infinity)
}

// futility decides where codes are not worth reading. After a block of which the
// bound let most rows pass, the next is scored on its vectors alone, and twice as
// many each time that happens again. What few rows say counts for nothing.
type futility struct {
	skip, next int
}

func (f *futility) skips() bool {
	f.skip--
	return f.skip >= 0
}

func (f *futility) saw(passed, of int) (most bool) {
	if most = passed > of/2 && of >= flush; most {
		f.next = max(1, 2*f.next)
		f.skip = f.next
	} else {
		f.next = 0
	}
	return most
}

// exactScan hands every eligible row to the top k, but for rows that are certainly
// not among the best.
func (x *Index) exactScan(s *scratch, q Query, stats *Stats) {
	s.trace = nil
	if q.Floored {
		s.top.bound = x.params.Metric.score(q.Floor)
	}
	if x.grouped(q) {
		stats.Scored += x.scanGroups(s, q)
		return
	}
	stats.Scored += q.Eligible
	one := [1]*scratch{s}
	x.scan(one[:], q)
}

// scan scans the eligible rows for several queries that differ in their vectors
// only. It goes block by block, so that a block is read from memory once for all.
func (x *Index) scan(queries []*scratch, q Query) {
	seeds := max(q.K, block)
	if q.Floored {
		seeds = 0
	} else if q.K > q.Eligible/fewest {
		seeds = q.Eligible
	}
	for _, s := range queries {
		s.scan.begin(seeds)
	}
	for first := 0; first < len(x.rows); first += block {
		n := min(block, len(x.rows)-first)
		eligible := n
		if q.Filter != nil {
			eligible = q.Filter[first/64 : (first+n+63)/64].Count()
		}
		if queries[0].pace.ends(len(queries) * n * x.codes.stride) {
			return
		}
		for _, s := range queries {
			switch {
			case eligible == 0:
			case eligible < n/sparse || first+n > x.nodes:
				x.listBlock(s, first, n, q.Filter)
				if len(s.scan.list) >= block {
					x.scanList(s)
				}
			default:
				x.scanBlock(s, first, n, eligible, q.Filter)
			}
		}
	}
	for _, s := range queries {
		x.scanList(s)
		x.addPending(s)
	}
}

// scanBlock scans the eligible ones of n nodes.
func (x *Index) scanBlock(s *scratch, first, n, eligible int, filter Bitset) {
	if s.scan.seeds > 0 {
		s.scan.seeds -= eligible
		x.addBlock(s, first, n, filter)
		return
	}
	if s.scan.futile.skips() {
		x.addBlock(s, first, n, filter)
		return
	}
	limit := x.limit(s)
	s.near = x.codes.withinRange(&s.coded, first, n, limit, s.near)
	if s.scan.futile.saw(len(s.near), n) {
		x.addBlock(s, first, n, filter)
		return
	}
	for _, c := range s.near {
		if ordinal := c.ordinal(); filter == nil || filter.Has(ordinal) {
			s.scan.pending = append(s.scan.pending, ordinal)
		}
	}
	if len(s.scan.pending) >= flush {
		x.addPending(s)
	}
}

// listBlock lists the eligible ones of n rows, and asks for the memory of their codes
// if those will be read.
func (x *Index) listBlock(s *scratch, first, n int, filter Bitset) {
	listed := len(s.scan.list)
	if filter != nil {
		s.scan.list = filter[first/64:(first+n+63)/64].appendFrom(uint32(first), s.scan.list)
	} else {
		for ordinal := first; ordinal < first+n; ordinal++ {
			s.scan.list = append(s.scan.list, uint32(ordinal))
		}
	}
	if first+n <= x.nodes && s.scan.seeds <= 0 {
		x.codes.prefetch(s.scan.list[listed:])
	}
}

// scanList scans the listed rows.
func (x *Index) scanList(s *scratch) {
	list := s.scan.list
	s.scan.list = list[:0]
	if len(list) == 0 {
		return
	}
	if s.scan.seeds > 0 || s.scan.futile.skips() {
		s.scan.seeds -= len(list)
		x.addList(s, list)
		return
	}
	nodes := list
	if int(list[len(list)-1]) >= x.nodes {
		nodes = s.scan.nodes[:0]
		for _, ordinal := range list {
			if int(ordinal) >= x.nodes {
				ordinal = x.duplicates[int(ordinal)-x.nodes]
			}
			nodes = append(nodes, ordinal)
		}
		s.scan.nodes = nodes
	}
	limit := x.limit(s)
	s.near = x.codes.within(&s.coded, nodes, limit, s.near)
	s.scan.futile.saw(len(s.near), len(nodes))
	// What passed is in the order of the list, and of the rows of one node either all
	// passed or none did.
	near := s.near
	for i := 0; len(near) > 0; i++ {
		if nodes[i] == near[0].ordinal() {
			s.scan.pending = append(s.scan.pending, list[i])
			near = near[1:]
		}
	}
	if len(s.scan.pending) >= flush {
		x.addPending(s)
	}
}

// limit returns what bounds are compared with. It codes the query when it is first
// called.
func (x *Index) limit(s *scratch) float32 {
	if !s.scan.coded {
		s.scan.coded = true
		x.codes.code(x.params.Metric, s.query, &s.coded)
		x.codes.boundBelow(x.params.Metric, s.query, &s.coded, &s.scan)
	}
	return s.scan.limit(s.top.bound)
}

// addBlock scores the eligible ones of n rows on their vectors.
func (x *Index) addBlock(s *scratch, first, n int, filter Bitset) {
	s.dists = slices.Grow(s.dists[:0], n)[:n]
	x.vectors.scoreRange(x.params.Metric, s.query, first, s.dists)
	for i, d := range s.dists {
		ordinal := uint32(first + i)
		if d = x.params.Metric.score(d); !s.top.rejects(d) && (filter == nil || filter.Has(ordinal)) {
			s.top.add(newCandidate(d, ordinal), x.rows)
		}
	}
}

// addList scores listed rows on their vectors.
func (x *Index) addList(s *scratch, ordinals []uint32) {
	for i, d := range x.distances(s, ordinals) {
		if !s.top.rejects(d) {
			s.top.add(newCandidate(d, ordinals[i]), x.rows)
		}
	}
}

// addPending scores what its bounds let pass.
func (x *Index) addPending(s *scratch) {
	if len(s.scan.pending) > 0 {
		x.addList(s, s.scan.pending)
		s.scan.pending = s.scan.pending[:0]
	}
}

// withinRange returns what is within the bound of n nodes from first on, as within
// does.
func (c *codes) withinRange(q *kernel.Query, first, n int, bound float32, dst []candidate) []candidate {
	dst = slices.Grow(dst[:0], n+kernel.Spare)
	dst = dst[:cap(dst)]
	return dst[:kernel.WithinRange(q, c.rows, c.factors, first, n, bound, dst)]
}

// checkCodes returns an error if a code is not as near to its component as bounds take
// it to be.
func (x *Index) checkCodes() error {
	c := &x.codes
	buf := make([]float32, x.stride)
	for node := range uint32(x.nodes) {
		step := float64(c.factors[2*node])
		var square float64
		for j, v := range x.vectors.row(node, buf)[:x.dim] {
			d := float64(v) - float64(c.centre[j])
			code := float64(c.rows[int(node)*c.stride+j]) - 128
			if off := math.Abs(d - float64(step*code)); !(off <= halfStep*step) || math.Abs(code) > 127 {
				return sections.Corruptf(codesSection, "node %d: component %d is coded %g steps off", node, j, off/step)
			}
			square += float64(d * d)
		}
		want := 0.0
		if x.params.Metric == L2 {
			want = square
		}
		if bias := float64(c.factors[2*node+1]); math.Abs(bias-want) > 4*rounding*want+tiny {
			return sections.Corruptf(factorsSection, "node %d has bias %g, want %g", node, bias, want)
		}
	}
	return nil
}
