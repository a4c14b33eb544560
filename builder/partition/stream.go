package partition

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/ipc"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/cespare/xxhash/v2"

	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// Records that another engine brings to their shards are in Arrow's streaming format: what a
// task gives out, and what a shard takes in. The engine reads ids and numbers, and leaves the
// records alone.
var (
	givenFields = []arrow.Field{
		{Name: "id", Type: arrow.BinaryTypes.Binary},
		{Name: "seq", Type: arrow.PrimitiveTypes.Int64},
		{Name: "record", Type: arrow.BinaryTypes.Binary},
	}
	takenFields = []arrow.Field{
		{Name: "task", Type: arrow.PrimitiveTypes.Int32},
		{Name: "seq", Type: arrow.PrimitiveTypes.Int64},
		{Name: "record", Type: arrow.BinaryTypes.Binary},
	}
)

// A batch of a stream has at most so many records, and ends once it has so many bytes.
const (
	batchRecords = 4096
	batchBytes   = 4 << 20
)

// Dealt is what a shard has of the records of some tasks: how many, and a sum of their hashes,
// which does not depend on their order.
type Dealt struct {
	Records uint64 `json:"records"`
	Sum     uint64 `json:"sum"`
}

func (d *Dealt) add(record []byte) {
	d.Records++
	d.Sum += xxhash.Sum64(record)
}

// Give writes the records of all shards, and returns what each shard has. Without a reader it
// writes a stream of none.
func Give(w io.Writer, x *Reader) (_ []Dealt, err error) {
	buffered := bufio.NewWriterSize(w, 1<<20)
	schema := arrow.NewSchema(givenFields, nil)
	out := ipc.NewWriter(buffered, ipc.WithSchema(schema))
	batch := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer batch.Release()
	ids, seqs, records := batch.Field(0).(*array.BinaryBuilder), batch.Field(1).(*array.Int64Builder), batch.Field(2).(*array.BinaryBuilder)
	flush := func() error {
		b := batch.NewRecordBatch()
		defer b.Release()
		return out.Write(b)
	}
	var dealt []Dealt
	seq := int64(0)
	if x != nil {
		dealt = make([]Dealt, x.layout.Shards)
	}
	for number := range dealt {
		of, err := x.Shard(number)
		if err != nil {
			return nil, err
		}
		err = of.each(Want{}, func(r *Record, encoded []byte) error {
			ids.AppendString(r.ID)
			seqs.Append(seq)
			records.Append(encoded)
			dealt[number].add(encoded)
			if seq++; seqs.Len() == batchRecords || records.DataLen() >= batchBytes {
				return flush()
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	if seqs.Len() > 0 || seq == 0 { // one of none begins the stream
		if err := flush(); err != nil {
			return nil, fmt.Errorf("write records: %w", err)
		}
	}
	if err := errors.Join(out.Close(), buffered.Flush()); err != nil {
		return nil, fmt.Errorf("write records: %w", err)
	}
	return dealt, nil
}

// StreamError says that a stream has what no engine may have made of what tasks gave out.
type StreamError struct{ Err error }

// Error implements [error].
func (e *StreamError) Error() string { return "records of a stream: " + e.Err.Error() }

// Unwrap returns what is wrong.
func (e *StreamError) Unwrap() error { return e.Err }

func badStream(format string, arguments ...any) error {
	return &StreamError{fmt.Errorf(format, arguments...)}
}

// Take reads the records of one shard of a number of shards, and adds each to the writer that
// into returns for its task. They must be ascending by task and number, so that none is there
// twice. A stream that is wrong is a [*StreamError]; one that ends too early may be another
// error, or none: whether all is there is for the caller to compare.
func Take(r io.Reader, number, shards int, into func(task int) (*Writer, error)) (got Dealt, err error) {
	in, err := ipc.NewReader(bufio.NewReaderSize(r, 1<<20))
	if err != nil {
		return got, fmt.Errorf("read records: %w", err)
	}
	defer in.Release()
	if !slices.EqualFunc(in.Schema().Fields(), takenFields, func(a, b arrow.Field) bool { return a.Name == b.Name && arrow.TypeEqual(a.Type, b.Type) }) {
		return got, badStream("the columns are %.500s; want task int32, seq int64, record binary", in.Schema())
	}
	last := [2]int64{-1, -1}
	for in.Next() {
		batch := in.RecordBatch()
		for i := range int(batch.NumCols()) {
			if n := batch.Column(i).NullN(); n > 0 {
				return got, badStream("column %s has %d nulls", takenFields[i].Name, n)
			}
		}
		tasks, seqs, records := batch.Column(0).(*array.Int32), batch.Column(1).(*array.Int64), batch.Column(2).(*array.Binary)
		for i := range int(batch.NumRows()) {
			at := [2]int64{int64(tasks.Value(i)), seqs.Value(i)}
			if cmp.Or(cmp.Compare(at[0], last[0]), cmp.Compare(at[1], last[1])) <= 0 {
				return got, badStream("record %d of task %d comes after record %d of task %d; want each once, ascending by task and record", at[1], at[0], last[1], last[0])
			}
			last = at
			w, err := into(int(at[0]))
			if err != nil {
				return got, err
			}
			encoded := records.Value(i)
			record := Record{Vector: make([]float32, w.layout.Dim), Attributes: make([]attribute.Value, w.layout.Fields)}
			if err := record.decode(encoded, Want{}); err != nil {
				return got, badStream("record %d of task %d: %w", at[1], at[0], err)
			}
			if own := shard.Partition(record.ID, shards); own != number {
				return got, &StreamError{&OtherShardError{Row: fmt.Sprintf("record %d of task %d", at[1], at[0]), ID: record.ID, Have: number, Own: own}}
			}
			got.add(encoded)
			if err := w.addEncoded(number, encoded); err != nil {
				return got, err
			}
		}
	}
	if err := in.Err(); err != nil && !errors.Is(err, io.EOF) {
		return got, fmt.Errorf("read records: %w", err)
	}
	return got, nil
}
