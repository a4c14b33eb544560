package remote

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Part is the part of a tower that a shard on a node is, with its fresh rows, at one position
// of the live log. It is safe for any number of goroutines.
type Part struct {
	node  *Node
	of    ShardID
	at    shard.Position
	info  shard.Info
	names *Names
}

var _ shard.Part = (*Part)(nil)

// NewPart returns the part that a shard on a node is at a position. info is what a tower is
// told of it, but that it is elsewhere.
func NewPart(node *Node, of ShardID, at shard.Position, info shard.Info, names *Names) *Part {
	info.Elsewhere = true
	return &Part{node, of, at, info, names}
}

// Info implements [shard.Part].
func (p *Part) Info() shard.Info { return p.info }

// moment returns a moment with the position of the part, or an error if it is of another
// position or snapshot.
func (p *Part) moment(m shard.Moment) (shard.Moment, error) {
	if m.Position != p.at && m.Position != (shard.Position{}) {
		return m, &shard.PositionError{Shard: p.info.Name, Asked: m.Position, Has: p.at}
	}
	if m.Snapshot != "" && m.Snapshot != string(p.of.Snapshot) {
		return m, fmt.Errorf("%s is asked for snapshot %.12s", p.of, m.Snapshot)
	}
	m.Position = p.at
	return m, nil
}

// Search implements [shard.Part].
func (p *Part) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	at, err := p.moment(r.Moment)
	if err != nil {
		return err
	}
	asked := *r
	asked.Moment = at
	return p.node.Search(ctx, p.of, &asked, p.names, reply)
}

// Explain implements [shard.Part].
func (p *Part) Explain(ctx context.Context, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	at, err := p.moment(r.Moment)
	if err != nil {
		return nil, err
	}
	asked := *r
	asked.Moment = at
	return p.node.Explain(ctx, p.of, &asked, ids)
}

// Vectors implements [shard.Part].
func (p *Part) Vectors(ctx context.Context, at shard.Moment, ids []string, dst [][]float32) error {
	at, err := p.moment(at)
	if err != nil {
		return err
	}
	return p.node.Vectors(ctx, p.of, at, ids, dst)
}

// Attributes implements [shard.Part].
func (p *Part) Attributes(ctx context.Context, at shard.Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (rows int, err error) {
	if at, err = p.moment(at); err != nil {
		return 0, err
	}
	return p.node.Attributes(ctx, p.of, at, p.names, refs, fields, most, dst)
}
