package capacity

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tandem-ann/tandem/bench/capacity/tail"
	"github.com/tandem-ann/tandem/server/placement"
	"github.com/tandem-ann/tandem/shard"
	"github.com/tandem-ann/tandem/shard/wording"
)

// Fleet is what one kind of instance makes of a scenario.
type Fleet struct {
	Instance Instance `json:"instance"`
	// Cannot is why it cannot be, empty if it can: then nothing else is set.
	Cannot string `json:"cannot,omitempty"`
	// ByMemory and ByCPU are how many nodes either takes, and Nodes how many there are.
	ByMemory int `json:"by_memory"`
	ByCPU    int `json:"by_cpu"`
	Nodes    int `json:"nodes"`
	Routers  int `json:"routers"`
	// Usable is what a node may map, Held what the fullest one maps, and HeldBoth what it maps while
	// it has the shards of an old and of a new snapshot.
	Usable   float64 `json:"usable"`
	Held     float64 `json:"held"`
	HeldBoth float64 `json:"held_both"`
	// Fits is whether an old and a new snapshot fit at a switch.
	Fits bool `json:"fits"`
	// SearchCPU is what a search of one shard takes a node with its call, NodeCPU and RouterCPU
	// what a query takes of all nodes and of its router, in microseconds of a vcpu.
	SearchCPU float64 `json:"search_cpu"`
	NodeCPU   float64 `json:"node_cpu"`
	RouterCPU float64 `json:"router_cpu"`
	// Busy is the share of the processors of nodes that is at work at the peak, and BusyRouters that
	// of routers.
	Busy        float64 `json:"busy"`
	BusyRouters float64 `json:"busy_routers"`
	// MostQPS is how many queries a second the nodes answer at the utilisation that is assumed, with a
	// zone lost if there are several, and SearchesANode how many searches one of them.
	MostQPS       float64 `json:"most_qps"`
	SearchesANode float64 `json:"searches_a_node"`
	// Month is what nodes and routers cost.
	Month float64 `json:"month"`
	// Tail is how long queries take, of the cheapest fleet only.
	Tail *Tail `json:"tail,omitempty"`

	plan *placement.Plan
	work tail.Work
}

// Tail is how long queries take at the router, in milliseconds.
type Tail struct {
	P50        float64 `json:"p50_ms"`
	P99        float64 `json:"p99_ms"`
	P999       float64 `json:"p999_ms"`
	CallP50    float64 `json:"call_p50_ms"`
	CallP99    float64 `json:"call_p99_ms"`
	Hedged     float64 `json:"hedged"` // share of queries with a hedge
	Queries    int     `json:"queries"`
	Overloaded bool    `json:"overloaded"`
}

// search returns the times of a search of a shard, in seconds of a vcpu, without its call.
func (c *calculation) search() tail.Times {
	_, expected := shareOf(c.s)
	rows := c.s.appRows()
	from := c.m.near(rows, float64(expected))
	by := math.Pow(rows/float64(from.Rows), c.n.of(rowsExponent)) * math.Pow(float64(expected)/float64(from.Expected), c.n.of(askedExponent))
	by *= math.Pow((1-c.m.Target)/(1-c.s.Recall), c.n.of(recallPower))
	by *= (1 + c.n.of(dimCost)*float64(c.s.Dim)) / (1 + c.n.of(dimCost)*float64(c.m.Dim))
	by *= c.n.of(filterFactor) / c.n.of(coreSpeed)
	return tail.Times(from.Times).Scaled(by / 1e6)
}

// steps returns the steps of a process that is asked so often, in seconds of a vcpu.
func (c *calculation) steps(rate float64) Steps {
	s := c.m.at(rate)
	by := c.n.of(callFactor) / c.n.of(coreSpeed) / 1e6
	return Steps{rate, s.NodeCall * by, s.NodeLookup * by, s.RouterCall * by, s.RouterQuery * by, s.Client * by}
}

