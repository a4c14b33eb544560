package kernel

import (
	"fmt"
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

// BenchmarkGatherCodes scores random rows, in lists as long as a node's links,
// as long as what a walk has not yet visited of them, and one row at a time.
func BenchmarkGatherCodes(b *testing.B) {
	for _, t := range tables {
		for _, list := range []int{32, 12, 1} {
			for _, i := range supportedCodes() {
				b.Run(fmt.Sprintf("%s/list=%d/%s", t.name, list, i), func(b *testing.B) { gatherCodes(b, t, list, i.codeRoutines()) })
			}
		}
	}
}

func gatherCodes(b *testing.B, t table, list int, r codeRoutines) {
	rows := t.codes()
	random := rand.New(rand.NewPCG(3, 4))
	query := codeFills[0].queryOf(random, t.stride)
	ordinals := each(1<<22, func() uint32 { return random.Uint32N(uint32(t.count)) })
	out := make([]int32, list)

	b.ReportAllocs()
	b.SetBytes(int64(list * t.stride))
	at := 0
	for b.Loop() {
		r.list(query, rows, ordinals[at:at+list], out)
		if at += list; at+list > len(ordinals) {
			at = 0
		}
	}
	perRow(b, list)
}

// BenchmarkScanCodes scores consecutive rows.
func BenchmarkScanCodes(b *testing.B) {
	const list = 1000
	for _, t := range tables {
		for _, i := range supportedCodes() {
			b.Run(fmt.Sprintf("%s/%s", t.name, i), func(b *testing.B) { scanCodes(b, t, list, i.codeRoutines()) })
		}
	}
}

func scanCodes(b *testing.B, t table, list int, r codeRoutines) {
	rows := t.codes()
	query := codeFills[0].queryOf(rand.New(rand.NewPCG(3, 4)), t.stride)
	out := make([]int32, list)

	b.ReportAllocs()
	b.SetBytes(int64(list * t.stride))
	first := 0
	for b.Loop() {
		r.scan(query, rows[first*t.stride:], out)
		first = (first + list) % t.count
	}
	perRow(b, list)
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
