package router

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// part is a shard with its fresh rows at one position, wherever its replicas are.
type part struct {
	*set
	at    shard.Position
	info  shard.Info
	names *remote.Names
}

var _ shard.Part = (*part)(nil)

// Info implements [shard.Part].
func (p *part) Info() shard.Info { return p.info }

// moment returns a moment with the position of the part, or an error if it is of another
// position or snapshot.
func (p *part) moment(m shard.Moment) (shard.Moment, error) {
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
func (p *part) Search(ctx context.Context, r *shard.Request, reply *shard.Reply) error {
	at, err := p.moment(r.Moment)
	if err != nil {
		return err
	}
	p.searched()
	asked := *r
	asked.Moment = at
	var spare *shard.Reply
	won, err := p.do(ctx, p.at, &p.search[bandOf(r.K*len(r.Vectors))], func(ctx context.Context, n *remote.Node, to slot) error {
		into := reply
		if to == hedged {
			into = &shard.Reply{}
		}
		err := n.Search(ctx, p.of, &asked, p.names, into)
		if err == nil {
			into.From = n.Address()
		}
		if err == nil && to == hedged {
			spare = into // who reads it waits for this call
		}
		return err
	})
	if err == nil && won == hedged {
		reply.Take(spare)
	}
	return err
}

// Explain implements [shard.Part].
func (p *part) Explain(ctx context.Context, r *shard.Request, ids []string) ([]shard.ExplainedRow, error) {
	at, err := p.moment(r.Moment)
	if err != nil {
		return nil, err
	}
	asked := *r
	asked.Moment = at
	var rows [2][]shard.ExplainedRow
	won, err := p.do(ctx, p.at, &p.other, func(ctx context.Context, n *remote.Node, to slot) (err error) {
		rows[to], err = n.Explain(ctx, p.of, &asked, ids)
		return err
	})
	return rows[won], err
}

// rows returns what there is of an id of the shard.
func (p *part) rows(ctx context.Context, m shard.Moment, dim int, id string) (remote.Rows, error) {
	at, err := p.moment(m)
	if err != nil {
		return remote.Rows{}, err
	}
	var rows [2]remote.Rows
	won, err := p.do(ctx, p.at, &p.other, func(ctx context.Context, n *remote.Node, to slot) (err error) {
		rows[to], err = n.Rows(ctx, p.of, at, dim, id)
		return err
	})
	return rows[won], err
}

// Vectors implements [shard.Part].
func (p *part) Vectors(ctx context.Context, at shard.Moment, ids []string, dst [][]float32) error {
	at, err := p.moment(at)
	if err != nil {
		return err
	}
	var beside [][]float32
	won, err := p.do(ctx, p.at, &p.other, func(ctx context.Context, n *remote.Node, to slot) error {
		if to == own {
			return n.Vectors(ctx, p.of, at, ids, dst)
		}
		got := make([][]float32, len(dst))
		err := n.Vectors(ctx, p.of, at, ids, got)
		if err == nil {
			beside = got
		}
		return err
	})
	if err == nil && won == hedged {
		copy(dst, beside)
	}
	return err
}

// Attributes implements [shard.Part].
func (p *part) Attributes(ctx context.Context, at shard.Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (rows int, err error) {
	if at, err = p.moment(at); err != nil {
		return 0, err
	}
	var done [2]int
	var beside []attribute.Value
	won, err := p.do(ctx, p.at, &p.other, func(ctx context.Context, n *remote.Node, to slot) (err error) {
		if to == own {
			done[own], err = n.Attributes(ctx, p.of, at, p.names, refs, fields, most, dst)
			return err
		}
		got := make([]attribute.Value, len(dst))
		rows, err := n.Attributes(ctx, p.of, at, p.names, refs, fields, most, got)
		if err == nil {
			done[hedged], beside = rows, got
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	if won == hedged {
		copy(dst, beside)
	}
	return done[won], nil
}
