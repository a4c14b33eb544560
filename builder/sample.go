package builder

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// sampleSize is how many rows of a tower are kept as queries to the other: one
// half calibrates, the other measures.
const sampleSize = probe.SampleSize

// sample keeps the vectors of the rows with the lowest sample keys. Which rows
// those are does not depend on the order of the input.
type sample struct {
	rows sampleHeap
}

type sampled struct {
	key    uint64
	id     string
	vector []float32
}

func (a sampled) before(b sampled) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id))
}

// sampleHeap has the highest key on top.
type sampleHeap []sampled

func (h sampleHeap) Len() int           { return len(h) }
func (h sampleHeap) Less(i, j int) bool { return h[i].before(h[j]) > 0 }
func (h sampleHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sampleHeap) Push(x any)        { *h = append(*h, x.(sampled)) }
func (h *sampleHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// offer considers a row. It copies the vector if it keeps it.
func (s *sample) offer(id string, vector []float32) {
	row := sampled{key: shard.SampleKey(id), id: id}
	if len(s.rows) == sampleSize && row.before(s.rows[0]) >= 0 {
		return
	}
	row.vector = slices.Clone(vector)
	heap.Push(&s.rows, row)
	if len(s.rows) > sampleSize {
		heap.Pop(&s.rows)
	}
}

// split returns the queries that calibrate and those that measure. Rows alternate
// between the two in the order of their keys.
func (s *sample) split(dim int) (calibrate, measure *index.Matrix, err error) {
	rows := slices.Clone(s.rows)
	slices.SortFunc(rows, sampled.before)
	var half [2]*index.Matrix
	for i := range half {
		if half[i], err = index.NewMatrix(dim, sampleSize/2); err != nil {
			return nil, nil, err
		}
	}
	for i, row := range rows {
		if err := half[i%2].Append(row.vector); err != nil {
			return nil, nil, err
		}
	}
	return half[0], half[1], nil
}
