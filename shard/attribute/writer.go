package attribute

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/RoaringBitmap/roaring/v2"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// Writer collects the attributes of one shard's rows, column by column, and
// writes them as sections of a shard file. What it writes depends only on the
// values and the order, not on the order of the Set calls. A Writer is for one
// goroutine.
type Writer struct {
	schema Schema
	rows   int
	inputs []input
}

// input is one attribute of all rows as it was set. Its arrays are made with the
// first value, so that an attribute nobody has costs nothing.
type input struct {
	has     index.Bitset
	numbers []uint64          // Bool, Int, Float, Float32, Timestamp
	wide    map[int]time.Time // by row: timestamps that are no int64 of nanoseconds

	// Keyword and KeywordList: keywords are numbered as they come.
	number map[string]uint32
	codes  []uint32 // Keyword: by row. KeywordList: all lists
	lists  []extent // KeywordList: by row
}

type extent struct{ start, length uint32 }

// NewWriter returns a writer for a shard with that many rows, none of which has
// any attribute yet.
func NewWriter(schema Schema, rows int) *Writer {
	return &Writer{schema: schema, rows: rows, inputs: make([]input, schema.Len())}
}

// Schema returns the attributes.
func (w *Writer) Schema() Schema { return w.schema }

// Set sets attribute field of a row. A row that is set again has the later value.
func (w *Writer) Set(row, field int, v Value) error {
	if row < 0 || row >= w.rows {
		return fmt.Errorf("set attribute: row %d of %d", row, w.rows)
	}
	if field < 0 || field >= w.schema.Len() {
		return fmt.Errorf("set attribute: attribute %d of %d", field, w.schema.Len())
	}
	f := w.schema.Field(field)
	in := &w.inputs[field]
	if v.Absent() {
		if in.has != nil {
			in.has.Unset(uint32(row))
		}
		return nil
	}
	if err := f.Check(v); err != nil {
		return err
	}
	if in.has == nil {
		in.make(f.Type, w.rows)
	}
	switch f.Type {
	case Keyword:
		code, err := in.intern(v.text)
		if err != nil {
			return fmt.Errorf("attribute %s: %w", f.Name, err)
		}
		in.codes[row] = code
	case KeywordList:
		start := len(in.codes)
		if int64(start)+int64(len(v.list)) > math.MaxUint32 {
			return fmt.Errorf("attribute %s: a shard holds at most %d values", f.Name, uint32(math.MaxUint32))
		}
		for _, s := range v.list {
			code, err := in.intern(s)
			if err != nil {
				in.codes = in.codes[:start]
				return fmt.Errorf("attribute %s: %w", f.Name, err)
			}
			in.codes = append(in.codes, code)
		}
		in.lists[row] = extent{uint32(start), uint32(len(v.list))}
	case Timestamp:
		in.setTime(row, v.Time())
	default:
		in.numbers[row] = v.num
	}
	in.has.Set(uint32(row))
	return nil
}

func (in *input) make(t Type, rows int) {
	in.has = index.NewBitset(rows)
	switch t {
	case Keyword:
		in.number, in.codes = map[string]uint32{}, make([]uint32, rows)
	case KeywordList:
		in.number, in.lists = map[string]uint32{}, make([]extent, rows)
	default:
		in.numbers = make([]uint64, rows)
	}
}

func (in *input) setTime(row int, t time.Time) {
	ns, ok := nanos(t)
	in.numbers[row] = uint64(ns)
	if ok {
		delete(in.wide, row)
		return
	}
	if in.wide == nil {
		in.wide = map[int]time.Time{}
	}
	in.wide[row] = t
}

// intern returns the number of a keyword.
func (in *input) intern(s string) (uint32, error) {
	code, ok := in.number[s]
	if ok {
		return code, nil
	}
	if len(in.number) == math.MaxUint32 {
		return 0, fmt.Errorf("a shard holds at most %d distinct values", uint32(math.MaxUint32))
	}
	code = uint32(len(in.number))
	in.number[strings.Clone(s)] = code // s may keep a larger string alive
	return code, nil
}

