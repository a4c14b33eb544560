package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// downWorld is a site of which apps are taken down one after the other, while all servers are
// asked for them without a pause.
type downWorld struct {
	*testing.T
	site *liveSite

	mu    sync.Mutex
	down  map[string]time.Time // since when no server may return it
	head  shard.Position
	next  int
	asked atomic.Int64
}

// TestTakenDownForGood has what may bring an app back happen, after it was taken down, and
// asks all servers for all apps that are, the whole time: none is ever returned once every
// server has been told, or the fence is over.
func TestTakenDownForGood(t *testing.T) {
	t.Parallel() // it waits
	onLiveStores(t, 2, time.Second, func(t *testing.T, s *liveSite) {
		w := &downWorld{T: t, site: s, down: map[string]time.Time{}}
		for _, p := range s.servers {
			p.start(t)
		}
		ctx, stop := context.WithCancel(t.Context())
		var asking sync.WaitGroup
		defer asking.Wait()
		defer stop()
		for _, p := range s.servers {
			asking.Go(func() { w.ask(ctx, p) })
		}
		w.takedown()
		for _, step := range []struct {
			name string
			do   func()
		}{
			{"a switch", w.switches}, {"a rollback", w.rollback}, {"a restart", w.restart}, {"a kill", w.killed},
			{"a server that was down meanwhile", w.downMeanwhile}, {"a server that was cut off meanwhile", w.cutMeanwhile},
			{"a snapshot built before and released after", w.builtBefore},
			{"a log that was summed up and trimmed past a server that was cut off", w.trimmed},
			{"a log that was summed up and trimmed past a server that was down", w.trimmedWhileDown},
			{"a store restored to yesterday", w.yesterday}, {"a store restored and written again", w.rewritten},
		} {
			step.do()
			w.proved(step.name)
			if t.Failed() {
				for _, p := range s.servers {
					t.Logf("the log of server %d:\n%s", p.number, lastLines(p.now().stderr.String(), 30))
				}
				return
			}
		}
		t.Logf("%d answers, %d apps taken down", w.asked.Load(), len(w.down))
	})
}

// ask asks a server for all that is taken down, again and again.
func (w *downWorld) ask(ctx context.Context, p *liveServer) {
	for ctx.Err() == nil {
		sleep(ctx, 5*time.Millisecond)
		w.mu.Lock()
		var apps []string
		for app := range w.down {
			apps = append(apps, app)
		}
		w.mu.Unlock()
		if len(apps) == 0 {
			continue
		}
		asked := time.Now()
		limited, cancel := context.WithTimeout(ctx, 2*time.Second)
		a, err := p.retrieve(limited, nil, apps...)
		cancel()
		if err != nil {
			continue // it does not run, or refuses: it returns nothing
		}
		w.asked.Add(1)
		for _, c := range a.Candidates {
			w.mu.Lock()
			since, now := w.down[c.Id], w.head
			w.mu.Unlock()
			if !since.IsZero() && since.Before(asked) {
				w.Errorf("server %d returns %s, which was taken down %s before it was asked, at %s (the log is at %s)",
					p.number, c.Id, asked.Sub(since).Round(time.Millisecond), wire.Position(a.Live), now)
			}
		}
	}
}

// takedown takes one more app down by some server that runs, and returns it. From when it
// counts on all servers depends on whether they can be told: at the latest the fence later.
func (w *downWorld) takedown() string {
	w.Helper()
	w.next++
	app := appID(w.next)
	ctx, cancel := context.WithTimeout(w.Context(), catchUp)
	defer cancel()
	for {
		for _, p := range w.site.servers {
			limited, cancel := context.WithTimeout(ctx, 2*time.Second)
			at, _, err := p.write(limited, takedownOf(fmt.Sprintf("down-%d", w.next), app))
			cancel()
			if err == nil {
				w.mu.Lock()
				w.down[app], w.head = time.Now().Add(w.site.fence), at
				w.mu.Unlock()
				return app
			}
		}
		require.NoError(w, ctx.Err(), "no server takes a takedown")
	}
}

