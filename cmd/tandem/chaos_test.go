package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/shard/release"
)

var chaosTime = flag.Duration("chaos", 20*time.Second, "how long TestReleasesBehindABrokenProxy goes on")

const (
	// catchUp is how long a server may take to serve the newest release once the store
	// answers again, on a busy machine.
	catchUp = 2 * time.Minute
	// freshAgain is the staleness of a server whose store has answered for healthyFor.
	freshAgain, healthyFor = 5 * time.Second, 30 * time.Second
	// clockSlack is what the clock readings of a server and of a test may be apart.
	clockSlack = 20 * time.Millisecond
)

// TestReleasesBehindABrokenProxy has a server follow releases in an S3 store through a
// proxy that hangs, cuts, slows and fails a share of its requests, while a publisher
// beside the proxy releases, and clients ask. All the while the server answers, right, as
// a release says that was there, and never from an older one than before; it says how old
// its knowledge is, and not less than the proxy lets it be. It serves the newest release
// soon after the end.
//
//	TANDEM_TEST_S3=... go test ./cmd/tandem -run TestReleasesBehindABrokenProxy -v -timeout 0 -chaos 30m -seed 1
func TestReleasesBehindABrokenProxy(t *testing.T) {
	t.Parallel() // it waits
	c := newChaos(t)
	server := c.serve(t)
	running, stop := context.WithCancel(t.Context())
	publishing, stopPublishing := context.WithCancel(running)
	var parts, publisher sync.WaitGroup
	publisher.Go(func() { c.publish(publishing) })
	for i := range 2 {
		parts.Go(func() { c.ask(running, uint64(i)) })
	}
	parts.Go(func() { c.watch(running) })
	c.phases(running)
	ended := time.Now()
	stopPublishing()
	publisher.Wait()
	last, err := c.releases.Rollback(t.Context(), release.RollbackOptions{Change: release.Change{Reason: "the end"}, To: c.only[0]})
	if assert.NoError(t, err) {
		c.note(last)
	}
	var took time.Duration
	for took = 0; took < catchUp && c.served.Load() < c.head(); took = time.Since(ended) {
		time.Sleep(10 * time.Millisecond)
	}
	if c.served.Load() < c.head() {
		c.failf("%s after the end it serves generation %d, not %d", catchUp, c.served.Load(), c.head())
	}
	for time.Since(ended) < catchUp && c.staleness.Load() > int64(freshAgain) {
		time.Sleep(10 * time.Millisecond)
	}
	if s := time.Duration(c.staleness.Load()); s > freshAgain {
		c.failf("%s after the end it is %s stale", catchUp, s)
	}
	stop()
	parts.Wait()
	server.stop(c)
	c.check(t)
	c.replay(t)
	t.Logf("seed %d, %s: %s; caught up %s after the end", *trialSeed, *chaosTime, c, took.Round(time.Millisecond))
	for _, text := range c.errors {
		t.Error(text)
	}
	if t.Failed() {
		t.Logf("the server's log:\n%s", server.stderr)
	}
}

// chaos is a store in S3, a broken proxy before it, and what became of a server there.
type chaos struct {
	releases  *release.Releases
	snapshots []string
	only      []uint64 // generations with one arm, of each of the snapshots
	cacheSize int64    // enough for the largest two
	answers   servingAnswers
	proxy     *brokenProxy
	behind    string // location of the store behind the proxy
	ahead     string // and beside it
	server    string // base URL
	http      *http.Client

	answered  atomic.Int64
	served    atomic.Uint64 // the newest generation that answered
	staleness atomic.Int64  // that the server said last; the longest duration before it says any

	mu      sync.Mutex
	log     map[uint64]*release.Release
	seen    map[sight]time.Time // when an answer said so first
	wrong   map[string]int      // how often, by its text
	errors  []string            // the first of each
	longest time.Duration       // staleness that was claimed
	truth   time.Duration       // what it was at least, at its longest
}

