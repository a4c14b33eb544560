// Package hnswexport reads the graphs that github.com/coder/hnsw writes with
// Graph.Export and SavedGraph.Save, so that package builder can freeze them into
// an index.
//
// The format is undocumented; this is what v0.6.1 writes. An int is a zig-zag
// varint, a string an int length and its bytes, a vector an int length and its
// little-endian float32s, and a float64 is 8 bytes little-endian:
//
//	int version (1), int M, float64 Ml, int EfSearch, string distance
//	int layers, each from the bottom up:
//	    int nodes, each in the order of a Go map:
//	        key, vector, int neighbours, each a key
//
// A key is encoded by its Go type, which the file does not name: see [KeyType].
// Nodes of the upper layers repeat keys and vectors of the bottom layer.
//
// [Decode] checks every length against what is left of the file before it takes
// memory, and that the layers fit together.
package hnswexport

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A KeyType is the Go type of a graph's keys, which decides their encoding.
type KeyType uint8

// The key types. Auto tries the others in this order and takes the first that
// explains the file to its last byte. Int64 comes before Uint64, so keys of
// 2^63 and more need Uint64 to be named; the same goes for 32 bits.
const (
	Auto KeyType = iota
	String
	Int
	Int64
	Uint64
	Int32
	Uint32
)

var keyTypeNames = [...]string{"auto", "string", "int", "int64", "uint64", "int32", "uint32"}

// String returns the name of the Go type.
func (t KeyType) String() string {
	if int(t) < len(keyTypeNames) {
		return keyTypeNames[t]
	}
	return fmt.Sprintf("KeyType(%d)", uint8(t))
}

// ParseKeyType returns the key type of a name.
func ParseKeyType(name string) (KeyType, error) {
	i := slices.Index(keyTypeNames[:], name)
	if i < 0 {
		return 0, fmt.Errorf("key type is %.80q, want one of %s", name, strings.Join(keyTypeNames[:], ", "))
	}
	return KeyType(i), nil
}

// A Graph is what an export holds. It does not depend on the order of nodes and
// neighbours in the file, which coder/hnsw leaves to chance.
type Graph struct {
	M        int
	Ml       float64
	EfSearch int
	Distance string // "cosine", "euclidean", or a name that the exporter registered
	KeyType  KeyType

	// Keys are the nodes' keys, ascending as strings. Integer keys are written
	// in decimal. A node is known by its position here.
	Keys []string
	// Dim is the dimension of the vectors, 0 without nodes.
	Dim int
	// Vectors are the nodes' vectors, one after the other, Dim numbers each.
	Vectors []float32
	// Layers are the layers that have nodes, from the bottom, which has all
	// nodes, up.
	Layers []Layer
	// Dropped counts the links that were left out: of a node to itself, twice to
	// the same node, or to a key that its layer does not have.
	Dropped int64
}

// Vector returns the vector of a node.
func (g *Graph) Vector(node int) []float32 {
	return g.Vectors[node*g.Dim : (node+1)*g.Dim : (node+1)*g.Dim]
}

// A Layer is the adjacency of some nodes.
type Layer struct {
	// Nodes are the layer's nodes, ascending.
	Nodes []uint32
	// Offsets has one entry more than Nodes. The neighbours of Nodes[i] are
	// Links[Offsets[i]:Offsets[i+1]], ascending.
	Offsets []uint64
	Links   []uint32
}

// Neighbors returns the neighbours of Nodes[i]. The caller must not change them.
func (l *Layer) Neighbors(i int) []uint32 { return l.Links[l.Offsets[i]:l.Offsets[i+1]] }

// ErrCorrupt is in the chain of errors about the content of a file, as opposed
// to reading it.
var ErrCorrupt = errors.New("not a coder/hnsw export, or a damaged one")

// Decode reads an export of the given size.
func Decode(r io.ReaderAt, size int64, keys KeyType) (*Graph, error) {
	candidates := []KeyType{keys}
	if keys == Auto {
		candidates = []KeyType{String, Int, Int64, Uint64, Int32, Uint32}
	}
	// The type that explains most of the file has the most telling error.
	var deepest error
	farthest := int64(-1)
	for _, t := range candidates {
		d := decoder{br: bufio.NewReaderSize(io.NewSectionReader(r, 0, size), 1<<20), left: size, keys: t}
		g, err := d.graph()
		if err == nil {
			return g, nil
		}
		if !errors.Is(err, ErrCorrupt) {
			return nil, err
		}
		if at := size - d.left; at > farthest {
			farthest, deepest = at, fmt.Errorf("at byte %d, read with %v keys: %w", at, t, err)
		}
	}
	return nil, deepest
}

// A decoder reads one export. Keys are interned at first sight, as nodes or as
// neighbours, in the order of the file; ranks in ascending order come last.
type decoder struct {
	br   *bufio.Reader
	left int64 // bytes of the file
	keys KeyType

	ids     map[string]uint32
	names   []string
	scratch []byte
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrCorrupt, fmt.Sprintf(format, args...))
}

