package partition

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// Record is one row, or one line of attributes, on its way to its shard.
type Record struct {
	Number     int64  // of the row or the line in the whole input
	ID         string // of a row: valid
	Rejected   bool   // the row of this id must be left out
	Vector     []float32
	Attributes []attribute.Value
}

// append appends the bytes of a record: its length, then its fields.
func (r *Record) append(b []byte) []byte {
	begin := len(b)
	b = binary.LittleEndian.AppendUint32(b, 0) // the length
	b = binary.AppendVarint(b, r.Number)
	b = appendText(b, r.ID)
	b = append(b, boolByte(r.Rejected))
	for _, x := range r.Vector {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	for _, v := range r.Attributes {
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
	binary.LittleEndian.PutUint32(b[begin:], uint32(len(b)-begin-lengthSize))
	return b
}

const lengthSize = 4

func boolByte(v bool) byte {
	if v {
		return 1
	}
	return 0
}

func appendText(b []byte, text string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

// Want says which fields of a record a reading needs, beside the number, the id and whether
// it is rejected.
type Want struct{ Vector, Attributes bool }

// errShort says that a record ends before its fields do.
var errShort = errors.New("a record is shorter than its fields")

// decoder takes fields off bytes, and nothing more once it has failed.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) fail(err error) {
	if d.err == nil {
		d.err = err
	}
	d.b = nil
}

func (d *decoder) varint() int64 {
	x, n := binary.Varint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) uvarint() uint64 {
	x, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.fail(errShort)
		return 0
	}
	d.b = d.b[n:]
	return x
}

func (d *decoder) take(n uint64) []byte {
	if n > uint64(len(d.b)) {
		d.fail(errShort)
		return nil
	}
	taken := d.b[:n]
	d.b = d.b[n:]
	return taken
}

func (d *decoder) text() string { return string(d.take(d.uvarint())) }

func (d *decoder) bool() bool {
	b := d.take(1)
	if len(b) == 1 && b[0] > 1 {
		d.fail(fmt.Errorf("a bool is %d", b[0]))
	}
	return len(b) == 1 && b[0] == 1
}

// decode sets a record from its bytes, without the length. Vector and Attributes of r have
// the lengths that the record must have.
func (r *Record) decode(b []byte, want Want) error {
	d := &decoder{b: b}
	r.Number, r.ID, r.Rejected = d.varint(), d.text(), d.bool()
	vector := d.take(4 * uint64(len(r.Vector)))
	if want.Vector && vector != nil {
		for i := range r.Vector {
			r.Vector[i] = math.Float32frombits(binary.LittleEndian.Uint32(vector[4*i:]))
		}
	}
	if !want.Attributes {
		return d.err
	}
	for i := range r.Attributes {
		r.Attributes[i] = d.value()
	}
	if d.err == nil && len(d.b) > 0 {
		d.fail(fmt.Errorf("a record has %d bytes beyond its fields", len(d.b)))
	}
	return d.err
}

func (d *decoder) value() (v attribute.Value) {
	kind := d.take(1)
	if len(kind) == 0 {
		return v
	}
	switch t := attribute.Type(kind[0]); t {
	case 0:
	case attribute.Keyword:
		v = attribute.OfKeyword(d.text())
	case attribute.KeywordList:
		n := d.uvarint()
		if n > uint64(len(d.b)) { // each has a byte at least
			d.fail(errShort)
			return v
		}
		list := make([]string, n)
		for j := range list {
			list[j] = d.text()
		}
		v = attribute.OfKeywords(list)
	case attribute.Bool:
		v = attribute.OfBool(d.bool())
	case attribute.Int:
		v = attribute.OfInt(d.varint())
	case attribute.Timestamp:
		seconds, nanoseconds := d.varint(), d.varint()
		v = attribute.OfTimestamp(time.Unix(seconds, nanoseconds))
	case attribute.Float:
		if b := d.take(8); b != nil {
			v = attribute.OfFloat(math.Float64frombits(binary.LittleEndian.Uint64(b)))
		}
	case attribute.Float32:
		if b := d.take(4); b != nil {
			v = attribute.OfFloat32(math.Float32frombits(binary.LittleEndian.Uint32(b)))
		}
	default:
		d.fail(fmt.Errorf("an attribute is of the unknown type %d", kind[0]))
	}
	return v
}
