package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// compactRoutines are the four functions of one implementation for rows of T.
type compactRoutines[T compact] struct {
	dot, l2           func(query []float32, rows []T, ordinals []uint32, out []float32)
	dotRange, l2Range func(query []float32, rows []T, out []float32)
}

func genericCompactRoutines[T compact]() compactRoutines[T] {
	return compactRoutines[T]{dotCompactGeneric[T], l2CompactGeneric[T], dotRangeCompactGeneric[T], l2RangeCompactGeneric[T]}
}

// An elementType is what rows are held in, with the implementations that this CPU
// supports.
type elementType[T compact] struct {
	name      string
	supported []implementation
	routines  func(implementation) compactRoutines[T]
	// exported are the functions that package index calls, as routines.
	exported compactRoutines[T]
}

var (
	float16Rows = elementType[uint16]{
		"float16", supportedFloat16(), implementation.float16Routines,
		compactRoutines[uint16]{
			DotFloat16, L2Float16,
			func(query []float32, rows []uint16, out []float32) { DotRangeFloat16(query, rows, 0, out) },
			func(query []float32, rows []uint16, out []float32) { L2RangeFloat16(query, rows, 0, out) },
		},
	}
	uint8Rows = elementType[uint8]{
		"uint8", supported(), implementation.uint8Routines,
		compactRoutines[uint8]{
			DotUint8, L2Uint8,
			func(query []float32, rows []uint8, out []float32) { DotRangeUint8(query, rows, 0, out) },
			func(query []float32, rows []uint8, out []float32) { L2RangeUint8(query, rows, 0, out) },
		},
	}
)

// compactScores returns the bits of n scores, NaNs made one, and fails if score
// writes beside them.
func compactScores(t *testing.T, n int, score func(out []float32)) []uint32 {
	t.Helper()
	const canary = 12345.678
	out := make([]float32, n+2*lanes)
	for i := range out {
		out[i] = canary
	}
	score(out[lanes:][:n:n])
	bits := make([]uint32, n)
	for i, v := range out {
		switch {
		case i < lanes || i >= lanes+n:
			require.Equal(t, float32(canary), v, "wrote beside out, at %d of %d", i-lanes, n)
		case v != v:
			bits[i-lanes] = math.Float32bits(float32(math.NaN()))
		default:
			bits[i-lanes] = math.Float32bits(v)
		}
	}
	return bits
}

// requireFloat32Scores checks every implementation, in both forms, against pure Go on
// rows that were widened before.
func requireFloat32Scores[T compact](t *testing.T, e elementType[T], query []float32, rows []T, ordinals []uint32) {
	t.Helper()
	count := len(rows) / len(query)
	wide := make([]float32, len(rows))
	Widen(wide, rows)
	kinds := []struct {
		metric string
		n      int
		want   func(out []float32)
		score  func(r compactRoutines[T], out []float32)
	}{
		{
			"dot", len(ordinals),
			func(out []float32) { dotGeneric(query, wide, ordinals, out) },
			func(r compactRoutines[T], out []float32) { r.dot(query, rows, ordinals, out) },
		},
		{
			"l2", len(ordinals),
			func(out []float32) { l2Generic(query, wide, ordinals, out) },
			func(r compactRoutines[T], out []float32) { r.l2(query, rows, ordinals, out) },
		},
		{
			"dot range", count,
			func(out []float32) { dotRangeGeneric(query, wide, out) },
			func(r compactRoutines[T], out []float32) { r.dotRange(query, rows, out) },
		},
		{
			"l2 range", count,
			func(out []float32) { l2RangeGeneric(query, wide, out) },
			func(r compactRoutines[T], out []float32) { r.l2Range(query, rows, out) },
		},
	}
	// Once for all implementations: where the CPU is emulated, pure Go is most of the time.
	wants := make([][]uint32, len(kinds))
	for i, k := range kinds {
		wants[i] = compactScores(t, k.n, k.want)
	}
	check := func(name string, r compactRoutines[T]) {
		t.Helper()
		for i, k := range kinds {
			got := compactScores(t, k.n, func(out []float32) { k.score(r, out) })
			require.Equal(t, wants[i], got, "%s %s of %s: %d scores, stride %d", name, k.metric, e.name, k.n, len(query))
		}
	}
	for _, i := range e.supported {
		check(i.String(), e.routines(i))
	}
	check("the selected", e.exported)
}

