package tower

import (
	"fmt"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// Definition levels of an optional list of required elements.
const (
	listNull = iota
	listEmpty
	listElement
)

// writerSchema returns the columns of a file, and which of them have dictionaries. The
// order is that of a row's values: id, vector, attributes.
func writerSchema(o ParquetOptions) (*schema.GroupNode, []string, error) {
	var nodes schema.FieldList
	var dictionaries []string
	var failed error
	seen := make(map[string]bool)
	leaf := func(name string, required bool, logical schema.LogicalType, physical parquet.Type) schema.Node {
		repetition := parquet.Repetitions.Optional
		if required {
			repetition = parquet.Repetitions.Required
		}
		n, err := schema.NewPrimitiveNodeLogical(name, repetition, logical, physical, -1, -1)
		if err != nil && failed == nil {
			failed = err
		}
		return n
	}
	list := func(name string, element schema.Node) schema.Node {
		n, err := schema.ListOfWithName(name, element, parquet.Repetitions.Optional, -1)
		if err != nil && failed == nil {
			failed = err
		}
		return n
	}
	add := func(name string, n schema.Node) {
		if seen[name] && failed == nil {
			failed = fmt.Errorf("two columns are called %s", name)
		}
		seen[name] = true
		nodes = append(nodes, n)
	}
	const element = "element"
	none, text := schema.NoLogicalType{}, schema.StringLogicalType{}
	add(o.IDColumn, leaf(o.IDColumn, true, text, parquet.Types.ByteArray))
	if o.EmbeddingColumn != "" {
		// Optional, so that any Row can be written, which tests need.
		add(o.EmbeddingColumn, list(o.EmbeddingColumn, leaf(element, true, none, parquet.Types.Float)))
	}
	for _, f := range o.Schema.Fields() {
		var n schema.Node
		switch f.Type {
		case attribute.Keyword:
			n = leaf(f.Name, false, text, parquet.Types.ByteArray)
			dictionaries = append(dictionaries, f.Name)
		case attribute.KeywordList:
			n = list(f.Name, leaf(element, true, text, parquet.Types.ByteArray))
			dictionaries = append(dictionaries, f.Name+".list."+element)
		case attribute.Bool:
			n = leaf(f.Name, false, none, parquet.Types.Boolean)
		case attribute.Int:
			n = leaf(f.Name, false, schema.NewIntLogicalType(64, true), parquet.Types.Int64)
		case attribute.Float:
			n = leaf(f.Name, false, none, parquet.Types.Double)
		case attribute.Float32:
			n = leaf(f.Name, false, none, parquet.Types.Float)
		case attribute.Timestamp:
			n = leaf(f.Name, false, schema.NewTimestampLogicalType(true, schema.TimeUnitMillis), parquet.Types.Int64)
		}
		add(f.Name, n)
	}
	if failed != nil {
		return nil, nil, failed
	}
	root, err := schema.NewGroupNode("tower", parquet.Repetitions.Required, nodes, -1)
	return root, dictionaries, err
}

// putID adds an id to a batch.
func putID(b *parquetfile.Batch, id string) { b.Bytes = append(b.Bytes, parquet.ByteArray(id)) }

// putVector adds a vector to a batch.
func putVector(b *parquetfile.Batch, v []float32) {
	putLevels(b, v == nil, len(v))
	b.Floats = append(b.Floats, v...)
}

// putLevels adds the levels of a list.
func putLevels(b *parquetfile.Batch, null bool, n int) {
	switch {
	case null:
		b.Rep, b.Def = append(b.Rep, 0), append(b.Def, listNull)
	case n == 0:
		b.Rep, b.Def = append(b.Rep, 0), append(b.Def, listEmpty)
	}
	for i := range n {
		b.Rep, b.Def = append(b.Rep, int16(min(i, 1))), append(b.Def, listElement)
	}
}

// putAttribute adds a value, of the type or absent, to a batch.
func putAttribute(b *parquetfile.Batch, t attribute.Type, v attribute.Value) {
	if t == attribute.KeywordList {
		var words []string
		if !v.Absent() {
			words = v.Keywords()
		}
		putLevels(b, v.Absent(), len(words))
		for _, s := range words {
			b.Bytes = append(b.Bytes, parquet.ByteArray(s))
		}
		return
	}
	if v.Absent() {
		b.Def = append(b.Def, 0)
		return
	}
	b.Def = append(b.Def, 1)
	switch t {
	case attribute.Keyword:
		b.Bytes = append(b.Bytes, parquet.ByteArray(v.Keyword()))
	case attribute.Bool:
		b.Bools = append(b.Bools, v.Bool())
	case attribute.Int:
		b.Int64s = append(b.Int64s, v.Int())
	case attribute.Float:
		b.Doubles = append(b.Doubles, v.Float())
	case attribute.Float32:
		b.Floats = append(b.Floats, v.Float32())
	case attribute.Timestamp:
		b.Int64s = append(b.Int64s, v.Time().UnixMilli())
	}
}

// clearBatch empties a batch and keeps its memory.
func clearBatch(b *parquetfile.Batch) {
	clear(b.Bytes)
	b.Def, b.Rep = b.Def[:0], b.Rep[:0]
	b.Bools, b.Int64s, b.Floats, b.Doubles, b.Bytes = b.Bools[:0], b.Int64s[:0], b.Floats[:0], b.Doubles[:0], b.Bytes[:0]
}
