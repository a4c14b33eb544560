package tower_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// readAll returns copies of all rows, and the notes.
func readAll(t require.TestingT, o tower.Options) (rows []tower.Row, r tower.Reader, err error) {
	if r, err = tower.Open(context.Background(), o); err != nil {
		return nil, nil, err
	}
	defer func() {
		require.NoError(t, r.Close())
		require.NoError(t, r.Close(), "a second time")
	}()
	for {
		row, err := r.Next()
		if err != nil {
			_, again := r.Next()
			require.Equal(t, err, again, "an error stays")
		}
		if errors.Is(err, io.EOF) {
			return rows, r, nil
		}
		if err != nil {
			return rows, r, err
		}
		rows = append(rows, tower.Row{
			Number: row.Number, File: row.File, ID: row.ID, Vector: slices.Clone(row.Vector),
			Attributes: slices.Clone(row.Attributes), Problems: slices.Clone(row.Problems),
		})
	}
}

func schemaOf(t require.TestingT, fields ...attribute.Field) attribute.Schema {
	s, err := attribute.NewSchema(fields)
	require.NoError(t, err)
	return s
}

func options(path string) tower.Options {
	return tower.Options{Paths: []string{path}, IDColumn: "app_id"}
}

func TestEmbeddingForms(t *testing.T) {
	nan := float32(math.NaN())
	v := func(rep, def int16, x any) cell { return cell{rep, def, x} }
	null := func(rep, def int16) cell { return cell{rep, def, nil} }
	one, two := float32(1), float32(-2.5)
	for _, test := range []struct {
		name string
		kind kind
		rows [][]cell
		want [][]float32
	}{
		{"list", list(float),
			[][]cell{{v(0, 1, one), v(1, 1, two)}, {null(0, 0)}, {v(0, 1, two)}},
			[][]float32{{1, -2.5}, {}, {-2.5}}},
		{"all nullable", optional(list(optional(float))),
			[][]cell{{v(0, 3, one), null(1, 2), v(1, 3, two)}, {null(0, 0)}, {null(0, 1)}, {null(0, 2)}},
			[][]float32{{1, nan, -2.5}, nil, {}, {nan}}},
		{"dictionary", optional(list(float)),
			[][]cell{{v(0, 2, one), v(1, 2, two)}, {null(0, 0)}, {v(0, 2, two), v(1, 2, two)}},
			[][]float32{{1, -2.5}, nil, {-2.5, -2.5}}},
		{"legacy list", legacy("array", float),
			[][]cell{{v(0, 1, one), v(1, 1, two)}, {null(0, 0)}},
			[][]float32{{1, -2.5}, {}}},
		{"optional legacy list", optional(legacy("element", float)),
			[][]cell{{v(0, 2, one), v(1, 2, two)}, {null(0, 0)}, {null(0, 1)}},
			[][]float32{{1, -2.5}, nil, {}}},
		{"repeated", repeated(float),
			[][]cell{{v(0, 1, one), v(1, 1, two)}, {null(0, 0)}},
			[][]float32{{1, -2.5}, {}}},
		{"double", list(double),
			[][]cell{{v(0, 1, 0.1), v(1, 1, 1e300), v(1, 1, -1e300)}, {v(0, 1, math.NaN())}},
			[][]float32{{0.1, float32(math.Inf(1)), float32(math.Inf(-1))}, {nan}}},
	} {
		for _, version := range []parquet.DataPageVersion{parquet.DataPageV1, parquet.DataPageV2} {
			t.Run(fmt.Sprintf("%s v%d", test.name, version+1), func(t *testing.T) {
				path := filepath.Join(t.TempDir(), "t.parquet")
				write(t, path, []column{ids(len(test.rows)), {name: "embedding", kind: test.kind, rows: test.rows}},
					parquet.WithDataPageVersion(version), parquet.WithDictionaryDefault(test.name == "dictionary"))
				rows, r, err := readAll(t, options(path))
				require.NoError(t, err)
				require.Equal(t, int64(len(test.want)), r.Rows())
				require.Len(t, rows, len(test.want))
				for i, want := range test.want {
					require.Equal(t, fmt.Sprint(want), fmt.Sprint(rows[i].Vector), "row %d", i)
					require.Equal(t, want == nil, rows[i].Vector == nil, "row %d", i)
				}
			})
		}
	}
}

