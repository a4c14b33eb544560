package engines

import (
	"fmt"
	"io"
	"path/filepath"
	"slices"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Setup is what a run measured with.
type Setup struct {
	Base     string       `json:"base"`
	Queries  string       `json:"queries"`
	Metric   index.Metric `json:"metric"`
	Dim      int          `json:"dim"`
	Rows     int          `json:"rows"`
	Asked    int          `json:"asked"`  // queries
	Sample   int          `json:"sample"` // other queries, which calibrated our index
	Rounds   int          `json:"rounds"`
	Threads  int          `json:"threads"` // of the builds
	Kernel   string       `json:"kernel"`  // of our index
	Go       string       `json:"go"`
	Platform string       `json:"platform"`
	Notes    []string     `json:"notes,omitempty"`
}

// Report is what a run measured. The names of its JSON fields are stable.
type Report struct {
	Setup
	Engines []Engine `json:"engines"`
	Results []Result `json:"results"` // by k, engine and effort
	Levels  []Level  `json:"levels"`  // by k, recall and engine
}

// Engine is one that was measured.
type Engine struct {
	Engine Spec `json:"engine"`
	Cost
}

// Result is what one setting of an engine did. Times are in microseconds.
type Result struct {
	Engine Spec `json:"engine"`
	Setting
	Recall    float64  `json:"recall"`       // mean over the queries
	Worst     float64  `json:"worst_recall"` // mean over the worst hundredth of them
	Asked     int      `json:"asked"`        // how many queries the recall is of
	QPS       float64  `json:"qps"`          // one query at a time
	Mean      float64  `json:"mean_us"`
	P50       float64  `json:"p50_us"`
	P99       float64  `json:"p99_us"`
	Distances *float64 `json:"distances,omitempty"` // computations a query; absent where unknown
	// Floor is the time of a walk of our index's distance computations alone, over
	// the same rows in the same order.
	Floor *float64 `json:"floor_us,omitempty"`
	How   string   `json:"how,omitempty"` // what our index did
}

// Level is the speed of an engine at a recall, at its best effort.
type Level struct {
	Engine Spec     `json:"engine"`
	K      int      `json:"k"`
	Recall float64  `json:"recall"`
	QPS    *float64 `json:"qps,omitempty"`   // absent when no effort reaches the recall
	Ratio  *float64 `json:"ratio,omitempty"` // the first engine's speed over this one's
}

// WriteJSON writes the report as one indented object.
func (r *Report) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteTable writes the report for people: what was measured, what the engines
// cost, for each k what each setting did (under worst, the recall of the worst
// hundredth of the queries; under floor, how many times as long as its floor it
// took), and the engines compared at each level.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	r.head(b)
	costTable(b, r.Engines, r.Rows)
	resultTables(b, r.Results)
	r.levelTables(b)
	_, err := io.WriteString(w, b.String())
	return err
}

// head writes what was measured, and on what.
func (s *Setup) head(b *wording.Page) {
	fmt.Fprintf(b, "base      %s: %d rows, metric %s, dim %d\n", s.Base, s.Rows, s.Metric, s.Dim)
	fmt.Fprintf(b, "queries   %s: %d asked, one at a time on one thread, %d rounds; %d others calibrated\n", s.Queries, s.Asked, s.Rounds, s.Sample)
	fmt.Fprintf(b, "machine   %s, %s kernel, %s, builds on %d threads\n", s.Platform, s.Kernel, s.Go, s.Threads)
	for _, note := range s.Notes {
		fmt.Fprintf(b, "note      %s\n", note)
	}
	b.WriteByte('\n')
}

func newTable(b *wording.Page) *wording.Table {
	return wording.NewTable(b, wording.Right)
}

