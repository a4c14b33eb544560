package attribute

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/index/sections/sectionstest"
)

// unpack returns the sections of a file.
func unpack(t testing.TB, f *sections.File) sectionstest.Content {
	parts, err := sectionstest.Unpack(f)
	require.NoError(t, err)
	return parts
}

var allTypes = mustSchema(
	Field{"flag", Bool}, Field{"genre", Keyword}, Field{"price", Float},
	Field{"released", Timestamp}, Field{"score", Float32}, Field{"tags", KeywordList}, Field{"year", Int},
)

func mustSchema(fields ...Field) Schema {
	s, err := NewSchema(fields)
	if err != nil {
		panic(err)
	}
	return s
}

// row is a row's values by attribute.
type row []Value

// store writes rows in the given order to a file and opens it.
func store(t testing.TB, dir string, schema Schema, rows []row, order []uint32) (*Table, *sections.File) {
	w := NewWriter(schema, len(rows))
	for i, r := range rows {
		for field, v := range r {
			require.NoError(t, w.Set(i, field, v))
		}
	}
	path := filepath.Join(dir, "shard")
	out, err := sections.Create(path)
	require.NoError(t, err)
	require.NoError(t, w.Write(out, order))
	require.NoError(t, out.Commit())
	f, err := sections.Open(path)
	require.NoError(t, err)
	table, err := OpenTable(f, len(rows))
	require.NoError(t, err)
	require.NoError(t, f.CheckClaimed())
	return table, f
}

func identity(n int) []uint32 {
	order := make([]uint32, n)
	for i := range order {
		order[i] = uint32(i)
	}
	return order
}

var words8 = []string{"", "a", "ab", "abc", "b", "ü", "日本", "z"}

// drawValue draws a value of a type, absent at times.
func drawValue(t *rapid.T, typ Type) Value {
	if rapid.IntRange(0, 4).Draw(t, "absent") == 0 {
		return Value{}
	}
	word := rapid.OneOf(rapid.SampledFrom(words8), rapid.StringN(0, 4, 8))
	switch typ {
	case Keyword:
		return OfKeyword(word.Draw(t, "keyword"))
	case KeywordList:
		return OfKeywords(rapid.SliceOfN(word, 0, 5).Draw(t, "list"))
	case Bool:
		return OfBool(rapid.Bool().Draw(t, "bool"))
	case Int:
		return OfInt(drawInt(t))
	case Float:
		return OfFloat(drawFloat(t))
	case Float32:
		return OfFloat32(drawFloat32(t))
	case Timestamp:
		return OfTimestamp(drawTime(t))
	}
	panic(fmt.Sprint("unknown type ", typ))
}

func drawInt(t *rapid.T) int64 {
	return rapid.OneOf(rapid.Int64Range(-3, 3), rapid.Int64()).Draw(t, "int")
}

func drawFloat(t *rapid.T) float64 {
	return rapid.OneOf(rapid.SampledFrom([]float64{-1, 0, 0.5, 1}), rapid.Float64Range(-1e300, 1e300)).Draw(t, "float")
}

func drawFloat32(t *rapid.T) float32 {
	return rapid.OneOf(rapid.SampledFrom([]float32{-1, 0, 0.1, 9.99, 16_777_217, math.MaxFloat32}), rapid.Float32Range(-1e38, 1e38)).Draw(t, "float32")
}

// drawTime draws a time of the years 1 to 9999: near the ends of what int64 nanoseconds
// since 1970 reach, and of the years, and anywhere.
func drawTime(t *rapid.T) time.Time {
	ends := []time.Time{
		time.Unix(0, 0), time.Unix(0, math.MinInt64), time.Unix(0, math.MaxInt64), ClampTime(time.Unix(-1<<50, 0)), ClampTime(time.Unix(1<<50, 0)),
		time.Unix(0, math.MinInt64+endNumbers), time.Unix(0, math.MaxInt64-endNumbers),
	}
	near := rapid.Custom(func(t *rapid.T) time.Time {
		return rapid.SampledFrom(ends).Draw(t, "end").Add(time.Duration(rapid.Int64Range(-2, 2).Draw(t, "off")))
	})
	some := rapid.Custom(func(t *rapid.T) time.Time {
		return time.Unix(rapid.Int64Range(ends[3].Unix(), ends[4].Unix()).Draw(t, "second"), rapid.Int64Range(0, 999_999_999).Draw(t, "nano"))
	})
	plain := rapid.Map(rapid.Int64(), func(ns int64) time.Time { return time.Unix(0, ns) })
	return ClampTime(rapid.OneOf(near, some, plain).Draw(t, "time"))
}

func drawRows(t *rapid.T, schema Schema, n int) []row {
	rows := make([]row, n)
	for i := range rows {
		for field := range schema.Len() {
			rows[i] = append(rows[i], drawValue(t, schema.Field(field).Type))
		}
	}
	return rows
}
