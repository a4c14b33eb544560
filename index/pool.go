package index

import (
	"math"
	"math/bits"
)

// pool holds the best nodes found so far in ascending order, at most limit of
// them. One sorted array serves as result set and as queue: next is the first
// entry that is not expanded. At the sizes searches use, moving a few hundred
// bytes costs less than keeping two heaps.
type pool struct {
	entries []candidate
	limit   int
	next    int
	bound   float32 // the distance beyond which add drops a node
}

func (p *pool) reset(limit int) {
	p.entries = p.entries[:0]
	p.limit, p.next = limit, 0
	p.bound = float32(math.Inf(1))
}

// rejects reports whether add would certainly drop a node at distance d.
func (p *pool) rejects(d float32) bool { return d > p.bound }

// add inserts c unless the pool is full of better nodes. The caller makes sure
// that no node is added twice.
func (p *pool) add(c candidate) {
	n := len(p.entries)
	if n == p.limit {
		n--
		if c > p.entries[n] {
			return
		}
	} else {
		p.entries = append(p.entries, 0)
	}
	// A binary search without a branch on what is random.
	at := 0
	for size := n; size > 0; {
		half := (size + 1) / 2
		_, less := bits.Sub64(uint64(p.entries[at+half-1]), uint64(c), 0)
		at += half & -int(less)
		size -= half
	}
	copy(p.entries[at+1:n+1], p.entries[at:n])
	p.entries[at] = c
	p.next = min(p.next, at)
	if len(p.entries) == p.limit {
		p.bound = p.entries[p.limit-1].dist()
	}
}

// pop marks the best unexpanded node as expanded and returns it.
func (p *pool) pop() (uint32, bool) {
	for ; p.next < len(p.entries); p.next++ {
		if e := p.entries[p.next]; e&expanded == 0 {
			p.entries[p.next] = e | expanded
			p.next++
			return e.ordinal(), true
		}
	}
	return 0, false
}

// queue is a binary heap of candidates, best first, without a limit.
type queue struct {
	heap []candidate
}

func (q *queue) reset() { q.heap = q.heap[:0] }

func (q *queue) push(c candidate) {
	q.heap = append(q.heap, c)
	i := len(q.heap) - 1
	for i > 0 {
		parent := (i - 1) / 2
		if c >= q.heap[parent] {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = c
}

func (q *queue) pop() (candidate, bool) {
	if len(q.heap) == 0 {
		return 0, false
	}
	top := q.heap[0]
	last := q.heap[len(q.heap)-1]
	q.heap = q.heap[:len(q.heap)-1]
	n := len(q.heap)
	if n == 0 {
		return top, true
	}
	i := 0
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && q.heap[child+1] < q.heap[child] {
			child++
		}
		if q.heap[child] >= last {
			break
		}
		q.heap[i] = q.heap[child]
		i = child
	}
	q.heap[i] = last
	return top, true
}

// visited is a set of nodes that is emptied in constant time.
type visited struct {
	epoch uint16
	marks []uint16
}

func (v *visited) reset(nodes int) {
	if len(v.marks) < nodes {
		v.marks = make([]uint16, nodes)
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

// unvisited adds the nodes of a neighbour list, which ends at its first noNode,
// and returns those that were new in dst, which has room for all.
func (v *visited) unvisited(list, dst []uint32) []uint32 {
	marks, epoch := v.marks, v.epoch
	dst = dst[:len(list)]
	n := 0
	for _, node := range list {
		if node == noNode {
			break
		}
		// Without a branch on what is random: every node is written, and stays
		// only if it was new.
		dst[n] = node
		next := n + 1
		if marks[node] == epoch {
			next = n
		}
		marks[node] = epoch
		n = next
	}
	return dst[:n]
}
