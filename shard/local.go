package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Local is the part of a tower that a shard of this process is, with what lies over it. It
// is safe for any number of goroutines until the shard is closed. What cannot be read of the
// shard's file is an [*UnreadableError]. It answers at the position of its overlay, and
// without one at the zero position; asked at another that is not zero, a [*PositionError].
type Local struct {
	ground *ground
	over   *Overlay // nil: nothing lies over the shard
	info   Info
}

var _ Part = (*Local)(nil)

// NewLocal returns the part that a shard is. It does not own the shard. The compiler is
// one for the shard's schema.
func NewLocal(s *Shard, compiler *eligibility.Compiler) *Local {
	return newLocal(s, &tests{list: s.Segments(), compiler: compiler})
}

// newLocal is NewLocal with the segments' expressions, which those of a tower share.
func newLocal(s *Shard, t *tests) *Local {
	g := &ground{shard: s, tests: t}
	g.work.New = func() any { return &work{pool: &g.work} }
	return &Local{ground: g, info: Info{
		Name: s.name, Rows: s.Rows(), Segments: s.Segments(), SegmentRows: s.SegmentRows(), Costs: s.index.CostModel(),
	}}
}

// Shard returns the shard that the part is.
func (l *Local) Shard() *Shard { return l.ground.shard }

// PositionError says that a part is not at the position of the live log that it was asked
// at.
type PositionError struct {
	Shard      string
	Asked, Has Position
}

// Error implements error.
func (e *PositionError) Error() string {
	return fmt.Sprintf("shard %s is at position %s of the live log, and not at %s", e.Shard, e.Has, e.Asked)
}

// at returns what there is at a moment.
func (l *Local) at(m *Moment) (view, error) {
	v := view{shard: l.ground.shard, over: l.over}
	var at Position
	if v.over != nil {
		at = v.over.at
		v.dead, v.deadCount = v.over.deadAt(m.Time)
	}
	if m.Position != at && m.Position != (Position{}) {
		return v, &PositionError{l.info.Name, m.Position, at}
	}
	return v, nil
}

// Info implements [Part].
func (l *Local) Info() Info { return l.info }

// work is the memory of one search, and what is kept of it from round to round.
type work struct {
	pool *sync.Pool
	view view

	whole    bool         // whether the following is of the query
	narrowed bool         // whether rows holds those that may be returned; else all may
	rows     index.Bitset // made when it is first needed
	eligible int          // how many there were before any was removed because of its values
	left     int          // how many there are
	unknown  [2]int       // ids to include, to exclude
	scratch  index.Bitset // made when it is first needed
	found    []index.Hit  // for the vectors so far
	more     []index.Hit  // for the last one
	ordinals []uint32     // of ids to include
	ids      []string     // of what was found
	values   []FieldValue // of what was found
	ends     []int        // of each hit, where in values those of it end
}

// bitset returns a bitset for the shard's rows: the one that is there, or a new one.
func (w *work) bitset(b *index.Bitset) index.Bitset {
	if *b == nil {
		*b = index.NewBitset(w.view.rows())
	}
	return *b
}

// Release implements [Kept].
func (w *work) Release() {
	w.whole, w.narrowed, w.view = false, false, view{}
	if cap(w.found)/2+cap(w.more)/2+cap(w.ordinals)/4+cap(w.ids)/2+cap(w.values) <= keptHits {
		w.pool.Put(w)
	}
}

// recovered makes a panic of a method that defers it the method's error. A fault in the
// mapped file becomes a panic, and not the end of the process, because of what
// [debug.SetPanicOnFault] was told before, which it takes back; like [sections.Guard], but
// it allocates nothing.
func (l *Local) recovered(before bool, err *error) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		if fault := sections.FaultOf(r); fault != nil {
			*err = &UnreadableError{l.info.Name, fault}
			return
		}
		*err = &PanicError{Shard: l.info.Name, Value: r, Stack: debug.Stack()}
	}
}

