package shard

import (
	"fmt"
	"slices"
	"sort"

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
// every shard's hits reach, the frontier: the rank of the first of the last hits of
// shards that have more rows. If it passes that with too few candidates, the shards
// whose hits ended are asked for more, at least twice as many, until there are k
// candidates or those shards have no more rows.
//
// An attribute of few values would have all rows fetched that way. But once n rows
// before the frontier have a value, no other row with it can be taken: such rows are
// removed from what shards are asked for, by the bitmaps of their values, and what is
// left is few rows, or rows that can be taken. This needs a frontier that is certain,
// so where walks would be asked for a large part of a shard, all shards that have
// more rows are asked for the exact answer from then on.
type AtMost struct {
	Field int // its position in the schema
	N     int // at least 1
}

// overfetch is how many times k rows are fetched at first where rows may be passed
// over.
const overfetch = 2

// large is the part of a shard's eligible rows from which on a walk is not asked for
// them: an exact scan costs no more.
const large = 8

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

// deepen makes the parts that are exhausted ask for more rows than before, and
// returns them.
func (f *fanOut) deepen(metric index.Metric, q *Query, merged []Hit) []int {
	if f.exact {
		taken := f.certain(metric, merged)
		full := f.merger.quota.filled(q.AtMost, taken)
		for _, i := range f.again {
			a := &f.parts[i]
			a.request.K = min(2*a.request.K, max(a.reply.Left, 1))
			a.request.Full, a.request.Taken = full, a.request.Taken[:0]
			for j := range taken {
				if int(taken[j].part) == i {
					a.request.Taken = append(a.request.Taken, taken[j].Ref)
				}
			}
		}
		return f.again
	}
	// As many as it takes if the share of those passed over stays the same.
	more := func(a *asked) int {
		return min(max(2*a.request.K, a.request.K*f.depth/max(len(merged), 1)), a.reply.Left)
	}
	deep := func(i int) bool { return more(&f.parts[i]) > f.parts[i].reply.Left/large }
	if q.Plan != index.Auto || !slices.ContainsFunc(f.again, deep) {
		for _, i := range f.again {
			f.parts[i].request.K = more(&f.parts[i])
		}
		return f.again
	}
	f.exact, f.again = true, f.again[:0]
	for i := range f.parts {
		a := &f.parts[i]
		if a.answer.Err == nil && !a.complete() {
			a.request.Plan, a.answer.Deep, a.request.K = index.ExactScan, true, min(overfetch*f.depth, a.reply.Left)
			f.again = append(f.again, i)
		}
	}
	return f.again
}

// certain returns the merged hits that rank before every row that was not fetched.
func (f *fanOut) certain(metric index.Metric, merged []Hit) []Hit {
	for i := range f.parts {
		a := &f.parts[i]
		if a.answer.Err != nil || a.complete() {
			continue
		}
		last := &a.reply.Hits[len(a.reply.Hits)-1]
		merged = merged[:sort.Search(len(merged), func(i int) bool { return last.before(&merged[i], metric) })]
	}
	return merged
}

// quota counts the values of the candidates that were taken. Its memory is reused
// from query to query.
type quota struct {
	limits []AtMost
	taken  map[FieldValue]int
}

func (u *quota) reset(limits []AtMost) {
	u.limits = limits
	if len(limits) > 0 && u.taken == nil {
		u.taken = map[FieldValue]int{}
	}
	clear(u.taken)
}

// full returns the first limit that a row with those values would exceed, and by which.
func (u *quota) full(values []FieldValue) (limit AtMost, v FieldValue, full bool) {
	for _, limit := range u.limits {
		for _, v := range values {
			if v.Field == limit.Field && u.taken[v] >= limit.N {
				return limit, v, true
			}
		}
	}
	return AtMost{}, FieldValue{}, false
}

// take counts the values of a row, which are of attributes that are limited.
func (u *quota) take(values []FieldValue) {
	for _, v := range values {
		u.taken[v]++
	}
}

// filled returns the values that as many of the rows have as the limits allow.
func (u *quota) filled(limits []AtMost, rows []Hit) []FieldValue {
	u.reset(limits)
	for i := range rows {
		u.take(rows[i].Values)
	}
	var full []FieldValue
	for _, limit := range limits {
		for v, n := range u.taken {
			if v.Field == limit.Field && n >= limit.N {
				full = append(full, v)
			}
		}
	}
	return full
}
