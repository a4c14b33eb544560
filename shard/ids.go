package shard

import (
	"sort"
	"unsafe"

	"github.com/tandem-ann/tandem/index/sections"
)

const (
	idOffsetsSection = "shard.id_offsets"
	idBytesSection   = "shard.id_bytes"
)

// ids are the ids of a shard's rows, strictly ascending, in place.
type ids struct {
	offsets []uint64
	bytes   []byte
}

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
	}
	return list, nil
}

// at returns the id of a row. It aliases the mapped file.
func (l ids) at(row uint32) string {
	from, to := l.offsets[row], l.offsets[row+1]
	return unsafe.String(unsafe.SliceData(l.bytes[from:to]), to-from)
}

// find returns the row of an id.
func (l ids) find(id string) (uint32, bool) {
	n := len(l.offsets) - 1
	row := sort.Search(n, func(i int) bool { return l.at(uint32(i)) >= id })
	return uint32(row), row < n && l.at(uint32(row)) == id
}
