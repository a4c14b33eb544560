package index

import (
	"math"
	"slices"
)

// Trace records which rows a search scores, in what order, how many at a time, and
// whether by their codes. It is for measuring: [Index.Replay] does the same scoring
// and nothing else, which is the least that the search could take.
type Trace struct {
	ordinals []uint32
	lists    []list
	coded    int // ordinals scored by their codes
}

type list struct {
	end   int // in ordinals
	coded bool
}

func (t *Trace) add(ordinals []uint32, coded bool) {
	t.ordinals = append(t.ordinals, ordinals...)
	t.lists = append(t.lists, list{len(t.ordinals), coded})
	if coded {
		t.coded += len(ordinals)
	}
}

// Scored returns the number of rows scored by their codes; the rest rescores what a
// walk has found.
func (t *Trace) Scored() int { return t.coded }

// Reset forgets what was recorded.
func (t *Trace) Reset() { *t = Trace{ordinals: t.ordinals[:0], lists: t.lists[:0]} }

// Clone returns a copy that takes no more memory than it needs.
func (t *Trace) Clone() *Trace {
	return &Trace{slices.Clone(t.ordinals), slices.Clone(t.lists), t.coded}
}

// Replay scores the rows of a trace against a vector of the index's dimension and
// returns the least exact distance. It asks for the codes of a list while it scores the
// list before, which a walk can do only as far as it guesses where it goes.
func (x *Index) Replay(vector []float32, t *Trace) float32 {
	s := x.scratch.Get().(*scratch)
	defer x.scratch.Put(s)
	s.query = append(s.query[:0], vector...)
	for len(s.query) < x.stride {
		s.query = append(s.query, 0)
	}
	x.codes.code(x.params.Metric, s.query, &s.coded)
	best := float32(math.Inf(1))
	from := 0
	for i, l := range t.lists {
		ordinals := t.ordinals[from:l.end]
		from = l.end
		if i == 0 && l.coded {
			x.codes.prefetch(ordinals)
		}
		if i+1 < len(t.lists) && t.lists[i+1].coded {
			x.codes.prefetch(t.ordinals[from:t.lists[i+1].end])
		}
		if l.coded {
			s.within(&x.codes, ordinals, -infinity)
			continue
		}
		for _, d := range x.distances(s, ordinals) {
			best = min(best, d)
		}
	}
	return best
}
