// Command avo writes the amd64 kernels of package kernel.
//
// One routine is emitted for each instruction set, element type, metric and form
// (a list of ordinals, or consecutive rows): 24 for vectors from the description
// in main.go, six for codes from that in codes.go. Rows are scored four at a
// time, which hides the latency of the additions and shares each load of the
// query; of floats the last one to three rows are scored singly, in the same order
// of additions, so that a row's score does not depend on its place. Beside them
// are those that prefetch rows, pick unvisited nodes and keep a pool sorted.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	group = 4  // rows scored together
	ahead = 8  // rows from the one that is scored to the one that is prefetched
	block = 64 // bytes of sixteen float32: one cache line, and one step of a query
)

// An isa is an instruction set: the sixteen lanes of a row are held in one
// 64-byte register or in two of 32 bytes.
type isa struct {
	name   string
	title  string
	width  int // bytes in a vector register
	vector func() reg.VecVirtual
}

var isas = []isa{
	{"AVX512", "AVX-512F", 64, ZMM},
	{"AVX2", "AVX2", 32, YMM},
}

// An element is what a component of a row is stored as. Every one that is not a
// float32 is a float32 too, so that to widen it is exact.
type element struct {
	name   string // what it adds to the name of a routine
	goType string
	size   int // bytes
	// widen leaves the elements at row in v as float32; nil where they are that.
	widen func(row Mem, v reg.VecVirtual)
}

var elements = []element{
	{"", "float32", 4, nil},
	{"Float16", "uint16", 2, func(row Mem, v reg.VecVirtual) {
		VCVTPH2PS(row, v)
	}},
	{"Uint8", "uint8", 1, func(row Mem, v reg.VecVirtual) {
		VPMOVZXBD(row, v)
		VCVTDQ2PS(v, v)
	}},
}

// A metric leaves the terms of query and row in term. Products are rounded
// before they are added to a lane: never a fused multiply-add.
type metric struct {
	name  string
	title string
	term  func(row Op, query, term reg.VecVirtual)
}

var metrics = []metric{
	{"dot", "inner product", func(row Op, query, term reg.VecVirtual) {
		VMULPS(row, query, term)
	}},
	{"l2", "squared Euclidean distance", func(row Op, query, term reg.VecVirtual) {
		VSUBPS(row, query, term)
		VMULPS(term, term, term)
	}},
}

func main() {
	for _, e := range elements {
		for _, s := range isas {
			for _, m := range metrics {
				gather(s, e, m)
				scan(s, e, m)
			}
		}
	}
	constants()
	eligibleConstants()
	for _, s := range codeISAs {
		withinCodes(s)
		withinCodesRange(s)
	}
	prefetch()
	visit()
	insert()
	split()
	through()
	Generate()
}

