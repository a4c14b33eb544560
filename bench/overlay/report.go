package overlay

import (
	"fmt"
	"io"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is what a run measured. The names of its JSON fields are stable.
type Report struct {
	Snapshot  manifest.Digest `json:"snapshot"`
	Metric    index.Metric    `json:"metric"`
	Dim       int             `json:"dim"`
	Apps      int             `json:"apps"` // of the snapshot
	Shards    int             `json:"shards"`
	Takedowns int             `json:"takedowns"`
	Fresh     int             `json:"fresh"`
	// Runs is how many parts the fresh apps are in.
	Runs    int      `json:"runs"`
	Queries int      `json:"queries"`
	Rounds  int      `json:"rounds"`
	Results []Result `json:"results"`
	// Missed are the targets that were missed, in words.
	Missed []string `json:"missed,omitempty"`
}

// Result is what was measured at one setting.
type Result struct {
	K      int     `json:"k"`
	Target float64 `json:"target"`
	Sides  []Side  `json:"sides"`
	// Fresh is how many fresh apps exact answers had, and Found how many of those the
	// answers had.
	Fresh int `json:"fresh"`
	Found int `json:"found"`
}

// Side is what was measured with some of the changes: the times that one thread of a
// processor takes for a query, in microseconds, of which each is the median over the rounds.
type Side struct {
	Name string  `json:"name"` // without, empty, takedowns, all
	P50  float64 `json:"p50_us"`
	P99  float64 `json:"p99_us"`
	Mean float64 `json:"mean_us"`
	// Ratio is the median over the rounds of P50 by that of without.
	Ratio float64 `json:"ratio"`
	// Recall is the mean recall against the exact scan, and Worst that of the worst percent
	// of the queries; of without and all.
	Recall *float64 `json:"recall,omitempty"`
	Worst  *float64 `json:"worst_percent,omitempty"`
}

// report fills in what was measured.
func (r *run) report(report *Report) *Report {
	for _, m := range r.results {
		result := Result{K: m.k, Target: m.target, Fresh: m.fresh, Found: m.found}
		for i, name := range sides {
			side := Side{Name: name}
			var ratios []float64
			for n := range m.rounds[i] {
				ratios = append(ratios, m.rounds[i][n].p50/m.rounds[0][n].p50)
			}
			side.Ratio = median(ratios)
			side.P50 = medianOf(m.rounds[i], func(r round) float64 { return r.p50 })
			side.P99 = medianOf(m.rounds[i], func(r round) float64 { return r.p99 })
			side.Mean = medianOf(m.rounds[i], func(r round) float64 { return r.mean })
			if i == 0 || i == len(sides)-1 {
				side.Recall, side.Worst = &m.mean[i].mean, &m.mean[i].worst
			}
			result.Sides = append(result.Sides, side)
		}
		report.Results = append(report.Results, result)
		report.judge(&result)
	}
	return report
}

// judge notes which targets a result misses.
func (r *Report) judge(result *Result) {
	all := result.Sides[len(sides)-1]
	missed := func(format string, args ...any) {
		r.Missed = append(r.Missed, fmt.Sprintf("k %d, target %v: ", result.K, result.Target)+fmt.Sprintf(format, args...))
	}
	if all.Ratio > TargetRatio {
		missed("a query takes %.2f times as long as without, at most %v is wanted", all.Ratio, TargetRatio)
	}
	if *all.Recall < result.Target {
		missed("recall is %.4f", *all.Recall)
	}
	if result.Found < result.Fresh {
		missed("%d of %d fresh apps were found", result.Found, result.Fresh)
	}
}

func medianOf(rounds []round, of func(round) float64) float64 {
	var list []float64
	for _, r := range rounds {
		list = append(list, of(r))
	}
	return median(list)
}

func median(list []float64) float64 {
	slices.Sort(list)
	return list[len(list)/2]
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	fmt.Fprintf(b, "%d apps, %d dimensions, %s, %d shards; %d taken down, %d fresh in %d runs; %d queries, %d rounds\n",
		r.Apps, r.Dim, r.Metric, r.Shards, r.Takedowns, r.Fresh, r.Runs, r.Queries, r.Rounds)
	t := wording.NewTable(b, wording.Right)
	fmt.Fprintln(t, "k\ttarget\tside\tp50 us\tp99 us\tmean us\ttimes\trecall\tworst 1%\tfresh found\t")
	for _, result := range r.Results {
		for _, s := range result.Sides {
			fmt.Fprintf(t, "%d\t%v\t%s\t%.1f\t%.1f\t%.1f\t%.3f\t", result.K, result.Target, s.Name, s.P50, s.P99, s.Mean, s.Ratio)
			if s.Recall != nil {
				fmt.Fprintf(t, "%.4f\t%.3f\t", *s.Recall, *s.Worst)
			} else {
				fmt.Fprint(t, "\t\t")
			}
			if s.Name == sides[len(sides)-1] {
				fmt.Fprintf(t, "%d of %d", result.Found, result.Fresh)
			}
			fmt.Fprintln(t, "\t")
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(w, b.String())
	return err
}
