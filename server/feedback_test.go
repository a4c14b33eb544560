package server

import (
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/timestamppb"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/auth"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/release"
)

// feedbackClient returns a client of a server's FeedbackService.
func (s *site) feedbackClient() tandemv1connect.FeedbackServiceClient {
	return tandemv1connect.NewFeedbackServiceClient(s.http2, s.url)
}

// log sends outcomes.
func (s *site) log(t *testing.T, list ...*tandemv1.Outcome) (*tandemv1.LogOutcomesResponse, error) {
	t.Helper()
	got, err := s.feedbackClient().LogOutcomes(t.Context(), connect.NewRequest(&tandemv1.LogOutcomesRequest{Outcomes: list}))
	if err != nil {
		return nil, err
	}
	return got.Msg, nil
}

// outcomeServer serves small towers and takes outcomes, and writes them at once.
func outcomeServer(t *testing.T, c Config) (*process, Config) {
	c.Outcomes = Outcomes{Take: true, Interval: LeastOutcomeInterval}
	c.Logger = slog.New(slog.DiscardHandler)
	c = smallTowers(index.Dot).named(t, c)
	return start(t, c), c
}

func TestLogOutcomes(t *testing.T) {
	p, c := outcomeServer(t, Config{})
	at := time.Now().Add(-time.Hour).UTC().Truncate(time.Microsecond)
	began := time.Now().Truncate(time.Microsecond)
	got, err := p.log(t,
		&tandemv1.Outcome{Id: "o1", RequestId: "r1", UserId: "u1", AppId: "a1", Kind: "open"},
		&tandemv1.Outcome{Id: "o2", RequestId: "r1", AppId: "a1", Kind: "play_time", Value: new(0.0), Time: timestamppb.New(at)},
		&tandemv1.Outcome{Id: "o3", UserId: "u2", AppId: "a2", Kind: "shared_with_2"},
	)
	require.NoError(t, err)
	assert.Equal(t, []uint32{3, 0}, []uint32{got.Accepted, got.Forgotten})
	var kept []outcomes.Outcome
	for o, err := range outcomes.Of(c.Store.Objects()).Outcomes(t.Context(), time.Time{}, time.Time{}) {
		require.NoError(t, err)
		assert.False(t, o.Received.Before(began) || o.Received.After(time.Now()))
		if o.ID != "o2" {
			assert.Equal(t, o.Received, o.Time)
			o.Time = time.Time{}
		}
		o.Received = time.Time{}
		kept = append(kept, *o)
	}
	assert.Equal(t, []outcomes.Outcome{
		{ID: "o1", RequestID: "r1", UserID: "u1", AppID: "a1", Kind: "open"},
		{ID: "o2", RequestID: "r1", AppID: "a1", Kind: "play_time", HasValue: true, Time: at},
		{ID: "o3", UserID: "u2", AppID: "a2", Kind: "shared_with_2"},
	}, kept)
}

