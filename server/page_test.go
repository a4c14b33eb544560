package server

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/api/tandem/v1/tandemv1connect"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/release"
)

// TestPages: by exact scans the pages of an answer are together what one answer is, each says
// why it is short, and the last has no token.
func TestPages(t *testing.T) {
	type loaded struct {
		*towers
		service *Service
	}
	var all []loaded
	for i, metric := range []index.Metric{index.Dot, index.L2, index.Cosine} {
		for _, shards := range []int{1, 4} {
			data := newTowers(rand.New(rand.NewPCG(uint64(i), 8)), metric, 5, 150, 40, shards)
			data.mean = data.users[0].vector
			all = append(all, loaded{data, data.loaded(t)})
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		data := all[rapid.IntRange(0, len(all)-1).Draw(t, "towers")]
		r := &tandemv1.RetrieveRequest{RecallTarget: new(1.0)}
		switch rapid.IntRange(0, 4).Draw(t, "query") {
		case 0:
			r.UserId = rapid.SampledFrom(data.users).Draw(t, "user").id
		case 1:
			r.AppId = rapid.SampledFrom(data.apps).Draw(t, "app").id
		case 2:
			r.UserId, r.Fallback = "nobody", tandemv1.Fallback_FALLBACK_MEAN_USER
		default:
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			for range rapid.IntRange(1, 3).Draw(t, "vectors") {
				r.Vectors = append(r.Vectors, &tandemv1.Vector{Values: randomVector(rnd, data.dim)})
			}
		}
		filter := rapid.SampledFrom(filters).Draw(t, "filter")
		if rapid.IntRange(0, 4).Draw(t, "of users") == 0 {
			r.Target, filter = tandemv1.Tower_TOWER_USERS, filters[0]
		} else if rapid.IntRange(0, 3).Draw(t, "in a segment") == 0 {
			r.Segment = rapid.SampledFrom(segments).Draw(t, "segment").Name
		}
		r.Filter, r.Bindings = filter.text, map[string]*structpb.Value{"age": structpb.NewNumberValue(9)}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 200), 0, 10).Draw(t, "exclude") {
			r.ExcludeIds = append(r.ExcludeIds, fmt.Sprint("a", i))
		}
		if most := rapid.IntRange(0, 30).Draw(t, "at most"); most > 0 {
			r.AtMost = []*tandemv1.AtMost{{Attribute: "developer", N: uint32(most)}}
		}
		r.K = 200
		whole, err := data.service.retrieve(t.Context(), r)
		require.NoError(t, err)
		require.Empty(t, whole.NextPageToken)

		var got []*tandemv1.Candidate
		for {
			r.K = rapid.OneOf(rapid.Uint32Range(1, 10), rapid.Uint32Range(1, 150)).Draw(t, "k")
			r.Explain = rapid.Bool().Draw(t, "explain")
			r.Attributes = nil
			r.RequestId = fmt.Sprint("page after ", len(got))
			r.ExplainIds = nil
			if n := len(got); n > 0 && n < len(whole.Candidates) {
				r.ExplainIds = []string{whole.Candidates[n-1].Id, whole.Candidates[n].Id}
			}
			require.NoError(t, validate(r))
			page, err := data.service.retrieve(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, whole.Eligible, page.Eligible)
			require.Equal(t, whole.FallbackUsed, page.FallbackUsed)
			if n := len(got); len(r.ExplainIds) > 0 {
				ids := page.Explain.Ids
				require.Equal(t, tandemv1.Verdict_VERDICT_EARLIER_PAGE, ids[0].Verdict)
				require.Equal(t, tandemv1.Verdict_VERDICT_RETURNED, ids[1].Verdict)
				require.EqualValues(t, n+1, ids[1].Rank)
				require.Equal(t, fmt.Sprintf("returned at rank %d, which is 1 of %d on this page", n+1, len(page.Candidates)), ids[1].Text)
			}
			got = append(got, page.Candidates...)
			require.Equal(t, len(page.Candidates) < int(r.K), page.ShortReasonText != "")
			if len(page.Candidates) < int(r.K) {
				require.Empty(t, page.NextPageToken)
				require.Equal(t, whole.ShortReason, page.ShortReason)
				require.Contains(t, page.ShortReasonText, fmt.Sprint(", k is ", r.K))
				if r.PageToken != "" {
					require.Contains(t, page.ShortReasonText, fmt.Sprintf("%d of them after page_token", len(page.Candidates)))
				}
			}
			if page.NextPageToken == "" {
				break
			}
			require.LessOrEqual(t, len(page.NextPageToken), 512)
			require.NotEmpty(t, page.Candidates)
			r.PageToken = page.NextPageToken
		}
		require.Len(t, got, len(whole.Candidates))
		for i, c := range whole.Candidates {
			require.True(t, proto.Equal(c, got[i]), "place %d", i)
		}
	})
}

