package querylog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/schema"

	"github.com/tandem-ann/tandem/shard/eligibility"
	"github.com/tandem-ann/tandem/shard/parquetfile"
	"github.com/tandem-ann/tandem/shard/rowlog"
)

// ErrDamaged is the class of every error that says that a file of queries is not what
// [Encode] writes.
var ErrDamaged = errors.New("damaged file of queries")

// MaxFileBytes is the largest file that is read.
const MaxFileBytes = rowlog.MaxFileBytes

// Bounds of a query in a file, in bytes where nothing else is said.
const (
	maxRequest    = 64 << 20
	maxFilter     = 16 << 10
	maxBindings   = 64 << 10
	maxText       = 256
	maxCandidates = 10_000 // how many
	// MaxNext is how many candidates that came next a query has at most.
	MaxNext = 1_000
)

// The lists of a query.
var (
	candidates = &rowlog.List[Query]{
		Name: "candidates", Most: maxCandidates,
		Len:  func(q *Query) int { return len(q.Candidates) },
		Grow: func(q *Query) { q.Candidates = append(q.Candidates, Candidate{}) },
	}
	next = &rowlog.List[Query]{
		Name: "next", Most: MaxNext,
		Len:  func(q *Query) int { return len(q.Next) },
		Grow: func(q *Query) { q.Next = append(q.Next, Candidate{}) },
	}
)

