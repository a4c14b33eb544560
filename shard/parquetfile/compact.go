package parquetfile

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// maxDepth is how deep structs may be nested in what is walked, and groups in a schema.
const maxDepth = 64

// Kinds of values in Thrift's compact protocol.
const (
	kindTrue   = 1
	kindFalse  = 2
	kindByte   = 3
	kindInt32  = 5
	kindInt64  = 6 // from kindByte on these are the integers
	kindDouble = 7
	kindBinary = 8
	kindList   = 9
	kindSet    = 10
	kindStruct = 12
)

// compact walks a struct in Thrift's compact protocol. Its methods return false where
// the bytes do not fit together, or end.
type compact struct {
	rest []byte
	head int // how many bytes were left where the last field of a struct began
}

// A visitor looks at a field of a struct. It returns whether it has taken the field's
// value, and whether that was well.
type visitor func(c *compact, field int64, kind byte) (taken, ok bool)

// A layout has the fields of a struct that are lists, or in which there are some. arrow-go
// takes the elements of such a list for what the field has, whatever the list says that
// they are; other fields it passes over as what they say, as this walk does.
type layout map[int64]part

// A part is a field of a struct.
type part struct {
	elements byte   // of a list, their kind
	of       layout // of the struct, or of the elements
}

// footerLayout is that of a footer.
var footerLayout = layout{
	footerSchema: {elements: kindStruct},
	4: {elements: kindStruct, of: layout{ // row groups
		1: {elements: kindStruct, of: layout{ // columns
			3: {of: layout{ // metadata
				2:  {elements: kindInt32},                                            // encodings
				3:  {elements: kindBinary},                                           // path
				8:  {elements: kindStruct},                                           // keys and values
				13: {elements: kindStruct},                                           // encodings of pages
				16: {of: layout{2: {elements: kindInt64}, 3: {elements: kindInt64}}}, // histograms of levels
				17: {of: layout{2: {elements: kindInt32}}},                           // types of geometries
			}},
			8: {of: layout{2: {of: layout{1: {elements: kindBinary}}}}}, // path of an encrypted column
		}},
		4: {elements: kindStruct}, // order of rows
	}},
	5: {elements: kindStruct}, // keys and values
	7: {elements: kindStruct}, // orders of columns
}

func (c *compact) take(n uint64) bool {
	if n > uint64(len(c.rest)) {
		return false
	}
	c.rest = c.rest[n:]
	return true
}

func (c *compact) varint() (uint64, bool) {
	v, n := binary.Uvarint(c.rest)
	return v, n > 0 && c.take(uint64(n))
}

// integer takes an integer that is stored in zigzag.
func (c *compact) integer() (int64, bool) {
	v, ok := c.varint()
	return int64(v>>1) ^ -int64(v&1), ok
}

func (c *compact) octet() (byte, bool) {
	if len(c.rest) == 0 {
		return 0, false
	}
	b := c.rest[0]
	return b, c.take(1)
}

// fields walks the fields of a struct of a layout. What visit, which may be nil, does not
// take is passed over.
func (c *compact) fields(depth int, l layout, visit visitor) bool {
	field := int64(0)
	for depth <= maxDepth {
		began := len(c.rest)
		head, ok := c.octet()
		if !ok || head == 0 {
			return ok
		}
		if head>>4 == 0 {
			if field, ok = c.integer(); !ok {
				return false
			}
		} else {
			field += int64(head >> 4)
		}
		if field != int64(int16(field)) { // decoders cut it to 16 bits
			return false
		}
		kind := head & 0xf
		if visit != nil {
			c.head = began
			taken, ok := visit(c, field, kind)
			if !ok {
				return false
			}
			if taken {
				continue
			}
		}
		if kind != kindTrue && kind != kindFalse && !c.value(kind, depth, l[field]) { // those two are their own values
			return false
		}
	}
	return false
}

// list takes the head of a list and returns how many elements of which kind follow:
// never more than there are bytes, since a decoder allocates lists by what they say.
func (c *compact) list() (n uint64, kind byte, ok bool) {
	head, ok := c.octet()
	n = uint64(head >> 4)
	if n == 15 && ok {
		n, ok = c.varint()
	}
	return n, head & 0xf, ok && n <= uint64(len(c.rest))
}

