package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// Apps that are drawn are those that the request's own filter lets through, none that was served or came
// next, each about as often as any other, and the same for the same request.
func TestEligibleApps(t *testing.T) {
	dir := t.TempDir()
	s := &releasing{}
	s.run(t, "generate", "--out", dir, "--apps", "300", "--users", "80", "--dim", "8", "--interactions-per-user", "0")
	where := filepath.Join(dir, "store")
	s.run(t, "build", "--apps", filepath.Join(dir, "apps.parquet"), "--users", filepath.Join(dir, "users.parquet"),
		"--model", "feed", "--model-version", "1", "--metric", "dot", "--shards", "2", "--store", where)
	store, err := snapshots.OpenStore(t.Context(), where, snapshots.Options{})
	require.NoError(t, err)
	defer store.Close()
	digest, err := store.Resolve(t.Context(), "")
	require.NoError(t, err)

	// What is eligible, as a server says it.
	snapshot, err := snapshots.Open(t.Context(), store, digest)
	require.NoError(t, err)
	service := server.NewService(slog.New(slog.DiscardHandler))
	service.Serve(snapshot)
	defer service.Close()
	request := &tandemv1.RetrieveRequest{UserId: "user-0000007", K: 300, Filter: `"ios" in platforms`, RecallTarget: proto.Float64(1)}
	all, err := service.Retrieve(t.Context(), connect.NewRequest(request))
	require.NoError(t, err)
	eligible := map[string]float32{}
	for _, c := range all.Msg.Candidates {
		eligible[c.Id] = c.Score
	}
	require.Greater(t, len(eligible), 30)
	require.Less(t, len(eligible), 300)

	request.K, request.RecallTarget = 5, nil
	query := func(id string) *querylog.Query {
		r := proto.CloneOf(request)
		r.RequestId = id
		data, err := proto.Marshal(r)
		require.NoError(t, err)
		q := &querylog.Query{Time: time.Unix(1, 0), RequestID: id, Request: data, Snapshot: string(digest)}
		for i, c := range all.Msg.Candidates[:8] {
			if i < 5 {
				q.Candidates = append(q.Candidates, querylog.Candidate{ID: c.Id})
			} else {
				q.Next = append(q.Next, querylog.Candidate{ID: c.Id})
			}
		}
		return q
	}
	apps := newEligibleApps(&environment{ctx: t.Context(), stdout: &bytes.Buffer{}, stderr: &bytes.Buffer{}}, store)
	defer apps.Close()
	draw := func(id string, n int) (ids []string) {
		list, known, err := apps.draw(t.Context(), query(id), n)
		require.NoError(t, err)
		require.True(t, known)
		for _, c := range list {
			require.InDelta(t, eligible[c.ID], c.Score, 1e-5)
			ids = append(ids, c.ID)
		}
		return ids
	}
	rest := draw("r", 1000)
	slices.Sort(rest)
	var want []string
	for _, c := range all.Msg.Candidates[8:] {
		want = append(want, c.Id)
	}
	slices.Sort(want)
	require.Equal(t, want, rest)
	require.Equal(t, draw("r", 5), draw("r", 5))

	times := map[string]int{}
	const draws = 400
	for i := range draws {
		for _, id := range draw(fmt.Sprint("r", i), 5) {
			times[id]++
		}
	}
	// Five standard deviations of a Poisson distribution about what each is to have.
	mean := 5 * draws / float64(len(want))
	for _, id := range want {
		require.InDelta(t, mean, times[id], 5*math.Sqrt(mean), id)
	}

	request.UserId = "user-9999999"
	_, known, err := apps.draw(t.Context(), query("r"), 5)
	require.NoError(t, err)
	require.False(t, known, "the snapshot does not know the user")
	q := query("r")
	q.Snapshot = "gone"
	_, known, err = apps.draw(t.Context(), q, 5)
	require.NoError(t, err)
	require.False(t, known)
}
