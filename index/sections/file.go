package sections

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// File is a mapped, verified shard file. It is immutable and safe for any
// number of goroutines; no slice it returned may be used after [File.Close].
type File struct {
	path    string
	data    []byte
	mapped  bool
	header  header
	entries []Entry
	byName  map[string]int

	mu      sync.Mutex
	claimed map[string]bool
}

// Open maps the file at path and verifies all of it: the header, the table of
// contents, and the checksum of every section.
func Open(path string) (*File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open shard file: %w", err)
	}
	if !info.Mode().IsRegular() { // opening a pipe would wait for its other end
		return nil, fmt.Errorf("open shard file %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open shard file: %w", err)
	}
	defer f.Close()
	if info, err = f.Stat(); err != nil {
		return nil, fmt.Errorf("open shard file: %w", err)
	}
	if info.Size() < PageSize {
		return nil, fmt.Errorf("open shard file %s: header: file has %d bytes, a shard file has at least %d: %w",
			path, info.Size(), PageSize, ErrCorrupt)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("open shard file %s: map: %w", path, err)
	}
	advise(data)
	file, err := FromBytes(data)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open shard file %s: %w", path, err), unix.Munmap(data))
	}
	file.path, file.mapped = path, true
	return file, nil
}

// FromBytes verifies a shard file that is already in memory. The File aliases
// data, which must not change and must be aligned to 8 bytes.
func FromBytes(data []byte) (*File, error) {
	h, err := decodeHeader(data)
	if err != nil {
		return nil, err
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%8 != 0 {
		return nil, errors.New("shard file in memory is not aligned to 8 bytes")
	}
	f := &File{path: "(memory)", data: data, header: h, byName: map[string]int{}, claimed: map[string]bool{}}
	toc := data[h.tocOffset:]
	if sum := xxhash.Sum64(toc); sum != h.tocHash {
		return nil, fmt.Errorf("table of contents: checksum is %016x, want %016x: %w", sum, h.tocHash, ErrCorrupt)
	}
	next := uint64(PageSize)
	for i := range int(h.sections) {
		e := decodeEntry(toc[i*entrySize:])
		if !validName(e.Name) {
			return nil, fmt.Errorf("table of contents: entry %d: name %q: %w", i, e.Name, ErrCorrupt)
		}
		if _, dup := f.byName[e.Name]; dup {
			return nil, fmt.Errorf("table of contents: section %s occurs twice: %w", e.Name, ErrCorrupt)
		}
		if e.Offset != next || e.Length > h.tocOffset-next || padded(e.Length) > h.tocOffset-next {
			return nil, fmt.Errorf("table of contents: section %s: offset %d, length %d: want offset %d and an end before %d: %w",
				e.Name, e.Offset, e.Length, next, h.tocOffset, ErrCorrupt)
		}
		next += padded(e.Length)
		f.byName[e.Name] = i
		f.entries = append(f.entries, e)
	}
	if next != h.tocOffset {
		return nil, fmt.Errorf("table of contents: sections end at %d, the table starts at %d: %w", next, h.tocOffset, ErrCorrupt)
	}
	for _, e := range f.entries {
		if sum := xxhash.Sum64(data[e.Offset : e.Offset+padded(e.Length)]); sum != e.Hash {
			return nil, fmt.Errorf("section %s: checksum is %016x, want %016x: %w", e.Name, sum, e.Hash, ErrCorrupt)
		}
	}
	return f, nil
}

// Path returns the file's path.
func (f *File) Path() string { return f.path }

// Size returns the file's size in bytes.
func (f *File) Size() int64 { return int64(len(f.data)) }

// Checksum returns the xxhash64 of the table of contents, which covers every
// byte of the file but the header.
func (f *File) Checksum() uint64 { return f.header.tocHash }

// Features returns the feature bits, all of which this build knows.
func (f *File) Features() uint32 { return f.header.features }

// Entries returns the sections in file order. The caller must not change it.
func (f *File) Entries() []Entry { return f.entries }

// Has reports whether the file has a section of that name, without claiming it.
func (f *File) Has(name string) bool {
	_, ok := f.byName[name]
	return ok
}

// Section returns the bytes of a section and marks it as claimed. The capacity
// ends with the length. A section that is absent is an [ErrCorrupt] error.
func (f *File) Section(name string) ([]byte, error) {
	i, ok := f.byName[name]
	if !ok {
		return nil, fmt.Errorf("section %s: missing: %w", name, ErrCorrupt)
	}
	f.mu.Lock()
	f.claimed[name] = true
	f.mu.Unlock()
	e := f.entries[i]
	return f.data[e.Offset : e.Offset+e.Length : e.Offset+e.Length], nil
}

// CheckClaimed returns an [ErrVersion] error that names the first section that
// nobody asked for: it means something that this build does not understand.
func (f *File) CheckClaimed() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range f.entries {
		if !f.claimed[e.Name] {
			return fmt.Errorf("section %s: unknown to this build: %w", e.Name, ErrVersion)
		}
	}
	return nil
}

// Close unmaps the file. It is idempotent.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	data := f.data
	f.data = nil
	if !f.mapped || data == nil {
		return nil
	}
	if err := unix.Munmap(data); err != nil {
		return fmt.Errorf("close shard file %s: %w", f.path, err)
	}
	return nil
}
