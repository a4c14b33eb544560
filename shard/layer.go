package shard

import (
	"cmp"
	"context"
	"math/bits"
	"slices"
	"sync"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// Rows that have other attributes than their shard's file says are in layers: small tables
// of whole rows, which filters, segments and limits are evaluated over as they are over the
// file's. A row counts in one layer at most. New layers take in those that are not much
// larger, as in a log-structured merge tree, so that there are few of them, and a row is
// written few times.

// How layers, and runs of fresh rows, are merged: what is new takes in what has less than
// mergeFactor times as many rows, or less than mergeSmall, unless that makes more than
// mergeLarge, which is what one change may take a tenth of a second for.
const (
	mergeFactor = 2
	mergeSmall  = 256
	mergeLarge  = 1 << 15
)

// Mergeable reports whether so many rows that are new should be put together with a run of
// rows that there is: then there are few runs, and a row is moved few times.
func Mergeable(there, fresh int) bool {
	return there+fresh <= mergeLarge && there < max(mergeFactor*fresh, mergeSmall)
}

// layer is one layer, as one overlay has it.
type layer struct {
	*level
	live  index.Bitset // which of the level's rows count
	count int          // of those
}

// level is what overlays share of a layer. It does not change.
type level struct {
	columns
	ordinals []uint32  // of the shard, ascending: of each row
	scratch  sync.Pool // *index.Bitset, for the level's rows
}

// newLevel returns the level of rows, of which the columns are.
func newLevel(ordinals []uint32, c columns) *level {
	l := &level{columns: c, ordinals: ordinals}
	l.scratch.New = func() any {
		b := index.NewBitset(len(ordinals))
		return &b
	}
	return l
}

// find returns the place of an ordinal, if it counts here.
func (l *layer) find(ordinal uint32) (place uint32, ok bool) {
	i, ok := slices.BinarySearch(l.ordinals, ordinal)
	return uint32(i), ok && l.live.Has(uint32(i))
}

// lay makes dst, a set of the shard's ordinals, right for the layer's rows: they are in it
// if they pass a filter, unless it is nil, and are in a segment, unless it is empty. The
// error is the context's.
func (l *layer) lay(ctx context.Context, filter *eligibility.Bound, segment string, dst index.Bitset) error {
	set := l.scratch.Get().(*index.Bitset)
	defer l.scratch.Put(set)
	if _, err := l.eligible(ctx, filter, segment, *set); err != nil {
		return err
	}
	l.scatter(*set, dst)
	return nil
}

// scatter makes dst, a set of the shard's ordinals, have those of the layer's rows that are
// in a set of the layer's, and no others of them.
func (l *layer) scatter(set, dst index.Bitset) {
	for i, w := range l.live {
		ordinals, is := l.ordinals[i*64:], set[i]
		for ; w != 0; w &= w - 1 {
			at := bits.TrailingZeros64(w)
			o := ordinals[at]
			dst[o>>6] = dst[o>>6]&^(1<<(o&63)) | (is>>at&1)<<(o&63)
		}
	}
}

// gather makes set those of the layer's rows that are in src, a set of the shard's ordinals.
func (l *layer) gather(src, set index.Bitset) {
	for i, w := range l.live {
		ordinals, is := l.ordinals[i*64:], uint64(0)
		for ; w != 0; w &= w - 1 {
			at := bits.TrailingZeros64(w)
			o := ordinals[at]
			is |= src[o>>6] >> (o & 63) & 1 << at
		}
		set[i] = is
	}
}

// written is a row that is written to a new layer: its attributes, or where they are.
type written struct {
	ordinal    uint32
	attributes []attribute.Value
	from       *layer
	place      uint32
}

// newLayer writes rows, in ascending order of their ordinals. Where a segment's expression
// is no filter, they are in it if the shard's rows are.
func (o *Overlay) newLayer(rows []written) (layer, error) {
	s := o.ground.shard
	schema := s.attributes.Schema()
	w := attribute.NewWriter(schema, len(rows))
	ordinals, order := make([]uint32, len(rows)), make([]uint32, len(rows))
	for i := range rows {
		r := &rows[i]
		ordinals[i], order[i] = r.ordinal, uint32(i)
		for field := range schema.Len() {
			var v attribute.Value
			if r.from != nil {
				v = r.from.attributes.Value(r.place, field)
			} else {
				v = r.attributes[field]
			}
			if err := w.Set(i, field, v); err != nil {
				return layer{}, err
			}
		}
	}
	c, err := newColumns(len(rows), w, order, o.ground.tests, func(segment, row int) bool {
		return s.segments.bitmaps[segment].Has(ordinals[row])
	})
	if err != nil {
		return layer{}, err
	}
	l := layer{level: newLevel(ordinals, c), live: index.NewBitset(len(rows)), count: len(rows)}
	l.live.Fill(len(rows))
	return l, nil
}

// relayer makes the layers have the rows as they are given, and no others of them.
func (o *Overlay) relayer(rows []OverlaidRow) error {
	var fresh []written
	stale := false
	for i := range rows {
		r := &rows[i]
		stale = stale || o.HasChanged(r.Ordinal)
		if r.Attributes != nil && !r.Dead {
			fresh = append(fresh, written{ordinal: r.Ordinal, attributes: r.Attributes})
		}
	}
	if !stale && len(fresh) == 0 {
		return nil
	}
	if o.changed == nil {
		o.changed = index.NewBitset(o.ground.shard.Rows())
	} else {
		o.changed = slices.Clone(o.changed)
	}
	o.layers = slices.Clone(o.layers)
	o.unlayer(rows)
	o.layers = slices.DeleteFunc(o.layers, func(l layer) bool {
		mostlyStale := 2*l.count < len(l.ordinals)
		if mostlyStale {
			fresh = l.appendLive(fresh)
		}
		return mostlyStale
	})
	if len(fresh) > 0 {
		slices.SortFunc(o.layers, func(a, b layer) int { return cmp.Compare(b.count, a.count) })
		for n := len(o.layers) - 1; n >= 0 && Mergeable(o.layers[n].count, len(fresh)); n-- {
			fresh = o.layers[n].appendLive(fresh)
			o.layers = o.layers[:n]
		}
		slices.SortFunc(fresh, func(a, b written) int { return cmp.Compare(a.ordinal, b.ordinal) })
		l, err := o.newLayer(fresh)
		if err != nil {
			return err
		}
		o.layers = append(o.layers, l)
		for _, ordinal := range l.ordinals {
			o.changed.Set(ordinal)
		}
	}
	o.changedCount = 0
	for i := range o.layers {
		o.changedCount += o.layers[i].count
	}
	if o.changedCount == 0 {
		o.layers, o.changed = nil, nil
	}
	return nil
}

// unlayer makes rows count in no layer. The list of layers and the set of what has changed
// are the overlay's own.
func (o *Overlay) unlayer(rows []OverlaidRow) {
	own := make([]bool, len(o.layers))
	for i := range rows {
		ordinal := rows[i].Ordinal
		if !o.changed.Has(ordinal) {
			continue
		}
		n, place := o.layerOf(ordinal)
		l := &o.layers[n]
		if !own[n] {
			l.live, own[n] = slices.Clone(l.live), true
		}
		l.live.Unset(place)
		l.count--
		o.changed.Unset(ordinal)
	}
}

// appendLive appends the rows that count.
func (l layer) appendLive(dst []written) []written {
	for _, place := range l.live.Append(nil) {
		dst = append(dst, written{ordinal: l.ordinals[place], from: &l, place: place})
	}
	return dst
}

// layerOf returns the layer that a row that has changed counts in, and its place there.
func (o *Overlay) layerOf(ordinal uint32) (number int, place uint32) {
	for number = len(o.layers) - 1; number > 0; number-- {
		if place, ok := o.layers[number].find(ordinal); ok {
			return number, place
		}
	}
	place, _ = o.layers[0].find(ordinal)
	return 0, place
}
