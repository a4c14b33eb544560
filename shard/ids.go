package shard

import (
	"encoding/binary"
	"sort"
	"strings"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/text/unicode/norm"

	"github.com/tandem-ann/tandem/index/sections"
)

const (
	idOffsetsSection = "shard.id_offsets"
	idBytesSection   = "shard.id_bytes"
)

// ids are the ids of a shard's rows, strictly ascending, in place.
//
// To look an id up by halves in a mapped file waits for memory at each step. So the
// first bytes in which ids differ are kept of a sample of them, which is small enough
// for a processor's cache: it tells where a few ids are that may be the one.
type ids struct {
	offsets []uint64
	bytes   []byte
	prefix  string   // what all ids begin with; it aliases the mapped file
	heads   []uint64 // of every headEvery-th id

	formed []formed // what the tower takes; see forms
}

// headEvery is how many ids are between two whose head is kept.
const headEvery = 16

func writeIDs(w *sections.Writer, list []string) error {
	offsets := make([]uint64, 1, len(list)+1)
	for _, id := range list {
		offsets = append(offsets, offsets[len(offsets)-1]+uint64(len(id)))
	}
	if err := w.Section(idOffsetsSection, sections.Bytes(offsets)); err != nil {
		return err
	}
	if err := w.Begin(idBytesSection); err != nil {
		return err
	}
	for _, id := range list {
		if _, err := w.Write(unsafe.Slice(unsafe.StringData(id), len(id))); err != nil {
			return err
		}
	}
	return nil
}

// openIDs checks that the ids are what a builder accepts and in order.
func openIDs(f *sections.File, rows int) (ids, error) {
	var list ids
	var err error
	if list.offsets, err = sections.Array[uint64](f, idOffsetsSection, rows+1); err != nil {
		return list, err
	}
	if list.bytes, err = f.Section(idBytesSection); err != nil {
		return list, err
	}
	last := uint64(0)
	for i, offset := range list.offsets {
		if offset < last || offset > uint64(len(list.bytes)) || i == 0 && offset != 0 {
			return list, sections.Corruptf(idOffsetsSection, "offset %d is %d, after %d, of %d bytes", i, offset, last, len(list.bytes))
		}
		last = offset
	}
	if last != uint64(len(list.bytes)) {
		return list, sections.Corruptf(idBytesSection, "%d bytes, the offsets end at %d", len(list.bytes), last)
	}
	for row := range rows {
		id := list.at(uint32(row))
		if err := CheckID(id); err != nil {
			return list, sections.Corruptf(idBytesSection, "row %d: %v", row, err)
		}
		if row > 0 && id <= list.at(uint32(row-1)) {
			return list, sections.Corruptf(idBytesSection, "row %d: id %q is not after %q", row, id, list.at(uint32(row-1)))
		}
		if len(list.formed) < maxForms && inNoForm(id) {
			list.formed = append(list.formed, formed{hash: xxhash.Sum64String(norm.NFKD.String(id)), row: uint32(row)})
		}
	}
	if rows > 0 {
		list.sample()
	}
	return list, nil
}

// sample keeps the heads of ids that are in order.
func (l *ids) sample() {
	n := len(l.offsets) - 1
	first, last := l.at(0), l.at(uint32(n-1))
	shared := 0
	for shared < min(len(first), len(last)) && first[shared] == last[shared] {
		shared++
	}
	l.prefix = first[:shared]
	l.heads = make([]uint64, 0, (n+headEvery-1)/headEvery)
	for row := 0; row < n; row += headEvery {
		l.heads = append(l.heads, head(l.at(uint32(row))[shared:]))
	}
}

// head returns the first 8 bytes of a string as a number: where the heads of two
// strings differ, they are in the order of the strings.
func head(s string) uint64 {
	var b [8]byte
	copy(b[:], s)
	return binary.BigEndian.Uint64(b[:])
}

// at returns the id of a row. It aliases the mapped file.
func (l *ids) at(row uint32) string {
	from, to := l.offsets[row], l.offsets[row+1]
	return unsafe.String(unsafe.SliceData(l.bytes[from:to]), to-from)
}

// find returns the row of an id.
func (l *ids) find(id string) (uint32, bool) {
	rest, ok := strings.CutPrefix(id, l.prefix)
	if !ok || len(l.heads) == 0 {
		return 0, false
	}
	h := head(rest)
	// The row is from the last id of a lesser head on, and before the first of a greater.
	from := sort.Search(len(l.heads), func(i int) bool { return l.heads[i] >= h })
	to := from
	for step := 1; to < len(l.heads) && l.heads[to] == h; step *= 2 {
		to = min(to+step, len(l.heads)) // ids that share more than a head are few
	}
	low, high := max(from-1, 0)*headEvery, min(to*headEvery, len(l.offsets)-1)
	row := low + sort.Search(high-low, func(i int) bool { return l.at(uint32(low+i)) >= id })
	return uint32(row), row < high && l.at(uint32(row)) == id
}
