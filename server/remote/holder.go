package remote

import (
	"context"
	"fmt"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Protocol is the protocol that this build speaks. It takes OldestProtocol to Protocol: a
// change that the build before would misread has a new number, and takes the last one, too.
const (
	Protocol       = 1
	OldestProtocol = 1
)

// ShardID names a shard of a snapshot.
type ShardID struct {
	Snapshot manifest.Digest
	Tower    shard.Kind
	Number   int // in the tower, from 0 on
	Of       int // how many shards the tower has
}

// String names the shard in errors; the zero value is what a node says of itself.
func (id ShardID) String() string {
	if id == (ShardID{}) {
		return "its status"
	}
	return fmt.Sprintf("%s shard %d of %d of snapshot %s", id.Tower, id.Number, id.Of, id.Snapshot.Short())
}

// Holder is what a node holds. It is safe for any number of goroutines.
type Holder interface {
	// Acquire returns one shard of a snapshot with what lies over it at a position: a tower of
	// one shard, whose first part is the shard's and whose others are fresh rows. They have a
	// method Refs as [shard.Local] has it. It may wait a while for a position that is to come,
	// no longer than the context lasts. The caller calls release once, when it reads the tower
	// no more. The error is a [*Refusal], or the context's.
	Acquire(ctx context.Context, of ShardID, at shard.Position) (tower *shard.Tower, release func(), err error)
	// Status returns what the node says of itself, but for its protocols and its load, and a
	// channel that is closed when that has changed. Nobody changes what was returned.
	Status() (status *shardv1.NodeStatus, changed <-chan struct{})
	// Uses is told of the snapshots that a router uses, until end is called, once.
	Uses(router string, snapshots []string) (end func())
}

// part is what is asked of the parts of a [Holder]'s tower.
type part interface {
	shard.Part
	Refs(at shard.Moment, ids []string, refs []uint32, found []bool) error
}