// spare is by how much more there must be for a zone to be lost.
func (c *calculation) spare() float64 {
	if c.s.Zones < 2 || c.s.Replicas < 2 {
		return 1
	}
	zones := float64(min(c.s.Zones, c.s.Replicas))
	return zones / (zones - 1)
}

// calculation is one scenario with the numbers that it is reckoned with.
type calculation struct {
	s *Scenario
	m *Measured
	n numbers
	// apps and users are the sizes of a shard of each.
	apps, users Bytes
	// simulated has what was simulated before, by all that it is of: most assumptions change nothing
	// of it.
	simulated map[string]*Tail
}

func newCalculation(s *Scenario, m *Measured, n numbers) *calculation {
	return &calculation{
		s: s, m: m, n: n, simulated: map[string]*Tail{},
		apps:  sizeOf(s.appRows(), s, s.AppAttributes, s.Segments, n.of(idBytes)),
		users: sizeOf(s.userRows(), s, s.UserAttributes, 0, n.of(idBytes)),
	}
}

// snapshot returns what one snapshot takes.
func (c *calculation) snapshot() float64 {
	return float64(c.s.shards())*c.apps.All() + float64(c.s.userShards())*c.users.All()
}

// members are so many nodes of an instance, by zones in turn.
func (c *calculation) members(nodes int, usable float64) []placement.Member {
	list := make([]placement.Member, nodes)
	for i := range list {
		list[i] = placement.Member{Name: fmt.Sprintf("node-%d", i), Zone: fmt.Sprint(i % c.s.Zones), Weight: int64(usable)}
	}
	return list
}

// shards are those of both towers, of so many snapshots.
func (c *calculation) shards(snapshots float64) []placement.Shard {
	var list []placement.Shard
	for i := range c.s.shards() {
		list = append(list, placement.Shard{Key: fmt.Sprintf("%s/%d", shard.Apps, i), Bytes: int64(c.apps.All() * snapshots)})
	}
	for i := range c.s.userShards() {
		list = append(list, placement.Shard{Key: fmt.Sprintf("%s/%d", shard.Users, i), Bytes: int64(c.users.All() * snapshots)})
	}
	return list
}

// byMemory returns the least number of nodes that hold all replicas of an old and a new snapshot.
func (c *calculation) byMemory(usable float64) (nodes int, why string, err error) {
	largest := 2 * max(c.apps.All(), c.users.All())
	if largest > usable {
		return 0, fmt.Sprintf("a shard of an old and a new snapshot takes %s, of %s that a node may map: want more shards", bytesText(largest), bytesText(usable)), nil
	}
	for n := max(c.s.Replicas, c.s.Zones, int(math.Ceil(2*c.snapshot()*float64(c.s.Replicas)/usable))); n <= maxNodes; n += max(1, n/50) {
		plan, err := placement.Place(c.members(n, usable), c.shards(2), c.s.Replicas)
		if err != nil {
			return 0, "", err
		}
		if len(plan.Short()) == 0 {
			return n, "", nil
		}
	}
	return 0, fmt.Sprintf("more than %d nodes would be needed to hold all replicas", maxNodes), nil
}

