package shard

import (
	"cmp"
	"context"
	"errors"
	"runtime"
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
	scratch  sync.Pool // *fanOut
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
	t.ask(ctx, q, f)

	answer := &Answer{TowerRows: t.rows, Shards: make([]ShardAnswer, len(f.parts))}
	asked := time.Now()
	answer.FanOut = asked.Sub(start)
	var failed error
	for i := range f.parts {
		p := &f.parts[i]
		f.lists[i] = p.hits
		answer.Shards[i] = p.answer
		if err := p.answer.Err; err != nil {
			if isFatal(err) {
				return nil, err
			}
			failed = cmp.Or(failed, err)
			f.lists[i] = nil
			continue
		}
		answer.Rows += p.answer.Rows
		answer.Eligible += p.answer.Eligible
	}
	if failed != nil && answer.Coverage() < q.MinCoverage {
		return nil, &CoverageError{Answered: answer.Answered(), Shards: len(t.shards), Coverage: answer.Coverage(), MinCoverage: q.MinCoverage, Err: failed}
	}
	answer.Candidates = candidates(f.merger.merge(t.metric, q.K, f.lists), q.Attributes)
	answer.Merge = time.Since(asked)
	return answer, nil
}

// ask searches the shards on at most one goroutine for each processor, the
// caller's among them.
func (t *Tower) ask(ctx context.Context, q *Query, f *fanOut) {
	workers := min(runtime.GOMAXPROCS(0), len(t.shards))
	var next atomic.Int32
	work := func() {
		for {
			i := int(next.Add(1)) - 1
			if i >= len(t.shards) {
				return
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
