// Package kernel scores many rows, of float32 or of codes, against one query
// per call. Floats are the inner loop of graph construction, of exact rescoring
// and of exact scans, codes that of the walk; the caller is package index. The rest
// of a walk's step is here too, because it would take longer than the scores: [Visit]
// picks the neighbours to score, [Within] scores them and keeps the near ones, and
// [Insert] puts those into a sorted pool.
//
// # Layout
//
// Rows lie one after another in a flat []float32. Each takes stride floats, a
// positive multiple of 16 ([Stride]), and is padded to it with zeros, which
// change neither metric. The query is padded the same way, and its length is
// the stride: row i is rows[i*len(query) : (i+1)*len(query)]. A block of 16
// floats is one cache line when rows is aligned to 64 bytes; it need not be. Rows
// whose components all have a float16 or a uint8 equal to them may be held in those,
// at the same stride ([DotFloat16], [DotUint8]).
//
// Rows of codes lie in a flat []uint8 in the same way, and the query is a
// []int8; their stride is a multiple of 32 ([CodeStride]).
//
// # Determinism
//
// A score is the same, bit for bit, on every machine, from every
// implementation, at every place in a list. All add in one order: sixteen
// lanes begin at +0, and each block of sixteen terms is added to them, in
// order, the product rounded before it is added (there is no fused
// multiply-add); then lane j+8 is added to lane j, j+4 to j, j+2 to j, and 1
// to 0. Only the sign and payload of a NaN are left open: a score that is NaN
// in one implementation is NaN in all. Products of codes are integers and their
// sums exact, so that their order is nobody's concern.
//
// # Use
//
// Everything here may be called from many goroutines at once, allocates
// nothing, and retains none of its arguments. A call costs a few nanoseconds
// beside the rows it scores, and a list of rows of floats is prefetched as it is
// scored: pass long lists. Rows of codes are prefetched by a call of its own, some
// time before they are scored. A slice that does not fit the others is a programmer's
// error, and panics.
package kernel

import "fmt"

// lanes is the number of partial sums in a score, and of floats in a block.
const lanes = 16

// Stride returns the length of a row of dim floats after padding: the least
// multiple of 16 that is not below dim. It is what Dot and L2 require of a
// query's length.
func Stride(dim int) int {
	return (dim + lanes - 1) &^ (lanes - 1)
}

// Dot sets out[i] to the inner product of query and row ordinals[i] of rows.
//
// Ordinals must be less than len(rows)/len(query). That is not checked here:
// the index validates every ordinal of a file when it opens it, and an invalid
// one reads outside rows. Dot panics if len(query) is not a positive multiple
// of 16, or if ordinals and out differ in length.
func Dot(query, rows []float32, ordinals []uint32, out []float32) {
	if !fits(query, ordinals, out) {
		panicList(query, ordinals, out)
	}
	dot(query, rows, ordinals, out)
}

// L2 sets out[i] to the squared Euclidean distance between query and row
// ordinals[i] of rows. It asks of its arguments what Dot does.
func L2(query, rows []float32, ordinals []uint32, out []float32) {
	if !fits(query, ordinals, out) {
		panicList(query, ordinals, out)
	}
	l2(query, rows, ordinals, out)
}

// DotRange sets out[i] to the inner product of query and row first+i of rows.
// It panics if len(query) is not a positive multiple of 16, or if one of the
// rows is not in rows.
func DotRange(query, rows []float32, first int, out []float32) {
	dotRange(query, span(query, rows, first, out), out)
}

// L2Range sets out[i] to the squared Euclidean distance between query and row
// first+i of rows. It panics as DotRange does.
func L2Range(query, rows []float32, first int, out []float32) {
	l2Range(query, span(query, rows, first, out), out)
}

// Name returns the name of the implementation for floats that this CPU
// selected: "avx512", "avx2", "neon" or "generic".
func Name() string {
	return selected.String()
}

func fits(query []float32, ordinals []uint32, out []float32) bool {
	return len(query) > 0 && len(query)%lanes == 0 && len(ordinals) == len(out)
}

// span returns the rows from first on, as many as out has room for.
func span[T float32 | compact](query []float32, rows []T, first int, out []float32) []T {
	stride := len(query)
	if stride == 0 || stride%lanes != 0 {
		panicStride(query)
	}
	if n := len(rows) / stride; first < 0 || first > n || len(out) > n-first {
		panicSpan(first, len(out), n)
	}
	return rows[first*stride : (first+len(out))*stride]
}

func panicList(query []float32, ordinals []uint32, out []float32) {
	if len(ordinals) != len(out) {
		panicOut(ordinals, len(out))
	}
	panicStride(query)
}

func panicOut(ordinals []uint32, room int) {
	panic(fmt.Sprintf("kernel: score %d ordinals: out has room for %d", len(ordinals), room))
}

func panicSpan(first, count, rows int) {
	panic(fmt.Sprintf("kernel: score rows %d to %d: there are %d", first, first+count, rows))
}

func panicStride(query []float32) {
	panic(fmt.Sprintf("kernel: query has %d floats: want a positive multiple of %d", len(query), lanes))
}
