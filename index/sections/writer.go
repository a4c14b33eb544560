package sections

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/cespare/xxhash/v2"
)

// Writer writes one shard file. Sections follow one another in the order of
// their [Writer.Begin] calls. The file appears under its name only when
// [Writer.Commit] returns nil; a crash before that leaves nothing under it. One that is
// [InMemory] becomes a [File] without one on a disk.
//
// A Writer is for one goroutine. After an error every further call returns it.
type Writer struct {
	path string
	file *os.File
	buf  *bufio.Writer // nil in memory
	data []byte        // what is written in memory
	err  error

	open    bool // a section is being written
	name    string
	start   uint64
	offset  uint64
	hash    xxhash.Digest
	entries []Entry
	names   map[string]bool

	features uint32
}

// Create starts a shard file that will be called path. It writes to a temporary
// file in the same folder.
func Create(path string) (*Writer, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*.tmp")
	if err != nil {
		return nil, fmt.Errorf("create shard file: %w", err)
	}
	if err := f.Chmod(0o644); err != nil { // a server may run as another user
		return nil, errors.Join(fmt.Errorf("create shard file: %w", err), f.Close(), os.Remove(f.Name()))
	}
	w := &Writer{path: path, file: f, buf: bufio.NewWriterSize(f, 1<<20), names: map[string]bool{}}
	w.write(make([]byte, PageSize))
	return w, nil
}

// InMemory starts a shard file that stays in memory. It ends with [Writer.File] instead of
// a Commit.
func InMemory() *Writer { return &Writer{path: memoryPath, names: map[string]bool{}} }

// memoryPath is what errors call a file that is in memory.
const memoryPath = "(memory)"

// memoryAlign is what sections in memory are aligned to, in bytes.
const memoryAlign = 64

// File ends the last section of what is in memory and returns it all as a file, which has
// no header and needs no verification. The Writer is then spent.
func (w *Writer) File() (*File, error) {
	w.end()
	if w.err == nil && w.buf != nil {
		w.err = errors.New("it is on a disk: want a Commit")
	}
	if w.err != nil {
		return nil, fmt.Errorf("write shard file %s: %w", w.path, w.err)
	}
	// Words, so that the memory is aligned for whatever a section holds, and no more of
	// them than there are bytes.
	words := make([]uint64, len(w.data)/8+1)
	data := Bytes(words)[:len(w.data)]
	copy(data, w.data)
	f := newFile(w.path, data)
	f.header.features = w.features
	f.entries = w.entries
	for i, e := range f.entries {
		f.byName[e.Name] = i
	}
	w.data, w.err = nil, errors.New("it is written")
	return f, nil
}

// Require sets feature bits in the header: a build that does not know them will
// refuse the file.
func (w *Writer) Require(features uint32) { w.features |= features }

// Begin ends the section being written, if any, and starts one called name.
func (w *Writer) Begin(name string) error {
	w.end()
	switch {
	case w.err != nil:
	case !validName(name):
		w.err = fmt.Errorf("section name %q: want 1 to %d bytes of a-z 0-9 . _ -", name, MaxNameLen)
	case w.names[name]:
		w.err = fmt.Errorf("section name %q: already written", name)
	case len(w.entries) == maxSections:
		w.err = fmt.Errorf("section name %q: a file has at most %d sections", name, maxSections)
	default:
		w.open, w.name, w.start = true, name, w.offset
		w.names[name] = true
		w.hash.Reset()
	}
	return w.err
}

// Write appends p to the current section.
func (w *Writer) Write(p []byte) (int, error) {
	if w.err == nil && !w.open {
		w.err = errors.New("write outside a section")
	}
	w.write(p)
	if w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// Section writes a whole section.
func (w *Writer) Section(name string, data []byte) error {
	if err := w.Begin(name); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// Commit ends the last section, writes the table of contents and the header,
// makes the file durable and gives it its name. The Writer is then spent.
func (w *Writer) Commit() error {
	w.end()
	if w.buf == nil {
		return fmt.Errorf("write shard file %s: want File, not a Commit", w.path)
	}
	toc := make([]byte, padded(uint64(len(w.entries))*entrySize))
	for i, e := range w.entries {
		e.encode(toc[i*entrySize:])
	}
	h := header{
		version:   FormatVersion,
		features:  w.features,
		fileSize:  w.offset + uint64(len(toc)),
		tocOffset: w.offset,
		tocLength: uint64(len(w.entries)) * entrySize,
		tocHash:   xxhash.Sum64(toc),
		sections:  uint32(len(w.entries)),
	}
	w.write(toc)
	if w.err == nil {
		w.err = w.buf.Flush()
	}
	if w.err == nil {
		_, w.err = w.file.WriteAt(h.encode(), 0)
	}
	if w.err == nil {
		w.err = w.file.Sync()
	}
	if w.err != nil {
		return errors.Join(fmt.Errorf("write shard file %s: %w", w.path, w.err), w.Abort())
	}
	temporary := w.file.Name()
	err := w.file.Close()
	w.file = nil
	if err == nil {
		err = os.Rename(temporary, w.path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write shard file %s: %w", w.path, err), os.Remove(temporary))
	}
	return SyncDir(filepath.Dir(w.path))
}

// Abort removes the temporary file. It does nothing after a Commit.
func (w *Writer) Abort() error {
	if w.file == nil {
		return nil
	}
	temporary := w.file.Name()
	err := errors.Join(w.file.Close(), os.Remove(temporary))
	w.file = nil
	if w.err == nil {
		w.err = errors.New("aborted")
	}
	return err
}

// end closes the current section: its padding belongs to its checksum.
func (w *Writer) end() {
	if !w.open {
		return
	}
	length := w.offset - w.start
	end := padded(length)
	if w.buf == nil {
		end = (length + memoryAlign - 1) &^ (memoryAlign - 1)
	}
	w.write(make([]byte, end-length))
	w.entries = append(w.entries, Entry{Name: w.name, Offset: w.start, Length: length, Hash: w.hash.Sum64()})
	w.open = false
}

func (w *Writer) write(p []byte) {
	if w.err != nil {
		return
	}
	if w.offset += uint64(len(p)); w.buf == nil {
		w.data = append(w.data, p...)
		return
	}
	if _, w.err = w.buf.Write(p); w.err == nil && w.open {
		_, _ = w.hash.Write(p) // a hash.Hash never fails
	}
}

// SyncDir makes the names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync folder: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync folder %s: %w", dir, err)
	}
	return nil
}

var _ io.Writer = (*Writer)(nil)
