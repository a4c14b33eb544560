package index

import (
	"math"

	"github.com/tandem-ann/tandem/index/kernel"
)

// walker is the memory of a walk.
type walker struct {
	coded    kernel.Query
	visited  visited
	pool     pool
	ids      []uint32    // nodes to score
	ahead    []uint32    // nodes to score after those
	near     []candidate // what was near enough of those that were scored
	next     [1]uint32
	trace    *Trace
	pace     pace
	nearby   [3]nearby
	eligible Bitset      // nodes that may stand for an eligible row
	amid     []candidate // eligible nodes that a filtered walk begins with
	dead     Bitset      // nodes that may not be returned; nil if there are none
	room     room
	budget   float64 // what a walk among dead nodes may cost
}

// room is what a walk among dead nodes gives its pool room for.
//
// An answer of k rows among which n nodes are dead is found as an answer of k+n rows is:
// so the pool has room for n more, and as large a part of them is expanded as of the others.
// How many they are is expected from how many rows are dead, and looked at now and then,
// because those near the query may be dead more often than others. A dead node counts as
// such though it may stand for rows that are not: the pool is then larger than it need be.
type room struct {
	k, limit, ef int // what the pool's limit and its ef would be if none were dead
	dead         int // how many nodes there is room for
	next         int // after how many expanded nodes to look again
}

// firstLook is after how many nodes, expanded, a walk looks first how many of the best are
// dead. From look to look they become lookMore times as many.
const (
	firstLook = 16
	lookMore  = 4
)

// make gives the pool room for so many dead nodes.
func (r *room) make(p *pool, dead int) {
	r.dead = dead
	// By chance some more may be dead. That there is room for them keeps nodes in the pool
	// that a walk which has to go on can expand.
	p.limit = r.limit + dead + 3*int(math.Sqrt(float64(dead))) + 1
	p.ef = r.ef + (dead*r.ef+r.limit-1)/r.limit
	p.bound = infinity
}

// grow has the pool hold more nodes if more of the best are dead than there is room for, and
// reports whether it does.
func (w *walker) grow() bool {
	w.room.next *= lookMore
	live, dead := 0, 0
	for _, c := range w.pool.entries {
		if w.dead.Has(c.ordinal()) {
			dead++
		} else if live++; live == w.room.k {
			break
		}
	}
	if dead <= w.room.dead {
		return false
	}
	w.room.make(&w.pool, dead)
	return true
}

