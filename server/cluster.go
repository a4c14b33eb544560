package server

import (
	"encoding/hex"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"

	shardv1 "github.com/tandem-ann/tandem/api/tandem/shard/v1"
	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/metrics"
	"github.com/tandem-ann/tandem/server/router"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard"
)

// What a status tells of at most: of all of a large cluster it would be too long.
const (
	toldNodes  = 256 // unless more are asked for
	allNodes   = 10_000
	toldShards = 64
	toldText   = 500 // bytes of why something is so
)

// clusterStatus is what a router knows of its nodes, up to most of them, and if it is asked for what
// each holds; nil where there is none.
func (s *Service) clusterStatus(most int, held bool) *tandemv1.ClusterStatus {
	if s.router == nil {
		return nil
	}
	c := s.router.Look()
	n := countCluster(&c)
	out := &tandemv1.ClusterStatus{
		Replicas: uint32(c.Replicas), NodeCount: uint32(len(c.Nodes)), ShardCount: uint32(n.Shards), ShortCount: uint32(n.Short),
		UncoveredCount: uint32(n.Uncovered), Lag: durationpb.New(c.Lag),
		Requests: &tandemv1.ClusterRequests{
			Retries: uint64(n.Retries), DeniedRetries: uint64(n.DeniedRetries), Hedges: uint64(n.Hedges), HedgesWon: uint64(n.HedgesWon), Ejections: uint64(n.Ejections),
		},
	}
	if text := s.unlisted.Load(); text != nil {
		out.MembersError = shortText(*text)
	}
	for _, i := range chosen(c.Nodes, most) {
		node := nodeStatus(&c.Nodes[i])
		if held {
			node.Held = heldStatus(c.Nodes[i].Status)
		}
		out.Nodes = append(out.Nodes, node)
	}
	for _, one := range c.Shards { // those with the fewest come first
		if one.Ready >= c.Replicas || len(out.Short) == toldShards {
			break
		}
		tower := tandemv1.Tower_TOWER_APPS
		if one.Of.Tower == shard.Users {
			tower = tandemv1.Tower_TOWER_USERS
		}
		out.Short = append(out.Short, &tandemv1.ClusterShard{
			Snapshot: string(one.Of.Snapshot), Tower: tower, Number: uint32(one.Of.Number), Ready: uint32(one.Ready), Why: shortText(one.Why),
		})
	}
	return out
}

// chosen returns which nodes are told of where that is most of them: first those that somebody has
// to look at. They are in the order of the list.
func chosen(nodes []router.Node, most int) (list []int) {
	var others []int
	for i := range nodes {
		if nodeState(&nodes[i]) != tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY || nodes[i].Lag > 0 {
			list = append(list, i)
		} else {
			others = append(others, i)
		}
	}
	list = list[:min(len(list), most)]
	list = append(list, others[:min(len(others), most-len(list))]...)
	slices.Sort(list)
	return list
}

// heldStatus is what a node says that it holds.
func heldStatus(s *shardv1.NodeStatus) (list []*tandemv1.ClusterHeld) {
	for _, snapshot := range s.GetSnapshots() {
		of := &tandemv1.ClusterHeld{Snapshot: shortText(snapshot.GetSnapshot())}
		for _, h := range snapshot.GetShards() {
			one := &tandemv1.ClusterHeldShard{
				Tower: h.GetTower(), Number: h.GetNumber(), State: heldState(h.GetState()), Error: shortText(h.GetError()),
				Rows: h.GetRows(), Changed: h.GetChanged(), Dead: h.GetDead(), Fresh: h.GetFresh(),
			}
			if one.State == tandemv1.ClusterHeldState_CLUSTER_HELD_STATE_READY {
				one.Position = &tandemv1.LivePosition{Log: shortText(h.GetLog()), Sequence: h.GetNewest()}
			}
			of.Shards = append(of.Shards, one)
		}
		list = append(list, of)
	}
	return list
}

func heldState(s shardv1.HeldState) tandemv1.ClusterHeldState {
	switch s {
	case shardv1.HeldState_HELD_STATE_READY:
		return tandemv1.ClusterHeldState_CLUSTER_HELD_STATE_READY
	case shardv1.HeldState_HELD_STATE_FAILED:
		return tandemv1.ClusterHeldState_CLUSTER_HELD_STATE_FAILED
	}
	return tandemv1.ClusterHeldState_CLUSTER_HELD_STATE_LOADING
}

// shortText returns the beginning of a text that others have written.
func shortText(text string) string { return strings.ToValidUTF8(cut(text, toldText), "\ufffd") }

// nodeState is what a router makes of a node.
func nodeState(n *router.Node) tandemv1.ClusterNodeState {
	switch {
	case n.Status == nil:
		return tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_LOST
	case n.Out:
		return tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_OUT
	case n.Leaving || n.Status.GetPhase() == shardv1.NodePhase_NODE_PHASE_STOPPING:
		return tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_STOPPING
	case n.Status.GetPhase() == shardv1.NodePhase_NODE_PHASE_READY:
		return tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY
	}
	return tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_STARTING
}

func nodeStatus(n *router.Node) *tandemv1.ClusterNode {
	out := &tandemv1.ClusterNode{
		Name: n.Name, Address: n.Address, Zone: n.Zone, State: nodeState(n),
		InFlight: n.Status.GetLoad().GetInFlight(), MappedBytes: n.Status.GetMapped(), MemoryLimit: n.Status.GetWeight(), Generation: n.Status.GetGeneration(),
		Replicas: n.Status.GetReplicas(), Read: n.Status.GetRead(), Entry: hex.EncodeToString(n.Status.GetEntry()),
	}
	if zone := n.Status.GetZone(); out.Zone == "" {
		out.Zone = shortText(zone)
	}
	if n.Status == nil && n.Err != nil {
		out.Error = shortText(n.Err.Error())
	}
	for _, snapshot := range n.Status.GetSnapshots() {
		for _, h := range snapshot.GetShards() {
			switch h.GetState() {
			case shardv1.HeldState_HELD_STATE_READY:
				out.ReadyShards++
			case shardv1.HeldState_HELD_STATE_FAILED:
				out.FailedShards++
			default:
				out.LoadingShards++
			}
		}
	}
	if n.Has {
		out.Position, out.Lag = wire.LivePosition(n.Position), durationpb.New(n.Lag)
	}
	return out
}

// measureCluster counts what a router knows of its nodes; nil where there is none.
func (s *Service) measureCluster() *metrics.Cluster {
	if s.router == nil {
		return nil
	}
	c := s.router.Look()
	out := countCluster(&c)
	out.Unlisted = s.unlisted.Load() != nil
	return out
}

func countCluster(c *router.Cluster) *metrics.Cluster {
	out := &metrics.Cluster{
		Shards: len(c.Shards), Lag: c.Lag, Retries: c.Counts.Retries, DeniedRetries: c.Counts.Denied,
		Hedges: c.Counts.Hedges, HedgesWon: c.Counts.HedgesWon, Ejections: c.Counts.Ejected,
	}
	for i := range c.Nodes {
		switch nodeState(&c.Nodes[i]) {
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_READY:
			out.Ready++
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_STARTING:
			out.Starting++
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_STOPPING:
			out.Stopping++
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_LOST:
			out.Lost++
		case tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_OUT:
			out.Out++
		}
	}
	for _, one := range c.Shards {
		if one.Ready < c.Replicas {
			out.Short++
		}
		if one.Ready == 0 {
			out.Uncovered++
		}
	}
	return out
}
