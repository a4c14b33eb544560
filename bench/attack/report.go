package attack

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is what a run measured. The names of its JSON fields are stable.
type Report struct {
	// Before, During and After are the light queries of each phase; nil if it did not come
	// to that.
	Before *Light `json:"before,omitempty"`
	During *Light `json:"during,omitempty"`
	After  *Light `json:"after,omitempty"`
	// Bytes of the server's memory that are of no file: the least in the rest before the
	// attack, the most since then, and the least in the rest after it.
	MemoryBefore int64 `json:"memory_before"`
	MemoryPeak   int64 `json:"memory_peak"`
	MemoryAfter  int64 `json:"memory_after"`
	MaxMemory    int64 `json:"max_memory"`
	Sent         Sent  `json:"sent"`
	Log          Log   `json:"log"` // the server's
	// Ended is how the server ended, if it ended by itself or did not stop well.
	Ended string `json:"ended,omitempty"`
	// Broken are the bounds that were broken, in words.
	Broken []string `json:"broken,omitempty"`
}

// judge notes which bounds were broken.
func (r *Report) judge() {
	broke := func(format string, args ...any) { r.Broken = append(r.Broken, fmt.Sprintf(format, args...)) }
	if r.Ended != "" {
		broke("%s", r.Ended)
	}
	if r.MemoryPeak > r.MaxMemory {
		broke("the server took %s of memory, more than %s", mib(r.MemoryPeak), mib(r.MaxMemory))
	}
	if r.MemoryAfter > 0 && float64(r.MemoryAfter) > maxKept*float64(r.MemoryBefore) {
		broke("after the attack the server had %s of memory, %.2f times the %s of before, more than %v times",
			mib(r.MemoryAfter), float64(r.MemoryAfter)/float64(r.MemoryBefore), mib(r.MemoryBefore), maxKept)
	}
	if r.Before != nil && r.During != nil && r.During.P99 > maxSlower*r.Before.P99 {
		broke("the light queries' p99 was %.1f times that without attackers, more than %d times", r.During.P99/r.Before.P99, maxSlower)
	}
	for _, phase := range r.phases() {
		if n := phase.light.failed(); n > 0 {
			broke("%d of %d light queries %s failed but for overload: %s", n, phase.light.Queries, phase.name, phase.light.FirstError)
		}
	}
	for _, k := range r.Sent.Kinds {
		for _, outcome := range slices.Sorted(maps.Keys(k.Outcomes)) {
			if isFault(outcome) {
				broke("%d times %s was answered by %s", k.Outcomes[outcome], k.Name, outcome)
			}
		}
	}
}

type phase struct {
	name  string
	light *Light
}

func (r *Report) phases() []phase {
	return slices.DeleteFunc([]phase{{"before", r.Before}, {"during", r.During}, {"after", r.After}}, func(p phase) bool { return p.light == nil })
}

func mib(bytes int64) string { return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20)) }

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	t := wording.NewTable(b, wording.Right)
	fmt.Fprintln(t, "light queries\tasked\toverloaded\tfailed\tp50 us\tp99 us\tmax us\t")
	for _, p := range r.phases() {
		l := p.light
		failed := l.failed()
		overloaded := -failed
		for _, n := range l.Errors {
			overloaded += n
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%.0f\t%.0f\t%.0f\t\n", p.name, l.Queries, overloaded, failed, l.P50, l.P99, l.Max)
	}
	_ = t.Flush() // a page takes everything
	fmt.Fprintf(b, "\nmemory of no file: %s before, %s at most, %s after\n", mib(r.MemoryBefore), mib(r.MemoryPeak), mib(r.MemoryAfter))
	fmt.Fprintf(b, "the server logged %d lines of %s\n", r.Log.Lines, mib(r.Log.Bytes))
	for _, line := range r.Log.Errors {
		fmt.Fprintf(b, "  %s\n", line)
	}
	b.WriteByte('\n')
	r.Sent.write(b)
	b.WriteByte('\n')
	for _, text := range r.Broken {
		fmt.Fprintf(b, "BROKEN: %s\n", text)
	}
	if len(r.Broken) == 0 {
		b.WriteString("no bound was broken\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteTable writes what was sent for people.
func (s *Sent) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	s.write(b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (s *Sent) write(b *wording.Page) {
	fmt.Fprintf(b, "attacked for %.0f s with seed %d\n", s.Seconds, s.Seed)
	t := wording.NewTable(b)
	fmt.Fprintln(t, "kind\tturns\tlongest error\twhat came back")
	for _, k := range s.Kinds {
		names := slices.SortedFunc(maps.Keys(k.Outcomes), func(x, y string) int { return int(k.Outcomes[y] - k.Outcomes[x]) })
		for i, name := range names {
			names[i] = fmt.Sprintf("%s %d", name, k.Outcomes[name])
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", k.Name, k.Turns, k.LongestError, strings.Join(names, ", "))
	}
	_ = t.Flush() // a page takes everything
	for _, k := range s.Kinds {
		for _, fault := range k.Faults {
			fmt.Fprintf(b, "fault of the server by %s: %s\n", k.Name, fault)
		}
	}
}
