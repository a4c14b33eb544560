package index_test

import (
	"encoding/binary"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/index/sections/sectionstest"
)

// put replaces the word at place i of a section; negative places count from its
// end.
func put(i int, v uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		if i < 0 {
			i += len(b) / 4
		}
		binary.LittleEndian.PutUint32(b[4*i:], v)
		return b
	}
}

func putFloat(i int, v float64) func([]byte) []byte { return put(i, math.Float32bits(float32(v))) }

func text(s string) func([]byte) []byte { return func([]byte) []byte { return []byte(s) } }

func short(b []byte) []byte { return b[:len(b)-1] }

func long(b []byte) []byte { return append(b, 0, 0, 0, 0) }

func swap(i, j int) func([]byte) []byte {
	return func(b []byte) []byte {
		w := words(b)
		return put(j, w[i])(put(i, w[j])(b))
	}
}

// TestHostileContent changes one section of a file, under valid checksums.
func TestHostileContent(t *testing.T) {
	const (
		stride = 16
		record = 5 // words of an effort
		none   = math.MaxUint32
	)
	replace := func(old, new string) func([]byte) []byte {
		return func(b []byte) []byte { return []byte(strings.Replace(string(b), old, new, 1)) }
	}
	for _, tt := range []struct {
		section, name string
		change        func([]byte) []byte
		text          string
	}{
		{"index.params", "garbage", text("\x00\xff{}"), "unknown parameter"},
		{"index.params", "empty", text(""), "parameter metric is missing"},
		{"index.params", "metric", replace("cosine", "hamming"), `metric "hamming"`},
		{"index.params", "m", replace("m=2", "m=0"), "m is 0, want 2 to 128"},
		{"index.params", "twice", func(b []byte) []byte { return append(b, " m=2"...) }, "parameter m is set twice"},

		{"index.meta", "short", short, "length 31 is not 8 values of 4 bytes"},
		{"index.meta", "long", long, "length 36 is not 8 values of 4 bytes"},
		{"index.meta", "no nodes", put(1, 0), "40 rows with 0 nodes"},
		{"index.meta", "more nodes than rows", put(1, 41), "40 rows with 41 nodes"},
		{"index.meta", "huge rows", put(0, none), "4294967295 rows with"},
		{"index.meta", "too many rows", put(0, index.MaxRows+1), "1073741825 rows with"},
		{"index.meta", "no rows", put(0, 0), "0 rows with"},
		{"index.meta", "dimension 0", put(2, 0), "dimension 0 with stride 16"},
		{"index.meta", "dimension 17", put(2, 17), "dimension 17 with stride 16"},
		{"index.meta", "huge dimension", put(2, none), "dimension 4294967295 with stride 16"},
		{"index.meta", "stride 0", put(3, 0), "dimension 3 with stride 0"},
		{"index.meta", "stride 32", put(3, 32), "dimension 3 with stride 32"},
		{"index.meta", "no layers", put(4, 0), "0 layers over"},
		{"index.meta", "33 layers", put(4, 33), "33 layers over"},
		{"index.meta", "width 0", put(5, 0), "widths 0 and 2"},
		{"index.meta", "width 1025", put(5, 1025), "widths 1025 and 2"},
		{"index.meta", "huge width", put(5, none), "widths 4294967295 and 2"},
		{"index.meta", "upper width 0", put(6, 0), "widths 4 and 0"},
		{"index.meta", "huge upper width", put(6, none), "widths 4 and 4294967295"},
		{"index.meta", "element type", put(7, 3), "element type 3 with feature bits 0x1"},
		{"index.meta", "huge element type", put(7, none), "element type 4294967295 with feature bits 0x1"},

		{"index.rows", "short", short, "length 159 is not 40 values of 4 bytes"},
		{"index.rows", "long", long, "length 164 is not 40 values of 4 bytes"},
		{"index.rows", "out of range", put(7, 40), "ordinal 7: row 40 is out of range or repeated"},
		{"index.rows", "huge", put(0, none), "ordinal 0: row 4294967295 is out of range or repeated"},
		{"index.rows", "repeated", func(b []byte) []byte { return put(1, words(b)[0])(b) }, "ordinal 1: row"},

		{"index.vectors", "short", short, "length 2559 is not 640 values of 4 bytes"},
		{"index.vectors", "long", long, "length 2564 is not 640 values of 4 bytes"},
		{"index.vectors", "NaN", putFloat(3*stride, math.NaN()), "ordinal 3 has a norm of NaN"},
		{"index.vectors", "infinity", putFloat(3*stride+2, math.Inf(-1)), "ordinal 3 has a norm of +Inf"},
		{"index.vectors", "overflow", putFloat(3*stride, 3e38), "ordinal 3 has a norm of "},
		{"index.vectors", "norm", putFloat(-stride, 1.1e18), "ordinal 39 has a norm of 1.1"},
		{"index.vectors", "padding", putFloat(5*stride+3, 1e-3), "ordinal 5 has padding that is not zero"},
		{"index.vectors", "last padding", putFloat(-1, 1e-30), "ordinal 39 has padding that is not zero"},
		{"index.vectors", "padding NaN", putFloat(-1, math.NaN()), "ordinal 39"},
		{"index.vectors", "not of norm 1", putFloat(0, 1.5), "ordinal 0 is scaled to norm"},
		{"index.vectors", "zero", func(b []byte) []byte { clear(b[:4*stride]); return b }, "ordinal 0 is scaled to norm 0, want 1"},

		{"index.norms", "short", short, "length 159 is not 40 values of 4 bytes"},
		{"index.norms", "long", long, "length 164 is not 40 values of 4 bytes"},
		{"index.norms", "NaN", putFloat(0, math.NaN()), "ordinal 0 has norm NaN"},
		{"index.norms", "infinity", putFloat(1, math.Inf(1)), "ordinal 1 has norm +Inf"},
		{"index.norms", "zero", putFloat(2, 0), "ordinal 2 has norm 0"},
		{"index.norms", "negative", putFloat(3, -1), "ordinal 3 has norm -1"},
		{"index.norms", "huge", putFloat(-1, 1e19), "ordinal 39 has norm 1e+19"},

		{"index.duplicates", "short", short, "is not"},
		{"index.duplicates", "long", long, "is not"},
		{"index.duplicates", "no node", put(-1, 39), "node 39 of"},
		{"index.duplicates", "huge", put(-1, none), "node 4294967295 of"},
		{"index.duplicates", "out of order", swap(0, 2), "is out of order"},

		{"index.layers", "short", short, "is not"},
		{"index.layers", "long", long, "is not"},
		{"index.layers", "bottom too small", put(0, 3), "layer 0 has 3 nodes"},
		{"index.layers", "bottom too large", put(0, 40), "layer 0 has 40 nodes"},
		{"index.layers", "rising", put(-1, 39), "nodes, the one below"},
		{"index.layers", "empty", put(-1, 0), "has 0 nodes"},
		{"index.layers", "huge", put(1, none), "layer 1 has 4294967295 nodes"},

		{"index.links.0", "short", short, "is not"},
		{"index.links.0", "long", long, "is not"},
		{"index.links.0", "self link", put(0, 0), "node 0 of"},
		{"index.links.0", "duplicate's ordinal", put(0, 39), "links to 39"},
		{"index.links.0", "out of range", put(-4, none-1), "links to 4294967294"},
		{"index.links.0", "after an unused place", func(b []byte) []byte { return put(3, 1)(put(2, none)(b)) }, "node 0 has a neighbour after an unused place"},
		{"index.links.1", "short", short, "is not"},
		{"index.links.1", "long", long, "is not"},
		{"index.links.1", "self link", put(2, 1), "node 1 of"},
		{"index.links.1", "below the layer", put(0, 27), "links to 27"},
		{"index.links.1", "after an unused place", func(b []byte) []byte { return put(1, 1)(put(0, none)(b)) }, "node 0 has a neighbour after an unused place"},

		{"index.code_mean", "short", short, "is not"},
		{"index.code_mean", "NaN", putFloat(0, math.NaN()), "component 0 is NaN"},
		{"index.code_mean", "huge", putFloat(-1, 2e18), "is 2e+18"},
		{"index.codes", "short", short, "is not"},
		{"index.codes", "long", long, "is not"},
		{"index.code_factors", "short", short, "is not"},
		{"index.code_factors", "step 0", putFloat(0, 0), "node 0 has step 0"},
		{"index.code_factors", "step NaN", putFloat(2, math.NaN()), "node 1 has step NaN"},
		{"index.code_factors", "bias infinite", putFloat(1, math.Inf(1)), "bias +Inf"},
		{"index.code_factors", "bias negative", putFloat(1, -1), "bias -1"},
		{"index.entries", "out of range", func([]byte) []byte { return []byte{39, 0, 0, 0} }, "entry 0 is node 39"},
		{"index.entries", "not whole", func([]byte) []byte { return []byte{0, 0, 0} }, "is not"},
		{"index.entries", "too many", func([]byte) []byte { return make([]byte, 65*4) }, "at most 64"},

		{"index.effort", "short", short, "is not a multiple of 20"},
		{"index.effort", "long", long, "is not a multiple of 20"},
		{"index.effort", "k 0", put(0, 0), "record 0"},
		{"index.effort", "k huge", put(0, none), "record 0"},
		{"index.effort", "target NaN", putFloat(1, math.NaN()), "record 0"},
		{"index.effort", "target 0", putFloat(1, 0), "record 0"},
		{"index.effort", "target 1", putFloat(1, 1), "record 0"},
		{"index.effort", "ef 0", put(2, 0), "record 0"},
		{"index.effort", "ef huge", put(2, none), "record 0"},
		{"index.effort", "recall NaN", putFloat(3, math.NaN()), "record 0"},
		{"index.effort", "recall above 1", putFloat(3, 1.5), "record 0"},
		{"index.effort", "scored NaN", putFloat(4, math.NaN()), "record 0"},
		{"index.effort", "scored infinite", putFloat(4, math.Inf(1)), "record 0"},
		{"index.effort", "scored negative", putFloat(4, -1), "record 0"},
		{"index.effort", "out of order", swap(1, record+1), "record 1"},
		{"index.effort", "repeated", func(b []byte) []byte { return append(b, b[len(b)-20:]...) }, "record"},
	} {
		t.Run(strings.TrimPrefix(tt.section, "index.")+"/"+tt.name, func(t *testing.T) {
			c := tinyCosine(t).Clone()
			at := c.At(tt.section)
			require.GreaterOrEqual(t, at, 0)
			c[at].Data = tt.change(c[at].Data)
			_, err := openBytes(pack(c))
			require.ErrorIs(t, err, sections.ErrCorrupt)
			require.ErrorContains(t, err, "section "+tt.section+": ")
			require.ErrorContains(t, err, tt.text)
		})
	}
}

