package querylog

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/parquetfile"
)

// Bounds of a query in a file, in bytes where nothing else is said.
const (
	maxRequest    = 64 << 20
	maxFilter     = 16 << 10
	maxBindings   = 64 << 10
	maxText       = 256
	maxCandidates = 10_000 // how many
)

// A column is a leaf of a file, which all rows have.
type column struct {
	name       string // the path
	physical   parquet.Type
	logical    schema.LogicalType
	dictionary bool // values repeat
	needed     bool // without it there is nothing to replay; another that a file does not have is zero

	// put adds the values of a query to a batch, and set takes value i of one, of a
	// candidate or of the query itself.
	put func(b *parquetfile.Batch, q *Query)
	set func(q *Query, c *Candidate, b *parquetfile.Batch, i int) error
}

// Paths of the leaves of candidates.
const (
	candidateID    = "candidates.list.element.id"
	candidateScore = "candidates.list.element.score"
)

// ofCandidate reports whether there is a value for each candidate.
func (c *column) ofCandidate() bool { return strings.HasPrefix(c.name, "candidates.") }

// columns are all leaves, in the order of a file.
var columns = []column{
	{
		name: "time", needed: true, physical: parquet.Types.Int64, logical: schema.NewTimestampLogicalType(true, schema.TimeUnitMicros),
		put: func(b *parquetfile.Batch, q *Query) { b.Int64s = append(b.Int64s, q.Time.UnixMicro()) },
		set: func(q *Query, _ *Candidate, b *parquetfile.Batch, i int) error {
			q.Time = time.UnixMicro(b.Int64s[i]).UTC()
			return nil
		},
	},
	text("request_id", maxText, false, func(q *Query) *string { return &q.RequestID }),
	{
		name: "request", needed: true, physical: parquet.Types.ByteArray, logical: schema.NoLogicalType{},
		put: func(b *parquetfile.Batch, q *Query) { b.Bytes = append(b.Bytes, q.Request) },
		set: func(q *Query, _ *Candidate, b *parquetfile.Batch, i int) error {
			if n := len(b.Bytes[i]); n > maxRequest {
				return fmt.Errorf("%d bytes; accepted: up to %d", n, maxRequest)
			}
			q.Request = bytes.Clone(b.Bytes[i])
			return nil
		},
	},
	text("user_id", maxText, false, func(q *Query) *string { return &q.UserID }),
	text("app_id", maxText, false, func(q *Query) *string { return &q.AppID }),
	text("request_key", maxText, false, func(q *Query) *string { return &q.RequestKey }),
	number("k", func(q *Query) *int64 { return &q.K }),
	text("filter", maxFilter, true, func(q *Query) *string { return &q.Filter }),
	text("segment", maxText, true, func(q *Query) *string { return &q.Segment }),
	text("tower", maxText, true, func(q *Query) *string { return (*string)(&q.Tower) }),
	{
		name: "bindings", physical: parquet.Types.ByteArray, logical: schema.StringLogicalType{}, dictionary: true,
		put: func(b *parquetfile.Batch, q *Query) { b.Bytes = append(b.Bytes, encodeBindings(q.Bindings)) },
		set: func(q *Query, _ *Candidate, b *parquetfile.Batch, i int) (err error) {
			if n := len(b.Bytes[i]); n > maxBindings {
				return fmt.Errorf("%d bytes; accepted: up to %d", n, maxBindings)
			}
			q.Bindings, err = decodeBindings(b.Bytes[i])
			return err
		},
	},
	number("generation", func(q *Query) *int64 { return &q.Generation }),
	text("arm", maxText, true, func(q *Query) *string { return &q.Arm }),
	text("model", maxText, true, func(q *Query) *string { return &q.Model }),
	needed(text("model_version", maxText, true, func(q *Query) *string { return &q.ModelVersion })),
	text("snapshot", maxText, true, func(q *Query) *string { return &q.Snapshot }),
	text("plan", maxText, true, func(q *Query) *string { return &q.Plan }),
	number("eligible", func(q *Query) *int64 { return &q.Eligible }),
	{
		name: "coverage", physical: parquet.Types.Double, logical: schema.NoLogicalType{},
		put: func(b *parquetfile.Batch, q *Query) { b.Doubles = append(b.Doubles, q.Coverage) },
		set: func(q *Query, _ *Candidate, b *parquetfile.Batch, i int) error {
			if q.Coverage = b.Doubles[i]; !(q.Coverage >= 0 && q.Coverage <= 1) {
				return fmt.Errorf("%v; accepted: 0 to 1", q.Coverage)
			}
			return nil
		},
	},
	number("shards_cut", func(q *Query) *int64 { return &q.ShardsCut }),
	text("fallback", maxText, true, func(q *Query) *string { return &q.Fallback }),
	number("latency_us", func(q *Query) *int64 { return &q.LatencyUS }),
	{
		name: candidateID, needed: true, physical: parquet.Types.ByteArray, logical: schema.StringLogicalType{},
		put: func(b *parquetfile.Batch, q *Query) {
			putLevels(b, len(q.Candidates))
			for i := range q.Candidates {
				b.Bytes = append(b.Bytes, parquet.ByteArray(q.Candidates[i].ID))
			}
		},
		set: func(_ *Query, c *Candidate, b *parquetfile.Batch, i int) error {
			if n := len(b.Bytes[i]); n > maxText {
				return fmt.Errorf("%d bytes; accepted: up to %d", n, maxText)
			}
			c.ID = string(b.Bytes[i])
			return nil
		},
	},
	{
		name: candidateScore, needed: true, physical: parquet.Types.Float, logical: schema.NoLogicalType{},
		put: func(b *parquetfile.Batch, q *Query) {
			putLevels(b, len(q.Candidates))
			for i := range q.Candidates {
				b.Floats = append(b.Floats, q.Candidates[i].Score)
			}
		},
		set: func(_ *Query, c *Candidate, b *parquetfile.Batch, i int) error {
			if c.Score = b.Floats[i]; math.IsNaN(float64(c.Score)) || math.IsInf(float64(c.Score), 0) {
				return fmt.Errorf("%v; accepted: finite numbers", c.Score)
			}
			return nil
		},
	},
}

