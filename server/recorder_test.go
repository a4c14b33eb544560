package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// recorded returns the queries in a bucket.
func recorded(t *testing.T, b *objects.Bucket) (out []querylog.Query) {
	t.Helper()
	for q, err := range querylog.Of(b).Queries(t.Context(), time.Time{}, time.Time{}) {
		require.NoError(t, err)
		out = append(out, *q)
	}
	return out
}

func TestRecord(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		s := smallTowers(index.Dot).loaded(t)
		s.recorder = startRecorder(1, b, s.events, defaultRecorderOptions())
		defer s.recorder.close() // more than once is no harm
		client := serve(t, s, Options{}).client()
		began := time.Now().Truncate(time.Microsecond)
		ask := &tandemv1.RetrieveRequest{
			UserId: "u1", K: 7, Segment: "free", Filter: "price < user.most", RequestId: "one",
			ExcludeIds: []string{"a1"}, Bindings: map[string]*structpb.Value{"most": structpb.NewNumberValue(20)},
		}
		one, err := client.Retrieve(t.Context(), connect.NewRequest(ask))
		require.NoError(t, err)
		_, err = client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "nobody", K: 7}))
		require.Error(t, err)
		batch, err := client.BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{
			{Vector: []float32{1, 2, 3, 4}, K: 2, RequestId: "two"}, {}, {AppId: "a5", K: 3, RequestId: "three"},
		}}))
		require.NoError(t, err)
		s.recorder.close()

		got := map[string]querylog.Query{}
		for _, q := range recorded(t, b) {
			got[q.RequestID] = q
		}
		require.Len(t, got, 3, "failures are not recorded")
		for id, answer := range map[string]*tandemv1.RetrieveResponse{
			"one": one.Msg, "two": batch.Msg.Results[0].GetResponse(), "three": batch.Msg.Results[2].GetResponse(),
		} {
			q := got[id]
			require.Len(t, q.Candidates, len(answer.Candidates))
			require.NotEmpty(t, q.Candidates)
			for i, c := range answer.Candidates {
				require.Equal(t, querylog.Candidate{ID: c.Id, Score: c.Score}, q.Candidates[i])
			}
			require.Equal(t, []any{"feed", "v1", answer.Snapshot, answer.Plan.String(), int64(answer.Eligible), 1.0},
				[]any{q.Model, q.ModelVersion, q.Snapshot, q.Plan, q.Eligible, q.Coverage})
			require.False(t, q.Time.Before(began) || q.Time.After(time.Now()))
			require.Less(t, q.LatencyUS, int64(time.Minute/time.Microsecond))
		}
		q := got["one"]
		require.Equal(t, []any{"u1", "", int64(7), "price < user.most", "free"}, []any{q.UserID, q.AppID, q.K, q.Filter, q.Segment})
		r, err := RecordedRequest(&q)
		require.NoError(t, err)
		require.True(t, proto.Equal(ask, r), "the whole request")
	})
}

func TestRunRecords(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{RecordShare: 1})
	store := c.Store
	p := start(t, c)
	for i := range 5 {
		_, err := p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: fmt.Sprint("u", i), K: 3}))
		require.NoError(t, err)
	}
	p.stop()
	require.NoError(t, <-p.done)
	require.Len(t, recorded(t, store.Objects()), 5)
}

// offers offers n queries with ids of their own.
func offers(r *recorder, n int) {
	for i := range n {
		offerTo(r, time.Now(), &tandemv1.RetrieveRequest{RequestId: fmt.Sprint("request ", i)},
			&tandemv1.RetrieveResponse{Candidates: []*tandemv1.Candidate{{Id: "a", Score: 1}}})
	}
}

func TestRecordingNothingIsFree(t *testing.T) {
	request := &tandemv1.RetrieveRequest{RequestId: "one"}
	for _, r := range []*recorder{nil, {threshold: thresholdOf(1e-9)}} {
		require.Zero(t, testing.AllocsPerRun(100, func() { offerTo(r, time.Time{}, request, nil) }))
	}
}

func TestRecordShare(t *testing.T) {
	chosen := map[float64]map[string]bool{}
	for _, share := range []float64{0.01, 0.1, 1} {
		b, err := objects.Open(t.Context(), t.TempDir())
		require.NoError(t, err)
		for range 2 { // the second time the same
			o := defaultRecorderOptions()
			o.queue = 10_000
			r := startRecorder(share, b, events.Tee(), o)
			offers(r, 10_000)
			r.close()
		}
		times := map[string]int{}
		chosen[share] = map[string]bool{}
		for _, q := range recorded(t, b) {
			times[q.RequestID]++
			chosen[share][q.RequestID] = true
		}
		for id, n := range times {
			require.Equal(t, 2, n, id)
		}
		require.InDelta(t, share*10_000, len(times), 400*math.Sqrt(share*(1-share)))
		require.NoError(t, b.Close())
	}
	for id := range chosen[0.01] {
		require.True(t, chosen[0.1][id], "a larger share has what a smaller has")
	}
}

