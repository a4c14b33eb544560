package attribute

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"unicode/utf8"
	"unsafe"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// Table is the attributes of one shard, used in place from its mapped file. It
// is immutable and safe for any number of goroutines, but only good while the
// file is open, and goroutines that use it defer a [sections.Guard]. What
// [Table.Value] returns is a copy and outlives it; what [Table.Codes] and [Table.Text]
// return is not.
type Table struct {
	schema  Schema
	rows    int
	columns []column
}

// OpenTable opens the attributes of a shard with that many rows. It claims their
// sections and checks all of their content, so that no later call can read outside of
// the file or answer wrongly whatever it holds; an error is of class
// [sections.ErrCorrupt] and names the section, or of class [sections.ErrUnreadable]. The
// table does not own f.
func OpenTable(f *sections.File, rows int) (_ *Table, err error) {
	defer sections.Guard(&err)()
	if rows < 0 || int64(rows) >= int64(absent) {
		return nil, fmt.Errorf("open attributes: %d rows, want 0 to %d", rows, absent-1)
	}
	data, err := f.Section(schemaSection)
	if err != nil {
		return nil, err
	}
	t := &Table{rows: rows}
	if err := json.Unmarshal(data, &t.schema); err != nil {
		return nil, sections.Corruptf(schemaSection, "%v", err)
	}
	t.columns = make([]column, t.schema.Len())
	o := opener{file: f, rows: rows, set: index.NewBitset(rows)}
	for i := range t.columns {
		o.field = i
		t.columns[i].typ = t.schema.Field(i).Type
		if err := o.open(&t.columns[i]); err != nil {
			return nil, fmt.Errorf("attribute %s: %w", t.schema.Field(i).Name, err)
		}
	}
	return t, t.checkFeatures(f.Features())
}

// checkFeatures checks that the file's feature bits say what it has: they are how an
// older build refuses it.
func (t *Table) checkFeatures(features uint32) error {
	if says, has := features&sections.Float32Attributes != 0, t.schema.Has(Float32); says != has {
		return sections.Corruptf(schemaSection, "feature bits are %#x; that there is a float32 attribute is %t", features, has)
	}
	wide := slices.ContainsFunc(t.columns, func(c column) bool { return c.wide.some() })
	if says := features&sections.WideTimestamps != 0; says != wide {
		return sections.Corruptf(schemaSection, "feature bits are %#x; that there is a wide timestamp is %t", features, wide)
	}
	return nil
}

// Schema returns the attributes.
func (t *Table) Schema() Schema { return t.schema }

// Rows returns the number of rows.
func (t *Table) Rows() int { return t.rows }

// Value returns attribute field of the row at ordinal, which is below
// [Table.Rows]. The value is a copy.
func (t *Table) Value(ordinal uint32, field int) Value {
	c := &t.columns[field]
	switch c.typ {
	case Keyword:
		v := c.codes[ordinal]
		if v == absent {
			return Value{}
		}
		return OfKeyword(string(c.keyword(int(v))))
	case KeywordList:
		codes := c.codes[c.listOffsets[ordinal]:c.listOffsets[ordinal+1]]
		if len(codes) == 0 {
			return Value{}
		}
		list := make([]string, len(codes))
		for i, v := range codes {
			list[i] = string(c.keyword(int(v)))
		}
		return Value{typ: KeywordList, list: list}
	}
	if c.typ == Bool {
		if !c.has.contains(ordinal) {
			return Value{}
		}
		return OfBool(c.yes.contains(ordinal))
	}
	number := c.number(ordinal)
	if number == 0 && !c.has.contains(ordinal) { // an absent number is stored as zero
		return Value{}
	}
	if c.typ == Timestamp {
		return OfTimestamp(c.time(number))
	}
	return Value{typ: c.typ, num: number}
}

