package server

import (
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/api/client"
	"github.com/tandem-ann/tandem/api/client/clienttest"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// TestClient asks a server, and the one in memory that rankers test with, by the client: what the
// two say is the same, wherever the one in memory says anything.
func TestClient(t *testing.T) {
	rows := smallTowers(index.Dot)
	real, err := client.New(client.Addresses(serve(t, rows.loaded(t), Options{}).url), client.WithDeadline(time.Minute))
	require.NoError(t, err)
	defer real.Close()
	lists := [2][]clienttest.Row{}
	for i, of := range [][]entity{rows.apps, rows.users} {
		for _, e := range of {
			row := clienttest.Row{ID: e.id, Vector: e.vector, Attributes: map[string]any{}}
			if i == 0 {
				row.Attributes["free"] = e.values[1].Bool()
			}
			lists[i] = append(lists[i], row)
		}
	}
	inMemory, err := clienttest.New(lists[0], lists[1])
	require.NoError(t, err)
	free := func(app clienttest.Row) bool { return app.Attributes["free"].(bool) }
	inMemory.Segments = map[string]func(clienttest.Row) bool{"free": free}
	inMemory.Filters = map[string]func(clienttest.Row, map[string]any) bool{"free": func(app clienttest.Row, _ map[string]any) bool { return free(app) }}
	fake := inMemory.Client(t, client.WithDeadline(time.Minute))

	one := 1.0
	requests := []*tandemv1.RetrieveRequest{
		{UserId: "u1", K: 10},
		{UserId: "u1", K: 100},
		{UserId: "u1", K: 5, Target: tandemv1.Tower_TOWER_USERS},
		{AppId: "a3", K: 5, ExcludeIds: []string{"a1", "a2", "nothing"}},
		{AppId: "a3", K: 5, IncludeIds: []string{"a1", "a2", "nothing"}},
		{Vector: []float32{1, 2, 3, 4}, K: 7, Filter: "free"},
		{Vectors: []*tandemv1.Vector{{Values: []float32{1, 0, 0, 0}}, {Values: []float32{0, 1, 0, 0}}}, K: 7, Segment: "free"},
		{UserId: "u1", K: 100, AtMost: []*tandemv1.AtMost{{Attribute: "free", N: 2}}},
		{UserId: "u1"},
		{UserId: "u1", AppId: "a1", K: 20_000, Target: 9, RecallTarget: new(float64)},
		{UserId: "u1", K: 1, AtMost: []*tandemv1.AtMost{{Attribute: "free"}}},
		{K: 1},
		{UserId: "nobody", K: 1},
		{AppId: "nothing", K: 1},
		{Vector: []float32{1}, K: 1},
		{Vector: []float32{1, 2, 3, float32(math.Inf(1))}, K: 1},
		{Vectors: []*tandemv1.Vector{{Values: []float32{1, 0, 0, 0}}, {Values: []float32{0}}}, K: 7},
		{UserId: "u1", K: 1, Filter: "free &&"},
		{UserId: "u1", K: 1, Segment: "none"},
		{UserId: "u1", K: 1, Attributes: []string{"free", "prize"}},
		{UserId: "u1", K: 1, AtMost: []*tandemv1.AtMost{{Attribute: "prize", N: 1}}},
		{UserId: "u1", K: 1, ExcludeIds: []string{"a", ""}},
		{UserId: "u1", K: 1, ModelVersion: "none"},
		{UserId: "nobody", K: 1, Fallback: tandemv1.Fallback_FALLBACK_MEAN_USER},
		{UserId: "u1", K: 1, PageToken: "none"},
	}
	for i, r := range requests {
		if r.RecallTarget == nil {
			r.RecallTarget = &one
		}
		a, aErr := real.Retrieve(t.Context(), r)
		b, bErr := fake.Retrieve(t.Context(), r)
		same(t, i, a, aErr, b, bErr)
	}
	a, err := real.BatchRetrieve(t.Context(), requests)
	require.NoError(t, err)
	b, err := fake.BatchRetrieve(t.Context(), requests)
	require.NoError(t, err)
	for i := range requests {
		same(t, i, a[i].Response, a[i].Err, b[i].Response, b[i].Err)
	}
}

// same fails unless two outcomes say the same.
func same(t *testing.T, i int, a *tandemv1.RetrieveResponse, aErr error, b *tandemv1.RetrieveResponse, bErr error) {
	t.Helper()
	require.Equal(t, aErr == nil, bErr == nil, "requests[%d]: %v, %v", i, aErr, bErr)
	if aErr == nil {
		require.Equal(t, len(a.Candidates), len(b.Candidates), i)
		for j, c := range a.Candidates {
			require.Equal(t, c.Id, b.Candidates[j].Id, i)
			require.Equal(t, c.Score, b.Candidates[j].Score, i)
		}
		require.Equal(t, a.Eligible, b.Eligible, i)
		require.Equal(t, a.ShortReason, b.ShortReason, i)
		require.Equal(t, a.NextPageToken == "", b.NextPageToken == "", i)
		return
	}
	x, ok := errors.AsType[*client.Error](aErr)
	require.True(t, ok)
	y, ok := errors.AsType[*client.Error](bErr)
	require.True(t, ok)
	require.Equal(t, x.Code, y.Code, "requests[%d]: %v, %v", i, aErr, bErr)
	require.Equal(t, x.Reason, y.Reason, "requests[%d]: %v, %v", i, aErr, bErr)
	require.Equal(t, x.Missing, y.Missing)
	require.Equal(t, len(x.Fields), len(y.Fields), "requests[%d]: %v, %v", i, x.Fields, y.Fields)
	for j := range x.Fields {
		require.Equal(t, x.Fields[j].Path, y.Fields[j].Path, "requests[%d]", i)
	}
	if x.Reason == client.RuleBroken {
		require.Equal(t, x.Message, y.Message)
	}
}