// overspent reports whether there are so many dead nodes near the query that a walk which
// has scored so many nodes has cost too much.
func (w *walker) overspent(scored int) bool {
	return float64(scored)*walkCost(w.pool.ef) > w.budget
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
		} else if !listing && len(ids) == 0 && (w.dead == nil || !w.grow()) {
			w.ids, w.ahead = ids, ahead
			return expanded, scored
		}
		ahead = ahead[:0]
		if listing {
			ahead = c.visit(&w.visited, l.all(listed), ahead)
			expanded++
			scored += len(ahead)
			if w.pace.ends(len(ahead)*c.stride+len(w.pool.entries)*entryWork) || w.dead != nil && w.overspent(scored) {
				w.ids, w.ahead = ids, ahead
				return expanded, scored
			}
			if w.dead != nil && expanded >= w.room.next {
				w.grow()
			}
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

// graphWalk pools the ef best nodes it can find and hands their rows to the top k. It
// gives up, with an empty top k, when it has cost the budget because of dead rows.
func (x *Index) graphWalk(s *scratch, q Query, budget float64, stats *Stats) {
	limit := max(q.Ef, q.K)
	s.pool.reset(min(limit, x.nodes), q.Ef)
	if q.Dead != nil {
		s.dead, s.budget = q.Dead, budget
		s.room = room{k: q.K, limit: limit, ef: q.Ef, next: firstLook}
		s.room.make(&s.pool, x.costs.deadAmong(q))
	}
	x.poolWalk(s, stats)
	s.dead = nil
	x.collect(s, q)
}

// poolWalk pools and rescores the best nodes it can find.
func (x *Index) poolWalk(s *scratch, stats *Stats) {
	x.codes.code(x.params.Metric, s.query, &s.coded)
	s.pool.merge(x.enter(s, stats))
	expanded, scored := s.walk(&x.codes, x.layers[0])
	stats.Expanded += expanded
	stats.Scored += scored
	if s.dead != nil {
		x.dropDead(s, scored)
	}
	x.rescore(s)
}

// A filtered walk begins with a walk of all nodes with a pool so large that amidMean
// eligible nodes would be in it if they had nothing to do with the query, but of
// guideLeast nodes at least. A query that has amidLeast of them there is amid what is
// eligible. One that has not is looked at again with a pool guideMore times as large, of
// which it takes as many times amidLeast, if that costs less than a part of 1/guidePart
// of the exact scan: else one in seventy would be taken to be apart by chance. If it
// still has not, it is apart.
const (
	amidMean   = 8
	amidLeast  = 3
	guideLeast = 16
	guideMore  = 4
	guidePart  = 8
)

// nearby is what a filtered walk has of the neighbours of one node.
type nearby struct {
	node     uint32
	eligible []uint32 // n of them are to be scored
	n        int
	others   []uint32 // m neighbours that are not eligible
	m        int
	on       bool
}

// filteredWalk pools the ef best eligible nodes it can find and hands their rows to the
// top k. It gives up, with an empty top k, where so few rows are eligible that to look
// for them costs more than to scan them, where hardly any eligible node is near the
// query, when it has cost as much as an exact scan would, and when it has come to an end
// without enough eligible nodes.
//
// It begins where a short walk of all nodes ends (see guide), and then only eligible
// nodes are scored, pooled and expanded. Where a node has fewer eligible
// neighbours than a list holds, the lists of the others are read too, until there are as
// many (Patel et al., "ACORN: Performant and Predicate-Agnostic Search Over Vector
// Embeddings and Structured Data", SIGMOD 2024, section 5).
//
// How well that does depends on the query more than on the filter. A query that is amid
// what is eligible has its answer around where the short walk ends, and little effort
// finds it. For one that is apart, the best eligible rows are far from where it looks,
// possibly in many places that no eligible nodes join, and nothing in the walk tells
// whether it has found them: on a real tower, under filters by popularity, it has missed
// a seventh of the ten best on average and all of them for some. So the scan takes over.
//
// Four nodes are under way at once, for the same reason as in walk: one whose list is
// asked for, one whose list is read and whose other neighbours' lists are asked for, one
// where these are read and codes are asked for, and one that is scored.
//
// Where so few rows are not eligible that a pool has room for all of them beside the
// answer, it is a walk of all nodes with a larger pool.
func (x *Index) filteredWalk(s *scratch, q Query, budget float64, stats *Stats) {
	if missing := len(x.rows) - q.Eligible; missing <= max(q.Ef, q.K) || q.Ef == x.nodes {
		s.pool.reset(min(max(q.Ef, q.K)+missing, x.nodes), q.Ef+missing)
		x.poolWalk(s, stats)
		x.collect(s, q)
		return
	}
	if x.costs.graphCost(x.costs.guideEf(q.Eligible)) > x.costs.exactCost(q.Eligible, q.K) {
		return // only a walk that is forced comes here
	}
	filter := x.nodeFilter(s, q.Filter)
	if stats.Apart = !x.guide(s, q, stats); stats.Apart {
		return
	}
	limit := min(max(q.Ef, q.K), x.nodes)
	s.pool.reset(limit, q.Ef)
	s.visited.reset(x.nodes)
	for _, c := range s.amid {
		s.visited.visit(c.ordinal())
	}
	s.pool.merge(s.amid)
	l := x.layers[0]
	for i := range s.nearby {
		b := &s.nearby[i]
		b.on = false
		if len(b.others) < l.width {
			b.eligible, b.others = make([]uint32, 2*l.width), make([]uint32, l.width)
		}
	}
	marks, epoch := s.visited.marks, s.visited.epoch
	perScored := walkCost(q.Ef)
	listed, divided, scoring := &s.nearby[0], &s.nearby[1], &s.nearby[2]
	for {
		if scoring.on {
			s.pool.merge(s.within(&x.codes, scoring.eligible[:scoring.n], s.pool.bound))
		}
		node, ok := s.pool.pop()
		if ok {
			s.next[0] = node
			kernel.Prefetch(l.links, l.width, l.width, s.next[:])
		} else if !listed.on && !divided.on {
			break
		}
		if d := divided; d.on {
			var read int
			d.n, read = kernel.Through(l.links, l.width, d.others[:d.m], l.width, filter, marks, epoch, d.eligible, d.n)
			d.n = x.dropIneligible(d.eligible[:d.n], q.Filter)
			x.codes.prefetch(d.eligible[:d.n])
			stats.Through += read
			stats.Scored += d.n
		}
		if d := listed; d.on {
			d.n, d.m = kernel.Split(l.all(d.node), filter, marks, epoch, d.eligible, d.others)
			if d.n < l.width {
				kernel.Prefetch(l.links, l.width, l.width, d.others[:d.m])
			}
			stats.Expanded++
		}
		listed, divided, scoring = scoring, listed, divided
		listed.node, listed.on = node, ok
		if s.pace.ends(scoring.n*x.codes.stride + len(s.pool.entries)*entryWork) {
			return
		}
		if float64(stats.Scored)*perScored+float64(stats.Through)*throughCost > budget {
			return
		}
	}
	if len(s.pool.entries) < min(limit, q.Eligible) {
		// What is eligible may lie in parts that no walk through eligible nodes joins.
		return
	}
	x.rescore(s)
	x.collect(s, q)
}

// guide walks among all nodes, leaves the eligible ones of the pool in s.amid, and
// reports whether the query is amid them.
func (x *Index) guide(s *scratch, q Query, stats *Stats) bool {
	x.codes.code(x.params.Metric, s.query, &s.coded)
	ef := x.costs.guideEf(q.Eligible)
	more := min(guideMore*ef, x.nodes)
	for least := amidLeast; ; least *= guideMore {
		s.pool.reset(ef, ef)
		s.pool.merge(x.enter(s, stats))
		steps, scored := s.walk(&x.codes, x.layers[0])
		stats.Expanded += steps
		stats.Scored += scored
		s.amid = s.amid[:0]
		for _, c := range s.pool.entries {
			if x.anyEligible(c.ordinal(), q.Filter) {
				s.amid = append(s.amid, c&^expanded)
			}
		}
		if s.pace.stopped || len(s.amid) >= least || ef == more || x.costs.graphCost(more) > x.costs.exactCost(q.Eligible, 1)/guidePart {
			return len(s.amid) >= least
		}
		ef = more
	}
}

// amid returns how many eligible nodes are near a query that is amid them, and 0 for one
// that is apart.
func (x *Index) amid(vector []float32, q Query) int {
	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	x.begin(s, vector, 1)
	s.trace = nil
	var stats Stats
	if !x.guide(s, q, &stats) {
		return 0
	}
	return len(s.amid)
}

// nodeFilter returns the nodes that may stand for an eligible row: those that filter
// has, and those that have repeats.
func (x *Index) nodeFilter(s *scratch, filter Bitset) Bitset {
	if len(x.duplicates) == 0 {
		return filter
	}
	s.eligible = append(s.eligible[:0], filter[:len(x.repeated)]...)
	s.eligible.Or(x.repeated)
	return s.eligible
}

// dropIneligible moves nodes that stand for an eligible row to the front, and returns
// how many they are.
func (x *Index) dropIneligible(nodes []uint32, filter Bitset) int {
	if len(x.duplicates) == 0 {
		return len(nodes)
	}
	n := 0
	for _, node := range nodes {
		nodes[n] = node
		if x.anyEligible(node, filter) {
			n++
		}
	}
	return n
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

// dropDead removes the pooled nodes that are dead, but for those that may stand for rows
// that are not, or all where the walk gave up.
func (x *Index) dropDead(s *scratch, scored int) {
	kept := s.pool.entries[:0]
	if s.overspent(scored) {
		s.pool.entries = kept
		return
	}
	for _, c := range s.pool.entries {
		if node := c.ordinal(); !s.dead.Has(node) || x.repeated.Has(node) {
			kept = append(kept, c)
		}
	}
	s.pool.entries = kept
}

// rescore scores the pooled nodes on their vectors: codes may have swapped
// neighbours in rank, and an answer's scores are exact.
func (x *Index) rescore(s *scratch) {
	s.ids = s.ids[:0]
	for _, c := range s.pool.entries {
		s.ids = append(s.ids, c.ordinal())
	}
	for first := 0; first < len(s.ids); first += bulk {
		ids := s.ids[first:min(first+bulk, len(s.ids))]
		for i, d := range x.distances(s, ids) {
			s.pool.entries[first+i] = newCandidate(d, ids[i])
		}
		if s.pace.ends(len(ids) * vectorWork * x.stride) {
			return
		}
	}
}

// collect makes the rows of the rescored nodes that may be returned the top k.
func (x *Index) collect(s *scratch, q Query) {
	t := &s.top
	for _, c := range s.pool.entries {
		node := c.ordinal()
		if q.admits(node) {
			t.entries = append(t.entries, c)
		}
		if x.repeated.Has(node) {
			// Repeats of a node are in the order of their rows, so the first k of
			// them are enough.
			first, n := x.repeats(node)
			for i, found := uint32(0), 0; i < uint32(n) && found < t.k; i++ {
				if q.admits(first + i) {
					t.entries = append(t.entries, newCandidate(c.dist(), first+i))
					found++
				}
			}
		}
	}
	t.sortNearly(&s.pace)
	t.rankTies(x.rows)
	t.entries = t.entries[:min(t.k, len(t.entries))]
}
