package builder_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// refusal builds into a new store, and returns why that fails.
func refusal(t *testing.T, o builder.Options) error {
	t.Helper()
	store, err := shard.CreateStore(t.Context(), t.TempDir(), shard.StoreOptions{})
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
