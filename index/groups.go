package index

import (
	"math"
	"slices"
	"sort"

	"github.com/tandem-ann/tandem/index/kernel"
)

// A flat index of many rows has alike ones together, so that a scan which knows a distance
// to beat reads few of them.
//
// # Design
//
// Rows are dealt to the nearest of some centres, which k-means finds on a sample. Within
// a group rows are in falling order of their distance e from its centre c. The triangle
// inequality says which of them may be within a distance of a query: under dot and cosine
//
//	qx = qc + q(x-c) <= qc + |q|e
//
// so it is those that are far enough from the centre, and under L2 those that are about
// as far from it as the query is. Either are consecutive, so one product for each centre
// and two searches in a sorted list leave ranges, which are scanned by codes. A bound of
// each row is worth more than one of a whole group: in a group of some hundreds there is
// mostly a row that is far from all others.
//
// The most promising group comes first, so that without a floor, too, the distance to
// beat soon is near to what it ends at.
//
// # Why the bound holds
//
// With g as in scan.go, a product that a kernel computes is off by at most g|q||x|, and
// |x| <= |c|+e; so of the products with a row and with its centre, each adds that much to
// what is compared. Under L2 a squared distance is off by at most g times itself. Distances
// from a centre, and what they are compared with, are rounded to a float32, and all else is
// computed in float64: together that is far below a share of 2^-20. A factor of 2 of g is more
// than what it hides from: that of the true distance and not of the computed one.

// groups are the rows of a flat index by likeness. There may be none.
type groups struct {
	centres []float32 // padded as vectors are
	list    []group
	first   []uint32  // the first ordinal of each group, and the end
	away    []float32 // by ordinal: distance from the centre, falling within a group
}

// group is what tells whether a group is worth a look.
type group struct {
	norm        float64 // of the centre
	most, least float32 // the distances from the centre of the farthest row, and of the nearest
}

const (
	// grouping is the least number of rows worth it: a scan of fewer is short.
	grouping = 1 << 11
	// groupRows is about how many rows a group has, and mostGroups how many groups there
	// are at most: each costs a product for each row when the index is made.
	groupRows  = 256
	mostGroups = 128
	// Centres are found on so many rows for each of them, in so many rounds.
	groupSample, groupRounds = 32, 4
	// scattered is the part of the rows that must be eligible for ranges to be scanned: of
	// fewer, a list is shorter than what the ranges hold.
	scattered = 8
	// fours is how many rows kernels score together.
	fours = 4
	// aheadRows is of how many rows at most the codes are asked for ahead: from there the
	// hardware follows.
	aheadRows = 16

	away20 = 0x1p-20 // the share that distances from centres may be off by
)

// groupRowsOf returns the rows of m by likeness, and the row of each ordinal.
func groupRowsOf(m *Matrix) (g groups, order []uint32) {
	rows := m.Rows()
	order = make([]uint32, rows)
	for row := range order {
		order[row] = uint32(row)
	}
	if rows < grouping {
		return g, order
	}
	centres := findCentres(m)
	members := make([][]uint32, len(centres)/m.stride)
	dists := make([]float32, len(members))
	for row := range rows {
		n := nearest(m.padded(row), centres, dists)
		members[n] = append(members[n], uint32(row))
	}
	g.away, order = make([]float32, 0, rows), order[:0]
	sorted, sum := make([]candidate, 0, 2*groupRows), make([]float64, m.dim)
	for n, list := range members {
		if len(list) == 0 {
			continue
		}
		centre := centres[n*m.stride : (n+1)*m.stride]
		mean(m, list, sum, centre)
		sorted = sorted[:0]
		for _, row := range list {
			sorted = append(sorted, newCandidate(-awayFrom(m.Row(int(row)), centre), row))
		}
		slices.Sort(sorted)
		g.centres = append(g.centres, centre...)
		g.list = append(g.list, group{math.Sqrt(squaredNorm(centre)), -sorted[0].dist(), -sorted[len(sorted)-1].dist()})
		g.first = append(g.first, uint32(len(order)))
		for _, c := range sorted {
			g.away = append(g.away, -c.dist())
			order = append(order, c.ordinal())
		}
	}
	g.first = append(g.first, uint32(len(order)))
	return g, order
}

