package hnswexport_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/coder/hnsw"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/builder/tower/hnswexport"
)

const dim = 8

// library builds a graph with coder/hnsw and returns it with its export.
func library[K cmp.Ordered](t testing.TB, n int, key func(int) K) (*hnsw.Graph[K], []byte) {
	g := hnsw.NewGraph[K]()
	g.M = 6
	g.Rng = rand.New(rand.NewSource(7))
	for i := range n {
		g.Add(hnsw.MakeNode(key(i), vector(i)))
	}
	var b bytes.Buffer
	require.NoError(t, g.Export(&b))
	return g, b.Bytes()
}

func vector(i int) []float32 {
	r := rand.New(rand.NewSource(int64(i)))
	v := make([]float32, dim)
	for j := range v {
		v[j] = r.Float32() - 0.5
	}
	return v
}

func decode(t testing.TB, data []byte, keys hnswexport.KeyType) *hnswexport.Graph {
	g, err := hnswexport.Decode(bytes.NewReader(data), int64(len(data)), keys)
	require.NoError(t, err)
	return g
}

func check[K cmp.Ordered](t *testing.T, want hnswexport.KeyType, n int, key func(int) K) {
	t.Run(want.String(), func(t *testing.T) {
		lib, data := library(t, n, key)
		g := decode(t, data, hnswexport.Auto)
		require.Equal(t, want, g.KeyType)
		require.Equal(t, g, decode(t, data, want))
		require.Equal(t, 6, g.M)
		require.Equal(t, 0.25, g.Ml)
		require.Equal(t, 20, g.EfSearch)
		require.Equal(t, "cosine", g.Distance)
		require.Equal(t, dim, g.Dim)
		require.Len(t, g.Keys, n)
		require.IsIncreasing(t, g.Keys)
		byText := make(map[string]int)
		for i := range n {
			byText[fmt.Sprint(key(i))] = i
		}
		for node, text := range g.Keys {
			require.Contains(t, byText, text)
			require.Equal(t, vector(byText[text]), g.Vector(node))
		}

		analyzer := hnsw.Analyzer[K]{Graph: lib}
		require.Equal(t, analyzer.Topography(), sizes(g))
		links := int64(0)
		for _, l := range g.Layers {
			links += int64(len(l.Links))
			require.IsIncreasing(t, l.Nodes)
			require.Len(t, l.Offsets, len(l.Nodes)+1)
			for i, node := range l.Nodes {
				for _, to := range l.Neighbors(i) {
					require.NotEqual(t, node, to)
					require.Contains(t, l.Nodes, to)
				}
			}
		}

		theirs := 0.0
		for i, mean := range analyzer.Connectivity() {
			theirs += mean * float64(sizes(g)[i])
		}
		require.InDelta(t, theirs, links+g.Dropped, 0.5)

		// The library exports maps: another export of the same graph has
		// another order, and must decode to the same.
		var again bytes.Buffer
		require.NoError(t, lib.Export(&again))
		require.Equal(t, g, decode(t, again.Bytes(), hnswexport.Auto))
	})
}

func sizes(g *hnswexport.Graph) []int {
	var s []int
	for _, l := range g.Layers {
		s = append(s, len(l.Nodes))
	}
	return s
}

func TestExports(t *testing.T) {
	check(t, hnswexport.String, 200, func(i int) string { return fmt.Sprintf("app-%d", i) })
	check(t, hnswexport.Int, 200, func(i int) int { return i*7919 - 300 })
	check(t, hnswexport.Int64, 200, func(i int) int64 { return int64(i)*1_000_000_007 - 300 })
	check(t, hnswexport.Int32, 200, func(i int) int32 { return int32(i)*7919 - 300 })
}

func TestUnsignedKeysMustBeNamed(t *testing.T) {
	_, data := library(t, 20, func(i int) uint64 { return math.MaxUint64 - uint64(i) })
	require.Equal(t, hnswexport.Int64, decode(t, data, hnswexport.Auto).KeyType)
	require.Contains(t, decode(t, data, hnswexport.Uint64).Keys, "18446744073709551615")
	_, data = library(t, 20, func(i int) uint32 { return math.MaxUint32 - uint32(i) })
	require.Contains(t, decode(t, data, hnswexport.Uint32).Keys, "4294967295")
}

// The graph has the library's links: each is written by hand here.
func TestLinks(t *testing.T) {
	b := header()
	b = binary.AppendVarint(b, 2) // layers
	b = binary.AppendVarint(b, 3)
	b = node(b, "b", []float32{2, 2}, "c", "a", "gone")
	b = node(b, "a", []float32{1, 1}, "a", "b", "b")
	b = node(b, "c", []float32{3, 3})
	b = binary.AppendVarint(b, 1)
	b = node(b, "c", []float32{3, 3}, "a")
	g := decode(t, b, hnswexport.Auto)
	require.Equal(t, []string{"a", "b", "c"}, g.Keys)
	require.Equal(t, []float32{1, 1, 2, 2, 3, 3}, g.Vectors)
	require.Equal(t, []hnswexport.Layer{
		{Nodes: []uint32{0, 1, 2}, Offsets: []uint64{0, 1, 3, 3}, Links: []uint32{1, 0, 2}},
		{Nodes: []uint32{2}, Offsets: []uint64{0, 0}, Links: []uint32{}},
	}, g.Layers)
	require.Equal(t, int64(4), g.Dropped, "gone, a to itself, b again, and a that is not in layer 1")
}

