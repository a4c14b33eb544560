package sections_test

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index/sections"
)

const page = sections.PageSize

// Where format.md puts the fields.
const (
	headerVersion  = 8
	headerFeatures = 12
	headerSize     = 16
	headerTocAt    = 24
	headerTocLen   = 32
	headerTocSum   = 40
	headerCount    = 48
	headerSum      = 56
	entryLen       = 64
	entryOffset    = 40
	entryLength    = 48
	entrySum       = 56
)

var le = binary.LittleEndian

// reseal makes every checksum of a file right again, as far as its counts and
// offsets lead anywhere.
func reseal(data []byte) {
	if len(data) < page {
		return
	}
	size := uint64(len(data))
	if at := le.Uint64(data[headerTocAt:]); at <= size {
		toc := data[at:]
		for i := range uint64(le.Uint32(data[headerCount:])) {
			if (i+1)*entryLen > uint64(len(toc)) {
				break
			}
			e := toc[i*entryLen:]
			from, length := le.Uint64(e[entryOffset:]), le.Uint64(e[entryLength:])
			to := from + (length+page-1)/page*page
			if from <= to && to <= size {
				le.PutUint64(e[entrySum:], xxhash.Sum64(data[from:to]))
			}
		}
		le.PutUint64(data[headerTocSum:], xxhash.Sum64(toc))
	}
	le.PutUint64(data[headerSum:], 0)
	le.PutUint64(data[headerSum:], xxhash.Sum64(data[:page]))
}

// place names the part of a file that holds a byte.
func place(f *sections.File, at uint64) string {
	if at < page {
		return "header: "
	}
	for _, e := range f.Entries() {
		if at >= e.Offset && at < e.Offset+(e.Length+page-1)/page*page {
			return "section " + e.Name + ": "
		}
	}
	return "table of contents: "
}

func TestEachByteFlipped(t *testing.T) {
	data := read(t, write(t, small))
	f, err := sections.FromBytes(append([]byte(nil), data...))
	require.NoError(t, err)
	for at := range data {
		for _, mask := range []byte{0x01, 0x80, 0xff} {
			data[at] ^= mask
			_, err := sections.FromBytes(data)
			data[at] ^= mask
			require.Error(t, err, "byte %d", at)
			if at >= headerVersion && at < headerVersion+4 {
				require.ErrorIs(t, err, sections.ErrVersion, "byte %d", at)
			} else {
				require.ErrorIs(t, err, sections.ErrCorrupt, "byte %d", at)
			}
			want := place(f, uint64(at))
			require.Equal(t, want, err.Error()[:min(len(want), len(err.Error()))], "byte %d", at)
		}
	}
}

func TestTruncated(t *testing.T) {
	data := read(t, write(t, small))
	for n := range len(data) {
		_, err := sections.FromBytes(data[:n:n])
		require.ErrorIs(t, err, sections.ErrCorrupt, "%d bytes", n)
		require.ErrorContains(t, err, "header: file has", "%d bytes", n)
	}
}

func TestExtended(t *testing.T) {
	data := read(t, write(t, small))
	for _, n := range []int{1, 7, page, 3 * page} {
		_, err := sections.FromBytes(append(data[:len(data):len(data)], make([]byte, n)...))
		require.ErrorIs(t, err, sections.ErrCorrupt)
		require.ErrorContains(t, err, "truncated or extended")
	}
}

func TestOpenNamesTheFile(t *testing.T) {
	path := write(t, small)
	data := read(t, path)
	data[page] ^= 1
	require.NoError(t, os.WriteFile(path, data, 0o600))
	_, err := sections.Open(path)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	assert.ErrorContains(t, err, "open shard file "+path+": section index.params: checksum is ")

	require.NoError(t, os.Truncate(path, 2*page+17))
	_, err = sections.Open(path)
	require.ErrorIs(t, err, sections.ErrCorrupt)
	assert.ErrorContains(t, err, path+": header: file has 8209 bytes, the header says ")
}

