package replay

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is what a replay found. The names of its JSON fields are stable.
type Report struct {
	Log     string         `json:"log"`
	Read    int            `json:"read"`  // queries in the log, within the bounds of time
	First   time.Time      `json:"first"` // when the first of them came
	Last    time.Time      `json:"last"`
	LeftOut map[string]int `json:"left_out"` // queries that were not asked, by reason

	Against          Snapshot  `json:"against"`
	Baseline         *Snapshot `json:"baseline,omitempty"`
	Failures         []Failure `json:"failures"` // of the snapshot, the most frequent first
	BaselineFailures []Failure `json:"baseline_failures,omitempty"`

	Overall  Group   `json:"overall"`
	Segments []Group `json:"segments"` // by name; those without one have the empty name
	Arms     []Group `json:"arms"`     // by name, in the same way

	// Broken says which thresholds are broken. Who has some sets it.
	Broken []string `json:"broken,omitempty"`

	WarmUp     int    `json:"warm_up"`    // queries that each snapshot was asked before, unmeasured
	Processors int    `json:"processors"` // that the shards of one query may use
	Kernel     string `json:"kernel"`
	Go         string `json:"go"`
	Platform   string `json:"platform"`
}

// Snapshot is one that was asked.
type Snapshot struct {
	Digest       manifest.Digest `json:"digest"`
	Model        string          `json:"model"`
	ModelVersion string          `json:"model_version"`
	Apps         int             `json:"apps"`
	Users        int             `json:"users"`
}

// Failure is how some of the queries failed.
type Failure struct {
	Code    string `json:"code"`    // the Connect code's name, such as "not_found"
	Queries int    `json:"queries"` // how many
	Example string `json:"example"` // the text of the first
}

// Group is what came of some of the queries.
type Group struct {
	Name    string `json:"name,omitempty"`
	Queries int    `json:"queries"` // that were asked
	Failed  int    `json:"failed"`  // of these; all that follows is of the others
	Change         // from the recorded answers
	// Intervals are those of the means in Change and of Replayed; nil below two answers.
	Intervals *Intervals `json:"intervals,omitempty"`
	// Recorded are the latencies in the log, which depend on the server's machine and
	// load; Replayed are those of the replay.
	Recorded Latency        `json:"recorded"`
	Replayed Latency        `json:"replayed"`
	Baseline *BaselineGroup `json:"baseline,omitempty"`
}

// BaselineGroup compares with the baseline.
type BaselineGroup struct {
	Asked   int `json:"asked"`   // queries that the baseline was asked
	Queries int `json:"queries"` // that both answered; all that follows is of these
	Change      // from the baseline's answers
	// Intervals are those of the means in Change, of Replayed and of LatencyRatio; nil
	// below two answers.
	Intervals    *Intervals `json:"intervals,omitempty"`
	Replayed     Latency    `json:"replayed"`
	Latency      Latency    `json:"latency"`       // the baseline's
	LatencyRatio float64    `json:"latency_ratio"` // Replayed's mean over Latency's
}

// Change is how answers differ from earlier ones. The overlap of two answers is how
// many ids are in both, as a share of the longer one; that of two empty ones is 1.
type Change struct {
	Overlap    float64 `json:"overlap"`     // mean over the queries
	OverlapP1  float64 `json:"overlap_p1"`  // that 1% of the queries are below
	OverlapMin float64 `json:"overlap_min"` // of the worst query
	OverlapLow float64 `json:"overlap_low"` // share of the queries whose overlap is below 0.5
	RankChange float64 `json:"rank_change"` // mean difference of the ranks of an id that is in both, unsigned
	TopChanged float64 `json:"top_changed"` // share of the queries whose first id is another
	// ScoreShift is the mean difference of the scores of an id that is in both,
	// unsigned and as a share of the larger of the two magnitudes: 0 to 2.
	ScoreShift float64 `json:"score_shift"`
	// MeanScoreShift is the same of the mean score of all answers, with its sign:
	// above 0 if scores are larger than before.
	MeanScoreShift float64 `json:"mean_score_shift"`
}

