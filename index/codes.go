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
// A vector x is coded relative to the mean m of all nodes with a step of its own:
// x = m + step * (code - 128), so that neither a collapsed space (where all
// vectors are near their mean) nor a law of norms (where a few are far longer
// than the rest) costs digits. A query is coded in signed bytes, and with the
// exact integer product p of the two codes the distance is approximated as
//
//	bias + step * (scale*p + shift)
//
// where scale and shift belong to the query; bias is 0 under dot and cosine and
// |x-m|^2 under L2.
type codes struct {
	stride  int
	mean    []float32 // dim
	rows    []uint8   // nodes x stride
	factors []float32 // nodes x 2: step, bias

	padded []float32 // the mean, padded as vectors are
}

// smallest is the least normal float32. A smaller step has few digits, and would leave
// a code no room for the largest component.
const smallest = 0x1p-126

// encode codes the first nodes rows of the vectors.
func encode(metric Metric, dim, nodes int, v *vectors) codes {
	c := codes{stride: kernel.CodeStride(dim), mean: make([]float32, dim)}
	c.rows = make([]uint8, nodes*c.stride)
	c.factors = make([]float32, nodes*2)
	sum, buf := make([]float64, dim), make([]float32, v.stride)
	for i := range nodes {
		for j, x := range v.row(uint32(i), buf)[:dim] {
			sum[j] += float64(x)
		}
	}
	for j := range sum {
		c.mean[j] = float32(sum[j] / float64(max(nodes, 1)))
	}
	c.pad(v.stride)
	for i := range nodes {
		row := v.row(uint32(i), buf)[:dim]
		var largest float32
		var square float64
		for j, x := range row {
			d := x - c.mean[j]
			largest = max(largest, d, -d)
			square += float64(float64(d) * float64(d))
		}
		step := largest / 127
		if step == 0 {
			step = 1
		} else if step < smallest {
			step = smallest
		}
		out := c.rows[i*c.stride:]
		for j, x := range row {
			out[j] = uint8(128 + math.Round(float64((x-c.mean[j])/step)))
		}
		c.factors[2*i] = step
		if metric == L2 {
			c.factors[2*i+1] = float32(square)
		}
	}
	return c
}

// code codes a query, padded to the stride of vectors.
func (c *codes) code(metric Metric, query []float32, q *kernel.Query) {
	q.Code = slices.Grow(q.Code[:0], c.stride)[:c.stride]
	clear(q.Code[len(c.mean):])
	// Under L2 the query too is taken relative to the mean:
	// |q-x|^2 = |q-m|^2 + |x-m|^2 - 2 (q-m)(x-m).
	var centre, base float32
	mean := c.padded[:len(query)]
	if metric == L2 {
		centre = 1
		kernel.L2Range(query, mean, 0, unsafe.Slice(&base, 1))
	} else {
		kernel.DotRange(query, mean, 0, unsafe.Slice(&base, 1))
		base = -base
	}
	// Floats without their signs sort as their bits do, which is faster than to
	// compare floats that might be NaN.
	var largest uint32
	for j, m := range mean {
		largest = max(largest, math.Float32bits(query[j]-float32(centre*m))&^(1<<31))
	}
	step := math.Float32frombits(largest) / 127
	if step == 0 {
		step = 1
	}
	inverse := 1 / step
	var sum int32
	code := q.Code[:len(c.mean)]
	for j, m := range mean[:len(code)] {
		d := float32((query[j] - float32(centre*m)) * inverse)
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

// pad makes the mean as long as vectors are.
func (c *codes) pad(stride int) {
	c.padded = make([]float32, stride)
	copy(c.padded, c.mean)
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

// visit returns the nodes of a list that are new, in dst, and prefetches them.
func (c *codes) visit(v *visited, list, dst []uint32) []uint32 {
	dst = slices.Grow(dst[:0], len(list))[:len(list)]
	return dst[:kernel.Visit(list, v.marks, v.epoch, c.rows, c.stride, c.factors, dst)]
}
