package index

// expanded marks a pool entry whose neighbours have been scored. It is the top
// bit of the ordinal, so an index has at most [MaxRows] rows.
const expanded = 1 << 31

// MaxRows is the largest number of rows in one index.
const MaxRows = 1 << 30

// candidate is a node and its distance, ordered by (distance, ordinal).
type candidate struct {
	dist float32
	node uint32
}

func (a candidate) before(b candidate) bool {
	return a.dist < b.dist || a.dist == b.dist && a.node&^expanded < b.node&^expanded
}

// pool holds the best nodes found so far in ascending order, at most limit of
// them. One sorted array serves as result set and as queue: next is the first
// entry that is not expanded. At the sizes searches use, moving a few hundred
// bytes costs less than keeping two heaps.
type pool struct {
	entries []candidate
	limit   int
	next    int
}

func (p *pool) reset(limit int) {
	p.entries = p.entries[:0]
	p.limit, p.next = limit, 0
}

// rejects reports whether add would drop a node at distance d.
func (p *pool) rejects(d float32) bool {
	return len(p.entries) == p.limit && d > p.entries[p.limit-1].dist
}

// add inserts c unless the pool is full of better nodes. The caller makes sure
// that no node is added twice.
func (p *pool) add(c candidate) {
	n := len(p.entries)
	if n == p.limit {
		if n == 0 || !c.before(p.entries[n-1]) {
			return
		}
		n--
	} else {
		p.entries = append(p.entries, candidate{})
	}
	lo, hi := 0, n
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if p.entries[mid].before(c) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	copy(p.entries[lo+1:n+1], p.entries[lo:n])
	p.entries[lo] = c
	p.next = min(p.next, lo)
}

// pop marks the best unexpanded node as expanded and returns it.
func (p *pool) pop() (uint32, bool) {
	for ; p.next < len(p.entries); p.next++ {
		if e := &p.entries[p.next]; e.node&expanded == 0 {
			node := e.node
			e.node |= expanded
			p.next++
			return node, true
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
		if !c.before(q.heap[parent]) {
			break
		}
		q.heap[i] = q.heap[parent]
		i = parent
	}
	q.heap[i] = c
}

func (q *queue) pop() (candidate, bool) {
	if len(q.heap) == 0 {
		return candidate{}, false
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
		if child+1 < n && q.heap[child+1].before(q.heap[child]) {
			child++
		}
		if !q.heap[child].before(last) {
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
