package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/stretchr/testify/require"
	"golang.org/x/text/unicode/norm"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
	"pgregory.net/rapid"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
)

// modelChain is an answer that is read page by page.
type modelChain struct {
	modelQuestion
	snapshot *modelSnapshot
	token    string
	seen     map[string][]float32 // the candidates so far, with their vectors
	vectors  [][]float32          // that it was asked with last, for which those were seen
}

// drawID draws the id of an app or user: mostly of one that events are about.
func drawID(t *rapid.T, kind shard.Kind) string {
	hot, cold := modelApps, "a"
	if kind == shard.Users {
		hot, cold = modelUsers, "u"
	}
	if n := between(t, 0, len(hot)+3, "id"); n < len(hot) {
		return hot[n]
	}
	return fmt.Sprint(cold, between(t, 0, 40, "number"))
}

func drawIDs(t *rapid.T, kind shard.Kind, least, most int, label string) []string {
	var ids []string
	for range between(t, least, most, label) {
		ids = append(ids, drawID(t, kind))
	}
	return ids
}

// drawQuestion draws a request for exact answers, or others.
func (w *modelWorld) drawQuestion(exact bool) *modelQuestion {
	t := w.t
	r := &tandemv1.RetrieveRequest{K: oneOf(t, []uint32{1, 2, 3, 5, 10, 30, 200}, "k")}
	if exact {
		r.RecallTarget = new(1.0)
	}
	q := &modelQuestion{request: r}
	if between(t, 0, 4, "target") == 4 {
		r.Target = tandemv1.Tower_TOWER_USERS
	}
	r.ModelVersion = oneOf(t, []string{"", "", "", modelV1, modelV2}, "version")
	switch between(t, 0, 4, "query") {
	case 0:
		r.AppId = drawID(t, shard.Apps)
	case 1:
		r.UserId = drawID(t, shard.Users)
	case 2:
		r.UserId, r.Fallback = drawID(t, shard.Users), tandemv1.Fallback_FALLBACK_MEAN_USER
	default:
		// A vector is of one version.
		if r.ModelVersion == "" {
			r.ModelVersion = oneOf(t, servedVersions(w.released[w.generation]), "version of the vector")
		}
		n := between(t, 1, 3, "vectors")
		for range n {
			r.Vectors = append(r.Vectors, &tandemv1.Vector{Values: modelVector(r.ModelVersion, w.metric, between(t, 0, 60, "vector"))})
		}
		if n == 1 && rapid.Bool().Draw(t, "as one") {
			r.Vector, r.Vectors = r.Vectors[0].Values, nil
		}
	}
	if between(t, 0, 3, "for somebody") == 3 {
		r.RequestKey = oneOf(t, []string{"key0", "key1", "key2"}, "key")
	}
	q.chain = drawChain(t, q.kind())
	if q.kind() == shard.Apps {
		if between(t, 0, 5, "bound") == 5 {
			var c modelClause
			c, q.user, r.Bindings = boundModelAge(t)
			q.chain = append(q.chain, c)
		}
		if between(t, 0, 3, "in a segment") == 3 {
			r.Segment = oneOf(t, slices.Sorted(maps.Keys(modelSegments)), "segment")
		}
	}
	q.chain = enclosed(q.chain)
	r.Filter = chainText(q.chain)
	if between(t, 0, 3, "limited") == 3 {
		names := []string{"developer", "platforms", "free"}
		if q.kind() == shard.Users {
			names = []string{"country"}
		}
		for _, name := range names[:between(t, 1, len(names), "limits")] {
			r.AtMost = append(r.AtMost, &tandemv1.AtMost{Attribute: name, N: uint32(between(t, 1, 4, "at most"))})
		}
	}
	if between(t, 0, 3, "excluding") == 3 {
		r.ExcludeIds = drawIDs(t, q.kind(), 1, 5, "excluded")
	}
	if between(t, 0, 4, "including") == 4 {
		r.IncludeIds = drawIDs(t, q.kind(), 1, 12, "included")
	}
	w.drawAside(q)
	return q
}

