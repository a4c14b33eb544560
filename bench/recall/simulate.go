package recall

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/tandem-ann/tandem/server/audit"
	"github.com/tandem-ann/tandem/shard/wording"
)

// SimulateOptions say what is simulated.
type SimulateOptions struct {
	Hours      int           // of an arm
	Generation time.Duration // after which everything begins anew
	Segments   int           // of the snapshot, at least as many as the recording has
	Seed       uint64
	Progress   func(hours int)
}

// Simulated is what sequences have made of hours of audits of one kind.
type Simulated struct {
	What   string  `json:"what"`
	Hours  int     `json:"hours"`
	Audits int64   `json:"audits"`
	Recall float64 `json:"recall"` // the mean, less the reference
	// Alarms is how many there were, of all strata of the arm together.
	Alarms int `json:"alarms"`
}

// SimulateReport is what [Simulate] has found.
type SimulateReport struct {
	Seed     uint64             `json:"seed"`
	Recorded map[string]Moments `json:"recorded"` // by stratum
	// Replayed is how many alarms the recording itself raises, and Halves by how much the
	// means of its halves differ, in standard errors: what is drawn from one recording says
	// something of other hours if they are alike.
	Replayed int         `json:"replayed"`
	Halves   float64     `json:"halves"`
	Runs     []Simulated `json:"runs"`
}

// stratumOf are the audits that count in a stratum.
type stratumOf struct {
	kind   audit.Kind
	name   string
	audits []Audited
}

// strataOf divides a recording as a server does.
func strataOf(r *Recording) []stratumOf {
	all := stratumOf{kind: audit.All}
	plans, segments := map[string][]Audited{}, map[string][]Audited{}
	for _, a := range r.Audits {
		for _, kind := range a.Strata {
			switch kind {
			case audit.All.String():
				all.audits = append(all.audits, a)
			case audit.Plan.String():
				plans[a.Plan] = append(plans[a.Plan], a)
			case audit.Segment.String():
				segments[a.Segment] = append(segments[a.Segment], a)
			}
		}
	}
	list := []stratumOf{all}
	for _, name := range slices.Sorted(maps.Keys(plans)) {
		list = append(list, stratumOf{audit.Plan, name, plans[name]})
	}
	for _, name := range slices.Sorted(maps.Keys(segments)) {
		list = append(list, stratumOf{audit.Segment, name, segments[name]})
	}
	return slices.DeleteFunc(list, func(s stratumOf) bool { return len(s.audits) == 0 })
}

// harm is how the recall that was recorded is changed.
type harm struct {
	what string
	to   func(s *stratumOf) func(a Audited, r *rand.Rand) float64
}

// toFloor returns with which probability audits lose a part of their recall for the mean of a
// stratum to be at the floor: then every alarm is false, and hardly.
func toFloor(s *stratumOf, part float64) float64 {
	var recall, reference float64
	for _, a := range s.audits {
		recall += a.Recall
		reference += a.Reference
	}
	n := float64(len(s.audits))
	return min(max(recall-reference+audit.Margin*n, 0)/max(recall*part, 1e-9), 1)
}

// harms are what is simulated.
var harms = []harm{
	{"as recorded", func(*stratumOf) func(Audited, *rand.Rand) float64 {
		return func(a Audited, _ *rand.Rand) float64 { return a.Recall }
	}},
	{"at the floor, since all lose a little", func(s *stratumOf) func(Audited, *rand.Rand) float64 {
		lost := toFloor(s, 1)
		return func(a Audited, _ *rand.Rand) float64 { return a.Recall * (1 - lost) }
	}},
	{"at the floor, since some lose a fifth", lose(0.2)},
	{"at the floor, since few lose everything", lose(1)},
}

// lose has some audits lose a part of their recall.
func lose(part float64) func(*stratumOf) func(Audited, *rand.Rand) float64 {
	return func(s *stratumOf) func(Audited, *rand.Rand) float64 {
		p := toFloor(s, part)
		return func(a Audited, r *rand.Rand) float64 {
			if r.Float64() < p {
				return a.Recall * (1 - part)
			}
			return a.Recall
		}
	}
}

// Simulate counts alarms in hours that are drawn from a recording: each stratum has audits at
// the rate that it had there, at random times, of which each is one of the recorded ones.
func Simulate(ctx context.Context, r *Recording, o SimulateOptions) (*SimulateReport, error) {
	strata := strataOf(r)
	out := &SimulateReport{Seed: o.Seed, Recorded: map[string]Moments{}}
	segments := o.Segments
	for i := range strata {
		s := &strata[i]
		out.Recorded[label(s)] = momentsOf(s.audits, r.Seconds)
		if s.kind == audit.Segment {
			segments = max(segments, 1)
		}
	}
	out.Replayed = replay(strata, segments)
	first, second := strata[0].audits[:len(strata[0].audits)/2], strata[0].audits[len(strata[0].audits)/2:]
	a, b := momentsOf(first, 1), momentsOf(second, 1)
	if variance := a.Deviation*a.Deviation/float64(max(len(first), 1)) + b.Deviation*b.Deviation/float64(max(len(second), 1)); variance > 0 {
		out.Halves = (b.Recall - a.Recall) / math.Sqrt(variance)
	}
	for i, h := range harms {
		one, err := simulate(ctx, strata, h, segments, r.Seconds, o, uint64(i))
		if err != nil {
			return nil, err
		}
		out.Runs = append(out.Runs, one)
	}
	return out, nil
}

