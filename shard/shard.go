package shard

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Shard is one opened shard file, or what is [InMemory]. It is immutable and safe for any number of
// goroutines until it is closed. Its methods without an error, and those of its parts,
// read the mapped file: who calls them defers a [sections.Guard].
type Shard struct {
	name       string
	file       *sections.File
	index      *index.Index
	ids        ids
	attributes *attribute.Table
	segments   segments
	inMemory   bool // it has no file; see [InMemory]
}

// Write writes a shard file at path. ids are the ids of the index's rows, in
// strictly ascending order, and attributes has the same rows. segments are in
// strictly ascending order of their names.
func Write(path string, list []string, x *index.Index, attributes *attribute.Writer, segments ...Segment) error {
	if len(list) != x.Rows() {
		return fmt.Errorf("write shard %s: %d ids for %d rows", path, len(list), x.Rows())
	}
	w, err := sections.Create(path)
	if err != nil {
		return err
	}
	err = errors.Join(writeIDs(w, list), x.Write(w), attributes.Write(w, x.Order()),
		writeSegments(w, path, segments, attributes, x.Order()))
	if err != nil {
		return errors.Join(fmt.Errorf("write shard %s: %w", path, err), w.Abort())
	}
	return w.Commit()
}

// Open maps the shard file at path and verifies all of it. An error of class
// [sections.ErrCorrupt], [sections.ErrUnreadable] or [sections.ErrVersion] names the file
// and the section.
func Open(path string) (*Shard, error) {
	f, err := sections.Open(path)
	if err != nil {
		return nil, err
	}
	s, err := fromFile(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open shard %s: %w", path, err), f.Close())
	}
	return s, nil
}

// OpenAs is [Open] of a shard that has a name of its own.
func OpenAs(path, name string) (*Shard, error) {
	s, err := Open(path)
	if err == nil {
		s.name = name
	}
	return s, err
}

func fromFile(f *sections.File) (_ *Shard, err error) {
	defer sections.Guard(&err)()
	x, err := index.Open(f)
	if err != nil {
		return nil, err
	}
	s := &Shard{file: f, index: x, name: strings.TrimSuffix(filepath.Base(f.Path()), ".shard")}
	if s.ids, err = openIDs(f, x.Rows()); err != nil {
		return nil, err
	}
	if s.attributes, err = attribute.OpenTable(f, x.Rows()); err != nil {
		return nil, err
	}
	if s.segments, err = openSegments(f, x.Rows()); err != nil {
		return nil, err
	}
	if err := f.CheckClaimed(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close unmaps the file. Nothing that aliases the shard may be used after.
func (s *Shard) Close() error { return s.file.Close() }

// Name returns the shard's name: its place in its tower, or its file's name when
// it was opened alone.
func (s *Shard) Name() string { return s.name }

// File returns the shard's file.
func (s *Shard) File() *sections.File { return s.file }

// Index returns the shard's index.
func (s *Shard) Index() *index.Index { return s.index }

// Attributes returns the shard's attributes.
func (s *Shard) Attributes() *attribute.Table { return s.attributes }

// Segments returns the shard's segments in ascending order of their names. The
// caller must not change the slice.
func (s *Shard) Segments() []Segment { return s.segments.list }

// SegmentRows returns how many rows are eligible in each of [Shard.Segments].
func (s *Shard) SegmentRows() []int {
	rows := make([]int, len(s.segments.bitmaps))
	for i, b := range s.segments.bitmaps {
		rows[i] = b.Count()
	}
	return rows
}

// Rows returns the number of rows.
func (s *Shard) Rows() int { return s.index.Rows() }

// ID returns a copy of the id of an ordinal.
func (s *Shard) ID(ordinal uint32) string { return strings.Clone(s.id(ordinal)) }

// id returns the id of an ordinal. It aliases the mapped file.
func (s *Shard) id(ordinal uint32) string { return s.ids.at(s.index.Row(ordinal)) }

// Ordinal returns the ordinal of an id.
func (s *Shard) Ordinal(id string) (uint32, bool) {
	row, ok := s.ids.find(id)
	if !ok {
		return 0, false
	}
	return s.index.Ordinal(row), true
}

// Check proves what [Open] does not need for safety: the graph's invariants, and
// that the rows of each segment are those that its expression makes eligible.
func (s *Shard) Check() error {
	if err := errors.Join(s.index.CheckGraph(), s.segments.check(s.attributes)); err != nil {
		return fmt.Errorf("check shard %s: %w", s.file.Path(), err)
	}
	return nil
}

// CheckPartition makes sure that every id belongs to shard number of shards.
func (s *Shard) CheckPartition(number, shards int) error {
	for row := range uint32(s.Rows()) {
		if id := s.ids.at(row); Partition(id, shards) != number {
			return sections.Corruptf(idBytesSection, "id %q belongs to shard %d of %d, not %d", id, Partition(id, shards), shards, number)
		}
	}
	return nil
}
