package livelog

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

// What is told of a log that cannot be followed is what is there now, and a store that does not
// answer takes nothing of it back.
func TestStateFollowsWhatIsThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := objectstest.NewFaults()
		f := New(store.Bucket(""), Options{
			Fence: 5 * time.Second, Changed: func() {}, Events: events.Tee(),
			AtLeast: func(context.Context) (shard.Position, string, error) { return shard.Position{}, "", nil },
		})
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		require.NoError(t, f.Open(ctx))
		go f.Run(ctx)
		_, err := f.Append(ctx, []live.Event{{Kind: live.Takedown, Tower: shard.Apps, Entity: "a", Reason: "r"}})
		require.NoError(t, err)
		state := func() (tandemv1.LogState, error) {
			time.Sleep(time.Minute)
			synctest.Wait()
			return f.State()
		}
		now, err := state()
		require.NoError(t, err)
		require.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, now)

		store.Put("live/000000000999.log", []byte("garbage"), time.Now())
		now, err = state()
		assert.Equal(t, tandemv1.LogState_LOG_STATE_GAP, now)
		assert.ErrorContains(t, err, "entry 2 is missing, and the log goes on to entry 999")

		store.Inject(objectstest.Rule{Err: objectstest.ErrBusy})
		_, err = state()
		assert.ErrorContains(t, err, "entry 2 is missing, and the log goes on to entry 999")
		store.Heal()

		store.Remove("live/000000000999.log")
		store.Put("live/000000000002.log", []byte("garbage"), time.Now())
		now, err = state()
		assert.Equal(t, tandemv1.LogState_LOG_STATE_UNREAD, now)
		assert.ErrorContains(t, err, "live/000000000002.log: entry of the live log: header: it is damaged")

		store.Remove("live/000000000002.log")
		now, err = state()
		assert.NoError(t, err)
		assert.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, now)
	})
}
