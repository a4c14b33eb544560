package shard

import (
	"context"

	"github.com/tandem-ann/tandem/index/sections"
)

// SearchAsking is Search with a context of its own for asking the shards, which ends
// before that of the query where there is a deadline.
func (t *Tower) SearchAsking(ctx, asking context.Context, q *Query) (*Answer, error) {
	return t.search(ctx, asking, q)
}

// FromBytes opens a shard file that is in memory; see [sections.FromBytes].
func FromBytes(data []byte) (*Shard, error) {
	f, err := sections.FromBytes(data)
	if err != nil {
		return nil, err
	}
	return fromFile(f)
}
