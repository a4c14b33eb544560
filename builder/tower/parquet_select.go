package tower

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// A selection is what is read of one file.
type selection struct {
	id         shape
	embedding  embedding
	run        *shape   // of a column that names the training run; nil without
	attributes []shape  // under the attributes' names
	columns    []string // as the file calls those
	ignored    []string // columns
	notes      []string
}

// selectColumns finds what is to be read of a file. Everything that is wrong with its
// columns is in one error, but for names that two columns have.
func selectColumns(f *parquetfile.File, o *Options) (selection, error) {
	s := selector{options: o, root: schemaTree(f.Schema()), seen: make(map[string]bool), used: make(map[int]bool)}
	if err := s.checkNames(); err != nil {
		return s.selection, err
	}
	s.rowColumns()
	s.attributeColumns()
	s.checkOptions()
	return s.selection, s.err()
}

// A selector makes a selection, and gathers what is wrong with the columns on the way.
type selector struct {
	selection
	options *Options
	root    *node
	names   []string // of all columns, in the file's order
	seen    map[string]bool
	used    map[int]bool // leaves that are read for something else than an attribute

	missing, wrong, unusable []string
}

// checkNames notes the columns' names, and refuses two of one name that matters.
func (s *selector) checkNames() error {
	o := s.options
	for _, n := range s.root.children {
		if !s.seen[n.Name()] {
			s.names = append(s.names, n.Name())
		} else if read := n.Name() == o.IDColumn || n.Name() == o.EmbeddingColumn; read || !slices.Contains(o.IgnoreColumns, n.Name()) {
			err := fmt.Errorf("two columns are called %s", n.Name())
			if !read {
				err = &ColumnsError{fmt.Errorf("%w; skip both", err)}
			}
			return err
		}
		s.seen[n.Name()] = true
	}
	return nil
}

// rowColumns selects the columns of the id, the embedding and the training run.
func (s *selector) rowColumns() {
	o := s.options
	if n := s.root.find(o.IDColumn); n == nil {
		s.missing = append(s.missing, o.IDColumn)
	} else {
		s.id = n.shape()
		if s.used[s.id.leaf] = true; !s.id.id() {
			s.wrong = append(s.wrong, fmt.Sprintf("id column %s is %s, want %s", o.IDColumn, s.id.text, supportedIDs))
		}
	}
	var err error
	switch s.embedding, err = s.root.embedding(o.EmbeddingColumn); {
	case err != nil:
		s.wrong = append(s.wrong, err.Error())
	case len(s.embedding.shapes) == 0:
		s.missing = append(s.missing, o.EmbeddingColumn)
	}
	for _, e := range s.embedding.shapes {
		s.used[e.leaf] = true
	}
	if n := s.root.find(RunKey); n != nil && !slices.Contains(o.IgnoreColumns, RunKey) {
		a := n.shape()
		if s.used[a.leaf] = true; !a.id() {
			s.wrong = append(s.wrong, fmt.Sprintf("column %s is %s, want %s", RunKey, a.text, supportedIDs))
		}
		s.run = &a
	}
}

// attributeColumns selects those that are named, or if none is, all that are left.
func (s *selector) attributeColumns() {
	o := s.options
	for _, column := range o.AttributeColumns {
		if n := s.root.find(column); n == nil {
			s.missing = append(s.missing, column)
		} else {
			s.addAttribute(n, column)
		}
	}
	if len(o.AttributeColumns) > 0 {
		return
	}
	for _, n := range s.root.children {
		if slices.Contains(o.IgnoreColumns, n.Name()) {
			continue
		}
		switch some, all := n.used(s.used); {
		case all:
		case some:
			s.notes = append(s.notes, "column "+n.Name()+": a struct of which only a part is read, the rest is left out")
		default:
			s.addAttribute(n, n.Name())
		}
	}
}

func (s *selector) addAttribute(n *node, column string) {
	a := n.shape()
	a.name = column
	if to, ok := s.options.RenameColumns[column]; ok {
		a.name = to
	}
	if a.attribute() == 0 && !a.null() {
		s.unusable = append(s.unusable, fmt.Sprintf("%s (%s)", column, a.text))
		return
	}
	s.attributes = append(s.attributes, a)
	s.columns = append(s.columns, column)
}

// checkOptions looks for the columns that are to be renamed and ignored, and for
// attributes of one name, and notes how the embedding is read.
func (s *selector) checkOptions() {
	o := s.options
	for column := range o.RenameColumns {
		if !slices.Contains(s.columns, column) && !slices.Contains(o.PartitionAttributes, column) && s.root.find(column) == nil {
			s.missing = append(s.missing, column)
		}
	}
	for _, column := range o.IgnoreColumns {
		if s.seen[column] {
			s.ignored = append(s.ignored, column)
		}
	}
	if len(s.embedding.shapes) > 0 {
		if note := s.embedding.note(o.EmbeddingColumn); note != "" {
			s.notes = append(s.notes, note)
		}
	}
	called := make(map[string]string)
	for k, a := range s.attributes {
		if other, ok := called[a.name]; ok {
			s.wrong = append(s.wrong, fmt.Sprintf("attribute %s: named twice, by the columns %s and %s", a.name, other, s.columns[k]))
		}
		called[a.name] = s.columns[k]
	}
}

// err returns all that is wrong with the columns; a [*ColumnsError] if options that leave
// columns out would mend some of it.
func (s *selector) err() error {
	wrong := s.wrong
	if len(s.missing) > 0 {
		slices.Sort(s.missing)
		missing := slices.Compact(s.missing)
		text := fmt.Sprintf("no column is called %s", strings.Join(missing, ", "))
		if column := s.options.EmbeddingColumn; strings.Contains(column, "*") && slices.Contains(missing, column) {
			text += " (where * stands for a number)"
		}
		wrong = append(wrong, fmt.Sprintf("%s; the columns are %s", text, listed(s.names)))
	}
	if len(s.unusable) > 0 {
		wrong = append(wrong, fmt.Sprintf("cannot store column %s: %s", listed(s.unusable), supportedColumns))
	}
	switch {
	case len(s.unusable) > 0:
		return &ColumnsError{errors.New(strings.Join(wrong, "; "))}
	case len(wrong) > 0:
		return errors.New(strings.Join(wrong, "; "))
	}
	return nil
}

// used reports whether some, and all, leaves of a node are used.
func (n *node) used(leaves map[int]bool) (some, all bool) {
	if n.leafNode() != nil {
		return leaves[n.leaf], leaves[n.leaf]
	}
	all = len(n.children) > 0
	for _, child := range n.children {
		s, a := child.used(leaves)
		some, all = some || s, all && a
	}
	return some, all
}