// fakeStore is a store whose uploads do what they are told.
type fakeStore struct {
	upload func(ctx context.Context) error
	rows   list[int] // of the files that were written
}

// list may be used by several goroutines.
type list[T any] struct {
	mu  sync.Mutex
	all []T
}

func (l *list[T]) add(v T) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, v)
}

// since returns what was added after the first n.
func (l *list[T]) since(n int) []T {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.all[n:])
}

func (f *fakeStore) Upload(ctx context.Context, _ string, r io.Reader) error {
	if err := f.upload(ctx); err != nil {
		return err
	}
	data, err := io.ReadAll(r)
	f.rows.add(len(data))
	return err
}

// told is a log handler that keeps what is logged and its number of queries.
type told struct {
	slog.Handler
	lines *list[string]
}

func (h told) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == "queries" {
			line += ": " + a.Value.String()
		}
		return true
	})
	h.lines.add(line)
	return nil
}

// inBubble runs a test with a recorder whose time passes only when all wait. Its files
// have a byte for each query: the real encoder shares channels with other tests.
func inBubble(t *testing.T, f *fakeStore, o recorderOptions, test func(r *recorder, log *list[string])) {
	synctest.Test(t, func(*testing.T) {
		var log list[string]
		o.encode = func(rows []querylog.Query) ([]byte, error) { return make([]byte, len(rows)), nil }
		handler := told{slog.NewTextHandler(io.Discard, nil), &log}
		r := startRecorder(1, f, &events.NewLog(slog.New(handler)).Listener, o)
		defer r.close()
		test(r, &log)
	})
}

// after waits until everyone waits and then for a time.
func after(d time.Duration) {
	synctest.Wait()
	<-time.After(d)
	synctest.Wait()
}

func TestRecorderWritesInTime(t *testing.T) {
	f := &fakeStore{upload: func(context.Context) error { return nil }}
	o := defaultRecorderOptions()
	o.rows = 10
	inBubble(t, f, o, func(r *recorder, log *list[string]) {
		offers(r, 25)
		synctest.Wait()
		assert.Equal(t, []int{10, 10}, f.rows.since(0), "when there are enough")
		after(o.interval)
		assert.Equal(t, []int{10, 10, 5}, f.rows.since(0), "after the interval")
		after(5 * o.interval)
		assert.Len(t, f.rows.since(0), 3, "nothing is nothing to write")
		offers(r, 3)
		r.close()
		assert.Equal(t, []int{10, 10, 5, 3}, f.rows.since(0), "at the end")
		assert.Empty(t, log.since(0))
		assert.Zero(t, r.queued.Load())
	})
}

func TestRecorderBoundsFiles(t *testing.T) {
	f := &fakeStore{upload: func(context.Context) error { return nil }}
	o := defaultRecorderOptions()
	inBubble(t, f, o, func(r *recorder, _ *list[string]) {
		request := &tandemv1.RetrieveRequest{ExcludeIds: []string{string(make([]byte, 20<<20))}}
		for range 7 {
			offerTo(r, time.Now(), request, &tandemv1.RetrieveResponse{})
			synctest.Wait()
		}
		assert.Equal(t, []int{3, 3}, f.rows.since(0), "three fit in 64 MiB")
	})
}

func TestRecorderSurvivesItsStore(t *testing.T) {
	var broken atomic.Bool
	broken.Store(true)
	f := &fakeStore{upload: func(context.Context) error {
		if broken.Load() {
			return errors.New("broken")
		}
		return nil
	}}
	o := defaultRecorderOptions()
	o.rows = 10
	inBubble(t, f, o, func(r *recorder, log *list[string]) {
		offers(r, 35)
		synctest.Wait()
		assert.Empty(t, f.rows.since(0))
		assert.Equal(t, []string{"recorded queries could not be written yet: 10"}, log.since(0), "it is tried once")
		after(o.interval)
		assert.Equal(t, []string{
			"recorded queries could not be written yet: 10",
			"queries to record were dropped: they came faster than they could be written: 15",
		}, log.since(1))
		broken.Store(false)
		after(o.interval)
		assert.Equal(t, []int{10, 10}, f.rows.since(0), "what was kept is written")
		broken.Store(true)
		offers(r, 4)
		told := len(log.since(0))
		r.close()
		assert.Equal(t, []string{"recorded queries could not be written yet: 4", "recorded queries were lost: 4"}, log.since(told))
	})
}

