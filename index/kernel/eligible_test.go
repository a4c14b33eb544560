package kernel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// eligibleCase is a graph of random lists with a filter and marks.
type eligibleCase struct {
	links  []uint32
	width  int
	filter []uint64
	marks  []uint8
}

const markedEpoch = 7

func newEligibleCase(r *rand.Rand, nodes, width int) eligibleCase {
	c := eligibleCase{links: make([]uint32, nodes*width), width: width, filter: make([]uint64, (nodes+63)/64), marks: make([]uint8, nodes)}
	share := r.Float64()
	for node := range nodes {
		used := r.IntN(width + 1)
		for i := range width {
			c.links[node*width+i] = End
			if i < used {
				c.links[node*width+i] = uint32(r.IntN(nodes))
			}
		}
		if r.Float64() < share {
			c.filter[node/64] |= 1 << (node % 64)
		}
		c.marks[node] = uint8(6 + r.IntN(2)) // some have the epoch
	}
	return c
}

func (c eligibleCase) list(node int) []uint32 { return c.links[node*c.width : (node+1)*c.width] }

func TestSplit(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for width := 1; width <= 70; width++ {
		c := newEligibleCase(r, 300, width)
		for node := range 20 {
			list := c.list(node)
			marks := slices.Clone(c.marks)
			var eligible, others []uint32
			for _, id := range list {
				if id == End || marks[id] == markedEpoch {
					continue
				}
				if c.filter[id/64]>>(id%64)&1 != 0 {
					eligible = append(eligible, id)
					marks[id] = markedEpoch
				} else {
					others = append(others, id)
				}
			}
			for _, i := range supportedCodes() {
				have := slices.Clone(c.marks)
				e, o := make([]uint32, width), make([]uint32, width)
				gotN, gotM := splitBy(i, list, c.filter, have, markedEpoch, e, o)
				require.Equal(t, eligible, orNil(e[:gotN]), "%v, list of %d", i, width)
				require.Equal(t, others, orNil(o[:gotM]), "%v, list of %d", i, width)
				require.Equal(t, marks, have)
			}
		}
	}
}

func orNil(list []uint32) []uint32 {
	if len(list) == 0 {
		return nil
	}
	return list
}

func TestThrough(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for width := 1; width <= 70; width++ {
		c := newEligibleCase(r, 500, width)
		for range 20 {
			via := make([]uint32, r.IntN(40))
			for i := range via {
				via[i] = uint32(r.IntN(500))
			}
			want, before := r.IntN(60), r.IntN(20)
			marks := slices.Clone(c.marks)
			eligible := make([]uint32, before)
			used := 0
			for used < len(via) && len(eligible) < want {
				marks[via[used]] = markedEpoch
				for _, id := range c.list(int(via[used])) {
					if id != End && marks[id] != markedEpoch && c.filter[id/64]>>(id%64)&1 != 0 {
						marks[id] = markedEpoch
						eligible = append(eligible, id)
					}
				}
				used++
			}
			for _, i := range supportedCodes() {
				have := slices.Clone(c.marks)
				dst := make([]uint32, max(want, before)+width)
				n, got := throughBy(i, c.links, width, via, want, c.filter, have, markedEpoch, dst, before)
				require.Equal(t, eligible, dst[:n], "%v, lists of %d", i, width)
				require.Equal(t, used, got)
				require.Equal(t, marks, have)
			}
		}
	}
}

func TestEligiblePanics(t *testing.T) {
	list, room := []uint32{1, 2, End}, make([]uint32, 3)
	filter, marks := make([]uint64, 1), make([]uint8, 10)
	assert.NotPanics(t, func() { Split(list, filter, marks, 1, room, room) })
	assert.Panics(t, func() { Split(list, filter, marks, 1, room[:2], room) })
	assert.Panics(t, func() { Split(list, filter, marks, 1, room, room[:2]) })
	assert.Panics(t, func() { Through(list, 3, nil, 1, filter, marks, 1, room, 0) })
	assert.NotPanics(t, func() { Through(list, 3, nil, 0, filter, marks, 1, room, 0) })
}

func FuzzEligible(f *testing.F) {
	f.Add(uint64(1), uint64(2), uint8(32), uint8(3))
	f.Fuzz(func(t *testing.T, a, b uint64, width, want uint8) {
		r := rand.New(rand.NewPCG(a, b))
		c := newEligibleCase(r, 200, int(width)%80+1)
		via := []uint32{uint32(r.IntN(200)), uint32(r.IntN(200)), uint32(r.IntN(200))}
		var first string
		for _, i := range append(supportedCodes(), generic) {
			marks := slices.Clone(c.marks)
			e, o := make([]uint32, c.width), make([]uint32, c.width)
			n, m := splitBy(i, c.list(0), c.filter, marks, markedEpoch, e, o)
			dst := make([]uint32, int(want)+c.width)
			count, used := throughBy(i, c.links, c.width, via, int(want), c.filter, marks, markedEpoch, dst, 0)
			got := fmt.Sprint(e[:n], o[:m], dst[:count], used, marks)
			if first == "" {
				first = got
			}
			require.Equal(t, first, got, "%v", i)
		}
	})
}
