package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// filters pairs filters with what they mean.
var filters = []struct {
	text string
	pass func(e *entity, age float64) bool
}{
	{"", func(*entity, float64) bool { return true }},
	{"free", func(e *entity, _ float64) bool { return e.values[1].Bool() }},
	{`"ios" in platforms && min_age <= user.age`, func(e *entity, age float64) bool {
		return slices.Contains(e.values[3].Keywords(), "ios") && !e.values[2].Absent() && float64(e.values[2].Int()) <= age
	}},
	{`!has(developer) || developer == "Ten"`, func(e *entity, _ float64) bool {
		return e.values[0].Absent() || e.values[0].Keyword() == "Ten"
	}},
	{"price < 2.5", func(e *entity, _ float64) bool { return e.values[4].Float() < 2.5 }},
	{"price < 0.0", func(*entity, float64) bool { return false }},
}

func (t *towers) score(a, b []float32) float32 {
	var sum float32
	for i := range a {
		if t.metric == index.L2 {
			sum += (a[i] - b[i]) * (a[i] - b[i])
		} else {
			sum += a[i] * b[i]
		}
	}
	return sum
}

// TestExactAnswers compares answers at recall_target 1 with a brute-force search
// in the test's own data.
func TestExactAnswers(t *testing.T) {
	type loaded struct {
		*towers
		service *Service
	}
	var all []loaded
	for i, metric := range []index.Metric{index.Dot, index.L2} {
		for _, shards := range []int{1, 4} {
			data := newTowers(rand.New(rand.NewPCG(uint64(i), 7)), metric, 5, 150, 40, shards)
			all = append(all, loaded{data, data.loaded(t)})
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		data := all[rapid.IntRange(0, len(all)-1).Draw(t, "towers")]
		r := &tandemv1.RetrieveRequest{K: rapid.Uint32Range(1, 200).Draw(t, "k"), RecallTarget: new(1.0), Explain: true}
		rows, kind := data.apps, shard.Apps
		if rapid.Bool().Draw(t, "users") {
			r.Target = tandemv1.Tower_TOWER_USERS
			rows, kind = data.users, shard.Users
		}
		var vectors [][]float32
		excluded := map[string]bool{}
		switch rapid.IntRange(0, 3).Draw(t, "query") {
		case 0:
			e := data.users[rapid.IntRange(0, len(data.users)-1).Draw(t, "user")]
			r.UserId, vectors, excluded[e.id] = e.id, [][]float32{e.vector}, kind == shard.Users
		case 1:
			e := data.apps[rapid.IntRange(0, len(data.apps)-1).Draw(t, "app")]
			r.AppId, vectors, excluded[e.id] = e.id, [][]float32{e.vector}, kind == shard.Apps
		default:
			rnd := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			for range rapid.IntRange(1, 4).Draw(t, "vectors") {
				vectors = append(vectors, randomVector(rnd, data.dim))
			}
			if len(vectors) == 1 {
				r.Vector = vectors[0]
			} else {
				for _, v := range vectors {
					r.Vectors = append(r.Vectors, &tandemv1.Vector{Values: v})
				}
			}
		}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 200), 0, 30).Draw(t, "exclude") {
			id := fmt.Sprint(string(kind[:1]), i) // some do not exist
			r.ExcludeIds = append(r.ExcludeIds, id)
			excluded[id] = true
		}
		included := map[string]bool{}
		if rapid.IntRange(0, 2).Draw(t, "some") == 0 {
			for _, i := range rapid.SliceOfN(rapid.IntRange(0, 200), 1, 100).Draw(t, "include") {
				id := fmt.Sprint(string(kind[:1]), i)
				r.IncludeIds = append(r.IncludeIds, id)
				included[id] = true
			}
		}
		most := rapid.IntRange(0, 20).Draw(t, "at most")
		if most > 0 {
			r.AtMost = []*tandemv1.AtMost{{Attribute: "developer", N: uint32(most)}, {Attribute: "platforms", N: uint32(2 * most)}}
		}
		filter := filters[rapid.IntRange(0, len(filters)-1).Draw(t, "filter")]
		if kind == shard.Users {
			filter = filters[0]
		}
		inSegment := filters[0]
		if kind == shard.Apps && rapid.Bool().Draw(t, "in a segment") {
			segment := rapid.SampledFrom(segments).Draw(t, "segment")
			r.Segment = segment.Name
			for _, f := range filters {
				if f.text == segment.Expression {
					inSegment = f
				}
			}
		}
		age := float64(rapid.IntRange(0, 20).Draw(t, "age"))
		r.Filter, r.Bindings = filter.text, map[string]*structpb.Value{"age": structpb.NewNumberValue(age)}

		type scored struct {
			id    string
			score float32
		}
		var want []scored
		for i := range rows {
			e := &rows[i]
			if excluded[e.id] || !filter.pass(e, age) || !inSegment.pass(e, age) || r.IncludeIds != nil && !included[e.id] {
				continue
			}
			best := data.score(vectors[0], e.vector)
			for _, v := range vectors[1:] {
				if s := data.score(v, e.vector); data.metric.Better(s, best) {
					best = s
				}
			}
			want = append(want, scored{e.id, best})
		}
		slices.SortFunc(want, func(a, b scored) int {
			switch {
			case data.metric.Better(a.score, b.score):
				return -1
			case data.metric.Better(b.score, a.score):
				return 1
			}
			return cmp.Compare(a.id, b.id)
		})
		eligible := len(want)
		if most > 0 {
			taken := map[string]int{}
			want = slices.DeleteFunc(want, func(s scored) bool {
				e := &rows[slices.IndexFunc(rows, func(e entity) bool { return e.id == s.id })]
				developer, platforms := e.values[0], e.values[3].Keywords()
				if !developer.Absent() && taken[developer.Keyword()] == most ||
					slices.ContainsFunc(platforms, func(p string) bool { return taken[p] == 2*most }) {
					return true
				}
				if !developer.Absent() {
					taken[developer.Keyword()]++
				}
				for _, p := range platforms {
					taken[p]++
				}
				return false
			})
		}
		reason := tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED
		if len(want) < int(r.K) {
			if reason = tandemv1.ShortReason_SHORT_REASON_ELIGIBLE; len(want) < eligible {
				reason = tandemv1.ShortReason_SHORT_REASON_AT_MOST
			}
		}
		want = want[:min(len(want), int(r.K))]

		require.NoError(t, validate(r))
		answer, err := data.service.retrieve(context.Background(), r)
		require.NoError(t, err)
		var got []scored
		for _, c := range answer.Candidates {
			got = append(got, scored{c.Id, c.Score})
		}
		require.Equal(t, want, got)
		require.EqualValues(t, eligible, answer.Eligible)
		require.Equal(t, reason, answer.ShortReason)
		require.Equal(t, len(want) < int(r.K), answer.ShortReasonText != "")
		require.Equal(t, &tandemv1.Coverage{
			ShardsAnswered: uint32(data.shards), Shards: uint32(data.shards), ShardShare: 1, EligibleShare: 1,
		}, answer.Coverage)
		known := func(id string) bool { return slices.ContainsFunc(rows, func(e entity) bool { return e.id == id }) }
		require.EqualValues(t, len(slices.DeleteFunc(r.IncludeIds, known)), answer.Explain.UnknownIncludeIds)
		require.EqualValues(t, len(slices.DeleteFunc(r.ExcludeIds, known)), answer.Explain.UnknownExcludeIds)
		if eligible > 0 {
			require.Equal(t, tandemv1.Plan_PLAN_EXACT_SCAN, answer.Plan)
		} else {
			require.Equal(t, tandemv1.Plan_PLAN_UNSPECIFIED, answer.Plan)
		}
		require.Len(t, answer.Explain.Shards, data.shards)
		var sum uint64
		for _, s := range answer.Explain.Shards {
			sum += s.Eligible
		}
		require.EqualValues(t, eligible, sum)
	})
}

