package builder

import (
	"cmp"
	"slices"

	"github.com/tandem-ann/tandem/builder/probe"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/lowest"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// sampleSize is how many rows of a tower are kept as queries to the other.
const sampleSize = probe.SampleSize

// sample keeps the vectors of the rows with the lowest sample keys. Which rows
// those are does not depend on the order of the input.
type sample struct {
	rows *lowest.Kept[sampled]
}

type sampled struct {
	key    uint64
	id     string
	vector []float32
}

func (a sampled) compare(b sampled) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id))
}

func newSample() sample { return sample{lowest.New(sampleSize, sampled.compare)} }

// offer considers a row. It copies the vector if it keeps it.
func (s *sample) offer(id string, vector []float32) {
	row := sampled{key: shard.SampleKey(id), id: id}
	if s.rows.Takes(row) {
		row.vector = slices.Clone(vector)
		s.rows.Add(row)
	}
}

// samples are the queries of each purpose, which are disjoint.
type samples map[manifest.Purpose]*index.Matrix

// split divides the queries by their purposes, in the order of their keys.
func (s *sample) split(dim int) (samples, error) {
	of := samples{}
	for _, p := range []manifest.Purpose{manifest.Shape, manifest.Calibrate, manifest.Gate} {
		m, err := index.NewMatrix(dim, probe.SampleOf(p))
		if err != nil {
			return nil, err
		}
		of[p] = m
	}
	for i, row := range s.rows.Sorted() {
		if err := of[probe.PurposeOf(i)].Append(row.vector); err != nil {
			return nil, err
		}
	}
	return of, nil
}

// counts returns what the manifest says of the samples.
func (s samples) counts() *manifest.Samples {
	n := &manifest.Samples{Shape: s[manifest.Shape].Rows(), Calibrate: s[manifest.Calibrate].Rows(), Gate: s[manifest.Gate].Rows()}
	for _, p := range []manifest.Purpose{manifest.Shape, manifest.Calibrate, manifest.Gate} {
		if s[p].Rows() < probe.SampleOf(p) {
			n.Weaker = append(n.Weaker, p)
		}
	}
	return n
}
