package engines

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/tandem-ann/tandem/index"
)

// Report is what a run measured. The names of its JSON fields are stable.
type Report struct {
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
	Engines  []Engine     `json:"engines"`
	Results  []Result     `json:"results"` // by k, engine and effort
	Levels   []Level      `json:"levels"`  // by k, recall and engine
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
	Recall    float64  `json:"recall"` // mean over the queries
	QPS       float64  `json:"qps"`    // one query at a time
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
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteTable writes the report for people: what was measured, what the engines
// cost, for each k what each setting did (under floor, how many times as long as
// its floor it took), and the engines compared at each level.
func (r *Report) WriteTable(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "base      %s: %d rows, metric %s, dim %d\n", r.Base, r.Rows, r.Metric, r.Dim)
	fmt.Fprintf(&b, "queries   %s: %d asked, one at a time on one thread, %d rounds; %d others calibrated\n", r.Queries, r.Asked, r.Rounds, r.Sample)
	fmt.Fprintf(&b, "machine   %s, %s kernel, %s, builds on %d threads\n", r.Platform, r.Kernel, r.Go, r.Threads)
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "note      %s\n", note)
	}
	b.WriteByte('\n')
	r.costTable(&b)
	for i := 0; i < len(r.Results); {
		n := i + 1
		for n < len(r.Results) && r.Results[n].K == r.Results[i].K {
			n++
		}
		b.WriteByte('\n')
		resultTable(&b, r.Results[i:n])
		i = n
	}
	r.levelTables(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func newTable(b *strings.Builder) *tabwriter.Writer {
	return tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
}

func (r *Report) costTable(b *strings.Builder) {
	w := newTable(b)
	fmt.Fprintf(w, "engine\tbuild\tcalibrate\tMB\tbytes a row\t\n")
	for _, e := range r.Engines {
		calibrate, mb, perRow := "-", "-", "-"
		if e.CalibrateSeconds > 0 {
			calibrate = fmt.Sprintf("%.1fs", e.CalibrateSeconds)
		}
		if e.Bytes > 0 {
			mb, perRow = fmt.Sprintf("%.1f", float64(e.Bytes)/1e6), fmt.Sprintf("%.0f", float64(e.Bytes)/float64(r.Rows))
		}
		fmt.Fprintf(w, "%s\t%.1fs\t%s\t%s\t%s\t\n", e.Engine, e.BuildSeconds, calibrate, mb, perRow)
	}
	_ = w.Flush() // a strings.Builder takes everything
}

// resultTable writes the results of one k.
func resultTable(b *strings.Builder, results []Result) {
	w := newTable(b)
	fmt.Fprintf(w, "k=%d\tsetting\trecall\tqps\tmean\tp50\tp99\tdistances\tfloor\t  how\n", results[0].K)
	for _, r := range results {
		distances := "-"
		if r.Distances != nil {
			distances = fmt.Sprintf("%.0f", *r.Distances)
		}
		floor := "-"
		if r.Floor != nil {
			floor = fmt.Sprintf("%.2fx", r.Mean / *r.Floor)
		}
		fmt.Fprintf(w, "%s\t%s\t%.4f\t%.0f\t%s\t%s\t%s\t%s\t%s\t  %s\n",
			r.Engine, r.Setting, r.Recall, r.QPS, micros(r.Mean), micros(r.P50), micros(r.P99), distances, floor, r.How)
	}
	_ = w.Flush()
}

// levelTables writes, for each k, a line for each engine.
func (r *Report) levelTables(b *strings.Builder) {
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
func (r *Report) title() string {
	return fmt.Sprintf("%s, %d rows, %s, dim %d", filepath.Base(filepath.Dir(r.Base)), r.Rows, r.Metric, r.Dim)
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
