package cluster

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/wording"
)

// Phase is what became of queries while one kind of fault went on, or none.
type Phase struct {
	Name    string           `json:"name"`
	Times   int              `json:"times"`
	Queries int64            `json:"queries"`
	P50     float64          `json:"p50_ms"`
	P99     float64          `json:"p99_ms"`
	Max     float64          `json:"max_ms"`
	Failed  map[string]int64 `json:"failed,omitempty"` // by reason
	Fenced  int64            `json:"fenced"`           // refused because the fence demands it
	Killed  int64            `json:"killed"`           // on their way to a router that was killed
	// Before is the 99th percentile of the steady time before the fault, the middle one of
	// several.
	Before float64 `json:"before_p99_ms"`
	// Back is how many seconds after the fault began latencies were at most three times those
	// before; negative where they were not in the end.
	Back float64 `json:"back_seconds"`
}

// Report is what was counted.
type Report struct {
	Seed     uint64         `json:"seed"`
	Nodes    int            `json:"nodes"`
	Replicas int            `json:"replicas"`
	Routers  int            `json:"routers"`
	Rate     float64        `json:"rate"`
	Faults   map[string]int `json:"faults"`
	Phases   []Phase        `json:"phases"`
	Lag      float64        `json:"lag_p99_ms"` // of the sender behind its times
	Rows     int64          `json:"rows"`       // candidates that were judged
	Downs    int64          `json:"takedowns"`
	Restores int64          `json:"restores"`
	Retried  int64          `json:"retried_writes"`
	Wrong    int64          `json:"wrong"`
	Mixed    int64          `json:"mixed"`
	Late     int64          `json:"late"`
	Older    int64          `json:"older"`
	Failed   int64          `json:"failed"`
	Told     []string       `json:"told,omitempty"` // the first of what is wrong, in words
	// Left is why faults could not be, by name.
	Left map[string]string `json:"left,omitempty"`
}

// Broken says which bounds were broken.
func (r *Report) Broken() []string {
	var list []string
	for _, c := range []struct {
		n    int64
		what string
	}{
		{r.Wrong, "wrong"}, {r.Mixed, "mixed"}, {r.Late, "late"}, {r.Older, "older"}, {r.Failed, "failed"},
	} {
		if c.n > 0 {
			list = append(list, fmt.Sprintf("%d %s", c.n, c.what))
		}
	}
	return list
}

// slower is how many times the 99th percentile before latencies may be, to be as before.
const slower = 3

func millis(ns int64) float64 { return float64(ns) / 1e6 }

// report sums up what was counted.
func (w *world) report() *Report {
	t, g := w.tally, w.sender.registers
	t.mu.Lock()
	defer t.mu.Unlock()
	g.mu.Lock()
	defer g.mu.Unlock()
	r := &Report{
		Seed: w.o.Seed, Nodes: w.o.Nodes, Replicas: w.o.Replicas, Routers: w.o.Routers, Rate: w.o.Rate, Faults: w.begun,
		Lag: millis(t.lags.ValueAtPercentile(99)), Rows: t.rows, Downs: g.downs, Restores: g.ups, Retried: g.retries,
		Wrong: t.findings[wrong], Mixed: t.findings[mixed], Late: t.findings[late], Older: t.findings[older], Told: t.told, Left: w.left,
	}
	for _, name := range slices.Sorted(maps.Keys(t.phases)) {
		p := t.phases[name]
		one := Phase{
			Name: name, Times: int(p.begun), Queries: p.times.TotalCount(), Failed: p.failed, Fenced: p.fenced, Killed: p.killed,
			P50: millis(p.times.ValueAtPercentile(50)), P99: millis(p.times.ValueAtPercentile(99)), Max: millis(p.times.Max()),
			Before: millis(int64(p.calm())), Back: p.back(slower * p.calm()).Seconds(),
		}
		for _, n := range p.failed {
			r.Failed += n
		}
		r.Phases = append(r.Phases, one)
	}
	slices.SortStableFunc(r.Phases, func(a, b Phase) int { // the steady one first
		first := func(p Phase) int {
			if p.Name == steadyPhase {
				return 0
			}
			return 1
		}
		return cmp.Compare(first(a), first(b))
	})
	return r
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := wording.NewTable(w)
	fmt.Fprintf(t, "seed %d, %d nodes, %d replicas, %d routers, %g queries a second\n\n", r.Seed, r.Nodes, r.Replicas, r.Routers, r.Rate)
	fmt.Fprintf(t, "phase\ttimes\tqueries\tp50 ms\tp99 ms\tmax ms\tp99 before\tback after s\tfenced\tkilled\tfailed\n")
	for _, p := range r.Phases {
		var failed []string
		for _, reason := range slices.Sorted(maps.Keys(p.Failed)) {
			failed = append(failed, fmt.Sprintf("%s %d", reason, p.Failed[reason]))
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%d\t%d\t%s\n", p.Name, p.Times, p.Queries, p.P50, p.P99, p.Max, p.Before, p.Back, p.Fenced, p.Killed, cmp.Or(strings.Join(failed, ", "), "0"))
	}
	fmt.Fprintf(t, "\n%d candidates judged, %d takedowns, %d restores, %d writes sent again, %d releases, sender up to %.1f ms behind (99th percentile)\n", r.Rows, r.Downs, r.Restores, r.Retried, r.Faults["release"], r.Lag)
	fmt.Fprintf(t, "wrong %d, mixed %d, late %d, older %d, failed %d\n", r.Wrong, r.Mixed, r.Late, r.Older, r.Failed)
	for _, text := range r.Told {
		fmt.Fprintf(t, "%s\n", text)
	}
	for _, name := range slices.Sorted(maps.Keys(r.Left)) {
		fmt.Fprintf(t, "NOT RUN %s: %s\n", name, r.Left[name])
	}
	return t.Flush()
}
