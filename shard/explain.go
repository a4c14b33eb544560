package shard

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Verdict is why a row is or is not in an answer. Of several that apply, the first in
// the order in which they are declared is given. The zero Verdict is none: the query's
// context ended before there was one.
type Verdict uint8

// The verdicts.
const (
	ShardMissing Verdict = iota + 1 // the shard of the id did not answer
	Unknown                         // the tower does not have the id
	IsQuery                         // Query.Self
	Excluded                        // in Query.Exclude
	NotIncluded                     // not in Query.Include
	NotEligible                     // not in Query.Segment, or it does not pass Query.Filter
	Returned
	Capped     // as many candidates as an AtMost allows rank before it
	BelowCut   // it ranks after the last candidate
	NotVisited // it ranks before the last candidate, and no walk found it, or its shard was cut short
)

// Explained says why a row is or is not in an answer.
type Explained struct {
	ID      string
	Shard   string // that the id belongs to
	Verdict Verdict
	Rank    int     // from 1 on, if it was returned
	Score   float32 // exact, if its shard answered and has it
	Segment string  // that it is not in, if it is not eligible for that
	Clause  string  // of that segment, or else of the filter, the first that is false for it
	// Limit is the first that it would exceed, if it is capped, and Value by which
	// value.
	Limit AtMost
	Value attribute.Value
}

// explainer explains rows of one answer.
type explainer struct {
	ctx     context.Context // of the query
	query   *Query
	segment []eligibility.Bound // the clauses of Query.Segment
	filter  []eligibility.Bound // those of Query.Filter
	metric  index.Metric
	merged  []hit
	limited quota
}

// asked is a row to explain.
type asked struct {
	hit
	number int // of its shard
	out    *Explained
}

// explain says of each of the query's ids why it is or is not in the merged answer.
// What is in Query.Include or Exclude is found in one pass over them. Rows that are left
// when the context ends get no verdict, if the query accepts what is not whole.
func (t *Tower) explain(ctx context.Context, q *Query, f *fanOut, merged []hit) ([]Explained, error) {
	out := make([]Explained, len(q.Explain))
	rows := make([]asked, 0, len(out))
	for i, id := range q.Explain {
		e := &out[i]
		e.ID, e.Verdict = id, Unknown
		if len(t.shards) == 0 {
			continue
		}
		number := Partition(id, len(t.shards))
		s := t.shards[number]
		e.Shard = s.name
		if f.parts[number].answer.Err != nil {
			e.Verdict = ShardMissing
		} else if ordinal, ok := s.Ordinal(id); ok {
			e.Verdict = 0
			rows = append(rows, asked{hit{id: id, shard: s, ordinal: ordinal}, number, e})
		}
	}
	listed(rows, q)
	slices.SortStableFunc(rows, func(a, b asked) int { return cmp.Compare(a.number, b.number) })
	x := &explainer{ctx: ctx, query: q, metric: t.metric, merged: merged}
	var err error
	if x.segment, err = t.segmentClauses(ctx, q.Segment); err == nil && q.Filter != nil {
		x.filter, err = q.Filter.Clauses(ctx)
	}
	for len(rows) > 0 && err == nil {
		n := 1
		for n < len(rows) && rows[n].number == rows[0].number {
			n++
		}
		err = x.shard(rows[0].hit.shard, rows[:n])
		rows = rows[n:]
	}
	if err != nil && (q.MinCoverage >= 1 || !isEnd(err)) {
		return nil, err
	}
	return out, nil
}

// listed gives their verdict to the rows that the lists of the query keep out.
func listed(rows []asked, q *Query) {
	const included, excluded = 1, 2
	in := make(map[string]int, len(rows))
	for i := range rows {
		in[rows[i].id] = 0
	}
	mark := func(ids []string, as int) {
		for _, id := range ids {
			if was, ok := in[id]; ok {
				in[id] = was | as
			}
		}
	}
	mark(q.Include, included)
	mark(q.Exclude, excluded)
	for i := range rows {
		switch r := &rows[i]; {
		case r.id == q.Self:
			r.out.Verdict = IsQuery
		case in[r.id]&excluded != 0:
			r.out.Verdict = Excluded
		case len(q.Include) > 0 && in[r.id]&included == 0:
			r.out.Verdict = NotIncluded
		}
	}
}

