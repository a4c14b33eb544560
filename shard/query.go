package shard

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime/debug"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Query is a question to one tower.
type Query struct {
	// Vectors holds the query vectors, at least one, each of the tower's
	// dimension. A row's score is the best over them.
	Vectors [][]float32
	// K is how many candidates are wanted, at least 1.
	K int
	// Filter says which rows are eligible; nil means all.
	Filter *eligibility.Bound
	// Segment names the segment that eligible rows must also be in; empty means
	// any.
	Segment string
	// Include holds the only ids that may be returned; none means all. Ids that the
	// tower does not have are ignored.
	Include []string
	// Exclude holds ids that must not be returned. Ids that the tower does not
	// have are ignored.
	Exclude []string
	// Self is the id of the row that the query is, which is not returned; it is
	// empty if the query is not of this tower.
	Self string
	// AtMost bounds how many candidates have the same value of attributes, each
	// named once.
	AtMost []AtMost
	// Ef is the search effort in each shard. When it is 0, Target decides.
	Ef int
	// Target is the mean recall to aim at, 0 < Target <= 1; 1 asks for the exact
	// plan.
	Target float64
	// Plan forces a plan, except for index.Auto.
	Plan index.Plan
	// Attributes holds the schema positions of the attributes to return.
	Attributes []int
	// MaxText is how many bytes of text the returned attributes may have in all; more is
	// a [TextError], and 0 no bound.
	MaxText int
	// Workers is how many goroutines search shards at a time at most, if no other query
	// does. 0 is as many as there are processors.
	Workers int
	// MinCoverage is the least coverage that is accepted, 0 to 1; less is a
	// [CoverageError]. So is a shard that was cut short ([ShardAnswer].Cut) if it is 1.
	// Below 1, shards are given a little less time than the context has, so that what has
	// arrived can be answered in it.
	MinCoverage float64
	// Explain holds ids of which the answer says why they are or are not in it.
	Explain []string
}

// Candidate is one row of an answer.
type Candidate struct {
	ID    string
	Score float32 // the metric's value
	// Attributes holds the values of Query.Attributes, in the same order.
	Attributes []attribute.Value
}

// Answer is what a tower found.
type Answer struct {
	Candidates []Candidate // best first, ties by id
	Eligible   int         // eligible rows in the shards that answered
	Rows       int         // rows in the shards that answered
	TowerRows  int         // rows in all shards
	Shards     []ShardAnswer
	Explained  []Explained   // of each id of Query.Explain
	Text       int           // bytes of text in the attributes of the candidates
	FanOut     time.Duration // asking the shards
	Merge      time.Duration // merging what they found
}

// Coverage returns the share of the tower's eligible rows that the answer is
// based on, 0 to 1: a hash of the id spreads rows over shards, so it is the share
// of the rows.
func (a *Answer) Coverage() float64 {
	if a.TowerRows == 0 {
		return 1
	}
	return float64(a.Rows) / float64(a.TowerRows)
}

// ShardAnswer says how one shard took part in an answer. Counts and times are sums
// over the times that it was asked.
type ShardAnswer struct {
	Shard    string
	Err      error // why the shard did not answer; nil if it did
	Cut      error // why it did not answer once more, when it was to give more than it had
	Rows     int
	Eligible int
	// How many rows it was asked for, the last time, and how it found those of the
	// last query vector, with what the plans were estimated to cost; see
	// [index.Stats].
	Asked               int
	Plan                index.Plan
	Ef                  int
	ExactCost, WalkCost float64
	Apart               bool // whether a filtered walk found hardly any eligible row near the query
	GaveUp              bool // whether the exact scan took over from a walk
	// Deep is whether Query.AtMost passes over so many rows that the exact scan was
	// asked for.
	Deep bool

	Scored         int
	Expanded       int
	UnknownInclude int           // ids of Query.Include that belong to the shard and are not in it
	UnknownExclude int           // the same of Query.Exclude
	Filter         time.Duration // finding the eligible rows
	Search         time.Duration // searching among them
}

// Answered returns the number of shards that answered.
func (a *Answer) Answered() int {
	n := 0
	for _, s := range a.Shards {
		if s.Err == nil {
			n++
		}
	}
	return n
}

