package tower_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/stretchr/testify/require"
)

// A kind makes the schema node of a column.
type kind func(name string, r parquet.Repetition) schema.Node

func leaf(logical schema.LogicalType, physical parquet.Type, length int) kind {
	return func(name string, r parquet.Repetition) schema.Node {
		return schema.MustPrimitive(schema.NewPrimitiveNodeLogical(name, r, logical, physical, length, -1))
	}
}

func plain(physical parquet.Type) kind { return leaf(schema.NoLogicalType{}, physical, -1) }
func fixed(length int) kind {
	return leaf(schema.NoLogicalType{}, parquet.Types.FixedLenByteArray, length)
}

func integer(width int8, signed bool) kind {
	physical := parquet.Types.Int32
	if width == 64 {
		physical = parquet.Types.Int64
	}
	return leaf(schema.NewIntLogicalType(width, signed), physical, -1)
}

func timestamp(unit schema.TimeUnitType) kind {
	return leaf(schema.NewTimestampLogicalType(true, unit), parquet.Types.Int64, -1)
}

func decimal(precision, scale int32, physical parquet.Type, length int) kind {
	return leaf(schema.NewDecimalLogicalType(precision, scale), physical, length)
}

var (
	text   = leaf(schema.StringLogicalType{}, parquet.Types.ByteArray, -1)
	float  = plain(parquet.Types.Float)
	double = plain(parquet.Types.Double)
	uuid   = leaf(schema.UUIDLogicalType{}, parquet.Types.FixedLenByteArray, 16)
	half   = leaf(schema.Float16LogicalType{}, parquet.Types.FixedLenByteArray, 2)
	null   = optional(leaf(schema.NullLogicalType{}, parquet.Types.Int32, -1))
)

func optional(k kind) kind {
	return func(name string, _ parquet.Repetition) schema.Node { return k(name, parquet.Repetitions.Optional) }
}

func repeated(k kind) kind {
	return func(name string, _ parquet.Repetition) schema.Node { return k(name, parquet.Repetitions.Repeated) }
}

// list is the standard form: an annotated group of a repeated group of an element.
func list(element kind) kind {
	return func(name string, r parquet.Repetition) schema.Node {
		return schema.MustGroup(schema.ListOfWithName(name, element("element", parquet.Repetitions.Required), r, -1))
	}
}

// legacy is a list whose repeated field is the element itself.
func legacy(name string, element kind) kind {
	return func(column string, r parquet.Repetition) schema.Node {
		return schema.MustGroup(schema.NewGroupNodeLogical(column, r,
			schema.FieldList{element(name, parquet.Repetitions.Repeated)}, schema.NewListLogicalType(), -1))
	}
}

// A field is a part of a struct.
type field struct {
	name string
	kind kind
}

func structOf(fields ...field) kind {
	return func(name string, r parquet.Repetition) schema.Node {
		var nodes schema.FieldList
		for _, f := range fields {
			nodes = append(nodes, f.kind(f.name, parquet.Repetitions.Required))
		}
		return schema.MustGroup(schema.NewGroupNode(name, r, nodes, -1))
	}
}

// A cell is a value of a leaf with its levels; nil is none.
type cell struct {
	rep, def int16
	value    any
}

// A column is a column of a test file: its type, and for each row its cells. A struct has
// the cells of each leaf in parts instead.
type column struct {
	name  string
	kind  kind
	rows  [][]cell
	parts [][][]cell
}

// write writes a file of columns.
func write(t testing.TB, path string, columns []column, properties ...parquet.WriterProperty) {
	writeGroups(t, path, columns, 0, properties...)
}

// writeGroups writes a file with row groups of a number of rows, 0 for all.
func writeGroups(t testing.TB, path string, columns []column, groupRows int, properties ...parquet.WriterProperty) {
	writeMetadata(t, path, nil, columns, groupRows, properties...)
}

