package index_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// compactNames are the element types that a file may have beside float32, by
// number.
var compactNames = []string{"float16", "uint8"}

// compactRows are tinyRows with components that an element type holds.
func compactRows(name string) [][]float32 {
	rows := tinyRows()
	for _, v := range rows {
		for j, x := range v {
			if name == "uint8" {
				v[j] = float32(math.Round(min(max(128+50*float64(x), 0), 255)))
			} else {
				v[j] = float32(math.Round(float64(x)*256) / 256)
			}
		}
	}
	return rows
}

// compactMetric differs, so that each is read once.
func compactMetric(name string) index.Metric {
	if name == "uint8" {
		return index.L2
	}
	return index.Dot
}

// tinyCompact is tiny with an element type.
func tinyCompact(t testing.TB, name string) *index.Index {
	t.Helper()
	p := index.DefaultParams(compactMetric(name))
	p.M, p.EfConstruction = 2, 8
	x := build(t, 3, compactRows(name), p)
	calibrate(t, x, 3, gaussian(random(2), 8, 3), 1)
	require.Equal(t, name, x.Element().String())
	return x
}

func TestCompactWriteOpen(t *testing.T) {
	for _, name := range compactNames {
		x := tinyCompact(t, name)
		data := encode(t, x)
		y, err := openBytes(data)
		require.NoError(t, err)
		require.NoError(t, y.CheckGraph())
		assert.Equal(t, x.Element(), y.Element())
		assert.Equal(t, x.String(), y.String())
		assert.Contains(t, y.String(), "dim 3 of "+name+", metric=")
		assert.Equal(t, data, encode(t, y))
		assert.Equal(t, data, pack(unpack(t, data)), "as format.md draws it")
		for ordinal := range uint32(x.Rows()) {
			assert.Equal(t, x.Vector(ordinal, nil), y.Vector(ordinal, nil))
			assert.Equal(t, x.Norm(ordinal), y.Norm(ordinal))
		}
	}
}

// Vectors of one component that is not zero are scaled to it and zeros.
func TestCompactCosine(t *testing.T) {
	rows := [][]float32{{0.3, 0, 0}, {0, 7, 0}, {0, 0, 1e9}, {5, 0, 0}}
	x := build(t, 3, rows, params(index.Cosine))
	require.Equal(t, index.Uint8, x.Element())
	y, err := openBytes(encode(t, x))
	require.NoError(t, err)
	for ordinal := range uint32(4) {
		assert.Equal(t, rows[y.Row(ordinal)], y.Vector(ordinal, nil))
	}
	hits, _ := search(t, y, index.Query{Vector: []float32{1, 2, 3}, K: 4})
	requireRanked(t, y, canonical(index.Cosine, []float32{1, 2, 3}, rows, nil), 4, hits)

	c := unpack(t, encode(t, x))
	c[c.At("index.vectors")].Data[0] = 2
	_, err = openBytes(pack(c))
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, "section index.vectors: ordinal 0 is scaled to norm")
}

// The golden files of each element type, as those of [TestGolden].
func TestCompactGolden(t *testing.T) {
	for _, name := range compactNames {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "v1-"+name+".tandem")
			if *update {
				require.NoError(t, os.WriteFile(path, encode(t, tinyCompact(t, name)), 0o644))
			}
			x := open(t, path)
			require.NoError(t, x.CheckGraph())
			assert.Equal(t, name, x.Element().String())
			rows, metric := compactRows(name), compactMetric(name)
			require.Equal(t, len(rows), x.Rows())
			for _, q := range gaussian(random(3), 10, 3) {
				hits, _ := search(t, x, index.Query{Vector: q, K: 40})
				requireRanked(t, x, canonical(metric, q, rows, nil), 40, hits)
				hits, stats := search(t, x, index.Query{Vector: q, K: 5, Ef: 40, Plan: index.GraphWalk})
				requireRanked(t, x, canonical(metric, q, rows, nil), 5, hits)
				assert.Equal(t, index.GraphWalk, stats.Plan)
			}
		})
	}
}

