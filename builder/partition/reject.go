package partition

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// named is how many rows of each kind of rejection are named.
const named = 5

// Phase is when rows are rejected. What is found in an earlier one is told first.
type Phase int

// The phases.
const (
	OfRows     Phase = iota // rows, by their numbers
	OfLines                 // lines of attributes, by theirs
	OfRepeated              // rows and lines of ids that are there already
)

// Place is where a rejected row or line is: rejections are told in the order of their places.
type Place struct {
	Phase  Phase
	Number int64 // of the row or the line
}

func (p Place) compare(o Place) int {
	return cmp.Or(cmp.Compare(p.Phase, o.Phase), cmp.Compare(p.Number, o.Number))
}

// Rejection is one kind of row that cannot be served.
type Rejection struct {
	Kind  string
	Count int
	First []string // the first rows of the kind and what is wrong with each
	// At are the places of First.
	At []Place `json:",omitempty"`
}

// Rejections counts the rejected rows of one tower by kind, in the order in which
// the kinds were met. A row counts once, under the first fault found.
type Rejections struct {
	Total int
	Kinds []*Rejection
}

// Add adds a row or a line. In whatever order they come, the same are told.
func (r *Rejections) Add(at Place, kind, detail string) {
	r.merge(&Rejection{Kind: kind, Count: 1, First: []string{detail}, At: []Place{at}})
	r.Total++
}

// Merge adds other rejections of the same tower, of other rows and lines.
func (r *Rejections) Merge(other *Rejections) {
	for _, k := range other.Kinds {
		r.merge(k)
	}
	r.Total += other.Total
}

// merge adds rejections of one kind, and keeps the order.
func (r *Rejections) merge(k *Rejection) {
	i := slices.IndexFunc(r.Kinds, func(have *Rejection) bool { return have.Kind == k.Kind })
	if i < 0 {
		i = len(r.Kinds)
		r.Kinds = append(r.Kinds, &Rejection{Kind: k.Kind})
	}
	have := r.Kinds[i]
	have.Count += k.Count
	for j, at := range k.At {
		n, _ := slices.BinarySearchFunc(have.At, at, Place.compare)
		if n == named {
			break // they are in order
		}
		have.At, have.First = slices.Insert(have.At, n, at), slices.Insert(have.First, n, k.First[j])
		have.At, have.First = have.At[:min(len(have.At), named)], have.First[:min(len(have.First), named)]
	}
	slices.SortStableFunc(r.Kinds, func(a, b *Rejection) int {
		return cmp.Or(a.At[0].compare(b.At[0]), cmp.Compare(a.Kind, b.Kind))
	})
}

// Check returns an error unless what was decoded is what [Rejections.Add] makes.
func (r *Rejections) Check() error {
	total := 0
	for _, k := range r.Kinds {
		switch {
		case k == nil || len(k.First) == 0 || len(k.First) != len(k.At) || len(k.First) > named || k.Count < len(k.First):
			return errors.New("a kind of rejection has no row, or too many")
		case !slices.IsSortedFunc(k.At, Place.compare):
			return fmt.Errorf("rejections of the kind %.80q are out of order", k.Kind)
		}
		total += k.Count
	}
	if total != r.Total {
		return fmt.Errorf("%d rows rejected, of which %d are told of", r.Total, total)
	}
	return nil
}

// String lists the kinds, one a line, and under each its first rows.
func (r *Rejections) String() string {
	var b strings.Builder
	for _, k := range r.Kinds {
		fmt.Fprintf(&b, "%s: %d\n", k.Kind, k.Count)
		for _, line := range k.First {
			fmt.Fprintf(&b, "  %s\n", line)
		}
		if more := k.Count - len(k.First); more > 0 {
			fmt.Fprintf(&b, "  and %d more\n", more)
		}
	}
	return b.String()
}

// RejectedError says that more rows were rejected than the build accepts.
type RejectedError struct {
	Max   int
	Apps  *Rejections
	Users *Rejections
}

// Error implements error. The text lists every kind with its first rows.
func (e *RejectedError) Error() string {
	var b strings.Builder
	rows := "rows"
	if e.Apps.Total+e.Users.Total == 1 {
		rows = "row"
	}
	fmt.Fprintf(&b, "%d %s rejected, at most %d are accepted", e.Apps.Total+e.Users.Total, rows, e.Max)
	for _, t := range []struct {
		kind shard.Kind
		r    *Rejections
	}{{shard.Apps, e.Apps}, {shard.Users, e.Users}} {
		if t.r.Total > 0 {
			fmt.Fprintf(&b, "\n%s: %s", t.kind, strings.TrimSuffix(strings.ReplaceAll(t.r.String(), "\n", "\n  "), "\n  "))
		}
	}
	return b.String()
}

// judgeID returns the kind of fault of an id, and "" if it has none.
func judgeID(id string) (kind string, err error) {
	if err = shard.CheckID(id); err == nil {
		return "", nil
	}
	switch {
	case id == "":
		return "empty id", err
	case !utf8.ValidString(id):
		return "id is not UTF-8", err
	}
	return "oversized id", err
}

// judgeVector returns the kind of fault of a vector, and "" if it has none.
func judgeVector(metric index.Metric, v []float32) (kind string, err error) {
	if err = metric.CheckVector(v); err == nil {
		return "", nil
	}
	err = fmt.Errorf("embedding: %w", err)
	var ve *index.VectorError
	if !errors.As(err, &ve) {
		return "invalid embedding", err
	}
	switch {
	case ve.Position < 0 && ve.Value > index.MaxNorm:
		return "norm too large", err
	case ve.Position < 0:
		return "zero vector", err
	case math.IsNaN(ve.Value):
		return "NaN", err
	}
	return "infinity", err
}
