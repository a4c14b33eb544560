package kernel

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// codeRoutines are the functions of one implementation for codes and for what is
// done with their scores. list, the products of a list of ordinals, is nil where
// within computes them on its way.
type codeRoutines struct {
	within func(query []int8, rows []uint8, factors []float32, ordinals []uint32, base, scale, shift, bound float32, out []uint64) int
	list   func(query []int8, rows []uint8, ordinals []uint32, out []int32)
	visit  func(list []uint32, marks []uint8, epoch uint8, rows []uint8, stride, length int, factors []float32, dst []uint32) int
	insert func(pool []uint64, n int, batch []uint64) (count, least int)
}

var genericCodeRoutines = codeRoutines{
	withinGeneric, dotCodesGeneric,
	func(list []uint32, marks []uint8, epoch uint8, _ []uint8, _, _ int, _ []float32, dst []uint32) int {
		return visitGeneric(list, marks, epoch, dst)
	},
	insertGeneric,
}

// naiveCodes is the sum as the documentation gives it, in a type that is too
// wide to wrap.
func naiveCodes(query []int8, row []uint8) (sum int64) {
	for j, q := range query {
		sum += int64(q) * int64(row[j])
	}
	return sum
}

// A codeFill makes n bytes of a query or of rows.
type codeFill struct {
	name  string
	query func(r *rand.Rand) int8
	row   func(r *rand.Rand) uint8
}

// The extreme ones would saturate where sixteen bits hold two products.
var codeFills = []codeFill{
	{"any", func(r *rand.Rand) int8 { return int8(r.Uint32()) }, func(r *rand.Rand) uint8 { return uint8(r.Uint32()) }},
	{"largest", func(*rand.Rand) int8 { return math.MaxInt8 }, func(*rand.Rand) uint8 { return math.MaxUint8 }},
	{"least", func(*rand.Rand) int8 { return math.MinInt8 }, func(*rand.Rand) uint8 { return math.MaxUint8 }},
	{"zero rows", func(*rand.Rand) int8 { return math.MinInt8 }, func(*rand.Rand) uint8 { return 0 }},
	{
		"extremes",
		func(r *rand.Rand) int8 { return []int8{-128, -127, 0, 127}[r.IntN(4)] },
		func(r *rand.Rand) uint8 { return []uint8{0, 127, 128, 255}[r.IntN(4)] },
	},
}

func (f codeFill) queryOf(r *rand.Rand, stride int) []int8 {
	return each(stride, func() int8 { return f.query(r) })
}

func (f codeFill) rowsOf(r *rand.Rand, n int) []uint8 {
	return each(n, func() uint8 { return f.row(r) })
}

// requireExact checks the sums of every implementation, in each form, against
// naiveCodes.
func requireExact(t *testing.T, query []int8, rows []uint8, ordinals []uint32) {
	t.Helper()
	stride := len(query)
	every := make([]int32, len(rows)/stride)
	for i := range every {
		sum := naiveCodes(query, rows[i*stride:])
		require.Equal(t, sum, int64(int32(sum)), "within an int32")
		every[i] = int32(sum)
	}
	listed := make([]int32, len(ordinals))
	for i, o := range ordinals {
		listed[i] = every[o]
	}
	// With these a distance is the sum itself, rounded.
	q := Query{Code: query, Scale: 1}
	plain := each(2*len(every), func() float32 { return 0 })
	for i := range every {
		plain[2*i] = 1
	}
	requireWithin(t, &q, rows, plain, ordinals, infinity)
	for _, i := range supportedCodes() {
		r := i.codeRoutines()
		if r.list != nil {
			require.Equal(t, listed, scoredCodes(t, len(ordinals), func(out []int32) {
				r.list(query, rows, ordinals, out)
			}), "%s of %d ordinals, stride %d", i, len(ordinals), stride)
		}
	}
}

// scoredCodes returns n scores, and fails if score writes beside them.
func scoredCodes(t *testing.T, n int, score func(out []int32)) []int32 {
	t.Helper()
	const canary = 0x5eed5eed
	out := each(n+32, func() int32 { return canary })
	score(out[16:][:n:n])
	beside := slices.Concat(out[:16], out[16+n:])
	require.Equal(t, each(32, func() int32 { return canary }), beside, "wrote beside out of %d", n)
	return out[16:][:n]
}

func TestEveryImplementationGivesTheExactSums(t *testing.T) {
	for _, fill := range codeFills {
		t.Run(fill.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			for stride := codeBlock; stride <= 1056; stride += codeBlock {
				for _, n := range []int{0, 1, 2, 3, 4, 5, 7, 8, 9, 12, 31, 70} {
					count := 1 + random.IntN(n+1) // fewer rows than ordinals: some repeat
					ordinals := each(n, func() uint32 { return random.Uint32N(uint32(count)) })
					requireExact(t, fill.queryOf(random, stride), fill.rowsOf(random, count*stride), ordinals)
				}
			}
		})
	}
}

