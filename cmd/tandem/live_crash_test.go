package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
)

var outage = flag.Duration("outage", 5*time.Second, "how long the store is away in TestStoreOutage")

// confirmation is how long a write may take until it is confirmed, with all that is sent again
// of it. It is long, since a busy machine is no fault of a server.
const confirmation = 10 * time.Minute

// message is one write of some events, under their ids.
type message struct {
	events       []*tandemv1.LiveEvent
	asked        time.Time // when it was made, to be sent at once
	acknowledged bool
	answered     time.Time
}

// newMessage returns a message that takes so many apps down that nobody else does.
func newMessage(name string, apps int) *message {
	m := &message{asked: time.Now()}
	for i := range apps {
		id := fmt.Sprintf("%s-%d", name, i)
		m.events = append(m.events, takedownOf(id, "app "+id))
	}
	return m
}

// appending is what writers have sent to a store.
type appending struct {
	mu   sync.Mutex
	sent []*message

	checked int // how many of sent, the first of all, were acknowledged and then looked for
	whole   int // and how many events these have
}

// writeUntil has a writer send messages of 1 to 12 events to a server until it has ended or
// ctx ends.
func (a *appending) writeUntil(ctx context.Context, p *liveServer, name string, random *rand.Rand) {
	for n := 0; ctx.Err() == nil && !p.now().ended(); n++ {
		m := newMessage(fmt.Sprintf("%s-%d", name, n), 1+random.IntN(12))
		a.mu.Lock()
		a.sent = append(a.sent, m)
		a.mu.Unlock()
		limited, cancel := context.WithTimeout(ctx, catchUp)
		_, repeated, err := p.write(limited, m.events...)
		cancel()
		a.mu.Lock()
		m.acknowledged = err == nil && repeated == 0
		a.mu.Unlock()
	}
}

// check reads the store and fails unless each message is there wholly or not at all, and
// wholly if it was acknowledged. What was acknowledged and found once is counted from then on:
// looking for all of it after each kill would take most of the time.
func (a *appending) check(t *testing.T, s *liveSite) {
	t.Helper()
	state, err := live.Read(t.Context(), s.bucket)
	require.NoError(t, err)
	down := state.TakenDown()
	there, settled := a.whole, true
	for _, m := range a.sent[a.checked:] {
		n := 0
		for _, e := range m.events {
			if down.Has(e.GetTakedown().App) {
				n++
			}
		}
		there += n
		switch {
		case n == len(m.events):
		case m.acknowledged:
			t.Errorf("of %d events that were acknowledged, the first %s, %d are there", len(m.events), m.events[0].EventId, n)
		case n > 0:
			t.Errorf("of %d events of one message, the first %s, %d are there", len(m.events), m.events[0].EventId, n)
		}
		if settled = settled && m.acknowledged; settled {
			a.checked++
			a.whole += n
		}
	}
	assert.Equal(t, there, down.Len(), "nothing else is there, and nothing is lost")
}

// again sends all that was not acknowledged again, under its ids, which must count once.
func (a *appending) again(t *testing.T, p *liveServer) (repeated int) {
	t.Helper()
	var counted atomic.Int64
	sending, ctx := errgroup.WithContext(t.Context())
	sending.SetLimit(32) // they share entries
	for _, m := range a.sent {
		if m.acknowledged {
			continue
		}
		sending.Go(func() error {
			_, n, err := p.writeUntilConfirmed(ctx, m.events...)
			if err != nil {
				return err
			}
			if n != 0 && n != len(m.events) {
				t.Errorf("of %d events of one message, the first %s, %d had counted", len(m.events), m.events[0].EventId, n)
			}
			m.acknowledged = true
			counted.Add(int64(n))
			return nil
		})
	}
	require.NoError(t, sending.Wait())
	return int(counted.Load())
}

// writeUntilConfirmed writes events, and again under their ids as long as the server does not
// say whether they were written. It returns the position behind them, and how many there were
// before the write that was confirmed.
func (p *liveServer) writeUntilConfirmed(ctx context.Context, events ...*tandemv1.LiveEvent) (position shard.Position, repeated int, err error) {
	for until := time.Now().Add(confirmation); ; sleep(ctx, 50*time.Millisecond) {
		limited, cancel := context.WithTimeout(ctx, catchUp)
		position, repeated, err = p.write(limited, events...)
		cancel()
		if err == nil {
			return position, repeated, nil
		}
		q, code := p.now(), connect.CodeOf(err)
		if q == nil || q.ended() || ctx.Err() != nil || time.Now().After(until) || code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded {
			return position, 0, fmt.Errorf("server %d is asked to write %d events, the first %s: %w", p.number, len(events), events[0].EventId, err)
		}
	}
}