// Intervals are what the means beside them lie in with a confidence of 95%. One is nil
// where fewer than two queries have such a number.
type Intervals struct {
	Overlap        Interval  `json:"overlap"`
	RankChange     *Interval `json:"rank_change,omitempty"`
	ScoreShift     *Interval `json:"score_shift,omitempty"`
	MeanScoreShift *Interval `json:"mean_score_shift,omitempty"`
	Latency        Interval  `json:"replayed_mean_us"`
	LatencyRatio   *Interval `json:"latency_ratio,omitempty"` // of a baseline
}

// Latency sums up latencies, in microseconds.
type Latency struct {
	Mean float64 `json:"mean_us"`
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
}

// WriteJSON writes the report as one indented object.
func (r *Report) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	fmt.Fprintf(b, "against   %s\n", r.Against.text())
	if r.Baseline != nil {
		fmt.Fprintf(b, "baseline  %s\n", r.Baseline.text())
	}
	fmt.Fprintf(b, "log       %s: %d queries from %s to %s, %d of them asked\n", r.Log, r.Read,
		r.First.UTC().Format(time.RFC3339), r.Last.UTC().Format(time.RFC3339), r.Overall.Queries)
	fmt.Fprintf(b, "machine   %s, %s kernel, %s, %d processors, one query at a time after %d to warm up\n",
		r.Platform, r.Kernel, r.Go, r.Processors, r.WarmUp)

	groups := r.groups()
	b.WriteString("\nfrom the recorded answers\n")
	changes(b, groups, func(g *Group) (int, int, *Change) { return g.Queries, g.Failed, &g.Change })
	b.WriteByte('\n')
	t := wording.NewTable(b, wording.Right)
	fmt.Fprintln(t, "latency\trecorded p50\tp99\treplayed mean\tp50\tp99\t")
	for _, g := range groups {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t\n", g.Name, micros(g.Recorded.P50), micros(g.Recorded.P99),
			micros(g.Replayed.Mean), micros(g.Replayed.P50), micros(g.Replayed.P99))
	}
	_ = t.Flush() // a page takes everything
	intervals(b, groups, false)
	if r.Baseline != nil {
		b.WriteString("\nfrom the baseline's answers, where both answered\n")
		changes(b, groups, func(g *Group) (int, int, *Change) {
			return g.Baseline.Asked, g.Baseline.Asked - g.Baseline.Queries, &g.Baseline.Change
		})
		b.WriteByte('\n')
		t = wording.NewTable(b, wording.Right)
		fmt.Fprintln(t, "latency\tbaseline mean\tp50\tp99\treplayed mean\tp50\tp99\tratio of means\t")
		for _, g := range groups {
			x := g.Baseline
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%.3f\t\n", g.Name, micros(x.Latency.Mean), micros(x.Latency.P50), micros(x.Latency.P99),
				micros(x.Replayed.Mean), micros(x.Replayed.P50), micros(x.Replayed.P99), x.LatencyRatio)
		}
		_ = t.Flush()
		intervals(b, groups, true)
	}
	r.footer(b)
	_, err := io.WriteString(w, b.String())
	return err
}

// footer says what was left out, what failed and what is broken.
func (r *Report) footer(b *wording.Page) {
	if len(r.LeftOut)+len(r.Failures)+len(r.BaselineFailures)+len(r.Broken) > 0 {
		b.WriteByte('\n')
	}
	for _, reason := range slices.Sorted(maps.Keys(r.LeftOut)) {
		fmt.Fprintf(b, "left out: %d %s\n", r.LeftOut[reason], reason)
	}
	for _, f := range r.Failures {
		fmt.Fprintf(b, "failed: %d with %s, such as: %s\n", f.Queries, f.Code, f.Example)
	}
	for _, f := range r.BaselineFailures {
		fmt.Fprintf(b, "failed on the baseline: %d with %s, such as: %s\n", f.Queries, f.Code, f.Example)
	}
	for _, text := range r.Broken {
		fmt.Fprintf(b, "broken: %s\n", text)
	}
}

