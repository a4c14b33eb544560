package tower

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/parquet-go/parquet-go"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
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
	notes   []string // known from the footers

	file    int                // being read
	groups  []parquet.RowGroup // left in file
	left    int64              // rows left in the row group
	id      *column
	vector  *column
	columns []*column // attributes

	row Row
	err error
}

// openParquet reads the footers of files.
func openParquet(o Options, files []input.File) (*parquetReader, error) {
	r := &parquetReader{options: o, files: files, file: -1}
	if o.IDColumn == "" {
		return nil, fmt.Errorf("open %s: no id column is named", files[0].Name())
	}
	if err := r.survey(); err != nil {
		return nil, err
	}
	r.row.Number = -1
	r.row.Attributes = make([]attribute.Value, r.schema.Len())
	return r, nil
}

// survey reads all footers, checks that they agree, and sets schema and rows.
func (r *parquetReader) survey() error {
	type origin struct {
		shape shape
		path  string
	}
	first := make(map[string]origin) // where each column's type is from
	ignored := make(map[string]bool)
	for i, f := range r.files {
		path := f.Name()
		pf, err := openParquetFile(f)
		if err != nil {
			return err
		}
		columns, err := r.wanted(path, pf, ignored)
		if err != nil {
			return err
		}
		rows := pf.NumRows()
		if rows < 0 || r.rows+rows < 0 {
			return fmt.Errorf("open %s: %w: %d rows", path, errDamaged, rows)
		}
		r.rows += rows
		for _, s := range columns {
			o, ok := first[s.name]
			switch {
			case !ok && i > 0:
				return fmt.Errorf("open %s: column %s is not in %s: all files of a folder must have the same columns", path, s.name, r.files[0].Name())
			case !ok || o.shape.null():
				first[s.name] = origin{s, path}
			case s.null():
			case s.name == r.options.EmbeddingColumn: // any list of floats
			case s.float() && o.shape.float() && s.list == o.shape.list: // of both widths, the wider
				if s.decoding == double {
					first[s.name] = origin{s, path}
				}
			case s.attribute() != o.shape.attribute():
				return fmt.Errorf("open %s: column %s is %s, and %s in %s: all files of a folder must have the same types", path, s.name, s.text, o.shape.text, o.path)
			}
		}
		for name := range first {
			if !slices.ContainsFunc(columns, func(s shape) bool { return s.name == name }) {
				return fmt.Errorf("open %s: column %s of %s is missing: all files of a folder must have the same columns", path, name, first[name].path)
			}
		}
	}
	var fields []attribute.Field
	for name, o := range first {
		switch {
		case name == r.options.IDColumn || name == r.options.EmbeddingColumn:
		case o.shape.null():
			r.notes = append(r.notes, "column "+name+": has nulls only and no type, left out")
		default:
			fields = append(fields, attribute.Field{Name: name, Type: o.shape.attribute()})
		}
	}
	for _, name := range r.options.IgnoreColumns {
		if !ignored[name] {
			r.notes = append(r.notes, "column "+name+": to be ignored, but not in the input")
		}
	}
	slices.Sort(r.notes)
	var err error
	if r.schema, err = attribute.NewSchema(fields); err != nil {
		return fmt.Errorf("open %s: %w; skip a column with --ignore-column", r.files[0].Name(), err)
	}
	return nil
}

// wanted returns the columns of a file that are not ignored, all of them usable.
func (r *parquetReader) wanted(path string, pf *parquet.File, ignored map[string]bool) (columns []shape, err error) {
	all, err := shapes(pf.Metadata().Schema)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	var names, unusable []string
	seen := make(map[string]bool)
	for _, s := range all {
		names = append(names, s.name)
		if seen[s.name] {
			return nil, fmt.Errorf("open %s: two columns are called %s", path, s.name)
		}
		seen[s.name] = true
		switch s.name {
		case r.options.IDColumn:
			if t := s.attribute(); t != attribute.Keyword && t != attribute.Int {
				return nil, fmt.Errorf("open %s: id column %s is %s, want strings or integers", path, s.name, s.text)
			}
		case r.options.EmbeddingColumn:
			if !s.list || !s.float() {
				return nil, fmt.Errorf("open %s: embedding column %s is %s, want a list of float, double or float16", path, s.name, s.text)
			}
		default:
			if slices.Contains(r.options.IgnoreColumns, s.name) {
				ignored[s.name] = true
				continue
			}
			if s.attribute() == 0 && !s.null() {
				unusable = append(unusable, fmt.Sprintf("%s (%s)", s.name, s.text))
			}
		}
		columns = append(columns, s)
	}
	for _, name := range []string{r.options.IDColumn, r.options.EmbeddingColumn} {
		if !seen[name] {
			return nil, fmt.Errorf("open %s: no column is called %s; the columns are %s", path, name, strings.Join(names, ", "))
		}
	}
	if len(unusable) > 0 {
		return nil, fmt.Errorf("open %s: cannot store column %s: %s", path, strings.Join(unusable, ", "), supportedColumns)
	}
	return columns, nil
}

