package gates

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
)

var update = flag.Bool("update", false, "write the golden files")

// golden compares a text with a file of testdata.
func golden(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

// The decisive thing comes first: what failed, what is likely behind it, and then the
// rest.
func TestReportsOfGates(t *testing.T) {
	check := func(gate, subject string, passed bool, text string) manifest.GateCheck {
		return manifest.GateCheck{Gate: gate, Subject: subject, Value: 0.2258, Bound: manifest.BoundMax, Limit: 0.02, Passed: passed, Text: text}
	}
	report := &manifest.GateReport{
		Previous: "45a1f734db45", Off: []string{Norms},
		Checks: []manifest.GateCheck{
			check(Structure, "faults of apps", true, "apps: 20,000 rows in 2 shards"),
			check(Recall, "recall@10", true, "recall@10 is 0.99"),
			check(Rows, "fewer apps", true, "apps: as many"),
			check(Overlap, "overlap@10", false, "overlap@10: 250 users have 11% of their candidates in common with the previous snapshot, at least 20% are required"),
			check(Overlap, "overlap@100", true, "overlap@100: 250 users have 31%"),
			check(Placement, "moved apps", false, "4,517 of 20,000 apps (22.6%) are not where they were among the users in the previous snapshot, as if vectors had been exchanged; at most 2% are accepted; "+
				"the scores of most agree by 0.99 with what they were, those of another by 0.01; e.g. "+strings.Repeat("app-0000001, ", 20)),
			check(Placement, "moved users", true, "0 of 5,000 users"),
		},
		Undecided: []manifest.GateCheck{
			{Gate: Recall, Subject: "apps of segment ios found among all", Undecided: manifest.GateNotRun, Text: "3 of them are"},
			{Gate: Alignment, Undecided: manifest.GateNotRun, Text: "no interactions were given"},
			{Gate: Contract, Subject: segmentsChanged, Bound: manifest.BoundMax, Value: 1, Undecided: manifest.GateInconclusive, Text: "segments have another filter: ios"},
		},
	}
	r := &Recorded{Snapshot: "34eb962b68be", Report: report, Undecided: []manifest.GateCheck{{Gate: Filters, Undecided: manifest.GateNotRun, Text: "no recorded queries"}}, LatencyOff: true}
	err := r.Err()
	require.ErrorIs(t, err, ErrFailed)
	var failed *FailedError
	require.True(t, errors.As(err, &failed))
	var b strings.Builder
	b.WriteString(err.Error() + "\n\n" + Summary(r.Rows()) + "\n\n")
	require.NoError(t, WriteRows(&b, r.Rows()))
	b.WriteString("\n")
	require.NoError(t, r.WriteTable(&b))
	golden(t, "report.txt", b.String())

	lines := strings.Split(err.Error(), "\n")
	require.Contains(t, lines[0], "placement failed: 4,517 of 20,000 apps")
	require.Contains(t, lines[1], "likely causes: vectors were joined to the wrong ids")
	for _, line := range lines {
		require.Less(t, len(line), 400)
	}
	for _, name := range Names() {
		require.NotEmpty(t, causes[name], name)
		require.Contains(t, decisive, name)
	}
}

// What is behind a failure depends on what of the gate failed.
func TestCauses(t *testing.T) {
	for subject, want := range map[string]string{
		metricChanged:   "another metric",
		segmentsMissing: "a file of the input was left out",
		HeldOutUsers:    "the export of users was cut short",
		"recall@10":     "the graphs are too sparse",
	} {
		of := Contract
		if subject == HeldOutUsers || subject == "recall@10" {
			of = Recall
		}
		r := &Recorded{Report: &manifest.GateReport{Checks: []manifest.GateCheck{{Gate: of, Subject: subject, Text: "it is bad"}}}}
		require.ErrorContains(t, r.Err(), want, subject)
	}
}

func TestShortened(t *testing.T) {
	for text, want := range map[string]string{
		"":                      "",
		"all of it":             "all of it",
		"one; two":              "one; two",
		"one; two; three":       "one; two ...",
		"more than eight; rest": "more than eight ...",
		"more than eight":       "more than eight",
		"a; b; c; d":            "a; b; c ...",
	} {
		require.Equal(t, want, shortened(text, 8), text)
	}
}