// TestPagesByWalks: what follows is in order, and nothing comes twice.
func TestPagesByWalks(t *testing.T) {
	s := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 16, 5000, 20, 2).loaded(t)
	for _, ef := range []uint32{1, 20, 200} {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 40, Ef: new(ef)}
		seen := map[string]bool{}
		var last *tandemv1.Candidate
		for range 20 {
			page, err := s.retrieve(t.Context(), r)
			require.NoError(t, err)
			require.Len(t, page.Candidates, 40)
			for _, c := range page.Candidates {
				require.False(t, seen[c.Id], c.Id)
				seen[c.Id] = true
				require.True(t, last == nil || c.Score < last.Score || c.Score == last.Score && c.Id > last.Id)
				last = c
			}
			require.NotEmpty(t, page.NextPageToken)
			r.PageToken = page.NextPageToken
		}
	}
}

// TestLastPage: all pages together have as many candidates as one answer may have.
func TestLastPage(t *testing.T) {
	data := &towers{metric: index.Dot, dim: 1, shards: 3, version: "v1"}
	for i := range 10_050 {
		data.apps = append(data.apps, entity{fmt.Sprintf("a%05d", i), []float32{float32(i)}, make([]attribute.Value, schema.Len())})
	}
	data.users = []entity{{"u1", []float32{1}, make([]attribute.Value, schema.Len())}}
	s := data.loaded(t)
	r := &tandemv1.RetrieveRequest{UserId: "u1", K: 10_000, RecallTarget: new(1.0)}
	whole, err := s.retrieve(t.Context(), r)
	require.NoError(t, err)
	require.Len(t, whole.Candidates, 10_000)
	require.Empty(t, whole.NextPageToken, "there are more, and none may be asked for")
	require.Empty(t, whole.ShortReasonText)
	var got []*tandemv1.Candidate
	for _, k := range []uint32{9_000, 970, 100} {
		r.K = k
		page, err := s.retrieve(t.Context(), r)
		require.NoError(t, err)
		got = append(got, page.Candidates...)
		r.PageToken = page.NextPageToken
		if len(got) < 10_000 {
			require.NotEmpty(t, r.PageToken)
			continue
		}
		require.Empty(t, r.PageToken)
		require.Len(t, page.Candidates, 30)
		require.Equal(t, tandemv1.ShortReason_SHORT_REASON_PAGES, page.ShortReason)
		require.Equal(t, "all pages together have at most 10000 candidates, 9970 of them before this one, k is 100", page.ShortReasonText)
	}
	require.True(t, slices.EqualFunc(whole.Candidates, got, func(a, b *tandemv1.Candidate) bool { return proto.Equal(a, b) }))

	// One that says that few rank up to it, as after many have come, is answered as far as
	// 10,000 go.
	token := pageToken{snapshot: s.current.Load().arms[0].short, request: hashRequest(r), score: 60, rank: 1, id: "a00060"}
	r.PageToken, r.K = token.String(), 20
	page, err := s.retrieve(t.Context(), r)
	require.NoError(t, err)
	require.Len(t, page.Candidates, 10)
	require.Equal(t, "a00059", page.Candidates[0].Id)
	require.Equal(t, tandemv1.ShortReason_SHORT_REASON_PAGES, page.ShortReason)
	require.Equal(t, "all pages together have at most 10000 candidates, 9990 of them before this one, k is 20", page.ShortReasonText)
	require.Empty(t, page.NextPageToken)
	token.score = 10
	r.PageToken = token.String()
	page, err = s.retrieve(t.Context(), r)
	require.NoError(t, err)
	require.Empty(t, page.Candidates)
	require.Equal(t, tandemv1.ShortReason_SHORT_REASON_PAGES, page.ShortReason)

	// What is estimated counts what is searched, and what is returned.
	now := s.current.Load().arms[0].pin(time.Now())
	r.PageToken, r.K, r.RecallTarget = "", 10, nil
	first := now.estimate(r, 1)
	token = pageToken{snapshot: now.short, request: hashRequest(r), score: 60, rank: 5000, id: "a00060"}
	r.PageToken = token.String()
	later := now.estimate(r, 1)
	require.Greater(t, later.work, first.work)
	require.Greater(t, later.memory, first.memory)
	require.Equal(t, first.answer, later.answer)
}

