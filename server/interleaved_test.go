package server

import (
	"cmp"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/interleave"
	"github.com/tandem-ann/tandem/shard/release"
)

// twoArms are two snapshots of about the same apps and users, as two arms of one release.
type twoArms struct {
	arms    [2]*towers
	down    [2]lacking
	service *Service
	router  *release.Router
}

// lacking is a snapshot of which apps may be taken down.
type lacking struct {
	Snapshot
	ids map[string]bool
}

// Tower implements [Snapshot].
func (s *lacking) Tower(kind shard.Kind) *shard.Tower {
	t := s.Snapshot.Tower(kind)
	if kind == shard.Users || len(s.ids) == 0 {
		return t
	}
	over, err := t.With(t.Parts(), nil, refusedIDs(s.ids))
	if err != nil {
		panic(err)
	}
	return over
}

// refusedIDs is a [shard.Refused].
type refusedIDs map[string]bool

func (r refusedIDs) Has(id string) bool       { return r[id] }
func (r refusedIDs) HasAny(ids []string) bool { return slices.ContainsFunc(ids, r.Has) }

// newTwoArms returns arms whose apps are partly the same, each with vectors and attributes of its
// own. All requests are interleaved.
func newTwoArms(tb testing.TB, seed uint64, metric index.Metric, apps, shards int) *twoArms {
	w := &twoArms{service: NewService(slog.New(slog.DiscardHandler))}
	r := &release.Release{Generation: 3, Salt: "salt", Interleaving: &release.Interleaving{Arms: []string{"candidate", "control"}, Share: release.Total}}
	var servings []*serving
	for i, name := range []string{"control", "candidate"} {
		t := newTowers(rand.New(rand.NewPCG(seed, uint64(i))), metric, 5, apps, 10, shards)
		t.version = fmt.Sprint("v", i+1)
		t.apps = slices.DeleteFunc(t.apps, func(e entity) bool { return strings.HasSuffix(e.id, fmt.Sprint(7+i)) }) // one lacks a7, a17, ...
		for j := range t.users {
			t.users[j].vector = newTowers(rand.New(rand.NewPCG(seed, 9)), metric, 5, 0, 10, 1).users[j].vector // for a vector of both to be of use
		}
		w.arms[i] = t
		w.down[i] = lacking{Snapshot: open(tb, t.publish(tb))}
		servings = append(servings, w.service.newServing(&w.down[i], nil))
		r.Arms = append(r.Arms, release.Arm{Name: name, ModelVersion: t.version})
	}
	for n := range release.Total {
		r.Arms[n%2].Buckets = append(r.Arms[n%2].Buckets, n)
	}
	w.router = release.NewRouter(r)
	w.service.switchTo(r, servings)
	for _, s := range servings {
		s.release() // those who answer hold it
	}
	tb.Cleanup(w.service.Close)
	return w
}

// list returns what an arm alone answers, by a scan that is plain, with the entities.
func (t *towers) list(r *tandemv1.RetrieveRequest, pass func(*entity, float64) bool, down map[string]bool) (ids []string, scores map[string]float32, of map[string]*entity) {
	i := slices.IndexFunc(t.users, func(e entity) bool { return e.id == r.UserId })
	scores, of = map[string]float32{}, map[string]*entity{}
	for j := range t.apps {
		e := &t.apps[j]
		if down[e.id] || slices.Contains(r.ExcludeIds, e.id) || !pass(e, 9) {
			continue
		}
		ids = append(ids, e.id)
		scores[e.id], of[e.id] = t.score(t.users[i].vector, e.vector), e
	}
	slices.SortFunc(ids, func(a, b string) int {
		if scores[a] != scores[b] {
			if t.metric.Better(scores[a], scores[b]) {
				return -1
			}
			return 1
		}
		return cmp.Compare(a, b)
	})
	counts := map[string]int{}
	ids = slices.DeleteFunc(ids, func(id string) bool { return !take(r, counts, of[id]) })
	return ids, scores, of
}

// take counts the developer of an app, if the request's limit lets it be taken.
func take(r *tandemv1.RetrieveRequest, counts map[string]int, e *entity) bool {
	if len(r.AtMost) == 0 || e.values[0].Absent() {
		return true
	}
	if counts[e.values[0].Keyword()] >= int(r.AtMost[0].N) {
		return false
	}
	counts[e.values[0].Keyword()]++
	return true
}

