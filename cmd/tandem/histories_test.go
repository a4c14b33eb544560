package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
)

var historyTime = flag.Duration("history", 12*time.Second, "how long TestHistories goes on, on each kind of store")

// TestHistories has callers take apps down, restore them and ask for them, through several
// servers of one store, while something goes wrong all the time: servers are cut off from the
// store, killed, frozen and started again, releases are switched, the log is summed up and
// trimmed, and the store is replaced by an older copy, which goes on by itself or not, until a
// person accepts it. What callers did and saw is then judged, see [registers.check].
//
// A history is a sequence of rounds, each judged by itself, from the state in which the one
// before has ended.
//
//	go test ./cmd/tandem -run '^TestHistories$' -v -timeout 0 -history 10m -seed 1
func TestHistories(t *testing.T) {
	t.Parallel() // it waits
	onLiveStores(t, 3, historyFence, func(t *testing.T, s *liveSite) {
		w := newHistoryWorld(t, s)
		defer func() { t.Logf("seed %d, %s: %s", *trialSeed, *historyTime, w) }()
		for end := time.Now().Add(*historyTime); time.Now().Before(end) && !t.Failed(); {
			for _, text := range w.round(t, min(roundTime, time.Until(end))) {
				t.Error(text)
			}
		}
		if t.Failed() {
			t.Logf("again: go test ./cmd/tandem -run '^TestHistories$' -v -timeout 0 -history %s -seed %d\n%s", *historyTime, *trialSeed, strings.Join(w.story, "\n"))
			for _, p := range s.servers {
				if q := p.now(); q != nil {
					t.Logf("the log of server %d:\n%s", p.number, lastLines(q.stderr.String(), 60))
				}
			}
		}
	})
}

const (
	// historyFence is the least that there is, so that a history has many of them.
	historyFence = time.Second
	// roundTime is how long callers and faults go on before a round is judged.
	roundTime = 12 * time.Second
	// registersOf is how many apps are taken down and restored, of which the last slowRegisters
	// stay as they are for several fences: only these show that an answer is too old.
	registersOf   = 8
	slowRegisters = 3
	// confirmWithin is how long it takes at most until a write is acknowledged once nothing
	// is in its way, on a busy machine.
	confirmWithin = 2 * time.Minute
)

// historyWorld is a site with its callers, and what is known of it.
type historyWorld struct {
	site   *liveSite
	random *rand.Rand // of the faults
	apps   []string
	start  time.Time
	down   []bool // as the last round left them
	writes sync.RWMutex
	rounds int
	// story is what went wrong when, in words.
	story []string

	reads, refused, written, retried, repeated, ops atomic.Int64

	mu      sync.Mutex
	known   shard.Position   // the highest that any caller knows of
	history *registers       // of the round
	reasons map[string]int64 // of what was refused
	wrong   []string         // beside what is judged
	faults  map[string]int
}

func newHistoryWorld(t *testing.T, s *liveSite) *historyWorld {
	w := &historyWorld{
		site: s, random: rand.New(rand.NewPCG(*trialSeed, 20)), start: time.Now(), down: make([]bool, registersOf),
		reasons: map[string]int64{}, faults: map[string]int{},
	}
	for i := range registersOf {
		w.apps = append(w.apps, appID(i+1))
	}
	for _, p := range s.servers {
		p.start(t)
	}
	return w
}

func (w *historyWorld) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var faults, reasons []string
	for _, name := range slices.Sorted(maps.Keys(w.faults)) {
		faults = append(faults, fmt.Sprintf("%s %d", name, w.faults[name]))
	}
	for _, name := range slices.Sorted(maps.Keys(w.reasons)) {
		reasons = append(reasons, fmt.Sprintf("%s %d", name, w.reasons[name]))
	}
	return fmt.Sprintf("%d rounds, %d operations on registers: %d answers and %d refusals, %d writes acknowledged after %d repetitions, of which %d had counted before; position %s; faults: %s; refused by: %s",
		w.rounds, w.ops.Load(), w.reads.Load(), w.refused.Load(), w.written.Load(), w.retried.Load(), w.repeated.Load(), w.known,
		strings.Join(faults, ", "), strings.Join(reasons, ", "))
}

