package server

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/grpchealth"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// lines is a log handler that keeps what is logged.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// count counts the lines that have a text.
func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

// following is a service that follows the releases of a store that fails, in a synctest
// bubble and without a network.
type following struct {
	*Service
	store    *objectstest.Faults
	releases *release.Releases // as a publisher sees them
	digests  []manifest.Digest
	log      lines
}

// served is the client of the store that serves.
const served = "served"

// newFollowing publishes two snapshots, releases the first, and follows.
func newFollowing(t *testing.T, c Config) *following {
	f := &following{store: objectstest.NewFaults()}
	publisher, err := snapshots.NewStore(f.store.Bucket("publisher"), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	data := smallTowers(index.Dot)
	for i := range 2 {
		data.version = fmt.Sprintf("v%d", i+1)
		f.digests = append(f.digests, data.publishTo(t, publisher))
	}
	recordGates(t, publisher, f.digests...)
	f.releases = release.New(publisher)
	f.start(t, f.digests[0])
	f.follow(t, c)
	return f
}

// follow begins to follow.
func (f *following) follow(t *testing.T, c Config) {
	var err error
	c.Store, err = snapshots.NewStore(f.store.Bucket(served), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	c.Keep, c.MemoryLimit = DefaultKeep, 1<<30
	c.Logger = slog.New(slog.NewTextHandler(&f.log, nil))
	f.Service = NewService(c.Logger)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- follow(ctx, f.Service, &c) }()
	t.Cleanup(func() {
		stop()
		require.NoError(t, <-done)
		f.Close()
	})
	f.rest(3 * time.Second)
}

func (f *following) start(t *testing.T, d manifest.Digest) {
	t.Helper()
	_, err := f.releases.Start(t.Context(), release.StartOptions{Snapshot: d})
	require.NoError(t, err)
}

// rest lets time pass.
func (f *following) rest(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (f *following) now(t *testing.T) *tandemv1.GetStatusResponse {
	t.Helper()
	s, err := f.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
	require.NoError(t, err)
	return s.Msg
}

// ready asks health both ways.
func (f *following) ready(t *testing.T) (bool, string) {
	t.Helper()
	w := newRecorder()
	f.health.readiness(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
	check, err := f.health.Check(t.Context(), &grpchealth.CheckRequest{})
	require.NoError(t, err)
	ready := w.Code == http.StatusOK
	require.Equal(t, ready, check.Status == grpchealth.StatusServing)
	return ready, w.Body.String()
}

// A store that never answers makes what the server knows older, which status, the log and,
// if it is told to, health say, at any moment; and what is answered again makes it new.
func TestStaleness(t *testing.T) {
	for _, fault := range []objectstest.Fault{objectstest.Hang, objectstest.Fail} {
		t.Run(string(fault), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFollowing(t, Config{MaxStaleness: time.Minute})
				s := f.now(t)
				assert.Equal(t, tandemv1.Phase_PHASE_SERVING, s.Phase)
				assert.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, s.LogState)
				assert.Less(t, s.Staleness.AsDuration(), 2*time.Second)
				var changes atomic.Int64
				stop, err := f.health.Watch(t.Context(), nil, func() { changes.Add(1) })
				require.NoError(t, err)
				defer stop()

				f.store.Inject(objectstest.Rule{Client: served, Fault: fault})
				f.rest(29 * time.Second)
				ready, _ := f.ready(t)
				assert.True(t, ready)
				assert.Zero(t, f.log.count("not seen for long"))
				s = f.now(t)
				assert.Equal(t, tandemv1.Phase_PHASE_SERVING, s.Phase)
				assert.Equal(t, tandemv1.LogState_LOG_STATE_UNREAD, s.LogState)
				assert.InDelta(t, 29, s.Staleness.AsDuration().Seconds(), 2)
				assert.NotEmpty(t, s.LogError)
				f.rest(29 * time.Second)
				ready, _ = f.ready(t)
				assert.True(t, ready)
				assert.Zero(t, changes.Load())
				f.rest(4 * time.Second)
				ready, text := f.ready(t)
				assert.False(t, ready)
				assert.Regexp(t, `^stale: what is released was last seen 1m[1-4]s ago\n$`, text)
				assert.EqualValues(t, 1, changes.Load(), "who watches is told")
				f.rest(time.Hour)
				assert.InDelta(t, 3662, f.now(t).Staleness.AsDuration().Seconds(), 4)
				assert.Equal(t, 7, f.log.count("not seen for long"), "after 30 s, and then twice as long each time")
				assert.Equal(t, 1, f.log.count("releases cannot be read"))

				// What is released meanwhile is served once the store answers again.
				f.start(t, f.digests[1])
				f.store.Heal()
				f.rest(25 * time.Second)
				ready, text = f.ready(t)
				assert.True(t, ready)
				assert.Equal(t, "ready\n", text)
				assert.GreaterOrEqual(t, changes.Load(), int64(2))
				s = f.now(t)
				assert.EqualValues(t, 2, s.Generation)
				assert.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, s.LogState)
				assert.Less(t, s.Staleness.AsDuration(), 2*time.Second)
				assert.Empty(t, s.LogError)
				assert.Equal(t, 1, f.log.count("what is released is seen again"))
			})
		})
	}
}

// A proof of before the clock was set back is of no age that is known, which is no young one.
func TestStalenessOfAClockThatWasSet(t *testing.T) {
	var s staleness
	s.begin(time.Now().AddDate(174, 0, 0), time.Minute)
	age, ok := s.age()
	assert.True(t, ok)
	assert.EqualValues(t, math.MaxInt64, age)
	assert.True(t, s.exceeded())
	s.proved(time.Now())
	assert.False(t, s.exceeded())
}

// An age that is not known is told of once, not at each tick, as is that it has ended.
func TestWatchOfAnUnknownAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []events.Releases
		s := staleness{events: events.Tee(&events.Listener{Releases: func(e events.Releases) { told = append(told, e) }})}
		s.begin(time.Now().AddDate(174, 0, 0), time.Minute)
		changes := 0
		var watching sync.WaitGroup
		ctx, stop := context.WithCancel(t.Context())
		watching.Go(func() { s.watch(ctx, func() { changes++ }) })
		time.Sleep(time.Hour)
		synctest.Wait()
		require.Equal(t, []events.Releases{{Change: events.Stale, Staleness: math.MaxInt64}}, told)
		require.Equal(t, 1, changes)
		s.proved(time.Now())
		time.Sleep(2 * staleTick)
		synctest.Wait()
		require.Len(t, told, 2)
		require.Equal(t, events.Seen, told[1].Change)
		require.Equal(t, 2, changes)
		stop()
		watching.Wait()
	})
}

// By default a server stays ready, whatever the age: what it serves is right until
// something else is released.
func TestStalenessHasNoLimitByDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFollowing(t, Config{})
		f.store.Inject(objectstest.Rule{Client: served, Fault: objectstest.Hang})
		f.rest(24 * time.Hour)
		ready, text := f.ready(t)
		assert.True(t, ready, text)
		assert.Greater(t, f.now(t).Staleness.AsDuration(), 23*time.Hour)
	})
}

// A server that was told what to serve follows nothing that could be stale.
func TestNoStalenessOfNamedSnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewService(slog.New(slog.DiscardHandler))
		assert.False(t, s.staleness.exceeded())
		answer, err := s.GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
		require.NoError(t, err)
		assert.Nil(t, answer.Msg.Staleness)
		assert.Equal(t, tandemv1.LogState_LOG_STATE_UNSPECIFIED, answer.Msg.LogState)
	})
}
