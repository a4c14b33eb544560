package tower

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/parquet-go/parquet-go"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// ParquetOptions say what a Parquet file holds.
type ParquetOptions struct {
	// IDColumn names the column of ids.
	IDColumn string
	// EmbeddingColumn names the column of vectors. When it is "" the file has
	// no vectors, as a file of interactions.
	EmbeddingColumn string
	// Schema lists the attributes: one nullable column for each.
	Schema attribute.Schema
	// RowGroupRows is the largest number of rows in a row group, which is held
	// in memory, compressed, until it is whole. The default is 65,536.
	RowGroupRows int
}

// DefaultRowGroupRows is the number of rows in a row group unless given.
const DefaultRowGroupRows = 65536

// A ParquetWriter writes a tower to a Parquet file that appears under its name
// only when it is whole. Vectors are lists of float in the three-level form,
// keyword lists are lists of string, and timestamps are milliseconds in UTC:
// finer ones are rounded down. An absent value is null. Pages are compressed
// with zstd.
type ParquetWriter struct {
	path    string
	file    *os.File
	w       *parquet.GenericWriter[any]
	options ParquetOptions
	columns []writerColumn
	pending int // rows in the columns' buffers
	group   int // rows in the row group
	err     error
}

// A writerColumn collects a column's values before they are encoded.
type writerColumn struct {
	w      *parquet.ColumnWriter
	index  int
	values []parquet.Value
}

// batchRows is how many rows are collected before they are encoded.
const batchRows = 256

// CreateParquet starts a Parquet file. The caller must call Close to publish it,
// or Abort.
func CreateParquet(path string, o ParquetOptions) (w *ParquetWriter, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("create %s: %w", path, err)
		}
	}()
	if o.RowGroupRows == 0 {
		o.RowGroupRows = DefaultRowGroupRows
	}
	if o.IDColumn == "" || o.RowGroupRows < 0 {
		return nil, fmt.Errorf("id column %q and row groups of %d rows: want a name and a positive number", o.IDColumn, o.RowGroupRows)
	}
	leaf := func(n parquet.Node) parquet.Node { return parquet.Compressed(n, &parquet.Zstd) }
	group := parquet.Group{o.IDColumn: leaf(parquet.String())}
	add := func(name string, n parquet.Node) error {
		if _, ok := group[name]; ok {
			return fmt.Errorf("two columns are called %s", name)
		}
		group[name] = n
		return nil
	}
	if o.EmbeddingColumn != "" {
		// Optional, so that any Row can be written, which tests need.
		if err := add(o.EmbeddingColumn, parquet.Optional(parquet.List(leaf(parquet.Leaf(parquet.FloatType))))); err != nil {
			return nil, err
		}
	}
	dictionary := func(n parquet.Node) parquet.Node { return parquet.Encoded(n, &parquet.RLEDictionary) }
	for _, f := range o.Schema.Fields() {
		var n parquet.Node
		switch f.Type {
		case attribute.Keyword:
			n = leaf(dictionary(parquet.String()))
		case attribute.KeywordList:
			n = parquet.List(leaf(dictionary(parquet.String())))
		case attribute.Bool:
			n = leaf(parquet.Leaf(parquet.BooleanType))
		case attribute.Int:
			n = leaf(parquet.Int(64))
		case attribute.Float:
			n = leaf(parquet.Leaf(parquet.DoubleType))
		case attribute.Float32:
			n = leaf(parquet.Leaf(parquet.FloatType))
		case attribute.Timestamp:
			n = leaf(parquet.Timestamp(parquet.Millisecond))
		}
		if err := add(f.Name, parquet.Optional(n)); err != nil {
			return nil, err
		}
	}
	schema := parquet.NewSchema("tower", group)

	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, err
	}
	w = &ParquetWriter{path: path, file: f, options: o}
	w.w = parquet.NewGenericWriter[any](f, schema,
		parquet.PageBufferSize(1<<20),
		parquet.WriteBufferSize(1<<20),
		parquet.DictionaryMaxBytes(1<<20),
		parquet.DataPageStatistics(false),
		parquet.CreatedBy("tandem", "", ""),
	)
	// The columns in the order of a row's values: id, vector, attributes.
	names := []string{o.IDColumn}
	if o.EmbeddingColumn != "" {
		names = append(names, o.EmbeddingColumn)
	}
	names = append(names, o.Schema.Names()...)
	leaves := make(map[string]int)
	for i, path := range schema.Columns() {
		leaves[path[0]] = i
	}
	for _, name := range names {
		i := leaves[name]
		w.columns = append(w.columns, writerColumn{w: w.w.ColumnWriters()[i], index: i})
	}
	return w, nil
}

