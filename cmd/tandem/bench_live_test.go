package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/live"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// A run of some seconds makes a store, starts servers of it, measures, and leaves no server.
// Which targets it misses on a machine that is busy is not looked at.
func TestBenchLive(t *testing.T) {
	for name, location := range map[string]func(*testing.T) string{
		"folder": func(t *testing.T) string { return filepath.Join(t.TempDir(), "store") },
		"s3":     objectstest.S3Location,
	} {
		t.Run(name, func(t *testing.T) {
			temporary := t.TempDir()
			cmd := exec.Command("tandem", "bench", "live", "--store", location(t), "--takedowns", "4", "--servers", "3", "--delay", "30ms", "--time", "500ms", "--json")
			cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			err := cmd.Run()
			var r live.Report
			require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), "%v: %s", err, stderr.String())
			if len(r.Missed) == 0 {
				require.NoError(t, err)
			} else {
				require.ErrorContains(t, err, "exit status 1")
				assert.Contains(t, stderr.String(), r.Missed[0])
			}
			assert.Equal(t, []int{4, 4, 2}, []int{r.Own.Count, r.Other.Count, r.Fresh.Count})
			assert.Zero(t, r.Back)
			for _, c := range []*live.Contended{r.Contended, r.Loaded} {
				assert.Len(t, c.PerServer, 3)
				assert.Positive(t, c.Acknowledged.P50)
				assert.Equal(t, name == "s3", c.Delay == 30)
				assert.Empty(t, c.FirstError)
			}
			assert.Positive(t, r.Loaded.Imported)
			require.Len(t, r.Sustained, 3)
			for _, s := range r.Sustained {
				assert.Positive(t, s.Events)
				assert.Empty(t, s.FirstError)
			}
			left, err := os.ReadDir(temporary)
			require.NoError(t, err)
			assert.Empty(t, left)
		})
	}
}

// A store that is there is not measured in.
func TestBenchLiveMakesItsOwnStore(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "something"), nil, 0o644))
	var stderr bytes.Buffer
	require.Equal(t, exitUsage, run(t.Context(), []string{"bench", "live", "--store", dir}, &stderr, &stderr))
	assert.Contains(t, stderr.String(), "is not empty: it has something; accepted: a new folder, or an empty one")
}
