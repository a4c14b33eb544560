package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

const (
	// DefaultKeep is how long a snapshot stays mapped by default once it no longer
	// answers, so that a rollback to it is instant.
	DefaultKeep = 10 * time.Minute
	// A release that could not be loaded is tried again after firstRetry, and then
	// twice as long each time, up to lastRetry, or to corruptRetry if that is what a shard
	// is: reading all of it again costs much and is likely to find the same.
	firstRetry   = time.Second
	lastRetry    = 10 * time.Second
	corruptRetry = time.Minute
)

// follower makes a service serve the newest release of a store: it downloads, verifies,
// maps and warms what that needs beside what answers, and then switches. What it cannot
// load leaves what answers as it is.
//
// Two goroutines work: one reads the log and notes the newest release, and Run loads
// it. A newer release ends the loading of an older one.
type follower struct {
	service  *Service
	store    *snapshots.Store
	releases *release.Releases
	keep     time.Duration
	memory   appendlog.Memory
	limit    int64 // bytes that may be mapped
	events   *events.Listener
	ready    func(Snapshot) // called when queries are first answered; nil once it was

	mapped map[manifest.Digest]*mapping // what Run holds open

	mu     sync.Mutex
	newest *release.Release // nil until there is one
	cancel context.CancelFunc
	news   chan struct{} // has an element when newest has changed
}

// mapping is a snapshot that is open.
type mapping struct {
	*serving
	until time.Time // when it is closed; zero while it answers
}

// target is the entry of the log that was read last, which a follower should serve.
type target struct {
	generation uint64
	hash       appendlog.Hash
	unreadable error // not nil if the entry is no release
}

// followerStatus is what a follower says of itself.
type followerStatus struct {
	of     appendlog.Hash // the release that it has loaded last, or tried to
	failed error          // why that is not served
	kept   []manifest.Digest
	bytes  int64
	limit  int64
}

func newFollower(service *Service, c *Config) *follower {
	return &follower{
		service: service, store: c.Store, releases: release.New(c.Store), memory: c.Memory, keep: c.Keep, limit: c.MemoryLimit,
		events: service.events, ready: c.Ready, mapped: map[manifest.Digest]*mapping{}, news: make(chan struct{}, 1),
	}
}

// adopt takes over a snapshot that answers without a release.
func (f *follower) adopt(s *serving) {
	s.acquire()
	f.ready = nil
	f.mapped[s.snapshot.Digest()] = &mapping{serving: s}
	f.report(appendlog.Hash{}, nil)
}

// bytesOf returns how many bytes of shards snapshots have. A shard that several of them
// have is in memory once.
func bytesOf(manifests ...*manifest.Manifest) int64 {
	counted := map[manifest.Digest]bool{}
	var n int64
	for _, m := range manifests {
		for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
			for _, sm := range m.Tower(kind).Shards {
				if !counted[sm.Digest] {
					counted[sm.Digest] = true
					n += sm.Size
				}
			}
		}
	}
	return n
}

// run follows until ctx ends, from a release on, and closes what it holds.
func (f *follower) run(ctx context.Context, first *release.Release) {
	watching, stop := context.WithCancel(ctx)
	var watch sync.WaitGroup
	f.note(first)
	watch.Go(func() { f.watch(watching, first) })
	watch.Go(func() { f.service.staleness.watch(watching, f.service.health.changed) })
	defer func() {
		stop()
		watch.Wait()
		f.closeAll()
	}()
	retry := firstRetry
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-f.news:
			retry = firstRetry
		case <-timer.C:
		}
		wait := corruptRetry
		loading, target := f.begin(ctx)
		if target != nil {
			err := f.serve(loading, target)
			switch {
			case ctx.Err() != nil:
				return
			case loading.Err() != nil: // a newer one is there
			case err != nil:
				f.events.NotServed(events.NotServed{Generation: target.Generation, Err: err, Retry: retry})
				f.report(target.Hash, err)
				last := lastRetry
				if errors.Is(err, sections.ErrCorrupt) {
					last = corruptRetry
				}
				wait, retry = retry, min(2*retry, last)
			}
		}
		timer.Reset(min(wait, f.closeOld()))
	}
}

