package tower

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// maxJSONLine is the longest line of attributes that is read.
const maxJSONLine = 16 << 20

// AttributeOptions say what to read from JSON Lines.
type AttributeOptions struct {
	// Paths are files, folders, globs and URLs; see [input.Open]. On each line is one
	// object, the attributes of one entity. A file may be compressed by gzip or zstd.
	Paths []string
	// Files are the files of Paths, if they are open already; then the caller closes them.
	Files *input.Set
	// IDKey is the key of the entity's id, a string or an integer.
	IDKey string
	// IgnoreKeys are keys that do not become attributes.
	IgnoreKeys []string
	// Types are the types of keys, by name, whatever their values look like. A scalar is
	// then what its text is as that type. Names that the input does not have are ignored.
	Types map[string]attribute.Type
	// Part says that Files are not the whole input; nil if they are.
	Part *AttributePart
}

// An AttributeRow is one line of attributes. Lines may come in any order; the
// caller joins them to a tower by id.
type AttributeRow struct {
	// Line is the line's number in the whole input, from 1. [AttributeReader.Place] says
	// where that is.
	Line int64
	// ID is the entity's id, "" when a problem says why there is none.
	ID string
	// Attributes are aligned with the reader's schema. A null, a missing key, a NaN
	// and an empty array are absent.
	Attributes []attribute.Value
	// Problems are what could not be used of the line. Each names the line.
	Problems []Problem
}

// An AttributeReader reads attributes from JSON Lines in two passes: the first,
// when it is opened, infers the schema; the second yields the lines.
//
// The type of a key is what most of its values say, nulls aside; of kinds of values that
// are equally many, the first. Strings are keywords, or timestamps if more than half of
// them are a date and a time of day, or nearly all a date with or without one; they are in
// UTC if they name no zone. Arrays of
// strings are keyword lists. Numbers are ints if none has a fraction or an exponent, and
// else floats; but if a float cannot hold one of the integers, they are what most of them
// are. A value that cannot be of its key's type is a [Problem], [TypeChange] or
// [OutOfRange]. A key whose values are mostly objects, or arrays of anything else than
// strings, cannot be stored and is an error, unless it is ignored; so is [RunKey], which would
// name a training run without being compared. Blank lines are
// skipped. NaN, which is no JSON but what Python writes, stands for null.
type AttributeReader struct {
	files   []input.File
	names   []string // of all files of the input
	own     sets
	lasts   []int64 // the last line of each file, counted over all
	idKey   string
	keys    map[string]*jsonKey
	schema  attribute.Schema
	ignored []string
	found   []string // notes of the input
	notes   []string // of the first pass
	unknown []string
	tally   tally

	file    int // being read
	text    io.ReadCloser
	lines   *lineReader
	before  int64 // lines of the files before
	row     AttributeRow
	scratch []byte
	list    []string
	err     error
}

// OpenAttributes opens JSON Lines and infers their schema. It opens files that are not open
// yet, which fails if ctx ends.
func OpenAttributes(ctx context.Context, o AttributeOptions) (r *AttributeReader, err error) {
	if o.IDKey == "" {
		return nil, errors.New("open attributes: no id key is named")
	}
	r = &AttributeReader{idKey: o.IDKey, keys: make(map[string]*jsonKey), ignored: o.IgnoreKeys}
	for _, name := range o.IgnoreKeys {
		r.keys[name] = &jsonKey{name: name, ignored: true}
	}
	for name, t := range o.Types {
		if r.keys[name] == nil {
			r.keys[name] = &jsonKey{name: name, typ: t, told: true, reason: "as it was told"}
		}
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			r = nil
		}
	}()
	if o.Files == nil {
		if o.Files, err = r.own.open(ctx, o.Paths, AcceptAttributes, input.Options{}); err != nil {
			return r, err
		}
	}
	r.files, r.found = o.Files.Files(), o.Files.Notes()
	if o.Part != nil {
		if err := r.takePart(o.Part); err != nil {
			return r, err
		}
	} else {
		for _, f := range r.files {
			r.names = append(r.names, f.Name())
		}
		if err := r.infer(ctx); err != nil {
			return r, err
		}
		r.file, r.before = 0, 0
	}
	r.row.Attributes = make([]attribute.Value, r.schema.Len())
	return r, nil
}

// nextLine returns the next line of all files. A nil one says that a file has ended.
func (r *AttributeReader) nextLine() (line []byte, err error) {
	if r.file == len(r.files) {
		return nil, io.EOF
	}
	f := r.files[r.file]
	if r.text == nil {
		if r.text, err = openText(f); err != nil {
			return nil, err
		}
		r.lines = newLineReader(r.text, maxJSONLine)
	}
	line, err = r.lines.next()
	if errors.Is(err, io.EOF) {
		r.before += r.lines.number
		r.file++
		return nil, r.closeText()
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: line %d: %w", f.Name(), r.lines.number, err)
	}
	if line == nil {
		line = []byte{}
	}
	return line, nil
}

