package tower

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/deprecated"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// A column is a cursor over one leaf of the row group being read. It works on
// decoded pages: levels and values as the slices that parquet-go decodes into,
// with no value object between them and ours. A page is let go when the next one
// is read.
//
// A page has n slots. A slot is a value, a null, or (in a list) a null or empty
// list; the definition level tells which, and only values are stored. In a list
// a repetition level of 0 starts a row, which may go on in the next page.
type column struct {
	shape
	attribute int            // position in the schema, -1 for the id and the embedding
	typ       attribute.Type // of the attribute

	pages parquet.Pages
	page  parquet.Page
	rep   []byte
	def   []byte
	n     int  // slots in the page
	pos   int  // next slot
	at    int  // next stored value
	nulls bool // some slot has no value
	dense values
	index []int32 // positions in dict, nil when the page stores values themselves

	dict    parquet.Dictionary // whose values are kept in dense
	strings []string           // of dict, when text

	vector []float32 // scratch
	list   []string  // scratch
}

// values are the stored values of a page or a dictionary. One slice is set.
type values struct {
	bits    []byte // of bools, and the bytes of text and half
	offsets []uint32
	int32   []int32
	int64   []int64
	int96   []deprecated.Int96
	float   []float32
	double  []float64
}

// values takes the slices out of v.
func (d decoding) values(v encoding.Values) values {
	switch d {
	case boolean:
		return values{bits: v.Boolean()}
	case text:
		data, offsets := v.ByteArray()
		return values{bits: data, offsets: offsets}
	case signed32, unsigned32, days:
		return values{int32: v.Int32()}
	case signed64, unsigned64, millis, micros, nanos:
		return values{int64: v.Int64()}
	case julian:
		return values{int96: v.Int96()}
	case single:
		return values{float: v.Float()}
	case double:
		return values{double: v.Double()}
	case half:
		data, _ := v.FixedLenByteArray()
		return values{bits: data}
	}
	return values{}
}

// open starts the column's chunk of a row group.
func (c *column) open(chunk parquet.ColumnChunk) error {
	err := c.close()
	c.pages = chunk.Pages()
	return err
}

// close lets go of the pages.
func (c *column) close() error {
	c.drop()
	c.dict, c.strings = nil, nil
	if c.pages == nil {
		return nil
	}
	pages := c.pages
	c.pages = nil
	return pages.Close()
}

func (c *column) drop() {
	if c.page != nil {
		parquet.Release(c.page)
	}
	c.page, c.rep, c.def, c.index = nil, nil, nil, nil
	c.n, c.pos, c.at = 0, 0, 0
}

// load reads the next page that has slots. It returns false at the end.
func (c *column) load() (bool, error) {
	for {
		c.drop()
		page, err := c.pages.ReadPage()
		switch {
		case errors.Is(err, io.EOF) && page == nil:
			return false, nil
		case err != nil:
			return false, err
		}
		c.page = page
		c.rep, c.def = page.RepetitionLevels(), page.DefinitionLevels()
		c.n = int(page.NumValues())
		if c.n == 0 {
			continue
		}
		c.nulls = c.maxDef > 0 && page.NumNulls() > 0
		if c.maxDef > 0 && len(c.def) != c.n || c.shape.list && len(c.rep) != c.n {
			return false, fmt.Errorf("page has %d values, %d definition and %d repetition levels", c.n, len(c.def), len(c.rep))
		}
		if dict := page.Dictionary(); dict != nil {
			if dict != c.dict {
				c.setDictionary(dict)
			}
			v := page.Data()
			c.index = v.Int32()
			return true, nil
		}
		c.dict, c.strings = nil, nil
		c.dense = c.decoding.values(page.Data())
		return true, nil
	}
}

func (c *column) setDictionary(dict parquet.Dictionary) {
	c.dict = dict
	c.dense = c.decoding.values(dict.Page().Data())
	c.strings = nil
	if c.decoding == text {
		c.strings = make([]string, dict.Len())
		for i := range c.strings {
			c.strings[i] = string(c.dense.bits[c.dense.offsets[i]:c.dense.offsets[i+1]])
		}
	}
}