// sight is what an answer says of the release that it is from.
type sight struct {
	generation                    uint64
	arm, snapshot, model, version string
}

func (c *chaos) failf(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	const most = 3
	if c.wrong[format]++; c.wrong[format] <= most {
		c.errors = append(c.errors, time.Now().Format(time.TimeOnly)+" "+fmt.Sprintf(format, args...))
	}
}

// retrieve asks for the candidates of a user.
func (c *chaos) retrieve(server, user string) (*tandemv1.RetrieveResponse, error) {
	one := 1.0
	a, err := tandemv1connect.NewRetrievalServiceClient(c.http, server).
		Retrieve(context.Background(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: user, K: 5, RecallTarget: &one}))
	if err != nil {
		return nil, err
	}
	return a.Msg, nil
}

// note remembers a release.
func (c *chaos) note(r *release.Release) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.log[r.Generation] = r
}

// head is the newest generation that is known to be released.
func (c *chaos) head() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var head uint64
	for generation := range c.log {
		head = max(head, generation)
	}
	return head
}

// ask asks until ctx ends, and checks the answers.
func (c *chaos) ask(ctx context.Context, client uint64) {
	random := rand.New(rand.NewPCG(*trialSeed, 100+client))
	for ctx.Err() == nil {
		user := userID(random.IntN(users))
		before := c.served.Load()
		a, err := c.retrieve(c.server, user)
		if err != nil {
			c.failf("query for %s: %v", user, err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		c.answered.Add(1)
		if a.Generation < before {
			c.failf("it answers from generation %d after %d", a.Generation, before)
		}
		for now := before; now < a.Generation && !c.served.CompareAndSwap(now, a.Generation); now = c.served.Load() {
		}
		if want := c.answers[a.Snapshot][user]; candidates(a) != want || want == "" {
			c.failf("snapshot %s answers %s for %s, not %s", a.Snapshot, candidates(a), user, want)
		}
		s := sight{a.Generation, a.Arm, a.Snapshot, a.Model, a.ModelVersion}
		c.mu.Lock()
		if _, known := c.seen[s]; !known {
			c.seen[s] = time.Now()
		}
		c.mu.Unlock()
		time.Sleep(5 * time.Millisecond)
	}
}

// check looks whether what answers were from was released when they were given.
func (c *chaos) check(t *testing.T) {
	var last uint64
	for r, err := range c.releases.History(t.Context()) {
		require.NoError(t, err)
		assert.True(t, last == 0 || r.Generation == last-1, "the log has a gap below %d", last)
		last = r.Generation
		c.note(r)
	}
	for s, first := range c.seen {
		r := c.log[s.generation]
		if r == nil {
			c.failf("an answer is from generation %d, which was never released", s.generation)
			continue
		}
		a := r.Arm(s.arm)
		if a == nil || string(a.Snapshot) != s.snapshot || a.ModelVersion != s.version || r.Model != s.model || a.Weight == 0 {
			c.failf("an answer is from %+v, the release is %s", s, asJSON(r))
		}
		if first.Before(r.Time) {
			c.failf("an answer at %s is from generation %d, released at %s", first, s.generation, r.Time)
		}
	}
}

// replay reads what the server has recorded behind the proxy.
func (c *chaos) replay(t *testing.T) {
	var said, stderr bytes.Buffer
	code := run(t.Context(), []string{"replay", "--store", c.ahead, "--cache", t.TempDir(), "--against", c.snapshots[0], "--max-failed", "0"}, &said, &stderr)
	if code != 0 || said.Len() == 0 {
		c.failf("replay exits with %d: %s%s", code, &said, &stderr)
	}
}

func asJSON(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// phases puts the proxy through troubles for the time of the test. A phase of the whole
// test lasts 10 to 40 seconds; in a short one they all come all the same.
func (c *chaos) phases(ctx context.Context) {
	random := rand.New(rand.NewPCG(*trialSeed, 3))
	all := []troubles{
		{name: "healthy"},
		{name: "a share hangs", share: 0.3, kinds: []trouble{hang}},
		{name: "a share is cut", share: 0.4, kinds: []trouble{cut, lost}},
		{name: "slow", share: 0.8, kinds: []trouble{slow}},
		{name: "a share fails", share: 0.4, kinds: []trouble{fail}},
		{name: "all hang", share: 1, kinds: []trouble{hang}},
		{name: "lists are cut", share: 0.8, kinds: []trouble{half, cut, stall}, only: lists},
		{name: "bodies are cut", share: 0.5, kinds: []trouble{half, stall}},
		{name: "everything", share: 0.6, kinds: []trouble{hang, stall, cut, lost, half, slow, fail}},
		{name: "all fail", share: 1, kinds: []trouble{fail, cut}},
	}
	shortest, longest := 10*time.Second, 40*time.Second
	if most := *chaosTime / time.Duration(len(all)); most < longest {
		shortest, longest = most/2, most
	}
	start := time.Now()
	for time.Since(start) < *chaosTime {
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, now := range all {
			left := *chaosTime - time.Since(start)
			if left <= 0 {
				break
			}
			lasts := min(left, shortest+time.Duration(random.Float64()*float64(longest-shortest)))
			c.proxy.set(now)
			began := time.Now()
			select {
			case <-ctx.Done():
				return
			case <-time.After(lasts):
			}
			if now.share == 0 {
				c.healed(began, lasts)
			}
		}
	}
	c.proxy.set(troubles{name: "healthy"})
}

// healed checks that knowledge is fresh at the end of a time without trouble, if that was
// long enough.
func (c *chaos) healed(began time.Time, lasted time.Duration) {
	s := time.Duration(c.staleness.Load())
	if lasted >= healthyFor && s > freshAgain {
		c.failf("after %s without trouble, since %s, it is %s stale", lasted, began.Format(time.TimeOnly), s)
	}
}

// watch asks the server for its status until ctx ends, and checks what it says.
func (c *chaos) watch(ctx context.Context) {
	client := tandemv1connect.NewAdminServiceClient(c.http, c.server)
	pause := min(time.Second, *chaosTime/100)
	var newest uint64
	for ctx.Err() == nil {
		asked := time.Now()
		a, err := client.GetStatus(ctx, connect.NewRequest(&tandemv1.GetStatusRequest{}))
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			c.failf("status: %v", err)
		case a.Msg.Generation < newest:
			c.failf("status says generation %d after %d", a.Msg.Generation, newest)
		case a.Msg.Staleness == nil:
			c.failf("status says nothing of staleness")
		default:
			newest = a.Msg.Generation
			c.claimed(asked, a.Msg.Staleness.AsDuration())
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// claimed checks a staleness that the server has claimed since it was asked: it knows
// nothing younger than the last request of those that the proxy answered.
func (c *chaos) claimed(asked time.Time, claim time.Duration) {
	truth := asked.Sub(c.proxy.fresh())
	if claim < truth-clockSlack {
		c.failf("it says that its knowledge is %s old, and nothing younger than %s went through the proxy", claim, truth)
	}
	c.staleness.Store(int64(claim))
	c.mu.Lock()
	defer c.mu.Unlock()
	c.longest, c.truth = max(c.longest, claim), max(c.truth, truth)
}

// String is the report.
func (c *chaos) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	wrong := 0
	for _, n := range c.wrong {
		wrong += n
	}
	return fmt.Sprintf("%d releases, %d answers from %d arms of releases; %s; staleness up to %s was claimed, at least %s was true; %d times something was wrong",
		len(c.log), c.answered.Load(), len(c.seen), c.proxy, c.longest.Round(time.Millisecond), c.truth.Round(time.Millisecond), wrong)
}
