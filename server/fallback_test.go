package server

import (
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestFallback asks for a user that the snapshot does not have.
func TestFallback(t *testing.T) {
	data := smallTowers(index.Dot)
	data.mean = []float32{1, 0.5, -0.25, 2}
	s := data.loaded(t)
	mean, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{Vector: data.mean, K: 20, RequestId: "r"})
	require.NoError(t, err)
	for _, target := range []tandemv1.Tower{tandemv1.Tower_TOWER_APPS, tandemv1.Tower_TOWER_USERS} {
		r := &tandemv1.RetrieveRequest{UserId: "nobody", K: 20, RequestId: "r", Target: target, Fallback: tandemv1.Fallback_FALLBACK_MEAN_USER, Explain: true}
		got, err := s.retrieve(t.Context(), r)
		require.NoError(t, err)
		require.Equal(t, tandemv1.Fallback_FALLBACK_MEAN_USER, got.FallbackUsed)
		require.Zero(t, got.Explain.UnknownExcludeIds, "the user is in no list")
		if target == tandemv1.Tower_TOWER_APPS {
			got.FallbackUsed, got.Explain, got.NextPageToken = 0, nil, mean.NextPageToken
			require.True(t, proto.Equal(mean, got))
		}

		// One that it has needs none.
		r.UserId = "u1"
		own, err := s.retrieve(t.Context(), r)
		require.NoError(t, err)
		require.Zero(t, own.FallbackUsed)
		r.Fallback = tandemv1.Fallback_FALLBACK_NONE
		without, err := s.retrieve(t.Context(), r)
		require.NoError(t, err)
		own.Explain, without.Explain = nil, nil
		own.NextPageToken, without.NextPageToken = "", ""
		require.True(t, proto.Equal(without, own))
	}
	for _, f := range []tandemv1.Fallback{tandemv1.Fallback_FALLBACK_UNSPECIFIED, tandemv1.Fallback_FALLBACK_NONE} {
		_, err = s.retrieve(t.Context(), &tandemv1.RetrieveRequest{UserId: "nobody", K: 20, Fallback: f})
		requireError(t, err, connect.CodeNotFound, `user_id "nobody" is not in the user tower of model feed v1; query by an id that it has, or by vector`)
	}

	site := serve(t, s, Options{})
	got := site.post(t, "Retrieve", `{"userId": "nobody", "k": 1, "fallback": "FALLBACK_MEAN_USER"}`)
	require.Equal(t, http.StatusOK, got.status)
	require.Equal(t, "FALLBACK_MEAN_USER", got.json["fallbackUsed"])
	got = site.post(t, "Retrieve", `{"userId": "u1", "k": 1, "fallback": "FALLBACK_MEAN_USER"}`)
	require.NotContains(t, got.json, "fallbackUsed")

	q, err := RecordedQuery(time.Now(), 0, &tandemv1.RetrieveRequest{UserId: "nobody", K: 1}, &tandemv1.RetrieveResponse{FallbackUsed: tandemv1.Fallback_FALLBACK_MEAN_USER})
	require.NoError(t, err)
	require.Equal(t, "FALLBACK_MEAN_USER", q.Fallback)
}

// TestFallbackOfOldSnapshot: a snapshot that was built before there was a mean has none.
func TestFallbackOfOldSnapshot(t *testing.T) {
	s := smallTowers(index.Dot).loaded(t)
	r := &tandemv1.RetrieveRequest{UserId: "nobody", K: 20, Fallback: tandemv1.Fallback_FALLBACK_MEAN_USER}
	_, err := s.retrieve(t.Context(), r)
	digest := s.current.Load().arms[0].snapshot.Digest().Short()
	requireError(t, err, connect.CodeFailedPrecondition, `user_id "nobody" is not in the user tower of model feed v1, and its snapshot `+digest+
		` has no mean user vector, which fallback FALLBACK_MEAN_USER takes; accepted with it: a snapshot that this version of the builder has built`)
	r.UserId = "u1"
	_, err = s.retrieve(t.Context(), r)
	require.NoError(t, err)
}
