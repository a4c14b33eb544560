package overlay

import (
	"errors"
	"fmt"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/live"
)

// row is what holds of one app or user in a snapshot. It depends on the state alone, and on
// the row that the snapshot has, so it does not matter in which order events came, or how
// many of them were applied at a time.
type row struct {
	// dead is whether the snapshot's row does not count.
	dead bool
	// window is when it is there.
	window live.Window
	// set are the attributes that the snapshot's row has in place of its own, by schema
	// position. One that was set to what does not fit it has not.
	set []assigned
	// fresh is what was upserted, nil if nothing that counts was, and attributes are what it
	// has, by schema position.
	fresh      *live.Upserted
	attributes []attribute.Value
	misfits    []string
}

// assigned is a value that an attribute has.
type assigned struct {
	field int
	value attribute.Value
}

// covers reports whether the snapshot's inputs reflect an event.
func (b *batch) covers(sequence uint64) bool { return b.state.Covers(b.inputs, sequence) }

// rowOf returns what holds of an app or user.
func (b *batch) rowOf(id string) (r row) {
	if b.refused != nil && b.refused.Has(id) {
		return row{dead: true}
	}
	record := b.state.Record(b.kind, id)
	if record == nil {
		return row{}
	}
	r.window = record.Window
	r.dead = record.Removed > 0 && !b.covers(record.Removed)
	u := record.Upserted(b.shape.Model, b.shape.ModelVersion)
	if u != nil && !b.covers(u.Sequence) && b.takeFresh(&r, id, record, u) {
		r.dead = true
	}
	if r.dead {
		return r
	}
	for _, name := range sortedNames(record.Set) {
		set := record.Set[name]
		if b.covers(set.Sequence) {
			continue
		}
		a, ok := b.assign(&r, id, name, set.Value)
		if field, known := b.schema.Lookup(name); known && !ok {
			// The snapshot's own value is not it any more, nor may one that was set before be.
			a, ok = assigned{field: field}, true
		}
		if ok {
			r.set = append(r.set, a)
		}
	}
	return r
}

// takeFresh makes an upsert the row, unless it does not fit. What was set since, and does
// not fit, it does not have.
func (t *tower) takeFresh(r *row, id string, record *live.Record, u *live.Upserted) bool {
	if err := t.shape.fitsVector(u.Vector); err != nil {
		r.misfit(t.kind, id, "vector", err)
		return false
	}
	values := make([]attribute.Value, t.schema.Len())
	for _, name := range sortedNames(u.Attributes) {
		a, ok := t.assign(r, id, name, u.Attributes[name])
		if ok {
			values[a.field] = a.value
			continue
		}
		// What the snapshot has no attribute for, no query asks for.
		if set, ok := record.Set[name]; t.has(name) && !(ok && set.Sequence >= u.Sequence) {
			return false
		}
	}
	r.fresh, r.attributes = u, values
	return true
}

// has reports whether the snapshot has an attribute.
func (t *tower) has(name string) bool {
	_, ok := t.schema.Lookup(name)
	return ok
}

// assign returns a value as the snapshot has it, or notes why it cannot.
func (t *tower) assign(r *row, id, name string, v attribute.Value) (assigned, bool) {
	field, stored, err := fitsAttribute(t.schema, name, v)
	if err != nil {
		if errors.Is(err, ErrNoAttribute) {
			err = ErrNoAttribute // which ones there are is of no use in a status
		}
		r.misfit(t.kind, id, "attribute "+name, err)
		return assigned{}, false
	}
	return assigned{field, stored}, true
}

func (r *row) misfit(kind shard.Kind, id, what string, err error) {
	r.misfits = append(r.misfits, fmt.Sprintf("%s %q: %s: %v", kind[:len(kind)-1], id, what, err))
}

// over returns all attributes that a row of a shard has with what was set, by schema
// position; nil if they are the shard's.
func (t *tower) over(s *shard.Shard, ordinal uint32, set []assigned) []attribute.Value {
	differs := false
	for _, a := range set {
		differs = differs || !a.value.Equal(s.Attributes().Value(ordinal, a.field))
	}
	if !differs {
		return nil
	}
	values := make([]attribute.Value, t.schema.Len())
	for field := range values {
		values[field] = s.Attributes().Value(ordinal, field)
	}
	for _, a := range set {
		values[a.field] = a.value
	}
	return values
}

// sizeOf returns how many bytes a fresh row has.
func sizeOf(id string, vector []float32, values []attribute.Value) int64 {
	n := len(id) + 4*len(vector)
	for _, v := range values {
		switch v.Type() {
		case 0:
		case attribute.Keyword:
			n += len(v.Keyword())
		case attribute.KeywordList:
			for _, text := range v.Keywords() {
				n += len(text)
			}
		case attribute.Bool:
			n++
		case attribute.Float32:
			n += 4
		default:
			n += 8
		}
	}
	return int64(n)
}