// TestPageTokens states what is wrong with a token, by each protocol and in a batch.
func TestPageTokens(t *testing.T) {
	s := smallTowers(index.Dot).loaded(t)
	ask := func() *tandemv1.RetrieveRequest { return &tandemv1.RetrieveRequest{UserId: "u1", K: 5} }
	site := serve(t, s, Options{})
	first, err := site.client().Retrieve(t.Context(), connect.NewRequest(ask()))
	require.NoError(t, err)
	good := first.Msg.NextPageToken
	p, err := parseToken(good)
	require.NoError(t, err)
	require.Equal(t, &pageToken{snapshot: s.current.Load().arms[0].short, request: hashRequest(ask()), score: first.Msg.Candidates[4].Score, rank: 5, id: first.Msg.Candidates[4].Id}, p)
	changed := func(change func(*pageToken)) string {
		other := *p
		change(&other)
		return other.String()
	}
	// sealed is a token with other bytes, whose checksum is right.
	sealed := func(change func([]byte) []byte) string {
		data, err := base64.RawURLEncoding.DecodeString(good)
		require.NoError(t, err)
		data = change(data[:len(data)-tokenChecksum])
		return base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(data, xxhash.Sum64(data)))
	}
	whole, err := base64.RawURLEncoding.DecodeString(good)
	require.NoError(t, err)
	cut := base64.RawURLEncoding.EncodeToString(whole[:len(whole)-1])
	const accepted = "; accepted: next_page_token of an answer to this request, whatever page_token, k, explain, explain_ids, attributes, min_live, request_id, experiment, variant and min_coverage were"
	for name, test := range map[string]struct {
		token, text string
	}{
		"no base64":   {"to be continued", "is not base64 for URLs without padding"},
		"padded":      {good + "=", "is not base64 for URLs without padding"},
		"line break":  {good + "\n", "has a line break"},
		"short":       {good[:20], "has 20 characters, too few for a token"},
		"cut":         {cut, "is cut or changed: its checksum is wrong"},
		"changed":     {good[:10] + swapped(good[10]) + good[11:], "is cut or changed: its checksum is wrong"},
		"long":        {strings.Repeat("A", 1000), fmt.Sprintf("has 1000 characters, more than the %d of any token", tokenEncoding.EncodedLen(maxToken))},
		"version":     {sealed(func(b []byte) []byte { b[0] = 9; return b }), "is of version 9, this server reads versions 1 to 3"},
		"NaN":         {changed(func(p *pageToken) { p.score = float32(math.NaN()) }), "has the score NaN"},
		"infinite":    {changed(func(p *pageToken) { p.score = float32(math.Inf(-1)) }), "has the score -Inf"},
		"rank 0":      {changed(func(p *pageToken) { p.rank = 0 }), "has the rank 0, no page follows it"},
		"rank 10000":  {changed(func(p *pageToken) { p.rank = 10_000 }), "has the rank 10000, no page follows it"},
		"id in bytes": {changed(func(p *pageToken) { p.id = "a\xff" }), "has an id that is not UTF-8"},
		"of another":  {changed(func(p *pageToken) { p.request++ }), "is of another request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := ask()
			r.PageToken = test.token
			shown := test.token
			if len(shown) > 128 {
				shown = shown[:128] + "..."
			}
			want := fmt.Sprintf("page_token %q %s", shown, test.text) + accepted
			for _, option := range []connect.ClientOption{connect.WithGRPC(), connect.WithGRPCWeb(), connect.WithProtoJSON(), connect.WithHTTPGet()} {
				_, err := site.client(option).Retrieve(t.Context(), connect.NewRequest(r))
				requireError(t, err, connect.CodeInvalidArgument, want)
				info, fields := detailsOf(t, err)
				require.Equal(t, "PAGE_TOKEN_INVALID", info.GetReason())
				require.Equal(t, "page_token", fields.GetFieldViolations()[0].Field)
			}
			batch, err := site.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{r}}))
			require.NoError(t, err)
			require.Equal(t, want, batch.Msg.Results[0].GetError().GetMessage())
		})
	}
	r := ask()
	r.PageToken = strings.Repeat("A", 1025)
	_, err = site.client().Retrieve(t.Context(), connect.NewRequest(r))
	requireError(t, err, connect.CodeInvalidArgument, "page_token has 1025 bytes; accepted: up to 1024")

	r.PageToken = changed(func(p *pageToken) { p.snapshot = [tokenDigest]byte{0xab, 0xcd, 1, 2, 3, 4, 5} })
	_, err = site.client().Retrieve(t.Context(), connect.NewRequest(r))
	requireError(t, err, connect.CodeFailedPrecondition, fmt.Sprintf("page_token %q is of snapshot abcd01020304, which is gone from this server; accepted: that of a snapshot that answers, or did a short while ago; begin with the first page", r.PageToken))
	info, _ := detailsOf(t, err)
	require.Equal(t, "PAGE_TOKEN_GONE", info.GetReason())

	// One that was made up for a version which the snapshot does not have.
	r.ModelVersion = "v9"
	r.PageToken = changed(func(p *pageToken) { p.request = hashRequest(r) })
	_, err = site.client().Retrieve(t.Context(), connect.NewRequest(r))
	requireError(t, err, connect.CodeInvalidArgument, fmt.Sprintf("page_token %q is of model version \"v1\", model_version is \"v9\"", r.PageToken)+accepted)
}

