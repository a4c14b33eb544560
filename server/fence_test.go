package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// shortFence is the fence of tests that wait until it is passed: what they ask before must be
// answered within it, however busy the machine is.
const shortFence = 5 * time.Second

// faulty returns a store that fails, with one snapshot that is released, and a configuration
// of a server of it with a short fence.
func faulty(t *testing.T, data *towers) (*objectstest.Faults, Config) {
	faults := objectstest.NewFaults()
	publisher, err := snapshots.NewStore(faults.Bucket("publisher"), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	digest := data.publishTo(t, publisher)
	recordGates(t, publisher, digest)
	_, err = release.New(publisher).Start(t.Context(), release.StartOptions{Snapshot: digest})
	require.NoError(t, err)
	store, err := snapshots.NewStore(faults.Bucket(served, objects.WithTimeout(500*time.Millisecond)), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	c := Config{Store: store, Logger: slog.New(slog.DiscardHandler), Live: writes()}
	c.Live.Fence = shortFence
	return faults, c
}

// liveFaults has the live log hang, and nothing else.
func liveFaults(f *objectstest.Faults) {
	f.Inject(objectstest.Rule{Client: served, Key: "live/", Fault: objectstest.Hang})
}

// wait waits until something is so.
func wait(t *testing.T, until func() bool) {
	t.Helper()
	require.Eventually(t, until, 2*time.Minute, 2*time.Millisecond)
}

// Beyond the fence no query is answered, by whatever protocol, and the server is not ready;
// once the log is seen again all are, and nobody has to help.
func TestFence(t *testing.T) {
	t.Parallel() // it waits
	faults, c := faulty(t, smallTowers(index.Dot))
	p := start(t, c)
	for _, o := range askAll(t, p.site) {
		require.NoError(t, o.err, o.name)
		assert.Equal(t, "no-store", o.header.Get("Cache-Control"), o.name)
		assert.Empty(t, o.header.Get(StaleHeader), o.name)
	}
	liveFaults(faults)
	wait(t, func() bool { return p.get(t, "/readyz").status == http.StatusServiceUnavailable })
	assert.Regexp(t, `^stale: the live log was last proved [0-9.]+m?s ago, and the fence is 5s\n$`, string(p.get(t, "/readyz").body))
	for _, o := range askAll(t, p.site) {
		if _, ok := errors.AsType[*connect.Error](o.err); !ok { // each of a batch fails
			require.ErrorContains(t, o.err, "unavailable: the live log was last proved to end where it is read to")
			continue
		}
		requireStale(t, o)
	}
	s, err := p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.Greater(t, s.Msg.Staleness.AsDuration(), c.Live.Fence)
	faults.Heal()
	wait(t, func() bool { return p.get(t, "/readyz").status == http.StatusOK })
	for _, o := range askAll(t, p.site) {
		require.NoError(t, o.err, o.name)
	}
}

// requireStale checks that a query was refused because of the fence.
func requireStale(t *testing.T, o outcome) {
	t.Helper()
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(o.err), "%s: %v", o.name, o.err)
	info, _ := detailsOf(t, o.err)
	assert.Equal(t, "LIVE_STALE", info.GetReason(), o.name)
	assert.True(t, hasRetry(t, o.err), o.name)
}

// hasRetry reports whether an error says when to retry.
func hasRetry(t *testing.T, err error) bool {
	var coded *connect.Error
	require.ErrorAs(t, err, &coded)
	for _, d := range coded.Details() {
		if m, err := d.Value(); err == nil {
			if r, ok := m.(*errdetails.RetryInfo); ok {
				return r.RetryDelay.AsDuration() > 0
			}
		}
	}
	return false
}

// Where answers beyond the fence are wanted all the same, they are flagged, and the server is
// ready.
func TestFenceThatFlags(t *testing.T) {
	t.Parallel() // it waits
	faults, c := faulty(t, smallTowers(index.Dot))
	c.Live.AnswerStale = true
	p := start(t, c)
	liveFaults(faults)
	wait(t, func() bool {
		got, err := p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
		require.NoError(t, err)
		flagged := got.Header().Get(StaleHeader) == "true"
		assert.False(t, !flagged && got.Msg.Staleness.AsDuration() > c.Live.Fence)
		return flagged && got.Msg.Staleness.AsDuration() > c.Live.Fence
	})
	for _, o := range askAll(t, p.site) {
		require.NoError(t, o.err, o.name)
		assert.Equal(t, "true", o.header.Get(StaleHeader), o.name)
	}
	assert.Equal(t, http.StatusOK, p.get(t, "/readyz").status)
	faults.Heal()
	wait(t, func() bool {
		got, err := p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
		require.NoError(t, err)
		return got.Header().Get(StaleHeader) == ""
	})
}

// protocols are the options of a client of each protocol, in each encoding.
var protocols = map[string][]connect.ClientOption{
	"connect": nil, "connect json": {connect.WithProtoJSON()}, "connect gzip": {connect.WithSendGzip()},
	"grpc": {connect.WithGRPC()}, "grpc json": {connect.WithGRPC(), connect.WithProtoJSON()},
	"grpc-web": {connect.WithGRPCWeb()}, "grpc-web json": {connect.WithGRPCWeb(), connect.WithProtoJSON()},
	"get": {connect.WithHTTPGet()}, "get json": {connect.WithHTTPGet(), connect.WithProtoJSON()},
}

// outcome is what became of a query.
type outcome struct {
	name   string
	err    error
	header http.Header
}

// queries are of every method by every protocol, in every encoding. The answers to batches
// are so large that they are encoded in pieces.
func queries(s *site) map[string]func(context.Context) outcome {
	out := map[string]func(context.Context) outcome{}
	retrieve := &tandemv1.RetrieveRequest{UserId: "u1", K: 60, Attributes: []string{"*"}}
	large := &tandemv1.BatchRetrieveRequest{}
	for range shortBatch {
		large.Requests = append(large.Requests, retrieve)
	}
	for name, options := range protocols {
		c := s.client(options...)
		out[name] = func(ctx context.Context) outcome {
			got, err := c.Retrieve(ctx, connect.NewRequest(retrieve))
			return outcomeOf(name, got, err)
		}
		out[name+" batch"] = func(ctx context.Context) outcome {
			got, err := c.BatchRetrieve(ctx, connect.NewRequest(large))
			if err == nil && got.Msg.Results[0].GetError() != nil {
				failed := got.Msg.Results[0].GetError()
				return outcome{name, fmt.Errorf("%s: %s", failed.Code, failed.Message), nil}
			}
			return outcomeOf(name+" batch", got, err)
		}
		out[name+" embeddings"] = func(ctx context.Context) outcome {
			got, err := c.GetEmbeddings(ctx, connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{"a1", "a2"}}))
			return outcomeOf(name+" embeddings", got, err)
		}
	}
	return out
}