func TestAnswer(t *testing.T) {
	data := smallTowers(index.Dot)
	s := data.loaded(t)
	answer, err := s.retrieve(t.Context(), &tandemv1.RetrieveRequest{
		UserId: "u1", K: 5, RequestId: "r1", Explain: true,
		Attributes: []string{"price", "*", "price"}, ModelVersion: "v1",
	})
	require.NoError(t, err)
	now := s.current.Load()
	require.Equal(t, "feed", answer.Model)
	require.Equal(t, "v1", answer.ModelVersion)
	require.Equal(t, string(now.arms[0].snapshot.Digest()), answer.Snapshot)
	require.Equal(t, "r1", answer.RequestId)
	require.EqualValues(t, 60, answer.Eligible)
	require.Equal(t, tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED, answer.ShortReason)
	require.Equal(t, "apps-0001", answer.Explain.Shards[1].Shard)
	require.Positive(t, answer.Explain.TotalTime.AsDuration())
	require.Len(t, answer.Candidates, 5)
	for _, c := range answer.Candidates {
		i := slices.IndexFunc(data.apps, func(e entity) bool { return e.id == c.Id })
		want := data.apps[i].values
		for field, v := range want {
			name := schema.Field(field).Name
			got, ok := c.Attributes[name]
			require.Equal(t, !v.Absent(), ok, name)
			if !ok {
				continue
			}
			switch name {
			case "developer":
				require.Equal(t, v.Keyword(), got.GetKeyword())
			case "free":
				require.Equal(t, v.Bool(), got.GetBool())
			case "min_age":
				require.Equal(t, v.Int(), got.GetInt())
			case "platforms":
				require.Equal(t, v.Keywords(), got.GetKeywords().Values)
			case "price":
				require.Equal(t, v.Float(), got.GetFloat())
			case "released":
				require.Equal(t, v.Time(), got.GetTimestamp().AsTime())
			}
		}
	}
}