// findCentres returns the centres of groups, padded.
func findCentres(m *Matrix) []float32 {
	rows := m.Rows()
	k := min(rows/groupRows, mostGroups)
	sample := k * groupSample // fewer than the rows
	at := func(i, of int) []float32 { return m.padded(int(int64(i) * int64(rows) / int64(of))) }
	centres := make([]float32, 0, k*m.stride)
	for n := range k {
		centres = append(centres, at(n, k)...)
	}
	dists, members, sum := make([]float32, k), make([][]uint32, k), make([]float64, m.dim)
	for range groupRounds {
		for n := range members {
			members[n] = members[n][:0]
		}
		for i := range sample {
			n := nearest(at(i, sample), centres, dists)
			members[n] = append(members[n], uint32(int64(i)*int64(rows)/int64(sample)))
		}
		for n, list := range members {
			mean(m, list, sum, centres[n*m.stride:(n+1)*m.stride])
		}
	}
	return centres
}

// nearest returns the centre that is nearest to a row, the first of those that tie. It
// leaves the distances in dists.
func nearest(row, centres, dists []float32) (best int) {
	kernel.L2Range(row, centres, 0, dists)
	for n, d := range dists {
		if d < dists[best] {
			best = n
		}
	}
	return best
}

// mean sets dst to the mean of listed rows, if there are any. It uses the memory of sum.
func mean(m *Matrix, rows []uint32, sum []float64, dst []float32) {
	if len(rows) == 0 {
		return
	}
	clear(sum)
	for _, row := range rows {
		for j, x := range m.Row(int(row)) {
			sum[j] += float64(x)
		}
	}
	for j, x := range sum {
		dst[j] = float32(x / float64(len(rows)))
	}
}

// awayFrom returns the Euclidean distance of a row from a centre.
func awayFrom(row, centre []float32) float32 {
	var sum float64
	for j, x := range row {
		d := float64(x) - float64(centre[j])
		sum += float64(d * d)
	}
	return float32(math.Sqrt(sum))
}

// grouped reports whether groups are of use to a scan.
func (x *Index) grouped(q Query) bool {
	return len(x.groups.first) > 0 && q.Eligible >= len(x.rows)/scattered &&
		(q.Floored || q.K <= q.Eligible/fewest)
}

// scanGroups scans the rows that may be among the best, and returns how many it looked at.
func (x *Index) scanGroups(s *scratch, q Query) (scored int) {
	seeds := 0
	if !q.Floored {
		seeds = max(q.K, block)
	}
	s.scan.begin(seeds)
	b := x.approach(s)
	if !q.Floored { // else there is a distance to beat already
		slices.Sort(s.scan.groups)
	}
	from, to := x.ahead(s, &b, 0)
	for i := range s.scan.groups {
		// What is next is asked for while this is scanned: a group is mostly left after few rows.
		nextFrom, nextTo := x.ahead(s, &b, i+1)
		for ; from < to; from += block {
			n := min(block, to-from)
			if s.pace.ends(n * x.codes.stride) {
				return scored
			}
			scored += n
			x.scanBlock(s, from, n, n, q.Filter)
		}
		from, to = nextFrom, nextTo
	}
	x.addPending(s)
	return scored
}

