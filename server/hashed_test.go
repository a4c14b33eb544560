package server

import (
	"log/slog"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// Ids of users are nowhere in what is recorded, hashes of them are in their place, and what is of users
// who are forgotten is not there at all.
func TestUsersAreHashed(t *testing.T) {
	hash, err := rowlog.NewUserHash([]byte("a key of some bytes"))
	require.NoError(t, err)
	c := smallTowers(index.Dot).named(t, Config{
		RecordShare: 1, Live: writes(), Outcomes: Outcomes{Take: true, Interval: LeastOutcomeInterval}, HashUsers: hash, Logger: slog.New(slog.DiscardHandler),
	})
	b := c.Store.Objects()
	p := start(t, c)
	ask := func(id string, r *tandemv1.RetrieveRequest) {
		r.K, r.RequestId = 2, id
		_, err := p.client().Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
	}
	ask("forgotten", &tandemv1.RetrieveRequest{UserId: "u3"})
	ask("user", &tandemv1.RetrieveRequest{UserId: "u4", RequestKey: "u5"})
	ask("nobody", &tandemv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}})
	ask("users", &tandemv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}, Target: tandemv1.Tower_TOWER_USERS})
	p.write(t, &tandemv1.LiveEvent{Change: &tandemv1.LiveEvent_ForgetUser{ForgetUser: &tandemv1.ForgetUser{User: "u3"}}})
	_, err = p.log(t,
		&tandemv1.Outcome{Id: "o1", UserId: "u4", AppId: "a1", Kind: "open"}, &tandemv1.Outcome{Id: "o2", UserId: "u3", AppId: "a1", Kind: "open"},
		&tandemv1.Outcome{Id: "o3", RequestId: "user", AppId: "a1", Kind: "open"},
	)
	require.NoError(t, err)
	p.stop()
	require.NoError(t, <-p.done)

	got := map[string]querylog.Query{}
	for _, q := range recorded(t, b) {
		got[q.RequestID] = q
	}
	require.Len(t, got, 2, "requests for users are not recorded, nor those of who is forgotten")
	assert.Equal(t, []string{hash.Of("u4"), hash.Of("u5")}, []string{got["user"].UserID, got["user"].RequestKey})
	r := &tandemv1.RetrieveRequest{}
	require.NoError(t, proto.Unmarshal(got["user"].Request, r))
	assert.True(t, proto.Equal(&tandemv1.RetrieveRequest{UserId: hash.Of("u4"), RequestKey: hash.Of("u5"), K: 2, RequestId: "user"}, r), "%v", r)
	assert.Empty(t, got["nobody"].UserID)
	acts := map[string]string{}
	for o, err := range outcomes.Of(b).Outcomes(t.Context(), time.Time{}, time.Time{}) {
		require.NoError(t, err)
		acts[o.ID] = o.UserID
	}
	assert.Equal(t, map[string]string{"o1": hash.Of("u4"), "o3": ""}, acts)
}
