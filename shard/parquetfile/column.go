package parquetfile

import (
	"errors"
	"fmt"
	"io"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
)

// Bounds of a batch.
const (
	batchLevels = 8192
	batchBytes  = 1024 // of byte arrays, how many
	// Where there are more columns than fullBatches, batches have fewer levels, but not
	// fewer than leastBatch.
	fullBatches = 64
	leastBatch  = 128
	// expandedBytes bounds what a batch of DELTA_BYTE_ARRAY takes, whose values repeat
	// what they have in common with the ones before.
	expandedBytes = 32 << 20
)

// A Column is a cursor over a leaf's values in one row group.
type Column struct {
	// Leaf is what the schema says of it.
	Leaf *schema.Column
	// Batch is what the last call of Next has read. The next call overwrites it.
	Batch

	readers        []file.ColumnChunkReader // one has the next value
	any            []parquet.ByteArray      // values of Fixed before they are checked
	chunk          chunk
	batch          int64 // the most levels of a batch
	maxDef, maxRep int16
	whole          bool  // the metadata tell the chunk's length exactly
	seen           int64 // levels
	tries          int   // pages without levels
}

// A Batch is some levels and the values among them: those whose definition level is the
// highest. A row may begin in one batch and end in a later one.
type Batch struct {
	// Levels is how many levels there are.
	Levels int
	// Def and Rep are the definition and repetition levels, nil where the leaf has none.
	Def, Rep []int16
	// Count is how many values there are.
	Count int
	// Of these, the one of the leaf's physical type has the values.
	Bools   []bool
	Int32s  []int32
	Int64s  []int64
	Int96s  []parquet.Int96
	Floats  []float32
	Doubles []float64
	Bytes   []parquet.ByteArray
	Fixed   []parquet.FixedLenByteArray
}

// Total returns how many levels the column has, as its metadata says.
func (c *Column) Total() int64 { return c.chunk.total }

// Next reads the next batch, which has at least one level. After the last it returns
// io.EOF.
func (c *Column) Next() (err error) {
	defer guard(&err)
	c.Levels, c.Count = 0, 0
	var reader file.ColumnChunkReader
	for {
		var err error
		if reader, err = c.ready(); reader != nil {
			break
		}
		switch {
		case c.chunk.err != nil:
			return c.chunk.err
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		case c.seen == c.chunk.total:
			return c.finish()
		}
		if c.tries++; c.tries > c.chunk.empty { // arrow-go stops at pages that are empty
			return fmt.Errorf("%w: a column of %d values ends after %d", ErrDamaged, c.chunk.total, c.seen)
		}
	}
	levels, values, err := c.read(reader)
	switch {
	case c.chunk.err != nil:
		return c.chunk.err
	case err != nil:
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	case levels <= 0:
		return fmt.Errorf("%w: a page has fewer values than its header says", ErrDamaged)
	}
	c.Levels, c.Count = int(levels), values
	if c.maxDef > 0 {
		c.Def = c.Def[:levels]
	}
	if c.maxRep > 0 {
		c.Rep = c.Rep[:levels]
	}
	if err := c.check(); err != nil {
		return err
	}
	if err := c.chunk.budget.make(c.bytes(reader)); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if len(c.readers) > 1 && reader == c.readers[1] {
		return c.fix()
	}
	return nil
}

// ready returns the reader that has the next value, nil if none has.
func (c *Column) ready() (file.ColumnChunkReader, error) {
	for range c.readers { // what is no page of the last may be one of the first
		for _, r := range c.readers {
			if r.HasNext() {
				return r, nil
			}
			if err := r.Err(); err != nil {
				return nil, err
			}
		}
	}
	return nil, nil
}