// ensure makes pos a slot that starts a row.
func (c *column) ensure() error {
	if c.pos == c.n {
		switch more, err := c.load(); {
		case err != nil:
			return err
		case !more:
			return fmt.Errorf("%w: has fewer rows than its row group", errDamaged)
		}
	}
	if c.shape.list && c.rep[c.pos] != 0 {
		return fmt.Errorf("%w: a page continues a row that has not begun", errDamaged)
	}
	return nil
}

// finish checks that the chunk has no more rows.
func (c *column) finish() error {
	if c.pos == c.n {
		if more, err := c.load(); err != nil || !more {
			return err
		}
	}
	return fmt.Errorf("%w: has more rows than its row group", errDamaged)
}

// next takes the next stored value and returns its position in c.dense.
func (c *column) next() int {
	i := c.at
	c.at++
	if c.index != nil {
		return int(c.index[i])
	}
	return i
}

// scalar takes the next slot of a flat column. It returns the position of the
// value, -1 when it is null.
func (c *column) scalar() (int, error) {
	if err := c.ensure(); err != nil {
		return -1, err
	}
	null := c.nulls && c.def[c.pos] != c.maxDef
	c.pos++
	if null {
		return -1, nil
	}
	return c.next(), nil
}

func (c *column) str(i int) string {
	if c.strings != nil {
		return c.strings[i]
	}
	return string(c.dense.bits[c.dense.offsets[i]:c.dense.offsets[i+1]])
}

// id takes the next id.
func (c *column) id() (string, error) {
	i, err := c.scalar()
	if err != nil || i < 0 {
		return "", err
	}
	switch c.decoding {
	case text:
		return c.str(i), nil
	case signed32:
		return strconv.FormatInt(int64(c.dense.int32[i]), 10), nil
	case unsigned32:
		return strconv.FormatUint(uint64(uint32(c.dense.int32[i])), 10), nil
	case unsigned64:
		return strconv.FormatUint(uint64(c.dense.int64[i]), 10), nil
	}
	return strconv.FormatInt(c.dense.int64[i], 10), nil
}

// A remark is what there is to say of a value: a tally entry, or a problem of
// the row.
type remark struct {
	note    string
	problem *Problem
}

