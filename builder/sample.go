package builder

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// sampleSize is how many rows of a tower are kept as queries to the other.
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

// samples are the queries of each purpose, which are disjoint.
type samples map[shard.Purpose]*index.Matrix

// split divides the queries by their purposes, in the order of their keys.
func (s *sample) split(dim int) (samples, error) {
	rows := slices.Clone(s.rows)
	slices.SortFunc(rows, sampled.before)
	of := samples{}
	for _, p := range []shard.Purpose{shard.Shape, shard.Calibrate, shard.Gate} {
		m, err := index.NewMatrix(dim, probe.SampleOf(p))
		if err != nil {
			return nil, err
		}
		of[p] = m
	}
	for i, row := range rows {
		if err := of[probe.PurposeOf(i)].Append(row.vector); err != nil {
			return nil, err
		}
	}
	return of, nil
}

// counts returns what the manifest says of the samples.
func (s samples) counts() *shard.Samples {
	n := &shard.Samples{Shape: s[shard.Shape].Rows(), Calibrate: s[shard.Calibrate].Rows(), Gate: s[shard.Gate].Rows()}
	for _, p := range []shard.Purpose{shard.Shape, shard.Calibrate, shard.Gate} {
		if s[p].Rows() < probe.SampleOf(p) {
			n.Weaker = append(n.Weaker, p)
		}
	}
	return n
}
