package shard

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/eligibility"
)

// The limits of the segments of a snapshot.
const (
	MaxSegments    = 256
	MaxSegmentName = 64 // bytes
)

var validSegment = regexp.MustCompile(fmt.Sprintf(`^[a-z0-9_]{1,%d}$`, MaxSegmentName))

// Segment is a named eligibility filter over the app tower. Which rows it makes
// eligible is found once, when a shard is written, and kept in the file, so that a
// query by its name costs no evaluation.
type Segment struct {
	Name       string `json:"name"`       // 1 to 64 of a-z, 0-9 and _
	Expression string `json:"expression"` // a filter without bindings
}

// CheckName returns an error that says what a segment may be called.
func (s Segment) CheckName() error {
	if !validSegment.MatchString(s.Name) {
		return fmt.Errorf("segment name %.80q: want 1 to %d of a-z, 0-9 and _", s.Name, MaxSegmentName)
	}
	return nil
}

// Compile returns the segment's filter, ready to evaluate. An error names the
// segment and, if the expression is wrong, the line and the column.
func (s Segment) Compile(c *eligibility.Compiler) (eligibility.Bound, error) {
	filter, err := c.Compile(s.Expression)
	if err != nil {
		return eligibility.Bound{}, fmt.Errorf("segment %s: %w", s.Name, err)
	}
	if err := filter.CheckConstant("a segment is the same for every query, so it has no bindings: want attributes and constants"); err != nil {
		return eligibility.Bound{}, fmt.Errorf("segment %s: %w", s.Name, err)
	}
	return filter.Bind(context.Background(), nil) // there is nothing to bind
}

// CheckSegments returns an error unless the segments are what a manifest and a
// shard file may list: names ascending, each once.
func CheckSegments(list []Segment) error {
	if len(list) > MaxSegments {
		return fmt.Errorf("%d segments, at most %d are accepted", len(list), MaxSegments)
	}
	for i, s := range list {
		if err := s.CheckName(); err != nil {
			return err
		}
		if n := len(s.Expression); n < 1 || n > eligibility.MaxLength {
			return fmt.Errorf("segment %s: expression has %d bytes, want 1 to %d", s.Name, n, eligibility.MaxLength)
		}
		if i > 0 && list[i-1].Name >= s.Name {
			return fmt.Errorf("segment %s is listed after %s, want ascending names", s.Name, list[i-1].Name)
		}
	}
	return nil
}

const (
	segmentListSection    = "segment.list"
	segmentBitmapsSection = "segment.bitmaps"
	segmentOffsetsSection = "segment.bitmap_offsets"
)

// segments are the segments of one shard. The zero value has none.
type segments struct {
	list    []Segment // names ascending
	bitmaps []attribute.Bitmap
}

// writeSegments finds the eligible rows of each segment and writes them. Filters
// are answered from the sections of a file, by ordinal, so attributes are first
// written to one of their own, beside path.
func writeSegments(w *sections.Writer, path string, list []Segment, attributes *attribute.Writer, order []uint32) (err error) {
	defer sections.Guard(&err)()
	if len(list) == 0 {
		return nil
	}
	if err := CheckSegments(list); err != nil {
		return err
	}
	compiler, err := eligibility.NewCompiler(attributes.Schema())
	if err != nil {
		return err
	}
	path += ".attributes"
	table, f, err := stageAttributes(path, attributes, order)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(path)) }()
	data, err := json.Marshal(list)
	if err != nil {
		return err
	}
	if err := errors.Join(w.Section(segmentListSection, data), w.Begin(segmentBitmapsSection)); err != nil {
		return err
	}
	offsets := make([]uint64, 1, len(list)+1)
	eligible := index.NewBitset(len(order))
	for _, s := range list {
		filter, err := s.Compile(compiler)
		if err != nil {
			return err
		}
		if _, err := filter.Eval(context.Background(), table, eligible); err != nil {
			return err
		}
		n, err := attribute.WriteBitmap(w, eligible)
		if err != nil {
			return err
		}
		offsets = append(offsets, offsets[len(offsets)-1]+uint64(n))
	}
	return w.Section(segmentOffsetsSection, sections.Bytes(offsets))
}

