package metrics

// clusterSeries are those of a router beside those of other servers.
const clusterSeries = 5 + 3 + 2 + 4 + 1

func clusterMetrics() []stateMetric {
	has := func(s *State) bool { return s.Cluster != nil }
	cluster := func(name, help string, value func(*Cluster) float64) stateMetric {
		return gauge(name, help, has, func(s *State) float64 { return value(s.Cluster) })
	}
	ejections := cluster("tandem_node_ejections_total", "Times that a node failed several requests in a row and was left alone.", func(c *Cluster) float64 { return float64(c.Ejections) })
	ejections.counter = true
	return []stateMetric{
		{
			name: "tandem_nodes", labels: []string{"state"},
			help: "Nodes that a router knows, by what it makes of them: ready, starting, stopping, lost, or out, which is left alone.",
			values: func(s *State, set setter) {
				if c := s.Cluster; c != nil {
					set(float64(c.Ready), "ready")
					set(float64(c.Starting), "starting")
					set(float64(c.Stopping), "stopping")
					set(float64(c.Lost), "lost")
					set(float64(c.Out), "out")
				}
			},
		},
		cluster("tandem_cluster_shards", "Shards of the snapshots that a router has open, in both towers.", func(c *Cluster) float64 { return float64(c.Shards) }),
		cluster("tandem_short_shards", "Shards of those that fewer nodes are ready for than there are to be.", func(c *Cluster) float64 { return float64(c.Short) }),
		cluster("tandem_uncovered_shards", "Shards of those that no node is ready for: queries fail, or lack their rows.", func(c *Cluster) float64 { return float64(c.Uncovered) }),
		cluster("tandem_cluster_lag_seconds", "For how long there has been a newer position of the live log than that which nodes are asked at, in seconds; 0 if they are asked at the newest.", func(c *Cluster) float64 { return c.Lag.Seconds() }),
		cluster("tandem_members_failing", "Whether something is wrong with who lists the nodes, 0 or 1; those that are known stay.", func(c *Cluster) float64 { return number(c.Unlisted) }),
		{
			name: "tandem_replica_requests_total", labels: []string{"kind"}, counter: true,
			help: "Requests to nodes beside one to one replica of each shard: retry and hedge, with hedge_won for those that were faster, and retry_denied for those that the budget did not allow.",
			values: func(s *State, set setter) {
				if c := s.Cluster; c != nil {
					set(float64(c.Retries), "retry")
					set(float64(c.DeniedRetries), "retry_denied")
					set(float64(c.Hedges), "hedge")
					set(float64(c.HedgesWon), "hedge_won")
				}
			},
		},
		ejections,
	}
}
