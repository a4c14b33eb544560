package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The tests run every implementation that the CPU supports. These reach the
// others, with qemu-user for the two last, which differ in dot products of
// codes:
//
//	GODEBUG=cpu.avx512f=off go test ./index/kernel
//	GODEBUG=cpu.avx512f=off,cpu.avx2=off go test ./index/kernel
//	GOARCH=arm64 go test -exec qemu-aarch64 ./index/kernel
//	GOARCH=arm64 go test -exec 'qemu-aarch64 -cpu cortex-a57' ./index/kernel

// routines are the four functions of one implementation.
type routines struct {
	dot, l2           func(query, rows []float32, ordinals []uint32, out []float32)
	dotRange, l2Range func(query, rows, out []float32)
}

var genericRoutines = routines{dotGeneric, l2Generic, dotRangeGeneric, l2RangeGeneric}

var strides = []int{16, 32, 48, 64, 80, 96, 112, 128, 144, 256, 384, 512, 768, 1008, 1024}

// naive is the canonical order written as the package's comment says it, with
// nothing done for speed.
func naive(query, row []float32, term func(q, r float32) float32) float32 {
	var lane [lanes]float32
	for i := range query {
		lane[i%lanes] += term(query[i], row[i])
	}
	for n := lanes / 2; n > 0; n /= 2 {
		for j := range n {
			lane[j] += lane[j+n]
		}
	}
	return lane[0]
}

func dotTerm(q, r float32) float32 { return float32(q * r) }

func l2Term(q, r float32) float32 {
	d := q - r
	return float32(d * d)
}

// A fill makes n floats of one character.
type fill struct {
	name   string
	floats func(r *rand.Rand, n int) []float32
}

var fills = []fill{
	{"normal", normal},
	{"padded", func(r *rand.Rand, n int) []float32 {
		f := normal(r, n)
		for i := range f {
			if i%lanes >= 11 {
				f[i] = 0
			}
		}
		return f
	}},
	{"denormal", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return math.Float32frombits(r.Uint32() & 0x807fffff) })
	}},
	{"products are denormal", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return float32(r.NormFloat64() * 1e-20) })
	}},
	{"large", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return float32(r.NormFloat64() * 1e18) })
	}},
	{"overflow", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return float32(r.Float64() * math.MaxFloat32) })
	}},
	{"wide", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return float32(math.Ldexp(r.NormFloat64(), r.IntN(80)-40)) })
	}},
	{"signed zeros", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 {
			return []float32{0, float32(math.Copysign(0, -1)), 1, -1}[r.IntN(4)]
		})
	}},
	{"negative zero", func(_ *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return float32(math.Copysign(0, -1)) })
	}},
	{"any bits", func(r *rand.Rand, n int) []float32 {
		return each(n, func() float32 { return math.Float32frombits(r.Uint32()) })
	}},
}

func normal(r *rand.Rand, n int) []float32 {
	return each(n, func() float32 { return float32(r.NormFloat64()) })
}

func each[T any](n int, f func() T) []T {
	s := make([]T, n)
	for i := range s {
		s[i] = f()
	}
	return s
}

// bitsOf makes scores comparable: all NaNs are one.
func bitsOf(scores []float32) []uint32 {
	b := make([]uint32, len(scores))
	for i, s := range scores {
		if b[i] = math.Float32bits(s); s != s {
			b[i] = math.Float32bits(float32(math.NaN()))
		}
	}
	return b
}

// scored returns the bits of n scores, and fails if score writes beside them.
func scored(t *testing.T, n int, score func(out []float32)) []uint32 {
	t.Helper()
	const canary = 12345.678
	out := each(n+2*lanes, func() float32 { return canary })
	score(out[lanes:][:n:n])
	for i, v := range out {
		if (i < lanes || i >= lanes+n) && v != canary {
			require.Failf(t, "wrote beside out", "at %d of %d", i-lanes, n)
		}
	}
	return bitsOf(out[lanes:][:n])
}

