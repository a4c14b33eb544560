package server

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/cespare/xxhash/v2"
	"google.golang.org/protobuf/proto"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/parallel"
	"github.com/tandem-ann/tandem/server/events"
	"github.com/tandem-ann/tandem/server/traces"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/interleave"
)

// An interleaved answer is drawn from those that two arms would have given.
//
// # Goals
//
// What users do with the answer says which arm they prefer, and nothing but that: neither arm has
// an advantage, and what either has to say of eligibility, exclusions and takedowns holds. All
// pages together have no id twice, whatever has changed between them; by exact scans, and if
// nothing has changed, they are what one answer would be.
//
// # Design
//
// Both arms are asked at once for their own answer to the request, at_most included, and package
// interleave drafts from the two. At_most counts once more over what was drawn, by the values that
// an app has in the snapshot of its team. Where so much is passed over that a team is out, though
// its arm has more, that arm is asked for four times as many: what was drawn before the team was
// out does not change by it.
//
// Each team has a cursor in its own list: what ranks up to it was looked at, and so it was drawn by
// one of the two, or passed over. A page has what ranks after the cursors of both. Whether an app
// of one list ranks up to the other's cursor is asked of the other arm by an exact scan of those
// ids: a walk may miss an app that it had found for an earlier page. An app of which nobody can
// tell, since its shard does not answer, is passed over. Values of at_most are counted anew from
// what ranks up to the cursors, by the same draft. What is not eligible in an arm, or was kept out of
// its own answer by at_most, may rank up to its cursor and was not looked at, so that the other one may
// draw it; but where the live log has gone on since the first page nobody knows what that was then,
// and it is passed over.

// twin is the other arm of a request that is to be interleaved.
type twin struct {
	*pinned      // nil if one arm answers after all
	first   bool // whether it is the first of the teams, and not the arm that it is the twin of
	seed    uint64
	page    *pairToken // nil of a first page
	// why and text say why one arm answers.
	why  events.Interleaving
	text string
}

// alone returns a request's twin that is none.
func alone(why events.Interleaving, format string, args ...any) *twin {
	return &twin{why: why, text: fmt.Sprintf(format, args...)}
}

// acquireFirst returns the arm, or both, that answer a first page.
func (s *Service) acquireFirst(r *tandemv1.RetrieveRequest, arrived time.Time) (*pinned, error) {
	for {
		now, err := s.answering()
		if err != nil {
			return nil, err
		}
		to, err := now.route(wantedBy(r))
		if err != nil {
			return nil, err
		}
		own := &now.arms[to.own]
		if !own.acquire() {
			continue // it was replaced since it was loaded
		}
		p := own.pin(arrived)
		if to.arms.Two {
			other := &now.arms[to.arms.First+to.arms.Second-to.own]
			if p.twin = unlike(r, own, other); p.twin == nil {
				if !other.acquire() {
					own.release()
					continue
				}
				p.twin = &twin{pinned: other.pin(arrived), first: to.arms.First != to.own, seed: now.router.Coins(r.RequestId), why: events.Interleaved}
				return p, nil
			}
		}
		if now.router != nil {
			if x, does, seed := now.router.Explores(r.RequestId); x != nil {
				p.explore = &exploring{x, does, seed}
			}
		}
		return p, nil
	}
}

// unlike returns why a request is not for two arms; nil if it may be.
func unlike(r *tandemv1.RetrieveRequest, own, other *arm) *twin {
	mine, its := own.modelVersion(), other.modelVersion()
	switch {
	case r.Explain || len(r.ExplainIds) > 0:
		return alone(events.AloneExplain, "explain is of one arm")
	case kindOf(r.Target) == shard.Users:
		return alone(events.AloneUsers, "target is %s; interleaved are answers of apps", r.Target)
	case r.ModelVersion != "" && r.ModelVersion != its:
		return alone(events.AloneVersion, "model_version is %q, and arm %s serves %q", excerpt(r.ModelVersion), other.name, its)
	case mine != its && r.UserId == "" && r.AppId == "":
		return alone(events.AloneVector, "the query is by vector, and arm %s serves model version %q, arm %s %q", own.name, mine, other.name, its)
	}
	return nil
}