func text(name string, most int, dictionary bool, field func(*Query) *string) column {
	return column{
		name: name, physical: parquet.Types.ByteArray, logical: schema.StringLogicalType{}, dictionary: dictionary,
		put: func(b *parquetfile.Batch, q *Query) { b.Bytes = append(b.Bytes, parquet.ByteArray(*field(q))) },
		set: func(q *Query, _ *Candidate, b *parquetfile.Batch, i int) error {
			if n := len(b.Bytes[i]); n > most {
				return fmt.Errorf("%d bytes; accepted: up to %d", n, most)
			}
			*field(q) = string(b.Bytes[i])
			return nil
		},
	}
}

func number(name string, field func(*Query) *int64) column {
	return column{
		name: name, physical: parquet.Types.Int64, logical: schema.NewIntLogicalType(64, true),
		put: func(b *parquetfile.Batch, q *Query) { b.Int64s = append(b.Int64s, *field(q)) },
		set: func(q *Query, _ *Candidate, b *parquetfile.Batch, i int) error {
			if *field(q) = b.Int64s[i]; *field(q) < 0 {
				return fmt.Errorf("%d; accepted: at least 0", *field(q))
			}
			return nil
		},
	}
}

func needed(c column) column {
	c.needed = true
	return c
}

// encodeBindings returns the kinds of bindings as a JSON object, whose names ascend:
//
//	{"age":"float","languages":"list of string"}
//
// It returns nothing where nothing is known of them, or they are too long to be kept.
func encodeBindings(kinds map[string]eligibility.Kind) []byte {
	if kinds == nil {
		return []byte{}
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(kinds); err != nil || out.Len() > maxBindings {
		return []byte{}
	}
	return bytes.TrimSpace(out.Bytes())
}

func decodeBindings(text []byte) (kinds map[string]eligibility.Kind, err error) {
	if len(text) == 0 {
		return nil, nil
	}
	err = json.Unmarshal(text, &kinds)
	return kinds, err
}

// putLevels adds the levels of a list of n candidates.
func putLevels(b *parquetfile.Batch, n int) {
	if n == 0 {
		b.Rep, b.Def = append(b.Rep, 0), append(b.Def, 0)
	}
	for i := range n {
		b.Rep, b.Def = append(b.Rep, int16(min(i, 1))), append(b.Def, 1)
	}
}

// fileSchema returns the schema of a file.
func fileSchema() (*schema.GroupNode, error) {
	var nodes, candidate schema.FieldList
	required := parquet.Repetitions.Required
	for i := range columns {
		c := &columns[i]
		leaf, err := schema.NewPrimitiveNodeLogical(c.name[strings.LastIndexByte(c.name, '.')+1:], required, c.logical, c.physical, -1, -1)
		if err != nil {
			return nil, err
		}
		if c.ofCandidate() {
			candidate = append(candidate, leaf)
		} else {
			nodes = append(nodes, leaf)
		}
	}
	element, err := schema.NewGroupNode("element", required, candidate, -1)
	if err != nil {
		return nil, err
	}
	list, err := schema.ListOfWithName("candidates", element, required, -1)
	if err != nil {
		return nil, err
	}
	return schema.NewGroupNode("Query", required, append(nodes, list), -1)
}

// Encode returns the file of some queries.
func Encode(queries []Query) ([]byte, error) {
	data, err := encodeFile(queries)
	if err != nil {
		return nil, fmt.Errorf("encode queries: %w", err)
	}
	return data, nil
}

func encodeFile(queries []Query) ([]byte, error) {
	root, err := fileSchema()
	if err != nil {
		return nil, err
	}
	o := parquetfile.Options{Metadata: map[string]string{versionKey: Version}}
	for i := range columns {
		if columns[i].dictionary {
			o.Dictionaries = append(o.Dictionaries, columns[i].name)
		}
	}
	var out bytes.Buffer
	w, err := parquetfile.Create(&out, root, o)
	if err != nil {
		return nil, err
	}
	for leaf := range columns {
		var b parquetfile.Batch
		for i := range queries {
			columns[leaf].put(&b, &queries[i])
		}
		if err := w.Append(leaf, &b); err != nil {
			return nil, err
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