// drawAside draws what does not decide which candidates there are.
func (w *modelWorld) drawAside(q *modelQuestion) {
	r := q.request
	r.ExplainIds, r.Explain, r.Attributes = nil, between(w.t, 0, 5, "explain") == 5, nil
	if between(w.t, 0, 2, "explaining") == 2 {
		r.ExplainIds = drawIDs(w.t, q.kind(), 1, 6, "explained")
	}
	if between(w.t, 0, 2, "with attributes") == 2 {
		r.Attributes = []string{"*"}
	}
	r.MinLive = w.drawMinLive()
}

func (w *modelWorld) drawMinLive() *tandemv1.LivePosition {
	switch between(w.t, 0, 3, "min_live") {
	case 0, 1:
		return &tandemv1.LivePosition{Sequence: w.log.last}
	case 2:
		return &tandemv1.LivePosition{Sequence: uint64(between(w.t, 0, int(w.log.last), "position"))}
	}
	return nil
}

func (w *modelWorld) drawServer() *modelServer {
	up := w.up()
	s := up[between(w.t, 0, len(up)-1, "server")]
	if w.isRouter(s) {
		// It refuses what it has read of at once, and answers at the position that nodes have:
		// only where both are one is an answer what the model says at any.
		w.reach(s)
	}
	return s
}

// least returns the first position that an answer of a server may be of.
func (s *modelServer) least(min *tandemv1.LivePosition) uint64 {
	return max(s.sequence, min.GetSequence())
}

// ask asks one question for an exact answer.
func (w *modelWorld) ask() { w.askOne(w.drawServer(), w.drawQuestion(true)) }

// walk asks one question whose answer need not be exact.
func (w *modelWorld) walk() { w.askOne(w.drawServer(), w.drawQuestion(false)) }

func (w *modelWorld) askOne(s *modelServer, q *modelQuestion) (*tandemv1.RetrieveResponse, *modelAnswer) {
	got, err := s.retrieval.Retrieve(context.Background(), connect.NewRequest(q.request))
	if err != nil {
		reason, text := modelReason(err)
		w.refused(s, q, nil, reason, text)
		return nil, nil
	}
	return got.Msg, w.judge(s, q, got.Msg)
}

// modelReason returns the reason and the text of an error.
func modelReason(err error) (reason, text string) {
	coded := (*connect.Error)(nil)
	if !errors.As(err, &coded) {
		return "", err.Error()
	}
	for _, d := range coded.Details() {
		if v, err := d.Value(); err == nil {
			if info, ok := v.(*errdetails.ErrorInfo); ok {
				reason = info.Reason
			}
		}
	}
	return reason, err.Error()
}

// batch asks several questions at once.
func (w *modelWorld) batch() {
	s := w.drawServer()
	var list []*modelQuestion
	r := &tandemv1.BatchRetrieveRequest{}
	for range between(w.t, 1, 4, "questions") {
		q := w.drawQuestion(between(w.t, 0, 3, "walk") < 3)
		list, r.Requests = append(list, q), append(r.Requests, q.request)
	}
	got, err := s.retrieval.BatchRetrieve(context.Background(), connect.NewRequest(r))
	require.NoError(w.t, err)
	require.Len(w.t, got.Msg.Results, len(list))
	before := *s
	for i, q := range list {
		// Items are pinned one by one, in any order.
		item := before
		if failed := got.Msg.Results[i].GetError(); failed != nil {
			w.refused(&item, q, nil, failed.GetInfo().GetReason(), failed.Message)
		} else {
			w.judge(&item, q, got.Msg.Results[i].GetResponse())
		}
		s.sequence, s.generation = max(s.sequence, item.sequence), max(s.generation, item.generation)
	}
}

// refused judges an error by what the server may have known.
func (w *modelWorld) refused(s *modelServer, q *modelQuestion, chain *modelChain, reason, text string) {
	r := q.request
	w.report.refused[reason]++
	may := func(snapshots []*modelSnapshot, missing modelMissing) bool {
		for _, sn := range snapshots {
			for at := s.least(r.MinLive); at <= w.log.last; at++ {
				if _, what := w.log.answer(q, sn, at, w.now()); what == missing {
					return true
				}
			}
		}
		return false
	}
	var snapshots []*modelSnapshot
	served := false // by all releases that may answer
	if chain != nil {
		snapshots = []*modelSnapshot{chain.snapshot}
	} else {
		served = true
		for _, g := range w.generations(s) {
			arms := w.arms(g, r.ModelVersion)
			snapshots = append(snapshots, arms...)
			served = served && len(arms) > 0
		}
	}
	switch reason {
	case "ENTITY_UNKNOWN":
		if may(snapshots, "entity") {
			return
		}
	case "FALLBACK_UNAVAILABLE":
		if may(snapshots, "mean") {
			return
		}
	case "MODEL_VERSION_NOT_SERVED":
		if !served && chain == nil {
			return
		}
	case "PAGE_TOKEN_GONE":
		if chain != nil && !w.mustHave(s, chain.snapshot) {
			return
		}
	}
	w.t.Fatalf("server %s refuses %v: %s", s.name, r, text)
}

