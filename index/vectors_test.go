package index

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index/kernel"
)

func TestElementOf(t *testing.T) {
	negativeZero := float32(math.Copysign(0, -1))
	for _, tt := range []struct {
		want Element
		rows [][]float32
	}{
		{Float32, nil},
		{Uint8, [][]float32{{0, 0}}},
		{Uint8, [][]float32{{0, 255}, {17, 1}}},
		{Float16, [][]float32{{0, 255}, {17, 256}}},
		{Float16, [][]float32{{0, -1}, {17, 1}}},
		{Float16, [][]float32{{0, 0.5}, {65504, -65504}}},
		{Float16, [][]float32{{0x1p-24, -0x1p-14}}},
		{Float32, [][]float32{{0x1p-25, 1}}},
		{Float32, [][]float32{{0, 65520}}},
		{Float32, [][]float32{{0, 255}, {17, 0.1}}},
		{Float32, [][]float32{{2049, 1}}},
		{Float32, [][]float32{{1e30, 1}}},
	} {
		m, err := NewMatrix(2, len(tt.rows))
		require.NoError(t, err)
		for _, v := range tt.rows {
			require.NoError(t, m.Append(v))
		}
		assert.Equal(t, tt.want, elementOf(m), tt.rows)
	}
	// A matrix makes a zero of it, but a vector that was scaled may hold one.
	m := &Matrix{dim: 1, stride: 16, data: make([]float32, 16)}
	m.data[0] = negativeZero
	assert.Equal(t, Float16, elementOf(m))
}

func TestToUint8(t *testing.T) {
	for b := range 256 {
		got, exact := toUint8(float32(b))
		require.True(t, exact)
		require.Equal(t, b, int(got))
	}
	for _, x := range []float64{-1, 256, 0.5, 254.99999, 1e30, -1e30, math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1), 1e-45} {
		_, exact := toUint8(float32(x))
		require.False(t, exact, x)
	}
}

// widened is the index with its vectors held as float32.
func widened(t *testing.T, x *Index) *Index {
	t.Helper()
	y := &Index{
		params: x.params, dim: x.dim, stride: x.stride, nodes: x.nodes, rows: x.rows, norms: x.norms,
		duplicates: x.duplicates, layers: x.layers, codes: x.codes, entries: x.entries, costs: x.costs,
	}
	y.vectors = vectors{stride: x.stride}
	for ordinal := range uint32(len(x.rows)) {
		y.vectors.float32s = append(y.vectors.float32s, x.vectors.row(ordinal, nil)...)
	}
	require.NoError(t, y.prepare())
	return y
}

// An index whose vectors are compact has the codes, and gives the answers, that it
// would have and give if they were float32.
func TestCompactVectorsChangeNothing(t *testing.T) {
	components := map[Element]func(r *rand.Rand) float32{
		Uint8: func(r *rand.Rand) float32 { return float32(r.IntN(256)) },
		Float16: func(r *rand.Rand) float32 {
			return kernel.FromFloat16(uint16(r.Uint32()) &^ 0x4000) // below 2 in size
		},
	}
	for element, component := range components {
		for _, metric := range []Metric{Dot, L2} {
			for _, dim := range []int{1, 15, 16, 33, 100} {
				r := rand.New(rand.NewPCG(31, uint64(dim)))
				const rows = 700
				m, err := NewMatrix(dim, rows)
				require.NoError(t, err)
				var keys []uint64
				v := make([]float32, dim)
				for i := range rows {
					if i == 0 || r.IntN(8) > 0 { // or it repeats the last one
						for j := range v {
							v[j] = component(r)
						}
					}
					require.NoError(t, m.Append(v))
					keys = append(keys, xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(i))))
				}
				given := append([]float32(nil), m.data...)
				p := DefaultParams(metric)
				p.M, p.EfConstruction = 6, 40
				x, err := Build(t.Context(), Input{Vectors: m, Keys: keys, Threads: 2}, p)
				require.NoError(t, err)
				require.Equal(t, element, x.Element())
				require.NoError(t, x.CheckGraph())
				require.Zero(t, m.Rows(), "the build leaves no second copy")
				y := widened(t, x)
				require.Equal(t, Float32, y.Element())
				require.Equal(t, encode(metric, dim, y.nodes, &y.vectors).rows, x.codes.rows)

				for ordinal := range uint32(rows) {
					row := int(x.Row(ordinal))
					want := given[row*x.stride : row*x.stride+dim]
					require.Equal(t, want, x.Vector(ordinal, nil))
					require.Equal(t, append([]float32{1}, want...), x.Vector(ordinal, []float32{1}))
					require.Equal(t, y.Norm(ordinal), x.Norm(ordinal))
				}
				tenth := NewBitset(rows)
				for ordinal := uint32(0); ordinal < rows; ordinal += 10 {
					tenth.Set(ordinal)
				}
				for range 5 {
					for j := range v {
						v[j] = float32(r.NormFloat64() * 100)
					}
					for _, q := range []Query{
						{K: 50, Plan: ExactScan},
						{K: 50, Plan: ExactScan, Filter: tenth, Eligible: tenth.Count()},
						{K: 10, Ef: 40, Plan: GraphWalk},
						{K: 10, Ef: 40, Plan: GraphWalk, Filter: tenth, Eligible: tenth.Count()},
					} {
						q.Vector = v
						want, wantStats, err := y.Search(q, nil)
						require.NoError(t, err)
						got, gotStats, err := x.Search(q, nil)
						require.NoError(t, err)
						require.Equal(t, want, got)
						require.Equal(t, wantStats, gotStats)
					}
				}
			}
		}
	}
}
