package index

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/index/sections"
)

// Input is what a build reads. Rows are in ascending order of their ids: ties in
// a search are broken by row.
type Input struct {
	// Vectors holds one vector a row. Build takes ownership of it.
	Vectors *Matrix
	// Keys holds a hash of each row's id. Levels and insertion order come from
	// it, so that they do not depend on what else is in the shard.
	Keys []uint64
	// Graph, if not nil, is a graph over the rows to freeze instead of
	// constructing one.
	Graph *SourceGraph
	// Threads bounds the goroutines; 0 means 1. It does not change the result.
	Threads int
	// Progress, if not nil, is called now and then with the number of rows done.
	Progress func(done, total int)
}

// SourceGraph is a graph that another library built.
type SourceGraph struct {
	// Layers hold the neighbours of each row, layer 0 first; a nil list means
	// that the row is not in the layer, an empty one that it is without
	// neighbours. Layer 0 holds every row, and each further layer only rows of
	// the one below.
	Layers [][][]uint32
}

// Build constructs the index of the rows. The same input and parameters give the
// same index to the byte. It returns an error when the input is not valid, naming
// the row, or when ctx ends.
func Build(ctx context.Context, in Input, params Params) (*Index, error) {
	if err := params.Validate(); err != nil {
		return nil, err
	}
	rows := in.Vectors.Rows()
	if rows > MaxRows {
		return nil, fmt.Errorf("%d rows, an index holds at most %d", rows, MaxRows)
	}
	if len(in.Keys) != rows {
		return nil, fmt.Errorf("%d keys for %d rows", len(in.Keys), rows)
	}
	for row := range rows {
		if err := params.Metric.CheckVector(in.Vectors.Row(row)); err != nil {
			return nil, fmt.Errorf("row %d: vector %w", row, err)
		}
	}
	var norms []float32
	if params.Metric == Cosine {
		norms = normalise(in.Vectors)
	}
	p, err := plan(in, params)
	if err != nil {
		return nil, err
	}
	progress := func(done int) {
		if in.Progress != nil {
			in.Progress(done+len(p.repeats), rows)
		}
	}
	params.Frozen = in.Graph != nil
	c := newConstructor(p.points(in.Vectors, params.Metric), p.levels, params, in.Threads)
	if in.Graph != nil {
		c.layers, err = p.freeze(in.Graph)
	} else {
		err = c.construct(ctx, p.levels, progress)
	}
	if err != nil {
		return nil, err
	}
	if err := c.connect(ctx); err != nil {
		return nil, err
	}
	return p.assemble(in.Vectors, norms, c.layers, params)
}

// normalise scales every vector to norm 1 and returns the norms.
func normalise(m *Matrix) []float32 {
	norms := make([]float32, m.Rows())
	for i := range norms {
		norms[i] = scaleToUnit(m.Row(i))
	}
	return norms
}

// scaleToUnit divides v by its norm and returns the norm.
func scaleToUnit(v []float32) float32 {
	norm := math.Sqrt(squaredNorm(v))
	for i, x := range v {
		v[i] = float32(float64(x) / norm)
	}
	return float32(norm)
}

func squaredNorm(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(float64(x) * float64(x)) // the conversion forbids fusing, for equal bits on every CPU
	}
	return sum
}

// nodePlan decides which rows become nodes, and in which order.
type nodePlan struct {
	order   []uint32 // the row of each node, in insertion order
	levels  []uint8  // the highest layer of each node, falling
	repeats []repeat // the rows that repeat a node's vector
}

// repeat is a row whose vector equals that of an earlier row.
type repeat struct {
	row, first uint32
}

func plan(in Input, params Params) (*nodePlan, error) {
	p := &nodePlan{}
	rows := in.Vectors.Rows()
	levelOf := make([]uint8, rows)
	if in.Graph != nil {
		if err := in.Graph.levels(levelOf); err != nil {
			return nil, err
		}
		for row := range rows {
			p.order = append(p.order, uint32(row))
		}
	} else {
		for row := range rows {
			levelOf[row] = level(in.Keys[row], params)
		}
		p.order, p.repeats = distinct(in.Vectors)
	}
	slices.SortFunc(p.order, func(a, b uint32) int {
		return cmp.Or(
			cmp.Compare(levelOf[b], levelOf[a]),
			cmp.Compare(mix(in.Keys[a]^params.Seed), mix(in.Keys[b]^params.Seed)),
			cmp.Compare(a, b),
		)
	})
	p.levels = make([]uint8, len(p.order))
	for i, row := range p.order {
		p.levels[i] = levelOf[row]
	}
	return p, nil
}

