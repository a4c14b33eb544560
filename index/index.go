package index

import (
	"fmt"
	"slices"
	"sync"

	"github.com/tandem-ann/tandem/index/sections"
)

// Index is one immutable index, in memory after [Build] or over a mapped file
// after [Open]. All its methods may be called from any number of goroutines, each of
// which defers a [sections.Guard] if the file is mapped.
type Index struct {
	params      Params
	dim, stride int
	nodes       int
	rows        []uint32  // of each ordinal
	vectors     vectors   // by ordinal
	norms       []float32 // by ordinal; nil unless cosine
	duplicates  []uint32  // by ordinal from nodes on
	layers      []layer
	codes       codes
	entries     []uint32 // nodes of layer 0 where walks start; without, they descend
	costs       CostModel
	groups      groups // only of what is flat

	// Derived when the index is made.
	ordinals []uint32 // of each row
	repeated Bitset   // the nodes that have duplicates
	scratch  sync.Pool
}

// Params returns the parameters of the build.
func (x *Index) Params() Params { return x.params }

// Metric returns how queries and rows are compared.
func (x *Index) Metric() Metric { return x.params.Metric }

// Rows returns the number of rows, which is also the number of ordinals.
func (x *Index) Rows() int { return len(x.rows) }

// Dim returns the dimension of the vectors.
func (x *Index) Dim() int { return x.dim }

// Element returns what the components of the vectors are stored as.
func (x *Index) Element() Element { return x.vectors.element }

// Row returns the row of an ordinal.
func (x *Index) Row(ordinal uint32) uint32 { return x.rows[ordinal] }

// Order returns the row of every ordinal. The caller must not change it.
func (x *Index) Order() []uint32 { return x.rows }

// Ordinal returns the ordinal of a row.
func (x *Index) Ordinal(row uint32) uint32 { return x.ordinals[row] }

// Vector appends the vector of an ordinal to dst, as it was given to the build;
// under cosine, where vectors are stored scaled, to the last digit or two.
func (x *Index) Vector(ordinal uint32, dst []float32) []float32 {
	from := len(dst)
	dst = x.vectors.appendTo(dst, ordinal, x.dim)
	if x.norms != nil {
		for i := range dst[from:] {
			dst[from+i] *= x.norms[ordinal]
		}
	}
	return dst
}

// prepare derives what the sections leave out, once they are known to be valid.
func (x *Index) prepare() error {
	x.ordinals = make([]uint32, len(x.rows))
	for i := range x.ordinals {
		x.ordinals[i] = noNode
	}
	for ordinal, row := range x.rows {
		if int(row) >= len(x.rows) || x.ordinals[row] != noNode {
			return sections.Corruptf(rowsSection, "ordinal %d: row %d is out of range or repeated", ordinal, row)
		}
		x.ordinals[row] = uint32(ordinal)
	}
	x.repeated = NewBitset(x.nodes)
	for _, node := range x.duplicates {
		x.repeated.Set(node)
	}
	x.codes.pad(x.stride)
	x.measureCosts()
	x.scratch.New = func() any { return new(scratch) }
	return nil
}

// repeats returns the ordinals that repeat node's vector: first and the number
// of consecutive ones.
func (x *Index) repeats(node uint32) (first uint32, count int) {
	from, _ := slices.BinarySearch(x.duplicates, node)
	to := from
	for to < len(x.duplicates) && x.duplicates[to] == node {
		to++
	}
	return uint32(x.nodes + from), to - from
}

// CheckGraph proves the invariants that [Open] does not need for safety: every
// node is reachable from the entry point on layer 0, duplicates equal their
// node, codes are as near to their vectors as exact scans take them to be, and no list
// repeats a neighbour. It takes time in proportion to the size of the index.
func (x *Index) CheckGraph() (err error) {
	defer sections.Guard(&err)()
	if !x.flat() {
		if n := unreachable(x.layers[0]); n > 0 {
			return sections.Corruptf(linksSection(0), "%d of %d nodes cannot be reached from the entry point", n, x.nodes)
		}
	}
	a, b := make([]float32, x.stride), make([]float32, x.stride)
	for i, node := range x.duplicates {
		if !slices.Equal(x.vectors.row(uint32(x.nodes+i), a), x.vectors.row(node, b)) {
			return sections.Corruptf(duplicatesSection, "ordinal %d does not equal node %d", x.nodes+i, node)
		}
	}
	if err := x.checkCodes(); err != nil {
		return err
	}
	var seen visited
	for l, lay := range x.layers {
		for node := range uint32(lay.nodes()) {
			seen.reset(x.nodes)
			for _, id := range lay.neighbours(node) {
				if !seen.visit(id) {
					return sections.Corruptf(linksSection(l), "node %d links to %d twice", node, id)
				}
			}
		}
	}
	return nil
}

// LayerStats describes one layer of the graph.
type LayerStats struct {
	Nodes   int
	Width   int   // the largest number of neighbours a node may have
	Degrees []int // how many nodes have 0, 1, ... Width neighbours
}

// Layers describes the layers of the graph, layer 0 first.
func (x *Index) Layers() []LayerStats {
	stats := make([]LayerStats, len(x.layers))
	for i, l := range x.layers {
		stats[i] = LayerStats{Nodes: l.nodes(), Width: l.width, Degrees: make([]int, l.width+1)}
		for node := range uint32(l.nodes()) {
			stats[i].Degrees[len(l.neighbours(node))]++
		}
	}
	return stats
}

// Duplicates returns how many rows repeat the vector of another.
func (x *Index) Duplicates() int { return len(x.duplicates) }

// Norm returns the Euclidean norm of an ordinal's vector as it was given.
func (x *Index) Norm(ordinal uint32) float32 {
	if x.norms != nil {
		return x.norms[ordinal]
	}
	return float32(normOf(x.vectors.row(ordinal, nil)))
}

// String describes the index in one line.
func (x *Index) String() string {
	return fmt.Sprintf("%d rows, %d nodes, dim %d of %s, %s", len(x.rows), x.nodes, x.dim, x.Element(), x.params)
}
