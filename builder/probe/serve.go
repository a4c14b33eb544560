package probe

import (
	"context"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// Serve returns what each query is given by t as it serves: k candidates of a segment,
// or of all rows if that is empty, at the default recall target. Several are asked at
// once.
func Serve(ctx context.Context, t *shard.Tower, queries [][]float32, k int, segment string) ([][]shard.Candidate, error) {
	given := make([][]shard.Candidate, len(queries))
	err := Each(ctx, len(queries), func(i int) error {
		a, err := t.Search(ctx, Default(queries[i], k, segment))
		if err == nil {
			given[i] = a.Candidates
		}
		return err
	})
	return given, err
}

// Default returns the query of a request that says no more than k and a segment.
func Default(vector []float32, k int, segment string) *shard.Query {
	return &shard.Query{Vectors: [][]float32{vector}, K: k, Segment: segment, Target: index.DefaultTarget, MinCoverage: 1}
}
