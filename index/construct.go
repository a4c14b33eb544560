package index

import (
	"context"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/parallel"
)

// noNode fills the unused places of a neighbour list.
const noNode = math.MaxUint32

// layer is one layer of a graph: width places for each of its nodes.
type layer struct {
	width int
	links []uint32
}

func newLayer(nodes, width int) layer {
	l := layer{width: width, links: make([]uint32, nodes*width)}
	for i := range l.links {
		l.links[i] = noNode
	}
	return l
}

// all returns node's places, used or not.
func (l layer) all(node uint32) []uint32 {
	at := int(node) * l.width
	return l.links[at : at+l.width : at+l.width]
}

// neighbours returns the used places.
func (l layer) neighbours(node uint32) []uint32 {
	all := l.all(node)
	n := len(all)
	for n > 0 && all[n-1] == noNode {
		n--
	}
	return all[:n]
}

func (l layer) set(node uint32, list []uint32) {
	all := l.all(node)
	n := copy(all, list)
	for i := n; i < len(all); i++ {
		all[i] = noNode
	}
}

func (l layer) nodes() int { return len(l.links) / l.width }

// constructor builds the graph of the points, which are numbered in the order of
// their insertion: by falling level, so that every layer is a prefix and point 0
// is the entry. Distances between points are squared Euclidean.
type constructor struct {
	params  Params
	threads int
	points  *Matrix
	codes   codes // of the points, which the walks score
	layers  []layer
	widths  []int // of the finished lists of each layer
	workers []*worker
}

// worker is the scratch memory of one goroutine.
type worker struct {
	walker
	dists    []float32
	picked   []uint32
	deferred []deferred
	sorted   []candidate
}

// slack is how many places beyond its width a list has while the graph is built,
// as a share of the width. Choosing anew is the dearest part of construction, and
// with slack a full list does it once for many new neighbours, not for each
// (DiskANN, section 2.3).
const slack = 0.5

// newConstructor returns a constructor with empty lists. levels[i] is the highest
// layer of point i and falls with i.
func newConstructor(points *Matrix, levels []uint8, params Params, threads int) *constructor {
	c := &constructor{params: params, threads: max(threads, 1), points: points}
	c.codes = encode(L2, points.dim, points.Rows(), &vectors{stride: points.stride, float32s: points.data})
	for range c.threads {
		c.workers = append(c.workers, &worker{})
	}
	if len(levels) == 0 {
		return c
	}
	for l := range int(levels[0]) + 1 {
		width := params.M
		if l == 0 {
			width = 2 * params.M
		}
		c.layers = append(c.layers, newLayer(len(levels)-countBelow(levels, uint8(l)), width+int(slack*float64(width))))
		c.widths = append(c.widths, width)
	}
	return c
}

// construct inserts the points. It calls progress with the number of points
// inserted so far.
func (c *constructor) construct(ctx context.Context, levels []uint8, progress func(done int)) error {
	n := c.points.Rows()
	for from := 1; from < n; {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := min(from+batchSize(from), n)
		c.insert(from, to, levels)
		from = to
		progress(from)
	}
	for l := range c.layers {
		c.trim(l)
	}
	return nil
}

// trim chooses anew where a list uses its slack, and takes the slack away.
func (c *constructor) trim(l int) {
	wide := c.layers[l]
	c.layers[l] = newLayer(wide.nodes(), c.widths[l])
	parallel.Each(c.threads, wide.nodes(), func(w, i int) {
		node := uint32(i)
		list := wide.neighbours(node)
		if len(list) > c.widths[l] {
			list = c.rechoose(c.workers[w], node, list, c.widths[l])
		}
		c.layers[l].set(node, list)
	})
}

// countBelow returns how many of the falling levels are below l.
func countBelow(levels []uint8, l uint8) int {
	n := 0
	for i := len(levels) - 1; i >= 0 && levels[i] < l; i-- {
		n++
	}
	return n
}

// batchSize returns how many points are inserted at once into a graph of n: few
// enough that the neighbours they hide from each other hardly matter.
func batchSize(n int) int { return min(max(n/64, 1), 1024) }

// insert adds the points from..to-1. Their searches see only the points before
// them, so they can run in any order.
func (c *constructor) insert(from, to int, levels []uint8) {
	parallel.Each(c.threads, to-from, func(w, i int) {
		c.link(c.workers[w], uint32(from+i), int(levels[from+i]), from)
	})
	for l := range c.layers {
		c.reverse(l, from, to)
	}
}