// TestInterleaved: by exact scans the pages of an interleaved answer are together the draft of what
// each arm alone answers, with the scores of the teams.
func TestInterleaved(t *testing.T) {
	var all []*twoArms
	for i, metric := range []index.Metric{index.Dot, index.L2} {
		for _, shards := range []int{1, 3} {
			all = append(all, newTwoArms(t, uint64(i), metric, 70, shards))
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		w := all[rapid.IntRange(0, len(all)-1).Draw(t, "arms")]
		filter := rapid.SampledFrom(filters).Draw(t, "filter")
		r := &tandemv1.RetrieveRequest{
			UserId: fmt.Sprint("u", rapid.IntRange(0, 9).Draw(t, "user")), RecallTarget: new(1.0), Attributes: []string{"developer"},
			Filter: filter.text, Bindings: map[string]*structpb.Value{"age": structpb.NewNumberValue(9)},
			RequestId: rapid.StringMatching("[a-z]{4}").Draw(t, "id"),
		}
		if most := rapid.IntRange(0, 20).Draw(t, "at most"); most > 0 {
			r.AtMost = []*tandemv1.AtMost{{Attribute: "developer", N: uint32(most)}}
		}
		for _, i := range rapid.SliceOfN(rapid.IntRange(0, 70), 0, 10).Draw(t, "exclude") {
			r.ExcludeIds = append(r.ExcludeIds, fmt.Sprint("a", i))
		}
		// Teams are in the order of the release: the candidate is the first.
		var lists [2][]string
		var scores [2]map[string]float32
		var of [2]map[string]*entity
		for team, arm := range []*towers{w.arms[1], w.arms[0]} {
			lists[team], scores[team], of[team] = arm.list(r, filter.pass, nil)
		}
		counts := map[string]int{}
		want := interleave.Draft(lists, 1000, w.router.Coins(r.RequestId), func(p interleave.Pick) bool { return take(r, counts, of[p.Team][p.ID]) }).Picks

		var got []*tandemv1.Candidate
		for {
			r.K = rapid.OneOf(rapid.Uint32Range(1, 7), rapid.Uint32Range(1, 100)).Draw(t, "k")
			require.NoError(t, validate(r))
			page, err := w.service.retrieve(t.Context(), r)
			require.NoError(t, err)
			require.Equal(t, []string{"", "", ""}, []string{page.Arm, page.Snapshot, page.ModelVersion})
			require.Len(t, page.Interleaved, 2)
			require.Equal(t, []string{"candidate", "control"}, []string{page.Interleaved[0].Arm, page.Interleaved[1].Arm})
			require.Equal(t, []string{"v2", "v1"}, []string{page.Interleaved[0].ModelVersion, page.Interleaved[1].ModelVersion})
			require.Empty(t, page.NotInterleaved)
			got = append(got, page.Candidates...)
			n := len(page.Candidates)
			require.Equal(t, n < int(r.K), page.ShortReasonText != "")
			if n < int(r.K) {
				require.Empty(t, page.NextPageToken)
				if len(r.AtMost) == 0 {
					require.Equal(t, tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, page.ShortReason)
					require.Contains(t, page.ShortReasonText, fmt.Sprintf("%d apps are eligible in both arms together", len(want)))
				}
			}
			if page.NextPageToken == "" {
				break
			}
			require.LessOrEqual(t, len(page.NextPageToken), 1024)
			if len(r.AtMost) == 0 {
				require.NotEmpty(t, page.Candidates)
				require.Less(t, len(got), len(want))
			}
			r.PageToken, r.RequestId = page.NextPageToken, "of another page"
		}
		require.Len(t, got, len(want))
		for i, p := range want {
			team := []string{"candidate", "control"}[p.Team]
			require.Equal(t, []any{p.ID, team, scores[p.Team][p.ID]}, []any{got[i].Id, got[i].Team, got[i].Score}, "place %d", i)
			require.Equal(t, of[p.Team][p.ID].values[0].Keyword(), got[i].Attributes["developer"].GetKeyword())
		}
	})
}

