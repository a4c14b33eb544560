// Package explore draws the last places of an answer from what ranks after it, so that users are
// shown some of what the model ranks too low to be shown, with known probabilities: without that
// nothing says what another model would have been worth. [Draw] is a function of its arguments and
// of nothing else. Package server answers by it.
package explore

import (
	"encoding/binary"
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// Draw returns which of a pool of candidates, by their numbers from 0 on, are at so many places, in
// the order of these: each ordered choice without repetition is as likely as any other, over seeds.
// There must be as many in the pool as there are places, or more.
func Draw(pool, places int, seed uint64) []int {
	drawn := make([]int, places)
	moved := map[int]int{} // of a list of all numbers, what is not at its own place
	at := func(i int) int {
		if n, ok := moved[i]; ok {
			return n
		}
		return i
	}
	for i := range drawn { // the first steps of a shuffle by Fisher and Yates
		j := i + below(pool-i, seed, uint64(i))
		drawn[i] = at(j)
		moved[j] = at(i)
	}
	return drawn
}

// below returns a number below n, by a seed and the number of the draw. Numbers differ in their
// probabilities by one in 2^64.
func below(n int, seed, draw uint64) int {
	var key [16]byte
	binary.LittleEndian.PutUint64(key[:8], seed)
	binary.LittleEndian.PutUint64(key[8:], draw)
	high, _ := bits.Mul64(xxhash.Sum64(key[:]), uint64(n))
	return int(high)
}

// Propensities returns with which probability a candidate was to be at a place that may be drawn,
// where a share of the requests, above 0 and below 1, draws: each one of the pool, and the one
// that is there without a draw.
func Propensities(share float64, pool int) (drawn, displaced float32) {
	return float32(share / float64(pool)), float32(1 - share)
}
