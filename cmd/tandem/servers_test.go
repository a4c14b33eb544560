package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/server/release"
	"github.com/tandem-ann/tandem/shard"
)

// sayings is a server that says one status after another, and the last for ever.
type sayings struct {
	list []*tandemv1.GetStatusResponse
	next atomic.Int64
}

func (s *sayings) GetStatus(context.Context, *connect.Request[tandemv1.GetStatusRequest]) (*connect.Response[tandemv1.GetStatusResponse], error) {
	return connect.NewResponse(s.list[min(int(s.next.Add(1))-1, len(s.list)-1)]), nil
}

// says returns the address of such a server.
func says(t *testing.T, list ...*tandemv1.GetStatusResponse) string {
	mux := http.NewServeMux()
	mux.Handle(tandemv1connect.NewAdminServiceHandler(&sayings{list: list}))
	h := httptest.NewServer(mux)
	t.Cleanup(h.Close)
	return h.URL
}

// A server has a release if it serves it, or what was appended to it: what it says is
// believed of hashes, not of numbers.
func TestAwait(t *testing.T) {
	dir := t.TempDir()
	cli := func(args ...string) {
		var stderr bytes.Buffer
		require.Zero(t, run(t.Context(), args, &bytes.Buffer{}, &stderr), "%s", &stderr)
	}
	store := filepath.Join(dir, "store")
	cli("generate", "--out", dir, "--apps", "60", "--users", "40", "--dim", "8")
	cli("build", "--apps", filepath.Join(dir, "apps.parquet"), "--users", filepath.Join(dir, "users.parquet"), "--model", "feed", "--model-version", "1", "--metric", "dot", "--store", store)
	opened, err := shard.OpenStore(t.Context(), store, shard.StoreOptions{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, opened.Close()) })
	releases := release.New(opened, judge)
	digest, err := opened.Resolve(t.Context(), "")
	require.NoError(t, err)
	var list []*release.Release
	for i := range 4 {
		var r *release.Release
		if i == 0 {
			r, err = releases.Start(t.Context(), release.StartOptions{Snapshot: digest})
		} else {
			r, err = releases.Rollback(t.Context(), release.RollbackOptions{To: 1})
		}
		require.NoError(t, err)
		list = append(list, r)
	}
	serving := func(generation uint64, hash string) *tandemv1.GetStatusResponse {
		return &tandemv1.GetStatusResponse{Phase: tandemv1.Phase_PHASE_SERVING, Generation: generation, Hash: hash}
	}
	at := func(i int) *tandemv1.GetStatusResponse { return serving(list[i].Generation, list[i].Hash.String()) }
	wanted := list[1] // generation 2
	other := list[0].Hash.String()
	behind := serving(9, other)
	behind.Phase, behind.LogState, behind.LogError = tandemv1.Phase_PHASE_FAILED, tandemv1.LogState_LOG_STATE_BEHIND, "the log ends before"
	unread := at(0)
	unread.LogState, unread.LogError = tandemv1.LogState_LOG_STATE_UNREAD, "the store is silent"

	for name, c := range map[string]struct {
		says  []*tandemv1.GetStatusResponse
		fails string
	}{
		"the release":              {says: []*tandemv1.GetStatusResponse{at(0), at(1)}},
		"a later one":              {says: []*tandemv1.GetStatusResponse{at(0), at(3)}},
		"the log for a moment":     {says: []*tandemv1.GetStatusResponse{behind, behind, at(1)}},
		"an earlier one":           {says: []*tandemv1.GetStatusResponse{at(0)}, fails: "after 3.*s\n  http.*: it serves generation 1, serving$"},
		"the number":               {says: []*tandemv1.GetStatusResponse{serving(2, other)}, fails: "it serves another generation 2 \\([0-9a-f]{12}\\) than is released \\([0-9a-f]{12}\\), serving$"},
		"a later number":           {says: []*tandemv1.GetStatusResponse{serving(3, other)}, fails: "it serves generation 3, serving; the log has another generation 3 \\("},
		"a number that is not yet": {says: []*tandemv1.GetStatusResponse{serving(9, other)}, fails: "it serves generation 9, serving; read entry 9 of log releases: .*no such object"},
		"a number alone":           {says: []*tandemv1.GetStatusResponse{serving(1, ""), serving(2, "")}, fails: "after .*s\n  http.*: it never will: it serves generation 2 and does not say which entry of the log that is: it is of an earlier version$"},
		"no release":               {says: []*tandemv1.GetStatusResponse{{Arms: []*tandemv1.ArmStatus{{}}}}, fails: "it serves a snapshot without a release"},
		"nothing":                  {says: []*tandemv1.GetStatusResponse{{Phase: tandemv1.Phase_PHASE_LOADING}}, fails: "it serves nothing yet, loading$"},
		"another log":              {says: []*tandemv1.GetStatusResponse{behind}, fails: "it serves generation 9; it does not follow the log of the store: the log ends before; if the store was restored on purpose, release again with --restored$"},
		"an old look":              {says: []*tandemv1.GetStatusResponse{unread}, fails: "it serves generation 1, serving; its last look at the log failed: the store is silent$"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var stderr bytes.Buffer
			f := serverFlags{Server: []string{says(t, c.says...), says(t, at(1))}}
			limit := 3 * time.Second
			if c.fails == "" {
				limit = time.Minute
			}
			err := f.await(&environment{t.Context(), &bytes.Buffer{}, &stderr}, releases, wanted, false, limit)
			if c.fails == "" {
				require.NoError(t, err)
				assert.Regexp(t, "^2 servers serving generation 2 after ", stderr.String())
				return
			}
			require.Error(t, err)
			assert.Regexp(t, "^generation 2 is written, not confirmed by http(.|\n)*"+c.fails, err.Error())
		})
	}
}

// What does not follow the log for long never will, unless the log was just accepted.
func TestAwaitOfAnotherLogEnds(t *testing.T) {
	t.Parallel()
	r := &release.Release{Generation: 2}
	r.Hash[0] = 1
	apart := &tandemv1.GetStatusResponse{Generation: 1, Hash: "2", LogState: tandemv1.LogState_LOG_STATE_GAP, LogError: "a gap"}
	e := &environment{t.Context(), &bytes.Buffer{}, &bytes.Buffer{}}
	f := serverFlags{Server: []string{says(t, apart)}}
	start := time.Now()
	err := f.await(e, nil, r, false, time.Minute)
	require.ErrorContains(t, err, "generation 2 is written, not confirmed by http")
	require.ErrorContains(t, err, ": it never will: it does not follow the log of the store: a gap; if the store was restored on purpose, release again with --restored")
	assert.Less(t, time.Since(start), 40*time.Second)
	start = time.Now()
	err = f.await(e, nil, r, true, brokenFor+time.Second)
	require.ErrorContains(t, err, "generation 2 is written, not confirmed by http")
	require.NotContains(t, err.Error(), "never")
	assert.GreaterOrEqual(t, time.Since(start), brokenFor+time.Second)
}
