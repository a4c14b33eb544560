package attribute

import (
	"math"
	"sort"
	"strconv"
	"time"

	"github.com/tandem-ann/tandem/index"
)

// schemaSection holds the schema; each attribute has sections of its own.
const schemaSection = "attr.schema"

// sectionName returns the name of one part of attribute field.
func sectionName(field int, part string) string {
	return "attr." + strconv.Itoa(field) + "." + part
}

// absent is the value number of an ordinal that has no keyword.
const absent = ^uint32(0)

// minStep is the smallest distance of two cuts: below it a range sets its
// ordinals one by one in less time than a bitset would take.
const minStep = 512

// cutStep returns the distance of two cuts of a shard with that many rows.
func cutStep(rows int) int { return max(minStep, (rows+63)/64) }

// cutCount returns the number of cuts of present sorted ordinals.
func cutCount(rows, present int) int {
	step := cutStep(rows)
	if present < step {
		return 0
	}
	return (present + step - 1) / step
}

// column is one attribute of all rows. Its slices alias the mapped file.
type column struct {
	typ Type
	has posting

	// Keyword and KeywordList.
	dict           []byte
	dictOffsets    []uint64
	postings       []byte
	postingOffsets []uint64
	codes          []uint32 // value numbers, by ordinal or by listOffsets
	listOffsets    []uint32 // KeywordList

	yes posting // Bool

	// Int, Float, Float32 and Timestamp.
	numbers    []uint64
	singles    []uint32 // Float32, instead of numbers
	wide       wideTimes
	sorted     []uint32
	cumulative []uint64
	step       int
}

// values returns the number of distinct keywords.
func (c *column) values() int { return len(c.dictOffsets) - 1 }

// keyword returns distinct value v, in place.
func (c *column) keyword(v int) []byte {
	return c.dict[c.dictOffsets[v]:c.dictOffsets[v+1]]
}

func (c *column) posting(v int) posting {
	return c.postings[c.postingOffsets[v]:c.postingOffsets[v+1]]
}

