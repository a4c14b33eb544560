package index

import (
	"cmp"
	"context"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/parallel"
)

// maxEntries is the largest number of nodes that a walk starts from.
const maxEntries = 64

// entryCounts are the numbers of entries that a calibration tries.
var entryCounts = [...]int{1, 8, 32}

// strongest returns the node of the largest norm, the lowest of several. Under
// inner product it is the best entry that can be chosen without queries.
func (x *Index) strongest() uint32 {
	var best uint32
	var largest float64
	row := make([]float32, x.stride)
	for node := range uint32(x.nodes) {
		if n := squaredNorm(x.vectors.row(node, row)); n > largest {
			best, largest = node, n
		}
	}
	return best
}

// enter decides where walks start.
func (c *calibration) enter(ctx context.Context) error {
	if err := c.answer(ctx, func(int) int { return c.queries.Rows() }); err != nil {
		return err
	}
	if err := c.chooseEntries(ctx); err != nil {
		return err
	}
	for _, k := range c.bands {
		if err := c.enterMissed(ctx, k); err != nil {
			return err
		}
	}
	return nil
}

// chooseEntries chooses between starting from the descent through the upper
// layers, from what Build chose, or from hubs, nodes that are among the best of
// many sample queries. Whichever reaches a recall of entryRecall with the fewest
// distance computations is kept.
func (c *calibration) chooseEntries(ctx context.Context) error {
	x, k := c.x, c.bands[0]
	options := [][]uint32{x.entries}
	if len(x.entries) > 0 {
		options = append(options, nil)
	}
	hubs := x.hubs(c.exact, k, entryCounts[len(entryCounts)-1])
	for _, n := range entryCounts {
		if n <= len(hubs) {
			options = append(options, hubs[:n])
		}
	}
	var best []uint32
	least := float32(math.Inf(1))
	for i, entries := range options {
		x.entries = entries
		s := &steps{c: c, k: k, at: map[int]*measurement{}}
		step, err := s.least(ctx, 0, goal{recall: entryRecall}, func(m *measurement) bool { return m.meanScored() >= least || c.costly(m) })
		if err != nil {
			return err
		}
		if m := s.step(step); i == 0 || m.recall(0) >= entryRecall && m.meanScored() < least {
			best, least = entries, m.meanScored()
		}
	}
	x.entries = best
	return nil
}

// entryRecall is the recall at which entries are compared.
const entryRecall = 0.97

// hubs returns up to count nodes, each chosen because it is among the k best of the
// most queries that no earlier one is among.
func (x *Index) hubs(exact [][]Hit, k, count int) []uint32 {
	var hubs []uint32
	answered := make([]bool, len(exact))
	for len(hubs) < count {
		answers := make(map[uint32]int)
		var hub uint32
		for i, hits := range exact {
			if answered[i] {
				continue
			}
			for _, h := range hits[:k] {
				if int(h.Ordinal) >= x.nodes {
					continue // a repeat of a node
				}
				answers[h.Ordinal]++
				if n := answers[h.Ordinal] - answers[hub]; n > 0 || n == 0 && h.Ordinal < hub {
					hub = h.Ordinal
				}
			}
		}
		if answers[hub] == 0 {
			break
		}
		hubs = append(hubs, hub)
		for i, hits := range exact {
			answered[i] = answered[i] || slices.ContainsFunc(hits[:k], func(h Hit) bool { return h.Ordinal == hub })
		}
	}
	return hubs
}

// Walks that look for what others miss have pools of missedEf times k, and do so
// missedRounds times, for each k of missedBands; a node becomes an entry
// when more than one query in missedShare misses it.
const (
	missedEf     = 4
	missedRounds = 3
	missedShare  = 100
)

// enterMissed makes entries of the nodes that walks miss most often. Under inner
// product a node can be an answer to many queries and yet hard to reach, because
// what it is near to in the graph is not what the queries pass through; a walk that
// starts there too cannot miss it. A node that few queries miss is left alone, since
// every entry costs every query a distance.
func (c *calibration) enterMissed(ctx context.Context, k int) error {
	x := c.x
	for range missedRounds {
		missed := make([][]uint32, c.queries.Rows())
		found := make([][]Hit, max(c.threads, 1))
		parallel.Each(c.threads, len(missed), func(worker, i int) {
			if ctx.Err() != nil {
				return
			}
			query := Query{Vector: c.queries.Row(i), K: k, Ef: missedEf * k, Plan: GraphWalk}
			found[worker], _, _ = x.Search(query, found[worker][:0])
			missed[i] = x.missing(c.exact[i][:k], found[worker])
		})
		if err := ctx.Err(); err != nil {
			return err
		}
		times := make(map[uint32]int)
		for _, nodes := range missed {
			for _, node := range nodes {
				times[node]++
			}
		}
		var often []uint32
		for node, n := range times {
			if n > len(missed)/missedShare {
				often = append(often, node)
			}
		}
		slices.SortFunc(often, func(a, b uint32) int {
			return cmp.Or(cmp.Compare(times[b], times[a]), cmp.Compare(a, b))
		})
		often = often[:min(len(often), maxEntries-len(x.entries))]
		if len(often) == 0 {
			return nil
		}
		x.entries = slices.Concat(x.entries, often)
	}
	return nil
}

// missing returns the nodes among the exact hits that found lacks. Ties with the
// last hit found are not missing.
func (x *Index) missing(exact, found []Hit) []uint32 {
	last := found[len(found)-1].Score
	var nodes []uint32
	for at, i := 0, 0; i < len(exact) && x.params.Metric.Better(exact[i].Score, last); i++ {
		// Both are in one order, and all that found holds are exact hits or worse.
		if found[at].Ordinal == exact[i].Ordinal {
			at++
		} else if int(exact[i].Ordinal) < x.nodes {
			nodes = append(nodes, exact[i].Ordinal)
		}
	}
	return nodes
}
