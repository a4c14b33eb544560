package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
)

// A table is rows to score at random; the large one exceeds any L3 cache, the
// small one fits in most.
type table struct {
	name   string
	count  int
	stride int
	rows   func() []float32
	codes  func() []uint8
}

var tables = []table{
	newTable("1Mx128", 1_000_000, 128),
	newTable("44Kx64", 44_000, 64),
}

func newTable(name string, count, stride int) table {
	return table{
		name, count, stride,
		sync.OnceValue(func() []float32 {
			return normal(rand.New(rand.NewPCG(1, 2)), count*stride)
		}),
		sync.OnceValue(func() []uint8 {
			return codeFills[0].rowsOf(rand.New(rand.NewPCG(1, 2)), count*stride)
		}),
	}
}

// BenchmarkGather scores random rows, in lists as long as a node's links and
// one row at a time.
func BenchmarkGather(b *testing.B) {
	for _, t := range tables {
		for _, list := range []int{32, 1} {
			for _, i := range supported() {
				r := i.routines()
				b.Run(fmt.Sprintf("dot/%s/list=%d/%s", t.name, list, i), func(b *testing.B) { gather(b, t, list, r.dot) })
				b.Run(fmt.Sprintf("l2/%s/list=%d/%s", t.name, list, i), func(b *testing.B) { gather(b, t, list, r.l2) })
			}
		}
	}
}

func gather(b *testing.B, t table, list int, score func(query, rows []float32, ordinals []uint32, out []float32)) {
	rows := t.rows()
	random := rand.New(rand.NewPCG(3, 4))
	query := normal(random, t.stride)
	ordinals := make([]uint32, 1<<20)
	for i := range ordinals {
		ordinals[i] = random.Uint32N(uint32(t.count))
	}
	out := make([]float32, list)

	b.ReportAllocs()
	b.SetBytes(int64(list * t.stride * 4))
	at := 0
	for b.Loop() {
		score(query, rows, ordinals[at:at+list], out)
		if at += list; at+list > len(ordinals) {
			at = 0
		}
	}
	perRow(b, list)
}

// BenchmarkScan scores consecutive rows.
func BenchmarkScan(b *testing.B) {
	const list = 1000
	for _, t := range tables {
		for _, i := range supported() {
			r := i.routines()
			b.Run(fmt.Sprintf("dot/%s/%s", t.name, i), func(b *testing.B) { scan(b, t, list, r.dotRange) })
			b.Run(fmt.Sprintf("l2/%s/%s", t.name, i), func(b *testing.B) { scan(b, t, list, r.l2Range) })
		}
	}
}

func scan(b *testing.B, t table, list int, score func(query, rows, out []float32)) {
	rows := t.rows()
	query := normal(rand.New(rand.NewPCG(3, 4)), t.stride)
	out := make([]float32, list)

	b.ReportAllocs()
	b.SetBytes(int64(list * t.stride * 4))
	first := 0
	for b.Loop() {
		score(query, rows[first*t.stride:], out)
		first = (first + list) % t.count
	}
	perRow(b, list)
}

// BenchmarkWithin scores random rows of codes, in lists as long as a node's links, as
// long as what a walk has not yet visited of them, and one row at a time. As in a
// walk, the next list is prefetched before the last one is scored. About half of the
// rows are within the bound, so that a branch on it would be foretold badly.
func BenchmarkWithin(b *testing.B) {
	for _, t := range tables {
		for _, list := range []int{32, 12, 1} {
			for _, i := range supportedCodes() {
				b.Run(fmt.Sprintf("%s/list=%d/%s", t.name, list, i), func(b *testing.B) { withinLists(b, t, list, i.codeRoutines()) })
			}
		}
	}
}

func withinLists(b *testing.B, t table, list int, r codeRoutines) {
	rows := t.codes()
	random := rand.New(rand.NewPCG(3, 4))
	query := codeFills[0].queryOf(random, t.stride)
	factors := normal(random, 2*t.count)
	ordinals := each(1<<22, func() uint32 { return random.Uint32N(uint32(t.count)) })
	out := make([]uint64, list+Spare)

	b.ReportAllocs()
	b.SetBytes(int64(list * t.stride))
	at := 0
	for b.Loop() {
		PrefetchCodes(rows, t.stride, factors, ordinals[at+list:at+2*list])
		r.within(query, rows, factors, ordinals[at:at+list], 0, 1, 0, 0, out)
		if at += list; at+2*list > len(ordinals) {
			at = 0
		}
	}
	perRow(b, list)
}

// BenchmarkScanCodes scores consecutive rows, of which hardly any are within the bound.
func BenchmarkScanCodes(b *testing.B) {
	const list = 1000
	for _, t := range tables {
		b.Run(t.name, func(b *testing.B) {
			rows := t.codes()
			random := rand.New(rand.NewPCG(3, 4))
			q := Query{Code: codeFills[0].queryOf(random, t.stride), Scale: 1}
			factors := normal(random, 2*t.count)
			out := make([]uint64, list+Spare)

			b.ReportAllocs()
			b.SetBytes(int64(list * t.stride))
			first := 0
			for b.Loop() {
				WithinRange(&q, rows, factors, first, list, -math.MaxFloat32, out)
				first = (first + list) % t.count
			}
			perRow(b, list)
		})
	}
}

// BenchmarkVisit picks from lists as long as a node's links, of which a walk has
// visited most.
func BenchmarkVisit(b *testing.B) {
	const list, nodes, stride = 32, 44_000, 64
	random := rand.New(rand.NewPCG(3, 4))
	links := each(1<<20, func() uint32 { return random.Uint32N(nodes) })
	rows, factors, dst := make([]uint8, nodes*stride), make([]float32, 2*nodes), make([]uint32, list)
	for _, i := range supportedCodes() {
		b.Run(i.String(), func(b *testing.B) {
			r, marks := i.codeRoutines(), make([]uint8, nodes)
			b.ReportAllocs()
			at, epoch := 0, uint8(1)
			for b.Loop() {
				r.visit(links[at:at+list], marks, epoch, rows, stride, stride, factors, dst)
				if at += list; at+list > len(links) {
					at, epoch = 0, epoch%255+1
				}
			}
		})
	}
}

// BenchmarkInsert fills a pool, in batches as long as what is near enough of a
// node's links, with entries that improve slowly, as in a walk.
func BenchmarkInsert(b *testing.B) {
	const list, batches = 6, 200
	for _, size := range []int{10, 100, 500} {
		random := rand.New(rand.NewPCG(3, 4))
		entries := make([]uint64, list*batches)
		for i := range entries {
			near := 1 + 100/float32(1+i)
			entries[i] = uint64(Sortable(near*random.Float32()))<<32 | uint64(i)<<1
		}
		for _, i := range supportedCodes() {
			b.Run(fmt.Sprintf("size=%d/%s", size, i), func(b *testing.B) {
				r, pool := i.codeRoutines(), make([]uint64, size)
				b.ReportAllocs()
				for b.Loop() {
					n := 0
					for at := 0; at < len(entries); at += list {
						n, _ = r.insert(pool, n, entries[at:at+list])
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(entries)), "ns/entry")
			})
		}
	}
}

// BenchmarkCall scores one row that is in cache through the exported function:
// what a call costs.
func BenchmarkCall(b *testing.B) {
	query, rows, out := make([]float32, 16), make([]float32, 16), make([]float32, 1)
	ordinals := make([]uint32, 1)
	b.ReportAllocs()
	for b.Loop() {
		Dot(query, rows, ordinals, out)
	}
}

func perRow(b *testing.B, list int) {
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*list), "ns/row")
}
