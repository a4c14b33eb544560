package overload

import (
	"fmt"
	"io"

	"github.com/HdrHistogram/hdrhistogram-go"
	"github.com/tandem-ann/tandem/shard/wording"
)

// The bounds.
const (
	minGoodput  = 0.9   // of the capacity
	maxRefusal  = 5_000 // microseconds, server-side, 99th percentile
	maxSlower   = 1.5   // times the 99th percentile without the other caller
	leastCounts = 100   // refusals that a percentile is of
	maxLag      = 0.1   // of the deadline, of the sender behind its times, 99th percentile
)

// Times are of some requests, in microseconds.
type Times struct {
	Count int64   `json:"count"`
	P50   float64 `json:"p50_us"`
	P99   float64 `json:"p99_us"`
	Max   float64 `json:"max_us"`
}

func timesOf(h *hdrhistogram.Histogram) Times {
	if h == nil || h.TotalCount() == 0 {
		return Times{}
	}
	us := func(percentile float64) float64 { return float64(h.ValueAtPercentile(percentile)) / 1e3 }
	return Times{h.TotalCount(), us(50), us(99), float64(h.Max()) / 1e3}
}

// Sent is what became of queries that one caller has sent at a rate.
type Sent struct {
	Rate    float64 `json:"rate"`
	Seconds float64 `json:"seconds"`
	Times           // of those that were answered in time
	Refused Times   `json:"refused"` // as the caller saw it
	Lag     Times   `json:"lag"`     // of the sender behind its times
	// Statuses counts answers by their status of HTTP; 0 is no answer in time.
	Statuses map[int]int64 `json:"statuses"`
	Unsent   int64         `json:"unsent"` // too many waited for answers
	// Busy is the share of its processor that the server took, whoever asked meanwhile.
	Busy float64 `json:"busy"`
}

// Goodput is how many queries were answered a second.
func (s *Sent) Goodput() float64 { return float64(s.Count) / s.Seconds }

// Report is what was measured.
type Report struct {
	K        int     `json:"k"`
	Factor   float64 `json:"factor"`
	Deadline float64 `json:"deadline_seconds"`
	// Capacity is how many queries a second the server answers.
	Capacity float64 `json:"capacity"`
	// CPU is how many seconds of its processor it takes for one.
	CPU float64 `json:"cpu_seconds"`
	// Overload is what became of Factor times as many, and Refusals how long the server took
	// for some of those that it refused, from their headers to the answer, by its log.
	Overload Sent  `json:"overload"`
	Refusals Times `json:"refusals"`
	// Alone is what a caller sees that asks less than the server can answer, and Beside what it
	// sees while another, Greedy, asks ten times what it may.
	Alone  Sent `json:"alone"`
	Beside Sent `json:"beside"`
	Greedy Sent `json:"greedy"`
	// Broken are the bounds that were.
	Broken []string `json:"broken"`
}

// judge finds which bounds were broken.
func (r *Report) judge() {
	add := func(format string, args ...any) { r.Broken = append(r.Broken, fmt.Sprintf(format, args...)) }
	for _, s := range []*Sent{&r.Overload, &r.Alone, &r.Beside} {
		if s.Lag.P99 > maxLag*r.Deadline*1e6 {
			add("the sender was up to %.0f ms behind its times (99th percentile): it had too much to do, or its processor not to itself, and what was measured is not the server", s.Lag.P99/1e3)
			break
		}
	}
	if share := r.Overload.Goodput() / r.Capacity; share < minGoodput {
		add("goodput is %.0f%% of the capacity, want at least %.0f%%", 100*share, 100*minGoodput)
	}
	switch {
	case r.Refusals.Count < leastCounts:
		add("the log tells of %d refusals, want at least %d to know how long they take", r.Refusals.Count, leastCounts)
	case r.Refusals.P99 > maxRefusal:
		add("refusals take up to %.2f ms in the server (99th percentile), want %d ms", r.Refusals.P99/1e3, maxRefusal/1000)
	}
	if times := r.Beside.P99 / r.Alone.P99; times > maxSlower {
		add("beside a caller at %d times its quota the 99th percentile is %.2f times that without, want %g", greedyTimes, times, maxSlower)
	}
	if r.Beside.Count == 0 || r.Beside.Refused.Count*100 > r.Beside.Count {
		add("beside a caller at %d times its quota %d queries of another were refused", greedyTimes, r.Beside.Refused.Count)
	}
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	t := wording.NewTable(w)
	fmt.Fprintf(t, "capacity\t%.0f queries a second, of %d candidates, %.0f µs of CPU each\n\n", r.Capacity, r.K, 1e6*r.CPU)
	fmt.Fprintf(t, "phase\tasked/s\tanswered/s\trefused\tother\tp50 ms\tp99 ms\trefusals p99 ms\tlag p99 ms\tbusy\n")
	line := func(name string, s *Sent) {
		other := s.Unsent
		for status, n := range s.Statuses {
			if status != 200 && status != 429 {
				other += n
			}
		}
		fmt.Fprintf(t, "%s\t%.0f\t%.0f\t%d\t%d\t%.2f\t%.2f\t%.2f\t%.2f\t%.0f%%\n", name, s.Rate, s.Goodput(), s.Refused.Count, other, s.P50/1e3, s.P99/1e3, s.Refused.P99/1e3, s.Lag.P99/1e3, 100*s.Busy)
	}
	line(fmt.Sprintf("overload, %g times", r.Factor), &r.Overload)
	line("one caller", &r.Alone)
	line("the same, beside", &r.Beside)
	line(fmt.Sprintf("one at %d times its quota", greedyTimes), &r.Greedy)
	fmt.Fprintf(t, "\ngoodput\t%.1f%% of the capacity\n", 100*r.Overload.Goodput()/r.Capacity)
	fmt.Fprintf(t, "refusals in the server\tp50 %.3f ms, p99 %.3f ms, max %.3f ms, of %d\n", r.Refusals.P50/1e3, r.Refusals.P99/1e3, r.Refusals.Max/1e3, r.Refusals.Count)
	fmt.Fprintf(t, "p99 beside the other\t%.2f times\n", r.Beside.P99/r.Alone.P99)
	return t.Flush()
}
