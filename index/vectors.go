package index

import (
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/sections"
)

// Element is what the components of an index's vectors are stored as: the most
// compact type that equals every one of them. It changes no score.
type Element uint8

const (
	// Float32 holds any vector.
	Float32 Element = iota
	// Float16 is IEEE 754 binary16.
	Float16
	// Uint8 holds the integers from 0 to 255.
	Uint8
)

var elementNames = [...]string{"float32", "float16", "uint8"}

// String returns the type's name.
func (e Element) String() string {
	if e.valid() {
		return elementNames[e]
	}
	return fmt.Sprintf("element(%d)", uint8(e))
}

func (e Element) valid() bool { return int(e) < len(elementNames) }

// vectors are rows of one element type, padded with zeros to a stride.
type vectors struct {
	element  Element
	stride   int
	float32s []float32 // only under Float32
	float16s []uint16  // only under Float16: the bits
	uint8s   []uint8   // only under Uint8
}

// elementOf returns the most compact type that equals every component.
func elementOf(m *Matrix) Element {
	if m.Rows() == 0 {
		return Float32
	}
	best := Uint8
	for _, x := range m.data {
		if best == Uint8 {
			if _, exact := toUint8(x); exact {
				continue
			}
			best = Float16
		}
		if _, exact := kernel.ToFloat16(x); exact {
			continue
		}
		// Every uint8 is a float16, so what came before this one does not matter.
		return Float32
	}
	return best
}

// toUint8 returns the uint8 that equals x, and whether there is one: -0 has none.
func toUint8(x float32) (b uint8, exact bool) {
	if !(x >= 0 && x <= math.MaxUint8) {
		return 0, false
	}
	b = uint8(x)
	return b, math.Float32bits(float32(b)) == math.Float32bits(x)
}

// takeVectors returns the rows of m in the given order, a permutation. It leaves
// m empty, so that whoever still refers to it does not keep them twice.
func takeVectors(m *Matrix, order []uint32) vectors {
	v := vectors{element: elementOf(m), stride: m.stride}
	switch v.element {
	case Float32:
		permute(m, order)
		v.float32s = m.data
	case Float16:
		v.float16s = narrow(m, order, kernel.ToFloat16)
	case Uint8:
		v.uint8s = narrow(m, order, toUint8)
	}
	m.data = nil
	return v
}

// narrow returns the rows of m in order, each component as what to makes of it.
func narrow[T uint16 | uint8](m *Matrix, order []uint32, to func(float32) (T, bool)) []T {
	out := make([]T, 0, len(m.data))
	for _, row := range order {
		for _, x := range m.padded(int(row)) {
			y, _ := to(x)
			out = append(out, y)
		}
	}
	return out
}

// openVectors uses the vectors of a file in place. Their numbers may be any.
func openVectors(f *sections.File, element Element, rows, stride int) (v vectors, err error) {
	v = vectors{element: element, stride: stride}
	switch n := rows * stride; element {
	case Float32:
		v.float32s, err = sections.Array[float32](f, vectorsSection, n)
	case Float16:
		v.float16s, err = sections.Array[uint16](f, vectorsSection, n)
	case Uint8:
		v.uint8s, err = sections.Array[uint8](f, vectorsSection, n)
	}
	return v, err
}

// bytes returns the section that openVectors reads.
func (v *vectors) bytes() []byte {
	switch v.element {
	case Float16:
		return sections.Bytes(v.float16s)
	case Uint8:
		return v.uint8s
	}
	return sections.Bytes(v.float32s)
}

// row returns a vector with its padding, which the caller must not change: where it
// is stored, or in buf, which grows to the stride.
func (v *vectors) row(ordinal uint32, buf []float32) []float32 {
	from, to := int(ordinal)*v.stride, (int(ordinal)+1)*v.stride
	if v.element == Float32 {
		return v.float32s[from:to:to]
	}
	buf = slices.Grow(buf[:0], v.stride)[:v.stride]
	if v.element == Float16 {
		kernel.Widen(buf, v.float16s[from:to])
	} else {
		kernel.Widen(buf, v.uint8s[from:to])
	}
	return buf
}

// appendTo appends the first dim components of a vector to dst.
func (v *vectors) appendTo(dst []float32, ordinal uint32, dim int) []float32 {
	from := int(ordinal) * v.stride
	if v.element == Float32 {
		return append(dst, v.float32s[from:from+dim]...)
	}
	n := len(dst)
	dst = slices.Grow(dst, dim)[:n+dim]
	if v.element == Float16 {
		kernel.Widen(dst[n:], v.float16s[from:from+dim])
	} else {
		kernel.Widen(dst[n:], v.uint8s[from:from+dim])
	}
	return dst
}

// score sets out to the squared distances of a padded query to ordinals under L2,
// and to their inner products otherwise.
func (v *vectors) score(metric Metric, query []float32, ordinals []uint32, out []float32) {
	switch l2 := metric == L2; {
	case v.element == Uint8 && l2:
		kernel.L2Uint8(query, v.uint8s, ordinals, out)
	case v.element == Uint8:
		kernel.DotUint8(query, v.uint8s, ordinals, out)
	case v.element == Float16 && l2:
		kernel.L2Float16(query, v.float16s, ordinals, out)
	case v.element == Float16:
		kernel.DotFloat16(query, v.float16s, ordinals, out)
	case l2:
		kernel.L2(query, v.float32s, ordinals, out)
	default:
		kernel.Dot(query, v.float32s, ordinals, out)
	}
}

// scoreRange does what score does, for the ordinals from first on.
func (v *vectors) scoreRange(metric Metric, query []float32, first int, out []float32) {
	switch l2 := metric == L2; {
	case v.element == Uint8 && l2:
		kernel.L2RangeUint8(query, v.uint8s, first, out)
	case v.element == Uint8:
		kernel.DotRangeUint8(query, v.uint8s, first, out)
	case v.element == Float16 && l2:
		kernel.L2RangeFloat16(query, v.float16s, first, out)
	case v.element == Float16:
		kernel.DotRangeFloat16(query, v.float16s, first, out)
	case l2:
		kernel.L2Range(query, v.float32s, first, out)
	default:
		kernel.DotRange(query, v.float32s, first, out)
	}
}
