package live

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
)

// trial is several processes that append to a store that fails, each event until it is
// acknowledged, and some that die meanwhile.
type trial struct {
	store *objectstest.Faults

	mu    sync.Mutex
	acked map[string]shard.Position // by the app
	wrong error                     // the first thing that must not be
}

func (tr *trial) fail(format string, arguments ...any) {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	if tr.wrong == nil {
		tr.wrong = fmt.Errorf(format, arguments...)
	}
}

// process opens the log, appends takedowns, each under its id until that is confirmed, and
// begins anew now and then.
func (tr *trial) process(name string, events, restarts int) {
	pending := make([]Event, events)
	for i := range pending {
		pending[i] = takedown(fmt.Sprint(name, "/", i))
	}
	for life := 0; len(pending) > 0; life++ {
		r, err := Open(context.Background(), tr.store.Bucket(name), Options{Author: name, Poll: time.Second})
		if err != nil {
			time.Sleep(time.Second)
			continue
		}
		ctx, kill := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { _ = r.Run(ctx) })
		if life < restarts {
			time.AfterFunc(time.Duration(life+1)*700*time.Millisecond, kill)
		}
		for len(pending) > 0 && ctx.Err() == nil {
			n := min(len(pending), 2)
			begun := time.Now()
			receipt, err := r.Append(ctx, pending[:n])
			if took := time.Since(begun); took > 16*time.Second {
				tr.fail("an append took %s", took)
			}
			if err != nil {
				time.Sleep(300 * time.Millisecond)
				continue
			}
			tr.mu.Lock()
			for _, e := range pending[:n] {
				tr.acked[e.Entity] = receipt.Position
			}
			tr.mu.Unlock()
			pending = pending[n:]
		}
		if life >= restarts {
			_, _ = r.Checkpoint(ctx) // it may fail
		}
		kill()
		running.Wait()
	}
}

// Whatever a store does to requests, and whoever dies, each event that was acknowledged is
// there, where it was said to be, and once; and all that follow see the same.
func TestNothingIsLostOrDoubled(t *testing.T) {
	faults := []objectstest.Fault{
		objectstest.Fail, objectstest.Lose, objectstest.Hang, objectstest.LoseHanging, objectstest.Slow, objectstest.Cut, objectstest.Stall, objectstest.Late,
	}
	rapid.Check(t, func(rt *rapid.T) {
		tr := &trial{store: objectstest.NewFaults(), acked: map[string]shard.Position{}}
		seed, share := rapid.Uint64().Draw(rt, "seed"), rapid.Float64Range(0, 0.3).Draw(rt, "share")
		which := rapid.SliceOfNDistinct(rapid.SampledFrom(faults), 1, len(faults), rapid.ID).Draw(rt, "faults")
		processes, events := rapid.IntRange(1, 3).Draw(rt, "processes"), rapid.IntRange(1, 8).Draw(rt, "events")
		restarts := rapid.IntRange(0, 2).Draw(rt, "restarts")
		synctest.Test(t, func(t *testing.T) {
			tr.store.Random(seed, share, which...)
			var follower *Replica
			for follower == nil {
				follower, _ = Open(context.Background(), tr.store.Bucket("follower"), Options{Poll: time.Second})
			}
			ctx, stop := context.WithCancel(context.Background())
			var following, working sync.WaitGroup
			following.Go(func() { _ = follower.Run(ctx) })
			for p := range processes {
				working.Go(func() { tr.process(fmt.Sprint("process ", p), events, restarts) })
			}
			working.Wait()
			tr.store.Heal()
			time.Sleep(2 * time.Minute)
			stop()
			following.Wait()
			tr.check(follower, processes*events)
		})
		if tr.wrong != nil {
			rt.Fatal(tr.wrong)
		}
	})
}

func (tr *trial) check(follower *Replica, events int) {
	s, err := Read(context.Background(), tr.store.Bucket("reader"))
	if err != nil {
		tr.fail("read: %w", err)
		return
	}
	if v := follower.View(); v.Digest != s.Digest() || v.Position != s.Position() {
		tr.fail("the follower is at %v, and the log at %v", v.Position, s.Position())
	}
	if age := follower.View().Proof.Age(); age > 10*time.Second {
		tr.fail("the last proof is %s old", age)
	}
	if n := s.TakenDown().Len(); n != events || len(tr.acked) != events {
		tr.fail("%d events, %d of them acknowledged, and %d are there", events, len(tr.acked), n)
	}
	for app, at := range tr.acked {
		if d, ok := s.TakenDown().Get(app); !ok || d.Sequence > at.Sequence {
			tr.fail("%s was acknowledged at entry %d, and is in %d", app, at.Sequence, d.Sequence)
		}
	}
	// What is in the log twice counts once: in the first of its entries.
	first := map[string]uint64{}
	for e, err := range Log(tr.store.Bucket("reader"), 0).Read(context.Background(), 1) {
		if err != nil {
			tr.fail("read: %w", err)
			return
		}
		c, err := Decode(e.Data)
		if err != nil {
			tr.fail("decode: %w", err)
			return
		}
		for _, event := range c.Events {
			if d, _ := s.TakenDown().Get(event.Entity); first[event.Entity] == 0 {
				first[event.Entity] = e.Sequence
				if d.Sequence != e.Sequence {
					tr.fail("%s is in entry %d, and counts in %d", event.Entity, e.Sequence, d.Sequence)
				}
			}
		}
		if !slices.IsSortedFunc(c.Events, func(a, b Event) int { return a.Time.Compare(b.Time) }) {
			tr.fail("the times of entry %d do not ascend", e.Sequence)
		}
	}
}
