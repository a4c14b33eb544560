package remote_test

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/remote"
	"github.com/tandem-ann/tandem/shard"
)

// goodReply is a reply to goodRequest.
func goodReply() *shardv1.SearchResponse {
	return &shardv1.SearchResponse{
		Scores: []float32{3, 2, 2}, Ordinals: []uint32{7, 1<<32 - 1, 1},
		Ids:         &shardv1.Texts{Text: []byte("cab"), Lengths: []uint32{1, 1, 1}},
		ValueCounts: []uint32{1, 0, 2}, Values: &shardv1.FieldValues{Fields: []uint32{2, 2, 2}, Numbers: []int64{0, 0, 0}, Texts: &shardv1.Texts{Text: []byte("xyz"), Lengths: []uint32{1, 1, 1}}},
		Eligible: 9, Left: 9, Asked: 3, Stats: &shardv1.SearchStats{Plan: tandemv1.Plan_PLAN_EXACT_SCAN, Scored: 9},
	}
}

func goodRequest() *shard.Request { return &shard.Request{K: 4, Limited: []int{fieldGenre}} }

// What a node has replied that cannot be true is an error.
func TestBrokenReplies(t *testing.T) {
	read := func(m *shardv1.SearchResponse) error {
		data, err := proto.Marshal(m)
		require.NoError(t, err)
		return remote.ReadReply(data, goodRequest(), index.Dot, new(shard.Reply))
	}
	require.NoError(t, read(goodReply()))
	for text, change := range map[string]func(*shardv1.SearchResponse){
		"want as many of each":             func(m *shardv1.SearchResponse) { m.Scores = m.Scores[:2] },
		"2 ids; want":                      func(m *shardv1.SearchResponse) { m.Ids.Lengths = m.Ids.Lengths[:2] },
		"ids has 3 bytes of text":          func(m *shardv1.SearchResponse) { m.Ids.Lengths[0] = 2 },
		"hit 1 is not after":               func(m *shardv1.SearchResponse) { m.Scores[0] = 1 },
		"hit 2 is not after":               func(m *shardv1.SearchResponse) { m.Ids.Text = []byte("caa") },
		"has ordinal 2147483648":           func(m *shardv1.SearchResponse) { m.Ordinals[0] = 1 << 31 },
		"the id of hit 0 has 0 bytes":      func(m *shardv1.SearchResponse) { m.Ids.Lengths[0], m.Ids.Lengths[1] = 0, 2 },
		"3 hits, of 2 that were looked":    func(m *shardv1.SearchResponse) { m.Asked = 2 },
		"and 2 that there are":             func(m *shardv1.SearchResponse) { m.Left = 2 },
		"3 hits, though 4 were looked":     func(m *shardv1.SearchResponse) { m.Asked = 4 },
		"5 hits were looked for; want 1":   func(m *shardv1.SearchResponse) { m.Asked = 5 },
		"0 hits were looked for; want 1":   func(m *shardv1.SearchResponse) { m.Asked = 0 },
		"a count is 18446744073709551615":  func(m *shardv1.SearchResponse) { m.Eligible = 1<<64 - 1 },
		"the values of hit 2 are missing":  func(m *shardv1.SearchResponse) { m.ValueCounts[2] = 3 },
		"1 values are of no hit":           func(m *shardv1.SearchResponse) { m.ValueCounts[2] = 1 },
		"value 0 is of attribute 3":        func(m *shardv1.SearchResponse) { m.Values.Fields[0] = 3 },
		"2 counts of values for 3 hits":    func(m *shardv1.SearchResponse) { m.ValueCounts = m.ValueCounts[:2] },
		"values has 3 fields, 3 texts and": func(m *shardv1.SearchResponse) { m.Values.Numbers = nil },
	} {
		m := goodReply()
		change(m)
		require.ErrorContains(t, read(m), text)
	}
}

