package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/gate"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

type inspectCommand struct {
	source
	JSON bool `help:"Print everything as JSON: one object, or an array of them for several shard files."`
}

func (inspectCommand) Help() string {
	return `Of a snapshot it shows the manifest, and opens no shard; of each shard file its sections, graph, norms, attributes, segments and efforts.

Examples:

    tandem inspect --store store

    tandem inspect store/shards/*.shard`
}

func (c *inspectCommand) Run(e *environment) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	if c.Store != "" {
		store, digest, err := openStore(e, c.Store, c.snapshot(), c.cacheFlags.options())
		if err != nil {
			return err
		}
		defer closing(&err, store)
		m, err := store.Manifest(e.ctx, digest)
		if err != nil {
			return err
		}
		if c.JSON {
			return writeJSON(e.stdout, snapshotInfo{digest, m})
		}
		return writeSnapshot(e.stdout, digest, m)
	}
	var all []*shardInfo
	for i, path := range c.Objects {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		info, err := inspectFile(path)
		if err != nil {
			return err
		}
		if c.JSON {
			all = append(all, info)
			continue
		}
		if i > 0 {
			fmt.Fprintln(e.stdout)
		}
		if err := info.write(e.stdout); err != nil {
			return err
		}
	}
	switch {
	case !c.JSON:
		return nil
	case len(all) == 1:
		return writeJSON(e.stdout, all[0])
	}
	return writeJSON(e.stdout, all)
}

// inspectFile inspects one shard file.
func inspectFile(path string) (_ *shardInfo, err error) {
	s, err := shard.Open(path)
	if err != nil {
		return nil, err
	}
	defer closing(&err, s)
	return inspectShard(s), nil
}

// snapshotInfo is a snapshot as JSON.
type snapshotInfo struct {
	Snapshot shard.Digest    `json:"snapshot"`
	Manifest *shard.Manifest `json:"manifest"`
}

// writeSnapshot writes a manifest for people.
func writeSnapshot(w io.Writer, digest shard.Digest, m *shard.Manifest) error {
	fmt.Fprintf(w, "snapshot %s\n%s at %s, metric %s, dim %d, built by %s\n", digest, m.Model, m.ModelVersion, m.Metric, m.Dim, strings.TrimSpace(m.Builder+" "+parenthesised(m.Tool)))
	if m.MeanUser != nil {
		var sum float64
		for _, x := range m.MeanUser {
			sum += float64(x) * float64(x)
		}
		fmt.Fprintf(w, "the mean user has the norm %.4g\n", math.Sqrt(sum))
	}
	fmt.Fprintln(w)
	if err := writeTowers(w, m); err != nil {
		return err
	}
	t := newTable(w)
	fmt.Fprintln(t, "\nshard\trows\tbytes\tSHA-256")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for number, s := range m.Tower(kind).Shards {
			fmt.Fprintf(t, "%s-%04d\t%s\t%s\t%s\n", kind, number, count(int64(s.Rows)), byteSize(s.Size), s.Digest)
		}
	}
	fmt.Fprintln(t, "\ninput\tfile\tbytes\tSHA-256")
	for _, in := range m.Inputs {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", in.Role, in.Name, byteSize(in.Size), in.Digest)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		tm := m.Tower(kind)
		fmt.Fprintf(w, "\nparams of %s: %s\n", kind, tm.Params)
		for _, f := range tm.Schema.Fields() {
			fmt.Fprintf(w, "  %s %s\n", f.Name, f.Type)
		}
	}
	if err := writeRecall(w, m); err != nil {
		return err
	}
	if err := writeSegments(w, m); err != nil {
		return err
	}
	if m.Gates != nil {
		writeGates(w, gate.OfManifest(digest, m))
	}
	for i, s := range m.Apps.Segments {
		if i == 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "segment %s: %s\n", s.Name, strings.Join(strings.Fields(s.Expression), " "))
	}
	return nil
}

// parenthesised returns text in parentheses, if there is any.
func parenthesised(text string) string {
	if text == "" {
		return ""
	}
	return "(" + text + ")"
}

