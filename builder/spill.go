package builder

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"time"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// record is one row on its way to its shard.
type record struct {
	number     int64  // of the row or the line in the input
	id         string // valid
	rejected   bool   // the row of this id must be left out
	vector     []float32
	attributes []attribute.Value
}

// spill is a temporary file of records of one shard. It is written once, then
// read as often as needed. The format lives no longer than a build.
type spill struct {
	path    string
	dim     int // of the vectors; 0 for records without one
	file    *os.File
	out     *bufio.Writer
	scratch []byte
	count   int
}

func newSpill(path string, dim int) (*spill, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("spill: %w", err)
	}
	return &spill{path: path, dim: dim, file: f, out: bufio.NewWriterSize(f, 64<<10)}, nil
}

// write appends a record: its length, then its fields.
func (s *spill) write(r *record) error {
	b := s.scratch[:0]
	b = binary.AppendVarint(b, r.number)
	b = appendText(b, r.id)
	b = append(b, boolByte(r.rejected))
	for _, x := range r.vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	for _, v := range r.attributes {
		b = append(b, byte(v.Type()))
		switch v.Type() {
		case attribute.Keyword:
			b = appendText(b, v.Keyword())
		case attribute.KeywordList:
			b = binary.AppendUvarint(b, uint64(len(v.Keywords())))
			for _, k := range v.Keywords() {
				b = appendText(b, k)
			}
		case attribute.Bool:
			b = append(b, boolByte(v.Bool()))
		case attribute.Int:
			b = binary.AppendVarint(b, v.Int())
		case attribute.Timestamp:
			t := v.Time()
			b = binary.AppendVarint(binary.AppendVarint(b, t.Unix()), int64(t.Nanosecond()))
		case attribute.Float:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v.Float()))
		case attribute.Float32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(v.Float32()))
		}
	}
	s.scratch = b
	var length [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(length[:], uint64(len(b)))
	_, err1 := s.out.Write(length[:n])
	_, err2 := s.out.Write(b)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	s.count++
	return nil
}

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// finish ends the writing.
func (s *spill) finish() error {
	if s.file == nil {
		return nil
	}
	err := errors.Join(s.out.Flush(), s.file.Close())
	s.file, s.out, s.scratch = nil, nil, nil
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	return nil
}

// parts says which fields of a record a reading needs.
type parts struct {
	vector, attributes bool
}

// each calls do for every record in the order of writing. The record's slices are
// valid until do returns.
func (s *spill) each(p parts, fields int, do func(*record) error) (err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("spill: %w", err)
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 1<<20)
	r := record{vector: make([]float32, s.dim), attributes: make([]attribute.Value, fields)}
	var buf []byte
	for range s.count {
		length, err := binary.ReadUvarint(in)
		if err != nil {
			return fmt.Errorf("spill %s: %w", s.path, err)
		}
		if uint64(cap(buf)) < length {
			buf = make([]byte, length)
		}
		buf = buf[:length]
		if _, err := io.ReadFull(in, buf); err != nil {
			return fmt.Errorf("spill %s: %w", s.path, err)
		}
		s.decode(buf, p, &r)
		if err := do(&r); err != nil {
			return err
		}
	}
	return nil
}

// decode reads a record that this process has written, so it trusts it.
func (s *spill) decode(b []byte, p parts, r *record) {
	varint := func() int64 {
		x, n := binary.Varint(b)
		b = b[n:]
		return x
	}
	text := func() string {
		n, used := binary.Uvarint(b)
		t := string(b[used : used+int(n)])
		b = b[used+int(n):]
		return t
	}
	r.number = varint()
	r.id = text()
	r.rejected, b = b[0] == 1, b[1:]
	if p.vector {
		for i := range r.vector {
			r.vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
		}
	}
	b = b[4*s.dim:]
	if !p.attributes {
		return
	}
	for i := range r.attributes {
		t := attribute.Type(b[0])
		b = b[1:]
		r.attributes[i] = attribute.Value{}
		switch t {
		case attribute.Keyword:
			r.attributes[i] = attribute.OfKeyword(text())
		case attribute.KeywordList:
			n, used := binary.Uvarint(b)
			b = b[used:]
			list := make([]string, n)
			for j := range list {
				list[j] = text()
			}
			r.attributes[i] = attribute.OfKeywords(list)
		case attribute.Bool:
			r.attributes[i] = attribute.OfBool(b[0] == 1)
			b = b[1:]
		case attribute.Int:
			r.attributes[i] = attribute.OfInt(varint())
		case attribute.Timestamp:
			seconds := varint()
			r.attributes[i] = attribute.OfTimestamp(time.Unix(seconds, varint()))
		case attribute.Float:
			r.attributes[i] = attribute.OfFloat(math.Float64frombits(binary.LittleEndian.Uint64(b)))
			b = b[8:]
		case attribute.Float32:
			r.attributes[i] = attribute.OfFloat32(math.Float32frombits(binary.LittleEndian.Uint32(b)))
			b = b[4:]
		}
	}
}
