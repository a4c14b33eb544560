package server

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/release"
)

// writes is a configuration of a server that takes live events.
func writes() Live { return Live{Writes: true, Poll: 5 * time.Millisecond} }

// liveClient returns a client of a server's LiveService.
func (s *site) liveClient(options ...connect.ClientOption) tandemv1connect.LiveServiceClient {
	return tandemv1connect.NewLiveServiceClient(s.http2, s.url, options...)
}

// write appends events and returns their position.
func (s *site) write(tb testing.TB, events ...*tandemv1.LiveEvent) *tandemv1.LivePosition {
	tb.Helper()
	got, err := s.liveClient().Write(tb.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: events}))
	require.NoError(tb, err)
	return got.Msg.Position
}

func takedown(app string) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: app, Reason: "malware"}}}
}

func restore(app string) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Restore{Restore: &tandemv1.Restore{App: app}}}
}

func upsert(u *tandemv1.Upsert) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Upsert{Upsert: u}}
}

func setAttributes(a *tandemv1.SetAttributes) *tandemv1.LiveEvent {
	return &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_SetAttributes{SetAttributes: a}}
}

func keyword(text string) *tandemv1.AttributeValue {
	return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Keyword{Keyword: text}}
}

func number(n int64) *tandemv1.AttributeValue {
	return &tandemv1.AttributeValue{Value: &tandemv1.AttributeValue_Int{Int: n}}
}

// candidates asks for all apps that are eligible, and returns their ids.
func (s *site) candidates(tb testing.TB, r *tandemv1.RetrieveRequest) []string {
	tb.Helper()
	if r.UserId == "" && r.AppId == "" {
		r.Vector = []float32{1, 2, 3, 4}
	}
	if r.K == 0 {
		r.K = 1000
	}
	r.RecallTarget = new(1.0)
	got, err := s.client().Retrieve(tb.Context(), connect.NewRequest(r))
	require.NoError(tb, err)
	ids := []string{}
	for _, c := range got.Msg.Candidates {
		ids = append(ids, c.Id)
	}
	return ids
}

// liveServer serves small towers, and takes live events.
func liveServer(t *testing.T, c Config) *process {
	c.Live = writes()
	c.Logger = slog.New(slog.DiscardHandler)
	return start(t, smallTowers(index.Dot).named(t, c))
}

// An app that is taken down is unknown wherever a request names it, until it is restored.
func TestTakedown(t *testing.T) {
	p := liveServer(t, Config{})
	client := p.client()
	before := p.candidates(t, &tandemv1.RetrieveRequest{})
	require.Len(t, before, 60)
	down := before[0]

	position := p.write(t, takedown(down))
	assert.EqualValues(t, 1, position.Sequence)
	after := p.candidates(t, &tandemv1.RetrieveRequest{MinLive: position})
	assert.Equal(t, before[1:], after)

	_, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{AppId: down, K: 1}))
	requireError(t, err, connect.CodeNotFound, fmt.Sprintf(`app_id %q is not in the app tower of model feed v1; query by an id that it has, or by vector`, down))
	assert.Equal(t, []string{before[1]}, p.candidates(t, &tandemv1.RetrieveRequest{IncludeIds: before[:2]}))
	e, err := client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: before[:2]}))
	require.NoError(t, err)
	assert.Equal(t, []string{down}, e.Msg.UnknownIds)
	assert.Len(t, e.Msg.Embeddings, 1)
	assert.EqualValues(t, 1, e.Msg.Live.Sequence)
	assert.Less(t, e.Msg.Staleness.AsDuration(), DefaultFence)

	explained, err := client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 3, ExplainIds: []string{down, "nothing"}}))
	require.NoError(t, err)
	assert.EqualValues(t, 59, explained.Msg.Eligible)
	assert.EqualValues(t, 1, explained.Msg.Live.Sequence)
	ids := explained.Msg.Explain.Ids
	assert.Equal(t, tandemv1.Verdict_VERDICT_TAKEN_DOWN, ids[0].Verdict)
	assert.Equal(t, "it is taken down", ids[0].Text)
	assert.Nil(t, ids[0].Score)
	assert.Equal(t, tandemv1.Verdict_VERDICT_UNKNOWN, ids[1].Verdict)

	proof, err := p.liveClient().Prove(t.Context(), connect.NewRequest(&tandemv1.ProveRequest{Apps: []string{down, before[1], "nothing"}, MinLive: position}))
	require.NoError(t, err)
	require.Len(t, proof.Msg.Apps, 3)
	first := proof.Msg.Apps[0]
	assert.True(t, first.CannotBeReturned)
	assert.Equal(t, []any{"malware", uint64(1)}, []any{first.Takedown.Reason, first.Takedown.Position.Sequence})
	assert.Contains(t, first.Takedown.Author, "127.0.0.1")
	require.Len(t, first.Snapshots, 1)
	assert.Equal(t, []bool{true, false, false}, []bool{first.Snapshots[0].InSnapshot, first.Snapshots[0].Fresh, first.Snapshots[0].Found})
	assert.False(t, proof.Msg.Apps[1].CannotBeReturned)
	assert.True(t, proof.Msg.Apps[1].Snapshots[0].Found)

	position = p.write(t, restore(down))
	assert.Equal(t, before, p.candidates(t, &tandemv1.RetrieveRequest{MinLive: position}))
}

