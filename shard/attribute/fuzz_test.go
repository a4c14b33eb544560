package attribute

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"github.com/RoaringBitmap/roaring/v2"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/index/sections"
)

// FuzzOpenTable puts any bytes into one section of a good file. Either the table
// does not open, or by row and by value it gives the same answers.
func FuzzOpenTable(f *testing.F) {
	const n = 600 // enough for a cut
	rows := make([]row, n)
	for i := range rows {
		rows[i] = make(row, allTypes.Len())
		if i%5 == 0 {
			rows[i] = row{OfBool(i%2 == 0), OfKeyword(words8[i%7]), OfFloat(float64(i % 3)), OfTimestamp(time.Unix(int64(i)*4e8, 0)), OfFloat32(float32(i%3) / 10),
				OfKeywords([]string{words8[i%8], words8[i%3]}), Value{}}
		}
		rows[i][6] = OfInt(int64(i % 4))
	}
	_, file := store(f, f.TempDir(), allTypes, rows, identity(n))
	defer file.Close()
	base, features := unpack(f, file), file.Features()
	for i, p := range base {
		if len(p.Data) < 1<<12 {
			f.Add(uint8(i), slices.Clone(p.Data))
		}
	}
	f.Fuzz(func(t *testing.T, i uint8, data []byte) {
		parts := slices.Clone(base)
		parts[int(i)%len(parts)].Data = data
		file, err := sections.FromBytes(parts.Pack(features))
		require.NoError(t, err)
		table, err := OpenTable(file, n)
		if err != nil {
			require.ErrorIs(t, err, sections.ErrCorrupt)
			return
		}
		for field := range table.Schema().Len() {
			values := make([]Value, n)
			for o := range values {
				values[o] = table.Value(uint32(o), field)
			}
			ask := func(s Set, want func(v Value) bool) {
				checkSet(t, table.Schema().Field(field).Name, s, n, func(o uint32) bool { return want(values[o]) })
			}
			ask(table.Has(field), func(v Value) bool { return !v.Absent() })
			switch table.Schema().Field(field).Type {
			case Keyword:
				for _, w := range words8 {
					ask(table.Keyword(field, w), func(v Value) bool { return !v.Absent() && v.Keyword() == w })
				}
			case KeywordList:
				for _, w := range words8 {
					ask(table.Keyword(field, w), func(v Value) bool { return slices.Contains(v.Keywords(), w) })
				}
			case Bool:
				ask(table.Is(field, false), func(v Value) bool { return !v.Absent() && !v.Bool() })
			case Timestamp:
				from, to := time.Unix(1e10, 0), time.Unix(2e11, 0)
				ask(table.Times(field, from, to), func(v Value) bool { return !v.Absent() && !v.Time().Before(from) && !v.Time().After(to) })
			case Float32:
				ask(table.Floats(field, 0.05, 7), func(v Value) bool { return !v.Absent() && v.Float32() >= 0.05 && v.Float32() <= 7 })
			case Float:
				ask(table.Floats(field, 0.5, 7), func(v Value) bool { return !v.Absent() && v.Float() >= 0.5 && v.Float() <= 7 })
			default:
				ask(table.Ints(field, 1, 300), func(v Value) bool { return !v.Absent() && v.Int() >= 1 && v.Int() <= 300 })
			}
		}
	})
}

// FuzzBitmap compares our reading of a bitmap with package roaring's.
func FuzzBitmap(f *testing.F) {
	const n = 1 << 18
	seed := func(m *roaring.Bitmap) {
		for range 2 {
			data, err := m.ToBytes()
			require.NoError(f, err)
			f.Add(data)
			m.RunOptimize()
		}
	}
	seed(roaring.New())
	seed(roaring.BitmapOf(0, 1, 2, 3, 99, 70_000, 131_072, 131_073, 262_143))
	stripes := roaring.New()
	for i := uint32(0); i < n; i += 3 {
		stripes.Add(i)
	}
	stripes.AddRange(65_536, 131_072)
	stripes.RemoveRange(0, 60_000)
	seed(stripes)
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := OpenBitmap("attr.0.has", data, n)
		if err != nil {
			require.ErrorIs(t, err, sections.ErrCorrupt)
			return
		}
		p := b.p
		m := roaring.New()
		read, err := m.FromBuffer(data)
		require.NoError(t, err)
		require.Equal(t, int64(len(data)), read)
		var got []uint32
		require.True(t, p.each(func(o uint32) bool {
			got = append(got, o)
			return true
		}))
		require.Equal(t, len(got), p.cardinality())
		require.True(t, slices.Equal(m.ToArray(), got))
		checkSet(t, "bitmap", Set{c: &column{has: p}, kind: present}, n, m.Contains)
		for _, o := range []uint32{0, 1, 65_535, 65_536, n - 1} {
			require.Equal(t, m.Contains(o), b.Has(o))
		}
		dense := index.NewBitset(n)
		b.CopyTo(dense)
		require.Equal(t, b.Count(), dense.Count())
		var written bytes.Buffer
		_, err = WriteBitmap(&written, dense)
		require.NoError(t, err)
		again, err := OpenBitmap("attr.0.has", written.Bytes(), n)
		require.NoError(t, err)
		dense.Fill(n)
		again.And(dense)
		require.True(t, slices.Equal(got, dense.Append(nil)))
	})
}