// compactDims are the dimensions that are tested: all the small ones, and some that
// models have.
func compactDims() []int {
	dims := []int{160, 200, 256, 300, 384, 512, 768, 960, 1000, 1024, 1536}
	for dim := 1; dim <= 144; dim++ {
		dims = append(dims, dim)
	}
	return dims
}

func testEveryDimension[T compact](t *testing.T, e elementType[T], element func(r *rand.Rand) T) {
	random := rand.New(rand.NewPCG(21, 22))
	queries := map[string]func() float32{
		"normal": func() float32 { return float32(random.NormFloat64()) },
		"small":  func() float32 { return float32(random.NormFloat64() * 1e-38) },
		"large":  func() float32 { return float32(random.NormFloat64() * 1e35) },
		"bytes":  func() float32 { return float32(random.IntN(256)) },
	}
	for name, component := range queries {
		t.Run(name, func(t *testing.T) {
			for _, dim := range compactDims() {
				stride, count := Stride(dim), 1+random.IntN(20)
				query, rows := make([]float32, stride), make([]T, count*stride)
				for j := range dim {
					query[j] = component()
					for i := range count {
						rows[i*stride+j] = element(random)
					}
				}
				ordinals := make([]uint32, random.IntN(40))
				for i := range ordinals {
					ordinals[i] = random.Uint32N(uint32(count))
				}
				requireFloat32Scores(t, e, query, rows, ordinals)
			}
		})
	}
}

func TestCompactScoresAreThoseOfFloat32(t *testing.T) {
	t.Run("uint8", func(t *testing.T) {
		testEveryDimension(t, uint8Rows, func(r *rand.Rand) uint8 { return uint8(r.Uint32()) })
	})
	t.Run("float16", func(t *testing.T) {
		testEveryDimension(t, float16Rows, func(r *rand.Rand) uint16 {
			h, _ := ToFloat16(float32(r.IntN(2049)-1024) / 512)
			return h
		})
	})
	t.Run("float16 of any bits", func(t *testing.T) {
		testEveryDimension(t, float16Rows, func(r *rand.Rand) uint16 { return uint16(r.Uint32()) })
	})
	t.Run("float16 of denormals", func(t *testing.T) {
		testEveryDimension(t, float16Rows, func(r *rand.Rand) uint16 { return uint16(r.Uint32()) & 0x83ff })
	})
}

func TestEveryCountOfCompactRows(t *testing.T) {
	random := rand.New(rand.NewPCG(23, 24))
	for _, stride := range []int{16, 32, 112, 128} {
		query := make([]float32, stride)
		for j := range query {
			query[j] = float32(random.NormFloat64())
		}
		for n := 1; n <= 33; n++ {
			bytes, halves := make([]uint8, n*stride), make([]uint16, n*stride)
			for j := range bytes {
				bytes[j], halves[j] = uint8(random.Uint32()), uint16(random.Uint32())
			}
			ordinals := make([]uint32, n)
			for i := range ordinals {
				ordinals[i] = random.Uint32N(uint32(n))
			}
			requireFloat32Scores(t, uint8Rows, query, bytes, ordinals)
			requireFloat32Scores(t, float16Rows, query, halves, ordinals)
		}
	}
}

// Each value is a row of its own, and the query picks it.
func TestEveryElementIsWidened(t *testing.T) {
	query := make([]float32, lanes)
	query[5] = 1
	halves, bytes := make([]uint16, 1<<16*lanes), make([]uint8, 1<<8*lanes)
	for h := range 1 << 16 {
		halves[h*lanes+5] = uint16(h)
	}
	for b := range 1 << 8 {
		bytes[b*lanes+5] = uint8(b)
	}
	for _, i := range float16Rows.supported {
		out := make([]float32, 1<<16)
		i.float16Routines().dotRange(query, halves, out)
		for h, x := range out {
			if want := valueOfFloat16(uint16(h)); x != want && (x == x || want == want) {
				require.Failf(t, "not the value", "%s: float16 %#04x is %v, want %v", i, h, x, want)
			}
		}
	}
	for _, i := range uint8Rows.supported {
		out := make([]float32, 1<<8)
		i.uint8Routines().dotRange(query, bytes, out)
		for b, x := range out {
			require.Equal(t, float32(b), x, "%s: uint8 %d", i, b)
		}
	}
}

