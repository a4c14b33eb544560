package tower

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/apache/arrow-go/v18/parquet"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// A column is a cursor over the rows of one leaf in the row group being read.
//
// A batch has levels. A level is a value, a null, or (in a list) a null or empty list; the
// definition level tells which, and only values are stored. In a list a repetition level
// of 0 starts a row, which may go on in the next batch.
type column struct {
	shape
	name      string         // for messages
	attribute int            // position in the schema, -1 for what is none
	typ       attribute.Type // of the attribute
	dated     *dated         // of keywords whose type was not told, else nil

	chunk *parquetfile.Column // nil between row groups
	pos   int                 // next level of the batch
	at    int                 // next value of the batch

	vector   []float32         // scratch
	strings  []string          // scratch
	interned map[string]string // of the values of keywords, which repeat
}

// open starts the column's chunk of a row group.
func (c *column) open(f *parquetfile.File, group int) (err error) {
	if err := c.close(); err != nil {
		return err
	}
	c.chunk, err = f.Column(group, c.leaf)
	return err
}

// close lets go of the chunk.
func (c *column) close() error {
	c.pos, c.at = 0, 0
	if c.chunk == nil {
		return nil
	}
	chunk := c.chunk
	c.chunk = nil
	return chunk.Close()
}

// load reads the next batch. It returns false at the end.
func (c *column) load() (bool, error) {
	c.pos, c.at = 0, 0
	err := c.chunk.Next()
	if errors.Is(err, io.EOF) {
		return false, nil
	}
	if err == nil && c.decoding == decimal {
		err = c.checkDecimals()
	}
	return err == nil, err
}

// ensure makes pos a level that starts a row.
func (c *column) ensure() error {
	if c.pos == c.chunk.Levels {
		switch more, err := c.load(); {
		case err != nil:
			return err
		case !more:
			return fmt.Errorf("%w: has fewer rows than its row group", parquetfile.ErrDamaged)
		}
	}
	return nil
}

// finish checks that the chunk has no more rows.
func (c *column) finish() error {
	if c.pos == c.chunk.Levels {
		if more, err := c.load(); err != nil || !more {
			return err
		}
	}
	return fmt.Errorf("%w: has more rows than its row group", parquetfile.ErrDamaged)
}

// nulls reports whether some level of the batch has no value.
func (c *column) nulls() bool { return c.chunk.Count < c.chunk.Levels }

// scalar takes the next level of a flat column. It returns the position of the value, -1
// when it is null.
func (c *column) scalar() (int, error) {
	if err := c.ensure(); err != nil {
		return -1, err
	}
	null := c.nulls() && c.chunk.Def[c.pos] != c.maxDef
	c.pos++
	if null {
		return -1, nil
	}
	c.at++
	return c.at - 1, nil
}

// id takes the next id, "" when it is null.
func (c *column) id() (string, error) {
	i, err := c.scalar()
	if err != nil || i < 0 {
		return "", err
	}
	switch c.decoding {
	case text, raw:
		return string(c.bytes(i)), nil
	case uuid:
		return uuidText(c.chunk.Fixed[i]), nil
	case decimal:
		return c.decimalText(i), nil
	case unsigned64:
		return strconv.FormatUint(uint64(c.chunk.Int64s[i]), 10), nil
	}
	return strconv.FormatInt(c.integer(i), 10), nil
}

// integer returns the integer at a position of a column of them, except those of 64 bits
// without a sign.
func (c *column) integer(i int) int64 {
	switch c.decoding {
	case signed32:
		return int64(c.chunk.Int32s[i])
	case unsigned32:
		return int64(uint32(c.chunk.Int32s[i]))
	}
	return c.chunk.Int64s[i]
}

// uuidText writes a UUID as RFC 9562 has it.
func uuidText(u []byte) string {
	text := make([]byte, 36)
	hex.Encode(text, u[:4])
	text[8] = '-'
	hex.Encode(text[9:], u[4:6])
	text[13] = '-'
	hex.Encode(text[14:], u[6:8])
	text[18] = '-'
	hex.Encode(text[19:], u[8:10])
	text[23] = '-'
	hex.Encode(text[24:], u[10:16])
	return string(text)
}

// maxInterned bounds how many texts of a column are kept, and how long they are.
const (
	maxInterned      = 4096
	maxInternedBytes = 64
)

// bytes returns the bytes of a position, which are good until the next batch.
func (c *column) bytes(i int) []byte {
	if c.decoding == fixed {
		return c.chunk.Fixed[i]
	}
	return c.chunk.Bytes[i]
}

// str returns a text. Texts that come often take memory once.
func (c *column) str(i int) string {
	b := c.bytes(i)
	if s, ok := c.interned[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) <= maxInternedBytes && len(c.interned) < maxInterned {
		if c.interned == nil {
			c.interned = make(map[string]string)
		}
		c.interned[s] = s
	}
	return s
}