// Unreadable returns the reasons of the shards that did not answer because their files
// cannot be read.
func (a *Answer) Unreadable() (all []*UnreadableError) {
	for i := range a.Shards {
		if e, ok := errors.AsType[*UnreadableError](a.Shards[i].Err); ok {
			all = append(all, e)
		}
	}
	return all
}

// Cut returns the number of shards that answered, but not with all that they were to give.
func (a *Answer) Cut() int {
	n := 0
	for _, s := range a.Shards {
		if s.Err == nil && s.Cut != nil {
			n++
		}
	}
	return n
}

// CoverageError says that too few shards answered for the query.
type CoverageError struct {
	Answered, Shards      int
	Cut                   int // of those that answered, how many did not give all
	Coverage, MinCoverage float64
	Err                   error // the first shard's reason
	// Unreadable has the reasons of the shards whose files cannot be read.
	Unreadable []*UnreadableError
}

// Error implements error.
func (e *CoverageError) Error() string {
	return fmt.Sprintf("%s: coverage is %.3g, min_coverage is %g: %v", e.Answers(), e.Coverage, e.MinCoverage, e.Err)
}

// Answers says how many shards answered.
func (e *CoverageError) Answers() string {
	text := fmt.Sprintf("%d of %d shards answered", e.Answered, e.Shards)
	if e.Cut > 0 {
		text += fmt.Sprintf(", %d of them not with all that they have of the best", e.Cut)
	}
	return text
}

// Unwrap returns the first shard's reason.
func (e *CoverageError) Unwrap() error { return e.Err }

// TextError says that the returned attributes have more text than the query wants.
type TextError struct {
	Found      []Candidate // those that were looked at, of Of, best first
	Of         int
	Bytes, Max int // of the text of those in Found, and Query.MaxText
}

// Error implements error.
func (e *TextError) Error() string {
	return fmt.Sprintf("the attributes of %d of %d candidates have %d bytes of text, want at most %d", len(e.Found), e.Of, e.Bytes, e.Max)
}

// validate returns an error of class [index.ErrQuery].
func (q *Query) validate(schema attribute.Schema) error {
	for _, field := range q.Attributes {
		if field < 0 || field >= schema.Len() {
			return fmt.Errorf("attribute %d is asked for, the tower has %d: %w", field, schema.Len(), index.ErrQuery)
		}
	}
	for i, limit := range q.AtMost {
		if err := limit.validate(schema); err != nil {
			return err
		}
		if slices.ContainsFunc(q.AtMost[:i], func(a AtMost) bool { return a.Field == limit.Field }) {
			return fmt.Errorf("attribute %s is limited twice, want each once: %w", schema.Field(limit.Field).Name, index.ErrQuery)
		}
	}
	switch {
	case len(q.Vectors) == 0:
		return fmt.Errorf("query has no vector: %w", index.ErrQuery)
	case q.K < 1:
		return fmt.Errorf("k is %d, want at least 1: %w", q.K, index.ErrQuery)
	case q.Ef < 0:
		return fmt.Errorf("ef is %d, want at least 0: %w", q.Ef, index.ErrQuery)
	case q.Ef == 0 && !(q.Target > 0 && q.Target <= 1):
		return fmt.Errorf("recall target is %v, want above 0 and at most 1: %w", q.Target, index.ErrQuery)
	}
	return nil
}

// hit is a candidate before it is merged: id aliases the mapped file.
type hit struct {
	id      string
	score   float32
	shard   *Shard
	ordinal uint32
}

// part is what one shard is asked, its answer, and the memory of both.
type part struct {
	k        int // how many hits the shard is asked for
	plan     index.Plan
	include  []string // what of Query.Include belongs to the shard
	exclude  []string // the same of Query.Exclude and Query.Self
	eligible *index.Bitset
	left     int // rows of eligible, or of the shard if that is nil
	hits     []hit
	reached  int   // how many hits it was asked for when it gave these; 0 until it did
	next     []hit // what it is giving now
	found    []index.Hit
	more     []index.Hit
	ordinals []uint32
	answer   ShardAnswer
}

// complete reports whether the hits are all that the shard has to give.
func (p *part) complete() bool { return len(p.hits) < p.reached || len(p.hits) == p.left }

// repeats reports whether a shard is likely to need its eligible rows again.
func (q *Query) repeats() bool { return len(q.AtMost) > 0 }

