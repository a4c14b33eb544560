package bench

import (
	"bytes"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

func TestSwitch(t *testing.T) {
	both, err := snapshots.CreateStore(t.Context(), t.TempDir(), snapshots.Options{})
	require.NoError(t, err)
	digests := [2]manifest.Digest{oneShard.Digest(), threeShards.Digest()}
	for i, name := range []string{"1", "3"} {
		store, err := snapshots.OpenStore(t.Context(), filepath.Join(testDir, name, "store"), snapshots.Options{})
		require.NoError(t, err)
		require.NoError(t, both.Copy(t.Context(), store, digests[i]))
		require.NoError(t, store.Close())
	}
	for _, keep := range []time.Duration{time.Hour, time.Nanosecond} {
		r, err := Switch(t.Context(), both, digests, SwitchOptions{
			Switches: 5, Clients: 3, Users: 20, K: 5, Steady: 50 * time.Millisecond, Pause: time.Millisecond, Keep: keep,
		})
		require.NoError(t, err)
		assert.Zero(t, r.Failed, r.FirstFail)
		assert.Zero(t, r.Mixed, r.FirstFail)
		assert.Positive(t, r.Requests)
		assert.Positive(t, r.SteadyP99)
		assert.Positive(t, r.SwitchP99)
		assert.LessOrEqual(t, r.Mapped[1], 2+4, "two towers of one shard, and of three and one")
		assert.LessOrEqual(t, r.Files[1], r.Files[0]+2)
		var text bytes.Buffer
		require.NoError(t, r.WriteTable(&text))
		assert.Contains(t, text.String(), "5 switches between ")
	}
	require.NoError(t, both.Close())
}
