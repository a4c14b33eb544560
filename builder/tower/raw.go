package tower

import (
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/builder/input"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// A rawHeader is what the head of a file of plain rows says.
type rawHeader struct {
	rows, dim uint64
	element   element
	size      int64 // bytes of the header
}

// parseHeader reads the header of a file: that of .npy if its first bytes say so, else that
// of the format that its extension tells.
func parseHeader(f input.File) (rawHeader, error) {
	head, err := headOf(f)
	if err != nil {
		return rawHeader{}, err
	}
	r := io.NewSectionReader(f, 0, f.Size())
	if e, ok := bigANNElements[extension(f.Name())]; ok && input.FormatOf(head) != input.Npy {
		return bigANN(r, e)
	}
	return npyHeader(r)
}

// An element is the type of the numbers in a file of plain rows, little-endian.
type element uint8

const (
	float32s element = iota
	float64s
	float16s
	uint8s
	int8s
)

var elementSizes = [...]uint64{float32s: 4, float64s: 8, float16s: 2, uint8s: 1, int8s: 1}

// widen appends the numbers of data to v.
func (e element) widen(v []float32, data []byte) []float32 {
	switch e {
	case float32s:
		for ; len(data) >= 4; data = data[4:] {
			v = append(v, math.Float32frombits(binary.LittleEndian.Uint32(data)))
		}
	case float64s:
		for ; len(data) >= 8; data = data[8:] {
			v = append(v, float32(math.Float64frombits(binary.LittleEndian.Uint64(data))))
		}
	case float16s:
		for ; len(data) >= 2; data = data[2:] {
			v = append(v, fromHalf(binary.LittleEndian.Uint16(data)))
		}
	case uint8s:
		for _, b := range data {
			v = append(v, float32(b))
		}
	case int8s:
		for _, b := range data {
			v = append(v, float32(int8(b)))
		}
	}
	return v
}

// bigANN parses the header of the big-ann-benchmarks formats.
func bigANN(r io.Reader, e element) (rawHeader, error) {
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return rawHeader{}, fmt.Errorf("file is shorter than the header of 8 bytes (rows, dimension): %w", err)
	}
	return rawHeader{
		rows:    uint64(binary.LittleEndian.Uint32(head[:4])),
		dim:     uint64(binary.LittleEndian.Uint32(head[4:])),
		element: e,
		size:    8,
	}, nil
}

// check compares the header with the size of the file.
func (h rawHeader) check(size int64) error {
	if h.dim == 0 {
		return fmt.Errorf("header says %d rows of dimension 0, want at least 1", h.rows)
	}
	high, n := bits.Mul64(h.rows, h.dim)
	if high == 0 {
		high, n = bits.Mul64(n, elementSizes[h.element])
	}
	n, carry := bits.Add64(n, uint64(h.size), 0)
	if high != 0 || carry != 0 || n != uint64(size) {
		want := fmt.Sprintf("%d bytes", n)
		if high != 0 || carry != 0 {
			want = "more than 2^64 bytes"
		}
		return fmt.Errorf("header says %d rows of dimension %d, %d bytes each number, which makes a file of %s; the file has %d", h.rows, h.dim, elementSizes[h.element], want, size)
	}
	return nil
}

// A rawReader reads rows of plain numbers, with ids from other files.
type rawReader struct {
	files   []rawFile
	rows    int64
	ids     *idReader // nil when row numbers are the ids
	notes   []string
	unknown []string // all columns that were to be ignored: there are none

	file int   // being read
	left int64 // rows of it
	br   *bufio.Reader
	data []byte
	row  Row
	err  error
}

// A rawFile is a file of plain rows.
type rawFile struct {
	input.File
	header rawHeader
}

