package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/overlay"
)

// What is measured is printed, and the exit code says whether a target was missed. The store
// stays as it was.
func TestBenchOverlay(t *testing.T) {
	dir := t.TempDir()
	towers, store := filepath.Join(dir, "towers"), filepath.Join(dir, "store")
	var stdout, stderr bytes.Buffer
	command := func(args ...string) int {
		stdout.Reset()
		stderr.Reset()
		return run(t.Context(), args, &stdout, &stderr)
	}
	require.Zero(t, command("generate", "--out", towers, "--apps", "2000", "--users", "200", "--dim", "8", "--interactions-per-user", "0"))
	code := command("build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
		"--store", store, "--model", "test", "--model-version", "1", "--metric", "dot")
	require.Contains(t, []int{0, exitUnfit}, code, stderr.String())
	words := strings.Fields(stdout.String())
	digest := words[len(words)-1]

	args := []string{"bench", "overlay", "--store", store, digest, "--takedowns", "100", "--fresh", "50", "--k", "5", "--recall-target", "0.9", "--queries", "20", "--rounds", "1", "--json"}
	code = command(args...)
	var r overlay.Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), stderr.String())
	require.Len(t, r.Results, 1)
	assert.Equal(t, []int{100, 50, 20}, []int{r.Takedowns, r.Fresh, r.Queries})
	if len(r.Missed) == 0 {
		require.Zero(t, code)
	} else {
		require.Equal(t, 1, code)
		assert.Contains(t, stderr.String(), r.Missed[0])
	}
	_, err := os.Stat(filepath.Join(store, "live"))
	require.ErrorIs(t, err, os.ErrNotExist)

	for want, more := range map[string][]string{
		"--batch is 0, want 1 to 10000":                {"--batch", "0"},
		"--queries is 0, want 1 to 1000000":            {"--queries", "0"},
		"--rounds is 1001, want 1 to 1000":             {"--rounds", "1001"},
		"takedowns is -1, want 0 to 10000000":          {"--takedowns=-1"},
		"recall target is 1, want above 0 and below 1": {"--recall-target", "1"},
	} {
		require.Equal(t, exitUsage, command(append([]string{"bench", "overlay", "--store", store, digest}, more...)...), want)
		assert.Contains(t, stderr.String(), want)
	}
}
