package tower

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// maxJSONLine is the longest line of attributes that is read.
const maxJSONLine = 16 << 20

// AttributeOptions say what to read from JSON Lines.
type AttributeOptions struct {
	// Path is the file: on each line one object, the attributes of one entity.
	Path string
	// IDKey is the key of the entity's id, a string or an integer.
	IDKey string
	// IgnoreKeys are keys that do not become attributes.
	IgnoreKeys []string
}

// An AttributeRow is one line of attributes. Lines may come in any order; the
// caller joins them to a tower by id.
type AttributeRow struct {
	// Line is the line's number in the file, from 1.
	Line int64
	// ID is the entity's id, "" when a problem says why there is none.
	ID string
	// Attributes are aligned with the reader's schema. A null, a missing key
	// and an empty array are absent.
	Attributes []attribute.Value
	// Problems are what could not be used of the line. Each names the line.
	Problems []Problem
}

// An AttributeReader reads attributes from JSON Lines in two passes: the first,
// when it is opened, infers the schema; the second yields the lines.
//
// The first value of a key that is not null decides its type: a string is a
// keyword, an array of strings a keyword list, a boolean a bool, and a number
// an int when it has neither fraction nor exponent, a float otherwise. Two
// things are decided by all values: an int is widened to a float when any number
// is one, and a keyword is a timestamp when every string of it is an RFC 3339
// date and time with a zone. A value of another type than its key's is a
// [TypeChange]. A key whose first value is an object, or an array of anything
// else, cannot be stored and is an error, unless it is ignored. Blank lines are
// skipped.
type AttributeReader struct {
	path    string
	idKey   string
	file    *os.File
	lines   *lineReader
	keys    map[string]*jsonKey
	schema  attribute.Schema
	ignored []string
	notes   []string
	tally   tally

	row     AttributeRow
	scratch []byte
	list    []string
	err     error
}

// A jsonKey is what is known of one key.
type jsonKey struct {
	name    string
	typ     attribute.Type // 0 until a value decided it
	line    int64          // which decided it
	instant bool           // a keyword whose strings are all instants so far
	ignored bool
	field   int   // position in the schema
	seen    int64 // line where it was last seen
}

// OpenAttributes opens a JSON Lines file and infers its schema.
func OpenAttributes(o AttributeOptions) (r *AttributeReader, err error) {
	if o.IDKey == "" {
		return nil, fmt.Errorf("open %s: no id key is named", o.Path)
	}
	r = &AttributeReader{path: o.Path, idKey: o.IDKey, keys: make(map[string]*jsonKey), ignored: o.IgnoreKeys}
	for _, name := range o.IgnoreKeys {
		r.keys[name] = &jsonKey{name: name, ignored: true}
	}
	if r.file, err = os.Open(o.Path); err != nil {
		return nil, fmt.Errorf("open attributes: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open %s: %w", o.Path, err), r.Close())
			r = nil
		}
	}()
	if err := r.infer(); err != nil {
		return r, err
	}
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return r, err
	}
	r.lines = newLineReader(r.file, maxJSONLine)
	r.row.Attributes = make([]attribute.Value, r.schema.Len())
	return r, nil
}

