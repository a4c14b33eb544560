package partition

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/live"
	"github.com/tandem-ann/tandem/shard/manifest"
)

// MaxSummary is the largest summary that is read, in bytes.
const MaxSummary = 256 << 20

// Summary is what a task found beside the records that it dealt to shards. Those of all tasks
// of a tower merge to that of one task over everything.
type Summary struct {
	// Read is how many rows were read, those included that were rejected or left out, and
	// Lines how many lines of attributes.
	Read, Lines int64
	// Rows is how many rows were dealt to shards.
	Rows       int64
	Rejections Rejections
	Sample     *Sample
	// Met are the forgotten users who were left out, ascending.
	Met []live.UserHash
	// Inputs are the files that were read, as the manifest is to have them.
	Inputs []manifest.Input
	// Dealt is what each shard has of records that another engine brings there; nil if they
	// are in the object of the task.
	Dealt []Dealt
}

// NewSummary returns one of nothing.
func NewSummary() *Summary { return &Summary{Sample: NewSample()} }

// Merge adds what another task of the same tower found. Inputs it leaves alone.
func (s *Summary) Merge(o *Summary) {
	s.Read += o.Read
	s.Lines += o.Lines
	s.Rows += o.Rows
	s.Rejections.Merge(&o.Rejections)
	s.Sample.Merge(o.Sample)
	s.Met = append(s.Met, o.Met...)
	slices.SortFunc(s.Met, func(a, b live.UserHash) int { return bytes.Compare(a[:], b[:]) })
	s.Met = slices.Compact(s.Met)
	if s.Dealt == nil {
		s.Dealt = slices.Clone(o.Dealt)
		return
	}
	for i, d := range o.Dealt { // of as many shards
		s.Dealt[i].Records += d.Records
		s.Dealt[i].Sum += d.Sum
	}
}

// Counted returns a summary with the same rejections, to which others can be added, and the
// same counts, without the rest.
func (s *Summary) Counted() *Summary {
	c := &Summary{Read: s.Read, Lines: s.Lines, Rows: s.Rows, Met: s.Met}
	c.Rejections.Merge(&s.Rejections)
	return c
}

// wireSummary is the form of a summary in an object.
type wireSummary struct {
	Read       int64            `json:"read"`
	Lines      int64            `json:"lines"`
	Rows       int64            `json:"rows"`
	Rejections Rejections       `json:"rejections"`
	Sample     []wireSampled    `json:"sample"`
	Met        []byte           `json:"met,omitempty"` // hashes, one after the other
	Inputs     []manifest.Input `json:"inputs,omitempty"`
	Dealt      []Dealt          `json:"dealt,omitempty"`
}

type wireSampled struct {
	ID     []byte `json:"id"`
	Number int64  `json:"number"`
	Vector []byte `json:"vector"` // float32, the least significant byte first
}

func (s *Summary) encode() ([]byte, error) {
	w := wireSummary{Read: s.Read, Lines: s.Lines, Rows: s.Rows, Rejections: s.Rejections, Inputs: s.Inputs, Dealt: s.Dealt, Sample: []wireSampled{}}
	for _, row := range s.Sample.rows.Sorted() {
		vector := make([]byte, 0, 4*len(row.vector))
		for _, x := range row.vector {
			vector = binary.LittleEndian.AppendUint32(vector, math.Float32bits(x))
		}
		w.Sample = append(w.Sample, wireSampled{[]byte(row.id), row.number, vector})
	}
	for _, h := range s.Met {
		w.Met = append(w.Met, h[:]...)
	}
	data, err := json.Marshal(w)
	if err == nil && len(data) > MaxSummary {
		err = fmt.Errorf("%d bytes, at most %d are read", len(data), MaxSummary)
	}
	if err != nil {
		return nil, fmt.Errorf("encode summary: %w", err)
	}
	return data, nil
}

// MarshalJSON implements [json.Marshaler].
func (s *Summary) MarshalJSON() ([]byte, error) { return s.encode() }

// UnmarshalJSON implements [json.Unmarshaler].
func (s *Summary) UnmarshalJSON(data []byte) error {
	decoded, err := DecodeSummary(data)
	if err == nil {
		*s = *decoded
	}
	return err
}

// DecodeSummary returns the summary that bytes are, which may be anything. All its vectors are
// of one dimension.
func DecodeSummary(data []byte) (*Summary, error) {
	var w wireSummary
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&w); err != nil {
		return nil, fmt.Errorf("decode summary: %w", err)
	}
	if d.More() {
		return nil, errors.New("decode summary: more than one value")
	}
	s := &Summary{Read: w.Read, Lines: w.Lines, Rows: w.Rows, Rejections: w.Rejections, Sample: NewSample(), Inputs: w.Inputs, Dealt: w.Dealt}
	if err := s.Rejections.Check(); err != nil {
		return nil, fmt.Errorf("decode summary: %w", err)
	}
	switch {
	case w.Read < 0 || w.Lines < 0 || w.Rows < 0 || w.Rows > w.Read:
		return nil, fmt.Errorf("decode summary: %d rows of %d, %d lines", w.Rows, w.Read, w.Lines)
	case len(w.Sample) > sampleSize || int64(len(w.Sample)) > w.Rows:
		return nil, fmt.Errorf("decode summary: a sample of %d of %d rows", len(w.Sample), w.Rows)
	case len(w.Dealt) > shard.MaxShards:
		return nil, fmt.Errorf("decode summary: records of %d shards", len(w.Dealt))
	case len(w.Met)%manifest.ForgottenSize != 0:
		return nil, fmt.Errorf("decode summary: %d bytes of hashes", len(w.Met))
	}
	for i, row := range w.Sample {
		dim := len(row.Vector) / 4
		if len(row.Vector)%4 != 0 || len(row.Vector) != len(w.Sample[0].Vector) || dim < 1 || dim > index.MaxDim || shard.CheckID(string(row.ID)) != nil || row.Number < 0 {
			return nil, fmt.Errorf("decode summary: row %d of the sample is none", i)
		}
		vector := make([]float32, dim)
		for j := range vector {
			vector[j] = math.Float32frombits(binary.LittleEndian.Uint32(row.Vector[4*j:]))
		}
		s.Sample.Offer(string(row.ID), row.Number, vector)
	}
	for h := range slices.Chunk(w.Met, manifest.ForgottenSize) {
		s.Met = append(s.Met, live.UserHash(h))
	}
	if !slices.IsSortedFunc(s.Met, func(a, b live.UserHash) int { return bytes.Compare(a[:], b[:]) }) {
		return nil, errors.New("decode summary: hashes are out of order")
	}
	return s, nil
}

// Dim returns the dimension of the vectors of the sample, 0 if it is empty.
func (s *Summary) Dim() int {
	for _, row := range s.Sample.rows.Sorted() {
		return len(row.vector)
	}
	return 0
}
