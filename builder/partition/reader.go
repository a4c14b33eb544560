package partition

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Reader gives back what an object has of each shard. It trusts nothing of the object: what
// is wrong with it is an error of class [sections.ErrCorrupt]. Any number of goroutines may
// use it.
type Reader struct {
	layout  Layout
	r       io.ReaderAt
	name    string // for people
	runs    int
	summary span
	index   int64 // where it begins
	sums    struct{ summary, index uint64 }
}

type span struct{ offset, length int64 }

// DamagedError says that an object is not what was written. It is of class
// [sections.ErrCorrupt].
type DamagedError struct {
	Name string // of the object, as it was opened
	Err  error
}

// Error implements [error].
func (e *DamagedError) Error() string { return fmt.Sprintf("partition %s: %v", e.Name, e.Err) }

// Unwrap returns what is wrong, and the class.
func (e *DamagedError) Unwrap() []error { return []error{e.Err, sections.ErrCorrupt} }

func corrupt(name, format string, arguments ...any) error {
	return &DamagedError{name, fmt.Errorf(format, arguments...)}
}

// Open reads the footer of an object of a size. Name is what errors call it.
func Open(r io.ReaderAt, size int64, name string) (*Reader, error) {
	if size < int64(len(magic)+footerSize) {
		return nil, corrupt(name, "it has %d bytes, which is less than a footer", size)
	}
	tail := make([]byte, footerSize)
	if err := readAt(r, tail, size-int64(footerSize)); err != nil {
		return nil, fmt.Errorf("partition %s: %w", name, err)
	}
	words := make([]uint64, footerWords)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(tail[8*i:])
	}
	signed := tail[:8*(footerWords-1)]
	switch {
	case string(tail[8*footerWords:]) != magic || xxhash.Sum64(signed) != words[footerWords-1]:
		return nil, corrupt(name, "its end is no footer")
	case words[0] != version:
		return nil, fmt.Errorf("partition %s: it is of version %d, and this release reads %d", name, words[0], version)
	}
	shards, dim, fields, runs := words[1], words[2], words[3], words[4]
	at, length := words[5], words[6]
	end := uint64(size) - uint64(footerSize)
	switch {
	case shards < 1 || shards > shard.MaxShards || dim > index.MaxDim || fields > attribute.MaxFields || runs > maxRuns:
		return nil, corrupt(name, "%d shards, %d runs, vectors of %d, %d attributes", shards, runs, dim, fields)
	case at < uint64(len(magic)) || at > end || length > end-at || runs*shards*entrySize != end-at-length:
		return nil, corrupt(name, "a summary of %d bytes at %d and %d runs of %d shards do not make %d bytes", length, at, runs, shards, size)
	}
	x := &Reader{
		layout: Layout{Shards: int(shards), Dim: int(dim), Fields: int(fields), Of: words[9]}, r: r, name: name, runs: int(runs),
		summary: span{int64(at), int64(length)}, index: int64(at + length),
	}
	x.sums.summary, x.sums.index = words[7], words[8]
	return x, nil
}