// Write writes all sections: the row at ordinal i is order[i], and order names
// each row once. The writer may be written again, in another order.
func (w *Writer) Write(out *sections.Writer, order []uint32) error {
	if err := w.checkOrder(order); err != nil {
		return fmt.Errorf("write attributes: %w", err)
	}
	schema, err := json.Marshal(w.schema)
	if err != nil {
		return fmt.Errorf("write attributes: %w", err)
	}
	if err := out.Section(schemaSection, schema); err != nil {
		return err
	}
	if w.schema.Has(Float32) {
		out.Require(sections.Float32Attributes)
	}
	for i := range w.inputs {
		o := output{Writer: out, in: w.inputs[i], field: i, order: order}
		if o.in.has == nil {
			o.in.make(w.schema.Field(i).Type, w.rows)
		}
		if err := o.write(w.schema.Field(i).Type); err != nil {
			return fmt.Errorf("attribute %s: %w", w.schema.Field(i).Name, err)
		}
	}
	return nil
}

func (w *Writer) checkOrder(order []uint32) error {
	if len(order) != w.rows || int64(w.rows) >= int64(absent) {
		return fmt.Errorf("order has %d rows, want %d, fewer than %d", len(order), w.rows, absent)
	}
	seen := index.NewBitset(w.rows)
	for ordinal, row := range order {
		if int64(row) >= int64(w.rows) || seen.Has(row) {
			return fmt.Errorf("order: ordinal %d is row %d: out of range or named before", ordinal, row)
		}
		seen.Set(row)
	}
	return nil
}

// output writes one attribute.
type output struct {
	*sections.Writer
	in     input
	field  int
	order  []uint32
	bitmap roaring.Bitmap // scratch
}

func (o *output) section(part string, data []byte) error {
	return o.Section(sectionName(o.field, part), data)
}

func (o *output) begin(part string) error { return o.Begin(sectionName(o.field, part)) }

func (o *output) write(t Type) error {
	var has []uint32
	for ordinal, row := range o.order {
		if o.in.has.Has(row) {
			has = append(has, uint32(ordinal))
		}
	}
	if err := o.bitmapSection("has", has); err != nil {
		return err
	}
	switch t {
	case Keyword, KeywordList:
		return o.keywords(t)
	case Bool:
		return o.bitmapSection("true", slices.DeleteFunc(has, func(i uint32) bool { return o.in.numbers[o.order[i]] == 0 }))
	default:
		return o.numbers(t, has)
	}
}

func (o *output) bitmapSection(part string, ordinals []uint32) error {
	if err := o.begin(part); err != nil {
		return err
	}
	_, err := o.writeBitmap(ordinals)
	return err
}

// writeBitmap writes ascending ordinals as a bitmap and returns its length.
func (o *output) writeBitmap(ordinals []uint32) (int64, error) {
	return writeBitmap(o, &o.bitmap, ordinals)
}

// keywords writes the dictionary, the postings and the rows of a field of keywords.
func (o *output) keywords(t Type) error {
	codes, offsets := o.ordered(t)
	d := o.dictionary(codes)
	if err := o.writeDict(d); err != nil {
		return err
	}
	if err := o.writePostings(d, codes, offsets); err != nil {
		return err
	}
	if t == KeywordList {
		if err := o.section("list_offsets", sections.Bytes(offsets)); err != nil {
			return err
		}
		return o.section("list", sections.Bytes(codes))
	}
	rows := make([]uint32, len(o.order))
	for i := range rows {
		rows[i] = absent
		if offsets[i] < offsets[i+1] {
			rows[i] = codes[offsets[i]]
		}
	}
	return o.section("rows", sections.Bytes(rows))
}

// ordered returns the codes of the keywords by ordinal, numbered as they came: those of
// ordinal i are codes[offsets[i]:offsets[i+1]].
func (o *output) ordered(t Type) (codes, offsets []uint32) {
	codes = make([]uint32, 0, len(o.in.codes))
	offsets = make([]uint32, 1, len(o.order)+1)
	for _, row := range o.order {
		if o.in.has.Has(row) {
			if t == Keyword {
				codes = append(codes, o.in.codes[row])
			} else {
				l := o.in.lists[row]
				codes = append(codes, o.in.codes[l.start:l.start+l.length]...)
			}
		}
		offsets = append(offsets, uint32(len(codes)))
	}
	return codes, offsets
}

// dictionary has the keywords that are in use, ascending; a value is a place in it.
type dictionary struct {
	keys   []string
	counts []int    // of each value's ordinals
	rank   []uint32 // the value of each code that is in use
}

