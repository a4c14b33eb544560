package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/durationpb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/fleet"
	"github.com/tandem-ann/tandem/shard"
)

// liveSayings is a server that says one status of the live log after another, and the last
// for ever, and proves what it is told to.
type liveSayings struct {
	tandemv1connect.UnimplementedLiveServiceHandler
	list  []*tandemv1.GetLiveStatusResponse
	proof *tandemv1.ProveResponse
}

func (s *liveSayings) GetLiveStatus(context.Context, *connect.Request[tandemv1.GetLiveStatusRequest]) (*connect.Response[tandemv1.GetLiveStatusResponse], error) {
	now := s.list[0]
	if len(s.list) > 1 {
		s.list = s.list[1:]
	}
	return connect.NewResponse(now), nil
}

func (s *liveSayings) Prove(context.Context, *connect.Request[tandemv1.ProveRequest]) (*connect.Response[tandemv1.ProveResponse], error) {
	return connect.NewResponse(s.proof), nil
}

// newLiveFleet returns servers named a, b and so on that say those; a nil one never answers,
// and an empty one is of a version without a live log.
func newLiveFleet(all ...[]*tandemv1.GetLiveStatusResponse) *fleet.Fleet {
	hosts := servers{}
	f := &fleet.Fleet{HTTP: hosts}
	for i, list := range all {
		name := string(rune('a' + i))
		switch hosts[name] = nil; {
		case len(list) > 0:
			_, hosts[name] = tandemv1connect.NewLiveServiceHandler(&liveSayings{list: list})
		case list != nil:
			_, hosts[name] = tandemv1connect.NewLiveServiceHandler(tandemv1connect.UnimplementedLiveServiceHandler{})
		}
		f.Servers = append(f.Servers, fleet.Server{Name: name, URL: "http://" + name})
	}
	return f
}

type liveStatus = tandemv1.GetLiveStatusResponse

func liveSay(list ...*liveStatus) []*liveStatus { return list }

// at is a server that is fine, at a position of the first log.
func at(sequence uint64, digest string) *liveStatus {
	return &liveStatus{
		Position: &tandemv1.LivePosition{Sequence: sequence}, Hash: "hash" + digest[:1], Digest: digest,
		Staleness: durationpb.New(100 * time.Millisecond), Fence: durationpb.New(5 * time.Second), LogState: tandemv1.LogState_LOG_STATE_FOLLOWED,
	}
}

// with returns what a server says but for what change changes.
func with(s *liveStatus, change func(*liveStatus)) *liveStatus {
	change(s)
	return s
}

// awaited is position 2 of a log whose entries have the hash that entries x have here.
func awaited() fleet.AwaitedLive {
	return fleet.AwaitedLive{Position: shard.Position{Sequence: 2}, Includes: func(_ context.Context, at shard.Position, hash string) error {
		if hash != "hashx" {
			return fmt.Errorf("entry %d is not %s", at.Sequence, hash)
		}
		return nil
	}}
}

func TestAwaitLive(t *testing.T) {
	apart := func(s *liveStatus) {
		s.LogState, s.LogError = tandemv1.LogState_LOG_STATE_FORKED, "it has forked"
	}
	for name, c := range map[string]struct {
		says  []*liveStatus
		fails string
		never bool
	}{
		"the position":         {says: liveSay(at(1, "x"), at(2, "x"))},
		"a later one":          {says: liveSay(at(1, "x"), at(9, "x"))},
		"the number":           {says: liveSay(at(1, "x"), at(2, "y")), fails: "^it is at position 2, .*; entry 2 is not hashy$"},
		"an earlier one":       {says: liveSay(at(1, "x")), fails: "^it is at position 1, proved to be the last 100ms ago$"},
		"the log for a moment": {says: liveSay(with(at(1, "x"), apart), at(2, "x"))},
		"another log":          {says: liveSay(with(at(1, "x"), apart)), fails: "^it is at position 1, proved to be the last 100ms ago; it does not follow the live log of the store: it has forked$"},
		"a log accepted later": {says: liveSay(with(at(1, "x"), func(s *liveStatus) { s.Position.Log = "later" })), fails: "^it is at position later:1 of a log that was accepted later$", never: true},
		"no proof":             {says: liveSay(with(at(1, "x"), func(s *liveStatus) { s.Staleness = nil })), fails: "^it is at position 1, not proved to be the last$"},
		"an old look": {says: liveSay(with(at(1, "x"), func(s *liveStatus) {
			s.LogState, s.LogError = tandemv1.LogState_LOG_STATE_UNREAD, "no route"
		})), fails: "^it is at position 1, .*; its last look at the live log failed: no route$"},
		"an earlier version": {says: []*liveStatus{}, fails: "^it follows no live log, since it is of an earlier version: unimplemented", never: true},
		"no word":            {fails: "^it does not answer: no answer yet$"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newLiveFleet(c.says, liveSay(at(3, "x")))
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
				defer cancel()
				err := f.AwaitLive(ctx, awaited())
				if c.fails == "" {
					require.NoError(t, err)
					return
				}
				silent := (*fleet.LiveUnconfirmedError)(nil)
				require.ErrorAs(t, err, &silent)
				require.Equal(t, f.Servers[0], silent.Servers[0].Server)
				assert.Equal(t, c.never, silent.Servers[0].Never)
				assert.Regexp(t, c.fails, silent.Servers[0].Err.Error())
				if c.never {
					assert.Less(t, silent.Took, time.Second, "it is not waited for")
				} else {
					assert.EqualError(t, err, "position 2 is written, not confirmed by a after 3s")
				}
			})
		})
	}
}