// link finds the neighbours of a new point on each of its layers and stores them
// in its own lists, which nobody reads before the batch ends.
func (c *constructor) link(w *worker, point uint32, level, before int) {
	query := c.points.padded(int(point))
	c.codes.code(L2, query, &w.coded)
	w.ids = append(w.ids[:0], 0)
	entry := w.score(&c.codes, w.ids, infinity)[0]
	for l := len(c.layers) - 1; l > level; l-- {
		entry, _ = w.descend(&c.codes, c.layers[l], entry)
	}
	w.sorted = append(w.sorted[:0], entry)
	for l := min(level, len(c.layers)-1); l >= 0; l-- {
		w.pool.reset(c.params.EfConstruction, c.params.EfConstruction)
		w.visited.reset(before)
		for _, e := range w.sorted {
			w.visited.visit(e.ordinal())
		}
		w.pool.merge(w.sorted)
		w.walk(&c.codes, c.layers[l])
		w.ids = w.ids[:0]
		for _, e := range w.pool.entries {
			w.ids = append(w.ids, e.ordinal())
		}
		c.layers[l].set(point, c.rechoose(w, point, w.ids, c.widths[l]))
		// Where the next layer's walk starts.
		w.sorted = w.sorted[:0]
		for _, e := range w.pool.entries {
			w.sorted = append(w.sorted, e&^expanded)
		}
	}
}

// choose picks up to width neighbours from candidates in ascending order of
// distance: one is kept unless an already kept one is alpha times closer to it
// than the point is (HNSW, algorithm 4, with DiskANN's alpha). Distances are
// squared, so alpha is too.
//
// Up to half the places go first to those that an alpha of 1 keeps. In many
// dimensions the distances within a cluster are so nearly equal that a greater
// alpha prunes nothing there, and the nearest would fill every list before any
// neighbour that leads out of the cluster.
func (c *constructor) choose(w *worker, candidates []candidate, width int) []uint32 {
	alpha := c.params.Alpha * c.params.Alpha
	w.picked, w.deferred = w.picked[:0], w.deferred[:0]
	for _, e := range candidates {
		least := c.least(w, e, w.picked)
		if least >= e.dist() && len(w.picked) < (width+1)/2 {
			w.picked = append(w.picked, e.ordinal())
		} else if alpha*least >= e.dist() {
			w.deferred = append(w.deferred, deferred{e, len(w.picked)})
		}
	}
	for _, d := range w.deferred {
		if len(w.picked) == width {
			break
		}
		if alpha*c.least(w, d.candidate, w.picked[d.seen:]) >= d.dist() {
			w.picked = append(w.picked, d.ordinal())
		}
	}
	return w.picked
}

// deferred is a candidate that alpha keeps for all that the first seen of the
// picked tell.
type deferred struct {
	candidate
	seen int
}

// least returns the least distance of a candidate to the points ids.
func (c *constructor) least(w *worker, e candidate, ids []uint32) float32 {
	least := float32(infinity)
	for _, d := range c.distances(w, c.points.padded(int(e.ordinal())), ids) {
		least = min(least, d)
	}
	return least
}

// reverse adds the points from..to-1 to the lists of the neighbours they chose
// on layer l. Each list is changed by one goroutine, in a fixed order.
func (c *constructor) reverse(l, from, to int) {
	var pairs []uint64 // target, source
	for source := from; source < min(to, c.layers[l].nodes()); source++ {
		for _, target := range c.layers[l].neighbours(uint32(source)) {
			pairs = append(pairs, uint64(target)<<32|uint64(source))
		}
	}
	slices.Sort(pairs)
	var starts []int
	for i := range pairs {
		if i == 0 || pairs[i]>>32 != pairs[i-1]>>32 {
			starts = append(starts, i)
		}
	}
	parallel.Each(c.threads, len(starts), func(w, i int) {
		end := len(pairs)
		if i+1 < len(starts) {
			end = starts[i+1]
		}
		c.admit(c.workers[w], l, pairs[starts[i]:end])
	})
}

// admit adds the sources of pairs to the list of their one target, and chooses
// anew when they do not all fit.
func (c *constructor) admit(w *worker, l int, pairs []uint64) {
	target := uint32(pairs[0] >> 32)
	w.ids = append(w.ids[:0], c.layers[l].neighbours(target)...)
	for _, p := range pairs {
		w.ids = append(w.ids, uint32(p))
	}
	if len(w.ids) <= c.layers[l].width {
		c.layers[l].set(target, w.ids)
		return
	}
	c.layers[l].set(target, c.rechoose(w, target, w.ids, c.widths[l]))
}

// rechoose picks up to width neighbours of a point from ids.
func (c *constructor) rechoose(w *worker, point uint32, ids []uint32, width int) []uint32 {
	w.sorted = w.sorted[:0]
	for i, d := range c.distances(w, c.points.padded(int(point)), ids) {
		w.sorted = append(w.sorted, newCandidate(d, ids[i]))
	}
	slices.Sort(w.sorted)
	return c.choose(w, w.sorted, width)
}

// distances returns the squared distances of query to the points ids, in scratch
// memory that the next call reuses.
func (c *constructor) distances(w *worker, query []float32, ids []uint32) []float32 {
	w.dists = slices.Grow(w.dists[:0], len(ids))[:len(ids)]
	kernel.L2(query, c.points.data, ids, w.dists)
	return w.dists
}