// replay counts the alarms that the audits raise as they were recorded.
func replay(strata []stratumOf, segments int) (alarms int) {
	for i := range strata {
		s := &strata[i]
		q := newSequence(s, segments)
		for _, a := range s.audits {
			q.Add(epoch.Add(time.Duration(a.At*float64(time.Second))), a.Recall, a.Reference)
			if q.BelowFloor() {
				alarms++
				break
			}
		}
	}
	return alarms
}

// epoch is when every generation begins.
var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

func newSequence(s *stratumOf, segments int) *audit.Sequence {
	return audit.NewSequence(audit.Rate{Below: audit.RateOf(s.kind, segments)}, epoch, -audit.Margin)
}

// simulate simulates one kind of harm, generation by generation, on all processors.
func simulate(ctx context.Context, strata []stratumOf, h harm, segments int, seconds float64, o SimulateOptions, stream uint64) (Simulated, error) {
	out := Simulated{What: h.what}
	hours := max(int(o.Generation.Hours()), 1)
	var mu sync.Mutex
	var group sync.WaitGroup
	generations := make(chan int)
	for range runtime.GOMAXPROCS(0) {
		group.Go(func() {
			for g := range generations {
				random := rand.New(rand.NewPCG(o.Seed, stream<<32|uint64(g)))
				var one Simulated
				sum := 0.0
				for i := range strata {
					sum += generation(&strata[i], h, segments, seconds, float64(hours), random, &one)
				}
				mu.Lock()
				out.Audits, out.Alarms, out.Recall = out.Audits+one.Audits, out.Alarms+one.Alarms, out.Recall+sum
				if out.Hours += hours; o.Progress != nil {
					o.Progress(out.Hours)
				}
				mu.Unlock()
			}
		})
	}
	n := (o.Hours + hours - 1) / hours
	for g := 0; g < n && ctx.Err() == nil; g++ {
		generations <- g
	}
	close(generations)
	group.Wait()
	out.Recall /= float64(max(out.Audits, 1))
	return out, ctx.Err()
}

// generation simulates a stratum for hours, and returns the sum of the margins. An alarm has
// it begin anew, as the clearing of one does.
func generation(s *stratumOf, h harm, segments int, seconds, hours float64, random *rand.Rand, out *Simulated) (sum float64) {
	harmed := h.to(s)
	every := seconds / float64(len(s.audits))
	q := newSequence(s, segments)
	from := 0.0
	for at := random.ExpFloat64() * every; at < hours*3600; at += random.ExpFloat64() * every {
		a := s.audits[random.IntN(len(s.audits))]
		value := harmed(a, random)
		q.Add(epoch.Add(time.Duration((at-from)*float64(time.Second))), value, a.Reference)
		out.Audits++
		sum += value - a.Reference
		if q.BelowFloor() {
			out.Alarms++
			q, from = newSequence(s, segments), at
		}
	}
	return sum
}

func label(s *stratumOf) string {
	if s.name == "" {
		return s.kind.String()
	}
	return s.kind.String() + " " + s.name
}

// WriteTable writes the report for people.
func (r *SimulateReport) WriteTable(w io.Writer) error {
	t := wording.NewTable(w)
	fmt.Fprintln(t, "recorded\taudits\ta second\trecall\tdeviation\treference\tlag")
	for _, name := range slices.Sorted(maps.Keys(r.Recorded)) {
		m := r.Recorded[name]
		fmt.Fprintf(t, "%s\t%d\t%.3f\t%.4f\t%.4f\t%.4f\t%+.3f\n", name, m.Audits, m.PerSecond, m.Recall, m.Deviation, m.Reference, m.Lag)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Fprintf(w, "as it came it raises %d alarms; its halves differ by %+.1f standard errors\n\n", r.Replayed, r.Halves)
	t = wording.NewTable(w)
	fmt.Fprintf(t, "simulated, seed %d\tarm-hours\taudits\tmargin\talarms\tarm-hours each\n", r.Seed)
	for _, s := range r.Runs {
		each := fmt.Sprintf("%d", s.Hours/max(s.Alarms, 1))
		if s.Alarms == 0 {
			each = "more than " + each
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t%+.4f\t%d\t%s\n", s.What, s.Hours, s.Audits, s.Recall, s.Alarms, each)
	}
	return t.Flush()
}
