package remote

import (
	"errors"
	"fmt"
	"math"
	"time"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// addFieldValues adds values of attributes that may be limited.
func addFieldValues(m *shardv1.FieldValues, values []shard.FieldValue) {
	if m.Texts == nil {
		m.Texts = &shardv1.Texts{}
	}
	for _, v := range values {
		m.Fields, m.Numbers = append(m.Fields, uint32(v.Field)), append(m.Numbers, v.Number)
		addText(m.Texts, v.Text)
	}
}

// fieldValuesOf returns values on the wire, nil for none.
func fieldValuesOf(values []shard.FieldValue) *shardv1.FieldValues {
	if len(values) == 0 {
		return nil
	}
	m := &shardv1.FieldValues{}
	addFieldValues(m, values)
	return m
}

// readFieldValues returns values, of attributes that limited has.
func readFieldValues(name string, m *shardv1.FieldValues, limited []int) ([]shard.FieldValue, error) {
	n := len(m.GetFields())
	if len(m.GetNumbers()) != n || len(m.GetTexts().GetLengths()) != n {
		return nil, fmt.Errorf("%s has %d fields, %d texts and %d numbers; want as many of each", name, n, len(m.GetTexts().GetLengths()), len(m.GetNumbers()))
	}
	texts, err := readTexts(name+".texts", m.GetTexts())
	if err != nil {
		return nil, err
	}
	out := make([]shard.FieldValue, n)
	for i := range out {
		field := int(m.Fields[i])
		if !has(limited, field) {
			return nil, fmt.Errorf("%s: value %d is of attribute %d; want one of limited, %v", name, i, field, limited)
		}
		out[i] = shard.FieldValue{Field: field, Text: texts[i], Number: m.Numbers[i]}
	}
	return out, nil
}

// has reports whether a short list has a number.
func has(list []int, n int) bool {
	for _, x := range list {
		if x == n {
			return true
		}
	}
	return false
}

// The types of values on the wire.
const (
	wireAbsent = iota
	wireKeyword
	wireKeywords
	wireBool
	wireInt
	wireFloat
	wireFloat32
	wireTimestamp
)

// addAttribute adds a value of an attribute.
func addAttribute(m *shardv1.AttributesResponse, v attribute.Value) {
	kind := byte(wireAbsent)
	switch v.Type() {
	case attribute.Keyword:
		kind = wireKeyword
		addText(m.Keywords, v.Keyword())
	case attribute.KeywordList:
		kind = wireKeywords
		m.Counts = append(m.Counts, uint32(len(v.Keywords())))
		for _, text := range v.Keywords() {
			addText(m.Keywords, text)
		}
	case attribute.Bool:
		kind = wireBool
		number := uint64(0)
		if v.Bool() {
			number = 1
		}
		m.Numbers = append(m.Numbers, number)
	case attribute.Int:
		kind = wireInt
		m.Numbers = append(m.Numbers, uint64(v.Int()))
	case attribute.Float:
		kind = wireFloat
		m.Numbers = append(m.Numbers, math.Float64bits(v.Float()))
	case attribute.Float32:
		kind = wireFloat32
		m.Numbers = append(m.Numbers, math.Float64bits(float64(v.Float32())))
	case attribute.Timestamp:
		kind = wireTimestamp
		t := v.Time()
		m.Numbers, m.Nanos = append(m.Numbers, uint64(t.Unix())), append(m.Nanos, uint32(t.Nanosecond()))
	}
	m.Types = append(m.Types, kind)
}

// errShort is the error of columns that have less than they should.
var errShort = errors.New("it has fewer values than types")

// attributeReader reads values of attributes one by one.
type attributeReader struct {
	numbers []uint64
	nanos   []uint32
	counts  []uint32
	texts   []string
}

func newAttributeReader(m *shardv1.AttributesResponse) (*attributeReader, error) {
	texts, err := readTexts("keywords", m.GetKeywords())
	return &attributeReader{m.GetNumbers(), m.GetNanos(), m.GetCounts(), texts}, err
}

// take returns the first of a list, and takes it away.
func take[T any](list *[]T) (first T, err error) {
	if len(*list) == 0 {
		return first, errShort
	}
	first, *list = (*list)[0], (*list)[1:]
	return first, nil
}

// next returns the next value, which is of that type.
func (r *attributeReader) next(kind byte) (v attribute.Value, err error) {
	switch kind {
	case wireAbsent:
		return v, nil
	case wireKeyword:
		text, err := take(&r.texts)
		return attribute.OfKeyword(text), err
	case wireKeywords:
		n, err := take(&r.counts)
		if err != nil || uint64(n) > uint64(len(r.texts)) {
			return v, errShort
		}
		list := r.texts[:n:n]
		r.texts = r.texts[n:]
		return attribute.OfKeywords(list), nil
	case wireBool, wireInt, wireFloat, wireFloat32, wireTimestamp:
		return r.number(kind)
	}
	return v, fmt.Errorf("it has a value of type %d; want 0 to %d", kind, wireTimestamp)
}

// number returns the next value, which is of that type, and a number.
func (r *attributeReader) number(kind byte) (v attribute.Value, err error) {
	n, err := take(&r.numbers)
	if err != nil {
		return v, err
	}
	switch kind {
	case wireBool:
		v = attribute.OfBool(n != 0)
	case wireInt:
		v = attribute.OfInt(int64(n))
	case wireFloat:
		v = attribute.OfFloat(math.Float64frombits(n))
	case wireFloat32:
		v = attribute.OfFloat32(float32(math.Float64frombits(n)))
	case wireTimestamp:
		nanos, err := take(&r.nanos)
		if err != nil {
			return v, err
		}
		v = attribute.OfTimestamp(time.Unix(int64(n), int64(nanos)))
	}
	return v, nil
}

// ended returns an error if there is more than was read.
func (r *attributeReader) ended() error {
	if n := len(r.numbers) + len(r.nanos) + len(r.counts) + len(r.texts); n > 0 {
		return fmt.Errorf("it has %d values more than types", n)
	}
	return nil
}

// textOf returns how many bytes of text a value has.
func textOf(v attribute.Value) int {
	n := len(v.Keyword())
	for _, text := range v.Keywords() {
		n += len(text)
	}
	return n
}
