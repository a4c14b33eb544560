package tower

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/index"
)

// A form is how the columns of a file hold embeddings.
type form uint8

const (
	formList   form = iota + 1 // a list of numbers
	formPacked                 // bytes: float32, the least significant byte first
	formText                   // text: a JSON array of numbers
	formSpark                  // a vector of Spark: a struct of type, size, indices, values
	formValues                 // the values of one, which are all of it if it is dense
	formSpread                 // one column for each component
)

// An embedding is where a file has its embeddings: the leaves that form them, under the
// names of their columns.
type embedding struct {
	form   form
	text   string // for messages
	shapes []shape
}

// wantEmbedding is for error texts.
const wantEmbedding = "want a list of numbers, bytes of float32, JSON text or a vector of Spark"

// embedding finds the embeddings that a name asks for: a column, a path into structs with
// dots between the names, or a pattern with one * for one column per component. Without a
// column called name, columns that are called name_0, name_1 and so on are the components.
func (n *node) embedding(name string) (embedding, error) {
	if at := n.find(name); at != nil {
		if parent, ok := strings.CutSuffix(name, ".values"); ok {
			if whole := n.find(parent); whole != nil {
				if e, ok := whole.spark(parent); ok {
					e.form, e.text = formValues, "the values of "+e.text
					return e, nil
				}
			}
		}
		return at.embedded(name)
	}
	prefix, suffix, pattern := strings.Cut(name, "*")
	if !pattern {
		prefix, suffix = name+"_", ""
	}
	return n.spread(prefix, suffix)
}

// note says how embeddings are read that could be meant in another way, "" if they could
// not. What there is to say of bytes is known with the first of them.
func (e *embedding) note(name string) string {
	switch e.form {
	case formText:
		return "column " + name + ": " + e.text + ", read as JSON arrays of numbers"
	case formSpread:
		return fmt.Sprintf("embeddings: one column for each of %d components, %s to %s", len(e.shapes), e.shapes[0].name, e.shapes[len(e.shapes)-1].name)
	}
	return ""
}

// embedded returns the embeddings of one column.
func (n *node) embedded(name string) (embedding, error) {
	if e, ok := n.spark(name); ok {
		return e, nil
	}
	s := n.shape()
	s.name = name
	e := embedding{text: s.text, shapes: []shape{s}}
	switch {
	case s.list && s.number():
		e.form = formList
	case s.list:
	case s.decoding == raw || s.decoding == fixed:
		e.form = formPacked
	case s.decoding == text:
		e.form = formText
	}
	if e.form == 0 {
		return e, fmt.Errorf("embedding column %s is %s, %s", name, s.text, wantEmbedding)
	}
	return e, nil
}

// spark recognises a vector of Spark ML.
func (n *node) spark(name string) (e embedding, ok bool) {
	parts := []string{"type", "size", "indices", "values"}
	if !n.plain() || len(n.children) != len(parts) {
		return e, false
	}
	e = embedding{form: formSpark, text: "a vector of Spark"}
	for i, part := range parts {
		child := n.children[i]
		s := child.shape()
		s.name = name + "." + part
		if child.Name() != part || s.list != (i >= sparkIndices) || s.decoding != signed32 && i < sparkValues || i == sparkValues && !s.number() {
			return e, false
		}
		e.shapes = append(e.shapes, s)
	}
	return e, true
}

// Positions of the parts of a vector of Spark.
const (
	sparkType = iota
	sparkSize
	sparkIndices
	sparkValues
)

