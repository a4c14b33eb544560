package capacity

import (
	"math"

	"github.com/tandem-ann/tandem/shard/attribute"
)

// Bytes are what parts of one shard take in its file, which is mapped as it is. See index/format.md
// and shard/format.md.
type Bytes struct {
	Vectors float64 `json:"vectors"`
	Codes   float64 `json:"codes"`
	Links   float64 `json:"links"`
	IDs     float64 `json:"ids"`
	Values  float64 `json:"values"`  // of attributes, by row
	Bitmaps float64 `json:"bitmaps"` // of attributes and segments, and what else filters read
}

// All is the size of the file.
func (b Bytes) All() float64 {
	return b.Vectors + b.Codes + b.Links + b.IDs + b.Values + b.Bitmaps
}

func roundUp(n, to float64) float64 { return math.Ceil(n/to) * to }

// sizeOf returns what a shard of so many rows takes.
func sizeOf(rows float64, s *Scenario, attributes []Attribute, segments int, idBytes float64) Bytes {
	dim, m := float64(s.Dim), float64(s.Degree)
	b := Bytes{
		Vectors: rows * roundUp(dim, 16) * s.Element.bytes(),
		Codes:   rows * (roundUp(dim, 32) + 8),
		// 2M on layer 0; of each layer one node of M is in the next; and the row of each ordinal.
		Links: rows * (2*m*4 + m*4/(m-1) + 4),
		IDs:   rows * (8 + idBytes),
	}
	for _, a := range attributes {
		values, bitmaps := attributeOf(rows, a)
		b.Values, b.Bitmaps = b.Values+values, b.Bitmaps+bitmaps
	}
	b.Bitmaps += float64(segments) * bitmap(rows/2, rows) // as large as they become
	return b
}

// bitmap returns the bytes of a roaring bitmap of n of so many rows, which are anywhere.
func bitmap(n, rows float64) float64 {
	const container, dense = 65536, 8192
	containers := math.Ceil(rows / container)
	n = min(n, rows)
	if n == rows {
		return 8 + containers*14 // a run each
	}
	return 8 + min(containers, n)*8 + containers*min(2*n/containers, dense)
}

// attributeOf returns what an attribute takes by row, and what it takes by value.
func attributeOf(rows float64, a Attribute) (values, bitmaps float64) {
	present := rows * a.Present
	has := bitmap(present, rows)
	distinct := min(float64(a.Values), rows*max(a.Each, 1))
	dict := distinct*(a.Bytes+16) + 16
	ranges := func() float64 {
		cuts := 0.0
		if step := max(512, math.Ceil(rows/64)); present >= step {
			cuts = math.Ceil(present / step)
		}
		return 4*present + cuts*math.Ceil(rows/64)*8
	}
	switch a.Type {
	case attribute.Keyword:
		return 4*rows + dict, has + distinct*bitmap(present/distinct, rows)
	case attribute.KeywordList:
		return 4*(rows+1) + 4*present*a.Each + dict, has + distinct*bitmap(present*a.Each/distinct, rows)
	case attribute.Bool:
		return 0, has + bitmap(present/2, rows)
	case attribute.Float32:
		return 4 * rows, has + ranges()
	}
	return 8 * rows, has + ranges()
}
