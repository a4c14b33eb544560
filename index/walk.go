package index

import "github.com/tandem-ann/tandem/index/kernel"

// walker is the memory of a walk.
type walker struct {
	coded   kernel.Query
	visited visited
	pool    pool
	ids     []uint32    // nodes to score
	ahead   []uint32    // nodes to score after those
	near    []candidate // what was near enough of those that were scored
	next    [1]uint32
	trace   *Trace
}

// score returns the nodes within the bound. The next call reuses the memory.
func (w *walker) score(c *codes, nodes []uint32, bound float32) []candidate {
	c.prefetch(nodes)
	return w.within(c, nodes, bound)
}

// within does what score does, for nodes that were prefetched.
func (w *walker) within(c *codes, nodes []uint32, bound float32) []candidate {
	if w.trace != nil {
		w.trace.add(nodes, true)
	}
	w.near = c.within(&w.coded, nodes, bound, w.near)
	return w.near
}

// walk expands the pool's nodes on a layer until none is left (HNSW, algorithm 2), by
// the distances of codes.
//
// What takes time is to wait for memory. So three nodes are under way at once: the list
// of the best node is asked for, while that of the one before is read and its
// neighbours' codes are asked for, while those of the one before that are scored.
func (w *walker) walk(c *codes, l layer) (expanded, scored int) {
	ids, ahead := w.ids[:0], w.ahead[:0]
	var listed uint32 // the node whose list was asked for
	listing := false
	for {
		node, ok := w.pool.pop()
		if ok {
			w.next[0] = node
			kernel.Prefetch(l.links, l.width, l.width, w.next[:])
		} else if !listing && len(ids) == 0 {
			w.ids, w.ahead = ids, ahead
			return expanded, scored
		}
		ahead = ahead[:0]
		if listing {
			ahead = c.visit(&w.visited, l.all(listed), ahead)
			expanded++
			scored += len(ahead)
		}
		if len(ids) > 0 {
			w.pool.merge(w.within(c, ids, w.pool.bound))
		}
		ids, ahead = ahead, ids
		listed, listing = node, ok
	}
}

// descend moves greedily from node to the nearest one of a layer.
func (w *walker) descend(c *codes, l layer, from candidate) (best candidate, scored int) {
	for {
		best = from
		ids := l.neighbours(from.ordinal())
		for _, near := range w.score(c, ids, from.dist()) {
			best = min(best, near)
		}
		scored += len(ids)
		if best == from {
			return best, scored
		}
		from = best
	}
}

// enter returns the nodes of layer 0 to start a walk from: the entries, or where
// there are none, what a greedy descent through the upper layers ends at; and node 0,
// from which every node can be reached. The next call that scores nodes reuses the
// memory.
func (x *Index) enter(s *scratch, stats *Stats) []candidate {
	s.visited.reset(x.nodes)
	s.ids = append(s.ids[:0], 0)
	s.visited.visit(0)
	if len(x.entries) == 0 && len(x.layers) > 1 {
		stats.Scored++
		// A forged file can have distances that are NaN, which no bound admits.
		if near := s.score(&x.codes, s.ids, infinity); len(near) > 0 {
			best := near[0]
			for l := len(x.layers) - 1; l > 0; l-- {
				var scored int
				best, scored = s.descend(&x.codes, x.layers[l], best)
				stats.Scored += scored
			}
			if node := best.ordinal(); s.visited.visit(node) {
				s.ids = append(s.ids[:1], node)
			}
		}
	}
	for _, node := range x.entries {
		if s.visited.visit(node) {
			s.ids = append(s.ids, node)
		}
	}
	stats.Scored += len(s.ids)
	return s.score(&x.codes, s.ids, infinity)
}

// graphWalk pools the ef best nodes it can find and hands their rows to the top k.
func (x *Index) graphWalk(s *scratch, q Query, stats *Stats) {
	x.codes.code(x.params.Metric, s.query, &s.coded)
	s.pool.reset(min(max(q.Ef, q.K), x.nodes), q.Ef)
	s.pool.merge(x.enter(s, stats))
	expanded, scored := s.walk(&x.codes, x.layers[0])
	stats.Expanded += expanded
	stats.Scored += scored
	x.rescore(s)
	x.collect(s, nil)
}

// filteredWalk expands nodes in order of distance, eligible or not, and pools
// the ef best nodes with an eligible row. It gives up, with an empty top k, when
// it has scored more than budget rows.
func (x *Index) filteredWalk(s *scratch, q Query, budget int, stats *Stats) {
	x.codes.code(x.params.Metric, s.query, &s.coded)
	s.pool.reset(min(max(q.Ef, q.K), x.nodes), q.Ef)
	s.queue.reset()
	for _, c := range x.enter(s, stats) {
		x.offer(s, c, q.Filter)
	}
	for {
		next, ok := s.queue.pop()
		if !ok || s.pool.rejects(next.dist()) {
			break
		}
		if stats.Scored > budget {
			return
		}
		s.ids = x.codes.visit(&s.visited, x.layers[0].all(next.ordinal()), s.ids)
		stats.Expanded++
		stats.Scored += len(s.ids)
		for _, c := range s.within(&x.codes, s.ids, s.pool.bound) {
			x.offer(s, c, q.Filter)
		}
	}
	x.rescore(s)
	x.collect(s, q.Filter)
}

// offer queues a node, and pools it if it stands for an eligible row.
func (x *Index) offer(s *scratch, c candidate, filter Bitset) {
	s.queue.push(c)
	if x.anyEligible(c.ordinal(), filter) {
		s.pool.add(c)
	}
}

// anyEligible reports whether node stands for an eligible row.
func (x *Index) anyEligible(node uint32, filter Bitset) bool {
	if filter.Has(node) {
		return true
	}
	if x.repeated.Has(node) {
		first, n := x.repeats(node)
		for i := range uint32(n) {
			if filter.Has(first + i) {
				return true
			}
		}
	}
	return false
}

// rescore scores the pooled nodes on their vectors: codes may have swapped
// neighbours in rank, and an answer's scores are exact.
func (x *Index) rescore(s *scratch) {
	s.ids = s.ids[:0]
	for _, c := range s.pool.entries {
		s.ids = append(s.ids, c.ordinal())
	}
	for i, d := range x.distances(s, s.ids) {
		s.pool.entries[i] = newCandidate(d, s.ids[i])
	}
}

// collect makes the eligible rows of the rescored nodes the top k.
func (x *Index) collect(s *scratch, filter Bitset) {
	t := &s.top
	for _, c := range s.pool.entries {
		node := c.ordinal()
		if filter == nil || filter.Has(node) {
			t.entries = append(t.entries, c)
		}
		if x.repeated.Has(node) {
			// Repeats of a node are in the order of their rows, so the first k of
			// them are enough.
			first, n := x.repeats(node)
			for i, found := uint32(0), 0; i < uint32(n) && found < t.k; i++ {
				if filter == nil || filter.Has(first+i) {
					t.entries = append(t.entries, newCandidate(c.dist(), first+i))
					found++
				}
			}
		}
	}
	t.sortNearly()
	t.rankTies(x.rows)
	t.entries = t.entries[:min(t.k, len(t.entries))]
}
