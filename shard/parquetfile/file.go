package parquetfile

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/metadata"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// ErrDamaged is the class of errors that say that a file is not what its own words say.
var ErrDamaged = errors.New("damaged file")

// ErrEncrypted is the class of errors that say that a file is encrypted. There is no way
// to give a key.
var ErrEncrypted = errors.New("the file is encrypted")

const (
	magic          = "PAR1"
	magicEncrypted = "PARE"
	frameBytes     = 12 // two magics and the footer's length
	// bufferBytes is how much of a column is read at a time.
	bufferBytes = 64 << 10
)

// A File is a Parquet file whose footer has been read. It may be used by several
// goroutines; a [Column] of it, by one.
type File struct {
	r      io.ReaderAt
	size   int64
	meta   *metadata.FileMetaData
	rows   int64
	limits Limits
	budget *budget
}

// Limits bound what a file may take, in bytes. Zero is no bound but the reader's own.
type Limits struct {
	FooterBytes   int64 // the footer
	PageBytes     int64 // a page, decompressed
	UnpackedBytes int64 // all pages that are read, decompressed
}

// guard turns a panic of arrow-go on a damaged file into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// Open reads the footer of a file of a size. The caller keeps r open while it uses the
// File, and closes it.
func Open(r io.ReaderAt, size int64) (*File, error) { return OpenWithin(r, size, Limits{}) }

// OpenWithin is Open for a file that may take no more than limits say. What goes beyond
// is an error of class [ErrDamaged].
func OpenWithin(r io.ReaderAt, size int64, limits Limits) (_ *File, err error) {
	defer guard(&err)
	var head [len(magic)]byte
	var tail [8]byte
	if size < frameBytes {
		return nil, fmt.Errorf("%w: %d bytes are no Parquet file", ErrDamaged, size)
	}
	if err := readFull(r, head[:], 0); err != nil {
		return nil, err
	}
	if err := readFull(r, tail[:], size-int64(len(tail))); err != nil {
		return nil, err
	}
	length := int64(binary.LittleEndian.Uint32(tail[:]))
	switch end := string(tail[4:]); {
	case string(head[:]) == magicEncrypted || end == magicEncrypted:
		return nil, ErrEncrypted
	case string(head[:]) != magic:
		return nil, fmt.Errorf("%w: it begins with %q, a Parquet file with %q", ErrDamaged, head[:], magic)
	case end != magic:
		return nil, fmt.Errorf("%w: it ends with %q, a Parquet file with %q: is it truncated?", ErrDamaged, tail[4:], magic)
	case length > size-frameBytes:
		return nil, fmt.Errorf("%w: parquet footer of %d bytes in a file of %d: is it truncated?", ErrDamaged, length, size)
	case limits.FooterBytes > 0 && length > limits.FooterBytes:
		return nil, fmt.Errorf("%w: parquet footer of %d bytes; accepted: up to %d", ErrDamaged, length, limits.FooterBytes)
	}
	footer := make([]byte, length)
	if err := readFull(r, footer, size-int64(len(tail))-length); err != nil {
		return nil, err
	}
	footer, err = checkFooter(footer)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewFileMetaData(footer, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: footer: %w", ErrDamaged, err)
	}
	meta.SetSourceFileSize(size)
	f := &File{r: r, size: size, meta: meta, limits: limits, budget: newBudget(size, limits)}
	return f, f.checkRows()
}

