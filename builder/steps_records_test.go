package builder_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/tandem-ann/tandem/builder"
	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/objects"
	"github.com/tandem-ann/tandem/shard/objects/objectstest"
	"github.com/tandem-ann/tandem/shard/snapshots"
)

// carried is a record on its way through another engine.
type carried struct {
	task   int32
	seq    int64
	id     string
	record []byte
}

// given reads what a task gives out.
func given(task int, stream io.Reader) (list []carried, err error) {
	in, err := ipc.NewReader(stream)
	if err != nil {
		return nil, err
	}
	defer in.Release()
	for in.Next() {
		b := in.RecordBatch()
		ids, seqs, records := b.Column(0).(*array.Binary), b.Column(1).(*array.Int64), b.Column(2).(*array.Binary)
		for i := range int(b.NumRows()) {
			list = append(list, carried{int32(task), seqs.Value(i), string(ids.Value(i)), bytes.Clone(records.Value(i))})
		}
	}
	return list, in.Err()
}

// taken is a stream for a shard, in batches of some records.
func taken(list []carried) *bytes.Buffer {
	schema := arrow.NewSchema([]arrow.Field{
		{Name: "task", Type: arrow.PrimitiveTypes.Int32}, {Name: "seq", Type: arrow.PrimitiveTypes.Int64}, {Name: "record", Type: arrow.BinaryTypes.Binary},
	}, nil)
	var out bytes.Buffer
	w := ipc.NewWriter(&out, ipc.WithSchema(schema))
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	for few := range slices.Chunk(list, 7) {
		for _, c := range few {
			b.Field(0).(*array.Int32Builder).Append(c.task)
			b.Field(1).(*array.Int64Builder).Append(c.seq)
			b.Field(2).(*array.BinaryBuilder).Append(c.record)
		}
		batch := b.NewRecordBatch()
		if err := w.Write(batch); err != nil {
			panic(err) // to memory
		}
		batch.Release()
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return &out
}

// brought returns the records of each shard, ascending.
func brought(s *builder.Steps, list []carried) [][]carried {
	shards := make([][]carried, s.Plan().Shards())
	for _, c := range list {
		kind, first := s.Plan().Tasks[c.task].Tower, 0
		if kind == shard.Users {
			first = s.Plan().Apps.Shards
		}
		i := first + shard.Partition(c.id, s.Plan().Tower(kind).Shards)
		shards[i] = append(shards[i], c)
	}
	for _, of := range shards {
		slices.SortFunc(of, func(a, b carried) int { return cmp.Or(cmp.Compare(a.task, b.task), cmp.Compare(a.seq, b.seq)) })
	}
	return shards
}

// throughEngine is inSteps with another engine that brings records to shards: those of all
// tasks, or if mixed, of some.
func throughEngine(ctx context.Context, store *snapshots.Store, o builder.Options, size int64, r *rand.Rand, mixed bool) (*builder.Report, error) {
	_, id, err := builder.MakePlan(ctx, store, o, size)
	if err != nil {
		return nil, err
	}
	s, err := builder.OpenSteps(ctx, store, string(id), builder.StepOptions{Threads: 1, Memory: 1, Tool: o.Tool})
	if err != nil {
		return nil, err
	}
	passes := func(err error) bool { return err == nil || errors.As(err, new(*builder.RejectedError)) }
	var list []carried
	for _, i := range r.Perm(len(s.Plan().Tasks)) {
		if mixed && r.IntN(2) == 0 {
			if err := s.Partition(ctx, i); !passes(err) {
				return nil, err
			}
		}
		var stream bytes.Buffer
		if err := s.Give(ctx, i, &stream); !passes(err) {
			return nil, err
		}
		of, err := given(i, &stream)
		if err != nil {
			return nil, err
		}
		list = append(list, of...)
	}
	shards := brought(s, list)
	for _, i := range r.Perm(len(shards)) {
		if err := s.ShardFrom(ctx, i, taken(shards[i])); !passes(err) && !strings.Contains(err.Error(), "no row is left") {
			return nil, err
		}
	}
	return s.Commit(ctx, builder.CommitOptions{})
}

// A build whose records another engine moves is the build on one machine.
func TestRecordsThroughAnotherEngine(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		must(rt, err)
		w := drawSmall(rt, dir)
		store, err := snapshots.NewStore(objectstest.NewFaults().Bucket(""), snapshots.Options{Cache: filepath.Join(dir, "cache")})
		must(rt, err)
		defer store.Close()
		for _, id := range w.forget {
			add(t, store, forgets(id))
		}
		whole, wholeErr := builder.Build(t.Context(), store, w.options)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "order"), 1))
		parts, partsErr := throughEngine(t.Context(), store, w.options, rapid.Int64Range(1, 5000).Draw(rt, "task size"), r, rapid.Bool().Draw(rt, "mixed"))
		if wholeErr != nil {
			assert.EqualError(rt, partsErr, wholeErr.Error())
			assert.ErrorAs(rt, partsErr, new(*builder.RefusedError))
			return
		}
		must(rt, partsErr)
		assert.Equal(rt, encoded(rt, whole.Manifest), encoded(rt, parts.Manifest))
		assert.Equal(rt, whole.Digest, parts.Digest)
		assert.Equal(rt, whole.Rejected, parts.Rejected)
	})
}

