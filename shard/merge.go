package shard

import (
	"context"
	"hash/maphash"
	"slices"
	"sort"

	"github.com/tandem-ann/tandem/index"
)

// merger merges the sorted hits of shards into one sorted list, without repeating
// an id and within the limits of a query. Its memory is reused from query to query.
type merger struct {
	heap  []rest
	out   []Hit
	seen  idSet
	ids   []string // of what was merged, to ask whether it is refused
	quota quota

	before int  // how many of those merged last rank up to the cursor
	full   bool // whether they are as many as were wanted
	passed int  // hits that were passed over because they are refused
}

// rest is what is left of one shard's hits, never empty.
type rest []Hit

// before orders hits best first, ties by id.
func (h *Hit) before(o *Hit, metric index.Metric) bool {
	if h.Score != o.Score {
		return metric.Better(h.Score, o.Score)
	}
	return h.ID < o.ID
}

// merge returns of the hits of the lists, each of which is best first, ties by id, the best
// that are not among refused, unless it is nil, and that a quota of limits lets take: those
// that rank up to a cursor, if there is one, and k more. An id in several lists counts once,
// with its best score. The result is good until the next call, or until a list changes. The
// error is the context's.
func (m *merger) merge(ctx context.Context, metric index.Metric, k int, after *Cursor, limits []AtMost, refused Refused, lists [][]Hit) ([]Hit, error) {
	// Parts hardly ever return what is refused. So it is merged as if nothing was, and once
	// more if that was wrong.
	out, err := m.mergeBut(ctx, metric, k, after, limits, nil, lists)
	if err != nil || refused == nil || !m.hasAny(out, refused) {
		return out, err
	}
	return m.mergeBut(ctx, metric, k, after, limits, refused, lists)
}

// hasAny reports whether any of the hits is refused.
func (m *merger) hasAny(hits []Hit, refused Refused) bool {
	m.ids = slices.Grow(m.ids[:0], len(hits))
	for i := range hits {
		m.ids = append(m.ids, hits[i].ID)
	}
	any := refused.HasAny(m.ids)
	clear(m.ids) // they are others' memory
	return any
}

// mergeBut is merge, which asks for each hit whether it is refused.
func (m *merger) mergeBut(ctx context.Context, metric index.Metric, k int, after *Cursor, limits []AtMost, refused Refused, lists [][]Hit) ([]Hit, error) {
	m.out, m.heap, m.passed = m.out[:0], m.heap[:0], 0
	m.quota.reset(limits)
	m.before = 0
	for _, list := range lists {
		if len(list) > 0 {
			m.heap = append(m.heap, list)
		}
	}
	if len(m.heap) == 1 && len(limits) == 0 {
		return m.one(m.heap[0], metric, k, after, refused), nil
	}
	total := 0
	for _, list := range m.heap {
		total += len(list)
	}
	wanted, room := after.reach(k, 0), total
	if after == nil {
		room = min(k, total)
	}
	m.out = slices.Grow(m.out, room)
	m.seen.reset(room)
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i, metric)
	}
	for looked := 1; len(m.heap) > 0 && len(m.out) < wanted; looked++ {
		if looked%step == 0 {
			if err := pause(ctx); err != nil {
				return nil, err
			}
		}
		best := m.heap[0][0]
		if m.heap[0] = m.heap[0][1:]; len(m.heap[0]) == 0 {
			last := len(m.heap) - 1
			m.heap[0] = m.heap[last]
			m.heap = m.heap[:last]
		}
		m.down(0, metric)
		if refused != nil && refused.Has(best.ID) {
			m.passed++
			continue
		}
		if len(limits) > 0 {
			if _, _, full := m.quota.full(best.Values); full {
				continue
			}
		}
		if m.seen.add(m.out, best.ID) {
			m.out = append(m.out, best)
			if len(limits) > 0 {
				m.quota.take(best.Values)
			}
			if after != nil && !after.before(&best, metric) {
				m.before++
				wanted = after.reach(k, m.before)
			}
		}
	}
	m.full = len(m.out) == wanted
	return m.out, nil
}

// one is merge of one list without limits.
func (m *merger) one(list []Hit, metric index.Metric, k int, after *Cursor, refused Refused) []Hit {
	if after != nil {
		m.before = sort.Search(len(list), func(i int) bool { return after.before(&list[i], metric) })
	}
	wanted := after.reach(k, m.before)
	m.full, m.before = len(list) >= wanted, min(m.before, wanted)
	first := list[:min(wanted, len(list))]
	if refused == nil {
		return first
	}
	at := slices.IndexFunc(first, func(h Hit) bool { return refused.Has(h.ID) })
	if at < 0 {
		return first
	}
	m.out = append(m.out, list[:at]...)
	m.before = min(m.before, at)
	wanted = after.reach(k, m.before)
	for i := at; i < len(list) && len(m.out) < wanted; i++ {
		if refused.Has(list[i].ID) {
			m.passed++
			continue
		}
		m.out = append(m.out, list[i])
		if after != nil && !after.before(&list[i], metric) {
			m.before++
			wanted = after.reach(k, m.before)
		}
	}
	m.full = len(m.out) >= wanted
	return m.out
}

// down restores the heap below place i.
func (m *merger) down(i int, metric index.Metric) {
	for {
		child := 2*i + 1
		if child >= len(m.heap) {
			return
		}
		if child+1 < len(m.heap) && m.heap[child+1][0].before(&m.heap[child][0], metric) {
			child++
		}
		if !m.heap[child][0].before(&m.heap[i][0], metric) {
			return
		}
		m.heap[i], m.heap[child] = m.heap[child], m.heap[i]
		i = child
	}
}

// idSet is the set of the ids of a growing list of hits: a table of their places,
// by linear probing, less than half full. It costs a third of a map here.
type idSet struct {
	seed   maphash.Seed
	places []uint32 // place in the list + 1, or 0
}

// reset empties the set and makes room for n ids.
func (s *idSet) reset(n int) {
	if len(s.places) == 0 {
		s.seed = maphash.MakeSeed()
	}
	size := 16
	for size < 2*n+2 {
		size *= 2
	}
	if size > cap(s.places) {
		s.places = make([]uint32, size)
		return
	}
	s.places = s.places[:size]
	clear(s.places)
}

// add reports whether id is not among the hits, and notes that the caller appends
// it to them now.
func (s *idSet) add(hits []Hit, id string) bool {
	mask := uint64(len(s.places) - 1)
	for i := maphash.String(s.seed, id) & mask; ; i = (i + 1) & mask {
		switch place := s.places[i]; {
		case place == 0:
			s.places[i] = uint32(len(hits) + 1)
			return true
		case hits[place-1].ID == id:
			return false
		}
	}
}
