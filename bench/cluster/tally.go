package cluster

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

const (
	// maxLatency is what longer ones count as.
	maxLatency = time.Minute
	// maxSamples bounds the samples of one kind of fault.
	maxSamples = 1 << 20
	// maxTold is how many texts of what is wrong are kept.
	maxTold = 20
	// bucketTime is the grain of the time after which latencies are as they were.
	bucketTime = 250 * time.Millisecond
	// steadyPhase names the time in which nothing is wrong.
	steadyPhase = "steady"
)

func newHistogram() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(maxLatency), 3) }

// phase is what was counted while one kind of fault went on.
type phase struct {
	times   *hdrhistogram.Histogram
	failed  map[string]int64 // by reason
	fenced  int64
	killed  int64
	begun   int64
	slowest []sample
	before  []int64 // the 99th percentile of the calm before each time, in nanoseconds
}

// sample is how long one query took, that was due so long after its fault began.
type sample struct{ after, took time.Duration }

// tally counts what became of queries. It is safe for any number of goroutines.
type tally struct {
	mu       sync.Mutex
	name     string // of the phase
	since    time.Time
	fences   bool // the fence may demand now that queries are refused
	phases   map[string]*phase
	findings map[finding]int64
	told     []string
	calm     *hdrhistogram.Histogram // of the last steady time
	lags     *hdrhistogram.Histogram
	rows     int64
}

func newTally() *tally {
	t := &tally{phases: map[string]*phase{}, findings: map[finding]int64{}, lags: newHistogram()}
	t.begin(steadyPhase, false)
	return t
}

// begin begins a phase. fences says whether the fence may demand that queries are refused.
func (t *tally) begin(name string, fences bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.name, t.since, t.fences = name, time.Now(), fences
	p := t.phase()
	p.begun++
	if name == steadyPhase {
		t.calm = newHistogram()
	} else {
		p.before = append(p.before, t.calm.ValueAtPercentile(99))
	}
}

// phase returns that which goes on. The caller holds mu.
func (t *tally) phase() *phase {
	p := t.phases[t.name]
	if p == nil {
		p = &phase{times: newHistogram(), failed: map[string]int64{}}
		t.phases[t.name] = p
	}
	return p
}

func (t *tally) lag(d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_ = t.lags.RecordValue(int64(min(max(d, 1), maxLatency))) // in bounds, as those below
}

// tell keeps a text. The caller holds mu.
func (t *tally) tell(text string) {
	if len(t.told) < maxTold {
		t.told = append(t.told, t.name+": "+text)
	}
}

// record notes how long a query took. The caller holds mu.
func (t *tally) record(due, came time.Time) {
	p := t.phase()
	took := min(max(came.Sub(due), 1), maxLatency)
	_ = p.times.RecordValue(int64(took))
	if t.name == steadyPhase {
		_ = t.calm.RecordValue(int64(took))
	} else if len(p.slowest) < maxSamples {
		p.slowest = append(p.slowest, sample{due.Sub(t.since), took})
	}
}

// answered counts an answer, and what is wrong with it.
func (t *tally) answered(due, came time.Time, found finding, text string, rows int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.record(due, came)
	t.rows += int64(rows)
	if found != right {
		t.findings[found]++
		t.tell(string(found) + ": " + text)
	}
}

// stale is the reason with which the fence has queries refused.
const stale = "LIVE_STALE"

// excuse is why a query may fail.
type excuse int

const (
	noExcuse  excuse = iota
	fullDisk         // of the router: it may refuse by the fence
	wasKilled        // the router has ended with the query
)

// failed counts a query that was not answered.
func (t *tally) failed(due, came time.Time, reason, text string, why excuse) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p := t.phase()
	switch {
	case reason == stale && (t.fences || why == fullDisk):
		p.fenced++
		return
	case why == wasKilled:
		p.killed++
		return
	}
	t.record(due, came)
	p.failed[reason]++
	t.tell("failed: " + reason + ": " + text)
}

// calm returns the middle one of the 99th percentiles before.
func (p *phase) calm() time.Duration {
	if len(p.before) == 0 {
		return 0
	}
	list := slices.Sorted(slices.Values(p.before))
	return time.Duration(list[len(list)/2])
}

// back returns how long after a phase began latencies were below a bound for good: their 99th
// percentile, in buckets of time. It is negative where they never were.
func (p *phase) back(bound time.Duration) time.Duration {
	slices.SortFunc(p.slowest, func(a, b sample) int { return cmp.Compare(a.after, b.after) })
	last := time.Duration(0)
	for i := 0; i < len(p.slowest); {
		bucket := p.slowest[i].after / bucketTime
		var in []time.Duration
		for ; i < len(p.slowest) && p.slowest[i].after/bucketTime == bucket; i++ {
			in = append(in, p.slowest[i].took)
		}
		slices.Sort(in)
		if in[len(in)*99/100] > bound {
			last = (bucket + 1) * bucketTime
			if i == len(p.slowest) {
				return -1
			}
		}
	}
	return last
}

// asked returns how many queries there were.
func (t *tally) asked() (n int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range t.phases {
		n += p.times.TotalCount() + p.fenced + p.killed
	}
	return n
}