// value takes the next value of a flat attribute.
func (c *column) value() (v attribute.Value, r remark, err error) {
	i, err := c.scalar()
	if err != nil || i < 0 {
		return v, r, err
	}
	outOfRange := func(got any, want string) {
		r.problem = &Problem{OutOfRange, fmt.Sprintf("attribute %s: %v %v, want %s", c.name, c.text, got, want)}
	}
	timestamp := func(t time.Time) { v, r.note = storedTime(c.name, t) }
	switch c.decoding {
	case text:
		v = attribute.OfKeyword(c.str(i))
	case boolean:
		v = attribute.OfBool(c.dense.bits[i/8]>>(i%8)&1 == 1)
	case signed32:
		v = attribute.OfInt(int64(c.dense.int32[i]))
	case unsigned32:
		v = attribute.OfInt(int64(uint32(c.dense.int32[i])))
	case signed64:
		v = attribute.OfInt(c.dense.int64[i])
	case unsigned64:
		if c.dense.int64[i] < 0 {
			outOfRange(uint64(c.dense.int64[i]), "the int64 range")
			break
		}
		v = attribute.OfInt(c.dense.int64[i])
	case days:
		timestamp(time.Unix(int64(c.dense.int32[i])*secondsPerDay, 0))
	case millis:
		timestamp(time.UnixMilli(c.dense.int64[i]))
	case micros:
		timestamp(time.UnixMicro(c.dense.int64[i]))
	case nanos:
		timestamp(time.Unix(0, c.dense.int64[i]))
	case julian:
		t, ok := fromJulian(c.dense.int96[i])
		if !ok {
			outOfRange(c.dense.int96[i], "nanoseconds of a day")
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
		return attribute.OfFloat(c.dense.double[i])
	case single:
		v = attribute.OfFloat32(c.dense.float[i])
	default:
		v = attribute.OfFloat32(float32(writtenHalf(binary.LittleEndian.Uint16(c.dense.bits[2*i:]))))
	}
	if c.typ == attribute.Float && !v.Absent() {
		return attribute.OfFloat(v.Float())
	}
	return v
}

// run returns the end of the current row's slots in this page, and whether the
// row ends there for certain.
func (c *column) run() (end int, ends bool) {
	if k := bytes.IndexByte(c.rep[c.pos+1:], 0); k >= 0 {
		return c.pos + 1 + k, true
	}
	return c.n, false
}

// floats takes the next vector. The slice is valid until the next call.
func (c *column) floats() ([]float32, error) {
	if err := c.ensure(); err != nil {
		return nil, err
	}
	c.vector = c.vector[:0]
	null := false
	for {
		end, ends := c.run()
		switch {
		case c.nulls:
			for _, d := range c.def[c.pos:end] {
				switch {
				case d == c.maxDef:
					c.vector = c.appendFloats(c.vector, 1)
				case d > c.maxDef:
					return nil, fmt.Errorf("%w: definition level %d, at most %d is valid", errDamaged, d, c.maxDef)
				case d >= c.elemDef:
					c.vector = append(c.vector, float32(math.NaN()))
				case d+1 < c.elemDef:
					null = true
				}
			}
		case ends && c.decoding == single && c.index == nil && len(c.vector) == 0:
			// The usual row needs no copy: it is valid as long as its page.
			v := c.dense.float[c.at : c.at+end-c.pos : c.at+end-c.pos]
			c.at += end - c.pos
			c.pos = end
			return v, nil
		default:
			c.vector = c.appendFloats(c.vector, end-c.pos)
		}
		c.pos = end
		if !ends {
			more, err := c.load()
			if err != nil {
				return nil, err
			}
			ends = !more || c.rep[0] == 0
		}
		if ends {
			if null {
				return nil, nil
			}
			if c.vector == nil {
				c.vector = []float32{}
			}
			return c.vector, nil
		}
	}
}

// appendFloats appends the next n stored values.
func (c *column) appendFloats(v []float32, n int) []float32 {
	if c.index == nil && c.decoding == single {
		c.at += n
		return append(v, c.dense.float[c.at-n:c.at]...)
	}
	v = slices.Grow(v, n)
	switch c.decoding {
	case single:
		for range n {
			v = append(v, c.dense.float[c.next()])
		}
	case double:
		for range n {
			v = append(v, float32(c.dense.double[c.next()]))
		}
	default:
		for range n {
			v = append(v, fromHalf(binary.LittleEndian.Uint16(c.dense.bits[2*c.next():])))
		}
	}
	return v
}

// keywords takes the next list of strings.
func (c *column) keywords() (v attribute.Value, r remark, err error) {
	if err := c.ensure(); err != nil {
		return v, r, err
	}
	c.list = c.list[:0]
	for {
		end, ends := c.run()
		for ; c.pos < end; c.pos++ {
			switch d := c.def[c.pos]; {
			case d == c.maxDef:
				c.list = append(c.list, c.str(c.next()))
			case d > c.maxDef:
				return v, r, fmt.Errorf("%w: definition level %d, at most %d is valid", errDamaged, d, c.maxDef)
			case d >= c.elemDef:
				r.note = "attribute " + c.name + ": %d lists had null elements, which are left out"
			}
		}
		if !ends {
			more, err := c.load()
			if err != nil {
				return v, r, err
			}
			ends = !more || c.rep[0] == 0
		}
		if ends {
			return attribute.OfKeywords(slices.Clone(c.list)), r, nil
		}
	}
}

const secondsPerDay = 24 * 3600

// fromJulian converts an INT96 timestamp: nanoseconds of the day, then the
// Julian day. It reports whether they are of a day.
func fromJulian(v deprecated.Int96) (t time.Time, ok bool) {
	const epoch = 2440588 // the Julian day of 1970-01-01
	day := int64(int32(v[2])) - epoch
	ofDay := int64(uint64(v[1])<<32 | uint64(v[0]))
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
