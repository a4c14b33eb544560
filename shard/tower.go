package shard

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
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

// Tower is all shards of one entity kind, wherever they are. It is immutable and safe for
// any number of goroutines.
//
// It asks its parts in no other way than [Part] says. The first ones are the hash
// partition: an id that is in one of them is in that which [Partition] names. There may be
// further parts, of which each may have any id.
type Tower struct {
	kind        Kind
	parts       []Part
	hashed      int    // how many of the parts are the hash partition
	infos       []Info // of each part
	elsewhere   int    // how many of the parts are
	local       []*Shard
	beside      []*Shard // those in memory, of parts beside the hash partition
	over        bool     // it lies over another tower, which has the shards
	rows        int
	metric      index.Metric
	dim         int
	schema      attribute.Schema
	segmentRows []int // how many are eligible in each segment
	refused     Refused
	compiler    *eligibility.Compiler
	tests       *tests
	formed      []formed // ids that no form of what is asked for is; see forms
	// formedElsewhere are such of parts that are elsewhere.
	formedElsewhere []formedID
	memory          *memory
}

// memory is what queries of a tower, and of those that lie over it, work with.
type memory struct {
	scratch sync.Pool    // *fanOut
	lookups sync.Pool    // *lookup
	asking  atomic.Int32 // queries that are searching shards now
	shares  shares
}

// Refused is a set of ids that are as unknown, whatever parts say of them: of apps that are
// taken down, or users that are forgotten. It does not change, and is safe for any number of
// goroutines. A query calls HasAny with its candidates, and Has where that is true; neither
// allocates.
type Refused interface {
	// Has reports whether an id is in the set.
	Has(id string) bool
	// HasAny reports whether any of some ids is. It is for many of them, of which hardly any is:
	// an implementation may have it wait for memory once, and not once for each.
	HasAny(ids []string) bool
}

// NewTower returns the tower of shards of this process, which are the hash partition, in the
// order of their numbers, and which it takes over. All have that metric, that dimension,
// that schema and the same segments.
func NewTower(kind Kind, shards []*Shard, metric index.Metric, dim int, schema attribute.Schema) (*Tower, error) {
	compiler, err := eligibility.NewCompiler(schema)
	if err != nil {
		return nil, err
	}
	t := &tests{compiler: compiler}
	parts := make([]Part, len(shards))
	for i, s := range shards {
		t.list = s.Segments() // which all have
		parts[i] = newLocal(s, t)
	}
	return newTower(kind, parts, len(parts), metric, dim, schema, t), nil
}

// NewTowerOf returns the tower of parts, of which the first hashed ones are the hash
// partition of ids, in the order of their numbers. All have that metric, that dimension,
// that schema and the same segments. It takes over the shards of those that are [Local],
// and nothing of others.
func NewTowerOf(kind Kind, parts []Part, hashed int, metric index.Metric, dim int, schema attribute.Schema) (*Tower, error) {
	compiler, err := eligibility.NewCompiler(schema)
	if err != nil {
		return nil, err
	}
	return newTower(kind, parts, hashed, metric, dim, schema, &tests{compiler: compiler}), nil
}

func newTower(kind Kind, parts []Part, hashed int, metric index.Metric, dim int, schema attribute.Schema, tests *tests) *Tower {
	t := &Tower{
		kind: kind, parts: parts, hashed: hashed, metric: metric, dim: dim, schema: schema,
		compiler: tests.compiler, tests: tests, memory: new(memory),
	}
	for _, p := range parts {
		if l, ok := p.(*Local); ok {
			t.local = append(t.local, l.ground.shard)
		}
	}
	t.formed = takeFormed(t.local)
	t.memory.scratch.New = func() any { return new(fanOut) }
	t.memory.lookups.New = func() any { return new(lookup) }
	t.sum()
	if tests.list == nil {
		tests.list = t.Segments()
	}
	return t
}

// sum adds up what the parts tell.
func (t *Tower) sum() {
	t.infos, t.rows, t.elsewhere = make([]Info, len(t.parts)), 0, 0
	for i, p := range t.parts {
		if t.infos[i] = p.Info(); t.infos[i].Elsewhere {
			t.elsewhere++
		}
	}
	t.segmentRows = make([]int, len(t.Segments()))
	for _, info := range t.infos {
		t.rows += info.Rows
		for i, n := range info.SegmentRows {
			t.segmentRows[i] += n
		}
	}
}