// requireNaive checks every implementation, in both forms, against naive.
func requireNaive(t *testing.T, query, rows []float32, ordinals []uint32) {
	t.Helper()
	stride := len(query)
	count := len(rows) / stride
	for _, metric := range []struct {
		name string
		term func(q, r float32) float32
		list func(routines) func(query, rows []float32, ordinals []uint32, out []float32)
		scan func(routines) func(query, rows, out []float32)
	}{
		{
			"dot", dotTerm,
			func(r routines) func([]float32, []float32, []uint32, []float32) { return r.dot },
			func(r routines) func(query, rows, out []float32) { return r.dotRange },
		},
		{
			"l2", l2Term,
			func(r routines) func([]float32, []float32, []uint32, []float32) { return r.l2 },
			func(r routines) func(query, rows, out []float32) { return r.l2Range },
		},
	} {
		every := make([]float32, count)
		for i := range every {
			every[i] = naive(query, rows[i*stride:], metric.term)
		}
		listed := make([]float32, len(ordinals))
		for i, o := range ordinals {
			listed[i] = every[o]
		}
		for _, i := range supported() {
			r := i.routines()
			require.Equal(t, bitsOf(listed), scored(t, len(ordinals), func(out []float32) {
				metric.list(r)(query, rows, ordinals, out)
			}), "%s %s of %d ordinals, stride %d", i, metric.name, len(ordinals), stride)
			require.Equal(t, bitsOf(every), scored(t, count, func(out []float32) {
				metric.scan(r)(query, rows, out)
			}), "%s %s of %d rows, stride %d", i, metric.name, count, stride)
		}
	}
}

func TestEveryImplementationGivesTheCanonicalBits(t *testing.T) {
	for _, fill := range fills {
		t.Run(fill.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			for _, stride := range strides {
				for n := range 41 {
					count := 1 + random.IntN(n+1) // fewer rows than ordinals: some repeat
					ordinals := make([]uint32, n)
					for i := range ordinals {
						ordinals[i] = random.Uint32N(uint32(count))
					}
					requireNaive(t, fill.floats(random, stride), fill.floats(random, count*stride), ordinals)
				}
			}
		})
	}
}

func TestEveryStride(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for stride := lanes; stride <= 1024; stride += lanes {
		requireNaive(t, normal(random, stride), normal(random, 7*stride), []uint32{6, 0, 5, 1, 4, 2, 3, 3, 0})
	}
}

// In each lane the second product and the negated first cancel if both are
// rounded; a fused multiply-add would leave the low bit of the second.
func TestProductsAreRoundedBeforeTheyAreAdded(t *testing.T) {
	const a = 1 + 1.0/4096 // its square needs one bit more than a float32 has
	query, row := make([]float32, 2*lanes), make([]float32, 2*lanes)
	for j := range lanes {
		query[j], row[j] = -1, a*a
		query[lanes+j], row[lanes+j] = a, a
	}
	for _, i := range supported() {
		out := []float32{1}
		i.routines().dot(query, row, []uint32{0}, out)
		assert.Zero(t, out[0], "%s", i)
	}
	requireNaive(t, query, row, []uint32{0})
}

func TestScoresAreNearTheExactOnes(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, stride := range strides {
		query, rows := normal(random, stride), normal(random, 9*stride)
		dots, distances := make([]float32, 9), make([]float32, 9)
		DotRange(query, rows, 0, dots)
		L2Range(query, rows, 0, distances)
		for i := range 9 {
			var dot, size, distance float64
			for j, q := range query {
				q, r := float64(q), float64(rows[i*stride+j])
				dot += q * r
				size += math.Abs(q * r)
				distance += (q - r) * (q - r)
			}
			// A term is rounded at most four times, then at most once for
			// each block and each fold.
			epsilon := float64(stride/lanes+8) * 0x1p-24
			assert.InDelta(t, dot, dots[i], epsilon*size, "stride %d", stride)
			assert.InEpsilon(t, distance, distances[i], epsilon, "stride %d", stride)
		}
	}
}

func TestScoresDoNotDependOnPlace(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	query, rows := normal(random, 112), normal(random, 11*112)
	for _, metric := range []struct {
		list func(query, rows []float32, ordinals []uint32, out []float32)
		scan func(query, rows []float32, first int, out []float32)
	}{{Dot, DotRange}, {L2, L2Range}} {
		every := make([]float32, 11)
		metric.scan(query, rows, 0, every)
		for o := range every {
			one := make([]float32, 1)
			metric.list(query, rows, []uint32{uint32(o)}, one)
			require.Equal(t, bitsOf(every[o:o+1]), bitsOf(one))
			metric.scan(query, rows, o, one)
			require.Equal(t, bitsOf(every[o:o+1]), bitsOf(one))
		}
		metric.scan(query, rows, 11, nil)
	}
}