// read reads a batch.
func (c *Column) read(reader file.ColumnChunkReader) (levels int64, values int, err error) {
	n := int(c.batch)
	if reader.Type() == parquet.Types.ByteArray {
		n = int(max(1, min(batchBytes, c.batch, expandedBytes/max(1, c.chunk.shared))))
	}
	n = int(min(int64(n), c.chunk.total))
	if c.maxDef > 0 {
		c.Def = grown(c.Def, n)
	}
	if c.maxRep > 0 {
		c.Rep = grown(c.Rep, n)
	}
	batch := int64(n)
	switch r := reader.(type) {
	case *file.BooleanColumnChunkReader:
		c.Bools = grown(c.Bools, n)
		return r.ReadBatchInPage(batch, c.Bools, c.Def, c.Rep)
	case *file.Int32ColumnChunkReader:
		c.Int32s = grown(c.Int32s, n)
		return r.ReadBatchInPage(batch, c.Int32s, c.Def, c.Rep)
	case *file.Int64ColumnChunkReader:
		c.Int64s = grown(c.Int64s, n)
		return r.ReadBatchInPage(batch, c.Int64s, c.Def, c.Rep)
	case *file.Int96ColumnChunkReader:
		c.Int96s = grown(c.Int96s, n)
		return r.ReadBatchInPage(batch, c.Int96s, c.Def, c.Rep)
	case *file.Float32ColumnChunkReader:
		c.Floats = grown(c.Floats, n)
		return r.ReadBatchInPage(batch, c.Floats, c.Def, c.Rep)
	case *file.Float64ColumnChunkReader:
		c.Doubles = grown(c.Doubles, n)
		return r.ReadBatchInPage(batch, c.Doubles, c.Def, c.Rep)
	case *file.ByteArrayColumnChunkReader:
		if len(c.readers) > 1 {
			c.any = grown(c.any, n)
			return r.ReadBatchInPage(batch, c.any, c.Def, c.Rep)
		}
		c.Bytes = grown(c.Bytes, n)
		return r.ReadBatchInPage(batch, c.Bytes, c.Def, c.Rep)
	case *file.FixedLenByteArrayColumnChunkReader:
		c.Fixed = grown(c.Fixed, n)
		return r.ReadBatchInPage(batch, c.Fixed, c.Def, c.Rep)
	}
	return 0, 0, fmt.Errorf("a column of type %v", reader.Type())
}

// bytes returns how many bytes the batch's values are that a reader has read, if they are
// byte arrays. A dictionary, or a prefix, makes many of few.
func (c *Column) bytes(reader file.ColumnChunkReader) int64 {
	n := int64(0)
	switch {
	case len(c.readers) > 1 && reader == c.readers[0]:
		n = int64(c.Count) * int64(c.Leaf.TypeLength())
	case len(c.readers) > 1:
		for _, b := range c.any[:c.Count] {
			n += int64(len(b))
		}
	case reader.Type() == parquet.Types.ByteArray:
		for _, b := range c.Bytes[:c.Count] {
			n += int64(len(b))
		}
	}
	return n
}

// grown returns s with n elements.
func grown[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// check checks that levels are what the schema allows, and that there is a value for each
// that says so.
func (c *Column) check() error {
	values := c.Levels
	if c.maxDef > 0 {
		values = 0
		for _, d := range c.Def {
			if d == c.maxDef {
				values++
			} else if d < 0 || d > c.maxDef {
				return fmt.Errorf("%w: definition level %d, at most %d is valid", ErrDamaged, d, c.maxDef)
			}
		}
	}
	if values != c.Count {
		return fmt.Errorf("%w: a page has %d values where there should be %d", ErrDamaged, c.Count, values)
	}
	if c.maxRep > 0 {
		if c.seen == 0 && c.Rep[0] != 0 {
			return fmt.Errorf("%w: a page continues a row that has not begun", ErrDamaged)
		}
		for _, r := range c.Rep {
			if r < 0 || r > c.maxRep {
				return fmt.Errorf("%w: repetition level %d, at most %d is valid", ErrDamaged, r, c.maxRep)
			}
		}
	}
	if c.seen += int64(c.Levels); c.seen > c.chunk.total {
		return fmt.Errorf("%w: a column has more values than the %d of its metadata", ErrDamaged, c.chunk.total)
	}
	return nil
}

// finish checks that nothing is left, and returns io.EOF.
func (c *Column) finish() error {
	if c.whole && c.chunk.total > 0 && c.chunk.next != c.chunk.end { // without values there may be an empty page
		return fmt.Errorf("%w: a column has %d bytes after its %d values", ErrDamaged, c.chunk.end-c.chunk.next, c.chunk.total)
	}
	return io.EOF
}

// Close frees what the column holds.
func (c *Column) Close() error {
	var errs []error
	for _, r := range c.readers {
		errs = append(errs, r.Close())
	}
	c.readers = nil
	c.chunk.release()
	return errors.Join(errs...)
}