// proved fails unless every server is ready and proves, at the head of the log, that nothing
// that is taken down can be returned.
func (w *downWorld) proved(after string) {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.Context(), catchUp)
	defer cancel()
	w.mu.Lock()
	var apps []string
	for app := range w.down {
		apps = append(apps, app)
	}
	head := w.head
	w.mu.Unlock()
	for _, p := range w.site.servers {
		require.NoError(w, p.awaitReady(catchUp), "after %s", after)
		u, err := p.url()
		require.NoError(w, err)
		up, at, err := askFor(ctx, w.site, u, "prove", apps, livePositionOf(head))
		for err != nil && ctx.Err() == nil { // a server that is slow for a moment may refuse
			up, at, err = askFor(ctx, w.site, u, "prove", apps, livePositionOf(head))
		}
		require.NoError(w, err, "after %s, server %d", after, p.number)
		assert.False(w, before(at, head), "after %s, server %d is at %s, not %s", after, p.number, at, head)
		for app, is := range up {
			assert.False(w, is, "after %s, server %d can return %s", after, p.number, app)
		}
	}
	time.Sleep(w.site.fence / 10) // those that ask see it, too
}

func (w *downWorld) release(to uint64) {
	w.Helper()
	r, err := w.site.releases.Rollback(w.Context(), release.RollbackOptions{To: to})
	require.NoError(w, err)
	w.serves(r.Generation)
}

// serves waits until all servers answer from a generation.
func (w *downWorld) serves(generation uint64) {
	w.Helper()
	for _, p := range w.site.servers {
		require.Eventually(w, func() bool {
			ctx, cancel := context.WithTimeout(w.Context(), catchUp)
			defer cancel()
			a, err := p.retrieve(ctx, nil, appID(200))
			return err == nil && a.Generation >= generation
		}, catchUp, 5*time.Millisecond)
	}
}

func (w *downWorld) switches() {
	w.release(1)
	w.takedown()
	w.release(3)
}

func (w *downWorld) rollback() {
	w.takedown()
	w.release(1)
}

func (w *downWorld) restart() {
	for _, p := range w.site.servers {
		p.stop(w.T)
		p.start(w.T)
	}
}

func (w *downWorld) killed() {
	w.takedown()
	for _, p := range w.site.servers {
		p.kill()
	}
	for _, p := range w.site.servers {
		p.start(w.T)
	}
}

func (w *downWorld) downMeanwhile() {
	p := w.site.servers[1]
	p.stop(w.T)
	w.takedown()
	w.takedown()
	p.start(w.T)
}

func (w *downWorld) cutMeanwhile() {
	for _, how := range w.site.servers[1].cuts() {
		w.site.servers[1].cutOff(how)
		w.takedown()
		time.Sleep(w.site.fence * 5 / 4)
		w.site.servers[1].heal()
		require.NoError(w, w.site.servers[1].awaitReady(catchUp))
	}
}

// builtBefore releases a third snapshot that was built before apps were taken down.
func (w *downWorld) builtBefore() {
	towers := w.TempDir()
	_, err := w.site.command(w.Context(), "generate", "--out", towers, "--apps", "300", "--users", "80", "--dim", "8", "--interactions-per-user", "0")
	require.NoError(w, err)
	said, err := w.site.command(w.Context(), "build", "--apps", filepath.Join(towers, "apps.parquet"), "--users", filepath.Join(towers, "users.parquet"),
		"--model", "feed", "--model-version", "3", "--metric", "dot", "--shards", "3", "--store", w.site.location, "--cache", w.site.cache)
	require.NoError(w, err)
	lines := strings.Fields(said)
	w.takedown()
	store, err := snapshots.OpenStore(w.Context(), w.site.location, snapshots.Options{Cache: w.site.cache})
	require.NoError(w, err)
	defer store.Close()
	digest, err := store.Resolve(w.Context(), lines[len(lines)-1])
	require.NoError(w, err)
	_, err = w.site.releases.Start(w.Context(), release.StartOptions{Snapshot: digest, Change: release.Change{Override: "a test"}})
	require.NoError(w, err)
	r, err := w.site.releases.Promote(w.Context(), release.Change{}, release.Candidate)
	require.NoError(w, err)
	w.serves(r.Generation)
}

