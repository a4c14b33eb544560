package main

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/release"
)

// troubles makes one fault after the other for some time, each kind before any comes again,
// and returns when all is well.
func (w *historyWorld) troubles(t *testing.T, lasts time.Duration) {
	faults := []struct {
		name string
		do   func(t *testing.T)
	}{
		{"a server cut off", w.cutOne},
		{"a server cut off", w.cutOne},
		{"all servers cut off", w.cutAll},
		{"a server killed", w.killOne},
		{"a server frozen", w.freezeOne},
		{"a server restarted", w.restartOne},
		{"releases switched", w.switchReleases},
		{"the log trimmed past a server", w.trim},
		{"the store restored", w.restoreStore},
	}
	end := time.Now().Add(lasts)
	for first := true; first || time.Now().Before(end); first = false {
		w.random.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, f := range faults {
			if !first && !time.Now().Before(end) || t.Failed() {
				break
			}
			w.mu.Lock()
			w.faults[f.name]++
			w.mu.Unlock()
			f.do(t)
			time.Sleep(w.some(0.1, 0.3))
		}
	}
}

// some returns a time between two multiples of the fence.
func (w *historyWorld) some(least, most float64) time.Duration {
	return time.Duration((least + w.random.Float64()*(most-least)) * float64(w.site.fence))
}

func (w *historyWorld) one() *liveServer { return w.site.servers[w.random.IntN(len(w.site.servers))] }

// recovered fails unless a server is ready soon, without anybody's help.
func (w *historyWorld) recovered(servers ...*liveServer) {
	for _, p := range servers {
		if err := p.awaitReady(catchUp); err != nil {
			w.failf("%v: %s", err, lastLines(p.now().stderr.String(), 20))
		}
	}
}

func (w *historyWorld) cutOne(*testing.T) {
	p := w.one()
	how := p.cuts()[w.random.IntN(len(p.cuts()))]
	lasts := w.some(0.2, 2.2)
	w.tell("server %d is cut off for %s: %s", p.number, lasts.Round(time.Millisecond), how)
	p.cutOff(how)
	time.Sleep(lasts)
	p.heal()
	w.recovered(p)
}

func (w *historyWorld) cutAll(*testing.T) {
	for _, p := range w.site.servers {
		p.cutOff(p.cuts()[w.random.IntN(len(p.cuts()))])
	}
	lasts := w.some(0.2, 1.8)
	w.tell("all servers are cut off for %s", lasts.Round(time.Millisecond))
	time.Sleep(lasts)
	for _, p := range w.site.servers {
		p.heal()
	}
	w.recovered(w.site.servers...)
}

func (w *historyWorld) killOne(t *testing.T) {
	p := w.one()
	w.tell("server %d is killed", p.number)
	p.kill()
	time.Sleep(w.some(0, 0.5))
	p.start(t)
	w.tell("server %d is there again", p.number)
}

func (w *historyWorld) restartOne(t *testing.T) {
	p := w.one()
	w.tell("server %d is stopped", p.number)
	p.stop(t)
	time.Sleep(w.some(0, 1))
	p.start(t)
	w.tell("server %d is there again", p.number)
}

func (w *historyWorld) freezeOne(*testing.T) {
	p := w.one()
	lasts := w.some(0.2, 2.2)
	w.tell("server %d is frozen for %s", p.number, lasts.Round(time.Millisecond))
	p.freeze()
	time.Sleep(lasts)
	p.thaw()
	w.recovered(p)
}

// switchReleases has the other snapshot serve.
func (w *historyWorld) switchReleases(t *testing.T) {
	now, err := w.site.releases.Current(t.Context())
	require.NoError(t, err)
	first, err := w.site.releases.Get(t.Context(), 1)
	require.NoError(t, err)
	to := uint64(1)
	if now.Arms[0].Snapshot == first.Arms[0].Snapshot {
		to = 3
	}
	w.tell("generation %d is released again", to)
	_, err = w.site.releases.Rollback(t.Context(), release.RollbackOptions{To: to})
	require.NoError(t, err)
	time.Sleep(w.some(0, 1))
}

// trim sums the log up and deletes what is summed up, while a server is cut off.
func (w *historyWorld) trim(t *testing.T) {
	p := w.one()
	how := p.cuts()[0]
	lasts := w.some(0.2, 2)
	w.tell("server %d is cut off for %s, %s, and the log is summed up", p.number, lasts.Round(time.Millisecond), how)
	p.cutOff(how)
	time.Sleep(lasts / 2)
	trimmed, err := sumUp(t.Context(), w.site)
	if err != nil {
		w.failf("sum up the log: %v", err)
	}
	w.tell("of the log there went %s", trimmed)
	time.Sleep(lasts / 2)
	p.heal()
	w.recovered(p)
}

