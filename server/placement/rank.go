package placement

import (
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"
	"sync"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/shard/lowest"
)

// few is how many members a shard ranks at first: nearly always it finds its own among them.
const few = 16

// ranking are members in the order in which a shard prefers them.
type ranking []int

// candidate is a member as one shard sees it.
type candidate struct {
	log, weight uint64
	member      int
}

// compare is by log/weight, exactly.
func (a candidate) compare(b candidate) int {
	ah, al := bits.Mul64(a.log, b.weight)
	bh, bl := bits.Mul64(b.log, a.weight)
	return cmp.Or(cmp.Compare(ah, bh), cmp.Compare(al, bl), cmp.Compare(a.member, b.member))
}

// rank returns the n members that a shard prefers most.
func (p *Plan) rank(hash uint64, n int) ranking {
	logs := logarithms()
	var pair [16]byte
	binary.LittleEndian.PutUint64(pair[:], hash)
	at := func(j int) candidate {
		binary.LittleEndian.PutUint64(pair[8:], p.members[j].hash)
		return candidate{logs.of(xxhash.Sum64(pair[:])), p.members[j].weight, j}
	}
	var list []candidate
	if n < len(p.members) {
		kept := lowest.New(n, candidate.compare)
		for j := range p.members {
			kept.Add(at(j))
		}
		list = kept.Sorted()
	} else {
		list = make([]candidate, len(p.members))
		for j := range list {
			list[j] = at(j)
		}
		slices.SortFunc(list, candidate.compare)
	}
	ranked := make(ranking, len(list))
	for i := range list {
		ranked[i] = list[i].member
	}
	return ranked
}

// Logarithms have logBits bits behind the point, and a table of them has tableBits.
const (
	logBits   = 40
	tableBits = 12
)

// logTable has the binary logarithms of 1, 1+1/4096, ... 2. Between them they are
// interpolated. All is in whole numbers, so that every machine finds the same.
type logTable [1<<tableBits + 1]uint64

var logarithms = sync.OnceValue(func() *logTable {
	t := new(logTable)
	for i := range 1 << tableBits {
		// Squaring doubles a logarithm, and of what is squared the first bit is its next one.
		x := 1<<63 | uint64(i)<<(63-tableBits)
		for range logBits {
			hi, lo := bits.Mul64(x, x)
			bit := hi >> 63
			t[i] = t[i]<<1 | bit
			x = hi<<(1-bit) | (lo>>63)&^bit
		}
	}
	t[1<<tableBits] = 1 << logBits
	return t
})

// of returns -log2(h/2^64), of 1 if h is 0.
func (t *logTable) of(h uint64) uint64 {
	h |= 1 // no logarithm is infinite
	zeros := bits.LeadingZeros64(h)
	x := h << zeros << 1 // what is behind the point of 1.x
	i := x >> (64 - tableBits)
	rest, _ := bits.Mul64(x<<tableBits, t[i+1]-t[i])
	return uint64(zeros+1)<<logBits - t[i] - rest
}