// swapped returns another letter.
func swapped(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

// TestPagesByProtocols asks for the same pages in each way, and for several in a batch.
func TestPagesByProtocols(t *testing.T) {
	site := serve(t, smallTowers(index.Dot).loaded(t), Options{})
	var want [][]string
	for _, options := range [][]connect.ClientOption{{connect.WithGRPC()}, {connect.WithGRPCWeb()}, {connect.WithProtoJSON()}, {connect.WithHTTPGet()}, nil} {
		client := site.client(options...)
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 25, ModelVersion: "v1", RequestKey: "somebody"}
		var got [][]string
		for {
			page, err := client.Retrieve(t.Context(), connect.NewRequest(r))
			require.NoError(t, err)
			var ids []string
			for _, c := range page.Msg.Candidates {
				ids = append(ids, c.Id)
			}
			got = append(got, ids)
			if r.PageToken = page.Msg.NextPageToken; r.PageToken == "" {
				break
			}
		}
		require.Len(t, got, 3)
		require.Len(t, got[2], 10)
		if want == nil {
			want = got
		}
		require.Equal(t, want, got)
	}

	batch := &tandemv1.BatchRetrieveRequest{}
	for i := range 6 {
		batch.Requests = append(batch.Requests, &tandemv1.RetrieveRequest{UserId: fmt.Sprint("u", i), K: 7})
	}
	pages := make([][]string, len(batch.Requests))
	for range 9 {
		got, err := site.client(connect.WithGRPC()).BatchRetrieve(t.Context(), connect.NewRequest(batch))
		require.NoError(t, err)
		for i, result := range got.Msg.Results {
			a := result.GetResponse()
			require.NotNil(t, a, "%v", result.GetError())
			for _, c := range a.Candidates {
				pages[i] = append(pages[i], c.Id)
			}
			batch.Requests[i].PageToken = a.NextPageToken
		}
	}
	for i, ids := range pages {
		require.Empty(t, batch.Requests[i].PageToken)
		require.Len(t, ids, 60)
		slices.Sort(ids)
		require.Len(t, slices.Compact(ids), 60)
	}
}

