package server

import (
	"fmt"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/querylog"
)

// What would have come next is recorded, and nothing else of an answer changes by that.
func TestRecordNext(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{RecordShare: 1, RecordNext: 7, Live: writes()})
	store := c.Store
	p := start(t, c)
	position := p.write(t, takedown("nobody"))
	for i, r := range []*tandemv1.RetrieveRequest{
		{UserId: "u1", K: 5, Experiment: "ranker", Variant: "b"}, {UserId: "u1", K: 60}, {UserId: "u1", K: 58},
		{UserId: "u1", K: 5, AtMost: []*tandemv1.AtMost{{Attribute: "developer", N: 1}}},
	} {
		r.RequestId, r.RecallTarget, r.MinLive = fmt.Sprint("r", i), new(1.0), position
		_, err := p.client().Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
	}
	all := p.candidates(t, &tandemv1.RetrieveRequest{UserId: "u1", K: 60, RequestId: "all"})
	p.stop()
	require.NoError(t, <-p.done)
	got := map[string]querylog.Query{}
	for _, q := range recorded(t, store.Objects()) {
		got[q.RequestID] = q
	}
	ids := func(list []querylog.Candidate) (out []string) {
		for _, c := range list {
			out = append(out, c.ID)
		}
		return out
	}
	assert.Equal(t, all[:5], ids(got["r0"].Candidates))
	assert.Equal(t, all[5:12], ids(got["r0"].Next))
	assert.Empty(t, got["r1"].Next, "all came back")
	assert.Equal(t, all[58:], ids(got["r2"].Next), "there are no more")
	assert.NotContains(t, ids(got["r3"].Next), ids(got["r3"].Candidates)[0])
	assert.Equal(t, []any{"ranker", "b", int64(position.Sequence)}, []any{got["r0"].Experiment, got["r0"].Variant, got["r0"].LiveSequence})
	assert.Empty(t, got["r1"].Experiment)
}

// Each user is recorded once for each experiment, whatever the share, and again once it was
// forgotten that it was.
func TestRecordOnce(t *testing.T) {
	c := smallTowers(index.Dot).named(t, Config{RecordOnce: true})
	store := c.Store
	p := start(t, c)
	for range 3 {
		for _, r := range []*tandemv1.RetrieveRequest{
			{UserId: "u1"}, {UserId: "u2"}, {UserId: "u1", Experiment: "e", Variant: "a"},
			{Vector: []float32{1, 2, 3, 4}, RequestKey: "key"}, {Vector: []float32{1, 2, 3, 4}},
		} {
			r.K = 3
			_, err := p.client().Retrieve(t.Context(), connect.NewRequest(r))
			require.NoError(t, err)
		}
	}
	p.stop()
	require.NoError(t, <-p.done)
	var got []string
	for _, q := range recorded(t, store.Objects()) {
		got = append(got, q.UserID+q.RequestKey+q.Experiment)
	}
	assert.ElementsMatch(t, []string{"u1", "u2", "u1e", "key"}, got)

	s := newSeen(3)
	for key := range uint64(5) {
		s.add(key + 1)
		s.add(key + 1)
	}
	for key := range uint64(5) {
		assert.Equal(t, key >= 2, s.has(key+1), "the last three are known")
	}
	assert.True(t, s.has(0))
	assert.Len(t, s.keys, 3)
}

// A sample and the first of each user are one record where a request is both.
func TestRecordBoth(t *testing.T) {
	r := &recorder{threshold: thresholdOf(0), once: newSeen(9)}
	request := &tandemv1.RetrieveRequest{UserId: "u", RequestId: "r"}
	assert.True(t, r.wants(request, 1))
	r.once.add(onceKey(request, 1))
	assert.False(t, r.wants(request, 1))
	assert.True(t, r.wants(request, 2), "another generation")
	assert.False(t, r.wants(&tandemv1.RetrieveRequest{RequestId: "r"}, 1), "it is not known who asks")
	r.threshold = thresholdOf(1)
	assert.True(t, r.wants(request, 1))
	assert.NotEqual(t, onceKey(&tandemv1.RetrieveRequest{UserId: "u", Experiment: "1"}, 2), onceKey(&tandemv1.RetrieveRequest{UserId: "u"}, 12))
}
