package tower_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
)

// A file is what its first bytes say.
func TestFormatsByFirstBytes(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, data []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, data, 0o600))
		return path
	}
	parquet, array := smallFile(t), npy(1, dict("<f4", "False", "1, 1"), numbers(float32(1)))
	for _, path := range []string{file("apps.csv", parquet), file("apps", parquet), file("apps.npy", parquet)} {
		rows, _, err := readAll(t, options(path))
		require.NoError(t, err, path)
		require.NotEmpty(t, rows)
	}
	for _, path := range []string{file("v.bin", array), file("v.parquet", array), file("v.fbin", array)} {
		rows, _, err := readAll(t, tower.Options{Paths: []string{path}, NumberRows: true})
		require.NoError(t, err, path)
		require.Equal(t, []float32{1}, rows[0].Vector)
	}
	for name, test := range map[string]struct {
		data []byte
		want string
	}{
		"x.parquet": {[]byte("words"), `x.parquet: it is text, and begins with "words"; accepted are Parquet`},
		"y.parquet": {nil, "y.parquet: it is empty; accepted are Parquet"},
		"x.orc":     {[]byte("ORC\x00"), "x.orc: it is ORC; accepted are Parquet"},
		"x.avro":    {[]byte("Obj\x01"), "x.avro: it is Avro; accepted are Parquet"},
		"x.feather": {[]byte("ARROW1\x00\x00"), "it is an Arrow or Feather file"},
		"x.npz":     {[]byte("PK\x03\x04"), "it is a zip archive (such as .npz and .pt)"},
		"x.npy.gz":  {[]byte("\x1f\x8b\x08"), "x.npy.gz: it is compressed by gzip; accepted are Parquet"},
	} {
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(folder, "part-0"), parquet, 0o600))
		require.NoError(t, os.WriteFile(filepath.Join(folder, name), test.data, 0o600))
		for _, path := range []string{folder, filepath.Join(folder, name)} { // not left out of a folder either
			_, err := tower.Open(t.Context(), options(path))
			require.ErrorContains(t, err, test.want, path)
		}
	}
	for _, paths := range [][]string{{dir + "/apps", dir + "/v.bin"}, {dir + "/v.bin", dir + "/apps"}} {
		_, err := tower.Open(t.Context(), tower.Options{Paths: paths, IDColumn: "app_id", NumberRows: true})
		require.ErrorContains(t, err, "open "+dir+"/apps: it is Parquet, and "+dir+"/v.bin is not")
	}
}
