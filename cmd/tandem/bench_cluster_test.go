package main

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/cluster"
)

// A run of some seconds starts a cluster, ends a node, loses the list of members, and leaves no
// process. Queries for which a busy machine has no time are not looked at; answers are.
func TestBenchCluster(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("clusters are measured on Linux")
	}
	temporary := t.TempDir()
	cmd := exec.Command("tandem", "bench", "cluster", "chaos", "--time", "8s", "--seed", "5", "--faults", "kill,members",
		"--apps", "300", "--users", "30", "--dim", "8", "--shards", "2", "--rate", "30", "--deadline", "5s", "--json")
	cmd.Env = append(os.Environ(), "TMPDIR="+temporary)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var r cluster.Report
	require.NoError(t, json.Unmarshal(stdout.Bytes(), &r), "%v: %s", err, stderr.String())
	assert.EqualValues(t, []int64{0, 0, 0}, []int64{r.Wrong, r.Mixed, r.Late}, "%s", r.Told)
	var answered int64
	for _, p := range r.Phases {
		answered += p.Queries
		for reason := range p.Failed {
			assert.Contains(t, []string{"deadline_exceeded", "DEADLINE_EXCEEDED", "LIVE_STALE"}, reason, "%s: %s", p.Name, r.Told)
		}
	}
	if r.Failed == 0 {
		require.NoError(t, err, "%s", stderr.String())
	} else {
		require.ErrorContains(t, err, "exit status 1")
		assert.Contains(t, stderr.String(), r.Broken()[0])
	}
	assert.Positive(t, answered)
	assert.Positive(t, r.Rows)
	assert.Positive(t, r.Downs)
	assert.Subset(t, []string{"kill", "members", "release"}, slices.Collect(maps.Keys(r.Faults)))
	left, err := os.ReadDir(temporary)
	require.NoError(t, err)
	assert.Empty(t, left)
}

// What is none is told before anything is made.
func TestBenchClusterNames(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"chaos", "--faults", "flood"}, `there is no fault "flood"; accepted: kill, stop,`},
		{[]string{"rows", "--row", "flood"}, `there is no row "flood"; accepted: topk, latency,`},
		{[]string{"chaos", "--replicas", "4"}, "replicas is 4, want 1 to 3, as many as there are nodes"},
		{[]string{"chaos", "--apps", "20"}, "there are 20 apps, want 32 to 10000"},
		{[]string{"chaos", "--time", "0s"}, "--time is 0s, want more than 0"},
	} {
		var stderr bytes.Buffer
		require.Equal(t, exitUsage, run(t.Context(), append([]string{"bench", "cluster"}, c.args...), io.Discard, &stderr), "%s", c.args)
		assert.Contains(t, stderr.String(), c.want)
	}
}
