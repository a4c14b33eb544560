package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// A code row is a multiple of half bytes long; line is a cache line.
const (
	half = 32
	line = 64
)

// A codeISA is an instruction set for rows of bytes. Integers are exact, so
// each may add in its own order.
type codeISA struct {
	name   string
	title  string
	width  int // bytes of a row in one step
	vector func() reg.VecVirtual

	// load returns what is common to all rows of n bytes of the query.
	load func(query Mem, n int) []reg.VecVirtual
	// add adds n bytes of a row times those of the query to sums.
	add func(row Mem, n int, query []reg.VecVirtual, sums reg.VecVirtual)
}

var codeISAs = []codeISA{
	{
		"VNNI", "AVX-512 VNNI", 64, ZMM,
		func(query Mem, n int) []reg.VecVirtual {
			return []reg.VecVirtual{loadBytes(query, n)}
		},
		func(row Mem, n int, query []reg.VecVirtual, sums reg.VecVirtual) {
			// The memory operand would have to be the signed one.
			VPDPBUSD(query[0], loadBytes(row, n), sums)
		},
	},
	{
		// Bytes are widened first: VPMADDUBSW saturates at two products of
		// 255 and 127.
		"AVX2", "AVX2", 32, YMM,
		func(query Mem, n int) []reg.VecVirtual {
			v := []reg.VecVirtual{YMM(), YMM()}
			VPMOVSXBW(query, v[0])
			VPMOVSXBW(query.Offset(n/2), v[1])
			return v
		},
		func(row Mem, n int, query []reg.VecVirtual, sums reg.VecVirtual) {
			for j, q := range query {
				v := YMM()
				VPMOVZXBW(row.Offset(j*n/2), v)
				VPMADDWD(q, v, v)
				VPADDD(v, sums, sums)
			}
		},
	},
}

// loadBytes loads 64 bytes, or 32 and as many zeros.
func loadBytes(m Mem, n int) reg.VecVirtual {
	v := ZMM()
	if n == line {
		VMOVDQU64(m, v)
	} else {
		VMOVDQU(m, v.AsY())
	}
	return v
}

