package capacity

import (
	"cmp"
	"fmt"

	"github.com/tandem-ann/tandem/bench/capacity/tail"
)

// Shared is what a cluster takes whose processes share one machine with who asks: no fleet is like
// that, but it can be held against what is measured on one machine.
type Shared struct {
	// AppShard and UserShard are bytes of a shard, Memory what all processes have in memory.
	AppShard  Bytes   `json:"app_shard"`
	UserShard Bytes   `json:"user_shard"`
	Memory    float64 `json:"memory"`
	// PartitionCPU and ShardsCPU are seconds of processors that a build takes.
	PartitionCPU float64 `json:"partition_cpu"`
	ShardsCPU    float64 `json:"shards_cpu"`
	// NodeCPU, RouterCPU and ClientCPU are what a query takes, in microseconds of a processor, and P50,
	// P90 and P99 how long it takes, in milliseconds.
	NodeCPU   float64 `json:"node_cpu"`
	RouterCPU float64 `json:"router_cpu"`
	ClientCPU float64 `json:"client_cpu"`
	P50       float64 `json:"p50_ms"`
	P90       float64 `json:"p90_ms"`
	P99       float64 `json:"p99_ms"`
}

// PlanShared returns what a scenario takes of one router and as many nodes as there are shards of apps,
// each with one of them and one of users, on a machine of so many processors. Replicas, zones and
// instances say nothing here, and each query is by the id of a user.
func PlanShared(s *Scenario, o Options, processors int) (*Shared, error) {
	m := cmp.Or(o.Measured, Default())
	if err := m.Validate(); err != nil {
		return nil, fmt.Errorf("what was measured: %w", err)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if s.userShards() != s.shards() {
		return nil, fmt.Errorf("there are %d shards of users, want as many as of apps, %d", s.userShards(), s.shards())
	}
	n := numbers(assumptions(m))
	if err := n.assume(o.Assume); err != nil {
		return nil, err
	}
	n = n.with(byID, 1)
	c := newCalculation(s, m, n)
	f := &Fleet{Instance: Instance{VCPU: processors}, Routers: 1}
	nodes := int(s.shards())
	c.loads(f, nodes)
	built := c.build(Instance{VCPU: processors})
	out := &Shared{
		AppShard: c.apps, UserShard: c.users, Memory: c.snapshot() + float64(nodes)*m.NodeBytes + m.RouterBytes,
		PartitionCPU: 3600 * built.PartitionCPU, ShardsCPU: 3600 * built.ShardsCPU,
		NodeCPU: f.NodeCPU, RouterCPU: f.RouterCPU, ClientCPU: 1e6 * c.steps(s.QPS).Client,
	}
	one := tail.Cluster{Cores: []int{processors}, Routers: []int{0}, Client: 0, Wake: tail.Times(m.Wake).Scaled(n.of(wakeFactor) / 1e6)}
	for i := range nodes {
		one.Nodes = append(one.Nodes, 0)
		one.Shards, one.Users = append(one.Shards, []int{i}), append(one.Users, []int{i})
	}
	work := f.work
	work.Client = out.ClientCPU / 1e6
	r, err := tail.Simulate(one, work, tail.Load{Rate: s.QPS, Queries: s.Queries, Again: n.of(againShare), Seed: s.Seed})
	if err != nil {
		return nil, err
	}
	out.P50, out.P90, out.P99 = 1e3*r.Latency.At(0.5), 1e3*r.Latency.At(0.9), 1e3*r.Latency.At(0.99)
	return out, nil
}
