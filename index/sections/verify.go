package sections

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/cespare/xxhash/v2"
)

// chunk is how many bytes of a file are read at a time to verify them: so few that they
// are still in a processor's cache when they are summed up.
const chunk = 256 << 10

// checkSize makes sure that a file of that many bytes has room for a header.
func checkSize(size int64) error {
	if size < PageSize {
		return fmt.Errorf("header: file has %d bytes, a shard file has at least %d: %w", size, PageSize, ErrCorrupt)
	}
	return nil
}

// verify reads all of the file's bytes and makes sure that they are what was written.
func (f *File) verify(r io.ReaderAt) error {
	size := int64(len(f.data))
	buf := make([]byte, min(size, chunk))
	page := buf[:PageSize]
	if err := readFull(r, page, 0); err != nil {
		return fmt.Errorf("header: %w", err)
	}
	var err error
	if f.header, err = decodeHeader(page, size); err != nil {
		return err
	}
	toc := make([]byte, size-int64(f.header.tocOffset))
	if err := readFull(r, toc, f.header.tocOffset); err != nil {
		return fmt.Errorf("table of contents: %w", err)
	}
	if err := f.decodeEntries(toc); err != nil {
		return err
	}
	for _, e := range f.entries {
		sum, err := sumOf(r, e.Offset, padded(e.Length), buf)
		if err != nil {
			return fmt.Errorf("section %s: %w", e.Name, err)
		}
		if sum != e.Hash {
			return fmt.Errorf("section %s: checksum is %016x, want %016x: %w", e.Name, sum, e.Hash, ErrCorrupt)
		}
	}
	return nil
}

// decodeEntries checks the table of contents: its sections fill the file in their order.
func (f *File) decodeEntries(toc []byte) error {
	h := &f.header
	if sum := xxhash.Sum64(toc); sum != h.tocHash {
		return fmt.Errorf("table of contents: checksum is %016x, want %016x: %w", sum, h.tocHash, ErrCorrupt)
	}
	next := uint64(PageSize)
	for i := range int(h.sections) {
		e := decodeEntry(toc[i*entrySize:])
		if !validName(e.Name) {
			return fmt.Errorf("table of contents: entry %d: name %q: %w", i, e.Name, ErrCorrupt)
		}
		if _, dup := f.byName[e.Name]; dup {
			return fmt.Errorf("table of contents: section %s occurs twice: %w", e.Name, ErrCorrupt)
		}
		if e.Offset != next || e.Length > h.tocOffset-next || padded(e.Length) > h.tocOffset-next {
			return fmt.Errorf("table of contents: section %s: offset %d, length %d: want offset %d and an end before %d: %w",
				e.Name, e.Offset, e.Length, next, h.tocOffset, ErrCorrupt)
		}
		next += padded(e.Length)
		f.byName[e.Name] = i
		f.entries = append(f.entries, e)
	}
	if next != h.tocOffset {
		return fmt.Errorf("table of contents: sections end at %d, the table starts at %d: %w", next, h.tocOffset, ErrCorrupt)
	}
	return nil
}

// sumOf returns the checksum of length bytes from offset on. It reads them to buf.
func sumOf(r io.ReaderAt, offset, length uint64, buf []byte) (uint64, error) {
	var h xxhash.Digest
	h.Reset()
	for end := offset + length; offset < end; {
		part := buf[:min(uint64(len(buf)), end-offset)]
		if err := readFull(r, part, offset); err != nil {
			return 0, err
		}
		_, _ = h.Write(part) // a hash.Hash never fails
		offset += uint64(len(part))
	}
	return h.Sum64(), nil
}

// readFull reads as many bytes as p has room for. What cannot be read is of class
// [ErrUnreadable], and a file that has become shorter than it was of class [ErrCorrupt].
func readFull(r io.ReaderAt, p []byte, offset uint64) error {
	n, err := r.ReadAt(p, int64(offset))
	at := offset + uint64(n)
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		err = path.Err // who calls names the file
	}
	switch {
	case n == len(p):
		return nil
	case errors.Is(err, io.EOF):
		return fmt.Errorf("file ends at %d, it was longer when it was opened: truncated: %w", at, ErrCorrupt)
	default:
		return fmt.Errorf("read at %d: %w: %w", at, err, ErrUnreadable)
	}
}

// mappedReader reads a file that is mapped. What it reads it first asks of the mapping,
// because it is by that way that pages come to memory as large as [advise] asks for:
// where searches find them in small ones, as plain reads leave them, they are slower
// by some percent.
type mappedReader struct {
	file    *os.File
	mapping []byte
	faulted bool // so reading will tell why
	touched byte
}

// ReadAt implements [io.ReaderAt].
func (r *mappedReader) ReadAt(p []byte, offset int64) (int, error) {
	if !r.faulted {
		r.faulted = r.touch(r.mapping[offset:][:len(p)]) != nil
	}
	return r.file.ReadAt(p, offset)
}

func (r *mappedReader) touch(p []byte) (err error) {
	defer Guard(&err)()
	for i := 0; i < len(p); i += PageSize {
		r.touched ^= p[i]
	}
	return nil
}
