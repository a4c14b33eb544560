package release_test

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

func TestMost(t *testing.T) {
	arm := func(name string, weight int) release.Arm { return release.Arm{Name: name, Weight: weight} }
	for want, arms := range map[string][]release.Arm{
		"control": {arm("a", 500), arm("control", 500)},
		"b":       {arm("a", 100), arm("b", 600), arm("control", 300)},
		"a":       {arm("a", 450), arm("b", 450), arm("control", 100)},
	} {
		assert.Equal(t, want, (&release.Release{Arms: arms}).Most().Name)
	}
}

// Gates compare with what is released, and what is released itself with what its own build
// compared it with, as long as that is there.
func TestPrevious(t *testing.T) {
	bucket := folder(t)
	releases, digests := newReleases(t, bucket, "1", "2")
	build := func(lineage *manifest.Lineage) manifest.Digest {
		empty := manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum([]byte("1")), Size: 1}}}
		m := &manifest.Manifest{
			Version: manifest.GatesVersion, Builder: "test", Model: "feed", ModelVersion: "3", Metric: index.Dot, Dim: 1, Apps: empty, Users: empty,
			Parameters: &manifest.Parameters{}, Gates: &manifest.GateReport{}, Lineage: lineage,
		}
		data, err := m.Encode()
		require.NoError(t, err)
		d := manifest.Sum(data)
		require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d)+".json", data))
		return d
	}
	gone := manifest.Sum([]byte("gone"))
	next, orphan := build(&manifest.Lineage{Previous: digests[0]}), build(&manifest.Lineage{Previous: gone})
	serving := func(d manifest.Digest) *release.Release {
		return &release.Release{Arms: []release.Arm{{Name: release.Control, Snapshot: d, Weight: release.Total}}}
	}
	for name, c := range map[string]struct {
		now             *release.Release
		candidate, want manifest.Digest
	}{
		"nothing is released":             {nil, digests[1], ""},
		"another is":                      {serving(digests[0]), digests[1], digests[0]},
		"the candidate is yet to be":      {serving(digests[0]), "", digests[0]},
		"the candidate is":                {serving(next), next, digests[0]},
		"and was built beside none":       {serving(digests[1]), digests[1], ""},
		"and what it was built beside is": {serving(orphan), orphan, ""},
	} {
		got, err := releases.Previous(t.Context(), c.now, c.candidate)
		require.NoError(t, err, name)
		assert.Equal(t, c.want, got, name)
	}
	_, err := releases.Previous(t.Context(), serving(gone), gone)
	assert.ErrorIs(t, err, snapshots.ErrNoSnapshot)
}

func TestNothing(t *testing.T) {
	releases, _ := newReleases(t, folder(t))
	err := releases.Nothing(t.Context())
	require.ErrorIs(t, err, snapshots.ErrNoSnapshot)
	require.NotErrorIs(t, err, release.ErrNone)

	releases, digests := newReleases(t, folder(t), "1", "2")
	err = releases.Nothing(t.Context())
	require.ErrorIs(t, err, release.ErrNone)
	nothing := (*release.NothingError)(nil)
	require.ErrorAs(t, err, &nothing)
	assert.Equal(t, 2, nothing.Snapshots)
	at := slices.Index(digests, nothing.Newest)
	require.GreaterOrEqual(t, at, 0)
	assert.Equal(t, "feed", nothing.Model)
	assert.Equal(t, []string{"1", "2"}[at], nothing.ModelVersion)
	assert.ErrorContains(t, err, ": nothing is released; name a snapshot, such as the newest of 2, "+nothing.Newest.Short()+" (feed at ")
}
