package server

import (
	"context"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/explore"
	"github.com/tandem-ann/tandem/shard/querylog"
	"github.com/tandem-ann/tandem/shard/release"
)

// exploring says how a request explores: whether it is of the share, and the seed of its draw.
type exploring struct {
	*release.Exploration
	does bool
	seed uint64
}

// may reports whether places of the answer to a request can be drawn, as far as the request says.
func (x *exploring) may(r *tandemv1.RetrieveRequest) bool {
	k := int(r.K)
	return r.PageToken == "" && kindOf(r.Target) == shard.Apps && !r.Explain && len(r.ExplainIds) == 0 && k > x.Places && k+x.Places <= x.Pool
}

// search finds what a query asks for, but for what an explored answer had on an earlier page. The
// query knows then what is known of the ranks after that.
func (p *pinned) search(ctx context.Context, q *query, r *tandemv1.RetrieveRequest) (*shard.Answer, error) {
	limited := p.explore != nil && len(q.AtMost) > 0 && p.explore.may(r)
	if len(q.drawn) == 0 && !limited {
		return q.tower.Search(ctx, &q.Query)
	}
	k := q.K
	defer func() { q.K = k }()
	if limited { // how many limits leave is not counted, so they are looked for
		q.K += p.explore.Places
	} else {
		q.K = min(k+len(q.drawn), maxCandidates-q.After.Rank)
	}
	found, err := q.tower.Search(ctx, &q.Query)
	if err != nil {
		return nil, err
	}
	out := *found
	if limited {
		q.beyond = max(len(out.Candidates)-k, 0)
		out.Candidates = out.Candidates[:min(k, len(out.Candidates))]
		return &out, nil
	}
	q.sift(&out, k)
	return &out, nil
}

// sift leaves the candidates out of an answer that were drawn for an earlier page, and those after
// k.
func (q *query) sift(out *shard.Answer, k int) {
	list := out.Candidates
	out.Candidates = make([]shard.Candidate, 0, min(k, len(list)))
	left := slices.Clone(q.drawn)
	taken := 0 // of list, up to the last candidate
	for i, c := range list {
		hash := xxhash.Sum64String(c.ID)
		if at := slices.Index(left, hash); at >= 0 {
			left = slices.Delete(left, at, at+1)
			continue
		}
		if len(out.Candidates) == k {
			break
		}
		out.Candidates = append(out.Candidates, c)
		taken, q.drawn = i+1, slices.Clone(left)
	}
	q.passed = taken - len(out.Candidates)
	out.Before += q.passed
	// What was drawn and follows at once is nothing that a further page would have.
	for _, c := range list[taken:] {
		if !slices.Contains(q.drawn, xxhash.Sum64String(c.ID)) {
			break
		}
		q.trailing++
	}
}

// exploredAnswer is an answer of which places were drawn, or could have been.
type exploredAnswer struct {
	*exploring
	found *shard.Answer     // without a draw
	drawn []shard.Candidate // of the last places, which have the propensity of the one drawn; nil if they were not
	// of are the propensities of what was drawn, and of what else is there.
	of, displaced float32
}