// need checks that n bytes are left.
func (d *decoder) need(n int64, what string) error {
	if n > d.left {
		return corrupt("%s needs %d bytes, %d are left", what, n, d.left)
	}
	return nil
}

// bytes reads n bytes, valid until the next call.
func (d *decoder) bytes(n int64, what string) ([]byte, error) {
	if err := d.need(n, what); err != nil {
		return nil, err
	}
	d.scratch = slices.Grow(d.scratch[:0], int(n))[:n]
	if _, err := io.ReadFull(d.br, d.scratch); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	d.left -= n
	return d.scratch, nil
}

// ReadByte implements [io.ByteReader], for varints.
func (d *decoder) ReadByte() (byte, error) {
	if d.left == 0 {
		return 0, io.EOF
	}
	b, err := d.br.ReadByte()
	if err == nil {
		d.left--
	}
	return b, err
}

func (d *decoder) int(what string) (int64, error) {
	n, err := binary.ReadVarint(d)
	switch {
	case err == nil:
		return n, nil
	case d.left == 0:
		return 0, corrupt("%s is cut off", what)
	}
	return 0, corrupt("%s: %v", what, err)
}

// count reads a number of things of at least size bytes each.
func (d *decoder) count(size int64, what string) (int64, error) {
	n, err := d.int(what)
	if err != nil {
		return 0, err
	}
	if n < 0 || n > d.left/size {
		return 0, corrupt("%s is %d, in %d bytes", what, n, d.left)
	}
	return n, nil
}

// key reads a key and returns its text, valid until the next call.
func (d *decoder) key() ([]byte, error) {
	fixed := func(n int64) ([]byte, error) { return d.bytes(n, "key") }
	switch d.keys {
	case String:
		n, err := d.count(1, "length of a key")
		if err != nil {
			return nil, err
		}
		return fixed(n)
	case Int:
		n, err := d.int("key")
		if err != nil {
			return nil, err
		}
		d.scratch = strconv.AppendInt(d.scratch[:0], n, 10)
	case Int64, Uint64:
		b, err := fixed(8)
		if err != nil {
			return nil, err
		}
		if n := binary.LittleEndian.Uint64(b); d.keys == Int64 {
			d.scratch = strconv.AppendInt(d.scratch[:0], int64(n), 10)
		} else {
			d.scratch = strconv.AppendUint(d.scratch[:0], n, 10)
		}
	case Int32, Uint32:
		b, err := fixed(4)
		if err != nil {
			return nil, err
		}
		if n := binary.LittleEndian.Uint32(b); d.keys == Int32 {
			d.scratch = strconv.AppendInt(d.scratch[:0], int64(int32(n)), 10)
		} else {
			d.scratch = strconv.AppendUint(d.scratch[:0], uint64(n), 10)
		}
	default:
		return nil, fmt.Errorf("key type %v is unknown", d.keys)
	}
	return d.scratch, nil
}

// intern reads a key and returns its number in the order of first sight.
func (d *decoder) intern() (uint32, error) {
	text, err := d.key()
	if err != nil {
		return 0, err
	}
	if id, ok := d.ids[string(text)]; ok {
		return id, nil
	}
	if len(d.names) == math.MaxUint32 {
		return 0, corrupt("more than 2^32-1 keys")
	}
	id := uint32(len(d.names))
	name := string(text)
	d.ids[name] = id
	d.names = append(d.names, name)
	return id, nil
}

func (d *decoder) graph() (*Graph, error) {
	g := &Graph{KeyType: d.keys}
	if err := d.header(g); err != nil {
		return nil, err
	}
	layers, err := d.count(1, "number of layers")
	if err != nil {
		return nil, err
	}
	d.ids = make(map[string]uint32)
	var raw []Layer // in interned numbers and the order of the file
	for i := range layers {
		l, err := d.layer(g, i == 0)
		if err != nil {
			return nil, fmt.Errorf("layer %d: %w", i, err)
		}
		raw = append(raw, l)
	}
	if d.left != 0 {
		return nil, corrupt("%d bytes after the last layer", d.left)
	}
	if len(raw) == 0 {
		return g, nil
	}
	return g, d.arrange(g, raw)
}

func (d *decoder) header(g *Graph) error {
	version, err := d.int("version")
	if err != nil {
		return err
	}
	if version != 1 {
		return corrupt("version is %d, want 1", version)
	}
	m, err := d.int("M")
	if err != nil {
		return err
	}
	ml, err := d.bytes(8, "Ml")
	if err != nil {
		return err
	}
	g.Ml = math.Float64frombits(binary.LittleEndian.Uint64(ml))
	ef, err := d.int("EfSearch")
	if err != nil {
		return err
	}
	g.M, g.EfSearch = int(m), int(ef)
	n, err := d.count(1, "length of the distance's name")
	if err != nil {
		return err
	}
	name, err := d.bytes(n, "distance's name")
	g.Distance = string(name)
	return err
}

