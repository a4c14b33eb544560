package shard

import (
	"context"
	"slices"
	"sort"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Standing is why a row is or is not in an answer. Of several that apply, the first in
// the order in which they are declared is given. The zero Standing is none: the query's
// context ended before there was one.
type Standing uint8

// The standings.
const (
	ShardMissing  Standing = iota + 1 // the shard of the id did not answer
	TakenDown                         // it is among what the tower refuses, whether it has the id or not
	Unknown                           // the tower does not have the id
	OutsideWindow                     // it has the id, at other times
	IsQuery                           // Query.Self
	Excluded                          // in Query.Exclude
	NotIncluded                       // not in Query.Include
	NotEligible                       // not in Query.Segment, or it does not pass Query.Filter
	Earlier                           // it ranks up to Query.After
	Returned
	Capped     // as many candidates as an AtMost allows rank before it
	BelowCut   // it ranks after the last candidate
	NotVisited // it ranks before the last candidate, and no walk found it, or its shard was cut short
)

// Explained says why a row is or is not in an answer.
type Explained struct {
	ID       string
	Shard    string // that the id belongs to
	Fresh    bool   // it is newer than the snapshot
	Standing Standing
	Rank     int     // from 1 on, counted over all pages, if it was returned
	Score    float32 // exact, if its shard answered and has it
	Segment  string  // that it is not in, if it is not eligible for that
	Clause   string  // of that segment, or else of the filter, the first that is false for it
	// Limit is the first that it would exceed, if it is capped, and Value by which
	// value.
	Limit AtMost
	Value attribute.Value
}

// explain says of each of the query's ids why it is or is not in the merged answer, by
// what the parts that answered know. Rows that are left when the context ends get no
// standing, if the query accepts what is not whole.
func (t *Tower) explain(ctx context.Context, q *Query, f *fanOut, merged []Hit) ([]Explained, error) {
	x := &explainer{
		query: q, metric: t.metric, schema: t.schema, merged: merged, before: f.merger.before,
		rows: make([]explaining, len(q.Explain)),
	}
	of := make([][]int, len(t.parts)) // places in rows of ids that a part may have
	for place, id := range q.Explain {
		r := &x.rows[place]
		r.out.ID = id
		for i := range t.holders(id) {
			if r.out.Shard == "" {
				r.out.Shard = t.infos[i].Name
			}
			of[i] = append(of[i], place)
		}
	}
	err := t.askToExplain(ctx, f, x, of)
	if err == nil {
		t.refuseToExplain(x)
		x.listed()
		for i := range x.rows {
			if err = x.judge(ctx, &x.rows[i]); err != nil {
				break
			}
		}
	}
	if err != nil && (q.MinCoverage >= 1 || !isEnd(err)) {
		return nil, err
	}
	out := make([]Explained, len(x.rows))
	for i := range out {
		out[i] = x.rows[i].out
	}
	return out, nil
}

// explainer explains rows of one answer.
type explainer struct {
	query   *Query
	metric  index.Metric
	schema  attribute.Schema
	merged  []Hit
	before  int // how many of them rank up to Query.After
	rows    []explaining
	limited quota
}

// explaining is an id that is being explained.
type explaining struct {
	known   ExplainedRow
	missing bool // a part that may have it did not answer
	ended   bool // or not in time to explain it
	down    bool // it was taken down
	out     Explained
}

// refuseToExplain makes unknown what the tower refuses. That apps were taken down may be
// told; of forgotten users nothing is.
func (t *Tower) refuseToExplain(x *explainer) {
	for i := range x.rows {
		r := &x.rows[i]
		if !t.refuses(r.out.ID) {
			continue
		}
		r.missing = r.missing && !r.known.Known
		r.known = ExplainedRow{}
		r.down = t.kind == Apps
	}
}

// askToExplain asks each part that answered for the ids at some places. The error is a
// [*lostError] or ends the query.
func (t *Tower) askToExplain(ctx context.Context, f *fanOut, x *explainer, of [][]int) error {
	known := make([][]ExplainedRow, len(of))
	ended := make([]bool, len(of))
	wanted := func(i int) bool { return len(of[i]) > 0 && f.parts[i].answer.Err == nil }
	err := t.each(wanted, func(i int) error {
		ids := make([]string, len(of[i]))
		for j, place := range of[i] {
			ids[j] = x.query.Explain[place]
		}
		r := &f.parts[i].request
		r.Full, r.Taken = nil, r.Taken[:0] // they are of a round, and alias replies that are gone
		rows, err := t.parts[i].Explain(ctx, r, ids)
		if err == nil {
			known[i] = rows
			return nil
		}
		if ended[i] = true; x.query.MinCoverage < 1 && isEnd(err) {
			return nil
		}
		return failed(i, err)
	})
	if err != nil {
		return err
	}
	for i, places := range of {
		for j, place := range places {
			r := &x.rows[place]
			r.missing = r.missing || f.parts[i].answer.Err != nil
			r.ended = r.ended || ended[i]
			if len(known[i]) > 0 && (known[i][j].Known || known[i][j].OutsideWindow) {
				r.known, r.out.Shard, r.out.Fresh = known[i][j], t.infos[i].Name, i >= t.hashed || known[i][j].Fresh
			}
		}
	}
	return nil
}

// listed gives their standing to the rows that the lists of the query keep out.
func (x *explainer) listed() {
	const included, excluded = 1, 2
	q := x.query
	in := make(map[string]int, len(x.rows))
	for i := range x.rows {
		if x.rows[i].known.Known {
			in[x.rows[i].out.ID] = 0
		}
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
	for i := range x.rows {
		e := &x.rows[i].out
		switch was, known := in[e.ID]; {
		case !known:
		case e.ID == q.Self:
			e.Standing = IsQuery
		case was&excluded != 0:
			e.Standing = Excluded
		case len(q.Include) > 0 && was&included == 0:
			e.Standing = NotIncluded
		}
	}
}

// judge gives a row its standing, unless it has one. The error is the context's.
func (x *explainer) judge(ctx context.Context, r *explaining) error {
	e := &r.out
	e.Score = r.known.Score
	switch {
	case e.Standing != 0:
	case r.known.OutsideWindow:
		e.Standing = OutsideWindow
	case !r.known.Known && r.ended:
	case !r.known.Known && r.missing:
		e.Standing = ShardMissing
	case r.down:
		e.Standing = TakenDown
	case !r.known.Known:
		e.Standing = Unknown
	case !r.known.Eligible:
		e.Standing, e.Clause = NotEligible, r.known.Clause
		if r.known.Outside {
			e.Segment = x.query.Segment
		}
	default:
		if err := pause(ctx); err != nil {
			return err
		}
		x.eligible(r)
	}
	return nil
}

// eligible explains a row that could have been returned.
func (x *explainer) eligible(r *explaining) {
	e, after := &r.out, x.query.After
	row := Hit{ID: e.ID, Score: e.Score}
	if !after.before(&row, x.metric) {
		e.Standing = Earlier
		return
	}
	page := x.merged[x.before:]
	if i := slices.IndexFunc(page, func(h Hit) bool { return h.ID == e.ID }); i >= 0 {
		e.Standing, e.Rank = Returned, i+1
		if after != nil {
			e.Rank += after.Rank
		}
		return
	}
	before := sort.Search(len(x.merged), func(i int) bool { return row.before(&x.merged[i], x.metric) })
	if x.capped(r, x.merged[:before]) {
		e.Standing = Capped
		return
	}
	e.Standing = NotVisited
	if before == len(x.merged) {
		e.Standing = BelowCut
	}
}

// capped reports whether the candidates before a row leave it no room, and if so
// notes why.
func (x *explainer) capped(r *explaining, before []Hit) bool {
	if len(x.query.AtMost) == 0 {
		return false
	}
	x.limited.reset(x.query.AtMost)
	for i := range before {
		x.limited.take(before[i].Values)
	}
	limit, v, full := x.limited.full(r.known.Values)
	if full {
		r.out.Limit, r.out.Value = limit, v.value(x.schema.Field(limit.Field).Type)
	}
	return full
}

// value returns the value of an attribute of that type, for one of a list too.
func (v FieldValue) value(t attribute.Type) attribute.Value {
	switch t {
	case attribute.Bool:
		return attribute.OfBool(v.Number != 0)
	case attribute.Int:
		return attribute.OfInt(v.Number)
	}
	return attribute.OfKeyword(v.Text)
}
