package tower_test

import (
	"fmt"
	"math"
	"path/filepath"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// The forms of embeddings in the files of other writers are one another's.
func TestForeignEmbeddings(t *testing.T) {
	read := func(file, column string) ([]tower.Row, []string) {
		o := options(filepath.Join("testdata", "foreign", file+".parquet"))
		o.EmbeddingColumn, o.AttributeColumns = column, []string{"app_id"}
		rows, r, err := readAll(t, o)
		require.NoError(t, err, "%s: %s", file, column)
		require.Equal(t, []string{"app_id"}, r.Schema().Names())
		for _, row := range rows {
			require.Empty(t, row.Problems, "%s: %s", file, column)
		}
		return rows, r.Notes()
	}
	number := func(i, j int) float64 { return (float64((i*7+j*13+5)%101) - 50) / 32 }
	trunc := func(scale, plus float64) func(i, j int) float64 {
		return func(i, j int) float64 { return math.Trunc(number(i, j)*scale) + plus }
	}
	sparse := func(i, j int) float64 {
		if i%2 == 0 && j%2 == 1 {
			return 0
		}
		return number(i, j)
	}
	const kinds, binary = "pyarrow-kinds", ", read as 4 numbers of 4 bytes (float32, little-endian) in 16 bytes"
	for _, test := range []struct {
		file, column string
		want         func(i, j int) float64
		absent       func(i int) bool // besides row 11
		note         string
	}{
		{"pyarrow-none-v1", "embedding", number, nil, ""},
		{"duckdb-lz4_raw-v1", "embedding", number, nil, ""},
		{"polars-lz4", "embedding", number, nil, ""},
		{"polars-lz4", "array", number, func(i int) bool { return i%7 == 3 }, ""},
		{"spark-lz4-v1", "embedding", number, nil, ""},
		{"arrow-go-brotli-v2", "embedding", number, nil, ""},
		{"arrow-rs-lz4-v1", "embedding", number, nil, ""},
		{kinds, "large", number, nil, ""},
		{kinds, "fixed", number, func(i int) bool { return i%7 == 3 }, ""},
		{kinds, "view", number, nil, ""},
		{kinds, "halves", number, nil, ""},
		{kinds, "bytes", trunc(60, 0), nil, ""},
		{kinds, "unsigned", trunc(60, 100), nil, ""},
		{kinds, "longs", trunc(60, 0), nil, ""},
		{kinds, "cents", func(i, j int) float64 { return math.Trunc(number(i, j)*32) / 100 }, nil, ""},
		{kinds, "packed", number, nil, "column packed: binary" + binary},
		{kinds, "packed_fixed", number, nil, "column packed_fixed: fixed_len_byte_array(16)" + binary},
		{kinds, "json", number, nil, "column json: string, read as JSON arrays of numbers"},
		{kinds, "nested.values", number, func(i int) bool { return i == 5 }, ""},
		{kinds, "spark", sparse, nil, ""},
		{kinds, "emb_*", number, nil, "embeddings: one column for each of 4 components, emb_0 to emb_3"},
		{kinds, "emb", number, nil, "embeddings: one column for each of 4 components, emb_0 to emb_3"},
		{"duckdb-kinds", "array_", number, nil, ""},
		{"duckdb-kinds", "packed", number, nil, "column packed: binary" + binary},
		{"duckdb-kinds", "nested.values", number, func(i int) bool { return i == 5 }, ""},
		{"spark-zstd-v2", "features", sparse, nil, ""},
		{"spark-legacy", "features", sparse, nil, ""},
	} {
		t.Run(test.file+" "+test.column, func(t *testing.T) {
			rows, notes := read(test.file, test.column)
			if test.note != "" {
				require.Equal(t, []string{test.note}, notes)
			} else {
				require.Empty(t, notes)
			}
			require.Len(t, rows, 30)
			for i, row := range rows {
				require.Equal(t, fmt.Sprint("app-", i), row.ID)
				if i == 11 || test.absent != nil && test.absent(i) {
					require.Nil(t, row.Vector, "row %d", i)
					continue
				}
				if test.want == nil {
					continue
				}
				require.Len(t, row.Vector, 4, "row %d", i)
				for j, x := range row.Vector {
					require.Equal(t, float32(test.want(i, j)), x, "row %d, component %d", i, j)
				}
			}
		})
	}
	o := options(filepath.Join("testdata", "foreign", kinds+".parquet"))
	o.EmbeddingColumn, o.AttributeColumns = "spark.values", []string{"app_id"}
	mixed, _, err := readAll(t, o)
	require.NoError(t, err)
	for i, row := range mixed {
		switch {
		case i == 11:
			require.Nil(t, row.Vector)
			require.Empty(t, row.Problems)
		case i%2 == 1: // dense
			require.Len(t, row.Vector, 4)
			require.Equal(t, float32(number(i, 3)), row.Vector[3])
		default:
			require.Nil(t, row.Vector)
			require.Equal(t, "column spark: a sparse vector, of which the values alone are no embedding: name the column spark itself, and not spark.values", row.Problems[0].Detail)
		}
	}
	rows, _ := read("pyarrow-late", "embedding")
	require.Nil(t, rows[19].Vector)
	require.NotNil(t, rows[20].Vector)
}

// Embeddings that are not numbers are problems of their rows.
func TestMalformedEmbeddings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	for _, test := range []struct {
		kind kind
		rows [][]cell
		want []string // "" is a vector
	}{
		{text, flat(0, "[1, 2.5e0,-3 ]", "[]", " [ null,NaN,1e99]", "1,2", "[1,,2]", "[0x1p3]", `["a"]`, `{"a":1}`), []string{
			"", "", "", `column embedding: "1,2": want a JSON array of numbers`, `"" is no number`, `"0x1p3" is no number`, `"\"a\"" is no number`, "want a JSON array",
		}},
		{plain(parquet.Types.ByteArray), flat(0, "", "abcd", "abc"), []string{"", "", "column embedding: 3 bytes, want numbers of 4 bytes (float32, little-endian)"}},
	} {
		write(t, path, []column{ids(len(test.rows)), {name: "embedding", kind: test.kind, rows: test.rows}})
		rows, _, err := readAll(t, options(path))
		require.NoError(t, err)
		for i, row := range rows {
			if test.want[i] == "" {
				require.Empty(t, row.Problems)
				require.NotNil(t, row.Vector)
				continue
			}
			require.Nil(t, row.Vector)
			require.Len(t, row.Problems, 1, "row %d", i)
			require.Equal(t, tower.BadEmbedding, row.Problems[0].Kind)
			require.Contains(t, row.Problems[0].Detail, test.want[i])
		}
	}
	rows, _, err := readAll(t, options(path))
	require.NoError(t, err)
	require.Equal(t, []float32{}, rows[0].Vector)
	require.Equal(t, []float32{math.Float32frombits(0x64636261)}, rows[1].Vector)
}