// TestAnswerOutlivesSnapshot reads an answer after its files are unmapped.
func TestAnswerOutlivesSnapshot(t *testing.T) {
	data := smallTowers(index.Dot)
	s := data.loaded(t)
	ask := &tandemv1.RetrieveRequest{UserId: "u1", K: 60, Attributes: []string{"*"}, RecallTarget: new(1.0)}
	first, err := s.retrieve(t.Context(), ask)
	require.NoError(t, err)
	before := first.String()
	next := smallTowers(index.Dot)
	next.version = "v2"
	s.Serve(open(t, next.publish(t))) // no request holds the first one
	require.Equal(t, before, first.String())
	second, err := s.retrieve(t.Context(), ask)
	require.NoError(t, err)
	require.Equal(t, "v2", second.ModelVersion)
	s.Close()
	_, err = s.retrieve(t.Context(), ask)
	requireError(t, err, connect.CodeUnavailable, "the server is stopping")
}

func TestDeadlineAndCoverage(t *testing.T) {
	s := smallTowers(index.Dot).loaded(t)
	late, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	_, err := s.retrieve(late, &tandemv1.RetrieveRequest{UserId: "u1", K: 5})
	requireError(t, err, connect.CodeDeadlineExceeded, "the deadline passed when 0 of 3 shards had answered; coverage is 0, min_coverage is 1")

	answer, err := s.retrieve(late, &tandemv1.RetrieveRequest{UserId: "u1", K: 5, MinCoverage: new(0.0), Explain: true})
	require.NoError(t, err)
	require.Empty(t, answer.Candidates)
	require.Equal(t, &tandemv1.Coverage{Shards: 3}, answer.Coverage)
	require.Equal(t, tandemv1.Plan_PLAN_UNSPECIFIED, answer.Plan)
	require.Equal(t, tandemv1.ShortReason_SHORT_REASON_COVERAGE, answer.ShortReason)
	require.Equal(t, "0 of 3 shards answered, k is 5", answer.ShortReasonText)
	require.Equal(t, "the deadline passed", answer.Explain.Shards[2].Error)
	require.Equal(t, "apps-0002", answer.Explain.Shards[2].Shard)
	require.NotZero(t, answer.Explain.Shards[2].Rows)

	gone, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.retrieve(gone, &tandemv1.RetrieveRequest{UserId: "u1", K: 5})
	requireError(t, err, connect.CodeCanceled, "the caller went away when 0 of 3 shards had answered; coverage is 0, min_coverage is 1")

	broken := &shard.CoverageError{Answered: 3, Shards: 4, Coverage: 0.75, MinCoverage: 0.9, Err: errors.New("shard apps-0002: no answer")}
	requireError(t, searchError(t.Context(), broken), connect.CodeUnavailable,
		"3 of 4 shards answered; coverage is 0.75, min_coverage is 0.9: shard apps-0002: no answer")
}

// deadlineAfter is a context whose deadline passes once it has been looked at so often.
type deadlineAfter struct {
	context.Context
	looks atomic.Int64
}

func (c *deadlineAfter) Err() error {
	if c.looks.Add(-1) < 0 {
		return context.DeadlineExceeded
	}
	return nil
}

