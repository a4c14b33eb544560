package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/tandem-ann/tandem/index/kernel"
	"github.com/tandem-ann/tandem/index/sections"
)

// The sections of a shard file that this package owns; see format.md.
const (
	paramsSection     = "index.params"
	metaSection       = "index.meta"
	rowsSection       = "index.rows"
	vectorsSection    = "index.vectors"
	normsSection      = "index.norms"
	duplicatesSection = "index.duplicates"
	layersSection     = "index.layers"
	codesSection      = "index.codes"
	factorsSection    = "index.code_factors"
	centreSection     = "index.code_mean"
	entriesSection    = "index.entries"
	effortSection     = "index.effort"
	filteredSection   = "index.effort_filtered"
)

func linksSection(layer int) string { return fmt.Sprintf("index.links.%d", layer) }

// Write appends the index's sections to a shard file. One that is [Flat] has no form in a
// file.
func (x *Index) Write(w *sections.Writer) error {
	if x.flat() && x.nodes > 0 {
		return errors.New("write index: it is flat, and files have graphs")
	}
	meta := []uint32{uint32(len(x.rows)), uint32(x.nodes), uint32(x.dim), uint32(x.stride), uint32(len(x.layers)), 0, 0, uint32(x.vectors.element)}
	if x.vectors.element != Float32 {
		w.Require(sections.CompactVectors)
	}
	counts := []uint32{}
	for i, l := range x.layers {
		meta[5+min(i, 1)] = uint32(l.width)
		counts = append(counts, uint32(l.nodes()))
	}
	type section struct {
		name string
		data []byte
	}
	all := []section{
		{paramsSection, []byte(x.params.String())},
		{metaSection, sections.Bytes(meta)},
		{rowsSection, sections.Bytes(x.rows)},
		{vectorsSection, x.vectors.bytes()},
		{duplicatesSection, sections.Bytes(x.duplicates)},
		{layersSection, sections.Bytes(counts)},
		{centreSection, sections.Bytes(x.codes.centre)},
		{codesSection, sections.Bytes(x.codes.rows)},
		{factorsSection, sections.Bytes(x.codes.factors)},
		{entriesSection, sections.Bytes(x.entries)},
		{effortSection, encodeEffort(x.costs.Effort)},
	}
	if x.params.Metric == Cosine {
		all = append(all, section{normsSection, sections.Bytes(x.norms)})
	}
	for i, l := range x.layers {
		all = append(all, section{linksSection(i), sections.Bytes(l.links)})
	}
	if len(x.costs.Filtered) > 0 {
		all = append(all, section{filteredSection, encodeFiltered(x.costs.Filtered)})
	}
	for _, s := range all {
		if err := w.Section(s.name, s.data); err != nil {
			return err
		}
	}
	return nil
}

// Open uses the index in a verified shard file, in place. It checks every count,
// ordinal and number once, so that nothing later can read outside of the file; an error
// is of class [sections.ErrCorrupt] and names the section, or of class
// [sections.ErrUnreadable]. The index must not be used after the file is closed, and a
// goroutine that uses it may need a [sections.Guard].
func Open(f *sections.File) (_ *Index, err error) {
	defer sections.Guard(&err)()
	x := &Index{}
	text, err := f.Section(paramsSection)
	if err != nil {
		return nil, err
	}
	if x.params, err = ParseParams(string(text)); err != nil {
		return nil, sections.Corruptf(paramsSection, "%v", err)
	}
	meta, err := x.openMeta(f)
	if err != nil {
		return nil, err
	}
	if err := x.openRows(f, meta); err != nil {
		return nil, err
	}
	if err := x.openLayers(f, meta); err != nil {
		return nil, err
	}
	if err := x.openCodes(f); err != nil {
		return nil, err
	}
	if err := x.openEntries(f); err != nil {
		return nil, err
	}
	records, err := f.Section(effortSection)
	if err != nil {
		return nil, err
	}
	if x.costs.Effort, err = decodeEffort(records); err != nil {
		return nil, err
	}
	if err := x.openFiltered(f); err != nil {
		return nil, err
	}
	return x, x.prepare()
}

