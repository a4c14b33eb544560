package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/gates"
	"github.com/tandem-ann/tandem/shard/inspect"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/release"
	"github.com/tandem-ann/tandem/shard/snapshots"
	"github.com/tandem-ann/tandem/shard/wording"
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
		return showSnapshot(e, store, digest, m, c.JSON)
	}
	var all []*inspect.Shard
	for i, path := range c.Objects {
		if err := e.ctx.Err(); err != nil {
			return err
		}
		info, err := inspect.File(path)
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
		if err := writeShard(e.stdout, info); err != nil {
			return err
		}
	}
	switch {
	case !c.JSON:
		return nil
	case len(all) == 1:
		return wording.WriteJSON(e.stdout, all[0])
	}
	return wording.WriteJSON(e.stdout, all)
}

// snapshotInfo is a snapshot as JSON.
type snapshotInfo struct {
	Snapshot manifest.Digest    `json:"snapshot"`
	Manifest *manifest.Manifest `json:"manifest"`
	GateRows []gates.Row        `json:"gate_rows"` // what each gate came to in all runs; empty if none was run
}

// showSnapshot shows a manifest, and what all runs of the gates amount to.
func showSnapshot(e *environment, store *snapshots.Store, digest manifest.Digest, m *manifest.Manifest, asJSON bool) error {
	releases := release.New(store)
	beside, err := besideReleased(e, releases)
	if err != nil {
		return err
	}
	verdict, err := releases.Verdict(e.ctx, digest, beside)
	if err != nil {
		return err
	}
	return presentSnapshot(e.stdout, digest, m, verdict, asJSON)
}

// presentSnapshot writes a manifest, and what the gates came to, nil if none was run.
func presentSnapshot(w io.Writer, digest manifest.Digest, m *manifest.Manifest, verdict *gates.Verdict, asJSON bool) error {
	if !asJSON {
		return writeSnapshot(w, digest, m, verdict)
	}
	info := snapshotInfo{digest, m, []gates.Row{}}
	if verdict != nil {
		info.GateRows = verdict.Rows
	}
	return wording.WriteJSON(w, info)
}

// writeSnapshot writes a manifest for people, and what the gates came to.
func writeSnapshot(w io.Writer, digest manifest.Digest, m *manifest.Manifest, verdict *gates.Verdict) error {
	fmt.Fprintf(w, "snapshot %s\n%s at %s, metric %s, dim %d, built by %s\n", digest, release.Escape(m.Model), release.Escape(m.ModelVersion), m.Metric, m.Dim, strings.TrimSpace(m.Builder+" "+parenthesised(m.Tool)))
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
	writeLivePosition(w, m)
	t := newTable(w)
	fmt.Fprintln(t, "\nshard\trows\tbytes\tSHA-256")
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		for number, s := range m.Tower(kind).Shards {
			fmt.Fprintf(t, "%s-%04d\t%s\t%s\t%s\n", kind, number, wording.Count(s.Rows), wording.Bytes(s.Size), s.Digest)
		}
	}
	fmt.Fprintln(t, "\ninput\tfile\tbytes\tSHA-256")
	for _, in := range m.Inputs {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", in.Role, in.Name, wording.Bytes(in.Size), in.Digest)
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
	if verdict != nil {
		if err := writeVerdict(w, verdict); err != nil {
			return err
		}
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

// writeShard writes what is in a shard file for people.
func writeShard(w io.Writer, s *inspect.Shard) error {
	fmt.Fprintf(w, "shard %s\n%s, checksum %s\n", s.Path, wording.Bytes(s.Size), s.Checksum)
	fmt.Fprintf(w, "%s on %s (%s with the vector of another), dim %d of %s\nparams %s\n\n",
		wording.Plural(s.Rows, "row"), wording.Plural(s.Nodes, "node"), wording.Count(s.Duplicates), s.Dim, s.Element, s.Params)
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
	writeNorms(t, &s.Norms)
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

// degreeBins is how many lines a histogram of degrees has, at most.
const degreeBins = 10

// writeDegrees writes a histogram of degrees in a few bins.
func writeDegrees(w io.Writer, l inspect.Layer) {
	step := (len(l.Degrees) + degreeBins - 1) / degreeBins
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

// writeNorms writes how norms are spread.
func writeNorms(w io.Writer, n *inspect.Norms) {
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
		from := least + (largest-least)*float32(i)/float32(len(n.Bins))
		fmt.Fprintf(w, "%.4g\t%d\t%s\n", from, rows, bar(float64(rows)/float64(slices.Max(n.Bins))))
	}
}