// TestCutShort: what shards have given when the deadline passes before they give more is
// an answer, and says that it is less than it could be.
func TestCutShort(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // shards are asked one after the other, so looks come in one order
	data := &towers{metric: index.Dot, dim: 1, shards: 2, version: "v1"}
	for i := range 400 {
		e := entity{fmt.Sprintf("a%d", i), []float32{float32(i)}, make([]attribute.Value, schema.Len())}
		e.values[0] = attribute.OfKeyword("Ten")
		if i < 100 {
			e.values[0] = attribute.OfKeyword(e.id)
		}
		data.apps = append(data.apps, e)
	}
	data.users = []entity{{"u1", []float32{1}, make([]attribute.Value, schema.Len())}}
	s := data.loaded(t)
	cuts, short := 0, 0
	for looks := int64(0); ; looks++ {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 30, AtMost: []*tandemv1.AtMost{{Attribute: "developer", N: 1}}, MinCoverage: new(0.5), Explain: true}
		late := &deadlineAfter{Context: t.Context()}
		late.looks.Store(looks)
		answer, err := s.retrieve(late, r)
		if looks == 0 {
			require.Error(t, err)
			continue
		}
		require.NoError(t, err)
		if answer.Coverage.ShardsAnswered == 2 && answer.Coverage.ShardsCut == 0 {
			require.Len(t, answer.Candidates, 30)
			break
		}
		if answer.Coverage.ShardsAnswered < 2 {
			continue
		}
		cuts++
		require.Equal(t, 1.0, answer.Coverage.EligibleShare)
		require.NotEmpty(t, answer.Candidates)
		require.Equal(t, "a399", answer.Candidates[0].Id)
		if len(answer.Candidates) < 30 {
			require.Equal(t, tandemv1.ShortReason_SHORT_REASON_COVERAGE, answer.ShortReason)
			require.Equal(t, fmt.Sprintf("the deadline cut %d of 2 shards short, k is 30", answer.Coverage.ShardsCut), answer.ShortReasonText)
			short++
		}
		errors := 0
		for _, x := range answer.Explain.Shards {
			if x.Error != "" {
				require.Equal(t, "the deadline passed before it had answered once more", x.Error)
				require.NotZero(t, x.Eligible)
				errors++
			}
		}
		require.EqualValues(t, answer.Coverage.ShardsCut, errors)
		late.looks.Store(looks)
		r.MinCoverage = nil
		_, err = s.retrieve(late, r)
		var coded *connect.Error
		require.ErrorAs(t, err, &coded)
		require.Equal(t, connect.CodeDeadlineExceeded, coded.Code())
		require.Contains(t, coded.Message(), "the deadline passed when 2 of 2 shards had answered, ")
	}
	require.Positive(t, cuts)
	require.Positive(t, short)
}

func TestPlanSummary(t *testing.T) {
	answered := func(p index.Plan, eligible int) shard.ShardAnswer {
		return shard.ShardAnswer{Stats: index.Stats{Plan: p}, Eligible: eligible}
	}
	tests := []struct {
		want   tandemv1.Plan
		shards []shard.ShardAnswer
	}{
		{tandemv1.Plan_PLAN_UNSPECIFIED, nil},
		{tandemv1.Plan_PLAN_UNSPECIFIED, []shard.ShardAnswer{answered(index.ExactScan, 0)}},
		{tandemv1.Plan_PLAN_UNSPECIFIED, []shard.ShardAnswer{{Err: context.DeadlineExceeded, Eligible: 3, Stats: index.Stats{Plan: index.ExactScan}}}},
		{tandemv1.Plan_PLAN_GRAPH_WALK, []shard.ShardAnswer{answered(index.ExactScan, 0), answered(index.GraphWalk, 9)}},
		{tandemv1.Plan_PLAN_FILTERED_WALK, []shard.ShardAnswer{answered(index.FilteredWalk, 1), answered(index.FilteredWalk, 9)}},
		{tandemv1.Plan_PLAN_MIXED, []shard.ShardAnswer{answered(index.FilteredWalk, 1), answered(index.ExactScan, 9)}},
	}
	for _, test := range tests {
		require.Equal(t, test.want, planOf(test.shards))
	}
}