// Steps that are killed at any request to the store, and done again as an engine does, give the
// same digest, and write nothing again that was written whole.
func TestRecordsAreKilled(t *testing.T) {
	o := options(t, index.Cosine, rows("app", 60, 4, 1), rows("user", 40, 4, 2))
	o.Threads = 1
	_, want := build(t, o)
	steps := func(k *killable, seed uint64) (*builder.Report, error) {
		store, err := snapshots.NewStore(k.Bucket("", objects.WithTimeout(time.Hour)), snapshots.Options{Cache: t.TempDir()})
		require.NoError(t, err)
		defer store.Close()
		ctx, die := context.WithCancel(t.Context())
		defer die()
		k.die = die
		return throughEngine(ctx, store, o, 1, rand.New(rand.NewPCG(seed, 1)), false)
	}
	k := newKillable()
	report, err := steps(k, 1)
	require.NoError(t, err)
	require.Equal(t, want.Digest, report.Digest)
	total := k.asked
	r := rand.New(rand.NewPCG(5, 5))
	for point := range killPoints * 2 / 5 {
		k := newKillable()
		k.left = 1 + r.IntN(total)
		if _, err := steps(k, uint64(point)); err != nil {
			for _, key := range k.Keys("snapshots/") {
				assert.Equal(t, "snapshots/"+string(want.Digest)+".json", key, "only what is whole can be seen")
			}
		}
		k.left = -1
		report, err = steps(k, uint64(point))
		require.NoError(t, err, "point %d", point)
		assert.Equal(t, want.Digest, report.Digest)
		for key, n := range k.writes {
			assert.Equal(t, 1, n, "%s was written again", key)
		}
		assert.Len(t, k.Keys("builds/"), 2, "the plan and the result are left")
	}
}

