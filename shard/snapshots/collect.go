package snapshots

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// CollectOptions say what [Store.Collect] keeps.
type CollectOptions struct {
	// Live returns the snapshots that are kept whatever their age: those that a
	// release needs. It is called again after what is to go is marked, and must then
	// read the store anew.
	Live func(context.Context) ([]manifest.Digest, error)
	// Keep is how many of the newest snapshots are kept.
	Keep int
	// KeepFor is how long a snapshot is kept since it was last published.
	KeepFor time.Duration
	// Grace is how long a shard that no snapshot has, or a temporary file of a folder, is
	// kept. Shards that are being imported and files that are being written are kept in
	// any case.
	Grace time.Duration
	// Unreleased says that nothing in the store was ever released, and that there may be
	// no snapshot. If it is false and no release is found, or no snapshot, what they
	// need may be in the store all the same: the folder of either may not be mounted,
	// or not yet be restored.
	Unreleased bool
	// DryRun reports what would go, and deletes nothing.
	DryRun bool
}

// Collected is what [Store.Collect] deleted, and why it kept the rest.
type Collected struct {
	Snapshots []manifest.Digest
	Shards    []manifest.Digest
	Bytes     int64    // of the shards
	Leftovers []string // names of objects, files and folders of writers that died

	// Kept are the snapshots that are still there, newest first; none beside an error, which
	// is the reason then.
	Kept []Kept
	// Young is how many shards that no snapshot has were kept since they are younger than
	// CollectOptions.Grace, or nobody knows how old.
	Young int
}

// Kept is a snapshot that [Store.Collect] has kept, and each reason for it.
type Kept struct {
	Snapshot manifest.Digest
	Why      []Reason
}

// Reason is why a snapshot was kept.
type Reason string

// The reasons.
const (
	KeptLive      Reason = "live"      // CollectOptions.Live lists it
	KeptNewest    Reason = "newest"    // it is one of CollectOptions.Keep
	KeptYoung     Reason = "young"     // it is younger than CollectOptions.KeepFor, or nobody knows how old
	KeptProtected Reason = "protected" // someone relies on it who is about to release it, serves it, or published it again
)

// Collect deletes the snapshots that nobody needs, the shards that no snapshot has, and
// what writers that died left behind. It never deletes what a live snapshot, or one
// that is being imported or protected meanwhile, has. It deletes nothing if what it must
// keep is not known: if a release or a manifest cannot be read, a live snapshot is not
// there, or, with an error of class [ErrNothingLive], if there is no release or no
// snapshot. What it returns beside an error is what was deleted before; calling it again
// goes on. Several may run at a time.
func (s *Store) Collect(ctx context.Context, o CollectOptions) (*Collected, error) {
	c := newCollection(s, o)
	if err := c.run(ctx); err != nil {
		return c.done, fmt.Errorf("collect: %w", err)
	}
	if !o.DryRun {
		s.bucket.KeepReserve()
	}
	return c.done, nil
}

// Remove deletes one snapshot, even if its manifest cannot be read; its shards are left
// to [Store.Collect]. It refuses one that live says is needed, or that is protected.
func (s *Store) Remove(ctx context.Context, d manifest.Digest, live func(context.Context) ([]manifest.Digest, error)) error {
	_, err := s.bucket.Stat(ctx, manifestKey(d))
	if errors.Is(err, objects.ErrNotFound) {
		err = fmt.Errorf("store %s: snapshot %s: %w", s.Location(), d, ErrNoSnapshot)
	}
	c := newCollection(s, CollectOptions{Live: live})
	if err == nil {
		err = c.drop(ctx, []manifest.Digest{d}, manifestKey, &c.done.Snapshots)
	}
	if err != nil {
		return fmt.Errorf("remove snapshot: %w", err)
	}
	if len(c.done.Snapshots) == 0 {
		return fmt.Errorf("remove snapshot %s: a release or a writer needs it", d.Short())
	}
	return nil
}