// shardInfo is what a shard file holds. It is its JSON form.
type shardInfo struct {
	Path       string          `json:"path"`
	Size       int64           `json:"size"`
	Checksum   string          `json:"checksum"`
	Params     string          `json:"params"`
	Dim        int             `json:"dim"`
	Element    string          `json:"element"` // what a component is stored as
	Rows       int             `json:"rows"`
	Nodes      int             `json:"nodes"`
	Duplicates int             `json:"duplicates"`
	Sections   []sectionInfo   `json:"sections"`
	Layers     []layerInfo     `json:"layers"`
	Norms      normInfo        `json:"norms"`
	Attributes []attributeInfo `json:"attributes"`
	Segments   []segmentInfo   `json:"segments,omitempty"`
	Effort     []effortInfo    `json:"effort"`
	Filtered   []filteredInfo  `json:"filtered_effort,omitempty"`
}

type sectionInfo struct {
	Name     string `json:"name"`
	Offset   uint64 `json:"offset"`
	Length   uint64 `json:"length"`
	Checksum string `json:"checksum"`
}

type layerInfo struct {
	Nodes   int     `json:"nodes"`
	Width   int     `json:"width"`
	Links   int     `json:"links"`
	Mean    float64 `json:"mean_degree"`
	Degrees []int   `json:"degrees"` // how many nodes have 0, 1, ... neighbours
}

// normInfo describes norms: quantiles, and bins of equal width from the least to
// the largest.
type normInfo struct {
	Quantiles []quantile `json:"quantiles"`
	Bins      []int      `json:"bins"`
}

type quantile struct {
	Share float64 `json:"share"`
	Norm  float32 `json:"norm"`
}

type attributeInfo struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Present int    `json:"present"` // rows that have it
}

type segmentInfo struct {
	shard.Segment
	Eligible int `json:"eligible"` // rows
}

type effortInfo struct {
	K      int     `json:"k"`
	Target float64 `json:"target"`
	Ef     int     `json:"ef"`
	Recall float64 `json:"recall"`
	Scored float64 `json:"scored"`
}

// filteredInfo is the effort of filtered walks where a share of the rows is eligible.
type filteredInfo struct {
	Share float64 `json:"share"`
	effortInfo
	Through float64 `json:"through"`
}

func inspectShard(s *shard.Shard) *shardInfo {
	f, x := s.File(), s.Index()
	info := &shardInfo{
		Path: f.Path(), Size: f.Size(), Checksum: fmt.Sprintf("%016x", f.Checksum()),
		Params: x.Params().String(), Dim: x.Dim(), Element: x.Element().String(), Rows: x.Rows(), Nodes: x.Rows() - x.Duplicates(), Duplicates: x.Duplicates(),
		Norms: inspectNorms(x),
	}
	for _, e := range f.Entries() {
		info.Sections = append(info.Sections, sectionInfo{e.Name, e.Offset, e.Length, fmt.Sprintf("%016x", e.Hash)})
	}
	for _, l := range x.Layers() {
		li := layerInfo{Nodes: l.Nodes, Width: l.Width, Degrees: l.Degrees}
		for degree, nodes := range l.Degrees {
			li.Links += degree * nodes
		}
		li.Mean = float64(li.Links) / float64(max(l.Nodes, 1))
		info.Layers = append(info.Layers, li)
	}
	table, has := s.Attributes(), index.NewBitset(s.Rows())
	for i, field := range table.Schema().Fields() {
		table.Has(i).CopyTo(has)
		info.Attributes = append(info.Attributes, attributeInfo{field.Name, field.Type.String(), has.Count()})
	}
	for i, rows := range s.SegmentRows() {
		info.Segments = append(info.Segments, segmentInfo{s.Segments()[i], rows})
	}
	for _, e := range x.Effort() {
		info.Effort = append(info.Effort, effortOf(e))
	}
	for _, e := range x.FilteredEffort() {
		info.Filtered = append(info.Filtered, filteredInfo{decimal(e.Share), effortOf(e.Effort), decimal(e.Through)})
	}
	return info
}

func effortOf(e index.Effort) effortInfo {
	return effortInfo{e.K, decimal(e.Target), e.Ef, decimal(e.Recall), decimal(e.Scored)}
}

// decimal returns a float32 as the number it was written as: 0.9, not the float32
// next to it.
func decimal(x float32) float64 { return math.Round(float64(x)*1e6) / 1e6 }

// bins is the number of bins of a histogram.
const bins = 10

