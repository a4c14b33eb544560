package shard

import "context"

// SearchAsking is Search with a context of its own for asking the shards, which ends
// before that of the query where there is a deadline.
func (t *Tower) SearchAsking(ctx, asking context.Context, q *Query) (*Answer, error) {
	return t.search(ctx, asking, q)
}
