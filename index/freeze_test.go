package index_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
)

// isolated is a source graph without links.
func isolated(rows int) *index.SourceGraph {
	layer := make([][]uint32, rows)
	for i := range layer {
		layer[i] = []uint32{}
	}
	return &index.SourceGraph{Layers: [][][]uint32{layer}}
}

// wild is a source graph of random links: repeated ones, self links, isolated
// rows, parts that do not know each other, and layers above.
func wild(r *rand.Rand, rows, degree, layers int) *index.SourceGraph {
	g := &index.SourceGraph{}
	var below []uint32
	for i := range uint32(rows) {
		below = append(below, i)
	}
	for range layers {
		lists := make([][]uint32, rows)
		for _, row := range below {
			lists[row] = []uint32{}
			if r.IntN(4) == 0 {
				continue
			}
			for range r.IntN(degree + 1) {
				other := below[r.IntN(len(below))]
				if other%3 == row%3 { // three parts
					lists[row] = append(lists[row], other)
					if r.IntN(3) == 0 {
						lists[row] = append(lists[row], other, row)
					}
				}
			}
		}
		g.Layers = append(g.Layers, lists)
		var above []uint32
		for _, row := range below {
			if r.IntN(3) == 0 {
				above = append(above, row)
			}
		}
		below = above
	}
	return g
}

func freeze(t *testing.T, dim int, rows [][]float32, g *index.SourceGraph, metric index.Metric) *index.Index {
	t.Helper()
	x, err := index.Build(t.Context(), index.Input{
		Vectors: matrix(t, dim, rows), Keys: keys(len(rows)), Graph: g, Threads: 2,
	}, params(metric))
	require.NoError(t, err)
	return x
}

func TestFreeze(t *testing.T) {
	for _, metric := range metrics {
		for _, degree := range []int{0, 1, 2, 8, 30} {
			for layers := range 4 {
				t.Run(fmt.Sprintf("%v/%d/%d", metric, degree, layers+1), func(t *testing.T) {
					r := random(uint64(degree))
					rows := repeated(r, gaussian(r, 200, 9), 0.1)
					x := freeze(t, 9, rows, wild(r, 200, degree, layers+1), metric)
					requireSound(t, x, rows)
					assert.LessOrEqual(t, len(x.Layers()), layers+1)
					requireWalkReachesAll(t, x, append(gaussian(r, 10, 9), rows[:10]...))
				})
			}
		}
	}
}

func TestFreezeKeepsLinks(t *testing.T) {
	rows := [][]float32{{0}, {1}, {2}, {3}}
	g := &index.SourceGraph{Layers: [][][]uint32{
		{{1}, {0, 2}, {1, 3, 3, 2}, {2}},
		{nil, {}, nil, nil},
		{nil, nil, nil, nil}, // an empty layer goes
	}}
	x := freeze(t, 1, rows, g, index.L2)
	requireSound(t, x, rows)
	layers := x.Layers()
	require.Len(t, layers, 2)
	assert.Equal(t, []int{0, 2, 2, 0, 0}, layers[0].Degrees, "self links and repeated ones are dropped, none is added")
	assert.Equal(t, 1, layers[1].Nodes)
	assert.Equal(t, uint32(1), x.Row(0), "the row of the highest layer is the entry")
}

func TestFreezeNothing(t *testing.T) {
	x := freeze(t, 3, nil, &index.SourceGraph{Layers: [][][]uint32{{}}}, index.Dot)
	requireSound(t, x, nil)
}

func TestFreezeIsolated(t *testing.T) {
	rows := gaussian(random(1), 300, 6)
	x := freeze(t, 6, rows, isolated(300), index.L2)
	requireSound(t, x, rows)
	requireWalkReachesAll(t, x, rows[:5])
}

func TestInvalidSourceGraph(t *testing.T) {
	wide := make([]uint32, 1025)
	for i := range wide {
		wide[i] = uint32(i % 2)
	}
	for _, tt := range []struct {
		name   string
		layers [][][]uint32
		text   string
	}{
		{"no layers", nil, "source graph has 0 layers, want 1 to 32"},
		{"many layers", make([][][]uint32, 33), "source graph has 33 layers, want 1 to 32"},
		{"few rows", [][][]uint32{{{}, {}}}, "layer 0 has 2 rows, want 3"},
		{"many rows", [][][]uint32{{{}, {}, {}}, {{}, {}, {}, {}}}, "layer 1 has 4 rows, want 3"},
		{"row missing", [][][]uint32{{{}, nil, {}}}, "row 1 is not in layer 0"},
		{"layer skipped", [][][]uint32{{{}, {}, {}}, {{}, nil, nil}, {nil, {}, nil}}, "row 1 is in layer 2 but not in the one below"},
		{"out of range", [][][]uint32{{{1}, {3}, {}}}, "layer 0: row 1 links to 3, which is not in the layer"},
		{"outside the layer", [][][]uint32{{{}, {}, {}}, {{2}, {}, nil}}, "layer 1: row 0 links to 2, which is not in the layer"},
		{"too wide", [][][]uint32{{wide, {}, {}}}, "layer 0 has a row with 1025 neighbours, at most 1024 are accepted"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := index.Build(t.Context(), index.Input{
				Vectors: matrix(t, 2, gaussian(random(1), 3, 2)), Keys: keys(3),
				Graph: &index.SourceGraph{Layers: tt.layers},
			}, params(index.Dot))
			require.ErrorContains(t, err, tt.text)
		})
	}
}