// Search implements [Part].
func (l *Local) Search(ctx context.Context, r *Request, reply *Reply) (err error) {
	defer l.recovered(debug.SetPanicOnFault(true), &err)
	if err := ctx.Err(); err != nil {
		return err
	}
	w, ok := reply.Kept.(*work)
	if !ok {
		w = l.ground.work.Get().(*work) // lost if something panics, for its state is unknown then
	}
	reply.Reset()
	reply.Kept = nil
	if w.view, err = l.at(&r.Moment); err == nil {
		err = l.search(ctx, r, w, reply)
	}
	if err == nil && len(r.Limited) > 0 { // it is likely to be asked again
		reply.Kept = w
	} else {
		w.Release()
	}
	return err
}

func (l *Local) search(ctx context.Context, r *Request, w *work, reply *Reply) error {
	start := time.Now()
	if !w.whole {
		if err := l.narrow(ctx, r, w); err != nil {
			return err
		}
	}
	asked := r.K
	if len(r.Full) > 0 {
		w.whole = false // until it is again
		if err := l.drop(ctx, r, w); err != nil {
			return err
		}
		w.whole = true
		asked = min(asked, max(w.left, 1))
	}
	reply.Eligible, reply.Left, reply.Asked = w.eligible, w.left, asked
	reply.UnknownInclude, reply.UnknownExclude = w.unknown[0], w.unknown[1]
	filtered := time.Now()
	reply.Filter = filtered.Sub(start)
	if err := l.find(ctx, r, w, reply); err != nil {
		return err
	}
	l.tell(r, w, reply)
	reply.Search = time.Since(filtered)
	return nil
}

// tell adds what was found to the reply. Each look into the file may wait for memory, so
// there is a loop for each thing, whose looks do not wait for each other.
func (l *Local) tell(r *Request, w *work, reply *Reply) {
	w.ids = slices.Grow(w.ids[:0], len(w.found))
	for _, h := range w.found {
		w.ids = append(w.ids, w.view.id(h.Ordinal))
	}
	w.values, w.ends = w.values[:0], w.ends[:0]
	if len(r.Limited) > 0 {
		for _, h := range w.found {
			for _, field := range r.Limited {
				w.values = w.view.values(h.Ordinal, field, w.values)
			}
			w.ends = append(w.ends, len(w.values))
		}
	}
	reply.Hits = slices.Grow(reply.Hits, len(w.found))
	for i, h := range w.found {
		reply.Add(w.ids[i], h.Ordinal, h.Score)
	}
	begin := 0
	for i, end := range w.ends {
		for _, v := range w.values[begin:end] {
			reply.addValue(i, v)
		}
		begin = end
	}
}

