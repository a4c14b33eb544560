package server

import (
	"bytes"
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
)

// drawAnswer draws an answer of any form.
func drawAnswer(t *rapid.T) *tandemv1.RetrieveResponse {
	r := &tandemv1.RetrieveResponse{}
	if rapid.Bool().Draw(t, "named") {
		r.Model, r.Eligible, r.RequestId = "feed", 3, rapid.String().Draw(t, "id")
	}
	for i := range rapid.IntRange(0, 20).Draw(t, "candidates") {
		c := &tandemv1.Candidate{Id: fmt.Sprint("app-", i), Score: rapid.Float32().Draw(t, "score") + 0} // never -0, as of answers
		switch rapid.IntRange(0, 9).Draw(t, "kind") {
		case 0:
			c.Id = rapid.StringN(0, 40, 256).Draw(t, "candidate")
		case 1:
			c.Score = 0
		case 2:
			c.Attributes = map[string]*tandemv1.AttributeValue{"free": {Value: &tandemv1.AttributeValue_Bool{Bool: true}}}
		}
		r.Candidates = append(r.Candidates, c)
	}
	return r
}

// TestEncode encodes answers in pieces, which decode to what they were.
func TestEncode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var m, decoded proto.Message
		switch rapid.IntRange(0, 2).Draw(t, "kind") {
		case 0:
			r := drawAnswer(t)
			m, decoded = r, &tandemv1.RetrieveResponse{}
			before := slices.Clone(r.Candidates)
			want, err := proto.Marshal(r)
			require.NoError(t, err)
			got, err := protoCodec{}.MarshalAppend([]byte("before"), r)
			require.NoError(t, err)
			if !slices.ContainsFunc(r.Candidates, func(c *tandemv1.Candidate) bool { return len(c.Attributes) > 1 }) {
				require.Equal(t, "before"+string(want), string(got))
			}
			require.Equal(t, before, r.Candidates, "it is as it was")
		case 1:
			b := &tandemv1.BatchRetrieveResponse{}
			for range rapid.IntRange(0, 4).Draw(t, "results") {
				result := &tandemv1.BatchRetrieveResult{}
				switch rapid.IntRange(0, 2).Draw(t, "outcome") {
				case 0:
					result.Outcome = &tandemv1.BatchRetrieveResult_Error{Error: &tandemv1.ItemError{Code: "internal"}}
				case 1:
					result.Outcome = &tandemv1.BatchRetrieveResult_Response{Response: drawAnswer(t)}
				}
				b.Results = append(b.Results, result)
			}
			m, decoded = b, &tandemv1.BatchRetrieveResponse{}
		case 2:
			g := &tandemv1.GetEmbeddingsResponse{Model: "feed", UnknownIds: []string{"x"}, Arm: "control"}
			for range rapid.IntRange(0, 4).Draw(t, "embeddings") {
				g.Embeddings = append(g.Embeddings, &tandemv1.Embedding{Id: "a", Values: rapid.SliceOf(rapid.Float32Range(1, 9)).Draw(t, "values")})
			}
			m, decoded = g, &tandemv1.GetEmbeddingsResponse{}
		}
		want := proto.Clone(m)
		e := &encoder{ctx: context.Background()}
		require.NoError(t, e.answer(m))
		require.NoError(t, proto.Unmarshal(e.data, decoded))
		require.True(t, proto.Equal(want, decoded), "%v is not %v", decoded, want)
		require.Len(t, e.data, proto.Size(m))
		e = &encoder{ctx: context.Background(), json: true}
		require.NoError(t, e.answer(m))
		proto.Reset(decoded)
		require.NoError(t, protojson.Unmarshal(e.data, decoded), "%s", e.data)
		require.True(t, proto.Equal(want, decoded), "%v is not %v", decoded, want)
		require.True(t, proto.Equal(want, m), "it is as it was")
	})
	_, err := protoCodec{}.MarshalAppend(nil, &tandemv1.RetrieveResponse{Candidates: []*tandemv1.Candidate{{Id: "\xff", Score: 1}}})
	require.Error(t, err)
}

