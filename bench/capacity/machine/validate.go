package machine

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"

	"github.com/tandem-ann/tandem/bench/capacity/tail"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/wording"
)

// ValidateOptions say which clusters are started, and how they are asked.
type ValidateOptions struct {
	Options // but Rows
	// Apps are divided into as many shards as each of Shards says, each on a process of its own.
	Apps   int
	Shards []int
	// Loads are shares of what the processors can do by the simulation.
	Loads []float64
}

// Validate returns an error that names the option out of bounds.
func (o *ValidateOptions) Validate() error {
	o.Rows, o.Rates = nil, []float64{firstRate}
	if len(o.Shards) == 0 || len(o.Loads) == 0 {
		return errors.New("there are no shards or no loads")
	}
	for _, n := range o.Shards {
		if n < 2 || n > 64 {
			return fmt.Errorf("a cluster of %d processes is to be started, want 2 to 64", n)
		}
		o.Rows = append(o.Rows, o.Apps/n)
	}
	for _, l := range o.Loads {
		if !(l > 0 && l < 0.9) {
			return fmt.Errorf("load is %v, want more than 0, less than 0.9", l)
		}
	}
	bounds := o.Options
	bounds.Rows = append(slices.Clone(o.Rows), o.Apps) // one size may be enough
	return bounds.Validate()
}

// Validation is what was simulated of clusters, beside what was measured.
type Validation struct {
	Machine    string      `json:"machine"`
	Processors int         `json:"processors"`
	Clusters   []Validated `json:"clusters"`
}

// Validated is one cluster.
type Validated struct {
	Shards int `json:"shards"`
	Rows   int `json:"rows"` // of a shard
	// Search is the mean of searches of one shard, measured apart, in microseconds of a processor.
	Search float64 `json:"search"`
	Idle   float64 `json:"idle"` // the share of a processor of one that is not asked
	// Figures do not depend on the load.
	Figures []Figure `json:"figures"`
	Loads   []Loaded `json:"loads"`
}

// Loaded is a cluster at one load.
type Loaded struct {
	Load    float64 `json:"load"`
	Rate    float64 `json:"rate"`    // queries a second
	Others  float64 `json:"others"`  // processors that others have taken, in the median
	Refused int     `json:"refused"` // queries that the router has refused
	// Steps are what was measured apart, in microseconds of a processor.
	Steps   map[string]float64 `json:"steps"`
	Figures []Figure           `json:"figures"`
}

// Figure is one thing, as it was simulated and measured.
type Figure struct {
	Name      string  `json:"name"`
	Unit      string  `json:"unit"`
	Simulated float64 `json:"simulated"`
	Measured  float64 `json:"measured"` // the median of the rounds
	// Lowest and Highest are of the rounds.
	Lowest  float64 `json:"lowest"`
	Highest float64 `json:"highest"`
}

// Error returns by which part of what was measured the simulation is above it.
func (f Figure) Error() float64 { return f.Simulated/f.Measured - 1 }

// Wanted is how far the simulation may be off.
const Wanted = 0.2

// Off returns the figures that are further off than wanted, in words.
func (v *Validation) Off() (list []string) {
	each := func(where string, figures []Figure) {
		for _, f := range figures {
			if e := f.Error(); !(math.Abs(e) <= Wanted) {
				list = append(list, fmt.Sprintf("%s, %s: %+.0f%%", where, f.Name, 100*e))
			}
		}
	}
	for _, c := range v.Clusters {
		where := fmt.Sprintf("%d processes", c.Shards)
		each(where, c.Figures)
		for _, l := range c.Loads {
			each(fmt.Sprintf("%s, load %v", where, l.Load), l.Figures)
		}
	}
	return list
}

