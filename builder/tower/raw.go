package tower

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"math/bits"
	"os"
	"slices"
	"strconv"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// A rawHeader is what the head of a file of plain rows says.
type rawHeader struct {
	rows, dim uint64
	element   element
	size      int64 // bytes of the header
}

// rawHeaders parse the header of each format. They read no more than it.
var rawHeaders = map[string]func(io.Reader) (rawHeader, error){
	".npy":   npyHeader,
	".fbin":  bigANN(float32s),
	".u8bin": bigANN(uint8s),
	".i8bin": bigANN(int8s),
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
func bigANN(e element) func(io.Reader) (rawHeader, error) {
	return func(r io.Reader) (rawHeader, error) {
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

// A rawReader reads rows of plain numbers, with ids from a text file.
type rawReader struct {
	path   string
	header rawHeader
	file   *os.File
	br     *bufio.Reader
	ids    *idReader // nil when row numbers are the ids
	data   []byte
	row    Row
	err    error
}

// openRaw opens a file of plain rows and its id file.
func openRaw(o Options, info fs.FileInfo, parse func(io.Reader) (rawHeader, error)) (r *rawReader, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open %s: %w", o.Path, err)
		}
	}()
	switch {
	case !info.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	case o.IDs == "" && !o.NumberRows:
		return nil, errors.New("the format has no ids: an id file is needed, one id per line")
	case o.IDs != "" && o.NumberRows:
		return nil, errors.New("an id file was given, and row numbers asked for as ids: want one of them")
	}
	f, err := os.Open(o.Path)
	if err != nil {
		return nil, err
	}
	r = &rawReader{path: o.Path, file: f, br: bufio.NewReaderSize(f, 1<<20)}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.Close())
			r = nil
		}
	}()
	if r.header, err = parse(r.br); err != nil {
		return r, err
	}
	if err = r.header.check(info.Size()); err != nil {
		return r, err
	}
	r.row.Number = -1
	if o.NumberRows {
		return r, nil
	}
	ids, err := countIDs(o.IDs)
	if err != nil {
		return r, err
	}
	if ids != r.header.rows {
		return r, fmt.Errorf("%d rows, and %d ids in %s: want one id for each row", r.header.rows, ids, o.IDs)
	}
	r.ids, err = openIDs(o.IDs)
	return r, err
}

func (r *rawReader) Schema() attribute.Schema { return attribute.Schema{} }
func (r *rawReader) Rows() int64              { return int64(r.header.rows) }
func (r *rawReader) Notes() []string          { return nil }

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
	r.row.Number++
	if r.row.Number == int64(r.header.rows) {
		return io.EOF
	}
	if r.ids == nil {
		r.row.ID = strconv.FormatInt(r.row.Number, 10)
	} else if r.row.ID, err = r.ids.next(); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %s: id of row %d: %w", r.ids.path, r.row.Number, err)
	}
	if r.data == nil {
		r.data = make([]byte, r.header.dim*elementSizes[r.header.element])
	}
	if _, err := io.ReadFull(r.br, r.data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("read %s: row %d: %w", r.path, r.row.Number, err)
	}
	if cap(r.row.Vector) == 0 {
		r.row.Vector = slices.Grow(r.row.Vector, int(r.header.dim))
	}
	r.row.Vector = r.header.element.widen(r.row.Vector[:0], r.data)
	return nil
}

func (r *rawReader) Close() error {
	if r.err == nil {
		r.err = errors.New("read tower: the reader is closed")
	}
	var errs []error
	if r.file != nil {
		errs = append(errs, r.file.Close())
		r.file = nil
	}
	if r.ids != nil {
		errs = append(errs, r.ids.close())
		r.ids = nil
	}
	return errors.Join(errs...)
}
