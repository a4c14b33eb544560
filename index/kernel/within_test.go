package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var infinity = float32(math.Inf(1))

// naiveDistance is the formula as the documentation of Query gives it.
func naiveDistance(q *Query, row []uint8, step, bias float32) float32 {
	product := float32(int32(naiveCodes(q.Code, row)))
	product = float32(q.Scale * product)
	product += q.Shift
	product = float32(step * product)
	d := q.Base + bias
	return d + product
}

// naiveEntry packs a distance that is not NaN, and an ordinal.
func naiveEntry(d float32, ordinal uint32) uint64 {
	key := math.Float32bits(d)
	switch {
	case d == 0:
		key = 1 << 31
	case d < 0:
		key = ^key
	default:
		key |= 1 << 31
	}
	return uint64(key)<<32 | uint64(ordinal)<<1
}

// requireWithin checks every implementation of Within against naiveDistance, with
// some bounds beside the one it is given.
func requireWithin(t *testing.T, q *Query, rows []uint8, factors []float32, ordinals []uint32, bounds ...float32) {
	t.Helper()
	stride := len(q.Code)
	every := each(len(rows)/stride, func() float32 { return 0 })
	for i := range every {
		every[i] = naiveDistance(q, rows[i*stride:], factors[2*i], factors[2*i+1])
	}
	for _, bound := range bounds {
		want := []uint64{}
		for _, o := range ordinals {
			if every[o] <= bound {
				want = append(want, naiveEntry(every[o], o))
			}
		}
		for _, i := range supportedCodes() {
			got := collect(t, len(ordinals)+Spare, func(out []uint64) int {
				return i.codeRoutines().within(q.Code, rows, factors, ordinals, q.Base, q.Scale, q.Shift, bound, out)
			})
			require.Equal(t, want, got, "%s of %d ordinals, stride %d, bound %g", i, len(ordinals), stride, bound)
		}
	}
}

// collect returns the part of out, which has room places, that fill says it has
// used, and fails if fill writes beside out.
func collect[T uint32 | uint64](t *testing.T, room int, fill func(out []T) int) []T {
	t.Helper()
	const beside = 16
	canary := T(0x5eed5eed)
	memory := each(room+2*beside, func() T { return canary })
	n := fill(memory[beside:][:room:room])
	for i, v := range memory {
		if (i < beside || i >= beside+room) && v != canary {
			require.Failf(t, "wrote beside out", "at %d of %d", i-beside, room)
		}
	}
	return slices.Clone(memory[beside:][:n])
}

func drawQuery(r *rand.Rand, fill codeFill, stride int) *Query {
	return &Query{
		Code: fill.queryOf(r, stride),
		Base: float32(100 * r.NormFloat64()), Scale: float32(r.NormFloat64() / 64), Shift: float32(r.NormFloat64()),
	}
}

// drawBounds returns the least and the greatest bound there is, one that nothing is
// within, and a few near the distances: each of them, and what is just below it.
func drawBounds(r *rand.Rand, q *Query, rows []uint8, factors []float32) []float32 {
	bounds := []float32{infinity, -infinity, float32(math.NaN()), 0, float32(r.NormFloat64() * 100)}
	stride := len(q.Code)
	for range min(2, len(rows)/stride) {
		i := r.IntN(len(rows) / stride)
		d := naiveDistance(q, rows[i*stride:], factors[2*i], factors[2*i+1])
		bounds = append(bounds, d, math.Nextafter32(d, -infinity))
	}
	return bounds
}

func TestWithinIsTheNaiveOne(t *testing.T) {
	strides := []int{288, 512, 544, 1024}
	for stride := codeBlock; stride <= 224; stride += codeBlock {
		strides = append(strides, stride)
	}
	for _, fill := range []codeFill{codeFills[0], codeFills[len(codeFills)-1]} {
		t.Run(fill.name, func(t *testing.T) {
			random := rand.New(rand.NewPCG(1, 2))
			for _, stride := range strides {
				for n := range 41 {
					count := 1 + random.IntN(2*n+1) // some repeat, some are not listed
					ordinals := each(n, func() uint32 { return random.Uint32N(uint32(count)) })
					rows, factors := fill.rowsOf(random, count*stride), normal(random, 2*count)
					q := drawQuery(random, fill, stride)
					requireWithin(t, q, rows, factors, ordinals, drawBounds(random, q, rows, factors)...)
				}
			}
		})
	}
}

// A list is longer than what an implementation may score before it admits any.
func TestWithinOfLongLists(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, n := range []int{63, 64, 65, 127, 500} {
		rows, factors := codeFills[0].rowsOf(random, n*64), normal(random, 2*n)
		ordinals := each(n, func() uint32 { return random.Uint32N(uint32(n)) })
		q := drawQuery(random, codeFills[0], 64)
		requireWithin(t, q, rows, factors, ordinals, drawBounds(random, q, rows, factors)...)
	}
}