func TestStride(t *testing.T) {
	for dim, want := range map[int]int{1: 16, 15: 16, 16: 16, 17: 32, 100: 112, 128: 128, 1000: 1008} {
		assert.Equal(t, want, Stride(dim), "dim %d", dim)
	}
}

func TestNameIsTheFastest(t *testing.T) {
	assert.Equal(t, supported()[0].String(), Name())
}

func TestMisfitsPanic(t *testing.T) {
	floats := func(n int) []float32 { return make([]float32, n) }
	for _, test := range []struct {
		want string
		call func()
	}{
		{"kernel: query has 0 floats: want a positive multiple of 16", func() { Dot(nil, nil, nil, nil) }},
		{"kernel: query has 17 floats: want a positive multiple of 16", func() { L2(floats(17), floats(17), nil, nil) }},
		{"kernel: score 2 ordinals: out has room for 1", func() { L2(floats(16), floats(16), make([]uint32, 2), floats(1)) }},
		{"kernel: query has 0 floats: want a positive multiple of 16", func() { DotRange(nil, nil, 0, nil) }},
		{"kernel: query has 8 floats: want a positive multiple of 16", func() { L2Range(floats(8), floats(16), 0, nil) }},
		{"kernel: score rows -1 to 0: there are 2", func() { DotRange(floats(16), floats(32), -1, floats(1)) }},
		{"kernel: score rows 1 to 3: there are 2", func() { L2Range(floats(16), floats(32), 1, floats(2)) }},
		{"kernel: score rows 3 to 3: there are 2", func() { DotRange(floats(16), floats(32), 3, nil) }},
	} {
		assert.PanicsWithValue(t, test.want, test.call)
	}
}

func TestNothingEscapes(t *testing.T) {
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		var query, rows [64]float32
		var ordinals [3]uint32
		var out [3]float32
		Dot(query[:], rows[:], ordinals[:], out[:])
		L2(query[:], rows[:], ordinals[:], out[:])
		DotRange(query[:], rows[:], 0, out[:1])
		L2Range(query[:], rows[:], 0, out[:1])
	}))
}

// FuzzKernels takes its shapes from its first arguments and its floats, which
// may be of any kind, from data, over and over.
func FuzzKernels(f *testing.F) {
	f.Add(uint8(1), uint8(1), []byte{0, 0, 0x80, 0x3f})
	f.Add(uint8(4), uint8(9), []byte("sixteen lanes, no fused multiply-add"))
	f.Add(uint8(8), uint8(33), []byte{0, 0, 0, 0x80, 1, 0, 0, 0, 0xff, 0xff, 0x7f, 0x7f, 0})
	f.Fuzz(func(t *testing.T, blocks, count uint8, data []byte) {
		if len(data) == 0 {
			return
		}
		at := 0
		next := func() (b uint32) {
			for range 4 {
				b = b<<8 | uint32(data[at%len(data)])
				at++
			}
			return b
		}
		stride := Stride(1 + int(blocks)%24*lanes)
		n := 1 + int(count)%40
		query := each(stride, func() float32 { return math.Float32frombits(next()) })
		rows := each(n*stride, func() float32 { return math.Float32frombits(next()) })
		ordinals := make([]uint32, next()%40)
		for i := range ordinals {
			ordinals[i] = next() % uint32(n)
		}
		requireNaive(t, query, rows, ordinals)
	})
}

func Example() {
	const dim = 3
	rows := make([]float32, 2*Stride(dim))
	copy(rows, []float32{1, 2, 3})
	copy(rows[Stride(dim):], []float32{0, 0, 1})
	query := make([]float32, Stride(dim))
	copy(query, []float32{1, 1, 1})

	scores := make([]float32, 3)
	Dot(query, rows, []uint32{1, 0, 1}, scores)
	fmt.Println(scores)
	L2Range(query, rows, 0, scores[:2])
	fmt.Println(scores[:2])
	// Output:
	// [1 6 1]
	// [5 2]
}
