package overlay

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

// Shard is one shard of a snapshot, which a [ShardApplier] lays changes over.
type Shard struct {
	// Tower is of this one shard, which is of this process.
	Tower *shard.Tower
	// Number is which one it is of the hash partition, and Of how many there are.
	Number, Of int
	// Model, ModelVersion and Inputs are those of the snapshot; see [Snapshot].
	Model, ModelVersion string
	Inputs              shard.Position
}

// ShardApplier lays what a [live.State] amounts to over one shard of a snapshot: over its rows,
// and beside them what was upserted of those ids that [shard.Partition] puts into it. Other ids
// it does not know, and they cost it next to nothing. What all shards of a tower are so is what
// the tower is with an [Applier]. [ShardApplier.Apply] is for the goroutine that follows the
// log; the other methods are safe for any number of goroutines.
type ShardApplier struct {
	applying
	shape Shape
	tower *tower
	now   atomic.Pointer[OverlaidShard]
}

// OverlaidShard is one shard of a snapshot with what lies over it at one position. It is
// immutable and safe for any number of goroutines, for as long as the shard is open. Its tower
// owns nothing: it need not be closed.
type OverlaidShard struct {
	// Tower has the shard as its first part, and beside it those that were upserted. Who is taken
	// down or forgotten it does not have, and does not know why.
	Tower    *shard.Tower
	Position shard.Position
	Status   TowerStatus
}

// NewShard lays a state over a shard. It takes longer the more the state has; see [New]. The
// error is the context's, an [*shard.UnreadableError], or says that there is no such shard.
func NewShard(ctx context.Context, of Shard, s *live.State) (*ShardApplier, error) {
	if parts := len(of.Tower.Parts()); parts != 1 || of.Number < 0 || of.Number >= of.Of {
		return nil, fmt.Errorf("lay over %s: shard %d of %d, in a tower of %d parts, want 1", of.Tower.Kind(), of.Number, of.Of, parts)
	}
	a := &ShardApplier{shape: Shape{Model: of.Model, ModelVersion: of.ModelVersion, Dim: of.Tower.Dim(), Metric: of.Tower.Metric()}}
	var err error
	if a.tower, err = newTower(of.Tower, share{of.Number, of.Of}, of.Inputs, &a.shape); err != nil {
		return nil, err
	}
	a.towers = []*tower{a.tower}
	return a, a.begin(ctx, s, a.publish)
}

// Apply goes on to a state, as [Applier.Apply] does. If it fails, what was published stays as it
// is, at its position.
func (a *ShardApplier) Apply(s *live.State, changes []live.Change) error {
	return a.next(s, changes, a.publish)
}

func (a *ShardApplier) publish(s *live.State) {
	a.now.Store(&OverlaidShard{Tower: a.tower.current, Position: s.Position().Shard(), Status: a.tower.status()})
}

// Now returns the shard with what lies over it.
func (a *ShardApplier) Now() *OverlaidShard { return a.now.Load() }
