package shard_test

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// TestMeanVersion: a manifest that says what only version 4 can is of it, and says nothing
// that a query cannot be asked with.
func TestMeanVersion(t *testing.T) {
	m := newManifest(t, newStore(t, t.TempDir()), grid(3), 1, 1, index.DefaultParams(index.Cosine))
	require.Equal(t, shard.ManifestVersion, m.LowestVersion())
	m.MeanUser = []float32{9.99}
	require.Equal(t, shard.MeanVersion, m.LowestVersion())
	m.Version = m.LowestVersion()
	data, err := m.Encode()
	require.NoError(t, err)
	back, err := shard.DecodeManifest(data)
	require.NoError(t, err)
	require.Equal(t, m, back)

	m.Version = shard.MeanVersion + 1
	_, err = m.Encode()
	require.ErrorContains(t, err, "version is 5, want 4")
	m.Version = shard.MeanVersion
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
	require.Equal(t, shard.MeanVersion, m.LowestVersion())
	_, err = shard.DecodeManifest([]byte(`{"version": 6}`))
	require.ErrorIs(t, err, sections.ErrVersion)
	require.ErrorContains(t, err, "this build reads versions 1 to 5")

	for _, p := range []shard.TowerParameters{
		{PartitionAttributes: []string{"dt"}}, {AttributeTypes: map[string]attribute.Type{"at": attribute.Timestamp}},
	} {
		m.Parameters = &shard.Parameters{Users: p}
		require.Equal(t, shard.InputsVersion, m.LowestVersion())
		m.Version = shard.InputsVersion
		data, err := m.Encode()
		require.NoError(t, err)
		again, err := shard.DecodeManifest(data)
		require.NoError(t, err)
		require.Equal(t, m.Parameters, again.Parameters)
	}
}
