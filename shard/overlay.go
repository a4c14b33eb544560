package shard

import (
	"fmt"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Overlay is what has changed of the rows of a shard since it was written, at one position
// of the live log. It is immutable and safe for any number of goroutines; [Overlay.With]
// makes the next one of it, with which it shares what is the same in both.
//
// # Goals
//
// A query costs what it does without, but for what has changed. An overlay is made in a
// time that depends on the rows that change, but for one pass over a bit for each row.
//
// # Design
//
// Rows that are gone are a set: the graph is walked through them, and filters leave them
// out. Rows that are there at some times only are in that set, or not, by the time of the
// request; the sets of the last two intervals in which none of them comes or goes are kept.
// Rows with other attributes are in layers, which are evaluated after the file.
type Overlay struct {
	ground *ground
	at     Position

	dead      index.Bitset // nil: none
	deadCount int

	layers       []layer
	changed      index.Bitset // the rows that count in a layer; nil: none
	changedCount int

	windows []window // ascending by ordinal; of rows that are not dead
	spans   atomic.Pointer[[2]*span]

	segmentRows []int // how many of the rows that are not dead are in each segment
}

// ground is what overlays lie over.
type ground struct {
	shard *Shard
	tests *tests
	work  sync.Pool // *work, which parts that are the same shard share
}

// window is when a row is there: from a time on and until before a time. A zero time is no
// bound.
type window struct {
	ordinal     uint32
	from, until time.Time
}

// OverlaidRow is what an overlay says of one row of its shard.
type OverlaidRow struct {
	Ordinal uint32
	// Dead is whether there is no such row any more. Then the rest has no meaning.
	Dead bool
	// From and Until are when it is there: from From on, until before Until. A zero time is
	// no bound.
	From, Until time.Time
	// Attributes are all that the row has, by schema position, nil that they are those of
	// the shard.
	Attributes []attribute.Value
}

// Overlay returns what lies over the shard, which is an empty overlay if nothing does.
func (l *Local) Overlay() *Overlay {
	if l.over != nil {
		return l.over
	}
	return &Overlay{ground: l.ground, segmentRows: l.ground.shard.SegmentRows()}
}

// Part returns the part that the shard is with this over it. That from which the overlay was
// made may be asked, too.
func (o *Overlay) Part() *Local {
	s := o.ground.shard
	return &Local{ground: o.ground, over: o, info: Info{
		Name: s.name, Rows: o.Rows(), Segments: s.Segments(), SegmentRows: o.segmentRows, Changed: o.changedCount,
		Costs: CostsOf(s.index.CostModel(), o.deadCount),
	}}
}

// With returns the overlay of a position, which says of rows what it is given, and of all
// others what this one says. The rows are in ascending order of their ordinals. An error is
// about one of them, or an [*UnreadableError].
func (o *Overlay) With(at Position, rows []OverlaidRow) (*Overlay, error) {
	next, err := o.with(at, rows)
	if err != nil {
		return nil, fmt.Errorf("lay over shard %s: %w", o.ground.shard.name, o.ground.shard.named(err))
	}
	return next, nil
}

func (o *Overlay) with(at Position, rows []OverlaidRow) (_ *Overlay, err error) {
	defer sections.Guard(&err)()
	next := &Overlay{
		ground: o.ground, at: at, dead: o.dead, deadCount: o.deadCount,
		layers: o.layers, changed: o.changed, changedCount: o.changedCount,
		windows: o.windows, segmentRows: o.segmentRows,
	}
	last := o.spans.Load()
	if len(rows) == 0 {
		next.spans.Store(last)
		return next, nil
	}
	if err := o.check(rows); err != nil {
		return nil, err
	}
	next.bury(rows)
	if err := next.relayer(rows); err != nil {
		return nil, err
	}
	next.rewindow(rows)
	next.recount(o, rows)
	if last != nil && len(next.windows) > 0 { // so that no query has to
		next.spans.Store(&[2]*span{next.spanAt(last[0].asked)})
	}
	return next, nil
}

// check returns an error unless the rows are ascending ones of the shard.
func (o *Overlay) check(rows []OverlaidRow) error {
	schema := o.ground.shard.attributes.Schema()
	for i := range rows {
		r := &rows[i]
		switch {
		case int(r.Ordinal) >= o.ground.shard.Rows():
			return fmt.Errorf("row %d of %d", r.Ordinal, o.ground.shard.Rows())
		case i > 0 && rows[i-1].Ordinal >= r.Ordinal:
			return fmt.Errorf("row %d comes after row %d", r.Ordinal, rows[i-1].Ordinal)
		case r.Attributes != nil && len(r.Attributes) != schema.Len():
			return fmt.Errorf("row %d has %d attributes, the schema %d", r.Ordinal, len(r.Attributes), schema.Len())
		}
	}
	return nil
}

// bury makes rows dead or not.
func (o *Overlay) bury(rows []OverlaidRow) {
	own := false
	for i := range rows {
		r := &rows[i]
		if r.Dead == o.IsDead(r.Ordinal) {
			continue
		}
		if !own {
			own = true
			if o.dead == nil {
				o.dead = index.NewBitset(o.ground.shard.Rows())
			} else {
				o.dead = slices.Clone(o.dead)
			}
		}
		if r.Dead {
			o.dead.Set(r.Ordinal)
			o.deadCount++
		} else {
			o.dead.Unset(r.Ordinal)
			o.deadCount--
		}
	}
	if o.deadCount == 0 {
		o.dead = nil
	}
}

// rewindow gives rows their windows.
func (o *Overlay) rewindow(rows []OverlaidRow) {
	var given []window
	had := false
	for i := range rows {
		r := &rows[i]
		if !r.Dead && !(r.From.IsZero() && r.Until.IsZero()) {
			given = append(given, window{r.Ordinal, r.From, r.Until})
		}
		had = had || o.hasWindow(r.Ordinal)
	}
	if !had && len(given) == 0 {
		return
	}
	merged := make([]window, 0, len(o.windows)+len(given))
	at := 0
	for _, w := range o.windows {
		for at < len(rows) && rows[at].Ordinal < w.ordinal {
			at++
		}
		if at < len(rows) && rows[at].Ordinal == w.ordinal {
			continue
		}
		for len(given) > 0 && given[0].ordinal < w.ordinal {
			merged, given = append(merged, given[0]), given[1:]
		}
		merged = append(merged, w)
	}
	merged = append(merged, given...)
	o.windows = merged
}

func (o *Overlay) hasWindow(ordinal uint32) bool {
	i := sort.Search(len(o.windows), func(i int) bool { return o.windows[i].ordinal >= ordinal })
	return i < len(o.windows) && o.windows[i].ordinal == ordinal
}

// manyRows is how many rows of a shard, as a part of it, make counting all again cheaper
// than counting each.
const manyRows = 1024

// recount makes the counts of segments right, which are those of before but for rows.
func (o *Overlay) recount(before *Overlay, rows []OverlaidRow) {
	all := o.ground.shard.segments
	if len(all.list) == 0 {
		return
	}
	o.segmentRows = slices.Clone(o.segmentRows)
	v, was := view{shard: o.ground.shard, over: o}, view{shard: o.ground.shard, over: before}
	if len(rows) > 64+o.ground.shard.Rows()/manyRows {
		set := index.NewBitset(o.ground.shard.Rows())
		for i, b := range all.bitmaps {
			b.CopyTo(set)
			for n := range o.layers {
				l := &o.layers[n]
				own := l.scratch.Get().(*index.Bitset)
				l.segments.bitmaps[i].CopyTo(*own)
				l.scatter(*own, set)
				l.scratch.Put(own)
			}
			if o.dead != nil {
				set.AndNot(o.dead)
			}
			o.segmentRows[i] = set.Count()
		}
		return
	}
	for i := range rows {
		ordinal := rows[i].Ordinal
		for n, s := range all.list {
			if !before.IsDead(ordinal) && was.inSegment(s.Name, ordinal) {
				o.segmentRows[n]--
			}
			if !o.IsDead(ordinal) && v.inSegment(s.Name, ordinal) {
				o.segmentRows[n]++
			}
		}
	}
}

// At returns the position.
func (o *Overlay) At() Position { return o.at }

// IsDead reports whether there is no such row any more, at whatever time.
func (o *Overlay) IsDead(ordinal uint32) bool { return o.dead != nil && o.dead.Has(ordinal) }

// HasChanged reports whether a row has other attributes than in the shard.
func (o *Overlay) HasChanged(ordinal uint32) bool {
	return o.changed != nil && o.changed.Has(ordinal)
}

// Window returns when a row is there that is not dead. A zero time is no bound.
func (o *Overlay) Window(ordinal uint32) (from, until time.Time) {
	i := sort.Search(len(o.windows), func(i int) bool { return o.windows[i].ordinal >= ordinal })
	if i < len(o.windows) && o.windows[i].ordinal == ordinal {
		return o.windows[i].from, o.windows[i].until
	}
	return time.Time{}, time.Time{}
}

// Rows returns how many rows are not dead.
func (o *Overlay) Rows() int { return o.ground.shard.Rows() - o.deadCount }

// Dead returns how many rows are dead.
func (o *Overlay) Dead() int { return o.deadCount }

// Changed returns how many rows have other attributes than in the shard.
func (o *Overlay) Changed() int { return o.changedCount }

// Windows returns how many rows have a window.
func (o *Overlay) Windows() int { return len(o.windows) }

// Layers returns how many tables of changed rows there are.
func (o *Overlay) Layers() int { return len(o.layers) }

// span is an interval of time in which no row comes or goes, with the rows that are dead
// then. A zero time is no bound.
type span struct {
	from, until time.Time
	asked       time.Time // a time in it
	dead        index.Bitset
	count       int
}

func (s *span) contains(t time.Time) bool {
	return (s.from.IsZero() || !t.Before(s.from)) && (s.until.IsZero() || t.Before(s.until))
}

// deadAt returns the rows that are dead, or outside of their windows, and how many they
// are. Without one the set is nil.
func (o *Overlay) deadAt(t time.Time) (index.Bitset, int) {
	if len(o.windows) == 0 {
		return o.dead, o.deadCount
	}
	last := o.spans.Load()
	if last != nil {
		for _, s := range last {
			if s != nil && s.contains(t) {
				return s.dead, s.count
			}
		}
	}
	// Two are kept, for about the time of a bound requests come from both sides of it.
	s := o.spanAt(t)
	next := &[2]*span{s}
	if last != nil {
		next[1] = last[0]
	}
	o.spans.Store(next)
	return s.dead, s.count
}

// spanAt returns the span that has a time.
func (o *Overlay) spanAt(t time.Time) *span {
	s := &span{asked: t, count: o.deadCount}
	if o.dead != nil {
		s.dead = slices.Clone(o.dead)
	} else {
		s.dead = index.NewBitset(o.ground.shard.Rows())
	}
	// bound narrows the span by a time at which a row comes or goes, and reports whether
	// that is still to come.
	bound := func(at time.Time) bool {
		if t.Before(at) {
			if s.until.IsZero() || at.Before(s.until) {
				s.until = at
			}
			return true
		}
		if at.After(s.from) {
			s.from = at
		}
		return false
	}
	for i := range o.windows {
		w := &o.windows[i]
		outside := !w.from.IsZero() && bound(w.from)
		if !w.until.IsZero() && !bound(w.until) {
			outside = true
		}
		if outside {
			s.dead.Set(w.ordinal)
			s.count++
		}
	}
	if s.count == 0 {
		s.dead = nil
	}
	return s
}
