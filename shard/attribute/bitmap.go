package attribute

import (
	"io"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/tandem-ann/tandem/index"
)

// Bitmap is a roaring bitmap of a shard's ordinals, used in place from the mapped
// file: what attributes keep for each of their values, for others who store sets
// of ordinals. It is only good while the file is open, and has no meaning unless
// [OpenBitmap] made it. The bitsets that its methods take have the length that
// [index.NewBitset] gives for the shard's rows.
type Bitmap struct{ p posting }

// OpenBitmap checks that data is one whole bitmap of ordinals below rows, so that
// no later call can fault or answer wrongly. An error is of class
// [sections.ErrCorrupt] and names the section.
func OpenBitmap(section string, data []byte, rows int) (Bitmap, error) {
	p := posting(data)
	return Bitmap{p}, p.check(section, rows)
}

// Count returns the number of ordinals, without looking at them.
func (b Bitmap) Count() int { return b.p.cardinality() }

// Has reports whether an ordinal is in the bitmap.
func (b Bitmap) Has(ordinal uint32) bool { return b.p.contains(ordinal) }

// CopyTo makes dst hold exactly the bitmap.
func (b Bitmap) CopyTo(dst index.Bitset) { b.p.copy(dst) }

// And keeps in dst what is also in the bitmap.
func (b Bitmap) And(dst index.Bitset) { b.p.and(dst) }

// WriteBitmap writes a set in the form that [OpenBitmap] reads and returns its
// length. The bytes depend only on the set.
func WriteBitmap(w io.Writer, set index.Bitset) (int64, error) {
	var m roaring.Bitmap
	return writeBitmap(w, &m, set.Append(nil))
}

// writeBitmap writes ascending ordinals by way of a scratch bitmap.
func writeBitmap(w io.Writer, scratch *roaring.Bitmap, ordinals []uint32) (int64, error) {
	scratch.Clear()
	scratch.AddMany(ordinals)
	scratch.RunOptimize()
	return scratch.WriteTo(w)
}