func costTable(b *wording.Page, engines []Engine, rows int) {
	w := newTable(b)
	fmt.Fprintf(w, "engine\tbuild\tcalibrate\tMB\tbytes a row\t\n")
	for _, e := range engines {
		calibrate, mb, perRow := "-", "-", "-"
		if e.CalibrateSeconds > 0 {
			calibrate = fmt.Sprintf("%.1fs", e.CalibrateSeconds)
		}
		if e.Bytes > 0 {
			mb, perRow = fmt.Sprintf("%.1f", float64(e.Bytes)/1e6), fmt.Sprintf("%.0f", float64(e.Bytes)/float64(rows))
		}
		fmt.Fprintf(w, "%s\t%.1fs\t%s\t%s\t%s\t\n", e.Engine, e.BuildSeconds, calibrate, mb, perRow)
	}
	_ = w.Flush() // a page takes everything
}

// resultTables writes a table for each k.
func resultTables(b *wording.Page, results []Result) {
	floors := slices.ContainsFunc(results, func(r Result) bool { return r.Floor != nil })
	for i := 0; i < len(results); {
		n := i + 1
		for n < len(results) && results[n].K == results[i].K {
			n++
		}
		b.WriteByte('\n')
		resultTable(b, results[i:n], floors)
		i = n
	}
}

// resultTable writes the results of one k.
func resultTable(b *wording.Page, results []Result, floors bool) {
	w := newTable(b)
	head := "distances"
	if floors {
		head += "\tfloor"
	}
	fmt.Fprintf(w, "k=%d\tsetting\trecall\tworst\tqps\tmean\tp50\tp99\t%s\t  how\n", results[0].K, head)
	for _, r := range results {
		distances := "-"
		if r.Distances != nil {
			distances = fmt.Sprintf("%.0f", *r.Distances)
		}
		switch {
		case floors && r.Floor != nil:
			distances += fmt.Sprintf("\t%.2fx", r.Mean / *r.Floor)
		case floors:
			distances += "\t-"
		}
		fmt.Fprintf(w, "%s\t%s\t%.4f\t%.4f\t%.0f\t%s\t%s\t%s\t%s\t  %s\n",
			r.Engine, r.Setting, r.Recall, r.Worst, r.QPS, micros(r.Mean), micros(r.P50), micros(r.P99), distances, r.How)
	}
	_ = w.Flush()
}

// levelTables writes, for each k, a line for each engine.
func (r *Report) levelTables(b *wording.Page) {
	for i := 0; i < len(r.Levels); i += len(Levels) * len(r.Engines) {
		fmt.Fprintf(b, "\nQPS at recall@%d, and how many times as fast %s is\n", r.Levels[i].K, r.Engines[0].Engine)
		w := newTable(b)
		fmt.Fprint(w, "engine\t")
		for _, recall := range Levels {
			fmt.Fprintf(w, "%v\t\t", recall)
		}
		fmt.Fprintln(w)
		for j, e := range r.Engines {
			fmt.Fprintf(w, "%s\t", e.Engine)
			for n := range Levels {
				l := r.Levels[i+n*len(r.Engines)+j]
				qps, ratio := "-", ""
				if l.QPS != nil {
					qps = fmt.Sprintf("%.0f", *l.QPS)
				}
				if l.Ratio != nil {
					ratio = fmt.Sprintf("%.2fx", *l.Ratio)
				}
				fmt.Fprintf(w, "%s\t%s\t", qps, ratio)
			}
			fmt.Fprintln(w)
		}
		_ = w.Flush()
	}
}

// title names the set.
func (s *Setup) title() string {
	return fmt.Sprintf("%s, %d rows, %s, dim %d", filepath.Base(filepath.Dir(s.Base)), s.Rows, s.Metric, s.Dim)
}

// micros formats a time given in microseconds.
func micros(us float64) string {
	switch {
	case us >= 1e6:
		return fmt.Sprintf("%.2fs", us/1e6)
	case us >= 1e3:
		return fmt.Sprintf("%.2fms", us/1e3)
	}
	return fmt.Sprintf("%.1fus", us)
}
