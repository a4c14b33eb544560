package axes_test

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/axes"
)

// drawn returns rows around the directions, of which each has some weight in a row. The
// numbers are sums of uniform ones, which are the same on every machine.
func drawn(r *rand.Rand, rows int, directions [][]float64) [][]float32 {
	list := make([][]float32, rows)
	for i := range list {
		list[i] = make([]float32, len(directions[0]))
		for k, direction := range directions {
			weight := (r.Float64() + r.Float64() - 1) * float64(3*len(directions)) / float64(1+k)
			for j, x := range direction {
				list[i][j] += float32(float64(weight * x))
			}
		}
		for j := range list[i] {
			list[i][j] += float32(r.Float64() - 0.5)
		}
	}
	return list
}

func directions(r *rand.Rand, n, dim int) [][]float64 {
	list := make([][]float64, n)
	for i := range list {
		list[i] = make([]float64, dim)
		for j := range list[i] {
			list[i][j] = r.Float64() + r.Float64() - 1
		}
	}
	return list
}

// model returns two towers that vary in the same directions.
func model(seed uint64, rows, dim int) (apps, users [][]float32) {
	r := rand.New(rand.NewPCG(seed, 0))
	d := directions(r, (dim+1)/2, dim)
	return drawn(r, rows, d), drawn(r, rows, d)
}

func compare(t require.TestingT, apps, users [][]float32) *axes.Result {
	a, err := axes.Measure(context.Background(), apps)
	require.NoError(t, err)
	u, err := axes.Measure(context.Background(), users)
	require.NoError(t, err)
	return axes.Compare(a, u)
}

// each returns rows of which f has changed each.
func each(rows [][]float32, f func(v []float32)) [][]float32 {
	list := make([][]float32, len(rows))
	for i, v := range rows {
		list[i] = slices.Clone(v)
		f(list[i])
	}
	return list
}

// turn turns the planes of neighbouring coordinates, and then permutes them, some times.
func turn(rows [][]float32, seed uint64) [][]float32 {
	r := rand.New(rand.NewPCG(seed, 1))
	dim := len(rows[0])
	for range 10 {
		order, angle := r.Perm(dim), 2*math.Pi*r.Float64()
		sin, cos := math.Sincos(angle)
		rows = each(rows, func(v []float32) {
			w := slices.Clone(v)
			for i, from := range order {
				v[i] = w[from]
			}
			for i := 0; i+1 < dim; i += 2 {
				x, y := float64(v[i]), float64(v[i+1])
				v[i], v[i+1] = float32(cos*x-sin*y), float32(sin*x+cos*y)
			}
		})
	}
	return rows
}

// Towers of one training are found together and those of two are not, with and without a
// reference.
func TestAlone(t *testing.T) {
	apps, users := model(1, 600, 64)
	others, strangers := model(2, 600, 64)
	one := compare(t, apps, users)
	state, why := one.Alone()
	require.Equal(t, axes.Together, state, why)
	assert.Contains(t, why, "the towers' axes agree by 1.00, in a space turned at random by up to 0.0")
	assert.Greater(t, one.Sigmas(), 20.0)
	for name, r := range map[string]*axes.Result{
		"another's users": compare(t, apps, strangers),
		"another's apps":  compare(t, others, users),
		"turned":          compare(t, apps, turn(users, 3)),
	} {
		state, why := r.Beside(one)
		assert.Equal(t, axes.Apart, state, "%s: %s", name, why)
		assert.Contains(t, why, "; those of the previous snapshot agree by 1.00 (45.", name)
		state, why = r.Alone()
		assert.Equal(t, axes.Apart, state, "%s, by itself: %s", name, why)
	}
	state, _ = one.Beside(one)
	assert.Equal(t, axes.Together, state)
	state, why = one.Beside(compare(t, apps, strangers))
	assert.Equal(t, axes.Inconclusive, state, "a reference that does not agree says nothing")
	assert.Contains(t, why, "do not agree well enough")
	state, _ = one.Beside(compare(t, nil, nil))
	assert.Equal(t, axes.Inconclusive, state)
}

// What changes no inner product, nor what the space is turned like, changes nothing.
func TestInvariance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.Uint64().Draw(t, "seed")
		dim := rapid.SampledFrom([]int{2, 3, 8, 17, 32}).Draw(t, "dim")
		apps, users := model(seed, rapid.IntRange(16, 120).Draw(t, "rows"), dim)
		before := compare(t, apps, users)
		factor := float32(rapid.SampledFrom([]float64{1e-12, 0.25, 1e12}).Draw(t, "factor"))
		multiplied := compare(t, each(apps, func(v []float32) {
			for i := range v {
				v[i] *= factor
			}
		}), users)
		shifted := compare(t, apps, each(users, func(v []float32) {
			for i := range v {
				v[i] += 64
			}
		}))
		turned := compare(t, turn(apps, seed), turn(users, seed))
		for i, g := range before.Agreements {
			require.InDelta(t, g.Value, multiplied.Agreements[i].Value, 1e-3)
			require.InDelta(t, g.Value, shifted.Agreements[i].Value, 1e-3)
			require.InDelta(t, g.Value, turned.Agreements[i].Value, 1e-3)
			require.InDelta(t, g.Reliable, turned.Agreements[i].Reliable, 1e-3)
			require.LessOrEqual(t, math.Abs(g.Value), 1+1e-9)
		}
	})
}

