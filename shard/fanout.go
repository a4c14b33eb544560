package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/stack"
)

// fanOut is the memory of one query.
type fanOut struct {
	all     []asked // as many as any tower has had parts that it was used for
	parts   []asked
	every   []int   // the numbers of the parts
	lost    []error // of each part, why it can no longer be asked; nil if it can
	lists   [][]Hit
	merger  merger
	again   []int
	limited []int // Request.Limited of all parts
	depth   int   // how many candidates it takes to have those that are wanted, as far as is known
	exact   bool  // the parts are asked for exact answers
	floor   floor
	refs    []uint32
	ends    []int // of each part, where in refs those of its rows end
}

// asked is what one part is asked, what it answers, and the memory of both.
type asked struct {
	request Request
	reply   *Reply // the last one that it gave
	next    *Reply // memory of another
	kept    Kept
	answer  ShardAnswer
	given   int // rows whose attributes it gave, if it was asked for any
}

// complete reports whether the hits are all that the part has to give.
func (a *asked) complete() bool {
	return len(a.reply.Hits) < a.reply.Asked && !a.request.Floored || len(a.reply.Hits) == a.reply.Left
}

// cutOff reports whether the part has left out all that is below its floor.
func (a *asked) cutOff() bool { return a.request.Floored && len(a.reply.Hits) < a.reply.Asked }

// endsBelow reports whether a hit ranks before all that the part, which is not complete,
// has not returned.
func (a *asked) endsBelow(h *Hit, metric index.Metric) bool {
	if a.cutOff() {
		return !metric.Better(a.request.Floor, h.Score)
	}
	return h.before(&a.reply.Hits[len(a.reply.Hits)-1], metric)
}

// lostError says that a part which has answered can no longer be asked.
type lostError struct {
	part int
	err  error
}

func (e *lostError) Error() string { return e.err.Error() }

// failed returns an error of a part that has answered before as one that ends the query,
// or a [*lostError].
func failed(part int, err error) error {
	if isFatal(err) || isEnd(err) {
		return err
	}
	return &lostError{part, err}
}

// fit makes the memory fit a tower of so many parts.
func (f *fanOut) fit(parts int) {
	for i := len(f.all); i < parts; i++ {
		f.all = append(f.all, asked{reply: &Reply{part: int32(i)}, next: &Reply{part: int32(i)}})
		f.lost, f.lists, f.ends = append(f.lost[:i], nil), append(f.lists[:i], nil), append(f.ends[:i], 0)
		f.every = append(f.every[:i], i)
	}
	f.parts, f.every, f.lost, f.lists, f.ends = f.all[:parts], f.every[:parts], f.lost[:parts], f.lists[:parts], f.ends[:parts]
	clear(f.lost)
}

// Search asks every shard and merges their answers. A shard that has not ended when ctx
// does is given up and does not answer, nor does one whose file cannot be read; if too
// few answer, the error is a [*CoverageError]. A shard that has answered, and of which
// more is wanted when ctx ends, counts with what it gave: its best rows up to those that
// it was asked for. If ctx ends while they are merged, the error is its own. It takes a
// few milliseconds to end, whatever it does. An error of class [index.ErrQuery] is the
// caller's to mend.
func (t *Tower) Search(ctx context.Context, q *Query) (*Answer, error) {
	if err := q.validate(t.schema); err != nil {
		return nil, err
	}
	if err := t.CheckSegment(q.Segment); err != nil {
		return nil, err
	}
	asking, cancel := q.asking(ctx)
	defer cancel()
	return t.search(ctx, asking, q)
}

