package server

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard/release"
)

// change makes the first snapshot what is released, as a rollback to generation 1.
func (f *following) change(t *testing.T, c release.Change) *release.Release {
	t.Helper()
	r, err := f.releases.Rollback(t.Context(), release.RollbackOptions{Change: c, To: 1})
	require.NoError(t, err)
	return r
}

// serves makes sure that a release is what the service serves, and that nothing is wrong.
func (f *following) serves(t *testing.T, r *release.Release) {
	t.Helper()
	s := f.now(t)
	require.Equal(t, []any{r.Generation, r.Hash.String(), r.Log}, []any{s.Generation, s.Hash, s.Log})
	require.Equal(t, []any{s.Generation, s.Hash}, []any{s.TargetGeneration, s.TargetHash})
	require.Equal(t, tandemv1.Phase_PHASE_SERVING, s.Phase, s.Error)
	require.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, s.LogState)
	require.Empty(t, s.Error+s.LogError)
	require.Less(t, s.Staleness.AsDuration(), 3*time.Second)
}

// In a store that was restored from a copy a generation number means another release. A
// server that has followed another log goes on with what it serves, says so, and follows
// the restored one once a person accepts it.
func TestRestoredStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowing(t, Config{})
		f.change(t, release.Change{})
		copied := f.store.Keys("releases/")
		f.start(t, f.digests[1])
		served := f.change(t, release.Change{Author: "before"})
		f.rest(3 * time.Second)
		f.serves(t, served)

		for _, key := range f.store.Keys("releases/")[len(copied):] {
			f.store.Remove(key)
		}
		refuses := func(state tandemv1.LogState, text string) {
			t.Helper()
			f.rest(30 * time.Second)
			s := f.now(t)
			require.Equal(t, state, s.LogState)
			require.Contains(t, s.LogError, text)
			require.Equal(t, tandemv1.Phase_PHASE_FAILED, s.Phase)
			require.Contains(t, s.Error, text)
			require.Equal(t, []any{uint64(4), served.Hash.String()}, []any{s.Generation, s.Hash}, "it goes on")
			require.Greater(t, s.Staleness.AsDuration(), 29*time.Second)
			ready, _ := f.ready(t)
			require.True(t, ready)
		}
		refuses(tandemv1.LogState_LOG_STATE_BEHIND, "entry 4 is gone, and the log ends with entry 2")
		f.change(t, release.Change{Author: "after"})
		refuses(tandemv1.LogState_LOG_STATE_BEHIND, "the log ends with entry 3")
		again := f.change(t, release.Change{Author: "after"})
		require.Equal(t, served.Generation, again.Generation)
		refuses(tandemv1.LogState_LOG_STATE_FORKED, "entry 4 is another one ("+again.Hash.Short()+") than was read ("+served.Hash.Short()+")")
		f.change(t, release.Change{})
		refuses(tandemv1.LogState_LOG_STATE_FORKED, "entry 5 was appended to another entry 4")
		f.rest(time.Hour)
		require.Equal(t, 2, f.log.count("is not the one that was followed"), "once for each of what is wrong")

		accepted := f.change(t, release.Change{Restored: true})
		require.NotEmpty(t, accepted.Log)
		f.rest(20 * time.Second)
		f.serves(t, accepted)
		require.Equal(t, 1, f.log.count("a restored log of releases was accepted"))
		next := f.change(t, release.Change{})
		require.Equal(t, accepted.Log, next.Log)
		f.rest(3 * time.Second)
		f.serves(t, next)
	})
}

// The numbers of an accepted log may be lower than those of the one before, and what was
// wrong with that one is no longer.
func TestAcceptedLogIsShorter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowing(t, Config{})
		served := f.change(t, release.Change{})
		f.store.Put("releases/000000000003.json", []byte("garbage"), time.Now())
		f.rest(3 * time.Second)
		s := f.now(t)
		require.Equal(t, []any{uint64(2), uint64(3)}, []any{s.Generation, s.TargetGeneration})
		require.Contains(t, s.Error, "read release 3: ")
		require.Equal(t, served.Hash.String(), s.Hash)

		for _, key := range f.store.Keys("releases/") {
			f.store.Remove(key)
		}
		f.rest(20 * time.Second)
		s = f.now(t)
		require.Equal(t, tandemv1.LogState_LOG_STATE_BEHIND, s.LogState)
		require.True(t, strings.Contains(s.Error, "the log ends with entry 0") && strings.Contains(s.Error, "read release 3: "), s.Error)
		first, err := f.releases.Start(t.Context(), release.StartOptions{Snapshot: f.digests[1], Change: release.Change{Restored: true}})
		require.NoError(t, err)
		require.EqualValues(t, 1, first.Generation)
		f.rest(20 * time.Second)
		f.serves(t, first)
	})
}

// The accepted release may have the very number of what serves.
func TestAcceptedNumberIsTheSame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowing(t, Config{})
		served := f.change(t, release.Change{})
		f.rest(3 * time.Second)
		f.serves(t, served)
		f.store.Remove("releases/000000000002.json")
		accepted, err := f.releases.Start(t.Context(), release.StartOptions{Snapshot: f.digests[1], Change: release.Change{Restored: true}})
		require.NoError(t, err)
		require.Equal(t, served.Generation, accepted.Generation)
		f.rest(20 * time.Second)
		f.serves(t, accepted)
		require.Len(t, f.now(t).Arms, 2)
	})
}

// What is put right by itself needs nobody's acceptance.
func TestLogComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowing(t, Config{})
		served := f.change(t, release.Change{})
		f.rest(3 * time.Second)
		f.serves(t, served)
		data, _ := f.store.Data("releases/000000000002.json")
		f.store.Remove("releases/000000000002.json")
		f.rest(10 * time.Second)
		require.Equal(t, tandemv1.LogState_LOG_STATE_BEHIND, f.now(t).LogState)
		f.store.Put("releases/000000000002.json", data, time.Now())
		f.rest(20 * time.Second)
		f.serves(t, served)
		require.Equal(t, 1, f.log.count("the log of releases is followed again"))
	})
}

// A server that starts has read nothing yet, and takes the log as it is.
func TestStartTakesTheLogAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowing(t, Config{})
		f.change(t, release.Change{})
		last := f.change(t, release.Change{})
		f.store.Remove("releases/000000000002.json")
		again := &following{store: f.store, releases: f.releases, digests: f.digests}
		again.follow(t, Config{})
		again.serves(t, last)
	})
}