// withinCodes emits the routine for a list of ordinals.
//
// The last one to three rows are scored as a group too, in which the last of them
// is repeated: their ordinals are copied to the frame, so that nothing beyond the
// list is read.
func withinCodes(s codeISA) {
	TEXT("within"+s.name, NOSPLIT, "func(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int")
	Doc("within" + s.name + " is within, with " + s.title + ".")
	Pragma("noescape")
	tail := AllocLocal(4 * group)

	k := beginCodes(s)
	ordinals := Load(Param("ordinals").Base(), GP64())
	left := Load(Param("ordinals").Len(), GP64())
	out := Load(Param("out").Base(), GP64())
	limit := GP64() // a bit for each row of the group that counts

	Label("group")
	MOVL(U32(1<<group-1), limit.As32())
	CMPQ(left, Imm(group))
	JGE(LabelRef("score"))
	TESTQ(left, left)
	JLE(LabelRef("done"))
	last, id, place := GP64(), GP32(), GP64()
	LEAQ(Mem{Base: left, Disp: -1}, last)
	for j := range group {
		MOVL(U32(j), place.As32())
		CMPQ(place, last)
		CMOVQGT(last, place)
		MOVL(Mem{Base: ordinals, Index: place, Scale: 4}, id)
		MOVL(id, tail.Offset(4*j))
	}
	LEAQ(tail, ordinals)
	for j := group - 1; j > 0; j-- {
		MOVL(U32(1<<j-1), id)
		CMPQ(left, Imm(uint64(j)))
		CMOVLLE(id, limit.As32())
	}
	MOVQ(U32(group), left)

	Label("score")
	rows := registers(group)
	for j, r := range rows {
		MOVL(Mem{Base: ordinals, Disp: 4 * j}, r.As32())
		IMULQ(k.stride, r)
		ADDQ(param("rows"), r)
	}
	k.score("block", rows)
	k.admit(ordinals, out, limit)
	ADDQ(Imm(4*group), ordinals)
	SUBQ(Imm(group), left)
	JMP(LabelRef("group"))

	Label("done")
	SUBQ(param("out"), out)
	SHRQ(Imm(3), out)
	Store(out, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// admit turns the scores of a group into distances, and those within the bound
// into candidates at out, which it moves on.
func (k *codeKernel) admit(ordinals, out reg.Register, limit reg.GPVirtual) {
	factors := Load(Param("factors").Base(), GP64())
	pairs := []reg.VecVirtual{XMM(), XMM()}
	for j := range group {
		id := GP64()
		MOVL(Mem{Base: ordinals, Disp: 4 * j}, id.As32())
		factor := Mem{Base: factors, Index: id, Scale: 8}
		if j%2 == 0 {
			VMOVSD(factor, pairs[j/2])
		} else {
			VMOVHPS(factor, pairs[j/2], pairs[j/2])
		}
	}
	steps, dist := XMM(), XMM()
	VSHUFPS(Imm(0x88), pairs[1], pairs[0], steps)
	VSHUFPS(Imm(0xdd), pairs[1], pairs[0], dist) // the biases
	all := func(name string) reg.VecVirtual {
		v := XMM()
		VBROADCASTSS(paramOf(name), v)
		return v
	}
	product := XMM()
	VCVTDQ2PS(k.scores, product)
	VMULPS(all("scale"), product, product)
	VADDPS(all("shift"), product, product)
	VMULPS(steps, product, product)
	VADDPS(all("base"), dist, dist)
	VADDPS(product, dist, dist)
	zero := XMM()
	VXORPS(zero, zero, zero)
	VADDPS(zero, dist, dist) // which makes -0 a 0

	within := GP64()
	inside := XMM()
	VCMPPS(Imm(2), all("bound"), dist, inside) // dist <= bound
	VMOVMSKPS(inside, within.As32())
	ANDL(limit.As32(), within.As32())

	ids := XMM()
	VMOVDQU(Mem{Base: ordinals}, ids)
	k.compress(dist, ids, within, out)
}

// compress writes the candidates of a group that are in the set within to out,
// which it moves on.
func (k *codeKernel) compress(dist, ids reg.VecVirtual, within, out reg.Register) {
	// Bits that sort as the floats do: all of a negative number's are inverted,
	// of another only the sign.
	keys := XMM()
	VPSRAD(Imm(31), dist, keys)
	sign := XMM()
	VBROADCASTSS(signBit, sign)
	VPOR(sign, keys, keys)
	VPXOR(dist, keys, keys)
	VPADDD(ids, ids, ids)
	low, high := XMM(), XMM()
	VPUNPCKLDQ(keys, ids, low)
	VPUNPCKHDQ(keys, ids, high)
	packed, order := YMM(), YMM()
	VINSERTI128(Imm(1), high, low.AsY(), packed)

	place := GP64()
	MOVQ(within, place)
	SHLQ(Imm(5), place)
	table := GP64()
	LEAQ(compress, table)
	VMOVDQU(Mem{Base: table, Index: place, Scale: 1}, order)
	VPERMD(packed, order, packed)
	VMOVDQU(packed, Mem{Base: out})
	POPCNTQ(within, within)
	LEAQ(Mem{Base: out, Index: within, Scale: 8}, out)
}

// withinCodesRange emits the routine for consecutive rows, whose number is a
// multiple of group. Few of many rows are within the bound, so that it is worth a
// branch to find that none of a group is.
func withinCodesRange(s codeISA) {
	TEXT("withinRange"+s.name, NOSPLIT, "func(query []int8, rows []uint8, factors []float32, first, count int, base, scale, shift, bound float32, out []uint64) int")
	Doc("withinRange" + s.name + " is WithinRange for groups of 4 rows, with " + s.title + ".")
	Pragma("noescape")

	k := beginCodes(s)
	first := Load(Param("first"), GP64())
	next := GP64()
	MOVQ(k.stride, next)
	IMULQ(first, next)
	ADDQ(param("rows"), next)
	factors := Load(Param("factors").Base(), GP64())
	LEAQ(Mem{Base: factors, Index: first, Scale: 8}, factors)
	left := Load(Param("count"), GP64())
	out := Load(Param("out").Base(), GP64())
	all := func(name string) reg.VecVirtual {
		v := XMM()
		VBROADCASTSS(paramOf(name), v)
		return v
	}
	base, scale, shift, bound := all("base"), all("scale"), all("shift"), all("bound")

	Label("group")
	TESTQ(left, left)
	JLE(LabelRef("done"))
	rows := registers(group)
	for _, r := range rows {
		MOVQ(next, r)
		ADDQ(k.stride, next)
	}
	k.score("block", rows)

	pair, steps, dist := XMM(), XMM(), XMM()
	VMOVUPS(Mem{Base: factors}, pair)
	VMOVUPS(Mem{Base: factors, Disp: 16}, dist)
	VSHUFPS(Imm(0x88), dist, pair, steps)
	VSHUFPS(Imm(0xdd), dist, pair, dist) // the biases
	product := XMM()
	VCVTDQ2PS(k.scores, product)
	VMULPS(scale, product, product)
	VADDPS(shift, product, product)
	VMULPS(steps, product, product)
	VADDPS(base, dist, dist)
	VADDPS(product, dist, dist)
	zero := XMM()
	VXORPS(zero, zero, zero)
	VADDPS(zero, dist, dist) // which makes -0 a 0
	inside, within := XMM(), GP64()
	VCMPPS(Imm(2), bound, dist, inside) // dist <= bound
	VMOVMSKPS(inside, within.As32())
	TESTL(within.As32(), within.As32())
	JZ(LabelRef("outside"))

	start, ids := GP64(), XMM()
	Load(Param("count"), start)
	SUBQ(left, start)
	ADDQ(paramOf("first"), start)
	VMOVD(start.As32(), ids)
	VPBROADCASTD(ids, ids)
	VPADDD(ordered, ids, ids)
	k.compress(dist, ids, within, out)

	Label("outside")
	ADDQ(Imm(8*group), factors)
	SUBQ(Imm(group), left)
	JMP(LabelRef("group"))

	Label("done")
	SUBQ(param("out"), out)
	SHRQ(Imm(3), out)
	Store(out, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// Constants of compress: the sign of a float, and for each set of four 64-bit lanes
// the permutation of 32-bit lanes that moves them to the front. And the places of a
// group's rows.
var signBit, compress, ordered Mem

func constants() {
	signBit = GLOBL("signBit", RODATA|NOPTR)
	DATA(0, U32(1<<31))
	compress = GLOBL("compress", RODATA|NOPTR)
	for set := range 1 << group {
		n := 0
		for lane := range group {
			if set>>lane&1 != 0 {
				DATA(32*set+8*n, U32(2*lane))
				DATA(32*set+8*n+4, U32(2*lane+1))
				n++
			}
		}
		for ; n < group; n++ {
			DATA(32*set+8*n, U64(0))
		}
	}
	ordered = GLOBL("ordered", RODATA|NOPTR)
	for j := range group {
		DATA(4*j, U32(j))
	}
}

// A codeKernel is a routine for codes under construction.
type codeKernel struct {
	codeISA
	query  reg.Register
	stride reg.Register
	offset reg.GPVirtual
	scores reg.VecVirtual // what score left
}

func beginCodes(s codeISA) *codeKernel {
	k := &codeKernel{codeISA: s, offset: GP64()}
	k.query = Load(Param("query").Base(), GP64())
	k.stride = Load(Param("query").Len(), GP64())
	return k
}

// score emits the loop over the bytes of a group's rows, and their sums.
func (k *codeKernel) score(loop string, rows []reg.GPVirtual) {
	sums := make([]reg.VecVirtual, len(rows))
	for j := range rows {
		sums[j] = k.vector()
		VPXOR(sums[j].AsX(), sums[j].AsX(), sums[j].AsX()) // clears the whole register
	}
	step := func(n int) {
		at := func(base reg.Register) Mem { return Mem{Base: base, Index: k.offset, Scale: 1} }
		query := k.load(at(k.query), n)
		for j, r := range rows {
			k.add(at(r), n, query, sums[j])
		}
	}

	XORL(k.offset.As32(), k.offset.As32())
	if k.width == half {
		Label(loop)
		step(half)
		ADDQ(Imm(half), k.offset)
		CMPQ(k.offset, k.stride)
		JLT(LabelRef(loop))
	} else {
		JMP(LabelRef(loop + "check"))
		Label(loop)
		step(line)
		ADDQ(Imm(line), k.offset)
		Label(loop + "check")
		end := GP64()
		LEAQ(Mem{Base: k.offset, Disp: line}, end)
		CMPQ(end, k.stride)
		JLE(LabelRef(loop))
		CMPQ(k.offset, k.stride)
		JGE(LabelRef(loop + "sum"))
		step(half)
		Label(loop + "sum")
	}

	k.scores = k.sumCodes4(sums)
}

// foldCodes adds the 128-bit parts of v.
func (k *codeKernel) foldCodes(v reg.VecVirtual) reg.VecVirtual {
	if k.width == line {
		high := YMM()
		VEXTRACTI64X4(Imm(1), v, high)
		VPADDD(v.AsY(), high, high)
		v = high
	}
	x := XMM()
	VEXTRACTI128(Imm(1), v, x)
	VPADDD(v.AsX(), x, x)
	return x
}

// sumCodes4 sums the lanes of four rows at once, transposing them as it goes.
// In its comments a to d are the rows, in each 128-bit part.
func (k *codeKernel) sumCodes4(v []reg.VecVirtual) reg.VecVirtual {
	low, high := k.vector(), k.vector()
	pair := func(a, b reg.VecVirtual) reg.VecVirtual {
		VPUNPCKLDQ(b, a, low)
		VPUNPCKHDQ(b, a, high)
		VPADDD(high, low, a)
		return a
	}
	ab := pair(v[0], v[1]) // a b a b
	cd := pair(v[2], v[3]) // c d c d
	VPUNPCKLQDQ(cd, ab, low)
	VPUNPCKHQDQ(cd, ab, high)
	VPADDD(high, low, low) // a b c d
	return k.foldCodes(low)
}

// prefetch emits the routine that asks for the memory of listed rows.
func prefetch() {
	TEXT("prefetchAMD64", NOSPLIT, "func(data *byte, stride, length int, ordinals []uint32)")
	Doc("prefetchAMD64 is Prefetch.")
	Pragma("noescape")
	data := Load(Param("data"), GP64())
	stride := Load(Param("stride"), GP64())
	length := Load(Param("length"), GP64())
	next := Load(Param("ordinals").Base(), GP64())
	stop := Load(Param("ordinals").Len(), GP64())
	LEAQ(Mem{Base: next, Index: stop, Scale: 4}, stop)
	Label("row")
	CMPQ(next, stop)
	JGE(LabelRef("done"))
	id := GP64()
	MOVL(Mem{Base: next}, id.As32())
	ADDQ(Imm(4), next)
	prefetchRow(data, stride, length, id)
	JMP(LabelRef("row"))
	Label("done")
	RET()
}

// prefetchRow asks for the first length bytes of row id, which it destroys. It asks for
// them no nearer than the second cache: the first one can wait for some twenty lines at
// a time, fewer than the rows of a list have, and each prefetch beyond stalls the core.
// Walks take half the time for it.
func prefetchRow(data, stride, length reg.Register, id reg.GPVirtual) {
	end := GP64()
	IMULQ(stride, id)
	ADDQ(data, id)
	LEAQ(Mem{Base: id, Index: length, Scale: 1}, end)
	Label("line")
	PREFETCHT1(Mem{Base: id})
	ADDQ(Imm(line), id)
	CMPQ(id, end)
	JLT(LabelRef("line"))
}

// visit emits the routine that picks the unvisited nodes of a list. It has no branch
// on whether a node was visited, which is random: every node is written, and stays
// only if it was new.
func visit() {
	TEXT("visitAMD64", NOSPLIT, "func(list []uint32, marks []uint8, epoch uint8, rows []uint8, stride, length int, factors []float32, dst []uint32) int")
	Doc("visitAMD64 is Visit.")
	Pragma("noescape")
	next := Load(Param("list").Base(), GP64())
	stop := Load(Param("list").Len(), GP64())
	LEAQ(Mem{Base: next, Index: stop, Scale: 4}, stop)
	marks := Load(Param("marks").Base(), GP64())
	epoch := Load(Param("epoch"), GP8())
	dst := Load(Param("dst").Base(), GP64())
	n, id, fresh := GP64(), GP64(), GP64()
	XORL(n.As32(), n.As32())

	Label("node")
	CMPQ(next, stop)
	JGE(LabelRef("listed"))
	MOVL(Mem{Base: next}, id.As32())
	ADDQ(Imm(4), next)
	CMPL(id.As32(), I8(-1))
	JEQ(LabelRef("listed"))
	MOVL(id.As32(), Mem{Base: dst, Index: n, Scale: 4})
	XORL(fresh.As32(), fresh.As32())
	CMPB(epoch, Mem{Base: marks, Index: id, Scale: 1})
	SETNE(fresh.As8())
	MOVB(epoch, Mem{Base: marks, Index: id, Scale: 1})
	ADDQ(fresh, n)
	JMP(LabelRef("node"))

	Label("listed")
	Store(n, ReturnIndex(0))
	end := GP64()
	LEAQ(Mem{Base: dst, Index: n, Scale: 4}, end)
	rows := Load(Param("rows").Base(), GP64())
	stride := Load(Param("stride"), GP64())
	length := Load(Param("length"), GP64())
	factors := Load(Param("factors").Base(), GP64())
	Label("row")
	CMPQ(dst, end)
	JGE(LabelRef("done"))
	id = GP64()
	MOVL(Mem{Base: dst}, id.As32())
	ADDQ(Imm(4), dst)
	PREFETCHT0(Mem{Base: factors, Index: id, Scale: 8})
	prefetchRow(rows, stride, length, id)
	JMP(LabelRef("row"))
	Label("done")
	RET()
}
