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

// requireInsert checks every implementation of Insert against a sort. held ascends,
// size is at least len(held), and no entry is there twice.
func requireInsert(t *testing.T, size int, held, batch []uint64) {
	t.Helper()
	want := append(append([]uint64{}, held...), batch...)
	slices.Sort(want)
	want = want[:min(size, len(want))]
	least := size
	if len(batch) > 0 {
		if at, found := slices.BinarySearch(want, slices.Min(batch)); found {
			least = at
		}
	}
	for _, i := range supportedCodes() {
		given := slices.Clone(batch)
		var place int
		got := collect(t, size, func(pool []uint64) (count int) {
			copy(pool, held)
			count, place = i.codeRoutines().insert(pool, len(held), given)
			return count
		})
		require.Equal(t, want, got, "%s of %d into %d of %d", i, len(batch), len(held), size)
		require.Equal(t, least, place, "%s of %d into %d of %d", i, len(batch), len(held), size)
		require.Equal(t, batch, given, "%s", i)
	}
}

// distinct returns n different entries. Few bits make neighbours, and many make
// entries that differ as signed numbers do.
func distinct(r *rand.Rand, n, bits int) []uint64 {
	seen := map[uint64]bool{}
	return each(n, func() uint64 {
		for {
			if c := r.Uint64() >> (64 - bits); !seen[c] {
				seen[c] = true
				return c
			}
		}
	})
}

func TestInsertSorts(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for size := 1; size <= 70; size++ {
		for n := range size + 1 {
			for _, count := range []int{0, 1, 2, 3, 7, 8, 9, 40} {
				entries := distinct(random, n+count, []int{7, 9, 63, 64}[random.IntN(4)])
				held := entries[:n]
				slices.Sort(held)
				requireInsert(t, size, held, entries[n:])
			}
		}
	}
}

func TestInsertIntoLargePools(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	for _, size := range []int{127, 128, 200, 257, 1000, 1003} {
		for _, n := range []int{0, 1, size / 2, size - 8, size - 1, size} {
			for _, count := range []int{1, 32, 2 * size} {
				entries := distinct(random, n+count, 64)
				held := entries[:n]
				slices.Sort(held)
				requireInsert(t, size, held, entries[n:])
			}
		}
	}
}

// One entry at every place of every pool that two steps of eight cover.
func TestInsertAtEveryPlace(t *testing.T) {
	for size := 1; size <= 20; size++ {
		for n := range size + 1 {
			held := make([]uint64, n)
			for i := range held {
				held[i] = uint64(2*i + 2)
			}
			for at := range n + 1 {
				requireInsert(t, size, held, []uint64{uint64(2*at + 1)})
			}
			requireInsert(t, size, held, []uint64{0})
			requireInsert(t, size, held, []uint64{math.MaxUint64})
			requireInsert(t, size, held, []uint64{math.MaxInt64, math.MaxInt64 + 1})
		}
	}
}

func TestInsertOrders(t *testing.T) {
	ascending := make([]uint64, 50)
	for i := range ascending {
		ascending[i] = uint64(i) << 33
	}
	descending := slices.Clone(ascending)
	slices.Reverse(descending)
	for size := 1; size <= 60; size++ {
		requireInsert(t, size, nil, ascending)
		requireInsert(t, size, nil, descending)
	}
}

func TestInsertMisfits(t *testing.T) {
	count, least := Insert([]uint64{}, 0, []uint64{1, 2})
	assert.Zero(t, count)
	assert.Zero(t, least)
	assert.Panics(t, func() { Insert(make([]uint64, 2), -1, []uint64{1}) })
	assert.Panics(t, func() { Insert(make([]uint64, 2), 3, []uint64{1}) })
	assert.Panics(t, func() { Insert(make([]uint64, 2, 8), 3, []uint64{1}) }, "room beyond the length is none")
	assert.Panics(t, func() { Insert(nil, 1, []uint64{1}) })
}

// FuzzInsert takes the pool's size and how much of it is held from its first
// arguments. The bytes of data are entries: of each value the first counts.
func FuzzInsert(f *testing.F) {
	f.Add(uint8(1), uint8(0), false, []byte{2, 1})
	f.Add(uint8(8), uint8(8), true, []byte{9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 255, 128, 127})
	f.Add(uint8(17), uint8(3), true, []byte("the quick brown fox jumps over the lazy dog, THE QUICK BROWN FOX"))
	f.Fuzz(func(t *testing.T, size, n uint8, wide bool, data []byte) {
		var entries []uint64
		var seen [256]bool
		for _, b := range data {
			if seen[b] {
				continue
			}
			seen[b] = true
			c := uint64(b)
			if wide {
				c *= 0x0101010101010101
			}
			entries = append(entries, c)
		}
		room := 1 + int(size)
		held := entries[:min(int(n), room, len(entries))]
		batch := entries[len(held):]
		slices.Sort(held)
		requireInsert(t, room, held, batch)
	})
}

func ExampleInsert() {
	pool := []uint64{10, 20, 30, 0}
	n, least := Insert(pool, 3, []uint64{25, 40, 15})
	fmt.Println(pool[:n], least)
	// Output: [10 15 20 25] 1
}
