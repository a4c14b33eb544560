package index

import (
	"cmp"
	"context"
	"slices"
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

// chooseEntries decides where walks start: from the descent through the upper
// layers, from what Build chose, or from hubs, nodes that are among the best of
// many sample queries. Whichever reaches a recall of entryRecall with the fewest
// distance computations is kept. exact holds the k best of each query.
func (x *Index) chooseEntries(ctx context.Context, queries *Matrix, k int, exact [][]Hit, threads int) error {
	options := [][]uint32{x.entries}
	if len(x.entries) > 0 {
		options = append(options, nil)
	}
	hubs := x.hubs(exact, entryCounts[len(entryCounts)-1])
	for _, n := range entryCounts {
		if n <= len(hubs) {
			options = append(options, hubs[:n])
		}
	}
	var best []uint32
	var least float32
	for i, entries := range options {
		x.entries = entries
		var e Effort
		for step := 0; e.Recall < entryRecall; step++ {
			if err := ctx.Err(); err != nil {
				return err
			}
			ef := x.nodes
			if step < len(ladder) {
				ef = min(max(int(ladder[step]*float64(k)), 1), x.nodes)
			}
			e = x.measure(queries, k, ef, exact, threads)
			if ef == x.nodes || i > 0 && e.Scored >= least {
				break
			}
		}
		if i == 0 || e.Recall >= entryRecall && e.Scored < least {
			best, least = entries, e.Scored
		}
	}
	x.entries = best
	return nil
}

// entryRecall is the recall at which entries are compared.
const entryRecall = 0.97

// hubs returns up to count nodes, each chosen because it is an answer to the most
// queries that no earlier one answers.
func (x *Index) hubs(exact [][]Hit, count int) []uint32 {
	var hubs []uint32
	answered := make([]bool, len(exact))
	for len(hubs) < count {
		answers := make(map[uint32]int)
		var hub uint32
		for i, hits := range exact {
			if answered[i] {
				continue
			}
			for _, h := range hits {
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
			answered[i] = answered[i] || slices.ContainsFunc(hits, func(h Hit) bool { return h.Ordinal == hub })
		}
	}
	return hubs
}

// Walks that look for what others miss have pools of missedEf times k, and do so
// missedRounds times, for the first missedBands bands of k; a node becomes an entry
// when more than one query in missedShare misses it.
const (
	missedBands  = 2
	missedEf     = 4
	missedRounds = 3
	missedShare  = 100
)

// enterMissed makes entries of the nodes that walks miss most often. Under inner
// product a node can be an answer to many queries and yet hard to reach, because
// what it is near to in the graph is not what the queries pass through; a walk that
// starts there too cannot miss it. A node that few queries miss is left alone, since
// every entry costs every query a distance.
func (x *Index) enterMissed(ctx context.Context, queries *Matrix, k int, exact [][]Hit, threads int) error {
	for range missedRounds {
		if err := ctx.Err(); err != nil {
			return err
		}
		missed := make([][]uint32, queries.Rows())
		parallel(threads, queries.Rows(), func(_, i int) {
			found, _, _ := x.Search(Query{Vector: queries.Row(i), K: k, Ef: missedEf * k, Plan: GraphWalk}, nil)
			missed[i] = x.missing(exact[i], found)
		})
		times := make(map[uint32]int)
		for _, nodes := range missed {
			for _, node := range nodes {
				times[node]++
			}
		}
		var often []uint32
		for node, n := range times {
			if n > queries.Rows()/missedShare {
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
	have := make(map[uint32]bool, len(found))
	for _, h := range found {
		have[h.Ordinal] = true
	}
	last := found[len(found)-1].Score
	var nodes []uint32
	for _, h := range exact {
		if int(h.Ordinal) < x.nodes && !have[h.Ordinal] && x.params.Metric.Better(h.Score, last) {
			nodes = append(nodes, h.Ordinal)
		}
	}
	return nodes
}
