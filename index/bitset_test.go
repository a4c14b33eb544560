package index_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/index"
)

// TestBitset runs random operations on a Bitset and on a map.
func TestBitset(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 300).Draw(t, "n")
		draw := func(name string) (index.Bitset, map[uint32]bool) {
			b, m := index.NewBitset(n), map[uint32]bool{}
			for _, i := range rapid.SliceOf(rapid.Uint32Range(0, uint32(n-1))).Draw(t, name) {
				b.Set(i)
				m[i] = true
			}
			return b, m
		}
		b, model := draw("set")
		t.Repeat(map[string]func(*rapid.T){
			"set": func(t *rapid.T) {
				i := rapid.Uint32Range(0, uint32(n-1)).Draw(t, "i")
				b.Set(i)
				model[i] = true
			},
			"unset": func(t *rapid.T) {
				i := rapid.Uint32Range(0, uint32(n-1)).Draw(t, "i")
				b.Unset(i)
				delete(model, i)
			},
			"clear": func(*rapid.T) {
				b.Clear()
				clear(model)
			},
			"fill": func(t *rapid.T) {
				below := rapid.IntRange(0, n).Draw(t, "below")
				b.Fill(below)
				clear(model)
				for i := range uint32(below) {
					model[i] = true
				}
			},
			"and": func(*rapid.T) {
				o, om := draw("other")
				b.And(o)
				maps.DeleteFunc(model, func(i uint32, _ bool) bool { return !om[i] })
			},
			"andnot": func(*rapid.T) {
				o, om := draw("other")
				b.AndNot(o)
				maps.DeleteFunc(model, func(i uint32, _ bool) bool { return om[i] })
			},
			"or": func(*rapid.T) {
				o, om := draw("other")
				b.Or(o)
				maps.Copy(model, om)
			},
			"": func(t *rapid.T) {
				require.Equal(t, len(model), b.Count())
				require.Equal(t, slices.Sorted(maps.Keys(model)), b.Append(nil))
				i := rapid.Uint32Range(0, uint32(n-1)).Draw(t, "has")
				require.Equal(t, model[i], b.Has(i))
			},
		})
	})
}
