package live

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is what a run measured. The names of its JSON fields are stable.
type Report struct {
	// Own is how long after it was acknowledged a takedown counts on the server that did so,
	// and Other on one that only polls the store; Fresh the same of an upsert on the other.
	// Times are until the first answer is there.
	Own   *Times `json:"own,omitempty"`
	Other *Times `json:"other,omitempty"`
	Fresh *Times `json:"fresh,omitempty"`
	// Back is how many answers had an app after one had not.
	Back int `json:"back"`
	// Contended is how long takedowns take to be acknowledged while several servers append,
	// and Loaded the same while they import, too.
	Contended *Contended `json:"contended,omitempty"`
	Loaded    *Contended `json:"loaded,omitempty"`
	// Sustained is what one server takes, by what is written.
	Sustained []Sustained `json:"sustained,omitempty"`
	// Missed are the targets that were missed, in words.
	Missed []string `json:"missed,omitempty"`
}

// Times sums up times, in milliseconds.
type Times struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50_ms"`
	P99   float64 `json:"p99_ms"`
	Max   float64 `json:"max_ms"`
}

// Contended is what several servers do that append at once.
type Contended struct {
	Servers int     `json:"servers"`
	Delay   float64 `json:"delay_ms"`
	// Acknowledged is how long takedowns took, of all servers, and PerServer of each.
	Acknowledged Times   `json:"acknowledged"`
	PerServer    []Times `json:"per_server"`
	Failed       int     `json:"failed"`
	FirstError   string  `json:"first_error,omitempty"`
	// Imported is how many events a second were imported beside them.
	Imported float64 `json:"imported_per_second"`
}

// Sustained is what one server takes for some time.
type Sustained struct {
	What    string  `json:"what"`
	Clients int     `json:"clients"`
	Message int     `json:"message"` // events of one
	Events  float64 `json:"events_per_second"`
	// Acknowledged is how long each message took.
	Acknowledged Times  `json:"acknowledged"`
	Failed       int    `json:"failed"`
	FirstError   string `json:"first_error,omitempty"`
}

// timesOf sums up times.
func timesOf(list []time.Duration) Times {
	if len(list) == 0 {
		return Times{}
	}
	list = slices.Sorted(slices.Values(list))
	ms := func(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
	at := func(share float64) float64 { return ms(list[min(int(share*float64(len(list))), len(list)-1)]) }
	return Times{Count: len(list), P50: at(0.5), P99: at(0.99), Max: ms(list[len(list)-1])}
}

// judge notes which targets were missed, of a store in a folder or in a bucket.
func (r *Report) judge(folder bool) {
	missed := func(format string, args ...any) { r.Missed = append(r.Missed, fmt.Sprintf(format, args...)) }
	slower := func(t *Times, target time.Duration, what string) {
		if t != nil && t.P99 > float64(target)/float64(time.Millisecond) {
			missed("%s took %.0f ms at the 99th percentile, more than %s", what, t.P99, target)
		}
	}
	slower(r.Own, TargetOwn, "a takedown on the server that acknowledged it")
	slower(r.Other, TargetVisible, "a takedown on another server")
	if r.Back > 0 {
		missed("%d answers had an app again that was taken down", r.Back)
	}
	for _, c := range []*Contended{r.Contended, r.Loaded} {
		if c == nil {
			continue
		}
		slower(&c.Acknowledged, TargetContended, fmt.Sprintf("an acknowledgement of %d servers that append at once", c.Servers))
		if c.Failed > 0 {
			missed("%d takedowns failed: %s", c.Failed, c.FirstError)
		}
	}
	for _, s := range r.Sustained {
		if s.Failed > 0 {
			missed("%d messages of %s failed: %s", s.Failed, s.What, s.FirstError)
		}
		if folder && s.Message > 1 && s.Events < TargetEvents {
			missed("%.0f %s a second were taken, fewer than %d", s.Events, s.What, TargetEvents)
		}
	}
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	b := wording.NewPage(w)
	t := wording.NewTable(b, wording.Right)
	row := func(name string, x *Times) {
		if x != nil {
			fmt.Fprintf(t, "%s\t%d\t%.1f\t%.1f\t%.1f\t\n", name, x.Count, x.P50, x.P99, x.Max)
		}
	}
	fmt.Fprintln(t, "until it counts, ms after the acknowledgement\tn\tp50\tp99\tmax\t")
	row("takedown, on the server that took it", r.Own)
	row("takedown, on another that polls", r.Other)
	row("upsert, on another that polls", r.Fresh)
	for _, c := range []struct {
		name string
		*Contended
	}{{"takedowns alone", r.Contended}, {"takedowns beside imports", r.Loaded}} {
		if c.Contended == nil {
			continue
		}
		fmt.Fprintf(t, "\t\t\t\t\t\nuntil it is acknowledged, %d servers, delay %.0f ms\tn\tp50\tp99\tmax\t\n", c.Servers, c.Delay)
		row(c.name, &c.Acknowledged)
		for i := range c.PerServer {
			row(fmt.Sprintf("of server %d", i), &c.PerServer[i])
		}
	}
	if len(r.Sustained) > 0 {
		fmt.Fprintln(t, "\t\t\t\t\t\none server, ms until a message is acknowledged\tn\tp50\tp99\tmax\t")
		for i := range r.Sustained {
			s := &r.Sustained[i]
			row(fmt.Sprintf("%s, %d a message, %d clients", s.What, s.Message, s.Clients), &s.Acknowledged)
		}
	}
	_ = t.Flush() // a page takes everything
	b.WriteByte('\n')
	if r.Loaded != nil {
		fmt.Fprintf(b, "%.0f events a second were imported beside the takedowns\n", r.Loaded.Imported)
	}
	for _, s := range r.Sustained {
		fmt.Fprintf(b, "%.0f %s a second, %d a message, by %d clients\n", s.Events, s.What, s.Message, s.Clients)
	}
	for _, text := range r.Missed {
		fmt.Fprintf(b, "MISSED: %s\n", text)
	}
	if len(r.Missed) == 0 {
		b.WriteString("no target was missed\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}