// meta is what the section of that name says of the others.
type meta struct {
	rows, layers int
	widths       [2]int // of lists on layer 0 and above
	element      Element
}

// openMeta reads the counts that all else is checked against.
func (x *Index) openMeta(f *sections.File) (meta, error) {
	m, err := sections.Array[uint32](f, metaSection, 8)
	if err != nil {
		return meta{}, err
	}
	rows, layers := int(m[0]), int(m[4])
	x.nodes, x.dim, x.stride = int(m[1]), int(m[2]), int(m[3])
	switch {
	case rows > MaxRows || x.nodes > rows || x.nodes == 0 && rows > 0:
		return meta{}, sections.Corruptf(metaSection, "%d rows with %d nodes", rows, x.nodes)
	case x.dim < 1 || x.dim > MaxDim || x.stride != kernel.Stride(x.dim):
		return meta{}, sections.Corruptf(metaSection, "dimension %d with stride %d", x.dim, x.stride)
	case layers > maxLevel+1 || (layers == 0) != (x.nodes == 0):
		return meta{}, sections.Corruptf(metaSection, "%d layers over %d nodes", layers, x.nodes)
	case m[5] > maxWidth || m[6] > maxWidth || layers > 0 && m[5] == 0 || layers > 1 && m[6] == 0:
		return meta{}, sections.Corruptf(metaSection, "widths %d and %d", m[5], m[6])
	case m[7] >= uint32(len(elementNames)) || (m[7] != uint32(Float32)) != (f.Features()&sections.CompactVectors != 0):
		return meta{}, sections.Corruptf(metaSection, "element type %d with feature bits %#x", m[7], f.Features())
	}
	return meta{rows, layers, [2]int{int(m[5]), int(m[6])}, Element(m[7])}, nil
}

// openRows reads the rows, their vectors, and which of them repeat another.
func (x *Index) openRows(f *sections.File, m meta) (err error) {
	if x.rows, err = sections.Array[uint32](f, rowsSection, m.rows); err != nil {
		return err
	}
	if x.vectors, err = openVectors(f, m.element, m.rows, x.stride); err != nil {
		return err
	}
	if x.params.Metric == Cosine {
		if x.norms, err = sections.Array[float32](f, normsSection, m.rows); err != nil {
			return err
		}
	}
	if err := x.checkVectors(); err != nil {
		return err
	}
	if x.duplicates, err = sections.Array[uint32](f, duplicatesSection, m.rows-x.nodes); err != nil {
		return err
	}
	for i, node := range x.duplicates {
		if int(node) >= x.nodes || i > 0 && node < x.duplicates[i-1] {
			return sections.Corruptf(duplicatesSection, "place %d: node %d of %d is out of order", i, node, x.nodes)
		}
	}
	return nil
}

// openLayers reads the graph.
func (x *Index) openLayers(f *sections.File, m meta) error {
	counts, err := sections.Array[uint32](f, layersSection, m.layers)
	if err != nil {
		return err
	}
	above := uint32(x.nodes)
	for i, count := range counts {
		if count == 0 || count > above || i == 0 && count != above {
			return sections.Corruptf(layersSection, "layer %d has %d nodes, the one below %d", i, count, above)
		}
		above = count
		l := layer{width: m.widths[min(i, 1)]}
		if l.links, err = sections.Array[uint32](f, linksSection(i), int(count)*l.width); err != nil {
			return err
		}
		if err := checkLinks(l, i); err != nil {
			return err
		}
		x.layers = append(x.layers, l)
	}
	return nil
}