// acquirePair returns both arms that answer a page of an interleaved answer.
func (s *Service) acquirePair(r *tandemv1.RetrieveRequest, page *pairToken, arrived time.Time) (*pinned, error) {
	if r.Explain || len(r.ExplainIds) > 0 {
		return nil, invalidf(reasonPageToken, "explain", "explain is set, and page_token is of an interleaved answer, which is of two arms; accepted: no explain and no explain_ids")
	}
	var arms [2]*arm
	for i := range page.teams {
		t := &page.teams[i]
		a, err := s.acquirePage(r, t.snapshot, func(now *state) *arm { return now.teamHolder(t) })
		if err != nil {
			if i > 0 {
				arms[0].release()
			}
			return nil, err
		}
		arms[i] = a
	}
	p := arms[0].pin(arrived)
	p.twin = &twin{pinned: arms[1].pin(arrived), seed: page.seed, page: page, why: events.Interleaved}
	return p, nil
}

// teamHolder returns the arm that a team was, or else another one of its snapshot; nil if none is.
func (s *state) teamHolder(t *teamToken) (found *arm) {
	for i := range s.arms {
		if a := &s.arms[i]; a.short == t.snapshot {
			if a.name == t.arm {
				return a
			}
			found = a
		}
	}
	return found
}

// team is one of the two arms while an answer is drawn from both.
type team struct {
	now  *pinned
	name string // of its arm, when the first page was drawn
	// position is a hash of the position of the live log that the first page had.
	position uint64
	q        *query
	after    *shard.Cursor // where its list goes on, nil at its beginning
	found    *shard.Answer
	lasts    map[shard.FieldValue]*shard.Candidate // what last returns, once it is known
	// passed are the ids of found that the other team's cursor has passed.
	passed map[string]bool
	err    error
}

// ended reports whether nothing follows what was found.
func (t *team) ended() bool {
	n := len(t.found.Candidates)
	return n < t.q.K || t.found.Before+n >= t.found.Eligible || t.rank()+n >= maxCandidates
}

// rank is how many candidates its list has up to its cursor.
func (t *team) rank() int {
	if t.after == nil {
		return 0
	}
	return t.after.Rank
}

// drafting is an answer that is drawn.
type drafting struct {
	teams  [2]*team
	seed   uint64
	before int // candidates of earlier pages
	k      int
	counts map[limitedValue]int // of candidates of earlier pages
	drawn  interleave.Drawn
	full   bool // whether at_most has a candidate passed over that its own arm would have shown
}

// limitedValue is a value that at_most counts, by the number of the limit: an attribute may have
// another place in the other snapshot.
type limitedValue struct {
	limit  int
	text   string
	number int64
}

// answerTwo answers a request by two arms. One that the other arm cannot answer is answered by its
// own.
func (s *Service) answerTwo(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest, b bounds, in traces.Span) (*tandemv1.RetrieveResponse, *events.Answer, error) {
	start := time.Now()
	d := newDrafting(now, r)
	preparing := in.BeginAt("prepare", start)
	err := d.prepare(ctx, now, r, b, preparing)
	preparing.End()
	if now.twin.pinned == nil {
		return s.answerOne(ctx, now, r, b, in)
	}
	traceArm(in, now)
	if err != nil {
		s.noteLost(now.serving, nil, err)
		if connect.CodeOf(err) == connect.CodeNotFound {
			s.events.NotFound(events.NotFound{Arm: now.name, Segment: r.Segment})
		}
		return nil, nil, err
	}
	prepared := time.Since(start)
	searching := in.Begin("search")
	for _, t := range d.teams {
		traceSearch(t.q, searching)
	}
	err = d.draw(ctx)
	searching.End()
	for _, t := range d.teams {
		t.q.Observe = nil
		s.noteLost(t.now.serving, t.found, t.err)
	}
	if err != nil {
		return nil, nil, searchError(ctx, err)
	}
	searched := time.Since(start)
	defer in.Begin("answer").End()
	answer, err := d.answer(ctx, now, r, b)
	if err != nil {
		return nil, nil, err
	}
	if b.answer > 0 {
		if size := proto.Size(answer); size > b.answer {
			return nil, nil, answerTooLong(r, answer, size, 0, b.answer)
		}
	}
	if s.recorder.wants(r, now.generation) {
		s.recorder.record(start, r, answer, nil)
	}
	for _, t := range d.teams {
		t.now.offer(t.q, t.found)
	}
	told := d.tell(now, answer)
	told.ID = r.RequestId
	traceAnswer(in, told)
	told.Prepare, told.Search, told.Encode = prepared, searched-prepared, time.Since(start)-searched
	return answer, told, nil
}

