package server

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// TestEstimatedAnswers compares estimates with what answers take.
func TestEstimatedAnswers(t *testing.T) {
	data := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 4, 3000, 10, 3)
	s := data.loaded(t)
	now := s.current.Load().arms[0].pin(time.Now())
	for _, attributes := range [][]string{nil, {"platforms"}, {"developer", "price", "released"}, {"*"}} {
		for _, k := range []uint32{1, 100, 3000, 10_000} {
			r := &tandemv1.RetrieveRequest{UserId: "u1", K: k, Attributes: attributes, RecallTarget: new(1.0)}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := s.retrieve(t.Context(), r)
			runtime.ReadMemStats(&after)
			require.NoError(t, err)
			want := proto.Size(got)
			estimated := now.estimate(r, 1)
			require.InEpsilon(t, want, estimated.answer, 0.1+300/float64(want), "k %d, %v", k, attributes)
			if k >= 3000 {
				took := after.TotalAlloc - before.TotalAlloc
				require.Less(t, took, 2*uint64(estimated.memory), "k %d, %v", k, attributes)
				require.Greater(t, 3*took, uint64(estimated.memory), "k %d, %v", k, attributes)
			}
		}
	}
	few := now.estimate(&tandemv1.RetrieveRequest{UserId: "u1", K: 3000, Segment: "nothing"}, 1)
	require.LessOrEqual(t, few.answer, answerOverhead, "a segment has no more than it has")
	few = now.estimate(&tandemv1.RetrieveRequest{UserId: "u1", K: 3000, IncludeIds: []string{"a1", "a2"}}, 1)
	require.LessOrEqual(t, few.answer, answerOverhead+2*20)
}

// TestMaxResponseBytes asks for answers that are too long: before any work is done, where
// that can be told.
func TestMaxResponseBytes(t *testing.T) {
	const most = 3300
	s := serve(t, smallTowers(index.Dot).loaded(t), Options{MaxResponseBytes: most})
	ask := func(k uint32, attributes ...string) *tandemv1.RetrieveRequest {
		return &tandemv1.RetrieveRequest{UserId: "u1", K: k, Attributes: attributes, RecallTarget: new(1.0), RequestId: "r"}
	}
	for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithProtoJSON()} {
		got, err := s.client(option).Retrieve(t.Context(), connect.NewRequest(ask(10, "*")))
		require.NoError(t, err)
		require.Len(t, got.Msg.Candidates, 10)
		got, err = s.client(option).Retrieve(t.Context(), connect.NewRequest(ask(60)))
		require.NoError(t, err)
		require.Len(t, got.Msg.Candidates, 60)
		_, err = s.client(option).Retrieve(t.Context(), connect.NewRequest(ask(60, "platforms", "price", "released")))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		require.Regexp(t, `^invalid_argument: k is 60 and attributes are platforms, price, released: an answer of about \d{4} bytes; accepted: up to 3300, such as k up to about [2-4]\d$`, err.Error())
	}

	batch := &tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{
		ask(60), ask(60, "*"), ask(10, "*"), {}, ask(60), ask(1), ask(60),
	}}
	got, err := s.client(connect.WithGRPC()).BatchRetrieve(t.Context(), connect.NewRequest(batch))
	require.NoError(t, err)
	require.LessOrEqual(t, proto.Size(got.Msg), most+1000) // what the errors take
	var codes []string
	for _, result := range got.Msg.Results {
		codes = append(codes, result.GetError().GetCode())
	}
	const invalid = "invalid_argument"
	require.Equal(t, []string{"", invalid, "", invalid, invalid, "", invalid}, codes)
	require.Regexp(t, `^k is 60 and attributes are \*: an answer of about \d+ bytes, after \d+ of the answers before it in the batch; accepted: up to 3300 in all(, such as k up to about \d+)?$`,
		got.Msg.Results[1].GetError().Message)

	_, err = s.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: make([]string, 0)}))
	require.Error(t, err)
	ids := make([]string, 200)
	for i := range ids {
		ids[i] = fmt.Sprint("a", i)
	}
	_, err = s.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: ids}))
	require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
	require.Regexp(t, `ids has 200 ids: an answer of up to \d+ bytes, with the 4 numbers of model feed v1 each; accepted: up to 3300, such as \d\d ids$`, err.Error())
	embeddings, err := s.client().GetEmbeddings(t.Context(), connect.NewRequest(&tandemv1.GetEmbeddingsRequest{Ids: ids[:50]}))
	require.NoError(t, err)
	require.Len(t, embeddings.Msg.Embeddings, 50)
}

