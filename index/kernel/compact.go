package kernel

// Rows of float16 and of uint8 take a half and a quarter of the memory. Their
// elements become float32 as they are loaded, which is exact, and from there on all
// is as it is for rows of float32: a score is the same to the bit.

// DotFloat16 is [Dot] for rows of float16, each held in its bits.
func DotFloat16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	if !fits(query, ordinals, out) {
		panicList(query, ordinals, out)
	}
	dotFloat16(query, rows, ordinals, out)
}

// L2Float16 is [L2] for rows of float16, each held in its bits.
func L2Float16(query []float32, rows []uint16, ordinals []uint32, out []float32) {
	if !fits(query, ordinals, out) {
		panicList(query, ordinals, out)
	}
	l2Float16(query, rows, ordinals, out)
}

// DotRangeFloat16 is [DotRange] for rows of float16, each held in its bits.
func DotRangeFloat16(query []float32, rows []uint16, first int, out []float32) {
	dotRangeFloat16(query, span(query, rows, first, out), out)
}

// L2RangeFloat16 is [L2Range] for rows of float16, each held in its bits.
func L2RangeFloat16(query []float32, rows []uint16, first int, out []float32) {
	l2RangeFloat16(query, span(query, rows, first, out), out)
}

// DotUint8 is [Dot] for rows of uint8.
func DotUint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	if !fits(query, ordinals, out) {
		panicList(query, ordinals, out)
	}
	dotUint8(query, rows, ordinals, out)
}

// L2Uint8 is [L2] for rows of uint8.
func L2Uint8(query []float32, rows []uint8, ordinals []uint32, out []float32) {
	if !fits(query, ordinals, out) {
		panicList(query, ordinals, out)
	}
	l2Uint8(query, rows, ordinals, out)
}

// DotRangeUint8 is [DotRange] for rows of uint8.
func DotRangeUint8(query []float32, rows []uint8, first int, out []float32) {
	dotRangeUint8(query, span(query, rows, first, out), out)
}

// L2RangeUint8 is [L2Range] for rows of uint8.
func L2RangeUint8(query []float32, rows []uint8, first int, out []float32) {
	l2RangeUint8(query, span(query, rows, first, out), out)
}

// compact is what rows are held in that are not float32: the bits of float16, or
// uint8.
type compact interface{ uint16 | uint8 }

// Widen sets dst[i] to the number that src[i] is, that of a float16 for its bits.
// It panics if dst is shorter than src.
func Widen[T compact](dst []float32, src []T) {
	dst = dst[:len(src)]
	switch src := any(src).(type) {
	case []uint16:
		for i, h := range src {
			dst[i] = FromFloat16(h)
		}
	case []uint8:
		for i, b := range src {
			dst[i] = float32(b)
		}
	}
}

// The pure-Go implementation.

func dotCompactGeneric[T compact](query []float32, rows []T, ordinals []uint32, out []float32) {
	for i, o := range ordinals {
		out[i] = dotCompactRow(query, row(rows, int(o), len(query)))
	}
}

func l2CompactGeneric[T compact](query []float32, rows []T, ordinals []uint32, out []float32) {
	for i, o := range ordinals {
		out[i] = l2CompactRow(query, row(rows, int(o), len(query)))
	}
}

func dotRangeCompactGeneric[T compact](query []float32, rows []T, out []float32) {
	for i := range out {
		out[i] = dotCompactRow(query, row(rows, i, len(query)))
	}
}

func l2RangeCompactGeneric[T compact](query []float32, rows []T, out []float32) {
	for i := range out {
		out[i] = l2CompactRow(query, row(rows, i, len(query)))
	}
}

func dotCompactRow[T compact](query []float32, row []T) float32 {
	var low, high [8]float32
	for i := 0; i < len(query); i += lanes {
		var r [lanes]float32
		Widen(r[:], row[i:i+lanes])
		q := (*[lanes]float32)(query[i:])
		for j := range 8 {
			low[j] += float32(q[j] * r[j])
			high[j] += float32(q[j+8] * r[j+8])
		}
	}
	return fold(&low, &high)
}

func l2CompactRow[T compact](query []float32, row []T) float32 {
	var low, high [8]float32
	for i := 0; i < len(query); i += lanes {
		var r [lanes]float32
		Widen(r[:], row[i:i+lanes])
		q := (*[lanes]float32)(query[i:])
		for j := range 8 {
			d, e := q[j]-r[j], q[j+8]-r[j+8]
			low[j] += float32(d * d)
			high[j] += float32(e * e)
		}
	}
	return fold(&low, &high)
}