// fleet returns what an instance makes of the scenario.
func (c *calculation) fleet(i Instance) (*Fleet, error) {
	f := &Fleet{Instance: i}
	f.Usable = float64(i.Memory)*c.n.of(memoryShare) - c.n.of(heapBytes)*(1<<20) - c.m.NodeBytes
	if f.Usable < 1 {
		f.Cannot = fmt.Sprintf("of %s of memory nothing is left to map", bytesText(float64(i.Memory)))
		return f, nil
	}
	var err error
	if f.ByMemory, f.Cannot, err = c.byMemory(f.Usable); err != nil {
		return nil, err
	}
	if f.Cannot != "" && c.s.Nodes == 0 {
		return f, nil
	}
	f.Cannot = ""
	if err := c.processors(f); errors.Is(err, errTooMany) {
		f.Cannot = err.Error()
		return f, nil
	} else if err != nil {
		return nil, err
	}
	f.Nodes = max(f.ByMemory, f.ByCPU)
	if c.s.Nodes > 0 {
		f.Nodes = c.s.Nodes
	}
	c.loads(f, f.Nodes)
	if f.plan, err = placement.Place(c.members(f.Nodes, f.Usable), c.shards(2), c.s.Replicas); err != nil {
		return nil, err
	}
	f.Fits = len(f.plan.Short()) == 0
	for _, l := range f.plan.Loads() {
		f.HeldBoth = max(f.HeldBoth, float64(l.Bytes))
	}
	f.Held = f.HeldBoth / 2
	if !f.Fits {
		if f.plan, err = placement.Place(c.members(f.Nodes, f.Usable), c.shards(1), c.s.Replicas); err != nil {
			return nil, err
		}
		if n := len(f.plan.Short()); n > 0 {
			f.Cannot = fmt.Sprintf("%s cannot hold all copies of %s of one snapshot", wording.Plural(f.Nodes, "node"), wording.Plural(n, "shard"))
			return f, nil
		}
		f.Held = 0
		for _, l := range f.plan.Loads() {
			f.Held = max(f.Held, float64(l.Bytes))
		}
		f.HeldBoth = 2 * f.Held
	}
	f.Month = float64(f.Nodes+f.Routers) * i.Price * c.n.of(monthHours)
	return f, nil
}

// processors finds how many nodes and routers the queries take. What a call takes depends on how
// often a process is asked, and so on how many there are.
func (c *calculation) processors(f *Fleet) error {
	busy := c.n.of(busyShare)
	f.ByCPU, f.Routers = c.s.Replicas, 2
	for range 30 {
		before := [2]int{f.ByCPU, f.Routers}
		c.loads(f, max(f.ByMemory, f.ByCPU))
		nodes := math.Ceil(c.s.QPS * f.NodeCPU / 1e6 * c.spare() / (float64(f.Instance.VCPU) * busy))
		routers := math.Ceil(c.s.QPS * f.RouterCPU / 1e6 * c.spare() / (float64(f.Instance.VCPU) * busy))
		if nodes > maxNodes || routers > maxNodes {
			return fmt.Errorf("%.3g nodes and %.3g routers would be needed for %.3g queries a second: %w", nodes, routers, c.s.QPS, errTooMany)
		}
		f.ByCPU, f.Routers = max(int(nodes), c.s.Replicas), max(int(routers), 2)
		if before == [2]int{f.ByCPU, f.Routers} {
			break
		}
	}
	return nil
}

// loads computes what queries take with so many nodes.
func (c *calculation) loads(f *Fleet, nodes int) {
	shards, lookups := float64(c.s.shards()), c.n.of(byID)
	router := c.steps(c.s.QPS / float64(f.Routers))
	node := c.steps(c.s.QPS * (shards + lookups) / float64(nodes))
	search := c.search().Plus(node.NodeCall)
	f.SearchCPU = 1e6 * search.Mean()
	f.NodeCPU = shards*f.SearchCPU + 1e6*lookups*node.NodeLookup
	f.RouterCPU = 1e6 * (router.RouterQuery + (shards+lookups)*router.RouterCall)
	vcpu := float64(f.Instance.VCPU)
	f.Busy = c.s.QPS*f.NodeCPU/1e6/(float64(nodes)*vcpu) + c.m.Beside/vcpu
	f.BusyRouters = c.s.QPS*f.RouterCPU/1e6/(float64(f.Routers)*vcpu) + c.m.Beside/vcpu
	f.MostQPS = float64(nodes) * vcpu * c.n.of(busyShare) / c.spare() / (f.NodeCPU / 1e6)
	f.SearchesANode = vcpu * c.n.of(busyShare) / (f.SearchCPU / 1e6)
	f.work = tail.Work{
		Query: router.RouterQuery, Call: router.RouterCall, Search: search, Lookup: tail.Times{node.NodeLookup}, Beside: c.m.Beside, Piece: 100e-6,
	}
}