// What does not follow the log for long never will.
func TestAwaitLiveOfAnotherLogEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLiveFleet(liveSay(with(at(1, "x"), func(s *liveStatus) {
			s.LogState, s.LogError = tandemv1.LogState_LOG_STATE_BEHIND, "it ends before"
		})))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err := f.AwaitLive(ctx, awaited())
		silent := (*fleet.LiveUnconfirmedError)(nil)
		require.ErrorAs(t, err, &silent)
		assert.True(t, silent.Servers[0].Never)
		assert.ErrorAs(t, silent.Servers[0].Err, new(*fleet.LiveNotFollowingError))
		assert.Less(t, silent.Took, 15*time.Second)
	})
}

func TestCompareLive(t *testing.T) {
	known := &fleet.LiveKnown{Name: "the store", Position: shard.Position{Sequence: 2}, Hash: "hashx", Digest: "x"}
	for name, c := range map[string]struct {
		says  [][]*liveStatus
		truth *fleet.LiveKnown
		want  [][]string
	}{
		"equal":            {says: [][]*liveStatus{liveSay(at(2, "x")), liveSay(at(2, "x"))}, truth: known, want: [][]string{nil, nil}},
		"equal in a while": {says: [][]*liveStatus{liveSay(at(1, "w"), at(1, "w"), at(2, "x")), liveSay(at(2, "x"))}, truth: known, want: [][]string{nil, nil}},
		"one is behind": {says: [][]*liveStatus{liveSay(at(1, "w")), liveSay(at(2, "x"))}, truth: nil, want: [][]string{
			{"it is at position 1, and was not at 2, where b is, after 3s"}, nil,
		}},
		"the store is ahead": {says: [][]*liveStatus{liveSay(at(1, "w")), liveSay(at(2, "x"))}, truth: known, want: [][]string{
			{"it is at position 1, and was not at 2, where the store is, after 3s"}, nil,
		}},
		"one differs": {says: [][]*liveStatus{liveSay(at(2, "x")), liveSay(at(2, "xy")), liveSay(at(2, "x"))}, want: [][]string{
			nil, {"at position 2 its digest is xy, that of a, c is x"}, nil,
		}},
		"one follows another log": {says: [][]*liveStatus{liveSay(at(2, "x")), liveSay(at(2, "y")), liveSay(at(2, "x"))}, want: [][]string{
			nil, {"its entry of position 2 is another one (hashy) than that of a, c (hashx)"}, nil,
		}},
		"two differ": {says: [][]*liveStatus{liveSay(at(2, "x")), liveSay(at(2, "xy"))}, want: [][]string{
			{"at position 2 its digest is x, that of b is xy"}, {"at position 2 its digest is xy, that of a is x"},
		}},
		"two differ from the store": {says: [][]*liveStatus{liveSay(at(2, "xz")), liveSay(at(2, "xz"))}, truth: known, want: [][]string{
			{"at position 2 its digest is xz, that of the store is x"}, {"at position 2 its digest is xz, that of the store is x"},
		}},
		"they differed in passing": {says: [][]*liveStatus{liveSay(at(1, "x"), at(2, "x"), at(3, "z")), liveSay(at(2, "xy"), at(3, "z"))}, want: [][]string{
			{"at position 2 its digest is x, that of b is xy"}, {"at position 2 its digest is xy, that of a is x"},
		}},
		"a log accepted later": {says: [][]*liveStatus{liveSay(at(9, "x")), liveSay(with(at(3, "x"), func(s *liveStatus) { s.Position.Log = "later" }))}, want: [][]string{
			{"it is at position 9, and was not at later:3, where b is, after 3s"}, nil,
		}},
		"beyond the fence": {says: [][]*liveStatus{liveSay(with(at(2, "x"), func(s *liveStatus) { s.Staleness = durationpb.New(6 * time.Second) }))}, want: [][]string{
			{"its last proof of where the live log ends is 6s old, beyond its fence of 5s: it refuses queries"},
		}},
		"of an age that is none": {says: [][]*liveStatus{liveSay(with(at(2, "x"), func(s *liveStatus) { s.Staleness = durationpb.New(math.MinInt64) }))}, want: [][]string{
			{"it has no proof of where the live log ends whose age it can tell, and its fence is 5s: it refuses queries"},
		}},
		"flagged": {says: [][]*liveStatus{liveSay(with(at(2, "x"), func(s *liveStatus) { s.Staleness, s.AnswersStale = durationpb.New(6*time.Second), true }))}, want: [][]string{
			{"its last proof of where the live log ends is 6s old, beyond its fence of 5s: it marks its answers as stale"},
		}},
		"a broken log": {says: [][]*liveStatus{liveSay(with(at(2, "x"), func(s *liveStatus) {
			s.LogState, s.LogError = tandemv1.LogState_LOG_STATE_GAP, "a gap"
		}))}, want: [][]string{{"it does not follow the live log of the store: a gap"}}},
		"no log": {says: [][]*liveStatus{liveSay(with(at(2, "x"), func(s *liveStatus) { s.Staleness = nil }))}, want: [][]string{{"it follows no live log"}}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newLiveFleet(c.says...)
				got := f.CompareLive(t.Context(), 3*time.Second, c.truth)
				require.Len(t, got.Answers, len(c.says))
				for i, faults := range got.Faults {
					var texts []string
					for _, err := range faults {
						texts = append(texts, err.Error())
					}
					assert.Equal(t, c.want[i], texts, "server %d", i)
				}
			})
		})
	}
}