// value passes over a value of a kind.
func (c *compact) value(kind byte, depth int, p part) bool {
	switch {
	case kind >= kindTrue && kind <= kindByte: // bools are bytes in lists
		return c.take(1)
	case kind > kindByte && kind <= kindInt64:
		_, ok := c.varint()
		return ok
	case kind == kindDouble:
		return c.take(8)
	case kind == kindBinary:
		n, ok := c.varint()
		return ok && c.take(n)
	case kind == kindList || kind == kindSet:
		n, of, ok := c.list()
		if !ok || depth > maxDepth || kind == kindList && n > 0 && p.elements != 0 && p.elements != of {
			return false
		}
		for range n {
			if !c.value(of, depth+1, part{of: p.of}) {
				return false
			}
		}
		return true
	case kind == kindStruct:
		return c.fields(depth+1, p.of, nil)
	}
	return false // maps too: nothing in a Parquet file is one
}

// Fields of the footer.
const (
	footerSchema   = 2
	schemaName     = 4
	schemaChildren = 5
	schemaLogical  = 10
	// The logical types that arrow-go knows are the fields of a union from 1 to 18, without 9.
	lastLogical, noLogical = 18, 9
)

// An element is one of a schema.
type element struct {
	children int64
	name     int // bytes
}

// checkFooter checks what a footer says of its own sizes: that no list has more elements
// than there are bytes, and that the schema is one tree, not deeper than maxDepth, whose
// paths are not much longer than the footer. It returns the footer without the logical types that came after arrow-go, which a reader
// is to ignore, and arrow-go does not.
func checkFooter(footer []byte) ([]byte, error) {
	c := compact{rest: footer}
	var elements []element
	var unknown [][2]int // ranges of bytes
	visit := func(c *compact, field int64, kind byte) (taken, ok bool) {
		e := &elements[len(elements)-1]
		switch {
		case field == schemaChildren && kind == kindInt32:
			e.children, ok = c.integer()
			return true, ok
		case field == schemaName && kind == kindBinary:
			n, ok := c.varint()
			ok = ok && c.take(n)
			e.name = int(n)
			return true, ok
		case field == schemaLogical && kind == kindStruct:
			from, last := len(footer)-c.head, int64(0)
			ok = c.fields(2, nil, func(_ *compact, field int64, _ byte) (taken, ok bool) {
				last = field
				return false, true
			})
			// It is the last field that an element has, or the next could not be told.
			if ok && (last < 1 || last > lastLogical || last == noLogical) && len(c.rest) > 0 && c.rest[0] == 0 {
				unknown = append(unknown, [2]int{from, len(footer) - len(c.rest)})
			}
			return true, ok
		}
		return false, true
	}
	whole := c.fields(0, footerLayout, func(c *compact, field int64, kind byte) (bool, bool) {
		if field != footerSchema || kind != kindList {
			return false, true
		}
		n, kind, ok := c.list()
		if !ok || kind != kindStruct {
			return true, false
		}
		for range n {
			elements = append(elements, element{})
			if !c.fields(1, nil, visit) {
				return true, false
			}
		}
		return true, true
	})
	if !whole {
		return nil, fmt.Errorf("%w: the footer's structure", ErrDamaged)
	}
	if err := checkTree(elements, maxPaths+maxPathsPerByte*len(footer)); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var out []byte
	at := 0
	for _, cut := range unknown {
		out = append(out, footer[at:cut[0]]...)
		at = cut[1]
	}
	return append(out, footer[at:]...), nil
}

// maxPaths and maxPathsPerByte bound the names on the ways to all leaves, which arrow-go
// keeps for each leaf.
const (
	maxPaths        = 4 << 20
	maxPathsPerByte = 16
)