// The files of before have no feature bit, and are read by builds of before.
func TestFeatureBits(t *testing.T) {
	le := binary.LittleEndian
	withFeatures := func(data []byte, bits uint32) []byte {
		data = append([]byte(nil), data...)
		le.PutUint32(data[12:], bits)
		le.PutUint64(data[56:], 0)
		le.PutUint64(data[56:], xxhash.Sum64(data[:sections.PageSize]))
		return data
	}
	wide, compact := encode(t, tiny(t, index.L2)), encode(t, tinyCompact(t, "uint8"))
	assert.Zero(t, le.Uint32(wide[12:]))
	assert.Equal(t, uint32(1), le.Uint32(compact[12:]))

	_, err := openBytes(withFeatures(wide, 1))
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, "section index.meta: element type 0 with feature bits 0x1")
	_, err = openBytes(withFeatures(compact, 0))
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, "section index.meta: element type 2 with feature bits 0x0")
	_, err = openBytes(withFeatures(compact, 1|1<<31))
	require.ErrorIs(t, err, sections.ErrVersion)
}

func TestHostileCompactContent(t *testing.T) {
	const stride = 16
	half := func(i int, bits uint16) func([]byte) []byte {
		return func(b []byte) []byte {
			if i < 0 {
				i += len(b) / 2
			}
			binary.LittleEndian.PutUint16(b[2*i:], bits)
			return b
		}
	}
	for _, tt := range []struct {
		element, section, name string
		change                 func([]byte) []byte
		text                   string
	}{
		{"float16", "index.meta", "other element", put(7, 2), "section index.vectors: length 1280 is not 640 values of 1 bytes"},
		{"float16", "index.meta", "float32", put(7, 0), "section index.vectors: length 1280 is not 640 values of 4 bytes"},
		{"float16", "index.vectors", "short", short, "length 1279 is not 640 values of 2 bytes"},
		{"float16", "index.vectors", "NaN", half(3*stride, 0x7e00), "ordinal 3 has a norm of NaN"},
		{"float16", "index.vectors", "signalling NaN", half(3*stride, 0x7d00), "ordinal 3 has a norm of NaN"},
		{"float16", "index.vectors", "infinity", half(3*stride+2, 0xfc00), "ordinal 3 has a norm of +Inf"},
		{"float16", "index.vectors", "padding", half(5*stride+3, 1), "ordinal 5 has padding that is not zero"},
		{"float16", "index.vectors", "padding NaN", half(-1, 0xfe00), "ordinal 39"},
		{"uint8", "index.meta", "other element", put(7, 1), "section index.vectors: length 640 is not 640 values of 2 bytes"},
		{"uint8", "index.vectors", "long", long, "length 644 is not 640 values of 1 bytes"},
		{"uint8", "index.vectors", "padding", func(b []byte) []byte { b[5*stride+3] = 1; return b }, "ordinal 5 has padding that is not zero"},
	} {
		t.Run(tt.element+"/"+tt.section+"/"+tt.name, func(t *testing.T) {
			c := unpack(t, encode(t, tinyCompact(t, tt.element)))
			at := c.At(tt.section)
			c[at].Data = tt.change(c[at].Data)
			_, err := openBytes(pack(c))
			require.ErrorIs(t, err, sections.ErrCorrupt)
			require.ErrorContains(t, err, tt.text)
		})
	}
	c := unpack(t, encode(t, tinyCompact(t, "uint8")))
	at := c.At("index.vectors")
	c[at].Data[len(c[at].Data)-stride] ^= 1
	x, err := openBytes(pack(c))
	require.NoError(t, err)
	err = x.CheckGraph()
	require.ErrorIs(t, err, sections.ErrCorrupt)
	require.ErrorContains(t, err, "section index.duplicates: ordinal 39 does not equal node")
}

func TestCompactSearchDoesNotAllocate(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, name := range compactNames {
		r := random(1)
		rows := gaussian(r, 2000, 20)
		for _, v := range rows {
			for j := range v {
				if v[j] = float32(r.IntN(200)); name == "float16" {
					v[j] -= 100
				}
			}
		}
		x := build(t, 20, rows, params(compactMetric(name)))
		require.Equal(t, name, x.Element().String())
		for _, p := range plans(x, rows[0], 50, 80) {
			hits := make([]index.Hit, 0, 50)
			vector := make([]float32, 0, 20)
			require.Zero(t, testing.AllocsPerRun(200, func() {
				var err error
				if hits, _, err = x.Search(p.query, hits[:0]); err != nil {
					t.Fatal(err)
				}
				vector = x.Vector(hits[0].Ordinal, vector[:0])
			}), "%s %s", name, p.name)
		}
	}
}