// A proof is of a takedown alone: whatever else keeps an app out of answers is told apart from
// it.
func TestProofTellsWhy(t *testing.T) {
	p := liveServer(t, Config{})
	at := func(d time.Duration) *timestamppb.Timestamp { return timestamppb.New(time.Now().Add(d)) }
	p.write(t,
		takedown("a1"), takedown("a2"), restore("a2"), takedown("nobody"),
		setAttributes(&tandemv1.SetAttributes{Id: "a3", Window: &tandemv1.Window{From: at(time.Hour)}}),
		setAttributes(&tandemv1.SetAttributes{Id: "a4", Window: &tandemv1.Window{Until: at(-time.Hour)}}),
		setAttributes(&tandemv1.SetAttributes{Id: "a5", Window: &tandemv1.Window{From: at(-time.Hour), Until: at(time.Hour)}}),
		upsert(&tandemv1.Upsert{Id: "later", ModelVersion: "v1", Vector: []float32{9, 9, 9, 9}, Window: &tandemv1.Window{From: at(time.Hour)}}),
		upsert(&tandemv1.Upsert{Id: "new", ModelVersion: "v1", Vector: []float32{9, 9, 9, 9}}),
		setAttributes(&tandemv1.SetAttributes{Id: "a7", Window: &tandemv1.Window{From: at(time.Hour)}}), takedown("a7"),
		&tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Remove{Remove: &tandemv1.Remove{Id: "a6"}}},
	)
	want := []struct {
		app   string
		state tandemv1.AppState
	}{
		{"a0", tandemv1.AppState_APP_STATE_RETURNABLE}, {"a1", tandemv1.AppState_APP_STATE_TAKEN_DOWN},
		{"a2", tandemv1.AppState_APP_STATE_RETURNABLE}, {"nobody", tandemv1.AppState_APP_STATE_TAKEN_DOWN},
		{"a3", tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW}, {"a4", tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW},
		{"a5", tandemv1.AppState_APP_STATE_RETURNABLE}, {"later", tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW},
		{"new", tandemv1.AppState_APP_STATE_RETURNABLE}, {"a7", tandemv1.AppState_APP_STATE_TAKEN_DOWN},
		{"a6", tandemv1.AppState_APP_STATE_UNKNOWN}, {"nothing", tandemv1.AppState_APP_STATE_UNKNOWN},
	}
	r := &tandemv1.ProveRequest{}
	for _, w := range want {
		r.Apps = append(r.Apps, w.app)
	}
	got, err := p.liveClient().Prove(t.Context(), connect.NewRequest(r))
	require.NoError(t, err)
	for i, w := range want {
		is := got.Msg.Apps[i]
		down := w.state == tandemv1.AppState_APP_STATE_TAKEN_DOWN
		assert.Equal(t, w.state, is.State, w.app)
		assert.Equal(t, down, is.CannotBeReturned, w.app)
		assert.Equal(t, down, is.Takedown != nil, w.app)
		assert.Equal(t, w.state == tandemv1.AppState_APP_STATE_OUTSIDE_WINDOW, is.Snapshots[0].OutsideWindow, w.app)
	}
}

// A server that follows the log and has no snapshot yet proves takedowns, and nothing else.
func TestProofWithoutSnapshot(t *testing.T) {
	faults, c := faulty(t, smallTowers(index.Dot))
	faults.Inject(objectstest.Rule{Client: served, Key: "shards/", Fault: objectstest.Hang})
	ctx, stop := context.WithCancel(t.Context())
	c.Listen = "127.0.0.1:0"
	listening, done := make(chan *site, 1), make(chan error, 1)
	c.Listening = func(a net.Addr) { listening <- newSite(t, a) }
	go func() { done <- Run(ctx, c) }()
	s := <-listening
	prove := func() (*tandemv1.ProveResponse, error) {
		got, err := s.liveClient().Prove(t.Context(), connect.NewRequest(&tandemv1.ProveRequest{Apps: []string{"a1", "a2"}}))
		if err != nil {
			return nil, err
		}
		return got.Msg, nil
	}
	wait(t, func() bool { _, err := prove(); return err == nil })
	s.write(t, takedown("a1"))
	got, err := prove()
	require.NoError(t, err)
	for i, want := range []tandemv1.AppState{tandemv1.AppState_APP_STATE_TAKEN_DOWN, tandemv1.AppState_APP_STATE_NO_SNAPSHOT} {
		assert.Equal(t, want, got.Apps[i].State)
		assert.Equal(t, i == 0, got.Apps[i].CannotBeReturned)
		assert.Equal(t, i == 0, got.Apps[i].Takedown != nil)
		assert.Empty(t, got.Apps[i].Snapshots)
	}
	stop()
	require.NoError(t, <-done)
}

