// Package sectionstest takes files of sections apart and puts them together, for tests of
// what readers make of content that no writer writes.
package sectionstest

import (
	"encoding/binary"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/index/sections"
)

// Section is one section of a file.
type Section struct {
	Name string
	Data []byte
}

// Content is what a file consists of, in its order.
type Content []Section

// Unpack returns copies of the sections of a file.
func Unpack(f *sections.File) (Content, error) {
	var c Content
	for _, e := range f.Entries() {
		data, err := f.Section(e.Name)
		if err != nil {
			return nil, err
		}
		c = append(c, Section{e.Name, slices.Clone(data)})
	}
	return c, nil
}

// Clone returns a copy that shares no bytes with c.
func (c Content) Clone() Content {
	c = slices.Clone(c)
	for i := range c {
		c[i].Data = slices.Clone(c[i].Data)
	}
	return c
}

// At returns the position of the section of a name, -1 if there is none.
func (c Content) At(name string) int {
	return slices.IndexFunc(c, func(s Section) bool { return s.Name == name })
}

// Pack puts a file together, with right checksums around any content, as index/format.md
// draws it. It is written independently of [sections.Writer], down to its constants, and
// does not touch the disk.
func (c Content) Pack(features uint32) []byte {
	const page, entry = 4096, 64
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&(page-1))...) }
	le := binary.LittleEndian
	data := make([]byte, page)
	var toc []byte
	for _, s := range c {
		from := len(data)
		data = pad(append(data, s.Data...))
		e := make([]byte, 40, entry)
		copy(e, s.Name)
		e = le.AppendUint64(e, uint64(from))
		e = le.AppendUint64(e, uint64(len(s.Data)))
		toc = append(toc, le.AppendUint64(e, xxhash.Sum64(data[from:]))...)
	}
	at, length := len(data), len(toc)
	toc = pad(toc)
	data = append(data, toc...)
	copy(data, "TANDEMSH")
	le.PutUint32(data[8:], 1)
	le.PutUint32(data[12:], features)
	le.PutUint64(data[16:], uint64(len(data)))
	le.PutUint64(data[24:], uint64(at))
	le.PutUint64(data[32:], uint64(length))
	le.PutUint64(data[40:], xxhash.Sum64(toc))
	le.PutUint32(data[48:], uint32(len(c)))
	le.PutUint64(data[56:], xxhash.Sum64(data[:page]))
	return data
}