// Definition levels of an optional list of required elements.
const (
	listNull = iota
	listEmpty
	listElement
)

// Append writes a row. It copies what it needs. A row of another number of
// attributes than the schema has, or an attribute of another type, is an error.
func (w *ParquetWriter) Append(row *Row) error {
	if w.err == nil {
		w.err = w.append(row)
	}
	return w.err
}

func (w *ParquetWriter) append(row *Row) error {
	if len(row.Attributes) != w.options.Schema.Len() {
		return fmt.Errorf("write %s: row has %d attributes, the schema %d", w.path, len(row.Attributes), w.options.Schema.Len())
	}
	columns := w.columns
	put := func(v parquet.Value, repetition, definition int) {
		c := &columns[0]
		c.values = append(c.values, v.Level(repetition, definition, c.index))
	}
	put(parquet.ByteArrayValue([]byte(row.ID)), 0, 0)
	columns = columns[1:]
	if w.options.EmbeddingColumn != "" {
		switch {
		case row.Vector == nil:
			put(parquet.Value{}, 0, listNull)
		case len(row.Vector) == 0:
			put(parquet.Value{}, 0, listEmpty)
		}
		for i, f := range row.Vector {
			put(parquet.FloatValue(f), min(i, 1), listElement)
		}
		columns = columns[1:]
	}
	for i, v := range row.Attributes {
		if f := w.options.Schema.Field(i); !v.Absent() && v.Type() != f.Type {
			return fmt.Errorf("write %s: attribute %s is of type %v, the schema says %v", w.path, f.Name, v.Type(), f.Type)
		}
		switch v.Type() {
		case attribute.Keyword:
			put(parquet.ByteArrayValue([]byte(v.Keyword())), 0, 1)
		case attribute.KeywordList:
			for i, s := range v.Keywords() {
				put(parquet.ByteArrayValue([]byte(s)), min(i, 1), listElement)
			}
		case attribute.Bool:
			put(parquet.BooleanValue(v.Bool()), 0, 1)
		case attribute.Int:
			put(parquet.Int64Value(v.Int()), 0, 1)
		case attribute.Float:
			put(parquet.DoubleValue(v.Float()), 0, 1)
		case attribute.Float32:
			put(parquet.FloatValue(v.Float32()), 0, 1)
		case attribute.Timestamp:
			put(parquet.Int64Value(v.Time().UnixMilli()), 0, 1)
		default:
			put(parquet.Value{}, 0, 0)
		}
		columns = columns[1:]
	}
	w.pending++
	w.group++
	if w.pending < batchRows && w.group < w.options.RowGroupRows {
		return nil
	}
	if err := w.encode(); err != nil {
		return err
	}
	if w.group < w.options.RowGroupRows {
		return nil
	}
	w.group = 0
	if err := w.w.Flush(); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	return nil
}

// encode hands the collected values to the column writers.
func (w *ParquetWriter) encode() error {
	for i := range w.columns {
		c := &w.columns[i]
		if len(c.values) == 0 {
			continue
		}
		if _, err := c.w.WriteRowValues(c.values); err != nil {
			return fmt.Errorf("write %s: %w", w.path, err)
		}
		clear(c.values)
		c.values = c.values[:0]
	}
	w.pending = 0
	return nil
}

// Close writes what is left, makes the file durable and gives it its name. After
// an error, also of Append, no file is left behind.
func (w *ParquetWriter) Close() error {
	if w.file == nil {
		return w.err
	}
	if w.err == nil {
		w.err = w.encode()
	}
	if w.err == nil {
		w.err = w.publish()
	}
	if w.err != nil {
		return errors.Join(w.err, w.Abort())
	}
	w.file = nil
	return nil
}

func (w *ParquetWriter) publish() error {
	if err := errors.Join(w.w.Close(), w.file.Chmod(0o644), w.file.Sync()); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := w.file.Close(); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	if err := os.Rename(w.file.Name(), w.path); err != nil {
		return fmt.Errorf("publish %s: %w", w.path, err)
	}
	return sections.SyncDir(filepath.Dir(w.path))
}

// Abort removes the file unless it has been published.
func (w *ParquetWriter) Abort() error {
	if w.file == nil {
		return nil
	}
	name := w.file.Name()
	_ = w.file.Close() // closed already when publishing failed
	w.file = nil
	if w.err == nil {
		w.err = fmt.Errorf("write %s: aborted", w.path)
	}
	if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
