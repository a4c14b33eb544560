package index_test

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/interval"
	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/index/sections/sectionstest"
)

var metrics = []index.Metric{index.Dot, index.Cosine, index.L2}

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 1)) }

// gaussian returns rows of independent normal components.
func gaussian(r *rand.Rand, rows, dim int) [][]float32 {
	out := make([][]float32, rows)
	for i := range out {
		out[i] = make([]float32, dim)
		for j := range out[i] {
			out[i][j] = float32(r.NormFloat64())
		}
	}
	return out
}

// clustered returns rows around a few centres.
func clustered(r *rand.Rand, rows, dim, centres int, spread float32) [][]float32 {
	middle := gaussian(r, centres, dim)
	out := gaussian(r, rows, dim)
	for _, v := range out {
		c := middle[r.IntN(centres)]
		for j := range v {
			v[j] = c[j] + spread*v[j]
		}
	}
	return out
}

// repeated makes a share of the rows equal to others.
func repeated(r *rand.Rand, rows [][]float32, share float64) [][]float32 {
	for i := range rows {
		if r.Float64() < share {
			copy(rows[i], rows[r.IntN(len(rows))])
		}
	}
	return rows
}

// scaled multiplies row i by f(i).
func scaled(rows [][]float32, f func(i int) float64) [][]float32 {
	for i, v := range rows {
		s := f(i)
		for j := range v {
			v[j] = float32(float64(v[j]) * s)
		}
	}
	return rows
}

func matrix(t testing.TB, dim int, rows [][]float32) *index.Matrix {
	t.Helper()
	m, err := index.NewMatrix(dim, len(rows))
	require.NoError(t, err)
	for _, v := range rows {
		require.NoError(t, m.Append(v))
	}
	return m
}

// keys returns a hash for each row, as of its id.
func keys(rows int) []uint64 {
	out := make([]uint64, rows)
	for i := range out {
		out[i] = xxhash.Sum64(binary.LittleEndian.AppendUint64(nil, uint64(i)))
	}
	return out
}

// params are small, so that small data has several layers and full lists.
func params(metric index.Metric) index.Params {
	p := index.DefaultParams(metric)
	p.M, p.EfConstruction = 6, 40
	return p
}

func build(t testing.TB, dim int, rows [][]float32, p index.Params) *index.Index {
	t.Helper()
	x, err := index.Build(t.Context(), index.Input{Vectors: matrix(t, dim, rows), Keys: keys(len(rows)), Threads: 2}, p)
	require.NoError(t, err)
	return x
}

// calibrate calibrates by a sample of which a third shapes.
func calibrate(t testing.TB, x *index.Index, dim int, sample [][]float32, threads int) {
	t.Helper()
	n := len(sample) / 3
	require.NoError(t, x.Calibrate(t.Context(), matrix(t, dim, sample[:n]), matrix(t, dim, sample[n:]), threads))
}

// measured returns the queries of a sample that calibrate measures the efforts of a band
// with.
func measured(sample [][]float32, k int) [][]float32 {
	sample = sample[len(sample)/3:]
	part := map[int]float64{10: 1, 30: 0.75, 100: 0.5, 300: 0.375, 1000: 0.25}[k]
	return sample[:int(math.Ceil(part*float64(len(sample))))]
}

func writeIndex(t testing.TB, x *index.Index) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "shard")
	w, err := sections.Create(path)
	require.NoError(t, err)
	require.NoError(t, x.Write(w))
	require.NoError(t, w.Commit())
	return path
}

func encode(t testing.TB, x *index.Index) []byte {
	t.Helper()
	data, err := os.ReadFile(writeIndex(t, x))
	require.NoError(t, err)
	return data
}

func open(t testing.TB, path string) *index.Index {
	t.Helper()
	f, err := sections.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, f.Close()) })
	x, err := index.Open(f)
	require.NoError(t, err)
	require.NoError(t, f.CheckClaimed())
	return x
}

func openBytes(data []byte) (*index.Index, error) {
	f, err := sections.FromBytes(data)
	if err != nil {
		return nil, err
	}
	return index.Open(f)
}

func unpack(t testing.TB, data []byte) sectionstest.Content {
	t.Helper()
	f, err := sections.FromBytes(data)
	require.NoError(t, err)
	c, err := sectionstest.Unpack(f)
	require.NoError(t, err)
	return c
}

// pack puts a file together, with the feature that its meta says it needs.
func pack(c sectionstest.Content) []byte {
	features := uint32(0)
	if at := c.At("index.meta"); at >= 0 && len(c[at].Data) == 32 && words(c[at].Data)[7] != 0 {
		features = 1
	}
	return c.Pack(features)
}