// TestHostile changes a file and makes its checksums right again.
func TestHostile(t *testing.T) {
	original := read(t, write(t, small))
	toc := le.Uint64(original[headerTocAt:])
	entry := func(i int) uint64 { return toc + uint64(i)*entryLen }
	put32 := func(at uint64, v uint32) func([]byte) []byte {
		return func(d []byte) []byte { le.PutUint32(d[at:], v); return d }
	}
	put64 := func(at, v uint64) func([]byte) []byte {
		return func(d []byte) []byte { le.PutUint64(d[at:], v); return d }
	}
	for _, tt := range []struct {
		name   string
		change func([]byte) []byte
		class  error
		text   string
	}{
		{"version 0", put32(headerVersion, 0), sections.ErrVersion, "format version is 0, this build reads version 1"},
		{"version 2", put32(headerVersion, 2), sections.ErrVersion, "format version is 2, this build reads version 1"},
		{"feature bit", put32(headerFeatures, 8), sections.ErrVersion, "feature bits are 0x8, this build knows 0x7"},
		{"size", put64(headerSize, 1<<63), sections.ErrCorrupt, "header: file has"},
		{"toc beyond the file", put64(headerTocAt, 1<<40), sections.ErrCorrupt, "header: table of contents at"},
		{"toc overflows", put64(headerTocAt, ^uint64(page-1)), sections.ErrCorrupt, "header: table of contents at"},
		{"toc in the header", put64(headerTocAt, 0), sections.ErrCorrupt, "header: table of contents at 0"},
		{"toc unaligned", put64(headerTocAt, toc-8), sections.ErrCorrupt, "header: table of contents at"},
		{"toc early", put64(headerTocAt, toc-page), sections.ErrCorrupt, "header: table of contents at"},
		{"toc length", put64(headerTocLen, 3*entryLen), sections.ErrCorrupt, "header: 4 sections with a table of contents of 192 bytes"},
		{"more sections", put32(headerCount, 1<<31), sections.ErrCorrupt, "header: 2147483648 sections"},
		{"fewer sections", func(d []byte) []byte {
			le.PutUint32(d[headerCount:], 3)
			le.PutUint64(d[headerTocLen:], 3*entryLen)
			return d
		}, sections.ErrCorrupt, "table of contents: sections end at"},
		{"empty name", func(d []byte) []byte { clear(d[entry(1) : entry(1)+40]); return d }, sections.ErrCorrupt, `table of contents: entry 1: name ""`},
		{"bad name", func(d []byte) []byte { d[entry(1)] = 'E'; return d }, sections.ErrCorrupt, `table of contents: entry 1: name "Empty"`},
		{"same name", func(d []byte) []byte { copy(d[entry(1):], "index.params"); return d }, sections.ErrCorrupt, "section index.params occurs twice"},
		{"offset in the header", put64(entry(0)+entryOffset, 0), sections.ErrCorrupt, "section index.params: offset 0,"},
		{"overlap", put64(entry(2)+entryOffset, page), sections.ErrCorrupt, "section a.page: offset 4096,"},
		{"gap", put64(entry(1)+entryOffset, 3*page), sections.ErrCorrupt, "section empty: offset 12288,"},
		{"length beyond the toc", put64(entry(3)+entryLength, 1<<40), sections.ErrCorrupt, "section longer-than_a.page: offset"},
		{"length overflows", put64(entry(3)+entryLength, ^uint64(0)), sections.ErrCorrupt, "section longer-than_a.page: offset"},
		{"short", put64(entry(3)+entryLength, 1), sections.ErrCorrupt, "table of contents: sections end at"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			data := tt.change(append([]byte(nil), original...))
			reseal(data)
			_, err := sections.FromBytes(data)
			require.ErrorIs(t, err, tt.class)
			require.ErrorContains(t, err, tt.text)
		})
	}
}

// FuzzFromBytes changes real files, with and without making the checksums right
// again. Nothing reads outside the file, and what is accepted is whole. The input
// says what to change, six bytes each time (place, then value), because whole
// files are too long to mutate well; tail moves the file's end.
func FuzzFromBytes(f *testing.F) {
	var files [][]byte
	for _, content := range [][]named{nil, small[:1], small} {
		files = append(files, read(f, write(f, content)))
	}
	toc := uint16(le.Uint64(files[2][headerTocAt:]))
	for which := range byte(len(files)) {
		f.Add(which, []byte{}, int16(0), false)
		f.Add(which, []byte{}, int16(-page), true)
		f.Add(which, []byte{headerCount, 0, 9, 0, 0, 0}, int16(page), true)
		f.Add(which, []byte{headerTocAt, 0, 0, 16, 0, 0, headerTocLen, 0, 64, 0, 0, 0}, int16(0), true)
		patch := le.AppendUint16(nil, toc+entryLength)
		f.Add(which, le.AppendUint32(patch, 1<<31), int16(0), true)
	}
	f.Fuzz(func(t *testing.T, which byte, changes []byte, tail int16, seal bool) {
		original := files[int(which)%len(files)]
		data := make([]byte, max(0, len(original)+int(tail)))
		copy(data, original)
		for ; len(changes) >= 6; changes = changes[6:] {
			if at := int(le.Uint16(changes)); at < len(data) {
				copy(data[at:], changes[2:6])
			}
		}
		if seal && len(data) >= page {
			le.PutUint64(data[headerSize:], uint64(len(data)))
			reseal(data)
		}
		file, err := sections.FromBytes(data)
		if err != nil {
			require.True(t, errorIsKnown(err), "%v", err)
			return
		}
		covered := uint64(page)
		for _, e := range file.Entries() {
			section, err := file.Section(e.Name)
			require.NoError(t, err)
			require.Len(t, section, int(e.Length))
			covered += (e.Length + page - 1) / page * page
			_ = xxhash.Sum64(section)
		}
		require.LessOrEqual(t, covered, uint64(len(data)))
		require.NoError(t, file.CheckClaimed())
		require.NoError(t, file.Close())
	})
}

func errorIsKnown(err error) bool {
	return errors.Is(err, sections.ErrCorrupt) || errors.Is(err, sections.ErrVersion)
}
