package bench

import (
	"cmp"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/lowest"
	"github.com/tandem-ann/tandem/shard/manifest"
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
	rows := lowest.New(n, func(a, b sampled) int { return b.compare(a) })
	for _, s := range t.Local() {
		for ordinal := range uint32(s.Rows()) {
			id := s.ID(ordinal)
			rows.Add(sampled{shard.SampleKey(id), id, s, ordinal})
		}
	}
	return rows.Sorted()
}

// overlap returns how many of the n queries the build may have used too: those of the
// lowest keys, as many as its samples have. An older builder used as many as measured
// recall, and as many again.
func overlap(m *manifest.Manifest, target shard.Kind, rows, n int) int {
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