// With returns a tower over the same shards, of which other views are asked: its hash
// partition is asked by way of hashed, which are as many parts as there are of it, and
// beside it there are the parts of beside, instead of what there is here. Those of refused,
// unless it is nil, are unknown. Both towers share their memory, and may be asked. This one
// keeps the shards: closing the other does nothing.
func (t *Tower) With(hashed, beside []Part, refused Refused) (*Tower, error) {
	if len(hashed) != t.hashed {
		return nil, fmt.Errorf("%d parts in place of the %d of the hash partition", len(hashed), t.hashed)
	}
	with := *t
	with.over, with.refused, with.beside = true, refused, nil
	with.parts = slices.Concat(hashed, beside)
	for _, p := range beside {
		if l, ok := p.(*Local); ok && l.ground.shard.inMemory {
			with.beside = append(with.beside, l.ground.shard)
		}
	}
	with.sum()
	return &with, nil
}

// Refused returns what the tower refuses, nil for nothing; see [Tower.With].
func (t *Tower) Refused() Refused { return t.refused }

// InMemory returns a part of rows that are in memory, which [Tower.With] takes to have
// beside the shards. See [InMemory].
func (t *Tower) InMemory(name string, ids []string, x *index.Index, attributes *attribute.Writer) (*Local, error) {
	if x.Dim() != t.dim || x.Metric() != t.metric {
		return nil, fmt.Errorf("shard %s: vectors of %d components, compared by %s, want %d and %s", name, x.Dim(), x.Metric(), t.dim, t.metric)
	}
	s, err := inMemory(name, ids, x, attributes, t.tests)
	if err != nil {
		return nil, err
	}
	return newLocal(s, t.tests), nil
}

// Close unmaps the files of the shards of this process, unless they are another tower's; see
// [Tower.With].
func (t *Tower) Close() error {
	if t.over {
		return nil
	}
	var err error
	for _, s := range t.local {
		err = errors.Join(err, s.Close())
	}
	return err
}

// Kind returns which entities the tower holds.
func (t *Tower) Kind() Kind { return t.kind }

// Rows returns the number of rows in all parts.
func (t *Tower) Rows() int { return t.rows }

// Dim returns the dimension of the vectors.
func (t *Tower) Dim() int { return t.dim }

// Metric returns how queries and rows are compared.
func (t *Tower) Metric() index.Metric { return t.metric }

// Schema returns the attributes.
func (t *Tower) Schema() attribute.Schema { return t.schema }

// Parts returns the parts in the order of [Answer].Shards. The caller must not change the
// slice.
func (t *Tower) Parts() []Part { return t.parts }

// Local returns the shards that are in this process, in the order of their numbers: all,
// of a tower that a process opened from a store, and none of what lies over them. It is for
// those who read the files of shards, as builds, gates and measurements do; who asks for
// rows need not know where they are. The caller must not change the slice.
func (t *Tower) Local() []*Shard { return t.local }

// Compile compiles an eligibility filter over the tower's attributes. An error is
// an *[eligibility.Error].
func (t *Tower) Compile(filter string) (*eligibility.Filter, error) {
	return t.compiler.Compile(filter)
}

// Trim lets go of the memory for what can be made again, and nobody needed since it was
// called last: compiled filters.
func (t *Tower) Trim() { t.compiler.Trim() }

