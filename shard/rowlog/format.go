package rowlog

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// A Format says how rows are in files. Nothing of it changes once it is used, and then any
// number of goroutines may use it.
type Format[R any] struct {
	// Prefix is what the names of a store's objects begin with, with a slash at its end.
	Prefix string
	// Root is the name of the schema's root, and Rows what rows are called, many of them.
	Root, Rows string
	// VersionKey is the key of the version in a file's metadata, and Version the version.
	VersionKey, Version string
	// Damaged is the class of every error that says that a file is not what Encode writes.
	Damaged error
	// Columns are all leaves, in the order of a file; those of one list are together.
	Columns []Column[R]
	// Blank returns a row before anything of it is read.
	Blank func() R
	// Time returns when what a row tells of was.
	Time func(*R) time.Time
}

// A Column is a leaf of a file, which all rows have.
type Column[R any] struct {
	Name string
	// List is what it is a part of, nil for a leaf that has one value for each row.
	List       *List[R]
	Physical   parquet.Type
	Logical    schema.LogicalType
	Dictionary bool // values repeat
	// Needed says that a file without it is damaged; of another the rows are blank.
	Needed bool
	// Has reports whether there is value n of a row; nil where there always is.
	Has func(row *R, n int) bool
	// Put adds value n of a row to a batch, and Set takes value i of one. Of a leaf that is not
	// of a list n is 0.
	Put func(b *parquetfile.Batch, row *R, n int)
	Set func(row *R, n int, b *parquetfile.Batch, i int) error
}

// A List is a list that rows have, whose elements are groups of columns.
type List[R any] struct {
	Name string
	Most int // elements of a row
	// Len returns how many elements a row has, and Grow adds a blank one.
	Len  func(*R) int
	Grow func(*R)
}

// path is the path of a leaf.
func (c *Column[R]) path() string {
	if c.List == nil {
		return c.Name
	}
	return c.List.Name + ".list.element." + c.Name
}

// levels returns the highest levels of a leaf.
func (c *Column[R]) levels() (rep, def int16) {
	if c.List != nil {
		rep, def = 1, 1
	}
	if c.Has != nil {
		def++
	}
	return rep, def
}

// put adds the values of a row to a batch.
func (c *Column[R]) put(b *parquetfile.Batch, row *R) {
	if c.List == nil && c.Has == nil {
		c.Put(b, row, 0)
		return
	}
	n := 1
	if c.List != nil {
		if n = c.List.Len(row); n == 0 {
			b.Rep, b.Def = append(b.Rep, 0), append(b.Def, 0)
		}
	}
	_, highest := c.levels()
	for i := range n {
		def := highest
		if c.Has != nil && !c.Has(row, i) {
			def--
		} else {
			c.Put(b, row, i)
		}
		b.Def = append(b.Def, def)
		if c.List != nil {
			b.Rep = append(b.Rep, int16(min(i, 1)))
		}
	}
}

// Text returns a column of texts of at most so many bytes.
func Text[R any](name string, most int, dictionary bool, field func(*R) *string) Column[R] {
	return ListText(nil, name, most, dictionary, func(row *R, _ int) *string { return field(row) })
}

// ListText is Text of the elements of a list.
func ListText[R any](list *List[R], name string, most int, dictionary bool, field func(*R, int) *string) Column[R] {
	return Column[R]{
		Name: name, List: list, Physical: parquet.Types.ByteArray, Logical: schema.StringLogicalType{}, Dictionary: dictionary,
		Put: func(b *parquetfile.Batch, row *R, n int) {
			b.Bytes = append(b.Bytes, parquet.ByteArray(*field(row, n)))
		},
		Set: func(row *R, n int, b *parquetfile.Batch, i int) error {
			if n := len(b.Bytes[i]); n > most {
				return fmt.Errorf("%d bytes; accepted: up to %d", n, most)
			}
			*field(row, n) = string(b.Bytes[i])
			return nil
		},
	}
}

// Number returns a column of whole numbers from 0 on.
func Number[R any](name string, field func(*R) *int64) Column[R] {
	return Column[R]{
		Name: name, Physical: parquet.Types.Int64, Logical: schema.NewIntLogicalType(64, true),
		Put: func(b *parquetfile.Batch, row *R, _ int) { b.Int64s = append(b.Int64s, *field(row)) },
		Set: func(row *R, _ int, b *parquetfile.Batch, i int) error {
			if *field(row) = b.Int64s[i]; *field(row) < 0 {
				return fmt.Errorf("%d; accepted: at least 0", *field(row))
			}
			return nil
		},
	}
}