func outcomeOf[T any](name string, got *connect.Response[T], err error) outcome {
	if err != nil {
		return outcome{name, err, nil}
	}
	return outcome{name, nil, got.Header()}
}

// askAll asks all queries, at once.
func askAll(t *testing.T, s *site) []outcome {
	all := queries(s)
	done := make(chan outcome, len(all))
	for _, ask := range all {
		go func() { done <- ask(t.Context()) }()
	}
	var got []outcome
	for range all {
		got = append(got, <-done)
	}
	return got
}

// The age of the proof is looked at last: a query that was let in before the fence, and whose
// answer is there after it, is refused, whole and as an error of its protocol.
func TestFenceIsLookedAtLast(t *testing.T) {
	t.Parallel() // it waits
	for _, flags := range []bool{false, true} {
		faults, c := faulty(t, smallTowers(index.Dot))
		c.Live.AnswerStale = flags
		service := followed(t, c)
		s, l := serveLimited(t, service, Options{MaxDeadline: time.Minute, MaxWorkInFlight: time.Hour})
		// All work is long, and there is no turn for it.
		l.work.mu.Lock()
		l.work.ratio, l.work.since = 1000, time.Now().Add(time.Hour)
		l.work.mu.Unlock()
		for range cap(l.turns) {
			l.turns <- struct{}{}
		}
		done := make(chan []outcome, 1)
		go func() { done <- askAll(t, s) }()
		wait(t, func() bool {
			l.work.mu.Lock()
			defer l.work.mu.Unlock()
			return l.work.requests == len(queries(s))
		})
		require.LessOrEqual(t, service.live.Age(), c.Live.Fence)
		liveFaults(faults)
		wait(t, func() bool { return service.live.Age() > c.Live.Fence })
		for range cap(l.turns) {
			<-l.turns
		}
		for _, o := range <-done {
			if flags {
				require.NoError(t, o.err, o.name)
				assert.Equal(t, "true", o.header.Get(StaleHeader), o.name)
			} else {
				requireStale(t, o)
			}
		}
		faults.Heal()
	}
}