// valueOfFloat16 is the number that the standard gives to the bits.
func valueOfFloat16(h uint16) float32 {
	sign, exponent, fraction := 1.0, int(h>>10&0x1f), float64(h&0x3ff)
	if h>>15 != 0 {
		sign = math.Copysign(1, -1)
	}
	switch {
	case exponent == 0x1f && fraction == 0:
		return float32(math.Inf(int(sign)))
	case exponent == 0x1f:
		return float32(math.NaN())
	case exponent == 0:
		return float32(sign * math.Ldexp(fraction, -24))
	}
	return float32(sign * math.Ldexp(1024+fraction, exponent-25))
}

func TestFloat16(t *testing.T) {
	known := map[uint32]uint16{}
	for i := range 1 << 16 {
		h := uint16(i)
		want := valueOfFloat16(h)
		x := FromFloat16(h)
		if want != want {
			if _, exact := ToFloat16(x); exact || x == x {
				require.Failf(t, "not a NaN", "%#04x", h)
			}
			continue
		}
		if math.Float32bits(want) != math.Float32bits(x) {
			require.Failf(t, "not the value", "%#04x is %v, want %v", h, x, want)
		}
		known[math.Float32bits(x)] = h
	}
	check := func(x float32) {
		want, is := known[math.Float32bits(x)]
		if h, exact := ToFloat16(x); exact != is || is && h != want {
			require.Failf(t, "not the float16", "%v: %#04x, %t, want %#04x, %t", x, h, exact, want, is)
		}
	}
	random := rand.New(rand.NewPCG(25, 26))
	for bits := range known {
		check(math.Float32frombits(bits))
		for shift := range 14 {
			check(math.Float32frombits(bits ^ 1<<shift))
		}
	}
	for range 200_000 {
		check(math.Float32frombits(random.Uint32()))
		check(math.Float32frombits(random.Uint32() &^ 0x1fff))
	}
}

func TestFloat16NameIsTheFastest(t *testing.T) {
	assert.Equal(t, supportedFloat16()[0], selectedFloat16)
}

func TestCompactMisfitsPanic(t *testing.T) {
	floats := func(n int) []float32 { return make([]float32, n) }
	bytes := func(n int) []uint8 { return make([]uint8, n) }
	halves := func(n int) []uint16 { return make([]uint16, n) }
	for _, test := range []struct {
		want string
		call func()
	}{
		{"kernel: query has 0 floats: want a positive multiple of 16", func() { DotUint8(nil, nil, nil, nil) }},
		{"kernel: query has 17 floats: want a positive multiple of 16", func() { L2Uint8(floats(17), bytes(17), nil, nil) }},
		{"kernel: query has 8 floats: want a positive multiple of 16", func() { DotFloat16(floats(8), halves(16), nil, nil) }},
		{"kernel: score 2 ordinals: out has room for 1", func() { L2Float16(floats(16), halves(16), make([]uint32, 2), floats(1)) }},
		{"kernel: query has 0 floats: want a positive multiple of 16", func() { DotRangeUint8(nil, nil, 0, nil) }},
		{"kernel: score rows -1 to 0: there are 2", func() { DotRangeFloat16(floats(16), halves(32), -1, floats(1)) }},
		{"kernel: score rows 1 to 3: there are 2", func() { L2RangeUint8(floats(16), bytes(32), 1, floats(2)) }},
		{"kernel: score rows 3 to 3: there are 2", func() { L2RangeFloat16(floats(16), halves(32), 3, nil) }},
	} {
		assert.PanicsWithValue(t, test.want, test.call)
	}
}

func TestNothingCompactEscapes(t *testing.T) {
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		var query, wide [64]float32
		var halves [64]uint16
		var bytes [64]uint8
		var ordinals [3]uint32
		var out [3]float32
		DotFloat16(query[:], halves[:], ordinals[:], out[:])
		L2Float16(query[:], halves[:], ordinals[:], out[:])
		DotRangeFloat16(query[:], halves[:], 0, out[:1])
		L2RangeFloat16(query[:], halves[:], 0, out[:1])
		DotUint8(query[:], bytes[:], ordinals[:], out[:])
		L2Uint8(query[:], bytes[:], ordinals[:], out[:])
		DotRangeUint8(query[:], bytes[:], 0, out[:1])
		L2RangeUint8(query[:], bytes[:], 0, out[:1])
		Widen(wide[:], halves[:])
		Widen(wide[:], bytes[:])
	}))
}

