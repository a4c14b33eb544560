package tower

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// extended is a reader whose rows also have the partition keys of their files, and whose
// attributes have the types that were told.
type extended struct {
	Reader
	schema     attribute.Schema
	columns    []int               // the position in schema of each attribute of the reader
	fields     []attribute.Field   // of partitions
	surveyed   []Partition         // the same, with their texts
	partitions [][]attribute.Value // of each file, aligned with fields
	told       []told
	tally      tally
	row        Row
}

// told is an attribute of the reader, by its position, with the type that was told.
type told struct {
	column int
	attribute.Field
}

// defaultPartition is the value by which Hive writes a null.
const defaultPartition = "__HIVE_DEFAULT_PARTITION__"

// extend returns a reader of what was asked for beside what the files hold.
func extend(r Reader, o Options) (Reader, error) {
	x := &extended{Reader: r}
	for _, key := range o.PartitionAttributes {
		if err := x.addPartition(o, key); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return x.finish(o)
}

// finish sets the schema, once partitions are known.
func (x *extended) finish(o Options) (Reader, error) {
	r := x.Reader
	fields := r.Schema().Fields()
	changed := len(x.fields) > 0
	for i, f := range fields {
		t, ok := o.AttributeTypes[f.Name]
		if !ok || t == f.Type {
			continue
		}
		if t == attribute.KeywordList || f.Type == attribute.KeywordList {
			return nil, errors.Join(fmt.Errorf("open %s: attribute %s is of type %v, and cannot be read as %v", o.Files.Files()[0].Name(), f.Name, f.Type, t), r.Close())
		}
		fields[i].Type, changed = t, true
		x.told = append(x.told, told{i, fields[i]})
	}
	if !changed {
		return r, nil
	}
	var err error
	if x.schema, err = attribute.NewSchema(append(fields, x.fields...)); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w; a key of partitions can be renamed as a column can", o.Files.Files()[0].Name(), err), r.Close())
	}
	for _, f := range fields {
		i, _ := x.schema.Lookup(f.Name)
		x.columns = append(x.columns, i)
	}
	x.row.Attributes = make([]attribute.Value, x.schema.Len())
	return x, nil
}

// addPartition adds a partition key as an attribute. Its type is int if all values are
// integers as they would be written, timestamp if all are dates or times, and else keyword.
func (x *extended) addPartition(o Options, key string) error {
	files := o.Files.Files()
	texts := make([]string, len(files))
	fits := map[attribute.Type]bool{attribute.Int: true, attribute.Timestamp: true}
	some := false
	for i, f := range files {
		text, ok := o.Files.Partition(i, key)
		if !ok {
			return fmt.Errorf("open %s: its path has no %s=VALUE, a partition key that was asked for", f.Name(), key)
		}
		if texts[i] = text; text == defaultPartition {
			continue
		}
		some = true
		n, isInt := parseInt(text)
		_, _, isTime := parseTime(text)
		fits[attribute.Int] = fits[attribute.Int] && isInt && fmt.Sprint(n) == text
		fits[attribute.Timestamp] = fits[attribute.Timestamp] && isTime
	}
	field := attribute.Field{Name: key, Type: attribute.Keyword}
	if to, ok := o.RenameColumns[key]; ok {
		field.Name = to
	}
	for _, t := range []attribute.Type{attribute.Int, attribute.Timestamp} {
		if some && fits[t] {
			field.Type = t
			break
		}
	}
	if t, ok := o.AttributeTypes[field.Name]; ok {
		field.Type = t
	}
	x.surveyed = append(x.surveyed, Partition{field, texts})
	return x.addField(field, texts, key, func(i int) string { return files[i].Name() })
}

// addField adds a key of partitions with what files say of it. Named names a file.
func (x *extended) addField(field attribute.Field, texts []string, key string, named func(int) string) error {
	if x.partitions == nil {
		x.partitions = make([][]attribute.Value, len(texts))
	}
	for i, text := range texts {
		var v attribute.Value
		if text != defaultPartition {
			var err error
			if v, _, err = parseValue(field.Type, text); err != nil {
				return fmt.Errorf("open %s: partition %s=%.80s: %w", named(i), key, text, err)
			}
		}
		x.partitions[i] = append(x.partitions[i], v)
	}
	x.fields = append(x.fields, field)
	return nil
}

func (x *extended) Schema() attribute.Schema { return x.schema }

func (x *extended) Survey() *Survey {
	s := x.Reader.Survey()
	s.Partitions = x.surveyed
	return s
}

func (x *extended) Notes() []string {
	return append(slices.Clone(x.Reader.Notes()), x.tally.notes()...)
}

func (x *extended) Next() (*Row, error) {
	row, err := x.Reader.Next()
	if err != nil {
		return nil, err
	}
	attributes := x.row.Attributes
	x.row = *row
	x.row.Attributes = attributes
	clear(attributes)
	for i, v := range row.Attributes {
		attributes[x.columns[i]] = v
	}
	for _, t := range x.told {
		x.convert(t.Field, &attributes[x.columns[t.column]])
	}
	if x.partitions != nil {
		for i, v := range x.partitions[row.File] {
			at, _ := x.schema.Lookup(x.fields[i].Name)
			attributes[at] = v
		}
	}
	return &x.row, nil
}

// convert gives a value the type that was told.
func (x *extended) convert(f attribute.Field, v *attribute.Value) {
	if v.Absent() {
		return
	}
	text := v.String()
	if v.Type() == attribute.Keyword {
		text = v.Keyword()
	}
	converted, unzoned, err := parseValue(f.Type, text)
	switch {
	case errors.As(err, new(rangeError)):
		x.row.Problems = append(slices.Clone(x.row.Problems), Problem{OutOfRange, fmt.Sprintf("attribute %s: %.60q, %v", f.Name, text, err)})
	case err != nil:
		x.row.Problems = append(slices.Clone(x.row.Problems), Problem{TypeChange, fmt.Sprintf("attribute %s: %.60q, but its type is %v, as it was told", f.Name, text, f.Type)})
	case unzoned:
		x.tally.add("attribute " + f.Name + ": %d times name no zone and are taken for UTC")
	}
	if err == nil && f.Type == attribute.Timestamp {
		var note string
		if converted, note = storedTime(f.Name, converted.Time()); note != "" {
			x.tally.add(note)
		}
	}
	*v = converted
}
