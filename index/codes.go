package index

import (
	"math"
	"slices"

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
}

// encode codes the first nodes rows of the vectors.
func encode(metric Metric, dim, vectorStride, nodes int, vectors []float32) codes {
	c := codes{stride: kernel.CodeStride(dim), mean: make([]float32, dim)}
	c.rows = make([]uint8, nodes*c.stride)
	c.factors = make([]float32, nodes*2)
	sum := make([]float64, dim)
	for i := range nodes {
		for j, x := range vectors[i*vectorStride : i*vectorStride+dim] {
			sum[j] += float64(x)
		}
	}
	for j := range sum {
		c.mean[j] = float32(sum[j] / float64(max(nodes, 1)))
	}
	for i := range nodes {
		row := vectors[i*vectorStride : i*vectorStride+dim]
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

// codedQuery is a query as the codes are scored with.
type codedQuery struct {
	code         []int8 // the stride of the codes
	scale, shift float32
	base         float32 // the distance of a vector that equals the mean
}

// code codes a query, whose length is at least the dimension.
func (c *codes) code(metric Metric, query []float32, q *codedQuery) {
	q.code = slices.Grow(q.code[:0], c.stride)[:c.stride]
	clear(q.code[len(c.mean):])
	query = query[:len(c.mean)]
	// Under L2 the query too is taken relative to the mean:
	// |q-x|^2 = |q-m|^2 + |x-m|^2 - 2 (q-m)(x-m).
	var centre float32
	if metric == L2 {
		centre = 1
	}
	var largest, base float32
	for j, m := range c.mean {
		d := query[j] - float32(centre*m)
		largest = max(largest, d, -d)
		if metric == L2 {
			base += float32(d * d)
		} else {
			base -= float32(d * m)
		}
	}
	step := largest / 127
	if step == 0 {
		step = 1
	}
	inverse := 1 / step
	var sum int32
	for j, m := range c.mean {
		d := float32((query[j] - float32(centre*m)) * inverse)
		v := int8(d + float32(math.Copysign(0.5, float64(d))))
		q.code[j] = v
		sum += int32(v)
	}
	q.base, q.scale = base, -step
	if metric == L2 {
		q.scale *= 2
	}
	q.shift = -128 * float32(sum) * q.scale // the codes are 128 too high
}

// distances turns the products of q with the codes of nodes into distances.
func (c *codes) distances(q *codedQuery, nodes []uint32, products []int32, out []float32) {
	products, out = products[:len(nodes)], out[:len(nodes)]
	for i, node := range nodes {
		f := c.factors[2*node : 2*node+2 : 2*node+2]
		out[i] = q.base + f[1] + float32(f[0]*(float32(q.scale*float32(products[i]))+q.shift))
	}
}