// What is upserted, set and removed counts in answers, and in everything that reads rows.
func TestLiveEventsCount(t *testing.T) {
	p := liveServer(t, Config{})
	known := p.candidates(t, &tandemv1.RetrieveRequest{})
	position := p.write(t,
		upsert(&tandemv1.Upsert{Id: "new", ModelVersion: "v1", Vector: []float32{9, 9, 9, 9}, Attributes: map[string]*tandemv1.AttributeValue{
			"developer": keyword("New Games"), "min_age": number(3),
		}}),
		upsert(&tandemv1.Upsert{Tower: tandemv1.Tower_TOWER_USERS, Id: "newcomer", ModelVersion: "v1", Vector: []float32{1, 0, 0, 0}}),
		setAttributes(&tandemv1.SetAttributes{Id: known[0], Attributes: map[string]*tandemv1.AttributeValue{"developer": keyword("New Games")}, Clear: []string{"min_age"}}),
		&tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Remove{Remove: &tandemv1.Remove{Id: known[1]}}},
		&tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: "u2"}}},
	)
	assert.Equal(t, []string{"new", known[0]}, p.candidates(t, &tandemv1.RetrieveRequest{Filter: `developer == "New Games"`, MinLive: position}))
	assert.Equal(t, []string{"new"}, p.candidates(t, &tandemv1.RetrieveRequest{Filter: `developer == "New Games" && has(min_age)`}))
	assert.NotContains(t, p.candidates(t, &tandemv1.RetrieveRequest{}), known[1])
	assert.Equal(t, "new", p.candidates(t, &tandemv1.RetrieveRequest{UserId: "newcomer", K: 1})[0])
	got, err := p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{
		UserId: "newcomer", K: 1, Attributes: []string{"*"}, ExplainIds: []string{"new", known[1]},
	}))
	require.NoError(t, err)
	assert.Equal(t, "New Games", got.Msg.Candidates[0].Attributes["developer"].GetKeyword())
	assert.True(t, got.Msg.Explain.Ids[0].Fresh)
	assert.Equal(t, tandemv1.Verdict_VERDICT_UNKNOWN, got.Msg.Explain.Ids[1].Verdict)
	_, err = p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u2", K: 1}))
	require.Equal(t, connect.CodeNotFound, connect.CodeOf(err))
	assert.NotContains(t, p.candidates(t, &tandemv1.RetrieveRequest{Target: tandemv1.Tower_TOWER_USERS}), "u2")

	s, err := p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.Equal(t, []any{position.Sequence, true, uint64(0), uint64(1)}, []any{s.Msg.Position.Sequence, s.Msg.Writes, s.Msg.Takedowns, s.Msg.ForgottenUsers})
	assert.Equal(t, tandemv1.LogState_LOG_STATE_FOLLOWED, s.Msg.LogState)
	assert.Len(t, s.Msg.Hash, 64)
	assert.NotEmpty(t, s.Msg.Digest)
	require.Len(t, s.Msg.Overlays, 1)
	apps, users := s.Msg.Overlays[0].Apps, s.Msg.Overlays[0].Users
	assert.Equal(t, []uint64{1, 1, 1}, []uint64{apps.DeadRows, apps.ChangedRows, apps.FreshRows})
	assert.Equal(t, []uint64{1, 0, 1}, []uint64{users.DeadRows, users.ChangedRows, users.FreshRows})
	assert.Positive(t, s.Msg.FreshBytes)
	assert.Empty(t, s.Msg.Pending)

	position = p.write(t, upsert(&tandemv1.Upsert{Id: "later", ModelVersion: "v2", Vector: []float32{1, 2}}))
	assert.NotContains(t, p.candidates(t, &tandemv1.RetrieveRequest{MinLive: position}), "later")
	s, err = p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	require.Len(t, s.Msg.Pending, 1)
	assert.Equal(t, []any{"feed", "v2", uint64(1)}, []any{s.Msg.Pending[0].Model, s.Msg.Pending[0].ModelVersion, s.Msg.Pending[0].Apps})
}

// A window is judged by the time at which a request arrives.
func TestWindow(t *testing.T) {
	p := liveServer(t, Config{})
	known := p.candidates(t, &tandemv1.RetrieveRequest{})
	window := func(app string, from, until time.Duration) *tandemv1.LiveEvent {
		w := &tandemv1.Window{From: timestamppb.New(time.Now().Add(from)), Until: timestamppb.New(time.Now().Add(until))}
		return setAttributes(&tandemv1.SetAttributes{Id: app, Window: w})
	}
	position := p.write(t, window(known[0], time.Hour, 2*time.Hour), window(known[1], -2*time.Hour, -time.Hour), window(known[2], -time.Hour, time.Hour))
	assert.Equal(t, known[2:], p.candidates(t, &tandemv1.RetrieveRequest{MinLive: position}))
	got, err := p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, ExplainIds: known[:1]}))
	require.NoError(t, err)
	assert.Equal(t, tandemv1.Verdict_VERDICT_OUTSIDE_WINDOW, got.Msg.Explain.Ids[0].Verdict)
	position = p.write(t, setAttributes(&tandemv1.SetAttributes{Id: known[0], Window: &tandemv1.Window{}}), window(known[1], 0, time.Hour))
	assert.Equal(t, known, p.candidates(t, &tandemv1.RetrieveRequest{MinLive: position}))
}