// FuzzReply holds what is believed of a reply to what a fan-out relies on.
func FuzzReply(f *testing.F) {
	data, err := proto.Marshal(goodReply())
	require.NoError(f, err)
	f.Add(data, false)
	f.Add(data, true)
	f.Add([]byte{}, true)
	f.Fuzz(func(t *testing.T, data []byte, floored bool) {
		r, reply := goodRequest(), new(shard.Reply)
		r.Floored = floored
		if remote.ReadReply(data, r, index.Dot, reply) != nil {
			return
		}
		require.LessOrEqual(t, len(reply.Hits), reply.Asked)
		require.LessOrEqual(t, len(reply.Hits), reply.Left)
		require.Positive(t, reply.Asked)
		require.LessOrEqual(t, reply.Asked, r.K)
		if !floored && len(reply.Hits) < reply.Asked {
			require.Len(t, reply.Hits, reply.Left)
		}
		for i, h := range reply.Hits {
			require.NotEmpty(t, h.ID)
			if i > 0 {
				require.GreaterOrEqual(t, reply.Hits[i-1].Score, h.Score)
			}
		}
	})
}

// FuzzRequests has a node answer whatever arrives: no panic, and errors of few bytes.
func FuzzRequests(f *testing.F) {
	w := newWorld(f, 3, 40, 1)
	at := w.positions[2]
	state := &shardv1.ShardState{
		Protocol: remote.Protocol, Snapshot: string(w.digest), Tower: tandemv1.Tower_TOWER_APPS, Of: 1,
		Position: &tandemv1.LivePosition{Log: at.Log, Sequence: at.Sequence}, UnixNanos: clock.UnixNano(),
	}
	vectors := make([]float32, w.dim)
	vectors[0] = 1
	ids := &shardv1.Texts{Text: []byte(w.ids[0] + w.freshID()), Lengths: []uint32{uint32(len(w.ids[0]))}}
	ids.Lengths = append(ids.Lengths, uint32(len(ids.Text))-ids.Lengths[0])
	filter := &shardv1.Filter{Text: filters[3].text, Bindings: []*shardv1.Binding{{Name: "genres", List: &shardv1.ScalarList{Values: []*shardv1.Scalar{{Value: &shardv1.Scalar_Text{Text: "a"}}}}}}}
	full := &shardv1.FieldValues{Fields: []uint32{fieldGenre}, Numbers: []int64{0}, Texts: &shardv1.Texts{Text: []byte("a"), Lengths: []uint32{1}}}
	for kind, m := range []proto.Message{
		&shardv1.SearchRequest{
			State: state, Vectors: vectors, VectorCount: 1, K: 10, Target: 1, Floor: proto.Float32(0), Filter: filter, Segment: "late", Include: ids, Exclude: ids,
			Limited: []uint32{fieldGenre}, Full: full, Taken: []uint32{1}, TakenFresh: ids,
		},
		&shardv1.ExplainRequest{State: state, Vectors: vectors, VectorCount: 1, Filter: filter, Segment: "late", Limited: []uint32{fieldTags}, Ids: ids},
		&shardv1.VectorsRequest{State: state, Ids: ids},
		&shardv1.AttributesRequest{State: state, Ordinals: []uint32{3, 1<<32 - 1}, Fresh: &shardv1.Texts{Text: []byte(w.freshID())}, Fields: []uint32{0, 1, 2, 3, 4, 5, 6}, MostText: 9},
		&shardv1.GetShardRequest{State: state},
	} {
		data, err := proto.Marshal(m)
		require.NoError(f, err)
		f.Add(byte(kind), data)
	}
	data, err := proto.Marshal(&shardv1.ExplainRequest{State: state, Vectors: vectors, Ids: ids})
	require.NoError(f, err)
	f.Add(byte(1), data)
	f.Fuzz(func(t *testing.T, kind byte, data []byte) {
		err := remote.Answers(t.Context(), w, kind, data)
		if err == nil {
			return
		}
		_, panicked := errors.AsType[*shard.PanicError](err)
		require.False(t, panicked, "%v", err)
		require.Less(t, len(err.Error()), 8<<10)
		require.Zero(t, w.held)
	})
}