// arms returns the snapshots of the arms of a release that a request for a version may be
// answered by.
func (w *modelWorld) arms(g *release.Release, version string) (list []*modelSnapshot) {
	for _, a := range g.Arms {
		if version == "" || a.ModelVersion == version {
			list = append(list, w.snapshot(a.Snapshot))
		}
	}
	return list
}

// mustHave reports whether a server has a snapshot mapped for sure.
func (w *modelWorld) mustHave(s *modelServer, sn *modelSnapshot) bool {
	if s.mapped[sn.digest] {
		return true
	}
	for _, g := range w.generations(s) {
		if !slices.Contains(w.arms(g, ""), sn) {
			return false
		}
	}
	return true
}

// pinned checks by what an answer is, and returns its snapshot and position.
func (w *modelWorld) pinned(s *modelServer, digest, version string, generation uint64, arm string, live, min *tandemv1.LivePosition) (*modelSnapshot, uint64) {
	t := w.t
	sn := w.snapshot(manifest.Digest(digest))
	require.NotNil(t, sn, "snapshot %s", digest)
	require.Equal(t, sn.version, version)
	require.LessOrEqual(t, generation, w.generation)
	g := w.released[generation]
	require.NotNil(t, g, "generation %d", generation)
	require.NotNil(t, g.Arm(arm), "arm %s of generation %d", arm, generation)
	require.Equal(t, digest, string(g.Arm(arm).Snapshot))
	require.NotNil(t, live)
	require.Empty(t, live.Log)
	require.GreaterOrEqual(t, live.Sequence, s.least(min), "server %s answers at an earlier position than before, or than it has to", s.name)
	require.LessOrEqual(t, live.Sequence, w.log.last)
	s.sequence = live.Sequence
	if s.mapped != nil {
		s.mapped[sn.digest] = true
	}
	return sn, live.Sequence
}

// judge compares an answer with the model's.
func (w *modelWorld) judge(s *modelServer, q *modelQuestion, got *tandemv1.RetrieveResponse) *modelAnswer {
	t, r := w.t, q.request
	sn, at := w.pinned(s, got.Snapshot, got.ModelVersion, got.Generation, got.Arm, got.Live, r.MinLive)
	if r.PageToken == "" {
		require.GreaterOrEqual(t, got.Generation, s.generation, "server %s answers by an earlier release than before", s.name)
		s.generation = got.Generation
		w.sticks(r.ModelVersion, r.RequestKey, r.UserId, got)
	}
	if r.ModelVersion != "" {
		require.Equal(t, r.ModelVersion, got.ModelVersion)
	}
	require.Equal(t, "feed", got.Model)
	require.Less(t, got.Staleness.AsDuration(), time.Minute)
	require.Equal(t, 1.0, got.Coverage.EligibleShare)
	require.Equal(t, got.Coverage.Shards, got.Coverage.ShardsAnswered)

	want, missing := w.log.answer(q, sn, at, w.now())
	require.Empty(t, missing, "server %s answers %v, and snapshot %s does not have that at %d", s.name, r, sn.name, at)
	require.Equal(t, want.fell, got.FallbackUsed == tandemv1.Fallback_FALLBACK_MEAN_USER)
	require.EqualValues(t, len(want.eligible), got.Eligible, "eligible; %s at %d, server %s: %v", sn.name, at, s.name, r)
	if r.RecallTarget != nil {
		w.exact(s, q, sn, at, got, want)
	} else {
		w.sound(s, q, sn, at, got, want)
	}
	if r.Explain || len(r.ExplainIds) > 0 {
		w.explained(q, got, want)
	}
	w.report.answers++
	w.report.rows += len(got.Candidates)
	if got.ShortReason != 0 {
		w.report.short++
	}
	return want
}