func TestOutcomeRules(t *testing.T) {
	p, c := outcomeServer(t, Config{})
	long := strings.Repeat("x", 257)
	for want, change := range map[string]func(o *tandemv1.Outcome){
		"outcomes[1].id: it has 0 bytes; accepted: 1 to 128":                                     func(o *tandemv1.Outcome) { o.Id = "" },
		"outcomes[1].id: it has 257 bytes; accepted: 1 to 128":                                   func(o *tandemv1.Outcome) { o.Id = long },
		"outcomes[1].request_id: it has 257 bytes; accepted: 0 to 128":                           func(o *tandemv1.Outcome) { o.RequestId = long },
		"outcomes[1].user_id: it has 257 bytes; accepted: 0 to 256":                              func(o *tandemv1.Outcome) { o.UserId = long },
		"outcomes[1].app_id: it has 0 bytes; accepted: 1 to 256":                                 func(o *tandemv1.Outcome) { o.AppId = "" },
		"outcomes[1]: neither request_id nor user_id is set; accepted: at least one of them":     func(o *tandemv1.Outcome) { o.UserId = "" },
		`outcomes[1].kind: kind is "Open"; accepted: impression, open, install, play_time, hide`: func(o *tandemv1.Outcome) { o.Kind = "Open" },
		"outcomes[1].value: it is NaN; accepted: a finite number":                                func(o *tandemv1.Outcome) { o.Value = new(math.NaN()) },
		"outcomes[1].value: it is +Inf; accepted: a finite number":                               func(o *tandemv1.Outcome) { o.Value = new(math.Inf(1)) },
		"outcomes[1].time: it is 1969-12-31T23:59:59Z":                                           func(o *tandemv1.Outcome) { o.Time = &timestamppb.Timestamp{Seconds: -1} },
		"accepted: from 1970 to a day after that":                                                func(o *tandemv1.Outcome) { o.Time = timestamppb.New(time.Now().Add(25 * time.Hour)) },
		"outcomes[1].time: proto":                                                                func(o *tandemv1.Outcome) { o.Time = &timestamppb.Timestamp{Nanos: -1} },
	} {
		wrong := &tandemv1.Outcome{Id: "o2", UserId: "u", AppId: "a", Kind: "open"}
		change(wrong)
		_, err := p.log(t, &tandemv1.Outcome{Id: "o1", UserId: "u", AppId: "a", Kind: "open"}, wrong)
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err), want)
		require.ErrorContains(t, err, want)
		info, _ := detailsOf(t, err)
		assert.Equal(t, "OUTCOME_INVALID", info.GetReason())
	}
	_, err := p.log(t)
	requireError(t, err, connect.CodeInvalidArgument, "outcomes has 0 outcomes; accepted: 1 to 1000")
	_, err = p.log(t, make([]*tandemv1.Outcome, 1001)...)
	requireError(t, err, connect.CodeInvalidArgument, "outcomes has 1001 outcomes; accepted: 1 to 1000")
	assert.Empty(t, keptIDs(t, c.Store.Objects()), "nothing of a message that is refused is kept")
}

func TestOutcomesAreOff(t *testing.T) {
	p := start(t, smallTowers(index.Dot).named(t, Config{Logger: slog.New(slog.DiscardHandler)}))
	_, err := p.log(t, &tandemv1.Outcome{Id: "o", UserId: "u", AppId: "a", Kind: "open"})
	requireError(t, err, connect.CodePermissionDenied, "the server takes no outcomes, as it was not told to; accepted: by one that was")
	info, _ := detailsOf(t, err)
	assert.Equal(t, "OUTCOMES_OFF", info.GetReason())
	assert.Equal(t, auth.Feedback, auth.Needed(tandemv1connect.FeedbackServiceLogOutcomesProcedure))
}

// What a user did who is forgotten is not kept, and whoever sends it is told.
func TestOutcomesOfForgottenUsers(t *testing.T) {
	p, c := outcomeServer(t, Config{Live: writes()})
	p.write(t, &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: "u3"}}})
	got, err := p.log(t,
		&tandemv1.Outcome{Id: "o1", UserId: "u3", AppId: "a", Kind: "open"}, &tandemv1.Outcome{Id: "o2", UserId: "u4", AppId: "a", Kind: "open"},
		&tandemv1.Outcome{Id: "o3", RequestId: "u3", AppId: "a", Kind: "open"},
	)
	require.NoError(t, err)
	assert.Equal(t, []uint32{1, 2}, []uint32{got.Accepted, got.Forgotten})
	got, err = p.log(t, &tandemv1.Outcome{Id: "o1", UserId: "u3", AppId: "a", Kind: "open"})
	require.NoError(t, err)
	assert.Equal(t, []uint32{0, 1}, []uint32{got.Accepted, got.Forgotten})
	assert.Equal(t, map[string]int{"o2": 1}, keptIDs(t, c.Store.Objects()))
}