// A server that is killed while it appends loses nothing that it has acknowledged, and leaves
// no message half: what callers send again under its ids counts once. The next server goes on
// without a hand.
//
//	go test ./cmd/tandem -run '^TestKilledAppenders$' -v -timeout 0 -strace -kills 200 -seed 1
func TestKilledAppenders(t *testing.T) {
	t.Parallel() // it waits
	onLiveStores(t, 1, 5*time.Second, func(t *testing.T, s *liveSite) {
		p, a := s.servers[0], &appending{}
		random := rand.New(rand.NewPCG(*trialSeed, 21))
		at, repeated := map[string]int{}, 0
		for i := range *kills {
			how := p.startToDie(t, random)
			at[how]++
			q := p.now()
			ctx, stop := context.WithCancel(t.Context())
			var writers sync.WaitGroup
			for writer := range 4 {
				name := fmt.Sprintf("%d-%d", i, writer)
				of := rand.New(rand.NewPCG(*trialSeed, uint64(100*i+writer)))
				writers.Go(func() { a.writeUntil(ctx, p, name, of) })
			}
			select {
			case <-q.done:
			case <-time.After(time.Duration((0.02 + random.Float64()) * float64(400*time.Millisecond))):
				p.kill()
			}
			stop()
			writers.Wait()
			a.check(t, s)
			p.start(t)
			repeated += a.again(t, p) // what it confirms is looked for after the next kill
			p.stop(t)
			if t.Failed() {
				t.Logf("seed %d, kill %d, %s", *trialSeed, i, how)
				return
			}
		}
		a.checked, a.whole = 0, 0 // all of it
		a.check(t, s)
		t.Logf("seed %d: killed %v, %d messages, of those sent again %d events had counted", *trialSeed, at, len(a.sent), repeated)
	})
}

// startToDie starts a server that will be killed after some time, or where strace is asked for
// mostly in the middle of one of the system calls by which something becomes durable.
func (p *liveServer) startToDie(t *testing.T, random *rand.Rand) (how string) {
	calls := []string{"write", "fsync", "linkat", "unlinkat", "openat", "renameat"}
	if p.link == "" || !*faultStrace || random.IntN(4) == 0 {
		p.start(t)
		return "after some time"
	}
	call, n := calls[random.IntN(len(calls))], 1+random.IntN(60)
	p.launchUnder(t, []string{"strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e", fmt.Sprintf("inject=%s:signal=KILL:when=%d", call, n), "--"})
	for until := time.Now().Add(catchUp); !p.now().ended() && !p.ready() && time.Now().Before(until); {
		time.Sleep(2 * time.Millisecond)
	}
	return "in " + call
}

// While a store is away queries go on until the fence, events are refused as unavailable,
// and when it is back, without a hand, none of them is lost or counts twice for who sends it
// again under its id.
//
//	go test ./cmd/tandem -run '^TestStoreOutage$' -v -timeout 0 -outage 60s
func TestStoreOutage(t *testing.T) {
	t.Parallel() // it waits
	const fence = 2 * time.Second
	onLiveStores(t, 2, fence, func(t *testing.T, s *liveSite) {
		for _, p := range s.servers {
			p.start(t)
		}
		for _, how := range s.servers[0].cuts() {
			if how != string(slow) && how != "some" { // these are no outages
				t.Run(how, func(t *testing.T) { outageOf(t, s, how, *outage) })
			}
		}
	})
}