// sticks checks that those whom a request is for have the same arm for as long as nothing else
// is released.
func (w *modelWorld) sticks(version, key, user string, got *tandemv1.RetrieveResponse) {
	if key == "" {
		key = user
	}
	if version != "" || key == "" {
		return
	}
	name := fmt.Sprintf("%d %s", got.Generation, key)
	if old, ok := w.routes[name]; ok {
		require.Equal(w.t, string(old), got.Snapshot, "%s falls into another arm", name)
	}
	w.routes[name] = manifest.Digest(got.Snapshot)
}

// ranks are the candidates of an answer, in words.
func ranksOf(hits []modelHit) string {
	var b strings.Builder
	for _, h := range hits {
		fmt.Fprintf(&b, "%s %v\n", h.id, h.score)
	}
	return b.String()
}

func ranksIn(list []*tandemv1.Candidate) string {
	var b strings.Builder
	for _, c := range list {
		fmt.Fprintf(&b, "%s %v\n", c.Id, c.Score)
	}
	return b.String()
}

// exact checks the candidates of an exact answer.
func (w *modelWorld) exact(s *modelServer, q *modelQuestion, sn *modelSnapshot, at uint64, got *tandemv1.RetrieveResponse, want *modelAnswer) {
	t, r := w.t, q.request
	require.Equal(t, ranksOf(want.page), ranksIn(got.Candidates), "%s at %d, server %s, %s: %v", sn.name, at, s.name, w.now().Format(time.RFC3339), r)
	for i, c := range got.Candidates {
		require.Equal(t, math.Float32bits(want.page[i].score), math.Float32bits(c.Score), c.Id)
		w.hasValues(r.Attributes, c, want.page[i].modelRow)
	}
	plan := tandemv1.Plan_PLAN_EXACT_SCAN
	if len(want.eligible) == 0 {
		plan = tandemv1.Plan_PLAN_UNSPECIFIED
	}
	require.Equal(t, plan, got.Plan)
	reason, text := want.short(q)
	require.Equal(t, reason, got.ShortReason, "%v", r)
	require.Equal(t, text, got.ShortReasonText)
	left := len(want.taken) - want.before - len(want.page)
	switch {
	case left > 0:
		require.NotEmpty(t, got.NextPageToken, "%d candidates are left: %v", left, r)
	case len(r.AtMost) == 0 || len(want.page) < int(r.K):
		require.Empty(t, got.NextPageToken)
	}
}

// short says why an answer has fewer than k candidates.
func (a *modelAnswer) short(q *modelQuestion) (reason tandemv1.ShortReason, text string) {
	n, all := len(a.page), len(a.taken)
	if n >= int(q.request.K) {
		return 0, ""
	}
	noun, plural := "app", "apps"
	if q.kind() == shard.Users {
		noun, plural = "user", "users"
	}
	end := fmt.Sprintf(", k is %d", q.request.K)
	if q.after != nil {
		end = fmt.Sprintf(", %d of them after page_token%s", n, end)
	}
	switch {
	case all < len(a.eligible):
		return tandemv1.ShortReason_SHORT_REASON_AT_MOST, fmt.Sprintf("at_most leaves %d of %d eligible %s%s", all, len(a.eligible), plural, end)
	case all == 1:
		return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("1 %s is eligible%s", noun, end)
	}
	return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("%d %s are eligible%s", all, plural, end)
}

// hasValues checks the attributes of a candidate.
func (w *modelWorld) hasValues(names []string, c *tandemv1.Candidate, row *modelRow) {
	want := map[string]*tandemv1.AttributeValue{}
	if len(names) > 0 { // all of them
		for name, v := range row.values {
			want[name] = wireOfModel(v)
		}
	}
	require.ElementsMatch(w.t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(c.Attributes)), c.Id)
	for name, v := range want {
		require.True(w.t, proto.Equal(v, c.Attributes[name]), "%s of %s is %v, want %v", name, c.Id, c.Attributes[name], v)
	}
}

