package querylog

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
)

// ErrDamaged is the class of every error that says that a file of queries is not what
// [Encode] writes.
var ErrDamaged = errors.New("damaged file of queries")

// Bounds of a query in a file, in bytes where nothing else is said.
const (
	maxRequest    = 64 << 20
	maxFilter     = 16 << 10
	maxText       = 256
	maxCandidates = 10_000 // how many
)

// required are the columns without which there is nothing to replay. Another one that
// a file does not have is zero.
var required = []string{"time", "request", "model_version", "candidates.list.element.id", "candidates.list.element.score"}

// setter puts a value of a column into a query.
type setter func(*reader, parquet.Value) error

// setters has those of all columns by their names.
var setters = map[string]setter{
	"time": func(r *reader, v parquet.Value) error {
		r.query.Time = time.UnixMicro(v.Int64()).UTC()
		return nil
	},
	"request": func(r *reader, v parquet.Value) error {
		if len(v.ByteArray()) > maxRequest {
			return fmt.Errorf("%d bytes; accepted: up to %d", len(v.ByteArray()), maxRequest)
		}
		r.query.Request = bytes.Clone(v.ByteArray())
		return nil
	},
	"request_id":    text(maxText, func(q *Query) *string { return &q.RequestID }),
	"user_id":       text(maxText, func(q *Query) *string { return &q.UserID }),
	"app_id":        text(maxText, func(q *Query) *string { return &q.AppID }),
	"request_key":   text(maxText, func(q *Query) *string { return &q.RequestKey }),
	"filter":        text(maxFilter, func(q *Query) *string { return &q.Filter }),
	"segment":       text(maxText, func(q *Query) *string { return &q.Segment }),
	"arm":           text(maxText, func(q *Query) *string { return &q.Arm }),
	"model":         text(maxText, func(q *Query) *string { return &q.Model }),
	"model_version": text(maxText, func(q *Query) *string { return &q.ModelVersion }),
	"snapshot":      text(maxText, func(q *Query) *string { return &q.Snapshot }),
	"plan":          text(maxText, func(q *Query) *string { return &q.Plan }),
	"k":             number(func(q *Query) *int64 { return &q.K }),
	"generation":    number(func(q *Query) *int64 { return &q.Generation }),
	"eligible":      number(func(q *Query) *int64 { return &q.Eligible }),
	"shards_cut":    number(func(q *Query) *int64 { return &q.ShardsCut }),
	"fallback":      text(maxText, func(q *Query) *string { return &q.Fallback }),
	"latency_us":    number(func(q *Query) *int64 { return &q.LatencyUS }),
	"coverage": func(r *reader, v parquet.Value) error {
		r.query.Coverage = v.Double()
		if !(r.query.Coverage >= 0 && r.query.Coverage <= 1) {
			return fmt.Errorf("%v; accepted: 0 to 1", r.query.Coverage)
		}
		return nil
	},
	"candidates.list.element.id": func(r *reader, v parquet.Value) error {
		switch {
		case v.DefinitionLevel() < r.element: // the list is empty
			return nil
		case r.ids == maxCandidates:
			return fmt.Errorf("more than %d candidates", maxCandidates)
		case len(v.ByteArray()) > maxText:
			return fmt.Errorf("%d bytes; accepted: up to %d", len(v.ByteArray()), maxText)
		}
		r.candidate(r.ids).ID = string(v.ByteArray())
		r.ids++
		return nil
	},
	"candidates.list.element.score": func(r *reader, v parquet.Value) error {
		score := v.Float()
		switch {
		case v.DefinitionLevel() < r.element:
			return nil
		case r.scores == maxCandidates:
			return fmt.Errorf("more than %d candidates", maxCandidates)
		case math.IsNaN(float64(score)) || math.IsInf(float64(score), 0):
			return fmt.Errorf("%v; accepted: finite numbers", score)
		}
		r.candidate(r.scores).Score = score
		r.scores++
		return nil
	},
}

func text(most int, field func(*Query) *string) setter {
	return func(r *reader, v parquet.Value) error {
		if len(v.ByteArray()) > most {
			return fmt.Errorf("%d bytes; accepted: up to %d", len(v.ByteArray()), most)
		}
		*field(&r.query) = string(v.ByteArray())
		return nil
	}
}

func number(field func(*Query) *int64) setter {
	return func(r *reader, v parquet.Value) error {
		if v.Int64() < 0 {
			return fmt.Errorf("%d; accepted: at least 0", v.Int64())
		}
		*field(&r.query) = v.Int64()
		return nil
	}
}

// column is one that is read.
type column struct {
	name string
	set  setter
}