// What one server has written another answers with, once it is asked for that.
func TestMinLive(t *testing.T) {
	t.Parallel() // it waits
	f := newFleet(t, 1, Config{Live: writes(), Logger: slog.New(slog.DiscardHandler)})
	other := start(t, Config{Store: f.store, Live: Live{Poll: 10 * time.Second, Fence: time.Minute}, Logger: slog.New(slog.DiscardHandler)})
	for i := range 20 {
		app := fmt.Sprintf("a%d", i)
		position := f.p.write(t, takedown(app))
		assert.NotContains(t, other.candidates(t, &tandemv1.RetrieveRequest{MinLive: position}), app)
		e, err := other.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: []string{app}, MinLive: position}))
		require.NoError(t, err)
		assert.Equal(t, []string{app}, e.Msg.UnknownIds)
	}
	last := f.p.write(t, restore("a1"))
	ahead := &tandemv1.LivePosition{Log: last.Log, Sequence: last.Sequence + 1}
	var err error
	wait(t, func() bool { // the answer leaves 50 ms before the deadline, and comes late on a busy machine
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = other.client().Retrieve(ctx, connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, MinLive: ahead}))
		return connect.CodeOf(err) != connect.CodeDeadlineExceeded
	})
	requireError(t, err, connect.CodeUnavailable, "min_live is 22, and the server had read the live log to 21 when there was no more time to wait")
	info, _ := detailsOf(t, err)
	assert.Equal(t, "LIVE_BEHIND", info.GetReason())
	_, err = other.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, MinLive: &tandemv1.LivePosition{Log: "another", Sequence: 1}}))
	requireError(t, err, connect.CodeFailedPrecondition, "min_live is another:1, of another live log than the server follows, which is at 21")
	info, _ = detailsOf(t, err)
	assert.Equal(t, "LIVE_LOG_UNKNOWN", info.GetReason())

	var batch *connect.Response[tandemv1.BatchRetrieveResponse]
	wait(t, func() bool { // as above
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		batch, err = other.client().BatchRetrieve(ctx, connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{
			{UserId: "u1", K: 1}, {UserId: "u1", K: 1, MinLive: ahead}, {UserId: "u1", K: 1, MinLive: last}, {UserId: "u1", MinLive: ahead},
		}}))
		return connect.CodeOf(err) != connect.CodeDeadlineExceeded
	})
	require.NoError(t, err)
	var got []string
	for _, r := range batch.Msg.Results {
		if failed := r.GetError(); failed != nil {
			got = append(got, failed.Info.Reason)
		} else {
			got = append(got, r.GetResponse().Candidates[0].Id)
		}
	}
	assert.Equal(t, []string{got[0], "LIVE_BEHIND", got[0], "RULE_BROKEN"}, got)
}

// A takedown holds whatever is released, and after a restart.
func TestTakedownOutlastsReleases(t *testing.T) {
	c := Config{Live: writes(), Logger: slog.New(slog.DiscardHandler)}
	f := newFleet(t, 2, c)
	has := func(p *process) bool {
		for _, app := range p.candidates(t, &tandemv1.RetrieveRequest{}) {
			if app == "a7" {
				return true
			}
		}
		return false
	}
	require.True(t, has(f.p))
	f.p.write(t, takedown("a7"))
	require.False(t, has(f.p))
	f.start(t, f.digests[1], 500)
	f.await(t, 2)
	for _, version := range []string{"v1", "v2"} {
		assert.NotContains(t, f.p.candidates(t, &tandemv1.RetrieveRequest{ModelVersion: version}), "a7")
	}
	_, err := f.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
	f.await(t, 3)
	require.False(t, has(f.p))
	// It is mapped still, and goes on with the log.
	f.p.write(t, takedown("a8"), upsert(&tandemv1.Upsert{Id: "new", ModelVersion: "v1", Vector: []float32{9, 9, 9, 9}}))
	_, err = f.releases.Rollback(t.Context(), release.RollbackOptions{To: 1})
	require.NoError(t, err)
	f.await(t, 4)
	require.False(t, has(f.p))
	ids := f.p.candidates(t, &tandemv1.RetrieveRequest{})
	assert.NotContains(t, ids, "a8")
	assert.Contains(t, ids, "new")

	f.p.stop()
	require.NoError(t, <-f.p.done)
	c.Store = f.store
	again := start(t, c)
	assert.Equal(t, ids, again.candidates(t, &tandemv1.RetrieveRequest{}))
}

