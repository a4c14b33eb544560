package shard

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Kind names an entity kind: apps or users.
type Kind string

// The entity kinds.
const (
	Apps  Kind = "apps"
	Users Kind = "users"
)

// Tower is all shards of one entity kind. It is immutable and safe for any
// number of goroutines.
type Tower struct {
	kind        Kind
	shards      []*Shard
	largest     *Shard // of shards; nil if there is none
	rows        int
	metric      index.Metric
	dim         int
	schema      attribute.Schema
	segmentRows []int // how many are eligible in each segment
	compiler    *eligibility.Compiler
	formed      []formed     // ids that no form of what is asked for is; see forms
	scratch     sync.Pool    // *fanOut
	asking      atomic.Int32 // queries that are searching shards now
}

func newTower(kind Kind, shards []*Shard, metric index.Metric, dim int, schema attribute.Schema) (*Tower, error) {
	compiler, err := eligibility.NewCompiler(schema)
	if err != nil {
		return nil, err
	}
	t := &Tower{kind: kind, shards: shards, metric: metric, dim: dim, schema: schema, compiler: compiler, formed: takeFormed(shards)}
	for _, s := range shards {
		t.rows += s.Rows()
		if t.largest == nil || s.Rows() > t.largest.Rows() {
			t.largest = s
		}
	}
	t.scratch.New = func() any {
		return &fanOut{parts: make([]part, len(shards)), lost: make([]error, len(shards)), lists: make([][]hit, len(shards))}
	}
	t.segmentRows = make([]int, len(t.Segments()))
	for _, s := range shards {
		for i, n := range s.SegmentRows() {
			t.segmentRows[i] += n
		}
	}
	return t, nil
}

// Close unmaps the shards' files.
func (t *Tower) Close() error { return closeAll(t.shards) }