// WriteTable writes the figures for people.
func (v *Validation) WriteTable(w io.Writer) error {
	t := wording.NewTable(w)
	fmt.Fprintf(t, "%s, %d processors\n\n", v.Machine, v.Processors)
	fmt.Fprintln(t, "processes\tload\tqueries/s\tfigure\tsimulated\tmeasured\tlowest\thighest\terror\t")
	row := func(c *Validated, load, rate string, f Figure) {
		mark := ""
		if !(math.Abs(f.Error()) <= Wanted) {
			mark = "OFF"
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%.3g %s\t%.3g\t%.3g\t%.3g\t%+.0f%%\t%s\n", c.Shards, load, rate, f.Name, f.Simulated, f.Unit, f.Measured, f.Lowest, f.Highest, 100*f.Error(), mark)
	}
	for i := range v.Clusters {
		c := &v.Clusters[i]
		for _, f := range c.Figures {
			row(c, "", "", f)
		}
		for _, l := range c.Loads {
			for _, f := range l.Figures {
				row(c, fmt.Sprintf("%.2g", l.Load), fmt.Sprintf("%.0f", l.Rate), f)
			}
		}
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for i := range v.Clusters {
		c := &v.Clusters[i]
		fmt.Fprintf(w, "\n%d shards of %d rows, measured apart: a search takes %.3g µs of a processor, a process that nobody asks %.2g%% of it; in µs:\n", c.Shards, c.Rows, c.Search, 100*c.Idle)
		t := wording.NewTable(w)
		fmt.Fprintf(t, "load\tothers\trefused\t%s\n", strings.Join(steps, "\t"))
		for _, l := range c.Loads {
			fmt.Fprintf(t, "%.2g\t%.2g\t%d", l.Load, l.Others, l.Refused)
			for _, name := range steps {
				fmt.Fprintf(t, "\t%.3g", l.Steps[name])
			}
			fmt.Fprintln(t)
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// steps are the names of what is measured apart.
var steps = []string{"node call", "lookup", "router call", "router query", "client", "wake p50", "wake p90", "wake p99"}

// measurable is one cluster while it is measured.
type measurable struct {
	whole, one *site // all shards, and one of them by itself
	common     common
	parts      []*parts // by load
	rates      []float64
	turns      [][]turn // by load
	memory     []float64
}

// Validate measures clusters and what they consist of, in turns, and simulates them.
func Validate(ctx context.Context, o ValidateOptions) (_ *Validation, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	v := &Validation{Machine: model(), Processors: runtime.NumCPU()}
	var sites []*site
	defer func() {
		for _, s := range sites {
			err = errors.Join(err, s.close())
		}
	}()
	open := func(t Towers, nodes int) (*site, error) {
		o.progress("build %d apps in %d shards", t.Apps, t.Shards)
		t.Users, t.Dim, t.Seed = users, o.Dim, cmp.Or(t.Seed, o.Seed)
		s, err := o.open(ctx, t)
		sites = append(sites, s)
		if err == nil {
			err = s.serve(ctx, nodes)
		}
		return s, err
	}
	more, err := open(Towers{Apps: routerParts * leastRows, Shards: routerParts}, 1)
	if err != nil {
		return nil, err
	}
	other, err := open(Towers{Apps: routerParts * leastRows, Shards: routerParts, Seed: o.Seed + 1}, 2)
	if err != nil {
		return nil, err
	}
	beside, err := newSpare(ctx, other, firstRate/3)
	if err != nil {
		return nil, err
	}
	defer beside.asker.close()
	var list []*measurable
	for _, n := range o.Shards {
		m := &measurable{}
		if m.one, err = open(Towers{Apps: o.Apps / n, Shards: 1}, 1); err != nil {
			return nil, err
		}
		if m.whole, err = open(Towers{Apps: o.Apps, Shards: n}, n); err != nil {
			return nil, err
		}
		if err := m.remember(); err != nil {
			return nil, err
		}
		m.turns = make([][]turn, len(o.Loads))
		list = append(list, m)
	}
	for round := range o.Rounds {
		o.progress("round %d of %d", round+1, o.Rounds)
		seed := o.Seed + uint64(100*round)
		for _, m := range list {
			if err := m.round(ctx, &o, more, beside, seed); err != nil {
				return nil, err
			}
		}
	}
	for _, m := range list {
		found, err := m.compare(&o)
		if err != nil {
			return nil, err
		}
		v.Clusters = append(v.Clusters, *found)
	}
	return v, nil
}

// firstRate is how often a process is asked a second at first.
const firstRate = 300

// round measures what a cluster consists of, and then the cluster.
func (m *measurable) round(ctx context.Context, o *ValidateOptions, more *site, spare *spare, seed uint64) error {
	if m.rates == nil { // a first look says what the processors can do
		c, p := &common{}, []*parts{{rate: firstRate}}
		if err := errors.Join(m.one.one(ctx, c, p, nil, m.whole.towers.Shards, seed), router(ctx, p, nil, m.one, more, seed), idle(ctx, c, []*site{m.one}, o.Time/2)); err != nil {
			return err
		}
		w := p[0].work(c)
		n := float64(m.whole.towers.Shards)
		each := w.Client + w.Query + (n+1)*w.Call + w.Lookup.Mean() + n*w.Search.Mean()
		for _, load := range o.Loads {
			rate := load * float64(runtime.NumCPU()) / each
			m.rates, m.parts = append(m.rates, rate), append(m.parts, &parts{rate: rate, fill: load})
		}
	}
	if err := m.one.one(ctx, &m.common, m.parts, spare, m.whole.towers.Shards, seed); err != nil {
		return err
	}
	if err := router(ctx, m.parts, spare, m.one, more, seed); err != nil {
		return err
	}
	if err := idle(ctx, &m.common, []*site{m.one, more, m.whole}, o.Time/2); err != nil {
		return err
	}
	for i, rate := range m.rates {
		t, err := queries(ctx, m.whole.servers, m.whole.users, o.K, rate, o.Time, seed+uint64(i), nil)
		if err != nil {
			return fmt.Errorf("ask a cluster of %d: %w", m.whole.towers.Shards, err)
		}
		m.turns[i] = append(m.turns[i], t)
	}
	return nil
}

// remember reads what is in memory.
func (m *measurable) remember() error {
	sum := 0.0
	for _, s := range slices.Concat(m.whole.servers.Nodes(), m.whole.servers.Routers()) {
		own, files, err := memoryOf(s.PID)
		if err != nil {
			return err
		}
		sum += own + files
	}
	m.memory = append(m.memory, sum)
	return m.one.memories(&m.common)
}

// work is what the simulation takes of what was measured apart.
func (p *parts) work(c *common) tail.Work {
	beside := max(0, middle(c.beside))
	// What a process takes that is not asked is in what it takes when it is.
	without := func(list []float64) float64 { return max(0, middle(list)-beside/p.rate) }
	return tail.Work{
		Client: middle(p.client), Query: without(p.routerQuery), Call: middle(p.routerCall),
		Search: tail.NewTimes(c.search, 1000).Plus(without(p.nodeCall)), Lookup: tail.Times{without(p.lookup)},
		Beside: beside, Piece: 100e-6,
	}
}

// cluster is the simulated one: all processes share the processors of this machine.
func (m *measurable) cluster(p *parts) tail.Cluster {
	c := tail.Cluster{Cores: []int{runtime.NumCPU()}, Routers: []int{0}, Client: 0, Wake: p.wake(&m.common)}
	n := m.whole.towers.Shards
	c.Shards, c.Users = make([][]int, n), make([][]int, n)
	for i, s := range m.whole.servers.Nodes() {
		c.Nodes = append(c.Nodes, 0)
		for _, h := range s.Holds {
			if h.Tower == shard.Apps {
				c.Shards[h.Number] = append(c.Shards[h.Number], i)
			} else {
				c.Users[h.Number] = append(c.Users[h.Number], i)
			}
		}
	}
	return c
}

// simulated is how many queries are simulated, of each load.
const simulated = 40_000

// compare simulates a cluster.
func (m *measurable) compare(o *ValidateOptions) (*Validated, error) {
	n := m.whole.towers.Shards
	v := &Validated{Shards: n, Rows: o.Apps / n, Search: 1e6 * tail.NewTimes(m.common.search, 1000).Mean(), Idle: middle(m.common.beside)}
	v.Figures = append(v.Figures, figure("memory", "MiB", 1.0/(1<<20), float64(n)*middle(m.common.nodeBytes)+middle(m.common.routerBytes)+m.whole.bytes(), m.memory))
	for i, rate := range m.rates {
		p := m.parts[i]
		w, wake := p.work(&m.common), p.wake(&m.common)
		r, err := tail.Simulate(m.cluster(p), w, tail.Load{Rate: rate, Queries: simulated, Again: 0.005, Seed: o.Seed})
		if err != nil {
			return nil, err
		}
		l := Loaded{Load: o.Loads[i], Rate: rate, Steps: map[string]float64{
			"node call": 1e6 * (w.Search.Mean() - tail.NewTimes(m.common.search, 1000).Mean()), "lookup": 1e6 * w.Lookup.Mean(), "router call": 1e6 * w.Call, "router query": 1e6 * w.Query, "client": 1e6 * w.Client,
			"wake p50": 1e6 * wake.At(0.5), "wake p90": 1e6 * wake.At(0.9), "wake p99": 1e6 * wake.At(0.99),
		}}
		var others, nodes, router, client []float64
		quantile := func(q float64) (list []float64) {
			for _, t := range m.turns[i] {
				list = append(list, tail.NewTimes(t.took, len(t.took)).At(q))
			}
			return list
		}
		at := m.whole.servers.Routers()[0].PID
		for _, t := range m.turns[i] {
			l.Refused += t.refused
			others, client, router = append(others, t.others), append(client, t.self), append(router, t.cpu[at])
			sum := 0.0
			for pid, cpu := range t.cpu {
				if pid != at {
					sum += cpu
				}
			}
			nodes = append(nodes, sum)
		}
		l.Others = middle(others)
		l.Figures = []Figure{
			figure("p50", "ms", 1e3, r.Latency.At(0.5), quantile(0.5)),
			figure("p90", "ms", 1e3, r.Latency.At(0.9), quantile(0.9)),
			figure("p99", "ms", 1e3, r.Latency.At(0.99), quantile(0.99)),
			figure("CPU of the router", "ms", 1e3, w.Query+float64(n+1)*w.Call+w.Beside/rate, router),
			figure("CPU of nodes", "ms", 1e3, w.Lookup.Mean()+float64(n)*(w.Search.Mean()+w.Beside/rate), nodes),
			figure("CPU of the client", "ms", 1e3, w.Client, client),
		}
		v.Loads = append(v.Loads, l)
	}
	return v, nil
}

func figure(name, unit string, by, simulated float64, measured []float64) Figure {
	return Figure{name, unit, by * simulated, by * middle(measured), by * slices.Min(measured), by * slices.Max(measured)}
}