// Queries that race with takedowns never return an app that was acknowledged to be taken down
// before they were sent, and each answer is of one position.
func TestTakedownsWhileQueried(t *testing.T) {
	p := liveServer(t, Config{})
	var acknowledged sync.Map
	ctx, stop := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for range 4 {
		asking.Go(func() {
			for last := uint64(0); ctx.Err() == nil; {
				var down []string
				acknowledged.Range(func(app, _ any) bool { down = append(down, app.(string)); return true })
				got, err := p.client().Retrieve(context.Background(), connect.NewRequest(&tandemv1.RetrieveRequest{Vector: []float32{1, 1, 1, 1}, K: 1000}))
				if !assert.NoError(t, err) {
					return
				}
				if !assert.GreaterOrEqual(t, got.Msg.Live.Sequence, last) {
					return
				}
				last = got.Msg.Live.Sequence
				assert.EqualValues(t, 60-last, len(got.Msg.Candidates), "each entry takes one app down")
				for _, c := range got.Msg.Candidates {
					if !assert.NotContains(t, down, c.Id) {
						return
					}
				}
			}
		})
	}
	for i := range 40 {
		app := fmt.Sprintf("a%d", i)
		p.write(t, takedown(app))
		acknowledged.Store(app, true)
	}
	stop()
	asking.Wait()
}

// A server that was not told to takes no writes.
func TestWritesAreOff(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{}))
	_, err := p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{takedown("a1")}}))
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	info, _ := detailsOf(t, err)
	assert.Equal(t, "WRITES_OFF", info.GetReason())
	stream := p.liveClient().Import(t.Context())
	_, err = stream.CloseAndReceive()
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
	s, err := p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.False(t, s.Msg.Writes)
}

// Writes are not taken under a name, which a web page could have had resolved to the server.
func TestWritesUnderAName(t *testing.T) {
	p := liveServer(t, Config{})
	body := `{"events": [{"takedown": {"app": "a1", "reason": "r"}}]}`
	for host, want := range map[string]int{"shop.example:8080": http.StatusForbidden, "localhost:8080": http.StatusOK, "[::1]": http.StatusOK, "LocalHost.": http.StatusOK, "127.0.0.1": http.StatusOK} {
		r, err := http.NewRequest(http.MethodPost, p.url+tandemv1connect.LiveServiceWriteProcedure, strings.NewReader(body))
		require.NoError(t, err)
		r.Host = host
		r.Header.Set("Content-Type", "application/json")
		got := p.do(t, r)
		assert.Equal(t, want, got.status, "%s: %s", host, got.body)
	}
}

// A server that is told to stop follows the log until its last request has ended.
func TestLiveLogWhileItDrains(t *testing.T) {
	t.Parallel() // it waits
	c := smallTowers(index.Dot).named(t, Config{DrainDelay: shortFence + 2*time.Second, Live: writes()})
	c.Live.Fence = shortFence
	p := start(t, c)
	p.stop()
	p.await("draining")
	asked := 0
	for {
		select {
		case err := <-p.done:
			require.NoError(t, err)
			require.Greater(t, asked, 10)
			return
		default:
		}
		if _, err := p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1})); err == nil {
			asked++
		} else {
			require.NotContains(t, err.Error(), "the fence is")
		}
	}
}

// A service without a store follows no log, and its answers say nothing of one.
func TestNoLiveLog(t *testing.T) {
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	got, err := s.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1}))
	require.NoError(t, err)
	assert.Nil(t, got.Msg.Live)
	assert.Nil(t, got.Msg.Staleness)
	_, err = s.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 1, MinLive: &tandemv1.LivePosition{Sequence: 3}}))
	requireError(t, err, connect.CodeFailedPrecondition, "min_live is 3, and the server follows no live log")
	for _, call := range []func() error{
		func() error {
			_, err := s.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
			return err
		},
		func() error {
			_, err := s.liveClient().Prove(t.Context(), connect.NewRequest(&tandemv1.ProveRequest{Apps: []string{"a1"}}))
			return err
		},
	} {
		require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(call()))
	}
	_, err = s.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{takedown("a1")}}))
	require.Equal(t, connect.CodePermissionDenied, connect.CodeOf(err))
}