// distinct returns the first row of each distinct vector and the rows that
// repeat one.
func distinct(m *Matrix) (first []uint32, repeats []repeat) {
	byHash := make(map[uint64][]uint32, m.Rows())
next:
	for row := range uint32(m.Rows()) {
		bytes := sections.Bytes(m.padded(int(row)))
		hash := xxhash.Sum64(bytes)
		for _, other := range byHash[hash] {
			if slices.Equal(m.padded(int(other)), m.padded(int(row))) {
				repeats = append(repeats, repeat{row, other})
				continue next
			}
		}
		byHash[hash] = append(byHash[hash], row)
		first = append(first, row)
	}
	return first, repeats
}

// maxLevel bounds the number of layers; with m = 2 it is reached once in 2^32
// rows.
const maxLevel = 31

// level draws a row's highest layer from its key (HNSW, section 4.1).
func level(key uint64, params Params) uint8 {
	// 53 random bits make a uniform number u in (0, 1]; the level is
	// floor(-log(u) / log(m)), found by multiplication because a logarithm's last
	// digit depends on the CPU. The order of insertion uses the same hash, so the
	// level takes another.
	u := (float64(mix(mix(key^params.Seed)+1)>>11) + 1) / (1 << 53)
	l := uint8(0)
	for u *= float64(params.M); u <= 1 && l < maxLevel; u *= float64(params.M) {
		l++
	}
	return l
}

// mix is the finaliser of splitmix64 (Steele, Lea and Flood, "Fast splittable
// pseudorandom number generators", OOPSLA 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// points returns the nodes' vectors as the graph is built on them, in insertion
// order: Möbius-transformed under inner product, as they are otherwise.
func (p *nodePlan) points(m *Matrix, metric Metric) *Matrix {
	points := &Matrix{dim: m.dim, stride: m.stride, data: make([]float32, 0, len(p.order)*m.stride)}
	for _, row := range p.order {
		points.data = append(points.data, m.padded(int(row))...)
	}
	if metric == Dot {
		mobius(points)
	}
	return points
}

// weakest is the least norm, relative to the largest, that the Möbius transform
// tells apart. Weaker rows would be sent so far out that float32 distances
// between them lose all digits.
const weakest = 1e-4

// mobius replaces each x by x/|x|^2, in units of the largest norm. A zero vector
// has no direction; it goes where the weakest rows go, along the first axis.
func mobius(m *Matrix) {
	norms := make([]float64, m.Rows())
	var largest float64
	for i := range norms {
		norms[i] = math.Sqrt(squaredNorm(m.Row(i)))
		largest = max(largest, norms[i])
	}
	if largest == 0 {
		return
	}
	for i, norm := range norms {
		row := m.Row(i)
		if norm == 0 {
			row[0] = 1 / weakest
			continue
		}
		scale := largest / norm / max(norm, weakest*largest)
		for j, x := range row {
			row[j] = float32(float64(x) * scale)
		}
	}
}

// levels sets the highest layer of each row and checks the lists.
func (g *SourceGraph) levels(of []uint8) error {
	if len(g.Layers) == 0 || len(g.Layers) > maxLevel+1 {
		return fmt.Errorf("source graph has %d layers, want 1 to %d", len(g.Layers), maxLevel+1)
	}
	for l, lists := range g.Layers {
		if len(lists) != len(of) {
			return fmt.Errorf("source graph: layer %d has %d rows, want %d", l, len(lists), len(of))
		}
		for row, list := range lists {
			if list == nil {
				if l == 0 {
					return fmt.Errorf("source graph: row %d is not in layer 0", row)
				}
				continue
			}
			if l > 0 && int(of[row]) != l-1 {
				return fmt.Errorf("source graph: row %d is in layer %d but not in the one below", row, l)
			}
			of[row] = uint8(l)
			for _, id := range list {
				if int(id) >= len(of) || lists[id] == nil {
					return fmt.Errorf("source graph: layer %d: row %d links to %d, which is not in the layer", l, row, id)
				}
			}
		}
	}
	return nil
}

