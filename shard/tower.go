package shard

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/index"
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
	t.scratch.New = func() any { return &fanOut{parts: make([]part, len(shards)), lists: make([][]hit, len(shards))} }
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

// Vector returns a copy of the embedding of id, and false if the tower does not
// have it.
func (t *Tower) Vector(id string) ([]float32, bool) {
	if len(t.shards) == 0 {
		return nil, false
	}
	s := t.shards[Partition(id, len(t.shards))]
	ordinal, ok := s.Ordinal(id)
	if !ok {
		return nil, false
	}
	return s.index.Vector(ordinal, make([]float32, 0, t.dim)), true
}

// fanOut is the memory of one query.
type fanOut struct {
	parts  []part
	lists  [][]hit
	merger merger
	again  []int
}

// Search asks every shard and merges their answers. A shard that has not begun
// when ctx ends does not answer; if too few answer, the error is a
// [*CoverageError]. An error of class [index.ErrQuery] is the caller's to mend.
func (t *Tower) Search(ctx context.Context, q *Query) (*Answer, error) {
	if err := q.validate(t.schema); err != nil {
		return nil, err
	}
	f := t.scratch.Get().(*fanOut)
	defer t.scratch.Put(f)
	start := time.Now()
	for i := range f.parts {
		f.parts[i].k = q.K
		if q.Ef == 0 && q.Target < 1 {
			f.parts[i].k = share(q.K, len(t.shards))
		}
	}
	t.ask(ctx, q, f, nil)
	asked := time.Now()
	merged := f.merge(t.metric, q.K)
	merge := time.Since(asked)
	if short := f.exhausted(merged, q.K); len(short) > 0 {
		// More of the best are in these shards than they were asked for.
		t.ask(ctx, q, f, short)
		merged = f.merge(t.metric, q.K)
	}

	answer := &Answer{TowerRows: t.rows, Shards: make([]ShardAnswer, len(f.parts)), Merge: merge}
	answer.FanOut = time.Since(start) - merge
	var failed error
	for i := range f.parts {
		p := &f.parts[i]
		answer.Shards[i] = p.answer
		if err := p.answer.Err; err != nil {
			if isFatal(err) {
				return nil, err
			}
			failed = cmp.Or(failed, err)
			continue
		}
		answer.Rows += p.answer.Rows
		answer.Eligible += p.answer.Eligible
	}
	if failed != nil && answer.Coverage() < q.MinCoverage {
		return nil, &CoverageError{Answered: answer.Answered(), Shards: len(t.shards), Coverage: answer.Coverage(), MinCoverage: q.MinCoverage, Err: failed}
	}
	answer.Candidates = candidates(merged, q.Attributes)
	return answer, nil
}

// merge merges what the parts that answered have found.
func (f *fanOut) merge(metric index.Metric, k int) []hit {
	for i := range f.parts {
		f.lists[i] = f.parts[i].hits
		if f.parts[i].answer.Err != nil {
			f.lists[i] = nil
		}
	}
	return f.merger.merge(metric, k, f.lists)
}

// exhausted returns the parts that were asked for fewer than k hits and may have
// more of the best k than they returned: all their hits were merged, or too few
// were merged in all. It makes them ask for k.
func (f *fanOut) exhausted(merged []hit, k int) []int {
	f.again = f.again[:0]
	for i := range f.parts {
		p := &f.parts[i]
		if p.k == k || p.answer.Err != nil || len(p.hits) < p.k {
			continue
		}
		last := p.hits[len(p.hits)-1]
		if len(merged) < k || slices.ContainsFunc(merged, func(h hit) bool { return h.shard == last.shard && h.ordinal == last.ordinal }) {
			p.k = k
			f.again = append(f.again, i)
		}
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
