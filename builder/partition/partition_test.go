package partition_test

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/index/sections"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// value returns a value of one of all types, or none.
func value(r *rand.Rand) attribute.Value {
	switch r.IntN(8) {
	case 0:
		return attribute.OfKeyword(fmt.Sprint("k", r.IntN(9)))
	case 1:
		return attribute.OfKeywords([]string{"a", fmt.Sprint(r.IntN(9))})
	case 2:
		return attribute.OfBool(r.IntN(2) == 0)
	case 3:
		return attribute.OfInt(r.Int64() - math.MaxInt64/2)
	case 4:
		return attribute.OfFloat(r.NormFloat64())
	case 5:
		return attribute.OfFloat32(r.Float32())
	case 6:
		return attribute.OfTimestamp(time.Unix(r.Int64N(1e9)-5e8, r.Int64N(1e9)).UTC())
	}
	return attribute.Value{}
}

// object writes n records and returns what is to be of each shard.
func object(t require.TestingT, path string, l partition.Layout, n int, r *rand.Rand, s *partition.Summary) [][]partition.Record {
	w, err := partition.Create(path, l, partition.MinMemory)
	require.NoError(t, err)
	want := make([][]partition.Record, l.Shards)
	for i := range n {
		rec := partition.Record{Number: int64(i), ID: fmt.Sprint("id-", r.IntN(1000)), Rejected: r.IntN(9) == 0, Vector: make([]float32, l.Dim), Attributes: make([]attribute.Value, l.Fields)}
		for j := range rec.Vector {
			rec.Vector[j] = r.Float32()
		}
		for j := range rec.Attributes {
			rec.Attributes[j] = value(r)
		}
		to := r.IntN(l.Shards)
		want[to] = append(want[to], rec)
		require.NoError(t, w.Add(to, &rec))
	}
	require.NoError(t, w.Finish(s))
	return want
}

func read(t require.TestingT, s *partition.Records) (list []partition.Record) {
	require.NoError(t, s.Each(partition.Want{Vector: true, Attributes: true}, func(r *partition.Record) error {
		c := *r
		c.Vector, c.Attributes = append([]float32{}, r.Vector...), append([]attribute.Value{}, r.Attributes...)
		list = append(list, c)
		return nil
	}))
	return list
}

// What a shard gets is what was dealt to it, in one piece or in several, where it is or copied.
func TestRecordsComeBack(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		l := partition.Layout{Shards: 1 + r.IntN(40), Dim: []int{0, 3, 700}[seed%3], Fields: r.IntN(4)}
		path := filepath.Join(t.TempDir(), "object")
		want := object(t, path, l, 3000, r, partition.NewSummary())
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		x, err := partition.Open(bytes.NewReader(data), int64(len(data)), "object")
		require.NoError(t, err)
		require.Equal(t, l, x.Layout())
		for number, list := range want {
			s, err := x.Shard(number)
			require.NoError(t, err)
			got := read(t, s)
			require.Len(t, got, len(list))
			for i := range list {
				require.Equal(t, fmt.Sprint(list[i]), fmt.Sprint(got[i]))
			}
			var copied bytes.Buffer
			copied.WriteString("before")
			out, err := s.Copy(&copied, readerAt{&copied}, int64(copied.Len()))
			require.NoError(t, err)
			require.Equal(t, fmt.Sprint(got), fmt.Sprint(read(t, out)))
		}
	}
}

// readerAt reads what a buffer has by then.
type readerAt struct{ b *bytes.Buffer }

func (r readerAt) ReadAt(p []byte, at int64) (int, error) {
	return bytes.NewReader(r.b.Bytes()).ReadAt(p, at)
}

// A byte that is another one anywhere in an object is found, where it is read.
func TestEveryByteCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "object")
	r := rand.New(rand.NewPCG(1, 1))
	s := partition.NewSummary()
	s.Read, s.Rows = 1, 1
	s.Sample.Offer("a", 0, []float32{1, 2})
	object(t, path, partition.Layout{Shards: 3, Dim: 2, Fields: 2}, 12, r, s)
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, readAll(data))
	for i := len("TNDMPART"); i < len(data); i++ {
		bad := bytes.Clone(data)
		bad[i] ^= 4
		require.Error(t, readAll(bad), "byte %d", i)
	}
	for n := range data {
		require.ErrorIs(t, readAll(data[:n]), sections.ErrCorrupt, "cut at %d", n)
	}
}

