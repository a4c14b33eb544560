package index

import (
	"cmp"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
)

// top keeps the k best rows by (distance, row): a heap with the worst on top.
type top struct {
	entries []candidate
	spare   []candidate
	k       int
	bound   float32 // the distance beyond which add drops a row
}

func (t *top) reset(k int) {
	t.entries = t.entries[:0]
	t.k = k
	t.bound = float32(math.Inf(1))
}

// rejects reports whether a row at distance d is certainly not among the best.
func (t *top) rejects(d float32) bool {
	return d > t.bound
}

// ranksBefore orders by (distance, row).
func ranksBefore(a, b candidate, rows []uint32) bool {
	if a>>32 != b>>32 {
		return a < b
	}
	return rows[a.ordinal()] < rows[b.ordinal()]
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
		if len(t.entries) == t.k {
			t.bound = t.entries[0].dist()
		}
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
	t.bound = t.entries[0].dist()
}

// sort puts the best row first. The heap is spent.
func (t *top) sort(rows []uint32) {
	slices.Sort(t.entries)
	t.rankTies(rows)
}

// sortNearly sorts entries that are nearly in order.
func (t *top) sortNearly(p *pace) {
	n := len(t.entries)
	sorted := slices.Grow(t.spare[:0], n)[:n]
	for first := 0; first < n; first += bulk {
		part := t.entries[first:min(first+bulk, n)]
		kernel.Insert(sorted, first, part)
		if p.ends(len(part) * sortWork) {
			break
		}
	}
	t.entries, t.spare = sorted, t.entries
}

// rankTies makes rows decide the order of sorted entries that tie.
func (t *top) rankTies(rows []uint32) {
	for from := 0; from < len(t.entries); {
		to := from + 1
		for to < len(t.entries) && t.entries[to]>>32 == t.entries[from]>>32 {
			to++
		}
		if to-from > 1 { // in a tie the row decides
			slices.SortFunc(t.entries[from:to], func(a, b candidate) int {
				return cmp.Compare(rows[a.ordinal()], rows[b.ordinal()])
			})
		}
		from = to
	}
}