// openFiltered reads the filtered efforts, which files may lack.
func (x *Index) openFiltered(f *sections.File) error {
	if !f.Has(filteredSection) {
		return nil
	}
	records, err := f.Section(filteredSection)
	if err != nil {
		return err
	}
	x.costs.Filtered, err = decodeFiltered(records)
	return err
}

// checkVectors makes sure that scores of these vectors are what they seem: every
// number is finite, no norm is above the bound, the padding is zero.
func (x *Index) checkVectors() error {
	buf := make([]float32, x.stride)
	for ordinal := range uint32(len(x.rows)) {
		row := x.vectors.row(ordinal, buf)
		sum := squaredNorm(row)
		// A NaN fails both comparisons.
		if !(sum <= MaxNorm*MaxNorm*1.01) {
			return sections.Corruptf(vectorsSection, "ordinal %d has a norm of %g", ordinal, math.Sqrt(sum))
		}
		for _, v := range row[x.dim:] {
			if v != 0 {
				return sections.Corruptf(vectorsSection, "ordinal %d has padding that is not zero", ordinal)
			}
		}
		if x.norms != nil {
			if !(x.norms[ordinal] > 0 && x.norms[ordinal] <= MaxNorm*1.01) {
				return sections.Corruptf(normsSection, "ordinal %d has norm %g", ordinal, x.norms[ordinal])
			}
			if !(sum > 0.999 && sum < 1.001) {
				return sections.Corruptf(vectorsSection, "ordinal %d is scaled to norm %g, want 1", ordinal, math.Sqrt(sum))
			}
		}
	}
	return nil
}

// openCodes opens what a walk scores. Any byte is a code; the numbers beside them
// must keep distances finite.
func (x *Index) openCodes(f *sections.File) (err error) {
	c := &x.codes
	c.stride = kernel.CodeStride(x.dim)
	if c.centre, err = sections.Array[float32](f, centreSection, x.dim); err != nil {
		return err
	}
	if c.rows, err = sections.Array[uint8](f, codesSection, x.nodes*c.stride); err != nil {
		return err
	}
	if c.factors, err = sections.Array[float32](f, factorsSection, 2*x.nodes); err != nil {
		return err
	}
	for j, m := range c.centre {
		if !(m >= -MaxNorm && m <= MaxNorm) {
			return sections.Corruptf(centreSection, "component %d is %g", j, m)
		}
	}
	for node := range x.nodes {
		step, bias := c.factors[2*node], c.factors[2*node+1]
		// A vector and the centre are at most 2 MaxNorm apart.
		if !(step > 0 && step <= 2*MaxNorm) || !(bias >= 0 && bias <= 4*MaxNorm*MaxNorm*1.01) {
			return sections.Corruptf(factorsSection, "node %d has step %g and bias %g", node, step, bias)
		}
	}
	return nil
}

func (x *Index) openEntries(f *sections.File) error {
	data, err := f.Section(entriesSection)
	if err != nil {
		return err
	}
	if len(data) > 4*maxEntries {
		return sections.Corruptf(entriesSection, "%d bytes, at most %d entries are accepted", len(data), maxEntries)
	}
	if x.entries, err = sections.Array[uint32](f, entriesSection, len(data)/4); err != nil {
		return err
	}
	for i, node := range x.entries {
		if int(node) >= x.nodes {
			return sections.Corruptf(entriesSection, "entry %d is node %d of %d", i, node, x.nodes)
		}
	}
	return nil
}

// checkLinks makes sure that every neighbour is a node of the layer, that no node
// is its own, and that unused places are at the end.
func checkLinks(l layer, number int) error {
	nodes := uint32(l.nodes())
	for node := range nodes {
		all := l.all(node)
		used := 0
		for used < len(all) && all[used] != noNode {
			if all[used] >= nodes || all[used] == node {
				return sections.Corruptf(linksSection(number), "node %d of %d links to %d", node, nodes, all[used])
			}
			used++
		}
		for _, id := range all[used:] {
			if id != noNode {
				return sections.Corruptf(linksSection(number), "node %d has a neighbour after an unused place", node)
			}
		}
	}
	return nil
}

