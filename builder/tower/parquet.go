package tower

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// A parquetReader reads the files of a tower one after the other, and in each
// the row groups one after the other, with one cursor for each column it needs.
// All footers are read when it is opened, so that a schema that changes between
// files is known before any row is used.
type parquetReader struct {
	options Options
	files   []input.File
	schema  attribute.Schema
	rows    int64
	tally   tally
	notes   []string          // known from the footers
	unknown []string          // columns that were to be ignored
	dated   map[string]*dated // of attributes by name
	run     run               // that wrote the rows
	nulls   []string          // attributes without a value, and so without a type
	counts  []int64           // rows of each file
	packed  string            // how embeddings that are bytes are read, "" before the first

	first   int // position of the first file in the input
	next    int // file
	file    *parquetfile.File
	group   int   // that is read next
	left    int64 // rows left in the row group
	id      *column
	vectors *vectors
	runs    *column   // that names the training run; nil without
	columns []*column // attributes
	cursors []*column // all columns

	row Row
	err error
}

// openParquet opens files that are read one after the other. They stay the caller's.
func openParquet(o Options, files []input.File) (*parquetReader, error) {
	r := &parquetReader{options: o, files: files, dated: make(map[string]*dated)}
	if o.IDColumn == "" {
		return nil, fmt.Errorf("open %s: no id column is named", files[0].Name())
	}
	r.row.Number = -1
	if part := o.Part; part == nil {
		if err := r.survey(); err != nil {
			return nil, err
		}
	} else {
		if err := r.surveyPart(); err != nil {
			return nil, err
		}
		r.first = part.First
		r.row.Number += part.Survey.Starts()[r.first]
	}
	r.row.Attributes = make([]attribute.Value, r.schema.Len())
	return r, nil
}

// survey reads all footers, checks that they agree, and sets schema and rows.
func (r *parquetReader) survey() error {
	type origin struct {
		shape  shape
		column string
		file   string
	}
	first := make(map[string]origin) // where each attribute's type is from
	var id origin
	notes := make(map[string]bool)
	r.unknown = slices.Clone(r.options.IgnoreColumns)
	for i, f := range r.files {
		pf, err := openParquetFile(f)
		if err != nil {
			return err
		}
		s, err := selectColumns(pf, &r.options)
		if err != nil {
			return fmt.Errorf("open %s: %w", f.Name(), err)
		}
		r.counts = append(r.counts, pf.Rows())
		if r.rows += pf.Rows(); r.rows < 0 {
			return fmt.Errorf("open %s: %w: %d rows", f.Name(), parquetfile.ErrDamaged, pf.Rows())
		}
		if err := r.run.ofFile(pf, s.run != nil, f.Name(), i == 0); err != nil {
			return err
		}
		for _, note := range s.notes {
			notes[note] = true
		}
		r.unknown = slices.DeleteFunc(r.unknown, func(column string) bool { return slices.Contains(s.ignored, column) })
		differs := func(column string, s shape, o origin) error {
			return fmt.Errorf("open %s: column %s is %s, and %s in %s: all files of an input must have the same types", f.Name(), column, s.text, o.shape.text, o.file)
		}
		if i == 0 {
			id = origin{s.id, r.options.IDColumn, f.Name()}
		} else if s.id.attribute() != id.shape.attribute() {
			return differs(id.column, s.id, id)
		}
		for k, a := range s.attributes {
			o, ok := first[a.name]
			switch {
			case !ok && i > 0:
				return fmt.Errorf("open %s: column %s is not in %s: all files of an input must have the same columns", f.Name(), s.columns[k], r.files[0].Name())
			case !ok || o.shape.null():
				first[a.name] = origin{a, s.columns[k], f.Name()}
			case a.null():
			case a.float() && o.shape.float(): // of both widths, the wider
				if a.attribute() == attribute.Float {
					first[a.name] = origin{a, s.columns[k], f.Name()}
				}
			case a.attribute() != o.shape.attribute():
				return differs(s.columns[k], a, o)
			}
		}
		for name, o := range first {
			if !slices.ContainsFunc(s.attributes, func(a shape) bool { return a.name == name }) {
				return fmt.Errorf("open %s: column %s of %s is missing: all files of an input must have the same columns", f.Name(), o.column, o.file)
			}
		}
	}
	var fields []attribute.Field
	for name, o := range first {
		if o.shape.null() {
			notes["column "+o.column+": has nulls only and no type, left out"] = true
			r.nulls = append(r.nulls, name)
		} else {
			fields = append(fields, attribute.Field{Name: name, Type: o.shape.attribute()})
		}
	}
	slices.Sort(r.nulls)
	for note := range notes {
		r.notes = append(r.notes, note)
	}
	slices.Sort(r.notes)
	var err error
	if r.schema, err = attribute.NewSchema(fields); err != nil {
		return &ColumnsError{fmt.Errorf("open %s: %w; skip a column, or rename it", r.files[0].Name(), err)}
	}
	return nil
}

// maxListed is how many names an error lists.
const maxListed = 100

// listed joins names for an error.
func listed(names []string) string {
	if n := len(names); n > maxListed {
		return strings.Join(names[:maxListed], ", ") + fmt.Sprintf(" and %d more", n-maxListed)
	}
	return strings.Join(names, ", ")
}

