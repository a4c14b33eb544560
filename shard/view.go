package shard

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// view is all that a [Local] reads of its rows: which there are, what they have, which are
// eligible and how they score. It is what the shard has, of which the graph is a part that
// no view changes, and what lies over that at one moment. It reads the mapped file: who
// calls its methods guards against faults.
type view struct {
	shard *Shard
	over  *Overlay // nil: nothing lies over the shard
	// dead are the rows that there are no more, or not at the moment; nil: none. They are
	// dead for good, or outside of their windows.
	dead      index.Bitset
	deadCount int
}

// rows returns how many ordinals there are.
func (v *view) rows() int { return v.shard.index.Rows() }

// alive returns how many rows there are, which is as many as ordinals that are not dead.
func (v *view) alive() int { return v.rows() - v.deadCount }

// find returns the ordinal of an id that is not dead.
func (v *view) find(id string) (uint32, bool) {
	ordinal, ok := v.shard.Ordinal(id)
	return ordinal, ok && (v.dead == nil || !v.dead.Has(ordinal))
}

// outside reports whether there is a row of an id that a moment's time is outside the
// window of.
func (v *view) outside(id string) bool {
	if v.over == nil || len(v.over.windows) == 0 {
		return false
	}
	ordinal, ok := v.shard.Ordinal(id)
	return ok && v.dead != nil && v.dead.Has(ordinal) && !v.over.IsDead(ordinal)
}

// id returns the id of an ordinal. It aliases the mapped file.
func (v *view) id(ordinal uint32) string { return v.shard.id(ordinal) }

// compare orders ordinals by their ids.
func (v *view) compare(a, b uint32) int {
	return int(v.shard.index.Row(a)) - int(v.shard.index.Row(b))
}

// vector returns a copy of an embedding.
func (v *view) vector(ordinal uint32) []float32 {
	return v.shard.index.Vector(ordinal, make([]float32, 0, v.shard.index.Dim()))
}

// metric returns how rows are compared.
func (v *view) metric() index.Metric { return v.shard.index.Metric() }

// effort returns that of a walk which reaches a target. The dead are in a walk's way without
// being what it is for: where all others are eligible, it is one without a filter.
func (v *view) effort(k int, target float64, eligible int) int {
	return buried{v.shard.index.CostModel(), v.deadCount}.FilteredEffortFor(k, target, eligible)
}

// search searches; see [index.Index.Search].
func (v *view) search(q index.Query, dst []index.Hit) ([]index.Hit, index.Stats, error) {
	return v.shard.index.Search(q, dst)
}

// improve gives hits the better of their scores and those for a vector.
func (v *view) improve(vector []float32, hits []index.Hit) { v.shard.index.Improve(vector, hits) }

// table returns the attributes that say what a row has, and its place in them.
func (v *view) table(ordinal uint32) (*attribute.Table, uint32) {
	if v.over != nil && v.over.changed != nil && v.over.changed.Has(ordinal) {
		l, place := v.over.layerOf(ordinal)
		return v.over.layers[l].attributes, place
	}
	return v.shard.attributes, ordinal
}

// value returns a copy of an attribute.
func (v *view) value(ordinal uint32, field int) attribute.Value {
	table, place := v.table(ordinal)
	return table.Value(place, field)
}

// values appends the values that a row has of an attribute which may be limited. Their
// texts alias the mapped file.
func (v *view) values(ordinal uint32, field int, dst []FieldValue) []FieldValue {
	table, place := v.table(ordinal)
	switch table.Schema().Field(field).Type {
	case attribute.Keyword, attribute.KeywordList:
		for _, code := range table.Codes(place, field) {
			dst = append(dst, FieldValue{Field: field, Text: table.Text(field, code)})
		}
	default:
		if x := table.Value(place, field); !x.Absent() {
			dst = append(dst, FieldValue{Field: field, Number: x.Int()})
		}
	}
	return dst
}

// eligible makes dst the rows that pass a filter, unless it is nil, and are in a segment,
// unless it is empty, and counts them. The error is the context's, or of class
// [index.ErrQuery] for a segment that there is not.
func (v *view) eligible(ctx context.Context, filter *eligibility.Bound, segment string, dst index.Bitset) (n int, err error) {
	if _, ok := v.shard.segments.find(segment); segment != "" && !ok {
		return 0, fmt.Errorf("shard %s has no segment %.80q: %w", v.shard.name, segment, index.ErrQuery)
	}
	columns := v.shard.columns()
	if n, err = columns.eligible(ctx, filter, segment, dst); err != nil || v.over == nil {
		return n, err
	}
	if filter != nil || segment != "" {
		for i := range v.over.layers {
			if err := v.over.layers[i].lay(ctx, filter, segment, dst); err != nil {
				return 0, err
			}
		}
	}
	if v.dead != nil {
		dst.AndNot(v.dead)
	}
	return dst.Count(), nil
}

// inSegment reports whether a row is in a segment, or the name is empty.
func (v *view) inSegment(name string, ordinal uint32) bool {
	if name == "" {
		return true
	}
	if v.over != nil && v.over.changed != nil && v.over.changed.Has(ordinal) {
		l, place := v.over.layerOf(ordinal)
		rows, ok := v.over.layers[l].segments.find(name)
		return ok && rows.Has(place)
	}
	rows, ok := v.shard.segments.find(name)
	return ok && rows.Has(ordinal)
}

// withoutStep is how many sets of rows are removed between two pauses: one may take some
// ten microseconds.
const withoutStep = 16

// without removes from dst the rows that have one of the values. The error is the
// context's.
func (v *view) without(ctx context.Context, values []FieldValue, dst, scratch index.Bitset) error {
	if v.over == nil || len(v.over.layers) == 0 {
		return without(ctx, v.shard.attributes, values, dst, scratch)
	}
	// What the shard says of rows that have changed does not count: those that are there
	// are put aside, and put back without those that have a value by now.
	layers := v.over.layers
	aside := make([]*index.Bitset, len(layers))
	for i := range layers {
		aside[i] = layers[i].scratch.Get().(*index.Bitset)
		layers[i].gather(dst, *aside[i])
	}
	err := without(ctx, v.shard.attributes, values, dst, scratch)
	for i := range layers {
		l := &layers[i]
		if err == nil {
			more := l.scratch.Get().(*index.Bitset)
			err = without(ctx, l.attributes, values, *aside[i], *more)
			l.scratch.Put(more)
			l.scatter(*aside[i], dst)
		}
		l.scratch.Put(aside[i])
	}
	return err
}

// without removes from dst the rows of a table that have one of the values. The error is
// the context's.
func without(ctx context.Context, table *attribute.Table, values []FieldValue, dst, scratch index.Bitset) error {
	for i, value := range values {
		if i%withoutStep == withoutStep-1 {
			if err := pause(ctx); err != nil {
				return err
			}
		}
		var set attribute.Set
		switch table.Schema().Field(value.Field).Type {
		case attribute.Bool:
			set = table.Is(value.Field, value.Number != 0)
		case attribute.Int:
			set = table.Ints(value.Field, value.Number, value.Number)
		default:
			set = table.Keyword(value.Field, value.Text)
		}
		set.AndNot(dst, scratch)
	}
	return nil
}