func TestShortReason(t *testing.T) {
	tower := open(t, smallTowers(index.Dot).publish(t))
	defer tower.Close()
	tests := []struct {
		found, eligible, missing int
		want                     tandemv1.ShortReason
		text                     string
		before                   int // 0 for the first page
	}{
		{10, 50, 1, tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED, "", 0},
		{3, 3, 1, tandemv1.ShortReason_SHORT_REASON_COVERAGE, "1 of 2 shards answered, k is 10", 0},
		{3, 50, 1, tandemv1.ShortReason_SHORT_REASON_COVERAGE, "1 of 2 shards answered, k is 10", 0},
		{0, 0, 0, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, "0 apps are eligible, k is 10", 0},
		{1, 1, 0, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, "1 app is eligible, k is 10", 0},
		{9, 9, 0, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, "9 apps are eligible, k is 10", 0},
		{2, 50, 0, tandemv1.ShortReason_SHORT_REASON_AT_MOST, "at_most leaves 2 of 50 eligible apps, k is 10", 0},
		{2, 9, 0, tandemv1.ShortReason_SHORT_REASON_AT_MOST, "at_most leaves 2 of 9 eligible apps, k is 10", 0},
		{2, 50, 1, tandemv1.ShortReason_SHORT_REASON_COVERAGE, "1 of 2 shards answered, k is 10", 0},
		{10, 50, 0, tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED, "", 30},
		{7, 107, 0, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, "107 apps are eligible, 7 of them after page_token, k is 10", 100},
		{0, 1, 0, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, "1 app is eligible, 0 of them after page_token, k is 10", 1},
		{7, 300, 0, tandemv1.ShortReason_SHORT_REASON_AT_MOST, "at_most leaves 107 of 300 eligible apps, 7 of them after page_token, k is 10", 100},
		{7, 300, 1, tandemv1.ShortReason_SHORT_REASON_COVERAGE, "1 of 2 shards answered, k is 10", 100},
		{2, 20_000, 0, tandemv1.ShortReason_SHORT_REASON_PAGES, "all pages together have at most 10000 candidates, 9998 of them before this one, k is 10", 9998},
	}
	for _, test := range tests {
		q := &query{Query: shard.Query{K: 10}, asked: 10, tower: tower.Tower(shard.Apps)}
		if test.before > 0 {
			q.After = &shard.Cursor{Rank: test.before}
		}
		found := &shard.Answer{Before: test.before, Candidates: make([]shard.Candidate, test.found), Eligible: test.eligible, Shards: make([]shard.ShardAnswer, 2)}
		reason, text := shortReason(q, found, 2-test.missing)
		require.Equal(t, test.want, reason)
		require.Equal(t, test.text, text)
	}
}

func TestServingIsCounted(t *testing.T) {
	s := smallTowers(index.Dot).loaded(t)
	first, err := s.acquire(wanted{})
	require.NoError(t, err)
	s.replace(nil)
	require.True(t, first.acquire(), "a request holds it")
	first.release()
	first.release()
	require.False(t, first.acquire(), "the last request has closed it")
	_, err = s.acquire(wanted{})
	requireError(t, err, connect.CodeUnavailable, "no snapshot is loaded yet")
}

// BenchmarkRetrieve is one request without the network: what the server adds to
// the search.
func BenchmarkRetrieve(b *testing.B) {
	data := newTowers(rand.New(rand.NewPCG(1, 2)), index.Dot, 64, 20_000, 100, 2)
	s := data.loaded(b)
	benchmarks := []struct {
		name string
		r    *tandemv1.RetrieveRequest
	}{
		{"walk", &tandemv1.RetrieveRequest{UserId: "u1", K: 100, Ef: new(uint32(100))}},
		{"exact", &tandemv1.RetrieveRequest{UserId: "u1", K: 100, RecallTarget: new(1.0)}},
		{"filter", &tandemv1.RetrieveRequest{
			UserId: "u1", K: 100, Ef: new(uint32(100)), Filter: `"ios" in platforms && min_age <= user.age`,
			Bindings: map[string]*structpb.Value{"age": structpb.NewNumberValue(17)},
		}},
		{"attributes", &tandemv1.RetrieveRequest{UserId: "u1", K: 100, Ef: new(uint32(100)), Attributes: []string{"price", "platforms"}}},
	}
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			answer, err := s.retrieve(context.Background(), bm.r)
			require.NoError(b, err)
			require.Len(b, answer.Candidates, 100)
			for b.Loop() {
				if err := validate(bm.r); err != nil {
					b.Fatal(err)
				}
				if _, err := s.retrieve(context.Background(), bm.r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("metrics=off_and_on", benchmarkMetrics)
	now := s.current.Load()
	q, err := newQuery(context.Background(), now.arms[0].pin(time.Now()), benchmarks[0].r, traces.Span{})
	require.NoError(b, err)
	b.Run("search_alone", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := q.tower.Search(context.Background(), &q.Query); err != nil {
				b.Fatal(err)
			}
		}
	})
}
