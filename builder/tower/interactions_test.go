package tower_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/shard/attribute"
)

func readInteractions(o tower.InteractionOptions) (list [][2]string, err error) {
	err = tower.ReadInteractions(context.Background(), o, func(user, app string) error {
		list = append(list, [2]string{user, app})
		return nil
	})
	return list, err
}

func TestInteractions(t *testing.T) {
	dir := t.TempDir()
	want := [][2]string{{"u1", "a1"}, {"u1", "a2"}, {"u2", "a 3"}}

	path := filepath.Join(dir, "i.csv")
	require.NoError(t, os.WriteFile(path, []byte("\ufeffapp_id,when,user_id\r\na1,1,u1\na2,2,u1\n\"a 3\",3,u2\n"), 0o644))
	o := tower.InteractionOptions{Paths: []string{path}, UserColumn: "user_id", AppColumn: "app_id"}
	got, err := readInteractions(o)
	require.NoError(t, err)
	require.Equal(t, want, got)

	schema, err := attribute.NewSchema([]attribute.Field{{Name: "app_id", Type: attribute.Keyword}, {Name: "plays", Type: attribute.Int}})
	require.NoError(t, err)
	o.Paths[0] = filepath.Join(dir, "i.parquet")
	w, err := tower.CreateParquet(o.Paths[0], tower.ParquetOptions{IDColumn: "user_id", Schema: schema, RowGroupRows: 2})
	require.NoError(t, err)
	for i, p := range want {
		require.NoError(t, w.Append(&tower.Row{ID: p[0], Attributes: []attribute.Value{attribute.OfKeyword(p[1]), attribute.OfInt(int64(i))}}))
	}
	require.NoError(t, w.Close())
	got, err = readInteractions(o)
	require.NoError(t, err)
	require.Equal(t, want, got)

	// Integers are ids, too.
	o.AppColumn = "plays"
	got, err = readInteractions(o)
	require.NoError(t, err)
	require.Equal(t, [][2]string{{"u1", "0"}, {"u1", "1"}, {"u2", "2"}}, got)

	enough := errors.New("enough")
	err = tower.ReadInteractions(context.Background(), o, func(string, string) error { return enough })
	require.ErrorIs(t, err, enough)
	require.EqualError(t, err, "read interactions "+o.Paths[0]+": enough")
}

func TestBadInteractions(t *testing.T) {
	for name, tt := range map[string]struct{ file, text, want string }{
		"empty":       {"i.csv", "", "it is empty: the first line must name the columns"},
		"no user":     {"i.csv", "user,app_id\n", "no column is called user_id; the columns are user, app_id"},
		"no app":      {"i.csv", "user_id,app\n", "no column is called app_id; the columns are user_id, app"},
		"short":       {"i.csv", "user_id,app_id\nu\n", "wrong number of fields"},
		"quote":       {"i.csv", "user_id,app_id\n\"u,a\n", "quote"},
		"sort":        {"i.bin", "\x00\x01", `it is of no known format, and begins with "\x00\x01"; accepted are Parquet, and CSV`},
		"not Parquet": {"i.parquet", "PAR1 or so, but not quite", "i.parquet"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.file)
			require.NoError(t, os.WriteFile(path, []byte(tt.text), 0o644))
			_, err := readInteractions(tower.InteractionOptions{Paths: []string{path}, UserColumn: "user_id", AppColumn: "app_id"})
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, "read interactions")
			require.ErrorContains(t, err, path)
		})
	}
}