func TestIDColumns(t *testing.T) {
	for _, test := range []struct {
		kind kind
		rows [][]cell
		want []string
	}{
		{optional(text), flat(1, "x", nil, "", "y"), []string{"x", "", "", "y"}},
		{text, flat(0, "x", "x", "y"), []string{"x", "x", "y"}},
		{text, flat(0, "x1", "x2", "y"), []string{"x1", "x2", "y"}},
		{integer(64, true), flat(0, int64(-5), int64(math.MaxInt64)), []string{"-5", "9223372036854775807"}},
		{integer(64, false), flat(0, int64(-1)), []string{"18446744073709551615"}},
		{integer(32, false), flat(0, int32(-1)), []string{"4294967295"}},
		{integer(32, true), flat(0, int32(-7)), []string{"-7"}},
	} {
		path := filepath.Join(t.TempDir(), "t.parquet")
		write(t, path, []column{{name: "app_id", kind: test.kind, rows: test.rows}, vectors(len(test.rows))})
		rows, _, err := readAll(t, options(path))
		require.NoError(t, err)
		for i, want := range test.want {
			require.Equal(t, want, rows[i].ID)
			require.Equal(t, int64(i), rows[i].Number)
			require.Equal(t, []float32{float32(i), 1}, rows[i].Vector)
		}
	}
}

// int96 is a timestamp: nanoseconds of the day, in two halves, and the Julian day.
func int96(low, high, day uint32) (v parquet.Int96) {
	binary.LittleEndian.PutUint32(v[:], low)
	binary.LittleEndian.PutUint32(v[4:], high)
	binary.LittleEndian.PutUint32(v[8:], day)
	return v
}

