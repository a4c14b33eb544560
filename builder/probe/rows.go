package probe

import (
	"cmp"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/lowest"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// SampleSize is how many rows of a tower a build keeps as queries to the other: those of
// the lowest sample keys. They are divided by [PurposeOf].
const SampleSize = 2000

// PurposeOf returns that of the row of the position, from 0, in the order of sample keys.
// Calibration has a half, since the surer it is the less effort it takes; however few rows
// there are, all purposes have some of them, in that order.
func PurposeOf(position int) manifest.Purpose {
	return [...]manifest.Purpose{manifest.Calibrate, manifest.Gate, manifest.Shape, manifest.Calibrate}[position%4]
}

// SampleOf returns how many rows a sample has for a purpose.
func SampleOf(purpose manifest.Purpose) int {
	if purpose == manifest.Calibrate {
		return SampleSize / 2
	}
	return SampleSize / 4
}

// Row is one row of a tower.
type Row struct {
	ID      string
	shard   *shard.Shard
	ordinal uint32
	key     uint64
}

// Vector returns a copy of the row's vector.
func (r Row) Vector() []float32 { return r.shard.Index().Vector(r.ordinal, nil) }

// Norm returns the Euclidean norm of the row's vector.
func (r Row) Norm() float64 { return float64(r.shard.Index().Norm(r.ordinal)) }

// Vectors returns a copy of the vector of each row.
func Vectors(rows []Row) [][]float32 {
	list := make([][]float32, len(rows))
	for i, r := range rows {
		list[i] = r.Vector()
	}
	return list
}

// Find returns the row of an id.
func Find(t *shard.Tower, id string) (Row, bool) {
	if len(t.Local()) == 0 {
		return Row{}, false
	}
	s := t.Local()[shard.Partition(id, len(t.Local()))]
	ordinal, ok := s.Ordinal(id)
	return Row{ID: id, shard: s, ordinal: ordinal, key: shard.SampleKey(id)}, ok
}

// In returns the rows of t that have the ids of rows. Every id must be in t.
func In(t *shard.Tower, rows []Row) []Row {
	list := make([]Row, len(rows))
	for i, r := range rows {
		list[i], _ = Find(t, r.ID)
	}
	return list
}

// Members says of each of rows, which are of t, whether it is in a segment of t.
func Members(t *shard.Tower, segment string, rows []Row) []bool {
	sets := map[*shard.Shard]index.Bitset{}
	for _, s := range t.Local() {
		sets[s] = index.NewBitset(s.Rows())
		s.InSegment(segment, sets[s])
	}
	list := make([]bool, len(rows))
	for i, r := range rows {
		list[i] = sets[r.shard].Has(r.ordinal)
	}
	return list
}

func (r Row) compare(o Row) int { return cmp.Or(cmp.Compare(r.key, o.key), cmp.Compare(r.ID, o.ID)) }

// Pick returns the n rows of the lowest sample keys among those of t that keep accepts,
// or all of them if they are fewer, lowest first. A nil keep accepts every row.
func Pick(t *shard.Tower, n int, keep func(id string) bool) []Row {
	rows := lowest.New(n, Row.compare)
	for _, s := range t.Local() {
		for ordinal := range uint32(s.Rows()) {
			id := s.ID(ordinal)
			row := Row{ID: id, shard: s, ordinal: ordinal, key: shard.SampleKey(id)}
			if rows.Takes(row) && (keep == nil || keep(id)) {
				rows.Add(row)
			}
		}
	}
	return rows.Sorted()
}

// HeldOut returns at most n rows of t that shaped and calibrated nothing in a build of it,
// and that keep accepts, of the lowest sample keys first: those that the build measured
// with, and if they are too few, those that it did not use. A nil keep accepts every row.
// It holds for the builders of before there were three purposes too, which calibrated with
// every other row.
func HeldOut(t *shard.Tower, n int, keep func(id string) bool) []Row {
	used := Pick(t, SampleSize, nil)
	var list []Row
	for i, r := range used {
		if PurposeOf(i) == manifest.Gate && len(list) < n && (keep == nil || keep(r.ID)) {
			list = append(list, r)
		}
	}
	if len(list) == n || len(used) < SampleSize {
		return list
	}
	last := used[len(used)-1]
	return append(list, Pick(t, n-len(list), func(id string) bool {
		r := Row{ID: id, key: shard.SampleKey(id)}
		return r.compare(last) > 0 && (keep == nil || keep(id))
	})...)
}

// Has returns whether t has a row of an id.
func Has(t *shard.Tower) func(id string) bool {
	return func(id string) bool {
		_, ok := Find(t, id)
		return ok
	}
}

// Keyword returns the value of a keyword attribute of the row, empty if it has none.
func (r Row) Keyword(name string) string {
	a := r.shard.Attributes()
	field, ok := a.Schema().Lookup(name)
	if !ok || a.Schema().Field(field).Type != attribute.Keyword {
		return ""
	}
	return a.Value(r.ordinal, field).Keyword()
}