// spread finds columns of numbers whose names are a prefix, a number and a suffix. The
// numbers say the order, and must follow one another from 0 or 1.
func (n *node) spread(prefix, suffix string) (embedding, error) {
	e := embedding{form: formSpread, text: "columns of numbers"}
	numbers := map[int]shape{}
	for _, child := range n.children {
		middle, ok := strings.CutPrefix(child.Name(), prefix)
		if ok {
			middle, ok = strings.CutSuffix(middle, suffix)
		}
		if !ok || middle == "" || strings.Trim(middle, "0123456789") != "" {
			continue
		}
		i, err := strconv.Atoi(middle)
		if err != nil || i > index.MaxDim {
			return e, fmt.Errorf("column %s is no component of an embedding: its number is above %d", child.Name(), index.MaxDim)
		}
		s := child.shape()
		if s.list || !s.number() {
			return e, fmt.Errorf("column %s is %s, want a number: a component of an embedding", s.name, s.text)
		}
		if other, ok := numbers[i]; ok {
			return e, fmt.Errorf("columns %s and %s are the same component of an embedding", other.name, s.name)
		}
		numbers[i] = s
	}
	first := 0
	if _, ok := numbers[0]; !ok {
		first = 1
	}
	for i := range len(numbers) {
		s, ok := numbers[first+i]
		if !ok {
			return e, fmt.Errorf("columns %s*%s are %d, without number %d: want one for each component, from 0 or 1 on", prefix, suffix, len(numbers), first+i)
		}
		e.shapes = append(e.shapes, s)
	}
	return e, nil
}

// vectors reads the embeddings of the file being read.
type vectors struct {
	embedding
	columns []*column
	said    string // how bytes are read, after the first

	vector []float32 // scratch
}

func newVectors(e embedding) *vectors {
	v := &vectors{embedding: e}
	for _, s := range e.shapes {
		v.columns = append(v.columns, &column{shape: s, name: s.name, attribute: -1})
	}
	return v
}

// next takes the next embedding, nil when it is null or a problem says what is wrong with
// it. The slice is valid until the next call.
func (v *vectors) next() (vector []float32, problem *Problem, err error) {
	switch v.form {
	case formList:
		c := v.columns[0]
		if vector, err = c.floats(); err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		if len(vector) > index.MaxDim {
			return nil, tooLong(c.name), nil
		}
		return vector, nil, nil
	case formSpark, formValues:
		return v.spark()
	case formSpread:
		return v.spread()
	}
	c := v.columns[0]
	i, err := c.scalar()
	if err != nil {
		return nil, nil, fmt.Errorf("column %s: %w", c.name, err)
	}
	if i < 0 {
		return nil, nil, nil
	}
	data := c.bytes(i)
	v.vector = v.vector[:0]
	if v.form == formText {
		if v.vector, err = appendJSONNumbers(v.vector, data); err != nil {
			return nil, &Problem{BadEmbedding, fmt.Sprintf("column %s: %.60q: %v", c.name, data, err)}, nil
		}
		return v.vector, nil, nil
	}
	if len(data)%4 != 0 {
		return nil, &Problem{BadEmbedding, fmt.Sprintf("column %s: %d bytes, want numbers of 4 bytes (float32, little-endian)", c.name, len(data))}, nil
	}
	if len(data)/4 > index.MaxDim {
		return nil, tooLong(c.name), nil
	}
	if v.said == "" {
		v.said = fmt.Sprintf("column %s: %s, read as %d numbers of 4 bytes (float32, little-endian) in %d bytes", c.name, v.text, len(data)/4, len(data))
	}
	for ; len(data) > 0; data = data[4:] {
		v.vector = append(v.vector, math.Float32frombits(binary.LittleEndian.Uint32(data)))
	}
	return orEmpty(v.vector), nil, nil
}

// tooLong is what is wrong with an embedding that is longer than any.
func tooLong(column string) *Problem {
	return &Problem{BadEmbedding, fmt.Sprintf("column %s: more than %d numbers, want 1 to %d", column, index.MaxDim, index.MaxDim)}
}

// orEmpty makes of a vector without numbers one that is not null.
func orEmpty(v []float32) []float32 {
	if v == nil {
		return []float32{}
	}
	return v
}