func header() []byte {
	b := binary.AppendVarint(nil, 1)
	b = binary.AppendVarint(b, 16)
	b = binary.LittleEndian.AppendUint64(b, math.Float64bits(0.25))
	b = binary.AppendVarint(b, 20)
	return text(b, "cosine")
}

func text(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }

func node(b []byte, key string, vector []float32, neighbours ...string) []byte {
	b = text(b, key)
	b = binary.AppendVarint(b, int64(len(vector)))
	for _, f := range vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(f))
	}
	b = binary.AppendVarint(b, int64(len(neighbours)))
	for _, n := range neighbours {
		b = text(b, n)
	}
	return b
}

func TestDamaged(t *testing.T) {
	two := func(second []byte) []byte {
		b := binary.AppendVarint(binary.AppendVarint(header(), 1), 2)
		return append(node(b, "a", []float32{1, 1}), second...)
	}
	for _, test := range []struct {
		name, want string
		data       []byte
	}{
		{"empty", "version is cut off", nil},
		{"version", "version is 7, want 1", binary.AppendVarint(nil, 7)},
		{"other file", "version is", []byte("PAR1 and so on")},
		{"name", "length of the distance's name is 1099511627776", binary.AppendVarint(header()[:11], 1<<40)},
		{"layers", "number of layers is 1099511627776", binary.AppendVarint(header(), 1<<40)},
		{"nodes", "number of nodes is 1099511627776", binary.AppendVarint(binary.AppendVarint(header(), 1), 1<<40)},
		{"negative", "number of nodes is -1", binary.AppendVarint(binary.AppendVarint(header(), 1), -1)},
		{"cut off", "node 1: ", two(nil)},
		{"twice", `key "a" comes twice`, two(node(nil, "a", []float32{1, 1}))},
		{"dimension", "dimension is 3, want 2", two(node(nil, "b", []float32{1, 1, 1}))},
		{"trailing", "1 bytes after the last layer", append(two(node(nil, "b", []float32{1, 1})), 0)},
		{"above only", `layer 1: not a coder/hnsw export, or a damaged one: key "b" is not in layer 0`, func() []byte {
			b := binary.AppendVarint(binary.AppendVarint(header(), 2), 1)
			b = binary.AppendVarint(node(b, "a", []float32{1}), 1)
			return node(b, "b", []float32{1})
		}()},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := hnswexport.Decode(bytes.NewReader(test.data), int64(len(test.data)), hnswexport.String)
			require.ErrorIs(t, err, hnswexport.ErrCorrupt)
			require.ErrorContains(t, err, test.want)
			_, err = hnswexport.Decode(bytes.NewReader(test.data), int64(len(test.data)), hnswexport.Auto)
			require.Error(t, err)
		})
	}
}

func TestEveryTruncation(t *testing.T) {
	_, data := library(t, 30, func(i int) string { return fmt.Sprint("k", i) })
	for n := range data {
		_, err := hnswexport.Decode(bytes.NewReader(data[:n]), int64(n), hnswexport.String)
		require.ErrorIs(t, err, hnswexport.ErrCorrupt, "%d of %d bytes", n, len(data))
	}
}

func TestSavedGraph(t *testing.T) {
	path := filepath.Join(t.TempDir(), "saved.graph")
	saved, err := hnsw.LoadSavedGraph[string](path)
	require.NoError(t, err)
	saved.Add(hnsw.MakeNode("x", []float32{1, 2}), hnsw.MakeNode("y", []float32{2, 1}))
	require.NoError(t, saved.Save())
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, []string{"x", "y"}, decode(t, data, hnswexport.Auto).Keys)
}

// An empty graph has no layers.
func TestEmptyGraph(t *testing.T) {
	_, data := library(t, 0, func(i int) string { return "" })
	g := decode(t, data, hnswexport.Auto)
	require.Empty(t, g.Keys)
	require.Empty(t, g.Layers)
}

func FuzzDecode(f *testing.F) {
	_, data := library(f, 12, func(i int) string { return fmt.Sprint("k", i) })
	f.Add(data)
	_, data = library(f, 12, func(i int) int { return i })
	f.Add(data)
	f.Add(header())
	f.Fuzz(func(t *testing.T, data []byte) {
		for keys := hnswexport.Auto; keys <= hnswexport.Uint32; keys++ {
			g, err := hnswexport.Decode(bytes.NewReader(data), int64(len(data)), keys)
			if err != nil {
				continue
			}
			require.Len(t, g.Vectors, len(g.Keys)*g.Dim)
			for _, l := range g.Layers {
				require.Equal(t, uint64(len(l.Links)), l.Offsets[len(l.Nodes)])
				for _, to := range l.Links {
					require.Less(t, int(to), len(g.Keys))
				}
			}
		}
	})
}

func ExampleDecode() {
	g := hnsw.NewGraph[string]()
	g.Add(hnsw.MakeNode("chess", []float32{1, 2}), hnsw.MakeNode("go", []float32{2, 1}))
	var file bytes.Buffer
	if err := g.Export(&file); err != nil {
		panic(err)
	}
	got, err := hnswexport.Decode(bytes.NewReader(file.Bytes()), int64(file.Len()), hnswexport.Auto)
	if err != nil {
		panic(err)
	}
	fmt.Println(got.Keys, got.KeyType, got.Distance)
	fmt.Println(got.Vector(1), got.Layers[0].Neighbors(1))
	// Output:
	// [chess go] string cosine
	// [2 1] [0]
}