// The error that takes the place of an answer has nothing of it: not its length, nor how it
// is compressed.
func TestRefusedAnswerIsAnError(t *testing.T) {
	t.Parallel() // it waits
	faults, c := faulty(t, smallTowers(index.Dot))
	service := followed(t, c)
	s, l := serveLimited(t, service, Options{MaxDeadline: time.Minute, MaxWorkInFlight: time.Hour})
	l.work.mu.Lock()
	l.work.ratio, l.work.since = 1000, time.Now().Add(time.Hour)
	l.work.mu.Unlock()
	for range cap(l.turns) {
		l.turns <- struct{}{}
	}
	done := make(chan reply, 2)
	query := `{"userId": "u1", "k": 60, "attributes": ["*"]}`
	go func() { done <- s.post(t, "Retrieve", query, "Accept-Encoding", "gzip") }()
	go func() {
		done <- s.get(t, "/tandem.v1.RetrievalService/Retrieve?connect=v1&encoding=json&message="+url.QueryEscape(query), "Accept-Encoding", "gzip")
	}()
	wait(t, func() bool {
		l.work.mu.Lock()
		defer l.work.mu.Unlock()
		return l.work.requests == 2
	})
	liveFaults(faults)
	wait(t, func() bool { return service.live.Age() > c.Live.Fence })
	for range cap(l.turns) {
		<-l.turns
	}
	for range 2 {
		got := <-done
		assert.Equal(t, http.StatusServiceUnavailable, got.status)
		assert.Empty(t, got.header.Get("Content-Encoding"))
		assert.Equal(t, "application/json", got.header.Get("Content-Type"))
		assert.Equal(t, "1", got.header.Get("Retry-After"))
		assert.Equal(t, fmt.Sprint(len(got.body)), got.header.Get("Content-Length"))
		assert.Equal(t, "unavailable", got.json["code"])
		assert.NotContains(t, string(got.body), "candidates")
	}
	faults.Heal()
}

// Nothing is served before the live log was read, whatever else could be.
func TestLiveLogThatCannotBeRead(t *testing.T) {
	faults, c := faulty(t, smallTowers(index.Dot))
	faults.Inject(objectstest.Rule{Client: served, Key: "live/", Fault: objectstest.Fail})
	ctx, stop := context.WithCancel(t.Context())
	c.Listen = "127.0.0.1:0"
	listening, ready, done := make(chan *site, 1), make(chan struct{}), make(chan error, 1)
	c.Listening = func(a net.Addr) { listening <- newSite(t, a) }
	c.Ready = func(Snapshot) { close(ready) }
	var log lines
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	go func() { done <- Run(ctx, c) }()
	s := <-listening
	wait(t, func() bool { return log.count("live log cannot be read; nothing is served before it is") > 0 })
	assert.Equal(t, "loading\n", string(s.get(t, "/readyz").body))
	_, err := s.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
	requireError(t, err, connect.CodeUnavailable, "no snapshot is loaded yet")
	_, err = s.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{takedown("a1")}}))
	requireError(t, err, connect.CodeUnavailable, "the live log is not read yet")
	_, err = s.liveClient().Prove(t.Context(), connect.NewRequest(&tandemv1.ProveRequest{Apps: []string{"a1"}}))
	requireError(t, err, connect.CodeUnavailable, "the live log is not read yet")
	live, err := s.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.Equal(t, tandemv1.LogState_LOG_STATE_UNREAD, live.Msg.LogState)
	assert.NotEmpty(t, live.Msg.LogError)
	assert.Nil(t, live.Msg.Position)
	status, err := tandemv1connect.NewAdminServiceClient(s.http2, s.url).GetStatus(t.Context(), connect.NewRequest(&tandemv1.GetStatusRequest{}))
	require.NoError(t, err)
	assert.Equal(t, tandemv1.Phase_PHASE_FAILED, status.Msg.Phase)
	assert.Contains(t, status.Msg.Error, "read the live log: ")
	faults.Heal()
	<-ready
	_, err = s.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
	require.NoError(t, err)
	stop()
	require.NoError(t, <-done)
}

