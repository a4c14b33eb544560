package index_test

import (
	"context"
	"fmt"
	"log"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/index"
)

// An index is built from rows in the order of their ids, and answers with
// ordinals: Row leads back to the rows.
func Example() {
	ids := []string{"chess", "go", "poker", "tetris"}
	vectors := [][]float32{{0.9, 0.1}, {1.2, 0.2}, {0.1, 0.8}, {0.3, 0.1}}

	rows, err := index.NewMatrix(2, len(ids))
	if err != nil {
		log.Fatal(err)
	}
	keys := make([]uint64, len(ids))
	for i, v := range vectors {
		if err := rows.Append(v); err != nil {
			log.Fatal(err)
		}
		keys[i] = xxhash.Sum64String(ids[i])
	}
	x, err := index.Build(context.Background(), index.Input{Vectors: rows, Keys: keys}, index.DefaultParams(index.Dot))
	if err != nil {
		log.Fatal(err)
	}

	hits, stats, err := x.Search(index.Query{Vector: []float32{1, 0.5}, K: 2}, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats.Plan)
	for _, h := range hits {
		fmt.Printf("%s %.2f\n", ids[x.Row(h.Ordinal)], h.Score)
	}
	// Output:
	// exact scan
	// go 1.30
	// chess 0.95
}