// TestRecorderNeverWaits has a store that hangs.
func TestRecorderNeverWaits(t *testing.T) {
	f := &fakeStore{upload: func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	o := defaultRecorderOptions()
	o.rows, o.queue = 1, 8
	inBubble(t, f, o, func(r *recorder, log *list[string]) {
		offers(r, 1)
		synctest.Wait()
		began := time.Now()
		offers(r, 20)
		assert.Equal(t, began, time.Now())
		assert.EqualValues(t, 20-8, r.dropped.Load())
		r.close()
		assert.Equal(t, o.closing, time.Since(began), "the server stops in time")
		assert.Contains(t, log.since(0), "recorded queries were lost: 2")
		assert.Contains(t, log.since(0), "queries to record were dropped: they came faster than they could be written: 19")
	})
}

// From when a server knows that a user is forgotten it writes no query that names the user,
// whenever it was answered, under whatever name the user is in it.
func TestRecorderForgets(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{RecordShare: 1, Live: writes(), Logger: slog.New(slog.DiscardHandler)})
	store := c.Store
	p := start(t, c)
	vector := []float32{1, 2, 3, 4}
	ask := func(when string) {
		for name, r := range map[string]*tandemv1.RetrieveRequest{
			"key":   {Vector: vector, RequestKey: "u3"},
			"bound": {Vector: vector, Filter: "developer != user.id", Bindings: map[string]*structpb.Value{"id": structpb.NewStringValue("u3")}},
			"text":  {AppId: "a1", Filter: `developer != "u3"`},
			"users": {Vector: vector, Target: tandemv1.Tower_TOWER_USERS, ExcludeIds: []string{"u3"}},
			"other": {UserId: "u4", RequestKey: "u5"},
		} {
			r.K, r.RequestId = 2, name+" "+when
			_, err := p.client().Retrieve(t.Context(), connect.NewRequest(r))
			require.NoError(t, err)
		}
	}
	ask("before")
	p.write(t, &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: "u3"}}})
	ask("after")
	p.stop()
	require.NoError(t, <-p.done)
	var ids []string
	for _, q := range recorded(t, store.Objects()) {
		ids = append(ids, q.RequestID)
	}
	assert.ElementsMatch(t, []string{"other before", "other after"}, ids)
}

// A file that could not be written yet loses who is forgotten meanwhile.
func TestRecorderForgetsWhatIsPending(t *testing.T) {
	b, err := objects.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	forgetting(t, b, "request 1", "request 7")
	some, err := live.Read(t.Context(), b)
	require.NoError(t, err)
	now, broken := live.Forgotten{}, true
	o := defaultRecorderOptions()
	o.forgotten = func() live.Forgotten { return now }
	r := &recorder{store: uploads(func(ctx context.Context, key string, data io.Reader) error {
		if broken {
			return errors.New("broken")
		}
		return b.Upload(ctx, key, data)
	}), events: events.Tee(), o: o, threshold: math.MaxUint64, queue: make(chan *querylog.Query, 8)}
	record := func(n int) {
		offers(r, n)
		for range n {
			r.add(t.Context(), <-r.queue)
		}
		r.flush(t.Context())
	}
	record(5)
	require.Equal(t, 5, r.count, "it is pending")
	now, broken = some.Forgotten(), false
	record(8)
	times := map[string]int{}
	for _, q := range recorded(t, b) {
		times[q.RequestID]++
	}
	assert.Equal(t, map[string]int{"request 0": 2, "request 2": 2, "request 3": 2, "request 4": 2, "request 5": 1, "request 6": 1}, times)

	// Nothing is left of a file in which all name one.
	now, broken = live.Forgotten{}, true
	offerTo(r, time.Now(), &tandemv1.RetrieveRequest{RequestId: "request 7"}, &tandemv1.RetrieveResponse{})
	r.add(t.Context(), <-r.queue)
	r.flush(t.Context())
	require.NotNil(t, r.pending)
	now, broken = some.Forgotten(), false
	r.flush(t.Context())
	assert.Nil(t, r.pending)
	assert.Len(t, recorded(t, b), 10)
	require.NoError(t, b.Close())
}

// uploads is a store that does what it is told.
type uploads func(ctx context.Context, key string, data io.Reader) error

func (u uploads) Upload(ctx context.Context, key string, data io.Reader) error {
	return u(ctx, key, data)
}

// forgetting writes to the live log of a bucket that users are forgotten.
func forgetting(t *testing.T, b *objects.Bucket, users ...string) {
	ctx, stop := context.WithCancel(t.Context())
	r, err := live.Open(ctx, b, live.Options{Author: "tester"})
	require.NoError(t, err)
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	for _, user := range users {
		_, err = r.Append(ctx, []live.Event{{Kind: live.Forget, Tower: shard.Users, Entity: user}})
		require.NoError(t, err)
	}
	stop()
	require.ErrorIs(t, <-done, context.Canceled)
}

// offerTo records a request and its answer, if it is sampled.
func offerTo(r *recorder, start time.Time, request *tandemv1.RetrieveRequest, answer *tandemv1.RetrieveResponse) {
	if r.wants(request, answer.GetGeneration()) {
		r.record(start, request, answer, nil)
	}
}
