package server

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// waitAt has goroutines with usages come to a gate whose only place is taken, and returns
// the order in which they pass.
func waitAt(t *testing.T, uses []*usage) (passed []int) {
	t.Helper()
	g := newGate(1)
	var first pass
	g.enter(nil, &first, nil)
	var mu sync.Mutex
	var all sync.WaitGroup
	for i, u := range uses {
		all.Go(func() {
			var p pass
			g.enter(nil, &p, u)
			mu.Lock()
			defer mu.Unlock()
			passed = append(passed, i)
			g.leave(&p)
		})
		synctest.Wait()
		time.Sleep(time.Microsecond) // so that turns differ
	}
	require.Empty(t, passed)
	g.leave(&first)
	all.Wait()
	require.Empty(t, g.waiting)
	return passed
}

// TestGateLetsThoseInFirstWhoTookLittle has many connections ask at once what one asks
// now and then.
func TestGateLetsThoseInFirstWhoTookLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		busy := &usage{took: 200 * time.Millisecond, at: now}
		fresh := func() *usage { return &usage{took: firstUse, at: now} }
		known := &usage{took: 5 * time.Millisecond, at: now}
		require.Equal(t, []int{4, 0, 2, 3, 1}, waitAt(t, []*usage{fresh(), busy, fresh(), fresh(), known}))
	})
}

// TestGateTurnsCome lets one in that takes much once it has waited for long enough,
// whatever others do.
func TestGateTurnsCome(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		var first, heavy pass
		g.enter(nil, &first, nil)
		came := time.Now()
		var in sync.WaitGroup
		var passed atomic.Bool
		in.Go(func() {
			g.enter(nil, &heavy, &usage{took: 100 * time.Millisecond, at: came})
			passed.Store(true)
		})
		synctest.Wait()
		light := &usage{at: came}
		for range 1000 { // there is always one that waits
			var p pass
			in.Go(func() {
				g.enter(nil, &p, light)
				g.leave(&p)
			})
			synctest.Wait()
			time.Sleep(2 * longestPass)
			if passed.Load() {
				break
			}
			g.leave(&first)
			first = pass{}
			g.enter(nil, &first, nil)
		}
		in.Wait()
		require.LessOrEqual(t, heavy.since.Sub(came), setBack*100*time.Millisecond+4*longestPass)
		g.leave(&heavy)
		g.leave(&first)
	})
}

// TestGatePlacesComeBack lets the next in when one who has passed does not leave.
func TestGatePlacesComeBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(2)
		passes := make([]pass, 6)
		start := time.Now()
		use := &usage{at: start}
		for i := range passes {
			g.enter(nil, &passes[i], use)
		}
		require.Equal(t, 2*longestPass, time.Since(start))
		require.InDelta(t, 4*longestPass, use.ofLate(time.Now()), float64(longestPass)/10, "the places that were taken away")
		for i := range passes {
			g.leave(&passes[i])
		}
		require.Equal(t, make([]*pass, 2), g.places)
		synctest.Wait()
	})
}

// TestGateGiveBack: who gives back a place of another does not take its turn, which would
// never come.
func TestGateGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		var first, next pass
		g.enter(nil, &first, nil)
		var in sync.WaitGroup
		in.Go(func() { g.enter(nil, &next, nil) })
		synctest.Wait()
		g.giveBack(&next) // it has none yet
		synctest.Wait()
		require.Len(t, g.waiting, 1)
		g.giveBack(&first)
		in.Wait()
		require.Same(t, &next, g.places[0])
		g.giveBack(&next)
		require.Nil(t, g.places[0])
	})
}

// TestGateEndsWaits lets nobody in whose request has ended, and keeps no place for it.
func TestGateEndsWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(1)
		var first, gone, next pass
		g.enter(nil, &first, nil)
		done := make(chan struct{})
		close(done)
		start := time.Now()
		g.enter(done, &gone, nil)
		require.Zero(t, time.Since(start))
		require.Empty(t, g.waiting)
		g.leave(&gone) // as all do in the end
		g.enter(nil, &next, nil)
		require.Equal(t, longestPass, time.Since(start))
		g.leave(&next)
		g.leave(&first)
	})
}

// TestGateProperty takes random histories: never more have places than there are, none
// waits while there is one, and all pass in the end.
func TestGateProperty(outer *testing.T) {
	rapid.Check(outer, func(t *rapid.T) {
		places := rapid.IntRange(1, 4).Draw(t, "places")
		stay := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 30).Draw(t, "stay")               // us
		come := rapid.SliceOfN(rapid.IntRange(0, 500), len(stay), len(stay)).Draw(t, "come") // us
		synctest.Test(outer, func(*testing.T) {
			g := newGate(places)
			var all sync.WaitGroup
			for i := range stay {
				all.Go(func() {
					var p pass
					use := &usage{took: time.Duration(i%3) * time.Millisecond, at: time.Now()}
					g.enter(nil, &p, use)
					g.mu.Lock()
					if p.ready != nil || !slices.Contains(g.places, &p) && time.Since(p.since) < longestPass {
						t.Errorf("%d has passed without a place", i)
					}
					if len(g.waiting) > 0 && slices.Contains(g.places, nil) {
						t.Errorf("%d wait while there is a place", len(g.waiting))
					}
					g.mu.Unlock()
					time.Sleep(time.Duration(stay[i]) * time.Microsecond)
					g.leave(&p)
				})
				time.Sleep(time.Duration(come[i]) * time.Microsecond)
			}
			all.Wait()
			if len(g.waiting) > 0 || slices.ContainsFunc(g.places, func(p *pass) bool { return p != nil }) {
				t.Errorf("%d wait and %v have places in the end", len(g.waiting), g.places)
			}
		})
	})
}

// TestUsageIsForgotten halves what was taken with each second.
func TestUsageIsForgotten(t *testing.T) {
	now := time.Now()
	u := &usage{at: now}
	u.add(80*time.Millisecond, now)
	u.add(80*time.Millisecond, now.Add(halfLife))
	require.Equal(t, 60*time.Millisecond, u.ofLate(now.Add(2*halfLife)))
	require.Equal(t, 60*time.Millisecond, u.ofLate(now), "a clock that is behind changes nothing")
	require.Zero(t, u.ofLate(now.Add(time.Hour)))
	var none *usage
	none.add(time.Second, now)
	require.Zero(t, none.ofLate(now))
}
