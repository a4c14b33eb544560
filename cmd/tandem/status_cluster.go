package main

import (
	"fmt"
	"strings"

	tandemv1 "github.com/tandem-ann/tandem/api/tandem/v1"
	"github.com/tandem-ann/tandem/server/judge"
	"github.com/tandem-ann/tandem/server/wire"
	"github.com/tandem-ann/tandem/shard/wording"
)

// shownNodes and shownShort are how many nodes and short shards a screen has of a router.
const shownNodes, shownShort = 16, 4

// clusterLines are what there is to see of the nodes of a router, nothing of other servers.
func clusterLines(c *tandemv1.ClusterStatus) (list [][2]string) {
	if c == nil {
		return nil
	}
	asked := "asked at the newest position"
	if lag := c.Lag.AsDuration(); lag > 0 {
		asked = fmt.Sprintf("asked at a position that is %s behind", wording.Seconds(lag))
	}
	list = append(list, [2]string{"shards", fmt.Sprintf("%d, %d with fewer than %s ready, %d with none; %s",
		c.ShardCount, c.ShortCount, wording.Plural(int64(c.Replicas), "node"), c.UncoveredCount, asked)})
	if len(c.Short) > 0 {
		list = append(list, [2]string{"short", judge.ShortShards(c, shownShort)})
	}
	r := c.Requests
	list = append(list, [2]string{"requests", fmt.Sprintf("beside one to each shard: %s retried, %s not for want of a budget, %s hedged, %s of them faster; nodes left alone %s times",
		wording.Count(int64(r.GetRetries())), wording.Count(int64(r.GetDeniedRetries())), wording.Count(int64(r.GetHedges())), wording.Count(int64(r.GetHedgesWon())),
		wording.Count(int64(r.GetEjections())))})
	for i, n := range c.Nodes[:min(len(c.Nodes), shownNodes)] {
		name := ""
		if i == 0 {
			name = "nodes"
		}
		list = append(list, [2]string{name, nodeText(n)})
	}
	if more := int(c.NodeCount) - shownNodes; more > 0 {
		list = append(list, [2]string{"", fmt.Sprintf("and %d more", more)})
	}
	return list
}

func nodeText(n *tandemv1.ClusterNode) string {
	text := n.Address
	if n.Name != n.Address {
		text += " " + n.Name
	}
	if n.Zone != "" {
		text += " in " + n.Zone
	}
	text += ", " + strings.ToLower(strings.TrimPrefix(n.State.String(), "CLUSTER_NODE_STATE_"))
	if n.State == tandemv1.ClusterNodeState_CLUSTER_NODE_STATE_LOST {
		return text + judge.Because(n.Error)
	}
	text += fmt.Sprintf(", %s ready", wording.Plural(int64(n.ReadyShards), "shard"))
	if n.LoadingShards > 0 {
		text += fmt.Sprintf(", %d loading", n.LoadingShards)
	}
	if n.FailedShards > 0 {
		text += fmt.Sprintf(", %d FAILED", n.FailedShards)
	}
	if n.Position != nil {
		text += ", position " + wire.Position(n.Position).String()
		if lag := n.Lag.AsDuration(); lag > 0 {
			text += fmt.Sprintf(", %s behind", wording.Seconds(lag))
		}
	}
	return text + fmt.Sprintf(", %s of %s mapped, %s", wording.Bytes(int64(n.MappedBytes)), wording.Bytes(int64(n.MemoryLimit)), wording.Plural(int64(n.InFlight), "request"))
}
