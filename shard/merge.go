package shard

import (
	"context"
	"hash/maphash"
	"slices"

	"github.com/tandem-ann/tandem/index"
)

// merger merges the sorted hits of shards into one sorted list, without repeating
// an id and within the limits of a query. Its memory is reused from query to query.
type merger struct {
	heap  []cursor
	out   []hit
	seen  idSet
	quota quota
}

// cursor is the rest of one shard's hits, never empty.
type cursor []hit

// before orders hits best first, ties by id.
func (h *hit) before(o *hit, metric index.Metric) bool {
	if h.score != o.score {
		return metric.Better(h.score, o.score)
	}
	return h.id < o.id
}

// merge returns the best k hits of the lists, each of which is best first, ties
// by id, that a quota of limits lets take. An id in several lists counts once, with
// its best score. The result is good until the next call, or until a list changes. The
// error is the context's.
func (m *merger) merge(ctx context.Context, metric index.Metric, k int, limits []AtMost, lists [][]hit) ([]hit, error) {
	m.out, m.heap = m.out[:0], m.heap[:0]
	m.quota.reset(limits)
	for _, list := range lists {
		if len(list) > 0 {
			m.heap = append(m.heap, list)
		}
	}
	if len(m.heap) == 1 && len(limits) == 0 {
		return m.heap[0][:min(k, len(m.heap[0]))], nil
	}
	total := 0
	for _, list := range m.heap {
		total += len(list)
	}
	m.out = slices.Grow(m.out, min(k, total))
	m.seen.reset(min(k, total))
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i, metric)
	}
	for looked := 1; len(m.heap) > 0 && len(m.out) < k; looked++ {
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
		if len(limits) > 0 {
			if _, _, full := m.quota.full(&best); full {
				continue
			}
		}
		if m.seen.add(m.out, best.id) {
			m.out = append(m.out, best)
			if len(limits) > 0 {
				m.quota.take(&best)
			}
		}
	}
	return m.out, nil
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
func (s *idSet) add(hits []hit, id string) bool {
	mask := uint64(len(s.places) - 1)
	for i := maphash.String(s.seed, id) & mask; ; i = (i + 1) & mask {
		switch place := s.places[i]; {
		case place == 0:
			s.places[i] = uint32(len(hits) + 1)
			return true
		case hits[place-1].id == id:
			return false
		}
	}
}