// Codes returns the numbers of the keywords that the row at ordinal has of attribute
// field, a keyword or a keyword list, ascending. Equal keywords of a table have
// equal numbers; [Table.Text] has their texts. The slice aliases the file: the caller
// must not change it.
func (t *Table) Codes(ordinal uint32, field int) []uint32 {
	c := t.column(field, Keyword, KeywordList)
	if c.typ == KeywordList {
		return c.codes[c.listOffsets[ordinal]:c.listOffsets[ordinal+1]]
	}
	if c.codes[ordinal] == absent {
		return nil
	}
	return c.codes[ordinal : ordinal+1]
}

// Text returns the keyword of attribute field with that number. It aliases the file.
func (t *Table) Text(field int, code uint32) string {
	k := t.column(field, Keyword, KeywordList).keyword(int(code))
	return unsafe.String(unsafe.SliceData(k), len(k))
}

// column returns attribute field, whose type must be one of two. The caller has
// the schema: another type is a programming error, not bad input.
func (t *Table) column(field int, a, b Type) *column {
	c := &t.columns[field]
	if c.typ != a && c.typ != b {
		panic(fmt.Sprintf("attribute %s is a %s, asked as a %s", t.schema.Field(field).Name, c.typ, a))
	}
	return c
}

// opener opens and checks one column after the other.
type opener struct {
	file  *sections.File
	rows  int
	field int
	set   index.Bitset // scratch
	next  []uint32     // scratch of lists
}

func (o *opener) name(part string) string { return sectionName(o.field, part) }

func (o *opener) open(c *column) error {
	var err error
	if c.has, err = o.bitmap("has"); err != nil {
		return err
	}
	switch c.typ {
	case Keyword, KeywordList:
		if err := o.dictionary(c); err != nil {
			return err
		}
		if c.typ == Keyword {
			return o.keywords(c)
		}
		return o.lists(c)
	case Bool:
		return o.bools(c)
	default:
		return o.numbers(c)
	}
}

// bitmap opens and checks a section that holds one bitmap.
func (o *opener) bitmap(part string) (posting, error) {
	data, err := o.file.Section(o.name(part))
	if err != nil {
		return nil, err
	}
	return data, posting(data).check(o.name(part), o.rows)
}

// array opens a section as an array of whatever length it has.
func array[T sections.Element](f *sections.File, name string, size int) ([]T, error) {
	data, err := f.Section(name)
	if err != nil {
		return nil, err
	}
	return sections.Array[T](f, name, len(data)/size)
}

// offsets opens an array of offsets into a section of that many bytes.
func (o *opener) offsets(part string, length int) ([]uint64, error) {
	name := o.name(part)
	offsets, err := array[uint64](o.file, name, 8)
	if err != nil {
		return nil, err
	}
	if len(offsets) == 0 || offsets[0] != 0 || offsets[len(offsets)-1] != uint64(length) {
		return nil, sections.Corruptf(name, "%d offsets do not span 0 to %d", len(offsets), length)
	}
	for i := 1; i < len(offsets); i++ {
		if offsets[i] < offsets[i-1] {
			return nil, sections.Corruptf(name, "offset %d is %d after %d", i, offsets[i], offsets[i-1])
		}
	}
	return offsets, nil
}

// dictionary opens the distinct keywords and their postings.
func (o *opener) dictionary(c *column) error {
	var err error
	if c.dict, err = o.file.Section(o.name("dict")); err != nil {
		return err
	}
	if c.dictOffsets, err = o.offsets("dict_offsets", len(c.dict)); err != nil {
		return err
	}
	if c.postings, err = o.file.Section(o.name("postings")); err != nil {
		return err
	}
	if c.postingOffsets, err = o.offsets("posting_offsets", len(c.postings)); err != nil {
		return err
	}
	if len(c.postingOffsets) != len(c.dictOffsets) {
		return sections.Corruptf(o.name("posting_offsets"), "%d bitmaps for %d values", len(c.postingOffsets)-1, c.values())
	}
	if int64(c.values()) >= int64(absent) {
		return sections.Corruptf(o.name("dict_offsets"), "%d values", c.values())
	}
	return o.checkDictionary(c)
}

