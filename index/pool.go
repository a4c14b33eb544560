package index

import (
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
)

var infinity = float32(math.Inf(1))

// pool holds the best nodes found so far in ascending order, at most limit of
// them. One sorted array serves as result set and as queue: next is the first
// entry that is not expanded. At the sizes searches use, moving a few hundred
// bytes costs less than keeping two heaps.
//
// Of a full pool only the best ef are to be expanded. With an ef below limit a walk
// may end sooner than with one that equals it, and still return limit nodes.
type pool struct {
	entries []candidate
	limit   int
	ef      int
	next    int
	bound   float32 // the distance beyond which merge drops a node
}

func (p *pool) reset(limit, ef int) {
	p.entries = p.entries[:0]
	p.limit, p.ef, p.next = limit, ef, 0
	p.bound = infinity
}

// merge adds the batch, unless the pool is full of better nodes. The caller makes
// sure that no node is added twice.
func (p *pool) merge(batch []candidate) {
	p.entries = slices.Grow(p.entries, min(len(batch), p.limit-len(p.entries)))
	room := p.entries[:min(p.limit, cap(p.entries))]
	n, least := kernel.Insert(room, len(p.entries), batch)
	p.entries = room[:n]
	p.next = min(p.next, least)
	if n == p.limit {
		p.bound = p.entries[n-1].dist()
	}
}

// pop returns the best node that is to be expanded and is not yet, and marks it as
// expanded.
func (p *pool) pop() (uint32, bool) {
	for ; p.next < len(p.entries); p.next++ {
		if e := p.entries[p.next]; e&expanded == 0 {
			if p.next >= p.ef && len(p.entries) == p.limit {
				return 0, false
			}
			p.entries[p.next] = e | expanded
			p.next++
			return e.ordinal(), true
		}
	}
	return 0, false
}

// visited is a set of nodes that is emptied in constant time.
type visited struct {
	epoch uint8
	marks []uint8
}

func (v *visited) reset(nodes int) {
	if len(v.marks) < nodes {
		v.marks = make([]uint8, nodes)
		v.epoch = 0
	}
	v.epoch++
	if v.epoch == 0 {
		clear(v.marks)
		v.epoch = 1
	}
}

// visit adds node and reports whether it was new.
func (v *visited) visit(node uint32) bool {
	if v.marks[node] == v.epoch {
		return false
	}
	v.marks[node] = v.epoch
	return true
}