// sound checks the candidates of an answer that need not be exact: they are eligible, and each
// has its score; there are as many as there can be; and no row that was upserted since the
// snapshot was built, which are always scanned, is missing.
func (w *modelWorld) sound(s *modelServer, q *modelQuestion, sn *modelSnapshot, at uint64, got *tandemv1.RetrieveResponse, want *modelAnswer) {
	t, r := w.t, q.request
	eligible := map[string]*modelHit{}
	for i := range want.eligible {
		eligible[want.eligible[i].id] = &want.eligible[i]
	}
	in := map[string]bool{}
	var last *modelHit
	counts := newModelCounts(r.AtMost)
	for _, c := range got.Candidates {
		h := eligible[c.Id]
		require.NotNil(t, h, "%s is not eligible in %s at %d, server %s: %v", c.Id, sn.name, at, s.name, r)
		require.Equal(t, math.Float32bits(h.score), math.Float32bits(c.Score), c.Id)
		w.hasValues(r.Attributes, c, h.modelRow)
		require.True(t, last == nil || last.before(h, sn.metric), "%s is not in its place", c.Id)
		place, _ := counts.full(h.values)
		require.Negative(t, place, "%s is more than at_most allows", c.Id)
		counts.take(h.values)
		last, in[c.Id] = h, true
	}
	if len(r.AtMost) > 0 {
		return
	}
	require.Len(t, got.Candidates, min(int(r.K), len(want.eligible)), "%v", r)
	for _, h := range want.page {
		require.True(t, in[h.id] || !h.fresh, "%s was upserted, and is not in the answer: %v", h.id, r)
	}
}

// explained checks what an answer says of ids.
func (w *modelWorld) explained(q *modelQuestion, got *tandemv1.RetrieveResponse, want *modelAnswer) {
	t, r, e := w.t, q.request, got.Explain
	require.NotNil(t, e)
	var sum uint64
	for _, s := range e.Shards {
		require.Empty(t, s.Error)
		sum += s.Eligible
	}
	require.Equal(t, got.Eligible, sum)
	unknown := func(ids []string) (n uint32) {
		for _, id := range ids {
			if !want.has(id) {
				n++
			}
		}
		return n
	}
	require.Equal(t, unknown(r.IncludeIds), e.UnknownIncludeIds, "%v", r.IncludeIds)
	require.Equal(t, unknown(r.ExcludeIds), e.UnknownExcludeIds, "%v", r.ExcludeIds)
	w.otherForms(want, append(slices.Clone(r.IncludeIds), r.ExcludeIds...), e.OtherForms)
	require.Len(t, e.Ids, len(r.ExplainIds))
	for i, id := range r.ExplainIds {
		w.report.explains++
		w.explainedID(q, got, want, id, e.Ids[i])
	}
}

// has reports whether a tower has an id at the time of the request.
func (a *modelAnswer) has(id string) bool {
	return a.rows[id].there(a.now)
}

// otherForms checks which of unknown ids a tower is said to have in another Unicode form. A router
// does not know those forms that cannot be computed.
func (w *modelWorld) otherForms(a *modelAnswer, ids []string, got map[string]string) {
	t := w.t
	for _, id := range ids {
		var forms []string
		for other := range a.rows {
			if other != id && a.has(other) && !a.has(id) && norm.NFKC.String(other) == norm.NFKC.String(id) {
				forms = append(forms, other)
			}
		}
		if len(forms) == 0 {
			require.NotContains(t, got, id)
		} else if w.cluster == nil || got[id] != "" {
			require.Contains(t, forms, got[id], id)
		}
	}
	for id := range got {
		require.Contains(t, ids, id)
	}
}