// dated counts how many texts of a column are dates or times.
type dated struct{ texts, times int64 }

func (d *dated) count(text []byte) {
	if d.texts++; lookOfText(text) != lookText {
		d.times++
	}
}

// A remark is what there is to say of a value: a tally entry, or a problem of
// the row.
type remark struct {
	note    string
	problem *Problem
}

// value takes the next value of an attribute.
func (c *column) value() (v attribute.Value, r remark, err error) {
	if c.shape.list {
		return c.keywords()
	}
	i, err := c.scalar()
	if err != nil || i < 0 {
		return v, r, err
	}
	outOfRange := func(got any, want string) {
		r.problem = &Problem{OutOfRange, fmt.Sprintf("attribute %s: %v %v, want %s", c.name, c.text, got, want)}
	}
	timestamp := func(t time.Time) { v, r.note = storedTime(c.name, t) }
	switch c.decoding {
	case text, raw:
		if c.dated != nil {
			c.dated.count(c.bytes(i))
		}
		v = attribute.OfKeyword(c.str(i))
	case uuid:
		v = attribute.OfKeyword(uuidText(c.chunk.Fixed[i]))
	case boolean:
		v = attribute.OfBool(c.chunk.Bools[i])
	case signed32, unsigned32, signed64:
		v = attribute.OfInt(c.integer(i))
	case unsigned64:
		if c.chunk.Int64s[i] < 0 {
			outOfRange(uint64(c.chunk.Int64s[i]), "the int64 range")
			break
		}
		v = attribute.OfInt(c.chunk.Int64s[i])
	case decimal:
		if c.typ == attribute.Float {
			v = attribute.OfFloat(c.decimalFloat(i))
			break
		}
		n, err := strconv.ParseInt(c.decimalText(i), 10, 64)
		if err != nil {
			outOfRange(c.decimalText(i), "the int64 range")
			break
		}
		v = attribute.OfInt(n)
	case days:
		timestamp(time.Unix(int64(c.chunk.Int32s[i])*secondsPerDay, 0))
	case millis:
		timestamp(time.UnixMilli(c.chunk.Int64s[i]))
	case micros:
		timestamp(time.UnixMicro(c.chunk.Int64s[i]))
	case nanos:
		timestamp(time.Unix(0, c.chunk.Int64s[i]))
	case julian:
		t, ok := fromJulian(c.chunk.Int96s[i])
		if !ok {
			outOfRange(fmt.Sprintf("%x", c.chunk.Int96s[i]), "nanoseconds of a day")
			break
		}
		timestamp(t)
	case single, double, half:
		if v = c.float(i); v.Absent() {
			r.note = "attribute " + c.name + ": %d NaN values are absent"
		} else if f := v.Float(); math.IsInf(f, 0) {
			v, r.problem = attribute.Value{}, &Problem{OutOfRange, fmt.Sprintf("attribute %s: %v, want a finite number", c.name, f)}
		}
	}
	return v, r, nil
}

// float returns the float of a position, absent if it is NaN. A float32 in a column
// that other files have as doubles is the double that it is written as, 9.99.
func (c *column) float(i int) attribute.Value {
	var v attribute.Value
	switch c.decoding {
	case double:
		return attribute.OfFloat(c.chunk.Doubles[i])
	case single:
		v = attribute.OfFloat32(c.chunk.Floats[i])
	default:
		v = attribute.OfFloat32(float32(writtenHalf(binary.LittleEndian.Uint16(c.chunk.Fixed[i]))))
	}
	if c.typ == attribute.Float && !v.Absent() {
		return attribute.OfFloat(v.Float())
	}
	return v
}

// run returns the end of the current row's levels in this batch, and whether the
// row ends there for certain.
func (c *column) run() (end int, ends bool) {
	for i, r := range c.chunk.Rep[c.pos+1 : c.chunk.Levels] {
		if r == 0 {
			return c.pos + 1 + i, true
		}
	}
	return c.chunk.Levels, false
}

// row calls each with each run of levels of the next row of a list, from pos on.
func (c *column) row(each func(end int, ends bool)) error {
	if err := c.ensure(); err != nil {
		return err
	}
	for {
		end, ends := c.run()
		each(end, ends)
		c.pos = end
		if ends {
			return nil
		}
		if more, err := c.load(); err != nil || !more || c.chunk.Rep[0] == 0 {
			return err
		}
	}
}

