package partition

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

// Sample keeps the vectors of the rows with the lowest sample keys. Which rows
// those are does not depend on the order in which they come: of two with one id it is the
// number of the row that decides.
type Sample struct {
	rows *lowest.Kept[sampled]
}

type sampled struct {
	key    uint64
	id     string
	number int64
	vector []float32
}

func (a sampled) compare(b sampled) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.id, b.id), cmp.Compare(a.number, b.number))
}

// NewSample returns one without a row.
func NewSample() *Sample { return &Sample{lowest.New(sampleSize, sampled.compare)} }

// Offer considers a row. It copies the vector if it keeps it.
func (s *Sample) Offer(id string, number int64, vector []float32) {
	row := sampled{key: shard.SampleKey(id), id: id, number: number}
	if s.rows.Takes(row) {
		row.vector = slices.Clone(vector)
		s.rows.Add(row)
	}
}

// Merge considers the rows of another sample.
func (s *Sample) Merge(other *Sample) {
	for _, row := range other.rows.Sorted() {
		s.rows.Add(row)
	}
}

// Queries are those of each purpose, which are disjoint.
type Queries map[manifest.Purpose]*index.Matrix

// Split divides the queries by their purposes, in the order of their keys.
func (s *Sample) Split(dim int) (Queries, error) {
	of := Queries{}
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

// Counts returns what the manifest says of the samples.
func (s Queries) Counts() *manifest.Samples {
	n := &manifest.Samples{Shape: s[manifest.Shape].Rows(), Calibrate: s[manifest.Calibrate].Rows(), Gate: s[manifest.Gate].Rows()}
	for _, p := range []manifest.Purpose{manifest.Shape, manifest.Calibrate, manifest.Gate} {
		if s[p].Rows() < probe.SampleOf(p) {
			n.Weaker = append(n.Weaker, p)
		}
	}
	return n
}
