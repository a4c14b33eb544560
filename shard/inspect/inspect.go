// Package inspect says what is in a shard file: sections, graph, norms, attributes,
// segments and efforts, as values for a table, a page or JSON. `tandem inspect` calls it.
package inspect

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// Shard is what a shard file holds. It is its JSON form.
type Shard struct {
	Path       string           `json:"path"`
	Size       int64            `json:"size"` // bytes
	Checksum   string           `json:"checksum"`
	Params     string           `json:"params"`
	Dim        int              `json:"dim"`
	Element    string           `json:"element"` // what a component is stored as
	Rows       int              `json:"rows"`
	Nodes      int              `json:"nodes"`      // of the graph: rows with a vector of their own
	Duplicates int              `json:"duplicates"` // rows with the vector of another
	Sections   []Section        `json:"sections"`
	Layers     []Layer          `json:"layers"` // the lowest first
	Norms      Norms            `json:"norms"`
	Attributes []Attribute      `json:"attributes"`
	Segments   []Segment        `json:"segments,omitempty"`
	Effort     []Effort         `json:"effort"`
	Filtered   []FilteredEffort `json:"filtered_effort,omitempty"`
}

// Section is a part of the file, in bytes.
type Section struct {
	Name     string `json:"name"`
	Offset   uint64 `json:"offset"`
	Length   uint64 `json:"length"`
	Checksum string `json:"checksum"`
}

// Layer is a layer of the graph.
type Layer struct {
	Nodes   int     `json:"nodes"`
	Width   int     `json:"width"` // most links that a node may have
	Links   int     `json:"links"` // of all nodes
	Mean    float64 `json:"mean_degree"`
	Degrees []int   `json:"degrees"` // how many nodes have 0, 1, ... neighbours
}

// Norms says how the norms of the rows are spread. It is empty of a shard without rows.
type Norms struct {
	Quantiles []Quantile `json:"quantiles"` // from the least to the largest
	Bins      []int      `json:"bins"`      // rows, by bins of equal width from the least norm to the largest
}

// Quantile is the norm that a share of the rows does not exceed.
type Quantile struct {
	Share float64 `json:"share"`
	Norm  float32 `json:"norm"`
}

// Attribute is one of the rows.
type Attribute struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Present int    `json:"present"` // rows that have it
}

// Segment is one of the rows.
type Segment struct {
	shard.Segment
	Eligible int `json:"eligible"` // rows
}

// Effort is what [index.Effort] is, in decimals as they were written.
type Effort struct {
	K      int     `json:"k"`
	Target float64 `json:"target"`
	Ef     int     `json:"ef"`
	Recall float64 `json:"recall"`
	Scored float64 `json:"scored"`
}

// FilteredEffort is the effort of filtered walks where a share of the rows is eligible.
type FilteredEffort struct {
	Share float64 `json:"share"`
	Effort
	Through float64 `json:"through"` // nodes that a walk looked through
}

// File opens a shard file and inspects it.
func File(path string) (_ *Shard, err error) {
	s, err := shard.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return Of(s), nil
}

// Of inspects a shard. It reads each row's norm and every node's links. The result aliases
// nothing of the shard.
func Of(s *shard.Shard) *Shard {
	f, x := s.File(), s.Index()
	info := &Shard{
		Path: f.Path(), Size: f.Size(), Checksum: fmt.Sprintf("%016x", f.Checksum()),
		Params: x.Params().String(), Dim: x.Dim(), Element: x.Element().String(), Rows: x.Rows(), Nodes: x.Rows() - x.Duplicates(), Duplicates: x.Duplicates(),
		Norms: norms(x),
	}
	for _, e := range f.Entries() {
		info.Sections = append(info.Sections, Section{e.Name, e.Offset, e.Length, fmt.Sprintf("%016x", e.Hash)})
	}
	for _, l := range x.Layers() {
		li := Layer{Nodes: l.Nodes, Width: l.Width, Degrees: l.Degrees}
		for degree, nodes := range l.Degrees {
			li.Links += degree * nodes
		}
		li.Mean = float64(li.Links) / float64(max(l.Nodes, 1))
		info.Layers = append(info.Layers, li)
	}
	table, has := s.Attributes(), index.NewBitset(s.Rows())
	for i, field := range table.Schema().Fields() {
		table.Has(i).CopyTo(has)
		info.Attributes = append(info.Attributes, Attribute{field.Name, field.Type.String(), has.Count()})
	}
	for i, rows := range s.SegmentRows() {
		info.Segments = append(info.Segments, Segment{s.Segments()[i], rows})
	}
	for _, e := range x.Effort() {
		info.Effort = append(info.Effort, effort(e))
	}
	for _, e := range x.FilteredEffort() {
		info.Filtered = append(info.Filtered, FilteredEffort{decimal(e.Share), effort(e.Effort), decimal(e.Through)})
	}
	return info
}

func effort(e index.Effort) Effort {
	return Effort{e.K, decimal(e.Target), e.Ef, decimal(e.Recall), decimal(e.Scored)}
}

// decimal returns a float32 as the number it was written as: 0.9, not the float32
// next to it.
func decimal(x float32) float64 { return math.Round(float64(x)*1e6) / 1e6 }

// bins is how many bins norms are counted in.
const bins = 10

func norms(x *index.Index) (info Norms) {
	if x.Rows() == 0 {
		return info
	}
	norms := make([]float32, x.Rows())
	for i := range norms {
		norms[i] = x.Norm(uint32(i))
	}
	slices.Sort(norms)
	last := len(norms) - 1
	for _, share := range []float64{0, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99, 1} {
		info.Quantiles = append(info.Quantiles, Quantile{share, norms[int(share*float64(last)+0.5)]})
	}
	info.Bins = make([]int, bins)
	least, width := float64(norms[0]), (float64(norms[last])-float64(norms[0]))/bins
	for _, n := range norms {
		i := 0
		if width > 0 {
			i = min(int((float64(n)-least)/width), bins-1)
		}
		info.Bins[i]++
	}
	return info
}