// Segments returns the tower's segments in ascending order of their names. The
// caller must not change the slice.
func (t *Tower) Segments() []Segment {
	if len(t.parts) == 0 {
		return nil
	}
	return t.infos[0].Segments // every part has those of the manifest
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

// lookup is the memory of asking for one vector.
type lookup struct {
	ids [1]string
	dst [1][]float32
}

// Has reports whether the tower has id. An error is as of [Tower.Vector].
func (t *Tower) Has(ctx context.Context, at Moment, id string) (bool, error) {
	_, ok, err := t.Vector(ctx, at, id)
	return ok, err
}

// OutsideWindow reports whether the tower has id at other times: there is a row, whose window
// does not contain the moment's time. An error is as of [Tower.Vector].
func (t *Tower) OutsideWindow(ctx context.Context, at Moment, id string) (bool, error) {
	if t.refuses(id) {
		return false, nil
	}
	at.begin()
	for i := range t.holders(id) {
		rows, err := t.parts[i].Explain(ctx, &Request{Moment: at}, []string{id})
		if err != nil {
			return false, err
		}
		if rows[0].Known || rows[0].OutsideWindow {
			return !rows[0].Known, nil
		}
	}
	return false, nil
}

// Vector returns a copy of the embedding of id, and false if the tower does not
// have it. An error is that of a part that may have it; see [Part].
func (t *Tower) Vector(ctx context.Context, at Moment, id string) (v []float32, ok bool, err error) {
	if t.refuses(id) {
		return nil, false, nil
	}
	at.begin()
	l := t.memory.lookups.Get().(*lookup)
	l.ids[0] = id
	for i := range t.holders(id) {
		if err = t.parts[i].Vectors(ctx, at, l.ids[:], l.dst[:]); err != nil {
			break
		}
		if v = l.dst[0]; v != nil {
			break
		}
	}
	*l = lookup{}
	t.memory.lookups.Put(l)
	if err != nil {
		return nil, false, err
	}
	return v, v != nil, nil
}

// Vectors returns a copy of the embedding of each id, nil if the tower does not have it.
// An error is as of [Tower.Vector].
func (t *Tower) Vectors(ctx context.Context, at Moment, ids []string) ([][]float32, error) {
	at.begin()
	vectors := make([][]float32, len(ids))
	places := make([][]int, len(t.parts)) // in ids, of those that a part may have
	for place, id := range ids {
		if t.refuses(id) {
			continue
		}
		for i := range t.holders(id) {
			places[i] = append(places[i], place)
		}
	}
	found := make([][][]float32, len(t.parts))
	wanted := func(i int) bool { return len(places[i]) > 0 }
	err := t.each(wanted, func(i int) error {
		asked := make([]string, len(places[i]))
		for j, place := range places[i] {
			asked[j] = ids[place]
		}
		found[i] = make([][]float32, len(asked))
		return t.parts[i].Vectors(ctx, at, asked, found[i])
	})
	if err != nil {
		return nil, err
	}
	for i, list := range places {
		for j, place := range list {
			if found[i][j] != nil {
				vectors[place] = found[i][j]
			}
		}
	}
	return vectors, nil
}

// each calls do with the numbers of the parts that are wanted: at once for those that are
// elsewhere, and meanwhile for the others one after the other, up to an error. Once all calls
// have ended it returns the error of the first part that has one.
func (t *Tower) each(wanted func(part int) bool, do func(part int) error) error {
	if t.elsewhere == 0 {
		for i := range t.parts {
			if wanted(i) {
				if err := do(i); err != nil {
					return err
				}
			}
		}
		return nil
	}
	errs := make([]error, len(t.parts))
	var group sync.WaitGroup
	for i := range t.parts {
		if t.infos[i].Elsewhere && wanted(i) {
			group.Go(func() { errs[i] = do(i) })
		}
	}
	for i := range t.parts {
		if t.infos[i].Elsewhere || !wanted(i) {
			continue
		}
		if errs[i] = do(i); errs[i] != nil {
			break
		}
	}
	group.Wait()
	return cmp.Or(errs...)
}

// refuses reports whether an id is as unknown, whatever parts say.
func (t *Tower) refuses(id string) bool { return t.refused != nil && t.refused.Has(id) }

// begin takes the time, if that was not done.
func (m *Moment) begin() {
	if m.Time.IsZero() {
		m.Time = time.Now()
	}
}

// holders yields the numbers of the parts that may have an id.
func (t *Tower) holders(id string) iter.Seq[int] {
	return func(yield func(int) bool) {
		if t.hashed > 0 && !yield(Partition(id, t.hashed)) {
			return
		}
		for i := t.hashed; i < len(t.parts); i++ {
			if !yield(i) {
				return
			}
		}
	}
}