// cluster is what is simulated of a fleet: each process has a machine of its own.
func (c *calculation) cluster(f *Fleet) tail.Cluster {
	out := tail.Cluster{Client: -1, Network: c.n.of(networkTime) / 1e3, Wake: tail.Times(c.m.Wake).Scaled(c.n.of(wakeFactor) / 1e6)}
	for i := range f.Nodes + f.Routers {
		out.Cores = append(out.Cores, f.Instance.VCPU)
		if i < f.Nodes {
			out.Nodes = append(out.Nodes, i)
		} else {
			out.Routers = append(out.Routers, i)
		}
	}
	number := map[string]int{}
	for i := range f.Nodes {
		number[fmt.Sprintf("node-%d", i)] = i
	}
	holders := map[string][]int{}
	for _, s := range f.plan.Shards() {
		for _, name := range s.Members {
			holders[s.Key] = append(holders[s.Key], number[name])
		}
	}
	for i := range c.s.shards() {
		out.Shards = append(out.Shards, holders[fmt.Sprintf("%s/%d", shard.Apps, i)])
	}
	if c.n.of(byID) > 0 {
		for i := range c.s.userShards() {
			out.Users = append(out.Users, holders[fmt.Sprintf("%s/%d", shard.Users, i)])
		}
	}
	return out
}

// mostCalls bounds queries times shards of a simulation, and leastQueries how many there are.
const (
	mostCalls    = 2_000_000
	leastQueries = 2000
)

// simulate finds how long queries take, by so many queries or fewer where there are many shards.
func (c *calculation) simulate(f *Fleet, queries, calls int) (*Tail, error) {
	if c.s.QPS*f.NodeCPU/1e6 >= float64(f.Nodes*f.Instance.VCPU) || f.BusyRouters >= 1 {
		return &Tail{Overloaded: true}, nil
	}
	n := min(queries, max(leastQueries, calls/int(c.s.shards())))
	key := fmt.Sprint(f.Nodes, f.Routers, f.Instance.VCPU, n, f.work.Query, f.work.Call, f.work.Search, f.work.Lookup,
		c.n.of(networkTime), c.n.of(wakeFactor), c.n.of(sameShare), c.n.of(againShare), c.n.of(byID), f.plan.Shards())
	if t, ok := c.simulated[key]; ok {
		return t, nil
	}
	r, err := tail.Simulate(c.cluster(f), f.work, tail.Load{Rate: c.s.QPS, Queries: n, Same: c.n.of(sameShare), Again: c.n.of(againShare), Hedge: true, Seed: c.s.Seed})
	if err != nil {
		return nil, err
	}
	t := &Tail{
		P50: 1e3 * r.Latency.At(0.5), P99: 1e3 * r.Latency.At(0.99), P999: 1e3 * r.Latency.At(0.999),
		CallP50: 1e3 * r.Call.At(0.5), CallP99: 1e3 * r.Call.At(0.99), Hedged: r.Hedged, Queries: n, Overloaded: r.Overloaded,
	}
	c.simulated[key] = t
	return t, nil
}

// cheapest returns the fleet that costs least of those that can be, nil if none can.
func cheapest(list []*Fleet) *Fleet {
	var best *Fleet
	for _, f := range list {
		if f.Cannot == "" && (best == nil || f.Month < best.Month) {
			best = f
		}
	}
	return best
}

// fleets returns what each instance makes of the scenario.
func (c *calculation) fleets() ([]*Fleet, error) {
	var list []*Fleet
	for _, i := range c.s.Instances {
		f, err := c.fleet(i)
		if err != nil {
			return nil, fmt.Errorf("instance %q: %w", i.Name, err)
		}
		list = append(list, f)
	}
	return slices.Clip(list), nil
}
