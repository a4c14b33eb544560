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

	// A list of rows longer than a line is prefetched before its first row is
	// scored, reach bytes of each; the hardware follows from there.
	reach = 4 * line
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

// gatherCodes emits the routine for a list of ordinals.
func gatherCodes(s codeISA) {
	TEXT("dotCodes"+s.name, NOSPLIT, "func(query []int8, rows []uint8, ordinals []uint32, out []int32)")
	Doc("dotCodes" + s.name + " sets out[i] to the inner product of query and row ordinals[i], with " + s.title + ".")
	Pragma("noescape")

	k := beginCodes(s)
	ordinals := Load(Param("ordinals").Base(), GP64())
	last := Load(Param("ordinals").Len(), GP64())
	DECQ(last)
	i := GP64()
	XORL(i.As32(), i.As32())

	// locate sets r to the address of row ordinals[i+j].
	locate := func(j int, r reg.GPVirtual) {
		MOVL(Mem{Base: ordinals, Index: i, Scale: 4, Disp: 4 * j}, r.As32())
		IMULQ(k.stride, r)
		ADDQ(param("rows"), r)
	}

	length := GP64()
	CMPQ(k.stride, Imm(line))
	JLE(LabelRef("group"))
	MOVL(U32(reach), length.As32())
	CMPQ(length, k.stride)
	CMOVQGT(k.stride, length)
	Label("prefetch")
	CMPQ(i, last)
	JGT(LabelRef("prefetched"))
	at, end := GP64(), GP64()
	locate(0, at)
	LEAQ(Mem{Base: at, Index: length, Scale: 1}, end)
	Label("line")
	PREFETCHT0(Mem{Base: at})
	ADDQ(Imm(line), at)
	CMPQ(at, end)
	JLT(LabelRef("line"))
	INCQ(i)
	JMP(LabelRef("prefetch"))
	Label("prefetched")
	XORL(i.As32(), i.As32())

	Label("group")
	end = GP64()
	LEAQ(Mem{Base: i, Disp: group - 1}, end)
	CMPQ(end, last)
	JGT(LabelRef("single"))
	rows := registers(group)
	for j, r := range rows {
		locate(j, r)
	}
	k.score("block4", rows)
	k.store(i)
	ADDQ(Imm(group), i)
	JMP(LabelRef("group"))

	Label("single")
	CMPQ(i, last)
	JGT(LabelRef("done"))
	row := registers(1)
	locate(0, row[0])
	k.score("block1", row)
	k.store(i)
	INCQ(i)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// scanCodes emits the routine for consecutive rows.
func scanCodes(s codeISA) {
	TEXT("dotCodesRange"+s.name, NOSPLIT, "func(query []int8, rows []uint8, out []int32)")
	Doc("dotCodesRange" + s.name + " sets out[i] to the inner product of query and row i, with " + s.title + ".")
	Pragma("noescape")

	k := beginCodes(s)
	next := GP64()
	Load(Param("rows").Base(), next)
	last := Load(Param("out").Len(), GP64())
	DECQ(last)
	i := GP64()
	XORL(i.As32(), i.As32())

	Label("group")
	end := GP64()
	LEAQ(Mem{Base: i, Disp: group - 1}, end)
	CMPQ(end, last)
	JGT(LabelRef("single"))
	rows := registers(group)
	for _, r := range rows {
		MOVQ(next, r)
		ADDQ(k.stride, next)
	}
	k.score("block4", rows)
	k.store(i)
	ADDQ(Imm(group), i)
	JMP(LabelRef("group"))

	Label("single")
	CMPQ(i, last)
	JGT(LabelRef("done"))
	k.score("block1", []reg.GPVirtual{next})
	k.store(i)
	ADDQ(k.stride, next)
	INCQ(i)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// A codeKernel is a routine for codes under construction.
type codeKernel struct {
	codeISA
	query  reg.Register
	stride reg.Register
	offset reg.GPVirtual
	scores reg.VecVirtual // what score left for store
	count  int
}

func beginCodes(s codeISA) *codeKernel {
	k := &codeKernel{codeISA: s, offset: GP64()}
	k.query = Load(Param("query").Base(), GP64())
	k.stride = Load(Param("query").Len(), GP64())
	return k
}

// score emits the loop over the bytes of one row or of a group, and their sums.
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

	if k.count = len(rows); k.count == 1 {
		x, other := k.foldCodes(sums[0]), XMM()
		VPSHUFD(Imm(0xee), x, other)
		VPADDD(other, x, x)
		VPSHUFD(Imm(0x55), x, other)
		VPADDD(other, x, x)
		k.scores = x
	} else {
		k.scores = k.sumCodes4(sums)
	}
}

// store writes the scores to out[i:].
func (k *codeKernel) store(i reg.Register) {
	out := Mem{Base: Load(Param("out").Base(), GP64()), Index: i, Scale: 4}
	if k.count == 1 {
		VMOVD(k.scores, out)
	} else {
		VMOVDQU(k.scores, out)
	}
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