// What is wrong with an event is told by its field, with what is accepted, and nothing of the
// message is written.
func TestBadEvents(t *testing.T) {
	p := liveServer(t, Config{})
	good := takedown("a1")
	vector := []float32{1, 2, 3, 4}
	long := strings.Repeat("x", 257)
	for _, test := range []struct {
		event  *tandemv1.LiveEvent
		reason reason
		field  string
		text   string
	}{
		{&tandemv1.LiveEvent{}, reasonRule, "events[1]", "set exactly one of takedown, restore, upsert, set_attributes, remove, forget_user; none is set"},
		{takedown(""), reasonRule, "events[1].takedown.app", "app has 0 bytes; accepted: 1 to 256"},
		{takedown(long), reasonRule, "events[1].takedown.app", "app has 257 bytes; accepted: 1 to 256"},
		{&tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Takedown{Takedown: &tandemv1.Takedown{App: "a"}}}, reasonRule, "events[1].takedown.reason", "reason has 0 bytes; accepted: 1 to 1024"},
		{upsert(&tandemv1.Upsert{Id: "a", Vector: vector}), reasonRule, "events[1].upsert.model_version", "model_version has 0 bytes; accepted: 1 to 256"},
		{upsert(&tandemv1.Upsert{Id: "a", ModelVersion: "v1"}), reasonRule, "events[1].upsert.vector", "vector has 0 numbers"},
		{upsert(&tandemv1.Upsert{Id: "a", ModelVersion: "v1", Vector: vector[:3]}), reasonEvent, "events[1].upsert.vector", "4"},
		{upsert(&tandemv1.Upsert{Id: "a", ModelVersion: "v1", Vector: vector, Attributes: map[string]*tandemv1.AttributeValue{"prize": number(1)}}), reasonEvent, "", "prize"},
		{upsert(&tandemv1.Upsert{Id: "a", ModelVersion: "v1", Vector: vector, Attributes: map[string]*tandemv1.AttributeValue{"min_age": keyword("x")}}), reasonEvent, "", "min_age"},
		{upsert(&tandemv1.Upsert{Id: "a", ModelVersion: "v1", Vector: vector, Attributes: map[string]*tandemv1.AttributeValue{"min_age": {}}}), reasonEvent, "events[1].upsert.attributes", "min_age"},
		{setAttributes(&tandemv1.SetAttributes{Id: "a", Attributes: map[string]*tandemv1.AttributeValue{"developer": number(1)}}), reasonEvent, "", "arm control, of model feed v1"},
		{setAttributes(&tandemv1.SetAttributes{Id: "a"}), reasonEvent, "events[1].set_attributes.attributes", "accepted: at least one of them"},
		{setAttributes(&tandemv1.SetAttributes{Id: "a", Clear: []string{"free", "free"}}), reasonEvent, "events[1].set_attributes.clear", "accepted: each name once"},
		{setAttributes(&tandemv1.SetAttributes{Id: "a", Window: &tandemv1.Window{From: &timestamppb.Timestamp{Nanos: -1}}}), reasonEvent, "events[1].set_attributes.window.from", "1 to 9999"},
		{setAttributes(&tandemv1.SetAttributes{Id: "a", Window: &tandemv1.Window{From: timestamppb.New(time.Unix(2, 0)), Until: timestamppb.New(time.Unix(1, 0))}}), reasonEvent, "events[1].set_attributes.window", "accepted: until after from"},
		{setAttributes(&tandemv1.SetAttributes{Tower: tandemv1.Tower_TOWER_USERS, Id: "u", Window: &tandemv1.Window{}}), reasonEvent, "events[1].set_attributes.window", "a user has none"},
		{setAttributes(&tandemv1.SetAttributes{Tower: 7, Id: "u"}), reasonRule, "events[1].set_attributes.tower", "tower is 7"},
		{&tandemv1.LiveEvent{EventId: "a\nb", Change: good.Change}, reasonEvent, "events[1].event_id", "U+000A"},
	} {
		_, err := p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{good, test.event}}))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), "%v: %v", test.event, err)
		info, bad := detailsOf(t, err)
		assert.Equal(t, string(test.reason), info.GetReason(), "%v", err)
		assert.ErrorContains(t, err, test.text)
		require.Len(t, bad.GetFieldViolations(), 1, "%v", err)
		if test.field != "" {
			assert.Equal(t, test.field, bad.FieldViolations[0].Field, "%v", err)
		}
	}
	many := &tandemv1.WriteRequest{}
	for range 1001 {
		many.Events = append(many.Events, good)
	}
	for _, r := range []*tandemv1.WriteRequest{{}, many} {
		_, err := p.liveClient().Write(t.Context(), connect.NewRequest(r))
		assert.ErrorContains(t, err, fmt.Sprintf("events has %d events; accepted: 1 to 1000", len(r.Events)))
	}
	s, err := p.liveClient().GetLiveStatus(t.Context(), connect.NewRequest(&tandemv1.GetLiveStatusRequest{}))
	require.NoError(t, err)
	assert.Zero(t, s.Msg.Position.Sequence, "nothing was written")

	// The same event again counts once; another under its id is refused.
	named := takedown("a1")
	named.EventId = "e1"
	first := p.write(t, named)
	again, err := p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{named}}))
	require.NoError(t, err)
	assert.Equal(t, []any{first.Sequence, uint32(1)}, []any{again.Msg.Position.Sequence, again.Msg.RepeatedEvents})
	other := takedown("a2")
	other.EventId = "e1"
	_, err = p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{other}}))
	require.Equal(t, connect.CodeAlreadyExists, connect.CodeOf(err))
	info, _ := detailsOf(t, err)
	assert.Equal(t, "EVENT_CONFLICT", info.GetReason())
	twice := takedown("a3")
	twice.EventId = "e3"
	differs := takedown("a4")
	differs.EventId = "e3"
	_, err = p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{twice, differs}}))
	assert.ErrorContains(t, err, `events[1]: event_id "e3": the event id is that of another event, events[0]`)
}

