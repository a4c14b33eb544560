package capacity

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/tandem-ann/tandem/shard/wording"
)

// Report is what a scenario takes. The names of its JSON fields are stable.
type Report struct {
	Scenario *Scenario `json:"scenario"`
	Shards   int64     `json:"shards"`
	// UserShards are of the user tower.
	UserShards int64 `json:"user_shards"`
	// AppRows and UserRows are of a shard.
	AppRows  float64 `json:"app_rows"`
	UserRows float64 `json:"user_rows"`
	// AppShard and UserShard are bytes of a shard, Snapshot of all, one copy, and Replicated of all
	// replicas.
	AppShard   Bytes   `json:"app_shard"`
	UserShard  Bytes   `json:"user_shard"`
	Snapshot   float64 `json:"snapshot"`
	Replicated float64 `json:"replicated"`
	// Asked is how many rows each shard is asked for.
	Asked  int      `json:"asked"`
	Fleets []*Fleet `json:"fleets"`
	// Best is the name of the instance that costs least, empty if none will do: then what follows is
	// not there.
	Best    string `json:"best"`
	Build   *Build `json:"build,omitempty"`
	Release *Store `json:"release,omitempty"`
	// Live is a day of the live log.
	Live *Store `json:"live_day,omitempty"`
	// Stored is what the snapshots take that are kept.
	Stored float64 `json:"stored"`
	// Month is what all of it costs, Machines what nodes and routers do of it.
	Month    float64 `json:"month"`
	Machines float64 `json:"machines_month"`
	// Low and High are of searches that grow with rows by a power that is 0.1 less, and more.
	Low         *Range        `json:"low,omitempty"`
	High        *Range        `json:"high,omitempty"`
	Sensitivity []Sensitivity `json:"sensitivity,omitempty"`
	Assumptions []Assumption  `json:"assumptions"`
	// Measured says what the times are of.
	Measured string `json:"measured"`
	// Extrapolated are what was not measured at a size like that, in words.
	Extrapolated []string `json:"extrapolated,omitempty"`
}

// Range is the end of a range.
type Range struct {
	Nodes int     `json:"nodes"`
	Month float64 `json:"month"`
	P99   float64 `json:"p99_ms"`
}

// Sensitivity is what becomes of the plan if an assumption is half as much, and twice as much, as far as
// it may be; of a power, if it is 0.1 less and more. It is by which part cost and p99 change.
type Sensitivity struct {
	Name      string  `json:"name"`
	Half      float64 `json:"half"`
	Twice     float64 `json:"twice"`
	MonthHalf float64 `json:"month_half"`
	MonthTwo  float64 `json:"month_twice"`
	P99Half   float64 `json:"p99_half"`
	P99Two    float64 `json:"p99_twice"`
}

func (s *Sensitivity) most() float64 {
	return max(math.Abs(s.MonthHalf), math.Abs(s.MonthTwo), math.Abs(s.P99Half), math.Abs(s.P99Two))
}

// Options say what [Plan] is to find beside the plan.
type Options struct {
	// Measured is what was measured of a machine. Default: what [Default] returns.
	Measured *Measured
	// Assume are values of assumptions, by name.
	Assume map[string]float64
	// Brief leaves out ranges and sensitivity.
	Brief bool
}