// Distances of every kind of float: what orders and what admits them agree.
func TestWithinOfAnyFloats(t *testing.T) {
	random := rand.New(rand.NewPCG(5, 6))
	for _, fill := range fills {
		for n := range 41 {
			count := n + 1
			factors := fill.floats(random, 2*count)
			f := fill.floats(random, 4)
			q := &Query{codeFills[0].queryOf(random, 32), f[0], f[1], f[2]}
			rows := codeFills[0].rowsOf(random, count*32)
			ordinals := each(n, func() uint32 { return random.Uint32N(uint32(count)) })
			requireWithin(t, q, rows, factors, ordinals, append(drawBounds(random, q, rows, factors), f[3])...)
		}
	}
}

// Of sums that cancel but for their last bit, a fused multiply-add would leave
// another.
func TestDistancesAreRoundedStepByStep(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 8))
	for range 2000 {
		const count = 4
		q := drawQuery(random, codeFills[0], 32)
		rows, factors := codeFills[0].rowsOf(random, count*32), normal(random, 2*count)
		sum := naiveCodes(q.Code, rows)
		q.Shift = -float32(q.Scale*float32(sum)) * (1 + 0x1p-20)
		q.Base = 0
		factors[1] = -float32(factors[0] * (float32(q.Scale*float32(sum)) + q.Shift))
		requireWithin(t, q, rows, factors, []uint32{0, 1, 2, 3}, infinity, 0)
	}
}

func TestSortable(t *testing.T) {
	floats := []float32{
		-infinity, -math.MaxFloat32, -2, math.Nextafter32(-1, -2), -1, -math.SmallestNonzeroFloat32,
		0, math.SmallestNonzeroFloat32, 1, math.Nextafter32(1, 2), 2, math.MaxFloat32, infinity,
	}
	for i, a := range floats {
		for j, b := range floats {
			assert.Equal(t, i < j, Sortable(a) < Sortable(b), "%g and %g", a, b)
		}
	}
	assert.Equal(t, Sortable(0), Sortable(float32(math.Copysign(0, -1))))
	random := rand.New(rand.NewPCG(9, 10))
	for range 10_000 {
		a, b := math.Float32frombits(random.Uint32()), math.Float32frombits(random.Uint32())
		if a == a && b == b {
			require.Equal(t, a < b, Sortable(a) < Sortable(b), "%g and %g", a, b)
		}
	}
}

// FuzzWithin takes its shapes from its first arguments, and from data, over and over,
// its codes and its floats, which may be of any kind.
func FuzzWithin(f *testing.F) {
	f.Add(uint8(1), uint8(1), uint32(0x7f800000), []byte{1})
	f.Add(uint8(2), uint8(9), uint32(0), []byte{0, 0, 0x80, 0x3f, 0x7f, 0xff, 0x80})
	f.Add(uint8(5), uint8(33), uint32(0xff800000), []byte("distances, each operation rounded"))
	f.Add(uint8(3), uint8(6), uint32(0x7fc00000), []byte{0, 0, 0xc0, 0x7f, 0x80})
	f.Fuzz(func(t *testing.T, blocks, count uint8, bound uint32, data []byte) {
		if len(data) == 0 {
			return
		}
		at := 0
		next := func() uint8 {
			b := data[at%len(data)]
			at++
			return b
		}
		float := func() float32 {
			return math.Float32frombits(uint32(next()) | uint32(next())<<8 | uint32(next())<<16 | uint32(next())<<24)
		}
		stride := CodeStride(1 + int(blocks)%12*codeBlock)
		n := 1 + int(count)%80
		q := &Query{Base: float(), Scale: float(), Shift: float()}
		q.Code = each(stride, func() int8 { return int8(next()) })
		rows, factors := each(n*stride, next), each(2*n, float)
		ordinals := each(int(next())%80, func() uint32 { return uint32(int(next()) % n) })
		nearest := naiveDistance(q, rows, factors[0], factors[1])
		requireWithin(t, q, rows, factors, ordinals, math.Float32frombits(bound), nearest, infinity)
	})
}

func ExampleWithin() {
	const dim = 3
	stride := CodeStride(dim)
	rows := make([]uint8, 3*stride)
	copy(rows, []uint8{1, 2, 255})
	copy(rows[stride:], []uint8{0, 0, 1})
	copy(rows[2*stride:], []uint8{9, 4, 0})
	factors := []float32{1, 0, 1, 0, 0.5, 1}
	query := Query{Code: make([]int8, stride), Scale: 2}
	copy(query.Code, []int8{-1, 1, 127})

	out := make([]uint64, 4+Spare)
	n := Within(&query, rows, factors, []uint32{2, 0, 1, 2}, 300, out)
	for _, entry := range out[:n] {
		fmt.Println("ordinal", uint32(entry)>>1, "before 0:", entry>>32 < uint64(Sortable(0)))
	}
	// Output:
	// ordinal 2 before 0: true
	// ordinal 1 before 0: false
	// ordinal 2 before 0: true
}
