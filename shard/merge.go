package shard

import (
	"github.com/tandem-ann/tandem/index"
)

// merger merges the sorted hits of shards into one sorted list, without repeating
// an id. Its memory is reused from query to query.
type merger struct {
	heap []cursor
	out  []hit
	seen map[string]struct{}
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
// by id. An id in several lists counts once, with its best score. The next call
// reuses the result.
func (m *merger) merge(metric index.Metric, k int, lists [][]hit) []hit {
	m.out, m.heap = m.out[:0], m.heap[:0]
	for _, list := range lists {
		if len(list) > 0 {
			m.heap = append(m.heap, list)
		}
	}
	if len(m.heap) == 1 {
		return append(m.out, m.heap[0][:min(k, len(m.heap[0]))]...)
	}
	if m.seen == nil {
		m.seen = make(map[string]struct{}, k)
	}
	defer clear(m.seen)
	for i := len(m.heap)/2 - 1; i >= 0; i-- {
		m.down(i, metric)
	}
	for len(m.heap) > 0 && len(m.out) < k {
		best := m.heap[0][0]
		if m.heap[0] = m.heap[0][1:]; len(m.heap[0]) == 0 {
			last := len(m.heap) - 1
			m.heap[0] = m.heap[last]
			m.heap = m.heap[:last]
		}
		m.down(0, metric)
		if _, again := m.seen[best.id]; !again {
			m.seen[best.id] = struct{}{}
			m.out = append(m.out, best)
		}
	}
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