func (o *output) dictionary(codes []uint32) dictionary {
	counts := make([]int, len(o.in.number))
	for _, code := range codes {
		counts[code]++
	}
	d := dictionary{rank: make([]uint32, len(counts))}
	for key, code := range o.in.number {
		if counts[code] > 0 {
			d.keys = append(d.keys, key)
		}
	}
	slices.Sort(d.keys)
	for value, key := range d.keys {
		code := o.in.number[key]
		d.rank[code] = uint32(value)
		d.counts = append(d.counts, counts[code])
	}
	return d
}

func (o *output) writeDict(d dictionary) error {
	if err := o.begin("dict"); err != nil {
		return err
	}
	offsets := make([]uint64, 1, len(d.keys)+1)
	for _, key := range d.keys {
		if _, err := io.WriteString(o, key); err != nil {
			return err
		}
		offsets = append(offsets, offsets[len(offsets)-1]+uint64(len(key)))
	}
	return o.section("dict_offsets", sections.Bytes(offsets))
}

// writePostings writes the bitmap of each value. It makes the codes values, which ascend
// within each ordinal.
func (o *output) writePostings(d dictionary, codes, offsets []uint32) error {
	ends := make([]int, len(d.keys)) // of each value's ordinals among all: their start until they are filled in
	total := 0
	for value, n := range d.counts {
		ends[value] = total
		total += n
	}
	ordinals := make([]uint32, total)
	for i := range o.order {
		list := codes[offsets[i]:offsets[i+1]]
		for j, code := range list {
			value := d.rank[code]
			list[j] = value
			ordinals[ends[value]] = uint32(i)
			ends[value]++
		}
		slices.Sort(list)
	}
	if err := o.begin("postings"); err != nil {
		return err
	}
	postings := make([]uint64, 1, len(ends)+1)
	start := 0
	for _, end := range ends {
		n, err := o.writeBitmap(ordinals[start:end])
		if err != nil {
			return err
		}
		postings = append(postings, postings[len(postings)-1]+uint64(n))
		start = end
	}
	return o.section("posting_offsets", sections.Bytes(postings))
}

// singles returns the bits of float32s that are given as float64s.
func singles(numbers []uint64) []uint32 {
	list := make([]uint32, len(numbers))
	for i, x := range numbers {
		list[i] = math.Float32bits(float32(math.Float64frombits(x)))
	}
	return list
}

// number returns what the number of a row is stored as.
func (o *output) number(wide wideTimes, row uint32) uint64 {
	number := o.in.numbers[row]
	if !wide.some() {
		return number
	}
	t, ok := o.in.wide[int(row)]
	if !ok {
		t = time.Unix(0, int64(number))
	}
	return uint64(wide.number(t))
}

// numbers writes the numbers of the ordinals in has, which it sorts.
func (o *output) numbers(t Type, has []uint32) error {
	c := column{typ: t, step: cutStep(len(o.order)), numbers: make([]uint64, len(o.order)), sorted: has}
	if c.wide = o.wideTimes(has); c.wide.some() {
		o.Require(sections.WideTimestamps)
	}
	for _, ordinal := range has {
		c.numbers[ordinal] = o.number(c.wide, o.order[ordinal])
	}
	data := sections.Bytes(c.numbers)
	if t == Float32 {
		data = sections.Bytes(singles(c.numbers))
	}
	if err := o.section("numbers", data); err != nil {
		return err
	}
	if c.wide.some() {
		if err := o.section("wide", sections.Bytes([]uint64(c.wide))); err != nil {
			return err
		}
	}
	slices.SortFunc(has, func(a, b uint32) int {
		if order := compareNumbers(t, c.numbers[a], c.numbers[b]); order != 0 {
			return order
		}
		return int(a) - int(b)
	})
	if err := o.section("sorted", sections.Bytes(has)); err != nil {
		return err
	}
	if err := o.begin("cumulative"); err != nil {
		return err
	}
	prefix := index.NewBitset(len(o.order))
	for i := range cutCount(len(o.order), len(has)) {
		c.setAll(c.cut(i), c.cut(i+1), prefix)
		if _, err := o.Write(sections.Bytes([]uint64(prefix))); err != nil {
			return err
		}
	}
	return nil
}