func TestAttributeTypes(t *testing.T) {
	const day = 24 * 3600 * 1e9
	at := func(ns int64) attribute.Value { return attribute.OfTimestamp(time.Unix(0, ns)) }
	year := func(y int) attribute.Value { return attribute.OfTimestamp(time.Date(y, 1, 1, 0, 0, 0, 0, time.UTC)) }
	first, last := year(1), attribute.OfTimestamp(time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC))
	clamped := "attribute x: 1 timestamps are not of the years 1 to 9999 and are stored as the first or the last moment of those"
	var absent attribute.Value
	for _, test := range []struct {
		name string
		kind kind
		rows [][]cell
		want []attribute.Value // absent where a problem is expected, if problems
		bad  []string          // texts of problems, in order
		note string
	}{
		{"string", optional(text), flat(1, "x", nil, ""), []attribute.Value{attribute.OfKeyword("x"), absent, attribute.OfKeyword("")}, nil, ""},
		{"enum", leaf(schema.EnumLogicalType{}, parquet.Types.ByteArray, -1), flat(0, "x"), []attribute.Value{attribute.OfKeyword("x")}, nil, ""},
		{"json", leaf(schema.JSONLogicalType{}, parquet.Types.ByteArray, -1), flat(0, "{}"), []attribute.Value{attribute.OfKeyword("{}")}, nil, ""},
		{"bool", optional(plain(parquet.Types.Boolean)), flat(1, true, nil, false, true), []attribute.Value{attribute.OfBool(true), absent, attribute.OfBool(false), attribute.OfBool(true)}, nil, ""},
		{"int8", integer(8, true), flat(0, int32(-128)), []attribute.Value{attribute.OfInt(-128)}, nil, ""},
		{"int32", optional(plain(parquet.Types.Int32)), flat(1, int32(-1), nil), []attribute.Value{attribute.OfInt(-1), absent}, nil, ""},
		{"int64", integer(64, true), flat(0, int64(math.MinInt64)), []attribute.Value{attribute.OfInt(math.MinInt64)}, nil, ""},
		{"uint32", integer(32, false), flat(0, int32(-1)), []attribute.Value{attribute.OfInt(math.MaxUint32)}, nil, ""},
		{"uint64", integer(64, false), flat(0, int64(7), int64(-1)), []attribute.Value{attribute.OfInt(7), absent}, []string{"attribute x: uint64 18446744073709551615, want the int64 range"}, ""},
		{"float", float, flat(0, float32(0.5), float32(9.99), float32(math.NaN()), float32(math.Inf(1))), []attribute.Value{attribute.OfFloat32(0.5), attribute.OfFloat32(9.99), absent, absent}, []string{"attribute x: +Inf, want a finite number"}, "attribute x: 1 NaN values are absent"},
		{"half", half, flat(0, string([]byte{0x66, 0x2e}), string([]byte{0xcd, 0xb8}), string([]byte{0xff, 0x7b}), "\x01\x00", string([]byte{0, 0})), []attribute.Value{attribute.OfFloat32(0.1), attribute.OfFloat32(-0.6), attribute.OfFloat32(65500), attribute.OfFloat32(6e-8), attribute.OfFloat32(0)}, nil, ""},
		{"double", optional(double), flat(1, 0.1, nil, math.NaN(), math.Inf(-1)), []attribute.Value{attribute.OfFloat(0.1), absent, absent, absent}, []string{"attribute x: -Inf, want a finite number"}, "attribute x: 1 NaN values are absent"},
		{"date", leaf(schema.DateLogicalType{}, parquet.Types.Int32, -1), flat(0, int32(-1), int32(20000), int32(2932896), int32(-719162), int32(math.MaxInt32)), []attribute.Value{at(-day), at(20000 * day), attribute.OfTimestamp(time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)), first, last}, nil, clamped},
		{"millis", timestamp(schema.TimeUnitMillis), flat(0, int64(-1), int64(253402300799000), int64(math.MaxInt64)), []attribute.Value{at(-1e6), attribute.OfTimestamp(time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)), last}, nil, clamped},
		{"micros", timestamp(schema.TimeUnitMicros), flat(0, int64(1e15), int64(32503680000000000), int64(math.MinInt64)), []attribute.Value{at(1e18), year(3000), first}, nil, clamped},
		{"nanos", leaf(schema.NewTimestampLogicalType(false, schema.TimeUnitNanos), parquet.Types.Int64, -1), flat(0, int64(math.MaxInt64)), []attribute.Value{at(math.MaxInt64)}, nil, ""},
		{"int96", plain(parquet.Types.Int96), flat(0, int96(1, 0, 2440588), int96(5, 0, 2440587), int96(0, 0, 2816788), int96(0, 0, 5), int96(0, 1<<31, 5)), []attribute.Value{at(1), at(5 - day), year(3000), first, absent}, []string{"timestamp(int96)"}, clamped},
		{"list", optional(list(optional(text))),
			[][]cell{
				{{0, 3, "b"}, {1, 2, nil}, {1, 3, "a"}, {1, 3, "b"}},
				{{0, 0, nil}}, {{0, 1, nil}}, {{0, 2, nil}},
			},
			[]attribute.Value{attribute.OfKeywords([]string{"a", "b"}), absent, absent, absent}, nil, "attribute x: 2 lists had null elements, which are left out"},
		{"repeated", repeated(text),
			[][]cell{{{0, 1, "b"}}, {{0, 0, nil}}},
			[]attribute.Value{attribute.OfKeywords([]string{"b"}), absent}, nil, ""},
		{"null", null, flat(1, nil, nil), []attribute.Value{absent, absent}, nil, "column x: has nulls only and no type, left out"},
	} {
		t.Run(test.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "t.parquet")
			write(t, path, []column{ids(len(test.rows)), vectors(len(test.rows)), {name: "x", kind: test.kind, rows: test.rows}})
			rows, r, err := readAll(t, options(path))
			require.NoError(t, err)
			require.Len(t, rows, len(test.want))
			if test.name == "null" {
				require.Zero(t, r.Schema().Len())
			} else {
				require.Equal(t, 1, r.Schema().Len())
			}
			var bad []tower.Problem
			for i, row := range rows {
				bad = append(bad, row.Problems...)
				if r.Schema().Len() == 0 {
					continue
				}
				require.True(t, test.want[i].Equal(row.Attributes[0]), "row %d: %v, want %v", i, row.Attributes[0], test.want[i])
				if !row.Attributes[0].Absent() {
					require.Equal(t, r.Schema().Field(0).Type, row.Attributes[0].Type())
				}
			}
			require.Len(t, bad, len(test.bad))
			for i, p := range bad {
				require.Equal(t, tower.OutOfRange, p.Kind)
				require.Contains(t, p.Detail, test.bad[i])
			}
			if test.note == "" {
				require.Empty(t, r.Notes())
			} else {
				require.Equal(t, []string{test.note}, r.Notes())
			}
		})
	}
}