func normOf(v []float32) float64 { return math.Sqrt(squaredNorm(v)) }

const (
	effortRecord   = 20
	filteredRecord = 4 + effortRecord + 4
)

func encodeEffort(effort []Effort) []byte {
	out := make([]byte, 0, len(effort)*effortRecord)
	for _, e := range effort {
		out = e.appendTo(out)
	}
	return out
}

func (e Effort) appendTo(out []byte) []byte {
	le := binary.LittleEndian
	out = le.AppendUint32(out, uint32(e.K))
	out = le.AppendUint32(out, math.Float32bits(e.Target))
	out = le.AppendUint32(out, uint32(e.Ef))
	out = le.AppendUint32(out, math.Float32bits(e.Recall))
	return le.AppendUint32(out, math.Float32bits(e.Scored))
}

func effortOf(data []byte) Effort {
	le := binary.LittleEndian
	return Effort{
		K:      int(le.Uint32(data)),
		Target: math.Float32frombits(le.Uint32(data[4:])),
		Ef:     int(le.Uint32(data[8:])),
		Recall: math.Float32frombits(le.Uint32(data[12:])),
		Scored: math.Float32frombits(le.Uint32(data[16:])),
	}
}

// valid reports whether no number is beyond what a calibration can find.
func (e Effort) valid() bool {
	return e.K >= 1 && e.K <= MaxRows && e.Ef >= 1 && e.Ef <= MaxRows &&
		e.Target > 0 && e.Target < 1 && e.Recall >= 0 && e.Recall <= 1 && e.Scored >= 0 && e.Scored <= MaxRows
}

// valid is that of its effort, and of what it has beside.
func (e FilteredEffort) valid() bool {
	return e.Effort.valid() && e.Share > 0 && e.Share < 1 && e.Through >= 0 && e.Through <= MaxRows
}

func decodeEffort(data []byte) ([]Effort, error) {
	if len(data)%effortRecord != 0 {
		return nil, sections.Corruptf(effortSection, "length %d is not a multiple of %d", len(data), effortRecord)
	}
	var effort []Effort
	for ; len(data) > 0; data = data[effortRecord:] {
		e := effortOf(data)
		if !e.valid() || len(effort) > 0 && !effort[len(effort)-1].before(e) {
			return nil, sections.Corruptf(effortSection, "record %d: %+v", len(effort), e)
		}
		effort = append(effort, e)
	}
	return effort, nil
}

func encodeFiltered(filtered []FilteredEffort) []byte {
	out := make([]byte, 0, len(filtered)*filteredRecord)
	le := binary.LittleEndian
	for _, e := range filtered {
		out = le.AppendUint32(out, math.Float32bits(e.Share))
		out = e.Effort.appendTo(out)
		out = le.AppendUint32(out, math.Float32bits(e.Through))
	}
	return out
}

func decodeFiltered(data []byte) ([]FilteredEffort, error) {
	if len(data) == 0 || len(data)%filteredRecord != 0 {
		return nil, sections.Corruptf(filteredSection, "length %d is not a positive multiple of %d", len(data), filteredRecord)
	}
	var filtered []FilteredEffort
	le := binary.LittleEndian
	for ; len(data) > 0; data = data[filteredRecord:] {
		e := FilteredEffort{
			Share: math.Float32frombits(le.Uint32(data)), Effort: effortOf(data[4:]),
			Through: math.Float32frombits(le.Uint32(data[4+effortRecord:])),
		}
		inOrder := len(filtered) == 0 || filtered[len(filtered)-1].before(e)
		if !inOrder || !e.valid() {
			return nil, sections.Corruptf(filteredSection, "record %d: %+v", len(filtered), e)
		}
		filtered = append(filtered, e)
	}
	return filtered, nil
}