// readFull reads all of p at an offset.
func readFull(r io.ReaderAt, p []byte, offset int64) error {
	n, err := r.ReadAt(p, offset)
	if n == len(p) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// checkRows checks that the row groups have the rows and columns that the footer says, that
// their columns are no longer than the file, and sets the number of rows. Some writers say
// none.
func (f *File) checkRows() error {
	rows, bytes, levels := int64(0), int64(0), int64(0)
	mostLevels := levelCount + levelsPerByte*f.size
	for i := range f.Groups() {
		g := f.meta.RowGroup(i)
		n := g.NumRows()
		if rows += n; n < 0 || rows < 0 {
			return fmt.Errorf("%w: row group %d of %d rows", ErrDamaged, i, n)
		}
		if got, want := g.NumColumns(), f.meta.Schema.NumColumns(); got != want {
			return fmt.Errorf("%w: row group %d has %d columns, the schema %d", ErrDamaged, i, got, want)
		}
		for _, c := range f.meta.RowGroups[i].Columns {
			m := c.GetMetaData()
			if m == nil { // of an encrypted column
				continue
			}
			n, size := m.GetNumValues(), m.GetTotalCompressedSize()
			switch {
			case n < 0 || n > mostLevels-levels:
				return fmt.Errorf("%w: columns of more than %d values in a file of %d bytes", ErrDamaged, mostLevels, f.size)
			case size < 0 || size > f.size-bytes:
				return fmt.Errorf("%w: columns of more bytes than the file, which has %d", ErrDamaged, f.size)
			}
			levels, bytes = levels+n, bytes+size
		}
	}
	if said := f.meta.GetNumRows(); said != 0 && said != rows {
		return fmt.Errorf("%w: row groups of %d rows in a file of %d", ErrDamaged, rows, said)
	}
	f.rows = rows
	return nil
}

// Schema returns what the file has.
func (f *File) Schema() *schema.Schema { return f.meta.Schema }

// Rows returns the number of rows.
func (f *File) Rows() int64 { return f.rows }

// Groups returns the number of row groups.
func (f *File) Groups() int { return len(f.meta.RowGroups) }

// GroupRows returns the number of rows in a row group.
func (f *File) GroupRows(group int) int64 { return f.meta.RowGroup(group).NumRows() }

// Value returns a value of the file's own metadata, by its key.
func (f *File) Value(key string) (string, bool) {
	if v := f.meta.KeyValueMetadata().FindValue(key); v != nil {
		return *v, true
	}
	return "", false
}

// Column opens the column of a leaf in a row group. The caller closes it.
func (f *File) Column(group, leaf int) (_ *Column, err error) {
	defer guard(&err)
	if f.meta.RowGroups[group].Columns[leaf].IsSetCryptoMetadata() {
		return nil, ErrEncrypted
	}
	meta, err := f.meta.RowGroup(group).ColumnChunk(leaf)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if path := meta.FilePath(); path != "" {
		return nil, fmt.Errorf("its data are in another file, %.200q", path)
	}
	descr := f.meta.Schema.Column(leaf)
	if meta.Type() != descr.PhysicalType() {
		return nil, fmt.Errorf("%w: a column of %v, which is of %v in the schema", ErrDamaged, meta.Type(), descr.PhysicalType())
	}
	start, size := meta.DataPageOffset(), meta.TotalCompressedSize()
	if at := meta.DictionaryPageOffset(); meta.HasDictionaryPage() && at > 0 && at < start {
		start = at
	}
	if start < 0 || size < 0 || start > f.size || size > f.size-start {
		return nil, fmt.Errorf("%w: a column of %d bytes at %d in a file of %d", ErrDamaged, size, start, f.size)
	}
	c := &Column{
		Leaf: descr,
		chunk: chunk{
			r: f.r, compression: meta.Compression(), total: meta.NumValues(), width: leastBytes(descr), decoded: decodedBytes(descr),
			next: start, end: start + size, most: maxPageBytes, budget: f.budget,
		},
		batch:  max(leastBatch, min(batchLevels, batchLevels*fullBatches/int64(f.meta.Schema.NumColumns()))),
		maxDef: descr.MaxDefinitionLevel(), maxRep: descr.MaxRepetitionLevel(),
	}
	if most := f.limits.PageBytes; most > 0 {
		c.chunk.most = min(c.chunk.most, most)
	}
	if f.meta.WriterVersion().LessThan(metadata.Parquet816FixedVersion) {
		c.chunk.end = min(f.size, c.chunk.end+dictionaryHeaderBytes)
	} else {
		c.whole = true
	}
	if rows := f.GroupRows(group); c.chunk.total < rows || c.maxRep == 0 && c.chunk.total != rows {
		return nil, fmt.Errorf("%w: a column of %d values in a row group of %d rows", ErrDamaged, c.chunk.total, rows)
	}
	properties := parquet.NewReaderProperties(nil)
	properties.BufferedStreamEnabled = true
	properties.BufferSize = bufferBytes
	properties.MaxCompressedPageSize, properties.MaxUncompressedPageSize = maxPageBytes, maxPageBytes
	r, err := file.NewParquetReader(&c.chunk, file.WithMetadata(f.meta), file.WithReadProps(properties))
	if err != nil {
		return nil, err
	}
	pages, err := r.RowGroup(group).GetColumnPageReader(leaf)
	if err != nil {
		return nil, err
	}
	pages = &checker{PageReader: pages, chunk: &c.chunk, maxDef: c.maxDef, maxRep: c.maxRep}
	if descr.PhysicalType() == parquet.Types.FixedLenByteArray {
		c.readers = fixedReaders(descr, pages, r.BufferPool())
		return c, nil
	}
	//nolint:staticcheck // there is no other way to look at pages before their values are decoded
	reader := file.NewColumnReader(descr, pages, memory.NewGoAllocator(), r.BufferPool())
	if reader == nil {
		return nil, fmt.Errorf("%w: a column of type %v", ErrDamaged, descr.PhysicalType())
	}
	c.readers = []file.ColumnChunkReader{reader}
	return c, nil
}

// dictionaryHeaderBytes is by how much old writers' columns may be longer than they say.
const dictionaryHeaderBytes = 100

// leastBytes returns the least that a value of a leaf takes in a dictionary.
func leastBytes(leaf *schema.Column) int64 {
	switch leaf.PhysicalType() {
	case parquet.Types.Int32, parquet.Types.Float, parquet.Types.ByteArray:
		return 4
	case parquet.Types.Int64, parquet.Types.Double:
		return 8
	case parquet.Types.Int96:
		return 12
	case parquet.Types.FixedLenByteArray:
		return max(1, int64(leaf.TypeLength()))
	}
	return 1
}

// decodedBytes returns what a value of a leaf's dictionary takes when it has been decoded.
func decodedBytes(leaf *schema.Column) int64 {
	switch t := leaf.PhysicalType(); t {
	case parquet.Types.ByteArray, parquet.Types.FixedLenByteArray:
		return int64(unsafe.Sizeof(parquet.ByteArray{}))
	default:
		return int64(t.ByteSize())
	}
}
