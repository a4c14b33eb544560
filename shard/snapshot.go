package shard

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/index/sections"
)

// Snapshot is both towers of one model version, mapped and verified. It is
// immutable and safe for any number of goroutines until it is closed.
type Snapshot struct {
	manifest *Manifest
	digest   Digest
	apps     *Tower
	users    *Tower
}

// OpenSnapshot opens a snapshot of a store. It verifies every checksum, every
// bound and that each shard is the one the manifest names; reading every byte
// also brings the files into memory. An error names the file and the section.
func OpenSnapshot(ctx context.Context, store *Store, digest Digest) (*Snapshot, error) {
	m, err := store.Manifest(ctx, digest)
	if err != nil {
		return nil, err
	}
	done, err := store.Fetch(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", digest.Short(), err)
	}
	defer done()
	s := &Snapshot{manifest: m, digest: digest}
	if s.apps, err = OpenTower(ctx, store, m, Apps); err != nil {
		return nil, err
	}
	if s.users, err = OpenTower(ctx, store, m, Users); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	if err := s.checkEligible(); err != nil {
		return nil, errors.Join(fmt.Errorf("open snapshot %s: %w", digest.Short(), err), s.Close())
	}
	return s, nil
}

// checkEligible makes sure that segments have as many rows as the manifest says.
func (s *Snapshot) checkEligible() (err error) {
	defer sections.Guard(&err)()
	return s.manifest.Apps.checkEligible(s.apps.SegmentRows())
}

// OpenTower opens one tower of a manifest, which need not be published, nor know
// yet how many rows its segments have.
func OpenTower(ctx context.Context, store *Store, m *Manifest, kind Kind) (*Tower, error) {
	var shards []*Shard
	var err error
	for number := range m.Tower(kind).Shards {
		var s *Shard
		if err = ctx.Err(); err != nil {
			break
		}
		if s, err = openNumbered(ctx, store, m, kind, number); err != nil {
			break
		}
		shards = append(shards, s)
	}
	var t *Tower
	if err == nil {
		t, err = newTower(kind, shards, m.Metric, m.Dim, m.Tower(kind).Schema)
	}
	if err != nil {
		return nil, errors.Join(err, closeAll(shards))
	}
	return t, nil
}

// shardName names a shard by its place in its tower.
func shardName(kind Kind, number int) string { return fmt.Sprintf("%s-%04d", kind, number) }

// openNumbered opens one shard of a snapshot. What was damaged in the cache, or cannot
// be read there, is downloaded once more.
func openNumbered(ctx context.Context, store *Store, m *Manifest, kind Kind, number int) (*Shard, error) {
	s, err := openFetched(ctx, store, m, kind, number)
	if err != nil && ctx.Err() == nil && store.discardDamaged(m.Tower(kind).Shards[number].Digest) {
		return openFetched(ctx, store, m, kind, number)
	}
	return s, err
}

func openFetched(ctx context.Context, store *Store, m *Manifest, kind Kind, number int) (*Shard, error) {
	tm := m.Tower(kind)
	path, done, err := store.fetch(ctx, tm.Shards[number])
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := Open(path)
	if err != nil {
		return nil, err
	}
	s.name = shardName(kind, number)
	if err := s.checkAgainst(m, tm, number); err != nil {
		return nil, errors.Join(fmt.Errorf("open shard %s as %s: %w", s.file.Path(), s.name, err), s.Close())
	}
	return s, nil
}

// checkAgainst makes sure that the shard is what the manifest says it is.
func (s *Shard) checkAgainst(m *Manifest, tm *TowerManifest, number int) (err error) {
	defer sections.Guard(&err)()
	sm := tm.Shards[number]
	switch {
	case checksumText(s.file) != sm.Checksum || s.file.Size() != sm.Size:
		return fmt.Errorf("checksum is %s and size %d, the manifest says %s and %d: %w",
			checksumText(s.file), s.file.Size(), sm.Checksum, sm.Size, sections.ErrCorrupt)
	case s.Rows() != sm.Rows:
		return fmt.Errorf("%d rows, the manifest says %d: %w", s.Rows(), sm.Rows, sections.ErrCorrupt)
	case s.index.Dim() != m.Dim || s.index.Metric() != m.Metric:
		return fmt.Errorf("dim %d and metric %s, the manifest says %d and %s: %w",
			s.index.Dim(), s.index.Metric(), m.Dim, m.Metric, sections.ErrCorrupt)
	case !s.attributes.Schema().Equal(tm.Schema):
		return fmt.Errorf("attributes are %v, the manifest says %v: %w", s.attributes.Schema().Fields(), tm.Schema.Fields(), sections.ErrCorrupt)
	}
	if listed := tm.segments(); !slices.Equal(s.segments.list, listed) {
		return fmt.Errorf("segments are %v, the manifest says %v: %w", s.segments.list, listed, sections.ErrCorrupt)
	}
	return s.checkPartition(number, len(tm.Shards))
}

// Manifest returns the snapshot's manifest. The caller must not change it.
func (s *Snapshot) Manifest() *Manifest { return s.manifest }

// Digest returns the snapshot's name.
func (s *Snapshot) Digest() Digest { return s.digest }

// Tower returns one tower.
func (s *Snapshot) Tower(kind Kind) *Tower {
	if kind == Users {
		return s.users
	}
	return s.apps
}

// Warm asks every shard a question, so that the first real one finds its scratch memory
// made.
func (s *Snapshot) Warm(ctx context.Context) (err error) {
	defer sections.Guard(&err)()
	for _, kind := range []Kind{Apps, Users} {
		t := s.Tower(kind)
		some := slices.IndexFunc(t.shards, func(sh *Shard) bool { return sh.Rows() > 0 })
		if some < 0 {
			continue
		}
		q := &Query{Vectors: [][]float32{t.shards[some].index.Vector(0, nil)}, K: 100, Target: 0.99, MinCoverage: 1}
		if _, err := t.Search(ctx, q); err != nil {
			return fmt.Errorf("warm snapshot %s: %w", s.digest.Short(), err)
		}
	}
	return nil
}

// Close unmaps all files.
func (s *Snapshot) Close() error {
	var err error
	for _, t := range []*Tower{s.apps, s.users} {
		if t != nil {
			err = errors.Join(err, t.Close())
		}
	}
	return err
}