// stageAttributes writes attributes to a file of their own and opens it.
func stageAttributes(path string, attributes *attribute.Writer, order []uint32) (*attribute.Table, *sections.File, error) {
	w, err := sections.Create(path)
	if err != nil {
		return nil, nil, err
	}
	if err := attributes.Write(w, order); err != nil {
		return nil, nil, errors.Join(err, w.Abort())
	}
	if err := w.Commit(); err != nil {
		return nil, nil, err
	}
	f, err := sections.Open(path)
	if err != nil {
		return nil, nil, errors.Join(err, os.Remove(path))
	}
	table, err := attribute.OpenTable(f, len(order))
	if err != nil {
		return nil, nil, errors.Join(err, f.Close(), os.Remove(path))
	}
	return table, f, nil
}

// openSegments opens and checks the segments of a shard with that many rows. A
// file without their sections has none.
func openSegments(f *sections.File, rows int) (segments, error) {
	var s segments
	if !f.Has(segmentListSection) {
		return s, nil
	}
	data, err := f.Section(segmentListSection)
	if err != nil {
		return s, err
	}
	if s.list, err = decodeSegments(data); err != nil {
		return s, sections.Corruptf(segmentListSection, "%v", err)
	}
	bitmaps, err := f.Section(segmentBitmapsSection)
	if err != nil {
		return s, err
	}
	offsets, err := sections.Array[uint64](f, segmentOffsetsSection, len(s.list)+1)
	if err != nil {
		return s, err
	}
	if offsets[0] != 0 || offsets[len(s.list)] != uint64(len(bitmaps)) {
		return s, sections.Corruptf(segmentOffsetsSection, "offsets do not span 0 to %d", len(bitmaps))
	}
	for i, segment := range s.list {
		from, to := offsets[i], offsets[i+1]
		if from > to || to > uint64(len(bitmaps)) {
			return s, sections.Corruptf(segmentOffsetsSection, "segment %s has bytes %d to %d of %d", segment.Name, from, to, len(bitmaps))
		}
		b, err := attribute.OpenBitmap(segmentBitmapsSection, bitmaps[from:to], rows)
		if err != nil {
			return s, fmt.Errorf("segment %s: %w", segment.Name, err)
		}
		s.bitmaps = append(s.bitmaps, b)
	}
	return s, nil
}

// decodeSegments reads what a file lists, which is one segment or more.
func decodeSegments(data []byte) ([]Segment, error) {
	var list []Segment
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("bytes follow the list")
	}
	if len(list) == 0 {
		return nil, errors.New("no segment")
	}
	return list, CheckSegments(list)
}

// find returns the bitmap of a segment.
func (s *segments) find(name string) (attribute.Bitmap, bool) {
	i, ok := slices.BinarySearchFunc(s.list, name, func(s Segment, name string) int { return strings.Compare(s.Name, name) })
	if !ok {
		return attribute.Bitmap{}, false
	}
	return s.bitmaps[i], true
}

// InSegment makes dst, a bitset for the shard's rows, those of a segment, and reports
// whether there is a segment of that name.
func (s *Shard) InSegment(name string, dst index.Bitset) bool {
	b, ok := s.segments.find(name)
	if ok {
		b.CopyTo(dst)
	}
	return ok
}

// check proves that each bitmap holds what its expression says of the attributes.
func (s *segments) check(table *attribute.Table) (err error) {
	defer sections.Guard(&err)()
	if len(s.list) == 0 {
		return nil
	}
	compiler, err := eligibility.NewCompiler(table.Schema())
	if err != nil {
		return err
	}
	want, got := index.NewBitset(table.Rows()), index.NewBitset(table.Rows())
	for i, segment := range s.list {
		filter, err := segment.Compile(compiler)
		if err != nil {
			return sections.Corruptf(segmentListSection, "%v", err)
		}
		eligible, err := filter.Eval(context.Background(), table, want)
		if err != nil {
			return err
		}
		s.bitmaps[i].CopyTo(got)
		if !slices.Equal(want, got) {
			return sections.Corruptf(segmentBitmapsSection, "segment %s: its bitmap has %d rows, and not the %d that its expression makes eligible",
				segment.Name, s.bitmaps[i].Count(), eligible)
		}
	}
	return nil
}
