package tower_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower"
)

// runFile writes a tower whose rows name training runs in a column, "" for null; and whose
// metadata names one, unless it is "-".
func runFile(t *testing.T, path, metadata string, rows ...string) {
	t.Helper()
	n := max(len(rows), 2)
	columns := []column{ids(n), vectors(n)}
	if len(rows) > 0 {
		n = len(rows)
		columns = []column{ids(n), vectors(n), {name: tower.RunKey, kind: optional(text)}}
		for _, run := range rows {
			var value any
			if run != "" {
				value = run
			}
			columns[2].rows = append(columns[2].rows, flat(1, value)...)
		}
	}
	values := map[string]string{tower.RunKey: metadata}
	if metadata == "-" {
		values = nil
	}
	writeMetadata(t, path, values, columns, 0)
}

// readRun reads a tower and returns the run that it names.
func readRun(t *testing.T, o tower.Options) (string, error) {
	t.Helper()
	r, err := tower.Open(t.Context(), o)
	if err != nil {
		return "", err
	}
	defer r.Close()
	if _, is := r.Schema().Lookup(tower.RunKey); is {
		return "", os.ErrExist
	}
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return r.Run(), nil
		} else if err != nil {
			return "", err
		}
	}
}

func TestRun(t *testing.T) {
	long := strings.Repeat("x", 257)
	for name, c := range map[string]struct {
		write func(t *testing.T, dir string)
		run   string
		err   []string
	}{
		"none":     {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-") }},
		"metadata": {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "r 7") }, run: "r 7"},
		"column":   {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-", "r7", "r7") }, run: "r7"},
		"both":     {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "r7", "r7") }, run: "r7"},
		"files": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "r7")
			runFile(t, dir+"/2.parquet", "r7")
		}, run: "r7"},
		"files of a column": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "-", "r7")
			runFile(t, dir+"/2.parquet", "-", "r7", "r7")
		}, run: "r7"},
		"two rows": {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-", "r7", "r8") },
			err: []string{"row 1 of the input", `column tandem_run: it is "r8", and "r7" in rows before: all rows of a tower must be of one training run`}},
		"a null":        {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-", "r7", "") }, err: []string{"row 1", "it is null or empty"}},
		"a null first":  {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-", "", "r7") }, err: []string{"row 0", "it is null or empty"}},
		"both, unequal": {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "r7", "r8") }, err: []string{`it is "r8", and "r7" in the metadata of`}},
		"two files": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "r7")
			runFile(t, dir+"/2.parquet", "r8")
		}, err: []string{"2.parquet", `metadata tandem_run is "r8", and "r7" in`, "1.parquet: all files of a tower must be of one training run"}},
		"two files, columns": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "-", "r7")
			runFile(t, dir+"/2.parquet", "-", "r8")
		}, err: []string{"2.parquet", `it is "r8", and "r7" in rows before`}},
		"only the first": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "r7")
			runFile(t, dir+"/2.parquet", "-")
		}, err: []string{"2.parquet", "there is no metadata tandem_run, and in"}},
		"only the second": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "-")
			runFile(t, dir+"/2.parquet", "r7")
		}, err: []string{"2.parquet", `metadata tandem_run is "r7", and`, "has none"}},
		"one column": {write: func(t *testing.T, dir string) {
			runFile(t, dir+"/1.parquet", "-", "r7")
			runFile(t, dir+"/2.parquet", "-")
		}, err: []string{"2.parquet", "has a column tandem_run, and the other has none"}},
		"empty":  {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "") }, err: []string{`metadata tandem_run: training run "": want 1 to 256 bytes of UTF-8`}},
		"long":   {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-", long) }, err: []string{"want 1 to 256 bytes of UTF-8"}},
		"binary": {write: func(t *testing.T, dir string) { runFile(t, dir+"/1.parquet", "-", "\xff") }, err: []string{`training run "\xff": want 1 to 256 bytes of UTF-8`}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c.write(t, dir)
			run, err := readRun(t, tower.Options{Paths: []string{dir}, IDColumn: "app_id"})
			if len(c.err) == 0 {
				require.NoError(t, err)
				require.Equal(t, c.run, run)
			}
			for _, text := range c.err {
				require.ErrorContains(t, err, text)
				require.Less(t, len(err.Error()), 1000)
			}
		})
	}
	// A column to be ignored names no run.
	path := filepath.Join(t.TempDir(), "apps.parquet")
	runFile(t, path, "-", "r7", "r8")
	run, err := readRun(t, tower.Options{Paths: []string{path}, IDColumn: "app_id", IgnoreColumns: []string{tower.RunKey}})
	require.NoError(t, err)
	require.Empty(t, run)
}

// A column of another type than a name's is refused before any row is read.
func TestRunType(t *testing.T) {
	path := filepath.Join(t.TempDir(), "apps.parquet")
	write(t, path, []column{ids(1), vectors(1), {name: tower.RunKey, kind: double, rows: flat(0, 1.5)}})
	_, err := tower.Open(t.Context(), tower.Options{Paths: []string{path}, IDColumn: "app_id"})
	require.ErrorContains(t, err, "column tandem_run is ")
	require.ErrorContains(t, err, "want strings")
}