// readAll reads everything of an object.
func readAll(data []byte) error {
	x, err := partition.Open(bytes.NewReader(data), int64(len(data)), "object")
	if err != nil {
		return err
	}
	if _, err := x.Summary(); err != nil {
		return err
	}
	for number := range x.Layout().Shards {
		s, err := x.Shard(number)
		if err != nil {
			return err
		}
		if err := s.Each(partition.Want{Vector: true, Attributes: true}, func(*partition.Record) error { return nil }); err != nil {
			return err
		}
	}
	return nil
}

func FuzzObject(f *testing.F) {
	path := filepath.Join(f.TempDir(), "object")
	s := partition.NewSummary()
	s.Read, s.Rows = 1, 1
	s.Sample.Offer("a", 0, []float32{1, 2})
	s.Rejections.Add(partition.Place{Number: 3}, "NaN", "row 3")
	object(f, path, partition.Layout{Shards: 2, Dim: 2, Fields: 2}, 4, rand.New(rand.NewPCG(1, 1)), s)
	data, err := os.ReadFile(path)
	require.NoError(f, err)
	f.Add(data)
	f.Fuzz(func(t *testing.T, data []byte) { _ = readAll(data) })
}

// A summary that is read is one that is written, and read again as the same.
func FuzzSummary(f *testing.F) {
	f.Add([]byte(`{"read":2,"lines":0,"rows":1,"rejections":{"Total":1,"Kinds":[{"Kind":"NaN","Count":1,"First":["row 1"],"At":[{"Phase":0,"Number":1}]}]},"sample":[{"id":"YQ==","number":0,"vector":"AACAPw=="}],"met":"AAAAAAAAAAAAAAAAAAAAAA=="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := partition.DecodeSummary(data)
		if err != nil {
			return
		}
		once, err := s.MarshalJSON()
		require.NoError(t, err)
		again, err := partition.DecodeSummary(once)
		require.NoError(t, err)
		twice, err := again.MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, string(once), string(twice))
	})
}

// What several tasks find merges to what one finds, however rows are dealt to them and in
// whatever order they are merged.
func TestSummariesMerge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tasks := rapid.IntRange(1, 5).Draw(t, "tasks")
		n := rapid.IntRange(0, 40).Draw(t, "rows")
		whole := partition.NewSummary()
		parts := make([]*partition.Summary, tasks)
		for i := range parts {
			parts[i] = partition.NewSummary()
		}
		for number := range n {
			part := parts[rapid.IntRange(0, tasks-1).Draw(t, "task")]
			id := fmt.Sprint(rapid.IntRange(0, 9).Draw(t, "id"))
			kind := rapid.SampledFrom([]string{"", "NaN", "duplicate id"}).Draw(t, "kind")
			phase := partition.Phase(rapid.IntRange(0, 2).Draw(t, "phase"))
			for _, s := range []*partition.Summary{whole, part} {
				s.Read++
				if kind == "" {
					s.Rows++
					s.Sample.Offer(id, int64(number), []float32{float32(number)})
				} else {
					s.Rejections.Add(partition.Place{Phase: phase, Number: int64(number)}, kind, fmt.Sprint("row ", number))
				}
			}
		}
		merged := partition.NewSummary()
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3, 4}).Draw(t, "order") {
			if i >= tasks {
				continue
			}
			data, err := parts[i].MarshalJSON()
			require.NoError(t, err)
			decoded, err := partition.DecodeSummary(data)
			require.NoError(t, err)
			merged.Merge(decoded)
		}
		want, err := whole.MarshalJSON()
		require.NoError(t, err)
		got, err := merged.MarshalJSON()
		require.NoError(t, err)
		assert.Equal(t, string(want), string(got))
		assert.Equal(t, whole.Rejections.String(), merged.Rejections.String())
		a, err := whole.Sample.Split(1)
		require.NoError(t, err)
		b, err := merged.Sample.Split(1)
		require.NoError(t, err)
		assert.Equal(t, a[manifest.Gate], b[manifest.Gate])
	})
	require.Equal(t, 1, shard.Partition("", 2)) // xxHash64 of nothing is odd
}
