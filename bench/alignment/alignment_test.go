package alignment_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/bench/alignment"
)

var update = flag.Bool("update", false, "write the golden files anew")

// Of the pairs of a few models that belong together none is refused and most pass, and of
// those that do not, none passes and most are refused by the build that follows.
func TestRates(t *testing.T) {
	if testing.Short() {
		t.Skip("trains models")
	}
	const models = 5
	report, err := alignment.Run(t.Context(), alignment.Options{Models: models, Seed: 3, Dims: []int{24, 40}})
	require.NoError(t, err)
	assert.Zero(t, report.RefusedModels)
	all := map[[2]bool]alignment.Count{}
	for _, c := range report.Counts {
		if c.By == "all" {
			all[[2]bool{c.Together, c.Following}] = c
		}
	}
	good, bad, next := all[[2]bool{true, false}], all[[2]bool{false, false}], all[[2]bool{false, true}]
	assert.Equal(t, 9*models, good.Pairs)
	assert.Zero(t, good.Refused+all[[2]bool{true, true}].Refused)
	assert.Greater(t, good.Passed, good.Pairs/2)
	assert.Equal(t, 5*models, bad.Pairs)
	assert.Zero(t, bad.Passed+next.Passed)
	assert.Greater(t, next.Refused, next.Pairs/2)

	data, err := json.Marshal(report)
	require.NoError(t, err)
	var back alignment.Report
	require.NoError(t, json.Unmarshal(data, &back))
	require.Len(t, back.Counts, len(report.Counts))
}

func TestSeedGivesOneReport(t *testing.T) {
	o := alignment.Options{Models: 2, Seed: 3, Dims: []int{8}, Trainings: []string{"als", "bpr"}}
	report, err := alignment.Run(t.Context(), o)
	require.NoError(t, err)
	again, err := alignment.Run(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, report, again)
}

func TestWriteTable(t *testing.T) {
	report := alignment.Report{Models: 1000, Seed: 1, Dims: []int{8, 64}, RefusedModels: 1, Counts: []alignment.Count{
		{Together: true, By: "all", Pairs: 9000, Refused: 1, Passed: 7000},
		{Together: true, By: "dim", Of: "64 to 255 dimensions", Pairs: 4500, Passed: 4400},
		{Together: true, Following: true, By: "all", Pairs: 8000, Passed: 7000},
		{By: "all", Pairs: 5000, Refused: 1000, Passed: 10},
		{Following: true, By: "all", Pairs: 5000, Refused: 5000},
	}}
	var b bytes.Buffer
	require.NoError(t, report.WriteTable(&b))
	path := filepath.Join("testdata", "report.txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, b.Bytes(), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), b.String())
}

// The bound of no event in n is known in closed form, and that of one from tables.
func TestAtMost(t *testing.T) {
	assert.InDelta(t, 0.000817, alignment.AtMost(0, 3665), 1e-6)
	assert.InDelta(t, 0.3942, alignment.AtMost(1, 10), 1e-4)
	assert.Equal(t, 1.0, alignment.AtMost(5, 5))
}

func TestOptions(t *testing.T) {
	for text, o := range map[string]alignment.Options{
		"models is 0, want 1 to 100000":               {Dims: []int{8}},
		"no dimension is given, want any from 2":      {Models: 1},
		"a dimension is 1, want 2 to 1024":            {Models: 1, Dims: []int{1}},
		`training "svm" is unknown: want any of als,`: {Models: 1, Dims: []int{8}, Trainings: []string{"svm"}},
	} {
		_, err := alignment.Run(t.Context(), o)
		assert.ErrorContains(t, err, text)
	}
}
