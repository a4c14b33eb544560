package bench

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/index"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/manifest"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is what a run measured. The names of its JSON fields are stable.
type Report struct {
	Model        string          `json:"model"`
	ModelVersion string          `json:"model_version"`
	Snapshot     manifest.Digest `json:"snapshot"`
	Builder      string          `json:"builder"`
	Tower        shard.Kind      `json:"tower"` // the tower that was searched
	Metric       index.Metric    `json:"metric"`
	Dim          int             `json:"dim"`
	Rows         int             `json:"rows"`
	Shards       int             `json:"shards"`
	Params       string          `json:"params"`
	Filter       string          `json:"filter,omitempty"`
	Segment      string          `json:"segment,omitempty"`
	Eligible     int             `json:"eligible"`
	Queries      int             `json:"queries"`
	Overlap      int             `json:"overlap"` // queries that the build may have used too
	Rounds       int             `json:"rounds"`
	Processors   int             `json:"processors"` // that the shards of one query may use
	Kernel       string          `json:"kernel"`
	Go           string          `json:"go"`
	Platform     string          `json:"platform"`
	Results      []Result        `json:"results"` // by k; the exact scan, the sweep, the targets
}

// Setting is a way to ask.
type Setting string

// The settings.
const (
	Exact  Setting = "exact"  // scan all eligible rows
	Ef     Setting = "ef"     // an effort
	Target Setting = "target" // a recall target
)

// Result is what one setting did. Times are in microseconds; counts are means a
// query, over all shards.
type Result struct {
	K         int                `json:"k"`
	Setting   Setting            `json:"setting"`
	Ef        int                `json:"ef,omitempty"`
	Target    float64            `json:"target,omitempty"`
	Default   bool               `json:"default"`      // what a request gets that asks for nothing else
	Recall    float64            `json:"recall"`       // mean over the queries
	Worst     float64            `json:"recall_worst"` // mean over the worst percent of them
	RecallP1  float64            `json:"recall_p1"`
	RecallMin float64            `json:"recall_min"`
	Mean      float64            `json:"mean_us"`
	P50       float64            `json:"p50_us"`
	P95       float64            `json:"p95_us"`
	P99       float64            `json:"p99_us"`
	QPS       float64            `json:"qps"`      // one query at a time
	Speedup   float64            `json:"speedup"`  // the exact scan's mean time over this one's
	Scored    float64            `json:"scored"`   // distance computations
	Expanded  float64            `json:"expanded"` // nodes whose neighbours were scored
	Plans     map[string]float64 `json:"plans"`    // the share of each plan in the shards' answers
	ShardEf   []int              `json:"shard_ef"` // what most queries took in each shard; 0 is the exact scan
}

