package tower

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/parquetfile"
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
	out     *bufio.Writer
	w       *parquetfile.Writer
	options ParquetOptions
	columns []parquetfile.Batch // that are not encoded yet
	pending int                 // rows in the columns' buffers
	group   int                 // rows in the row group
	err     error
}

// batchRows is how many rows are collected before they are encoded.
const batchRows = 256

const writeBufferBytes = 1 << 20

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
	root, dictionaries, err := writerSchema(o)
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, err
	}
	w = &ParquetWriter{path: path, file: f, options: o, columns: make([]parquetfile.Batch, root.NumFields())}
	w.out = bufio.NewWriterSize(f, writeBufferBytes)
	if w.w, err = parquetfile.Create(w.out, root, parquetfile.Options{Dictionaries: dictionaries}); err != nil {
		return nil, errors.Join(err, w.Abort())
	}
	return w, nil
}

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
	for i, v := range row.Attributes {
		if f := w.options.Schema.Field(i); !v.Absent() && v.Type() != f.Type {
			return fmt.Errorf("write %s: attribute %s is of type %v, the schema says %v", w.path, f.Name, v.Type(), f.Type)
		}
	}
	columns := w.columns
	putID(&columns[0], row.ID)
	columns = columns[1:]
	if w.options.EmbeddingColumn != "" {
		putVector(&columns[0], row.Vector)
		columns = columns[1:]
	}
	for i, v := range row.Attributes {
		putAttribute(&columns[i], w.options.Schema.Field(i).Type, v)
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
	if err := w.w.EndGroup(); err != nil {
		return fmt.Errorf("write %s: %w", w.path, err)
	}
	return nil
}

// encode hands the collected values to the file's writer.
func (w *ParquetWriter) encode() error {
	if w.pending == 0 {
		return nil
	}
	for i := range w.columns {
		if err := w.w.Append(i, &w.columns[i]); err != nil {
			return fmt.Errorf("write %s: %w", w.path, err)
		}
		clearBatch(&w.columns[i])
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
	if err := errors.Join(w.w.Close(), w.out.Flush(), w.file.Chmod(0o644), w.file.Sync()); err != nil {
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