// freeze turns a source graph into layers over the planned nodes.
func (p *nodePlan) freeze(g *SourceGraph) ([]layer, error) {
	if len(p.order) == 0 {
		return nil, nil
	}
	node := make([]uint32, len(p.order))
	for i, row := range p.order {
		node[row] = uint32(i)
	}
	var layers []layer
	for l, lists := range g.Layers[:p.levels[0]+1] {
		width := 1
		for _, list := range lists {
			width = max(width, len(list))
		}
		if width > maxWidth {
			return nil, fmt.Errorf("source graph: layer %d has a row with %d neighbours, at most %d are accepted", l, width, maxWidth)
		}
		if l > 1 && width != layers[1].width { // the upper layers share a width
			width = max(width, layers[1].width)
			layers[1] = widen(layers[1], width)
			for i := 2; i < l; i++ {
				layers[i] = widen(layers[i], width)
			}
		}
		lay := newLayer(len(p.order)-countBelow(p.levels, uint8(l)), width)
		for i := range lay.nodes() {
			var list []uint32
			for _, row := range lists[p.order[i]] {
				if id := node[row]; id != uint32(i) && !slices.Contains(list, id) {
					list = append(list, id)
				}
			}
			lay.set(uint32(i), list)
		}
		layers = append(layers, lay)
	}
	return layers, nil
}

// maxWidth is the largest number of neighbours a node may have.
const maxWidth = 1024

func widen(l layer, width int) layer {
	wider := newLayer(l.nodes(), width)
	for i := range uint32(l.nodes()) {
		wider.set(i, l.neighbours(i))
	}
	return wider
}

// assemble renumbers the nodes in graph order and returns the finished index.
func (p *nodePlan) assemble(m *Matrix, norms []float32, layers []layer, params Params) (*Index, error) {
	nodes := len(p.order)
	if nodes > 0 {
		if n := unreachable(layers[0]); n != 0 {
			return nil, fmt.Errorf("%d of %d nodes cannot be reached on layer 0", n, nodes)
		}
	}
	// Within each level, nodes follow in the order of a breadth-first walk, so
	// that what is searched together lies together.
	walk := []uint32{}
	if nodes > 0 {
		walk = breadthFirst(layers[0])
	}
	slices.SortStableFunc(walk, func(a, b uint32) int { return cmp.Compare(p.levels[b], p.levels[a]) })
	ordinal := make([]uint32, nodes) // of each node
	for i, node := range walk {
		ordinal[node] = uint32(i)
	}

	x := &Index{params: params, dim: m.dim, stride: m.stride, nodes: nodes}
	nodeOf := make(map[uint32]uint32, len(p.repeats)) // ordinal of a first row
	for _, node := range walk {
		x.rows = append(x.rows, p.order[node])
	}
	for i, row := range x.rows {
		nodeOf[row] = uint32(i)
	}
	slices.SortFunc(p.repeats, func(a, b repeat) int {
		return cmp.Or(cmp.Compare(nodeOf[a.first], nodeOf[b.first]), cmp.Compare(a.row, b.row))
	})
	for _, r := range p.repeats {
		x.rows = append(x.rows, r.row)
		x.duplicates = append(x.duplicates, nodeOf[r.first])
	}
	for _, l := range layers {
		out := newLayer(l.nodes(), l.width)
		var list []uint32
		for node := range uint32(l.nodes()) {
			list = list[:0]
			for _, id := range l.neighbours(node) {
				list = append(list, ordinal[id])
			}
			out.set(ordinal[node], list)
		}
		x.layers = append(x.layers, out)
	}
	x.vectors = takeVectors(m, x.rows)
	if norms != nil {
		x.norms = make([]float32, len(norms))
		for i, row := range x.rows {
			x.norms[i] = norms[row]
		}
	}
	x.codes = encode(params.Metric, x.dim, nodes, &x.vectors)
	if params.Metric == Dot && nodes > 0 {
		x.entries = []uint32{x.strongest()}
	}
	return x, x.prepare()
}

// permute moves row order[i] of m to place i, along the cycles of the
// permutation, so that it needs no second matrix.
func permute(m *Matrix, order []uint32) {
	done := make([]bool, len(order))
	hold := make([]float32, m.stride)
	for start := range order {
		if done[start] {
			continue
		}
		copy(hold, m.padded(start))
		at := start
		for {
			done[at] = true
			from := int(order[at])
			if from == start {
				copy(m.padded(at), hold)
				break
			}
			copy(m.padded(at), m.padded(from))
			at = from
		}
	}
}
