package attribute

import (
	"math"
	"slices"
	"sort"
	"time"

	"github.com/tandem-ann/tandem/index/sections"
)

// wideTimes are the timestamps of a column that its numbers only stand for: a pair of
// words each, the seconds since the Unix epoch as an int64 and the nanoseconds of the
// second, ascending.
//
// # Goals
//
// A timestamp is an int64 of nanoseconds, which ends in 1677 and 2262, and "never" is
// written as 9999-12-31 or 0001-01-01. Such a column must sort, compare and return them
// as they are, and lose no nanosecond of the others.
//
// # Design
//
// The ends of the int64 range, [endNumbers] numbers each, stand for the timestamps of this
// list: of n before 1970 the first is [math.MinInt64], of the others the last is
// [math.MaxInt64]. A time whose own nanoseconds are that near to an end is in the list
// too, so numbers ascend as their times do, and what sorts and searches numbers needs to
// know nothing of it. A column without such a timestamp has no list and no such ends.
type wideTimes []uint64

// endNumbers is how many numbers at each end stand for wide timestamps: as many as a
// shard can have rows.
const endNumbers = 1 << 32

// nanos returns a time as nanoseconds since the Unix epoch, if they fit.
func nanos(t time.Time) (ns int64, ok bool) {
	ns = t.UnixNano()
	return ns, time.Unix(0, ns).Equal(t)
}

// some reports whether there are any.
func (w wideTimes) some() bool { return len(w) > 0 }

func (w wideTimes) len() int { return len(w) / 2 }

func (w wideTimes) at(i int) time.Time { return time.Unix(int64(w[2*i]), int64(w[2*i+1])) }

// early returns how many are before 1970.
func (w wideTimes) early() int {
	return sort.Search(w.len(), func(i int) bool { return int64(w[2*i]) >= 0 })
}

// index returns which of the list a number stands for: it may be none that there is.
func (w wideTimes) index(number int64) (i int, stands bool) {
	switch {
	case !w.some():
		return 0, false
	case number < math.MinInt64+endNumbers:
		return int(number - math.MinInt64), true
	case number > math.MaxInt64-endNumbers:
		return w.len() - 1 - int(math.MaxInt64-number), true
	}
	return 0, false
}

// valid reports whether a number stands for itself, or for a timestamp of its side of
// the list.
func (w wideTimes) valid(number int64) bool {
	i, stands := w.index(number)
	if !stands {
		return true
	}
	if number < 0 {
		return i < w.early()
	}
	return i >= w.early()
}

// time returns the timestamp that a valid number stands for, if it does.
func (w wideTimes) time(number int64) (time.Time, bool) {
	i, stands := w.index(number)
	if !stands {
		return time.Time{}, false
	}
	return w.at(i), true
}

// number returns what a time is stored as beside the list, which has it if it must.
func (w wideTimes) number(t time.Time) int64 {
	if ns, ok := nanos(t); ok && !nearEnd(ns) {
		return ns
	}
	i := sort.Search(w.len(), func(i int) bool { return !w.at(i).Before(t) })
	if i < w.early() {
		return math.MinInt64 + int64(i)
	}
	return math.MaxInt64 - int64(w.len()-1-i)
}

// nearEnd reports whether a number is one of those that stand for wide timestamps, where
// there are any.
func nearEnd(ns int64) bool { return ns < math.MinInt64+endNumbers || ns > math.MaxInt64-endNumbers }

// wideTimes returns the list of the rows at some ordinals.
func (o *output) wideTimes(ordinals []uint32) wideTimes {
	var times []time.Time
	needed := false
	for _, ordinal := range ordinals {
		row := o.order[ordinal]
		if t, ok := o.in.wide[int(row)]; ok {
			times, needed = append(times, t), true
		}
	}
	if !needed {
		return nil
	}
	for _, ordinal := range ordinals {
		row := o.order[ordinal]
		if ns := int64(o.in.numbers[row]); nearEnd(ns) {
			if _, ok := o.in.wide[int(row)]; !ok {
				times = append(times, time.Unix(0, ns))
			}
		}
	}
	slices.SortFunc(times, time.Time.Compare)
	times = slices.CompactFunc(times, time.Time.Equal)
	w := make(wideTimes, 0, 2*len(times))
	for _, t := range times {
		w = append(w, uint64(t.Unix()), uint64(t.Nanosecond()))
	}
	return w
}

// wide opens and checks the wide timestamps of a column.
func (o *opener) wide(c *column) error {
	name := o.name("wide")
	words, err := array[uint64](o.file, name, 8)
	if err != nil {
		return err
	}
	if len(words) == 0 || len(words)%2 != 0 || len(words)/2 > o.rows {
		return sections.Corruptf(name, "%d words, want two for each timestamp of %d rows at most, and some", len(words), o.rows)
	}
	c.wide = words
	var before time.Time
	for i := range c.wide.len() {
		if c.wide[2*i+1] >= 1e9 {
			return sections.Corruptf(name, "timestamp %d has %d nanoseconds", i, c.wide[2*i+1])
		}
		t := c.wide.at(i)
		if ns, ok := nanos(t); ok && !nearEnd(ns) || !t.Equal(ClampTime(t)) {
			return sections.Corruptf(name, "timestamp %d is %d seconds since 1970, which needs no place here or has none", i, int64(c.wide[2*i]))
		}
		if i > 0 && !before.Before(t) {
			return sections.Corruptf(name, "timestamp %d does not ascend", i)
		}
		before = t
	}
	return nil
}
