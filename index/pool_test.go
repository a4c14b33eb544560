package index

import (
	"cmp"
	"math"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index/kernel"
)

func drawCandidates(t *rapid.T) []candidate {
	n := rapid.IntRange(0, 80).Draw(t, "n")
	list := make([]candidate, n)
	for i := range list {
		list[i] = newCandidate(float32(rapid.IntRange(-10, 10).Draw(t, "dist")), uint32(i)) // ties are common
	}
	return rapid.Permutation(list).Draw(t, "order")
}

// TestCandidate packs and unpacks, and orders as the numbers do.
func TestCandidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Float32().Draw(t, "a"), rapid.Float32().Draw(t, "b")
		i, j := rapid.Uint32Range(0, MaxRows-1).Draw(t, "i"), rapid.Uint32Range(0, MaxRows-1).Draw(t, "j")
		c, d := newCandidate(a, i), newCandidate(b, j)
		require.Equal(t, a+0, c.dist())
		require.Equal(t, i, c.ordinal())
		require.Equal(t, i, (c | expanded).ordinal())
		require.Equal(t, a < b || a == b && i < j, c < d)
		require.Equal(t, kernel.Sortable(a), uint32(c>>32), "what Within packs is a candidate")
	})
	require.Equal(t, newCandidate(0, 1), newCandidate(float32(math.Copysign(0, -1)), 1))
}

func best(list []candidate, k int, compare func(a, b candidate) int) []candidate {
	list = slices.Clone(list)
	slices.SortFunc(list, compare)
	return list[:min(k, len(list))]
}

// TestPool mixes merges and pops: the pool always holds the best, and pops the best
// that was not popped, of a full pool only from among the ef best.
func TestPool(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p pool
		p.reset(1, 1)
		p.merge([]candidate{0}) // what an earlier search left
		limit := rapid.IntRange(1, 40).Draw(t, "limit")
		ef := rapid.IntRange(1, 40).Draw(t, "ef")
		p.reset(limit, ef)
		popped := map[uint32]bool{}
		var added []candidate
		for list := drawCandidates(t); len(list) > 0; {
			batch := list[:min(rapid.IntRange(1, 12).Draw(t, "batch"), len(list))]
			p.merge(batch)
			list = list[len(batch):]
			added = append(added, batch...)
			held := best(added, limit, cmp.Compare[candidate])
			require.Len(t, p.entries, len(held))
			for i, e := range p.entries {
				require.Equal(t, held[i], e&^expanded)
				require.Equal(t, popped[held[i].ordinal()], e&expanded != 0)
			}
			for _, c := range list {
				if c.dist() > p.bound {
					require.Len(t, held, limit)
					require.Greater(t, c.dist(), held[limit-1].dist())
				}
			}
			for range rapid.IntRange(0, 3).Draw(t, "pops") {
				at := slices.IndexFunc(held, func(c candidate) bool { return !popped[c.ordinal()] })
				want := at >= 0 && (at < ef || len(held) < limit)
				node, ok := p.pop()
				require.Equal(t, want, ok)
				if ok {
					require.Equal(t, held[at].ordinal(), node)
					popped[node] = true
				}
			}
		}
	})
}

func TestTop(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		list := drawCandidates(t)
		rows := make([]uint32, len(list))
		for i := range rows {
			rows[i] = uint32(i)
		}
		rows = rapid.Permutation(rows).Draw(t, "rows")
		k := rapid.IntRange(1, 90).Draw(t, "k")
		var top top
		top.reset(k)
		for _, c := range list {
			if !top.rejects(c.dist()) {
				top.add(c, rows)
			}
		}
		want := best(list, k, func(a, b candidate) int {
			if ranksBefore(a, b, rows) {
				return -1
			}
			return 1
		})
		top.sort(rows)
		require.Equal(t, want, top.entries)
	})
}

// TestTopSortNearly sorts what is not in order too, time and again in the same memory.
func TestTopSortNearly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var top top
		for range 3 {
			list := drawCandidates(t)
			top.reset(len(list))
			top.entries = append(top.entries, list...)
			top.sortNearly(&pace{left: lookWork})
			want := best(list, len(list), cmp.Compare[candidate])
			require.Equal(t, append([]candidate{}, want...), append([]candidate{}, top.entries...))
		}
	})
}

// TestVisitList equals visiting one by one.
func TestVisitList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const nodes, stride = 50, 32
		c := codes{stride: stride, rows: make([]uint8, nodes*stride), factors: make([]float32, 2*nodes)}
		var v, w visited
		v.reset(nodes)
		w.reset(nodes)
		var got []uint32
		for range 5 {
			list := rapid.SliceOfN(rapid.Uint32Range(0, nodes-1), 0, 20).Draw(t, "list")
			want := []uint32{}
			for _, node := range list {
				if w.visit(node) {
					want = append(want, node)
				}
			}
			got = c.visit(&v, append(list, noNode, 7), got)
			require.Equal(t, want, append([]uint32{}, got...))
		}
	})
}

// The epochs are 8 bits wide: the set must be empty after each reset all the same.
func TestVisited(t *testing.T) {
	var v visited
	for i := range 30<<8 + 10 {
		n := 1 + i%7
		v.reset(n)
		node := uint32(i % n)
		if !v.visit(node) || v.visit(node) {
			require.Failf(t, "wrong set", "reset %d", i)
		}
	}
}