func (w *modelWorld) explainedID(q *modelQuestion, got *tandemv1.RetrieveResponse, want *modelAnswer, id string, e *tandemv1.IdExplain) {
	t, r := w.t, q.request
	f := want.rows[id]
	require.Equal(t, id, e.Id)
	require.NotEmpty(t, e.Text)
	switch {
	case f.down != nil:
		require.Equal(t, tandemv1.Verdict_VERDICT_TAKEN_DOWN, e.Verdict, id)
		require.Nil(t, e.Score)
		return
	case f.row == nil:
		require.Equal(t, tandemv1.Verdict_VERDICT_UNKNOWN, e.Verdict, id)
		require.Nil(t, e.Score)
		require.False(t, e.Fresh)
		return
	}
	require.Equal(t, f.row.fresh, e.Fresh, "%s is fresh: %v", id, e)
	if !f.row.window.contains(want.now) {
		require.Equal(t, tandemv1.Verdict_VERDICT_OUTSIDE_WINDOW, e.Verdict, id)
		return
	}
	h := modelHit{f.row, want.score(f.row)}
	require.NotNil(t, e.Score, "%s: %v", id, e)
	require.Equal(t, math.Float32bits(h.score), math.Float32bits(*e.Score), id)
	verdict := want.reason(q, id, f.row)
	if verdict == tandemv1.Verdict_VERDICT_NOT_ELIGIBLE {
		c := firstFalse(modelSegments[r.Segment], f.row.values, nil)
		if c == nil {
			c = firstFalse(q.chain, f.row.values, q.user)
		}
		require.Equal(t, c.text, e.Clause)
	}
	if verdict == 0 {
		verdict = w.standing(q, got, want, &h, e)
	}
	require.Equal(t, verdict, e.Verdict, "%s: %v; %v", id, e, r)
	require.Equal(t, verdict == tandemv1.Verdict_VERDICT_RETURNED, e.Rank > 0)
}

// standing returns where an eligible row stands in an answer, and checks what is said of it.
func (w *modelWorld) standing(q *modelQuestion, got *tandemv1.RetrieveResponse, want *modelAnswer, h *modelHit, e *tandemv1.IdExplain) tandemv1.Verdict {
	t, r := w.t, q.request
	if q.after != nil && !q.after.before(h, want.metric) {
		return tandemv1.Verdict_VERDICT_EARLIER_PAGE
	}
	counts := newModelCounts(r.AtMost)
	for i := range want.before {
		counts.take(want.taken[i].values)
	}
	below := true
	for i, c := range got.Candidates {
		other := modelHit{want.rows[c.Id].row, c.Score}
		if other.id == h.id {
			require.EqualValues(t, q.rank+i+1, e.Rank)
			return tandemv1.Verdict_VERDICT_RETURNED
		}
		if !other.before(h, want.metric) {
			below = false
			break
		}
		counts.take(other.values)
	}
	place, values := counts.full(h.values)
	switch {
	case place >= 0:
		require.Equal(t, r.AtMost[place].Attribute, e.Attribute)
		require.True(t, slices.ContainsFunc(values, func(v any) bool { return proto.Equal(wireOfModel(v), e.Value) }), "%v", e)
		return tandemv1.Verdict_VERDICT_CAPPED
	case below:
		return tandemv1.Verdict_VERDICT_BELOW_CUT
	}
	require.Nil(t, r.RecallTarget, "an exact scan misses nothing: %v", e)
	return tandemv1.Verdict_VERDICT_NOT_VISITED
}

// page asks for the first page of an answer, or goes on with one.
func (w *modelWorld) page() {
	if len(w.chains) == 0 || between(w.t, 0, 3, "which page") == 3 {
		q := w.drawQuestion(true)
		q.request.K = uint32(between(w.t, 1, 8, "page"))
		c := &modelChain{modelQuestion: *q, seen: map[string][]float32{}}
		w.turn(c, w.drawServer())
		return
	}
	i := between(w.t, 0, len(w.chains)-1, "chain")
	c := w.chains[i]
	w.chains = slices.Delete(w.chains, i, i+1)
	s := w.drawServer()
	if between(w.t, 0, 9, "of another request") == 9 {
		w.misplaced(c, s)
	}
	c.request = proto.CloneOf(c.request)
	c.request.PageToken, c.request.K = c.token, uint32(between(w.t, 1, 12, "page"))
	w.drawAside(&c.modelQuestion)
	w.turn(c, s)
}