// watch reads the log behind a release until ctx ends.
func (f *follower) watch(ctx context.Context, after *release.Release) {
	s := f.service.staleness
	err := f.releases.Watch(ctx, after, release.Watcher{
		Apply: f.note,
		Unreadable: func(u *release.UnreadableError) {
			f.events.Releases(events.Releases{Change: events.EntryUnreadable, Err: u})
			f.service.target.Store(&target{u.Generation, u.Hash, u})
		},
		Restored: func(r *appendlog.RestoredError) {
			f.events.Releases(events.Releases{Change: events.Restored, Generation: r.Entry.Sequence, Err: r.Err})
			s.accepted()
		},
		Proved: s.proved,
		Failed: s.fail,
	})
	if ctx.Err() == nil {
		s.fail(err)
		f.events.Releases(events.Releases{Change: events.Unfollowed, Err: err})
	}
}

// note remembers the newest release.
func (f *follower) note(r *release.Release) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.newest = r
	f.service.target.Store(&target{r.Generation, r.Hash, nil})
	if f.cancel != nil {
		f.cancel()
	}
	select {
	case f.news <- struct{}{}:
	default:
	}
}

// begin returns the release to serve, nil if it answers already, and a context that
// ends when there is a newer one.
func (f *follower) begin(ctx context.Context) (context.Context, *release.Release) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.cancel != nil {
		f.cancel()
	}
	var loading context.Context
	loading, f.cancel = context.WithCancel(ctx)
	if now := f.service.current.Load(); f.newest == nil || now != nil && now.hash == f.newest.Hash {
		return loading, nil
	}
	return loading, f.newest
}

