package tower

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// supportedColumns is for error texts.
const supportedColumns = "supported are strings, lists of strings, binary in UTF-8, UUIDs, bools, integers, decimals, floats, dates and timestamps; bytes of a fixed length only if their logical type is one of these; skip the column"

// supportedIDs is for error texts.
const supportedIDs = "strings, binary in UTF-8, UUIDs, integers or decimals without a fraction; bytes of a fixed length only if their logical type is one of these"

// A decoding is how a leaf's stored values become values of ours.
type decoding uint8

const (
	undecodable decoding = iota
	nothing              // the UNKNOWN type: every value is null
	text
	raw   // bytes of any number
	fixed // bytes of one number without a logical type: a UUID, an integer, a hash
	uuid
	boolean
	signed32
	signed64
	unsigned32
	unsigned64
	decimal
	single
	double
	half
	days
	millis
	micros
	nanos
	julian // INT96
)

// A shape is a leaf of a Parquet file, or a list of it, under a name.
type shape struct {
	name     string
	leaf     int // its index
	list     bool
	decoding decoding
	text     string // for messages: list<float>
	scale    int    // of decimals: digits after the point
	maxDef   int16  // the definition level of a value that is there
	elemDef  int16  // of a list: the definition level from which there is an element, null or not
}

// attribute returns the attribute type of the column, 0 when there is none.
func (s *shape) attribute() attribute.Type {
	if s.list {
		if s.decoding == text || s.decoding == raw {
			return attribute.KeywordList
		}
		return 0
	}
	switch s.decoding {
	case text, raw, uuid:
		return attribute.Keyword
	case boolean:
		return attribute.Bool
	case signed32, signed64, unsigned32, unsigned64:
		return attribute.Int
	case decimal:
		if s.scale == 0 {
			return attribute.Int
		}
		return attribute.Float
	case double:
		return attribute.Float
	case single, half:
		return attribute.Float32
	case days, millis, micros, nanos, julian:
		return attribute.Timestamp
	}
	return 0
}

// id reports whether the column's values can be ids.
func (s *shape) id() bool {
	t := s.attribute()
	return t == attribute.Keyword || t == attribute.Int
}

// float reports whether the column's values are floats.
func (s *shape) float() bool {
	t := s.attribute()
	return t == attribute.Float || t == attribute.Float32
}

// number reports whether the column's values, or elements, can be components of vectors.
func (s *shape) number() bool {
	switch s.decoding {
	case signed32, signed64, unsigned32, unsigned64, decimal, single, double, half:
		return true
	}
	return false
}

// null reports whether the column's type says that all its values are null.
func (s *shape) null() bool { return s.decoding == nothing && !s.list }

// A node is one element of the schema tree.
type node struct {
	schema.Node
	children []*node
	leaf     int   // index of its first leaf
	def      int16 // the definition level from which it is there
}

// schemaTree returns the root of a file's schema.
func schemaTree(s *schema.Schema) *node {
	leaves := 0
	var parse func(n schema.Node, def int16) *node
	parse = func(n schema.Node, def int16) *node {
		if n.RepetitionType() != parquet.Repetitions.Required {
			def++
		}
		out := &node{Node: n, leaf: leaves, def: def}
		group, ok := n.(*schema.GroupNode)
		if !ok {
			leaves++
			return out
		}
		for i := range group.NumFields() {
			out.children = append(out.children, parse(group.Field(i), def))
		}
		return out
	}
	root := &node{Node: s.Root()}
	for i := range s.Root().NumFields() {
		root.children = append(root.children, parse(s.Root().Field(i), 0))
	}
	return root
}

func (n *node) is(r parquet.Repetition) bool { return n.RepetitionType() == r }

func (n *node) converted(t ...schema.ConvertedType) bool {
	return slices.Contains(t, n.ConvertedType())
}

// leafNode returns the leaf that a node is, nil if it is a group.
func (n *node) leafNode() *schema.PrimitiveNode {
	p, _ := n.Node.(*schema.PrimitiveNode)
	return p
}

// plain reports whether a node is a struct: a group that is neither a list nor a map, and
// comes once.
func (n *node) plain() bool {
	return n.leafNode() == nil && !n.isList() && !n.isMap() && !n.is(parquet.Repetitions.Repeated)
}

func (n *node) isList() bool {
	_, ok := n.LogicalType().(schema.ListLogicalType)
	return ok || n.converted(schema.ConvertedTypes.List)
}

func (n *node) isMap() bool {
	_, ok := n.LogicalType().(schema.MapLogicalType)
	return ok || n.converted(schema.ConvertedTypes.Map, schema.ConvertedTypes.MapKeyValue)
}

// find returns the node at a path of names with dots between them, through structs.
// Names may have dots themselves. It returns nil if there is none, or more than one.
func (n *node) find(path string) *node {
	var found *node
	for _, child := range n.children {
		var at *node
		if child.Name() == path {
			at = child
		} else if rest, ok := strings.CutPrefix(path, child.Name()+"."); ok && child.plain() {
			at = child.find(rest)
		}
		if at != nil && found != nil {
			return nil
		}
		if at != nil {
			found = at
		}
	}
	return found
}