// TestInterleavedPagesChange: whatever is taken down between pages, and in whichever arm first, no
// id comes twice, none that is down comes, and without limits nothing is lost.
func TestInterleavedPagesChange(t *testing.T) {
	w := newTwoArms(t, 5, index.Dot, 60, 3)
	rapid.Check(t, func(t *rapid.T) {
		for i := range w.down {
			w.down[i].ids = nil
		}
		target := rapid.SampledFrom([]float64{1, 0.8}).Draw(t, "target")
		r := &tandemv1.RetrieveRequest{UserId: "u3", RecallTarget: &target, RequestId: rapid.StringMatching("[a-z]{4}").Draw(t, "id")}
		if most := rapid.IntRange(0, 20).Draw(t, "at most"); most > 0 {
			r.AtMost = []*tandemv1.AtMost{{Attribute: "developer", N: uint32(most)}}
		}
		seen, down := map[string]bool{}, map[string]bool{}
		for {
			r.K = rapid.Uint32Range(1, 12).Draw(t, "k")
			page, err := w.service.retrieve(t.Context(), r)
			require.NoError(t, err)
			for _, c := range page.Candidates {
				require.False(t, seen[c.Id], "%s comes twice", c.Id)
				require.False(t, down[c.Id], "%s is down", c.Id)
				seen[c.Id] = true
			}
			if page.NextPageToken == "" {
				break
			}
			r.PageToken = page.NextPageToken
			for _, n := range rapid.SliceOfN(rapid.IntRange(0, 59), 0, 3).Draw(t, "down") {
				id := fmt.Sprint("a", n)
				down[id] = true
				for _, arm := range rapid.SampledFrom([][]int{{0}, {1}, {0, 1}}).Draw(t, "arm") {
					ids := map[string]bool{id: true}
					for other := range w.down[arm].ids {
						ids[other] = true
					}
					w.down[arm].ids = ids
				}
			}
		}
		for i := range w.arms {
			for _, e := range w.arms[i].apps {
				require.True(t, len(r.AtMost) > 0 || seen[e.id] || down[e.id], "%s was not shown", e.id)
			}
		}
	})
}

// TestInterleavedAtMost: at_most counts over the whole answer, by what the snapshot of each team
// says, and each arm is asked for as much as that takes.
func TestInterleavedAtMost(t *testing.T) {
	w := newTwoArms(t, 6, index.Dot, 400, 2)
	r := &tandemv1.RetrieveRequest{UserId: "u1", K: 60, RecallTarget: new(1.0), AtMost: []*tandemv1.AtMost{{Attribute: "developer", N: 1}}, RequestId: "r"}
	got, err := w.service.retrieve(t.Context(), r)
	require.NoError(t, err)
	counts := map[string]int{}
	for _, c := range got.Candidates {
		arm := w.arms[0]
		if c.Team == "candidate" {
			arm = w.arms[1]
		}
		e := arm.apps[slices.IndexFunc(arm.apps, func(e entity) bool { return e.id == c.Id })]
		if !e.values[0].Absent() {
			counts[e.values[0].Keyword()]++
		}
	}
	assert.Len(t, got.Candidates, 60)
	assert.Equal(t, map[string]int{"Nine Lives": 1, "Ten": 1, "Elf": 1}, counts)
}

