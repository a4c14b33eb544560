// Package lowest keeps the lowest of many values in the memory of those that are kept: the
// rows of the lowest sample keys are the sample of a tower, in whatever order they come.
//
// Its callers are the builder, its gates and the benchmarks that draw the same samples, and
// shard/overlay, which tells of some of what does not fit.
package lowest

import "slices"

// Kept are the n lowest of the values that were added. It is not safe for concurrent use.
type Kept[T any] struct {
	n       int
	compare func(a, b T) int
	heap    []T // the highest on top
}

// New returns one that keeps n values, none if n is not positive, in the order of compare.
func New[T any](n int, compare func(a, b T) int) *Kept[T] {
	return &Kept[T]{n: n, compare: compare}
}

// Takes returns whether v would be kept: of equal values those that came first are.
func (k *Kept[T]) Takes(v T) bool {
	return len(k.heap) < k.n || k.n > 0 && k.compare(v, k.heap[0]) < 0
}

// Add considers v, and returns the value that is not kept for its sake, or v itself, if
// there is one.
func (k *Kept[T]) Add(v T) (dropped T, ok bool) {
	switch {
	case !k.Takes(v):
		return v, true
	case len(k.heap) < k.n:
		k.heap = append(k.heap, v)
		k.up(len(k.heap) - 1)
		return dropped, false
	}
	dropped, k.heap[0] = k.heap[0], v
	k.down(0)
	return dropped, true
}

// Sorted returns the values that are kept, lowest first, in a slice of their own.
func (k *Kept[T]) Sorted() []T {
	list := slices.Clone(k.heap)
	slices.SortFunc(list, k.compare)
	return list
}

// up restores the heap above place i.
func (k *Kept[T]) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if k.compare(k.heap[i], k.heap[parent]) <= 0 {
			return
		}
		k.heap[i], k.heap[parent] = k.heap[parent], k.heap[i]
		i = parent
	}
}

// down restores the heap below place i.
func (k *Kept[T]) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(k.heap) {
			return
		}
		if child+1 < len(k.heap) && k.compare(k.heap[child+1], k.heap[child]) > 0 {
			child++
		}
		if k.compare(k.heap[child], k.heap[i]) <= 0 {
			return
		}
		k.heap[i], k.heap[child] = k.heap[child], k.heap[i]
		i = child
	}
}
