package index

import (
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
)

// approximate returns the distances of the query to nodes, by their codes. The
// next call reuses the memory.
func (x *Index) approximate(s *scratch, nodes []uint32) []float32 {
	if s.trace != nil {
		s.trace.add(nodes, true)
	}
	s.products = slices.Grow(s.products[:0], len(nodes))[:len(nodes)]
	s.dists = slices.Grow(s.dists[:0], len(nodes))[:len(nodes)]
	kernel.DotCodes(s.coded.code, x.codes.rows, nodes, s.products)
	x.codes.distances(&s.coded, nodes, s.products, s.dists)
	return s.dists
}

// enter returns the nodes of layer 0 to start a walk from, scored: the entries, or
// where there are none, what a greedy descent through the upper layers ends at;
// and node 0, from which every node can be reached. The next call that scores
// nodes reuses the memory.
func (x *Index) enter(s *scratch, stats *Stats) (nodes []uint32, dists []float32) {
	s.visited.reset(x.nodes)
	s.ids = append(s.ids[:0], 0)
	s.visited.visit(0)
	if len(x.entries) == 0 && len(x.layers) > 1 {
		if node := x.descend(s, stats); s.visited.visit(node) {
			s.ids = append(s.ids[:1], node)
		}
	}
	for _, node := range x.entries {
		if s.visited.visit(node) {
			s.ids = append(s.ids, node)
		}
	}
	stats.Scored += len(s.ids)
	return s.ids, x.approximate(s, s.ids)
}

// descend moves greedily towards the query, from the top layer down to layer 1
// (HNSW, algorithm 5).
func (x *Index) descend(s *scratch, stats *Stats) uint32 {
	best := newCandidate(x.approximate(s, s.ids[:1])[0], 0) // node 0
	stats.Scored++
	for l := len(x.layers) - 1; l > 0; l-- {
		for {
			from := best
			ids := x.layers[l].neighbours(from.ordinal())
			for i, d := range x.approximate(s, ids) {
				best = min(best, newCandidate(d, ids[i]))
			}
			stats.Scored += len(ids)
			if best == from {
				break
			}
		}
	}
	return best.ordinal()
}

// graphWalk pools the ef best nodes it can find (HNSW, algorithm 2) and hands
// their rows to the top k.
func (x *Index) graphWalk(s *scratch, q Query, stats *Stats) {
	x.codes.code(x.params.Metric, s.query, &s.coded)
	s.pool.reset(q.Ef)
	nodes, dists := x.enter(s, stats)
	for i, d := range dists {
		s.pool.add(newCandidate(d, nodes[i]))
	}
	base := x.layers[0]
	s.ids = slices.Grow(s.ids[:0], base.width)
	for {
		node, ok := s.pool.pop()
		if !ok {
			break
		}
		ids := s.visited.unvisited(base.all(node), s.ids)
		stats.Expanded++
		stats.Scored += len(ids)
		for i, d := range x.approximate(s, ids) {
			if !s.pool.rejects(d) {
				s.pool.add(newCandidate(d, ids[i]))
			}
		}
	}
	x.rescore(s)
	x.collect(s, nil)
}

// filteredWalk expands nodes in order of distance, eligible or not, and pools
// the ef best nodes with an eligible row. It gives up, with an empty top k, when
// it has scored more than budget rows.
func (x *Index) filteredWalk(s *scratch, q Query, budget int, stats *Stats) {
	x.codes.code(x.params.Metric, s.query, &s.coded)
	s.pool.reset(q.Ef)
	s.queue.reset()
	nodes, dists := x.enter(s, stats)
	for i, d := range dists {
		x.offer(s, newCandidate(d, nodes[i]), q.Filter)
	}
	base := x.layers[0]
	s.ids = slices.Grow(s.ids[:0], base.width)
	for {
		next, ok := s.queue.pop()
		if !ok || s.pool.rejects(next.dist()) {
			break
		}
		if stats.Scored > budget {
			return
		}
		ids := s.visited.unvisited(base.all(next.ordinal()), s.ids)
		stats.Expanded++
		stats.Scored += len(ids)
		for i, d := range x.approximate(s, ids) {
			if !s.pool.rejects(d) {
				x.offer(s, newCandidate(d, ids[i]), q.Filter)
			}
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
	t.entries = t.sort(x.rows)[:min(t.k, len(t.entries))]
}