// sumUp writes a checkpoint, and deletes what it sums up where it can be made old enough.
func sumUp(ctx context.Context, s *liveSite) (string, error) {
	r, err := live.Open(ctx, s.bucket, live.Options{})
	if err != nil {
		return "", err
	}
	if _, err := r.Checkpoint(ctx); err != nil {
		return "", err
	}
	if s.dir == "" {
		return "nothing, since a checkpoint in a bucket cannot be made old", nil
	}
	if err := s.ageCheckpoints(); err != nil {
		return "", err
	}
	trimmed, err := r.Trim(ctx, time.Hour)
	return fmt.Sprintf("%d entries before %d", trimmed.Entries, trimmed.Through), err
}

// restoreStore replaces the live log by an older copy, which goes on by itself or does not,
// and accepts that after some time. What the copy does not have is lost, as who accepts it
// is told; nobody sees it come back before.
func (w *historyWorld) restoreStore(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*catchUp)
	defer cancel()
	w.writes.Lock()
	at := w.knows()
	ops, err := w.ask(ctx, 9, w.site.servers[0], "retrieve", w.apps, true)
	for err != nil && ctx.Err() == nil { // a server that is slow for a moment may refuse
		ops, err = w.ask(ctx, 9, w.site.servers[0], "retrieve", w.apps, true)
	}
	var copied liveCopy
	if err == nil {
		copied, err = w.site.copyLive(ctx)
	}
	w.writes.Unlock()
	if err != nil {
		w.failf("copy the store: %v", err)
		return
	}
	w.current().add(ops...)
	down := make([]bool, len(w.apps))
	for _, o := range ops {
		down[o.app] = o.down
	}
	w.tell("the store is copied at %s", at)

	// Every server goes on from the copy, so that it can know that it is one.
	w.write(9, fmt.Sprintf("h%d-restore-%s", w.rounds, w.since()), w.random, w.random.IntN(2) == 0, registersOf-1)
	time.Sleep(w.some(0, 0.5))
	for _, p := range w.site.servers {
		if _, err := w.ask(ctx, 9, p, "retrieve", w.apps, true); err != nil {
			w.failf("server %d does not follow: %v", p.number, err)
			return
		}
	}
	// It takes some time, in which two servers could write entries of one number, each of which
	// is there for a moment: nobody writes meanwhile.
	w.writes.Lock()
	from, head := w.since(), w.knows()
	err = w.site.putBack(ctx, copied)
	w.current().restored(restore{from, w.since(), head})
	w.writes.Unlock()
	if err != nil {
		w.failf("restore the store: %v", err)
		return
	}
	w.tell("the store is replaced by the copy of %s, at %s or later", at, head)
	if w.random.IntN(2) == 0 { // somebody who remembers nothing writes to it
		for n := w.random.IntN(2 * int(head.Sequence-at.Sequence+1)); n >= 0; n-- {
			app := w.random.IntN(registersOf)
			if _, err := w.site.command(ctx, "live", "takedown", "--store", w.site.location, "--cache", w.site.cache, "--reason", "beside the servers", w.apps[app]); err != nil {
				w.tell("the copy cannot be written: %v", err) // where a server has gone on beside it
				break
			}
			down[app] = true
		}
		w.tell("the copy was written to")
	}
	w.refusesCopy(t)
	time.Sleep(w.some(0, 1.3))

	call := w.since()
	accepted, err := w.site.accept(ctx)
	if err != nil {
		w.failf("accept the copy: %v", err)
		return
	}
	w.learn(accepted)
	ret := w.since()
	for app := range w.apps {
		w.current().add(registerOp{client: 9, server: -1, app: app, write: true, down: down[app], call: call, ret: ret, position: accepted, how: "accept"})
	}
	w.tell("the copy is accepted at %s", accepted)
	for _, p := range w.site.servers {
		if p.now().ended() {
			p.start(t)
		}
	}
	w.recovered(w.site.servers...)
}

// refusesCopy starts one of the servers again, which must not serve the copy.
func (w *historyWorld) refusesCopy(t *testing.T) {
	if w.random.IntN(2) == 0 {
		return
	}
	p := w.one()
	p.kill()
	q := p.launch(t)
	for until := time.Now().Add(catchUp); !q.ended() && time.Now().Before(until); time.Sleep(5 * time.Millisecond) {
		if p.ready() {
			w.failf("server %d serves a copy of the store that is behind what it remembers", p.number)
			return
		}
	}
	w.tell("server %d does not start on the copy", p.number)
	if said := q.stderr.String(); !q.ended() || q.cmd.ProcessState.Success() || !strings.Contains(said, "accept") {
		w.failf("server %d, started on a copy of the store, says: %s", p.number, lastLines(said, 20))
	}
}