// A sparse vector of Spark may have any size, indices and values.
func TestSparseEmbeddings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	vector := structOf(field{"type", integer(8, true)}, field{"size", optional(integer(32, true))},
		field{"indices", optional(list(integer(32, true)))}, field{"values", optional(list(double))})
	numbers := func(values ...any) (row []cell) {
		for i, v := range values {
			row = append(row, cell{int16(min(i, 1)), 2, v})
		}
		if row == nil {
			row = []cell{{}}
		}
		return row
	}
	i := func(n int) any { return int32(n) }
	write(t, path, []column{ids(6), {name: "embedding", kind: vector, parts: [][][]cell{
		flat(0, i(0), i(0), i(0), i(0), i(1), i(7)),
		flat(1, i(3), i(3), i(1<<30), i(3), nil, nil),
		{numbers(i(2)), numbers(i(3)), numbers(), numbers(i(0), i(1)), numbers(), numbers()},
		{numbers(0.5), numbers(0.5), numbers(), numbers(0.5), numbers(1.0, 2.0), numbers()},
	}}})
	rows, _, err := readAll(t, options(path))
	require.NoError(t, err)
	require.Equal(t, []float32{0, 0, 0.5}, rows[0].Vector)
	require.Equal(t, []float32{1, 2}, rows[4].Vector)
	for at, want := range map[int]string{
		1: "a sparse vector of size 3 with an index 3", 2: "a sparse vector of size 1073741824, want at most 65536",
		3: "a sparse vector of 2 indices and 1 values", 5: "a vector of type 7, want 0 (sparse) or 1 (dense)",
	} {
		require.Nil(t, rows[at].Vector)
		require.Len(t, rows[at].Problems, 1)
		require.Contains(t, rows[at].Problems[0].Detail, "column embedding: "+want)
	}
}

