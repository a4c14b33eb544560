package index

import "context"

// connect links the nodes that cannot be reached from the entry point on layer 0
// until all can be. Each step makes at least one more node reachable and none
// less, so it ends.
func (c *constructor) connect(ctx context.Context) error {
	if len(c.layers) == 0 {
		return nil
	}
	base := c.layers[0]
	n := base.nodes()
	reached := make([]bool, n)
	spread(base, reached, 0)
	w := c.workers[0]
	for node := range uint32(n) {
		if reached[node] {
			continue
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		// The nearest node that a search finds is reachable, and near enough to
		// lead queries here.
		c.codes.code(L2, c.points.padded(int(node)), &w.coded)
		w.visited.reset(n)
		w.visited.visit(0)
		w.pool.reset(c.params.EfConstruction, c.params.EfConstruction)
		w.ids = append(w.ids[:0], 0)
		w.pool.merge(w.score(&c.codes, w.ids, infinity))
		w.walk(&c.codes, base)
		host := w.pool.entries[0].ordinal()
		for _, e := range w.pool.entries {
			if len(base.neighbours(e.ordinal())) < base.width {
				host = e.ordinal()
				break
			}
		}
		adopt(base, reached, host, node)
		spread(base, reached, node)
	}
	return nil
}

// adopt makes node, which is not reached, a neighbour of host, which is. Where
// host's list is full, node takes the place of host's last neighbour and adopts
// that one in turn, so that it stays reachable.
func adopt(l layer, reached []bool, host, node uint32) {
	if list := l.neighbours(host); len(list) < l.width {
		l.all(host)[len(list)] = node
		return
	}
	list := l.all(host)
	evicted := list[len(list)-1]
	list[len(list)-1] = node
	own := l.neighbours(node)
	for _, id := range own {
		if id == evicted {
			return
		}
	}
	if len(own) < l.width {
		l.all(node)[len(own)] = evicted
		return
	}
	// Giving up a link to a reached node cannot cut it off: it was reached
	// without node. A list without one gives up a link to a node that later
	// steps will reach by another way.
	place := len(own) - 1
	for i, id := range own {
		if reached[id] {
			place = i
		}
	}
	own[place] = evicted
}

// spread marks what can be reached from node.
func spread(l layer, reached []bool, node uint32) {
	reached[node] = true
	stack := []uint32{node}
	for len(stack) > 0 {
		top := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		for _, id := range l.neighbours(top) {
			if !reached[id] {
				reached[id] = true
				stack = append(stack, id)
			}
		}
	}
}

// unreachable returns the number of nodes that cannot be reached from node 0.
func unreachable(l layer) int {
	reached := make([]bool, l.nodes())
	if len(reached) == 0 {
		return 0
	}
	spread(l, reached, 0)
	n := 0
	for _, r := range reached {
		if !r {
			n++
		}
	}
	return n
}

// breadthFirst returns layer 0's nodes in the order in which a breadth-first
// walk from node 0 meets them.
func breadthFirst(l layer) []uint32 {
	n := l.nodes()
	order := make([]uint32, 0, n)
	if n == 0 {
		return order
	}
	seen := make([]bool, n)
	seen[0] = true
	order = append(order, 0)
	for i := 0; i < len(order); i++ {
		for _, id := range l.neighbours(order[i]) {
			if !seen[id] {
				seen[id] = true
				order = append(order, id)
			}
		}
	}
	return order
}
