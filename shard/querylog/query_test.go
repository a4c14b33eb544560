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
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/parquetfile"
	"github.com/tandem-ann/tandem/shard/rowlog"
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
	queries[4].Candidates[3].Team, queries[4].Candidates[3].Propensity = "b", 0.5
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
	assert.Contains(t, last("candidates"), `{"id":"c3","propensity":0.5,"score":-1,"team":"b"}`)
	assert.Contains(t, last("candidates"), `{"id":"c2","propensity":null,`)
	assert.Equal(t, "[]", last("next"))
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

// Any queries come back as they were.
func TestAnyQueries(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.StringN(0, 8, 64)
		candidate := rapid.Custom(func(t *rapid.T) Candidate {
			return Candidate{ID: text.Draw(t, "id"), Score: rapid.Float32Range(-9, 9).Draw(t, "score")}
		})
		shown := rapid.Custom(func(t *rapid.T) Candidate {
			c := candidate.Draw(t, "candidate")
			c.Team = rapid.SampledFrom([]string{"", "control", "candidate"}).Draw(t, "team")
			c.Propensity = rapid.SampledFrom([]float32{0, 0.001, 0.5, 1}).Draw(t, "propensity")
			return c
		})
		want := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Query {
			q := some(1)[0]
			q.Experiment, q.Variant, q.LiveLog = text.Draw(t, "experiment"), text.Draw(t, "variant"), text.Draw(t, "log")
			q.LiveSequence, q.Explored = rapid.Int64Range(0, 1<<40).Draw(t, "sequence"), rapid.Bool().Draw(t, "explored")
			q.Candidates = append(q.Candidates, rapid.SliceOfN(shown, 0, 4).Draw(t, "candidates")...)
			q.Next = append(q.Next, rapid.SliceOfN(candidate, 0, 4).Draw(t, "next")...)
			return q
		}), 1, 20).Draw(rt, "queries")
		data, err := Encode(want)
		require.NoError(rt, err)
		got, err := decode(data)
		require.NoError(rt, err)
		require.Equal(rt, want, got)
	})
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
	root, err := format.Schema()
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
		b.Bools = make([]bool, 2)
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
	got, err := decode(encodeAs(t, Version, "c", more, lists(t)[0]))
	require.NoError(t, err)
	zero := Query{Time: time.Unix(0, 0).UTC(), Request: []byte{}, Coverage: 1, Candidates: []Candidate{{}}, Next: []Candidate{{}}}
	require.Equal(t, []Query{zero, zero}, got, "coverage is 1 where the file does not have it")
}

// lists are the columns of candidates, and of those that came next.
func lists(tb testing.TB) []schema.Node {
	root, err := format.Schema()
	require.NoError(tb, err)
	return []schema.Node{root.Field(root.NumFields() - 2), root.Field(root.NumFields() - 1)}
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
		{"page", change(t, func(q *Query) { q.Request = make([]byte, rowlog.MaxPageBytes) }), "page of 134217"},
		{"propensity", change(t, func(q *Query) { q.Candidates[1].Propensity = 1.5 }), "row 2: column candidates.list.element.propensity: 1.5; accepted: above 0 and up to 1"},
		{"next", change(t, func(q *Query) { q.Next = make([]Candidate, MaxNext+1) }), "more than 1000 next"},
		{"many", change(t, func(q *Query) { q.Candidates = make([]Candidate, maxCandidates+1) }), "more than 10000 candidates"},
		{"too many", change(t, func(q *Query) { q.Candidates = make([]Candidate, rowlog.MaxValues+1) }), "more than 8388608 values"},
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
			require.LessOrEqual(t, len(queries[i].Next), MaxNext)
		}
	})
}

func TestKey(t *testing.T) {
	key := Key(began)
	require.Regexp(t, `^queries/2026-11-25/20261125T081500\.123Z-[0-9a-f]{16}\.parquet$`, key)
	require.NotEqual(t, key, Key(began))
	at, ok := rowlog.Written(key)
	require.True(t, ok)
	require.Equal(t, began.Truncate(time.Millisecond), at)
	for _, key := range []string{"queries/x.parquet", "20261125T081500.parquet", strings.Repeat("9", 30)} {
		_, ok := rowlog.Written(key)
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
			queries[i].Candidates[j] = Candidate{ID: fmt.Sprintf("app-%07d", (i*7919+j*104729)%1_000_000), Score: float32(j) / 7}
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

// The log of a store has nothing of what else the store has in Parquet files.
func TestOpenStore(t *testing.T) {
	for _, there := range []string{"snapshots/x.json", Key(began)} {
		bucket, err := objects.Open(t.Context(), t.TempDir())
		require.NoError(t, err)
		require.NoError(t, bucket.Create(t.Context(), there, encode(t, some(1))))
		require.NoError(t, bucket.Create(t.Context(), "outcomes/2026-11-25/x.parquet", []byte("of another kind")))
		l, err := Open(t.Context(), bucket.Dir())
		require.NoError(t, err)
		n := 0
		for _, err := range l.Queries(t.Context(), time.Time{}, time.Time{}) {
			require.NoError(t, err, there)
			n++
		}
		assert.Equal(t, strings.Count(there, Prefix), n)
		require.NoError(t, l.Close())
		require.NoError(t, bucket.Close())
	}
}
