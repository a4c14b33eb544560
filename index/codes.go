package index

import (
	"math"
	"slices"
	"unsafe"

	"github.com/tandem-ann/tandem/index/kernel"
)

// codes are the nodes' vectors in one byte a component, which a walk scores
// instead of the vectors: a quarter of the memory traffic.
//
// A vector x is coded relative to a centre m of all nodes with a step of its own:
// x = m + step * (code - 128), so that neither a collapsed space (where all
// vectors are near their mean) nor a law of norms (where a few are far longer
// than the rest) costs digits. Any centre is right; see centre for a good one. A query is coded in signed bytes, and with the
// exact integer product p of the two codes the distance is approximated as
//
//	bias + step * (scale*p + shift)
//
// where scale and shift belong to the query; bias is 0 under dot and cosine and
// |x-m|^2 under L2.
type codes struct {
	stride  int
	centre  []float32 // dim
	rows    []uint8   // nodes x stride
	factors []float32 // nodes x 2: step, bias

	padded []float32 // the centre, padded as vectors are
}

// smallest is the least normal float32. A smaller step has few digits, and would leave
// a code no room for the largest component.
const smallest = 0x1p-126

// encode codes the first nodes rows of the vectors.
func encode(metric Metric, dim, nodes int, v *vectors) codes {
	c := codes{stride: kernel.CodeStride(dim), centre: centre(dim, nodes, v)}
	c.rows = make([]uint8, nodes*c.stride)
	c.factors = make([]float32, nodes*2)
	buf := make([]float32, v.stride)
	c.pad(v.stride)
	for i := range nodes {
		row := v.row(uint32(i), buf)[:dim]
		var square float64
		for j, x := range row {
			d := x - c.centre[j]
			square += float64(float64(d) * float64(d))
		}
		step := farthest(row, c.centre) / 127
		if step == 0 {
			step = 1
		} else if step < smallest {
			step = smallest
		}
		out := c.rows[i*c.stride:]
		for j, x := range row {
			out[j] = uint8(128 + math.Round(float64((x-c.centre[j])/step)))
		}
		c.factors[2*i] = step
		if metric == L2 {
			c.factors[2*i+1] = float32(square)
		}
	}
	return c
}

const (
	// centreSample is about how many nodes, at least, tell which centre is best.
	centreSample = 1 << 12
	// ordinary is how many times the median norm a row may have to count as
	// one of the many.
	ordinary = 4
	// negligible is the distance from a centre, in median norms, below which nearer
	// is no better. Rows that equal a centre must not outweigh all others.
	negligible = 0x1p-16
)

// centre returns what to code the first nodes rows relative to: what makes their
// steps smallest, by the sum of logarithms, for a step only matters in proportion
// to its own row. In a collapsed space that is the mean. But the mean is where the
// longest rows pull it, and that may be far from everything: then it is the mean
// of the rows of ordinary norm or, where norms span many orders of magnitude, zero.
func centre(dim, nodes int, v *vectors) []float32 {
	buf := make([]float32, v.stride)
	row := func(i int) []float32 { return v.row(uint32(i), buf)[:dim] }
	every := max(nodes/centreSample, 1)
	var norms []float64 // squared
	for i := 0; i < nodes; i += every {
		norms = append(norms, squaredNorm(row(i)))
	}
	var median float64
	if nodes > 0 {
		slices.Sort(norms)
		median = norms[len(norms)/2]
	}
	total, some, n := make([]float64, dim), make([]float64, dim), 0
	for i := range nodes {
		r := row(i)
		for j, x := range r {
			total[j] += float64(x)
		}
		if squaredNorm(r) <= ordinary*ordinary*median {
			n++
			for j, x := range r {
				some[j] += float64(x)
			}
		}
	}
	mean := func(sum []float64, n int) []float32 {
		m := make([]float32, dim)
		for j, x := range sum {
			m[j] = float32(x / float64(max(n, 1)))
		}
		return m
	}
	least := float32(negligible * math.Sqrt(median))
	var best []float32
	var lowest int64
	for _, m := range [][]float32{mean(total, nodes), mean(some, n), make([]float32, dim)} {
		var cost int64
		for i := 0; i < nodes; i += every {
			// The bits of a positive float grow like its logarithm.
			cost += int64(math.Float32bits(max(farthest(row(i), m), least)))
		}
		if best == nil || cost < lowest {
			best, lowest = m, cost
		}
	}
	return best
}

// farthest returns the largest distance of a component of a row from the centre's.
func farthest(row, centre []float32) float32 {
	var largest float32
	for j, x := range row {
		d := x - centre[j]
		largest = max(largest, d, -d)
	}
	return largest
}

// code codes a query, padded to the stride of vectors.
func (c *codes) code(metric Metric, query []float32, q *kernel.Query) {
	q.Code = slices.Grow(q.Code[:0], c.stride)[:c.stride]
	clear(q.Code[len(c.centre):])
	// Under L2 the query too is taken relative to the centre:
	// |q-x|^2 = |q-m|^2 + |x-m|^2 - 2 (q-m)(x-m).
	var moved, base float32
	centre := c.padded[:len(query)]
	if metric == L2 {
		moved = 1
		kernel.L2Range(query, centre, 0, unsafe.Slice(&base, 1))
	} else {
		kernel.DotRange(query, centre, 0, unsafe.Slice(&base, 1))
		base = -base
	}
	// Floats without their signs sort as their bits do, which is faster than to
	// compare floats that might be NaN.
	var largest uint32
	for j, m := range centre {
		largest = max(largest, math.Float32bits(query[j]-float32(moved*m))&^(1<<31))
	}
	step := math.Float32frombits(largest) / 127
	if step == 0 {
		step = 1
	} else if step < smallest { // whose inverse might overflow
		step = smallest
	}
	inverse := 1 / step
	var sum int32
	code := q.Code[:len(c.centre)]
	for j, m := range centre[:len(code)] {
		d := float32((query[j] - float32(moved*m)) * inverse)
		v := int8(d + float32(math.Copysign(0.5, float64(d))))
		code[j] = v
		sum += int32(v)
	}
	q.Base, q.Scale = base, -step
	if metric == L2 {
		q.Scale *= 2
	}
	q.Shift = -128 * float32(sum) * q.Scale // the codes are 128 too high
}

// pad makes the centre as long as vectors are.
func (c *codes) pad(stride int) {
	c.padded = make([]float32, stride)
	copy(c.padded, c.centre)
}

// within returns the nodes within the bound, as candidates in the memory of dst or in
// more.
func (c *codes) within(q *kernel.Query, nodes []uint32, bound float32, dst []candidate) []candidate {
	dst = slices.Grow(dst[:0], len(nodes)+kernel.Spare)
	dst = dst[:cap(dst)]
	return dst[:kernel.Within(q, c.rows, c.factors, nodes, bound, dst)]
}

// prefetch asks for what within reads.
func (c *codes) prefetch(nodes []uint32) {
	kernel.PrefetchCodes(c.rows, c.stride, c.factors, nodes)
}

// prefetchRange asks for what withinRange reads of n nodes, of which from has the first.
func (c *codes) prefetchRange(from []uint32, n int) {
	kernel.Prefetch(c.rows, c.stride, n*c.stride, from)
	kernel.Prefetch(c.factors, 2, 2*n, from)
}

// visit returns the nodes of a list that are new, in dst, and prefetches them.
func (c *codes) visit(v *visited, list, dst []uint32) []uint32 {
	dst = slices.Grow(dst[:0], len(list))[:len(list)]
	return dst[:kernel.Visit(list, v.marks, v.epoch, c.rows, c.stride, c.factors, dst)]
}
