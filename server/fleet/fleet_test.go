package fleet_test

import (
	"context"
	"errors"
	"math"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"gocloud.dev/blob/memblob"
	"google.golang.org/protobuf/types/known/durationpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard/appendlog"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// sayings is a server that says one status after another, and the last for ever.
type sayings struct {
	tandemv1connect.UnimplementedAdminServiceHandler
	list []*tandemv1.GetStatusResponse
}

func (s *sayings) GetStatus(_ context.Context, _ *connect.Request[tandemv1.GetStatusRequest]) (*connect.Response[tandemv1.GetStatusResponse], error) {
	now := s.list[0]
	if len(s.list) > 1 {
		s.list = s.list[1:]
	}
	return connect.NewResponse(now), nil
}

// servers are handlers by the host of their URLs, reached without a network. A nil one never
// answers.
type servers map[string]http.Handler

// Do implements [connect.HTTPClient].
func (s servers) Do(r *http.Request) (*http.Response, error) {
	h, ok := s[r.URL.Host]
	if !ok {
		return nil, errors.New("nobody listens")
	}
	if h == nil {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	answer := httptest.NewRecorder()
	h.ServeHTTP(answer, r)
	return answer.Result(), r.Context().Err()
}

// newFleet returns servers named a, b and so on that say those, or never answer.
func newFleet(all ...[]*tandemv1.GetStatusResponse) *fleet.Fleet {
	hosts := servers{}
	f := &fleet.Fleet{HTTP: hosts}
	for i, list := range all {
		name := string(rune('a' + i))
		if hosts[name] = nil; list != nil {
			_, hosts[name] = tandemv1connect.NewAdminServiceHandler(&sayings{list: list})
		}
		f.Servers = append(f.Servers, fleet.Server{Name: name, URL: "http://" + name})
	}
	return f
}

func say(list ...*tandemv1.GetStatusResponse) []*tandemv1.GetStatusResponse { return list }

func serving(generation uint64, hash string) *tandemv1.GetStatusResponse {
	return &tandemv1.GetStatusResponse{Phase: tandemv1.Phase_PHASE_SERVING, Generation: generation, Hash: hash}
}

// released returns a log of four releases.
func released(t *testing.T) (*release.Releases, []*release.Release) {
	bucket := objects.New(memblob.OpenBucket(nil), "mem://")
	t.Cleanup(func() { require.NoError(t, bucket.Close()) })
	store, err := snapshots.NewStore(bucket, snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	empty := manifest.Tower{Shards: []manifest.Shard{{Digest: manifest.Sum([]byte("x")), Size: 1}}}
	m := &manifest.Manifest{Version: manifest.FirstVersion, Builder: "test", Model: "feed", ModelVersion: "1", Metric: index.Dot, Dim: 1, Apps: empty, Users: empty}
	data, err := m.Encode()
	require.NoError(t, err)
	d := manifest.Sum(data)
	require.NoError(t, bucket.Write(t.Context(), "snapshots/"+string(d)+".json", data))
	require.NoError(t, bucket.Write(t.Context(), "shards/"+string(empty.Shards[0].Digest)+".shard", []byte{0}))
	releases := release.New(store)
	first, err := releases.Start(t.Context(), release.StartOptions{Snapshot: d, Change: release.Change{Override: "a test"}})
	require.NoError(t, err)
	list := []*release.Release{first}
	for range 3 {
		r, err := releases.Rollback(t.Context(), release.RollbackOptions{To: 1})
		require.NoError(t, err)
		list = append(list, r)
	}
	return releases, list
}

// A server has a release if it serves it, or what was appended to it: what it says is
// believed of hashes, not of numbers.
func TestAwait(t *testing.T) {
	releases, list := released(t)
	at := func(i int) *tandemv1.GetStatusResponse { return serving(list[i].Generation, list[i].Hash.String()) }
	other := list[0].Hash.String()
	behind := serving(9, other)
	behind.Phase, behind.LogState, behind.LogError = tandemv1.Phase_PHASE_FAILED, tandemv1.LogState_LOG_STATE_BEHIND, "the log ends before"
	unread := at(0)
	unread.LogState, unread.LogError = tandemv1.LogState_LOG_STATE_UNREAD, "the store is silent"
	unread.Error = "it is full"
	unreleased := &tandemv1.GetStatusResponse{Unreleased: true, Arms: []*tandemv1.ArmStatus{{Snapshot: "0123456789abcdef"}}}

	for name, c := range map[string]struct {
		says  []*tandemv1.GetStatusResponse
		fails string
		never bool
	}{
		"the release":              {says: say(at(0), at(1))},
		"a later one":              {says: say(at(0), at(3))},
		"the log for a moment":     {says: say(behind, behind, at(1))},
		"an earlier one":           {says: say(at(0)), fails: "^it serves generation 1, serving$"},
		"the number":               {says: say(serving(2, other)), fails: "^it serves another generation 2 \\([0-9a-f]{12}\\) than is released \\([0-9a-f]{12}\\), serving$"},
		"a later number":           {says: say(serving(3, other)), fails: "^it serves generation 3, serving; the log has another generation 3 \\("},
		"a number that is not yet": {says: say(serving(9, other)), fails: "^it serves generation 9, serving; read entry 9 of log releases: .*no such object"},
		"a number alone":           {says: say(serving(1, ""), serving(2, "")), fails: "^it serves generation 2 and does not say which entry of the log that is: it is of an earlier version$", never: true},
		"a hash that is none":      {says: say(serving(3, "x")), fails: "^hash \"x\": ", never: true},
		"no release":               {says: say(&tandemv1.GetStatusResponse{Arms: []*tandemv1.ArmStatus{{}}}), fails: "^it serves a snapshot without a release, unspecified$"},
		"none whatever comes":      {says: say(unreleased), fails: "^IT SERVES SNAPSHOT 0123456789ab WHATEVER IS RELEASED: ", never: true},
		"nothing":                  {says: say(&tandemv1.GetStatusResponse{Phase: tandemv1.Phase_PHASE_LOADING}), fails: "^it serves nothing yet, loading$"},
		"another log":              {says: say(behind), fails: "^it serves generation 9; it does not follow the log of the store: the log ends before$"},
		"an old look":              {says: say(unread), fails: "^it serves generation 1, serving: it is full; its last look at the log failed: the store is silent$"},
		"no word":                  {fails: "^it does not answer: no answer yet$"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFleet(c.says, say(at(1)))
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				err := f.Await(ctx, fleet.Awaited{Release: list[1], Releases: releases})
				if c.fails == "" {
					require.NoError(t, err)
					return
				}
				silent := (*fleet.UnconfirmedError)(nil)
				require.ErrorAs(t, err, &silent)
				found := silent.Servers[0]
				assert.Equal(t, f.Servers[0], found.Server)
				assert.Equal(t, c.never, found.Never)
				require.Error(t, found.Err)
				assert.Regexp(t, c.fails, found.Err.Error())
				assert.Equal(t, name == "another log", errors.As(found.Err, new(*fleet.NotFollowingError)))
				if c.never {
					assert.Less(t, silent.Took, time.Second, "it is not waited for")
				} else {
					assert.Len(t, silent.Servers, 1)
					assert.EqualError(t, err, "generation 2 is written, not confirmed by a after 3s")
				}
			})
		})
	}
}

