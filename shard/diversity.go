package shard

import (
	"fmt"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// AtMost bounds how many candidates of an answer have the same value of an
// attribute: a keyword, any one of a keyword list, an int or a bool.
//
// # Goals
//
// The answer is what taking the eligible rows of all shards one by one would give,
// best first, ties by id, passing over a row if for some AtMost N of those taken
// have a value that it has. It is so whatever the layout, and has fewer than k
// candidates only if taking all rows would.
//
// # Design
//
// A shard cannot tell which of its rows are passed over: that depends on rows of
// other shards. So the merge does it, on more rows than k. It is right as far as
// every shard's hits reach, which is the rank of the last hit of a shard that has
// more rows; if it passes that with too few candidates, the shards whose hits ended
// are asked for more, at least twice as many, until there are k candidates or those
// shards have no more rows.
type AtMost struct {
	Field int // its position in the schema
	N     int // at least 1
}

// overfetch is how many times k rows are fetched at first where rows may be passed
// over.
const overfetch = 2

// Limitable reports whether an [AtMost] may name an attribute of that type.
func Limitable(t attribute.Type) bool {
	switch t {
	case attribute.Keyword, attribute.KeywordList, attribute.Int, attribute.Bool:
		return true
	}
	return false
}

func (a AtMost) validate(schema attribute.Schema) error {
	switch {
	case a.Field < 0 || a.Field >= schema.Len():
		return fmt.Errorf("at most %d of attribute %d, the tower has %d: %w", a.N, a.Field, schema.Len(), index.ErrQuery)
	case !Limitable(schema.Field(a.Field).Type):
		f := schema.Field(a.Field)
		return fmt.Errorf("at most %d of attribute %s, a %s, want a keyword, keyword_list, int or bool: %w", a.N, f.Name, f.Type, index.ErrQuery)
	case a.N < 1:
		return fmt.Errorf("at most %d of attribute %s, want at least 1: %w", a.N, schema.Field(a.Field).Name, index.ErrQuery)
	}
	return nil
}

// value is one value of an attribute, for all shards: a text aliases a mapped file.
type value struct {
	field  int
	text   string
	number int64
}

// quota counts the values of the candidates that were taken. Its memory is reused
// from query to query.
type quota struct {
	limits []AtMost
	taken  map[value]int
	values []value
}

func (u *quota) reset(limits []AtMost) {
	u.limits = limits
	if len(limits) > 0 && u.taken == nil {
		u.taken = map[value]int{}
	}
	clear(u.taken)
}

// of returns the values that a row has of an attribute. The next call reuses the
// memory.
func (u *quota) of(h *hit, field int) []value {
	u.values = u.values[:0]
	table := h.shard.attributes
	switch table.Schema().Field(field).Type {
	case attribute.Keyword, attribute.KeywordList:
		for _, code := range table.Codes(h.ordinal, field) {
			u.values = append(u.values, value{field: field, text: table.Text(field, code)})
		}
	default:
		if v := table.Value(h.ordinal, field); !v.Absent() {
			u.values = append(u.values, value{field: field, number: v.Int()})
		}
	}
	return u.values
}

// full returns the first limit that the row would exceed, and by which value.
func (u *quota) full(h *hit) (limit AtMost, v value, full bool) {
	for _, limit := range u.limits {
		for _, v := range u.of(h, limit.Field) {
			if u.taken[v] >= limit.N {
				return limit, v, true
			}
		}
	}
	return AtMost{}, value{}, false
}

// take counts the values of a row.
func (u *quota) take(h *hit) {
	for _, limit := range u.limits {
		for _, v := range u.of(h, limit.Field) {
			u.taken[v]++
		}
	}
}
