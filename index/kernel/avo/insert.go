package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
)

// insert emits the routine that keeps a pool sorted. Each entry of the batch moves
// what is greater than it up by one place, from the end, eight entries at a time: for
// the few hundred that a pool has, that is less than a search for the place would
// take, whose branches or whose chain of loads nothing hides.
func insert() {
	const wide = 8
	TEXT("insertAVX512", NOSPLIT, "func(pool []uint64, n int, batch []uint64) (count, least int)")
	Doc("insertAVX512 is Insert, with AVX-512F and AVX-512DQ.")
	Pragma("noescape")

	pool := Load(Param("pool").Base(), GP64())
	limit := Load(Param("pool").Len(), GP64())
	n := Load(Param("n"), GP64())
	next := Load(Param("batch").Base(), GP64())
	stop := Load(Param("batch").Len(), GP64())
	LEAQ(Mem{Base: next, Index: stop, Scale: 8}, stop)
	least := GP64()
	MOVQ(limit, least)
	c, i, moved := GP64(), GP64(), GP64()
	all, entries := ZMM(), ZMM()
	greater := K()

	Label("entry")
	CMPQ(next, stop)
	JGE(LabelRef("done"))
	MOVQ(Mem{Base: next}, c)
	ADDQ(Imm(8), next)
	CMPQ(n, limit)
	JL(LabelRef("room"))
	CMPQ(c, Mem{Base: pool, Index: n, Scale: 8, Disp: -8})
	JAE(LabelRef("entry"))
	DECQ(n)
	Label("room")
	VPBROADCASTQ(c, all)
	MOVQ(n, i)

	Label("eight")
	CMPQ(i, Imm(wide))
	JL(LabelRef("rest"))
	VMOVDQU64(Mem{Base: pool, Index: i, Scale: 8, Disp: -8 * wide}, entries)
	VPCMPUQ(Imm(6), all, entries, greater)
	VMOVDQU64(entries, greater, Mem{Base: pool, Index: i, Scale: 8, Disp: -8*wide + 8})
	KORTESTB(greater, greater)
	JCC(LabelRef("among")) // not all are greater
	SUBQ(Imm(wide), i)
	JMP(LabelRef("eight"))

	Label("rest")
	held, one := GP64(), GP64()
	MOVQ(U32(1), one)
	SHLXQ(i, one, held)
	DECQ(held)
	first := K()
	KMOVB(held.As32(), first)
	VMOVDQU64_Z(Mem{Base: pool}, first, entries)
	VPCMPUQ(Imm(6), all, entries, first, greater)
	VMOVDQU64(entries, greater, Mem{Base: pool, Disp: 8})

	Label("among")
	KMOVB(greater, moved.As32())
	POPCNTQ(moved, moved)
	SUBQ(moved, i)
	MOVQ(c, Mem{Base: pool, Index: i, Scale: 8})
	INCQ(n)
	CMPQ(i, least)
	CMOVQLT(i, least)
	JMP(LabelRef("entry"))

	Label("done")
	Store(n, ReturnIndex(0))
	Store(least, ReturnIndex(1))
	VZEROUPPER()
	RET()
}