// FuzzCompact takes its shapes from its first arguments and its numbers, which may be
// of any kind, from data, over and over.
func FuzzCompact(f *testing.F) {
	f.Add(uint8(1), uint8(1), []byte{0, 0, 0x80, 0x3f})
	f.Add(uint8(4), uint8(9), []byte("sixteen lanes, of a byte or of two"))
	f.Add(uint8(8), uint8(33), []byte{0, 0, 0, 0x80, 1, 0, 0, 0, 0xff, 0x7b, 0xff, 0xfb, 0})
	f.Fuzz(func(t *testing.T, blocks, count uint8, data []byte) {
		if len(data) == 0 {
			return
		}
		at := 0
		next := func() uint8 {
			at++
			return data[(at-1)%len(data)]
		}
		wide := func() uint16 { return uint16(next())<<8 | uint16(next()) }
		stride, n := lanes*(1+int(blocks)%24), 1+int(count)%40
		query, halves, bytes := make([]float32, stride), make([]uint16, n*stride), make([]uint8, n*stride)
		for j := range query {
			query[j] = math.Float32frombits(uint32(wide())<<16 | uint32(wide()))
		}
		for j := range halves {
			halves[j], bytes[j] = wide(), next()
		}
		ordinals := make([]uint32, next()%40)
		for i := range ordinals {
			ordinals[i] = uint32(int(wide()) % n)
		}
		requireFloat32Scores(t, float16Rows, query, halves, ordinals)
		requireFloat32Scores(t, uint8Rows, query, bytes, ordinals)
	})
}

func ExampleDotUint8() {
	const dim = 3
	rows := make([]uint8, 2*Stride(dim))
	copy(rows, []uint8{1, 2, 255})
	copy(rows[Stride(dim):], []uint8{0, 0, 1})
	query := make([]float32, Stride(dim))
	copy(query, []float32{1, 1, 0.5})

	scores := make([]float32, 3)
	DotUint8(query, rows, []uint32{1, 0, 1}, scores)
	fmt.Println(scores)
	// Output: [0.5 130.5 0.5]
}

// BenchmarkRescore scores random rows of a table that exceeds any L3 cache, in lists
// as long as a walk's pool, by element type.
func BenchmarkRescore(b *testing.B) {
	const count, list = 2_000_000, 100
	for _, dim := range []int{64, 128} {
		random := rand.New(rand.NewPCG(27, 28))
		query, stride := make([]float32, Stride(dim)), Stride(dim)
		for j := range query {
			query[j] = float32(random.IntN(256))
		}
		bytes, halves, floats := make([]uint8, count*stride), make([]uint16, count*stride), make([]float32, count*stride)
		for j := range bytes {
			bytes[j] = uint8(random.Uint32())
			floats[j] = float32(bytes[j])
			halves[j], _ = ToFloat16(floats[j])
		}
		ordinals := make([]uint32, list<<14)
		for i := range ordinals {
			ordinals[i] = random.Uint32N(count)
		}
		out := make([]float32, list)
		run := func(name string, score func(ordinals []uint32)) {
			b.Run(fmt.Sprintf("dim=%d/%s", dim, name), func(b *testing.B) {
				at := 0
				for b.Loop() {
					score(ordinals[at : at+list])
					at = (at + list) % len(ordinals)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*list), "ns/row")
			})
		}
		run("dot/float32", func(o []uint32) { Dot(query, floats, o, out) })
		run("dot/float16", func(o []uint32) { DotFloat16(query, halves, o, out) })
		run("dot/uint8", func(o []uint32) { DotUint8(query, bytes, o, out) })
		run("l2/float32", func(o []uint32) { L2(query, floats, o, out) })
		run("l2/float16", func(o []uint32) { L2Float16(query, halves, o, out) })
		run("l2/uint8", func(o []uint32) { L2Uint8(query, bytes, o, out) })
	}
}