// format is the form of files of queries.
var format = &rowlog.Format[Query]{
	Prefix: Prefix, Root: "Query", Rows: "queries", VersionKey: versionKey, Version: Version, Damaged: ErrDamaged,
	Blank: func() Query { return Query{Coverage: 1} },
	Time:  func(q *Query) time.Time { return q.Time },
	Columns: []rowlog.Column[Query]{
		rowlog.Needed(rowlog.Moment("time", func(q *Query) *time.Time { return &q.Time })),
		rowlog.Text("request_id", maxText, false, func(q *Query) *string { return &q.RequestID }),
		{
			Name: "request", Needed: true, Physical: parquet.Types.ByteArray, Logical: schema.NoLogicalType{},
			Put: func(b *parquetfile.Batch, q *Query, _ int) { b.Bytes = append(b.Bytes, q.Request) },
			Set: func(q *Query, _ int, b *parquetfile.Batch, i int) error {
				if n := len(b.Bytes[i]); n > maxRequest {
					return fmt.Errorf("%d bytes; accepted: up to %d", n, maxRequest)
				}
				q.Request = bytes.Clone(b.Bytes[i])
				return nil
			},
		},
		rowlog.Text("user_id", maxText, false, func(q *Query) *string { return &q.UserID }),
		rowlog.Text("app_id", maxText, false, func(q *Query) *string { return &q.AppID }),
		rowlog.Text("request_key", maxText, false, func(q *Query) *string { return &q.RequestKey }),
		rowlog.Number("k", func(q *Query) *int64 { return &q.K }),
		rowlog.Text("filter", maxFilter, true, func(q *Query) *string { return &q.Filter }),
		rowlog.Text("segment", maxText, true, func(q *Query) *string { return &q.Segment }),
		rowlog.Text("tower", maxText, true, func(q *Query) *string { return (*string)(&q.Tower) }),
		{
			Name: "bindings", Physical: parquet.Types.ByteArray, Logical: schema.StringLogicalType{}, Dictionary: true,
			Put: func(b *parquetfile.Batch, q *Query, _ int) { b.Bytes = append(b.Bytes, encodeBindings(q.Bindings)) },
			Set: func(q *Query, _ int, b *parquetfile.Batch, i int) (err error) {
				if n := len(b.Bytes[i]); n > maxBindings {
					return fmt.Errorf("%d bytes; accepted: up to %d", n, maxBindings)
				}
				q.Bindings, err = decodeBindings(b.Bytes[i])
				return err
			},
		},
		rowlog.Number("generation", func(q *Query) *int64 { return &q.Generation }),
		rowlog.Text("arm", maxText, true, func(q *Query) *string { return &q.Arm }),
		rowlog.Text("model", maxText, true, func(q *Query) *string { return &q.Model }),
		rowlog.Needed(rowlog.Text("model_version", maxText, true, func(q *Query) *string { return &q.ModelVersion })),
		rowlog.Text("snapshot", maxText, true, func(q *Query) *string { return &q.Snapshot }),
		rowlog.Text("plan", maxText, true, func(q *Query) *string { return &q.Plan }),
		rowlog.Number("eligible", func(q *Query) *int64 { return &q.Eligible }),
		{
			Name: "coverage", Physical: parquet.Types.Double, Logical: schema.NoLogicalType{},
			Put: func(b *parquetfile.Batch, q *Query, _ int) { b.Doubles = append(b.Doubles, q.Coverage) },
			Set: func(q *Query, _ int, b *parquetfile.Batch, i int) error {
				if q.Coverage = b.Doubles[i]; !(q.Coverage >= 0 && q.Coverage <= 1) {
					return fmt.Errorf("%v; accepted: 0 to 1", q.Coverage)
				}
				return nil
			},
		},
		rowlog.Number("shards_cut", func(q *Query) *int64 { return &q.ShardsCut }),
		rowlog.Text("fallback", maxText, true, func(q *Query) *string { return &q.Fallback }),
		rowlog.Number("latency_us", func(q *Query) *int64 { return &q.LatencyUS }),
		rowlog.Text("live_log", maxText, true, func(q *Query) *string { return &q.LiveLog }),
		rowlog.Number("live_sequence", func(q *Query) *int64 { return &q.LiveSequence }),
		rowlog.Text("experiment", maxText, true, func(q *Query) *string { return &q.Experiment }),
		rowlog.Text("variant", maxText, true, func(q *Query) *string { return &q.Variant }),
		rowlog.Flag("explored", func(q *Query) *bool { return &q.Explored }),
		rowlog.Needed(rowlog.ListText(candidates, "id", maxText, false, func(q *Query, n int) *string { return &q.Candidates[n].ID })),
		rowlog.Needed(rowlog.ListScore(candidates, "score", func(q *Query, n int) *float32 { return &q.Candidates[n].Score })),
		rowlog.ListText(candidates, "team", maxText, true, func(q *Query, n int) *string { return &q.Candidates[n].Team }),
		{
			Name: "propensity", List: candidates, Physical: parquet.Types.Float, Logical: schema.NoLogicalType{},
			Has: func(q *Query, n int) bool { return q.Candidates[n].Propensity != 0 },
			Put: func(b *parquetfile.Batch, q *Query, n int) {
				b.Floats = append(b.Floats, q.Candidates[n].Propensity)
			},
			Set: func(q *Query, n int, b *parquetfile.Batch, i int) error {
				p := b.Floats[i]
				if !(p > 0 && p <= 1) {
					return fmt.Errorf("%v; accepted: above 0 and up to 1", p)
				}
				q.Candidates[n].Propensity = p
				return nil
			},
		},
		rowlog.ListText(next, "id", maxText, false, func(q *Query, n int) *string { return &q.Next[n].ID }),
		rowlog.ListScore(next, "score", func(q *Query, n int) *float32 { return &q.Next[n].Score }),
	},
}

// Encode returns the file of some queries.
func Encode(queries []Query) ([]byte, error) { return format.Encode(queries) }

// Decode returns the queries in the bytes of a file, in its order. Each is the
// caller's. The first error, of class [ErrDamaged], is the last thing returned.
func Decode(data []byte) iter.Seq2[*Query, error] { return format.Decode(data) }

// Key returns a name for an object that is written from the time on. No two calls
// return the same.
func Key(at time.Time) string { return format.Key(at) }

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