// openParquetFile reads the footer of a file.
func openParquetFile(f input.File) (*parquet.File, error) {
	pf, err := parseParquet(f, f.Size())
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name(), err)
	}
	return pf, nil
}

// parseParquet reads the footer of a file of the given size.
func parseParquet(f io.ReaderAt, size int64) (pf *parquet.File, err error) {
	defer guard(&err)
	const frame = 12 // two magics and the footer's length
	var tail [8]byte
	if size < frame {
		return nil, fmt.Errorf("%d bytes are not a Parquet file", size)
	}
	if _, err := f.ReadAt(tail[:], size-8); err != nil {
		return nil, err
	}
	if footer := int64(binary.LittleEndian.Uint32(tail[:])); string(tail[4:]) == "PAR1" && footer > size-frame {
		return nil, fmt.Errorf("parquet footer of %d bytes in a file of %d: is the file truncated?", footer, size)
	}
	return parquet.OpenFile(f, size, parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true), parquet.ReadBufferSize(64<<10))
}

func (r *parquetReader) Schema() attribute.Schema { return r.schema }
func (r *parquetReader) Rows() int64              { return r.rows }
func (r *parquetReader) Notes() []string          { return append(slices.Clone(r.notes), r.tally.notes()...) }

func (r *parquetReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read tower: the reader is closed")
	}
	return r.closeFile()
}

func (r *parquetReader) closeFile() error {
	var errs []error
	for _, c := range r.cursors() {
		errs = append(errs, c.close())
	}
	r.id, r.vector, r.columns, r.groups = nil, nil, nil, nil
	return errors.Join(errs...)
}

// cursors returns the columns of the file being read.
func (r *parquetReader) cursors() []*column {
	if r.id == nil {
		return nil
	}
	return append([]*column{r.id, r.vector}, r.columns...)
}

func (r *parquetReader) Next() (*Row, error) {
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.row, nil
}

func (r *parquetReader) next() (err error) {
	defer func() {
		if err != nil && !errors.Is(err, io.EOF) {
			where := r.files[min(max(r.file, 0), len(r.files)-1)].Name()
			err = fmt.Errorf("read %s: row %d of the input: %w", where, r.row.Number, err)
		}
	}()
	defer guard(&err)
	r.row.Number++
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
	if r.row.Vector, err = r.vector.floats(); err != nil {
		return fmt.Errorf("column %s: %w", r.vector.name, err)
	}
	for _, c := range r.columns {
		var v attribute.Value
		var said remark
		if c.shape.list {
			v, said, err = c.keywords()
		} else {
			v, said, err = c.value()
		}
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
	for _, c := range r.cursors() {
		if c.pages == nil {
			continue
		}
		if err := c.finish(); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	for len(r.groups) == 0 {
		if err := r.closeFile(); err != nil {
			return err
		}
		if r.file++; r.file == len(r.files) {
			return io.EOF
		}
		r.row.File = r.file
		if err := r.openNext(); err != nil {
			return err
		}
	}
	group := r.groups[0]
	r.groups = r.groups[1:]
	if r.left = group.NumRows(); r.left < 0 {
		return fmt.Errorf("%w: row group of %d rows", errDamaged, r.left)
	}
	chunks := group.ColumnChunks()
	for _, c := range r.cursors() {
		if err := c.open(chunks[c.leaf]); err != nil {
			return fmt.Errorf("column %s: %w", c.name, err)
		}
	}
	return nil
}

// openNext opens the next file, which may have changed since the survey.
func (r *parquetReader) openNext() error {
	path := r.files[r.file].Name()
	pf, err := openParquetFile(r.files[r.file])
	if err != nil {
		return err
	}
	shapes, err := r.wanted(path, pf, make(map[string]bool))
	if err != nil {
		return err
	}
	clear(r.row.Attributes)
	columns := make([]*column, 0, len(shapes))
	for _, s := range shapes {
		c := &column{shape: s, attribute: -1}
		switch s.name {
		case r.options.IDColumn:
			r.id = c
		case r.options.EmbeddingColumn:
			r.vector = c
		default:
			if s.null() {
				continue
			}
			i, ok := r.schema.Lookup(s.name)
			if ok {
				c.typ = r.schema.Field(i).Type
			}
			if widened := c.typ == attribute.Float && s.attribute() == attribute.Float32; c.typ != s.attribute() && !widened {
				return fmt.Errorf("column %s is %s now: the file has changed while it was read", s.name, s.text)
			}
			c.attribute = i
			columns = append(columns, c)
		}
	}
	r.columns = columns
	r.groups = pf.RowGroups()
	return nil
}
