package attribute

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

// Type is the type of an attribute.
type Type uint8

// The attribute types. A keyword is a UTF-8 string that filters compare as a
// whole; a keyword list is a set of them, without order or repetition.
const (
	Keyword Type = iota + 1
	KeywordList
	Bool
	Int       // int64
	Float     // float64, finite
	Timestamp // of the years 1 to 9999, to the nanosecond
	Float32   // float32, finite
)

var typeNames = [...]string{
	Keyword: "keyword", KeywordList: "keyword_list", Bool: "bool", Int: "int", Float: "float", Timestamp: "timestamp", Float32: "float32",
}

// String returns the name that the manifest and error texts use.
func (t Type) String() string {
	if t.valid() {
		return typeNames[t]
	}
	return fmt.Sprintf("type(%d)", uint8(t))
}

func (t Type) valid() bool { return t >= Keyword && t <= Float32 }

// MarshalText implements [encoding.TextMarshaler].
func (t Type) MarshalText() ([]byte, error) {
	if !t.valid() {
		return nil, fmt.Errorf("attribute type %d is unknown", uint8(t))
	}
	return []byte(typeNames[t]), nil
}

// UnmarshalText implements [encoding.TextUnmarshaler].
func (t *Type) UnmarshalText(text []byte) error {
	i := slices.Index(typeNames[:], string(text))
	if i < int(Keyword) {
		return fmt.Errorf("attribute type %q: want one of %s", text, strings.Join(typeNames[1:], ", "))
	}
	*t = Type(i)
	return nil
}

// Field is one attribute of a tower.
type Field struct {
	Name string `json:"name"`
	Type Type   `json:"type"`
}

// Check returns an error that says why v, unless it is absent, cannot be a value
// of the attribute: another type, a string that is not UTF-8, an infinite float, a
// time that no RFC 3339 text has.
func (f Field) Check(v Value) error {
	if v.Absent() {
		return nil
	}
	if v.Type() != f.Type {
		return fmt.Errorf("attribute %s: value %.64q is of type %s, want %s", f.Name, v.String(), v.Type(), f.Type)
	}
	switch f.Type {
	case Keyword:
		return f.checkText(v.text)
	case KeywordList:
		for _, s := range v.list {
			if err := f.checkText(s); err != nil {
				return err
			}
		}
	case Float, Float32:
		if math.IsInf(v.Float(), 0) {
			return fmt.Errorf("attribute %s: value %v, want a finite number", f.Name, v.Float())
		}
	case Timestamp:
		if at := v.Time(); !at.Equal(ClampTime(at)) {
			return fmt.Errorf("attribute %s: value %s, want a time of the years 1 to 9999", f.Name, v)
		}
	}
	return nil
}

func (f Field) checkText(s string) error {
	if !utf8.ValidString(s) {
		return fmt.Errorf("attribute %s: %.64q is not valid UTF-8", f.Name, s)
	}
	return nil
}

// Schema lists a tower's attributes in ascending order of their names. It is
// the same for every shard of the tower. The zero Schema has no attributes.
type Schema struct {
	fields []Field
}

// MaxFields is the largest number of attributes a schema may have.
const MaxFields = 1024

// A name must be usable as an identifier in a filter.
var validName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]{0,127}$`)

// reserved are the words that a CEL expression cannot use as an identifier, and
// user, which names a query's bindings.
var reserved = []string{
	"as", "break", "const", "continue", "else", "false", "for", "function", "if", "import", "in",
	"let", "loop", "namespace", "null", "package", "return", "true", "user", "var", "void", "while",
}

// NewSchema returns the schema of the given fields, in any order. It rejects
// names that a filter could not mention, repeated names and unknown types, all of them in
// one error.
func NewSchema(fields []Field) (Schema, error) {
	if len(fields) > MaxFields {
		return Schema{}, fmt.Errorf("schema has %d attributes, at most %d are accepted", len(fields), MaxFields)
	}
	sorted := slices.Clone(fields)
	slices.SortFunc(sorted, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	var wrong []string
	for i, f := range sorted {
		switch {
		case !validName.MatchString(f.Name):
			wrong = append(wrong, fmt.Sprintf("attribute name %.160q: want a letter or _, then up to 127 letters, digits or _", f.Name))
		case slices.Contains(reserved, f.Name):
			wrong = append(wrong, fmt.Sprintf("attribute name %q: reserved by the filter language", f.Name))
		case !f.Type.valid():
			wrong = append(wrong, fmt.Sprintf("attribute %s: type %d is unknown", f.Name, uint8(f.Type)))
		case i > 0 && sorted[i-1].Name == f.Name:
			wrong = append(wrong, fmt.Sprintf("attribute %s: named twice", f.Name))
		}
	}
	const most = 20
	if n := len(wrong); n > most {
		wrong = append(wrong[:most], fmt.Sprintf("and %d more", n-most))
	}
	if len(wrong) > 0 {
		return Schema{}, errors.New(strings.Join(wrong, "; "))
	}
	return Schema{fields: sorted}, nil
}

// Len returns the number of attributes.
func (s Schema) Len() int { return len(s.fields) }

// Field returns attribute i, in the order of names.
func (s Schema) Field(i int) Field { return s.fields[i] }

// Fields returns a copy of all attributes, in the order of names.
func (s Schema) Fields() []Field { return slices.Clone(s.fields) }

// Lookup returns the position of the attribute called name.
func (s Schema) Lookup(name string) (int, bool) {
	return slices.BinarySearchFunc(s.fields, name, func(f Field, n string) int { return strings.Compare(f.Name, n) })
}

// Names returns the attribute names, ascending.
func (s Schema) Names() []string {
	names := make([]string, len(s.fields))
	for i, f := range s.fields {
		names[i] = f.Name
	}
	return names
}

// Has reports whether some attribute is of type t.
func (s Schema) Has(t Type) bool {
	return slices.ContainsFunc(s.fields, func(f Field) bool { return f.Type == t })
}

// Equal reports whether both schemas have the same attributes.
func (s Schema) Equal(o Schema) bool { return slices.Equal(s.fields, o.fields) }

// MarshalJSON writes the schema as an array of fields.
func (s Schema) MarshalJSON() ([]byte, error) {
	if s.fields == nil {
		return []byte("[]"), nil
	}
	return json.Marshal(s.fields)
}

// UnmarshalJSON reads what MarshalJSON wrote and checks it like [NewSchema].
func (s *Schema) UnmarshalJSON(data []byte) error {
	var fields []Field
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	checked, err := NewSchema(fields)
	if err != nil {
		return err
	}
	*s = checked
	return nil
}