// WriteJSON writes the report as one indented object.
func (r *Report) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteTable writes the report for people: what was measured, one table for each
// k with the default marked, and what the default target gave.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	r.header(b)
	results := r.Results
	for len(results) > 0 {
		n := 1
		for n < len(results) && results[n].K == results[0].K {
			n++
		}
		b.WriteByte('\n')
		table(b, results[:n])
		results = results[n:]
	}
	b.WriteByte('\n')
	for _, result := range r.Results {
		if result.Default {
			fmt.Fprintf(b, "recall@%d = %.4f, %.3f for the worst 1%%, at the default target %v: %s, p50 %s, p99 %s, %.1fx the exact scan\n",
				result.K, result.Recall, result.Worst, result.Target, result.effort(), micros(result.P50), micros(result.P99), result.Speedup)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) header(b *wording.Page) {
	fmt.Fprintf(b, "model     %s at %s, snapshot %s by %s\n", r.Model, r.ModelVersion, r.Snapshot.Short(), r.Builder)
	fmt.Fprintf(b, "tower     %s: %d rows in %d shards, metric %s, dim %d\n", r.Tower, r.Rows, r.Shards, r.Metric, r.Dim)
	fmt.Fprintf(b, "params    %s\n", r.Params)
	switch {
	case r.Segment != "" && r.Filter != "":
		fmt.Fprintf(b, "filter    %s in segment %s: %d of %d rows are eligible\n", r.Filter, r.Segment, r.Eligible, r.Rows)
	case r.Segment != "":
		fmt.Fprintf(b, "segment   %s: %d of %d rows are eligible\n", r.Segment, r.Eligible, r.Rows)
	case r.Filter != "":
		fmt.Fprintf(b, "filter    %s: %d of %d rows are eligible\n", r.Filter, r.Eligible, r.Rows)
	}
	from := shard.Users
	if r.Tower == shard.Users {
		from = shard.Apps
	}
	fmt.Fprintf(b, "queries   %d real %s, one at a time, %d rounds\n", r.Queries, from, r.Rounds)
	if r.Overlap > 0 {
		fmt.Fprintf(b, "note      the %s tower is small: %d of the queries may have calibrated the build, which flatters recall\n", from, r.Overlap)
	}
	processors := "1 processor"
	if r.Processors > 1 {
		processors = fmt.Sprintf("%d processors, which the shards of a query share", r.Processors)
	}
	fmt.Fprintf(b, "machine   %s, %s kernel, %s, %s\n", r.Platform, r.Kernel, r.Go, processors)
}

// table writes the results of one k.
func table(b *wording.Page, results []Result) {
	w := wording.NewTable(b, wording.Right)
	fmt.Fprintf(w, "k=%d\trecall\tworst 1%%\tp1\tmin\tmean\tp50\tp95\tp99\tqps\tspeedup\tscored\t  plan\n", results[0].K)
	for _, r := range results {
		fmt.Fprintf(w, "%s\t%.4f\t%.3f\t%.3f\t%.3f\t%s\t%s\t%s\t%s\t%.0f\t%.1fx\t%.0f\t  %s\n",
			r.name(), r.Recall, r.Worst, r.RecallP1, r.RecallMin, micros(r.Mean), micros(r.P50), micros(r.P95), micros(r.P99),
			r.QPS, r.Speedup, r.Scored, r.how())
	}
	_ = w.Flush() // a page takes everything
}

// name returns the setting, with a star if it is the default.
func (r *Result) name() string {
	switch {
	case r.Default:
		return fmt.Sprintf("* target %v", r.Target)
	case r.Setting == Target:
		return fmt.Sprintf("target %v", r.Target)
	case r.Setting == Ef:
		return fmt.Sprintf("ef %d", r.Ef)
	}
	return string(r.Setting)
}

// how returns the plans, the most frequent first, and the efforts that a target
// took.
func (r *Result) how() string {
	names := slices.SortedFunc(maps.Keys(r.Plans), func(a, b string) int {
		switch {
		case r.Plans[a] != r.Plans[b] && r.Plans[a] > r.Plans[b]:
			return -1
		case r.Plans[a] != r.Plans[b]:
			return 1
		}
		return strings.Compare(a, b)
	})
	if len(names) > 1 {
		for i, name := range names {
			names[i] = fmt.Sprintf("%.0f%% %s", 100*r.Plans[name], name)
		}
	}
	how := strings.Join(names, ", ")
	if r.Setting == Target && slices.Max(r.ShardEf) > 0 {
		how += ", " + r.effort()
	}
	return how
}

// maxListed is how many shards' efforts a line lists.
const maxListed = 8

// effort lists the shards' efforts: "ef 120/118", or from least to most when
// there are many.
func (r *Result) effort() string {
	switch {
	case slices.Max(r.ShardEf) == 0:
		return "exact scan"
	case slices.Min(r.ShardEf) == slices.Max(r.ShardEf):
		return fmt.Sprintf("ef %d", r.ShardEf[0])
	case len(r.ShardEf) > maxListed:
		return fmt.Sprintf("ef %d to %d", slices.Min(r.ShardEf), slices.Max(r.ShardEf))
	}
	list := make([]string, len(r.ShardEf))
	for i, ef := range r.ShardEf {
		list[i] = strconv.Itoa(ef)
	}
	return "ef " + strings.Join(list, "/")
}

// micros formats a time given in microseconds to three digits.
func micros(us float64) string {
	switch {
	case us >= 1e6:
		return digits(us/1e6) + "s"
	case us >= 1e3:
		return digits(us/1e3) + "ms"
	}
	return digits(us) + "us"
}

func digits(x float64) string {
	switch {
	case x >= 100:
		return fmt.Sprintf("%.0f", x)
	case x >= 10:
		return fmt.Sprintf("%.1f", x)
	}
	return fmt.Sprintf("%.2f", x)
}
