package attack

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Target is what callers know of what a server serves: ids that it has, what its vectors
// are like, and what may be filtered by.
type Target struct {
	Users, Apps []string
	Dim         int
	Fields      []attribute.Field // of the app tower
	Words       []string          // values of its keywords
}

// Sizes of the samples of a target.
const (
	targetIDs   = 20_000
	targetWords = 500
)

// ReadTarget reads a target from the snapshot that is to be served.
func ReadTarget(ctx context.Context, store *snapshots.Store, digest manifest.Digest) (_ *Target, err error) {
	snapshot, err := snapshots.Open(ctx, store, digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, snapshot.Close()) }()
	apps, users := snapshot.Tower(shard.Apps), snapshot.Tower(shard.Users)
	t := &Target{Users: ids(users), Apps: ids(apps), Dim: apps.Dim(), Fields: apps.Schema().Fields(), Words: words(apps)}
	if len(t.Users) == 0 || len(t.Apps) == 0 {
		return nil, fmt.Errorf("snapshot %s has %d users and %d apps, want some of both", digest.Short(), users.Rows(), apps.Rows())
	}
	return t, nil
}

// ids returns some ids of every shard.
func ids(t *shard.Tower) []string {
	var list []string
	for _, s := range t.Local() {
		for ordinal := range uint32(min(s.Rows(), targetIDs/len(t.Local())+1)) {
			list = append(list, s.ID(ordinal))
		}
	}
	return list
}

// words returns some values of the keywords of every shard.
func words(t *shard.Tower) []string {
	var list []string
	for _, s := range t.Local() {
		for ordinal := range uint32(min(s.Rows(), targetWords)) {
			for i, field := range t.Schema().Fields() {
				value := s.Attributes().Value(ordinal, i)
				switch {
				case value.Absent():
				case field.Type == attribute.Keyword:
					list = append(list, value.Keyword())
				case field.Type == attribute.KeywordList:
					list = append(list, value.Keywords()...)
				}
			}
		}
	}
	slices.Sort(list)
	list = slices.Compact(list)
	return list[:min(len(list), targetWords)]
}

// named returns the names of the attributes of some types.
func (t *Target) named(types ...attribute.Type) []string {
	var names []string
	for _, f := range t.Fields {
		if slices.Contains(types, f.Type) {
			names = append(names, f.Name)
		}
	}
	return names
}