// spread takes a component from each column.
func (v *vectors) spread() ([]float32, *Problem, error) {
	v.vector = v.vector[:0]
	nulls := 0
	for _, c := range v.columns {
		i, err := c.scalar()
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		if i < 0 {
			nulls++
			v.vector = append(v.vector, float32(math.NaN()))
			continue
		}
		v.vector = append(v.vector, c.component(i))
	}
	if nulls == len(v.columns) {
		return nil, nil, nil
	}
	return v.vector, nil, nil
}

// The types of a vector of Spark.
const (
	sparkSparse = 0
	sparkDense  = 1
)

// spark takes a vector of Spark: dense, its values; or sparse, of a size, with values at
// indices and zeros elsewhere.
func (v *vectors) spark() ([]float32, *Problem, error) {
	var numbers [2]int32 // type and size
	null := false
	for part, c := range v.columns[:sparkIndices] {
		i, err := c.scalar()
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		if i >= 0 {
			numbers[part] = c.chunk.Int32s[i]
		} else if part == sparkType {
			null = true
		}
	}
	var lists [2][]float32
	for k, c := range v.columns[sparkIndices:] {
		list, err := c.floats()
		if err != nil {
			return nil, nil, fmt.Errorf("column %s: %w", c.name, err)
		}
		lists[k] = list
	}
	indices, values := lists[0], lists[1]
	problem := func(format string, args ...any) ([]float32, *Problem, error) {
		return nil, &Problem{BadEmbedding, fmt.Sprintf("column %s: ", strings.TrimSuffix(v.columns[sparkType].name, ".type")) + fmt.Sprintf(format, args...)}, nil
	}
	size := int(numbers[sparkSize])
	switch {
	case null:
		return nil, nil, nil
	case max(len(indices), len(values)) > index.MaxDim:
		return nil, tooLong(strings.TrimSuffix(v.columns[sparkType].name, ".type")), nil
	case numbers[sparkType] == sparkDense:
		return values, nil, nil
	case numbers[sparkType] != sparkSparse:
		return problem("a vector of type %d, want %d (sparse) or %d (dense)", numbers[sparkType], sparkSparse, sparkDense)
	case v.form == formValues:
		return problem("a sparse vector, of which the values alone are no embedding: name the column %[1]s itself, and not %[1]s.values", strings.TrimSuffix(v.columns[sparkType].name, ".type"))
	case size < 0 || size > index.MaxDim:
		return problem("a sparse vector of size %d, want at most %d", size, index.MaxDim)
	case len(indices) != len(values):
		return problem("a sparse vector of %d indices and %d values", len(indices), len(values))
	}
	v.vector = slices.Grow(v.vector[:0], size)[:size]
	clear(v.vector)
	for k, at := range indices { // they are below 2^24, or too large
		if !(at >= 0 && at < float32(size)) {
			return problem("a sparse vector of size %d with an index %v", size, at)
		}
		v.vector[int(at)] = values[k]
	}
	return orEmpty(v.vector), nil, nil
}

// appendJSONNumbers appends the numbers of a JSON array. A null is NaN, and so is Python's
// NaN; a number that float32 cannot hold is an infinity.
func appendJSONNumbers(v []float32, data []byte) ([]float32, error) {
	const space = " \t\r\n"
	s := strings.Trim(string(data), space)
	inner, ok := strings.CutPrefix(s, "[")
	if ok {
		inner, ok = strings.CutSuffix(inner, "]")
	}
	if !ok {
		return v, errors.New("want a JSON array of numbers")
	}
	if v == nil {
		v = []float32{}
	}
	if strings.Trim(inner, space) == "" {
		return v, nil
	}
	for element := range strings.SplitSeq(inner, ",") {
		if len(v) == index.MaxDim {
			return v, fmt.Errorf("more than %d numbers", index.MaxDim)
		}
		element = strings.Trim(element, space)
		if element == "null" {
			element = "NaN"
		}
		f, err := strconv.ParseFloat(element, 32)
		if err != nil && !math.IsInf(f, 0) || strings.ContainsAny(element, "xXpP_") {
			return v, fmt.Errorf("%.20q is no number", element)
		}
		v = append(v, float32(f))
	}
	return v, nil
}