// openRaw reads the headers of files of plain rows, and the id files.
func openRaw(o Options, files []input.File) (*rawReader, error) {
	r := &rawReader{file: -1, unknown: o.IgnoreColumns}
	for _, f := range files {
		h, err := parseHeader(f)
		if err == nil {
			err = h.check(f.Size())
		}
		switch {
		case err != nil:
			return nil, fmt.Errorf("open %s: %w", f.Name(), err)
		case o.IDFiles == nil && !o.NumberRows:
			return nil, fmt.Errorf("open %s: the format has no ids: an id file is needed, one id per line", f.Name())
		case h.dim != r.dim() && len(r.files) > 0:
			return nil, fmt.Errorf("open %s: it has dimension %d, and %s has %d: all files of a tower must have the same", f.Name(), h.dim, files[0].Name(), r.dim())
		case h.rows > math.MaxInt64-uint64(r.rows):
			return nil, fmt.Errorf("open %s: %d rows are too many", f.Name(), h.rows)
		}
		r.files = append(r.files, rawFile{f, h})
		r.rows += int64(h.rows)
	}
	if note := misordered(files); note != "" {
		r.notes = append(r.notes, note)
	}
	r.row.Number = -1
	if o.NumberRows {
		return r, nil
	}
	counts := make([]int64, len(files))
	for i, f := range r.files {
		counts[i] = int64(f.header.rows)
	}
	var err error
	if r.ids, err = openIDs(o.IDFiles.Files(), o.IDColumn, files, counts); err != nil {
		return nil, err
	}
	r.notes = append(r.notes, r.ids.notes...)
	return r, nil
}

// misordered says of files which two are read in another order than their numbers say,
// since part-10 is before part-2 in the order of names: then their rows may be in another
// order than the ids. It returns "" if none are.
func misordered(files []input.File) string {
	for i := 1; i < len(files); i++ {
		if a, b := files[i-1].Name(), files[i].Name(); numbersCompare(a, b) > 0 {
			return fmt.Sprintf("%s is read before %s, in the order of their names and not of their numbers, and so rows are given ids: write numbers with as many digits, 02 and 10, if that is not meant", a, b)
		}
	}
	return ""
}

// numbersCompare compares the first numbers in which two names differ, if they do not
// differ in anything before. It returns 0 if they do.
func numbersCompare(a, b string) int {
	for a != "" && b != "" {
		n, m := leadingDigits(a), leadingDigits(b)
		if n == 0 || m == 0 {
			if a[0] != b[0] {
				return 0
			}
			a, b = a[1:], b[1:]
			continue
		}
		x, y := strings.TrimLeft(a[:n], "0"), strings.TrimLeft(b[:m], "0")
		if c := cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y)); c != 0 {
			return c
		}
		a, b = a[n:], b[m:]
	}
	return 0
}

func leadingDigits(text string) int { return len(text) - len(strings.TrimLeft(text, "0123456789")) }

// dim returns the dimension of all files.
func (r *rawReader) dim() uint64 {
	if len(r.files) == 0 {
		return 0
	}
	return r.files[0].header.dim
}

func (r *rawReader) Schema() attribute.Schema { return attribute.Schema{} }
func (r *rawReader) Rows() int64              { return r.rows }
func (r *rawReader) Notes() []string          { return r.notes }
func (r *rawReader) Run() string              { return "" }

func (r *rawReader) Survey() *Survey {
	s := &Survey{Format: input.Npy}
	for _, f := range r.files {
		s.Rows = append(s.Rows, int64(f.header.rows))
	}
	return s
}
func (r *rawReader) Unknown() []string { return r.unknown }

func (r *rawReader) Next() (*Row, error) {
	if r.err == nil {
		r.err = r.next()
	}
	if r.err != nil {
		return nil, r.err
	}
	return &r.row, nil
}

func (r *rawReader) next() (err error) {
	for r.left == 0 {
		if r.file++; r.file == len(r.files) {
			return io.EOF
		}
		f := r.files[r.file]
		r.left = int64(f.header.rows)
		r.br = bufio.NewReaderSize(io.NewSectionReader(f, f.header.size, f.Size()-f.header.size), 1<<20)
		r.data = make([]byte, f.header.dim*elementSizes[f.header.element])
	}
	r.left--
	r.row.Number++
	r.row.File = r.file
	if r.ids == nil {
		r.row.ID = strconv.FormatInt(r.row.Number, 10)
	} else if r.row.ID, err = r.ids.next(); err != nil {
		return fmt.Errorf("id of row %d: %w", r.row.Number, err)
	}
	f := r.files[r.file]
	if _, err := io.ReadFull(r.br, r.data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %s: row %d: %w", f.Name(), r.row.Number, err)
	}
	if cap(r.row.Vector) == 0 {
		r.row.Vector = slices.Grow(r.row.Vector, int(f.header.dim))
	}
	r.row.Vector = f.header.element.widen(r.row.Vector[:0], r.data)
	return nil
}

func (r *rawReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read tower: the reader is closed")
	}
	if r.ids == nil {
		return nil
	}
	ids := r.ids
	r.ids = nil
	return ids.close()
}