// shard explains rows of one shard.
func (x *explainer) shard(s *Shard, rows []asked) error {
	set := s.bitsets.Get().(*index.Bitset)
	defer s.bitsets.Put(set)
	if err := x.score(s, *set, rows); err != nil {
		return err
	}
	if segment, ok := s.segments.find(x.query.Segment); ok {
		outside := false
		for _, r := range rows {
			if r.out.Verdict == 0 && !segment.Has(r.ordinal) {
				r.out.Verdict, r.out.Segment = NotEligible, x.query.Segment
				outside = true
			}
		}
		if outside {
			judge := func(e *Explained) bool { return e.Segment != "" && e.Clause == "" }
			if err := x.clauses(s, *set, x.segment, rows, judge); err != nil {
				return err
			}
		}
	}
	if err := x.clauses(s, *set, x.filter, rows, func(e *Explained) bool { return e.Verdict == 0 }); err != nil {
		return err
	}
	for i := range rows {
		if rows[i].out.Verdict == 0 {
			if err := pause(x.ctx); err != nil {
				return err
			}
			x.eligible(&rows[i])
		}
	}
	return nil
}

// clauses gives those rows that judge is true for the first clause that is false for
// them.
func (x *explainer) clauses(s *Shard, set index.Bitset, list []eligibility.Bound, rows []asked, judge func(*Explained) bool) error {
	for _, clause := range list {
		if err := pause(x.ctx); err != nil {
			return err
		}
		if _, err := clause.Eval(x.ctx, s.attributes, set); err != nil {
			return err
		}
		for _, r := range rows {
			if judge(r.out) && !set.Has(r.ordinal) {
				r.out.Verdict, r.out.Clause = NotEligible, clause.String()
			}
		}
	}
	return nil
}

// segmentClauses returns the clauses of a segment's expression, or none if it has
// come to be no filter of this build: its bitmap is what counts.
func (t *Tower) segmentClauses(ctx context.Context, name string) ([]eligibility.Bound, error) {
	for _, s := range t.Segments() {
		if s.Name != name {
			continue
		}
		if filter, err := s.Compile(t.compiler); err == nil {
			return filter.Clauses(ctx)
		}
	}
	return nil, nil
}

// score gives the rows their scores, as the exact scan finds them.
func (x *explainer) score(s *Shard, set index.Bitset, rows []asked) error {
	set.Clear()
	for _, r := range rows {
		set.Set(r.ordinal)
	}
	iq := index.Query{Filter: set, Eligible: set.Count(), Plan: index.ExactScan}
	iq.K = iq.Eligible
	var found []index.Hit
	for _, v := range x.query.Vectors {
		iq.Vector = v
		var err error
		if found, _, err = s.index.Search(iq, found); err != nil {
			return err
		}
	}
	found = s.best(found, iq.K)
	for i := range rows {
		at := slices.IndexFunc(found, func(h index.Hit) bool { return h.Ordinal == rows[i].ordinal })
		rows[i].score = found[at].Score
		rows[i].out.Score = found[at].Score
	}
	return nil
}

// eligible explains a row that could have been returned.
func (x *explainer) eligible(r *asked) {
	e := r.out
	if i := slices.IndexFunc(x.merged, func(h hit) bool { return h.shard == r.shard && h.ordinal == r.ordinal }); i >= 0 {
		e.Verdict, e.Rank = Returned, i+1
		return
	}
	before := sort.Search(len(x.merged), func(i int) bool { return r.before(&x.merged[i], x.metric) })
	if x.capped(r, x.merged[:before]) {
		e.Verdict = Capped
		return
	}
	e.Verdict = NotVisited
	if before == len(x.merged) {
		e.Verdict = BelowCut
	}
}

// capped reports whether the candidates before a row leave it no room, and if so
// notes why.
func (x *explainer) capped(r *asked, before []hit) bool {
	if len(x.query.AtMost) == 0 {
		return false
	}
	x.limited.reset(x.query.AtMost)
	for i := range before {
		x.limited.take(&before[i])
	}
	limit, v, full := x.limited.full(&r.hit)
	if !full {
		return false
	}
	r.out.Limit, r.out.Value = limit, v.copy(r.shard.attributes.Schema().Field(limit.Field).Type)
	return true
}

// copy returns the value of an attribute of that type, for one of a list too, so that
// it outlives the file.
func (v value) copy(t attribute.Type) attribute.Value {
	switch t {
	case attribute.Bool:
		return attribute.OfBool(v.number != 0)
	case attribute.Int:
		return attribute.OfInt(v.number)
	}
	return attribute.OfKeyword(strings.Clone(v.text))
}