// TestNotInterleaved: what two arms cannot answer is answered by one, and says why.
func TestNotInterleaved(t *testing.T) {
	w := newTwoArms(t, 7, index.Dot, 60, 2)
	own := func(r *tandemv1.RetrieveRequest) string {
		return []string{"control", "candidate"}[w.router.Route(requestKey(r))]
	}
	vector := w.arms[0].users[0].vector
	for name, test := range map[string]struct {
		request *tandemv1.RetrieveRequest
		text    string
	}{
		"explain":       {&tandemv1.RetrieveRequest{UserId: "u1", Explain: true}, "explain is of one arm"},
		"explain ids":   {&tandemv1.RetrieveRequest{UserId: "u1", ExplainIds: []string{"a1"}}, "explain is of one arm"},
		"users":         {&tandemv1.RetrieveRequest{UserId: "u1", Target: tandemv1.Tower_TOWER_USERS}, "target is TOWER_USERS; interleaved are answers of apps"},
		"vector":        {&tandemv1.RetrieveRequest{Vector: vector}, "the query is by vector, and arm"},
		"vectors":       {&tandemv1.RetrieveRequest{Vectors: []*tandemv1.Vector{{Values: vector}}}, "the query is by vector, and arm"},
		"model version": {&tandemv1.RetrieveRequest{UserId: "u1", ModelVersion: "v2"}, `model_version is "v2", and arm control serves "v1"`},
	} {
		t.Run(name, func(t *testing.T) {
			r := test.request
			r.K, r.RequestId = 5, "r"
			got, err := w.service.retrieve(t.Context(), r)
			require.NoError(t, err)
			assert.Contains(t, got.NotInterleaved, test.text)
			assert.Empty(t, got.Interleaved)
			if r.ModelVersion != "" {
				assert.Equal(t, "candidate", got.Arm)
			} else {
				assert.Equal(t, own(r), got.Arm)
			}
			for _, c := range got.Candidates {
				assert.Empty(t, c.Team)
			}
		})
	}
	t.Run("refused", func(t *testing.T) {
		// An app that one of the arms lacks: more like it is answered by the other, if that is its own.
		answered, failed := 0, 0
		for n := range 40 {
			r := &tandemv1.RetrieveRequest{AppId: "a17", K: 5, RequestId: fmt.Sprint("r", n)}
			got, err := w.service.retrieve(t.Context(), r)
			if own(r) == "control" { // which lacks it
				requireError(t, err, connect.CodeNotFound, `app_id "a17" is not in the app tower of model feed v1; query by an id that it has, or by vector`)
				failed++
				continue
			}
			require.NoError(t, err)
			answered++
			assert.Equal(t, "candidate", got.Arm)
			assert.Contains(t, got.NotInterleaved, `arm control cannot answer it: app_id "a17" is not in the app tower of model feed v1`)
		}
		assert.NotZero(t, answered*failed)
	})
	t.Run("a page is not explained", func(t *testing.T) {
		r := &tandemv1.RetrieveRequest{UserId: "u1", K: 5, RequestId: "r"}
		got, err := w.service.retrieve(t.Context(), r)
		require.NoError(t, err)
		r.PageToken, r.Explain = got.NextPageToken, true
		_, err = w.service.retrieve(t.Context(), r)
		requireError(t, err, connect.CodeInvalidArgument, "explain is set, and page_token is of an interleaved answer, which is of two arms; accepted: no explain and no explain_ids")
	})
}

// TestInterleavedBatch: in a batch each request is as alone.
func TestInterleavedBatch(t *testing.T) {
	w := newTwoArms(t, 8, index.Dot, 60, 2)
	batch := &tandemv1.BatchRetrieveRequest{}
	for n := range 12 {
		batch.Requests = append(batch.Requests, &tandemv1.RetrieveRequest{UserId: fmt.Sprint("u", n%11), K: 7, RequestId: fmt.Sprint("r", n), RecallTarget: new(1.0)})
	}
	site := serve(t, w.service, Options{})
	got, err := site.client().BatchRetrieve(t.Context(), connect.NewRequest(batch))
	require.NoError(t, err)
	for i, r := range batch.Requests {
		one := got.Msg.Results[i].GetResponse()
		if r.UserId == "u10" {
			assert.Equal(t, "not_found", got.Msg.Results[i].GetError().Code)
			continue
		}
		require.NotNil(t, one)
		alone, err := site.client().Retrieve(t.Context(), connect.NewRequest(r))
		require.NoError(t, err)
		assert.Len(t, one.Interleaved, 2)
		for j, c := range one.Candidates {
			assert.Equal(t, []any{alone.Msg.Candidates[j].Id, alone.Msg.Candidates[j].Team, alone.Msg.Candidates[j].Score}, []any{c.Id, c.Team, c.Score})
			assert.NotEmpty(t, c.Team)
		}
	}
}