func TestEveryCountOfCodeRows(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, stride := range []int{32, 64, 96, 128, 288} {
		for n := range 71 {
			ordinals := each(n, func() uint32 { return random.Uint32N(uint32(n)) })
			requireExact(t, codeFills[0].queryOf(random, stride), codeFills[0].rowsOf(random, n*stride), ordinals)
		}
	}
}

// The longest rows that any codes fit, as Within says.
func TestLongestCodesDoNotWrap(t *testing.T) {
	const stride = 65_792
	assert.Greater(t, int64(stride+codeBlock)*math.MaxUint8*-math.MinInt8, int64(math.MaxInt32))
	random := rand.New(rand.NewPCG(5, 6))
	for _, fill := range codeFills {
		requireExact(t, fill.queryOf(random, stride), fill.rowsOf(random, 5*stride), []uint32{4, 0, 1, 2, 3})
	}
}

func TestWhatPadsACodeRowIsOfNoAccount(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for dim := 1; dim <= 130; dim++ {
		stride := CodeStride(dim)
		query := codeFills[0].queryOf(random, stride)
		clear(query[dim:])
		rows := codeFills[0].rowsOf(random, 5*stride)
		q := Query{Code: query, Scale: 1}
		factors, ordinals := normal(random, 10), []uint32{0, 1, 2, 3, 4}
		near, far := make([]uint64, 5+Spare), make([]uint64, 5+Spare)
		Within(&q, rows, factors, ordinals, infinity, near)
		for i := range 5 {
			clear(rows[i*stride+dim : (i+1)*stride])
		}
		Within(&q, rows, factors, ordinals, infinity, far)
		assert.Equal(t, near[:5], far[:5])
	}
}

func TestCodeStride(t *testing.T) {
	for dim, want := range map[int]int{1: 32, 31: 32, 32: 32, 33: 64, 100: 128, 128: 128, 1000: 1024} {
		assert.Equal(t, want, CodeStride(dim), "dim %d", dim)
	}
}

func TestCodeMisfitsPanic(t *testing.T) {
	query := func(n int) []int8 { return make([]int8, n) }
	rows := func(n int) []uint8 { return make([]uint8, n) }
	within := func(query []int8, rows []uint8, ordinals, room int) {
		// Room beyond the length is none.
		Within(&Query{Code: query}, rows, make([]float32, 2), make([]uint32, ordinals), 0, make([]uint64, room, room+8))
	}
	for _, test := range []struct {
		want string
		call func()
	}{
		{"kernel: query has 0 codes: want a positive multiple of 32", func() { within(nil, nil, 0, 3) }},
		{"kernel: query has 48 codes: want a positive multiple of 32", func() { within(query(48), rows(48), 0, 3) }},
		{"kernel: score 0 ordinals: out has room for 2, want 3", func() { within(query(32), rows(32), 0, 2) }},
		{"kernel: score 2 ordinals: out has room for 4, want 5", func() { within(query(32), rows(32), 2, 4) }},
	} {
		assert.PanicsWithValue(t, test.want, test.call)
	}
}

func TestNoCodeEscapes(t *testing.T) {
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		var query [64]int8
		var rows [192]uint8
		var factors [6]float32
		var ordinals [3]uint32
		var near [3 + Spare]uint64
		var marks [1]uint8
		var fresh [3]uint32
		var pool [2]uint64
		q := Query{Code: query[:]}
		Visit(ordinals[:], marks[:], 1, rows[:], 64, factors[:], fresh[:])
		PrefetchCodes(rows[:], 64, factors[:], ordinals[:])
		n := Within(&q, rows[:], factors[:], ordinals[:1], 1, near[:])
		Insert(pool[:], 0, near[:n])
	}))
}

// FuzzCodes takes its shapes from its first arguments and its codes from data,
// over and over.
func FuzzCodes(f *testing.F) {
	f.Add(uint8(1), uint8(1), []byte{1})
	f.Add(uint8(2), uint8(9), []byte{0x7f, 0xff, 0x80})
	f.Add(uint8(9), uint8(33), []byte("every byte is a code, signed or not"))
	f.Fuzz(func(t *testing.T, blocks, count uint8, data []byte) {
		if len(data) == 0 {
			return
		}
		at := 0
		next := func() uint8 {
			b := data[at%len(data)]
			at++
			return b
		}
		stride := CodeStride(1 + int(blocks)%40*codeBlock)
		n := 1 + int(count)%80
		query := each(stride, func() int8 { return int8(next()) })
		rows := each(n*stride, next)
		ordinals := each(int(next())%80, func() uint32 { return uint32(int(next()) % n) })
		requireExact(t, query, rows, ordinals)
	})
}
