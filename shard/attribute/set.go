package attribute

import (
	"math"
	"time"

	"github.com/tandem-ann/tandem/index"
)

// Set is the answer to one question about an attribute: the ordinals for which
// it is true, found but not yet materialised. It is a small value that costs no
// allocation and is only good while its table's file is open. An ordinal that
// does not have the attribute is in no Set. The zero Set is empty.
//
// The bitsets that its methods take have the length that [index.NewBitset] gives
// for the table's rows; scratch may hold anything and is overwritten.
type Set struct {
	c      *column
	kind   setKind
	lo, hi int // kinds values and stretch
}

type setKind uint8

const (
	empty   setKind = iota
	present         // c.has
	yes             // c.yes
	no              // c.has without c.yes
	values          // keywords lo <= v < hi
	stretch         // c.sorted[lo:hi]
)

// Has asks for the ordinals that have attribute field.
func (t *Table) Has(field int) Set { return Set{c: &t.columns[field], kind: present} }

// Is asks for the ordinals whose bool is b.
func (t *Table) Is(field int, b bool) Set {
	c := t.column(field, Bool, Bool)
	if b {
		return Set{c: c, kind: yes}
	}
	return Set{c: c, kind: no}
}

// Keyword asks for the ordinals whose keyword is s, or whose keyword list
// contains it.
func (t *Table) Keyword(field int, s string) Set {
	c := t.column(field, Keyword, KeywordList)
	v := c.search(s)
	if v == c.values() || string(c.keyword(v)) != s {
		return Set{}
	}
	return c.set(values, v, v+1)
}

// Prefix asks for the ordinals whose keyword starts with prefix, or whose
// keyword list contains one that does.
func (t *Table) Prefix(field int, prefix string) Set {
	c := t.column(field, Keyword, KeywordList)
	lo := c.search(prefix)
	return c.set(values, lo, c.searchAfterPrefix(lo, prefix))
}

// Below asks for the ordinals whose keyword is less than s, by bytes.
func (t *Table) Below(field int, s string) Set {
	c := t.column(field, Keyword, KeywordList)
	return c.set(values, 0, c.search(s))
}

// From asks for the ordinals whose keyword is s or greater, by bytes.
func (t *Table) From(field int, s string) Set {
	c := t.column(field, Keyword, KeywordList)
	return c.set(values, c.search(s), c.values())
}

// Ints asks for the ordinals whose int is in [lo, hi]. Both ends belong to the range:
// an int range with an open or unbounded end is a closed one.
func (t *Table) Ints(field int, lo, hi int64) Set {
	c := t.column(field, Int, Int)
	if lo > hi {
		return Set{}
	}
	return c.set(stretch, c.searchNumber(uint64(lo), false), c.searchNumber(uint64(hi), true))
}

// Times asks for the ordinals whose timestamp is in [lo, hi]. An open end is a
// nanosecond further; an end may be any time.
func (t *Table) Times(field int, lo, hi time.Time) Set {
	c := t.column(field, Timestamp, Timestamp)
	if lo.After(hi) {
		return Set{}
	}
	return c.set(stretch, c.searchTime(lo, false), c.searchTime(hi, true))
}

// Floats asks for the ordinals whose float, or float32, is in [lo, hi]. An end may be
// infinite; an open end is the next float ([math.Nextafter]).
func (t *Table) Floats(field int, lo, hi float64) Set {
	c := t.column(field, Float, Float32)
	if !(lo <= hi) { // also if one is NaN
		return Set{}
	}
	return c.set(stretch, c.searchNumber(math.Float64bits(lo), false), c.searchNumber(math.Float64bits(hi), true))
}

func (c *column) set(kind setKind, lo, hi int) Set {
	switch {
	case lo >= hi:
		return Set{}
	case kind == values && hi-lo == c.values(), kind == stretch && hi-lo == len(c.sorted):
		return Set{c: c, kind: present}
	}
	return Set{c: c, kind: kind, lo: lo, hi: hi}
}

