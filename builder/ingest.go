package builder

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"sort"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/builder/tower"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// ingested is one tower after its input was read: rows judged and spilled by
// shard.
type ingested struct {
	kind       shard.Kind
	schema     attribute.Schema
	dim        int
	inline     int   // attributes that came with the rows
	columns    []int // the schema position of each attribute: inline ones, then joined ones
	rows       []*spill
	joined     []*spill // attributes from JSON Lines; nil without
	rejections Rejections
	files      []input.File       // of the rows
	starts     []int64            // the number of the first row of each file
	line       func(int64) string // says where an attribute line is, by its number; nil without
	sample     sample
	unknown    []string // columns that were to be ignored and are in no input of the tower
	forgotten  *forgotten
}

// detectRows is how many rows decide the dimension of a tower, or the first after them
// that has an embedding.
const detectRows = 1000

// detectDim returns the most common length of the first embeddings, whether they are bytes,
// and the training run that the rows say they are of.
func detectDim(ctx context.Context, kind shard.Kind, in tower.Options) (dim int, packed bool, run string, err error) {
	r, err := tower.Open(ctx, in)
	if err != nil {
		return 0, false, "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	counts, malformed := map[int]int{}, "" // why the first row that has one has none
	for n := 0; n < detectRows || dim == 0; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return 0, false, "", err
			}
		}
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return 0, false, "", err
		}
		packed = row.Packed
		length := len(row.Vector)
		if length == 0 {
			if malformed == "" && len(row.Problems) > 0 && row.Problems[0].Kind == tower.BadEmbedding {
				malformed = ": " + row.Problems[0].Detail
			}
			continue
		}
		if counts[length]++; counts[length] > counts[dim] {
			dim = length
		}
	}
	name := in.Files.Files()[0].Name()
	if dim == 0 {
		return 0, false, "", fmt.Errorf("%s: %s has no embedding%s", kind, name, malformed)
	}
	if dim > index.MaxDim {
		return 0, false, "", fmt.Errorf("%s: %s has embeddings of dimension %d, want 1 to %d", kind, name, dim, index.MaxDim)
	}
	return dim, packed, r.Run(), nil
}

// asBytes says of numbers whether they were bytes.
func asBytes(numbers int, packed bool) string {
	if !packed {
		return ""
	}
	return fmt.Sprintf(" (%d bytes, read as float32)", 4*numbers)
}

// ingest reads a tower's input into spill files in dir, but for those who are forgotten.
func ingest(ctx context.Context, kind shard.Kind, o TowerOptions, metric index.Metric, dim int, dir string, leave *forgotten, progress Progress) (_ *ingested, err error) {
	r, err := tower.Open(ctx, o.Input)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	in := &ingested{kind: kind, dim: dim, inline: r.Schema().Len(), files: o.Input.Files.Files(), sample: newSample(), forgotten: leave}
	in.unknown = slices.Clone(r.Unknown())
	fields := r.Schema().Fields()
	var lines *tower.AttributeReader
	if len(o.Attributes.Paths) > 0 {
		if lines, err = tower.OpenAttributes(ctx, o.Attributes); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, lines.Close()) }()
		in.line = lines.Place
		in.unknown = common(in.unknown, lines.Unknown())
		fields = append(fields, lines.Schema().Fields()...)
	}
	if in.schema, err = attribute.NewSchema(fields); err != nil {
		return nil, fmt.Errorf("%s: %w", kind, err)
	}
	for _, f := range fields {
		field, _ := in.schema.Lookup(f.Name)
		in.columns = append(in.columns, field)
	}

	defer func() {
		for _, s := range slices.Concat(in.rows, in.joined) {
			if finished := s.finish(); err == nil {
				err = finished // after an error it would only be repeated
			}
		}
	}()
	for i := range o.Shards {
		s, err := newSpill(filepath.Join(dir, fmt.Sprintf("%s-%04d.rows", kind, i)), dim)
		if err != nil {
			return nil, err
		}
		in.rows = append(in.rows, s)
		if lines == nil {
			continue
		}
		if s, err = newSpill(filepath.Join(dir, fmt.Sprintf("%s-%04d.attributes", kind, i)), 0); err != nil {
			return nil, err
		}
		in.joined = append(in.joined, s)
	}
	if err := in.readRows(ctx, r, metric, progress); err != nil {
		return nil, err
	}
	notes := r.Notes()
	if lines != nil {
		if err := in.readLines(ctx, lines, progress); err != nil {
			return nil, err
		}
		notes = append(notes, lines.Notes()...)
	}
	for _, note := range notes {
		progress.Note(fmt.Sprintf("%s: %s", kind, note))
	}
	return in, nil
}