func newDrafting(now *pinned, r *tandemv1.RetrieveRequest) *drafting {
	d := &drafting{seed: now.twin.seed, teams: [2]*team{{now: now, name: now.name}, {now: now.twin.pinned, name: now.twin.name}}}
	if now.twin.first {
		d.teams[0], d.teams[1] = d.teams[1], d.teams[0]
	}
	for i, t := range d.teams {
		t.position = t.now.positionHash()
		if page := now.twin.page; page != nil {
			d.before = page.picks
			t.after, t.name, t.position = page.teams[i].cursor(), page.teams[i].arm, page.teams[i].position
		}
	}
	return d
}

// positionHash is a hash of the position of the live log.
func (p *pinned) positionHash() uint64 { return xxhash.Sum64String(p.at.Position.String()) }

// prepare makes the queries of both teams. Where the twin cannot answer the first page of a request
// that the own arm can, it lets go of the twin, and says so there.
func (d *drafting) prepare(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest, b bounds, in traces.Span) error {
	for _, t := range d.teams {
		if t.q, t.err = newQuery(ctx, t.now, r, in); t.err != nil {
			continue
		}
		q := t.q
		d.k = q.K
		q.MaxText, q.Workers = b.answer, b.processors
		q.Values, q.After, q.Behind = len(q.AtMost) > 0, t.after, len(q.AtMost) > 0 && t.after != nil
		// As many of its next ones as are on earlier pages, at most, were drawn by the other team.
		q.K = min(q.K+max(d.before-t.rank(), 0), maxCandidates-t.rank())
	}
	own, other := d.teams[0], d.teams[1]
	if now.twin.first {
		own, other = other, own
	}
	switch code := connect.CodeOf(other.err); {
	case own.err != nil:
		return own.err
	case other.err == nil:
		return nil
	case d.before == 0 && (code == connect.CodeInvalidArgument || code == connect.CodeNotFound || code == connect.CodeFailedPrecondition):
		other.now.release()
		text := other.err.Error()
		if coded, ok := errors.AsType[*connect.Error](other.err); ok {
			text = coded.Message()
		}
		now.twin = alone(events.AloneRefused, "arm %s cannot answer it: %s", other.now.name, shortText(text))
	}
	return other.err
}

// draw asks both arms, and drafts.
func (d *drafting) draw(ctx context.Context) error {
	asked := d.teams[:]
	for _, t := range asked {
		// Only what is drawn needs them.
		t.q.named, t.q.Attributes = t.q.Attributes, nil
	}
	for {
		if err := eachTeam(asked, func(t *team) error {
			found, err := t.q.tower.Search(ctx, &t.q.Query)
			t.found = found
			return err
		}); err != nil {
			return err
		}
		if err := d.look(ctx, asked); err != nil {
			return err
		}
		d.draft()
		asked = nil
		for i, t := range d.teams {
			if d.drawn.Out[i] >= 0 && !t.ended() {
				t.q.K = min(4*t.q.K, maxCandidates-t.rank())
				asked = append(asked, t)
			}
		}
		if asked == nil {
			break
		}
	}
	for _, t := range d.teams {
		t.q.Attributes = t.q.named
	}
	return nil
}

// eachTeam calls do for some teams, at once, and returns the first error.
func eachTeam(teams []*team, do func(*team) error) error {
	parallel.Chunks(len(teams), len(teams), 1, func(_, i int) {
		defer recovering(&teams[i].err)()
		teams[i].err = do(teams[i])
	})
	for _, t := range teams {
		if t.err != nil {
			return t.err
		}
	}
	return nil
}

