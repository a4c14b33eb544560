package snapshots

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Snapshot is both towers of one model version, mapped and verified. It is
// immutable and safe for any number of goroutines until it is closed.
type Snapshot struct {
	manifest *manifest.Manifest
	digest   manifest.Digest
	apps     *shard.Tower
	users    *shard.Tower
}

// Open opens a snapshot of a store. It verifies every checksum, every
// bound and that each shard is the one the manifest names; reading every byte
// also brings the files into memory. An error names the file and the section.
func Open(ctx context.Context, store *Store, digest manifest.Digest) (*Snapshot, error) {
	m, err := store.Manifest(ctx, digest)
	if err != nil {
		return nil, err
	}
	return openManifest(ctx, store, m, digest)
}

// openManifest opens the snapshot of a manifest.
func openManifest(ctx context.Context, store *Store, m *manifest.Manifest, digest manifest.Digest) (*Snapshot, error) {
	done, err := store.Fetch(ctx, m)
	if err != nil {
		return nil, fmt.Errorf("open snapshot %s: %w", digest.Short(), err)
	}
	defer done()
	s := &Snapshot{manifest: m, digest: digest}
	if s.apps, err = OpenTower(ctx, store, m, shard.Apps); err != nil {
		return nil, err
	}
	if s.users, err = OpenTower(ctx, store, m, shard.Users); err != nil {
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
	return s.manifest.Apps.CheckEligible(s.apps.SegmentRows())
}

// OpenTower opens one tower of a manifest, which need not be published, nor know
// yet how many rows its segments have.
func OpenTower(ctx context.Context, store *Store, m *manifest.Manifest, kind shard.Kind) (*shard.Tower, error) {
	var shards []*shard.Shard
	var err error
	for number := range m.Tower(kind).Shards {
		var s *shard.Shard
		if err = ctx.Err(); err != nil {
			break
		}
		if s, err = openNumbered(ctx, store, m, kind, number); err != nil {
			break
		}
		shards = append(shards, s)
	}
	var t *shard.Tower
	if err == nil {
		t, err = shard.NewTower(kind, shards, m.Metric, m.Dim, m.Tower(kind).Schema)
	}
	if err != nil {
		for _, s := range shards {
			err = errors.Join(err, s.Close())
		}
		return nil, err
	}
	return t, nil
}

// OpenShard opens one shard of a snapshot, which it downloads of a store that is no folder, as
// a tower of that alone: no other file is read. It verifies what [Open] does of the shard. How
// many rows segments have in all shards is not known then.
func OpenShard(ctx context.Context, store *Store, m *manifest.Manifest, kind shard.Kind, number int) (*shard.Tower, error) {
	tm := m.Tower(kind)
	if number < 0 || number >= len(tm.Shards) {
		return nil, fmt.Errorf("open shard %d of %s, of which there are %d", number, kind, len(tm.Shards))
	}
	s, err := openNumbered(ctx, store, m, kind, number)
	if err != nil {
		return nil, err
	}
	t, err := shard.NewTower(kind, []*shard.Shard{s}, m.Metric, m.Dim, tm.Schema)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return t, nil
}

// ShardName names a shard by its place in its tower.
func ShardName(kind shard.Kind, number int) string { return fmt.Sprintf("%s-%04d", kind, number) }

// openNumbered opens one shard of a snapshot. What was damaged in the cache, or cannot
// be read there, is downloaded once more.
func openNumbered(ctx context.Context, store *Store, m *manifest.Manifest, kind shard.Kind, number int) (*shard.Shard, error) {
	s, err := openFetched(ctx, store, m, kind, number)
	if err != nil && ctx.Err() == nil && store.discardDamaged(m.Tower(kind).Shards[number].Digest) {
		return openFetched(ctx, store, m, kind, number)
	}
	return s, err
}

func openFetched(ctx context.Context, store *Store, m *manifest.Manifest, kind shard.Kind, number int) (*shard.Shard, error) {
	tm := m.Tower(kind)
	path, done, err := store.fetch(ctx, tm.Shards[number])
	if err != nil {
		return nil, err
	}
	defer done()
	s, err := shard.OpenAs(path, ShardName(kind, number))
	if err != nil {
		return nil, err
	}
	if err := checkAgainst(s, m, tm, number); err != nil {
		return nil, errors.Join(fmt.Errorf("open shard %s as %s: %w", path, s.Name(), err), s.Close())
	}
	return s, nil
}

// checkAgainst makes sure that a shard is what the manifest says it is.
func checkAgainst(s *shard.Shard, m *manifest.Manifest, tm *manifest.Tower, number int) (err error) {
	defer sections.Guard(&err)()
	sm := tm.Shards[number]
	switch {
	case checksumText(s.File()) != sm.Checksum || s.File().Size() != sm.Size:
		return fmt.Errorf("checksum is %s and size %d, the manifest says %s and %d: %w",
			checksumText(s.File()), s.File().Size(), sm.Checksum, sm.Size, sections.ErrCorrupt)
	case s.Rows() != sm.Rows:
		return fmt.Errorf("%d rows, the manifest says %d: %w", s.Rows(), sm.Rows, sections.ErrCorrupt)
	case s.Index().Dim() != m.Dim || s.Index().Metric() != m.Metric:
		return fmt.Errorf("dim %d and metric %s, the manifest says %d and %s: %w",
			s.Index().Dim(), s.Index().Metric(), m.Dim, m.Metric, sections.ErrCorrupt)
	case !s.Attributes().Schema().Equal(tm.Schema):
		return fmt.Errorf("attributes are %v, the manifest says %v: %w", s.Attributes().Schema().Fields(), tm.Schema.Fields(), sections.ErrCorrupt)
	}
	if listed := tm.SegmentList(); !slices.Equal(s.Segments(), listed) {
		return fmt.Errorf("segments are %v, the manifest says %v: %w", s.Segments(), listed, sections.ErrCorrupt)
	}
	return s.CheckPartition(number, len(tm.Shards))
}

// Manifest returns the snapshot's manifest. The caller must not change it.
func (s *Snapshot) Manifest() *manifest.Manifest { return s.manifest }

// Digest returns the snapshot's name.
func (s *Snapshot) Digest() manifest.Digest { return s.digest }

// Tower returns one tower.
func (s *Snapshot) Tower(kind shard.Kind) *shard.Tower {
	if kind == shard.Users {
		return s.users
	}
	return s.apps
}

// Warm asks every shard a question, so that the first real one finds its scratch memory
// made.
func (s *Snapshot) Warm(ctx context.Context) error {
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		if err := WarmTower(ctx, s.Tower(kind)); err != nil {
			return fmt.Errorf("warm snapshot %s: %w", s.digest.Short(), err)
		}
	}
	return nil
}

// WarmTower asks every shard of a tower a question; see [Snapshot.Warm].
func WarmTower(ctx context.Context, t *shard.Tower) (err error) {
	defer sections.Guard(&err)()
	some := slices.IndexFunc(t.Local(), func(sh *shard.Shard) bool { return sh.Rows() > 0 })
	if some < 0 {
		return nil
	}
	q := &shard.Query{Vectors: [][]float32{t.Local()[some].Index().Vector(0, nil)}, K: 100, Target: 0.99, MinCoverage: 1}
	_, err = t.Search(ctx, q)
	return err
}

// Trim has both towers let go of the memory that nobody needed since it was called last.
func (s *Snapshot) Trim() {
	s.apps.Trim()
	s.users.Trim()
}

// Close unmaps all files.
func (s *Snapshot) Close() error {
	var err error
	for _, t := range []*shard.Tower{s.apps, s.users} {
		if t != nil {
			err = errors.Join(err, t.Close())
		}
	}
	return err
}