var tinyFile sectionstest.Content

func tinyCosine(t *testing.T) sectionstest.Content {
	if tinyFile == nil {
		tinyFile = unpack(t, encode(t, tiny(t, index.Cosine)))
	}
	return tinyFile
}

func TestMissingSection(t *testing.T) {
	c := tinyCosine(t)
	for i, s := range c {
		_, err := openBytes(pack(append(c[:i:i], c[i+1:]...)))
		require.ErrorIs(t, err, sections.ErrCorrupt)
		require.ErrorContains(t, err, "section "+s.Name+": missing")
	}
}

// Counts that agree with one another and with nothing else must not make Open
// allocate for them.
func TestMetaLies(t *testing.T) {
	for _, meta := range [][8]uint32{
		{index.MaxRows, index.MaxRows, index.MaxDim, index.MaxDim, 32, 1024, 1024, 0},
		{index.MaxRows, 1, 3, 16, 1, 4, 2, 0},
		{1, 1, 3, 16, 1, 4, 2, 0},
		{41, 41, 3, 16, 2, 4, 2, 0},
		{0, 0, 3, 16, 0, 4, 2, 0},
		{0, 0, 3, 16, 0, 0, 0, 0},
	} {
		c := tinyCosine(t).Clone()
		c[c.At("index.meta")].Data = sections.Bytes(meta[:])
		_, err := openBytes(pack(c))
		require.ErrorIs(t, err, sections.ErrCorrupt, meta)
		require.ErrorContains(t, err, "section index.", meta)
	}
}

