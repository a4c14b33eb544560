package querylog

import (
	"bytes"
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/apache/arrow-go/v18/parquet/schema"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

func TestMain(m *testing.M) { objectstest.Main(m) }

var update = flag.Bool("update", false, "write the golden files")

var began = time.Date(2026, 11, 25, 8, 15, 0, 123456000, time.UTC)

// some returns n queries, a second apart.
func some(n int) []Query {
	var out []Query
	for i := range n {
		q := Query{
			Time: began.Add(time.Duration(i) * time.Second), RequestID: fmt.Sprint("r", i), Request: []byte(fmt.Sprint("request ", i)),
			K: int64(i), Filter: "free", Segment: "teen", Model: "feed", ModelVersion: "7", Snapshot: "abc", Plan: "PLAN_GRAPH_WALK",
			Eligible: 40, Coverage: 0.5, LatencyUS: 1500,
		}
		if i%2 == 0 {
			q.UserID = fmt.Sprint("u", i)
		} else {
			q.AppID = fmt.Sprint("a", i)
		}
		for j := range i % 5 {
			q.Candidates = append(q.Candidates, Candidate{ID: fmt.Sprint("c", j), Score: -float32(j) / 3})
		}
		out = append(out, q)
	}
	return out
}

func encode(tb testing.TB, queries []Query) []byte {
	data, err := Encode(queries)
	require.NoError(tb, err)
	return data
}

// decode returns all queries of a file, or the error.
func decode(data []byte) (out []Query, err error) {
	for q, err := range Decode(data) {
		if err != nil {
			return out, err
		}
		out = append(out, *q)
	}
	return out, nil
}

func TestRoundTrip(t *testing.T) {
	for _, n := range []int{0, 1, 7, 3000} {
		want := some(n)
		got, err := decode(encode(t, want))
		require.NoError(t, err)
		require.Len(t, got, n)
		if n > 0 {
			require.Equal(t, want, got)
		}
	}
}

// TestAnyReader reads a file as someone without this package would.
func TestAnyReader(t *testing.T) {
	queries := some(5)
	queries[4].Tower, queries[4].Bindings = shard.Apps, kinds{"most": eligibility.KindFloat, "in": eligibility.KindOfList(eligibility.KindString)}
	data := encode(t, queries)
	table, err := pqarrow.ReadTable(t.Context(), bytes.NewReader(data), nil, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	require.NoError(t, err)
	defer table.Release()
	require.Equal(t, int64(5), table.NumRows())
	last := func(name string) string {
		i := table.Schema().FieldIndices(name)
		require.Len(t, i, 1, name)
		return table.Column(i[0]).Data().Chunk(0).ValueStr(4)
	}
	assert.Equal(t, "u4", last("user_id"))
	assert.Equal(t, []string{"apps", `{"in":"list of string","most":"float"}`}, []string{last("tower"), last("bindings")})
	assert.Equal(t, began.Add(4*time.Second).Format("2006-01-02T15:04:05.999999Z"), strings.Replace(last("time"), " ", "T", 1))
	assert.Contains(t, last("candidates"), `{"id":"c3","score":-1}`)
}

// TestFormerWriter reads a file that another library wrote, when the format was new.
func TestFormerWriter(t *testing.T) {
	data, err := os.ReadFile("testdata/parquet-go.parquet")
	require.NoError(t, err)
	got, err := decode(data)
	require.NoError(t, err)
	want := some(9)
	for i := range want {
		require.NotEmpty(t, got[i].Request)
		want[i].Request = got[i].Request // the protobuf of a request
	}
	require.Equal(t, want, got)
}

func TestStopEarly(t *testing.T) {
	data := encode(t, some(5))
	for q, err := range Decode(data) {
		require.NoError(t, err)
		require.Equal(t, "r0", q.RequestID)
		break
	}
	require.PanicsWithValue(t, "mine", func() {
		for _, err := range Decode(data) {
			require.NoError(t, err)
			panic("mine")
		}
	}, "a panic of the consumer is its own")
}

// encodeAs writes two rows of zeros, with a version, of all columns but those whose names
// begin as without, and of others.
func encodeAs(tb testing.TB, version, without string, others ...schema.Node) []byte {
	var nodes schema.FieldList
	root, err := fileSchema()
	require.NoError(tb, err)
	for i := range root.NumFields() {
		if n := root.Field(i); without == "" || !strings.HasPrefix(n.Name(), without) {
			nodes = append(nodes, n)
		}
	}
	root, err = schema.NewGroupNode("Query", parquet.Repetitions.Required, append(nodes, others...), -1)
	require.NoError(tb, err)
	o := parquetfile.Options{}
	if version != "" {
		o.Metadata = map[string]string{versionKey: version}
	}
	var out bytes.Buffer
	w, err := parquetfile.Create(&out, root, o)
	require.NoError(tb, err)
	for i, leaf := range schema.NewSchema(root).Columns() {
		b := parquetfile.Batch{
			Int64s: make([]int64, 2), Doubles: make([]float64, 2), Floats: make([]float32, 2), Bytes: make([]parquet.ByteArray, 2),
		}
		if leaf.MaxRepetitionLevel() > 0 {
			b.Def, b.Rep = []int16{1, 1}, []int16{0, 0}
		}
		require.NoError(tb, w.Append(i, &b))
	}
	require.NoError(tb, w.Close())
	return out.Bytes()
}

func TestOtherColumns(t *testing.T) {
	more := schema.MustPrimitive(schema.NewPrimitiveNode("more", parquet.Repetitions.Required, parquet.Types.ByteArray, -1, -1))
	got, err := decode(encodeAs(t, Version, "c", append([]schema.Node{more}, candidates(t))...))
	require.NoError(t, err)
	zero := Query{Time: time.Unix(0, 0).UTC(), Request: []byte{}, Coverage: 1, Candidates: []Candidate{{}}}
	require.Equal(t, []Query{zero, zero}, got, "coverage is 1 where the file does not have it")
}

// candidates is the column of that name.
func candidates(tb testing.TB) schema.Node {
	root, err := fileSchema()
	require.NoError(tb, err)
	return root.Field(root.NumFields() - 1)
}

// change returns queries with the last changed.
func change(tb testing.TB, f func(*Query)) []byte {
	queries := some(3)
	f(&queries[2])
	return encode(tb, queries)
}

func TestDamage(t *testing.T) {
	good := encode(t, some(50))
	footer := func(n uint32) []byte {
		data := bytes.Clone(good)
		binary.LittleEndian.PutUint32(data[len(data)-8:], n)
		return data
	}
	// A footer that is a list of 2^31-1 structs.
	bomb := []byte("PAR1\x19\xfc\xff\xff\xff\xff\x07\x00\x08\x00\x00\x00PAR1")
	plain := schema.NewInt64Node("time", parquet.Repetitions.Required, -1)
	zeros := strings.Repeat("\x00", maxRequest+1)
	for _, test := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "0 bytes are no Parquet file"},
		{"text", []byte("PAR1 is how it begins, and no more"), `it ends with "more", a Parquet file with "PAR1"`},
		{"cut", good[:len(good)-1], "is it truncated?"},
		{"front", append([]byte("PAR1"), good[40:]...), ""},
		{"footer too long", footer(1 << 30), "footer of 1073741824 bytes in a file of "},
		{"footer too short", footer(3), ""},
		{"footer large", append(append([]byte("PAR1"), make([]byte, 300<<10)...), "\x01\x00\x04\x00PAR1"...), "footer of 262145 bytes"},
		{"list bomb", bomb, "the footer's structure"},
		{"no version", encodeAs(t, "", ""), "does not say in its metadata that it has queries"},
		{"version", encodeAs(t, "2", ""), `of version "2"; this program reads 1`},
		{"type", encodeAs(t, Version, "time", plain), "column time is INT64, None at levels 0 and 0, want INT64, Timestamp"},
		{"column missing", encodeAs(t, Version, "candidates"), "has no column candidates.list.element.id"},
		{"negative", change(t, func(q *Query) { q.LatencyUS = -1 }), "row 2: column latency_us: -1; accepted: at least 0"},
		{"coverage", change(t, func(q *Query) { q.Coverage = math.NaN() }), "row 2: column coverage: NaN; accepted: 0 to 1"},
		{"score", change(t, func(q *Query) { q.Candidates[1].Score = float32(math.Inf(1)) }), "row 2: column candidates.list.element.score: +Inf"},
		{"text long", change(t, func(q *Query) { q.Arm = strings.Repeat("x", 300) }), "row 2: column arm: 300 bytes; accepted: up to 256"},
		{"id long", change(t, func(q *Query) { q.Candidates[1].ID = strings.Repeat("x", 300) }), "element.id: 300 bytes"},
		{"request long", change(t, func(q *Query) { q.Request = []byte(zeros) }), "column request: 67108865 bytes"},
		{"page", change(t, func(q *Query) { q.Request = make([]byte, maxPageBytes) }), "page of 134217"},
		{"many", change(t, func(q *Query) { q.Candidates = make([]Candidate, maxCandidates+1) }), "more than 10000 candidates"},
		{"too many", change(t, func(q *Query) { q.Candidates = make([]Candidate, maxValues+1) }), "more than 8388608 values"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := decode(test.data)
			require.ErrorIs(t, err, ErrDamaged)
			require.ErrorContains(t, err, test.want)
		})
	}
}