func (s *Snapshot) text() string {
	return fmt.Sprintf("%s at %s, snapshot %s: %d apps, %d users", s.Model, s.ModelVersion, s.Digest.Short(), s.Apps, s.Users)
}

// groups lists all groups, named as a table names them. Where there is one segment, or
// one arm, it is all there is.
func (r *Report) groups() []*Group {
	all := r.Overall
	all.Name = "all"
	list := []*Group{&all}
	add := func(kind string, groups []Group) {
		if len(groups) < 2 {
			return
		}
		for _, g := range groups {
			if g.Name == "" {
				g.Name = "no " + kind
			} else {
				g.Name = kind + " " + g.Name
			}
			list = append(list, &g)
		}
	}
	add("segment", r.Segments)
	add("arm", r.Arms)
	return list
}

// changes writes a table of changes.
func changes(b *wording.Page, groups []*Group, of func(*Group) (queries, failed int, c *Change)) {
	t := wording.NewTable(b, wording.Right)
	fmt.Fprintln(t, "answers\tqueries\tfailed\toverlap\tp1\tmin\tbelow 0.5\trank change\ttop changed\tscore shift\tmean score\t")
	for _, g := range groups {
		queries, failed, c := of(g)
		fmt.Fprintf(t, "%s\t%d\t%d\t%.4f\t%.3f\t%.3f\t%.2f%%\t%.2f\t%.2f%%\t%.4f\t%+.4f\t\n", g.Name, queries, failed,
			c.Overlap, c.OverlapP1, c.OverlapMin, 100*c.OverlapLow, c.RankChange, 100*c.TopChanged, c.ScoreShift, c.MeanScoreShift)
	}
	_ = t.Flush() // a page takes everything
}

// intervals writes a table of what the means lie in, those from the recorded answers or
// those from the baseline's.
func intervals(b *wording.Page, groups []*Group, baseline bool) {
	fmt.Fprintf(b, "\n")
	t := wording.NewTable(b, wording.Right)
	fmt.Fprint(t, "95% intervals of means\toverlap\trank change\tscore shift\tmean score\treplayed mean\t")
	if baseline {
		fmt.Fprint(t, "ratio of means\t")
	}
	fmt.Fprintln(t)
	text := func(format string, x *Interval) string {
		if x == nil {
			return "-"
		}
		return fmt.Sprintf(format+" to "+format, x.Lower, x.Upper)
	}
	for _, g := range groups {
		x := g.Intervals
		if baseline {
			x = g.Baseline.Intervals
		}
		if x == nil {
			fmt.Fprintf(t, "%s\t-\t-\t-\t-\t-\t", g.Name)
			x = &Intervals{}
		} else {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s to %s\t", g.Name, text("%.4f", &x.Overlap), text("%.2f", x.RankChange),
				text("%.4f", x.ScoreShift), text("%+.4f", x.MeanScoreShift), micros(max(x.Latency.Lower, 0)), micros(x.Latency.Upper))
		}
		if baseline {
			fmt.Fprintf(t, "%s\t", text("%.3f", x.LatencyRatio))
		}
		fmt.Fprintln(t)
	}
	_ = t.Flush() // a page takes everything
}

// micros formats a time given in microseconds to three digits.
func micros(us float64) string {
	unit := "us"
	switch {
	case us >= 1e6:
		us, unit = us/1e6, "s"
	case us >= 1e3:
		us, unit = us/1e3, "ms"
	}
	switch {
	case us >= 100:
		return fmt.Sprintf("%.0f%s", us, unit)
	case us >= 10:
		return fmt.Sprintf("%.1f%s", us, unit)
	}
	return fmt.Sprintf("%.2f%s", us, unit)
}