// approach makes s.scan.groups the groups that may hold any of the best, s.scan.products
// what the kernel says of the query and the centres, and s.scan.spans where in each group the
// best may be.
func (x *Index) approach(s *scratch) ball {
	g := &x.groups
	n := len(g.list)
	s.scan.products = slices.Grow(s.scan.products[:0], n)[:n]
	s.scan.spans = slices.Grow(s.scan.spans[:0], n)[:n]
	if x.params.Metric == L2 {
		kernel.L2Range(s.query, g.centres, 0, s.scan.products)
	} else {
		kernel.DotRange(s.query, g.centres, 0, s.scan.products)
	}
	b := ball{
		metric: x.params.Metric, norm: math.Sqrt(squaredNorm(s.query)), off: kernelError(len(s.query)), bound: s.top.bound,
	}
	b.inverse = 1 / b.norm
	for i, p := range s.scan.products {
		of := &g.list[i]
		near := b.span(p, of, b.bound)
		s.scan.spans[i] = near
		if !(of.most < near.low) && !(of.least > near.high) {
			s.scan.groups = append(s.scan.groups, newCandidate(b.promise(p, of.most, of.least), uint32(i)))
		}
	}
	return b
}

// ahead returns the ordinals from and up to to of one of the groups, of which place says
// which, that may be among the best, and asks for the memory of the first of them.
func (x *Index) ahead(s *scratch, b *ball, place int) (from, to int) {
	if place >= len(s.scan.groups) {
		return 0, 0
	}
	i := s.scan.groups[place].ordinal()
	near := s.scan.spans[i]
	if s.top.bound < b.bound {
		near = b.span(s.scan.products[i], &x.groups.list[i], s.top.bound)
	}
	from, to = x.groups.between(i, near)
	s.next[0] = uint32(from)
	x.codes.prefetchRange(s.next[:], min(to-from, aheadRows))
	return from, to
}

// between returns the ordinals from and up to to of a group that are within a span, and less
// than four after them: a range that is no multiple of four takes a kernel longer.
func (g *groups) between(i uint32, near span) (from, to int) {
	first := int(g.first[i])
	away := g.away[first:g.first[i+1]]
	if away[0] > near.high {
		from = sort.Search(len(away), func(j int) bool { return away[j] <= near.high })
	}
	// Mostly there are few: to halve what is left reads more memory than to read all of them.
	for to = from; to < len(away) && !(away[to] < near.low); to += fours {
	}
	return first + from, first + min(to, len(away))
}

// ball says how far from the centres of groups what is near to a query may be.
type ball struct {
	metric  Metric
	norm    float64 // of the query
	inverse float64 // of its norm
	off     float64 // what a kernel's sum may be off by, of the sum of the magnitudes
	bound   float32 // that of the spans of all groups
}

// span is between which distances from a centre rows are. Where these are no numbers, all
// rows are within them.
type span struct{ low, high float32 }

// span returns between which distances from a centre the rows within the bound are. p is
// what the kernel says of the query and the centre of the group.
func (b *ball) span(p float32, of *group, bound float32) span {
	if b.metric == L2 {
		near := math.Sqrt(max(0, float64(p)*(1-2*b.off)-tiny))
		far := math.Sqrt(float64(p)*(1+2*b.off) + tiny)
		reach := math.Sqrt(float64(bound)*(1+2*b.off) + tiny)
		low, high := near-reach, far+reach
		return span{float32(low - math.Abs(low)*away20 - tiny), float32(high + high*away20 + tiny)}
	}
	slack := 2.2*b.off*b.norm*(of.norm+float64(of.most)) + tiny
	// Without a query of any length this is an infinity, or no number: then no row is
	// nearer.
	low := (-float64(p) - float64(bound) - slack) * b.inverse
	if math.IsInf(low, 0) {
		return span{float32(low), infinity}
	}
	return span{float32(low - math.Abs(low)*away20 - tiny), infinity}
}

// promise returns about the least distance that a row of a group may have.
func (b *ball) promise(p, most, least float32) float32 {
	if b.metric == L2 {
		d := float32(math.Sqrt(float64(p)))
		gap := max(0, d-most, least-d)
		return gap * gap
	}
	return -p - float32(b.norm)*most
}