// TestEncodeEnds stops within a few pieces when the context ends.
func TestEncodeEnds(t *testing.T) {
	r := &tandemv1.RetrieveResponse{}
	for i := range 20_000 {
		r.Candidates = append(r.Candidates, &tandemv1.Candidate{Id: fmt.Sprint("app-", i), Score: 1, Attributes: map[string]*tandemv1.AttributeValue{
			"name": {Value: &tandemv1.AttributeValue_Keyword{Keyword: "a name of some length"}},
		}})
	}
	g := &tandemv1.GetEmbeddingsResponse{}
	for range 1000 {
		g.Embeddings = append(g.Embeddings, &tandemv1.Embedding{Id: "a", Values: make([]float32, 100)})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, json := range []bool{false, true} {
		for _, m := range []proto.Message{r, &tandemv1.BatchRetrieveResponse{Results: []*tandemv1.BatchRetrieveResult{
			{Outcome: &tandemv1.BatchRetrieveResult_Response{Response: r}},
		}}, g} {
			require.True(t, isLarge(m))
			e := &encoder{ctx: ctx, json: json}
			require.ErrorIs(t, e.answer(m), context.Canceled)
			require.Less(t, len(e.data), 3*encodeStep)
		}
	}
}

// TestLargeAnswersLeaveLittleGarbage: an answer is encoded into memory that is used again,
// which Connect copies it from into its own.
func TestLargeAnswersLeaveLittleGarbage(t *testing.T) {
	r := &tandemv1.RetrieveResponse{}
	for i := range 20_000 {
		r.Candidates = append(r.Candidates, &tandemv1.Candidate{Id: fmt.Sprint("app-", i), Score: 1})
	}
	for _, json := range []bool{false, true} {
		b := &buffers{most: 16 << 20}
		var dst []byte
		encode := func() {
			e := &encoder{ctx: t.Context(), json: json, buffers: b}
			require.NoError(t, e.answer(r))
			dst = (&encoded{e.data, b}).appendTo(dst[:0])
		}
		encode()
		require.Greater(t, len(dst), 300<<10)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		encode()
		runtime.ReadMemStats(&after)
		if !json { // whose numbers leave some
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(32<<10))
		}
		other, want := &encoder{json: json}, bytes.Clone(dst)
		require.NoError(t, other.answer(r))
		require.Len(t, want, len(other.data))
	}
}

// TestLargeAnswers are the same whichever way they are encoded.
func TestLargeAnswers(t *testing.T) {
	data := smallTowers(index.Dot)
	s := serve(t, data.loaded(t), Options{})
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 60, Attributes: []string{"*"}, RecallTarget: new(1.0), RequestId: "r"}
	batch := &tandemv1.BatchRetrieveRequest{}
	for range 10 {
		batch.Requests = append(batch.Requests, ask)
	}
	var answers []*tandemv1.BatchRetrieveResponse
	for _, options := range [][]connect.ClientOption{
		{}, {connect.WithProtoJSON()}, {connect.WithHTTPGet()}, {connect.WithHTTPGet(), connect.WithProtoJSON()},
		{connect.WithGRPC()}, {connect.WithGRPC(), connect.WithProtoJSON()}, {connect.WithGRPCWeb()}, {connect.WithAcceptCompression("gzip", nil, nil)},
	} {
		got, err := s.client(options...).BatchRetrieve(t.Context(), connect.NewRequest(batch))
		require.NoError(t, err)
		require.True(t, isLarge(got.Msg))
		require.Len(t, got.Header().Get(RequestIDHeader), 32)
		answers = append(answers, got.Msg)
	}
	for _, other := range answers[1:] {
		require.True(t, proto.Equal(answers[0], other))
	}
}
