package eligibility

import (
	"context"
	"fmt"
	"slices"
)

// Filter is a compiled filter. It is immutable and safe for any number of
// goroutines, and serves every query with its text, whatever it binds.
type Filter struct {
	text     string
	compiler *Compiler
	names    []string // of the bindings, by slot
	lists    []int    // how often each is used as a list, by slot
	sorted   []string
	first    *Error // the binding that the text names first, and where; nil if there is none
	root     *node
	clauses  []clause
	fixed    *plan // if there are no bindings
}

// finish completes a filter with its condition.
func (f *Filter) finish(root *node) (*Filter, error) {
	f.root = root
	f.sorted = slices.Sorted(slices.Values(f.names))
	if len(f.names) == 0 {
		b := binder{ctx: context.Background(), schema: f.compiler.schema}
		var err error
		if f.fixed, err = b.plan(root); err != nil {
			return nil, &Error{1, 1, err.Error()}
		}
	}
	return f, nil
}

// String returns the filter's text.
func (f *Filter) String() string { return f.text }

// Bindings returns the names of the bindings that the filter uses, without
// "user.", ascending. The caller must not change it.
func (f *Filter) Bindings() []string { return f.sorted }

// CheckConstant returns an [*Error] at the first binding if the filter uses any; why
// says in its message what speaks against bindings.
func (f *Filter) CheckConstant(why string) error {
	if f.first == nil {
		return nil
	}
	return &Error{f.first.Line, f.first.Column, "it reads user." + f.first.Message + "; " + why}
}

// Bind gives the bindings their values: a bool, int64, float64, string,
// [time.Time], or a []any of them, which must not change while the Bound is used. A
// string is accepted as a timestamp (RFC 3339) where the filter compares it with one,
// and as an int (decimal) where it compares it with a number. A float64 from 2^53 on is
// not accepted where an int is: some ints have become it. Every binding that the filter
// uses must be there; others are ignored. The error is a [*BindError], or the context's
// if that ends first.
func (f *Filter) Bind(ctx context.Context, values map[string]any) (Bound, error) {
	if f.fixed != nil {
		return Bound{filter: f, text: f.text, root: f.fixed}, nil
	}
	b := binder{ctx: ctx, schema: f.compiler.schema, names: f.names, values: make([]value, len(f.names))}
	for i, name := range f.names {
		v, ok := values[name]
		if !ok {
			return Bound{}, &BindError{name, "the filter uses it and the query does not bind it"}
		}
		var err error
		if b.values[i], err = valueOf(v); err != nil {
			return Bound{}, &BindError{name, err.Error()}
		}
	}
	if err := f.checkLists(b.values); err != nil {
		return Bound{}, err
	}
	root, err := b.plan(f.root)
	if err != nil {
		return Bound{}, err
	}
	return Bound{filter: f, text: f.text, values: b.values, root: root}, nil
}

// checkLists returns an error about the list of most elements, each as often as it is
// used, if those of all lists are too many.
func (f *Filter) checkLists(values []value) error {
	most, total := 0, 0
	for slot := range values {
		uses := f.elements(values, slot)
		total += uses
		if uses > f.elements(values, most) {
			most = slot
		}
	}
	if total <= MaxListUses {
		return nil
	}
	return &BindError{f.names[most], fmt.Sprintf("a list of %d elements that the filter uses %d times, which with other lists makes %d; accepted: up to %d",
		len(values[most].items), f.lists[most], total, MaxListUses)}
}

// elements returns how many elements a binding's list has, each as often as it is used.
func (f *Filter) elements(values []value, slot int) int {
	return len(values[slot].items) * f.lists[slot]
}
