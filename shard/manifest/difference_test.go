package manifest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
)

func TestDifference(t *testing.T) {
	m := gatedManifest(t)
	data, err := m.Encode()
	require.NoError(t, err)
	// Each change comes with all those after it, which do not hide it.
	changes := []struct {
		begins string
		change func(*manifest.Manifest)
	}{
		{`tool: "tandem v2", not "tandem v1.2.3"`, func(m *manifest.Manifest) { m.Tool = "tandem v2" }},
		{`parameters: {"max_rejected":9,`, func(m *manifest.Manifest) { m.Parameters.MaxRejected = 9 }},
		{`previous: null, not {"previous":"`, func(m *manifest.Manifest) { m.Lineage = nil }},
		{`input interactions: {"role":"interactions"`, func(m *manifest.Manifest) {
			m.Inputs = append(m.Inputs, manifest.Input{Role: "interactions"})
		}},
		{`apps: rows, rejected and shards: [3,1,1], not [3,0,1]`, func(m *manifest.Manifest) { m.Apps.Rejected = 1 }},
		{`shard apps-0000: {"digest":"`, func(m *manifest.Manifest) { m.Apps.Shards[0].Digest = manifest.Sum(nil) }},
		{`mean user vector: [1], not null`, func(m *manifest.Manifest) { m.MeanUser = []float32{1} }},
		{`effort of shard apps-0000: [{"k":`, func(m *manifest.Manifest) { m.Apps.Shards[0].Effort[0].Ef++ }},
		{`recall of apps: {"k":10,`, func(m *manifest.Manifest) { m.Apps.Recall = []manifest.Recall{{K: 10}} }},
		{`gate rows: {"gate":"rows","subject":"","value":0.25,`, func(m *manifest.Manifest) { m.Gates.Checks[1].Value = 0.25 }},
		{`gates: {"previous":`, func(m *manifest.Manifest) { m.Gates.Off = nil }},
	}
	for i := range changes {
		other, err := manifest.Decode(data)
		require.NoError(t, err)
		require.Empty(t, m.Difference(other))
		for _, c := range changes[i:] {
			c.change(other)
		}
		got := m.Difference(other)
		require.True(t, strings.HasPrefix(got, changes[i].begins), got)
		require.NotEmpty(t, other.Difference(m))
	}
}
