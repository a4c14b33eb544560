package eligibility

import (
	"context"
	"fmt"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Bound is a filter with the values of one query's bindings. It is immutable and
// safe for any number of goroutines, so that shards can be asked in parallel. A shard that
// is elsewhere is sent its text and its bindings, of which a compiler for the same schema
// makes the same filter.
type Bound struct {
	filter *Filter
	text   string
	values []value
	root   *plan
}

// String returns the text of the filter, or of the clause that it is.
func (b Bound) String() string { return b.text }

// Bindings returns the values that [Filter.Bind] was given of the bindings that the filter
// uses, by their names; nil if it uses none. The caller must not change the lists.
func (b Bound) Bindings() map[string]any {
	if len(b.values) == 0 {
		return nil
	}
	values := make(map[string]any, len(b.values))
	for slot, v := range b.values {
		values[b.filter.names[slot]] = v.any()
	}
	return values
}

// Clauses returns what the filter joins by its outermost &&, in the order of the
// text: a row is eligible just if it is for every clause. Parentheses around a part
// of the chain do not matter, and a filter that is no such chain is one clause. It
// is for explaining an answer: each call makes the plans anew. The error is the
// context's.
func (b Bound) Clauses(ctx context.Context) ([]Bound, error) {
	all := make([]Bound, len(b.filter.clauses))
	binder := binder{ctx: ctx, schema: b.filter.compiler.schema, names: b.filter.names, values: b.values}
	for i, c := range b.filter.clauses {
		root, err := binder.plan(c.root)
		if err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			panic("eligibility: a clause of a filter that is bound cannot be: " + err.Error())
		}
		all[i] = Bound{filter: b.filter, text: c.text, values: b.values, root: root}
	}
	return all, nil
}

// Eval makes dst hold exactly the eligible ordinals of a shard and returns their
// number. The table must have the compiler's schema, and dst the length that
// [index.NewBitset] gives for its rows. The error is the context's if that ends first:
// dst may then hold anything.
func (b Bound) Eval(ctx context.Context, t *attribute.Table, dst index.Bitset) (eligible int, err error) {
	if !t.Schema().Equal(b.filter.compiler.schema) {
		panic("eligibility: a table of another schema than the filter was compiled for")
	}
	if want := (t.Rows() + 63) / 64; len(dst) != want {
		panic(fmt.Sprintf("eligibility: a bitset of %d words for a table that needs %d", len(dst), want))
	}
	m := b.filter.compiler.merges.Get().(*merger)
	m.table, m.done, m.ended = t, ctx.Done(), false
	m.set(b.root, dst)
	ended := m.ended
	m.table, m.done = nil, nil
	b.filter.compiler.merges.Put(m)
	if ended {
		return 0, ctx.Err()
	}
	return dst.Count(), nil
}

// merger evaluates plans over one table.
type merger struct {
	table *attribute.Table
	stack []index.Bitset // scratch, kept from one use to the next
	used  int
	done  <-chan struct{} // of the query's context
	ended bool            // it has ended: nothing matters any more
}

// over reports whether the query's context has ended. One set costs 100 ns and more, a
// look 2 ns, so there is one look at each.
func (m *merger) over() bool {
	select {
	case <-m.done:
		m.ended = true
	default:
	}
	return m.ended
}

// merge is how the ordinals of a plan change those there are.
type merge uint8

const (
	or merge = iota
	and
	andNot
)

// push returns a scratch bitset that may hold anything.
func (m *merger) push() index.Bitset {
	words := (m.table.Rows() + 63) / 64
	if m.used == len(m.stack) {
		m.stack = append(m.stack, nil)
	}
	if cap(m.stack[m.used]) < words {
		m.stack[m.used] = make(index.Bitset, words)
	}
	m.used++
	return m.stack[m.used-1][:words]
}

func (m *merger) pop() { m.used-- }

// set makes dst hold exactly the ordinals of p.
func (m *merger) set(p *plan, dst index.Bitset) {
	switch p.kind {
	case isNone:
		dst.Clear()
	case isAll:
		dst.Fill(m.table.Rows())
	case isNot:
		dst.Fill(m.table.Rows())
		m.merge(p.kids[0], andNot, dst)
	case isAnd, isOr:
		how := and
		if p.kind == isOr {
			how = or
		}
		m.set(p.kids[0], dst)
		for _, kid := range p.kids[1:] {
			m.merge(kid, how, dst)
		}
	case isTest:
		if m.over() {
			return
		}
		p.leaf.set(m.table, 0).CopyTo(dst)
		if n := p.leaf.len(); n > 1 {
			scratch := m.push()
			for i := 1; i < n && !m.over(); i++ {
				p.leaf.set(m.table, i).Or(dst, scratch)
			}
			m.pop()
		}
	}
}

// merge changes dst by the ordinals of p. Where p is made of what can be merged
// one by one it needs no bitset for p as a whole.
func (m *merger) merge(p *plan, how merge, dst index.Bitset) {
	switch {
	case p.kind == isNot && how == and:
		m.merge(p.kids[0], andNot, dst)
		return
	case p.kind == isNot && how == andNot:
		m.merge(p.kids[0], and, dst)
		return
	case p.kind == isAnd && how == and, p.kind == isOr && how != and:
		for _, kid := range p.kids {
			m.merge(kid, how, dst)
		}
		return
	}
	scratch := m.push()
	defer m.pop()
	if p.kind == isTest {
		n := p.leaf.len()
		switch {
		case how == or:
			for i := 0; i < n && !m.over(); i++ {
				p.leaf.set(m.table, i).Or(dst, scratch)
			}
			return
		case how == andNot:
			for i := 0; i < n && !m.over(); i++ {
				p.leaf.set(m.table, i).AndNot(dst, scratch)
			}
			return
		case m.over():
			return
		case n == 1:
			p.leaf.set(m.table, 0).And(dst, scratch)
			return
		}
	}
	m.set(p, scratch)
	switch how {
	case or:
		dst.Or(scratch)
	case and:
		dst.And(scratch)
	case andNot:
		dst.AndNot(scratch)
	}
}

// set asks the table for set i of the leaf.
func (l *leaf) set(t *attribute.Table, i int) attribute.Set {
	switch l.kind {
	case leafTrue:
		return t.Is(l.field, true)
	case leafFalse:
		return t.Is(l.field, false)
	case leafKeywords:
		return t.Keyword(l.field, l.texts[i])
	case leafPrefix:
		return t.Prefix(l.field, l.texts[i])
	case leafBelow:
		return t.Below(l.field, l.texts[i])
	case leafFrom:
		return t.From(l.field, l.texts[i])
	case leafInts:
		return t.Ints(l.field, l.ints[i].lo, l.ints[i].hi)
	case leafFloats:
		return t.Floats(l.field, l.floats[i].lo, l.floats[i].hi)
	case leafTimes:
		return t.Times(l.field, l.times[i].lo, l.times[i].hi)
	}
	return t.Has(l.field)
}
