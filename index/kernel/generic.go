package kernel

// The pure-Go implementation. It is selected where there is no other and is
// the reference that the others are tested against.
//
// A row is read twice, for lanes 0 to 7 and then for lanes 8 to 15, because
// eight sums and their terms stay in registers on every architecture, and
// sixteen do not. Each product is converted to float32 before it is added: by
// the language's rules that forbids the compiler to fuse the two, as it
// otherwise would on arm64 and with GOAMD64=v3.

func dotGeneric(query, rows []float32, ordinals []uint32, out []float32) {
	for i, o := range ordinals {
		out[i] = dotRow(query, row(rows, int(o), len(query)))
	}
}

func l2Generic(query, rows []float32, ordinals []uint32, out []float32) {
	for i, o := range ordinals {
		out[i] = l2Row(query, row(rows, int(o), len(query)))
	}
}

func dotRangeGeneric(query, rows, out []float32) {
	for i := range out {
		out[i] = dotRow(query, row(rows, i, len(query)))
	}
}

func l2RangeGeneric(query, rows, out []float32) {
	for i := range out {
		out[i] = l2Row(query, row(rows, i, len(query)))
	}
}

func row[T float32 | compact](rows []T, i, stride int) []T {
	return rows[i*stride:][:stride]
}

func dotRow(query, row []float32) float32 {
	low, high := dotLanes(query, row, 0), dotLanes(query, row, 8)
	return fold(&low, &high)
}

func l2Row(query, row []float32) float32 {
	low, high := l2Lanes(query, row, 0), l2Lanes(query, row, 8)
	return fold(&low, &high)
}

// dotLanes returns the sums of the eight lanes from first on.
func dotLanes(query, row []float32, first int) [8]float32 {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	for i := first; i < len(query); i += lanes {
		q, r := (*[8]float32)(query[i:]), (*[8]float32)(row[i:])
		s0 += float32(q[0] * r[0])
		s1 += float32(q[1] * r[1])
		s2 += float32(q[2] * r[2])
		s3 += float32(q[3] * r[3])
		s4 += float32(q[4] * r[4])
		s5 += float32(q[5] * r[5])
		s6 += float32(q[6] * r[6])
		s7 += float32(q[7] * r[7])
	}
	return [8]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}

// l2Lanes returns the sums of the eight lanes from first on.
func l2Lanes(query, row []float32, first int) [8]float32 {
	var s0, s1, s2, s3, s4, s5, s6, s7 float32
	for i := first; i < len(query); i += lanes {
		q, r := (*[8]float32)(query[i:]), (*[8]float32)(row[i:])
		d0, d1, d2, d3 := q[0]-r[0], q[1]-r[1], q[2]-r[2], q[3]-r[3]
		s0 += float32(d0 * d0)
		s1 += float32(d1 * d1)
		s2 += float32(d2 * d2)
		s3 += float32(d3 * d3)
		d4, d5, d6, d7 := q[4]-r[4], q[5]-r[5], q[6]-r[6], q[7]-r[7]
		s4 += float32(d4 * d4)
		s5 += float32(d5 * d5)
		s6 += float32(d6 * d6)
		s7 += float32(d7 * d7)
	}
	return [8]float32{s0, s1, s2, s3, s4, s5, s6, s7}
}

// fold adds the sixteen lanes in the order that the package's comment gives.
func fold(low, high *[8]float32) float32 {
	for j := range 8 {
		low[j] += high[j]
	}
	for j := range 4 {
		low[j] += low[j+4]
	}
	return (low[0] + low[2]) + (low[1] + low[3])
}

// Codes are scored four rows at a time: a row of codes has so many instructions
// that the memory of the next one is asked for too late.

func dotCodesGeneric(query []int8, rows []uint8, ordinals []uint32, out []int32) {
	n := len(query)
	for len(ordinals) >= 4 {
		o, s := (*[4]uint32)(ordinals), (*[4]int32)(out)
		dotCodeRows(query, row(rows, int(o[0]), n), row(rows, int(o[1]), n), row(rows, int(o[2]), n), row(rows, int(o[3]), n), s)
		ordinals, out = ordinals[4:], out[4:]
	}
	for i, o := range ordinals {
		out[i] = dotCodeRow(query, row(rows, int(o), n))
	}
}