// find makes w.found the best rows of those that are left.
func (l *Local) find(ctx context.Context, r *Request, w *work, reply *Reply) error {
	q := index.Query{K: reply.Asked, Ef: r.Ef, Plan: r.Plan, Eligible: w.left, Floored: r.Floored, Floor: r.Floor, Done: ctx.Done(), Pause: r.Pause}
	among := w.left // rows that a walk finds its own among
	switch {
	case w.left == w.view.alive():
		q.Dead, q.DeadCount = w.view.dead, w.view.deadCount
	case w.view.dead != nil && r.Filter == nil && r.Segment == "" && !r.Included && len(r.Full) == 0:
		// Where there are dead rows, those that are excluded are like them: else a walk would
		// treat all of them as what a filter leaves out, which takes it more.
		q.Dead, q.DeadCount = w.bitset(&w.scratch), w.view.rows()-w.left
		q.Dead.Fill(w.view.rows())
		q.Dead.AndNot(w.rows)
		among = w.view.alive()
	default:
		q.Filter = w.rows
	}
	if q.Ef == 0 && r.Target < 1 {
		q.Ef = w.view.effort(min(cmp.Or(r.Expected, q.K), q.K), r.Target, among)
	}
	walked := false
	scored, expanded := 0, 0
	w.found = w.found[:0]
	for i, v := range r.Vectors {
		q.Vector = v
		var err error
		if w.more, reply.Stats, err = w.view.search(q, w.more[:0]); err != nil {
			return endedBy(ctx, err)
		}
		walked = walked || reply.Stats.Plan != index.ExactScan
		scored += reply.Stats.Scored
		expanded += reply.Stats.Expanded
		if i == 0 {
			w.found = append(w.found, w.more...)
		} else {
			w.found = w.view.best(append(w.found, w.more...), q.K)
			if err := pause(ctx); err != nil {
				return err
			}
		}
	}
	// A walk for one vector may miss a row that another finds, whose score is then
	// not yet the best over all. A scan misses none that is among the best k.
	if walked && len(r.Vectors) > 1 {
		for _, v := range r.Vectors {
			w.view.improve(v, w.found)
			if err := pause(ctx); err != nil {
				return err
			}
		}
		scored += len(r.Vectors) * len(w.found)
		w.found = w.view.best(w.found, q.K)
	}
	reply.Stats.Scored, reply.Stats.Expanded = scored, expanded
	return nil
}

// narrow finds which rows may be returned, whatever values they have. It looks each id up
// once.
func (l *Local) narrow(ctx context.Context, r *Request, w *work) error {
	w.eligible, w.unknown = w.view.alive(), [2]int{}
	w.narrowed = r.Filter != nil || r.Segment != "" || r.Included || len(r.Exclude) > 0
	if w.narrowed {
		rows := w.bitset(&w.rows)
		var err error
		if w.eligible, err = w.view.eligible(ctx, r.Filter, r.Segment, rows); err != nil {
			return err
		}
		if r.Included {
			if w.eligible, err = l.keep(ctx, r.Include, w); err != nil {
				return err
			}
		}
		removed, err := l.remove(ctx, r.Exclude, w)
		if err != nil {
			return err
		}
		w.eligible -= removed
	}
	w.left, w.whole = w.eligible, true
	return nil
}

// keep removes from the rows what is not among ids, and counts what is left, and the ids
// that there are not. The error is the context's.
func (l *Local) keep(ctx context.Context, ids []string, w *work) (left int, err error) {
	w.ordinals = w.ordinals[:0]
	w.unknown[0], err = w.look(ctx, ids, func(ordinal uint32) {
		if w.rows.Has(ordinal) {
			w.rows.Unset(ordinal) // so that one that is given twice counts once
			w.ordinals = append(w.ordinals, ordinal)
		}
	})
	if err != nil {
		return 0, err
	}
	w.rows.Clear()
	for _, ordinal := range w.ordinals {
		w.rows.Set(ordinal)
	}
	return len(w.ordinals), nil
}

// remove removes ids from the rows, and counts those that were there, and the ids that
// there are not. The error is the context's.
func (l *Local) remove(ctx context.Context, ids []string, w *work) (removed int, err error) {
	w.unknown[1], err = w.look(ctx, ids, func(ordinal uint32) {
		if w.rows.Has(ordinal) {
			w.rows.Unset(ordinal)
			removed++
		}
	})
	return removed, err
}

// look calls found with the ordinal of each id, and counts the ids that there are not. The
// error is the context's.
func (w *work) look(ctx context.Context, ids []string, found func(ordinal uint32)) (unknown int, err error) {
	for i, id := range ids {
		if i%step == step-1 {
			if err := pause(ctx); err != nil {
				return 0, err
			}
		}
		if ordinal, ok := w.view.find(id); ok {
			found(ordinal)
		} else {
			unknown++
		}
	}
	return unknown, nil
}