// A server that is silent keeps nobody from hearing the others.
func TestAskLive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newLiveFleet(nil, liveSay(at(2, "x")))
		start := time.Now()
		answers := f.AskLive(t.Context())
		assert.Equal(t, 5*time.Second, time.Since(start))
		assert.EqualError(t, answers[0].Err, "no answer within 5s")
		assert.Equal(t, shard.Position{}, answers[0].Position())
		assert.NoError(t, answers[0].Unread())
		require.NoError(t, answers[1].Err)
		assert.Equal(t, shard.Position{Sequence: 2}, answers[1].Position())
	})
}

func TestProve(t *testing.T) {
	hosts := servers{}
	proof := &tandemv1.ProveResponse{Position: &tandemv1.LivePosition{Sequence: 2}, Apps: []*tandemv1.AppProof{{App: "a1", CannotBeReturned: true}}}
	_, hosts["a"] = tandemv1connect.NewLiveServiceHandler(&liveSayings{proof: proof})
	_, hosts["b"] = tandemv1connect.NewLiveServiceHandler(&liveSayings{proof: &tandemv1.ProveResponse{}})
	f := &fleet.Fleet{HTTP: hosts}
	for _, name := range []string{"a", "b", "c"} {
		f.Servers = append(f.Servers, fleet.Server{Name: name, URL: "http://" + name})
	}
	answers := f.Prove(t.Context(), &tandemv1.ProveRequest{Apps: []string{"a1"}}, time.Minute)
	require.NoError(t, answers[0].Err)
	assert.True(t, answers[0].Proof.Apps[0].CannotBeReturned)
	assert.EqualError(t, answers[1].Err, "it answers for 0 apps, 1 were asked about")
	assert.Nil(t, answers[1].Proof)
	assert.Error(t, answers[2].Err)
	assert.False(t, errors.Is(answers[2].Err, context.DeadlineExceeded))
}