func dotCodeRows(query []int8, row0, row1, row2, row3 []uint8, out *[4]int32) {
	var s0, s1, s2, s3 int32
	for i := 0; i < len(query); i += 8 {
		q := (*[8]int8)(query[i:])
		a, b, c, d := (*[8]uint8)(row0[i:]), (*[8]uint8)(row1[i:]), (*[8]uint8)(row2[i:]), (*[8]uint8)(row3[i:])
		for j, q := range q {
			q := int32(q)
			s0 += q * int32(a[j])
			s1 += q * int32(b[j])
			s2 += q * int32(c[j])
			s3 += q * int32(d[j])
		}
	}
	*out = [4]int32{s0, s1, s2, s3}
}

func dotCodeRow(query []int8, row []uint8) int32 {
	var s0, s1, s2, s3 int32
	for i := 0; i < len(query); i += 16 {
		q, r := (*[16]int8)(query[i:]), (*[16]uint8)(row[i:])
		s0 += int32(q[0])*int32(r[0]) + int32(q[4])*int32(r[4])
		s1 += int32(q[1])*int32(r[1]) + int32(q[5])*int32(r[5])
		s2 += int32(q[2])*int32(r[2]) + int32(q[6])*int32(r[6])
		s3 += int32(q[3])*int32(r[3]) + int32(q[7])*int32(r[7])
		s0 += int32(q[8])*int32(r[8]) + int32(q[12])*int32(r[12])
		s1 += int32(q[9])*int32(r[9]) + int32(q[13])*int32(r[13])
		s2 += int32(q[10])*int32(r[10]) + int32(q[14])*int32(r[14])
		s3 += int32(q[11])*int32(r[11]) + int32(q[15])*int32(r[15])
	}
	return (s0 + s1) + (s2 + s3)
}

// batch is how many rows of codes are scored before they are admitted.
const batch = 32

func withinGeneric(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	var products [batch]int32
	n := 0
	for len(ordinals) > 0 {
		part := ordinals[:min(len(ordinals), batch)]
		dotCodesGeneric(query, rows, part, products[:len(part)])
		n += admit(products[:], factors, part, base, scale, shift, bound, out[n:])
		ordinals = ordinals[len(part):]
	}
	return n
}

// admit is what is left of within when the rows of ordinals have been scored.
func admit(products []int32, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int {
	n := 0
	for i, o := range ordinals {
		f := (*[2]float32)(factors[2*int(o):])
		d := base + f[1] + float32(f[0]*(float32(scale*float32(products[i]))+shift))
		// As in visitGeneric, without a branch: it stays only if it is near enough.
		out[n] = uint64(Sortable(d))<<32 | uint64(o)<<1
		if d <= bound {
			n++
		}
	}
	return n
}

// withinListed is withinRange by lists of the rows.
func withinListed(query []int8, rows []uint8, factors []float32, first, count int, base, scale, shift, bound float32, out []uint64) int {
	var ordinals [batch]uint32
	n := 0
	for last := first + count; first < last; {
		part := ordinals[:min(last-first, batch)]
		for i := range part {
			part[i] = uint32(first + i)
		}
		n += within(query, rows, factors, part, base, scale, shift, bound, out[n:])
		first += len(part)
	}
	return n
}

// visitGeneric does not prefetch.
func visitGeneric(list []uint32, marks []uint8, epoch uint8, dst []uint32) int {
	dst = dst[:len(list)]
	n := 0
	for _, node := range list {
		if node == End {
			break
		}
		// Without a branch on what is random: every node is written, and stays
		// only if it was new.
		dst[n] = node
		next := n + 1
		if marks[node] == epoch {
			next = n
		}
		marks[node] = epoch
		n = next
	}
	return n
}
