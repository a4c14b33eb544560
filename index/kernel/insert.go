package kernel

import "math/bits"

// Insert adds the entries of batch, which are in any order, to the first n of pool,
// which ascend, and keeps the least of all that pool has room for. It returns how
// many it holds now, and the least place at which one was added, len(pool) if none
// was. No two entries are equal.
//
// Insert panics if n is not between 0 and len(pool).
func Insert[T ~uint64](pool []T, n int, batch []T) (count, least int) {
	_ = pool[:n:len(pool)]
	if len(pool) == 0 {
		return 0, 0
	}
	return insert(words(pool), n, words(batch))
}

func insertGeneric(pool []uint64, n int, batch []uint64) (count, least int) {
	least = len(pool)
	for _, c := range batch {
		if n == len(pool) {
			if c > pool[n-1] {
				continue
			}
			n--
		}
		// A binary search without a branch on what is random.
		at := 0
		for size := n; size > 0; {
			half := (size + 1) / 2
			_, less := bits.Sub64(pool[at+half-1], c, 0)
			at += half & -int(less)
			size -= half
		}
		copy(pool[at+1:n+1], pool[at:n])
		pool[at] = c
		n++
		least = min(least, at)
	}
	return n, least
}