func closeAll(shards []*Shard) error {
	var err error
	for _, s := range shards {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Kind returns which entities the tower holds.
func (t *Tower) Kind() Kind { return t.kind }

// Rows returns the number of rows in all shards.
func (t *Tower) Rows() int { return t.rows }

// Dim returns the dimension of the vectors.
func (t *Tower) Dim() int { return t.dim }

// Metric returns how queries and rows are compared.
func (t *Tower) Metric() index.Metric { return t.metric }

// Schema returns the attributes.
func (t *Tower) Schema() attribute.Schema { return t.schema }

// Shards returns the shards in the order of their numbers. The caller must not
// change the slice.
func (t *Tower) Shards() []*Shard { return t.shards }

// Compile compiles an eligibility filter over the tower's attributes. An error is
// an *[eligibility.Error].
func (t *Tower) Compile(filter string) (*eligibility.Filter, error) {
	return t.compiler.Compile(filter)
}

// Segments returns the tower's segments in ascending order of their names. The
// caller must not change the slice.
func (t *Tower) Segments() []Segment {
	if len(t.shards) == 0 {
		return nil
	}
	return t.shards[0].Segments() // every shard has those of the manifest
}

// SegmentRows returns how many rows are eligible in each of [Tower.Segments]. The caller
// must not change the slice.
func (t *Tower) SegmentRows() []int { return t.segmentRows }

// SegmentSize returns how many rows are eligible in a segment, and false if the tower has
// none of that name.
func (t *Tower) SegmentSize(name string) (int, bool) {
	for i, s := range t.Segments() {
		if s.Name == name {
			return t.segmentRows[i], true
		}
	}
	return 0, false
}

// CheckSegment returns a [*SegmentError] unless the tower has a segment of that
// name, or the name is empty.
func (t *Tower) CheckSegment(name string) error {
	list := t.Segments()
	known := func(s Segment) bool { return s.Name == name }
	if name == "" || slices.ContainsFunc(list, known) {
		return nil
	}
	e := &SegmentError{Name: name, Tower: t.kind}
	for _, s := range list {
		e.Known = append(e.Known, s.Name)
	}
	return e
}

// Has reports whether the tower has id. An error is an [*UnreadableError].
func (t *Tower) Has(id string) (ok bool, err error) {
	if len(t.shards) == 0 {
		return false, nil
	}
	s := t.shards[Partition(id, len(t.shards))]
	ok, err = s.has(id)
	return ok, s.named(err)
}

func (s *Shard) has(id string) (ok bool, err error) {
	defer sections.Guard(&err)()
	_, ok = s.Ordinal(id)
	return ok, nil
}

// Vector returns a copy of the embedding of id, and false if the tower does not
// have it. An error is an [*UnreadableError].
func (t *Tower) Vector(id string) (v []float32, ok bool, err error) {
	if len(t.shards) == 0 {
		return nil, false, nil
	}
	s := t.shards[Partition(id, len(t.shards))]
	v, ok, err = s.vector(id)
	return v, ok, s.named(err)
}

func (s *Shard) vector(id string) (v []float32, ok bool, err error) {
	defer sections.Guard(&err)()
	ordinal, ok := s.Ordinal(id)
	if !ok {
		return nil, false, nil
	}
	return s.index.Vector(ordinal, make([]float32, 0, s.index.Dim())), true, nil
}

// fanOut is the memory of one query.
type fanOut struct {
	parts  []part
	lost   []error // of each part, why it can no longer be asked; nil if it can
	lists  [][]hit
	merger merger
	again  []int
	exact  bool // the parts are asked for exact answers
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
	f := t.scratch.Get().(*fanOut) // lost if something panics, for its state is unknown then
	clear(f.lost)
	answer := &Answer{TowerRows: t.rows, Shards: make([]ShardAnswer, len(f.parts))}
	err := t.answer(ctx, asking, q, f, answer)
	for t.loses(f, err) { // the others answer as if it had not from the beginning
		err = t.answer(ctx, asking, q, f, answer)
	}
	t.recycle(f)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// answer asks the shards that are not lost, until asking ends, and fills in the answer,
// until ctx ends. A shard's file that can no longer be read once they were asked is an
// error, of class [sections.ErrUnreadable]. It guards mapped files as [sections.Guard]
// does, and allocates nothing for it.
func (t *Tower) answer(ctx, asking context.Context, q *Query, f *fanOut, answer *Answer) (err error) {
	before := debug.SetPanicOnFault(true)
	defer func() {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			fault := sections.FaultOf(r)
			if fault == nil {
				panic(r)
			}
			err = fault
		}
	}()
	*answer = Answer{TowerRows: t.rows, Shards: answer.Shards}
	start := time.Now()
	f.begin(q)
	t.ask(asking, q, f, nil)
	var merged []hit
	for {
		asked := time.Now()
		if merged, err = f.merge(ctx, t.metric, q); err != nil {
			return err
		}
		short := f.exhausted(t.metric, q, merged)
		if len(short) > 0 {
			if ended := asking.Err(); ended != nil {
				for _, i := range short {
					f.parts[i].answer.Cut = ended
				}
				break
			}
		}
		if len(short) > 0 && len(q.AtMost) > 0 {
			if short, err = t.deepen(ctx, q, f, merged); err != nil {
				return err
			}
		}
		answer.Merge += time.Since(asked)
		if len(short) == 0 {
			break
		}
		// What is missing may be in these shards.
		t.ask(asking, q, f, short)
		for _, i := range short {
			if err := f.parts[i].answer.Err; errors.Is(err, sections.ErrUnreadable) {
				return err
			}
		}
	}
	answer.FanOut = time.Since(start) - answer.Merge
	var failed, cut error
	for i := range f.parts {
		p := &f.parts[i]
		answer.Shards[i] = p.answer
		if err := p.answer.Err; err != nil {
			if isFatal(err) {
				return err
			}
			failed = cmp.Or(failed, err)
			continue
		}
		cut = cmp.Or(cut, p.answer.Cut)
		answer.Rows += p.answer.Rows
		answer.Eligible += p.answer.Eligible
	}
	if failed != nil && answer.Coverage() < q.MinCoverage || cut != nil && q.MinCoverage >= 1 {
		return &CoverageError{
			Answered: answer.Answered(), Cut: answer.Cut(), Shards: len(t.shards),
			Coverage: answer.Coverage(), MinCoverage: q.MinCoverage,
			Err: cmp.Or(failed, cut), Unreadable: answer.Unreadable(),
		}
	}
	if answer.Candidates, answer.Text, err = candidates(ctx, q, merged); err != nil {
		return err
	}
	if len(q.Explain) > 0 {
		answer.Explained, err = t.explain(ctx, q, f, merged)
	}
	return err
}

// loses notes which shard an error is of, if it says that its file can no longer be
// read, and reports whether the query can be answered without.
func (t *Tower) loses(f *fanOut, err error) bool {
	if err == nil {
		return false
	}
	_, short := errors.AsType[*CoverageError](err)
	fault, ok := errors.AsType[*sections.FaultError](err)
	if short || !ok {
		return false
	}
	i := slices.IndexFunc(t.shards, func(s *Shard) bool { return fault.In(s.file) })
	if i < 0 || f.lost[i] != nil {
		return false
	}
	f.merger = merger{} // the fault may have been amid a change of its map
	t.release(f)
	f.lost[i] = t.shards[i].named(err)
	return true
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

// begin divides a query among the shards.
func (f *fanOut) begin(q *Query) {
	k := q.K
	if len(q.AtMost) > 0 {
		k *= overfetch
	}
	if q.Ef == 0 && q.Target < 1 {
		k = share(k, len(f.parts))
	}
	for i := range f.parts {
		p := &f.parts[i]
		p.k, p.plan, p.hits, p.reached, p.answer = k, q.Plan, p.hits[:0], 0, ShardAnswer{Err: f.lost[i]}
	}
	f.exact = q.Plan == index.ExactScan || q.Plan == index.Auto && q.Ef == 0 && q.Target >= 1
	if len(f.parts) == 0 {
		return
	}
	for _, id := range q.Include {
		p := &f.parts[Partition(id, len(f.parts))]
		p.include = append(p.include, id)
	}
	for _, id := range q.Exclude {
		p := &f.parts[Partition(id, len(f.parts))]
		p.exclude = append(p.exclude, id)
	}
	if q.Self != "" {
		p := &f.parts[Partition(q.Self, len(f.parts))]
		p.exclude = append(p.exclude, q.Self)
	}
}

// keptHits is how many hits the memory of a query may have room for to be kept for the
// next, and how many ids: a few queries for very many would hold it for long.
const keptHits = 1 << 15

// release ends what a query holds of others' memory.
func (t *Tower) release(f *fanOut) {
	for i := range f.parts {
		p := &f.parts[i]
		t.shards[i].release(p)
		clear(p.include)
		clear(p.exclude)
		p.include, p.exclude = p.include[:0], p.exclude[:0]
	}
	f.merger.quota.reset(nil)
}

// recycle ends what a query holds of others' memory, and keeps its own for the next
// unless it grew large.
func (t *Tower) recycle(f *fanOut) {
	t.release(f)
	room := 0
	for i := range f.parts {
		p := &f.parts[i]
		room += cap(p.hits) + cap(p.found)/2 + cap(p.more)/2 + cap(p.include) + cap(p.exclude) + cap(p.ordinals)/4
	}
	if room+cap(f.merger.out)+cap(f.merger.seen.places)/4 <= keptHits {
		t.scratch.Put(f)
	}
}

// merge merges what the parts that answered have found. The error is the context's.
func (f *fanOut) merge(ctx context.Context, metric index.Metric, q *Query) ([]hit, error) {
	for i := range f.parts {
		f.lists[i] = f.parts[i].hits
		if f.parts[i].answer.Err != nil {
			f.lists[i] = nil
		}
	}
	return f.merger.merge(ctx, metric, q.K, q.AtMost, f.lists)
}

// exhausted returns the parts that have more rows than they returned, of which some
// may be among the best k: too few were merged, or the last hit of the part ranks
// before the last one that was merged. Without limits it makes them ask for k, which
// is enough.
func (f *fanOut) exhausted(metric index.Metric, q *Query, merged []hit) []int {
	f.again = f.again[:0]
	for i := range f.parts {
		p := &f.parts[i]
		if p.answer.Err != nil || p.answer.Cut != nil || p.complete() {
			continue
		}
		if len(merged) == q.K && merged[q.K-1].before(&p.hits[len(p.hits)-1], metric) {
			continue
		}
		if len(q.AtMost) == 0 {
			if p.k >= q.K {
				continue
			}
			p.k = q.K
		}
		f.again = append(f.again, i)
	}
	return f.again
}

// ask searches the shards, or only some of them, on the caller's goroutine and on
// one more for each of the query's workers that no other query has a use for.
func (t *Tower) ask(ctx context.Context, q *Query, f *fanOut, only []int) {
	n := len(t.shards)
	if only != nil {
		n = len(only)
	}
	defer t.asking.Add(-1)
	workers := cmp.Or(q.Workers, runtime.GOMAXPROCS(0))
	workers = min(workers/int(t.asking.Add(1)), n)
	if workers <= 1 {
		for i := range n {
			if only != nil {
				i = only[i]
			}
			t.shards[i].searchSafely(ctx, q, &f.parts[i])
		}
		return
	}
	var next atomic.Int32
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= n {
				return
			}
			if only != nil {
				i = only[i]
			}
			t.shards[i].searchSafely(ctx, q, &f.parts[i])
		}
	}
	var group sync.WaitGroup
	for range workers - 1 {
		group.Go(work)
	}
	work()
	group.Wait()
}

// candidates copies the hits out of the mapped files, and counts the bytes of text in
// their attributes. The error is the context's, or a [*TextError].
func candidates(ctx context.Context, q *Query, hits []hit) (out []Candidate, copied int, err error) {
	size := 0
	for i := range hits {
		size += len(hits[i].id)
	}
	var text strings.Builder // one allocation for all ids
	text.Grow(size)
	for i := range hits {
		text.WriteString(hits[i].id)
	}
	ids := text.String()
	out = make([]Candidate, len(hits))
	attributes := q.Attributes
	values := make([]attribute.Value, len(hits)*len(attributes))
	for i := range hits {
		h := &hits[i]
		out[i] = Candidate{ID: ids[:len(h.id)], Score: h.score}
		ids = ids[len(h.id):]
		if len(attributes) == 0 {
			continue
		}
		if i*len(attributes)/step != (i+1)*len(attributes)/step {
			if err := pause(ctx); err != nil {
				return nil, 0, err
			}
		}
		out[i].Attributes, values = values[:len(attributes):len(attributes)], values[len(attributes):]
		for j, field := range attributes {
			v := h.shard.attributes.Value(h.ordinal, field)
			copied += len(v.Keyword())
			for _, text := range v.Keywords() {
				copied += len(text)
			}
			out[i].Attributes[j] = v
		}
		if q.MaxText > 0 && copied > q.MaxText {
			return nil, 0, &TextError{Found: out[:i+1], Of: len(hits), Bytes: copied, Max: q.MaxText}
		}
	}
	return out, copied, nil
}