// TestEveryByte changes each byte of a file: what comes is an error or queries, and
// never a panic.
func TestEveryByte(t *testing.T) {
	good := encode(t, some(2))
	for i := range good {
		data := bytes.Clone(good)
		data[i] ^= []byte{1, 0x80, 0xff}[i%3]
		if _, err := decode(data); err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		}
		_, err := decode(good[:i])
		require.ErrorIs(t, err, ErrDamaged)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(f, some(4)))
	f.Add(encodeAs(f, Version, ""))
	if data, err := os.ReadFile("testdata/parquet-go.parquet"); err == nil {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		queries, err := decode(data)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
		}
		for i := range queries {
			require.LessOrEqual(t, len(queries[i].Candidates), maxCandidates)
		}
	})
}

func TestKey(t *testing.T) {
	key := Key(began)
	require.Regexp(t, `^queries/2026-11-25/20261125T081500\.123Z-[0-9a-f]{16}\.parquet$`, key)
	require.NotEqual(t, key, Key(began))
	at, ok := written(key)
	require.True(t, ok)
	require.Equal(t, began.Truncate(time.Millisecond), at)
	for _, key := range []string{"queries/x.parquet", "20261125T081500.parquet", strings.Repeat("9", 30)} {
		_, ok := written(key)
		require.False(t, ok, key)
	}
}