// drop removes from what is left the rows that have a full value and were not taken. The
// error is the context's.
func (l *Local) drop(ctx context.Context, r *Request, w *work) error {
	rows, scratch := w.bitset(&w.rows), w.bitset(&w.scratch)
	if !w.narrowed {
		rows.Fill(w.view.rows())
		if w.view.dead != nil {
			rows.AndNot(w.view.dead)
		}
		w.narrowed = true
	}
	if err := w.view.without(ctx, r.Full, rows, scratch); err != nil {
		return err
	}
	for _, ordinal := range r.Taken {
		rows.Set(ordinal)
	}
	w.left = rows.Count()
	return nil
}

// best keeps the best score of each ordinal, and the best k of those.
func (v *view) best(hits []index.Hit, k int) []index.Hit {
	metric := v.metric()
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
		return v.compare(a.Ordinal, b.Ordinal)
	})
	return hits[:min(len(hits), k)]
}

// Explain implements [Part].
func (l *Local) Explain(ctx context.Context, r *Request, ids []string) (rows []ExplainedRow, err error) {
	defer l.recovered(debug.SetPanicOnFault(true), &err)
	w := l.ground.work.Get().(*work)
	if w.view, err = l.at(&r.Moment); err == nil {
		rows, err = l.explainIDs(ctx, r, w, ids)
	}
	w.Release()
	return rows, err
}

func (l *Local) explainIDs(ctx context.Context, r *Request, w *work, ids []string) ([]ExplainedRow, error) {
	rows := make([]ExplainedRow, len(ids))
	list := make([]explainedRow, 0, len(ids))
	for i, id := range ids {
		if ordinal, ok := w.view.find(id); ok {
			rows[i].Known = true
			list = append(list, explainedRow{&rows[i], ordinal})
		} else {
			rows[i].OutsideWindow = w.view.outside(id)
		}
	}
	if len(list) == 0 {
		return rows, nil
	}
	return rows, l.explain(ctx, r, list, w)
}

// explainedRow is one that a shard has.
type explainedRow struct {
	*ExplainedRow
	ordinal uint32
}

// explain says what there is to say of rows.
func (l *Local) explain(ctx context.Context, r *Request, rows []explainedRow, w *work) error {
	v, set := &w.view, w.bitset(&w.scratch)
	if err := v.score(ctx, r.Vectors, rows, set); err != nil {
		return err
	}
	outside := false
	for _, row := range rows {
		row.Outside = !v.inSegment(r.Segment, row.ordinal)
		row.Eligible = !row.Outside
		outside = outside || row.Outside
		for _, field := range r.Limited {
			row.Values = v.values(row.ordinal, field, row.Values)
		}
		for i := range row.Values {
			row.Values[i].Text = strings.Clone(row.Values[i].Text)
		}
	}
	if outside {
		clauses, err := l.segmentClauses(ctx, r.Segment)
		if err != nil {
			return err
		}
		isOutside := func(row *ExplainedRow) bool { return row.Outside && row.Clause == "" }
		if err := v.judge(ctx, clauses, rows, set, isOutside); err != nil {
			return err
		}
	}
	if r.Filter == nil {
		return nil
	}
	clauses, err := r.Filter.Clauses(ctx)
	if err != nil {
		return err
	}
	return v.judge(ctx, clauses, rows, set, func(row *ExplainedRow) bool { return row.Eligible })
}

// judge gives those rows that may is true for the first clause that is false for them. It
// uses the set as scratch memory.
func (v *view) judge(ctx context.Context, clauses []eligibility.Bound, rows []explainedRow, set index.Bitset, may func(*ExplainedRow) bool) error {
	for _, clause := range clauses {
		if err := pause(ctx); err != nil {
			return err
		}
		if _, err := v.eligible(ctx, &clause, "", set); err != nil {
			return err
		}
		for _, row := range rows {
			if may(row.ExplainedRow) && !set.Has(row.ordinal) {
				row.Eligible, row.Clause = false, clause.String()
			}
		}
	}
	return nil
}