// What does not follow the log for long never will, unless the log was just accepted.
func TestAwaitOfAnotherLogEnds(t *testing.T) {
	r := &release.Release{Generation: 2}
	r.Hash[0] = 1
	apart := &tandemv1.GetStatusResponse{Generation: 1, Hash: "2", LogState: tandemv1.LogState_LOG_STATE_GAP, LogError: "a gap"}
	for _, accepted := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			f := newFleet(say(apart))
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			err := f.Await(ctx, fleet.Awaited{Release: r, Accepted: accepted})
			silent := (*fleet.UnconfirmedError)(nil)
			require.ErrorAs(t, err, &silent)
			assert.Equal(t, !accepted, silent.Servers[0].Never)
			assert.ErrorAs(t, silent.Servers[0].Err, new(*fleet.NotFollowingError))
			if accepted {
				assert.Equal(t, time.Minute, silent.Took)
			} else {
				assert.Less(t, silent.Took, 15*time.Second)
			}
		})
	}
}

// A server that is silent keeps nobody from hearing the others.
func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(nil, say(serving(2, "x")))
		f.Servers = append(f.Servers, fleet.Server{Name: "c", URL: "http://c"})
		start := time.Now()
		answers := f.Ask(t.Context())
		assert.Equal(t, 5*time.Second, time.Since(start))
		require.Len(t, answers, 3)
		for i, a := range answers {
			assert.Equal(t, f.Servers[i], a.Server)
		}
		assert.EqualError(t, answers[0].Err, "no answer within 5s")
		assert.Empty(t, answers[0].Faults(1, appendlog.Hash{}, time.Minute))
		assert.Empty(t, answers[0].Phase())
		assert.NoError(t, answers[0].Unread())
		assert.NoError(t, answers[1].Err)
		assert.EqualValues(t, 2, answers[1].Status.Generation)
		assert.Equal(t, "serving", answers[1].Phase())
		assert.EqualError(t, answers[2].Err, "unavailable: nobody listens")
	})
}