// search returns the first value that is not below key.
func (c *column) search(key string) int {
	lo, hi := 0, c.values()
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if string(c.keyword(mid)) < key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// searchAfterPrefix returns the first value, from lo on, without the prefix.
// Value lo is the first that is not below prefix.
func (c *column) searchAfterPrefix(lo int, prefix string) int {
	hi := c.values()
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if k := c.keyword(mid); len(k) >= len(prefix) && string(k[:len(prefix)]) == prefix {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}

// number returns the number of an ordinal: an int64, the bits of a float64, for a
// float32 too, or what a timestamp is stored as.
func (c *column) number(ordinal uint32) uint64 {
	if c.singles != nil {
		return math.Float64bits(float64(math.Float32frombits(c.singles[ordinal])))
	}
	return c.numbers[ordinal]
}

// time returns the timestamp that is stored as a number.
func (c *column) time(number uint64) time.Time {
	if t, ok := c.wide.time(int64(number)); ok {
		return t
	}
	return time.Unix(0, int64(number))
}

// searchTime returns the first position in sorted whose timestamp is not before t, or,
// if after is set, is after t.
func (c *column) searchTime(t time.Time, after bool) int {
	limit := 0
	if after {
		limit = 1
	}
	return sort.Search(len(c.sorted), func(i int) bool { return c.time(c.numbers[c.sorted[i]]).Compare(t) >= limit })
}

// searchNumber returns the first position in sorted whose number is not below x,
// or, if after is set, is above x.
func (c *column) searchNumber(x uint64, after bool) int {
	limit := 0
	if after {
		limit = 1
	}
	return sort.Search(len(c.sorted), func(i int) bool {
		return compareNumbers(c.typ, c.number(c.sorted[i]), x) >= limit
	})
}

// cut returns the position where cut i ends. Cut 0 is the empty prefix, so cut i
// is bitset i-1 of the section.
func (c *column) cut(i int) int { return min(i*c.step, len(c.sorted)) }

// nearestCut returns the cut that is nearest to a position, of cuts 0 .. cuts.
func (c *column) nearestCut(position, cuts int) int {
	i := min((position+c.step/2)/c.step, cuts)
	if i < cuts && c.cut(i+1)-position < abs(position-c.cut(i)) {
		i++ // the last cut may be nearer than a whole step
	}
	return i
}

func abs(x int) int { return max(x, -x) }

// copyStretch makes dst hold exactly sorted[lo:hi].
func (c *column) copyStretch(lo, hi int, dst index.Bitset) {
	cuts := len(c.cumulative) / max(len(dst), 1)
	from, to := c.nearestCut(lo, cuts), c.nearestCut(hi, cuts)
	if from >= to || c.fewer(lo, hi, len(dst)) {
		dst.Clear()
		c.setAll(lo, hi, dst)
		return
	}
	last := c.cumulative[(to-1)*len(dst):][:len(dst)]
	if from == 0 {
		copy(dst, last)
	} else {
		first := c.cumulative[(from-1)*len(dst):][:len(dst)]
		for i := range dst {
			dst[i] = last[i] &^ first[i]
		}
	}
	c.unsetAll(c.cut(from), lo, dst)
	c.setAll(lo, c.cut(from), dst)
	c.unsetAll(hi, c.cut(to), dst)
	c.setAll(c.cut(to), hi, dst)
}

// andStretch keeps in dst what is in sorted[lo:hi] too. It passes over the cuts and dst
// alone: what the nearest cuts lack of the stretch and dst has is put aside in scratch
// meanwhile.
func (c *column) andStretch(lo, hi int, dst, scratch index.Bitset) {
	cuts := len(c.cumulative) / max(len(dst), 1)
	from, to := c.nearestCut(lo, cuts), c.nearestCut(hi, cuts)
	lack := max(c.cut(from)-lo, 0) + max(hi-c.cut(to), 0)
	if from >= to || lack > len(scratch) || c.fewer(lo, hi, len(dst)) {
		c.copyStretch(lo, hi, scratch)
		dst.And(scratch)
		return
	}
	aside := c.common(c.cut(to), hi, dst, c.common(lo, c.cut(from), dst, scratch[:0]))
	dst.And(c.cumulative[(to-1)*len(dst):][:len(dst)])
	if from > 0 {
		dst.AndNot(c.cumulative[(from-1)*len(dst):][:len(dst)])
	}
	c.unsetAll(c.cut(from), lo, dst)
	c.unsetAll(hi, c.cut(to), dst)
	for _, o := range aside {
		dst.Set(uint32(o))
	}
}

// common appends the ordinals of sorted[lo:hi] that dst has to a list that has room for
// them all; an empty or backward stretch is nothing.
func (c *column) common(lo, hi int, dst index.Bitset, list []uint64) []uint64 {
	n := len(list)
	list = list[:cap(list)]
	for ; lo < hi; lo++ {
		o := c.sorted[lo]
		list[n] = uint64(o)
		n += int(dst[o>>6] >> (o & 63) & 1)
	}
	return list[:n]
}

// fewer reports whether sorted[lo:hi] is so short that visiting each of its
// ordinals costs less than passing over a bitset of that many words.
func (c *column) fewer(lo, hi, words int) bool { return hi-lo <= max(minStep, words/4) }

// setAll adds sorted[lo:hi] to dst; an empty or backward stretch is nothing.
func (c *column) setAll(lo, hi int, dst index.Bitset) {
	for ; lo < hi; lo++ {
		dst.Set(c.sorted[lo])
	}
}

// unsetAll removes sorted[lo:hi] from dst.
func (c *column) unsetAll(lo, hi int, dst index.Bitset) {
	for ; lo < hi; lo++ {
		dst.Unset(c.sorted[lo])
	}
}