// segmentClauses returns the clauses of a segment's expression, or none if it has
// come to be no filter of this build: its bitmap is what counts.
func (l *Local) segmentClauses(ctx context.Context, name string) ([]eligibility.Bound, error) {
	t := l.ground.tests
	i := slices.IndexFunc(t.list, func(s Segment) bool { return s.Name == name })
	if i < 0 || t.all()[i] == nil {
		return nil, nil
	}
	return t.all()[i].Clauses(ctx)
}

// score gives rows their scores, as the exact scan finds them; without vectors they have none. It uses the set as scratch
// memory.
func (v *view) score(ctx context.Context, vectors [][]float32, rows []explainedRow, set index.Bitset) error {
	if len(vectors) == 0 {
		return nil
	}
	set.Clear()
	for _, row := range rows {
		set.Set(row.ordinal)
	}
	q := index.Query{Filter: set, Eligible: set.Count(), Plan: index.ExactScan, Done: ctx.Done()}
	q.K = q.Eligible
	var found []index.Hit
	for _, vector := range vectors {
		q.Vector = vector
		var err error
		if found, _, err = v.search(q, found); err != nil {
			return endedBy(ctx, err)
		}
	}
	found = v.best(found, q.K)
	slices.SortFunc(found, func(a, b index.Hit) int { return cmp.Compare(a.Ordinal, b.Ordinal) })
	for _, row := range rows {
		at, ok := slices.BinarySearchFunc(found, row.ordinal, func(h index.Hit, ordinal uint32) int { return cmp.Compare(h.Ordinal, ordinal) })
		if !ok {
			return fmt.Errorf("an exact scan of %d rows missed one", q.K)
		}
		row.Score = found[at].Score
	}
	return nil
}

// vectorStep is how many vectors are copied between two pauses.
const vectorStep = 64

// Vectors implements [Part].
func (l *Local) Vectors(ctx context.Context, at Moment, ids []string, dst [][]float32) (err error) {
	defer l.recovered(debug.SetPanicOnFault(true), &err)
	v, err := l.at(&at)
	if err != nil {
		return err
	}
	for i, id := range ids {
		if i%vectorStep == vectorStep-1 {
			if err := pause(ctx); err != nil {
				return err
			}
		}
		dst[i] = nil
		if ordinal, ok := v.find(id); ok {
			dst[i] = v.vector(ordinal)
		}
	}
	return nil
}

// Refs sets each place of found, which is as long as ids, to whether there is a row of that id
// at a moment, and if so that of refs to the part's name of it. It is for who knows rows by
// their ids alone.
func (l *Local) Refs(at Moment, ids []string, refs []uint32, found []bool) (err error) {
	defer l.recovered(debug.SetPanicOnFault(true), &err)
	v, err := l.at(&at)
	if err != nil {
		return err
	}
	for i, id := range ids {
		refs[i], found[i] = v.find(id)
	}
	return nil
}

// Attributes implements [Part].
func (l *Local) Attributes(ctx context.Context, at Moment, refs []uint32, fields []int, most int, dst []attribute.Value) (rows int, err error) {
	defer l.recovered(debug.SetPanicOnFault(true), &err)
	v, err := l.at(&at)
	if err != nil {
		return 0, err
	}
	text := 0
	for i, ordinal := range refs {
		if i*len(fields)/step != (i+1)*len(fields)/step {
			if err := pause(ctx); err != nil {
				return 0, err
			}
		}
		for j, field := range fields {
			x := v.value(ordinal, field)
			text += textOf(x)
			dst[i*len(fields)+j] = x
		}
		if most > 0 && text > most {
			return i + 1, nil
		}
	}
	return len(refs), nil
}

// textOf returns how many bytes of text a value has.
func textOf(v attribute.Value) int {
	n := len(v.Keyword())
	for _, text := range v.Keywords() {
		n += len(text)
	}
	return n
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