func TestUnusableColumns(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "t.parquet")
	write(t, path, []column{
		ids(1), vectors(1),
		{name: "interval", kind: leaf(schema.IntervalLogicalType{}, parquet.Types.FixedLenByteArray, 12), rows: flat(0, "0123456789ab")},
		{name: "nested", kind: structOf(field{"a", text}), rows: flat(0, "x")},
		{name: "numbers", kind: list(integer(32, true)), rows: [][]cell{{{0, 1, int32(1)}}}},
		{name: "time", kind: leaf(schema.NewTimeLogicalType(true, schema.TimeUnitMillis), parquet.Types.Int32, -1), rows: flat(0, int32(5))},
	})
	o := options(path)
	_, err := tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "cannot store column interval (interval), nested (struct), numbers (list<int32>), time (time of day): supported are")
	require.ErrorAs(t, err, new(*tower.ColumnsError))
	require.ErrorContains(t, err, path)
	o.IgnoreColumns = []string{"interval", "nested", "numbers", "time", "typo"}
	rows, r, err := readAll(t, o)
	require.NoError(t, err)
	require.Len(t, rows, 1)
	require.Zero(t, r.Schema().Len())
	require.Empty(t, r.Notes())
	require.Equal(t, []string{"typo"}, r.Unknown())

	ignored := []string{"interval", "nested", "numbers", "time"}
	for want, o := range map[string]tower.Options{
		"no column is called user_id; the columns are app_id, embedding, interval":                                                 {IDColumn: "user_id", IgnoreColumns: ignored},
		"no column is called vector; the columns are":                                                                              {IDColumn: "app_id", EmbeddingColumn: "vector", IgnoreColumns: append(ignored, "embedding")},
		"no column is called gone, lost, user_id, vector; the columns are":                                                         {IDColumn: "user_id", EmbeddingColumn: "vector", AttributeColumns: []string{"gone"}, RenameColumns: map[string]string{"lost": "found"}},
		"id column embedding is list<float>, want strings, binary in UTF-8, UUIDs, integers or decimals without a fraction; bytes": {IDColumn: "embedding", EmbeddingColumn: "zebra"},
		"embedding column time is time of day, want a list of numbers, bytes of flo":                                               {IDColumn: "app_id", EmbeddingColumn: "time"},
		"is one of these; embedding column nested is struct, want a list":                                                          {IDColumn: "numbers", EmbeddingColumn: "nested"},
		"no id column is named":                           {},
		"an id file (ids.txt) is for formats without ids": {IDColumn: "app_id", IDs: []string{"ids.txt"}},
	} {
		o.Paths = []string{path}
		_, err := tower.Open(t.Context(), o)
		require.ErrorContains(t, err, want)
	}

	twice := func(name string) column { return column{name: name, kind: text, rows: flat(0, "a")} }
	write(t, path, []column{ids(1), vectors(1), twice("x"), twice("x")})
	o = options(path)
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "two columns are called x; skip both")
	require.ErrorAs(t, err, new(*tower.ColumnsError))
	o.IgnoreColumns = []string{"x"}
	_, r, err = readAll(t, o)
	require.NoError(t, err)
	require.Zero(t, r.Schema().Len())
	write(t, path, []column{twice("app_id"), vectors(1), twice("app_id")})
	o.IgnoreColumns = []string{"app_id"}
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "two columns are called app_id")

	write(t, path, []column{ids(1), vectors(1), {name: "release-year", kind: integer(32, true), rows: flat(0, int32(5))}})
	_, err = tower.Open(t.Context(), options(path))
	require.ErrorContains(t, err, `attribute name "release-year"`)
	require.ErrorAs(t, err, new(*tower.ColumnsError))
}