// Towers in which there is nothing to see are neither found together nor apart, and what
// is odd about them gives no number that is none.
func TestInconclusive(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	ball := func(rows, dim int) [][]float32 { return drawn(r, rows, [][]float64{make([]float64, dim)}) }
	constant := each(ball(100, 32), func(v []float32) {
		for i := range v {
			v[i] = 3
		}
	})
	huge := each(ball(100, 32), func(v []float32) {
		for i := range v {
			v[i] *= 3e38
		}
	})
	tiny := each(ball(100, 32), func(v []float32) {
		for i := range v {
			v[i] = math.Float32frombits(math.Float32bits(v[i]) & (1<<31 | 0xff))
		}
	})
	few, fewer := model(1, 15, 32)
	line, dash := model(1, 100, 1)
	small, little := model(1, 300, 8)
	for name, c := range map[string]struct {
		apps, users [][]float32
		why         string
	}{
		"balls":          {ball(2000, 64), ball(2000, 64), "the axes hardly stand out of the noise"},
		"constant":       {constant, ball(100, 32), "the axes hardly stand out of the noise"},
		"both constant":  {constant, constant, "the axes hardly stand out of the noise"},
		"huge":           {huge, ball(100, 32), ""},
		"tiny":           {tiny, ball(100, 32), ""},
		"none":           {nil, nil, "0 apps and 0 users of 0 dimensions are too few to tell"},
		"15 rows":        {few, fewer, "15 apps and 15 users of 32 dimensions are too few to tell: at least 16 of each and 2 dimensions are needed"},
		"1 dimension":    {line, dash, "100 apps and 100 users of 1 dimensions are too few to tell"},
		"few dimensions": {small, turn(little, 4), "8 dimensions are too few to tell little agreement from none"},
	} {
		result := compare(t, c.apps, c.users)
		state, why := result.Alone()
		assert.Equal(t, axes.Inconclusive, state, "%s: %s", name, why)
		assert.Contains(t, why, c.why, name)
		assert.False(t, math.IsNaN(result.Sigmas()) || math.IsInf(result.Sigmas(), 0), name)
		for _, g := range result.Agreements {
			for _, x := range []float64{g.Value, g.Sigmas, g.Turned, g.Permuted, g.PermutedSigmas, g.Reliable, result.Signs} {
				assert.False(t, math.IsNaN(x) || math.IsInf(x, 0), "%s: %+v", name, g)
			}
		}
	}
}

// Where the coordinates are the axes, other trainings share them but for their signs, and
// towers whose columns were mixed up agree more than turned ones do.
func TestAlignedAxes(t *testing.T) {
	const dim = 64
	r := rand.New(rand.NewPCG(7, 7))
	tower := func() [][]float32 {
		rows := make([][]float32, 1500)
		for i := range rows {
			rows[i] = make([]float32, dim)
			for j := range rows[i] {
				x := r.Float64()
				rows[i][j] = float32((x*x*x - 0.25) * 8 / float64(1+j)) // skewed
			}
		}
		return rows
	}
	apps, users := tower(), tower()
	one := compare(t, apps, users)
	require.True(t, one.Aligned)
	state, why := one.Alone()
	require.Equal(t, axes.Together, state, why)

	flips := make([]float32, dim)
	for i := range flips {
		flips[i] = float32(1 - 2*r.IntN(2))
	}
	state, why = compare(t, apps, each(users, func(v []float32) {
		for i := range v {
			v[i] *= flips[i]
		}
	})).Alone()
	assert.Equal(t, axes.Inconclusive, state, why)
	assert.Contains(t, why, "the axes are the coordinates, which other trainings share but for their signs")
	for range 20 {
		order := r.Perm(dim)
		state, why = compare(t, apps, each(users, func(v []float32) {
			w := slices.Clone(v)
			for i, from := range order {
				v[i] = w[from]
			}
		})).Alone()
		assert.NotEqual(t, axes.Together, state, why)
	}
}

// The result is a part of a snapshot's digest, so it is the same to the bit on every CPU.
func TestSameEverywhere(t *testing.T) {
	h := sha256.New()
	for _, dim := range []int{2, 24, 64, 200} {
		apps, users := model(uint64(dim), 200, dim)
		result := compare(t, apps, users)
		for _, g := range result.Agreements {
			require.NoError(t, binary.Write(h, binary.LittleEndian, []float64{g.Value, g.Sigmas, g.Turned, g.Permuted, g.PermutedSigmas, g.Reliable, result.Signs}))
		}
	}
	assert.Equal(t, "33765ab8f216bc33e98717ebe03ad0217db53bd7de7284ac44a09df75a9e6a58", hex.EncodeToString(h.Sum(nil)))
}

func BenchmarkCompare(b *testing.B) {
	for _, dim := range []int{64, 128, 768} {
		b.Run(map[int]string{64: "64", 128: "128", 768: "768"}[dim], func(b *testing.B) {
			apps, users := model(1, axes.MaxRows, dim)
			b.ReportAllocs()
			for b.Loop() {
				compare(b, apps, users)
			}
		})
	}
}
