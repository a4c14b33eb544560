package kernel

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// naiveVisit returns the new nodes of a list, and the marks afterwards.
func naiveVisit(list []uint32, marks []uint8, epoch uint8) (fresh []uint32, after []uint8) {
	fresh, after = []uint32{}, slices.Clone(marks)
	if end := slices.Index(list, End); end >= 0 {
		list = list[:end]
	}
	for _, node := range list {
		if after[node] != epoch {
			fresh = append(fresh, node)
		}
		after[node] = epoch
	}
	return fresh, after
}

func TestVisit(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, stride := range []int{32, 64, 96, 320} {
		for n := range 41 {
			for range 8 {
				nodes := 1 + random.IntN(2*n+1)
				rows, factors := make([]uint8, nodes*stride), make([]float32, 2*nodes)
				list := each(n, func() uint32 { return random.Uint32N(uint32(nodes)) })
				for range random.IntN(3) { // what is beyond an End is no node
					if n > 0 {
						at := random.IntN(n)
						list[at] = End
						for i := range list[at:] {
							list[at+i] = max(list[at+i], End-random.Uint32N(2))
						}
					}
				}
				epoch := uint8(1 + random.IntN(255))
				marks := each(nodes, func() uint8 { return epoch - uint8(random.IntN(3)) })
				want, after := naiveVisit(list, marks, epoch)
				for _, i := range supportedCodes() {
					got, given := slices.Clone(marks), slices.Clone(list)
					fresh := collect(t, n, func(dst []uint32) int {
						return i.codeRoutines().visit(given, got, epoch, rows, stride, min(stride, reach), factors, dst)
					})
					require.Equal(t, want, fresh, "%s of %v, epoch %d", i, list, epoch)
					require.Equal(t, after, got, "%s of %v, epoch %d", i, list, epoch)
					require.Equal(t, list, given, "%s", i)
				}
			}
		}
	}
}

func TestVisitWantsRoom(t *testing.T) {
	list := []uint32{0, 1, 1}
	visit := func(dst []uint32) {
		Visit(list, make([]uint8, 2), 1, make([]uint8, 64), 32, make([]float32, 4), dst)
	}
	assert.NotPanics(t, func() { visit(make([]uint32, 3)) })
	assert.Panics(t, func() { visit(make([]uint32, 2)) })
	assert.Panics(t, func() { visit(make([]uint32, 2, 8)) }, "room beyond the length is none")
}