// collection is a Collect in progress.
type collection struct {
	*Store
	CollectOptions
	done *Collected

	now       time.Time                             // of the store's clock, when it began
	published map[manifest.Digest]time.Time         // the snapshots that were there when it began
	live      map[manifest.Digest]bool              // what was live at any time since then
	shards    map[manifest.Digest][]manifest.Digest // of each snapshot that was there since then and has not been dropped
	leftovers map[string]bool                       // the keys of done.Leftovers
	spared    map[manifest.Digest]bool              // what was to go, and turned out to be needed
	building  *building                             // builds in steps
}

func newCollection(s *Store, o CollectOptions) *collection {
	return &collection{
		Store: s, CollectOptions: o, done: &Collected{},
		live: map[manifest.Digest]bool{}, shards: map[manifest.Digest][]manifest.Digest{}, leftovers: map[string]bool{}, spared: map[manifest.Digest]bool{},
		building: &building{},
	}
}

func (c *collection) run(ctx context.Context) error {
	snapshots, err := c.survey(ctx)
	if err != nil {
		return err
	}
	if err := c.whole(ctx); err != nil {
		return err
	}
	if c.now, err = c.readClock(ctx); err != nil {
		return err
	}
	if err := c.readBuilds(ctx); err != nil {
		return err
	}
	var old []manifest.Digest
	for i, p := range snapshots {
		// What is live is spared anyhow; a mark on it would hold up who releases it.
		if i >= c.Keep && !c.live[p.Digest] && c.older(p.Time, c.KeepFor) {
			old = append(old, p.Digest)
		}
	}
	unused, _, err := c.unusedShards(ctx)
	if err != nil {
		return err
	}
	if err := c.sure(old, unused); err != nil {
		return err
	}
	// What died goes first: it is what makes room without a mark.
	if err := c.collectObjects(ctx); err != nil {
		return err
	}
	if err := c.collectFiles(ctx); err != nil {
		return err
	}
	if err := c.collectBuilds(ctx); err != nil {
		return err
	}
	if err := c.drop(ctx, old, manifestKey, &c.done.Snapshots); err != nil {
		return err
	}
	unused, sizes, err := c.unusedShards(ctx)
	if err != nil {
		return err
	}
	if len(unused) > 0 && !c.DryRun {
		// A manifest whose deletion a crash undid would be there without its shards. Who
		// deleted it may have died before it was certain.
		if err := c.bucket.Settle(snapshotsDir + "/"); err != nil {
			return err
		}
	}
	err = c.drop(ctx, unused, shardKey, &c.done.Shards)
	for _, d := range c.done.Shards {
		c.done.Bytes += sizes[d]
	}
	if err == nil {
		c.tellKept(snapshots)
	}
	return err
}

// tellKept notes why the snapshots that were not deleted were kept.
func (c *collection) tellKept(newestFirst []Published) {
	for i, p := range newestFirst {
		if slices.Contains(c.done.Snapshots, p.Digest) {
			continue
		}
		k := Kept{Snapshot: p.Digest}
		if c.live[p.Digest] {
			k.Why = append(k.Why, KeptLive)
		}
		if i < c.Keep {
			k.Why = append(k.Why, KeptNewest)
		}
		if !c.older(p.Time, c.KeepFor) {
			k.Why = append(k.Why, KeptYoung)
		}
		if c.spared[p.Digest] && !c.live[p.Digest] {
			k.Why = append(k.Why, KeptProtected)
		}
		c.done.Kept = append(c.done.Kept, k)
	}
}

// older reports whether an object is at least so old. The age of one with a date before
// there were any such objects, as tools give that know none, is not known.
func (c *collection) older(date time.Time, age time.Duration) bool {
	return date.Year() > 1980 && c.now.Sub(date) >= age
}

// Now returns the time of the store's clock, which it reads off an object that it writes.
func (s *Store) Now(ctx context.Context) (time.Time, error) {
	return newCollection(s, CollectOptions{}).readClock(ctx)
}