func readAt(r io.ReaderAt, b []byte, offset int64) error {
	n, err := r.ReadAt(b, offset)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// CheckName returns an error of class [sections.ErrCorrupt] unless the object is that of a name: a
// copy of another is as whole as it was there.
func (x *Reader) CheckName(name string) error {
	if x.layout.Of != Name(name) {
		return corrupt(x.name, "it is another object, which was put in its place")
	}
	return nil
}

// Layout returns that of the records.
func (x *Reader) Layout() Layout { return x.layout }

// Summary returns what the task found.
func (x *Reader) Summary() (*Summary, error) {
	if x.summary.length > MaxSummary {
		return nil, corrupt(x.name, "its summary has %d bytes, and at most %d are read", x.summary.length, int64(MaxSummary))
	}
	data := make([]byte, x.summary.length)
	if err := readAt(x.r, data, x.summary.offset); err != nil {
		return nil, fmt.Errorf("partition %s: %w", x.name, err)
	}
	if xxhash.Sum64(data) != x.sums.summary {
		return nil, corrupt(x.name, "its summary is damaged")
	}
	s, err := DecodeSummary(data)
	if err != nil {
		return nil, corrupt(x.name, "%w", err)
	}
	return s, nil
}

// Shard returns the records of one shard.
func (x *Reader) Shard(number int) (*Records, error) {
	if number < 0 || number >= x.layout.Shards {
		return nil, fmt.Errorf("partition %s: shard %d of %d", x.name, number, x.layout.Shards)
	}
	data := make([]byte, x.runs*entrySize)
	if err := readAt(x.r, data, x.index+int64(number)*int64(len(data))); err != nil {
		return nil, fmt.Errorf("partition %s: %w", x.name, err)
	}
	s := &Records{x: x}
	for entry := range slices.Chunk(data, entrySize) {
		word := func(i int) uint64 { return binary.LittleEndian.Uint64(entry[8*i:]) }
		p := piece{word(0), word(1), word(2), word(3)}
		if p.length > math.MaxInt64 || p.offset < uint64(len(magic)) || p.offset > uint64(x.summary.offset) || p.length > uint64(x.summary.offset)-p.offset || p.records > p.length/lengthSize {
			return nil, corrupt(x.name, "shard %d: %d records in %d bytes at %d", number, p.records, p.length, p.offset)
		}
		if p.length > 0 {
			s.pieces = append(s.pieces, p)
		}
	}
	return s, nil
}

// Records are those of one shard in one object.
type Records struct {
	x      *Reader
	pieces []piece
}

// Size returns the number of their bytes.
func (s *Records) Size() (n int64) {
	for _, p := range s.pieces {
		n += int64(p.length)
	}
	return n
}

// Copy copies their bytes to w, and returns the same records of that copy, which r reads from
// an offset on. It looks whether they are what was written.
func (s *Records) Copy(w io.Writer, r io.ReaderAt, offset int64) (*Records, error) {
	out := &Records{x: &Reader{layout: s.x.layout, r: r, name: s.x.name}}
	for _, p := range s.pieces {
		hash := xxhash.New()
		n, err := io.Copy(io.MultiWriter(w, hash), io.NewSectionReader(s.x.r, int64(p.offset), int64(p.length)))
		if err == nil && n < int64(p.length) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", s.x.name, err)
		}
		if hash.Sum64() != p.hash {
			return nil, corrupt(s.x.name, "%d bytes at %d are damaged", p.length, p.offset)
		}
		p.offset = uint64(offset)
		offset += n
		out.pieces = append(out.pieces, p)
	}
	return out, nil
}

// Each calls do for every record. The record's slices are valid until do returns.
func (s *Records) Each(want Want, do func(*Record) error) error {
	return s.each(want, func(r *Record, _ []byte) error { return do(r) })
}

// each is Each with the bytes of the record too, without its length.
func (s *Records) each(want Want, do func(r *Record, encoded []byte) error) error {
	l := s.x.layout
	r := Record{Vector: make([]float32, l.Dim), Attributes: make([]attribute.Value, l.Fields)}
	var buffer []byte
	for _, p := range s.pieces {
		hash := xxhash.New()
		in := bufio.NewReaderSize(io.TeeReader(io.NewSectionReader(s.x.r, int64(p.offset), int64(p.length)), hash), 1<<20)
		left := p.length
		var head [lengthSize]byte
		for range p.records {
			if _, err := io.ReadFull(in, head[:]); err != nil {
				return s.failed(err)
			}
			n := uint64(binary.LittleEndian.Uint32(head[:]))
			if left -= lengthSize; n > left || left > p.length {
				return corrupt(s.x.name, "a record of %d bytes in what is left, %d", n, left)
			}
			left -= n
			if uint64(cap(buffer)) < n {
				buffer = make([]byte, n)
			}
			buffer = buffer[:n]
			if _, err := io.ReadFull(in, buffer); err != nil {
				return s.failed(err)
			}
			if err := r.decode(buffer, want); err != nil {
				return corrupt(s.x.name, "%w", err)
			}
			if err := do(&r, buffer); err != nil {
				return err
			}
		}
		if left > 0 {
			return corrupt(s.x.name, "%d bytes at %d belong to no record", left, p.offset+p.length-left)
		}
		if hash.Sum64() != p.hash {
			return corrupt(s.x.name, "%d bytes at %d are damaged", p.length, p.offset)
		}
	}
	return nil
}

func (s *Records) failed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return corrupt(s.x.name, "it ends within a record")
	}
	return fmt.Errorf("partition %s: %w", s.x.name, err)
}