// TestPagesAcrossReleases: a page is of the snapshot of the one before, whatever is released
// meanwhile, whichever arm its request falls into and whichever process answers, until that
// snapshot is no longer mapped.
func TestPagesAcrossReleases(t *testing.T) {
	f := newFleet(t, 3, Config{})
	ask := func() *tandemv1.RetrieveRequest {
		return &tandemv1.RetrieveRequest{Vector: []float32{1, 2, 3, 4}, K: 20, RequestKey: "somebody", RecallTarget: new(1.0)}
	}
	first := f.ask(t, ask())
	require.Equal(t, string(f.digests[0]), first.Snapshot)
	whole := ask()
	whole.K = 60
	want := f.ask(t, whole)
	next := ask()
	next.PageToken = first.NextPageToken
	requirePage := func(a *tandemv1.RetrieveResponse, generation uint64, arm string) {
		t.Helper()
		require.Equal(t, []any{string(f.digests[0]), generation, arm, "v1"}, []any{a.Snapshot, a.Generation, a.Arm, a.ModelVersion})
		require.Len(t, a.Candidates, 20)
		for i, c := range a.Candidates {
			require.True(t, proto.Equal(want.Candidates[20+i], c))
		}
	}
	requirePage(f.ask(t, next), 1, "control")

	size := int64(f.status(t).MappedBytes)
	f.p.stop()
	require.NoError(t, <-f.p.done)
	f.p = start(t, Config{Store: f.store, MemoryLimit: 2*size + size/2})
	f.admin = tandemv1connect.NewAdminServiceClient(f.p.http2, f.p.url)
	f.await(t, 1)
	requirePage(f.ask(t, next), 1, "control")

	f.start(t, f.digests[1], 300)
	f.await(t, 2)
	_, err := f.releases.Split(t.Context(), release.SplitOptions{Weights: map[string]int{"candidate": 300}, Pins: map[string][]string{"candidate": {"somebody"}}})
	require.NoError(t, err)
	f.await(t, 3)
	other := f.ask(t, ask())
	require.Equal(t, "candidate", other.Arm)
	requirePage(f.ask(t, next), 3, "control")

	_, err = f.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
	s := f.await(t, 4)
	require.Equal(t, []string{string(f.digests[0])}, s.KeptSnapshots)
	requirePage(f.ask(t, next), 3, "control")
	batch, err := f.p.client().BatchRetrieve(t.Context(), connect.NewRequest(&tandemv1.BatchRetrieveRequest{Requests: []*tandemv1.RetrieveRequest{next, ask()}}))
	require.NoError(t, err)
	requirePage(batch.Msg.Results[0].GetResponse(), 3, "control")
	require.Equal(t, string(f.digests[1]), batch.Msg.Results[1].GetResponse().GetSnapshot())

	// There is no room for it beside a third.
	f.start(t, f.digests[2], 10)
	f.await(t, 5)
	_, err = f.p.client().Retrieve(t.Context(), connect.NewRequest(next))
	require.Equal(t, connect.CodeFailedPrecondition, connect.CodeOf(err), "%v", err)
	info, _ := detailsOf(t, err)
	require.Equal(t, "PAGE_TOKEN_GONE", info.GetReason())
	own := ask()
	own.PageToken = other.NextPageToken
	require.Equal(t, string(f.digests[1]), f.ask(t, own).Snapshot)

	_, err = f.releases.Promote(t.Context(), release.Change{}, "")
	require.NoError(t, err)
	f.await(t, 6)
	_, err = f.releases.Rollback(t.Context(), release.RollbackOptions{To: 1})
	require.NoError(t, err)
	f.await(t, 7)
	requirePage(f.ask(t, next), 7, "control")
}

