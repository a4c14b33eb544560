package index

import "slices"

// top keeps the k best rows by (distance, row): a heap with the worst on top.
type top struct {
	entries []candidate // of ordinals
	k       int
}

func (t *top) reset(k int) {
	t.entries = t.entries[:0]
	t.k = k
}

// rejects reports whether a row at distance d is certainly not among the best.
func (t *top) rejects(d float32) bool {
	return len(t.entries) == t.k && d > t.entries[0].dist
}

// ranksBefore orders by (distance, row).
func ranksBefore(a, b candidate, rows []uint32) bool {
	return a.dist < b.dist || a.dist == b.dist && rows[a.node] < rows[b.node]
}

// add keeps c if it is among the k best so far. rows holds the row of each
// ordinal.
func (t *top) add(c candidate, rows []uint32) {
	if len(t.entries) < t.k {
		t.entries = append(t.entries, c)
		i := len(t.entries) - 1
		for i > 0 {
			parent := (i - 1) / 2
			if !ranksBefore(t.entries[parent], c, rows) {
				break
			}
			t.entries[i] = t.entries[parent]
			i = parent
		}
		t.entries[i] = c
		return
	}
	if !ranksBefore(c, t.entries[0], rows) {
		return
	}
	i, n := 0, len(t.entries)
	for {
		child := 2*i + 1
		if child >= n {
			break
		}
		if child+1 < n && ranksBefore(t.entries[child], t.entries[child+1], rows) {
			child++
		}
		if !ranksBefore(c, t.entries[child], rows) {
			break
		}
		t.entries[i] = t.entries[child]
		i = child
	}
	t.entries[i] = c
}

// sort returns the rows, best first. The heap is spent.
func (t *top) sort(rows []uint32) []candidate {
	slices.SortFunc(t.entries, func(a, b candidate) int {
		switch {
		case ranksBefore(a, b, rows):
			return -1
		case ranksBefore(b, a, rows):
			return 1
		}
		return 0
	})
	return t.entries
}