// serve loads what a release needs and switches to it.
func (f *follower) serve(ctx context.Context, r *release.Release) error {
	start := time.Now()
	f.report(r.Hash, nil)
	manifests := make([]*manifest.Manifest, len(r.Arms))
	for i, a := range r.Arms {
		var err error
		if manifests[i], err = f.store.Manifest(ctx, a.Snapshot); err != nil {
			return err
		}
	}
	if err := f.admit(r, manifests); err != nil {
		return err
	}
	arms := make([]*serving, len(r.Arms))
	opened := 0
	for i, a := range r.Arms {
		m := f.mapped[a.Snapshot]
		if m == nil || m.lost.text() != "" { // a file that is mapped stays what it was, mended or not
			load := events.Load{
				Generation: r.Generation, Arm: a.Name, Snapshot: a.Snapshot,
				Model: manifests[i].Model, ModelVersion: a.ModelVersion, Bytes: bytesOf(manifests[i]),
			}
			next, err := f.service.openLaid(ctx, f.store, load)
			switch {
			case err == nil:
				if m != nil {
					m.release()
				}
				m = &mapping{serving: next, until: start.Add(f.keep)}
				f.mapped[a.Snapshot] = m
				opened++
			case m != nil && m.until.IsZero() && ctx.Err() == nil:
				// It answers, as far as it can; what a release changes about it should count.
				load.Err = err
				f.events.ArmKept(load)
			default:
				return fmt.Errorf("arm %s, snapshot %s: %w", a.Name, a.Snapshot.Short(), err)
			}
		}
		arms[i] = m.serving
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err := r.Remember(ctx, f.memory); err != nil {
		return err // it does not answer with what it has not remembered
	}
	f.service.switchTo(r, arms)
	for d, m := range f.mapped {
		if slices.ContainsFunc(r.Arms, func(a release.Arm) bool { return a.Snapshot == d }) {
			m.until = time.Time{}
		} else if m.until.IsZero() {
			m.until = time.Now().Add(f.keep)
		}
	}
	f.report(r.Hash, nil)
	if f.ready != nil {
		f.ready(arms[0].snapshot)
		f.ready = nil
	}
	told := events.Switch{Generation: r.Generation, Kind: string(r.Kind), Author: r.Author, Opened: opened, Took: time.Since(start)}
	for _, a := range r.Arms {
		told.Arms = append(told.Arms, events.Arm{Name: a.Name, Weight: a.Weight, Snapshot: a.Snapshot})
	}
	f.events.Switched(told)
	return nil
}

// openLaid opens a snapshot, warms it and lays the live log over it, and tells of that. The
// caller releases it.
func (s *Service) openLaid(ctx context.Context, store *snapshots.Store, load events.Load) (*serving, error) {
	start := time.Now()
	s.events.LoadBegin(load)
	open := s.openHere
	if s.router != nil {
		open = s.openElsewhere
	}
	laid, err := open(ctx, store, load.Snapshot)
	if err == nil && s.measured {
		laid.published = publishedAt(ctx, store, load.Snapshot)
	}
	load.Took, load.Err = time.Since(start), err
	s.events.LoadEnd(load)
	return laid, err
}

// openHere opens a snapshot, warms it and lays the live log over it.
func (s *Service) openHere(ctx context.Context, store *snapshots.Store, d manifest.Digest) (*serving, error) {
	opened, err := snapshots.Open(ctx, store, d)
	if err != nil {
		return nil, err
	}
	if err := opened.Warm(ctx); err != nil {
		return nil, errors.Join(err, opened.Close())
	}
	return s.newLaid(ctx, opened)
}

// admit makes sure that what a release needs fits beside what answers. For that it
// closes what no longer answers, the oldest first, and no more of it than it must.
func (f *follower) admit(r *release.Release, manifests []*manifest.Manifest) error {
	needed := map[manifest.Digest]bool{}
	opens := false
	for _, a := range r.Arms {
		needed[a.Snapshot] = true
		opens = opens || f.mapped[a.Snapshot] == nil
	}
	if !opens || f.service.router != nil { // nodes admit what they hold
		return nil
	}
	var staying []*manifest.Manifest
	var kept []manifest.Digest
	for d, m := range f.mapped {
		if m.until.IsZero() || needed[d] {
			staying = append(staying, m.snapshot.Manifest())
		} else {
			kept = append(kept, d)
		}
	}
	have := bytesOf(staying...)
	staying = append(staying, manifests...)
	if least := bytesOf(staying...); least > f.limit {
		return fmt.Errorf("not admitted: it takes %d bytes beside the %d that answer, and %d may be mapped", least-have, have, f.limit)
	}
	// The newest first: those that still fit stay.
	slices.SortFunc(kept, func(a, b manifest.Digest) int {
		return cmp.Or(f.mapped[b].until.Compare(f.mapped[a].until), cmp.Compare(a, b))
	})
	for i, d := range kept {
		if staying = append(staying, f.mapped[d].snapshot.Manifest()); bytesOf(staying...) > f.limit {
			for _, old := range kept[i:] {
				f.close(old)
			}
			break
		}
	}
	return nil
}

func (f *follower) closeAll() {
	for _, m := range f.mapped {
		m.release()
	}
	clear(f.mapped)
}

func (f *follower) close(d manifest.Digest) {
	f.events.Closing(d)
	f.mapped[d].release()
	delete(f.mapped, d)
}

// closeOld closes what was kept long enough, and returns when to look again.
func (f *follower) closeOld() time.Duration {
	next := corruptRetry
	for d, m := range f.mapped {
		if m.until.IsZero() {
			continue
		}
		if left := time.Until(m.until); left > 0 {
			next = min(next, left)
			continue
		}
		f.close(d)
	}
	now := f.service.status.Load()
	f.report(now.of, now.failed)
	return next
}

// report says what the follower does about a release.
func (f *follower) report(of appendlog.Hash, failed error) {
	s := &followerStatus{of: of, failed: failed}
	var open []*manifest.Manifest
	for d, m := range f.mapped {
		open = append(open, m.snapshot.Manifest())
		if !m.until.IsZero() {
			s.kept = append(s.kept, d)
		}
	}
	if s.limit, s.bytes = f.limit, bytesOf(open...); f.service.router != nil {
		s.limit, s.bytes = math.MaxInt64, 0 // nodes map them
	}
	slices.Sort(s.kept)
	f.service.status.Store(s)
}
