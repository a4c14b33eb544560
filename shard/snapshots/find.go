package snapshots

import (
	"context"
	"errors"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Has reports whether a tower of a snapshot has a row of an id. It opens the one shard that
// could, which it downloads of a store that is no folder.
func Has(ctx context.Context, store *Store, m *manifest.Manifest, kind shard.Kind, id string) (has bool, err error) {
	defer sections.Guard(&err)()
	s, err := openNumbered(ctx, store, m, kind, shard.Partition(id, len(m.Tower(kind).Shards)))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	_, has = s.Ordinal(id)
	return has, nil
}