// writeMetadata writes a file with metadata of its own, by their keys.
func writeMetadata(t testing.TB, path string, values map[string]string, columns []column, groupRows int, properties ...parquet.WriterProperty) {
	var nodes schema.FieldList
	var leaves [][][]cell
	for _, c := range columns {
		nodes = append(nodes, c.kind(c.name, parquet.Repetitions.Required))
		if c.parts == nil {
			c.parts = [][][]cell{c.rows}
		}
		leaves = append(leaves, c.parts...)
	}
	rows := len(leaves[0])
	if groupRows == 0 {
		groupRows = max(rows, 1)
	}
	root := schema.MustGroup(schema.NewGroupNode("test", parquet.Repetitions.Required, nodes, -1))
	f, err := os.Create(path)
	require.NoError(t, err)
	properties = append([]parquet.WriterProperty{parquet.WithDictionaryDefault(false)}, properties...)
	w := file.NewParquetWriter(f, root, file.WithWriterProps(parquet.NewWriterProperties(properties...)))
	for key, value := range values {
		require.NoError(t, w.AppendKeyValueMetadata(key, value))
	}
	for from := 0; from < rows; from += groupRows {
		g, err := w.AppendRowGroupChecked()
		require.NoError(t, err)
		for _, cells := range leaves {
			c, err := g.NextColumn()
			require.NoError(t, err)
			var flat []cell
			for _, row := range cells[from:min(rows, from+groupRows)] {
				flat = append(flat, row...)
			}
			writeCells(t, c, flat)
			require.NoError(t, c.Close())
		}
		require.NoError(t, g.Close())
	}
	require.NoError(t, w.Close())
	_ = f.Close() // the writer may have closed it
}

func writeCells(t testing.TB, w file.ColumnChunkWriter, cells []cell) {
	var def, rep []int16
	for _, c := range cells {
		if w.Descr().MaxDefinitionLevel() > 0 {
			def = append(def, c.def)
		}
		if w.Descr().MaxRepetitionLevel() > 0 {
			rep = append(rep, c.rep)
		}
	}
	var err error
	switch w := w.(type) {
	case *file.BooleanColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) bool { return v.(bool) }), def, rep)
	case *file.Int32ColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) int32 { return v.(int32) }), def, rep)
	case *file.Int64ColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) int64 { return v.(int64) }), def, rep)
	case *file.Int96ColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) parquet.Int96 { return v.(parquet.Int96) }), def, rep)
	case *file.Float32ColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) float32 { return v.(float32) }), def, rep)
	case *file.Float64ColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) float64 { return v.(float64) }), def, rep)
	case *file.ByteArrayColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) parquet.ByteArray { return parquet.ByteArray(v.(string)) }), def, rep)
	case *file.FixedLenByteArrayColumnChunkWriter:
		_, err = w.WriteBatch(valuesOf(cells, func(v any) parquet.FixedLenByteArray { return parquet.FixedLenByteArray(v.(string)) }), def, rep)
	}
	require.NoError(t, err)
}

func valuesOf[T any](cells []cell, of func(any) T) []T {
	out := []T{}
	for _, c := range cells {
		if c.value != nil {
			out = append(out, of(c.value))
		}
	}
	return out
}

// flat gives each row one value of definition level def.
func flat(def int16, values ...any) (rows [][]cell) {
	for _, v := range values {
		if v == nil {
			rows = append(rows, []cell{{}})
		} else {
			rows = append(rows, []cell{{0, def, v}})
		}
	}
	return rows
}

// ids and vectors are the columns that every tower needs.
func ids(n int) column {
	c := column{name: "app_id", kind: text}
	for i := range n {
		c.rows = append(c.rows, flat(0, fmt.Sprint("a", i))...)
	}
	return c
}

func vectors(n int) column {
	c := column{name: "embedding", kind: list(float)}
	for i := range n {
		c.rows = append(c.rows, []cell{{0, 1, float32(i)}, {1, 1, float32(1)}})
	}
	return c
}
