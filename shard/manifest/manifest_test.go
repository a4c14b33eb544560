package manifest_test

import (
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/shardtest"
)

// TestMeanVersion: a manifest that says what only version 4 can is of it, and says nothing
// that a query cannot be asked with.
func TestMeanVersion(t *testing.T) {
	m := shardtest.Manifest(t, shardtest.Store(t, t.TempDir()), shardtest.Grid(3), 1, 1, index.DefaultParams(index.Cosine))
	require.Equal(t, manifest.FirstVersion, m.LowestVersion())
	m.MeanUser = []float32{9.99}
	require.Equal(t, manifest.MeanVersion, m.LowestVersion())
	m.Version = m.LowestVersion()
	data, err := m.Encode()
	require.NoError(t, err)
	back, err := manifest.Decode(data)
	require.NoError(t, err)
	require.Equal(t, m, back)

	m.Version = manifest.MeanVersion + 1
	_, err = m.Encode()
	require.ErrorContains(t, err, "version is 5, want 4")
	m.Version = manifest.MeanVersion
	for text, mean := range map[string][]float32{
		"mean_user has 2 numbers, dim is 1":  {1, 2},
		"mean_user has 0 numbers, dim is 1":  {},
		"mean_user: is the zero vector":      {0},
		"mean_user: component 0 is NaN":      {float32(math.NaN())},
		"mean_user: norm is 2e+18, want at ": {2e18},
	} {
		m.MeanUser = mean
		_, err := m.Encode()
		require.ErrorContains(t, err, text)
	}

	m.MeanUser = nil
	m.Users.Schema, err = attribute.NewSchema([]attribute.Field{{Name: "price", Type: attribute.Float32}})
	require.NoError(t, err)
	require.Equal(t, manifest.MeanVersion, m.LowestVersion())
	_, err = manifest.Decode([]byte(`{"version": 8}`))
	require.ErrorIs(t, err, sections.ErrVersion)
	require.ErrorContains(t, err, "this build reads versions 1 to 7")

	for _, p := range []manifest.TowerParameters{
		{PartitionAttributes: []string{"dt"}}, {AttributeTypes: map[string]attribute.Type{"at": attribute.Timestamp}},
	} {
		m.Parameters = &manifest.Parameters{Users: p}
		require.Equal(t, manifest.InputsVersion, m.LowestVersion())
		m.Version = manifest.InputsVersion
		data, err := m.Encode()
		require.NoError(t, err)
		again, err := manifest.Decode(data)
		require.NoError(t, err)
		require.Equal(t, m.Parameters, again.Parameters)
	}
}

// TestEvidenceVersion: a manifest that says which rows calibrated and measured, or how the
// worst percent fared, is of version 6; one of before says neither.
func TestEvidenceVersion(t *testing.T) {
	plain := func() *manifest.Manifest {
		return shardtest.Manifest(t, shardtest.Store(t, t.TempDir()), shardtest.Grid(3), 1, 1, index.DefaultParams(index.Cosine))
	}
	m := plain()
	require.Equal(t, manifest.FirstVersion, m.LowestVersion())
	none := 0.0 // is a recall too
	for _, says := range []func(m *manifest.Manifest){
		func(m *manifest.Manifest) {
			m.Users.Samples = &manifest.Samples{Calibrate: 1, Weaker: []manifest.Purpose{manifest.Shape}}
		},
		func(m *manifest.Manifest) {
			m.Apps.Recall = []manifest.Recall{{K: 10, Target: 0.9, Recall: 0.5, Worst: &none}}
		},
		func(m *manifest.Manifest) {
			m.Apps.Segments = []manifest.Segment{{Segment: shard.Segment{Name: "all", Expression: "true"}, Recall: []manifest.Recall{{K: 10, Worst: &none}}}}
		},
	} {
		m := plain()
		says(m)
		require.Equal(t, manifest.EvidenceVersion, m.LowestVersion())
		m.Version = m.LowestVersion()
		data, err := m.Encode()
		require.NoError(t, err)
		back, err := manifest.Decode(data)
		require.NoError(t, err)
		require.Equal(t, m, back)
		m.Version = manifest.InputsVersion
		_, err = m.Encode()
		require.ErrorContains(t, err, "version is 5, want 6")
	}
	over := 1.5
	for text, breaks := range map[string]func(m *manifest.Manifest){
		"samples: -1 shape, 0 calibrate and 0 gate": func(m *manifest.Manifest) { m.Apps.Samples = &manifest.Samples{Shape: -1} },
		`weaker has "hub", want each of`:            func(m *manifest.Manifest) { m.Apps.Samples = &manifest.Samples{Weaker: []manifest.Purpose{"hub"}} },
		`weaker has "gate", want each of`: func(m *manifest.Manifest) {
			m.Apps.Samples = &manifest.Samples{Weaker: []manifest.Purpose{manifest.Gate, manifest.Gate}}
		},
		"recall@10 of the worst percent is 1.5": func(m *manifest.Manifest) { m.Apps.Recall = []manifest.Recall{{K: 10, Worst: &over}} },
	} {
		m := plain()
		m.Version = manifest.EvidenceVersion
		breaks(m)
		_, err := m.Encode()
		require.ErrorContains(t, err, text)
	}
}

func TestMeanRecall(t *testing.T) {
	for _, tt := range []struct {
		recalls     []float64
		mean, worst float64
	}{
		{nil, 1, 1},
		{[]float64{0.5}, 0.5, 0.5},
		{[]float64{1, 0, 1, 1}, 0.75, 0},
		{append(slices.Repeat([]float64{1}, 100), 0.5), 100.5 / 101, 0.75}, // of 101, two
	} {
		mean, worst := shard.MeanRecall(tt.recalls)
		require.InDelta(t, tt.mean, mean, 1e-12)
		require.InDelta(t, tt.worst, worst, 1e-12)
	}
}