// TestRequestHash: what decides the answer changes the hash, and nothing else does. A field
// that is new to the contract fails here until it is known which it is.
func TestRequestHash(t *testing.T) {
	mayDiffer := []protoreflect.Name{"page_token", "k", "explain", "explain_ids", "attributes", "min_live", "request_id", "experiment", "variant", "min_coverage"}
	base := func() *tandemv1.RetrieveRequest {
		return &tandemv1.RetrieveRequest{
			UserId: "u1", K: 10, Filter: "free", Bindings: map[string]*structpb.Value{"a": structpb.NewNumberValue(1), "b": structpb.NewStringValue("x")},
			ExcludeIds: []string{"a", "b"}, AtMost: []*tandemv1.AtMost{{Attribute: "developer", N: 2}},
		}
	}
	hashes := map[uint64]string{hashRequest(base()): "the request"}
	require.Equal(t, hashRequest(base()), hashRequest(proto.CloneOf(base())))
	changes := map[string]func(*tandemv1.RetrieveRequest){
		"other order of ids": func(r *tandemv1.RetrieveRequest) { slices.Reverse(r.ExcludeIds) },
		"ids cut elsewhere":  func(r *tandemv1.RetrieveRequest) { r.ExcludeIds = []string{"ab"} },
		"another limit":      func(r *tandemv1.RetrieveRequest) { r.AtMost[0].N = 3 },
		"bindings swapped": func(r *tandemv1.RetrieveRequest) {
			r.Bindings["a"], r.Bindings["b"] = r.Bindings["b"], r.Bindings["a"]
		},
		"a bool":        func(r *tandemv1.RetrieveRequest) { r.Bindings["a"] = structpb.NewBoolValue(true) },
		"the other":     func(r *tandemv1.RetrieveRequest) { r.Bindings["a"] = structpb.NewBoolValue(false) },
		"null":          func(r *tandemv1.RetrieveRequest) { r.Bindings["a"] = structpb.NewNullValue() },
		"a list":        func(r *tandemv1.RetrieveRequest) { r.Bindings["a"] = numbersOf(1) },
		"a longer list": func(r *tandemv1.RetrieveRequest) { r.Bindings["a"] = numbersOf(1, 1) },
		"ef of 1":       func(r *tandemv1.RetrieveRequest) { r.Ef = new(uint32(1)) },
		"a vector":      func(r *tandemv1.RetrieveRequest) { r.Vector = []float32{1} },
		"two vectors": func(r *tandemv1.RetrieveRequest) {
			r.Vectors = []*tandemv1.Vector{{Values: []float32{1}}, {Values: []float32{2}}}
		},
		"one of both": func(r *tandemv1.RetrieveRequest) { r.Vectors = []*tandemv1.Vector{{Values: []float32{1, 2}}} },
		"100 numbers": func(r *tandemv1.RetrieveRequest) { r.Vector = make([]float32, 100) },
		"101 numbers": func(r *tandemv1.RetrieveRequest) { r.Vector = make([]float32, 101) },
	}
	fields := base().ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		changes[string(field.Name())] = func(r *tandemv1.RetrieveRequest) { setField(r.ProtoReflect(), field) }
	}
	for name, change := range changes {
		r := base()
		change(r)
		require.False(t, proto.Equal(base(), r), name)
		h := hashRequest(r)
		if slices.Contains(mayDiffer, protoreflect.Name(name)) {
			require.Equal(t, hashRequest(base()), h, name)
			continue
		}
		require.Empty(t, hashes[h], "%s has the hash of it", name)
		hashes[h] = name
	}
}

func numbersOf(numbers ...float64) *structpb.Value {
	var values []*structpb.Value
	for _, n := range numbers {
		values = append(values, structpb.NewNumberValue(n))
	}
	return structpb.NewListValue(&structpb.ListValue{Values: values})
}

// setField sets a field of a message to something that it rarely is.
func setField(m protoreflect.Message, field protoreflect.FieldDescriptor) {
	value := func() protoreflect.Value {
		switch field.Kind() {
		case protoreflect.BoolKind:
			return protoreflect.ValueOfBool(true)
		case protoreflect.StringKind:
			return protoreflect.ValueOfString("something " + string(field.Name()))
		case protoreflect.Uint32Kind:
			return protoreflect.ValueOfUint32(77)
		case protoreflect.FloatKind:
			return protoreflect.ValueOfFloat32(0.77)
		case protoreflect.DoubleKind:
			return protoreflect.ValueOfFloat64(0.77)
		case protoreflect.EnumKind:
			return protoreflect.ValueOfEnum(2)
		}
		panic(field.Kind())
	}
	switch {
	case field.IsMap():
		m.Mutable(field).Map().Set(protoreflect.ValueOfString("new").MapKey(), protoreflect.ValueOfMessage(structpb.NewBoolValue(true).ProtoReflect()))
	case field.IsList() && field.Message() != nil:
		element := m.Mutable(field).List().AppendMutable().Message()
		setField(element, element.Descriptor().Fields().Get(0))
	case field.IsList():
		m.Mutable(field).List().Append(value())
	case field.Message() != nil:
		inner := m.Mutable(field).Message()
		setField(inner, inner.Descriptor().Fields().Get(0))
	default:
		m.Set(field, value())
	}
}

