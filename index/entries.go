package index

import (
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
	for node := range uint32(x.nodes) {
		if n := squaredNorm(x.padded(node)); n > largest {
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
				ef = min(int(ladder[step]*float64(k)), x.nodes)
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