// words and floats read a section's values.
func words(b []byte) []uint32 {
	out := make([]uint32, len(b)/4)
	for i := range out {
		out[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return out
}

func search(t testing.TB, x *index.Index, q index.Query) ([]index.Hit, index.Stats) {
	t.Helper()
	hits, stats, err := x.Search(q, nil)
	require.NoError(t, err)
	return hits, stats
}

// A ranked row of an oracle.
type ranked struct {
	row   int
	score float64
}

func order(m index.Metric, list []ranked) []ranked {
	slices.SortFunc(list, func(a, b ranked) int {
		c := cmp.Compare(a.score, b.score)
		if m != index.L2 {
			c = -c
		}
		return cmp.Or(c, cmp.Compare(a.row, b.row))
	})
	return list
}

// precise ranks rows with scores computed in float64.
func precise(m index.Metric, query []float32, rows [][]float32, eligible func(row int) bool) []ranked {
	list := []ranked{}
	for i, v := range rows {
		if eligible != nil && !eligible(i) {
			continue
		}
		var product, distance, qq, vv float64
		for j := range v {
			q, x := float64(query[j]), float64(v[j])
			product += q * x
			distance += (q - x) * (q - x)
			qq += q * q
			vv += x * x
		}
		switch m {
		case index.Cosine:
			product /= math.Sqrt(qq) * math.Sqrt(vv)
		case index.L2:
			product = distance
		}
		list = append(list, ranked{i, product})
	}
	return order(m, list)
}

// canonical ranks rows with scores in package kernel's order of additions: what
// an exact scan must return to the bit.
func canonical(m index.Metric, query []float32, rows [][]float32, eligible func(row int) bool) []ranked {
	q := prepared(m, query)
	list := []ranked{}
	score := make([]float32, 1)
	for i, v := range rows {
		if eligible != nil && !eligible(i) {
			continue
		}
		if m == index.L2 {
			kernel.L2Range(q, prepared(m, v), 0, score)
		} else {
			kernel.DotRange(q, prepared(m, v), 0, score)
		}
		list = append(list, ranked{i, float64(score[0])})
	}
	return order(m, list)
}

// prepared returns a vector padded, and scaled to norm 1 under cosine.
func prepared(m index.Metric, v []float32) []float32 {
	out := make([]float32, kernel.Stride(len(v)))
	copy(out, v)
	if m == index.Cosine {
		var sum float64
		for _, x := range v {
			sum += float64(float64(x) * float64(x))
		}
		for i := range out {
			out[i] = float32(float64(out[i]) / math.Sqrt(sum))
		}
	}
	return out
}

// requireRanked checks an answer against an oracle, to the bit.
func requireRanked(t require.TestingT, x *index.Index, want []ranked, k int, hits []index.Hit) {
	want = want[:min(k, len(want))]
	require.Len(t, hits, len(want))
	for i, h := range hits {
		require.Equal(t, want[i].row, int(x.Row(h.Ordinal)), "place %d: want score %v, got %v", i, want[i].score, h.Score)
		require.Equal(t, float32(want[i].score), h.Score, "place %d", i)
	}
}

// filterOf returns the ordinals of the eligible rows.
func filterOf(x *index.Index, eligible func(row int) bool) (index.Bitset, int) {
	b := index.NewBitset(x.Rows())
	for ordinal, row := range x.Order() {
		if eligible(int(row)) {
			b.Set(uint32(ordinal))
		}
	}
	return b, b.Count()
}

// recall returns the share of the true k best that walks of ef find, ties
// counted as found.
func recall(t testing.TB, x *index.Index, queries [][]float32, k, ef int) (mean float64, scored int) {
	t.Helper()
	found := 0
	each, scored := recalls(t, x, queries, k, ef)
	for _, n := range each {
		found += n
	}
	return float64(found) / float64(k*len(queries)), scored / len(queries)
}

// recalls returns how many of the k best rows a walk finds for each query, and how many
// rows it scores for all.
func recalls(t testing.TB, x *index.Index, queries [][]float32, k, ef int) (found []int, scored int) {
	t.Helper()
	for _, q := range queries {
		exact, _ := search(t, x, index.Query{Vector: q, K: k, Plan: index.ExactScan})
		hits, stats := search(t, x, index.Query{Vector: q, K: k, Ef: ef, Plan: index.GraphWalk})
		require.Equal(t, index.GraphWalk, stats.Plan)
		scored += stats.Scored
		n := 0
		for _, h := range hits {
			if !x.Metric().Better(exact[k-1].Score, h.Score) {
				n++
			}
		}
		found = append(found, n)
	}
	return found, scored
}

// bounds returns the bounds of the mean recall of walks, of 99% confidence.
func bounds(t testing.TB, x *index.Index, queries [][]float32, k, ef int) (lower, upper float64) {
	t.Helper()
	found, _ := recalls(t, x, queries, k, ef)
	return boundsOf(found, k)
}

func boundsOf(found []int, k int) (lower, upper float64) {
	all, squares := 0, 0.0
	for _, n := range found {
		all += n
	}
	mean := float64(all) / float64(k*len(found))
	for _, n := range found {
		squares += math.Pow(float64(n)-mean*float64(k), 2)
	}
	trials := interval.Effective(mean, float64(k*len(found)), squares, len(found))
	return interval.Lower(mean, trials, interval.Z99), interval.Upper(mean, trials, interval.Z99)
}