// TestTokenRoundTrip: what a token says is what it was made of.
func TestTokenRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := &pageToken{
			request: rapid.Uint64().Draw(t, "request"), score: rapid.Float32Range(-1e38, 1e38).Draw(t, "score"),
			rank: rapid.IntRange(1, maxCandidates-1).Draw(t, "rank"), id: rapid.StringN(1, 64, 256).Draw(t, "id"),
		}
		digest := func(to *[tokenDigest]byte) {
			copy(to[:], rapid.SliceOfN(rapid.Byte(), tokenDigest, tokenDigest).Draw(t, "snapshot"))
		}
		digest(&p.snapshot)
		if n := rapid.IntRange(0, release.MaxPlaces).Draw(t, "drawn"); n > 0 {
			p.drawn = rapid.SliceOfN(rapid.Uint64(), n, n).Draw(t, "hashes")
		}
		if rapid.Bool().Draw(t, "of two arms") {
			pair := &pairToken{seed: rapid.Uint64().Draw(t, "seed"), picks: rapid.IntRange(1, maxCandidates-1).Draw(t, "picks")}
			for i := range pair.teams {
				team := &pair.teams[i]
				digest(&team.snapshot)
				team.arm, team.position = fmt.Sprint(i)+rapid.StringMatching("[a-z0-9_-]{0,63}").Draw(t, "arm"), rapid.Uint64().Draw(t, "position")
				if rapid.Bool().Draw(t, "begun") {
					team.score, team.rank, team.id = p.score, rapid.IntRange(1, maxCandidates-1).Draw(t, "rank"), rapid.StringN(1, 64, 256).Draw(t, "id")
				}
			}
			p = &pageToken{request: p.request, pair: pair}
		}
		got, err := parseToken(p.String())
		require.NoError(t, err)
		require.Equal(t, p, got)
		require.LessOrEqual(t, len(p.String()), 1024)
		for n := range p.String() { // what is cut is no token
			_, err := parseToken(p.String()[:n])
			require.Error(t, err)
		}
	})
}

// FuzzPageToken reads any text: it is a token that says so again, or an error.
func FuzzPageToken(f *testing.F) {
	long := &pageToken{score: -1.5, rank: 9999, id: strings.Repeat("é", 128)}
	drawn := &pageToken{rank: 1, id: "a", request: 7, drawn: []uint64{1, math.MaxUint64}}
	pair := &pageToken{request: 7, pair: &pairToken{seed: 1, picks: 3, teams: [2]teamToken{{arm: "a", rank: 3, score: 2, id: "x"}, {arm: "b"}}}}
	for _, seed := range []string{"", "AAAA", (&pageToken{rank: 1, id: "a", request: 7}).String(), long.String(), long.String()[:100], strings.Repeat("_", 394), drawn.String(), pair.String()} {
		f.Add(seed, true)
		f.Add(seed, false)
	}
	f.Fuzz(func(t *testing.T, text string, seal bool) {
		if seal { // so that it gets past the checksum
			data, _ := base64.RawURLEncoding.DecodeString(text)
			text = base64.RawURLEncoding.EncodeToString(binary.BigEndian.AppendUint64(data, xxhash.Sum64(data)))
		}
		p, err := parseToken(text)
		if err != nil {
			require.Less(t, len(err.Error()), 200)
			require.Nil(t, p)
			return
		}
		require.Equal(t, text, p.String(), "there is one text for each token")
	})
}

// BenchmarkNextPage is what a token costs each answer that has one.
func BenchmarkNextPage(b *testing.B) {
	r := &tandemv1.RetrieveRequest{Vector: make([]float32, 128), K: 100, Filter: `"ios" in platforms && min_age <= user.age`, Bindings: map[string]*structpb.Value{"age": structpb.NewNumberValue(17)}}
	b.ReportAllocs()
	for b.Loop() {
		p := pageToken{request: hashRequest(r), score: 1, rank: 100, id: "app-0000042"}
		if p.String() == "" {
			b.Fatal()
		}
	}
}