// readClock returns the time of the store's clock, which it reads off an object. On a
// full disk that needs the reserve, or what builds that died have left.
func (c *collection) readClock(ctx context.Context) (time.Time, error) {
	key := fmt.Sprintf("%s%016x%016x", clockPrefix, rand.Uint64(), rand.Uint64())
	write := func() error { return c.bucket.Write(ctx, key, nil) }
	err := c.bucket.Spend(write)
	if objects.IsFull(err) && !c.DryRun {
		if stagesErr := c.collectStages(ctx); stagesErr != nil {
			return time.Time{}, errors.Join(err, stagesErr)
		}
		err = write()
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("read the store's clock: %w", err)
	}
	o, err := c.bucket.Stat(ctx, key)
	return o.Time, errors.Join(err, c.deleteIfThere(context.WithoutCancel(ctx), key))
}

// unusedShards returns the shards that no snapshot has and that are old enough, and how
// large they are.
func (c *collection) unusedShards(ctx context.Context) (unused []manifest.Digest, sizes map[manifest.Digest]int64, err error) {
	used := c.used()
	sizes = map[manifest.Digest]int64{}
	c.done.Young = 0
	for o, err := range c.bucket.List(ctx, shardsDir+"/") {
		if err != nil {
			return nil, nil, err
		}
		d, ok := digestOf(o.Key, shardsDir, ".shard")
		switch {
		case !ok || used[d] || c.building.needed[d]:
		case c.older(o.Time, c.Grace):
			unused = append(unused, d)
			sizes[d] = o.Size
		default:
			c.done.Young++
		}
	}
	return unused, sizes, nil
}

// batch is how many objects are marked at a time.
const batch = 64

// drop deletes objects that nobody needs, and adds their digests to dropped.
func (c *collection) drop(ctx context.Context, list []manifest.Digest, key func(manifest.Digest) string, dropped *[]manifest.Digest) error {
	for size := batch; len(list) > 0; {
		part := list[:min(size, len(list))]
		late, err := c.dropBatch(ctx, part, key, dropped)
		if err != nil {
			return err
		}
		if len(late) == 1 && len(part) == 1 {
			return fmt.Errorf("the store is too slow: what is marked is deleted within %s or not at all, and marking one object and looking who needs it took longer", markWork)
		}
		if len(late) > 0 {
			size = max(len(part)/2, 1)
		}
		list = append(late, list[len(part):]...)
	}
	return nil
}

// markDoubt is how long a deletion may take to be taken for answered at once. One that
// took longer may have been asked for several times, and a request that was given up may
// have its effect yet: the mark stays, so that nobody writes the object again before.
const markDoubt = time.Second

// dropBatch drops what it can of a batch within the time for it, and returns the rest.
func (c *collection) dropBatch(ctx context.Context, list []manifest.Digest, key func(manifest.Digest) string, dropped *[]manifest.Digest) (late []manifest.Digest, err error) {
	start := time.Now()
	var doubt atomic.Bool
	if !c.DryRun {
		unmark, markErr := c.mark(ctx, list)
		defer func() {
			if !doubt.Load() {
				err = errors.Join(err, unmark())
			}
		}()
		if markErr != nil {
			return nil, markErr
		}
	}
	needed, err := c.look(ctx)
	if err != nil {
		return nil, err
	}
	working, cancel := context.WithDeadline(ctx, start.Add(markWork))
	defer cancel()
	gone, errs := make([]bool, len(list)), make([]error, len(list))
	_ = each(list, func(i int, d manifest.Digest) error {
		switch {
		case needed[d]:
		case c.DryRun:
			gone[i] = true
		case objects.Elapsed(start) < markWork:
			asked := time.Now()
			errs[i] = c.deleteIfThere(working, key(d))
			gone[i] = errs[i] == nil
			if !gone[i] || objects.Elapsed(asked) > markDoubt {
				doubt.Store(true)
			}
		}
		return nil
	})
	for i, d := range list {
		switch {
		case needed[d]:
			c.spared[d] = true
		case gone[i]:
			*dropped = append(*dropped, d)
			delete(c.shards, d)
		case errs[i] == nil || working.Err() != nil && ctx.Err() == nil:
			late = append(late, d)
		default:
			err = errors.Join(err, errs[i])
		}
	}
	return late, err
}
