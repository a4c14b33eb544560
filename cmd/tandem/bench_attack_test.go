package main

import (
	"bytes"
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/attack"
)

// A run of some seconds starts server and attackers, measures both, and leaves neither.
// What bounds it breaks on a machine that is busy is not looked at.
func TestBenchAttack(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.NumCPU() < 2 {
		t.Skip("attacks are measured on Linux, with two processors")
	}
	dir := t.TempDir()
	towers, store := filepath.Join(dir, "towers"), filepath.Join(dir, "store")
	var built strings.Builder
	for _, args := range [][]string{
		{"generate", "--out", towers, "--apps", "500", "--users", "80", "--dim", "8"},
		{
			"build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
			"--model", "feed", "--model-version", "1", "--metric", "dot", "--store", store,
		},
	} {
		built.Reset()
		require.Zero(t, run(t.Context(), args, &built, io.Discard))
	}
	lines := strings.Split(strings.TrimSpace(built.String()), "\n")
	cmd := exec.Command("tandem", "bench", "attack", "--store", store, lines[len(lines)-1], "--time", "2s", "--quiet", "500ms", "--rest", "100ms",
		"--connections", "6", "--kinds", "garbage,churn,h2-frames", "--seed", "9", "--json")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var report attack.Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &report), "%v: %s", err, stderr.String())
	if len(report.Broken) == 0 {
		require.NoError(t, err)
	} else {
		require.ErrorContains(t, err, "exit status 1")
		assert.Contains(t, stderr.String(), report.Broken[0])
	}
	assert.Empty(t, report.Ended)
	for _, light := range []*attack.Light{report.Before, report.During, report.After} {
		assert.Positive(t, light.Queries)
	}
	assert.EqualValues(t, 9, report.Sent.Seed)
	var names []string
	for _, k := range report.Sent.Kinds {
		names = append(names, k.Name)
		assert.Positive(t, k.Turns)
	}
	assert.Subset(t, []string{"churn", "garbage", "h2-frames"}, names)
	assert.NotEmpty(t, names)
	assert.Positive(t, report.MemoryBefore)
	assert.GreaterOrEqual(t, report.MemoryPeak, report.MemoryAfter)
	assert.Positive(t, report.Log.Lines)
}