// search is Search of a valid query whose shards are asked until asking ends.
func (t *Tower) search(ctx, asking context.Context, q *Query) (*Answer, error) {
	f := t.memory.scratch.Get().(*fanOut) // lost if something panics, for its state is unknown then
	f.fit(len(t.parts))
	answer := &Answer{TowerRows: t.rows, Shards: make([]ShardAnswer, len(t.parts))}
	err := t.answer(ctx, asking, q, f, answer)
	for {
		lost, ok := errors.AsType[*lostError](err)
		if !ok {
			break
		}
		f.release()
		f.lost[lost.part] = lost.err
		err = t.answer(ctx, asking, q, f, answer) // as if it had not been there from the beginning
	}
	t.recycle(f)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// answer asks the parts that are not lost, until asking ends, and fills in the answer,
// until ctx ends. A part that is lost once it has answered is a [*lostError].
func (t *Tower) answer(ctx, asking context.Context, q *Query, f *fanOut, answer *Answer) error {
	*answer = Answer{TowerRows: t.rows, Shards: answer.Shards}
	start := time.Now()
	t.begin(q, f, start)
	t.ask(asking, q, f, f.every, true)
	var merged []Hit
	for {
		asked := time.Now()
		var err error
		if merged, err = f.merge(ctx, t.metric, q, t.refused); err != nil {
			return err
		}
		short := f.exhausted(t.metric, q, t.refused, merged)
		if q.Observe != nil {
			q.observed(Merged, asked, nil)
		}
		if len(short) > 0 {
			if ended := asking.Err(); ended != nil {
				for _, i := range short {
					f.parts[i].answer.Cut = ended
				}
				break
			}
		}
		if len(short) > 0 && len(q.AtMost) > 0 {
			short = f.deepen(t.metric, q, merged)
		}
		answer.Merge += time.Since(asked)
		if len(short) == 0 {
			break
		}
		// What is missing may be in these parts.
		t.ask(asking, q, f, short, false)
		for _, i := range short {
			if err := f.parts[i].answer.Err; err != nil {
				return failed(i, err)
			}
		}
	}
	answer.FanOut = time.Since(start) - answer.Merge
	if err := t.cover(q, f, answer); err != nil {
		return err
	}
	var err error
	answer.Before = f.merger.before
	if q.Behind {
		answer.Behind = copied(q, merged[:answer.Before])
	}
	if answer.Candidates, answer.Text, err = t.candidates(ctx, q, f, merged[answer.Before:]); err != nil {
		return err
	}
	if len(q.Explain) > 0 {
		if q.Observe != nil {
			defer q.observed(Justified, time.Now(), nil)
		}
		answer.Explained, err = t.explain(ctx, q, f, merged)
	}
	return err
}

// cover fills in how the parts took part in the answer. It returns an error if one's ends
// the query, or if too few took part.
func (t *Tower) cover(q *Query, f *fanOut, answer *Answer) error {
	var failed, cut error
	for i := range f.parts {
		a := &f.parts[i]
		answer.Shards[i] = a.answer
		if err := a.answer.Err; err != nil {
			if isFatal(err) {
				return err
			}
			failed = cmp.Or(failed, err)
			continue
		}
		cut = cmp.Or(cut, a.answer.Cut)
		answer.Rows += a.answer.Rows
		answer.Eligible += a.answer.Eligible
		answer.UnknownInclude += a.reply.UnknownInclude
		answer.UnknownExclude += a.reply.UnknownExclude
		if i >= t.hashed { // it was given all ids: those that it has, another does not have
			answer.UnknownInclude -= len(a.request.Include)
			answer.UnknownExclude -= len(a.request.Exclude)
		}
	}
	if t.hashed == 0 && answer.Answered() > 0 {
		answer.UnknownInclude += len(q.Include)
		answer.UnknownExclude += len(q.Exclude) + min(len(q.Self), 1)
	}
	answer.UnknownInclude, answer.UnknownExclude = max(answer.UnknownInclude, 0), max(answer.UnknownExclude, 0)
	if failed != nil && answer.Coverage() < q.MinCoverage || cut != nil && q.MinCoverage >= 1 {
		return &CoverageError{
			Answered: answer.Answered(), Cut: answer.Cut(), Shards: len(t.parts),
			Coverage: answer.Coverage(), MinCoverage: q.MinCoverage,
			Err: cmp.Or(failed, cut), Unreadable: answer.Unreadable(),
		}
	}
	return nil
}

// asking returns the context of asking shards. If the query takes an answer that lacks
// shards, they are given up a little before the deadline, or the answer would come too
// late.
func (q *Query) asking(ctx context.Context) (context.Context, context.CancelFunc) {
	deadline, ok := ctx.Deadline()
	if !ok || q.MinCoverage >= 1 {
		return ctx, func() {}
	}
	return context.WithDeadline(ctx, deadline.Add(-min(time.Until(deadline)/10, 20*time.Millisecond)))
}

// begin divides a query among the parts. Those that are the hash partition are given
// their share of it, others all.
func (t *Tower) begin(q *Query, f *fanOut, now time.Time) {
	f.depth = q.depth()
	k := f.depth
	if len(q.AtMost) > 0 {
		k *= overfetch
	}
	first := t.memory.shares.of(k, t.hashed)
	f.limited = f.limited[:0]
	for _, limit := range q.AtMost {
		f.limited = append(f.limited, limit.Field)
	}
	f.floor.reset(0, t.metric)
	if len(q.AtMost) == 0 && len(t.parts) > 1 { // limits look for more than are wanted
		f.floor.reset(k, t.metric)
	}
	f.exact = q.Plan == index.ExactScan || q.Plan == index.Auto && q.Ef == 0 && q.Target >= 1
	for i := range f.parts {
		a := &f.parts[i]
		a.answer = ShardAnswer{Shard: t.infos[i].Name, Rows: t.infos[i].Rows, Err: f.lost[i]}
		a.reply.Reset()
		r := &a.request
		*r = Request{
			Moment: q.Moment, Vectors: q.Vectors, K: k, Ef: q.Ef, Target: q.Target, Plan: q.Plan, Pause: q.Pause,
			Filter: q.Filter, Segment: q.Segment, Included: len(q.Include) > 0,
			Include: r.Include[:0], Exclude: r.Exclude[:0], Limited: f.limited, Taken: r.Taken[:0],
		}
		if r.Time.IsZero() {
			r.Time = now
		}
		if i >= t.hashed {
			r.Include = append(r.Include, q.Include...)
			r.Exclude = append(r.Exclude, q.Exclude...)
			if q.Self != "" {
				r.Exclude = append(r.Exclude, q.Self)
			}
		} else if q.Ef == 0 && (q.Target < 1 || len(q.AtMost) == 0) {
			r.K, r.Expected = first.rows, first.expected
		}
	}
	if t.hashed == 0 {
		return
	}
	for _, id := range q.Include {
		r := &f.parts[Partition(id, t.hashed)].request
		r.Include = append(r.Include, id)
	}
	for _, id := range q.Exclude {
		r := &f.parts[Partition(id, t.hashed)].request
		r.Exclude = append(r.Exclude, id)
	}
	if q.Self != "" {
		r := &f.parts[Partition(q.Self, t.hashed)].request
		r.Exclude = append(r.Exclude, q.Self)
	}
}

// keptHits is how many hits the memory of a query may have room for to be kept for the
// next, and how many ids: a few queries for very many would hold it for long.
const keptHits = 1 << 15

// release ends what a query holds of others' memory.
func (f *fanOut) release() {
	for i := range f.parts {
		a := &f.parts[i]
		if a.kept != nil {
			a.kept.Release()
			a.kept = nil
		}
		clear(a.request.Include)
		clear(a.request.Exclude)
		a.request = Request{Include: a.request.Include[:0], Exclude: a.request.Exclude[:0], Taken: a.request.Taken[:0]}
	}
	f.merger.quota.reset(nil)
}

// recycle ends what a query holds of others' memory, and keeps its own for the next
// unless it grew large.
func (t *Tower) recycle(f *fanOut) {
	f.release()
	room := f.floor.room() + cap(f.merger.out) + cap(f.merger.ids)/4 + cap(f.merger.seen.places)/4 + cap(f.refs)/4
	for i := range f.parts {
		a := &f.parts[i]
		room += a.reply.room() + a.next.room() + cap(a.request.Include) + cap(a.request.Exclude) + cap(a.request.Taken)/4
	}
	if room <= keptHits {
		t.memory.scratch.Put(f)
	}
}

// merge merges what the parts that answered have found, but for what is refused. The error
// is the context's.
func (f *fanOut) merge(ctx context.Context, metric index.Metric, q *Query, refused Refused) ([]Hit, error) {
	for i := range f.parts {
		f.lists[i] = f.parts[i].reply.Hits
		if f.parts[i].answer.Err != nil {
			f.lists[i] = nil
		}
	}
	merged, err := f.merger.merge(ctx, metric, q.K, q.After, q.AtMost, refused, f.lists)
	if err != nil {
		return nil, err
	}
	if before := f.merger.before; q.After.reach(q.K, before) > f.depth {
		// More rank up to the cursor than did when the page before it was found. As many
		// again may turn up, so that rounds are few.
		f.depth = q.After.reach(q.K, before+max(before-q.After.Rank, 0))
	}
	return merged, nil
}

// exhausted returns the parts that have more rows than they returned, of which some
// may be among the best k, those of the page: too few were merged, or the last hit of the
// part, or its floor, ranks before the last one that was merged. Without limits it makes
// them ask for as many as there are up to the end of the page, which is enough, and for as
// many more as they returned that are refused; and whatever the floor was.
func (f *fanOut) exhausted(metric index.Metric, q *Query, refused Refused, merged []Hit) []int {
	f.again = f.again[:0]
	for i := range f.parts {
		a := &f.parts[i]
		if a.answer.Err != nil || a.answer.Cut != nil || a.complete() {
			continue
		}
		if f.merger.full && a.endsBelow(&merged[len(merged)-1], metric) {
			continue
		}
		if len(q.AtMost) == 0 {
			enough := f.depth
			if f.merger.passed > 0 { // then all hits of this part were looked at
				for j := range a.reply.Hits {
					if refused.Has(a.reply.Hits[j].ID) {
						enough++
					}
				}
			}
			if a.request.K >= enough && !a.cutOff() {
				continue
			}
			a.request.K = max(a.request.K, enough)
		}
		a.request.Floored, a.request.Expected = false, 0
		f.again = append(f.again, i)
	}
	return f.again
}

// ask asks some of the parts, in the first round or a later one: each of those that are
// elsewhere on a goroutine of its own, and meanwhile the others.
func (t *Tower) ask(ctx context.Context, q *Query, f *fanOut, parts []int, first bool) {
	if t.elsewhere == 0 {
		t.askHere(ctx, q, f, parts, first)
		return
	}
	var group sync.WaitGroup
	for _, i := range parts {
		if t.infos[i].Elsewhere {
			group.Go(func() {
				stack.Grow()
				t.askOne(ctx, q, f, i, first)
			})
		}
	}
	if t.elsewhere < len(t.parts) {
		t.askHere(ctx, q, f, parts, first)
	}
	group.Wait()
}

// askHere asks those of some parts that are not elsewhere, on the caller's goroutine and on
// one more for each of the query's workers that no other query has a use for.
func (t *Tower) askHere(ctx context.Context, q *Query, f *fanOut, parts []int, first bool) {
	workers := 1
	if q.Pause == nil {
		defer t.memory.asking.Add(-1)
		workers = cmp.Or(q.Workers, runtime.GOMAXPROCS(0))
		workers = min(workers/int(t.memory.asking.Add(1)), len(parts))
	}
	if workers <= 1 {
		for _, i := range parts {
			if !t.infos[i].Elsewhere {
				t.askOne(ctx, q, f, i, first)
			}
		}
		return
	}
	var next atomic.Int32
	work := func() {
		for at := next.Add(1); int(at) <= len(parts); at = next.Add(1) {
			if i := parts[at-1]; !t.infos[i].Elsewhere {
				t.askOne(ctx, q, f, i, first)
			}
		}
	}
	var group sync.WaitGroup
	for range workers - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
}

// askOne asks one of the parts. In the first round it is told of what others have found.
func (t *Tower) askOne(ctx context.Context, q *Query, f *fanOut, i int, first bool) {
	a := &f.parts[i]
	if q.Observe != nil && a.answer.Err == nil {
		defer q.observed(Asked, time.Now(), &a.answer)
	}
	if !first {
		a.ask(ctx, t.parts[i])
		return
	}
	a.request.Floor, a.request.Floored = f.floor.known()
	a.ask(ctx, t.parts[i])
	if a.answer.Err == nil {
		f.floor.take(a.reply.Hits)
	}
}

// ask asks a part that is not lost. One that has answered before has still done so if it
// cannot once more for want of time.
func (a *asked) ask(ctx context.Context, part Part) {
	s := &a.answer
	if s.Err != nil {
		return
	}
	had := a.reply.Asked > 0
	if had { // it stays if there is no other
		a.reply, a.next = a.next, a.reply
	}
	r := a.reply
	r.Kept = a.kept
	err := part.Search(ctx, &a.request, r)
	a.kept, r.Kept = r.Kept, nil
	if err != nil {
		if had {
			a.reply, a.next = a.next, a.reply
		}
		if had && isEnd(err) {
			s.Cut = err
		} else {
			s.Err = err
		}
		return
	}
	a.request.K = r.Asked
	s.Eligible, s.Asked, s.From = r.Eligible, r.Asked, r.From
	scored, expanded := s.Scored+r.Stats.Scored, s.Expanded+r.Stats.Expanded
	s.Stats = r.Stats
	s.Scored, s.Expanded = scored, expanded
	s.Filter += r.Filter
	s.Search += r.Search
}

// candidates copies the hits out of the replies, with their attributes, of which it counts
// the bytes of text. The error is the context's, a [*TextError] or a [*lostError].
func (t *Tower) candidates(ctx context.Context, q *Query, f *fanOut, hits []Hit) (out []Candidate, text int, err error) {
	out = copied(q, hits)
	if len(q.Attributes) == 0 {
		return out, 0, nil
	}
	if q.Observe != nil {
		defer q.observed(Attributed, time.Now(), nil)
	}
	short, err := t.attributes(ctx, q, f, hits, out)
	if err != nil {
		return nil, 0, err
	}
	for i := range out {
		for _, v := range out[i].Attributes {
			text += textOf(v)
		}
		if q.MaxText > 0 && text > q.MaxText {
			return nil, 0, &TextError{Found: out[:i+1], Of: len(hits), Bytes: text, Max: q.MaxText}
		}
	}
	return out, text, short
}

// copied copies hits out of the replies, with the values that limits count if the query asks for
// them.
func copied(q *Query, hits []Hit) []Candidate {
	size := 0
	for i := range hits {
		size += len(hits[i].ID)
	}
	var all strings.Builder // one allocation for all ids
	all.Grow(size)
	for i := range hits {
		all.WriteString(hits[i].ID)
	}
	ids := all.String()
	out := make([]Candidate, len(hits))
	for i := range hits {
		h := &hits[i]
		out[i] = Candidate{ID: ids[:len(h.ID)], Score: h.Score}
		ids = ids[len(h.ID):]
		if q.Values {
			for _, v := range h.Values {
				v.Text = strings.Clone(v.Text)
				out[i].Values = append(out[i].Values, v)
			}
		}
	}
	return out
}

// attributes sets the attributes of candidates, which are the hits. short says that a part
// did not give all, as it may where they have too much text. The error is the context's or
// a [*lostError], and so is short.
func (t *Tower) attributes(ctx context.Context, q *Query, f *fanOut, hits []Hit, out []Candidate) (short, err error) {
	n := len(q.Attributes)
	values := make([]attribute.Value, len(hits)*n)
	// The rows of a part are beside each other, in their order.
	clear(f.ends)
	for i := range hits {
		f.ends[hits[i].part]++
	}
	begin := 0
	for i, count := range f.ends {
		f.ends[i] = begin
		begin += count
	}
	if cap(f.refs) < len(hits) {
		f.refs = make([]uint32, len(hits))
	}
	f.refs = f.refs[:len(hits)]
	for i := range hits {
		at := f.ends[hits[i].part]
		f.ends[hits[i].part]++
		f.refs[at] = hits[i].Ref
		out[i].Attributes = values[at*n : (at+1)*n : (at+1)*n]
	}
	from := func(i int) int { // where in refs those of a part begin
		if i == 0 {
			return 0
		}
		return f.ends[i-1]
	}
	wanted := func(i int) bool { return from(i) < f.ends[i] }
	err = t.each(wanted, func(i int) (err error) {
		begin, end := from(i), f.ends[i]
		f.parts[i].given, err = t.parts[i].Attributes(ctx, f.parts[i].request.Moment, f.refs[begin:end], q.Attributes, q.MaxText, values[begin*n:end*n])
		if err != nil {
			return failed(i, err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for i := range f.parts {
		if rows, given := f.ends[i]-from(i), f.parts[i].given; wanted(i) && given < rows {
			return &lostError{i, fmt.Errorf("shard %s gave the attributes of %d of %d rows", t.infos[i].Name, given, rows)}, nil
		}
	}
	return nil, nil
}
