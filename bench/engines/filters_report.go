package engines

import (
	"fmt"
	"io"

	"github.com/tandem-ann/tandem/shard/wording"
)

// FilterReport is what a run under predicates measured. The names of its JSON fields
// are stable.
type FilterReport struct {
	Setup
	Engines    []Engine          `json:"engines"`
	Target     float64           `json:"target"`     // of the summaries
	Predicates []PredicateResult `json:"predicates"` // none first
}

// PredicateResult is what engines did under a predicate.
type PredicateResult struct {
	Name        string  `json:"name"`
	Filter      string  `json:"filter,omitempty"`
	Eligible    int     `json:"eligible"`
	Selectivity float64 `json:"selectivity"` // eligible over rows
	// Correlation is the share of the 100 rows nearest to a query that are eligible,
	// over the selectivity; the mean over the queries.
	Correlation float64 `json:"correlation"`
	// Evaluate is how long an eligibility filter takes over the attributes, in
	// microseconds, which is in no other figure.
	Evaluate  *float64  `json:"evaluate_us,omitempty"`
	Results   []Result  `json:"results"`   // by k, engine and effort
	Summaries []Summary `json:"summaries"` // by k
}

// Summary compares our index, when it chooses its plan for the report's target, with
// its exact scan of the eligible rows and with the others.
type Summary struct {
	K        int     `json:"k"`
	Recall   float64 `json:"recall"`
	Worst    float64 `json:"worst_recall"`
	Met      bool    `json:"met"` // the recall is at least the target
	QPS      float64 `json:"qps"`
	How      string  `json:"how"`
	ScanQPS  float64 `json:"scan_qps"`
	OverScan float64 `json:"over_scan"` // QPS over that of the scan
	// AtTarget is the fastest peer at the target, absent where none reaches it or our
	// index does not; AtEqual is the fastest at the recall that our index has, up to
	// 0.999.
	AtTarget *Peer `json:"at_target,omitempty"`
	AtEqual  *Peer `json:"at_equal,omitempty"`
	// Slowdown is the mean time of a query at the default target over that without a
	// filter, measured in turn with it; absent where there is no filter.
	Slowdown *float64 `json:"slowdown,omitempty"`
}

// Peer is the fastest engine, ours aside, at a recall.
type Peer struct {
	Engine Spec    `json:"engine"`
	Recall float64 `json:"recall"`
	QPS    float64 `json:"qps"`
	Ratio  float64 `json:"ratio"` // our speed over this
}

// WriteJSON writes the report as one indented object.
func (r *FilterReport) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteTable writes the report for people: what was measured, what the engines cost,
// for each predicate what each setting did, and for each k a line for each predicate
// that compares our index with the others.
func (r *FilterReport) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	r.head(b)
	costTable(b, r.Engines, r.Rows)
	for _, p := range r.Predicates {
		fmt.Fprintf(b, "\n%s", p.Name)
		if p.Filter != "" {
			fmt.Fprintf(b, ": %s", p.Filter)
		}
		fmt.Fprintf(b, "\n%d of %d rows are eligible, selectivity %s, correlation %s", p.Eligible, r.Rows, figures(p.Selectivity), figures(p.Correlation))
		if p.Evaluate != nil {
			fmt.Fprintf(b, ", evaluated in %s", micros(*p.Evaluate))
		}
		b.WriteByte('\n')
		resultTables(b, p.Results)
	}
	r.summaryTables(b)
	_, err := io.WriteString(w, b.String())
	return err
}

// summaryTables writes a table for each k.
func (r *FilterReport) summaryTables(b *wording.Page) {
	for i, first := range r.Predicates[0].Summaries {
		fmt.Fprintf(b, "\nk=%d: tandem at target %v, how many times as fast as its exact scan of the eligible rows, as the best peer at recall %v and as the best peer at equal recall, and at target 0.99 how many times as long as with no filter\n",
			first.K, r.Target, r.Target)
		w := newTable(b)
		fmt.Fprintln(w, "predicate\teligible\tselectivity\tcorrelation\trecall\tworst\tmet\tqps\tscan\tpeer\tequal\ttime\t  how, best peers")
		for _, p := range r.Predicates {
			s := p.Summaries[i]
			met := "no"
			if s.Met {
				met = "yes"
			}
			slowdown := "-"
			if s.Slowdown != nil {
				slowdown = fmt.Sprintf("%.2fx", *s.Slowdown)
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\t%.4f\t%.4f\t%s\t%.0f\t%.2fx\t%s\t%s\t%s\t  %s%s\n",
				p.Name, p.Eligible, figures(p.Selectivity), figures(p.Correlation), s.Recall, s.Worst, met, s.QPS, s.OverScan,
				s.AtTarget.ratio(), s.AtEqual.ratio(), slowdown, s.How, s.peers())
		}
		_ = w.Flush()
	}
}

func (p *Peer) ratio() string {
	if p == nil {
		return "-"
	}
	return fmt.Sprintf("%.2fx", p.Ratio)
}

// peers names the best ones and their speeds.
func (s *Summary) peers() string {
	text := ""
	for _, p := range []*Peer{s.AtTarget, s.AtEqual} {
		if p != nil {
			text += fmt.Sprintf("; %s %.0f at %.3f", p.Engine, p.QPS, p.Recall)
		}
	}
	return text
}

// figures writes a number with three significant ones.
func figures(x float64) string {
	if x >= 1000 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}
