package livelog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/shardtest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const apps = 3000

// one is a shard of a snapshot in a folder, and what follows a live log.
type one struct {
	store    *snapshots.Store
	manifest *manifest.Manifest
	shard    OneShard
	follower *Follower
}

// follow opens the second of two shards, and follows a log until the test ends.
func follow(t *testing.T, faults *objectstest.Faults) *one {
	store := shardtest.Store(t, t.TempDir())
	params := index.DefaultParams(index.Dot)
	params.M, params.EfConstruction = 4, 8
	o := &one{store: store, manifest: shardtest.Manifest(t, store, shardtest.Grid(apps), 1, 2, params)}
	tower, err := snapshots.OpenShard(t.Context(), store, o.manifest, shard.Apps, 1)
	require.NoError(t, err)
	o.shard = OneShard{Tower: tower, Snapshot: o.manifest, Digest: "a", Number: 1}
	o.follower = New(faults.Bucket(""), Options{
		Fence: 5 * time.Second, Unfenced: true, Changed: func() {}, Events: events.Tee(), Poll: 100 * time.Millisecond,
		AtLeast: func(context.Context) (shard.Position, string, error) { return shard.Position{}, "", nil },
	})
	require.NoError(t, o.follower.Open(t.Context()))
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		o.follower.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		require.NoError(t, tower.Close())
	})
	return o
}

// down takes an app of the shard down, by the log of another process if that is given.
func (o *one) down(t *testing.T, by *live.Replica, n int) {
	id := o.ids()[n]
	events := []live.Event{{Kind: live.Takedown, Tower: shard.Apps, Entity: id, Reason: "r"}}
	var err error
	if by != nil {
		_, err = by.Append(t.Context(), events)
	} else {
		_, err = o.follower.Append(t.Context(), events)
	}
	require.NoError(t, err)
}

// ids returns the ids of the shard, the best first.
func (o *one) ids() (ids []string) {
	for n := apps - 1; n >= 0; n-- {
		if id := fmt.Sprintf("app-%03d", n); shard.Partition(id, 2) == 1 {
			ids = append(ids, id)
		}
	}
	return ids
}

// best returns the best app at a position.
func best(t *testing.T, ctx context.Context, l *ShardLayer, at shard.Position) (string, error) {
	over, err := l.At(ctx, at)
	if err != nil {
		return "", err
	}
	require.Equal(t, at, over.Position)
	q := &shard.Query{Moment: shard.Moment{Position: at}, Vectors: [][]float32{{1}}, K: 1, Target: 1}
	answer, err := over.Tower.Search(t.Context(), q)
	require.NoError(t, err)
	return answer.Candidates[0].ID, nil
}

// A shard answers at each position that it has, and waits for one that is to come.
func TestShardAtPositions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		faults := objectstest.NewFaults()
		o := follow(t, faults)
		l, err := o.follower.LayShard(t.Context(), o.shard)
		require.NoError(t, err)
		defer l.End()
		ids := o.ids()
		for n := range 5 {
			o.down(t, nil, n)
		}
		for n := range 6 {
			id, err := best(t, t.Context(), l, shard.Position{Sequence: uint64(n)})
			require.NoError(t, err)
			assert.Equal(t, ids[n], id)
		}
		oldest, newest := l.Range()
		assert.Equal(t, []shard.Position{{}, {Sequence: 5}}, []shard.Position{oldest, newest})

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		other, err := live.Open(t.Context(), faults.Bucket(""), live.Options{Poll: time.Hour})
		require.NoError(t, err)
		appending, stop := context.WithCancel(t.Context())
		defer stop()
		go func() { _ = other.Run(appending) }()
		go func() {
			time.Sleep(500 * time.Millisecond)
			o.down(t, other, 5)
		}()
		id, err := best(t, ctx, l, shard.Position{Sequence: 6})
		require.NoError(t, err)
		assert.Equal(t, ids[6], id, "it waits for what another process appends")

		start := time.Now()
		_, err = l.At(ctx, shard.Position{Sequence: 7})
		assert.ErrorIs(t, err, ErrBehind)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		assert.LessOrEqual(t, time.Since(start), time.Second)
		_, err = l.At(t.Context(), shard.Position{Log: "z", Sequence: 1})
		assert.ErrorIs(t, err, ErrBehind, "a log that was accepted and not read yet")

		time.Sleep(pastTime + mendEvery + tick) // nothing is written meanwhile
		oldest, newest = l.Range()
		assert.Equal(t, []shard.Position{{Sequence: 6}, {Sequence: 6}}, []shard.Position{oldest, newest})
		_, err = l.At(t.Context(), shard.Position{Sequence: 5})
		assert.ErrorIs(t, err, ErrGone)

		for range 2 * pastMost {
			o.down(t, nil, 6)
		}
		oldest, newest = l.Range()
		assert.LessOrEqual(t, int(newest.Sequence-oldest.Sequence), pastMost-1)
		_, err = l.At(t.Context(), oldest)
		assert.NoError(t, err)
		_, err = l.At(t.Context(), shard.Position{Sequence: oldest.Sequence - 1})
		assert.ErrorIs(t, err, ErrGone)
	})
}

// Where the file cannot be read the shard stays at what it has, says why, and goes on once it
// can be. Positions in between it does not have.
func TestShardThatCannotGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := follow(t, objectstest.NewFaults())
		l, err := o.follower.LayShard(t.Context(), o.shard)
		require.NoError(t, err)
		defer l.End()
		o.down(t, nil, 0)
		path := o.store.ShardPath(o.manifest.Apps.Shards[1].Digest)
		whole, err := os.ReadFile(path)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(path, sections.PageSize))
		o.down(t, nil, 1)
		_, unreadable := errors.AsType[*shard.UnreadableError](l.Failed())
		assert.True(t, unreadable, "%v", l.Failed())
		_, err = l.At(t.Context(), shard.Position{Sequence: 2})
		assert.ErrorIs(t, err, sections.ErrUnreadable)
		require.NoError(t, os.WriteFile(path, whole, 0o600)) // the same file, and so the same pages
		id, err := best(t, t.Context(), l, shard.Position{Sequence: 1})
		require.NoError(t, err)
		assert.Equal(t, o.ids()[1], id)

		o.down(t, nil, 2)
		require.NoError(t, l.Failed())
		oldest, newest := l.Range()
		assert.Equal(t, []shard.Position{{Sequence: 3}, {Sequence: 3}}, []shard.Position{oldest, newest}, "it has all in between")
		id, err = best(t, t.Context(), l, newest)
		require.NoError(t, err)
		assert.Equal(t, o.ids()[3], id)
		_, err = l.At(t.Context(), shard.Position{Sequence: 2})
		assert.ErrorIs(t, err, ErrGone)
		_, err = l.At(t.Context(), shard.Position{Sequence: 1})
		assert.NoError(t, err)
	})
}

// One that has ended goes on no more.
func TestShardLayerEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := follow(t, objectstest.NewFaults())
		l, err := o.follower.LayShard(t.Context(), o.shard)
		require.NoError(t, err)
		l.End()
		o.down(t, nil, 0)
		assert.Equal(t, shard.Position{}, l.Now().Position)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		_, err = o.follower.LayShard(ended, o.shard)
		assert.NoError(t, err, "there is little to do")
		o.follower.end(l)
	})
}