// trimmed sums the log up past a server that is cut off, so that neither the entry that it
// has read last nor the next one is there when it sees the store again.
func (w *downWorld) trimmed() {
	p := w.site.servers[1]
	p.cutOff(p.cuts()[0])
	for range 3 {
		w.takedown()
	}
	w.sumUp()
	w.takedown()
	time.Sleep(w.site.fence)
	p.heal()
}

func (w *downWorld) trimmedWhileDown() {
	p := w.site.servers[1]
	p.kill()
	for range 3 {
		w.takedown()
	}
	w.sumUp()
	p.start(w.T)
}

func (w *downWorld) sumUp() {
	w.Helper()
	text, err := sumUp(w.Context(), w.site)
	require.NoError(w, err)
	if w.site.dir != "" {
		require.NotContains(w, text, "0 entries")
	}
}

// replace replaces the live log by an older copy than all servers have read. An app that is
// taken down in between is down as long as no person has accepted the copy.
func (w *downWorld) replace() (lost string) {
	w.Helper()
	copied, err := w.site.copyLive(w.Context())
	require.NoError(w, err)
	lost = w.takedown()
	w.proved("a copy")
	require.NoError(w, w.site.putBack(w.Context(), copied))
	return lost
}

// refuses fails unless every server refuses queries, and does not start again.
func (w *downWorld) refuses() {
	w.Helper()
	for _, p := range w.site.servers {
		require.Eventually(w, func() bool {
			ctx, cancel := context.WithTimeout(w.Context(), catchUp)
			defer cancel()
			_, err := p.retrieve(ctx, nil, appID(200))
			return reasonOf(err) == "LIVE_STALE"
		}, catchUp, 5*time.Millisecond)
		assert.False(w, p.ready())
		ctx, cancel := context.WithTimeout(w.Context(), catchUp)
		_, _, err := p.write(ctx, takedownOf("to a broken log", appID(200)))
		cancel()
		assert.Error(w, err)
	}
	p := w.site.servers[1]
	p.kill()
	q := p.launch(w.T)
	require.Eventually(w, func() bool { return q.ended() }, catchUp, 5*time.Millisecond, "it starts on a copy that is behind what it remembers")
	assert.NotZero(w, q.cmd.ProcessState.ExitCode())
	assert.Contains(w, q.stderr.String(), "its own memory knows of entry ")
	assert.Contains(w, q.stderr.String(), "accept")
}

// accepts has a person accept the copy, after writing again what was lost.
func (w *downWorld) accepts(lost string) {
	w.Helper()
	_, err := w.site.command(w.Context(), "live", "takedown", "--store", w.site.location, "--cache", w.site.cache, "--reason", "written again", lost)
	require.NoError(w, err)
	at, err := w.site.accept(w.Context())
	require.NoError(w, err)
	w.mu.Lock()
	w.head = at
	w.mu.Unlock()
	w.site.servers[1].start(w.T)
}

func (w *downWorld) yesterday() {
	lost := w.replace()
	w.refuses()
	w.accepts(lost)
}

func (w *downWorld) rewritten() {
	lost := w.replace()
	for i := range 3 { // past the position that the servers have read
		_, err := w.site.command(w.Context(), "live", "restore", "--store", w.site.location, "--cache", w.site.cache, fmt.Sprintf("nobody %d", i))
		require.NoError(w, err)
	}
	w.refuses()
	w.accepts(lost)
}
