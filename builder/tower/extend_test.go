package tower_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// partitioned writes a row for each folder, with the keyword at in it, and returns how to
// read them.
func partitioned(t *testing.T, at string, folders ...string) tower.Options {
	t.Helper()
	dir := t.TempDir()
	for i, folder := range folders {
		path := filepath.Join(dir, folder, "part-0")
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		w, err := tower.CreateParquet(path, tower.ParquetOptions{
			IDColumn: "app_id", EmbeddingColumn: "embedding", Schema: schemaOf(t, attribute.Field{Name: "at", Type: attribute.Keyword}),
		})
		require.NoError(t, err)
		require.NoError(t, w.Append(&tower.Row{ID: string(rune('a' + i)), Vector: []float32{1}, Attributes: []attribute.Value{attribute.OfKeyword(at)}}))
		require.NoError(t, w.Close())
	}
	return options(dir)
}

// readAttribute returns the type of an attribute and its value in each row.
func readAttribute(t *testing.T, o tower.Options, name string) (typ attribute.Type, values []attribute.Value) {
	t.Helper()
	rows, r, err := readAll(t, o)
	require.NoError(t, err)
	i, ok := r.Schema().Lookup(name)
	require.True(t, ok)
	for n, row := range rows {
		require.Equal(t, n, row.File)
		values = append(values, row.Attributes[i])
	}
	return r.Schema().Field(i).Type, values
}

func TestPartitionAttributes(t *testing.T) {
	o := partitioned(t, "x", "dt=2026-11-20/n=1", "dt=2026-11-21/n=__HIVE_DEFAULT_PARTITION__", "dt=2026-11-22/n=-7")
	rows, r, err := readAll(t, o)
	require.NoError(t, err)
	require.Len(t, rows, 3)
	require.Equal(t, 1, r.Schema().Len(), "only where they are asked for")

	o.PartitionAttributes = []string{"n", "dt"}
	typ, values := readAttribute(t, o, "n")
	require.Equal(t, attribute.Int, typ)
	require.Equal(t, []attribute.Value{attribute.OfInt(1), {}, attribute.OfInt(-7)}, values)
	typ, values = readAttribute(t, o, "dt")
	require.Equal(t, attribute.Timestamp, typ)
	require.Equal(t, "2026-11-21T00:00:00Z", values[1].String())
	_, values = readAttribute(t, o, "at")
	require.Equal(t, attribute.OfKeyword("x"), values[2], "beside those of the files")

	o.AttributeTypes = map[string]attribute.Type{"dt": attribute.Keyword, "n": attribute.Float}
	typ, values = readAttribute(t, o, "dt")
	require.Equal(t, attribute.Keyword, typ)
	require.Equal(t, attribute.OfKeyword("2026-11-20"), values[0])
	typ, values = readAttribute(t, o, "n")
	require.Equal(t, attribute.Float, typ)
	require.Equal(t, attribute.OfFloat(-7), values[2])

	o.AttributeTypes = map[string]attribute.Type{"dt": attribute.Int}
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "partition dt=2026-11-20: want int")

	o.AttributeTypes, o.PartitionAttributes = nil, []string{"country"}
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "part-0: its path has no country=VALUE, a partition key that was asked for")
	o.PartitionAttributes = []string{"n", "n"}
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "n")

	o.PartitionAttributes, o.RenameColumns = []string{"n", "dt"}, map[string]string{"dt": "day", "at": "dt"}
	o.AttributeTypes = map[string]attribute.Type{"day": attribute.Keyword}
	_, values = readAttribute(t, o, "day")
	require.Equal(t, attribute.OfKeyword("2026-11-20"), values[0], "a key has the name that it is given")
	_, values = readAttribute(t, o, "dt")
	require.Equal(t, attribute.OfKeyword("x"), values[0])
	o.RenameColumns = map[string]string{"at": "dt"}
	_, err = tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "attribute dt: named twice; a key of partitions can be renamed as a column can")
	o.RenameColumns, o.AttributeTypes = nil, nil

	// What would lose something as a number stays a keyword.
	for _, value := range []string{"01", "1.0", "+1", "1e3", "US", ""} {
		o := partitioned(t, "x", "n="+value)
		o.PartitionAttributes = []string{"n"}
		typ, values := readAttribute(t, o, "n")
		require.Equal(t, attribute.Keyword, typ, value)
		require.Equal(t, attribute.OfKeyword(value), values[0])
	}
	o = partitioned(t, "x", "app_id=1")
	o.PartitionAttributes = []string{"at=1"}
	_, err = tower.Open(t.Context(), o)
	require.Error(t, err)
}