// look finds which ids of those teams the other one's cursor has passed, and what at_most counts of
// earlier pages.
func (d *drafting) look(ctx context.Context, asked []*team) error {
	if d.before == 0 {
		return nil
	}
	if d.counts == nil && len(d.teams[0].q.AtMost) > 0 {
		d.counts = map[limitedValue]int{}
		earlier := [2][]shard.Candidate{d.teams[0].found.Behind, d.teams[1].found.Behind}
		interleave.Draft([2][]string{idsOf(earlier[0]), idsOf(earlier[1])}, maxCandidates, d.seed, func(p interleave.Pick) bool {
			return d.take(d.counts, p.Team, &earlier[p.Team][p.Rank])
		})
	}
	return eachTeam(asked, func(t *team) error {
		other := d.teams[0]
		if other == t {
			other = d.teams[1]
		}
		var err error
		t.passed, err = other.hasPassed(ctx, idsOf(t.found.Candidates))
		return err
	})
}

// hasPassed returns which of some ids rank up to the team's cursor, or might.
func (t *team) hasPassed(ctx context.Context, ids []string) (map[string]bool, error) {
	if t.after == nil || len(ids) == 0 {
		return nil, nil
	}
	q := &shard.Query{
		Moment: t.q.Moment, Vectors: t.q.Vectors, K: len(ids), Include: ids, Target: 1, Plan: index.ExactScan,
		Workers: t.q.Workers, MinCoverage: t.q.MinCoverage,
	}
	unchanged := t.now.positionHash() == t.position
	if unchanged {
		q.Filter, q.Segment = t.q.Filter, t.q.Segment
		for _, limit := range t.q.AtMost { // for their values, which are to limit nothing here
			q.AtMost, q.Values = append(q.AtMost, shard.AtMost{Field: limit.Field, N: len(ids)}), true
		}
	}
	found, err := t.q.tower.Search(ctx, q)
	if err != nil {
		return nil, err
	}
	passed := map[string]bool{}
	for i := range found.Candidates {
		c := &found.Candidates[i]
		if t.after.Passed(c.ID, c.Score, t.q.tower.Metric()) && !(unchanged && t.keptOut(c)) {
			passed[c.ID] = true
		}
	}
	for _, id := range ids {
		if t.q.tower.Missed(found, id) {
			passed[id] = true
		}
	}
	return passed, nil
}

// keptOut reports whether at_most kept a candidate out of the arm's own answer: of those before it
// as many as may have a value that it has.
func (t *team) keptOut(c *shard.Candidate) bool {
	at := shard.Cursor{Score: c.Score, ID: c.ID}
	for _, v := range c.Values {
		if last := t.last()[v]; last != nil && last.ID != c.ID && at.Passed(last.ID, last.Score, t.q.tower.Metric()) {
			return true
		}
	}
	return false
}

// last returns, of each value that as many candidates up to the cursor have as may have it, the last
// of these.
func (t *team) last() map[shard.FieldValue]*shard.Candidate {
	if t.lasts != nil {
		return t.lasts
	}
	t.lasts = map[shard.FieldValue]*shard.Candidate{}
	counts := map[shard.FieldValue]int{}
	for i := range t.found.Behind {
		for _, v := range t.found.Behind[i].Values {
			limit := slices.IndexFunc(t.q.AtMost, func(a shard.AtMost) bool { return a.Field == v.Field })
			if counts[v]++; counts[v] == t.q.AtMost[limit].N {
				t.lasts[v] = &t.found.Behind[i]
			}
		}
	}
	return t.lasts
}

func idsOf(list []shard.Candidate) []string {
	ids := make([]string, len(list))
	for i := range list {
		ids[i] = list[i].ID
	}
	return ids
}

// draft draws the answer from what both have found.
func (d *drafting) draft() {
	counts, refused := maps.Clone(d.counts), [2]shard.Refused{d.teams[0].q.tower.Refused(), d.teams[1].q.tower.Refused()}
	if counts == nil {
		counts = map[limitedValue]int{}
	}
	d.full = false
	lists := [2][]string{idsOf(d.teams[0].found.Candidates), idsOf(d.teams[1].found.Candidates)}
	d.drawn = interleave.Further(lists, d.before, d.k, d.seed, func(p interleave.Pick) bool {
		t := d.teams[p.Team]
		// One of them may have read further in the live log than the other.
		if other := refused[1-p.Team]; t.passed[p.ID] || other != nil && other.Has(p.ID) {
			return false
		}
		if !d.take(counts, p.Team, &t.found.Candidates[p.Rank]) {
			d.full = true
			return false
		}
		return true
	})
}