// TestInterleavedProtocols: each protocol has the teams, large answers too, which are encoded in
// pieces.
func TestInterleavedProtocols(t *testing.T) {
	w := newTwoArms(t, 9, index.Dot, 3000, 2)
	site := serve(t, w.service, Options{})
	for _, k := range []uint32{5, 2500} {
		var want []string
		for _, options := range [][]connect.ClientOption{nil, {connect.WithGRPC()}, {connect.WithProtoJSON()}, {connect.WithHTTPGet()}} {
			got, err := site.client(options...).Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: k, RequestId: "r"}))
			require.NoError(t, err)
			var teams []string
			for _, c := range got.Msg.Candidates {
				teams = append(teams, c.Id+" "+c.Team)
				require.NotEmpty(t, c.Team)
			}
			if want == nil {
				want = teams
			}
			require.Equal(t, want, teams)
			require.Len(t, teams, int(k))
		}
	}
}

// TestInterleavedByVariant: a variant of two arms is interleaved, whatever the share is, and so is a
// request that names the model version of both.
func TestInterleavedByVariant(t *testing.T) {
	f := newFleet(t, 2, Config{Logger: slog.New(slog.DiscardHandler)})
	f.start(t, f.digests[1], 0)
	two := release.Variant{Experiment: "e", Variant: "both", Arms: []string{"control", "candidate"}}
	_, err := f.releases.Split(t.Context(), release.SplitOptions{Variants: []release.Variant{two}})
	require.NoError(t, err)
	f.await(t, 3)
	ask := func(variant, version string) (*tandemv1.RetrieveResponse, error) {
		got, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 6, Experiment: "e", Variant: variant, ModelVersion: version, RequestId: "r"}))
		if err != nil {
			return nil, err
		}
		return got.Msg, nil
	}
	got, err := ask("both", "")
	require.NoError(t, err)
	assert.Len(t, got.Interleaved, 2)
	got, err = ask("other", "")
	require.NoError(t, err)
	assert.Equal(t, "control", got.Arm)
	assert.Empty(t, got.NotInterleaved)
	got, err = ask("both", "v2")
	require.NoError(t, err)
	assert.Equal(t, "candidate", got.Arm)
	assert.Contains(t, got.NotInterleaved, `model_version is "v2", and arm control serves "v1"`)
	_, err = ask("both", "v3")
	requireError(t, err, connect.CodeFailedPrecondition, `model_version is "v3", and experiment "e", variant "both" is answered by the arms control and candidate, which serve "v1" and "v2"`)

	// A page goes on with both snapshots, whatever is released meanwhile.
	first, err := ask("both", "")
	require.NoError(t, err)
	_, err = f.releases.Promote(t.Context(), release.Change{}, "candidate")
	require.NoError(t, err)
	f.await(t, 4)
	r := &tandemv1.RetrieveRequest{UserId: "u1", K: 6, PageToken: first.NextPageToken}
	page, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(r))
	require.NoError(t, err)
	assert.Len(t, page.Msg.Interleaved, 2)
	for _, c := range page.Msg.Candidates {
		for _, earlier := range first.Candidates {
			assert.NotEqual(t, earlier.Id, c.Id)
		}
	}
}

// TestInterleavedIsRecorded: exposures say the teams, and no arm.
func TestInterleavedIsRecorded(t *testing.T) {
	f := newFleet(t, 2, Config{Logger: slog.New(slog.DiscardHandler), RecordShare: 1})
	f.start(t, f.digests[1], 100)
	_, err := f.releases.Split(t.Context(), release.SplitOptions{Interleaving: &release.Interleaving{Arms: []string{"control", "candidate"}, Share: release.Total}})
	require.NoError(t, err)
	f.await(t, 3)
	got, err := f.p.client().Retrieve(t.Context(), connect.NewRequest(&tandemv1.RetrieveRequest{UserId: "u1", K: 6, RequestId: "r"}))
	require.NoError(t, err)
	f.p.stop()
	require.NoError(t, <-f.p.done)
	list := recorded(t, f.store.Objects())
	require.Len(t, list, 1)
	q := list[0]
	assert.Equal(t, []any{"", "", "", "feed", int64(3)}, []any{q.Arm, q.Snapshot, q.ModelVersion, q.Model, q.Generation})
	for i, c := range got.Msg.Candidates {
		assert.Equal(t, []any{c.Id, c.Team, c.Score}, []any{q.Candidates[i].ID, q.Candidates[i].Team, q.Candidates[i].Score})
	}
}