// common returns those of a list that another has too.
func common(list, other []string) []string {
	return slices.DeleteFunc(list, func(name string) bool { return !slices.Contains(other, name) })
}

// checkEvery is how many rows pass between looks at the context and reports.
const checkEvery = 4096

func (in *ingested) readRows(ctx context.Context, r tower.Reader, metric index.Metric, progress Progress) error {
	progress.Stage(fmt.Sprintf("read %s", in.kind), r.Rows())
	for n := int64(0); ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress.Step(n)
		}
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			progress.Step(n)
			return nil
		}
		if err != nil {
			return err
		}
		for len(in.starts) <= row.File {
			in.starts = append(in.starts, row.Number)
		}
		if in.forgotten.leave(row.ID) {
			continue
		}
		if kind, err := in.judge(row, metric); err != nil {
			in.rejections.add(kind, fmt.Sprintf("%s (id %.64q): %v", in.row(row.Number), row.ID, err))
			continue
		}
		in.sample.offer(row.ID, row.Vector)
		rec := record{number: row.Number, id: row.ID, vector: row.Vector, attributes: row.Attributes}
		if err := in.rows[shard.Partition(row.ID, len(in.rows))].write(&rec); err != nil {
			return err
		}
	}
}

// row says where a row is, by its number in the whole input: the file, if there are several,
// and its number there, from 0.
func (in *ingested) row(number int64) string {
	if len(in.files) < 2 {
		return fmt.Sprintf("row %d", number)
	}
	file := sort.Search(len(in.starts), func(i int) bool { return in.starts[i] > number }) - 1
	return fmt.Sprintf("row %d of %s", number-in.starts[file], in.files[file].Name())
}

// judge returns why a row cannot be served, or nil.
func (in *ingested) judge(row *tower.Row, metric index.Metric) (kind string, err error) {
	if kind, err := judgeID(row.ID); err != nil {
		return kind, err
	}
	problem := func() (string, error) {
		return string(row.Problems[0].Kind), errors.New(row.Problems[0].Detail)
	}
	if len(row.Problems) > 0 && row.Problems[0].Kind == tower.BadEmbedding { // there is no vector, and this says why
		return problem()
	}
	if len(row.Vector) != in.dim {
		return "wrong dimension", fmt.Errorf("embedding has %d numbers%s, want %d", len(row.Vector), asBytes(len(row.Vector), row.Packed), in.dim)
	}
	if kind, err := judgeVector(metric, row.Vector); err != nil {
		return kind, err
	}
	if len(row.Problems) > 0 {
		return problem()
	}
	return in.judgeAttributes(in.columns[:in.inline], row.Attributes)
}

// judgeAttributes returns why values cannot be stored as the attributes of those
// schema positions, or nil.
func (in *ingested) judgeAttributes(columns []int, values []attribute.Value) (kind string, err error) {
	for i, v := range values {
		if err := in.schema.Field(columns[i]).Check(v); err != nil {
			return "invalid attribute", err
		}
	}
	return "", nil
}

func (in *ingested) readLines(ctx context.Context, r *tower.AttributeReader, progress Progress) error {
	progress.Stage(fmt.Sprintf("read %s attributes", in.kind), -1)
	for n := int64(0); ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
			progress.Step(n)
		}
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			progress.Step(n)
			return nil
		}
		if err != nil {
			return err
		}
		if in.forgotten.leave(row.ID) {
			continue
		}
		rec := record{number: row.Line, id: row.ID, attributes: row.Attributes}
		if len(row.Problems) > 0 {
			p := row.Problems[0]
			in.rejections.add(string(p.Kind), fmt.Sprintf("%s (id %.64q)", p.Detail, row.ID))
			rec.rejected = true
		} else if kind, err := in.judgeAttributes(in.columns[in.inline:], row.Attributes); err != nil {
			in.rejections.add(kind, fmt.Sprintf("%s (id %.64q): %v", r.Place(row.Line), row.ID, err))
			rec.rejected = true
		}
		if row.ID == "" {
			continue // counted above; there is no row to leave out
		}
		if err := in.joined[shard.Partition(row.ID, len(in.rows))].write(&rec); err != nil {
			return err
		}
	}
}