// Moment returns a column of times, to the microsecond.
func Moment[R any](name string, field func(*R) *time.Time) Column[R] {
	return Column[R]{
		Name: name, Physical: parquet.Types.Int64, Logical: schema.NewTimestampLogicalType(true, schema.TimeUnitMicros),
		Put: func(b *parquetfile.Batch, row *R, _ int) { b.Int64s = append(b.Int64s, field(row).UnixMicro()) },
		Set: func(row *R, _ int, b *parquetfile.Batch, i int) error {
			*field(row) = time.UnixMicro(b.Int64s[i]).UTC()
			return nil
		},
	}
}

// Flag returns a column of whether something is so.
func Flag[R any](name string, field func(*R) *bool) Column[R] {
	return Column[R]{
		Name: name, Physical: parquet.Types.Boolean, Logical: schema.NoLogicalType{},
		Put: func(b *parquetfile.Batch, row *R, _ int) { b.Bools = append(b.Bools, *field(row)) },
		Set: func(row *R, _ int, b *parquetfile.Batch, i int) error {
			*field(row) = b.Bools[i]
			return nil
		},
	}
}

// ListScore returns a column of finite numbers of the elements of a list.
func ListScore[R any](list *List[R], name string, field func(*R, int) *float32) Column[R] {
	return Column[R]{
		Name: name, List: list, Physical: parquet.Types.Float, Logical: schema.NoLogicalType{},
		Put: func(b *parquetfile.Batch, row *R, n int) { b.Floats = append(b.Floats, *field(row, n)) },
		Set: func(row *R, n int, b *parquetfile.Batch, i int) error {
			v := b.Floats[i]
			if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
				return fmt.Errorf("%v; accepted: finite numbers", v)
			}
			*field(row, n) = v
			return nil
		},
	}
}

// Needed returns a column that each file has.
func Needed[R any](c Column[R]) Column[R] {
	c.Needed = true
	return c
}

// Schema returns the schema of a file.
func (f *Format[R]) Schema() (*schema.GroupNode, error) {
	required := parquet.Repetitions.Required
	var nodes, elements schema.FieldList
	for i := range f.Columns {
		c := &f.Columns[i]
		repetition := required
		if c.Has != nil {
			repetition = parquet.Repetitions.Optional
		}
		leaf, err := schema.NewPrimitiveNodeLogical(c.Name, repetition, c.Logical, c.Physical, -1, -1)
		if err != nil {
			return nil, err
		}
		if c.List == nil {
			nodes = append(nodes, leaf)
			continue
		}
		elements = append(elements, leaf)
		if i+1 < len(f.Columns) && f.Columns[i+1].List == c.List {
			continue
		}
		element, err := schema.NewGroupNode("element", required, elements, -1)
		if err != nil {
			return nil, err
		}
		list, err := schema.ListOfWithName(c.List.Name, element, required, -1)
		if err != nil {
			return nil, err
		}
		nodes, elements = append(nodes, list), nil
	}
	return schema.NewGroupNode(f.Root, required, nodes, -1)
}

// Encode returns the file of some rows.
func (f *Format[R]) Encode(rows []R) ([]byte, error) {
	data, err := f.encode(rows)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", f.Rows, err)
	}
	return data, nil
}

func (f *Format[R]) encode(rows []R) ([]byte, error) {
	root, err := f.Schema()
	if err != nil {
		return nil, err
	}
	o := parquetfile.Options{Metadata: map[string]string{f.VersionKey: f.Version}}
	for i := range f.Columns {
		if f.Columns[i].Dictionary {
			o.Dictionaries = append(o.Dictionaries, f.Columns[i].path())
		}
	}
	var out bytes.Buffer
	w, err := parquetfile.Create(&out, root, o)
	if err != nil {
		return nil, err
	}
	for leaf := range f.Columns {
		var b parquetfile.Batch
		for i := range rows {
			f.Columns[leaf].put(&b, &rows[i])
		}
		if err := w.Append(leaf, &b); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Key returns a name for an object that is written from the time on. No two calls return the
// same.
func (f *Format[R]) Key(at time.Time) string {
	var random [8]byte
	_, _ = rand.Read(random[:]) // it never fails
	at = at.UTC()
	return f.Prefix + at.Format(time.DateOnly) + "/" + at.Format(keyTime) + "-" + hex.EncodeToString(random[:]) + Extension
}

const (
	keyTime = "20060102T150405.000Z"
	// Extension is what the names of files end with.
	Extension = ".parquet"
)

// Written returns the time in an object's name, if it has one.
func Written(key string) (time.Time, bool) {
	name := key[strings.LastIndexByte(key, '/')+1:]
	if len(name) < len(keyTime) {
		return time.Time{}, false
	}
	at, err := time.Parse(keyTime, name[:len(keyTime)])
	return at, err == nil
}