func TestFolder(t *testing.T) {
	dir := t.TempDir()
	_, err := tower.Open(t.Context(), options(dir))
	require.ErrorContains(t, err, "no file is there")

	price := func(kind kind, v any, def int16) column { return column{name: "price", kind: kind, rows: flat(def, v)} }
	part := func(name string, columns ...column) {
		write(t, filepath.Join(dir, name), append([]column{ids(1), vectors(1)}, columns...))
	}
	part("part-2.parquet", price(float, float32(9.99), 0))
	part("part-1.parquet", price(double, 1.0, 0))
	part("part-0.parquet", price(null, nil, 1))
	part("part-3.PARQUET", price(null, nil, 1))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "_SUCCESS"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, ".part-9.parquet"), []byte("half"), 0o600))
	rows, r, err := readAll(t, options(dir))
	require.NoError(t, err)
	require.Equal(t, int64(4), r.Rows())
	var got []string
	for i, row := range rows {
		require.Equal(t, int64(i), row.Number)
		got = append(got, row.Attributes[0].String())
	}
	require.Equal(t, []string{"absent", "1", "9.99", "absent"}, got)
	require.Equal(t, attribute.Float, r.Schema().Field(0).Type, "of floats and doubles, doubles")

	part("part-2.parquet", price(text, "x", 0))
	_, err = tower.Open(t.Context(), options(dir))
	require.ErrorContains(t, err, "part-2.parquet: column price is string, and double in "+filepath.Join(dir, "part-1.parquet"))
	part("part-2.parquet")
	_, err = tower.Open(t.Context(), options(dir))
	require.ErrorContains(t, err, "part-2.parquet: column price of "+filepath.Join(dir, "part-1.parquet")+" is missing")
	part("part-2.parquet", price(null, nil, 1), column{name: "new", kind: text, rows: flat(0, "x")})
	_, err = tower.Open(t.Context(), options(dir))
	require.ErrorContains(t, err, "part-2.parquet: column new is not in "+filepath.Join(dir, "part-0.parquet"))
}

// Any tower that the writer takes, the reader gives back.
func TestRoundTrip(t *testing.T) {
	dir := t.TempDir()
	types := []attribute.Type{attribute.Keyword, attribute.KeywordList, attribute.Bool, attribute.Int, attribute.Float, attribute.Float32, attribute.Timestamp}
	rapid.Check(t, func(t *rapid.T) {
		var fields []attribute.Field
		for i, typ := range rapid.SliceOfN(rapid.SampledFrom(types), 0, 6).Draw(t, "types") {
			fields = append(fields, attribute.Field{Name: fmt.Sprint("f", i), Type: typ})
		}
		o := tower.ParquetOptions{
			IDColumn: "id", EmbeddingColumn: "vector", Schema: schemaOf(t, fields...),
		}
		text := rapid.StringN(0, 8, 40)
		value := func(typ attribute.Type) attribute.Value {
			if rapid.IntRange(0, 3).Draw(t, "absent") == 0 {
				return attribute.Value{}
			}
			switch typ {
			case attribute.Keyword:
				return attribute.OfKeyword(text.Draw(t, "keyword"))
			case attribute.KeywordList:
				return attribute.OfKeywords(rapid.SliceOfN(text, 0, 4).Draw(t, "keywords"))
			case attribute.Bool:
				return attribute.OfBool(rapid.Bool().Draw(t, "bool"))
			case attribute.Int:
				return attribute.OfInt(rapid.Int64().Draw(t, "int"))
			case attribute.Float:
				return attribute.OfFloat(rapid.Float64().Draw(t, "float"))
			case attribute.Float32:
				return attribute.OfFloat32(rapid.Float32().Draw(t, "float32"))
			}
			return attribute.OfTimestamp(time.UnixMilli(rapid.Int64Range(-62_135_596_800_000, 253_402_300_799_999).Draw(t, "millis")))
		}
		n := rapid.IntRange(0, 20).Draw(t, "distinct rows")
		repeat := rapid.SampledFrom([]int{1, 1, 1, 40}).Draw(t, "repeat")
		o.RowGroupRows = repeat * rapid.IntRange(1, 20).Draw(t, "row group")
		var want []tower.Row
		for range n {
			row := tower.Row{ID: text.Draw(t, "id"), Attributes: make([]attribute.Value, len(fields))}
			if rapid.IntRange(0, 5).Draw(t, "null") > 0 {
				row.Vector = append([]float32{}, rapid.SliceOfN(rapid.Float32(), 0, 5).Draw(t, "vector")...)
			}
			for k, f := range fields {
				row.Attributes[k] = value(f.Type)
			}
			want = append(want, row)
		}
		want = slices.Repeat(want, repeat)
		path := filepath.Join(dir, "t.parquet")
		w, err := tower.CreateParquet(path, o)
		require.NoError(t, err)
		for i := range want {
			require.NoError(t, w.Append(&want[i]))
			want[i].Number = int64(i)
		}
		require.NoError(t, w.Close())
		rows, r, err := readAll(t, tower.Options{Paths: []string{path}, IDColumn: "id", EmbeddingColumn: "vector"})
		require.NoError(t, err)
		require.Equal(t, int64(len(want)), r.Rows())
		require.True(t, o.Schema.Equal(r.Schema()))
		require.Len(t, rows, len(want))
		for i := range rows {
			require.Equal(t, fmt.Sprint(want[i]), fmt.Sprint(rows[i]))
			require.Equal(t, want[i].Vector == nil, rows[i].Vector == nil)
			for k, v := range rows[i].Attributes {
				require.True(t, v.Equal(want[i].Attributes[k]))
			}
		}
		require.Empty(t, r.Notes())
	})
}

func TestWriterRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "t.parquet")
	s := schemaOf(t, attribute.Field{Name: "x", Type: attribute.Int})
	_, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: "x", Schema: s})
	require.ErrorContains(t, err, "two columns are called x")
	_, err = tower.CreateParquet(path, tower.ParquetOptions{})
	require.ErrorContains(t, err, `id column ""`)

	w, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: "id", Schema: s})
	require.NoError(t, err)
	require.ErrorContains(t, w.Append(&tower.Row{}), "row has 0 attributes, the schema 1")
	require.ErrorContains(t, w.Append(&tower.Row{Attributes: []attribute.Value{{}}}), "row has 0 attributes", "the error stays")
	require.Error(t, w.Close())
	w, err = tower.CreateParquet(path, tower.ParquetOptions{IDColumn: "id", Schema: s})
	require.NoError(t, err)
	require.ErrorContains(t, w.Append(&tower.Row{Attributes: []attribute.Value{attribute.OfBool(true)}}), "attribute x is of type bool, the schema says int")
	require.NoError(t, w.Abort())
	require.NoError(t, w.Abort())
	require.Error(t, w.Close())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, entries, "nothing is left behind")
}

// Timestamps finer than a millisecond are rounded down, also before 1970.
func TestWriterRoundsTimestamps(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	w, err := tower.CreateParquet(path, tower.ParquetOptions{
		IDColumn: "app_id", EmbeddingColumn: "embedding", Schema: schemaOf(t, attribute.Field{Name: "x", Type: attribute.Timestamp}),
	})
	require.NoError(t, err)
	for _, ns := range []int64{1_999_999, -1} {
		require.NoError(t, w.Append(&tower.Row{Attributes: []attribute.Value{attribute.OfTimestamp(time.Unix(0, ns))}}))
	}
	require.NoError(t, w.Close())
	rows, _, err := readAll(t, options(path))
	require.NoError(t, err)
	require.Equal(t, int64(1_000_000), rows[0].Attributes[0].Time().UnixNano())
	require.Equal(t, int64(-1_000_000), rows[1].Attributes[0].Time().UnixNano())
}

// The memory of a reader is a few pages, not the file.
func TestMemoryIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	w, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: "app_id", EmbeddingColumn: "embedding", RowGroupRows: 10_000})
	require.NoError(t, err)
	const n, dim = 40_000, 256
	number := func(i, j int) float32 { return float32(uint32(i*dim+j) * 2654435761) }
	row := tower.Row{Vector: make([]float32, dim)}
	for i := range n {
		row.ID = fmt.Sprint(i)
		for j := range row.Vector {
			row.Vector[j] = number(i, j)
		}
		require.NoError(t, w.Append(&row))
	}
	require.NoError(t, w.Close())
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Greater(t, info.Size(), int64(30<<20))

	runtime.GC()
	runtime.GC() // the first only retires what is pooled
	var before, now runtime.MemStats
	runtime.ReadMemStats(&before)
	r, err := tower.Open(t.Context(), options(path))
	require.NoError(t, err)
	defer r.Close()
	peak := uint64(0)
	for i := range n {
		row, err := r.Next()
		require.NoError(t, err)
		if i%6007 == 0 {
			runtime.GC()
			runtime.ReadMemStats(&now)
			peak = max(peak, now.HeapAlloc)
			require.Equal(t, number(i, 3), row.Vector[3])
		}
	}
	_, err = r.Next()
	require.Equal(t, io.EOF, err)
	t.Logf("a file of %d MiB, live heap at most %.1f MiB above the start", info.Size()>>20, float64(int64(peak-before.HeapAlloc))/(1<<20))
	require.Less(t, int64(peak-before.HeapAlloc), int64(16<<20))
}