// turn asks for the next page of a chain.
func (w *modelWorld) turn(c *modelChain, s *modelServer) {
	t := w.t
	got, err := s.retrieval.Retrieve(context.Background(), connect.NewRequest(c.request))
	if err != nil {
		reason, text := modelReason(err)
		of := c
		if c.snapshot == nil {
			of = nil
		}
		w.refused(s, &c.modelQuestion, of, reason, text)
		return
	}
	if c.snapshot != nil {
		require.Equal(t, string(c.snapshot.digest), got.Msg.Snapshot)
	}
	want := w.judge(s, &c.modelQuestion, got.Msg)
	c.snapshot = w.snapshot(manifest.Digest(got.Msg.Snapshot))
	vectors, _, _ := w.log.vectors(c.request, c.snapshot, got.Msg.Live.Sequence, w.now())
	if !slices.EqualFunc(vectors, c.vectors, slices.Equal) {
		clear(c.seen) // by another vector they may rank behind the cursor
	}
	for _, h := range want.page {
		old, again := c.seen[h.id]
		require.False(t, again && slices.Equal(old, h.vector), "%s comes on two pages", h.id)
		c.seen[h.id] = h.vector
	}
	c.vectors = vectors
	if c.token = got.Msg.NextPageToken; c.token == "" {
		return
	}
	last := want.page[len(want.page)-1]
	c.after, c.rank = &modelHit{&modelRow{id: last.id}, last.score}, c.rank+len(want.page)
	if w.chains = append(w.chains, c); len(w.chains) > 6 {
		w.chains = w.chains[1:]
	}
}

// misplaced asks for the page of another request, of which there is none.
func (w *modelWorld) misplaced(c *modelChain, s *modelServer) {
	r := proto.CloneOf(c.request)
	r.PageToken, r.MinLive = c.token, nil
	switch between(w.t, 0, 4, "what differs") {
	case 0:
		attribute := "has(country)"
		if c.kind() == shard.Apps {
			attribute = "has(price)"
		}
		r.Filter = strings.Repeat(attribute+" && ", 3) + attribute // no chain has four conditions
	case 1:
		r.ExcludeIds = append(r.ExcludeIds, "nobody")
	case 2:
		r.RequestKey += "x"
	case 3:
		r.PageToken = r.PageToken[:len(r.PageToken)-1]
	case 4:
		r.Bindings = map[string]*structpb.Value{"more": structpb.NewNumberValue(1)}
	}
	_, err := s.retrieval.Retrieve(context.Background(), connect.NewRequest(r))
	require.Error(w.t, err)
	reason, text := modelReason(err)
	w.report.refused[reason]++
	require.Equal(w.t, "PAGE_TOKEN_INVALID", reason, text)
}

// embeddings asks for vectors.
func (w *modelWorld) embeddings() {
	t, s := w.t, w.drawServer()
	r := &tandemv1.GetEmbeddingsRequest{MinLive: w.drawMinLive()}
	kind := shard.Apps
	if between(t, 0, 2, "tower") == 2 {
		r.Tower, kind = tandemv1.Tower_TOWER_USERS, shard.Users
	}
	r.Ids = drawIDs(t, kind, 1, 10, "ids")
	r.ModelVersion = oneOf(t, []string{"", "", modelV1, modelV2}, "version")
	least := s.least(r.MinLive)
	got, err := s.retrieval.GetEmbeddings(context.Background(), connect.NewRequest(r))
	if err != nil {
		reason, text := modelReason(err)
		q := &modelQuestion{request: &tandemv1.RetrieveRequest{ModelVersion: r.ModelVersion, Vector: []float32{1}}}
		require.Equal(t, "MODEL_VERSION_NOT_SERVED", reason, text)
		w.refused(s, q, nil, reason, text)
		return
	}
	m := got.Msg
	sn, at := w.pinned(s, m.Snapshot, m.ModelVersion, m.Generation, m.Arm, m.Live, r.MinLive)
	require.GreaterOrEqual(t, m.Generation, s.generation)
	s.generation = m.Generation
	want := &modelAnswer{rows: w.log.all(sn, kind, at), now: w.now()}
	var found, unknown []string
	for _, id := range r.Ids {
		if !want.has(id) {
			unknown = append(unknown, id)
			continue
		}
		require.Greater(t, len(m.Embeddings), len(found), "%s at %d, from %d: %v", sn.name, at, least, r)
		e := m.Embeddings[len(found)]
		require.Equal(t, id, e.Id)
		require.Equal(t, want.rows[id].row.vector, e.Values, id)
		found = append(found, id)
	}
	require.Len(t, m.Embeddings, len(found))
	require.Equal(t, unknown, m.UnknownIds)
	w.otherForms(want, unknown, m.OtherForms)
	w.report.answers++
	w.report.rows += len(found)
}