func inspectNorms(x *index.Index) (info normInfo) {
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
		info.Quantiles = append(info.Quantiles, quantile{share, norms[int(share*float64(last)+0.5)]})
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

// write writes the shard for people.
func (s *shardInfo) write(w io.Writer) error {
	fmt.Fprintf(w, "shard %s\n%s, checksum %s\n", s.Path, byteSize(s.Size), s.Checksum)
	fmt.Fprintf(w, "%s on %s (%s with the vector of another), dim %d of %s\nparams %s\n\n",
		plural(int64(s.Rows), "row"), plural(int64(s.Nodes), "node"), count(int64(s.Duplicates)), s.Dim, s.Element, s.Params)
	t := newTable(w)
	fmt.Fprintln(t, "section\toffset\tbytes\tchecksum")
	for _, e := range s.Sections {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", e.Name, e.Offset, e.Length, e.Checksum)
	}
	fmt.Fprintln(t, "\nlayer\tnodes\twidth\tlinks\tmean degree")
	for i, l := range s.Layers {
		fmt.Fprintf(t, "%d\t%d\t%d\t%d\t%.1f\n", i, l.Nodes, l.Width, l.Links, l.Mean)
	}
	if len(s.Layers) > 0 {
		fmt.Fprintln(t, "\ndegree on layer 0\tnodes\t")
		writeDegrees(t, s.Layers[0])
	}
	s.Norms.write(t)
	if len(s.Attributes) > 0 {
		fmt.Fprintln(t, "\nattribute\ttype\tpresent\tshare")
		for _, a := range s.Attributes {
			fmt.Fprintf(t, "%s\t%s\t%d\t%.1f%%\n", a.Name, a.Type, a.Present, 100*float64(a.Present)/float64(max(s.Rows, 1)))
		}
	}
	if len(s.Segments) > 0 {
		fmt.Fprintln(t, "\nsegment\teligible\tshare")
		for _, g := range s.Segments {
			fmt.Fprintf(t, "%s\t%d\t%.1f%%\n", g.Name, g.Eligible, 100*float64(g.Eligible)/float64(max(s.Rows, 1)))
		}
	}
	if len(s.Effort) > 0 {
		fmt.Fprintln(t, "\nk\ttarget\tef\tcalibrated recall\tscored")
		for _, e := range s.Effort {
			fmt.Fprintf(t, "%d\t%v\t%d\t%.4f\t%.0f\n", e.K, e.Target, e.Ef, e.Recall, e.Scored)
		}
	}
	if len(s.Filtered) > 0 {
		fmt.Fprintln(t, "\neligible\tk\ttarget\tef\tcalibrated recall\tscored\tlooked through")
		for _, e := range s.Filtered {
			fmt.Fprintf(t, "%.3g%%\t%d\t%v\t%d\t%.4f\t%.0f\t%.0f\n", 100*e.Share, e.K, e.Target, e.Ef, e.Recall, e.Scored, e.Through)
		}
	}
	return t.Flush()
}

// writeDegrees writes a histogram of degrees in a few bins.
func writeDegrees(w io.Writer, l layerInfo) {
	step := (len(l.Degrees) + bins - 1) / bins
	var sums []int
	for degrees := range slices.Chunk(l.Degrees, step) {
		sum := 0
		for _, n := range degrees {
			sum += n
		}
		sums = append(sums, sum)
	}
	for i, sum := range sums {
		from, to := i*step, min((i+1)*step, len(l.Degrees))-1
		name := fmt.Sprintf("%d to %d", from, to)
		if from == to {
			name = fmt.Sprint(from)
		}
		fmt.Fprintf(w, "%s\t%d\t%s\n", name, sum, bar(float64(sum)/float64(slices.Max(sums))))
	}
}

func (n *normInfo) write(w io.Writer) {
	if len(n.Bins) == 0 {
		return
	}
	fmt.Fprintln(w, "\nnorm\tquantile")
	for _, q := range n.Quantiles {
		fmt.Fprintf(w, "%g%%\t%.4g\n", 100*q.Share, q.Norm)
	}
	fmt.Fprintln(w, "\nnorm from\trows\t")
	least, largest := n.Quantiles[0].Norm, n.Quantiles[len(n.Quantiles)-1].Norm
	for i, rows := range n.Bins {
		from := least + (largest-least)*float32(i)/bins
		fmt.Fprintf(w, "%.4g\t%d\t%s\n", from, rows, bar(float64(rows)/float64(slices.Max(n.Bins))))
	}
}