// reader reads the rows of a file.
type reader struct {
	columns map[int]column // by the place in the file
	element int            // the definition level of a candidate that is there
	groups  []parquet.RowGroup
	rows    parquet.Rows // of the group being read, nil between two
	one     [1]parquet.Row
	number  int // of the next row
	query   Query
	ids     int
	scores  int
}

// candidate returns candidate i of the row, the next if need be.
func (r *reader) candidate(i int) *Candidate {
	if i == len(r.query.Candidates) {
		r.query.Candidates = append(r.query.Candidates, Candidate{})
	}
	return &r.query.Candidates[i]
}

// Decode returns the queries in the bytes of a file, in its order. Each is the
// caller's. The first error, of class [ErrDamaged], is the last thing returned.
func Decode(data []byte) iter.Seq2[*Query, error] {
	return func(yield func(*Query, error) bool) {
		r, err := open(data)
		if err != nil {
			yield(nil, err)
			return
		}
		defer r.close()
		for {
			q, err := r.next()
			if errors.Is(err, io.EOF) || !yield(q, err) || err != nil {
				return
			}
		}
	}
}

// guard turns a panic of the decoder into an error.
func guard(err *error) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", ErrDamaged, p)
	}
}

// open checks a file and finds its columns.
func open(data []byte) (_ *reader, err error) {
	defer guard(&err)
	if err := checkFooter(data); err != nil {
		return nil, err
	}
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)), parquet.SkipPageIndex(true), parquet.SkipBloomFilters(true))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch v, ok := f.Lookup(versionKey); {
	case !ok:
		return nil, fmt.Errorf("%w: it does not say in its metadata that it has queries (%s)", ErrDamaged, versionKey)
	case v != Version:
		return nil, fmt.Errorf("%w: it is of version %.20q; this program reads %s", ErrDamaged, v, Version)
	}
	if err := checkPages(data, f); err != nil {
		return nil, err
	}
	r := &reader{columns: map[int]column{}}
	want := parquet.SchemaOf(Query{})
	for _, path := range want.Columns() {
		name := strings.Join(path, ".")
		a, _ := want.Lookup(path...)
		b, ok := f.Schema().Lookup(path...)
		if !ok {
			continue
		}
		if at, bt := a.Node.Type().String(), b.Node.Type().String(); at != bt ||
			a.MaxDefinitionLevel != b.MaxDefinitionLevel || a.MaxRepetitionLevel != b.MaxRepetitionLevel {
			return nil, fmt.Errorf("%w: column %s is %s at levels %d and %d, want %s at %d and %d", ErrDamaged, name,
				bt, b.MaxRepetitionLevel, b.MaxDefinitionLevel, at, a.MaxRepetitionLevel, a.MaxDefinitionLevel)
		}
		r.columns[b.ColumnIndex] = column{name, setters[name]}
		r.element = max(r.element, a.MaxDefinitionLevel)
	}
	for _, name := range required {
		if _, ok := f.Schema().Lookup(strings.Split(name, ".")...); !ok {
			return nil, fmt.Errorf("%w: it has no column %s", ErrDamaged, name)
		}
	}
	r.groups = f.RowGroups()
	return r, nil
}

// next returns the next query, io.EOF after the last.
func (r *reader) next() (q *Query, err error) {
	defer guard(&err)
	for {
		if r.rows == nil {
			if len(r.groups) == 0 {
				return nil, io.EOF
			}
			r.rows, r.groups = r.groups[0].Rows(), r.groups[1:]
		}
		n, err := r.rows.ReadRows(r.one[:])
		switch {
		case n == 1:
			if q, err = r.row(r.one[0]); err != nil {
				return nil, fmt.Errorf("%w: row %d: %w", ErrDamaged, r.number, err)
			}
			r.number++
			return q, nil
		case !errors.Is(err, io.EOF):
			return nil, fmt.Errorf("%w: row %d: %w", ErrDamaged, r.number, cmp.Or(err, io.ErrNoProgress))
		}
		r.close()
	}
}

// close lets go of the row group.
func (r *reader) close() {
	if r.rows != nil {
		_ = r.rows.Close() // it was only read
		r.rows = nil
	}
}

// row returns the query of a row.
func (r *reader) row(values parquet.Row) (*Query, error) {
	r.query, r.ids, r.scores = Query{Coverage: 1}, 0, 0
	for _, v := range values {
		if c, ok := r.columns[v.Column()]; ok {
			if err := c.set(r, v); err != nil {
				return nil, fmt.Errorf("column %s: %w", c.name, err)
			}
		}
	}
	if r.ids != r.scores {
		return nil, fmt.Errorf("%d ids and %d scores of candidates", r.ids, r.scores)
	}
	q := r.query
	return &q, nil
}