// openParquetFile reads the footer of a file.
func openParquetFile(f input.File) (*parquetfile.File, error) {
	pf, err := parquetfile.Open(f, f.Size())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name(), err)
	}
	return pf, nil
}

func (r *parquetReader) Schema() attribute.Schema { return r.schema }
func (r *parquetReader) Rows() int64              { return r.rows }
func (r *parquetReader) Unknown() []string        { return r.unknown }
func (r *parquetReader) Run() string              { return r.run.name }

func (r *parquetReader) Survey() *Survey {
	return &Survey{Format: input.Parquet, Rows: r.counts, Columns: r.schema.Fields(), Nulls: r.nulls, Run: r.run.name, Said: r.run.said}
}

func (r *parquetReader) Notes() []string {
	notes := slices.Clone(r.notes)
	if r.packed != "" {
		notes = append(notes, r.packed)
	}
	for _, name := range slices.Sorted(maps.Keys(r.dated)) {
		if d := r.dated[name]; areNearlyAll(d.times, d.texts) {
			notes = append(notes, fmt.Sprintf("attribute %s: %d of %d strings are dates or times, and are keywords; the type timestamp would make them timestamps", name, d.times, d.texts))
		}
	}
	return append(notes, r.tally.notes()...)
}

// Close lets go of what is being read. The files stay open.
func (r *parquetReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read tower: the reader is closed")
	}
	return r.closeColumns()
}

func (r *parquetReader) closeColumns() error {
	var errs []error
	for _, c := range r.cursors {
		errs = append(errs, c.close())
	}
	return errors.Join(errs...)
}

func (r *parquetReader) Next() (*Row, error) {
	if r.err == nil {
		r.err = r.read()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.row, nil
}

// read reads the next row.
func (r *parquetReader) read() (err error) {
	r.row.Number++
	defer func() {
		if err != nil && !errors.Is(err, io.EOF) {
			err = fmt.Errorf("read %s: row %d of the input: %w", r.files[max(r.next-1, 0)].Name(), r.row.Number, err)
		}
	}()
	for r.left == 0 {
		if err := r.advance(); err != nil {
			return err
		}
	}
	r.left--
	r.row.Problems = r.row.Problems[:0]
	if r.row.ID, err = r.id.id(); err != nil {
		return fmt.Errorf("column %s: %w", r.id.name, err)
	}
	if r.runs != nil {
		name, err := r.runs.id()
		if err == nil {
			err = r.run.ofRow(name)
		}
		if err != nil {
			return fmt.Errorf("column %s: %w", RunKey, err)
		}
	}
	var problem *Problem
	if r.row.Vector, problem, err = r.vectors.next(); err != nil {
		return err
	}
	if problem != nil {
		r.row.Problems = append(r.row.Problems, *problem)
	}
	if r.row.Packed = r.vectors.form == formPacked; r.row.Packed && r.packed == "" {
		r.packed = r.vectors.said
	}
	for _, c := range r.columns {
		v, said, err := c.value()
		if err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
		r.row.Attributes[c.attribute] = v
		if said.note != "" {
			r.tally.add(said.note)
		}
		if said.problem != nil {
			r.row.Problems = append(r.row.Problems, *said.problem)
		}
	}
	return nil
}

// advance goes to the next row group, of the next file if need be.
func (r *parquetReader) advance() error {
	for _, c := range r.cursors {
		if c.chunk == nil {
			continue
		}
		if err := c.finish(); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	for r.file == nil || r.group == r.file.Groups() {
		if r.next == len(r.files) {
			return io.EOF
		}
		if err := r.openNext(); err != nil {
			return err
		}
	}
	r.left = r.file.GroupRows(r.group)
	for _, c := range r.cursors {
		if err := c.open(r.file, r.group); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	r.group++
	return nil
}

// openNext opens the next file.
func (r *parquetReader) openNext() error {
	if err := r.closeColumns(); err != nil {
		return err
	}
	f := r.files[r.next]
	r.row.File = r.first + r.next
	r.next++
	pf, err := openParquetFile(f)
	if err != nil {
		return err
	}
	s, err := selectColumns(pf, &r.options)
	if err != nil {
		return err
	}
	clear(r.row.Attributes)
	r.file, r.group = pf, 0
	r.id = &column{shape: s.id, name: r.options.IDColumn, attribute: -1}
	r.vectors = newVectors(s.embedding)
	if r.runs = nil; s.run != nil {
		r.runs = &column{shape: *s.run, name: RunKey, attribute: -1}
	}
	r.columns = r.columns[:0]
	for _, a := range s.attributes {
		if a.null() {
			continue
		}
		i, ok := r.schema.Lookup(a.name)
		if !ok {
			return fmt.Errorf("%w: a column %s that it did not have before", parquetfile.ErrDamaged, a.name)
		}
		c := &column{shape: a, name: a.name, attribute: i, typ: r.schema.Field(i).Type}
		if _, told := r.options.AttributeTypes[a.name]; c.typ == attribute.Keyword && !told {
			if r.dated[a.name] == nil {
				r.dated[a.name] = &dated{}
			}
			c.dated = r.dated[a.name]
		}
		r.columns = append(r.columns, c)
	}
	r.cursors = slices.Concat([]*column{r.id}, r.vectors.columns, r.columns)
	if r.runs != nil {
		r.cursors = append(r.cursors, r.runs)
	}
	return nil
}
