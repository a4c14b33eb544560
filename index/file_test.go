package index_test

import (
	"bytes"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/index/sections/sectionstest"
)

var update = flag.Bool("update", false, "write the golden files anew")

// tiny is an index with every section: two layers, duplicates, efforts and, under
// cosine, norms.
func tiny(t testing.TB, metric index.Metric) *index.Index {
	t.Helper()
	rows := tinyRows()
	p := index.DefaultParams(metric)
	p.M, p.EfConstruction = 2, 8
	x := build(t, 3, rows, p)
	calibrate(t, x, 3, gaussian(random(2), 8, 3), 1)
	require.Greater(t, len(x.Layers()), 1)
	require.Greater(t, x.Duplicates(), 2)
	require.Greater(t, len(x.Effort()), 1)
	return x
}

func tinyRows() [][]float32 { return repeated(random(1), gaussian(random(1), 40, 3), 0.3) }

func TestWriteOpen(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metric.String(), func(t *testing.T) {
			r := random(1)
			rows := repeated(r, gaussian(r, 700, 21), 0.2)
			x := build(t, 21, rows, params(metric))
			queries := gaussian(r, 30, 21)
			calibrate(t, x, 21, queries, 2)
			y := open(t, writeIndex(t, x))

			assert.Equal(t, x.String(), y.String())
			assert.Equal(t, x.Params(), y.Params())
			assert.Equal(t, metric, y.Metric())
			assert.Equal(t, 21, y.Dim())
			assert.Equal(t, x.Rows(), y.Rows())
			assert.Equal(t, x.Duplicates(), y.Duplicates())
			assert.Equal(t, x.Order(), y.Order())
			assert.Equal(t, x.Layers(), y.Layers())
			assert.Equal(t, x.Effort(), y.Effort())
			for ordinal := range uint32(x.Rows()) {
				assert.Equal(t, x.Vector(ordinal, nil), y.Vector(ordinal, nil))
				assert.Equal(t, x.Norm(ordinal), y.Norm(ordinal))
			}
			filter, eligible := filterOf(x, func(row int) bool { return row%3 == 0 })
			for _, q := range queries {
				for _, ef := range []int{0, 10, 50} {
					for _, plan := range []index.Plan{index.Auto, index.ExactScan, index.GraphWalk} {
						for _, f := range []index.Bitset{nil, filter} {
							q := index.Query{Vector: q, K: 10, Ef: ef, Plan: plan, Filter: f, Eligible: eligible}
							a, as := search(t, x, q)
							b, bs := search(t, y, q)
							require.Equal(t, a, b)
							require.Equal(t, as, bs)
						}
					}
				}
			}
		})
	}
}

// What was opened can be written again, as it was.
func TestWriteWhatWasOpened(t *testing.T) {
	for _, metric := range metrics {
		for _, x := range []*index.Index{tiny(t, metric), build(t, 3, nil, params(metric))} {
			data := encode(t, x)
			again, err := openBytes(data)
			require.NoError(t, err)
			assert.True(t, bytes.Equal(data, encode(t, again)), "%v", x)
		}
	}
}

// pack is written after format.md, so this compares the Writer with the page.
func TestFormatIsAsDrawn(t *testing.T) {
	for _, metric := range metrics {
		data := encode(t, tiny(t, metric))
		assert.True(t, bytes.Equal(data, pack(unpack(t, data))), metric)
	}
}

func TestEachByteOfAFileMatters(t *testing.T) {
	data := encode(t, tiny(t, index.Cosine))
	_, err := openBytes(slices.Clone(data))
	require.NoError(t, err)
	for at := range data {
		data[at] ^= 0x10
		_, err := openBytes(data)
		data[at] ^= 0x10
		if at >= 8 && at < 12 {
			require.ErrorIs(t, err, sections.ErrVersion, "byte %d", at)
		} else {
			require.ErrorIs(t, err, sections.ErrCorrupt, "byte %d", at)
		}
	}
}

func TestUnknownSection(t *testing.T) {
	c := unpack(t, encode(t, tiny(t, index.Dot)))
	for _, name := range []string{"index.future", "index.links.9", "index.norms", "other"} {
		f, err := sections.FromBytes(pack(append(c.Clone(), sectionstest.Section{Name: name, Data: []byte("?")})))
		require.NoError(t, err)
		_, err = index.Open(f)
		require.NoError(t, err)
		err = f.CheckClaimed()
		require.ErrorIs(t, err, sections.ErrVersion)
		require.ErrorContains(t, err, "section "+name+": unknown to this build")
	}
}