// checkPostings checks the bitmaps of all values in their order: each of their
// ordinals must pass visit(ordinal, value), and there must be total of them.
func (o *opener) checkPostings(c *column, total int, visit func(ordinal uint32, value int) bool) error {
	name := o.name("postings")
	for v := range c.values() {
		p := c.posting(v)
		if err := p.check(name, o.rows); err != nil {
			return fmt.Errorf("value %d: %w", v, err)
		}
		n := p.cardinality()
		if n == 0 {
			return sections.Corruptf(name, "value %d: no ordinal has it", v)
		}
		total -= n
		if !p.each(func(ordinal uint32) bool { return visit(ordinal, v) }) {
			return sections.Corruptf(name, "value %d: an ordinal of its bitmap does not have it", v)
		}
	}
	if total != 0 {
		return sections.Corruptf(name, "bitmaps hold %d ordinals fewer than rows have values", total)
	}
	return nil
}

// checkHas checks that the bitmap of presence holds exactly the ordinals for
// which has is true, of which there are total.
func (o *opener) checkHas(c *column, total int, has func(ordinal uint32) bool) error {
	if n := c.has.cardinality(); n != total {
		return sections.Corruptf(o.name("has"), "%d ordinals, %d have a value", n, total)
	}
	if !c.has.each(has) {
		return sections.Corruptf(o.name("has"), "an ordinal has no value")
	}
	return nil
}

func (o *opener) keywords(c *column) error {
	name := o.name("rows")
	var err error
	if c.codes, err = sections.Array[uint32](o.file, name, o.rows); err != nil {
		return err
	}
	total := 0
	for i, v := range c.codes {
		if v == absent {
			continue
		}
		if int64(v) >= int64(c.values()) {
			return sections.Corruptf(name, "ordinal %d has value %d of %d", i, v, c.values())
		}
		total++
	}
	if err := o.checkHas(c, total, func(i uint32) bool { return c.codes[i] != absent }); err != nil {
		return err
	}
	return o.checkPostings(c, total, func(i uint32, v int) bool { return c.codes[i] == uint32(v) })
}

func (o *opener) lists(c *column) error {
	var err error
	if c.listOffsets, err = sections.Array[uint32](o.file, o.name("list_offsets"), o.rows+1); err != nil {
		return err
	}
	name := o.name("list")
	if c.codes, err = array[uint32](o.file, name, 4); err != nil {
		return err
	}
	if c.listOffsets[0] != 0 || int64(c.listOffsets[o.rows]) != int64(len(c.codes)) {
		return sections.Corruptf(o.name("list_offsets"), "offsets do not span 0 to %d", len(c.codes))
	}
	rows := 0
	for i := range o.rows {
		lo, hi := c.listOffsets[i], c.listOffsets[i+1]
		if hi < lo || int64(hi) > int64(len(c.codes)) {
			return sections.Corruptf(o.name("list_offsets"), "ordinal %d has values %d to %d of %d", i, lo, hi, len(c.codes))
		}
		if lo < hi {
			rows++
		}
		last := -1
		for _, v := range c.codes[lo:hi] {
			if int(v) <= last || int64(v) >= int64(c.values()) {
				return sections.Corruptf(name, "ordinal %d has value %d of %d after %d", i, v, c.values(), last)
			}
			last = int(v)
		}
	}
	if err := o.checkHas(c, rows, func(i uint32) bool { return c.listOffsets[i] < c.listOffsets[i+1] }); err != nil {
		return err
	}
	// Values come in ascending order here and within each list, so the value of a
	// bitmap must be the next of each of its lists.
	o.next = append(o.next[:0], c.listOffsets[:o.rows]...)
	return o.checkPostings(c, len(c.codes), func(i uint32, v int) bool {
		at := o.next[i]
		o.next[i]++
		return at < c.listOffsets[i+1] && c.codes[at] == uint32(v)
	})
}

