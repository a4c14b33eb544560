package tower

import (
	"io"
	"math"
	"strconv"
	"strings"
	"testing"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/encoding"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// A levelPage is a page of levels and values.
type levelPage struct {
	parquet.Page
	rep, def []byte
	values   encoding.Values
	max      byte
}

func (p levelPage) Dictionary() parquet.Dictionary { return nil }
func (p levelPage) NumValues() int64               { return int64(len(p.def)) }
func (p levelPage) RepetitionLevels() []byte       { return p.rep }
func (p levelPage) DefinitionLevels() []byte       { return p.def }
func (p levelPage) Data() encoding.Values          { return p.values }
func (p levelPage) NumNulls() (n int64) {
	for _, d := range p.def {
		if d != p.max {
			n++
		}
	}
	return n
}

// levelPages are the pages of a column chunk.
type levelPages []levelPage

func (p *levelPages) SeekToRow(int64) error { return nil }
func (p *levelPages) Close() error          { return nil }
func (p *levelPages) ReadPage() (parquet.Page, error) {
	if len(*p) == 0 {
		return nil, io.EOF
	}
	page := (*p)[0]
	*p = (*p)[1:]
	return page, nil
}

func floatPage(rep, def []byte, values ...float32) levelPage {
	return levelPage{rep: rep, def: def, values: encoding.FloatValues(values), max: 3}
}

func nullableFloats(pages ...levelPage) *column {
	p := levelPages(pages)
	return &column{shape: shape{name: "x", list: true, decoding: single, maxDef: 3, elemDef: 2}, pages: &p}
}

// Old writers cut a page anywhere, so a row may span pages.
func TestRowsSpanPages(t *testing.T) {
	c := nullableFloats(
		floatPage([]byte{0, 1, 0}, []byte{3, 3, 3}, 1, 2, 3),
		floatPage(nil, nil),
		floatPage([]byte{1, 1}, []byte{3, 3}, 4, 5),
		floatPage([]byte{1, 0, 0}, []byte{2, 0, 3}, 6),
		floatPage([]byte{1}, []byte{3}, 7),
		floatPage([]byte{0}, []byte{1}),
	)
	for _, want := range [][]float32{{1, 2}, {3, 4, 5, float32(math.NaN())}, nil, {6, 7}, {}} {
		got, err := c.floats()
		require.NoError(t, err)
		require.Equal(t, want == nil, got == nil)
		require.Len(t, got, len(want))
		for i := range want {
			require.Equal(t, math.Float32bits(want[i]), math.Float32bits(got[i]))
		}
	}
	require.NoError(t, c.finish())
	_, err := c.floats()
	require.ErrorContains(t, err, "has fewer rows than its row group")

	words := func(rep, def []byte, from, to int) levelPage {
		return levelPage{rep: rep, def: def, max: 3, values: encoding.ByteArrayValues([]byte("abcd"), []uint32{0, 1, 2, 3, 4}[from:to+1])}
	}
	c = nullableFloats(
		words([]byte{0}, []byte{3}, 0, 1),
		words([]byte{1, 1, 0}, []byte{2, 3, 3}, 1, 3),
		words([]byte{0}, []byte{3}, 3, 4),
	)
	c.decoding = text
	for _, want := range [][]string{{"a", "b"}, {"c"}, {"d"}} {
		v, _, err := c.keywords()
		require.NoError(t, err)
		require.True(t, attribute.OfKeywords(want).Equal(v), "%v", v)
	}
	require.NoError(t, c.finish())
}

func TestDamagedLevels(t *testing.T) {
	c := nullableFloats(floatPage([]byte{1}, []byte{3}, 1))
	_, err := c.floats()
	require.ErrorContains(t, err, "continues a row that has not begun")
	c = nullableFloats(floatPage([]byte{0}, []byte{9}, 1))
	_, err = c.floats()
	require.ErrorContains(t, err, "definition level 9, at most 3 is valid")
	c = nullableFloats(floatPage([]byte{0, 0}, []byte{3, 3}, 1, 2))
	_, err = c.floats()
	require.NoError(t, err)
	require.ErrorContains(t, c.finish(), "has more rows than its row group")
}

// What halves are written as, in order, is read as them again, and has no digit too many.
func TestWrittenHalf(t *testing.T) {
	for h, want := range map[uint16]float64{
		0x2e66: 0.1, 0xb8cd: -0.6, 0x3c00: 1, 0x7bff: 65500, 0x0001: 6e-8, 0x3555: 0.3333, 0x7000: 8192, 0x7001: 8200,
	} {
		require.Equal(t, want, writtenHalf(h), "%04x", h)
	}
	before := 0.0
	for h := uint16(1); h < 0x7c00; h++ {
		w, exact := writtenHalf(h), float64(fromHalf(h))
		require.Greater(t, w, before)
		require.Equal(t, -w, writtenHalf(h|0x8000))
		require.Less(t, math.Abs(w-exact), math.Abs(w-float64(fromHalf(h-1))))
		if h < 0x7bff {
			require.Less(t, math.Abs(w-exact), math.Abs(w-float64(fromHalf(h+1))))
		}
		require.LessOrEqual(t, len(strings.Trim(strings.Split(strconv.FormatFloat(w, 'e', -1, 64), "e")[0], "."))-1, 5)
		before = w
	}
	require.Zero(t, writtenHalf(0))
	require.True(t, math.IsInf(writtenHalf(0xfc00), -1))
	require.True(t, math.IsNaN(writtenHalf(0x7e01)))
}

func TestHalf(t *testing.T) {
	for h, want := range map[uint16]float32{
		0x0000: 0, 0x3c00: 1, 0xc000: -2, 0x7bff: 65504, 0x0001: 5.9604645e-08, 0x03ff: 6.097555e-05, 0x0400: 6.1035156e-05,
		0x3555: 0.33325195, 0x7c00: float32(math.Inf(1)), 0xfc00: float32(math.Inf(-1)),
	} {
		require.Equal(t, want, fromHalf(h), "%04x", h)
	}
	require.True(t, math.IsNaN(float64(fromHalf(0x7e01))))
	require.True(t, math.Signbit(float64(fromHalf(0x8000))))
}