// Empty reports whether no ordinal can be in the set, without looking at any.
func (s Set) Empty() bool { return s.kind == empty }

// CopyTo makes dst hold exactly the set.
func (s Set) CopyTo(dst index.Bitset) {
	switch s.kind {
	case empty:
		dst.Clear()
	case present:
		s.c.has.copy(dst)
	case yes:
		s.c.yes.copy(dst)
	case no:
		s.c.has.copy(dst)
		s.c.yes.andNot(dst)
	case values:
		if s.hi-s.lo == 1 {
			s.c.posting(s.lo).copy(dst)
			return
		}
		dst.Clear()
		s.orValues(dst)
	case stretch:
		s.c.copyStretch(s.lo, s.hi, dst)
	}
}

// Or adds the set to dst.
func (s Set) Or(dst, scratch index.Bitset) {
	switch s.kind {
	case empty:
	case present:
		s.c.has.or(dst)
	case yes:
		s.c.yes.or(dst)
	case values:
		s.orValues(dst)
	case stretch:
		if s.c.fewer(s.lo, s.hi, len(dst)) {
			s.c.setAll(s.lo, s.hi, dst)
			return
		}
		fallthrough
	default:
		s.CopyTo(scratch)
		dst.Or(scratch)
	}
}

// And keeps in dst what is also in the set.
func (s Set) And(dst, scratch index.Bitset) {
	switch s.kind {
	case empty:
		dst.Clear()
	case present:
		s.c.has.and(dst)
	case yes:
		s.c.yes.and(dst)
	case no:
		s.c.has.and(dst)
		s.c.yes.andNot(dst)
	case values:
		if s.hi-s.lo == 1 {
			s.c.posting(s.lo).and(dst)
			return
		}
		s.CopyTo(scratch)
		dst.And(scratch)
	case stretch:
		s.c.andStretch(s.lo, s.hi, dst, scratch)
	}
}

// AndNot removes the set from dst.
func (s Set) AndNot(dst, scratch index.Bitset) {
	switch s.kind {
	case empty:
	case present:
		s.c.has.andNot(dst)
	case yes:
		s.c.yes.andNot(dst)
	case values:
		if s.hi-s.lo == 1 {
			s.c.posting(s.lo).andNot(dst)
			return
		}
		s.CopyTo(scratch)
		dst.AndNot(scratch)
	case stretch:
		if s.c.fewer(s.lo, s.hi, len(dst)) {
			s.c.unsetAll(s.lo, s.hi, dst)
			return
		}
		fallthrough
	default:
		s.CopyTo(scratch)
		dst.AndNot(scratch)
	}
}

// orValues adds keywords lo <= v < hi to dst, by their postings if they are few
// and else by a pass over the rows, so that the time does not grow with the
// number of distinct keywords.
func (s Set) orValues(dst index.Bitset) {
	c := s.c
	if s.hi-s.lo <= max(64, len(dst)/4) {
		for v := s.lo; v < s.hi; v++ {
			c.posting(v).or(dst)
		}
		return
	}
	lo, n := uint32(s.lo), uint64(s.hi-s.lo)
	if c.typ == Keyword {
		for i := range dst {
			codes := c.codes[i*64 : min(i*64+64, len(c.codes))]
			var word uint64
			for j, v := range codes {
				// v - lo wraps for v < lo, and absent is above every value, so the
				// difference is negative just if lo <= v < hi.
				word |= (uint64(v-lo) - n) >> 63 << (j & 63)
			}
			dst[i] |= word
		}
		return
	}
	for i := range len(c.listOffsets) - 1 {
		var bit uint64
		for _, v := range c.codes[c.listOffsets[i]:c.listOffsets[i+1]] {
			bit |= (uint64(v-lo) - n) >> 63
		}
		dst[i>>6] |= bit << (i & 63)
	}
}