// layer reads one layer. Vectors are kept of the bottom layer only.
func (d *decoder) layer(g *Graph, bottom bool) (l Layer, err error) {
	nodes, err := d.count(3, "number of nodes") // key, vector, neighbours: a byte each at least
	if err != nil {
		return l, err
	}
	l.Offsets = append(l.Offsets, 0)
	for i := range nodes {
		id, err := d.intern()
		if err != nil {
			return l, fmt.Errorf("node %d: %w", i, err)
		}
		l.Nodes = append(l.Nodes, id)
		dim, err := d.count(4, "dimension")
		if err != nil {
			return l, fmt.Errorf("node %d: %w", i, err)
		}
		switch {
		case bottom && i == 0:
			g.Dim = int(dim)
		case int(dim) != g.Dim:
			return l, fmt.Errorf("node %d: %w", i, corrupt("dimension is %d, want %d as of the first node", dim, g.Dim))
		}
		data, err := d.bytes(4*dim, "vector")
		if err != nil {
			return l, fmt.Errorf("node %d: %w", i, err)
		}
		if bottom {
			for ; len(data) > 0; data = data[4:] {
				g.Vectors = append(g.Vectors, math.Float32frombits(binary.LittleEndian.Uint32(data)))
			}
		}
		links, err := d.count(1, "number of neighbours")
		if err != nil {
			return l, fmt.Errorf("node %d: %w", i, err)
		}
		for range links {
			to, err := d.intern()
			if err != nil {
				return l, fmt.Errorf("node %d: %w", i, err)
			}
			l.Links = append(l.Links, to)
		}
		l.Offsets = append(l.Offsets, uint64(len(l.Links)))
	}
	return l, nil
}

const absent = math.MaxUint32

// arrange numbers the nodes by ascending keys and sets the graph.
func (d *decoder) arrange(g *Graph, raw []Layer) error {
	order := slices.Clone(raw[0].Nodes)
	slices.SortFunc(order, func(a, b uint32) int {
		switch {
		case d.names[a] < d.names[b]:
			return -1
		case d.names[a] > d.names[b]:
			return 1
		}
		return 0
	})
	ranks := make([]uint32, len(d.names)) // of interned numbers
	for i := range ranks {
		ranks[i] = absent
	}
	g.Keys = make([]string, len(order))
	for i, id := range order {
		if ranks[id] != absent {
			return corrupt("layer 0: key %q comes twice", d.names[id])
		}
		ranks[id] = uint32(i)
		g.Keys[i] = d.names[id]
	}

	// Vectors are moved in place: row i goes to where[i].
	where := make([]uint32, len(order))
	for i, id := range raw[0].Nodes {
		where[i] = ranks[id]
	}
	for i := range where {
		for where[i] != uint32(i) {
			j := where[i]
			a, b := g.Vector(i), g.Vector(int(j))
			for k := range a {
				a[k], b[k] = b[k], a[k]
			}
			where[i], where[j] = where[j], where[i]
		}
	}

	member := make([]int32, len(order)) // the last layer that has the node, from 1
	for i, l := range raw {
		arranged, err := l.arrange(d.names, ranks, member, int32(i+1), &g.Dropped)
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		raw[i] = Layer{}
		if len(arranged.Nodes) > 0 {
			g.Layers = append(g.Layers, arranged)
		}
	}
	return nil
}

// arrange returns the layer with ranks for numbers, sorted. It marks the layer's
// nodes in member with mark.
func (l *Layer) arrange(names []string, ranks []uint32, member []int32, mark int32, dropped *int64) (Layer, error) {
	order := make([]int, len(l.Nodes))
	for i, id := range l.Nodes {
		order[i] = i
		switch rank := ranks[id]; {
		case rank == absent:
			return Layer{}, corrupt("key %q is not in layer 0", names[id])
		case member[rank] == mark:
			return Layer{}, corrupt("key %q comes twice", names[id])
		default:
			member[rank] = mark
		}
	}
	slices.SortFunc(order, func(a, b int) int { return int(ranks[l.Nodes[a]]) - int(ranks[l.Nodes[b]]) })
	out := Layer{
		Nodes:   make([]uint32, 0, len(l.Nodes)),
		Offsets: make([]uint64, 1, len(l.Nodes)+1),
		Links:   make([]uint32, 0, len(l.Links)),
	}
	for _, i := range order {
		self := ranks[l.Nodes[i]]
		start := len(out.Links)
		for _, id := range l.Neighbors(i) {
			if rank := ranks[id]; rank != absent && rank != self && member[rank] == mark {
				out.Links = append(out.Links, rank)
			}
		}
		slices.Sort(out.Links[start:])
		kept := slices.Compact(out.Links[start:])
		out.Links = out.Links[:start+len(kept)]
		*dropped += int64(len(l.Neighbors(i)) - len(kept))
		out.Nodes = append(out.Nodes, self)
		out.Offsets = append(out.Offsets, uint64(len(out.Links)))
	}
	return out, nil
}
