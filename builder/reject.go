package builder

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
)

// named is how many rows of each kind of rejection are named.
const named = 5

// Rejection is one kind of row that cannot be served.
type Rejection struct {
	Kind  string
	Count int
	First []string // the first rows of the kind and what is wrong with each
}

// Rejections counts the rejected rows of one tower by kind, in the order in which
// the kinds were met. A row counts once, under the first fault found.
type Rejections struct {
	Total int
	Kinds []*Rejection
}

func (r *Rejections) add(kind, detail string) {
	r.Total++
	for _, k := range r.Kinds {
		if k.Kind == kind {
			k.Count++
			if len(k.First) < named {
				k.First = append(k.First, detail)
			}
			return
		}
	}
	r.Kinds = append(r.Kinds, &Rejection{Kind: kind, Count: 1, First: []string{detail}})
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