// Where there is no room, upserts are refused, and takedowns are not.
func TestFreshFull(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{Logger: slog.New(slog.DiscardHandler)})
	c.Live = writes()
	c.Live.MaxFreshRows = 2
	p := start(t, c)
	app := func(i int) *tandemv1.LiveEvent {
		return upsert(&tandemv1.Upsert{Id: fmt.Sprint("new", i), ModelVersion: "v1", Vector: []float32{9, 9, 9, 9}})
	}
	p.write(t, app(0), app(1))
	_, err := p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{app(2)}}))
	require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
	info, _ := detailsOf(t, err)
	assert.Equal(t, "FRESH_FULL", info.GetReason())
	assert.ErrorContains(t, err, "a rebuild is due: with it there would be 3 apps of model")
	assert.Empty(t, info.GetMetadata())
	_, err = p.liveClient().Write(t.Context(), connect.NewRequest(&tandemv1.WriteRequest{Events: []*tandemv1.LiveEvent{app(2), takedown("a2")}}))
	require.Equal(t, connect.CodeResourceExhausted, connect.CodeOf(err))
	info, _ = detailsOf(t, err)
	assert.Equal(t, "FRESH_FULL", info.GetReason())
	assert.Equal(t, map[string]string{"events_written": "1", "position": "2"}, info.GetMetadata())
	assert.ErrorContains(t, err, "not written of the 2 events: 0, counted from 0; all others are in the log")
	assert.NotContains(t, p.candidates(t, &tandemv1.RetrieveRequest{MinLive: &tandemv1.LivePosition{Sequence: 2}}), "a2")
	position := p.write(t, takedown("a1"), takedown("new0"))
	ids := p.candidates(t, &tandemv1.RetrieveRequest{MinLive: position})
	assert.Contains(t, ids, "new1")
	assert.NotContains(t, ids, "new0")
}

// A server that remembers how far it has read the live log does not serve an older copy of
// the store, until a person accepts it.
func TestTimeTravel(t *testing.T) {
	store := smallTowers(index.Dot).publish(t)
	digest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)
	c := Config{Store: store, Snapshot: string(digest), Logger: slog.New(slog.DiscardHandler), Live: writes()}
	c.Live.Memory = appendlog.Memory{filepath.Join(t.TempDir(), "live.json")}
	p := start(t, c)
	p.write(t, takedown("a1"))
	position := p.write(t, takedown("a2"))
	p.stop()
	require.NoError(t, <-p.done)
	last := fmt.Sprintf("live/%012d.log", position.Sequence)
	entry, err := store.Objects().Read(t.Context(), last)
	require.NoError(t, err)
	require.NoError(t, store.Objects().Delete(t.Context(), last))

	c.Listen = "127.0.0.1:0"
	err = Run(t.Context(), c)
	require.ErrorIs(t, err, live.ErrTimeTravel)

	// One that comes back, as where a copy was not complete yet, is served again.
	require.NoError(t, store.Objects().Create(t.Context(), last, entry))
	p = start(t, c)
	assert.NotContains(t, p.candidates(t, &tandemv1.RetrieveRequest{}), "a2")
	p.stop()
	require.NoError(t, <-p.done)

	require.NoError(t, store.Objects().Delete(t.Context(), last))
	c.Live.Accept = &shard.Position{Sequence: 7}
	require.Error(t, Run(t.Context(), c), "it does not end there")
	c.Live.Accept = &shard.Position{Sequence: position.Sequence - 1}
	p = start(t, c)
	ids := p.candidates(t, &tandemv1.RetrieveRequest{})
	assert.Contains(t, ids, "a2")
	assert.NotContains(t, ids, "a1")
	p.stop()
	require.NoError(t, <-p.done)
	c.Live.Accept = nil
	p = start(t, c)
	assert.Equal(t, ids, p.candidates(t, &tandemv1.RetrieveRequest{}), "it was accepted")

	// Without a memory what is known elsewhere counts.
	c.Live.Memory, c.Live.AtLeast = nil, shard.Position{Sequence: 100}
	require.ErrorIs(t, Run(t.Context(), c), live.ErrTimeTravel)
}

