package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard/joined"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/outcomes"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// logRequests adds recorded requests to a store, of two apps each, and an open of each request.
func logRequests(t *testing.T, bucket *objects.Bucket, day time.Time, from, to int) {
	t.Helper()
	var queries []querylog.Query
	var acts []outcomes.Outcome
	for i := from; i < to; i++ {
		at := day.Add(time.Duration(i) * time.Second)
		queries = append(queries, querylog.Query{
			Time: at, RequestID: fmt.Sprint("r", i), Request: []byte("x"), UserID: fmt.Sprint("u", i), ModelVersion: "7", Coverage: 1, Arm: "x",
			Candidates: []querylog.Candidate{{ID: "a"}, {ID: "b"}},
		})
		acts = append(acts, outcomes.Outcome{ID: fmt.Sprint("o", i), RequestID: fmt.Sprint("r", i), AppID: "b", Kind: "open", Time: at, Received: at})
	}
	data, err := querylog.Encode(queries)
	require.NoError(t, err)
	require.NoError(t, bucket.Write(t.Context(), querylog.Key(day.Add(time.Hour)), data))
	data, err = outcomes.Encode(acts)
	require.NoError(t, err)
	require.NoError(t, bucket.Write(t.Context(), outcomes.Key(day.Add(time.Hour)), data))
}

// opensOf returns how many requests and opens the set of a day has, in whole; none if there is no set.
func opensOf(t *testing.T, bucket *objects.Bucket, day string) (requests, opens int64) {
	t.Helper()
	s, err := joined.Read(t.Context(), bucket, day)
	if errors.Is(err, objects.ErrNotFound) {
		return 0, 0
	}
	require.NoError(t, err)
	ids := map[string]bool{}
	for r, err := range s.Rows(t.Context(), bucket) {
		require.NoError(t, err)
		ids[r.RequestID] = true
		opens += r.Opens
	}
	require.Equal(t, s.Counts.Requests, int64(len(ids)))
	require.Equal(t, s.Counts.Joined, opens)
	return s.Counts.Requests, opens
}

// A join that is killed, whenever that is, leaves the set that there was, or the new one, or none where
// there was none; the next one makes the new one, with each outcome once, and leaves nothing else.
func TestKilledJoins(t *testing.T) {
	t.Parallel() // it waits
	const day = "2026-11-25"
	begins, err := time.Parse(time.DateOnly, day)
	require.NoError(t, err)
	random := rand.New(rand.NewPCG(*trialSeed, 23))
	var took time.Duration
	for kill := range 2 * *kills {
		dir := filepath.Join(t.TempDir(), "store")
		require.NoError(t, os.Mkdir(dir, 0o755))
		bucket, err := objects.Open(t.Context(), dir)
		require.NoError(t, err)
		args := []string{"feedback", "join", "--store", dir, "--day", day, "--memory", "64KiB"}
		var before int64
		if kill%2 == 1 { // there is a set already
			before = 300
			logRequests(t, bucket, begins, 0, 300)
			output, err := exec.Command("tandem", args...).CombinedOutput()
			require.NoError(t, err, string(output))
		} else {
			logRequests(t, bucket, begins, 0, 300)
		}
		logRequests(t, bucket, begins, 300, 600)
		if took == 0 {
			start := time.Now()
			require.NoError(t, exec.Command("tandem", append(args, "--again")...).Run())
			took = time.Since(start)
			require.NoError(t, os.RemoveAll(filepath.Join(dir, "joined")))
		}
		killed(t, random, took, args...)
		requests, opens := opensOf(t, bucket, day)
		require.Contains(t, []int64{before, 600}, requests)
		require.Equal(t, requests, opens)

		output, err := exec.Command("tandem", args...).CombinedOutput()
		require.NoError(t, err, string(output))
		requests, opens = opensOf(t, bucket, day)
		require.Equal(t, []int64{600, 600}, []int64{requests, opens})
		s, err := joined.Read(t.Context(), bucket, day)
		require.NoError(t, err)
		there := 0
		for _, err := range bucket.List(t.Context(), joined.Prefix) {
			require.NoError(t, err)
			there++
		}
		require.Equal(t, 2+len(s.Parts), there, "the set, its inputs, its parts")
		require.NoError(t, bucket.Close())
	}
}