// Each number of these codes is one that Open accepts, and yet a distance is the
// difference of two infinities: no walk finds anything by it, and none may fault.
func TestHostileDistances(t *testing.T) {
	const dim = 512
	rows := gaussian(random(1), 60, dim)
	for _, metric := range metrics {
		p := index.DefaultParams(metric)
		p.M, p.EfConstruction = 2, 8
		c := unpack(t, encode(t, build(t, dim, rows, p)))
		fill := func(section string, words ...float32) {
			data := c[c.At(section)].Data
			for i := range len(data) / 4 {
				putFloat(i, float64(words[i%len(words)]))(data)
			}
		}
		fill("index.code_mean", -index.MaxNorm)
		fill("index.code_factors", index.MaxNorm, 0)
		for i, data := 0, c[c.At("index.codes")].Data; i < len(data); i++ {
			data[i] = 0xff
		}
		for _, entries := range [][]byte{nil, {0, 0, 0, 0}} {
			c[c.At("index.entries")].Data = entries
			x, err := openBytes(pack(c))
			require.NoError(t, err)
			require.Greater(t, len(x.Layers()), 1)
			filter, eligible := filterOf(x, func(row int) bool { return row%2 == 0 })
			for _, q := range []index.Query{
				{Vector: rows[0], K: 5, Ef: 10, Plan: index.GraphWalk},
				{Vector: rows[0], K: 5, Ef: 10, Plan: index.GraphWalk, Filter: filter, Eligible: eligible},
			} {
				require.Len(t, requireHits(t, x, q), 5)
			}
		}
	}
}

