package compare

import (
	"fmt"
	"io"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is how two snapshots differ. The names of its JSON fields are stable. Numbers
// are to six decimals.
type Report struct {
	Candidate  Side        `json:"candidate"`
	Previous   Side        `json:"previous"`
	Apps       Tower       `json:"apps"`
	Users      Tower       `json:"users"`
	Queried    int         `json:"queried"` // users, held out of the build, whose candidates are compared
	Scores     []Scores    `json:"scores"`
	Overlap    []Overlap   `json:"overlap"`
	Segments   []Segment   `json:"segments"`
	Attributes []Attribute `json:"attributes"` // of apps

	// Distinct and PreviousDistinct are how many apps are among the best 100 of any of
	// those users.
	Distinct         int `json:"distinct"`
	PreviousDistinct int `json:"previous_distinct"`

	// Examples are what some of those users are given by both.
	Examples []Example `json:"examples,omitempty"`
}

// Side is one of the two snapshots.
type Side struct {
	Snapshot     manifest.Digest `json:"snapshot"`
	Model        string          `json:"model"`
	ModelVersion string          `json:"model_version"`
	Metric       index.Metric    `json:"metric"`
	Dim          int             `json:"dim"`
}

// Tower is how one tower differs.
type Tower struct {
	Rows         int        `json:"rows"`
	PreviousRows int        `json:"previous_rows"`
	Added        int        `json:"added"`
	Removed      int        `json:"removed"`
	Kept         int        `json:"kept"`
	FirstAdded   []string   `json:"first_added,omitempty"` // the first in the order of ids
	FirstRemoved []string   `json:"first_removed,omitempty"`
	Norms        []Quantile `json:"norms"` // of a sample of rows
	Placement    Placement  `json:"placement"`
}

// Quantile is the value that a share of each side's values does not exceed.
type Quantile struct {
	Share     float64 `json:"share"`
	Candidate float64 `json:"candidate"`
	Previous  float64 `json:"previous"`
}

// Scores describes the scores that users' candidates of one rank have.
type Scores struct {
	Rank      int        `json:"rank"`
	Quantiles []Quantile `json:"quantiles"`
}

// Overlap is the mean share of the best K candidates of the same users that both
// snapshots give, as they serve.
type Overlap struct {
	Segment string  `json:"segment,omitempty"` // empty for all apps
	K       int     `json:"k"`
	Users   int     `json:"users"`
	Mean    float64 `json:"mean"`
}

// Segment is how a segment differs.
type Segment struct {
	Name             string    `json:"name"`
	InCandidate      bool      `json:"in_candidate"`
	InPrevious       bool      `json:"in_previous"`
	Eligible         int       `json:"eligible"`
	PreviousEligible int       `json:"previous_eligible"`
	Overlap          []Overlap `json:"overlap,omitempty"` // if both snapshots have it
}

// Attribute is how many apps have an attribute. A side that does not know it has an
// empty type.
type Attribute struct {
	Name             string  `json:"name"`
	Type             string  `json:"type"`
	PreviousType     string  `json:"previous_type"`
	Rows             int     `json:"rows"`
	PreviousRows     int     `json:"previous_rows"`
	Coverage         float64 `json:"coverage"` // Rows of all rows
	PreviousCoverage float64 `json:"previous_coverage"`
}

// Tower returns what is said of one tower.
func (r *Report) Tower(kind shard.Kind) *Tower {
	if kind == shard.Users {
		return &r.Users
	}
	return &r.Apps
}

// WriteJSON writes the report as one indented object.
func (r *Report) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	for _, s := range []struct {
		name string
		side Side
	}{{"candidate", r.Candidate}, {"previous ", r.Previous}} {
		fmt.Fprintf(b, "%s  %s at %s, metric %s, dim %d, snapshot %s\n",
			s.name, s.side.Model, s.side.ModelVersion, s.side.Metric, s.side.Dim, s.side.Snapshot.Short())
	}
	t := wording.NewTable(b)
	r.writeExamples(t)
	r.writeRows(t)
	r.writeCandidates(t)
	r.writeAttributes(t)
	_ = t.Flush() // a page takes everything
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) writeRows(w io.Writer) {
	kinds := []shard.Kind{shard.Apps, shard.Users}
	fmt.Fprintln(w, "\ntower\trows\tbefore\tadded\tremoved\tkept")
	for _, kind := range kinds {
		t := r.Tower(kind)
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\n", kind, t.Rows, t.PreviousRows, t.Added, t.Removed, t.Kept)
	}
	fmt.Fprintln(w, "\nplacement\tlooked at\tanchors\tagreement\tby chance\tmoved\tshare")
	for _, kind := range kinds {
		p := &r.Tower(kind).Placement
		if p.Rows == 0 {
			fmt.Fprintf(w, "%s\t-\t-\t-\t-\t-\ttoo few in both to tell\n", kind)
			continue
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t%.3f\t%d\t%.2f%%\n", kind, p.Rows, p.Anchors, p.Agreement, p.Chance, p.Moved, 100*p.Share)
	}
	listed := false
	for _, kind := range kinds {
		t := r.Tower(kind)
		for _, l := range []struct {
			what string
			ids  []string
		}{{"added", t.FirstAdded}, {"removed", t.FirstRemoved}, {"moved", t.Placement.First}} {
			if len(l.ids) == 0 {
				continue
			}
			if !listed {
				fmt.Fprintln(w, "\ne.g.\tids")
				listed = true
			}
			fmt.Fprintf(w, "%s %s\t%s\n", kind, l.what, strings.Join(l.ids, " "))
		}
	}
	for _, kind := range kinds {
		writeQuantiles(w, "norms of "+string(kind), r.Tower(kind).Norms)
	}
}

func writeQuantiles(w io.Writer, name string, list []Quantile) {
	fmt.Fprintf(w, "\n%s\t", name)
	for _, q := range list {
		fmt.Fprintf(w, "%g%%\t", 100*q.Share)
	}
	fmt.Fprint(w, "\ncandidate\t")
	for _, q := range list {
		fmt.Fprintf(w, "%.4g\t", q.Candidate)
	}
	fmt.Fprint(w, "\nprevious\t")
	for _, q := range list {
		fmt.Fprintf(w, "%.4g\t", q.Previous)
	}
	fmt.Fprintln(w)
}

func (r *Report) writeCandidates(w io.Writer) {
	for _, s := range r.Scores {
		if r.Queried > 0 {
			writeQuantiles(w, fmt.Sprintf("scores at rank %d", s.Rank), s.Quantiles)
		}
	}
	fmt.Fprintf(w, "\ncandidates of %d users\teligible\tbefore", r.Queried)
	for _, k := range bands {
		fmt.Fprintf(w, "\toverlap@%d", k)
	}
	fmt.Fprintf(w, "\nall apps\t%d\t%d", r.Apps.Rows, r.Apps.PreviousRows)
	writeOverlap(w, r.Overlap)
	for _, s := range r.Segments {
		fmt.Fprintf(w, "%s\t%s\t%s", s.Name, known(s.InCandidate, s.Eligible), known(s.InPrevious, s.PreviousEligible))
		writeOverlap(w, s.Overlap)
	}
	fmt.Fprintf(w, "\n%d apps are among the best %d of any of these users, %d were\n", r.Distinct, bands[len(bands)-1], r.PreviousDistinct)
}

func known(is bool, n int) string {
	if !is {
		return "-"
	}
	return fmt.Sprint(n)
}

func writeOverlap(w io.Writer, list []Overlap) {
	for i := range bands {
		if i < len(list) && list[i].Users > 0 {
			fmt.Fprintf(w, "\t%.4f", list[i].Mean)
		} else {
			fmt.Fprint(w, "\t-")
		}
	}
	fmt.Fprintln(w)
}

func (r *Report) writeAttributes(w io.Writer) {
	if len(r.Attributes) == 0 {
		return
	}
	fmt.Fprintln(w, "\nattribute\ttype\tapps\tbefore\tshare\tbefore")
	for _, a := range r.Attributes {
		kind := a.Type
		switch {
		case a.Type == "":
			kind = "gone, was " + a.PreviousType
		case a.PreviousType == "":
			kind += ", new"
		case a.Type != a.PreviousType:
			kind += ", was " + a.PreviousType
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%.1f%%\t%.1f%%\n", a.Name, kind, a.Rows, a.PreviousRows, 100*a.Coverage, 100*a.PreviousCoverage)
	}
}
