package release

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// livePatience is how long a change looks for the head of the live log.
const livePatience = 5 * time.Second

// liveHead returns the head of the store's live log, or what the release before says of it
// if that is later or the log cannot be read: a rollback does not wait for what it does not
// need. It is nil if there is no live log.
func (r *Releases) liveHead(ctx context.Context, before *Release) *shard.Position {
	ctx, cancel := context.WithTimeout(ctx, livePatience)
	defer cancel()
	log := live.Log(r.store.Objects(), 0)
	last, err := log.Last(ctx)
	if err != nil || last.Sequence == 0 || last.Data == nil {
		return before.Live // an entry that is gone does not say which log it is of
	}
	at := log.Position(last)
	head := shard.Position{Log: at.Log, Sequence: at.Sequence}
	if before.Live != nil && head.Compare(*before.Live) < 0 {
		return before.Live
	}
	return &head
}

// LiveBound is a position that the live log of a store has reached once: a log that ends
// before it is an older copy.
type LiveBound struct {
	Position shard.Position
	By       string // what says so, such as "generation 17"; empty if nothing does
}

// boundSnapshots is how many of the newest snapshots are asked for a bound.
const boundSnapshots = 10

// LiveBound returns the highest position of the live log that anything but the log itself
// names: the last ten releases that can be read, their snapshots, and the ten snapshots
// that were published last. What of these is damaged, or gone meanwhile, is passed over:
// the position holds all the same. Snapshots do not count where neither a release nor an
// entry shows that there ever was a log: they were copied from another store, whose log is
// another one.
func (r *Releases) LiveBound(ctx context.Context) (LiveBound, error) {
	var bound LiveBound
	take := func(p *shard.Position, by string) {
		if p != nil && (bound.By == "" || p.Compare(bound.Position) > 0) {
			bound = LiveBound{*p, by}
		}
	}
	var named []manifest.Digest
	add := func(d manifest.Digest) {
		if !slices.Contains(named, d) {
			named = append(named, d)
		}
	}
	n := 0
	for release, err := range r.History(ctx) {
		u, b := (*UnreadableError)(nil), (*BrokenError)(nil)
		switch {
		case errors.As(err, &u), errors.As(err, &b):
			continue
		case err != nil:
			return LiveBound{}, fmt.Errorf("positions of the live log: %w", err)
		}
		take(release.Live, fmt.Sprintf("generation %d of the releases", release.Generation))
		for _, a := range release.Arms {
			add(a.Snapshot)
		}
		if n++; n == keptReleases {
			break
		}
	}
	if bound.By == "" {
		last, err := live.Log(r.store.Objects(), 0).Last(ctx)
		if err != nil || last.Sequence == 0 {
			return LiveBound{}, err
		}
	}
	published, err := r.store.Snapshots(ctx)
	if err != nil {
		return LiveBound{}, fmt.Errorf("positions of the live log: %w", err)
	}
	for _, p := range published[:min(len(published), boundSnapshots)] {
		add(p.Digest)
	}
	for _, d := range named {
		m, err := r.store.Manifest(ctx, d)
		switch {
		case errors.Is(err, snapshots.ErrNoSnapshot), errors.Is(err, sections.ErrCorrupt), errors.Is(err, sections.ErrVersion):
			continue
		case err != nil:
			return LiveBound{}, fmt.Errorf("positions of the live log: %w", err)
		}
		take(m.Live, "the inputs of snapshot "+d.Short())
	}
	return bound, nil
}
