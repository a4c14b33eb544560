package tower

import (
	"fmt"

	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/format"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// supportedColumns is for error texts.
const supportedColumns = "supported are strings, lists of strings, bools, integers, floats, dates and timestamps; skip the column with --ignore-column"

// A decoding is how a leaf's stored values become values of ours.
type decoding uint8

const (
	undecodable decoding = iota
	nothing              // the UNKNOWN type: every value is null
	text
	boolean
	signed32
	signed64
	unsigned32
	unsigned64
	single
	double
	half
	days
	millis
	micros
	nanos
	julian // INT96
)

// attribute returns the attribute type of a flat column, 0 when there is none.
func (d decoding) attribute() attribute.Type {
	switch d {
	case text:
		return attribute.Keyword
	case boolean:
		return attribute.Bool
	case signed32, signed64, unsigned32, unsigned64:
		return attribute.Int
	case double:
		return attribute.Float
	case single, half:
		return attribute.Float32
	case days, millis, micros, nanos, julian:
		return attribute.Timestamp
	}
	return 0
}

// A shape is what a top-level column of a Parquet file holds.
type shape struct {
	name     string
	leaf     int // index of its first leaf
	list     bool
	decoding decoding // undecodable also for structs and maps
	text     string   // for messages: list<float>
	maxDef   byte     // the definition level of a value that is there
	elemDef  byte     // of a list: the definition level from which there is an element, null or not
}

// attribute returns the attribute type of the column, 0 when there is none.
func (s *shape) attribute() attribute.Type {
	switch {
	case !s.list:
		return s.decoding.attribute()
	case s.decoding == text:
		return attribute.KeywordList
	}
	return 0
}

// float reports whether the column's values, or elements, are floats.
func (s *shape) float() bool {
	t := s.decoding.attribute()
	return t == attribute.Float || t == attribute.Float32
}

// null reports whether the column's type says that all its values are null.
func (s *shape) null() bool { return s.decoding == nothing && !s.list }

// A node is one element of the schema tree, which a footer stores flat.
type node struct {
	*format.SchemaElement
	children []*node
	leaf     int // index of its first leaf
}

// maxSchemaDepth bounds the recursion; what we read is three deep.
const maxSchemaDepth = 64

// shapes returns the top-level columns of a file.
func shapes(elements []format.SchemaElement) ([]shape, error) {
	leaves := 0
	var parse func(depth int) (*node, error)
	parse = func(depth int) (*node, error) {
		if len(elements) == 0 || depth > maxSchemaDepth {
			return nil, fmt.Errorf("parquet schema is damaged, or more than %d levels deep", maxSchemaDepth)
		}
		n := &node{SchemaElement: &elements[0], leaf: leaves}
		elements = elements[1:]
		if n.Type.Valid {
			leaves++
			return n, nil
		}
		for range n.NumChildren.V {
			child, err := parse(depth + 1)
			if err != nil {
				return nil, err
			}
			n.children = append(n.children, child)
		}
		return n, nil
	}
	root, err := parse(0)
	if err != nil {
		return nil, err
	}
	columns := make([]shape, len(root.children))
	for i, n := range root.children {
		columns[i] = n.shape()
	}
	return columns, nil
}

func (n *node) is(r format.FieldRepetitionType) bool {
	return n.RepetitionType.Valid && n.RepetitionType.V == r
}

func (n *node) converted(t deprecated.ConvertedType) bool {
	return n.ConvertedType.Valid && n.ConvertedType.V == t
}

// shape recognises a flat column and the three forms of a list: the standard
// one (an annotated group of a repeated group of an element), the legacy one (an
// annotated group of a repeated element), and a repeated leaf.
func (n *node) shape() shape {
	s := shape{name: n.Name, leaf: n.leaf}
	if n.is(format.Optional) {
		s.maxDef++
	}
	if n.Type.Valid {
		s.decoding, s.text = n.leafDecoding()
		if n.is(format.Repeated) {
			s.list, s.text, s.maxDef, s.elemDef = true, "list<"+s.text+">", 1, 1
		}
		return s
	}
	_, isList := n.LogicalType.Value.(*format.ListType)
	_, isMap := n.LogicalType.Value.(*format.MapType)
	switch {
	case isMap || n.converted(deprecated.Map) || n.converted(deprecated.MapKeyValue):
		s.text = "map"
		return s
	case !isList && !n.converted(deprecated.List):
		s.text = "struct"
		return s
	case n.is(format.Repeated) || len(n.children) != 1 || !n.children[0].is(format.Repeated):
		s.text = "malformed list"
		return s
	}
	s.list = true
	s.maxDef++ // the repeated level
	s.elemDef = s.maxDef
	element := n.children[0]
	if !element.Type.Valid && len(element.children) == 1 && element.Name != "array" && element.Name != n.Name+"_tuple" {
		element = element.children[0]
		switch {
		case element.is(format.Optional):
			s.maxDef++
		case element.is(format.Repeated):
			s.text = "list<list>"
			return s
		}
	}
	if !element.Type.Valid {
		s.text = "list<" + element.shape().text + ">"
		return s
	}
	s.decoding, s.text = element.leafDecoding()
	s.text = "list<" + s.text + ">"
	return s
}

// leafDecoding returns how a leaf is decoded and what its type is called.
func (n *node) leafDecoding() (decoding, string) {
	physical := n.Type.V
	type leaf struct {
		physical format.Type
		decoding decoding
		name     string
	}
	choose := func(name string, leaves ...leaf) (decoding, string) {
		for _, l := range leaves {
			if l.physical == physical {
				return l.decoding, l.name
			}
		}
		return undecodable, fmt.Sprintf("%s stored as %v", name, physical)
	}
	timestamp := func(unit decoding, name string) (decoding, string) {
		return choose("timestamp", leaf{format.Int64, unit, "timestamp(" + name + ")"})
	}
	integer := func(width int, isSigned bool) (decoding, string) {
		if isSigned {
			name := fmt.Sprint("int", width)
			return choose(name, leaf{format.Int32, signed32, name}, leaf{format.Int64, signed64, name})
		}
		name := fmt.Sprint("uint", width)
		return choose(name, leaf{format.Int32, unsigned32, name}, leaf{format.Int64, unsigned64, name})
	}
	asText := func(name string) (decoding, string) {
		return choose(name, leaf{format.ByteArray, text, name})
	}

	switch t := n.LogicalType.Value.(type) {
	case nil:
	case *format.NullType:
		return nothing, "null"
	case *format.StringType:
		return asText("string")
	case *format.EnumType:
		return asText("enum")
	case *format.JsonType:
		return asText("json")
	case *format.IntType:
		return integer(int(t.BitWidth), t.IsSigned)
	case *format.DateType:
		return choose("date", leaf{format.Int32, days, "date"})
	case *format.TimestampType:
		switch t.Unit.Value.(type) {
		case *format.MilliSeconds:
			return timestamp(millis, "millis")
		case *format.MicroSeconds:
			return timestamp(micros, "micros")
		case *format.NanoSeconds:
			return timestamp(nanos, "nanos")
		}
		return undecodable, "timestamp of an unknown unit"
	case *format.Float16Type:
		if physical == format.FixedLenByteArray && n.TypeLength.V == 2 {
			return half, "float16"
		}
		return undecodable, "malformed float16"
	default:
		return undecodable, t.String()
	}

	if n.ConvertedType.Valid {
		switch t := n.ConvertedType.V; t {
		case deprecated.UTF8:
			return asText("string")
		case deprecated.Enum:
			return asText("enum")
		case deprecated.Json:
			return asText("json")
		case deprecated.Date:
			return choose("date", leaf{format.Int32, days, "date"})
		case deprecated.TimestampMillis:
			return timestamp(millis, "millis")
		case deprecated.TimestampMicros:
			return timestamp(micros, "micros")
		case deprecated.Uint8, deprecated.Uint16, deprecated.Uint32, deprecated.Uint64:
			return integer(8<<(t-deprecated.Uint8), false)
		case deprecated.Int8, deprecated.Int16, deprecated.Int32, deprecated.Int64:
			return integer(8<<(t-deprecated.Int8), true)
		case deprecated.Decimal:
			return undecodable, "decimal"
		case deprecated.TimeMillis, deprecated.TimeMicros:
			return undecodable, "time of day"
		default:
			return undecodable, fmt.Sprintf("%v of converted type %d", physical, t)
		}
	}

	switch physical {
	case format.Boolean:
		return boolean, "bool"
	case format.Int32:
		return signed32, "int32"
	case format.Int64:
		return signed64, "int64"
	case format.Int96:
		return julian, "timestamp(int96)"
	case format.Float:
		return single, "float"
	case format.Double:
		return double, "double"
	case format.ByteArray:
		return undecodable, "binary"
	case format.FixedLenByteArray:
		return undecodable, fmt.Sprintf("fixed_len_byte_array(%d)", n.TypeLength.V)
	}
	return undecodable, physical.String()
}
