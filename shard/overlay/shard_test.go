package overlay_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/overlay"
)

// shardsOf lays what there is by now over each shard of a tower by itself.
func (w *world) shardsOf(t *rapid.T, kind shard.Kind) (list []*overlay.ShardApplier) {
	whole := w.snapshot.Apps
	if kind == shard.Users {
		whole = w.snapshot.Users
	}
	for number, s := range whole.Local() {
		one, err := shard.NewTower(kind, []*shard.Shard{s}, w.metric, dim, schema())
		require.NoError(t, err)
		of := overlay.Shard{
			Tower: one, Number: number, Of: len(whole.Local()),
			Model: model, ModelVersion: version, Inputs: w.snapshot.Inputs,
		}
		w.replica.Read(func(s *live.State) {
			a, err := overlay.NewShard(context.Background(), of, s)
			require.NoError(t, err)
			list = append(list, a)
		})
	}
	return list
}

// union returns the tower whose parts are those of its shards, and the sum of what lies over
// them.
func (w *world) union(t *rapid.T, kind shard.Kind, list []*overlay.ShardApplier) (*shard.Tower, overlay.TowerStatus) {
	whole, refused := w.snapshot.Apps, shard.Refused(w.replica.View().Down)
	if kind == shard.Users {
		whole, refused = w.snapshot.Users, w.replica.View().Forgotten
	}
	var hashed, beside []shard.Part
	var sum overlay.TowerStatus
	for number, a := range list {
		now := a.Now()
		require.Equal(t, w.replica.View().Position.Shard(), now.Position)
		hashed, beside = append(hashed, now.Tower.Parts()[0]), append(beside, now.Tower.Parts()[1:]...)
		for _, p := range now.Tower.Parts()[1:] {
			s := p.(*shard.Local).Shard()
			for ordinal := range uint32(s.Rows()) {
				require.Equal(t, number, shard.Partition(s.ID(ordinal), len(list)))
			}
		}
		sum.Dead, sum.Changed = sum.Dead+now.Status.Dead, sum.Changed+now.Status.Changed
		sum.Fresh, sum.FreshBytes = sum.Fresh+now.Status.Fresh, sum.FreshBytes+now.Status.FreshBytes
		sum.Windows, sum.MisfitCount = sum.Windows+now.Status.Windows, sum.MisfitCount+now.Status.MisfitCount
	}
	tower, err := whole.With(hashed, beside, refused)
	require.NoError(t, err)
	return tower, sum
}

// TestShardsEqualWhole: whatever is appended, the shards of a tower, over each of which it is
// laid by itself, are together what the tower is with all of it.
func TestShardsEqualWhole(t *testing.T) {
	root := t.TempDir()
	n := 0
	kinds := []shard.Kind{shard.Apps, shard.Users}
	rapid.Check(t, func(t *rapid.T) {
		n++
		dir := filepath.Join(root, strconv.Itoa(n))
		require.NoError(t, os.Mkdir(dir, 0o755))
		w := newWorld(t, dir)
		defer w.stop()
		for range rapid.IntRange(0, 3).Draw(t, "before") {
			w.write(t)
		}
		w.begin(t, uint64(rapid.IntRange(0, int(w.replica.View().Position.Sequence)).Draw(t, "inputs")))
		w.shards = map[shard.Kind][]*overlay.ShardApplier{}
		for _, kind := range kinds {
			w.shards[kind] = w.shardsOf(t, kind)
		}
		for range rapid.IntRange(1, 4).Draw(t, "rounds") {
			w.write(t)
			whole := w.applier.Now()
			for _, kind := range kinds {
				at := clock.Add(time.Duration(rapid.IntRange(-4, 7).Draw(t, "hour")) * time.Hour)
				rows, outside := w.rows(kind, at)
				plain, err := towerOf(kind, rows, 1, w.metric)
				require.NoError(t, err)
				want := whole.Status.Apps
				if kind == shard.Users {
					want = whole.Status.Users
				}
				want.Runs, want.Layers, want.Misfits = 0, 0, nil
				for _, list := range [][]*overlay.ShardApplier{w.shards[kind], w.shardsOf(t, kind)} {
					tower, sum := w.union(t, kind, list)
					require.Equal(t, want, sum)
					over := &overlay.Overlaid{Apps: tower, Users: tower, Position: whole.Position}
					w.ask(t, kind, at, plain, over, outside)
				}
			}
		}
	})
}

// What is laid over must be a tower of the one shard.
func TestShardThatIsNone(t *testing.T) {
	two, err := towerOf(shard.Apps, nil, 2, index.Dot)
	require.NoError(t, err)
	one, err := towerOf(shard.Apps, nil, 1, index.Dot)
	require.NoError(t, err)
	for _, of := range []struct {
		shard overlay.Shard
		text  string
	}{
		{overlay.Shard{Tower: two, Number: 0, Of: 2}, "lay over apps: shard 0 of 2, in a tower of 2 parts, want 1"},
		{overlay.Shard{Tower: one, Number: 2, Of: 2}, "lay over apps: shard 2 of 2, in a tower of 1 parts, want 1"},
		{overlay.Shard{Tower: one, Number: -1, Of: 2}, "lay over apps: shard -1 of 2, in a tower of 1 parts, want 1"},
	} {
		_, err := overlay.NewShard(t.Context(), of.shard, live.NewState())
		require.EqualError(t, err, of.text)
	}
}
