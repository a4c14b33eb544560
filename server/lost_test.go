package server

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// lockedLog is a log that several goroutines write.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// cutShard cuts a shard's file to nothing and returns its path.
func (f *fleet) cutShard(t *testing.T, d manifest.Digest, kind shard.Kind, number int) string {
	t.Helper()
	path := f.store.ShardPath(f.shard(t, d, kind, number))
	require.NoError(t, os.Truncate(path, 0))
	return path
}

// shard returns the digest of a shard.
func (f *fleet) shard(t *testing.T, d manifest.Digest, kind shard.Kind, number int) manifest.Digest {
	t.Helper()
	m, err := f.store.Manifest(t.Context(), d)
	require.NoError(t, err)
	return m.Tower(kind).Shards[number].Digest
}

// inShard returns an entity of that shard.
func inShard(entities []entity, number, shards int) string {
	for _, e := range entities {
		if shard.Partition(e.id, shards) == number {
			return e.id
		}
	}
	return ""
}

// A shard whose file is cut while it is mapped ends the queries that need it. Other
// queries, other snapshots and the following of releases go on.
func TestServerLivesWhenAShardIsCut(t *testing.T) {
	var log lockedLog
	f := newFleet(t, 2, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	f.start(t, f.digests[1], 300)
	f.await(t, 2)
	client := f.p.client()
	one := func(version string) *tandemv1.RetrieveRequest {
		return &tandemv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}, K: 50, ModelVersion: version, Attributes: []string{"*"}}
	}
	whole := f.ask(t, one("v2"))
	require.Len(t, whole.Candidates, 50)
	good := map[string][]byte{} // by path
	m, err := f.store.Manifest(t.Context(), f.digests[1])
	require.NoError(t, err)
	for _, sm := range append(m.Apps.Shards[:2:2], m.Users.Shards...) {
		path := f.store.ShardPath(sm.Digest)
		good[path], err = os.ReadFile(path)
		require.NoError(t, err)
	}
	path := f.cutShard(t, f.digests[1], shard.Apps, 1)

	const text = "1 of 2 shards answered; "
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			_, err := client.Retrieve(context.Background(), connect.NewRequest(one("v2")))
			assert.Equal(t, connect.CodeUnavailable, connect.CodeOf(err))
			assert.ErrorContains(t, err, text)
			assert.ErrorContains(t, err, "shard apps-0001 cannot be read (section ")
			assert.NotContains(t, err.Error(), path)
			assert.Less(t, len(err.Error()), 300)
			a, err := client.Retrieve(context.Background(), connect.NewRequest(one("v1")))
			if assert.NoError(t, err) {
				assert.Len(t, a.Msg.Candidates, 50)
			}
		})
	}
	group.Wait()
	r := one("v2")
	r.MinCoverage, r.ExplainIds = new(0.0), []string{inShard(f.towers[1].apps, 1, 2), inShard(f.towers[1].apps, 0, 2)}
	a := f.ask(t, r)
	assert.EqualValues(t, 1, a.Coverage.ShardsAnswered)
	assert.NotEmpty(t, a.Candidates)
	for _, c := range a.Candidates {
		assert.Zero(t, shard.Partition(c.Id, 2))
	}
	assert.Equal(t, tandemv1.Verdict_VERDICT_SHARD_MISSING, a.Explain.Ids[0].Verdict)
	assert.NotEqual(t, tandemv1.Verdict_VERDICT_SHARD_MISSING, a.Explain.Ids[1].Verdict)
	batch, err := client.BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{
		Requests: []*tandemv1.RetrieveRequest{one("v2"), one("v1"), one("v2"), one("v1")},
	}))
	require.NoError(t, err)
	for i, result := range batch.Msg.Results {
		if i%2 == 0 {
			assert.Equal(t, "unavailable", result.GetError().GetCode())
			assert.Contains(t, result.GetError().GetMessage(), text)
		} else {
			assert.Len(t, result.GetResponse().GetCandidates(), 50)
		}
	}

	// One row of a shard that is lost: there is no answer without.
	f.cutShard(t, f.digests[1], shard.Users, 0)
	user := inShard(f.towers[1].users, 0, 2)
	_, err = client.Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: user, K: 1, ModelVersion: "v2"}))
	assert.Equal(t, connect.CodeDataLoss, connect.CodeOf(err))
	info, _ := detailsOf(t, err)
	assert.Equal(t, string(reasonUnreadable), info.GetReason())
	require.ErrorContains(t, err, "shard users-0000 cannot be read (")
	_, err = client.GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{
		Tower: tandemv1.Tower_TOWER_USERS, Ids: []string{user}, ModelVersion: "v2",
	}))
	assert.Equal(t, connect.CodeDataLoss, connect.CodeOf(err))

	assert.Equal(t, 1, strings.Count(log.String(), `msg="shard no longer answers"`+fmt.Sprintf(" snapshot=%s shard=apps-0001", f.digests[1])), "once, not for each query")
	assert.Equal(t, 2, strings.Count(log.String(), "shard no longer answers"))
	assert.Contains(t, log.String(), path)
	s := f.status(t)
	assert.Equal(t, tandemv1.Phase_PHASE_SERVING, s.Phase)
	assert.Regexp(t, "^arm candidate: shard apps-0001 cannot be read .*; and 1 more$", s.Error)
	assert.Equal(t, http.StatusOK, f.p.get(t, "/readyz").status)

	// The next release makes good for it.
	_, err = f.releases.Rollback(t.Context(), release.RollbackOptions{To: 1})
	require.NoError(t, err)
	s = f.await(t, 3)
	assert.Empty(t, s.Error)
	assert.Len(t, f.ask(t, one("")).Candidates, 50)

	// What was cut is still mapped. Once it is mended, a release of it opens it anew.
	for path, data := range good {
		require.NoError(t, os.WriteFile(path+".mended", data, 0o600))
		require.NoError(t, os.Rename(path+".mended", path))
	}
	_, err = f.releases.Rollback(t.Context(), release.RollbackOptions{To: 2})
	require.NoError(t, err)
	assert.Empty(t, f.await(t, 4).Error)
	again := f.ask(t, one("v2"))
	require.Len(t, again.Candidates, len(whole.Candidates))
	for i, c := range again.Candidates {
		assert.Equal(t, whole.Candidates[i].Id, c.Id)
	}
}