// What an engine has lost, doubled or mixed up is found; what may come right by itself is told
// from what may not.
func TestRecordsThatAreWrong(t *testing.T) {
	o := options(t, index.Dot, rows("app", 60, 4, 1), rows("user", 40, 4, 2))
	o.Apps.Shards, o.Users.Shards = 2, 2
	store, err := snapshots.NewStore(objectstest.NewFaults().Bucket(""), snapshots.Options{Cache: t.TempDir()})
	require.NoError(t, err)
	defer store.Close()
	_, id, err := builder.MakePlan(t.Context(), store, o, 1<<20)
	require.NoError(t, err)
	s, err := builder.OpenSteps(t.Context(), store, string(id), builder.StepOptions{Tool: o.Tool})
	require.NoError(t, err)
	var list []carried
	for i := range s.Plan().Tasks {
		var first, again bytes.Buffer
		require.NoError(t, s.Give(t.Context(), i, &first))
		require.NoError(t, s.Give(t.Context(), i, &again))
		require.Equal(t, first.Bytes(), again.Bytes())
		of, err := given(i, &first)
		require.NoError(t, err)
		list = append(list, of...)
	}
	shards := brought(s, list)
	right := shards[0]
	require.Greater(t, len(right), 10)
	swapped := slices.Clone(right)
	swapped[3], swapped[4] = swapped[4], swapped[3]
	changed := slices.Clone(right)
	changed[5].record = bytes.Clone(changed[5].record)
	changed[5].record[len(changed[5].record)-1] ^= 1
	cut := slices.Clone(right)
	cut[5].record = nil
	strange := slices.Clone(right)
	strange[0].task = -7
	whole := taken(right).Bytes()
	for _, tt := range []struct {
		name    string
		stream  []byte
		err     string
		refused bool
	}{
		{"lost", taken(right[1:]).Bytes(), "records came, and tasks gave out", false},
		{"none", taken(nil).Bytes(), "0 records came, and tasks gave out", false},
		{"changed", taken(changed).Bytes(), "what brought them lost or changed some", false},
		{"ended early", whole[:len(whole)/2], "", false},
		{"empty", nil, "read records: ", false},
		{"doubled", taken(append(slices.Clone(right[:3]), right[2:]...)).Bytes(), "want each once, ascending by task and record", true},
		{"out of order", taken(swapped).Bytes(), "comes after record", true},
		{"of another shard", taken(shards[1]).Bytes(), "is among the rows of shard 0 and belongs to shard 1", true},
		{"of another tower", taken(shards[2]).Bytes(), "they are of task 1, and those of apps, shard 1 of 2 come from the tasks [0 1]", true},
		{"of no task", taken(strange).Bytes(), "record 0 of task -7 comes after", true},
		{"no record", taken(cut).Bytes(), "a record is shorter than its fields", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := s.ShardFrom(t.Context(), 0, bytes.NewReader(tt.stream))
			require.ErrorContains(t, err, tt.err)
			assert.Equal(t, tt.refused, errors.As(err, new(*builder.RefusedError)), "%v", err)
		})
	}
	require.ErrorContains(t, s.Shard(t.Context(), 0), "another engine has the records of the tasks [0 1], and must bring them")
	require.ErrorAs(t, s.Shard(t.Context(), 0), new(*builder.ElsewhereError))
	require.NoError(t, s.ShardFrom(t.Context(), 0, taken(right)))
	require.NoError(t, s.ShardFrom(t.Context(), 0, broken{}), "a shard that is there reads nothing")
}

// broken is a stream that nobody may read.
type broken struct{}

func (broken) Read([]byte) (int, error) { return 0, errors.New("it is read") }

// FuzzTake gives a shard records of any bytes.
func FuzzTake(f *testing.F) {
	f.Add([]byte{}, int32(0), int64(0))
	f.Add([]byte("\x00\x01a\x00\x00\x00\x80\x3f"), int32(0), int64(1))
	f.Add([]byte("\x00\xff\xff\xff\xff\x0f"), int32(-1), int64(-1))
	f.Fuzz(func(t *testing.T, record []byte, task int32, seq int64) {
		w, err := partition.Create(filepath.Join(t.TempDir(), "rows"), partition.Layout{Shards: 1, Dim: 1}, 0)
		require.NoError(t, err)
		defer w.Close()
		stream := taken([]carried{{task: task, seq: seq, record: record}, {task: task, seq: seq, record: record}}).Bytes()
		_, err = partition.Take(bytes.NewReader(stream), 0, 1, func(int) (*partition.Writer, error) { return w, nil })
		require.ErrorAs(t, err, new(*partition.StreamError), "the second is there twice")
	})
}