func (o *opener) bools(c *column) error {
	var err error
	if c.yes, err = o.bitmap("true"); err != nil {
		return err
	}
	c.has.copy(o.set)
	if !c.yes.each(o.set.Has) {
		return sections.Corruptf(o.name("true"), "an ordinal does not have the attribute")
	}
	return nil
}

func (o *opener) numbers(c *column) error {
	var err error
	if c.typ == Float32 {
		c.singles, err = sections.Array[uint32](o.file, o.name("numbers"), o.rows)
	} else {
		c.numbers, err = sections.Array[uint64](o.file, o.name("numbers"), o.rows)
	}
	if err != nil {
		return err
	}
	if c.typ == Timestamp && o.file.Has(o.name("wide")) {
		if err := o.wide(c); err != nil {
			return err
		}
	}
	c.has.copy(o.set)
	for i := range uint32(o.rows) {
		x := c.number(i)
		if x == 0 {
			continue
		}
		if !o.set.Has(i) {
			return sections.Corruptf(o.name("numbers"), "ordinal %d has a number, %q says that it has none", i, o.name("has"))
		}
		switch f := math.Float64frombits(x); {
		case (c.typ == Float || c.typ == Float32) && (math.IsNaN(f) || math.IsInf(f, 0) || f == 0):
			return sections.Corruptf(o.name("numbers"), "ordinal %d has %#x, not a finite float or negative zero", i, x)
		case c.typ == Timestamp && !c.wide.valid(int64(x)):
			return sections.Corruptf(o.name("numbers"), "ordinal %d has %#x, which %q does not have", i, x, o.name("wide"))
		}
	}
	present := c.has.cardinality()
	if c.sorted, err = sections.Array[uint32](o.file, o.name("sorted"), present); err != nil {
		return err
	}
	c.step = cutStep(o.rows)
	cuts := cutCount(o.rows, present)
	if c.cumulative, err = sections.Array[uint64](o.file, o.name("cumulative"), cuts*len(o.set)); err != nil {
		return err
	}
	for j, i := range c.sorted {
		if int64(i) >= int64(o.rows) || !o.set.Has(i) {
			return sections.Corruptf(o.name("sorted"), "position %d holds ordinal %d, which has no number", j, i)
		}
		if j == 0 {
			continue
		}
		before := c.sorted[j-1]
		order := compareNumbers(c.typ, c.number(before), c.number(i))
		if order > 0 || order == 0 && before >= i {
			return sections.Corruptf(o.name("sorted"), "position %d does not ascend", j)
		}
	}
	o.set.Clear()
	for i := range cuts {
		c.setAll(c.cut(i), c.cut(i+1), o.set)
		for w, word := range c.cumulative[i*len(o.set):][:len(o.set)] {
			if word != o.set[w] {
				return sections.Corruptf(o.name("cumulative"), "bitset %d: word %d is %#x, want %#x", i, w, word, o.set[w])
			}
		}
	}
	return nil
}

// checkDictionary checks that the distinct keywords are valid UTF-8 and strictly
// ascending.
func (o *opener) checkDictionary(c *column) error {
	name := o.name("dict")
	for v := range c.values() {
		key := c.keyword(v)
		if err := checkKeyword(key); err != nil {
			return sections.Corruptf(name, "value %d: %v", v, err)
		}
		if v > 0 && string(c.keyword(v-1)) >= string(key) {
			return sections.Corruptf(name, "value %d: %.64q does not come after the one before", v, key)
		}
	}
	return nil
}

// checkKeyword checks that a keyword is valid UTF-8.
func checkKeyword(s []byte) error {
	if !utf8.Valid(s) {
		return fmt.Errorf("%.64q is not valid UTF-8", s)
	}
	return nil
}
