package main

import (
	"math"

	"github.com/tandem-ann/tandem/builder/partition"
	"github.com/tandem-ann/tandem/builder/plan"
	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/attribute"
)

// What steps take of the processors was measured on two cores of a cloud's machine, of towers of
// 10,000 and 30,000 rows of 16 and of 64 components, with M 16: see docs/build-at-scale.md. All else is
// extrapolated, and the report says that it is an estimate.
const (
	digestByte    = 1.5e-9 // seconds of CPU a byte of input, for its SHA-256
	partitionRow  = 6e-6   // seconds of CPU a row, and for each of its components
	partitionItem = 0.03e-6
	indexRow      = 130e-6 // likewise, in a shard of indexRows; it grows with the logarithm of the rows
	indexItem     = 0.8e-6
	indexRows     = 30_000
	commitRow     = 20e-6 // likewise
	commitItem    = 0.1e-6
)

// Memory is what a limit is set by, so it is no less than what a step was seen to take, by as little
// as can be said of all inputs: TestMemoryOfSteps has what was measured.
const (
	// programMemory is the pages of the program itself that are in memory, and heapMemory what every
	// step has beside what grows with the rows, in bytes.
	programMemory = 60 << 20
	heapMemory    = 30 << 20
	// commitHeap is that of commit, which keeps samples of both towers and what they were answered.
	commitHeap = 56 << 20
	// collected is how much larger a heap is than what is in use, since it is collected when it has
	// grown to twice of what was in use, and that grows meanwhile.
	collected = 1.3

	// Bytes of a row while its shard is built: its id, place and hashes; for each of its components, of
	// the vector, the point of it in the graph, the row of the finished index, and codes; for
	// each of M, of lists with slack, trimmed ones and finished ones; and for each of its attributes.
	indexRowBytes  = 320
	indexItemBytes = 14
	indexLinkBytes = 28
	// A row of a shard's file has so many, for each of its components, and for each of M.
	shardRowBytes  = 130
	shardItemBytes = 5
	shardLinkBytes = 9
	// A row of a mean has so many beside its vector.
	meanRowBytes = 200
	// A record has so many beside its vector, its texts and its attributes.
	recordBytes = 40
	// pageBytes is what is in memory of a column that is read: a page, a dictionary, what they decode to.
	pageBytes = 2 << 20
)

// valueBytes is what a value takes in a record, in memory while its shard is built, and in the shard's
// file, without the text of a keyword that no row before it has.
type valueBytes struct{ record, memory, file int64 }

// valuesOf adds up what a row has of fields.
func valuesOf(fields ...attribute.Field) (sum valueBytes) {
	for _, f := range fields {
		of := valueBytes{9, 20, 14}
		switch f.Type {
		case attribute.KeywordList:
			of = valueBytes{24, 60, 28}
		case attribute.Keyword:
			of = valueBytes{12, 24, 14}
		}
		sum.record, sum.memory, sum.file = sum.record+of.record, sum.memory+of.memory, sum.file+of.file
	}
	return sum
}

// stepSizes are what steps of a build take, in bytes: memory of each, and of files the largest task, the
// largest shard and all shards.
type stepSizes struct {
	partition, shard, commit int64
	task, file, files        int64
}

// sizesOf estimates what the steps of a plan take.
func sizesOf(p *plan.Plan) (s stepSizes) {
	links := int64(index.DefaultParams(p.Metric).M)
	if params, err := index.ParseParams(p.Params); err == nil { // as every plan that is encoded
		links = int64(params.M)
	}
	dim := int64(p.Dim)
	base := int64(programMemory + heapMemory)
	s.partition, s.shard, s.commit = base, base, programMemory+commitHeap
	for _, kind := range []shard.Kind{shard.Apps, shard.Users} {
		t := p.Tower(kind)
		total, shards := t.Survey.Total(), int64(t.Shards)
		mean := total / shards
		rows := mean + 1
		if shards > 1 { // shards are as large as hashes have it
			rows += int64(4 * math.Sqrt(float64(mean)))
		}
		values := valuesOf(append(t.RowFields[:len(t.RowFields):len(t.RowFields)], t.LineFields...)...)
		texts := int64(0)
		for _, f := range append(t.Rows[:len(t.Rows):len(t.Rows)], t.Attributes...) {
			texts += f.Size
		}
		// What of the files cannot be vectors may be ids and keywords, each another one.
		texts = max(texts-4*dim*total, 0) / shards
		row := indexRowBytes + indexItemBytes*dim + indexLinkBytes*links + values.memory
		graph := int64(0)
		for _, f := range t.Graph {
			graph += f.Size // of which the lists are read, and copied
		}
		s.shard = max(s.shard, base+int64(collected*float64(rows*row+2*texts))+2*graph)
		row = shardRowBytes + shardItemBytes*dim + shardLinkBytes*links + values.file
		s.file, s.files = max(s.file, rows*row+texts), s.files+total*row+shards*texts
		if kind == shard.Users { // for their mean, a shard at a time
			s.commit += int64(collected * float64(rows*(4*dim+meanRowBytes)))
		}
	}
	s.commit += s.files
	for _, t := range p.Tasks {
		s.task = max(s.task, t.Bytes)
		s.partition = max(s.partition, base+taskMemory(p, t))
	}
	return s
}

// taskMemory estimates what a task takes: the records that it holds, as often as the heap is larger than
// what is in use, and what is decoded.
func taskMemory(p *plan.Plan, t plan.Task) int64 {
	of := p.Tower(t.Tower)
	records, columns := 2*t.Bytes, int64(1) // lines of attributes, whose values are no longer than their texts
	if t.Reads == plan.Rows {
		columns = int64(2 + len(of.RowFields))
		rows := int64(0)
		for i := range t.Files {
			rows += of.Survey.Rows[t.First+i]
		}
		vectors := rows * int64(4*p.Dim)
		records = vectors + rows*(recordBytes+valuesOf(of.RowFields...).record) + max(t.Bytes-vectors, 0)
	}
	return 2*min(records, partition.DefaultMemory) + min(columns*pageBytes, t.Bytes)
}