// exploreAnswer draws places of an answer if its request explores, and if there is enough to draw
// from; it returns nil if none could have been drawn. The first ranks are what they are without a
// draw. An answer that lacks shards is not explored, and one is not for which the deadline comes
// before there is something to draw from.
func (p *pinned) exploreAnswer(ctx context.Context, q *query, r *tandemv1.RetrieveRequest, found *shard.Answer) (*exploredAnswer, error) {
	x := p.explore
	if x == nil || !x.may(r) || found.Answered() < len(found.Shards) || found.Cut() > 0 {
		return nil, nil
	}
	k := len(found.Candidates)
	enough := found.Eligible >= k+x.Places
	if len(q.AtMost) > 0 {
		enough = q.beyond >= x.Places
	}
	if k < int(r.K) || !enough {
		return nil, nil
	}
	out := &exploredAnswer{exploring: x, found: found}
	_, out.displaced = explore.Propensities(float64(x.Share)/release.Total, 1)
	if !x.does {
		return out, nil
	}
	last := &found.Candidates[k-1]
	further := q.Query
	further.Attributes, further.Observe = nil, nil
	further.K = x.Pool - k
	further.After = &shard.Cursor{Score: last.Score, ID: last.ID, Rank: k, Most: maxCandidates}
	pool, err := q.tower.Search(ctx, &further)
	if err != nil || len(pool.Candidates) < x.Places {
		return nil, nil //nolint:nilerr // there is an answer, which needs no pool
	}
	for _, i := range explore.Draw(len(pool.Candidates), x.Places, x.seed) {
		out.drawn = append(out.drawn, pool.Candidates[i])
	}
	out.of, _ = explore.Propensities(float64(x.Share)/release.Total, len(pool.Candidates))
	return out, q.fetch(ctx, out.drawn)
}

// fetch sets the attributes of candidates that were found without, which the query asks for.
func (q *query) fetch(ctx context.Context, list []shard.Candidate) error {
	if len(q.Attributes) == 0 || len(list) == 0 {
		return nil
	}
	of := make(map[string]*shard.Candidate, len(list))
	ids := make([]string, len(list))
	for i := range list {
		ids[i], of[list[i].ID] = list[i].ID, &list[i]
	}
	found, err := q.tower.Search(ctx, &shard.Query{
		Moment: q.Moment, Vectors: q.Vectors, K: len(ids), Include: ids, Target: 1, Plan: index.ExactScan,
		Attributes: q.Attributes, MaxText: q.MaxText, Workers: q.Workers, MinCoverage: 1,
	})
	if err != nil {
		return err
	}
	for i := range found.Candidates {
		if c := of[found.Candidates[i].ID]; c != nil {
			c.Attributes = found.Candidates[i].Attributes
			delete(of, c.ID)
		}
	}
	if len(of) > 0 {
		return fmt.Errorf("%d of %d candidates are no longer found for their attributes", len(of), len(list))
	}
	return nil
}

// shown returns what is shown of an answer: with what was drawn at its places.
func (x *exploredAnswer) shown(found *shard.Answer) *shard.Answer {
	if x == nil || x.drawn == nil {
		return found
	}
	out := *found
	k := len(found.Candidates)
	out.Candidates = append(slices.Clone(found.Candidates[:k-len(x.drawn)]), x.drawn...)
	return &out
}

// fill says in an answer what was drawn, with which probabilities, and where its next page begins.
func (x *exploredAnswer) fill(now *pinned, r *tandemv1.RetrieveRequest, answer *tandemv1.RetrieveResponse) {
	if x == nil {
		return
	}
	first := len(answer.Candidates) - x.Places
	all := make([]float32, len(answer.Candidates))
	for i, c := range answer.Candidates {
		switch {
		case i < first:
			all[i] = 1
		case x.drawn != nil:
			all[i] = x.of
		default:
			all[i] = x.displaced
		}
		c.Propensity = &all[i]
	}
	if x.drawn == nil {
		return
	}
	answer.Explored = true
	last := &x.found.Candidates[first-1]
	token := pageToken{snapshot: now.short, request: hashRequest(r), score: last.Score, rank: first, id: last.ID}
	for _, c := range x.drawn {
		token.drawn = append(token.drawn, xxhash.Sum64String(c.ID))
	}
	answer.NextPageToken = token.String()
}

// without leaves out of the candidates that would have come next what was drawn of them.
func (x *exploredAnswer) without(next []querylog.Candidate) []querylog.Candidate {
	if x == nil {
		return next
	}
	return slices.DeleteFunc(next, func(c querylog.Candidate) bool {
		return slices.ContainsFunc(x.drawn, func(d shard.Candidate) bool { return d.ID == c.ID })
	})
}