// golden files stay: every version of the format that was ever released must be
// read for ever.
func TestGolden(t *testing.T) {
	for _, metric := range metrics {
		t.Run(metric.String(), func(t *testing.T) {
			path := filepath.Join("testdata", "v1-"+metric.String()+".tandem")
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o755))
				require.NoError(t, os.WriteFile(path, encode(t, tiny(t, metric)), 0o644))
			}
			x := open(t, path)
			require.NoError(t, x.CheckGraph())
			assert.Equal(t, "metric="+metric.String()+" m=2 ef_construction=8 alpha=1.1 seed=0 frozen=false", x.Params().String())
			assert.NotEmpty(t, x.Effort())
			rows := tinyRows()
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

// The golden file of an index that is large enough to be calibrated under filters. The
// others are too small, and are what a file without that is like.
func TestFilteredGolden(t *testing.T) {
	path := filepath.Join("testdata", "v1-filtered.tandem")
	x := build(t, 3, gaussian(random(8), 600, 3), index.Params{Metric: index.L2, M: 2, EfConstruction: 8, Alpha: 1.1})
	calibrate(t, x, 3, gaussian(random(9), 60, 3), 2)
	if *update {
		require.NoError(t, os.WriteFile(path, encode(t, x), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.True(t, bytes.Equal(want, encode(t, x)), "a build of today differs")
	old := open(t, path)
	require.NoError(t, old.CheckGraph())
	require.NotEmpty(t, old.FilteredEffort())
	assert.Equal(t, x.FilteredEffort(), old.FilteredEffort())
}

// TestBuildIsGolden fails when a build of today differs from the golden file's: a
// digest then names other bytes, which a change should do knowingly (-update).
func TestBuildIsGolden(t *testing.T) {
	for _, metric := range metrics {
		want, err := os.ReadFile(filepath.Join("testdata", "v1-"+metric.String()+".tandem"))
		require.NoError(t, err)
		assert.True(t, bytes.Equal(want, encode(t, tiny(t, metric))), metric)
	}
}

// FuzzOpen changes what sections hold, under valid checksums. What opens must
// bear every search.
func FuzzOpen(f *testing.F) {
	var files []sectionstest.Content
	for _, metric := range metrics {
		files = append(files, unpack(f, encode(f, tiny(f, metric))))
	}
	for _, name := range compactNames {
		files = append(files, unpack(f, encode(f, tinyCompact(f, name))))
	}
	for which := range byte(len(files)) {
		for section := range byte(len(files[which])) {
			f.Add(which, section, uint16(0), []byte{0xff, 0xff, 0xff, 0xff}, false)
			f.Add(which, section, uint16(4), []byte{1, 0, 0, 0}, false)
			f.Add(which, section, uint16(0), []byte{}, true)
		}
	}
	queries := gaussian(random(4), 3, 3)
	f.Fuzz(func(t *testing.T, which, section byte, at uint16, patch []byte, replace bool) {
		c := files[int(which)%len(files)].Clone()
		s := &c[int(section)%len(c)]
		if replace {
			s.Data = patch
		} else if len(s.Data) > 0 {
			copy(s.Data[int(at)%len(s.Data):], patch)
		}
		x, err := openBytes(pack(c))
		if err != nil {
			if !errors.Is(err, sections.ErrCorrupt) {
				t.Fatalf("not of class ErrCorrupt: %v", err)
			}
			return
		}
		_ = x.CheckGraph()
		_ = x.Layers()
		for _, q := range queries {
			if x.Dim() != len(q) {
				q = make([]float32, x.Dim())
				q[0] = 1
			}
			filter, eligible := filterOf(x, func(row int) bool { return row%2 == 0 })
			for _, plan := range []index.Plan{index.Auto, index.ExactScan, index.GraphWalk} {
				for _, ef := range []int{0, 3, x.EffortFor(5, 0.99), math.MaxInt} {
					hits := requireHits(t, x, index.Query{Vector: q, K: 5, Ef: ef, Plan: plan})
					require.Len(t, hits, min(5, x.Rows()))
					hits = requireHits(t, x, index.Query{Vector: q, K: 5, Ef: ef, Plan: plan, Filter: filter, Eligible: eligible})
					require.Len(t, hits, min(5, eligible))
				}
			}
		}
		for ordinal := range uint32(x.Rows()) {
			_ = x.Vector(x.Ordinal(x.Row(ordinal)), nil)
		}
	})
}

// requireHits searches and checks what holds of every answer: eligible rows,
// each once, in score order.
func requireHits(t require.TestingT, x *index.Index, q index.Query) []index.Hit {
	hits, _, err := x.Search(q, nil)
	require.NoError(t, err)
	seen := map[uint32]bool{}
	for i, h := range hits {
		require.Less(t, int(h.Ordinal), x.Rows())
		require.False(t, seen[h.Ordinal], "ordinal %d twice", h.Ordinal)
		seen[h.Ordinal] = true
		require.True(t, q.Filter == nil || q.Filter.Has(h.Ordinal), "ordinal %d is not eligible", h.Ordinal)
		require.False(t, math.IsNaN(float64(h.Score)))
		if i > 0 {
			last := hits[i-1]
			require.False(t, x.Metric().Better(h.Score, last.Score), "place %d", i)
			if h.Score == last.Score {
				require.Less(t, x.Row(last.Ordinal), x.Row(h.Ordinal), "place %d: a tie is broken by row", i)
			}
		}
	}
	return hits
}
