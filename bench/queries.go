package bench

import (
	"cmp"
	"container/heap"
	"slices"

	"github.com/tandem-ann/tandem/shard"
)

// sampled is a row that may become a query.
type sampled struct {
	key     uint64
	id      string
	shard   *shard.Shard
	ordinal uint32
}

func (a sampled) compare(b sampled) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id))
}

// sampleHeap has the lowest key on top.
type sampleHeap []sampled

func (h sampleHeap) Len() int           { return len(h) }
func (h sampleHeap) Less(i, j int) bool { return h[i].compare(h[j]) < 0 }
func (h sampleHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *sampleHeap) Push(x any)        { *h = append(*h, x.(sampled)) }
func (h *sampleHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

// queries returns the vectors of the n rows of t that sample chooses.
func queries(t *shard.Tower, n int) [][]float32 {
	rows := sample(t, n)
	vectors := make([][]float32, len(rows))
	for i, row := range rows {
		vectors[i] = row.shard.Index().Vector(row.ordinal, nil)
	}
	return vectors
}

// sample returns the n rows of t with the highest sample keys, highest first. They
// do not depend on how the tower is sharded.
func sample(t *shard.Tower, n int) []sampled {
	var h sampleHeap
	for _, s := range t.Shards() {
		for ordinal := range uint32(s.Rows()) {
			id := s.ID(ordinal)
			row := sampled{shard.SampleKey(id), id, s, ordinal}
			if len(h) == n && row.compare(h[0]) <= 0 {
				continue
			}
			heap.Push(&h, row)
			if len(h) > n {
				heap.Pop(&h)
			}
		}
	}
	slices.SortFunc(h, func(a, b sampled) int { return b.compare(a) })
	return h
}

// overlap returns how many of the n queries the build may have used too: those of the
// lowest keys, as many as its samples have. An older builder used as many as measured
// recall, and as many again.
func overlap(m *shard.Manifest, target shard.Kind, rows, n int) int {
	used := 0
	if s := m.Tower(target).Samples; s != nil {
		used = s.Shape + s.Calibrate + s.Gate
	} else {
		for _, r := range m.Tower(target).Recall {
			used = max(used, 2*r.Queries+1)
		}
	}
	return min(max(n+min(used, rows)-rows, 0), n)
}