// ids returns the request ids of a log.
func ids(t *testing.T, l *Log, since, until time.Time) (list []string) {
	t.Helper()
	for q, err := range l.Queries(t.Context(), since, until) {
		require.NoError(t, err)
		list = append(list, q.RequestID)
	}
	return list
}

func TestLogInABucket(t *testing.T) {
	objectstest.Run(t, func(t *testing.T, b *objects.Bucket) {
		ctx := t.Context()
		queries := some(4)
		require.NoError(t, b.Create(ctx, "snapshots/x.json", []byte("{}")))
		require.NoError(t, b.Create(ctx, "queries/README", []byte("not a file of queries")))
		require.Empty(t, ids(t, Of(b), time.Time{}, time.Time{}))
		require.NoError(t, b.Create(ctx, Key(began.Add(2*time.Second)), encode(t, queries[:2])))
		require.NoError(t, b.Create(ctx, Key(began.Add(time.Hour)), encode(t, queries[2:])))
		l := Of(b)
		assert.Equal(t, []string{"r0", "r1", "r2", "r3"}, ids(t, l, time.Time{}, time.Time{}))
		assert.Equal(t, []string{"r1", "r2"}, ids(t, l, began.Add(time.Second), began.Add(3*time.Second)))
		assert.Empty(t, ids(t, l, began.Add(time.Hour), time.Time{}))
		for _, err := range l.Queries(ctx, time.Time{}, time.Time{}) {
			require.NoError(t, err)
			break
		}

		// What follows a damaged file is read all the same.
		require.NoError(t, b.Create(ctx, "queries/1.parquet", []byte("nothing of the kind")))
		n := 0
		var damage error
		for _, err := range l.Queries(ctx, time.Time{}, time.Time{}) {
			if n++; err != nil {
				require.NoError(t, damage)
				damage = err
			}
		}
		require.Equal(t, 1+4, n)
		require.ErrorIs(t, damage, ErrDamaged)
		require.ErrorContains(t, damage, "queries/1.parquet: damaged file of queries: damaged file: it begins with")
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		for _, err := range l.Queries(stopped, time.Time{}, time.Time{}) {
			require.ErrorIs(t, err, context.Canceled)
		}
		require.NoError(t, l.Close())
		_, err := b.Read(ctx, "queries/README")
		require.NoError(t, err, "the bucket is open")
	})
}

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "day", "some.file")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o755))
	require.NoError(t, os.WriteFile(file, encode(t, some(2)), 0o600))
	require.NoError(t, os.WriteFile(file+".parquet", encode(t, some(1)), 0o600))
	for location, want := range map[string][]string{
		file: {"r0", "r1"}, file + ".parquet": {"r0"}, dir: {"r0"}, "file://" + filepath.ToSlash(dir): {"r0"},
	} {
		l, err := Open(t.Context(), location)
		require.NoError(t, err)
		require.Equal(t, want, ids(t, l, time.Time{}, time.Time{}), location)
		require.Contains(t, l.Location(), dir)
		require.NoError(t, l.Close())
	}
	large := filepath.Join(dir, "large.parquet")
	require.NoError(t, os.WriteFile(large, nil, 0o600))
	require.NoError(t, os.Truncate(large, MaxFileBytes+1))
	l, err := Open(t.Context(), large)
	require.NoError(t, err)
	defer l.Close()
	for _, err := range l.Queries(t.Context(), time.Time{}, time.Time{}) {
		require.ErrorIs(t, err, ErrDamaged)
		require.ErrorContains(t, err, "large.parquet: damaged file of queries: 268435457 bytes; accepted: up to 268435456")
	}
	for location, want := range map[string]string{"": "open log: the location is empty", filepath.Join(dir, "none"): "open log: stat "} {
		_, err := Open(t.Context(), location)
		require.ErrorContains(t, err, want)
	}
}

// many are as many queries as a file has, of 100 candidates each.
func many(b *testing.B) []Query {
	queries := some(10_000)
	for i := range queries {
		queries[i].Candidates = make([]Candidate, 100)
		for j := range queries[i].Candidates {
			queries[i].Candidates[j] = Candidate{fmt.Sprintf("app-%07d", (i*7919+j*104729)%1_000_000), float32(j) / 7}
		}
	}
	return queries
}

func BenchmarkEncode(b *testing.B) {
	queries := many(b)
	b.ReportAllocs()
	for b.Loop() {
		b.SetBytes(int64(len(encode(b, queries))))
	}
}

func BenchmarkDecode(b *testing.B) {
	data := encode(b, many(b))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := decode(data); err != nil {
			b.Fatal(err)
		}
	}
}