// A keyword of a column is what it is told to be.
func TestToldTypesOfColumns(t *testing.T) {
	for _, test := range []struct {
		text    string
		typ     attribute.Type
		want    string
		problem tower.ProblemKind
	}{
		{"2026-11-22 10:00:00", attribute.Timestamp, "2026-11-22T10:00:00Z", ""},
		{"n/a", attribute.Timestamp, "absent", tower.TypeChange},
		{"9007199254740993", attribute.Int, "9007199254740993", ""},
		{"9223372036854775808", attribute.Int, "absent", tower.OutOfRange},
		{"9007199254740993", attribute.Float, "absent", tower.OutOfRange},
		{"-9007199254740994", attribute.Float, "-9.007199254740994e+15", ""},
		{"9007199254740993.5", attribute.Float, "9.007199254740994e+15", ""},
		{"16777217", attribute.Float32, "absent", tower.OutOfRange},
		{"inf", attribute.Float, "absent", tower.OutOfRange},
		{"nan", attribute.Float, "absent", ""},
		{"0.5", attribute.Float32, "0.5", ""},
		{"true", attribute.Bool, "true", ""},
	} {
		o := partitioned(t, test.text, "p")
		o.AttributeTypes = map[string]attribute.Type{"at": test.typ, "nowhere": attribute.Int}
		rows, r, err := readAll(t, o)
		require.NoError(t, err)
		require.Equal(t, test.typ, r.Schema().Field(0).Type)
		require.Equal(t, test.want, rows[0].Attributes[0].String(), test.text)
		if test.problem == "" {
			require.Empty(t, rows[0].Problems)
		} else {
			require.Len(t, rows[0].Problems, 1)
			require.Equal(t, test.problem, rows[0].Problems[0].Kind)
			require.Contains(t, rows[0].Problems[0].Detail, `attribute at: "`+test.text+`", `)
		}
	}
	o := partitioned(t, "x", "p")
	o.AttributeTypes = map[string]attribute.Type{"at": attribute.KeywordList}
	_, err := tower.Open(t.Context(), o)
	require.ErrorContains(t, err, "attribute at is of type keyword, and cannot be read as keyword_list")
}

// Strings of Parquet are keywords, even if they are times; a note says what can be done.
func TestTimesInColumnsOfStrings(t *testing.T) {
	for at, want := range map[string][]string{
		"2026-11-22 10:00:00": {"attribute at: 2 of 2 strings are dates or times, and are keywords; the type timestamp would make them timestamps"},
		"2026-11-22":          {"attribute at: 2 of 2 strings are dates or times, and are keywords; the type timestamp would make them timestamps"},
		"2026-11-2":           {},
	} {
		o := partitioned(t, at, "p", "q")
		rows, r, err := readAll(t, o)
		require.NoError(t, err)
		require.Equal(t, attribute.OfKeyword(at), rows[1].Attributes[0])
		require.Equal(t, want, append([]string{}, r.Notes()...))
		o.AttributeTypes = map[string]attribute.Type{"at": attribute.Keyword}
		_, r, err = readAll(t, o)
		require.NoError(t, err)
		require.Empty(t, r.Notes(), "what is told needs no advice")
	}
}