// take counts the values of a candidate, if at_most lets it be beside those that were counted, and
// reports whether it does.
func (d *drafting) take(counts map[limitedValue]int, of interleave.Team, c *shard.Candidate) bool {
	limits := d.teams[of].q.AtMost
	if len(limits) == 0 {
		return true
	}
	values := make([]limitedValue, len(c.Values))
	for i, v := range c.Values {
		limit := slices.IndexFunc(limits, func(a shard.AtMost) bool { return a.Field == v.Field })
		values[i] = limitedValue{limit, v.Text, v.Number}
		if counts[values[i]] >= limits[limit].N {
			return false
		}
	}
	for _, v := range values {
		counts[v]++
	}
	return true
}

// answer puts what was drawn on the wire.
func (d *drafting) answer(ctx context.Context, now *pinned, r *tandemv1.RetrieveRequest, b bounds) (*tandemv1.RetrieveResponse, error) {
	m := now.snapshot.Manifest()
	out := &tandemv1.RetrieveResponse{
		Model: m.Model, RequestId: r.RequestId, Generation: now.generation,
		Coverage: &tandemv1.Coverage{EligibleShare: 1}, Eligible: uint64(d.teams[0].found.Eligible),
	}
	var shards []shard.ShardAnswer
	for i, t := range d.teams {
		one, err := newAnswer(ctx, t.now, t.q, &shard.Answer{
			Eligible: t.found.Eligible, Rows: t.found.Rows, TowerRows: t.found.TowerRows, Shards: t.found.Shards,
		}, nil)
		if err != nil {
			return nil, err
		}
		out.Interleaved = append(out.Interleaved, &tandemv1.AnsweredArm{
			Arm: t.name, Snapshot: one.Snapshot, ModelVersion: one.ModelVersion, Plan: one.Plan, Eligible: one.Eligible, Coverage: one.Coverage, FallbackUsed: one.FallbackUsed,
		})
		shards = append(shards, t.found.Shards...)
		out.Eligible = min(out.Eligible, one.Eligible)
		if i == 0 || one.Coverage.EligibleShare < out.Coverage.EligibleShare {
			out.Coverage = one.Coverage
		}
		if i == 0 || one.Live != nil && out.Live != nil && one.Live.Sequence < out.Live.Sequence {
			out.Live = one.Live
		}
		if i == 0 || one.Staleness.AsDuration() > out.Staleness.AsDuration() {
			out.Staleness = one.Staleness
		}
		out.FallbackUsed = max(out.FallbackUsed, one.FallbackUsed)
	}
	out.Plan = planOf(shards)
	var err error
	if out.Candidates, err = d.candidates(ctx, r, b); err != nil {
		return nil, err
	}
	out.ShortReason, out.ShortReasonText = d.short(r)
	out.NextPageToken = d.next(r)
	return out, nil
}

// candidates puts the candidates on the wire, each with its team, in rows.
func (d *drafting) candidates(ctx context.Context, r *tandemv1.RetrieveRequest, b bounds) ([]*tandemv1.Candidate, error) {
	picks := d.drawn.Picks
	if len(picks) == 0 {
		return nil, nil
	}
	out := b.rows.take(len(picks))
	for i, t := range d.teams {
		var own []shard.Candidate
		var places []int
		for place, p := range picks {
			if int(p.Team) == i {
				own, places = append(own, t.found.Candidates[p.Rank]), append(places, place)
			}
		}
		if err := t.q.fetch(ctx, own); err != nil {
			if text, ok := errors.AsType[*shard.TextError](err); ok {
				err = textTooLong(ctx, t.now, t.q, r, text, b.answer)
			}
			return nil, searchError(ctx, err)
		}
		for at, c := range own {
			row := out[places[at]]
			row.Id, row.Score, row.Team = c.ID, c.Score, t.name
			if len(t.q.names) > 0 {
				row.Attributes = attributes(c.Attributes, t.q.names)
			}
		}
	}
	return out, nil
}