// share returns how many of the best k rows one of several shards is asked for at
// first. A hash spreads rows over shards, so the number that a shard has of the
// best k is binomial: four standard deviations above its mean, and it has more
// about once in ten thousand queries. Then it is asked for k.
func share(k, shards int) int {
	mean := float64(k) / float64(shards)
	return min(k, int(math.Ceil(mean+4*math.Sqrt(mean)))+4)
}

// search answers the query from one shard, with at most p.k hits. After an error the
// part has the hits that it had before.
func (s *Shard) search(ctx context.Context, q *Query, p *part) error {
	p.next, p.found = p.next[:0], p.found[:0]
	p.answer.Shard, p.answer.Rows = s.name, s.Rows()
	if p.answer.Err != nil { // it is lost
		return p.answer.Err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	start := time.Now()
	if !q.repeats() {
		defer s.release(p)
	}
	if p.eligible == nil {
		eligible := s.Rows()
		if q.Filter != nil || q.Segment != "" || len(q.Include) > 0 || len(p.exclude) > 0 {
			p.eligible = s.bitsets.Get().(*index.Bitset)
			var err error
			if eligible, err = s.eligible(ctx, q, p, *p.eligible); err != nil {
				s.release(p)
				return err
			}
		}
		p.answer.Eligible, p.left = eligible, eligible
	}
	iq := index.Query{K: p.k, Ef: q.Ef, Plan: p.plan, Eligible: p.left, Done: ctx.Done()}
	if p.left < s.Rows() {
		iq.Filter = *p.eligible
	}
	p.answer.Asked = p.k
	filtered := time.Now()
	p.answer.Filter += filtered.Sub(start)
	if iq.Ef == 0 && q.Target < 1 {
		iq.Ef = s.index.FilteredEffortFor(p.k, q.Target, p.left)
	}
	walked := false
	for i, v := range q.Vectors {
		iq.Vector = v
		var stats index.Stats
		var err error
		if p.more, stats, err = s.index.Search(iq, p.more[:0]); err != nil {
			return endedBy(ctx, err)
		}
		walked = walked || stats.Plan != index.ExactScan
		p.answer.Plan, p.answer.Ef = stats.Plan, stats.Ef
		p.answer.ExactCost, p.answer.WalkCost = stats.ExactCost, stats.WalkCost
		p.answer.Apart, p.answer.GaveUp = stats.Apart, stats.GaveUp
		p.answer.Scored += stats.Scored
		p.answer.Expanded += stats.Expanded
		if i == 0 {
			p.found = append(p.found, p.more...)
		} else {
			p.found = s.best(append(p.found, p.more...), p.k)
			if err := pause(ctx); err != nil {
				return err
			}
		}
	}
	// A walk for one vector may miss a row that another finds, whose score is then
	// not yet the best over all. A scan misses none that is among the best k.
	if walked && len(q.Vectors) > 1 {
		for _, v := range q.Vectors {
			s.index.Improve(v, p.found)
			if err := pause(ctx); err != nil {
				return err
			}
		}
		p.answer.Scored += len(q.Vectors) * len(p.found)
		p.found = s.best(p.found, p.k)
	}
	p.next = slices.Grow(p.next, len(p.found))
	for _, h := range p.found {
		p.next = append(p.next, hit{id: s.id(h.Ordinal), score: h.Score, shard: s, ordinal: h.Ordinal})
	}
	p.hits, p.next, p.reached = p.next, p.hits, p.k
	p.answer.Search += time.Since(filtered)
	return nil
}

// step is how many things that take about 0.1 microseconds each, or a few, are done
// between two pauses.
const step = 1024

// pause is for the midst of long work: it gives way to others, and returns the error of a
// context that has ended.
func pause(ctx context.Context) error {
	index.GiveWay()
	return ctx.Err()
}

// isEnd reports whether an error is that of a context that has ended.
func isEnd(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)
}

// endedBy returns an error of an index, or that of the context if it is because of that.
func endedBy(ctx context.Context, err error) error {
	if errors.Is(err, index.ErrStopped) {
		return ctx.Err()
	}
	return err
}

// release puts the shard's bitset back.
func (s *Shard) release(p *part) {
	if p.eligible != nil {
		s.bitsets.Put(p.eligible)
		p.eligible = nil
	}
}

