package sections

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"
)

const (
	// FormatVersion is the container version this package writes and reads.
	//
	//	1: header, sections, table of contents.
	FormatVersion = 1

	// CompactVectors is the feature bit of a file whose index.vectors holds another
	// element type than float32.
	CompactVectors = 1 << 0

	// Float32Attributes is the feature bit of a file that has an attribute of type
	// float32.
	Float32Attributes = 1 << 1

	// WideTimestamps is the feature bit of a file that has a timestamp beyond what
	// 64-bit nanoseconds since 1970 reach.
	WideTimestamps = 1 << 2

	// knownFeatures are the feature bits this package reads.
	//
	//	bit 0: CompactVectors.
	//	bit 1: Float32Attributes.
	//	bit 2: WideTimestamps.
	knownFeatures = CompactVectors | Float32Attributes | WideTimestamps

	// PageSize is the alignment of every section, in bytes.
	PageSize = 4096

	// MaxNameLen is the longest section name, in bytes.
	MaxNameLen = 40

	magic       = "TANDEMSH"
	entrySize   = 64
	maxSections = 1 << 16
)

// ErrCorrupt is the class of every error that says that a file's bytes are not
// what was written: a failed checksum, a truncation, a value out of bounds.
var ErrCorrupt = errors.New("corrupt")

// ErrVersion is the class of every error that says that a file was written by a
// version of the format that this package does not read.
var ErrVersion = errors.New("unsupported format version")

// Corruptf returns an [ErrCorrupt] error that names the section. Packages that
// interpret a section report what they find with it.
func Corruptf(section, format string, args ...any) error {
	return fmt.Errorf("section %s: %s: %w", section, fmt.Sprintf(format, args...), ErrCorrupt)
}

// header is page 0 of the file.
type header struct {
	version   uint32
	features  uint32
	fileSize  uint64
	tocOffset uint64
	tocLength uint64
	tocHash   uint64
	sections  uint32
}

func (h header) encode() []byte {
	page := make([]byte, PageSize)
	copy(page, magic)
	le := binary.LittleEndian
	le.PutUint32(page[8:], h.version)
	le.PutUint32(page[12:], h.features)
	le.PutUint64(page[16:], h.fileSize)
	le.PutUint64(page[24:], h.tocOffset)
	le.PutUint64(page[32:], h.tocLength)
	le.PutUint64(page[40:], h.tocHash)
	le.PutUint32(page[48:], h.sections)
	le.PutUint64(page[56:], xxhash.Sum64(page))
	return page
}

// decodeHeader checks page 0, which it changes, against the size of the file it was
// read from.
func decodeHeader(page []byte, size int64) (header, error) {
	var h header
	if string(page[:8]) != magic {
		return h, fmt.Errorf("header: magic is %q, want %q: not a shard file: %w", page[:8], magic, ErrCorrupt)
	}
	le := binary.LittleEndian
	h.version = le.Uint32(page[8:])
	want := le.Uint64(page[56:])
	clear(page[56:64])
	sum := xxhash.Sum64(page)
	if h.version != FormatVersion {
		// Another version may lay out its checksum differently, so the version
		// is reported first: it is the likelier and the more useful cause.
		return h, fmt.Errorf("header: format version is %d, this build reads version %d: %w", h.version, FormatVersion, ErrVersion)
	}
	if sum != want {
		return h, fmt.Errorf("header: checksum is %016x, want %016x: %w", sum, want, ErrCorrupt)
	}
	h.features = le.Uint32(page[12:])
	h.fileSize = le.Uint64(page[16:])
	h.tocOffset = le.Uint64(page[24:])
	h.tocLength = le.Uint64(page[32:])
	h.tocHash = le.Uint64(page[40:])
	h.sections = le.Uint32(page[48:])
	if h.features&^knownFeatures != 0 {
		return h, fmt.Errorf("header: feature bits are %#x, this build knows %#x: %w", h.features, knownFeatures, ErrVersion)
	}
	if h.fileSize != uint64(size) {
		return h, fmt.Errorf("header: file has %d bytes, the header says %d: truncated or extended: %w", size, h.fileSize, ErrCorrupt)
	}
	if h.sections > maxSections || h.tocLength != uint64(h.sections)*entrySize {
		return h, fmt.Errorf("header: %d sections with a table of contents of %d bytes: %w", h.sections, h.tocLength, ErrCorrupt)
	}
	if h.tocOffset%PageSize != 0 || h.tocOffset < PageSize || h.tocOffset > h.fileSize ||
		h.tocOffset+padded(h.tocLength) != h.fileSize {
		return h, fmt.Errorf("header: table of contents at %d with %d bytes does not end the file of %d bytes: %w",
			h.tocOffset, h.tocLength, h.fileSize, ErrCorrupt)
	}
	return h, nil
}

// Entry describes one section of a file.
type Entry struct {
	Name   string
	Offset uint64 // bytes from the start of the file; a multiple of PageSize
	Length uint64 // bytes, without the padding
	Hash   uint64 // xxhash64 of the section and its padding
}

func (e Entry) encode(dst []byte) {
	copy(dst[:MaxNameLen], e.Name)
	le := binary.LittleEndian
	le.PutUint64(dst[40:], e.Offset)
	le.PutUint64(dst[48:], e.Length)
	le.PutUint64(dst[56:], e.Hash)
}

func decodeEntry(src []byte) Entry {
	n := 0
	for n < MaxNameLen && src[n] != 0 {
		n++
	}
	le := binary.LittleEndian
	return Entry{
		Name:   string(src[:n]),
		Offset: le.Uint64(src[40:]),
		Length: le.Uint64(src[48:]),
		Hash:   le.Uint64(src[56:]),
	}
}

// validName reports whether name may name a section.
func validName(name string) bool {
	if name == "" || len(name) > MaxNameLen {
		return false
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// padded returns n rounded up to a whole page.
func padded(n uint64) uint64 { return (n + PageSize - 1) &^ (PageSize - 1) }