func TestFaults(t *testing.T) {
	hash := appendlog.Hash{1}
	right := func() *tandemv1.GetStatusResponse { return serving(3, hash.String()) }
	old := right()
	old.Staleness = durationpb.New(62100 * time.Millisecond)
	negative := right()
	negative.Staleness = durationpb.New(math.MinInt64)
	full := right()
	full.Error = "it is full"
	forked := right()
	forked.LogState, forked.LogError, forked.Error = tandemv1.LogState_LOG_STATE_FORKED, "it has forked", "so it fails"
	unread := right()
	unread.LogState, unread.LogError = tandemv1.LogState_LOG_STATE_UNREAD, "no route"
	for name, c := range map[string]struct {
		says       *tandemv1.GetStatusResponse
		generation uint64
		want       []string
	}{
		"what is released":         {right(), 3, nil},
		"an earlier look":          {unread, 3, nil},
		"another of its number":    {serving(3, "0123456789abcdef"), 3, []string{"it serves another generation 3 (0123456789ab) than is released (" + hash.Short() + ")"}},
		"another":                  {serving(2, "02"), 3, []string{"it serves generation 2"}},
		"nothing":                  {&tandemv1.GetStatusResponse{}, 3, []string{"it serves nothing yet"}},
		"nothing, as is right":     {&tandemv1.GetStatusResponse{}, 0, nil},
		"what nobody has released": {serving(2, "02"), 0, []string{"it serves generation 2, and nothing is released"}},
		"a snapshot alone":         {&tandemv1.GetStatusResponse{Arms: []*tandemv1.ArmStatus{{}}}, 0, []string{"it serves a snapshot without a release"}},
		"an error":                 {full, 3, []string{"it is full"}},
		"another log":              {forked, 3, []string{"it does not follow the log of the store: it has forked"}},
		"what it saw some day":     {negative, 3, []string{"it does not know how long ago it saw what is released"}},
		"what it saw long ago":     {old, 3, []string{"it has not seen for 1m2s what is released"}},
	} {
		answer := fleet.Answer{Status: c.says}
		var got []string
		for _, err := range answer.Faults(c.generation, hash, time.Minute) {
			got = append(got, err.Error())
		}
		assert.Equal(t, c.want, got, name)
	}
	assert.EqualError(t, (&fleet.Answer{Status: unread}).Unread(), "its last look at the log failed: no route")
}