// followed returns a service that follows the releases and the live log of a store, without
// a network.
func followed(t testing.TB, c Config) *Service {
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Keep, c.MemoryLimit = DefaultKeep, 1<<30
	ready := make(chan struct{})
	c.Ready = func(Snapshot) { close(ready) }
	s := NewService(c.Logger)
	s.followLive(&c)
	require.NoError(t, s.live.Open(t.Context()))
	following, stop := context.WithCancel(context.Background())
	releases, stopReleases := context.WithCancel(context.Background())
	var parts, first sync.WaitGroup
	parts.Go(func() { s.live.Run(following) })
	require.NoError(t, s.live.Await(t.Context()))
	first.Go(func() { assert.NoError(t, follow(releases, s, &c)) })
	t.Cleanup(func() {
		stopReleases()
		first.Wait()
		s.Close()
		stop()
		parts.Wait()
	})
	<-ready
	return s
}

// Random events on one server, and queries on another that follows: each answer is what a
// plain map of apps says.
func TestLiveModel(t *testing.T) {
	data := newTowers(rand.New(rand.NewPCG(3, 4)), index.Dot, 4, 40, 5, 2)
	c := data.named(t, Config{Logger: slog.New(slog.DiscardHandler), Live: writes()})
	writer, reader := start(t, c), start(t, c)
	base, fresh, down := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, e := range data.apps {
		base[e.id] = true
	}
	r := rand.New(rand.NewPCG(5, 6))
	for range 150 {
		app := fmt.Sprintf("a%d", r.IntN(50))
		var e *tandemv1.LiveEvent
		switch r.IntN(5) {
		case 0, 1:
			e, down[app] = takedown(app), true
		case 2:
			e = restore(app)
			delete(down, app)
		case 3:
			e = upsert(&tandemv1.Upsert{Id: app, ModelVersion: "v1", Vector: []float32{float32(r.IntN(5)), 1, 1, 1}})
			fresh[app] = true
		case 4:
			e = &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_Remove{Remove: &tandemv1.Remove{Id: app}}}
			delete(base, app)
			delete(fresh, app)
		}
		position := writer.write(t, e)
		want := []string{}
		for i := range 50 {
			if id := fmt.Sprintf("a%d", i); (base[id] || fresh[id]) && !down[id] {
				want = append(want, id)
			}
		}
		got := reader.candidates(t, &tandemv1.RetrieveRequest{MinLive: position})
		require.ElementsMatch(t, want, got)
	}
}

// Where what is mapped cannot be read an event cannot be laid over it: that snapshot grows
// stale and answers no more, others go on, and it goes on once it can be read again.
func TestEventThatCannotBeLaid(t *testing.T) {
	t.Parallel() // it waits
	var log lines
	c := Config{Live: writes(), Logger: slog.New(slog.NewTextHandler(&log, nil))}
	c.Live.Fence = shortFence
	f := newFleet(t, 2, c)
	f.start(t, f.digests[1], 300)
	f.await(t, 2)
	path := f.store.ShardPath(f.shard(t, f.digests[0], shard.Apps, 1))
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.Truncate(path, 0))
	down := inShard(f.towers[0].apps, 1, 2)
	position := f.p.write(t, takedown(down))
	ask := func(version string) error {
		_, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}, K: 5, ModelVersion: version, MinCoverage: new(0.0)}))
		return err
	}
	wait(t, func() bool { return ask("v1") != nil })
	err = ask("v1")
	require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err), "%v", err)
	info, _ := detailsOf(t, err)
	assert.Equal(t, "LIVE_STALE", info.GetReason())
	assert.NotContains(t, f.p.candidates(t, &tandemv1.RetrieveRequest{ModelVersion: "v2", MinLive: position}), down)
	assert.Equal(t, 1, log.count("live log cannot be laid over a snapshot, which grows stale"))

	require.NoError(t, os.WriteFile(path, whole, 0o600))
	wait(t, func() bool { return ask("v1") == nil })
	wait(t, func() bool { return log.count("live log is laid over a snapshot again") == 1 })
	assert.NotContains(t, f.p.candidates(t, &tandemv1.RetrieveRequest{ModelVersion: "v1"}), down)
}

// BenchmarkLive asks a service that follows no live log, one that follows an empty one, and one
// with an app taken down, in turns; and takes apps down.
func BenchmarkLive(b *testing.B) {
	data := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 32, 20_000, 100, 2)
	r := &tandemv1.RetrieveRequest{UserId: "u1", K: 100, Ef: new(uint32(100)), Filter: "min_age < 10"}
	ask := func(s *Service) func(*testing.B) {
		return func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.retrieve(context.Background(), r); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Run("none", ask(data.loaded(b)))
	c := data.named(b, Config{Live: writes()})
	c.Live.Fence = time.Minute
	s := followed(b, c)
	b.Run("empty", ask(s))
	write := func(events ...live.Event) {
		_, err := s.live.Append(context.Background(), events)
		require.NoError(b, err)
	}
	write(live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: "a1", Reason: "r"})
	b.Run("takedown", ask(s))
	b.Run("take down", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			write(live.Event{Kind: live.Takedown, Tower: shard.Apps, Entity: fmt.Sprintf("a%d", i%10_000), Reason: "r"})
		}
	})
}