// shape recognises a leaf and the three forms of a list: the standard one (an annotated
// group of a repeated group of an element), the legacy one (an annotated group of a
// repeated element), and a repeated leaf.
func (n *node) shape() shape {
	s := shape{name: n.Name(), leaf: n.leaf, maxDef: n.def}
	if p := n.leafNode(); p != nil {
		s.setDecoding(p)
		if n.is(parquet.Repetitions.Repeated) {
			s.list, s.text, s.elemDef = true, "list<"+s.text+">", n.def
		}
		return s
	}
	switch {
	case n.isMap():
		s.text = "map"
		return s
	case !n.isList():
		s.text = "struct"
		if n.is(parquet.Repetitions.Repeated) {
			s.text = "list<struct>"
		}
		return s
	case n.is(parquet.Repetitions.Repeated) || len(n.children) != 1 || !n.children[0].is(parquet.Repetitions.Repeated):
		s.text = "malformed list"
		return s
	}
	element := n.children[0]
	s.list, s.elemDef = true, element.def
	if element.leafNode() == nil && len(element.children) == 1 && element.Name() != "array" && element.Name() != n.Name()+"_tuple" {
		if element = element.children[0]; element.is(parquet.Repetitions.Repeated) {
			s.text = "list<list>"
			return s
		}
	}
	s.maxDef = element.def
	p := element.leafNode()
	if p == nil {
		of := element.shape()
		if of.text == "list<struct>" { // an element is repeated by its list
			of.text = "struct"
		}
		s.text = "list<" + of.text + ">"
		return s
	}
	s.setDecoding(p)
	s.text = "list<" + s.text + ">"
	return s
}

// setDecoding sets how a leaf is decoded and what its type is called.
func (s *shape) setDecoding(p *schema.PrimitiveNode) {
	physical := p.PhysicalType()
	types := parquet.Types
	type leaf struct {
		physical parquet.Type
		decoding decoding
		name     string
	}
	choose := func(name string, leaves ...leaf) {
		for _, l := range leaves {
			if l.physical == physical {
				s.decoding, s.text = l.decoding, l.name
				return
			}
		}
		s.text = fmt.Sprintf("%s stored as %v", name, physical)
	}
	asText := func(name string) { choose(name, leaf{types.ByteArray, text, name}) }

	switch t := p.LogicalType().(type) {
	case schema.NullLogicalType:
		s.decoding, s.text = nothing, "null"
	case schema.StringLogicalType:
		asText("string")
	case schema.EnumLogicalType:
		asText("enum")
	case schema.JSONLogicalType:
		asText("json")
	case schema.IntLogicalType:
		name := fmt.Sprint("uint", t.BitWidth())
		narrow, wide := unsigned32, unsigned64
		if t.IsSigned() {
			name, narrow, wide = fmt.Sprint("int", t.BitWidth()), signed32, signed64
		}
		choose(name, leaf{types.Int32, narrow, name}, leaf{types.Int64, wide, name})
	case schema.DecimalLogicalType:
		s.scale = int(t.Scale())
		name := fmt.Sprintf("decimal(%d,%d)", t.Precision(), t.Scale())
		choose(name, leaf{types.Int32, decimal, name}, leaf{types.Int64, decimal, name},
			leaf{types.ByteArray, decimal, name}, leaf{types.FixedLenByteArray, decimal, name})
		if s.scale < 0 || s.scale > maxScale {
			s.decoding = undecodable
		}
	case schema.DateLogicalType:
		choose("date", leaf{types.Int32, days, "date"})
	case schema.TimestampLogicalType:
		switch t.TimeUnit() {
		case schema.TimeUnitMillis:
			choose("timestamp", leaf{types.Int64, millis, "timestamp(millis)"})
		case schema.TimeUnitMicros:
			choose("timestamp", leaf{types.Int64, micros, "timestamp(micros)"})
		case schema.TimeUnitNanos:
			choose("timestamp", leaf{types.Int64, nanos, "timestamp(nanos)"})
		default:
			s.text = "timestamp of an unknown unit"
		}
	case schema.TimeLogicalType:
		s.text = "time of day"
	case schema.UUIDLogicalType:
		choose("uuid", leaf{types.FixedLenByteArray, uuid, "uuid"})
	case schema.Float16LogicalType:
		choose("float16", leaf{types.FixedLenByteArray, half, "float16"})
	case schema.NoLogicalType:
		s.setPhysical(p)
	case schema.UnknownLogicalType:
		s.text = fmt.Sprintf("%v of an unknown kind", physical)
	default:
		s.text = strings.ToLower(t.String())
	}
}

// maxScale is the largest scale of a decimal that is read. Sixteen bytes hold 38 digits,
// and 76 are the most that a common writer has.
const maxScale = 76

// setPhysical is setDecoding for a leaf without an annotation.
func (s *shape) setPhysical(p *schema.PrimitiveNode) {
	switch physical := p.PhysicalType(); physical {
	case parquet.Types.Boolean:
		s.decoding, s.text = boolean, "bool"
	case parquet.Types.Int32:
		s.decoding, s.text = signed32, "int32"
	case parquet.Types.Int64:
		s.decoding, s.text = signed64, "int64"
	case parquet.Types.Int96:
		s.decoding, s.text = julian, "timestamp(int96)"
	case parquet.Types.Float:
		s.decoding, s.text = single, "float"
	case parquet.Types.Double:
		s.decoding, s.text = double, "double"
	case parquet.Types.ByteArray:
		s.decoding, s.text = raw, "binary"
	case parquet.Types.FixedLenByteArray:
		s.decoding, s.text = fixed, fmt.Sprintf("fixed_len_byte_array(%d)", p.TypeLength())
	default:
		s.text = physical.String()
	}
}
