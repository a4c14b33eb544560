package shard

import (
	"slices"
	"sync"

	"github.com/tandem-ann/tandem/index"
)

// floor knows the best scores that parts have found for a query so far. Once there are as
// many as are wanted, the last of them is the floor of a part that is asked then: what an
// exact scan finds below is in no answer, and that it need not be looked for is most of
// what a scan beside a graph costs. Parts that are asked at the same time know less of each
// other, and look for more.
//
// That there are so many better hits need not be the last word: one may be refused, or be
// known twice. So what a floor left out is asked for again where the answer ends below it;
// see [fanOut.exhausted].
type floor struct {
	wanted int // 0: there is no floor
	metric index.Metric

	mu    sync.Mutex
	best  []float32 // best first
	spare []float32
}

// reset forgets all scores. So many are wanted.
func (f *floor) reset(wanted int, metric index.Metric) {
	f.wanted, f.metric, f.best = wanted, metric, f.best[:0]
}

// known returns the floor, if there is one by now.
func (f *floor) known() (score float32, ok bool) {
	if f.wanted == 0 {
		return 0, false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.best) < f.wanted {
		return 0, false
	}
	return f.best[f.wanted-1], true
}

// take adds the scores of hits, which are best first.
func (f *floor) take(hits []Hit) {
	if f.wanted == 0 || len(hits) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	n := min(len(f.best)+len(hits), f.wanted)
	merged, best := slices.Grow(f.spare[:0], n), f.best
	for len(merged) < n {
		if len(best) == 0 || len(hits) > 0 && f.metric.Better(hits[0].Score, best[0]) {
			merged, hits = append(merged, hits[0].Score), hits[1:]
		} else {
			merged, best = append(merged, best[0]), best[1:]
		}
	}
	f.best, f.spare = merged, f.best
}

// room is how many hits there is room for in its memory.
func (f *floor) room() int { return (cap(f.best) + cap(f.spare)) / 16 }
