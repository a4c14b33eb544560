package parquetfile

import (
	"fmt"
	"io"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// What is written: pages of about a MiB, compressed with zstd.
const (
	pageBytes = 1 << 20
	createdBy = "tandem"
)

// Options say how a file is written.
type Options struct {
	// Dictionaries are the paths of leaves whose values repeat, with dots.
	Dictionaries []string
	// Metadata are values of the file's own metadata, by their keys.
	Metadata map[string]string
}

// A Writer writes a Parquet file.
type Writer struct {
	out   *sink
	w     *file.Writer
	group file.BufferedRowGroupWriter // nil between two
}

// A sink keeps the first error of what it writes to.
type sink struct {
	io.Writer
	err error
}

func (s *sink) Write(p []byte) (int, error) {
	if s.err != nil {
		return 0, s.err
	}
	n, err := s.Writer.Write(p)
	s.err = err
	return n, err
}

// Create starts a file of a schema. Closing the Writer leaves out open.
func Create(out io.Writer, root *schema.GroupNode, o Options) (_ *Writer, err error) {
	properties := []parquet.WriterProperty{
		parquet.WithAllocator(memory.NewGoAllocator()),
		parquet.WithCompression(compress.Codecs.Zstd),
		parquet.WithDataPageSize(pageBytes),
		parquet.WithDictionaryDefault(false),
		parquet.WithDictionaryPageSizeLimit(pageBytes),
		parquet.WithStats(false), // they would have the least and the largest value, whole
		parquet.WithCreatedBy(createdBy),
		parquet.WithVersion(parquet.V2_LATEST),
	}
	for _, path := range o.Dictionaries {
		properties = append(properties, parquet.WithDictionaryPath(strings.Split(path, "."), true))
	}
	meta := metadata.NewKeyValueMetadata()
	for key, value := range o.Metadata {
		if err := meta.Append(key, value); err != nil {
			return nil, err
		}
	}
	w := &Writer{out: &sink{Writer: out}}
	w.w, err = file.NewParquetWriterWithError(w.out, root, file.WithWriterProps(parquet.NewWriterProperties(properties...)), file.WithWriteMetadata(meta))
	return w, err
}

// Append writes levels and values to a leaf of the row group that has begun, or begins
// one. All leaves must have the same number of rows before EndGroup. The batch is free to
// be changed afterwards.
func (w *Writer) Append(leaf int, b *Batch) (err error) {
	if w.group == nil {
		if w.group, err = w.w.AppendBufferedRowGroupChecked(); err != nil {
			return err
		}
	}
	c, err := w.group.Column(leaf)
	if err != nil {
		return err
	}
	switch c := c.(type) {
	case *file.BooleanColumnChunkWriter:
		_, err = c.WriteBatch(b.Bools, b.Def, b.Rep)
	case *file.Int32ColumnChunkWriter:
		_, err = c.WriteBatch(b.Int32s, b.Def, b.Rep)
	case *file.Int64ColumnChunkWriter:
		_, err = c.WriteBatch(b.Int64s, b.Def, b.Rep)
	case *file.Float32ColumnChunkWriter:
		_, err = c.WriteBatch(b.Floats, b.Def, b.Rep)
	case *file.Float64ColumnChunkWriter:
		_, err = c.WriteBatch(b.Doubles, b.Def, b.Rep)
	case *file.ByteArrayColumnChunkWriter:
		_, err = c.WriteBatch(b.Bytes, b.Def, b.Rep)
	default:
		err = fmt.Errorf("leaf %d has the type %v, which is not written", leaf, c.Descr().PhysicalType())
	}
	return err
}

// EndGroup writes the row group that has begun, if there is one.
func (w *Writer) EndGroup() error {
	if w.group == nil {
		return nil
	}
	err := w.group.Close()
	w.group = nil
	if err == nil {
		err = w.out.err
	}
	return err
}

// Close writes what is left, and the footer.
func (w *Writer) Close() error {
	if err := w.EndGroup(); err != nil {
		return err
	}
	if err := w.w.Close(); err != nil {
		return err
	}
	return w.out.err
}
