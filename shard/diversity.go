package shard

import (
	"context"
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
// returns them. The error is the context's.
func (t *Tower) deepen(ctx context.Context, q *Query, f *fanOut, merged []hit) ([]int, error) {
	if f.exact {
		taken := f.certain(t.metric, merged)
		full := f.merger.quota.filled(q.AtMost, taken)
		for _, i := range f.again {
			p := &f.parts[i]
			if err := t.shards[i].drop(ctx, p, full, taken); err != nil {
				return nil, err
			}
			p.k = min(2*p.k, max(p.left, 1))
		}
		return f.again, nil
	}
	// As many as it takes if the share of those passed over stays the same.
	more := func(p *part) int { return min(max(2*p.k, p.k*q.K/len(merged)), p.left) }
	deep := func(i int) bool { return more(&f.parts[i]) > f.parts[i].left/large }
	if q.Plan != index.Auto || !slices.ContainsFunc(f.again, deep) {
		for _, i := range f.again {
			f.parts[i].k = more(&f.parts[i])
		}
		return f.again, nil
	}
	f.exact, f.again = true, f.again[:0]
	for i := range f.parts {
		p := &f.parts[i]
		if p.answer.Err == nil && !p.complete() {
			p.plan, p.answer.Deep, p.k = index.ExactScan, true, min(overfetch*q.K, p.left)
			f.again = append(f.again, i)
		}
	}
	return f.again, nil
}

// certain returns the merged hits that rank before every row that was not fetched.
func (f *fanOut) certain(metric index.Metric, merged []hit) []hit {
	for i := range f.parts {
		p := &f.parts[i]
		if p.answer.Err != nil || p.complete() {
			continue
		}
		last := &p.hits[len(p.hits)-1]
		merged = merged[:sort.Search(len(merged), func(i int) bool { return last.before(&merged[i], metric) })]
	}
	return merged
}

// dropStep is how many sets of rows are removed between two pauses: one may take some ten
// microseconds.
const dropStep = 16

// drop removes from the eligible rows of a part those that have a full value and
// were not taken. The error is the context's.
func (s *Shard) drop(ctx context.Context, p *part, full []value, taken []hit) error {
	if p.eligible == nil {
		p.eligible = s.bitsets.Get().(*index.Bitset)
		p.eligible.Fill(s.Rows())
	}
	scratch := s.bitsets.Get().(*index.Bitset)
	defer s.bitsets.Put(scratch)
	for i, v := range full {
		if i%dropStep == dropStep-1 {
			if err := pause(ctx); err != nil {
				return err
			}
		}
		var set attribute.Set
		switch s.attributes.Schema().Field(v.field).Type {
		case attribute.Bool:
			set = s.attributes.Is(v.field, v.number != 0)
		case attribute.Int:
			set = s.attributes.Ints(v.field, v.number, v.number)
		default:
			set = s.attributes.Keyword(v.field, v.text)
		}
		set.AndNot(*p.eligible, *scratch)
	}
	for _, h := range taken {
		if h.shard == s {
			p.eligible.Set(h.ordinal)
		}
	}
	p.left = p.eligible.Count()
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

// filled returns the values that as many of the rows have as the limits allow.
func (u *quota) filled(limits []AtMost, rows []hit) []value {
	u.reset(limits)
	for i := range rows {
		u.take(&rows[i])
	}
	var full []value
	for _, limit := range limits {
		for v, n := range u.taken {
			if v.field == limit.Field && n >= limit.N {
				full = append(full, v)
			}
		}
	}
	return full
}