// short says why there are fewer candidates than asked for.
func (d *drafting) short(r *tandemv1.RetrieveRequest) (tandemv1.ShortReason, string) {
	n, asked := len(d.drawn.Picks), int(r.K)
	if n >= asked {
		return tandemv1.ShortReason_SHORT_REASON_UNSPECIFIED, ""
	}
	k := fmt.Sprintf(", k is %d", asked)
	for _, t := range d.teams {
		answered, shards := t.found.Answered(), len(t.found.Shards)
		switch {
		case n == d.k:
		case answered < shards:
			return tandemv1.ShortReason_SHORT_REASON_COVERAGE, fmt.Sprintf("%d of %d shards of arm %s answered", answered, shards, t.name) + k
		case t.found.Cut() > 0:
			return tandemv1.ShortReason_SHORT_REASON_COVERAGE, fmt.Sprintf("the deadline cut %d of %d shards of arm %s short", t.found.Cut(), shards, t.name) + k
		}
	}
	full := n == d.k
	for _, t := range d.teams {
		full = full || t.rank()+len(t.found.Candidates) >= maxCandidates
	}
	if full {
		return tandemv1.ShortReason_SHORT_REASON_PAGES, fmt.Sprintf("all pages together have at most %d candidates, %d of them before this one", maxCandidates, d.before) + k
	}
	if d.before > 0 {
		k = fmt.Sprintf(", %d of them after page_token", n) + k
	}
	all := d.before + n
	if limited := slices.ContainsFunc(d.teams[:], func(t *team) bool { return t.found.Before+len(t.found.Candidates) < t.found.Eligible }); limited || d.full {
		return tandemv1.ShortReason_SHORT_REASON_AT_MOST, fmt.Sprintf("at_most leaves %d apps of both arms", all) + k
	}
	return tandemv1.ShortReason_SHORT_REASON_ELIGIBLE, fmt.Sprintf("%d apps are eligible in both arms together", all) + k
}

// next returns the token of the page that follows, empty if none does.
func (d *drafting) next(r *tandemv1.RetrieveRequest) string {
	n := len(d.drawn.Picks)
	if n == 0 || d.before+n >= maxCandidates || !d.more() {
		return ""
	}
	p := &pairToken{seed: d.seed, picks: d.before + n}
	for i, t := range d.teams {
		p.teams[i] = teamToken{snapshot: t.now.short, arm: t.name, position: t.position}
		to := &p.teams[i]
		if read := d.drawn.Read[i]; read > 0 {
			last := &t.found.Candidates[read-1]
			to.score, to.id, to.rank = last.Score, last.ID, t.rank()+read
		} else if t.after != nil {
			to.score, to.id, to.rank = t.after.Score, t.after.ID, t.after.Rank
		}
		if to.rank >= maxCandidates {
			return ""
		}
	}
	return (&pageToken{request: hashRequest(r), pair: p}).String()
}

// more reports whether a further page may have candidates.
func (d *drafting) more() bool {
	taken := map[string]bool{}
	for _, p := range d.drawn.Picks {
		taken[p.ID] = true
	}
	for i, t := range d.teams {
		if !t.ended() || t.found.Answered() < len(t.found.Shards) || t.found.Cut() > 0 {
			return true
		}
		for _, c := range t.found.Candidates[d.drawn.Read[i]:] {
			if !taken[c.ID] && !t.passed[c.ID] {
				return true
			}
		}
	}
	return false
}

// tell returns what is told of the answer, of the own arm.
func (d *drafting) tell(now *pinned, answer *tandemv1.RetrieveResponse) *events.Answer {
	told := &events.Answer{
		Generation: now.generation, Arm: now.name, Snapshot: now.snapshot.Digest(), Segment: d.teams[0].q.Segment,
		Plan: answer.Plan, K: d.teams[0].q.asked, Candidates: len(answer.Candidates), Short: answer.ShortReason,
		Eligible: int(answer.Eligible), Coverage: answer.Coverage.EligibleShare,
		Fallback: answer.FallbackUsed != tandemv1.Fallback_FALLBACK_UNSPECIFIED, Interleaving: events.Interleaved,
	}
	for _, t := range d.teams {
		told.Shards = append(told.Shards, t.found.Shards...)
	}
	for i := range told.Shards {
		told.Distances += told.Shards[i].Scored
	}
	return told
}