// infer is the first pass.
func (r *AttributeReader) infer() error {
	lines := newLineReader(r.file, maxJSONLine)
	for {
		line, err := lines.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if !validObject(line) {
			continue // the second pass reports it
		}
		eachMember(line, func(name []byte, kind jsonKind, raw []byte) bool {
			err = r.inferValue(lines.number, name, kind, raw)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	var fields []attribute.Field
	for _, k := range r.keys {
		switch {
		case k.ignored:
			if k.seen == 0 {
				r.notes = append(r.notes, "key "+k.name+": to be ignored, but not in the input")
			}
		case k.typ == 0:
			r.notes = append(r.notes, "key "+k.name+": has nulls only and no type, left out")
			k.ignored = true
		default:
			if k.instant {
				k.typ = attribute.Timestamp
			}
			fields = append(fields, attribute.Field{Name: k.name, Type: k.typ})
		}
		k.seen = 0
	}
	slices.Sort(r.notes)
	var err error
	if r.schema, err = attribute.NewSchema(fields); err != nil {
		return fmt.Errorf("%w; skip a key with --ignore-column", err)
	}
	for i, f := range r.schema.Fields() {
		r.keys[f.Name].field = i
	}
	return nil
}

// lookup returns the key called by the JSON string raw, nil when it is new.
func (r *AttributeReader) lookup(raw []byte) *jsonKey {
	r.scratch = appendJSONString(r.scratch[:0], raw)
	return r.keys[string(r.scratch)]
}

// inferValue learns what a value tells of its key's type.
func (r *AttributeReader) inferValue(line int64, name []byte, kind jsonKind, raw []byte) error {
	k := r.lookup(name)
	if string(r.scratch) == r.idKey {
		return nil
	}
	if k == nil {
		k = &jsonKey{name: string(r.scratch)}
		r.keys[k.name] = k
		if len(r.keys) > attribute.MaxFields+len(r.ignored) {
			return fmt.Errorf("line %d: key %q is one too many: a schema has at most %d attributes", line, k.name, attribute.MaxFields)
		}
	}
	k.seen = line
	if k.ignored || kind == jsonNull {
		return nil
	}
	t := kind.attribute(raw)
	switch {
	case t == 0 && k.typ == 0:
		what := kind.String()
		if kind == jsonArray {
			what = "array of other than strings"
		}
		return fmt.Errorf("line %d: key %s: cannot store an %s: supported are strings, arrays of strings, bools and numbers; skip the key with --ignore-column", line, k.name, what)
	case k.typ == 0:
		k.typ, k.line, k.instant = t, line, t == attribute.Keyword
	case k.typ == attribute.Int && t == attribute.Float:
		k.typ = t
	}
	if k.instant && kind == jsonString {
		r.scratch = appendJSONString(r.scratch[:0], raw)
		_, k.instant = parseInstant(string(r.scratch))
	}
	return nil
}

// attribute returns the type of attribute that a value asks for, 0 for none.
func (k jsonKind) attribute(raw []byte) attribute.Type {
	switch k {
	case jsonBool:
		return attribute.Bool
	case jsonInteger:
		return attribute.Int
	case jsonNumber:
		return attribute.Float
	case jsonString:
		return attribute.Keyword
	case jsonArray:
		t := attribute.KeywordList
		eachElement(raw, func(kind jsonKind, _ []byte) bool {
			if kind != jsonString && kind != jsonNull {
				t = 0
			}
			return t != 0
		})
		return t
	}
	return 0
}

// parseInstant parses an RFC 3339 date and time with a zone.
func parseInstant(s string) (t time.Time, ok bool) {
	if len(s) < len("2006-01-02T15:04:05Z") || s[4] != '-' {
		return t, false
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	return t, err == nil
}

// Schema returns the attributes that lines have.
func (r *AttributeReader) Schema() attribute.Schema { return r.schema }

// Notes returns what has been left out so far, as sentences for people.
func (r *AttributeReader) Notes() []string { return append(slices.Clone(r.notes), r.tally.notes()...) }

// Close closes the file. It may be called twice.
func (r *AttributeReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read attributes: the reader is closed")
	}
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	return f.Close()
}

// Next returns the attributes of the next line that is not blank, and io.EOF
// after the last. The row and its slices are valid until the next call; its
// strings, and the attribute values, for good. After an error every call
// returns it again.
func (r *AttributeReader) Next() (*AttributeRow, error) {
	for r.err == nil {
		line, err := r.lines.next()
		switch {
		case errors.Is(err, io.EOF):
			r.err = err
		case err != nil:
			r.err = fmt.Errorf("read %s: %w", r.path, err)
		case len(bytes.TrimSpace(line)) == 0:
		default:
			r.decode(line)
			return &r.row, nil
		}
	}
	return nil, r.err
}

// decode sets the row from a line.
func (r *AttributeReader) decode(line []byte) {
	r.row.Line, r.row.ID, r.row.Problems = r.lines.number, "", r.row.Problems[:0]
	clear(r.row.Attributes)
	if !validObject(line) {
		r.problem(NotObject, "%.60q: want one JSON object in UTF-8", line)
		return
	}
	ids := 0
	eachMember(line, func(name []byte, kind jsonKind, raw []byte) bool {
		k := r.lookup(name)
		switch {
		case string(r.scratch) == r.idKey:
			if ids++; ids == 1 {
				r.decodeID(kind, raw)
			} else if ids == 2 {
				r.problem(TwiceKey, "key %s comes twice", r.idKey)
			}
		case k == nil:
			// Only possible when the file changed after the first pass.
			r.problem(TypeChange, "key %q was not there when the file was opened", r.scratch)
		case k.ignored:
		case k.seen == r.row.Line:
			r.problem(TwiceKey, "key %s comes twice", k.name)
		default:
			k.seen = r.row.Line
			r.row.Attributes[k.field] = r.decodeValue(k, kind, raw)
		}
		return true
	})
	if ids == 0 {
		r.problem(NoID, "key %s is missing", r.idKey)
	}
}

func (r *AttributeReader) problem(kind ProblemKind, format string, args ...any) {
	r.row.Problems = append(r.row.Problems, Problem{kind, fmt.Sprintf("line %d: ", r.row.Line) + fmt.Sprintf(format, args...)})
}

func (r *AttributeReader) decodeID(kind jsonKind, raw []byte) {
	switch kind {
	case jsonString:
		r.scratch = appendJSONString(r.scratch[:0], raw)
		r.row.ID = string(r.scratch)
		return
	case jsonInteger: // as an integer id column of Parquet
		if i, err := strconv.ParseInt(string(raw), 10, 64); err == nil {
			r.row.ID = strconv.FormatInt(i, 10)
			return
		}
		if u, err := strconv.ParseUint(string(raw), 10, 64); err == nil {
			r.row.ID = strconv.FormatUint(u, 10)
			return
		}
	}
	r.problem(NoID, "key %s is %.60s, want a string or a 64-bit integer", r.idKey, raw)
}

// decodeValue returns the value of a key, absent when it has a problem.
func (r *AttributeReader) decodeValue(k *jsonKey, kind jsonKind, raw []byte) attribute.Value {
	got := kind.attribute(raw)
	switch {
	case kind == jsonNull:
		return attribute.Value{}
	case got == attribute.Keyword && k.typ == attribute.Timestamp, got == attribute.Int && k.typ == attribute.Float:
	case got != k.typ:
		r.problem(TypeChange, "attribute %s: %v %.60s, but its type is %v since line %d", k.name, kind, raw, k.typ, k.line)
		return attribute.Value{}
	}
	switch k.typ {
	case attribute.Bool:
		return attribute.OfBool(raw[0] == 't')
	case attribute.Int:
		i, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil {
			r.problem(OutOfRange, "attribute %s: integer %.60s, want the int64 range", k.name, raw)
			return attribute.Value{}
		}
		return attribute.OfInt(i)
	case attribute.Float:
		f, err := strconv.ParseFloat(string(raw), 64)
		if err != nil || math.IsInf(f, 0) {
			r.problem(OutOfRange, "attribute %s: number %.60s, want the float64 range", k.name, raw)
			return attribute.Value{}
		}
		return attribute.OfFloat(f)
	case attribute.Keyword, attribute.Timestamp:
		r.scratch = appendJSONString(r.scratch[:0], raw)
		if k.typ == attribute.Keyword {
			return attribute.OfKeyword(string(r.scratch))
		}
		t, ok := parseInstant(string(r.scratch))
		if !ok {
			r.problem(TypeChange, "attribute %s: string %.60s, want a date and time: the file has changed since it was opened", k.name, raw)
			return attribute.Value{}
		}
		v, note := storedTime(k.name, t)
		if note != "" {
			r.tally.add(note)
		}
		return v
	}
	r.list = r.list[:0]
	nulls := false
	eachElement(raw, func(kind jsonKind, raw []byte) bool {
		if kind == jsonNull {
			nulls = true
			return true
		}
		r.scratch = appendJSONString(r.scratch[:0], raw)
		r.list = append(r.list, string(r.scratch))
		return true
	})
	if nulls {
		r.tally.add("attribute " + k.name + ": %d lists had null elements, which are left out")
	}
	return attribute.OfKeywords(slices.Clone(r.list))
}
