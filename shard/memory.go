package shard

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// InMemory returns a shard of rows that are in memory, which has no file, and nothing to
// close. ids are the ids of the index's rows, in strictly ascending order, and attributes
// has the same rows. The index is mostly one that is [index.Flat]. segments are what a
// shard file would list, and the compiler one for the schema of the attributes; a row is in
// no segment whose expression is no filter of this build.
func InMemory(name string, ids []string, x *index.Index, attributes *attribute.Writer, segments []Segment, compiler *eligibility.Compiler) (*Shard, error) {
	if err := CheckSegments(segments); err != nil {
		return nil, fmt.Errorf("shard %s: %w", name, err)
	}
	return inMemory(name, ids, x, attributes, &tests{list: segments, compiler: compiler})
}

// inMemory is InMemory with the segments' expressions.
func inMemory(name string, list []string, x *index.Index, attributes *attribute.Writer, t *tests) (*Shard, error) {
	s := &Shard{name: name, index: x, inMemory: true}
	err := s.take(list, attributes, t)
	if err != nil {
		return nil, fmt.Errorf("shard %s: %w", name, err)
	}
	return s, nil
}

func (s *Shard) take(list []string, attributes *attribute.Writer, t *tests) error {
	if len(list) != s.index.Rows() {
		return fmt.Errorf("%d ids for %d rows", len(list), s.index.Rows())
	}
	for row, id := range list {
		if err := CheckID(id); err != nil {
			return fmt.Errorf("row %d: %w", row, err)
		}
		if row > 0 && list[row-1] >= id {
			return fmt.Errorf("row %d: id %q is not after %q", row, id, list[row-1])
		}
	}
	out := sections.InMemory()
	if err := writeIDs(out, list); err != nil {
		return err
	}
	f, err := out.File()
	if err != nil {
		return err
	}
	if s.ids, err = openIDs(f, len(list)); err != nil {
		return err
	}
	slices.SortFunc(s.ids.formed, func(a, b formed) int { return cmp.Compare(a.hash, b.hash) })
	c, err := newColumns(len(list), attributes, s.index.Order(), t, func(int, int) bool { return false })
	if err != nil {
		return err
	}
	s.file, s.attributes, s.segments = f, c.attributes, c.segments
	return nil
}
