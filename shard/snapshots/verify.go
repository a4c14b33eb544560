package snapshots

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// Verify reads every file of a snapshot where the store has it, and proves all
// that can be proved of it: what [Open] checks, the SHA-256 of every file and the
// invariants of every graph. It goes on after an error and returns all it found. It calls
// progress with the name of each shard whose content it is about to check.
func Verify(ctx context.Context, store *Store, digest manifest.Digest, progress func(shard string)) error {
	m, err := store.Manifest(ctx, digest)
	if err != nil {
		return err
	}
	v := &verification{store: store, manifest: m}
	return errors.Join(v.files(ctx), v.contents(ctx, progress))
}

// Repair does what [Verify] does, and first replaces every file of the
// snapshot that is missing or is not what its name says by the one that another store
// has. A manifest that was missing comes last, and only once all shards are there. It
// calls mended for each file that was replaced, with what was wrong with it. Files that
// the other store does not have whole are left as they are, and are of class [ErrSource]
// in the error. What a server has mapped it keeps, whole or not, until it opens the
// snapshot anew. Nothing of the snapshot is collected meanwhile.
func Repair(ctx context.Context, store, from *Store, digest manifest.Digest, progress func(shard string), mended func(file string, was error)) (err error) {
	m, data, wrong := store.manifest(ctx, digest)
	if wrong != nil {
		if ctx.Err() != nil || errors.Is(wrong, sections.ErrVersion) && !errors.Is(wrong, sections.ErrCorrupt) {
			return wrong
		}
		if m, data, err = from.manifest(ctx, digest); err != nil {
			return errors.Join(wrong, fmt.Errorf("%w: %w", ErrSource, err))
		}
	}
	protection, err := store.Protect(ctx, append(m.ShardDigests(), digest)...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, protection.End(ctx)) }()
	v := &verification{store: store, from: from, manifest: m, mended: mended}
	err = v.files(ctx)
	if wrong != nil && (err == nil || !errors.Is(wrong, ErrNoSnapshot)) {
		if writeErr := store.bucket.Write(ctx, manifestKey(digest), data); writeErr != nil {
			return errors.Join(err, wrong, writeErr)
		}
		mended(manifestKey(digest), wrong)
		wrong = nil
	}
	return errors.Join(wrong, err, v.contents(ctx, progress))
}

// verification is a [Verify], or a [Repair], in progress.
type verification struct {
	store    *Store
	manifest *manifest.Manifest
	from     *Store // nil if nothing is to be mended

	mu     sync.Mutex // held to call mended, and to write unread
	mended func(file string, was error)
	unread map[manifest.Digest]bool // files whose content cannot be looked at
}

// files proves that each shard file is what its name says, and mends those that are not.
func (v *verification) files(ctx context.Context) error {
	v.unread = map[manifest.Digest]bool{}
	wrong := eachShard(v.manifest.Shards(), func(sm manifest.Shard) error { return v.file(ctx, sm) })
	if err := ctx.Err(); err != nil {
		return err
	}
	return errors.Join(wrong...)
}

func (v *verification) file(ctx context.Context, sm manifest.Shard) error {
	wrong := v.store.prove(ctx, sm)
	if v.from == nil || !errors.As(wrong, new(damageError)) {
		return v.fault(sm, wrong)
	}
	if err := v.from.give(ctx, sm, v.store.upload); err != nil {
		return errors.Join(v.fault(sm, wrong), fmt.Errorf("mend %s from %s: %w", shardKey(sm.Digest), v.from.Location(), err))
	}
	if err := v.store.prove(ctx, sm); err != nil {
		return fmt.Errorf("mended, and not whole: %w", v.fault(sm, err))
	}
	_ = v.fault(sm, nil) // it may have had no room to be mended before
	v.mu.Lock()
	defer v.mu.Unlock()
	v.mended(shardKey(sm.Digest), wrong)
	return nil
}

// fault notes what is wrong with a file, if anything. One that is there, and is another
// one, is looked into all the same: it may say which section is at fault.
func (v *verification) fault(sm manifest.Shard, wrong error) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if wrong != nil && (v.store.cache != nil || !errors.Is(wrong, sections.ErrCorrupt)) {
		v.unread[sm.Digest] = true
	} else {
		delete(v.unread, sm.Digest)
	}
	return wrong
}

// prove returns an error unless the store, and not just the cache, has a shard whole. What
// the cache lacks is downloaded anew rather than read twice.
func (s *Store) prove(ctx context.Context, sm manifest.Shard) error {
	if s.cache == nil {
		return s.checkStored(ctx, sm)
	}
	held, err := s.cache.claim(ctx, []manifest.Shard{sm})
	if err != nil {
		return err
	}
	defer held.release()
	if len(held.missing) == 0 {
		return s.checkStored(ctx, sm)
	}
	if err := held.missing[0].file.Truncate(0); err != nil {
		return err
	}
	if err := s.downloadAll(ctx, held); err == nil || ctx.Err() != nil {
		return err
	}
	return s.checkStored(ctx, sm) // the cache may be what fails
}

// contents opens each shard and proves what is in it.
func (v *verification) contents(ctx context.Context, progress func(shard string)) error {
	var all error
	eligible := make([]int, len(v.manifest.Apps.Segments))
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for number, sm := range v.manifest.Tower(kind).Shards {
			if err := ctx.Err(); err != nil {
				return errors.Join(all, err)
			}
			if v.unread[sm.Digest] {
				continue
			}
			progress(ShardName(kind, number))
			rows, err := v.content(ctx, kind, number)
			all = errors.Join(all, err)
			for i := range rows {
				eligible[i] += rows[i]
			}
		}
	}
	if all == nil && len(v.unread) == 0 { // else a count says nothing new
		all = v.manifest.Apps.CheckEligible(eligible)
	}
	return all
}

// content returns how many rows each segment has in the shard.
func (v *verification) content(ctx context.Context, kind shard.Kind, number int) (rows []int, err error) {
	s, err := openNumbered(ctx, v.store, v.manifest, kind, number)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	defer sections.Guard(&err)()
	return s.SegmentRows(), s.Check()
}