// While the store is away writes are not confirmed, and when it is back they are neither lost
// nor doubled: who repeats them by id finds out.
func TestWritesWhileTheStoreIsAway(t *testing.T) {
	t.Parallel() // it waits
	faults, c := faulty(t, smallTowers(index.Dot))
	p := start(t, c)
	event := func(app string) *tandemv1.LiveEvent {
		e := takedown(app)
		e.EventId = "down " + app
		return e
	}
	write := func(app string) error {
		_, err := p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{event(app)}}))
		return err
	}
	writeBriefly := func(app string) error {
		_, err := p.liveClient().Write(t.Context(), briefly(connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{event(app)}})))
		return err
	}
	require.NoError(t, write("a1"))
	for i, fault := range []objectstest.Fault{objectstest.Hang, objectstest.LoseHanging} {
		app := fmt.Sprintf("a%d", i+2)
		faults.Inject(objectstest.Rule{Client: served, Key: "live/", Fault: fault})
		var err error
		wait(t, func() bool { // on a busy machine its time may be up before it gets to the store
			err = writeBriefly(app)
			return connect.CodeOf(err) != connect.CodeDeadlineExceeded
		})
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
		info, _ := detailsOf(t, err)
		assert.Equal(t, "LIVE_UNCONFIRMED", info.GetReason(), "%v", err)
		faults.Heal()
		wait(t, func() bool { return write(app) == nil })
	}
	wait(t, func() bool { return p.get(t, "/readyz").status == http.StatusOK })
	got := p.candidates(t, &tandemv1.RetrieveRequest{})
	assert.Len(t, got, 57)
	s, err := p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.EqualValues(t, 3, s.Msg.Takedowns)
}

// A log that is another one than was followed is never laid over anything: the fence ends the
// answers, and writes fail.
func TestForkedLiveLog(t *testing.T) {
	t.Parallel() // it waits
	faults, c := faulty(t, smallTowers(index.Dot))
	var log lines
	c.Logger = slog.New(slog.NewTextHandler(&log, nil))
	p := start(t, c)
	p.write(t, takedown("a1"))
	key := fmt.Sprintf("live/%012d.log", p.write(t, takedown("a2")).Sequence)
	data, ok := faults.Data(key)
	require.True(t, ok)
	faults.Remove(key)
	wait(t, func() bool { return p.get(t, "/readyz").status == http.StatusServiceUnavailable })
	s, err := p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.Equal(t, tandemv1.LogState_LOG_STATE_BEHIND, s.Msg.LogState)
	_, err = p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{takedown("a3")}}))
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
	info, _ := detailsOf(t, err)
	assert.Equal(t, "LIVE_LOG_BROKEN", info.GetReason())
	wait(t, func() bool { return log.count("beyond the fence: queries are refused") == 1 })
	faults.Put(key, data, time.Now())
	wait(t, func() bool { return log.count("within the fence again") == 1 })
	assert.Len(t, p.candidates(t, &tandemv1.RetrieveRequest{}), 58)
	wait(t, func() bool { return log.count("the live log is followed again") == 1 })
	assert.Equal(t, 1, log.count("the live log is not the one that was followed"))
}
