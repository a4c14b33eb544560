// Package remotetest has what tests of the shard RPC ask by way of a tower.
package remotetest

import (
	"context"

	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Part is the part of a tower that a shard on one node is, with its fresh rows, at one position of
// the live log, which is what it is asked for whatever a tower asks. It is safe for any number of
// goroutines.
type Part struct {
	node  *remote.Node
	of    remote.ShardID
	at    shard.Position
	info  shard.Info
	names *remote.Names
}

var _ shard.Part = (*Part)(nil)

// NewPart returns the part that a shard on a node is at a position. info is what a tower is
// told of it, but that it is elsewhere.
func NewPart(node *remote.Node, of remote.ShardID, at shard.Position, info shard.Info, names *remote.Names) *Part {
	info.Elsewhere = true
	return &Part{node, of, at, info, names}
}

// Info implements [shard.Part].
func (p *Part) Info() shard.Info { return p.info }

// Search implements [shard.Part].
func (p *Part) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	asked := *r
	asked.Position = p.at
	return p.node.Search(ctx, p.of, &asked, p.names, reply)
}

// Explain implements [shard.Part].
func (p *Part) Explain(ctx context.Context, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	asked := *r
	asked.Position = p.at
	return p.node.Explain(ctx, p.of, &asked, ids)
}

// Vectors implements [shard.Part].
func (p *Part) Vectors(ctx context.Context, at shard.Moment, ids []string, dst [][]float32) error {
	at.Position = p.at
	return p.node.Vectors(ctx, p.of, at, ids, dst)
}

// Attributes implements [shard.Part].
func (p *Part) Attributes(ctx context.Context, at shard.Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (rows int, err error) {
	at.Position = p.at
	return p.node.Attributes(ctx, p.of, at, p.names, refs, fields, most, dst)
}