// CheckGraph finds what Open need not.
func TestCheckGraphFinds(t *testing.T) {
	for _, tt := range []struct {
		section, name string
		change        func([]byte) []byte
		text          string
	}{
		{"index.links.0", "cut off", func(b []byte) []byte {
			for i := range b {
				b[i] = 0xff
			}
			return b
		}, "section index.links.0: 29 of 30 nodes cannot be reached from the entry point"},
		{"index.links.0", "twice", func(b []byte) []byte { return put(0, words(b)[1])(b) }, "links to"},
		{"index.vectors", "duplicate differs", func(b []byte) []byte {
			return putFloat(-16, 0)(putFloat(-15, 1)(putFloat(-14, 0)(b)))
		}, "section index.duplicates: ordinal 39 does not equal node"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := tinyCosine(t).Clone()
			c[c.At(tt.section)].Data = tt.change(c[c.At(tt.section)].Data)
			x, err := openBytes(pack(c))
			require.NoError(t, err)
			err = x.CheckGraph()
			require.ErrorIs(t, err, sections.ErrCorrupt)
			require.ErrorContains(t, err, tt.text)
			hits := requireHits(t, x, index.Query{Vector: []float32{1, 2, 3}, K: 40, Ef: 40, Plan: index.GraphWalk})
			require.Len(t, hits, 40)
		})
	}
}

// What a build accepts, Open accepts: its checks allow for rounding.
func TestOpenAllowsForRounding(t *testing.T) {
	t.Run("worst", func(t *testing.T) {
		// After the first component the sum of squares is 1/2. Each further one
		// adds 128.49 units of a float32's last place there, so a sum in float32
		// loses half a unit every time.
		row := make([]float32, 65_287)
		for i := range row {
			row[i] = 1
		}
		row[0] = float32(math.Sqrt(float64(len(row) - 1)))
		x := build(t, len(row), [][]float32{row}, params(index.Cosine))
		_, err := openBytes(encode(t, x))
		require.NoError(t, err)
	})
	for _, dim := range []int{1, 1000, 40_001, 50_000, 60_000, index.MaxDim} {
		row := make([]float32, dim)
		for i := range row {
			row[i] = 1
		}
		x := build(t, dim, [][]float32{row}, params(index.Cosine))
		_, err := openBytes(encode(t, x))
		require.NoError(t, err, "cosine, dimension %d", dim)

		for i := range row {
			row[i] = float32(0.9999999 * index.MaxNorm / math.Sqrt(float64(dim)))
		}
		for _, metric := range []index.Metric{index.Dot, index.L2} {
			x := build(t, dim, [][]float32{row}, params(metric))
			_, err := openBytes(encode(t, x))
			require.NoError(t, err, "%v, dimension %d", metric, dim)
		}
	}
}

// TestHostileFilteredEffort does so with what only larger files have.
func TestHostileFilteredEffort(t *testing.T) {
	const section, record = "index.effort_filtered", 7 // words
	golden, err := os.ReadFile(filepath.Join("testdata", "v1-filtered.tandem"))
	require.NoError(t, err)
	whole := unpack(t, golden)
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		text   string
	}{
		{"empty", text(""), "length 0 is not a positive multiple of 28"},
		{"short", short, "is not a positive multiple of 28"},
		{"long", long, "is not a positive multiple of 28"},
		{"share 0", putFloat(0, 0), "record 0"},
		{"share 1", putFloat(0, 1), "record 0"},
		{"share NaN", putFloat(0, math.NaN()), "record 0"},
		{"shares rise", putFloat(0, 1e-3), "record 1"},
		{"k 0", put(1, 0), "record 0"},
		{"target NaN", putFloat(2, math.NaN()), "record 0"},
		{"ef 0", put(3, 0), "record 0"},
		{"recall above 1", putFloat(4, 1.5), "record 0"},
		{"scored infinite", putFloat(5, math.Inf(1)), "record 0"},
		{"through NaN", putFloat(6, math.NaN()), "record 0"},
		{"through negative", putFloat(6, -1), "record 0"},
		{"out of order", swap(2, record+2), "record 1"},
		{"repeated", func(b []byte) []byte { return append(b, b[len(b)-4*record:]...) }, "record"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := whole.Clone()
			at := c.At(section)
			require.GreaterOrEqual(t, at, 0)
			c[at].Data = tt.change(c[at].Data)
			_, err := openBytes(pack(c))
			require.ErrorIs(t, err, sections.ErrCorrupt)
			require.ErrorContains(t, err, "section "+section+": ")
			require.ErrorContains(t, err, tt.text)
		})
	}
}
