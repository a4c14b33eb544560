package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

var oneBit, lowFive Mem

func eligibleConstants() {
	oneBit = GLOBL("oneBit", RODATA|NOPTR)
	DATA(0, U32(1))
	lowFive = GLOBL("lowFive", RODATA|NOPTR)
	DATA(0, U32(31))
}

// An eligibleKernel is a routine that looks lists of nodes up in a bitset, sixteen nodes
// at a time.
type eligibleKernel struct {
	none, one, low reg.VecVirtual
	filter         reg.Register
	marks          reg.Register
	epoch          reg.GPVirtual
	picked         Mem // sixteen ordinals of the frame
}

func beginEligible() *eligibleKernel {
	k := &eligibleKernel{none: ZMM(), one: ZMM(), low: ZMM(), epoch: GP8(), picked: AllocLocal(64)}
	VPTERNLOGD(Imm(0xff), k.none, k.none, k.none)
	VPBROADCASTD(oneBit, k.one)
	VPBROADCASTD(lowFive, k.low)
	k.filter = Load(Param("filter").Base(), GP64())
	k.marks = Load(Param("marks").Base(), GP64())
	Load(Param("epoch"), k.epoch)
	return k
}

// look loads the nodes at list, of which left are left, and returns them, a mask of
// those that the bitset has, and one of those that it has not.
func (k *eligibleKernel) look(list Mem, left reg.Register) (ids reg.VecVirtual, has, hasNot reg.OpmaskVirtual) {
	ids = ZMM()
	has, hasNot = K(), K()
	used, gather := K(), K()
	count, mask := GP64(), GP64()
	MOVL(U32(16), count.As32())
	CMPQ(left, count)
	CMOVQLT(left, count)
	MOVL(U32(1), mask.As32())
	SHLXQ(count, mask, mask)
	DECQ(mask)
	KMOVW(mask.As32(), used)
	VMOVDQU32_Z(list, used, ids)
	VPCMPUD(Imm(4), k.none, ids, used, used)
	KMOVW(used, gather)
	words, places := ZMM(), ZMM()
	VPSRLD(Imm(5), ids, places)
	VPXORD(words, words, words)
	VPGATHERDD(Mem{Base: k.filter, Index: places, Scale: 4}, gather, words)
	VPANDD(k.low, ids, places)
	VPSLLVD(places, k.one, places)
	VPTESTMD(places, words, used, has)
	KANDNW(used, has, hasNot)
	return ids, has, hasNot
}

// pick appends to dst those of ids in the mask that are not visited, and marks them if
// they are to be.
func (k *eligibleKernel) pick(name string, ids reg.VecVirtual, of reg.OpmaskVirtual, mark bool, dst, n reg.Register) {
	packed, left, next, id, fresh := ZMM(), GP64(), GP64(), GP64(), GP64()
	VPCOMPRESSD_Z(ids, of, packed)
	VMOVDQU32(packed, k.picked)
	KMOVW(of, left.As32())
	POPCNTL(left.As32(), left.As32())
	XORL(next.As32(), next.As32())
	Label(name)
	CMPQ(next, left)
	JGE(LabelRef(name + "done"))
	MOVL(k.picked.Idx(next, 4), id.As32())
	INCQ(next)
	MOVL(id.As32(), Mem{Base: dst, Index: n, Scale: 4})
	XORL(fresh.As32(), fresh.As32())
	CMPB(k.epoch, Mem{Base: k.marks, Index: id, Scale: 1})
	SETNE(fresh.As8())
	if mark {
		MOVB(k.epoch, Mem{Base: k.marks, Index: id, Scale: 1})
	}
	ADDQ(fresh, n)
	JMP(LabelRef(name))
	Label(name + "done")
}

// split emits the routine that divides the list of a node.
func split() {
	TEXT("splitAVX512", NOSPLIT, "func(list []uint32, filter []uint64, marks []uint8, epoch uint8, eligible, others []uint32) (n, m int)")
	Doc("splitAVX512 is split, with AVX-512F, AVX-512DQ and BMI2.")
	Pragma("noescape")
	k := beginEligible()
	list := Load(Param("list").Base(), GP64())
	left := Load(Param("list").Len(), GP64())
	eligible := Load(Param("eligible").Base(), GP64())
	others := Load(Param("others").Base(), GP64())
	n, m := GP64(), GP64()
	XORL(n.As32(), n.As32())
	XORL(m.As32(), m.As32())
	Label("nodes")
	TESTQ(left, left)
	JLE(LabelRef("done"))
	ids, has, hasNot := k.look(Mem{Base: list}, left)
	k.pick("eligible", ids, has, true, eligible, n)
	k.pick("others", ids, hasNot, false, others, m)
	ADDQ(Imm(64), list)
	SUBQ(Imm(16), left)
	JMP(LabelRef("nodes"))
	Label("done")
	Store(n, ReturnIndex(0))
	Store(m, ReturnIndex(1))
	VZEROUPPER()
	RET()
}

// through emits the routine that looks for eligible nodes in the lists of others.
func through() {
	TEXT("throughAVX512", NOSPLIT, "func(links []uint32, width int, via []uint32, want int, filter []uint64, marks []uint8, epoch uint8, eligible []uint32, n int) (count, used int)")
	Doc("throughAVX512 is through, with AVX-512F, AVX-512DQ and BMI2.")
	Pragma("noescape")
	k := beginEligible()
	links := Load(Param("links").Base(), GP64())
	width := Load(Param("width"), GP64())
	via := Load(Param("via").Base(), GP64())
	eligible := Load(Param("eligible").Base(), GP64())
	n := Load(Param("n"), GP64())
	i := GP64()
	XORL(i.As32(), i.As32())
	Label("node")
	CMPQ(i, lengthOf("via"))
	JGE(LabelRef("done"))
	CMPQ(n, paramOf("want"))
	JGE(LabelRef("done"))
	list, left := GP64(), GP64()
	MOVL(Mem{Base: via, Index: i, Scale: 4}, list.As32())
	INCQ(i)
	MOVB(k.epoch, Mem{Base: k.marks, Index: list, Scale: 1})
	IMULQ(width, list)
	LEAQ(Mem{Base: links, Index: list, Scale: 4}, list)
	MOVQ(width, left)
	Label("nodes")
	ids, has, _ := k.look(Mem{Base: list}, left)
	k.pick("eligible", ids, has, true, eligible, n)
	ADDQ(Imm(64), list)
	SUBQ(Imm(16), left)
	JG(LabelRef("nodes"))
	JMP(LabelRef("node"))
	Label("done")
	Store(n, ReturnIndex(0))
	Store(i, ReturnIndex(1))
	VZEROUPPER()
	RET()
}

// lengthOf is the place in the frame of the length of an argument.
func lengthOf(name string) Mem {
	b, err := Param(name).Len().Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}
