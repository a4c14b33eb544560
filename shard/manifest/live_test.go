package manifest_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// A manifest that says which position of the live log its inputs reflect is of a version of
// its own; one that does not is of the version that it was.
func TestLiveVersion(t *testing.T) {
	m := gatedManifest(t)
	before, err := m.Encode()
	require.NoError(t, err)
	require.NotContains(t, string(before), `"live"`)
	for _, p := range []shard.Position{{}, {Sequence: 17}, {Log: "20261130T075000.000Z-0123456789abcdef", Sequence: 3}} {
		m.Live, m.Version = &p, manifest.LiveVersion
		require.Equal(t, manifest.LiveVersion, m.LowestVersion())
		data, err := m.Encode()
		require.NoError(t, err)
		back, err := manifest.Decode(data)
		require.NoError(t, err)
		require.Equal(t, m, back)
		require.Contains(t, gatedManifest(t).Difference(back), "version: 7, not 3")

		old := strings.Replace(string(data), `"version": 7`, `"version": 3`, 1)
		_, err = manifest.Decode([]byte(old))
		require.ErrorContains(t, err, "version is 3, want 7")
		_, err = manifest.Decode([]byte(strings.Replace(string(data), `"version": 7`, `"version": 8`, 1)))
		require.ErrorIs(t, err, sections.ErrVersion)
		require.ErrorContains(t, err, "this build reads versions 1 to 7")
	}
	m.Live.Log = strings.Repeat("x", 65)
	_, err = m.Encode()
	require.ErrorContains(t, err, "want up to 64 bytes")
}

// The users who were left out are counted by an input, which any version has.
func TestForgottenInput(t *testing.T) {
	m := gatedManifest(t)
	require.Zero(t, m.Forgotten())
	m.Inputs = append(m.Inputs, manifest.Input{Role: manifest.ForgottenRole, Name: "live", Size: 3 * manifest.ForgottenSize, Digest: manifest.Sum(nil)})
	require.EqualValues(t, 3, m.Forgotten())
	_, err := m.Encode()
	require.NoError(t, err)
	require.Equal(t, manifest.GatesVersion, m.LowestVersion())
}