func (r *AttributeReader) closeText() error {
	if r.text == nil {
		return nil
	}
	text := r.text
	r.text = nil
	return text.Close()
}

// line returns the number of the line that was last read, in the whole input.
func (r *AttributeReader) line() int64 { return r.before + r.lines.number }

// Place says where a line is, by its number in the whole input.
func (r *AttributeReader) Place(line int64) string {
	if len(r.names) < 2 {
		return fmt.Sprintf("line %d", line)
	}
	file, _ := slices.BinarySearch(r.lasts, line)
	if file == len(r.names) {
		file--
	}
	if file > 0 {
		line -= r.lasts[file-1]
	}
	return fmt.Sprintf("line %d of %s", line, r.names[file])
}

// checkEvery is how many lines pass between looks at the context.
const checkEvery = 4096

// infer is the first pass.
func (r *AttributeReader) infer(ctx context.Context) error {
	some := false // line of the file that is not blank
	var empty []string
	for n := 0; ; n++ {
		if n%checkEvery == 0 {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		line, err := r.nextLine()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if line == nil {
			if r.lasts = append(r.lasts, r.before); !some {
				empty = append(empty, r.files[r.file-1].Name())
			}
			some = false
			continue
		}
		some = some || len(bytes.TrimSpace(line)) > 0
		if !validObject(line) {
			continue // the second pass reports it
		}
		eachMember(line, func(name []byte, kind jsonKind, raw []byte) bool {
			err = r.observe(name, kind, raw)
			return err == nil
		})
		if err != nil {
			return err
		}
	}
	if len(empty) == len(r.files) {
		return fmt.Errorf("open %s: it is empty, want JSON Lines, one object per line", empty[0])
	}
	if len(empty) > 0 {
		r.notes = append(r.notes, fmt.Sprintf("files without a line: %d, the first %s", len(empty), empty[0]))
	}
	return r.decide()
}

// decide makes a schema of what the first pass has seen.
func (r *AttributeReader) decide() error {
	var fields []attribute.Field
	var unusable []string
	for _, k := range r.keys {
		seen := k.seen > 0
		k.seen = 0
		switch {
		case k.ignored && !seen:
			r.unknown = append(r.unknown, k.name)
			continue
		case k.ignored:
			continue
		case k.told && !seen:
			continue
		case !k.told:
			kind, line, notes := k.decide()
			r.notes = append(r.notes, notes...)
			if line > 0 {
				unusable = append(unusable, fmt.Sprintf("%s (%s, the first in %s)", k.name, kind, r.Place(line)))
				continue
			}
		}
		if k.typ == 0 {
			r.notes = append(r.notes, "key "+k.name+": has nulls only and no type, left out")
			k.ignored = true
			continue
		}
		fields = append(fields, attribute.Field{Name: k.name, Type: k.typ})
	}
	slices.Sort(r.notes)
	slices.Sort(r.unknown)
	if len(unusable) > 0 {
		slices.Sort(unusable)
		return fmt.Errorf("open %s: cannot store key %.2000s: supported are strings, arrays of strings, bools and numbers; such a key can be ignored", r.files[0].Name(), strings.Join(unusable, ", key "))
	}
	var err error
	if r.schema, err = attribute.NewSchema(fields); err != nil {
		return fmt.Errorf("open %s: %w; such a key can be ignored", r.files[0].Name(), err)
	}
	if _, is := r.schema.Lookup(RunKey); is {
		return fmt.Errorf("open %s: key %s is what names a training run, and only Parquet files of towers do; such a key can be ignored", r.files[0].Name(), RunKey)
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

// observe learns what a value tells of its key's type.
func (r *AttributeReader) observe(name []byte, kind jsonKind, raw []byte) error {
	k := r.lookup(name)
	if string(r.scratch) == r.idKey {
		return nil
	}
	if k == nil {
		k = &jsonKey{name: string(r.scratch)}
		r.keys[k.name] = k
		if len(r.keys) > attribute.MaxFields+len(r.ignored) {
			return fmt.Errorf("open %s: line %d: key %.80q is one too many: a schema has at most %d attributes", r.files[r.file].Name(), r.lines.number, k.name, attribute.MaxFields)
		}
	}
	k.seen = r.line()
	if k.ignored || k.told {
		return nil
	}
	if l, null := r.lookOf(kind, raw); !null {
		k.observe(r.line(), l)
	}
	return nil
}

// Schema returns the attributes that lines have.
func (r *AttributeReader) Schema() attribute.Schema { return r.schema }

// Unknown returns the keys that were to be ignored and are not in the input.
func (r *AttributeReader) Unknown() []string { return r.unknown }

// Notes returns what has been left out so far, as sentences for people.
func (r *AttributeReader) Notes() []string {
	return slices.Concat(r.found, r.notes, r.tally.notes())
}

// Close closes the files that [OpenAttributes] has opened. It may be called twice.
func (r *AttributeReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read attributes: the reader is closed")
	}
	return errors.Join(r.closeText(), r.own.close())
}

// Next returns the attributes of the next line that is not blank, and io.EOF
// after the last. The row and its slices are valid until the next call; its
// strings, and the attribute values, for good. After an error every call
// returns it again.
func (r *AttributeReader) Next() (*AttributeRow, error) {
	for r.err == nil {
		var line []byte
		line, r.err = r.nextLine()
		if r.err == nil && len(bytes.TrimSpace(line)) > 0 {
			r.decode(line)
			return &r.row, nil
		}
	}
	return nil, r.err
}

// decode sets the row from a line.
func (r *AttributeReader) decode(line []byte) {
	r.row.Line, r.row.ID, r.row.Problems = r.line(), "", r.row.Problems[:0]
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
			r.problem(TypeChange, "key %.80q was not there when the file was opened", r.scratch)
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
	r.row.Problems = append(r.row.Problems, Problem{kind, r.Place(r.row.Line) + ": " + fmt.Sprintf(format, args...)})
}

func (r *AttributeReader) decodeID(kind jsonKind, raw []byte) {
	switch {
	case kind == jsonString && loneSurrogate(raw):
		r.problem(Surrogate, "key %s is %.60s, want Unicode", r.idKey, raw)
		return
	case kind == jsonString:
		r.scratch = appendJSONString(r.scratch[:0], raw)
		r.row.ID = string(r.scratch)
		return
	case kind == jsonInteger: // as an integer id column of Parquet
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
	switch kind {
	case jsonNull:
		return attribute.Value{}
	case jsonNaN:
		r.tally.add("attribute " + k.name + ": %d NaN values are absent")
		return attribute.Value{}
	}
	if k.typ == attribute.KeywordList {
		if kind == jsonArray && isList(raw) {
			return r.decodeList(k, raw)
		}
		return r.typeChange(k, kind, raw)
	}
	if !k.takes(kind) {
		return r.typeChange(k, kind, raw)
	}
	text := string(raw)
	if kind == jsonString {
		if loneSurrogate(raw) {
			r.problem(Surrogate, "attribute %s: string %.60s, want Unicode", k.name, raw)
			return attribute.Value{}
		}
		r.scratch = appendJSONString(r.scratch[:0], raw)
		text = string(r.scratch)
	}
	v, unzoned, err := parseValue(k.typ, text)
	switch {
	case errors.As(err, new(rangeError)):
		r.problem(OutOfRange, "attribute %s: %v %.60s, %v", k.name, kind, raw, err)
	case err != nil:
		return r.typeChange(k, kind, raw)
	case k.typ == attribute.Timestamp:
		if unzoned {
			r.tally.add("attribute " + k.name + ": %d times name no zone and are taken for UTC")
		}
		var note string
		if v, note = storedTime(k.name, v.Time()); note != "" {
			r.tally.add(note)
		}
	}
	return v
}

// takes reports whether a scalar of a kind may be of the key's type: any if that was told,
// else one of its own kind.
func (k *jsonKey) takes(kind jsonKind) bool {
	number := kind == jsonInteger || kind == jsonNumber || kind == jsonInfinity
	switch {
	case kind == jsonArray || kind == jsonObject:
		return false
	case k.told:
		return true
	case k.typ == attribute.Bool:
		return kind == jsonBool
	case k.typ == attribute.Int || k.typ == attribute.Float:
		return number
	}
	return kind == jsonString
}

func (r *AttributeReader) typeChange(k *jsonKey, kind jsonKind, raw []byte) attribute.Value {
	r.problem(TypeChange, "attribute %s: %v %.60s, but its type is %v, %s", k.name, kind, raw, k.typ, k.reason)
	return attribute.Value{}
}

// decodeList returns the value of an array of strings and nulls.
func (r *AttributeReader) decodeList(k *jsonKey, raw []byte) attribute.Value {
	r.list = r.list[:0]
	nulls, lone := false, false
	eachElement(raw, func(kind jsonKind, raw []byte) bool {
		if kind != jsonString {
			nulls = true
			return true
		}
		lone = lone || loneSurrogate(raw)
		r.scratch = appendJSONString(r.scratch[:0], raw)
		r.list = append(r.list, string(r.scratch))
		return true
	})
	if lone {
		r.problem(Surrogate, "attribute %s: array %.60s, want Unicode", k.name, raw)
		return attribute.Value{}
	}
	if nulls {
		r.tally.add("attribute " + k.name + ": %d lists had null elements, which are left out")
	}
	return attribute.OfKeywords(slices.Clone(r.list))
}