// checkTree checks that elements are one tree, with no more than most bytes of names on
// the ways to its leaves.
func checkTree(elements []element, most int) error {
	type group struct {
		left int64 // children that are still to come
		path int   // bytes of names from the root on
	}
	var open []group // from the root on
	paths := 0
	for i, e := range elements {
		if e.children < 0 || e.children >= int64(len(elements)) {
			return fmt.Errorf("element %d of a schema of %d has %d children", i, len(elements), e.children)
		}
		path := e.name
		if i > 0 {
			if len(open) == 0 {
				return errors.New("the schema is no tree")
			}
			in := &open[len(open)-1]
			in.left--
			path += in.path + 1
		}
		if e.children > 0 {
			open = append(open, group{e.children, path})
		} else if paths += path; paths > most {
			return fmt.Errorf("the schema has names of more than %d bytes on the ways to its columns", most)
		}
		if len(open) > maxDepth {
			return fmt.Errorf("the schema is more than %d levels deep", maxDepth)
		}
		for len(open) > 0 && open[len(open)-1].left == 0 {
			open = open[:len(open)-1]
		}
	}
	if len(open) > 0 {
		return errors.New("the schema ends too early")
	}
	return nil
}

// Types of pages.
const (
	dataPage       = 0
	dictionaryPage = 2
	dataPageV2     = 3
)

// A pageHeader is what is said of a page ahead of it.
type pageHeader struct {
	kind, unpacked, packed int64 // the sizes, in bytes
	crc                    uint32
	checked                bool  // there is a crc
	values                 int64 // levels, in a data page
	encoding               int64
	levels                 int64 // bytes ahead of what is compressed, in a data page of version 2
	plain                  bool  // a data page of version 2 that is not compressed
}

// Fields of page headers.
const (
	pageType, pageUnpacked, pagePacked, pageCRC = 1, 2, 3, 4
	pageData, pageDictionary, pageDataV2        = 5, 7, 8
	partValues, partEncoding                    = 1, 2 // of a data page and of a dictionary
	v2Encoding, v2Def, v2Rep, v2Compressed      = 4, 5, 6, 7
)

// parsePageHeader returns the header that data begins with, and its length. It returns
// false where data is not a whole header, or one that decoders could understand in more
// than one way.
func parsePageHeader(data []byte) (h pageHeader, length int, ok bool) {
	c := compact{rest: data}
	once := func(seen *uint64, field int64) bool {
		if field < 0 || field >= 64 {
			return true
		}
		again := *seen&(1<<field) != 0
		*seen |= 1 << field
		return !again
	}
	visit := func(v2 bool) visitor {
		var seen uint64
		return func(c *compact, field int64, kind byte) (taken, ok bool) {
			if !once(&seen, field) {
				return true, false
			}
			switch {
			case v2 && field == v2Compressed:
				h.plain = kind == kindFalse
				return false, kind == kindTrue || kind == kindFalse
			case kind != kindInt32:
				return false, field != partValues && field != partEncoding && !(v2 && field >= v2Encoding && field <= v2Rep)
			}
			n, ok := c.integer()
			ok = ok && n == int64(int32(n))
			switch {
			case field == partValues:
				h.values = n
			case v2 && field == v2Encoding, !v2 && field == partEncoding:
				h.encoding = n
			case v2 && (field == v2Def || field == v2Rep):
				if n < 0 {
					return true, false
				}
				h.levels += n
			}
			return true, ok
		}
	}
	var seen uint64
	part := int64(0)
	ok = c.fields(0, nil, func(c *compact, field int64, kind byte) (taken, ok bool) {
		if !once(&seen, field) {
			return true, false
		}
		switch {
		case kind == kindStruct && (field == pageData || field == pageDictionary || field == pageDataV2):
			if part != 0 {
				return true, false
			}
			part = field
			return true, c.fields(1, nil, visit(field == pageDataV2))
		case kind != kindInt32:
			return false, field < pageType || field > pageCRC
		}
		n, ok := c.integer()
		ok = ok && n == int64(int32(n))
		switch field {
		case pageType:
			h.kind = n
		case pageUnpacked:
			h.unpacked = n
		case pagePacked:
			h.packed = n
		case pageCRC:
			h.crc, h.checked = uint32(n), true
		}
		return true, ok
	})
	switch h.kind {
	case dataPage:
		ok = ok && part == pageData
	case dictionaryPage:
		ok = ok && part == pageDictionary
	case dataPageV2:
		ok = ok && part == pageDataV2
	}
	return h, len(data) - len(c.rest), ok
}
