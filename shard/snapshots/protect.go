package snapshots

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
)

// # Goals
//
// [Store.Collect] runs beside builds, copies and releases, on any machine. It never
// deletes what one of them relies on, whoever is killed or stands still when; a process
// that died holds nobody up for long; and nothing is shared but the objects of a store.
//
// # Design
//
// A writer writes an intent, which names what it is about to rely on, before it looks
// whether that is there. Collect writes a mark, which names what it is about to delete,
// before it looks whether anyone needs it. So either the writer sees the mark, and waits
// until it is gone before it looks, or Collect sees the intent, and spares what it names.
// Either sees both in a store that shows an object to all once it is written, as folders,
// S3, Google Cloud Storage and Azure do.
//
// Collect reads the intents first, then the releases, then the manifests: a writer
// removes its intent only once what it wrote shows what it relies on.
//
// Each mark has a name of its own, and only who wrote it removes it while it may count.
// Marks that several collectors shared would not do: one that is done would remove the
// mark of one that is about to delete.
//
// A release that is in the window of the newest ones is needed by itself, so a rollback
// to it needs no intent and waits for no mark: see package release.
//
// # Time
//
// Nothing in a bucket tells whether a process lives, so time does. A mark is that of a
// Collect that died once it is markLife old, by the store's clock or by that of a writer
// that has watched it for so long, whatever its date is. A Collect that lives deletes
// within markWork of marking, by its own clock, and asks for nothing later. The time
// between the two is for a request that is on its way, and for a process that stands
// still between looking at its clock and asking. What it cannot bound is said in
// docs/limits.md: without a lock in the store itself no order of requests can, and the
// locks of folders do not reach from one machine to another.
const (
	intentsDir = "intents"

	// An intent that was not renewed for intentLife is that of a writer that died.
	intentLife  = time.Hour
	intentRenew = intentLife / 6
	// A mark older than markLife is that of a Collect that died.
	markLife = time.Minute
	markWork = 20 * time.Second
	// A writer that waits looks again after markPoll, and then after twice as long each
	// time, up to markPollMost.
	markPoll     = 100 * time.Millisecond
	markPollMost = time.Second
)

// ErrLapsed is the class of every error that says that what a writer protected may have
// been collected meanwhile: it stood still, or could not reach the store, for so long
// that it was taken for dead. Doing the same again is safe.
var ErrLapsed = errors.New("the protection from being collected has lapsed; run it again")

// intent is what a writer relies on.
type intent struct {
	Digests []manifest.Digest `json:"digests"`
}

// Protection keeps shards and snapshots from being collected until it ends, or this
// process dies.
type Protection struct {
	store *Store
	key   string
	data  []byte

	written time.Time // of the intent, by the store's clock
	read    time.Time // by ours, not before that

	stop    context.CancelFunc
	renewal sync.WaitGroup

	mu      sync.Mutex
	renewed time.Time // when the last renewal that succeeded began
	lapsed  bool
}

// Protect keeps shards and snapshots from being collected until the protection ends. It
// waits for a [Store.Collect] that is about to delete one of them, and tells
// [Options].Waiting; what that has deleted is then found not to be there. Who
// publishes or releases a snapshot protects it before it looks whether it is there,
// until the snapshot, or the release, is written.
func (s *Store) Protect(ctx context.Context, digests ...manifest.Digest) (*Protection, error) {
	return s.protect(ctx, digests, true)
}

// TryProtect does what [Store.Protect] does, but does not wait: it returns a
// [*MarkedError].
func (s *Store) TryProtect(ctx context.Context, digests ...manifest.Digest) (*Protection, error) {
	return s.protect(ctx, digests, false)
}

func (s *Store) protect(ctx context.Context, digests []manifest.Digest, wait bool) (*Protection, error) {
	data, err := json.Marshal(intent{digests})
	if err != nil {
		return nil, fmt.Errorf("protect: %w", err)
	}
	p := &Protection{store: s, data: data, key: fmt.Sprintf("%s/%016x%016x.json", intentsDir, rand.Uint64(), rand.Uint64()), renewed: time.Now()}
	if err := s.bucket.Create(ctx, p.key, data); err != nil {
		return nil, fmt.Errorf("protect: %w", err)
	}
	renewing, stop := context.WithCancel(context.WithoutCancel(ctx))
	p.stop = stop
	p.renewal.Go(func() { p.renew(renewing) })
	o, err := s.bucket.Stat(ctx, p.key)
	p.written, p.read = o.Time, time.Now()
	if err == nil {
		err = p.awaitUnmarked(ctx, digests, wait)
	}
	if err != nil {
		_ = p.End(ctx) // what it leaves keeps what it names for an hour
		return nil, fmt.Errorf("protect: %w", err)
	}
	return p, nil
}

// now returns the time of the store's clock, or less.
func (p *Protection) now() time.Time { return p.written.Add(time.Since(p.read)) }

// awaitUnmarked waits until no mark that counts names one of the digests.
func (p *Protection) awaitUnmarked(ctx context.Context, digests []manifest.Digest, wait bool) error {
	start, poll := time.Now(), markPoll
	var watched watch
	if wait {
		watched = watch{}
	}
	for {
		marked, err := p.store.marked(ctx, digests, p.now(), watched)
		if err != nil || marked == nil {
			return err
		}
		if !wait {
			return &MarkedError{*marked}
		}
		marked.Waited = time.Since(start)
		if p.store.o.Waiting != nil {
			p.store.o.Waiting(*marked)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for what was marked to be deleted: %w", ctx.Err())
		case <-time.After(poll):
		}
		poll = min(2*poll, markPollMost)
	}
}

// renew renews the intent until ctx ends.
func (p *Protection) renew(ctx context.Context) {
	ticker := time.NewTicker(intentRenew)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		start := time.Now()
		_, err := p.store.bucket.Stat(ctx, p.key)
		p.mu.Lock()
		p.lapsed = p.lapsed || errors.Is(err, objects.ErrNotFound) || p.late()
		p.mu.Unlock()
		// One that fails is made up for by the next.
		if err := p.store.bucket.Write(ctx, p.key, p.data); err == nil {
			p.mu.Lock()
			p.renewed = start
			p.mu.Unlock()
		}
	}
}

// late reports whether the intent may count as that of a writer that died.
func (p *Protection) late() bool { return objects.Elapsed(p.renewed) >= intentLife-intentRenew }

// Held returns an error of class [ErrLapsed] unless the protection has held until now.
func (p *Protection) Held(ctx context.Context) error {
	_, err := p.store.bucket.Stat(ctx, p.key)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lapsed = p.lapsed || errors.Is(err, objects.ErrNotFound) || p.late()
	switch {
	case p.lapsed:
		return ErrLapsed
	case err != nil:
		return fmt.Errorf("look whether what is protected still is: %w", err)
	}
	return nil
}

// Leave leaves what is protected to be collected in an hour. It takes the place of End
// where a request was not answered, and may yet have its effect.
func (p *Protection) Leave() {
	p.stop()
	p.renewal.Wait()
}

// endPatience is how long a store may take to end what ends by itself, too.
const endPatience = 10 * time.Second

// End ends the protection, even where ctx has ended. It returns an error of class
// [ErrLapsed] unless the protection has held until now. It is called once.
func (p *Protection) End(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endPatience)
	defer cancel()
	p.Leave()
	held := p.Held(ctx)
	if err := p.store.bucket.Delete(ctx, p.key); err != nil && !errors.Is(err, objects.ErrNotFound) {
		return errors.Join(held, fmt.Errorf("end of protection: %w", err))
	}
	return held
}