// TestLongerThanEstimated has the candidates with the longest attributes rank first.
func TestLongerThanEstimated(t *testing.T) {
	data := smallTowers(index.Dot)
	for i := range data.apps {
		if score := data.score(data.apps[i].vector, data.users[1].vector); score > 10 {
			data.apps[i].values[0] = attribute.OfKeyword(strings.Repeat("x", 1000))
		}
	}
	service := data.loaded(t)
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 8, Attributes: []string{"developer"}, RecallTarget: new(1.0)}
	answer, err := service.retrieve(t.Context(), ask)
	require.NoError(t, err)
	size := proto.Size(answer)
	require.Greater(t, size, 4000)
	for _, most := range []int{size - 1, size / 2} {
		s := serve(t, service, Options{MaxResponseBytes: most})
		_, err := s.client().Retrieve(t.Context(), connect.NewRequest(ask))
		require.Equal(t, connect.CodeInvalidArgument, connect.CodeOf(err))
		require.Regexp(t, `k is 8 and attributes are developer: an answer of (\d+ bytes|more than \d+ bytes after \d of 8 candidates); accepted: up to \d+, such as k up to \d$`, err.Error())
		got, err := s.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{
			Requests: []*tandemv1.RetrieveRequest{{UserId: "u1", K: 1}, ask},
		}))
		require.NoError(t, err)
		require.NotNil(t, got.Msg.Results[0].GetResponse())
		require.Equal(t, "invalid_argument", got.Msg.Results[1].GetError().GetCode())
	}
}

// TestSkewedAttributes: the text of an answer that is too long has a k that works, also where few rows have most of the text.
func TestSkewedAttributes(t *testing.T) {
	data := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 4, 600, 10, 3)
	for i := range data.apps {
		data.apps[i].values[0] = attribute.OfKeyword("Ten")
		if i%20 == 0 {
			data.apps[i].values[0] = attribute.OfKeyword(strings.Repeat("x", 3000+i))
		}
	}
	const most = 40_000
	client := serve(t, data.loaded(t), Options{MaxResponseBytes: most}).client()
	suggested := regexp.MustCompile(`such as k up to (\d+)$`)
	refused := regexp.MustCompile(`^k is \d+ and attributes are developer: an answer of (more than 40000 bytes after \d+ of \d+ candidates|\d{5} bytes)(, after \d+ of the answers before it in the batch)?; accepted: up to 40000( in all)?, such as k up to \d+$`)
	for _, k := range []uint32{30, 20, 14, 13} {
		ask := func(k uint32) *tandemv1.RetrieveRequest {
			return &tandemv1.RetrieveRequest{UserId: "u1", K: k, Attributes: []string{"developer"}, RecallTarget: new(1.0), Filter: `developer != "Ten"`, RequestId: "r"}
		}
		_, err := client.Retrieve(t.Context(), connect.NewRequest(ask(k)))
		var coded *connect.Error
		require.ErrorAs(t, err, &coded, "%d", k)
		require.Regexp(t, refused, coded.Message())
		fits, err := strconv.Atoi(suggested.FindStringSubmatch(coded.Message())[1])
		require.NoError(t, err)
		_, err = client.Retrieve(t.Context(), connect.NewRequest(ask(uint32(fits))))
		require.NoError(t, err)
		_, err = client.Retrieve(t.Context(), connect.NewRequest(ask(uint32(fits)+2)))
		require.Error(t, err, "it is about the largest")

		batch := func(k uint32) *tandemv1.BatchRetrieveResult {
			got, err := client.BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{ask(5), ask(k)}}))
			require.NoError(t, err)
			require.Len(t, got.Msg.Results[0].GetResponse().GetCandidates(), 5)
			return got.Msg.Results[1]
		}
		text := batch(k).GetError().GetMessage()
		require.Regexp(t, refused, text)
		text = batch(9).GetError().GetMessage()
		require.Regexp(t, refused, text)
		fits, err = strconv.Atoi(suggested.FindStringSubmatch(text)[1])
		require.NoError(t, err)
		require.Len(t, batch(uint32(fits)).GetResponse().GetCandidates(), fits)
	}
}

// TestMaxDeadline gives requests without a deadline one, and those with a later one too.
func TestMaxDeadline(t *testing.T) {
	service := smallTowers(index.Dot).loaded(t)
	for deadline, options := range map[time.Duration]Options{
		DefaultMaxDeadline: {},
		time.Minute:        {MaxDeadline: time.Minute},
	} {
		_, l := newHandler(service, options)
		require.Equal(t, deadline, l.maxDeadline)
	}
	s, l := serveLimited(t, service, Options{MaxDeadline: time.Millisecond})
	l.turns <- struct{}{}
	for range cap(l.turns) - 1 {
		l.turns <- struct{}{}
	}
	large := `{"userId": "u1", "k": 3, "excludeIds": ["` + strings.Repeat(`x", "`, 20_000) + `x"]}`
	for _, timeout := range []string{"", "600000"} {
		got := s.post(t, "Retrieve", large, "Connect-Timeout-Ms", timeout)
		require.Equal(t, "deadline_exceeded", got.json["code"], "it waits for its turn, which does not come")
	}
}