// gather emits the routine for a list of ordinals. While a group is scored,
// block by block, the same blocks of the group ahead rows on are prefetched: every
// cache line that they touch, spread over the time it takes. A line that holds more
// blocks than one is asked for as often, which is cheaper than to find out.
func gather(s isa, e element, m metric) {
	name := m.name + e.name + s.name
	TEXT(name, NOSPLIT, "func(query []float32, rows []"+e.goType+", ordinals []uint32, out []float32)")
	Doc(name + " sets out[i] to the " + m.title + " of query and row ordinals[i], with " + s.title + ".")
	Pragma("noescape")

	k := begin(s, e, m)
	ordinals := Load(Param("ordinals").Base(), GP64())
	last := Load(Param("ordinals").Len(), GP64())
	DECQ(last)
	i := GP64()
	XORL(i.As32(), i.As32())

	// locate replaces an index into ordinals by the address of its row.
	locate := func(r reg.GPVirtual) {
		MOVL(Mem{Base: ordinals, Index: r, Scale: 4}, r.As32())
		IMULQ(k.stride, r)
		ADDQ(param("rows"), r)
	}

	Label("group")
	end := GP64()
	LEAQ(Mem{Base: i, Disp: group - 1}, end)
	CMPQ(end, last)
	JGT(LabelRef("single"))
	rows, next := registers(group), registers(group)
	for j, r := range rows {
		LEAQ(Mem{Base: i, Disp: j}, r)
		locate(r)
	}
	for j, r := range next {
		LEAQ(Mem{Base: i, Disp: ahead + j}, r)
		CMPQ(r, last)
		CMOVQGT(last, r) // past the end of the list, the last row again
		locate(r)
	}
	k.score("block4", rows, func(j int) Mem { return Mem{Base: next[j], Index: k.offset, Scale: 1} })
	k.store(i)
	ADDQ(Imm(group), i)
	JMP(LabelRef("group"))

	Label("single")
	CMPQ(i, last)
	JGT(LabelRef("done"))
	row := registers(1)
	MOVQ(i, row[0])
	locate(row[0])
	k.score("block1", row, nil)
	k.store(i)
	INCQ(i)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// scan emits the routine for consecutive rows.
func scan(s isa, e element, m metric) {
	name := m.name + "Range" + e.name + s.name
	TEXT(name, NOSPLIT, "func(query []float32, rows []"+e.goType+", out []float32)")
	Doc(name + " sets out[i] to the " + m.title + " of query and row i, with " + s.title + ".")
	Pragma("noescape")

	k := begin(s, e, m)
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
	k.score("block4", rows, nil)
	k.store(i)
	ADDQ(Imm(group), i)
	JMP(LabelRef("group"))

	Label("single")
	CMPQ(i, last)
	JGT(LabelRef("done"))
	k.score("block1", []reg.GPVirtual{next}, nil)
	k.store(i)
	ADDQ(k.stride, next)
	INCQ(i)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// A kernel is a routine under construction.
type kernel struct {
	isa
	element element
	metric  metric
	query   reg.Register
	stride  reg.Register   // bytes in a row
	offset  reg.GPVirtual  // bytes of a row that are done
	scores  reg.VecVirtual // what score left for store
	count   int
}

func begin(s isa, e element, m metric) *kernel {
	k := &kernel{isa: s, element: e, metric: m, offset: GP64()}
	k.query = Load(Param("query").Base(), GP64())
	k.stride = Load(Param("query").Len(), GP64())
	if e.size > 1 {
		SHLQ(Imm(uint64(e.size/2)), k.stride)
	}
	return k
}

// score emits the loop over the blocks of one row or of a group, and the sums
// of their lanes. It touches the memory at fetch(j), if any, as it goes.
func (k *kernel) score(loop string, rows []reg.GPVirtual, fetch func(j int) Mem) {
	lanes := make([][]reg.VecVirtual, len(rows))
	for j := range rows {
		for range block / k.width {
			v := k.vector()
			VXORPS(v.AsX(), v.AsX(), v.AsX()) // clears the whole register
			lanes[j] = append(lanes[j], v)
		}
	}

	XORL(k.offset.As32(), k.offset.As32())
	Label(loop)
	for part := range block / k.width {
		// at is a part of the block in an array of elements of size bytes.
		at := func(base reg.Register, size int) Mem {
			return Mem{Base: base, Index: k.offset, Scale: uint8(size / k.element.size), Disp: part * k.width / 4 * size}
		}
		query, term := k.vector(), k.vector()
		VMOVUPS(at(k.query, 4), query)
		for j, r := range rows {
			k.metric.term(k.load(at(r, k.element.size), term), query, term)
			VADDPS(term, lanes[j][part], lanes[j][part])
		}
	}
	if fetch != nil {
		for j := range rows {
			PREFETCHT1(fetch(j))
		}
	}
	ADDQ(Imm(uint64(block/4*k.element.size)), k.offset)
	CMPQ(k.offset, k.stride)
	JLT(LabelRef(loop))

	eights := make([]reg.VecVirtual, len(rows))
	for j := range rows {
		eights[j] = k.fold16(lanes[j])
	}
	k.count = len(rows)
	if k.count == 1 {
		k.scores = sum(eights[0])
	} else {
		k.scores = sum4(eights)
	}
}

// load returns elements of a row as float32: where they are, or widened in v.
func (k *kernel) load(row Mem, v reg.VecVirtual) Op {
	if k.element.widen == nil {
		return row
	}
	k.element.widen(row, v)
	return v
}

// store writes the scores to out[i:].
func (k *kernel) store(i reg.Register) {
	out := Mem{Base: Load(Param("out").Base(), GP64()), Index: i, Scale: 4}
	if k.count == 1 {
		VMOVSS(k.scores, out)
	} else {
		VMOVUPS(k.scores, out)
	}
}

// fold16 adds lane j+8 to lane j.
func (k *kernel) fold16(lanes []reg.VecVirtual) reg.VecVirtual {
	if k.width < block {
		VADDPS(lanes[1], lanes[0], lanes[0])
		return lanes[0]
	}
	high := YMM()
	VEXTRACTF64X4(Imm(1), lanes[0], high)
	VADDPS(high, lanes[0].AsY(), high)
	return high
}

// sum adds the eight lanes of v: lane j+4 to lane j, j+2 to j, 1 to 0.
func sum(v reg.VecVirtual) reg.VecVirtual {
	x, high := XMM(), XMM()
	VEXTRACTF128(Imm(1), v, high)
	VADDPS(high, v.AsX(), x)
	VMOVHLPS(x, x, high)
	VADDPS(high, x, x)
	VMOVSHDUP(x, high)
	VADDSS(high, x, x)
	return x
}

// sum4 does the same for four rows at once, transposing them as it goes.
// In its comments a to d are the rows, and a digit numbers a lane.
func sum4(v []reg.VecVirtual) reg.VecVirtual {
	low, high := YMM(), YMM()
	pair := func(a, b reg.VecVirtual) reg.VecVirtual {
		VPERM2F128(Imm(0x20), b, a, low)
		VPERM2F128(Imm(0x31), b, a, high)
		VADDPS(high, low, a)
		return a
	}
	ac := pair(v[0], v[2])  // a0 a1 a2 a3 c0 c1 c2 c3
	bd := pair(v[1], v[3])  // b0 b1 b2 b3 d0 d1 d2 d3
	VUNPCKLPD(bd, ac, low)  // a0 a1 b0 b1 c0 c1 d0 d1
	VUNPCKHPD(bd, ac, high) // a2 a3 b2 b3 c2 c3 d2 d3
	VADDPS(high, low, low)  // a0 a1 b0 b1 c0 c1 d0 d1
	cd := XMM()
	VEXTRACTF128(Imm(1), low, cd) // c0 c1 d0 d1
	even, odd := XMM(), XMM()
	VSHUFPS(Imm(0x88), cd, low.AsX(), even) // a0 b0 c0 d0
	VSHUFPS(Imm(0xdd), cd, low.AsX(), odd)  // a1 b1 c1 d1
	VADDPS(odd, even, even)
	return even
}

// param is the place in the frame of the first word of a slice argument.
func param(name string) Mem {
	b, err := Param(name).Base().Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

// paramOf is the place in the frame of an argument that is one word.
func paramOf(name string) Mem {
	b, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return b.Addr
}

func registers(n int) []reg.GPVirtual {
	r := make([]reg.GPVirtual, n)
	for i := range r {
		r[i] = GP64()
	}
	return r
}
