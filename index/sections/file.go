package sections

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// File is a mapped, verified shard file. It is immutable and safe for any
// number of goroutines; no slice it returned may be used after [File.Close].
//
// Whoever reads those slices defers a [Guard]: a page that was read when the file was
// verified may have left memory, and need not come back.
type File struct {
	path    string
	data    []byte
	mapping []byte // data as it was mapped; nil if it was not
	header  header
	entries []Entry
	byName  map[string]int

	mu      sync.Mutex
	claimed map[string]bool
}

// Open maps the file at path and verifies all of it: the header, the table of
// contents, and the checksum of every section. It verifies what it reads and not what is
// mapped, so that what the disk does not give is an error, of class [ErrUnreadable].
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
	if err := checkSize(info.Size()); err != nil {
		return nil, fmt.Errorf("open shard file %s: %w", path, err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("open shard file %s: map: %w", path, err)
	}
	advise(data)
	file := newFile(path, data)
	file.mapping = data
	noteMapped(file)
	if err := file.verify(&mappedReader{file: f, mapping: data}); err != nil {
		return nil, errors.Join(fmt.Errorf("open shard file %s: %w", path, err), file.Close())
	}
	return file, nil
}

// FromBytes verifies a shard file that is already in memory. The File aliases
// data, which must not change and must be aligned to 8 bytes.
func FromBytes(data []byte) (*File, error) {
	if err := checkSize(int64(len(data))); err != nil {
		return nil, err
	}
	if uintptr(unsafe.Pointer(unsafe.SliceData(data)))%8 != 0 {
		return nil, errors.New("shard file in memory is not aligned to 8 bytes")
	}
	f := newFile(memoryPath, data)
	if err := f.verify(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	return f, nil
}

func newFile(path string, data []byte) *File {
	return &File{path: path, data: data, byName: map[string]int{}, claimed: map[string]bool{}}
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
	open := f.data != nil
	f.data = nil
	if f.mapping == nil || !open {
		return nil
	}
	noteUnmapped(f)
	if err := unix.Munmap(f.mapping); err != nil {
		return fmt.Errorf("close shard file %s: %w", f.path, err)
	}
	return nil
}