// Plan returns what a scenario takes. The error names what cannot be.
func Plan(s *Scenario, o Options) (*Report, error) {
	m := cmp.Or(o.Measured, Default())
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("what was measured: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	n := numbers(assumptions(m))
	if err := n.assume(o.Assume); err != nil {
		return nil, err
	}
	r, err := newCalculation(s, m, n).report(s.Queries, mostCalls)
	if err != nil || o.Brief || r.Best == "" {
		return r, err
	}
	return r, r.vary(s, m, n)
}

// report reckons once.
func (c *calculation) report(queries, calls int) (*Report, error) {
	r := &Report{
		Scenario: c.s, Shards: c.s.shards(), UserShards: c.s.userShards(), AppRows: c.s.appRows(), UserRows: c.s.userRows(), AppShard: c.apps, UserShard: c.users,
		Snapshot: c.snapshot(), Replicated: c.snapshot() * float64(c.s.Replicas), Stored: c.stored(), Assumptions: c.n, Measured: c.m.describe(), Extrapolated: c.extrapolated(),
	}
	r.Asked, _ = shareOf(c.s)
	var err error
	if r.Fleets, err = c.fleets(); err != nil {
		return nil, err
	}
	f := cheapest(r.Fleets)
	if f == nil {
		return r, nil
	}
	if f.Tail, err = c.simulate(f, queries, calls); err != nil {
		return nil, err
	}
	build, release, live := c.build(f.Instance), c.release(f), c.live(f)
	r.Best, r.Build, r.Release, r.Live, r.Machines = f.Instance.Name, &build, &release, &live, f.Month
	days := c.n.of(monthHours) / 24
	r.Month = f.Month + days*(c.n.of(releases)*(build.Cost+release.Cost)+live.Cost) + r.Stored/1e9*c.s.Prices.Stored
	return r, nil
}

func (r *Report) best() *Fleet {
	i := slices.IndexFunc(r.Fleets, func(f *Fleet) bool { return f.Instance.Name == r.Best })
	if i < 0 {
		return nil
	}
	return r.Fleets[i]
}

// variedCalls bounds the simulations of variations.
const variedCalls = 200_000

// vary reckons again, with one assumption after the other half and twice as much.
func (r *Report) vary(s *Scenario, m *Measured, n numbers) error {
	simulated := map[string]*Tail{}
	try := func(name string, value float64) (*Range, error) {
		c := newCalculation(s, m, n.with(name, value))
		c.simulated = simulated
		v, err := c.report(s.Queries/4+100, variedCalls)
		if err != nil {
			return nil, err
		}
		if v.Best == "" {
			return &Range{Month: math.Inf(1), P99: math.Inf(1)}, nil
		}
		return &Range{v.best().Nodes, v.Month, v.best().Tail.P99}, nil
	}
	base, err := try(n[0].Name, n[0].Value)
	if err != nil {
		return err
	}
	grows := n.of(rowsExponent)
	if r.Low, err = try(rowsExponent, grows-0.1); err != nil {
		return err
	}
	if r.High, err = try(rowsExponent, grows+0.1); err != nil {
		return err
	}
	if r.Low.P99 > r.High.P99 { // where searches are extrapolated to smaller shards
		r.Low, r.High = r.High, r.Low
	}
	if math.IsInf(r.Low.Month, 1) || math.IsInf(r.High.Month, 1) {
		r.Low, r.High = nil, nil
	}
	part := func(a, b float64) float64 {
		if math.IsInf(a, 1) || b == 0 {
			return cannotBe
		}
		return a/b - 1
	}
	for _, a := range n {
		low, high := a.varied()
		if a.fixed || low == high {
			continue
		}
		v := Sensitivity{Name: a.Name, Half: low, Twice: high}
		half, err := try(a.Name, low)
		if err != nil {
			return err
		}
		twice, err := try(a.Name, high)
		if err != nil {
			return err
		}
		v.MonthHalf, v.MonthTwo = part(half.Month, base.Month), part(twice.Month, base.Month)
		v.P99Half, v.P99Two = part(half.P99, base.P99), part(twice.P99, base.P99)
		r.Sensitivity = append(r.Sensitivity, v)
	}
	slices.SortStableFunc(r.Sensitivity, func(a, b Sensitivity) int { return cmp.Compare(round2(b.most()), round2(a.most())) })
	return nil
}

// cannotBe stands for a change to what no instance can do.
const cannotBe = 1e6

// describe says what was measured.
func (m *Measured) describe() string {
	return fmt.Sprintf("%s, %d processors, of which others took %s meanwhile; by %s", m.Machine, m.Processors, text(m.Others), m.Command)
}

// extrapolated says what is far from what was measured.
func (c *calculation) extrapolated() (list []string) {
	_, expected := shareOf(c.s)
	from := c.m.near(c.s.appRows(), float64(expected))
	if times := c.s.appRows() / float64(from.Rows); times > 2 || times < 0.5 {
		list = append(list, fmt.Sprintf("searches of shards of %s rows, from shards of %s", text(c.s.appRows()), text(float64(from.Rows))))
	}
	if times := float64(expected) / float64(from.Expected); times > 2 || times < 0.5 {
		list = append(list, fmt.Sprintf("searches that are to find %d rows, from those that find %d", expected, from.Expected))
	}
	if c.s.Dim != c.m.Dim {
		list = append(list, fmt.Sprintf("searches and builds of %d dimensions, from %d", c.s.Dim, c.m.Dim))
	}
	if c.s.Recall != c.m.Target {
		list = append(list, fmt.Sprintf("searches at a recall of %v, from %v", c.s.Recall, c.m.Target))
	}
	last := c.m.Builds[len(c.m.Builds)-1]
	if rows := max(c.s.appRows(), c.s.userRows()); rows > 2*float64(last.Apps+last.Users) {
		list = append(list, fmt.Sprintf("builds of shards of %s rows, from %s", text(rows), text(float64(last.Apps+last.Users))))
	}
	return list
}

// two returns a number to two digits, which is as exact as any of these is.
func two(v float64) float64 {
	out, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', 2, 64), 64)
	if err != nil {
		return v
	}
	return out
}

// round2 returns a part to whole percents.
func round2(v float64) float64 { return math.Round(100*v) / 100 }

// text writes a number to two digits, with its thousands.
func text(v float64) string {
	if v = two(v); v >= 1000 {
		return wording.Count(int64(v))
	}
	return strconv.FormatFloat(v, 'f', -1, 64)
}

// bytesText writes bytes to two digits.
func bytesText(v float64) string {
	for _, unit := range []string{"bytes", "KiB", "MiB", "GiB"} {
		if two(v) < 1024 {
			return text(v) + " " + unit
		}
		v /= 1024
	}
	return text(v) + " TiB"
}

// part writes a change.
func partText(v float64) string {
	switch p := math.Round(100 * v); {
	case v == cannotBe:
		return "cannot be"
	case p == 0:
		return "-"
	default:
		return fmt.Sprintf("%+.0f%%", p)
	}
}

// rows writes rows of a table.
type rows struct {
	t   *wording.Table
	err error
}

func (r *rows) row(cells ...string) {
	if r.err == nil {
		_, r.err = fmt.Fprintln(r.t, strings.Join(cells, "\t"))
	}
}

// WriteTable writes the report for people.
func (r *Report) WriteTable(w io.Writer) error {
	s := r.Scenario
	t := &rows{t: wording.NewTable(w)}
	t.row(fmt.Sprintf("%s apps and %s users of %d %s components, %s of apps and %d of users, %d attributes and %d, %s of each shard in %s",
		text(float64(s.Apps)), text(float64(s.Users)), s.Dim, s.Element, wording.Plural(r.Shards, "shard"), r.UserShards, len(s.AppAttributes), len(s.UserAttributes), wording.Plural(s.Replicas, "replica"), wording.Plural(s.Zones, "zone")))
	t.row(fmt.Sprintf("%s queries a second for %d candidates at a recall of %v; each shard is asked for %d rows", text(s.QPS), s.K, s.Recall, r.Asked))
	t.row()
	t.row("bytes", "an app shard", "a user shard", "a snapshot")
	for _, part := range []struct {
		name string
		of   func(Bytes) float64
	}{
		{"vectors", func(b Bytes) float64 { return b.Vectors }}, {"codes", func(b Bytes) float64 { return b.Codes }}, {"links", func(b Bytes) float64 { return b.Links }},
		{"ids", func(b Bytes) float64 { return b.IDs }}, {"attributes by row", func(b Bytes) float64 { return b.Values }}, {"bitmaps and ranges", func(b Bytes) float64 { return b.Bitmaps }},
		{"all: on disk, mapped, and in memory", Bytes.All},
	} {
		a, u := part.of(r.AppShard), part.of(r.UserShard)
		t.row(part.name, bytesText(a), bytesText(u), bytesText(float64(r.Shards)*a+float64(r.UserShards)*u))
	}
	t.row("rows", text(r.AppRows), text(r.UserRows), "")
	t.row("all replicas", "", "", bytesText(r.Replicated))
	t.row()
	t.row("instance", "nodes", "by memory", "by CPU", "routers", "a node maps", "at a switch", "of", "busy", "most QPS", "searches/s a node", "a month")
	for _, f := range r.Fleets {
		if f.Cannot != "" {
			t.row(f.Instance.Name, f.Cannot)
			continue
		}
		fits := bytesText(f.HeldBoth)
		if !f.Fits {
			fits += ": DOES NOT FIT"
		}
		t.row(f.Instance.Name, fmt.Sprint(f.Nodes), fmt.Sprint(f.ByMemory), fmt.Sprint(f.ByCPU), fmt.Sprint(f.Routers), bytesText(f.Held), fits, bytesText(f.Usable),
			fmt.Sprintf("%.0f%%", 100*f.Busy), text(f.MostQPS), text(f.SearchesANode), text(f.Month))
	}
	t.row()
	if f := r.best(); f == nil {
		t.row("No instance will do.")
	} else {
		r.writeBest(t, f)
	}
	t.row("What is reckoned with", "value", "", "source")
	for _, a := range r.Assumptions {
		t.row(a.Name, strings.TrimSpace(fmt.Sprintf("%v %s", a.Value, a.Unit)), a.What, a.Source)
	}
	t.row()
	t.row("Times: " + r.Measured)
	for _, e := range r.Extrapolated {
		t.row("Extrapolated: " + e)
	}
	if t.err == nil {
		t.err = t.t.Flush()
	}
	return t.err
}

// writeBest writes what is of the instance that costs least.
func (r *Report) writeBest(t *rows, f *Fleet) {
	t.row("On " + f.Instance.Name + ":")
	t.row("CPU of a query", fmt.Sprintf("%s µs of nodes, %s of them for each shard; %s µs of a router", text(f.NodeCPU), text(f.SearchCPU), text(f.RouterCPU)))
	if f.Tail.Overloaded {
		t.row("latency at a router", "OVERLOADED: queries come faster than they are answered")
	} else {
		t.row("latency at a router", fmt.Sprintf("p50 %s ms, p99 %s ms, p99.9 %s ms; of one shard p50 %s ms, p99 %s ms; %s%% of queries hedge (%s simulated)",
			text(f.Tail.P50), text(f.Tail.P99), text(f.Tail.P999), text(f.Tail.CallP50), text(f.Tail.CallP99), text(100*f.Tail.Hedged), wording.Count(f.Tail.Queries)))
	}
	if r.Low != nil && r.High != nil {
		t.row("if searches grow otherwise with rows", fmt.Sprintf("%d to %d nodes, p99 %s to %s ms, a month %s to %s (power of rows less or more by 0.1)",
			min(r.Low.Nodes, r.High.Nodes), max(r.Low.Nodes, r.High.Nodes), text(r.Low.P99), text(r.High.P99), text(min(r.Low.Month, r.High.Month)), text(max(r.Low.Month, r.High.Month))))
	}
	t.row("build", fmt.Sprintf("%s CPU hours to partition, %s for the shards; %s machine hours, of which %s upload: %s", text(r.Build.PartitionCPU), text(r.Build.ShardsCPU), text(r.Build.MachineHours), text(r.Build.UploadHours), text(r.Build.Cost)))
	cost := func(s *Store) string {
		if !r.Scenario.Prices.given() {
			return "no prices of the store were given"
		}
		return text(s.Cost)
	}
	t.row("release", fmt.Sprintf("%s uploaded, %s downloaded in %s minutes a node, %s requests: %s", bytesText(r.Release.Uploaded), bytesText(r.Release.Loaded), text(r.Release.Minutes), text(r.Release.Requests), cost(r.Release)))
	t.row("logs, a day", fmt.Sprintf("%s reads, %s writes, %s downloaded: %s", text(r.Live.Reads), text(r.Live.Writes), bytesText(r.Live.Loaded), cost(r.Live)))
	t.row("kept in the store", bytesText(r.Stored))
	t.row("a month", fmt.Sprintf("%s, of which machines that serve %s", text(r.Month), text(r.Machines)))
	t.row()
	if len(r.Sensitivity) > 0 {
		t.row("If it is half or twice as much (powers: 0.1 less or more)", "half", "a month", "p99", "twice", "a month", "p99")
		for _, v := range r.Sensitivity {
			t.row(v.Name, text(v.Half), partText(v.MonthHalf), partText(v.P99Half), text(v.Twice), partText(v.MonthTwo), partText(v.P99Two))
		}
		t.row()
	}
}

// WriteJSON writes the report as JSON.
func (r *Report) WriteJSON(w io.Writer) error { return wording.WriteJSON(w, r) }

// WriteSummary writes a table of several reports, one beside the other.
func WriteSummary(w io.Writer, list []*Report) error {
	if len(list) == 0 {
		return errors.New("there are no reports")
	}
	t := &rows{t: wording.NewTable(w)}
	line := func(name string, of func(r *Report) string) {
		cells := []string{name}
		for _, r := range list {
			cells = append(cells, of(r))
		}
		t.row(cells...)
	}
	best := func(of func(r *Report, f *Fleet) string) func(r *Report) string {
		return func(r *Report) string {
			f := r.best()
			if f == nil {
				return "cannot be"
			}
			return of(r, f)
		}
	}
	line("apps", func(r *Report) string { return text(float64(r.Scenario.Apps)) })
	line("users", func(r *Report) string { return text(float64(r.Scenario.Users)) })
	line("shards of apps, of users", func(r *Report) string { return fmt.Sprintf("%d, %d", r.Shards, r.UserShards) })
	line("rows of an app shard", func(r *Report) string { return text(r.AppRows) })
	line("an app shard", func(r *Report) string { return bytesText(r.AppShard.All()) })
	line("a snapshot", func(r *Report) string { return bytesText(r.Snapshot) })
	line("all replicas", func(r *Report) string { return bytesText(r.Replicated) })
	line("instance", best(func(r *Report, _ *Fleet) string { return r.Best }))
	line("nodes", best(func(_ *Report, f *Fleet) string { return fmt.Sprint(f.Nodes) }))
	line("by memory, by CPU", best(func(_ *Report, f *Fleet) string { return fmt.Sprintf("%d, %d", f.ByMemory, f.ByCPU) }))
	line("routers", best(func(_ *Report, f *Fleet) string { return fmt.Sprint(f.Routers) }))
	line("a node maps, at a switch", best(func(_ *Report, f *Fleet) string { return bytesText(f.Held) + ", " + bytesText(f.HeldBoth) }))
	line("CPU of a query, µs", best(func(_ *Report, f *Fleet) string { return text(f.NodeCPU + f.RouterCPU) }))
	line("p50, p99, p99.9, ms", best(func(_ *Report, f *Fleet) string {
		if f.Tail.Overloaded {
			return "overloaded"
		}
		return strings.Join([]string{text(f.Tail.P50), text(f.Tail.P99), text(f.Tail.P999)}, ", ")
	}))
	line("build, machine hours", best(func(r *Report, _ *Fleet) string { return text(r.Build.MachineHours) }))
	line("a release uploads, downloads", best(func(r *Report, _ *Fleet) string {
		return bytesText(r.Release.Uploaded) + ", " + bytesText(r.Release.Loaded)
	}))
	line("reads of logs, a day", best(func(r *Report, _ *Fleet) string { return text(r.Live.Reads) }))
	line("a month", best(func(r *Report, _ *Fleet) string { return text(r.Month) }))
	if t.err == nil {
		t.err = t.t.Flush()
	}
	return t.err
}
