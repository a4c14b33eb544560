package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// insert emits the routine that keeps a pool sorted. It sorts eight entries of the batch
// at a time, by counting for each those that are less, and merges them from the end, the
// greatest first: what is greater moves up by as many places as entries are still to
// come, eight entries of the pool at a time. So each is moved once, and read before
// anything near it is written.
func insert() {
	const wide = 8
	TEXT("insertAVX512", NOSPLIT, "func(pool []uint64, n int, batch []uint64) (count, least int)")
	Doc("insertAVX512 is Insert, with AVX-512F, AVX-512DQ and BMI2.")
	Pragma("noescape")
	sorted := AllocLocal(8 * wide)

	pool := Load(Param("pool").Base(), GP64())
	limit := Load(Param("pool").Len(), GP64())
	n := Load(Param("n"), GP64())
	next := Load(Param("batch").Base(), GP64())
	stop := Load(Param("batch").Len(), GP64())
	LEAQ(Mem{Base: next, Index: stop, Scale: 8}, stop)
	least := GP64()
	MOVQ(limit, least)
	m, c, i, t := GP64(), GP64(), GP64(), GP64()
	all, entries := ZMM(), ZMM()
	greater, held := K(), K()
	one := GP64()
	MOVQ(U32(1), one)

	Label("chunk")
	MOVQ(stop, m)
	SUBQ(next, m)
	JLE(LabelRef("done"))
	SHRQ(Imm(3), m)
	MOVQ(U32(wide), t)
	CMPQ(m, t)
	CMOVQGT(t, m)
	SHLXQ(m, one, t)
	DECQ(t)
	KMOVB(t.As32(), held)
	VMOVDQU64_Z(Mem{Base: next}, held, entries)
	XORL(i.As32(), i.As32())
	Label("rank")
	MOVQ(Mem{Base: next}, c)
	VPBROADCASTQ(c, all)
	VPCMPUQ(Imm(1), all, entries, held, greater) // entries < c
	KMOVB(greater, t.As32())
	POPCNTQ(t, t)
	MOVQ(c, sorted.Idx(t, 8))
	ADDQ(Imm(8), next)
	INCQ(i)
	CMPQ(i, m)
	JLT(LabelRef("rank"))

	// What there is no room for.
	Label("full")
	LEAQ(Mem{Base: n, Index: m, Scale: 1}, t)
	CMPQ(t, limit)
	JLE(LabelRef("fits"))
	MOVQ(sorted.Offset(-8).Idx(m, 8), c)
	DECQ(m)
	TESTQ(n, n)
	JEQ(LabelRef("full"))
	CMPQ(c, Mem{Base: pool, Index: n, Scale: 8, Disp: -8})
	JAE(LabelRef("full"))
	INCQ(m)
	DECQ(n)
	JMP(LabelRef("full"))

	Label("fits")
	MOVQ(n, i)
	ADDQ(m, n)
	Label("entry")
	TESTQ(m, m)
	JEQ(LabelRef("chunk"))
	MOVQ(sorted.Offset(-8).Idx(m, 8), c)
	VPBROADCASTQ(c, all)
	up := GP64()
	LEAQ(Mem{Base: pool, Index: m, Scale: 8}, up)

	Label("eight")
	CMPQ(i, Imm(wide))
	JL(LabelRef("rest"))
	VMOVDQU64(Mem{Base: pool, Index: i, Scale: 8, Disp: -8 * wide}, entries)
	VPCMPUQ(Imm(6), all, entries, greater) // entries > c
	VMOVDQU64(entries, greater, Mem{Base: up, Index: i, Scale: 8, Disp: -8 * wide})
	KORTESTB(greater, greater)
	JCC(LabelRef("among")) // not all are greater
	SUBQ(Imm(wide), i)
	JMP(LabelRef("eight"))

	Label("rest")
	SHLXQ(i, one, t)
	DECQ(t)
	KMOVB(t.As32(), held)
	VMOVDQU64_Z(Mem{Base: pool}, held, entries)
	VPCMPUQ(Imm(6), all, entries, held, greater)
	VMOVDQU64(entries, greater, Mem{Base: up})

	Label("among")
	KMOVB(greater, t.As32())
	POPCNTQ(t, t)
	SUBQ(t, i)
	DECQ(m)
	MOVQ(c, Mem{Base: up, Index: i, Scale: 8, Disp: -8})
	LEAQ(Mem{Base: i, Index: m, Scale: 1}, t)
	CMPQ(t, least)
	CMOVQLT(t, least)
	JMP(LabelRef("entry"))

	Label("done")
	Store(n, ReturnIndex(0))
	Store(least, ReturnIndex(1))
	VZEROUPPER()
	RET()
}