// eligible makes dst the rows that may be returned, and counts them. It looks each
// id up once. The error is the context's.
func (s *Shard) eligible(ctx context.Context, q *Query, p *part, dst index.Bitset) (int, error) {
	n := s.Rows()
	segment, inSegment := s.segments.find(q.Segment)
	switch {
	case q.Filter != nil:
		var err error
		if n, err = q.Filter.Eval(ctx, s.attributes, dst); err != nil {
			return 0, err
		}
		if inSegment && n > 0 {
			segment.And(dst)
			n = dst.Count()
		}
	case inSegment:
		segment.CopyTo(dst)
		n = segment.Count()
	default:
		dst.Fill(n)
	}
	if len(q.Include) > 0 {
		var err error
		if n, p.answer.UnknownInclude, err = s.keep(ctx, p, dst); err != nil {
			return 0, err
		}
	}
	p.answer.UnknownExclude = 0
	for i, id := range p.exclude {
		if i%step == step-1 {
			if err := pause(ctx); err != nil {
				return 0, err
			}
		}
		ordinal, ok := s.Ordinal(id)
		switch {
		case !ok:
			p.answer.UnknownExclude++
		case dst.Has(ordinal):
			dst.Unset(ordinal)
			n--
		}
	}
	return n, nil
}

// keep removes from dst what is not included, and counts what is left and the ids
// that the shard does not have. The error is the context's.
func (s *Shard) keep(ctx context.Context, p *part, dst index.Bitset) (left, unknown int, err error) {
	p.ordinals = p.ordinals[:0]
	for i, id := range p.include {
		if i%step == step-1 {
			if err := pause(ctx); err != nil {
				return 0, 0, err
			}
		}
		ordinal, ok := s.Ordinal(id)
		switch {
		case !ok:
			unknown++
		case dst.Has(ordinal):
			dst.Unset(ordinal) // so that one that is given twice counts once
			p.ordinals = append(p.ordinals, ordinal)
		}
	}
	dst.Clear()
	for _, ordinal := range p.ordinals {
		dst.Set(ordinal)
	}
	return len(p.ordinals), unknown, nil
}

// best keeps the best score of each ordinal, and the best k of those.
func (s *Shard) best(hits []index.Hit, k int) []index.Hit {
	metric := s.index.Metric()
	slices.SortFunc(hits, func(a, b index.Hit) int {
		switch {
		case a.Ordinal != b.Ordinal:
			return int(a.Ordinal) - int(b.Ordinal)
		case metric.Better(a.Score, b.Score):
			return -1
		case metric.Better(b.Score, a.Score):
			return 1
		}
		return 0
	})
	hits = slices.CompactFunc(hits, func(a, b index.Hit) bool { return a.Ordinal == b.Ordinal })
	slices.SortFunc(hits, func(a, b index.Hit) int {
		switch {
		case metric.Better(a.Score, b.Score):
			return -1
		case metric.Better(b.Score, a.Score):
			return 1
		}
		return int(s.index.Row(a.Ordinal)) - int(s.index.Row(b.Ordinal))
	})
	return hits[:min(len(hits), k)]
}

// PanicError is a panic of one shard's search, which is a bug. It ends the query and
// not the process. What cannot be read of the shard's file is an [UnreadableError].
type PanicError struct {
	Shard string
	Value any
	Stack []byte
}

// Error implements error. The text has the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("search shard %s: panic: %v\n%s", e.Shard, e.Value, e.Stack)
}

// searchSafely is search for a goroutine that nobody else recovers. It guards the
// mapped file as [sections.Guard] does, and allocates nothing for it. A shard that has
// answered before has still done so if it cannot once more for want of time.
func (s *Shard) searchSafely(ctx context.Context, q *Query, p *part) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			p.answer.Err = s.panicked(r)
		}
	}()
	had := p.answer
	err := s.search(ctx, q, p)
	if p.reached > 0 && isEnd(err) {
		p.answer = had
		p.answer.Cut = err
		return
	}
	p.answer.Err = err
}

// panicked returns a panic of the shard's search as an error.
func (s *Shard) panicked(value any) error {
	if fault := sections.FaultOf(value); fault != nil {
		return &UnreadableError{s.name, fault}
	}
	return &PanicError{Shard: s.name, Value: value, Stack: debug.Stack()}
}

// isFatal reports whether err ends the whole query: it is the caller's to mend, or
// a bug.
func isFatal(err error) bool {
	var panicked *PanicError
	return errors.Is(err, index.ErrQuery) || errors.As(err, &panicked)
}
