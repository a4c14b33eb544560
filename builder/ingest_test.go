package builder_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// refusal builds into a new store, and returns why that fails.
func refusal(t *testing.T, o builder.Options) error {
	t.Helper()
	store, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	_, err = builder.Build(t.Context(), store, o)
	require.Error(t, err)
	return err
}

// A dimension that is half or twice what it should be is of bytes that are not float32.
func TestTheDimensionOfBytesSaysHowTheyAreRead(t *testing.T) {
	o := options(t, index.Dot, rows("app", 10, 8, 1), rows("user", 10, 8, 1))
	o.Apps.Input = tower.Options{
		Paths: []string{filepath.Join("tower", "testdata", "foreign", "pyarrow-kinds.parquet")}, IDColumn: "app_id",
		EmbeddingColumn: "packed", AttributeColumns: []string{"app_id"},
	}
	require.ErrorContains(t, refusal(t, o), "apps have embeddings of dimension 4 (16 bytes, read as float32), users of 8:")
}

// A column that one input has may be ignored for all of them.
func TestOnlyColumnsThatNoInputHasAreNoted(t *testing.T) {
	o := options(t, index.Dot, rows("app", 10, 8, 1), rows("user", 10, 8, 1))
	notes := &recorder{}
	o.Progress = notes
	o.Apps.Attributes = tower.AttributeOptions{Paths: []string{lines(t, `{"id":"a","key":{}}`)}, IDKey: "id"}
	for _, list := range []*[]string{&o.Apps.Input.IgnoreColumns, &o.Users.Input.IgnoreColumns, &o.Apps.Attributes.IgnoreKeys} {
		*list = []string{"genre", "key", "typo"}
	}
	build(t, o)
	require.Contains(t, notes.text(), "column typo: to be ignored, but in no input of either tower")
	require.NotContains(t, notes.text(), "genre")
	require.NotContains(t, notes.text(), "key")
}

// lines writes JSON Lines and returns the path.
func lines(t *testing.T, text string) string {
	path := filepath.Join(t.TempDir(), "attributes.jsonl")
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	return path
}

// What is rejected of several files is named by its place in one of them.
func TestRejectedRowsNameTheirFiles(t *testing.T) {
	apps := rows("app", 30, 8, 1)
	bad := []row{{id: "short", vector: []float32{1}, values: apps[0].values}, apps[3]}
	o := options(t, index.Dot, apps, rows("user", 10, 8, 1))
	second, empty := write(t, "more.parquet", "app_id", schema(t), append(apps[20:22:22], bad...)), write(t, "none.parquet", "app_id", schema(t), nil)
	first := write(t, "apps.parquet", "app_id", schema(t), apps[:20])
	o.Apps.Input.Paths = []string{empty, first, copied(t, empty), second}
	one, two := lines(t, `{"id":"x","soon":1}`+"\n"), lines(t, `{"id":"y","soon":2}`+"\n"+`{"id":"z","soon":"later"}`+"\n"+`{"id":"x","soon":1}`+"\n")
	o.Apps.Attributes = tower.AttributeOptions{Paths: []string{one, two}, IDKey: "id"}
	err := refusal(t, o)
	require.ErrorContains(t, err, `row 2 of `+second+` (id "short"): embedding has 1 numbers, want 8`)
	require.ErrorContains(t, err, `row 3 of `+second+` (id "`+apps[3].id+`"): row 3 of `+first+` has this id already`)
	require.ErrorContains(t, err, "line 2 of "+two+`: attribute soon: string "later"`)
	require.ErrorContains(t, err, "line 3 of "+two+` (id "x"): line 1 of `+one+" has attributes of this id already")
}

// copied copies a file, and returns the path.
func copied(t *testing.T, path string) string {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	path = filepath.Join(t.TempDir(), "none-2.parquet")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	return path
}

// A tower of which nothing is left says why.
func TestNoRowIsLeft(t *testing.T) {
	o := options(t, index.Dot, rows("app", 10, 8, 1), rows("user", 10, 8, 1))
	o.MaxRejected = 100
	var bad []row
	for range 3 {
		bad = append(bad, row{vector: make([]float32, 8)})
	}
	o.Apps.Input.Paths[0] = write(t, "apps.parquet", "app_id", attribute.Schema{}, bad)
	require.ErrorContains(t, refusal(t, o), `apps: no row is left to build from: 3 were rejected, the first as empty id: row 0 (id "")`)
}

// Attributes that are joined to nothing, and rows that they leave out, are counted.
func TestAttributesThatAreNotJoined(t *testing.T) {
	apps := rows("app", 20, 8, 1)
	o := options(t, index.Dot, apps, rows("user", 10, 8, 1))
	notes := &recorder{}
	o.Progress = notes
	text := `{"id":"` + apps[4].id + `","key":"a"}` + "\n"
	for _, id := range []string{"x", "y", "z", "u", "v", "w"} {
		text += `{"id":"` + id + `","key":"b"}` + "\n"
	}
	none, path := lines(t, "\n \n"), lines(t, text)
	o.Apps.Attributes = tower.AttributeOptions{Paths: []string{none, path}, IDKey: "id"}
	build(t, o)
	require.Contains(t, notes.text(), "apps: 6 attribute lines are for ids that the tower does not have; they were left out, the first is line 2 of "+path+` (id "x")`)
	require.Contains(t, notes.text(), "apps: 19 of 20 have no attribute line, and so none of those attributes")
	require.Contains(t, notes.text(), "apps: files without a line: 1, the first "+none)

	o.Apps.Attributes.Paths = []string{none}
	require.ErrorContains(t, refusal(t, o), none+": it is empty, want JSON Lines, one object per line")
}
