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
	kind     Kind
	shards   []*Shard
	rows     int
	metric   index.Metric
	dim      int
	schema   attribute.Schema
	compiler *eligibility.Compiler
	scratch  sync.Pool    // *fanOut
	asking   atomic.Int32 // queries that are searching shards now
}

func newTower(kind Kind, shards []*Shard, metric index.Metric, dim int, schema attribute.Schema) (*Tower, error) {
	compiler, err := eligibility.NewCompiler(schema)
	if err != nil {
		return nil, err
	}
	t := &Tower{kind: kind, shards: shards, metric: metric, dim: dim, schema: schema, compiler: compiler}
	for _, s := range shards {
		t.rows += s.Rows()
	}
	t.scratch.New = func() any {
		return &fanOut{parts: make([]part, len(shards)), lost: make([]error, len(shards)), lists: make([][]hit, len(shards))}
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

// SegmentRows returns how many rows are eligible in each of [Tower.Segments].
func (t *Tower) SegmentRows() []int {
	rows := make([]int, len(t.Segments()))
	for _, s := range t.shards {
		for i, n := range s.SegmentRows() {
			rows[i] += n
		}
	}
	return rows
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

// Search asks every shard and merges their answers. A shard that has not begun
// when ctx ends does not answer, nor does one whose file cannot be read; if too few
// answer, the error is a [*CoverageError]. An error of class [index.ErrQuery] is the
// caller's to mend.
func (t *Tower) Search(ctx context.Context, q *Query) (*Answer, error) {
	if err := q.validate(t.schema); err != nil {
		return nil, err
	}
	if err := t.CheckSegment(q.Segment); err != nil {
		return nil, err
	}
	f := t.scratch.Get().(*fanOut) // lost if something panics, for its state is unknown then
	clear(f.lost)
	answer := &Answer{TowerRows: t.rows, Shards: make([]ShardAnswer, len(f.parts))}
	err := t.answer(ctx, q, f, answer)
	for t.loses(f, err) { // the others answer as if it had not from the beginning
		err = t.answer(ctx, q, f, answer)
	}
	t.release(f)
	t.scratch.Put(f)
	if err != nil {
		return nil, err
	}
	return answer, nil
}

// answer asks the shards that are not lost, and fills in the answer. A shard's file
// that can no longer be read once they were asked is an error, of class
// [sections.ErrUnreadable]. It guards mapped files as [sections.Guard] does, and
// allocates nothing for it.
func (t *Tower) answer(ctx context.Context, q *Query, f *fanOut, answer *Answer) (err error) {
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
	t.ask(ctx, q, f, nil)
	var merged []hit
	for {
		asked := time.Now()
		merged = f.merge(t.metric, q)
		short := f.exhausted(t.metric, q, merged)
		if len(short) > 0 && len(q.AtMost) > 0 {
			short = t.deepen(q, f, merged)
		}
		answer.Merge += time.Since(asked)
		if len(short) == 0 {
			break
		}
		// What is missing may be in these shards.
		t.ask(ctx, q, f, short)
		for _, i := range short {
			if err := f.parts[i].answer.Err; errors.Is(err, sections.ErrUnreadable) {
				return err
			}
		}
	}
	answer.FanOut = time.Since(start) - answer.Merge
	var failed error
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
		answer.Rows += p.answer.Rows
		answer.Eligible += p.answer.Eligible
	}
	if failed != nil && answer.Coverage() < q.MinCoverage {
		return &CoverageError{
			Answered: answer.Answered(), Shards: len(t.shards), Coverage: answer.Coverage(), MinCoverage: q.MinCoverage,
			Err: failed, Unreadable: answer.Unreadable(),
		}
	}
	answer.Candidates = candidates(merged, q.Attributes)
	if len(q.Explain) > 0 {
		answer.Explained, err = t.explain(q, f, merged)
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
		f.parts[i].k, f.parts[i].plan = k, q.Plan
		f.parts[i].answer = ShardAnswer{Err: f.lost[i]}
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

// merge merges what the parts that answered have found.
func (f *fanOut) merge(metric index.Metric, q *Query) []hit {
	for i := range f.parts {
		f.lists[i] = f.parts[i].hits
		if f.parts[i].answer.Err != nil {
			f.lists[i] = nil
		}
	}
	return f.merger.merge(metric, q.K, q.AtMost, f.lists)
}

// exhausted returns the parts that have more rows than they returned, of which some
// may be among the best k: too few were merged, or the last hit of the part ranks
// before the last one that was merged. Without limits it makes them ask for k, which
// is enough.
func (f *fanOut) exhausted(metric index.Metric, q *Query, merged []hit) []int {
	f.again = f.again[:0]
	for i := range f.parts {
		p := &f.parts[i]
		if p.answer.Err != nil || p.complete() {
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
// one more for each processor that no other query has a use for.
func (t *Tower) ask(ctx context.Context, q *Query, f *fanOut, only []int) {
	n := len(t.shards)
	if only != nil {
		n = len(only)
	}
	defer t.asking.Add(-1)
	workers := min(runtime.GOMAXPROCS(0)/int(t.asking.Add(1)), n)
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

// candidates copies the hits out of the mapped files.
func candidates(hits []hit, attributes []int) []Candidate {
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
	out := make([]Candidate, len(hits))
	values := make([]attribute.Value, len(hits)*len(attributes))
	for i := range hits {
		h := &hits[i]
		out[i] = Candidate{ID: ids[:len(h.id)], Score: h.score}
		ids = ids[len(h.id):]
		if len(attributes) == 0 {
			continue
		}
		out[i].Attributes, values = values[:len(attributes):len(attributes)], values[len(attributes):]
		for j, field := range attributes {
			out[i].Attributes[j] = h.shard.attributes.Value(h.ordinal, field)
		}
	}
	return out
}