// Components may begin with 1, have zeros ahead, and be more than ten; what is no
// component of one vector is refused.
func TestSpreadEmbeddings(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	columns := func(kind kind, names ...string) []column {
		all := []column{ids(1)}
		for i, name := range names {
			all = append(all, column{name: name, kind: kind, rows: flat(0, float32(i))})
		}
		return all
	}
	o := options(path)
	o.EmbeddingColumn = "e*x"
	write(t, path, columns(float, "e10x", "e9x", "e08x", "e7x", "e6x", "e5x", "e4x", "e3x", "e2x", "e1x", "ex", "eax"))
	rows, r, err := readAll(t, o)
	require.NoError(t, err)
	require.Equal(t, []float32{9, 8, 7, 6, 5, 4, 3, 2, 1, 0}, rows[0].Vector)
	require.Equal(t, []string{"eax", "ex"}, r.Schema().Names(), "what is no component is an attribute")
	for want, c := range map[string][]column{
		"columns e*x are 2, without number 1: want one for each component":   columns(float, "e0x", "e2x"),
		"columns e1x and e01x are the same component":                        columns(float, "e1x", "e01x"),
		"its number is above 65536":                                          columns(float, "e99999x"),
		"no column is called e*x (where * stands for a number); the columns": columns(float, "f1x"),
	} {
		write(t, path, c)
		_, err := tower.Open(t.Context(), o)
		require.ErrorContains(t, err, want)
	}
	c := columns(float, "e0x")
	c[1].kind, c[1].rows = text, flat(0, "a")
	write(t, path, c)
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "column e0x is string, want a number")
}

func TestChosenColumns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	info := column{name: "info", kind: structOf(field{"id", text}, field{"genre", text}), parts: [][][]cell{flat(0, "i0"), flat(0, "rpg")}}
	write(t, path, []column{info, vectors(1), {name: "release-year", kind: integer(32, true), rows: flat(0, int32(5))}, {name: "in", kind: text, rows: flat(0, "x")}})
	o := tower.Options{Paths: []string{path}, IDColumn: "info.id"}
	_, err := tower.Open(t.Context(), o)
	require.ErrorContains(t, err, `attribute name "release-year"`)
	require.ErrorContains(t, err, `attribute name "in": reserved`, "all in one message")

	o.RenameColumns = map[string]string{"release-year": "year", "in": "inside"}
	rows, r, err := readAll(t, o)
	require.NoError(t, err)
	require.Equal(t, "i0", rows[0].ID)
	require.Equal(t, []string{"inside", "year"}, r.Schema().Names())
	require.Equal(t, []string{"column info: a struct of which only a part is read, the rest is left out"}, r.Notes())

	o.AttributeColumns = []string{"info.genre", "release-year"}
	o.RenameColumns = map[string]string{"info.genre": "genre", "release-year": "year"}
	rows, r, err = readAll(t, o)
	require.NoError(t, err)
	require.Equal(t, []string{"genre", "year"}, r.Schema().Names())
	require.True(t, attribute.OfKeyword("rpg").Equal(rows[0].Attributes[0]))
	require.Empty(t, r.Notes())
	for _, n := range []map[string]string{{"release-year": "genre", "info.genre": "genre"}} {
		o.RenameColumns = n
		_, err = tower.Open(t.Context(), o)
		require.ErrorContains(t, err, "attribute genre: named twice")
	}
}

func TestDecimalsAndUUIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	big := func(tail string) string { return "\x00\x00\x00\x00\x00\x00\x00" + tail } // 16 bytes
	types := parquet.Types
	for _, test := range []struct {
		kind kind
		rows [][]cell
		want []attribute.Value
		ids  []string // nil if they cannot be ids
	}{
		{decimal(9, 2, types.Int32, -1), flat(0, int32(999), int32(-1), int32(0)), floats(9.99, -0.01, 0), nil},
		{decimal(18, 3, types.Int64, -1), flat(0, int64(math.MaxInt64), int64(123)), floats(9223372036854775.807, 0.123), nil},
		{decimal(18, 0, types.Int64, -1), flat(0, int64(-5), int64(1<<60+1)), ints(-5, 1<<60+1), []string{"-5", "1152921504606846977"}},
		{decimal(38, 0, types.FixedLenByteArray, 16),
			flat(0, big("\x00\x7f\xff\xff\xff\xff\xff\xff\xff"), "\xff\xff\xff\xff\xff\xff\xff\xff\x80\x00\x00\x00\x00\x00\x00\x00", big("\x00\x80\x00\x00\x00\x00\x00\x00\x00"), big("\x02\x00\x00\x00\x00\x00\x00\x00\x01")),
			[]attribute.Value{attribute.OfInt(math.MaxInt64), attribute.OfInt(math.MinInt64), {}, {}},
			[]string{"9223372036854775807", "-9223372036854775808", "9223372036854775808", "36893488147419103233"}},
		{decimal(38, 20, types.FixedLenByteArray, 16), flat(0, big("\x00\x00\x00\x00\x00\x00\x00\x00\x01"), "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), floats(1e-20, -1e-20), nil},
		{decimal(20, 1, types.ByteArray, -1), flat(0, "\x0f", "\xff\x38", "", "\x01\x00\x00\x00\x00\x00\x00\x00\x01"), floats(1.5, -20, 0, 1844674407370955161.7), nil},
		{uuid, flat(0, "\x63\x9e\x28\xcb\xb2\xac\x4d\x74\x99\xe2\x18\x01\x09\x38\x03\xaa"), []attribute.Value{attribute.OfKeyword("639e28cb-b2ac-4d74-99e2-1801093803aa")}, []string{"639e28cb-b2ac-4d74-99e2-1801093803aa"}},
		{plain(types.ByteArray), flat(0, "é"), []attribute.Value{attribute.OfKeyword("é")}, []string{"é"}},
		{leaf(schema.DateLogicalType{}, types.Int32, -1), nil, nil, nil},
	} {
		n := len(test.rows)
		write(t, path, []column{ids(n), vectors(n), {name: "x", kind: test.kind, rows: test.rows}})
		rows, r, err := readAll(t, options(path))
		require.NoError(t, err)
		for i, row := range rows {
			require.True(t, test.want[i].Equal(row.Attributes[0]), "%v: %v, want %v", r.Schema().Field(0), row.Attributes[0], test.want[i])
			require.Equal(t, test.want[i].Absent(), len(row.Problems) == 1)
		}
		o := options(path)
		o.IDColumn, o.IgnoreColumns = "x", []string{"app_id"}
		rows, _, err = readAll(t, o)
		if test.ids == nil {
			require.ErrorContains(t, err, "want strings, binary in UTF-8, UUIDs, integers or decimals")
			continue
		}
		require.NoError(t, err)
		for i, row := range rows {
			require.Equal(t, test.ids[i], row.ID)
		}
	}
}

// Bytes of a fixed length without a logical type may be anything: the bytes of a UUID or of
// a large integer would be text now and then.
func TestFixedBytesAreNoText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "t.parquet")
	columns := []column{ids(1), vectors(1), {name: "x", kind: fixed(3), rows: flat(0, "abc")}, {name: "list", kind: list(fixed(2)), rows: [][]cell{{{0, 2, "ab"}}}}}
	write(t, path, columns)
	_, err := tower.Open(t.Context(), options(path))
	require.ErrorContains(t, err, "cannot store column x (fixed_len_byte_array(3)), list (list<fixed_len_byte_array(2)>): supported are strings")
	require.ErrorContains(t, err, "bytes of a fixed length only if their logical type is one of these")
	o := options(path)
	o.IDColumn, o.IgnoreColumns = "x", []string{"app_id", "list"}
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "id column x is fixed_len_byte_array(3), want strings")
	require.NotContains(t, err.Error(), "cannot store", "it is named once")
	o = options(path)
	o.IgnoreColumns = []string{"x", "list"}
	_, _, err = readAll(t, o)
	require.NoError(t, err)
}

func floats(values ...float64) (list []attribute.Value) {
	for _, v := range values {
		list = append(list, attribute.OfFloat(v))
	}
	return list
}

func ints(values ...int64) (list []attribute.Value) {
	for _, v := range values {
		list = append(list, attribute.OfInt(v))
	}
	return list
}