func (w *historyWorld) failf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.wrong) < 20 {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: ", w.since().Round(time.Millisecond))+fmt.Sprintf(format, args...))
	}
}

func (w *historyWorld) tell(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.story = append(w.story, fmt.Sprintf("%s ", w.since().Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (w *historyWorld) since() time.Duration { return time.Since(w.start) }

// learn notes a position that a caller knows now.
func (w *historyWorld) learn(p shard.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if before(w.known, p) {
		w.known = p
	}
}

func (w *historyWorld) knows() shard.Position {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.known
}

// round has callers and faults go on for some time, and returns what is wrong.
func (w *historyWorld) round(t *testing.T, lasts time.Duration) []string {
	h := &registers{fence: w.site.fence, first: slices.Clone(w.down)}
	w.mu.Lock()
	w.history, w.wrong = h, nil
	w.mu.Unlock()
	w.rounds++
	ctx, stop := context.WithCancel(t.Context())
	var writers, readers sync.WaitGroup
	seed := func(of int) *rand.Rand { return rand.New(rand.NewPCG(*trialSeed, uint64(1000*w.rounds+of))) }
	for i := range 4 {
		writers.Go(func() { w.writer(ctx, i, seed(i)) })
	}
	for i := 4; i < 9; i++ {
		readers.Go(func() { w.reader(ctx, i, seed(i), i < 6) })
	}
	w.troubles(t, lasts)
	stop()
	writers.Wait() // all is well now, so that what was written is acknowledged
	readers.Wait()
	w.settle(t, h)
	w.ops.Add(int64(len(h.ops)))
	w.mu.Lock()
	defer w.mu.Unlock()
	return append(w.wrong, h.check()...)
}

// settle notes what each server says once nothing goes on, which they must agree about.
func (w *historyWorld) settle(t *testing.T, h *registers) {
	digests := map[string][]int{}
	for _, p := range w.site.servers {
		ctx, cancel := context.WithTimeout(t.Context(), catchUp)
		ops, err := w.ask(ctx, 9, p, "retrieve", w.apps, true)
		for err != nil && ctx.Err() == nil { // a server that is slow for a moment may refuse
			ops, err = w.ask(ctx, 9, p, "retrieve", w.apps, true)
		}
		if err != nil {
			w.failf("server %d says nothing at the end of the round: %v", p.number, err)
		}
		h.add(ops...)
		for _, o := range ops {
			w.down[o.app] = o.down
		}
		s, err := p.status(ctx)
		cancel()
		if err != nil {
			w.failf("server %d has no status at the end of the round: %v", p.number, err)
			continue
		}
		of := fmt.Sprintf("%s %s %s", wire.Position(s.Position), s.Hash, s.Digest)
		digests[of] = append(digests[of], p.number)
	}
	if len(digests) > 1 {
		w.failf("the servers differ: %v", digests)
	}
}

// writer takes apps down and restores them until ctx ends.
func (w *historyWorld) writer(ctx context.Context, client int, random *rand.Rand) {
	for n := 0; ctx.Err() == nil; n++ {
		var apps []int
		pause := time.Duration(random.ExpFloat64() * float64(120*time.Millisecond))
		if client == 0 { // the slow ones, each by itself
			apps = []int{registersOf - 1 - random.IntN(slowRegisters)}
			pause = time.Duration((0.5 + random.Float64()) * float64(w.site.fence))
		} else {
			apps = random.Perm(registersOf - slowRegisters)[:1+random.IntN(8)/7]
		}
		w.writes.RLock()
		w.write(client, fmt.Sprintf("h%d-%d-%d", w.rounds, client, n), random, random.IntN(2) == 0, apps...)
		w.writes.RUnlock()
		sleep(ctx, pause)
	}
}

// sleep waits, unless ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// write takes apps down or restores them, and tries again, under the same ids, until it is
// acknowledged.
func (w *historyWorld) write(client int, id string, random *rand.Rand, down bool, apps ...int) {
	events := make([]*tandemv1.LiveEvent, len(apps))
	for i, app := range apps {
		events[i] = restoreOf(fmt.Sprintf("%s-%d", id, i), w.apps[app])
		if down {
			events[i] = takedownOf(fmt.Sprintf("%s-%d", id, i), w.apps[app])
		}
	}
	call := w.since()
	for began := time.Now(); ; {
		p := w.site.servers[random.IntN(len(w.site.servers))]
		limit := time.Duration((0.3 + 2*random.Float64()) * float64(w.site.fence))
		ctx, cancel := context.WithTimeout(context.Background(), limit)
		at, repeated, err := p.write(ctx, events...)
		cancel()
		if err == nil {
			w.learn(at)
			ret := w.since()
			w.written.Add(1)
			w.repeated.Add(int64(repeated))
			if repeated != 0 && repeated != len(events) {
				w.failf("of the %d events of one message %d had counted: %v", len(events), repeated, events)
			}
			for _, app := range apps {
				w.current().add(registerOp{client: client, server: p.number, app: app, write: true, down: down, call: call, ret: ret, position: at, how: "write " + id})
			}
			return
		}
		w.note("write", err)
		w.retried.Add(1)
		if time.Since(began) > confirmWithin+4*w.site.fence {
			w.failf("write %s is not acknowledged after %s: %v", id, time.Since(began).Round(time.Second), err)
			for _, app := range apps { // it may count at any time
				w.current().add(registerOp{client: client, app: app, write: true, down: down, call: call, ret: 1 << 60, how: "write " + id})
			}
			return
		}
		time.Sleep(time.Duration(random.Float64() * float64(50*time.Millisecond)))
	}
}

func (w *historyWorld) current() *registers {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.history
}

// note notes an error of a caller, which must be one of those that there may be.
func (w *historyWorld) note(what string, err error) {
	code, reason := connect.CodeOf(err), reasonOf(err)
	name := reason
	switch {
	case reason == "LIVE_STALE", reason == "LIVE_BEHIND", reason == "LIVE_UNCONFIRMED", reason == "LIVE_LOG_BROKEN", reason == "NOT_READY",
		reason == "STOPPING", reason == "DEADLINE_EXCEEDED", reason == "OVERLOADED",
		reason == "LIVE_LOG_UNKNOWN": // of the log before a person has accepted another
	case reason == "" && (code == connect.CodeDeadlineExceeded || code == connect.CodeUnavailable || errors.Is(err, io.EOF) || errors.As(err, new(*url.Error)) || errors.As(err, new(*net.OpError))):
		name = code.String() // of the connection, or the process
	default:
		w.failf("%s fails: %v (%s)", what, err, reason)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.reasons[what+" "+name]++
}

// reader asks until ctx ends, with min_live of all that any caller knows or without.
func (w *historyWorld) reader(ctx context.Context, client int, random *rand.Rand, strict bool) {
	kinds := []string{"retrieve", "retrieve", "retrieve", "batch", "embeddings", "by app"}
	for ctx.Err() == nil {
		p := w.site.servers[random.IntN(len(w.site.servers))]
		how, apps := kinds[random.IntN(len(kinds))], w.apps
		if strict && random.IntN(5) == 0 {
			how = "prove"
		}
		if how == "by app" {
			i := random.IntN(len(apps))
			apps = apps[i : i+1]
		}
		limited, cancel := context.WithTimeout(ctx, time.Duration((0.3+2*random.Float64())*float64(w.site.fence)))
		ops, err := w.ask(limited, client, p, how, apps, strict)
		cancel()
		switch {
		case err == nil:
			w.current().add(ops...)
			w.reads.Add(1)
		case ctx.Err() != nil:
			return
		default:
			w.note("read", err)
			w.refused.Add(1)
		}
		sleep(ctx, time.Duration(random.Float64()*float64(20*time.Millisecond)))
	}
}

// ask asks a server for apps in one of several ways, and returns what it says of each.
func (w *historyWorld) ask(ctx context.Context, client int, p *liveServer, how string, apps []string, strict bool) ([]registerOp, error) {
	u, err := p.url()
	if err != nil {
		return nil, err
	}
	call := w.since()
	var minLive *tandemv1.LivePosition
	if strict {
		minLive = livePositionOf(w.knows())
	}
	up, at, err := askFor(ctx, w.site, u, how, apps, minLive)
	if err != nil {
		return nil, err
	}
	w.learn(at)
	ret := w.since()
	if wanted := wire.Position(minLive); at != (shard.Position{}) && before(at, wanted) {
		w.failf("server %d answers %s at %s, asked for %s", p.number, how, at, wanted)
	}
	ops := make([]registerOp, len(apps))
	for i, app := range apps {
		ops[i] = registerOp{
			client: client, server: p.number, app: slices.Index(w.apps, app), down: !up[app],
			call: call, ret: ret, strict: strict, position: at, how: how,
		}
	}
	return ops, nil
}

// askFor asks which of some apps may be returned, and returns that and the position of the
// answer.
func askFor(ctx context.Context, s *liveSite, u, how string, apps []string, minLive *tandemv1.LivePosition) (map[string]bool, shard.Position, error) {
	up := map[string]bool{}
	retrieval := tandemv1connect.NewRetrievalServiceClient(s.http, u)
	retrieved := func(a *tandemv1.RetrieveResponse) shard.Position {
		for _, c := range a.Candidates {
			up[c.Id] = true
		}
		return wire.Position(a.Live)
	}
	switch how {
	case "batch":
		// Of two answers, which may be of two positions, the second counts.
		r := retrieveRequest(minLive, apps)
		a, err := retrieval.BatchRetrieve(ctx, connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{r, r}}))
		if err != nil {
			return nil, shard.Position{}, err
		}
		if failed := a.Msg.Results[1].GetError(); failed != nil {
			err := connect.NewError(connect.CodeUnavailable, errors.New(failed.Message))
			if failed.Info != nil {
				d, detailErr := connect.NewErrorDetail(failed.Info)
				if detailErr != nil {
					return nil, shard.Position{}, detailErr
				}
				err.AddDetail(d)
			}
			return nil, shard.Position{}, err
		}
		return up, retrieved(a.Msg.Results[1].GetResponse()), nil
	case "embeddings":
		a, err := retrieval.GetEmbeddings(ctx, connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: apps, MinLive: minLive}))
		if err != nil {
			return nil, shard.Position{}, err
		}
		for _, e := range a.Msg.Embeddings {
			up[e.Id] = true
		}
		return up, wire.Position(a.Msg.Live), nil
	case "by app":
		a, err := retrieval.Retrieve(ctx, connect.NewRequest(&tandemv1.RetrieveRequest{AppId: apps[0], K: 1, MinLive: minLive}))
		if reasonOf(err) == "ENTITY_UNKNOWN" {
			return up, shard.Position{}, nil // of a position that an error does not tell
		}
		if err != nil {
			return nil, shard.Position{}, err
		}
		up[apps[0]] = true
		return up, wire.Position(a.Msg.Live), nil
	case "prove":
		a, err := tandemv1connect.NewLiveServiceClient(s.http, u).Prove(ctx, connect.NewRequest(&tandemv1.ProveRequest{Apps: apps, MinLive: minLive}))
		if err != nil {
			return nil, shard.Position{}, err
		}
		for _, proof := range a.Msg.Apps {
			// One that has no snapshot yet returns nothing at all.
			up[proof.App] = proof.Takedown == nil
			if !proof.CannotBeReturned && proof.Takedown != nil {
				return nil, shard.Position{}, fmt.Errorf("it can return %s in spite of the takedown %v", proof.App, proof.Takedown)
			}
		}
		return up, wire.Position(a.Msg.Position), nil
	}
	a, err := retrieval.Retrieve(ctx, connect.NewRequest(retrieveRequest(minLive, apps)))
	if err != nil {
		return nil, shard.Position{}, err
	}
	return up, retrieved(a.Msg), nil
}

// lastLines returns the last lines of a text.
func lastLines(text string, n int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