func smallFile(t testing.TB) []byte {
	path := filepath.Join(t.TempDir(), "t.parquet")
	w, err := tower.CreateParquet(path, tower.ParquetOptions{
		IDColumn: "app_id", EmbeddingColumn: "embedding", RowGroupRows: 3,
		Schema: schemaOf(t, attribute.Field{Name: "x", Type: attribute.Keyword}, attribute.Field{Name: "y", Type: attribute.KeywordList}, attribute.Field{Name: "z", Type: attribute.Bool}),
	})
	require.NoError(t, err)
	for i := range 5 {
		require.NoError(t, w.Append(&tower.Row{ID: fmt.Sprint("a", i), Vector: []float32{1, 2}, Attributes: []attribute.Value{
			attribute.OfKeyword("k"), attribute.OfKeywords([]string{"l", "m"}), attribute.OfBool(i > 2),
		}}))
	}
	require.NoError(t, w.Close())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return data
}

// readBytes reads a damaged file. It must not panic.
func readBytes(t testing.TB, path string, data []byte) error {
	require.NoError(t, os.WriteFile(path, data, 0o600))
	_, _, err := readAll(t, options(path))
	return err
}

func TestTruncatedParquet(t *testing.T) {
	data := smallFile(t)
	path := filepath.Join(t.TempDir(), "t.parquet")
	for n := 0; n < len(data); n += 3 {
		err := readBytes(t, path, data[:n])
		require.ErrorContains(t, err, path, "%d of %d bytes", n, len(data))
	}
}

// A flipped bit gives an error or other rows, never a panic.
func TestFlippedParquet(t *testing.T) {
	data := smallFile(t)
	path := filepath.Join(t.TempDir(), "t.parquet")
	failed := 0
	for i := range data {
		damaged := slices.Clone(data)
		damaged[i] ^= 1 << (i % 8)
		if err := readBytes(t, path, damaged); err != nil {
			failed++
			require.ErrorContains(t, err, path)
		}
	}
	t.Logf("%d of %d flips are errors", failed, len(data))
	require.Greater(t, failed, len(data)/3)
}

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	_, err := tower.Open(t.Context(), options(filepath.Join(dir, "none.parquet")))
	require.ErrorIs(t, err, os.ErrNotExist)
	path := filepath.Join(dir, "t.csv")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	_, err = tower.Open(t.Context(), options(path))
	require.ErrorContains(t, err, `t.csv: not a file of the input: it is empty; accepted are Parquet and .npy, told by their first bytes, and .fbin, .i8bin, .u8bin`)

	path = filepath.Join(dir, "t.parquet")
	write(t, path, []column{ids(1), vectors(1)})
	r, err := tower.Open(t.Context(), options(path))
	require.NoError(t, err)
	require.NoError(t, r.Close())
	_, err = r.Next()
	require.ErrorContains(t, err, "the reader is closed")
	require.False(t, errors.Is(err, io.EOF))
}

func FuzzParquet(f *testing.F) {
	f.Add(smallFile(f))
	f.Add([]byte("PAR1\x00\x00\x00\x00PAR1"))
	f.Add([]byte(strings.Repeat("PAR1", 8)))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<16 {
			return
		}
		_ = readBytes(t, filepath.Join(t.TempDir(), "t.parquet"), data)
	})
}

func BenchmarkParquet(b *testing.B) {
	path := filepath.Join(b.TempDir(), "t.parquet")
	w, err := tower.CreateParquet(path, tower.ParquetOptions{IDColumn: "app_id", EmbeddingColumn: "embedding"})
	require.NoError(b, err)
	const n, dim = 50_000, 128
	row := tower.Row{Vector: make([]float32, dim)}
	for i := range n {
		row.ID, row.Vector[i%dim] = fmt.Sprint(i), float32(i)
		require.NoError(b, w.Append(&row))
	}
	require.NoError(b, w.Close())
	b.SetBytes(n * dim * 4)
	b.ReportAllocs()
	for b.Loop() {
		r, err := tower.Open(b.Context(), options(path))
		require.NoError(b, err)
		for {
			if _, err := r.Next(); errors.Is(err, io.EOF) {
				break
			}
		}
		_ = r.Close()
	}
}