// A server that stops answers those whose outcomes it has gathered, and has kept them.
func TestOutcomesWhenAServerStops(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{Outcomes: Outcomes{Take: true}, Logger: slog.New(slog.DiscardHandler)})
	p := start(t, c)
	answered := make(chan error, 1)
	go func() {
		_, err := p.feedbackClient().LogOutcomes(t.Context(), connect.NewRequest(&tandemv1.LogOutcomesRequest{
			Outcomes: []*tandemv1.Outcome{{Id: "o", UserId: "u", AppId: "a", Kind: "open"}},
		}))
		answered <- err
	}()
	err := <-answered
	require.NoError(t, err)
	p.stop()
	require.NoError(t, <-p.done)
	assert.Equal(t, map[string]int{"o": 1}, keptIDs(t, c.Store.Objects()))
}

// A store that does not confirm is told of, and what is sent again then is kept.
func TestOutcomesUnconfirmed(t *testing.T) {
	faults, c := faulty(t, smallTowers(index.Dot))
	c.Outcomes = Outcomes{Take: true, Interval: LeastOutcomeInterval}
	c.Live.Fence = time.Minute
	p := start(t, c)
	for i, fault := range []objectstest.Fault{objectstest.Fail, objectstest.Lose} {
		faults.Inject(objectstest.Rule{Client: served, Key: outcomes.Prefix, Fault: fault, Err: objectstest.ErrDenied})
		o := &tandemv1.Outcome{Id: fmt.Sprint("o", i), UserId: "u", AppId: "a", Kind: "open"}
		_, err := p.log(t, o)
		require.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
		require.ErrorContains(t, err, "whether the outcomes are kept is not known: send them again under the same ids")
		info, _ := detailsOf(t, err)
		assert.Equal(t, "OUTCOMES_UNCONFIRMED", info.GetReason())
		faults.Heal()
		_, err = p.log(t, o)
		require.NoError(t, err)
	}
	got := keptIDs(t, c.Store.Objects())
	assert.Equal(t, 1, got["o0"])
	assert.Equal(t, 2, got["o1"], "it was there the first time: its id has it count once")
}

// A variant decides the arm, and nothing else of the request does.
func TestVariants(t *testing.T) {
	f := newFleet(t, 2, Config{Logger: slog.New(slog.DiscardHandler)})
	f.start(t, f.digests[1], 0)
	_, err := f.releases.Split(t.Context(), release.SplitOptions{Variants: []release.Variant{{Experiment: "e", Variant: "b", Arms: []string{"candidate"}}}})
	require.NoError(t, err)
	f.await(t, 3)
	ask := func(experiment, variant, version string) (*tandemv1.RetrieveResponse, error) {
		got, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{
			UserId: "u1", K: 3, Experiment: experiment, Variant: variant, ModelVersion: version,
		}))
		if err != nil {
			return nil, err
		}
		return got.Msg, nil
	}
	for _, test := range []struct{ experiment, variant, version, want string }{
		{"", "", "", "control"}, {"e", "a", "", "control"}, {"e", "b", "", "candidate"}, {"e", "b", "v2", "candidate"}, {"f", "b", "", "control"},
	} {
		got, err := ask(test.experiment, test.variant, test.version)
		require.NoError(t, err)
		assert.Equal(t, test.want, got.Arm, "%v", test)
	}
	_, err = ask("e", "b", "v1")
	requireError(t, err, connect.CodeFailedPrecondition, `model_version is "v1", and experiment "e", variant "b" is answered by arm candidate, which serves "v2"`)
	_, err = ask("e", "", "")
	requireError(t, err, connect.CodeInvalidArgument, "experiment is set and variant is not; accepted: both or neither")
	_, err = ask("", "b", "")
	requireError(t, err, connect.CodeInvalidArgument, "variant is set and experiment is not; accepted: both or neither")
}