// floats takes the next list of numbers, nil when it is null; of one that is longer than
// index.MaxDim, only that it is. The slice is valid until the next call.
func (c *column) floats() ([]float32, error) {
	c.vector = c.vector[:0]
	var whole []float32
	null := false
	err := c.row(func(end int, ends bool) {
		switch {
		case c.nulls():
			for _, d := range c.chunk.Def[c.pos:end] {
				switch {
				case d == c.maxDef:
					c.vector = c.appendFloats(c.vector, 1)
				case d >= c.elemDef:
					if len(c.vector) <= index.MaxDim {
						c.vector = append(c.vector, float32(math.NaN()))
					}
				case d+1 < c.elemDef:
					null = true
				}
			}
		case ends && c.decoding == single && len(c.vector) == 0:
			// The usual row needs no copy: it is valid as long as its batch.
			n := c.at + end - c.pos
			whole = c.chunk.Floats[c.at:n:n]
			c.at = n
		default:
			c.vector = c.appendFloats(c.vector, end-c.pos)
		}
	})
	switch {
	case err != nil || null:
		return nil, err
	case whole != nil:
		return whole, nil
	case c.vector == nil:
		c.vector = []float32{}
	}
	return c.vector, nil
}

// appendFloats appends the next n values, unless v is too long already.
func (c *column) appendFloats(v []float32, n int) []float32 {
	from := c.at
	c.at += n
	if len(v) > index.MaxDim {
		return v
	}
	switch c.decoding {
	case single:
		return append(v, c.chunk.Floats[from:c.at]...)
	case double:
		for _, f := range c.chunk.Doubles[from:c.at] {
			v = append(v, float32(f))
		}
		return v
	}
	v = slices.Grow(v, n)
	for i := from; i < c.at; i++ {
		v = append(v, c.component(i))
	}
	return v
}

// component returns the number of a position as a component of a vector.
func (c *column) component(i int) float32 {
	switch c.decoding {
	case single:
		return c.chunk.Floats[i]
	case double:
		return float32(c.chunk.Doubles[i])
	case half:
		return fromHalf(binary.LittleEndian.Uint16(c.chunk.Fixed[i]))
	case decimal:
		return float32(c.decimalFloat(i))
	case unsigned64:
		return float32(uint64(c.chunk.Int64s[i]))
	}
	return float32(c.integer(i))
}

// fullKeywords is how long a list is before its repetitions are left out on the way.
const fullKeywords = 1 << 16

// keywords takes the next list of strings.
func (c *column) keywords() (v attribute.Value, r remark, err error) {
	c.strings = c.strings[:0]
	full := fullKeywords
	err = c.row(func(end int, _ bool) {
		if len(c.strings) >= full { // lists of any length can be few bytes
			slices.Sort(c.strings)
			c.strings = slices.Compact(c.strings)
			full = max(full, 2*len(c.strings))
		}
		for _, d := range c.chunk.Def[c.pos:end] {
			switch {
			case d == c.maxDef:
				c.strings = append(c.strings, c.str(c.at))
				c.at++
			case d >= c.elemDef:
				r.note = "attribute " + c.name + ": %d lists had null elements, which are left out"
			}
		}
	})
	if err != nil {
		return v, remark{}, err
	}
	return attribute.OfKeywords(slices.Clone(c.strings)), r, nil
}

const secondsPerDay = 24 * 3600

// fromJulian converts an INT96 timestamp: nanoseconds of the day, then the
// Julian day. It reports whether they are of a day.
func fromJulian(v parquet.Int96) (t time.Time, ok bool) {
	const epoch = 2440588 // the Julian day of 1970-01-01
	ofDay := int64(binary.LittleEndian.Uint64(v[:8]))
	day := int64(int32(binary.LittleEndian.Uint32(v[8:]))) - epoch
	return time.Unix(day*secondsPerDay, ofDay), ofDay >= 0 && ofDay <= secondsPerDay*1e9
}

// fromHalf widens an IEEE 754 half-precision number.
func fromHalf(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	exponent, fraction := uint32(h>>10&0x1f), uint32(h&0x3ff)
	switch exponent {
	case 0: // zero and subnormal: fraction * 2^-24
		f := float32(fraction) * (1.0 / (1 << 24))
		return math.Float32frombits(math.Float32bits(f) | sign)
	case 0x1f:
		return math.Float32frombits(sign | 0x7f800000 | fraction<<13)
	}
	return math.Float32frombits(sign | (exponent+112)<<23 | fraction<<13)
}

// writtenHalf returns what a half-precision number is written as: the shortest decimal
// that is nearer to it than to any other, 0.1 and not 0.09997558594.
func writtenHalf(h uint16) float64 {
	magnitude := h & 0x7fff
	x := float64(fromHalf(magnitude))
	if magnitude == 0 || magnitude >= 0x7c00 { // zero, an infinity, NaN
		return float64(fromHalf(h))
	}
	next := 65536.0 // after the largest there is none
	if magnitude < 0x7bff {
		next = float64(fromHalf(magnitude + 1))
	}
	low, high := (float64(fromHalf(magnitude-1))+x)/2, (x+next)/2
	const enough = 5 // digits tell all of them apart
	for digits := range enough {
		written, _ := strconv.ParseFloat(strconv.FormatFloat(x, 'e', digits, 64), 64) // it parses what it formats
		if low < written && written < high {
			x = written
			break
		}
	}
	return math.Copysign(x, float64(fromHalf(h)))
}