// outageOf has a store be away in one way, while callers read and write.
func outageOf(t *testing.T, s *liveSite, how string, lasts time.Duration) {
	type reading struct {
		server    int
		at        time.Time // when it was asked, and answered
		done      time.Time
		refusal   string        // the reason; empty for an answer
		staleness time.Duration // of an answer: how old its proof was, by the server
	}
	var mu sync.Mutex
	var readings []reading
	a := &appending{}
	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	refused := map[string]int{}
	for i, p := range s.servers {
		callers.Go(func() {
			for ctx.Err() == nil {
				r := reading{server: i, at: time.Now()}
				limited, cancel := context.WithTimeout(ctx, catchUp)
				answer, err := p.retrieve(limited, nil, appID(1), appID(2))
				cancel()
				if ctx.Err() != nil {
					return
				}
				r.done = time.Now()
				r.staleness = answer.GetStaleness().AsDuration()
				if err != nil {
					r.refusal = reasonOf(err)
					if connect.CodeOf(err) != connect.CodeUnavailable || r.refusal != "LIVE_STALE" {
						t.Errorf("a query fails: %v", err)
					}
				}
				mu.Lock()
				readings = append(readings, r)
				mu.Unlock()
				sleep(ctx, 5*time.Millisecond)
			}
		})
		for writer := range 2 {
			random := rand.New(rand.NewPCG(*trialSeed, uint64(10*i+writer)))
			callers.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					m := newMessage(fmt.Sprintf("%s %s-%d-%d-%d", t.Name(), how, i, writer, n), 1+random.IntN(10))
					mu.Lock()
					a.sent = append(a.sent, m)
					mu.Unlock()
					limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
					_, repeated, err := p.write(limited, m.events...)
					cancel()
					mu.Lock()
					m.acknowledged, m.answered = err == nil, time.Now()
					if err != nil {
						refused[fmt.Sprintf("%s %s", connect.CodeOf(err), reasonOf(err))]++
						// The caller's own deadline may come before the server's answer.
						if code := connect.CodeOf(err); code != connect.CodeUnavailable && code != connect.CodeDeadlineExceeded {
							t.Errorf("a write fails: %v", err)
						}
					}
					mu.Unlock()
					if repeated != 0 {
						t.Errorf("of a new message %d events had counted", repeated)
					}
					sleep(ctx, 20*time.Millisecond)
				}
			})
		}
	}
	time.Sleep(time.Second)
	began := time.Now()
	for _, p := range s.servers {
		p.cutOff(how)
	}
	cutAt := time.Now()
	time.Sleep(lasts)
	for _, p := range s.servers {
		p.heal()
	}
	ended := time.Now()
	for _, p := range s.servers {
		assert.NoError(t, p.awaitReady(catchUp))
	}
	back := time.Since(ended)
	time.Sleep(time.Second)
	stop()
	callers.Wait()

	// The fence is judged by what servers say of their proofs, and not by when the store went
	// away: on a busy machine a proof may have been old by then. When the proof of an answer was
	// made is known to within how long the answer took.
	lastAnswer, newest, refusals := map[int]time.Duration{}, map[int]time.Time{}, map[int]int{}
	for _, r := range readings { // of each server in their order
		from, to := r.at.Add(-r.staleness), r.done.Add(-r.staleness)
		switch answered := r.refusal == ""; {
		case !answered && r.done.Sub(newest[r.server]) < s.fence:
			t.Errorf("server %d refuses when its last proof is %s old at most, and the fence is %s", r.server, r.done.Sub(newest[r.server]), s.fence)
		case !answered:
			refusals[r.server]++
		case r.staleness > s.fence:
			t.Errorf("server %d answers with a proof that is %s old, and the fence is %s", r.server, r.staleness, s.fence)
		case from.After(cutAt) && to.Before(ended):
			t.Errorf("server %d has a proof that was made %s after it was cut off", r.server, from.Sub(cutAt))
		default:
			if from.After(newest[r.server]) {
				newest[r.server] = from
			}
			if r.at.Before(ended) {
				lastAnswer[r.server] = max(lastAnswer[r.server], r.done.Sub(began))
			}
		}
	}
	for i := range s.servers {
		assert.True(t, refusals[i] > 0 || lasts <= s.fence, "server %d has not refused a query in an outage of %s", i, lasts)
	}
	for _, m := range a.sent {
		if m.acknowledged && m.asked.After(cutAt) && m.answered.Before(ended) {
			t.Errorf("a write is acknowledged that was sent %s after the store was cut off", m.asked.Sub(cutAt))
		}
	}
	lost := 0
	for _, m := range a.sent {
		if !m.acknowledged {
			lost++
		}
	}
	counted := a.again(t, s.servers[0])
	again := a.again(t, s.servers[1])
	assert.Zero(t, again)
	assert.NotEmpty(t, refused)
	checkCounted(t, s, a)
	t.Logf("away for %s: last answers after %v of the fence of %s, ready again after %s; %d messages, refused: %v, %d not acknowledged, of which %d events had counted",
		lasts, lastAnswer, s.fence, back.Round(time.Millisecond), len(a.sent), refused, lost, counted)
}

// checkCounted fails unless every server knows each app that was to be taken down, and all
// servers amount to the same.
func checkCounted(t *testing.T, s *liveSite, a *appending) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), confirmation)
	defer cancel()
	head, _, err := s.servers[0].writeUntilConfirmed(ctx, restoreOf("the last of "+t.Name(), "nobody")) // all that was written comes before
	require.NoError(t, err)
	var apps []string
	for _, m := range a.sent {
		for _, e := range m.events {
			apps = append(apps, e.GetTakedown().App)
		}
	}
	told := map[string]bool{}
	for _, p := range s.servers {
		u, err := p.url()
		require.NoError(t, err)
		for some := range slices.Chunk(apps, 1000) {
			answer, err := tandemv1connect.NewLiveServiceClient(s.http, u).Prove(ctx, connect.NewRequest(&tandemv1.ProveRequest{Apps: some, MinLive: livePositionOf(head)}))
			require.NoError(t, err)
			for _, proof := range answer.Msg.Apps {
				if proof.Takedown == nil {
					t.Errorf("server %d does not know the takedown of %s", p.number, proof.App)
				}
			}
		}
		status, err := p.status(ctx)
		require.NoError(t, err)
		told[fmt.Sprintf("%s %s", wire.Position(status.Position), status.Digest)] = true
	}
	assert.Len(t, told, 1, "the servers differ")
}
